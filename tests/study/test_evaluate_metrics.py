"""Every metric of the papers through the job `evaluate`, with random weights in small files."""

import json
from pathlib import Path

import clip_cases
import embedding_cases
import numpy as np
import pytest
from tiny import run_job, tiny

from rfjax import config as configs
from rfjax.evaluation.metrics import METRICS
from rfjax.study import evaluate

pytestmark = pytest.mark.job  # Inception compiles for half a minute
COUNT, SIDE = 48, 32
OWN = {"shapes", "shapes@geneval", "digits"}
QUICK = clip_cases.QUICK.config
OTHERS = {"fd_efficientnet", "fid_infinity"}  # of a package that is not installed here; 15 times the work of one


def write_pictures(path, seed):
    """Archives of smooth pictures with captions, six prompts of eight pictures each."""
    rng = np.random.default_rng(seed)
    coarse = rng.uniform(0, 255, (COUNT, 4, 4, 3))
    images = np.kron(coarse, np.ones((1, SIDE // 4, SIDE // 4, 1))).astype(np.uint8)
    np.savez(path, arr_0=images, captions=np.array([f"a prompt of number {i // 8}" for i in range(COUNT)]))
    return path


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    inception = embedding_cases.write(folder / "inception.pth", embedding_cases.inception_tensors())
    clip = clip_cases.write(folder / "clip", clip_cases.tensors(QUICK), QUICK)
    (folder / "hps").mkdir()
    hps = clip_cases.write_open_clip(folder / "hps", clip_cases.open_clip(clip_cases.tensors(QUICK)))
    dino = clip_cases.write_dino(folder / "dino")
    c = tiny()
    c.job = "evaluate"
    c.workdir = str(folder / "evaluation")
    c.study.update(name="Evaluation", report="evaluate")
    c.evaluate.update(source=str(write_pictures(folder / "own.npz", 0)), inception=str(inception), dinov2=str(dino))
    c.evaluate.update(clip=str(clip), clip336=str(clip), pickscore=str(clip), hps=str(hps))
    c.evaluate.reference = str(write_pictures(folder / "reference.npz", 1))
    c.sampling.metrics = tuple(name for name in METRICS if name not in OWN | OTHERS)
    c.generate.update(count=COUNT, batch=16)
    return configs.parse(c)


def test_every_metric_has_its_number_its_error_and_its_protocol(config):
    assert run_job(evaluate, config, 0.0) == 0
    (path,) = (Path(config.workdir) / "sets").glob("*/metrics.json")
    found = json.loads(path.read_text())
    keys = {one["key"] for one in found["quantities"]}
    assert {"fid", "sfid", "inception_score", "precision", "recall", "kid", "clip_score", "cmmd", "hps"} <= keys
    for one in found["quantities"]:
        assert np.isfinite(found["scores"][one["key"]]), one
        assert found["scores"][one["error"]] >= 0, one
        assert found["protocols"][one["key"]]["sha256"], one
    assert found["protocols"]["fid"]["embedder"] == "inception@adm"
    assert any("full rank" in note for note in found["notes"])  # fewer pictures than features
    assert len(list((Path(config.workdir) / "references").glob("*.npz"))) == 4  # Inception, CLIP twice, DINOv2
    page = (Path(config.workdir) / "report" / "index.html").read_text()
    assert all(one["label"] in page for one in found["quantities"])
