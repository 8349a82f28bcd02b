"""Chromium without a window, driven by its DevTools protocol over a websocket."""

import base64
import json
import re
import shutil
import subprocess
import time
from pathlib import Path

import imageio.v3 as iio
import pytest
import torch
import websocket

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed: apt-get install chromium")


class Browser:
    """One page. `messages` holds whatever it wrote to the console, and its errors."""

    def __init__(self, profile: Path, chromium: str | None = CHROMIUM):
        flags = ["--headless=new", "--no-sandbox", "--no-first-run", "--disable-gpu", "--hide-scrollbars"]
        where = [f"--user-data-dir={profile}", "--remote-debugging-port=0", "--remote-allow-origins=*"]
        self.log = (profile / "log").open("w+")
        self.process = subprocess.Popen([chromium, *flags, *where, "about:blank"], stderr=self.log)
        self.messages, self.last = [], 0
        self.socket = websocket.create_connection(self.address(profile / "log"), timeout=20, suppress_origin=True)
        self.session = None
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.send(f"{domain}.enable")

    def address(self, log: Path, seconds: float = 20) -> str:
        for _ in range(int(seconds / 0.05)):
            if found := re.search(r"ws://\S+", log.read_text()):
                return found[0]
            time.sleep(0.05)
        raise TimeoutError(f"Chromium did not start: {log.read_text()[-500:]}")

    def send(self, method: str, **params) -> dict:
        self.last += 1
        message = {"id": self.last, "method": method, "params": params}
        self.socket.send(json.dumps(message | ({"sessionId": self.session} if self.session else {})))
        while True:
            answer = json.loads(self.socket.recv())
            if answer.get("method") in ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded"):
                self.messages.append(answer["params"])
            if answer.get("id") == self.last:
                assert "error" not in answer, (method, answer)
                return answer["result"]

    def run(self, code: str):
        """The value of a JavaScript expression; a promise is waited for."""
        got = self.send("Runtime.evaluate", expression=code, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in got, got
        return got["result"].get("value")

    def wait(self, code: str, seconds: float = 20):
        """Until the expression is true."""
        end = time.monotonic() + seconds
        while not (value := self.run(code)):
            assert time.monotonic() < end, f"still not true after {seconds} s: {code}"
            time.sleep(0.02)
        return value

    def open(self, path: Path, width: int, height: int = 900, dark=False, still=False, touch=False) -> None:
        self.messages.clear()
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": touch}
        self.send("Emulation.setDeviceMetricsOverride", **size)
        self.send("Emulation.setTouchEmulationEnabled", enabled=touch, maxTouchPoints=1)
        wishes = {
            "prefers-color-scheme": "dark" if dark else "light",
            "prefers-reduced-motion": "reduce" if still else "no-preference",
        }
        self.send("Emulation.setEmulatedMedia", features=[{"name": n, "value": v} for n, v in wishes.items()])
        self.send("Page.navigate", url=path.resolve().as_uri())
        self.wait(f"document.readyState === 'complete' && location.href === {json.dumps(path.resolve().as_uri())}")

    def box(self, css: str) -> tuple[float, float, float, float]:
        """Left, top, width and height of an element, scrolled into sight."""
        return tuple(
            self.run(f"""(() => {{ const e = document.querySelector({json.dumps(css)});
            e.scrollIntoView({{block: "center", behavior: "instant"}});
            const b = e.getBoundingClientRect(); return [b.left, b.top, b.width, b.height]; }})()""")
        )

    def mouse(self, *points: tuple[float, float]) -> None:
        """Presses at the first point, drags through the others and lets go."""
        for k, (x, y) in enumerate(points):
            kind = "mousePressed" if k == 0 else "mouseMoved"
            self.send("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", buttons=1, clickCount=1)
        x, y = points[-1]
        self.send("Input.dispatchMouseEvent", type="mouseReleased", x=x, y=y, button="left", clickCount=1)

    def click(self, css: str) -> None:
        x, y, w, h = self.box(css)
        self.mouse((x + w / 2, y + h / 2))

    def touch(self, *points: tuple[float, float]) -> None:
        """A finger: down at the first point, through the others, and up."""
        for k, (x, y) in enumerate(points):
            kind = "touchMove" if k else "touchStart"
            self.send("Input.dispatchTouchEvent", type=kind, touchPoints=[{"x": x, "y": y}])
        self.send("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])

    def press(self, *keys: str) -> None:
        for key in keys:
            text = {"Space": " ", "Enter": "\r"}.get(key, "")
            codes = {"Tab": 9, "Enter": 13, "Space": 32, "End": 35, "Home": 36, "Delete": 46}
            codes |= {"ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40}
            how = {"key": " " if key == "Space" else key, "code": key, "windowsVirtualKeyCode": codes[key]}
            self.send("Input.dispatchKeyEvent", type="keyDown", text=text, **how)
            self.send("Input.dispatchKeyEvent", type="keyUp", **how)

    def picture(self, path: Path, whole: bool = True) -> None:
        shot = self.send("Page.captureScreenshot", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(shot["data"]))

    def close(self) -> None:
        self.socket.close()
        self.process.terminate()
        self.process.wait(20)
        self.log.close()


def text(browser, css):
    return browser.run(f"document.querySelector({json.dumps(css)}).textContent")


def pixels(browser, css):
    """The colours of a canvas, (h, w, 3) in [0, 255]."""
    png = base64.b64decode(browser.run(f"document.querySelector('{css}').toDataURL()").split(",")[1])
    return torch.from_numpy(iio.imread(png)[..., :3].copy()).int()


def pull(browser, css, share, finger):
    """Drags the thumb of a slider from where it is to a share of its length."""
    x, y, w, h = browser.box(css)
    low, high, value = browser.run(f"(({{min, max, value}}) => [+min, +max, +value])(document.querySelector('{css}'))")
    thumb = 64 if css == "#time" and w > 400 else 32 if css == "#time" else 24
    at = [x + thumb / 2 + s * (w - thumb) for s in ((value - low) / (high - low), share)]
    move = browser.touch if finger else browser.mouse
    move(*[(at[0] + k / 8 * (at[1] - at[0]), y + h / 2) for k in range(9)])


def contrast(a, b):
    """Of two colours #rrggbb, from 1 to 21 (WCAG 2.2, 1.4.3)."""
    low, high = sorted([luminance(a), luminance(b)])
    return (high + 0.05) / (low + 0.05)


def luminance(colour):
    channels = [int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
