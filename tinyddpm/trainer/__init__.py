"""Training that can be stopped and resumed, on several processes and in mixed precision: train, and the Trainer."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
