"""A headless Chromium, driven over the DevTools protocol."""

import base64
import contextlib
import itertools
import json
import subprocess
import time
from pathlib import Path

SECONDS = 60  # time limit to start, or until a condition holds, on a busy machine
OPTIONS = (
    "--headless=new",
    "--no-sandbox",  # Chromium's sandbox does not start for root in a container
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
    "--remote-debugging-port=0",
)
KEYS = {"Tab": 9, "Enter": 13, "Escape": 27, "End": 35, "Home": 36, "ArrowRight": 39, " ": 32}


class Browser:
    """A tab of a browser.

    Attributes:
        events: The events so far, as dictionaries of `method` and `params`.
    """

    def __init__(self, socket):
        self.socket, self.numbers, self.events, self.session = socket, itertools.count(1), [], {}
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        found = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self.session = {"sessionId": found["sessionId"]}
        for domain in ("Page", "Runtime", "Log", "Network", "DOM", "Accessibility"):
            self.call(f"{domain}.enable")

    def call(self, method, **parameters):
        """Return the result of a command of the protocol."""
        number = next(self.numbers)
        message = {"id": number, "method": method, "params": parameters, **self.session}
        self.socket.send(json.dumps(message))
        while True:
            answer = json.loads(self.socket.recv(timeout=SECONDS))
            if answer.get("id") == number:
                assert "error" not in answer, (method, answer["error"])
                return answer["result"]
            self.events.append(answer)

    def open(self, url, width, height, dark=False):
        """Open a page in a window of a size; a width below 600 pixels is a phone."""
        is_phone = width < 600
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=2 if is_phone else 1,
            mobile=is_phone,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self.call("Page.navigate", url=url)
        self.wait("document.readyState === 'complete' && document.title.includes('·')")

    def value(self, expression):
        """Return the value of an expression of JavaScript."""
        found = self.call(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def wait(self, expression):
        """Wait until an expression of JavaScript is true."""
        end = time.monotonic() + SECONDS
        while not self.value(expression):
            assert time.monotonic() < end, expression
            time.sleep(0.05)

    def choose(self, selector, file):
        """Choose a file in an input."""
        root = self.call("DOM.getDocument")["root"]["nodeId"]
        node = self.call("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.call("DOM.setFileInputFiles", nodeId=node, files=[str(file)])

    def drop(self, file, x, y):
        """Drag a file from this machine to a position in the window, and drop it."""
        data = {"items": [], "files": [str(file)], "dragOperationsMask": 1}
        for kind in ("dragEnter", "dragOver", "drop"):
            self.call("Input.dispatchDragEvent", type=kind, x=x, y=y, data=data)

    def press(self, key):
        """Press a key, and release it."""
        what = {"key": key, "windowsVirtualKeyCode": KEYS[key], "code": key}
        if key in ("Enter", " "):
            what["text"] = "\r" if key == "Enter" else key
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, **what)

    def names(self):
        """Return `(role, name)` of everything that a screen reader finds."""
        nodes = self.call("Accessibility.getFullAXTree")["nodes"]
        return [
            (node["role"]["value"], node.get("name", {}).get("value", ""))
            for node in nodes
            if not node["ignored"]
        ]

    def screenshot(self, path, whole=False):
        """Write a PNG file of the window, or of the whole page."""
        found = self.call("Page.captureScreenshot", captureBeyondViewport=whole)
        Path(path).write_bytes(base64.b64decode(found["data"]))


@contextlib.contextmanager
def browser(program, folder):
    """Run a browser while the context lasts.

    Args:
        program: Path of Chromium.
        folder: Folder for its profile.

    Yields:
        A `Browser`.
    """
    from websockets.sync.client import connect

    process = subprocess.Popen(
        [program, *OPTIONS, f"--user-data-dir={folder}"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        place, end = Path(folder) / "DevToolsActivePort", time.monotonic() + SECONDS
        while not (place.is_file() and len(place.read_text().splitlines()) == 2):
            assert process.poll() is None and time.monotonic() < end, "Chromium did not start"
            time.sleep(0.05)
        port, path = place.read_text().splitlines()
        with connect(f"ws://127.0.0.1:{port}{path}", max_size=None, open_timeout=SECONDS) as socket:
            yield Browser(socket)
    finally:
        process.terminate()
        process.wait(30)
