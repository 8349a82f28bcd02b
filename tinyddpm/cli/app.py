"""The command app: the library in a browser."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class App:
    """Open an app in the browser: draw, train, compare, edit."""

    port: int | None = None  # of http://127.0.0.1:PORT; None: the first free one from 2718 on
    browser: bool = True  # open it in a browser

    def run(self) -> None:
        from ..apps.server import serve

        serve(self.port, self.browser)
