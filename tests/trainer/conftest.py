import pytest

from tinyddpm.trainer import log

SAVE_PANELS = log.save_panels


@pytest.fixture(autouse=True, scope="session")
def no_plots():
    """Plots take most of the time of a small run: only tests that ask for the fixture `plots` draw them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(log, "save_panels", lambda *_: None)
        yield


@pytest.fixture
def plots(monkeypatch):
    monkeypatch.setattr(log, "save_panels", SAVE_PANELS)
