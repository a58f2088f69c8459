"""Chromium without a window, driven through its DevTools protocol over two pipes. Only what page_client.py needs of it.

https://chromedevtools.github.io/devtools-protocol/ has the commands; messages are JSON objects that end with a zero byte.
"""

import base64
import fcntl
import json
import os
import select
import shutil
import subprocess
import tempfile
import time

PROGRAMS = ["chromium-headless-shell", "chromium", "chromium-browser", "google-chrome"]
KEYS = {"Enter": 13, "Tab": 9, "Escape": 27, " ": 32, "n": 78, "v": 86}
ALT, CTRL, SHIFT = 1, 2, 8


def high(descriptor):
    """Moves it to where it is not in the way of 3 and 4."""
    moved = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 10)
    os.close(descriptor)
    return moved


class Browser:
    """Runs inside `with`, with a folder of its own for all it writes. `page` is its one page."""

    def __init__(self):
        program = next(filter(None, map(shutil.which, PROGRAMS)), None)
        if not program:
            raise SystemExit(f"none of {', '.join(PROGRAMS)} is there: run tools/install_packages, or install one")
        self.folder = tempfile.TemporaryDirectory(prefix="idefics-browser-", ignore_cleanup_errors=True)
        its_in, self.out = map(high, os.pipe())
        self.into, its_out = map(high, os.pipe())
        # It reads descriptor 3 and writes 4. Its own sandbox wants namespaces that root and containers do not have.
        script = f'exec "$@" 3<&{its_in} 4>&{its_out}'
        self.process = subprocess.Popen(
            ["bash", "-c", script, "browser", program, "--headless", "--remote-debugging-pipe", "--no-sandbox", "--disable-gpu",
             "--disable-dev-shm-usage", "--no-first-run", "--disable-background-networking",
             f"--user-data-dir={self.folder.name}", "about:blank"],
            pass_fds=(its_in, its_out), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        os.close(its_in)
        os.close(its_out)
        self.received = b""
        self.last_id = 0
        self.session = None
        self.handlers = {}  # method of an event -> function of its parameters
        self.replies = {}

    def __enter__(self):
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait(20)
        self.folder.cleanup()

    def send(self, method, **params):
        self.last_id += 1
        message = {"id": self.last_id, "method": method, "params": params}
        if self.session:
            message["sessionId"] = self.session
        rest = json.dumps(message).encode() + b"\0"
        while rest:
            rest = rest[os.write(self.out, rest):]
        return self.last_id

    def call(self, method, **params):
        number = self.send(method, **params)
        end = time.monotonic() + 60
        while number not in self.replies:
            if time.monotonic() > end:
                raise SystemExit(f"the browser does not answer {method}")
            self.pump(1)
        reply = self.replies.pop(number)
        if "error" in reply:
            raise SystemExit(f"{method}: {reply['error']}")
        return reply["result"]

    def pump(self, seconds):
        """Takes what the browser says, for up to so long, and calls the handlers."""
        if not select.select([self.into], [], [], seconds)[0]:
            return
        block = os.read(self.into, 1 << 20)
        if not block:
            raise SystemExit(f"the browser ended, with {self.process.wait(10)}")
        *messages, self.received = (self.received + block).split(b"\0")
        for message in map(json.loads, messages):
            if "id" in message:
                self.replies[message["id"]] = message
            elif message["method"] in self.handlers:
                self.handlers[message["method"]](message["params"])

    # ---- The page

    def open(self, url):
        self.call("Page.navigate", url=url)
        self.wait("document.readyState === 'complete'")

    def js(self, expression):
        reply = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True, userGesture=True)
        if "exceptionDetails" in reply:
            raise SystemExit(f"{expression}: {reply['exceptionDetails']}")
        return reply["result"].get("value")

    def wait(self, expression, seconds=30):
        """The first value of the expression that counts as true; a fault when there is none in time."""
        end = time.monotonic() + seconds
        while True:
            value = self.js(expression)
            if value:
                return value
            if time.monotonic() > end:
                raise SystemExit(f"FAILED: in vain for {seconds} s: {expression}")
            self.pump(0.02)

    def text(self, selector):
        return self.js(f"document.querySelector({json.dumps(selector)}).innerText")

    def middle(self, selector):
        box = self.js(f"""(() => {{ const b = document.querySelector({json.dumps(selector)}).getBoundingClientRect();
            return [b.x + b.width / 2, b.y + b.height / 2]; }})()""")
        return {"x": box[0], "y": box[1]}

    def click(self, selector):
        for kind in ["mousePressed", "mouseReleased"]:
            self.call("Input.dispatchMouseEvent", type=kind, button="left", clickCount=1, **self.middle(selector))

    def press(self, key, modifiers=0, commands=()):
        text = {"Enter": "\r", " ": " "}.get(key, "") if not modifiers & (ALT | CTRL) else ""
        about = {"key": key, "code": {" ": "Space"}.get(key, f"Key{key.upper()}" if len(key) == 1 else key),
                 "windowsVirtualKeyCode": KEYS[key], "modifiers": modifiers}
        self.call("Input.dispatchKeyEvent", type="keyDown" if text else "rawKeyDown", text=text, commands=list(commands), **about)
        self.call("Input.dispatchKeyEvent", type="keyUp", **about)

    def type(self, text):
        self.call("Input.insertText", text=text)

    def drop(self, selector, path):
        data = {"items": [], "files": [str(path)], "dragOperationsMask": 1}
        for kind in ["dragEnter", "dragOver", "drop"]:
            self.call("Input.dispatchDragEvent", type=kind, data=data, **self.middle(selector))

    def screenshot(self, path):
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))
