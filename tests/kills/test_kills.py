"""A study that is killed again and again at random moments ends with the results of one that was left alone.

    make kills [KILLS=30] [SEED=0]        about ten seconds a kill on two cores; the moments are drawn from the seed

Rounds of fifteen kills: a new study is killed while it trains, then in its report, and then left to finish. After every
kill each file must be whole or have a temporary name; at the end of a round everything must equal the uninterrupted
study's to the bit, but for what `looking.SECONDS`, `FACTS` and `HISTORY` name. RESULTS=FILE writes the table there.
"""

import os
import random
import shutil
from collections import Counter
from pathlib import Path

import pytest
from kills import killing, looking
from kills.killing import Kill, Study

TRAINING = (
    *["any time"] * 3, "any time, after SIGTERM", *["a save"] * 3, "the end of a save", "the end of a run's last save",
    "the pictures of the samples", "result.json", "lock.json",
)  # fmt: skip
REPORT = (*["the report at a study's end"] * 2, *["the report alone"] * 2, "study.json")
ROUND = 15  # kills
WANTED = {"saving a checkpoint": 3, "the report": 3}  # kills of these phases, at the least


def moments(rng: random.Random) -> list[str]:
    """The kinds of moments of a round, those of training first."""
    training = rng.sample(TRAINING, ROUND - 4)
    return [*training, *rng.sample(REPORT, 4)]


def count(kills: list[Kill], phase: str) -> int:
    return sum(kill.phase.startswith(phase) for kill in kills)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("kills")


@pytest.fixture(scope="module")
def reference(folder) -> Study:
    """The study that is left alone."""
    cache = Path(os.environ["JAX_COMPILATION_CACHE_DIR"])
    study = Study(folder / "reference", cache, folder / "reference.log")
    study.finish()
    left = looking.check_whole(study.folder)
    assert not left
    return study


def test_kills(folder, reference, capsys):
    wanted, rng = int(os.environ.get("KILLS", "30")), random.Random(int(os.environ.get("SEED", "0")))
    kills: list[Kill] = []
    said = []
    round_number = 0
    while len(kills) < wanted or any(count(kills, phase) < least for phase, least in WANTED.items()):
        round_number += 1
        study = Study(folder / f"round{round_number}", reference.cache, folder / f"round{round_number}.log")
        for name in moments(rng):
            if len(kills) >= wanted and all(count(kills, phase) >= least for phase, least in WANTED.items()):
                break
            if name in TRAINING and study.complete():
                continue
            if name == "the report alone" and not (study.folder / "study.json").exists():
                continue
            killed = killing.kill(study, killing.choose(name, rng))
            left = looking.check_whole(study.folder)
            if killed:
                kills.append(killed)
                said.append(
                    f"{len(kills):3} {killed.moment.name:28} {killed.after:6.2f} s  {killed.phase:36}"
                    f"{', '.join(killed.unfinished)}"
                )
            else:
                said.append(f"    {name:28}           came to its end before; left: {left}")
            with capsys.disabled():
                print(said[-1], flush=True)
        study.finish()
        looking.check_same(study.folder, reference.folder)
        again = study.finish()
        assert again.count("complete already") == len(looking.run_configs())
        looking.check_same(study.folder, reference.folder)
        with capsys.disabled():
            print(f"    round {round_number}: equal to the uninterrupted study", flush=True)
        shutil.rmtree(study.folder)
    shown = killing.table(kills)
    with capsys.disabled():
        print(f"\n{shown}\n{dict(Counter(kill.moment.name for kill in kills))}")
    if out := os.environ.get("RESULTS"):
        Path(out).write_text(f"{shown}\n")
