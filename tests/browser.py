"""Chromium without a window, driven by its DevTools protocol over a websocket."""

import base64
import json
import re
import shutil
import subprocess
import time
from pathlib import Path

import websocket

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


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
