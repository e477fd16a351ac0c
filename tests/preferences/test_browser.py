"""The voting page in a real browser: Chromium without a window, driven over a pipe in the DevTools protocol.

Debian: apt-get install chromium. CHROMIUM names another binary; SCREENSHOTS names a folder for pictures of the page.
"""

import base64
import contextlib
import json
import os
import re
import shutil
import subprocess
import time
from pathlib import Path

import pytest
from preference_cases import PROMPTS, serving

from rfjax.preferences.votes import read_votes

FOUND = next(filter(None, map(shutil.which, (os.environ.get("CHROMIUM", ""), "chromium", "chromium-browser"))), None)
pytestmark = [
    pytest.mark.job,
    pytest.mark.skipif(FOUND is None, reason="chromium is not installed: apt-get install chromium"),
]
OPTIONS = (
    "--headless", "--remote-debugging-pipe", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
    "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip
PATIENCE = 30.0  # seconds for anything of a page


class Browser:
    """A tab. Messages are JSON texts that end in a zero byte, on the file descriptors 3 and 4 of the browser."""

    def __init__(self, folder):
        their_in, self._to = os.pipe()
        self._from, their_out = os.pipe()
        command = (
            f'exec "{FOUND}" {" ".join(OPTIONS)} "--user-data-dir={folder}" about:blank 3<&{their_in} 4>&{their_out}'
        )
        self._process = subprocess.Popen(
            ["bash", "-c", command], pass_fds=(their_in, their_out), stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL, env=os.environ | {"HOME": str(folder)},
        )  # fmt: skip
        os.close(their_in), os.close(their_out)
        self._number, self._left, self.errors, self.requests = 0, b"", [], []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method, **params):
        """The result of a method; what the page logs meanwhile is kept."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        if hasattr(self, "_session"):
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while (answer := self._read()).get("id") != self._number:
            self._note(answer)
        if "error" in answer:
            raise AssertionError(f"{method}: {answer['error']}")
        return answer["result"]

    def _read(self):
        while b"\0" not in self._left:
            piece = os.read(self._from, 2**16)
            assert piece, "the browser has ended"
            self._left += piece
        line, _, self._left = self._left.partition(b"\0")
        return json.loads(line)

    def _note(self, event):
        method, params = event.get("method"), event.get("params", {})
        if method == "Runtime.exceptionThrown":
            self.errors.append(params["exceptionDetails"]["text"])
        elif method == "Log.entryAdded" and params["entry"]["level"] == "error":
            self.errors.append(f"{params['entry']['text']} {params['entry'].get('url', '')}")
        elif method == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])

    def open(self, url):
        self.call("Page.navigate", url="about:blank")  # a change of the part behind # alone would load nothing
        self.call("Page.navigate", url=url)
        self.wait("document.readyState === 'complete' && document.body.dataset.state")

    def run(self, script):
        """The value of a script."""
        result = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in result, (script, result)
        return result["result"].get("value")

    def wait(self, script):
        """The value of a script once it is true."""
        end = time.monotonic() + PATIENCE
        while not (value := self.run(script)):
            assert time.monotonic() < end, f"{script} stayed {value!r}; {self.run('document.body.innerText')!r}"
            time.sleep(0.02)
        return value

    def key(self, text):
        """Presses and lets go a key."""
        code = {"Enter": 13, "Tab": 9}.get(text, ord(text[0].upper()))
        options = {"key": text, "windowsVirtualKeyCode": code}
        typed = {"text": "\r" if text == "Enter" else text} if text != "Tab" else {}
        self.call("Input.dispatchKeyEvent", type="keyDown", **options, **typed)
        self.call("Input.dispatchKeyEvent", type="keyUp", **options)

    def click(self, name):
        """Clicks in the middle of an element."""
        box = self.run(
            f"(r => [r.x + r.width / 2, r.y + r.height / 2])(document.getElementById('{name}').getBoundingClientRect())"
        )
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=box[0], y=box[1], button="left", clickCount=1)

    def view(self, width, height, dark=False, mobile=False):
        """The size of the window, and its colours."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=mobile)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])

    def picture(self, name):
        """Writes a picture of the page, where a folder for them is named."""
        if folder := os.environ.get("SCREENSHOTS"):
            data = self.call("Page.captureScreenshot", format="png")["data"]
            Path(folder, name).write_bytes(base64.b64decode(data))

    def close(self):
        with contextlib.suppress(AssertionError, OSError):
            self.call("Browser.close")
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._to), os.close(self._from)


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    found = Browser(tmp_path_factory.mktemp("browser"))
    yield found
    found.close()


def counted(folder):
    return read_votes([folder / "votes.jsonl"]).counted


READY = "document.body.dataset.state === 'vote' && !document.getElementById('one').disabled"


def begin(browser, address, rater):
    browser.open(address)
    browser.run(f"document.getElementById('rater').value = '{rater}'")
    browser.click("rater")
    browser.key("Enter")


