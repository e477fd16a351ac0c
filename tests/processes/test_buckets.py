"""Whole jobs whose work folder is a bucket of a real S3 server (moto's): complete, killed, shared, refused."""

import json
import os
import random
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import jax
import numpy as np
import pytest
from tiny import tiny

from rfjax import buckets
from rfjax import config as configs
from rfjax.buckets import mirror
from rfjax.study import records
from rfjax.training import mesh
from rfjax.training.checkpoints import Checkpoints
from rfjax.training.spec import make_run_spec
from rfjax.training.state import abstract_state

ROOT = Path(__file__).parents[2]
STEPS = 24
CONFIG = """
import sys
sys.path.insert(0, {tests!r})
from test_buckets import small

get_config = small
"""


def small():
    """Two runs of some seconds that save often."""
    c = tiny()
    c.training.update(steps=STEPS, log_every=2, checkpoint_every=3, validate_every=12, keep_checkpoints=2)
    c.sampling.count = 0
    configs.axes(c, {"model.depth": (1, 2)})
    return c


@pytest.fixture(scope="module")
def server():
    with subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("bucket_server.py"))], stdout=subprocess.PIPE, text=True
    ) as process:
        address = f"http://127.0.0.1:{int(process.stdout.readline())}"
        make(address, "studies")
        yield address
        process.kill()


def make(server, bucket):
    urllib.request.urlopen(urllib.request.Request(f"{server}/{bucket}", method="PUT")).close()


@pytest.fixture
def store(server, monkeypatch):
    """This process speaks to the server too."""
    for name, value in environment(server).items():
        monkeypatch.setenv(name, value)
    buckets.stores.opened.cache_clear()
    yield server
    buckets.stores.opened.cache_clear()


def environment(server):
    return {
        "AWS_ENDPOINT_URL": server, "AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_REGION": "us-east-1", "AWS_CONFIG_FILE": "/dev/null", "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
    }  # fmt: skip


def start(folder, server, workdir, *words, cache="cache", processes=1, **settings):
    """Starts a job, as a stranger does, with a cache folder of its own."""
    (folder / "config.py").write_text(CONFIG.format(tests=str(Path(__file__).parent)))
    command = [sys.executable, "-m", "rfjax.main"] if processes == 1 else [ROOT / "launch/local.sh", str(processes)]
    given = environment(server) | {
        "PYTHON": sys.executable, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", "XLA_FLAGS": "",
        "RFJAX_CACHE": str(folder / cache), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "DEVICES_PER_PROCESS": "1",
    } | settings  # fmt: skip
    given = {name: value for name, value in (os.environ | given).items() if value is not None}
    return subprocess.Popen(
        [*command, f"--config={folder / 'config.py'}", f"--config.workdir={workdir}", *words],
        env=given, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def finish(process, code=0):
    said, _ = process.communicate(timeout=900)
    assert process.returncode == code, said
    return said


@pytest.fixture(scope="module")
def reference(tmp_path_factory, server):
    """The study in a local folder, left alone."""
    folder = tmp_path_factory.mktemp("reference")
    finish(start(folder, server, folder / "study"))
    return folder / "study"


def objects(address):
    return {entry.name: entry.size for entry in buckets.place(address, "x").entries()}


def leaves(run, config):
    saved = Checkpoints(run / "checkpoints", 1, writes=False)
    try:
        state, _ = saved.restore(abstract_state(make_run_spec(config), mesh.make_mesh(config.mesh)), STEPS)
    finally:
        saved.close()
    return {jax.tree_util.keystr(path): np.asarray(x) for path, x in jax.tree_util.tree_leaves_with_path(state)}


def check_same(address, reference):
    """Weights, losses and lines to the bit, as a reader of the bucket sees them."""
    study = mirror.reading(address, "x")
    ours, theirs = records.read(study), records.read(reference)
    assert [run.state for run in ours.runs] == ["complete", "complete"]
    for one, other in zip(ours.runs, theirs.runs, strict=True):
        assert one.skipped == 0
        for kind in ("train", "validation"):
            assert untimed(getattr(one, kind)) == untimed(getattr(other, kind))
        config = dict(configs.runs(configs.parse(small())))[one.name]
        found, wanted = leaves(one.folder, config), leaves(other.folder, config)
        assert found.keys() == wanted.keys()
        assert len(found) > 10
        for name, value in wanted.items():
            assert value.dtype == found[name].dtype
            assert value.tobytes() == found[name].tobytes(), name
    names = objects(address)
    assert {"study.json", "sessions.jsonl", "report/index.html", "runs/d1/result.json"} <= names.keys()
    for run in ("d1", "d2"):
        assert names[f"runs/{run}/lock.json"] == 0  # released
        kept = {name.split("/")[3] for name in names if name.startswith(f"runs/{run}/checkpoints/")}
        assert kept == {str(STEPS - 3), str(STEPS)}
        assert not [name for name in names if name.startswith(f"runs/{run}/checkpoints.damaged")]
        parts = [name for name in names if name.endswith(mirror.PARTS) and name.startswith(f"runs/{run}/")]
        assert len(parts) == sum(
            len(listed(address, name))
            for name in names
            if name.startswith(f"runs/{run}/") and name.endswith("parts.json")
        )
    assert not [name for name in names if "partial" in name or ".rfjax-" in name or ".clock" in name]


def listed(address, name):
    return json.loads((buckets.place(address, "x") / name).look().data)["parts"]


def untimed(lines):
    return [{k: v for k, v in line.items() if k not in ("seconds", "examples_per_second")} for line in lines]


def kill(process):
    """Kills a job, and first the processes that launch/local.sh has started, which have groups of their own."""
    found = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True, check=False).stdout
    for pid in map(int, found.split()):
        os.kill(pid, signal.SIGKILL)
    process.kill()
    process.communicate()


