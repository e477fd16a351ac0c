"""A walk over all keys of a config with values that no plan wants: each is refused in a sentence, or runs.

make walk        with the sum at the end: tried, refused, ran, failed in a sentence; tracebacks and hangs fail
"""

import signal
import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from rfjax import config as configs
from rfjax import main
from rfjax.errors import Exit, UserError

VALUES = ("-7", "0", str(10**12), "nan", "inf", "text", "(1,2)")
JOBS = {
    "generate": ("generate",),
    "sampling": ("study", "generate"),
}  # which jobs read a section; the others: the study
SECONDS = 180  # a tiny study takes three
KEYS = [path for path, default, _ in configs.entries() if not isinstance(default, dict)]


class Hung(BaseException):
    """More than SECONDS have passed."""


@contextmanager
def limited() -> Iterator[None]:
    def over(number: int, frame: object) -> None:
        raise Hung

    before = signal.signal(signal.SIGALRM, over)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def attempt(folder: Path, *arguments: str) -> tuple[str, str]:
    """What became of a command, in a word, and what it said."""
    try:
        with limited():
            code = main.main([f"--config={Path(__file__).with_name('small.py')}:{folder}", *arguments])
    except UserError as error:
        return ("refused" if "\n" not in str(error) else "traceback"), str(error)
    except Hung:
        return "hung", traceback.format_exc()
    except (Exception, SystemExit):
        return "traceback", traceback.format_exc()
    if code == Exit.DONE:
        return "ran", ""
    failures = [path.read_text() for path in folder.rglob("failure.txt")]
    ours = all(text.rstrip().splitlines()[-1].startswith("rfjax.") for text in failures)
    return ("failed" if ours else "traceback"), f"exit code {code}: {failures}"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The folder of the study as it is, trained."""
    folder = tmp_path_factory.mktemp("trained")
    assert attempt(folder) == ("ran", "")
    return folder


@pytest.mark.parametrize("path", KEYS)
def test_a_key_refuses_a_wild_value_in_a_sentence_or_runs(path, trained, tmp_path, monkeypatch, record_property):
    monkeypatch.chdir(tmp_path)
    found = {}
    for number, value in enumerate(VALUES):
        jobs = (
            ["generate"]
            if path.startswith("generate.")
            else ["study", "generate"]
            if path.startswith("sampling.")
            else [""]
        )
        for job in jobs:
            folder = trained if job == "generate" else tmp_path / str(number)
            extra = [f"--config.job={job}", f"--config.workdir={tmp_path / 'pictures'}"] if job == "generate" else []
            found[value, job] = (*attempt(folder, *extra, f"--config.{path}={value}"), folder)
    record_property("outcomes", dict(Counter(outcome for outcome, *_ in found.values())))
    for (value, _), (outcome, said, folder) in found.items():
        assert outcome in ("refused", "ran", "failed"), f"{path} = {value}: {outcome}\n{said}"
        if outcome == "refused" and folder != trained:
            assert not folder.exists(), f"{path} = {value} is refused after {folder} was made: {said}"
