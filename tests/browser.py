"""A headless Chromium for tests, driven over two pipes with the DevTools protocol: open, click, press, read."""

from __future__ import annotations

import base64
import contextlib
import fcntl
import json
import os
import select
import shutil
import signal
import time
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
KEYS = {
    "Tab": 9, "Enter": 13, "Escape": 27, " ": 32, "End": 35, "Home": 36,
    "ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40,
}  # fmt: skip
WATCH = (
    "window.__violations = [];"
    "document.addEventListener('securitypolicyviolation', e => __violations.push(e.violatedDirective + ' ' + e.blockedURI));"
)


def find() -> str | None:
    """The browser's path, if there is one."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


class Browser:
    """One process and one tab; `log` has every error, exception and violation since the last `open`."""

    def __init__(self, path: str, home: Path, patience: float = 30.0) -> None:
        self.patience, self.number, self.buffer = patience, 0, b""
        self.log: list[str] = []
        self.answers: dict[int, dict[str, Any]] = {}
        self.loaded = False
        self.pid, self.sending, self.receiving = start(path, home)
        try:
            target = self.ask("Target.createTarget", url="about:blank")["targetId"]
            self.session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
            for domain in ("Page", "Runtime", "Log", "Network"):
                self.tell(f"{domain}.enable")
            self.tell("Page.addScriptToEvaluateOnNewDocument", source=WATCH)
        except BaseException:
            self.close()
            raise

    def ask(self, method: str, **params: Any) -> dict[str, Any]:
        """A command to the browser itself, and what it answers."""
        return self._ask({"method": method, "params": params})

    def tell(self, method: str, **params: Any) -> dict[str, Any]:
        """A command to the tab, and what it answers."""
        return self._ask({"method": method, "params": params, "sessionId": self.session})

    def _ask(self, message: dict[str, Any]) -> dict[str, Any]:
        self.number += 1
        rest = json.dumps(message | {"id": self.number}).encode() + b"\0"
        while rest:
            rest = rest[os.write(self.sending, rest) :]
        number = self.number
        self._until(lambda: number in self.answers)
        answer = self.answers.pop(number)
        assert "error" not in answer, f"{message['method']}: {answer['error']}"
        result: dict[str, Any] = answer["result"]
        return result

    def _until(self, done: Any) -> None:
        end = time.monotonic() + self.patience
        while not done():
            ready, _, _ = select.select([self.receiving], [], [], max(0.0, end - time.monotonic()))
            data = os.read(self.receiving, 1 << 20) if ready else b""
            assert data, "the browser ended or does not answer"
            *messages, self.buffer = (self.buffer + data).split(b"\0")
            for text in messages:
                self._hear(json.loads(text))

    def _hear(self, message: dict[str, Any]) -> None:
        method, params = message.get("method"), message.get("params", {})
        if "id" in message:
            self.answers[message["id"]] = message
        elif method == "Page.loadEventFired":
            self.loaded = True
        elif method == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
            self.log.append(params["entry"]["text"])
        elif method == "Runtime.exceptionThrown":
            self.log.append(json.dumps(params["exceptionDetails"]))
        elif method == "Runtime.consoleAPICalled":
            self.log.append(json.dumps(params["args"]))
        elif method == "Network.requestWillBeSent" and params["request"]["url"].split(":")[0] not in (
            "file",
            "data",
        ):
            self.log.append(f"request: {params['request']['url']}")

    def open(self, page: Path, *, width: int = 1100, height: int = 900, dark: bool = False) -> None:
        """Load a file in a window of this size (a phone below 500), in light or dark, as if for the first time."""
        self.tell(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 500,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.tell("Emulation.setEmulatedMedia", features=[scheme])
        self.log, self.loaded = [], False
        self.tell("Page.navigate", url=page.as_uri())
        self._until(lambda: self.loaded)

    def js(self, expression: str) -> Any:
        """The value of an expression in the page, as JSON can carry it."""
        found = self.tell("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def wait(self, expression: str) -> None:
        """Until an expression in the page is true."""
        end = time.monotonic() + self.patience
        while not self.js(expression):
            assert time.monotonic() < end, f"never true: {expression}"
            time.sleep(0.01)

    def text(self, selector: str) -> str:
        """The text of the first element that the selector finds."""
        return str(self.js(f"document.querySelector({json.dumps(selector)}).textContent"))

    def press(self, key: str, times: int = 1, *, shift: bool = False) -> None:
        """A key, down and up again."""
        code = {"key": key, "code": "Space" if key == " " else key, "windowsVirtualKeyCode": KEYS[key]}
        code |= {"modifiers": 8 if shift else 0}
        text = {"Enter": "\r", " ": " "}.get(key)
        for _ in range(times):
            self.tell("Input.dispatchKeyEvent", type="keyDown", **code, **({"text": text} if text else {}))
            self.tell("Input.dispatchKeyEvent", type="keyUp", **code)

    def click(self, selector: str) -> None:
        """The left button on the middle of an element, scrolled to."""
        self.point("mousePressed", *self.place(selector))
        self.point("mouseReleased", *self.place(selector))

    def hover(self, selector: str) -> None:
        """The pointer over the middle of an element."""
        self.point("mouseMoved", *self.place(selector))

    def place(self, selector: str) -> tuple[float, float]:
        """The middle of an element, in the window."""
        x, y = self.js(
            f"(() => {{ const e = document.querySelector({json.dumps(selector)}); e.scrollIntoView({{block: 'center'}});"
            " const b = e.getBoundingClientRect(); return [b.x + b.width / 2, b.y + b.height / 2]; })()"
        )
        return x, y

    def point(self, kind: str, x: float, y: float) -> None:
        """A pointer event at a place in the window."""
        button = {"button": "left", "clickCount": 1} if kind != "mouseMoved" else {}
        self.tell("Input.dispatchMouseEvent", type=kind, x=x, y=y, **button)

    def troubles(self) -> list[str]:
        """Everything the page did wrong since it was opened."""
        return [*self.log, *self.js("window.__violations")]

    def picture(self, path: Path, *, whole: bool = True) -> None:
        """A PNG of the page."""
        found = self.tell("Page.captureScreenshot", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(found["data"]))

    def close(self) -> None:
        """End it, kindly first."""
        with contextlib.suppress(OSError, AssertionError):
            self.patience = 5.0
            self.ask("Browser.close")
        with contextlib.suppress(ProcessLookupError):
            end = time.monotonic() + 5
            while os.waitpid(self.pid, os.WNOHANG) == (0, 0):
                if time.monotonic() > end:
                    os.killpg(self.pid, signal.SIGKILL)
                time.sleep(0.02)
        os.close(self.sending)
        os.close(self.receiving)


def start(path: str, home: Path) -> tuple[int, int, int]:
    """The browser's process, a pipe to it and one from it; it reads commands from 3 and answers on 4."""
    arguments = [
        path, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
        "--disable-extensions", "--disable-background-networking", "--disable-component-update", "--hide-scrollbars",
        f"--user-data-dir={home / 'profile'}", "--remote-debugging-pipe",
    ]  # fmt: skip
    theirs_in, ours_out = high(os.pipe())
    ours_in, theirs_out = high(os.pipe())
    environment = {"PATH": os.environ.get("PATH", os.defpath), "HOME": str(home), "LANG": "C.UTF-8"}
    files = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0), (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
        (os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0), (os.POSIX_SPAWN_DUP2, theirs_in, 3),
        (os.POSIX_SPAWN_DUP2, theirs_out, 4),
    ]  # fmt: skip
    pid = os.posix_spawn(path, arguments, environment, file_actions=files, setpgroup=0)
    os.close(theirs_in)
    os.close(theirs_out)
    return pid, ours_out, ours_in


def high(pair: tuple[int, int]) -> tuple[int, int]:
    """The same two ends under numbers that 3 and 4 cannot be, closed in children unless given to them."""
    found = (fcntl.fcntl(pair[0], fcntl.F_DUPFD_CLOEXEC, 10), fcntl.fcntl(pair[1], fcntl.F_DUPFD_CLOEXEC, 10))
    for end in pair:
        os.close(end)
    return found