def saved_steps(address):
    """Steps of both runs that the bucket has whole."""
    names = objects(address)
    steps = {run: [0] for run in ("d1", "d2")}
    for name in names:
        if name.endswith("parts.json"):
            steps[name.split("/")[1]].append(int(name.split("/")[3]))
    return sum(map(max, steps.values()))


def test_a_study_killed_at_random_moments_ends_with_the_bits_of_one_on_a_disk(tmp_path, store, reference):
    study, rng, kills, address = reference, random.Random(7), 0, "s3://studies/killed"
    for goal in (3, 9, 27, 33):  # of 24 steps of each of two runs
        process = start(tmp_path, store, address, cache=f"cache{kills}")  # empty each time
        while process.poll() is None and saved_steps(address) < goal:
            time.sleep(0.05)
        time.sleep(rng.uniform(0, 0.3))
        kills += process.poll() is None
        kill(process)
    said = finish(start(tmp_path, store, address, cache="last"))
    assert kills >= 2
    assert f"report: {address}/report/index.html" in said
    assert str(tmp_path / "last") not in said
    check_same(address, study)
    assert not list((tmp_path / "last" / "work").glob("*/*"))  # nothing stays on this machine
    again = finish(start(tmp_path, store, address, cache="again"))
    assert again.count("complete already") == 2


def test_two_jobs_share_a_study_by_locks_in_the_bucket(tmp_path, store, reference):
    address = "s3://studies/shared"
    jobs = [start(tmp_path, store, address, cache=f"cache{number}") for number in range(2)]
    said = [finish(job) for job in jobs]
    check_same(address, reference)
    study = mirror.reading(address, "x")
    for run in ("d1", "d2"):
        lines = (study / "runs" / run / "metrics.jsonl").read_text().splitlines()
        assert [json.loads(line)["kind"] for line in lines].count("start") == 1
        assert len(list((study / "runs" / run / "tensorboard").iterdir())) == 1
    assert len((study / "sessions.jsonl").read_text().splitlines()) == 2, said


def test_two_processes_write_their_own_parts_and_one_process_goes_on(tmp_path, store, reference):
    address = "s3://studies/two"
    words = ("--config.only=d2", "--config.mesh.fsdp=2")
    process = start(tmp_path, store, address, *words, processes=2)
    wait_for(address, "runs/d2/checkpoints/9/parts.json", process)
    kill(process)
    before = objects(address)
    newest = max(int(name.split("/")[3]) for name in before if name.endswith("parts.json"))
    parts = listed(address, f"runs/d2/checkpoints/{newest}/parts.json")
    assert [part["name"].split("-", 1)[1] for part in parts] == [f"0000{i}-of-00002.part" for i in range(2)]
    assert all(part["size"] > 10_000 for part in parts)
    finish(start(tmp_path, store, address, *words, processes=2, cache="other"))
    finish(start(tmp_path, store, address))  # one process reads what two have written
    found = records.read(mirror.reading(address, "x")).runs
    theirs = {run.name: run for run in records.read(reference).runs}
    assert [run.state for run in found] == ["complete"] * 2
    for run in found:
        near = [line["loss"] for line in run.train], [line["loss"] for line in theirs[run.name].train]
        np.testing.assert_allclose(*near, rtol=1e-3)


def wait_for(address, name, process):
    while name not in objects(address):
        assert process.poll() is None, process.communicate()
        time.sleep(0.1)


@pytest.mark.parametrize(
    ("workdir", "settings", "words"),
    [
        ("s3://nowhere/study", {}, "there is no bucket s3://nowhere: make it first"),
        ("s3://studies/x", {"AWS_ACCESS_KEY_ID": None, "AWS_SECRET_ACCESS_KEY": None}, "there are no credentials for s3://studies"),
        ("s3://studies/x", {"AWS_ENDPOINT_URL": "http://127.0.0.1:1"}, "can't be reached"),
        ("abfs://studies/x", {}, "has the scheme abfs://, and rfjax reads and writes gs:// and s3://"),
    ],
)  # fmt: skip
def test_what_can_not_be_written_is_one_sentence(workdir, settings, words, tmp_path, store):
    before = objects("s3://studies")
    process = start(tmp_path, store, workdir, **settings)
    said = finish(process, 2)
    assert words in said
    assert said.count("\n") == 1
    assert objects("s3://studies") == before
    assert not (tmp_path / "cache").exists()
