"""ADM's own samples by this evaluator, where the files are: RFJAX_ADM names the folder that they lie in.

It needs admnet_guided_upsampled_imagenet256.npz, VIRTUAL_imagenet256_labeled.npz and classify_image_graph_def.pb, 5 GB.
"""

import json
import os
from pathlib import Path

import pytest
from tiny import run_job

from rfjax.flags import read_flags
from rfjax.study import evaluate

FOLDER = Path(os.environ.get("RFJAX_ADM", "none"))
ROOT = Path(__file__).parents[2]
SAMPLES, REFERENCE = "admnet_guided_upsampled_imagenet256.npz", "VIRTUAL_imagenet256_labeled.npz"
NETWORK = "classify_image_graph_def.pb"
RELATIVE, ABSOLUTE = 1e-3, 0.0025  # what a good port reaches: of FID, sFID and IS; of precision and recall


@pytest.mark.skipif(not (FOLDER / SAMPLES).is_file(), reason="RFJAX_ADM names no folder with ADM's files")
def test_adms_samples_have_adms_numbers(tmp_path):
    flags = {
        "workdir": tmp_path / "check",
        "evaluate.source": FOLDER / SAMPLES,
        "evaluate.reference": FOLDER / REFERENCE,
        "evaluate.inception": FOLDER / NETWORK,
    }
    words = [f"--config.{name}={value}" for name, value in flags.items()]
    config = read_flags([f"--config={ROOT / 'configs' / 'evaluate.py'}:adm", *words])
    assert run_job(evaluate, config, 0.0) == 0
    (path,) = (tmp_path / "check" / "sets").glob("*/metrics.json")
    found = json.loads(path.read_text())["scores"]
    for text in config.evaluate.expected:
        key, _, value = text.partition("=")
        close = {"abs": ABSOLUTE} if key in ("precision", "recall") else {"rel": RELATIVE}
        assert found[key] == pytest.approx(float(value), **close), key


def test_the_known_values_are_of_metrics_that_are_measured():
    config = read_flags([f"--config={ROOT / 'configs' / 'evaluate.py'}:adm"])
    measured = {"fid", "sfid", "inception_score", "precision", "recall"}
    assert {text.partition("=")[0] for text in config.evaluate.expected} == measured
    assert set(config.sampling.metrics) == {"fid", "sfid", "inception_score", "precision_recall"}