def voted(browser, done):
    """Waits until the page says so many votes, and can take the next one."""
    counts = f"document.getElementById('count').textContent.startsWith('{done} of ')"
    browser.wait(f"{counts} && (document.body.dataset.state !== 'vote' || ({READY}))")


def test_a_rater_votes_by_keys_and_buttons_and_comes_back(browser, tmp_path):
    browser.errors.clear(), browser.requests.clear()
    browser.view(1280, 800)
    with serving(tmp_path) as server:
        begin(browser, server.address, "ann")
        browser.wait("document.body.dataset.state === 'intro'")
        assert "Question 1 of 2" in browser.run("document.body.innerText")
        browser.key("Enter")
        browser.wait(READY)
        for number, key in enumerate("1t", start=1):
            browser.key(key)
            voted(browser, number)
        browser.key("u")
        voted(browser, 1)
        browser.key("b")
        voted(browser, 2)
        browser.key("x")  # is no choice
        browser.click("two")
        browser.wait("document.body.dataset.state === 'intro'")
        assert [vote.choice for vote in counted(tmp_path)] == ["left", "bad", "right"]
        assert all(0 < vote.ms < 1000 * PATIENCE for vote in counted(tmp_path))
        browser.key("Enter")
        browser.wait(READY)
        browser.click("tie")
        voted(browser, 4)
        begin(browser, server.address, "ann")  # as after a crash
        browser.wait("document.body.dataset.state === 'intro'")
        browser.key("Enter")
        voted(browser, 4)
        browser.key("2")
        voted(browser, 5)
        browser.key("2")
        browser.wait("document.body.dataset.state === 'done'")
        assert "6 of 6 votes" in browser.run("document.body.innerText")
        browser.click("back")
        browser.wait("document.body.dataset.state === 'vote' || document.body.dataset.state === 'intro'")
        assert len(counted(tmp_path)) == 5
    assert browser.errors == []
    assert {
        url for url in browser.requests if not url.startswith((f"http://127.0.0.1:{server.port}/", "about:"))
    } == set()
    read = [url for url in browser.requests if not re.search(r"/(next|vote|undo|picture/[0-9a-f]{32})?(#.*)?$", url)]
    assert [url for url in read if "favicon" not in url and not url.startswith("about:")] == []


@pytest.mark.parametrize(
    ("width", "height", "mobile"), [(1280, 800, False), (390, 844, True), (844, 390, True), (320, 568, True)]
)
def test_pictures_and_buttons_fit_the_window(browser, tmp_path, width, height, mobile):
    long = "a very long text of many words that goes on and on, " * 8
    with serving(tmp_path, prompts=[long + prompt for prompt in PROMPTS]) as server:
        browser.view(width, height, mobile=mobile)
        begin(browser, server.address, "ann")
        browser.wait("document.body.dataset.state === 'intro'")
        browser.key("Enter")
        browser.wait(READY)
        boxes = browser.run(
            """[...document.querySelectorAll('#vote img, #vote button, #prompt')].map(e => {
                 const r = e.getBoundingClientRect(); return [e.id, r.left, r.top, r.right, r.bottom]; })"""
        )
        for name, left, top, right, bottom in boxes:
            assert 0 <= left < right <= width and 0 <= top < bottom <= height, (name, left, top, right, bottom)
            least = 60 if name in ("left", "right") else 20
            assert min(right - left, bottom - top) >= least, (name, left, top, right, bottom)
        sizes = {name: (right - left, bottom - top) for name, left, top, right, bottom in boxes}
        assert sizes["left"] == pytest.approx(sizes["right"], abs=1)
        assert browser.run("document.documentElement.scrollHeight <= window.innerHeight")
        browser.picture(f"voting_{width}x{height}.png")
    browser.view(1280, 800)


def test_a_page_of_a_server_that_has_stopped_says_so(browser, tmp_path):
    with serving(tmp_path) as server:
        begin(browser, server.address.partition("#")[0] + "#wrong", "ann")
        browser.wait("document.getElementById('say').textContent.includes('another server')")
        browser.open(server.address.partition("#")[0])
        browser.wait("document.body.dataset.state === 'lost'")
        begin(browser, server.address, "ann")
        browser.wait("document.body.dataset.state === 'intro'")
        browser.key("Enter")
        browser.wait(READY)
        browser.call(
            "Network.emulateNetworkConditions", offline=True, latency=0, downloadThroughput=0, uploadThroughput=0
        )
        browser.key("1")
        browser.wait("document.getElementById('say').textContent.includes('does not answer')")
        assert len(counted(tmp_path)) == 0
        browser.call(
            "Network.emulateNetworkConditions", offline=False, latency=0, downloadThroughput=-1, uploadThroughput=-1
        )
        browser.key("2")
        browser.wait("document.getElementById('count').textContent.startsWith('1 of ')")
        assert [vote.choice for vote in counted(tmp_path)] == ["right"]
    browser.wait(READY)
    browser.key("1")  # the server has given its file back
    browser.wait("document.getElementById('say').textContent.includes('can\\'t be written')")
    assert len(counted(tmp_path)) == 1
