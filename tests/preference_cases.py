"""Sets of pictures, votes and servers for the tests of preferences."""

import contextlib
import http.client
import json
import threading

import numpy as np
from PIL import Image, PngImagePlugin

from rfjax.preferences.ballots import Ballots, Plan
from rfjax.preferences.pairs import make_pairs
from rfjax.preferences.samples import open_set
from rfjax.preferences.server import Server
from rfjax.preferences.votes import Vote, VotesFile

PROMPTS = ("a red cup", "two dogs", "a sign that says OPEN")


def picture(seed, size=(12, 10)):
    return np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)


def write_folder(folder, prompts=PROMPTS, seed=0, size=(12, 10)):
    """Captioned PNGs that say in their metadata who made them."""
    folder.mkdir(parents=True)
    lines, told = [], PngImagePlugin.PngInfo()
    told.add_text("Software", f"model {folder.name}")
    for number, prompt in enumerate(prompts):
        Image.fromarray(picture(seed + number, size)).save(folder / f"{number}.png", pnginfo=told)
        lines.append(json.dumps({"file": f"{number}.png", "caption": prompt}))
    (folder / "captions.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def sets(folder, names=("one", "two"), prompts=PROMPTS):
    """Folders of pictures, opened."""
    return [open_set(name, write_folder(folder / name, prompts, 100 * i)) for i, name in enumerate(names)]


def vote(**changed):
    """A vote."""
    usual = {
        "time": 1.5, "pair": "0" * 16, "prompt": "a red cup", "question": "quality", "rater": "ann", "left": "one",
        "right": "two", "choice": "left", "ms": 1200, "repeat": False,
    }  # fmt: skip
    return Vote(**usual | changed)


@contextlib.contextmanager
def serving(folder, names=("one", "two"), prompts=PROMPTS, said=None, **plan):
    """A server of sets in this folder, and its file of votes; goes on with what is there."""
    found = (
        [open_set(name, folder / name) for name in names]
        if (folder / names[0]).exists()
        else sets(folder, names, prompts)
    )
    options = {"questions": ("quality", "following"), "repeats": 0.0} | plan
    file = VotesFile(folder / "votes.jsonl")
    say = (lambda text: None) if said is None else said.append
    server = Server(("127.0.0.1", 0), Ballots(Plan(make_pairs(found), **options), file, b"s" * 32, say))
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        server.ballots.close()
        thread.join()


def request(server, method, path, body=None, **headers):
    """(status, headers, bytes) of a request as our page makes it, but for these headers; None leaves one out."""
    usual = {"Host": f"127.0.0.1:{server.port}"}
    if method == "POST":
        usual |= {
            "Origin": f"http://127.0.0.1:{server.port}",
            "X-Token": server.token,
            "Content-Type": "application/json",
        }
        body = body if isinstance(body, bytes) else json.dumps(body).encode()
    usual |= {name.replace("_", "-"): value for name, value in headers.items()}
    given = {name: value for name, value in usual.items() if value is not None}
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    with contextlib.closing(connection):
        connection.putrequest(method, path, skip_host=True)
        for name, value in given.items():
            connection.putheader(name, value)
        if body is not None and "Content-Length" not in given:
            connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body)
        answer = connection.getresponse()
        return answer.status, dict(answer.getheaders()), answer.read()


def post(server, path, body, **headers):
    """(status, the answer's object)."""
    status, _, answer = request(server, "POST", path, body, **headers)
    return status, json.loads(answer)
