"""tinyddpm: denoising diffusion from scratch, on MNIST. Each name in __init__.pyi is imported when it is first used."""

import lazy_loader

__version__ = "0.2.0"
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
