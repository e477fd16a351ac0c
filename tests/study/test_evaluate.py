"""The job `evaluate`: runs, archives and folders are drawn, measured and reported; a second command goes on."""

import dataclasses
import json

import numpy as np
import pytest
from PIL import Image
from tiny import begun_run, run_job, tiny

from rfjax import config as configs
from rfjax.errors import UserError
from rfjax.study import archive_parts, evaluate, reports
from rfjax.study.jobs import FAILURE


def settings_of(tmp_path, source, **changes):
    c = tiny()
    c.job = "evaluate"
    c.workdir = str(tmp_path / "evaluation")
    c.study.update(name="Evaluation", report="evaluate")
    c.evaluate.update(source=str(source), reference_count=12)
    c.sampling.update(
        metrics=("toy_embedder:FD", "toy_embedder:AGREEMENT"), settings=("2@1.0",), weights="ema", shown=4
    )
    c.generate.update(count=10, batch=4)
    for name, value in changes.items():
        section, _, key = name.partition("__")
        c[section][key] = value
    return configs.parse(c)


def records(config):
    root = evaluate.Path(config.workdir) / "sets"
    return {path.parent.name: json.loads(path.read_text()) for path in sorted(root.glob("*/metrics.json"))}


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "d2"
    begun_run(folder, configs.parse(tiny()), steps=(4, 8))
    return folder


@pytest.fixture
def pictures(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (10, 16, 16, 3), np.uint8)
    np.savez(tmp_path / "own.npz", arr_0=images, captions=np.array([f"picture {i}" for i in range(10)]))
    return tmp_path / "own.npz"


def test_each_checkpoint_of_a_run_is_drawn_and_measured(tmp_path, run_folder):
    config = settings_of(
        tmp_path, run_folder, evaluate__checkpoints="all", sampling__metrics=("own", "toy_embedder:FD")
    )
    assert run_job(evaluate, config, 0.0) == 0
    found = records(config)
    assert list(found) == ["d2_step4_ema_2@1.0", "d2_step8_ema_2@1.0"]
    for record in found.values():
        assert record["count"] == 10
        assert record["scores"]["toy_fd"] > 0
        assert 0 <= record["scores"]["score"] <= 1
        assert record["about"]["sampler"] == "euler"
        assert record["protocols"]["toy_fd"]["reference"] == "shapes, train, 12 pictures"
        assert len(record["captions"]) == 4
    folder = evaluate.Path(config.workdir) / "sets" / "d2_step8_ema_2@1.0"
    assert (folder / "shown.png").is_file()
    assert not (folder / archive_parts.NAME).exists()  # it was not to be kept
    page = (evaluate.Path(config.workdir) / "report" / "index.html").read_text()
    assert "FD toy" in page
    assert "d2_step4_ema_2@1.0" in page
    before = folder.stat().st_mtime_ns
    assert run_job(evaluate, config, 0.0) == 0  # nothing is left to do
    assert folder.stat().st_mtime_ns == before
    more = dataclasses.replace(config, generate=dataclasses.replace(config.generate, count=12))
    assert run_job(evaluate, more, 0.0) == 2  # other pictures than those that were measured here
    assert "count is 10 there and 12 here" in (folder / FAILURE).read_text()


def test_an_archive_and_a_folder_of_the_same_pictures_are_alike(tmp_path, pictures):
    (tmp_path / "folder").mkdir()
    for number, image in enumerate(np.load(pictures)["arr_0"]):
        Image.fromarray(image).save(tmp_path / "folder" / f"{number}.png")
        (tmp_path / "folder" / f"{number}.txt").write_text(f"picture {number}")
    values = []
    for source in (pictures, tmp_path / "folder"):
        config = settings_of(tmp_path / f"of {source.stem}", source, evaluate__reference=str(pictures))
        assert run_job(evaluate, config, 0.0) == 0
        (record,) = records(config).values()
        values.append(record["scores"])
    assert values[0] == values[1]
    assert values[0]["toy_fd"] == pytest.approx(0, abs=1e-9)  # with itself


def test_known_values_and_what_the_papers_have_stand_in_the_report(tmp_path, pictures):
    config = settings_of(
        tmp_path, pictures, evaluate__reference=str(pictures), evaluate__expected=("toy_agreement=0.5",)
    )
    assert run_job(evaluate, config, 0.0) == 0
    page = reports.build_report(evaluate.Path(config.workdir))
    shown = "".join(page.report.sections(page.study, page.findings))
    assert "Known values" in shown
    assert "0.5" in shown


@pytest.mark.job
def test_reconstructions_of_an_autoencoder(tmp_path):
    from pipelines import write_pipeline

    write_pipeline(tmp_path / "pipeline")
    config = settings_of(
        tmp_path, "autoencoder", autoencoder__path=str(tmp_path / "pipeline" / "vae"), autoencoder__posterior="mode"
    )
    assert run_job(evaluate, config, 0.0) == 0
    (record,) = records(config).values()
    assert record["count"] == 10
    assert 0 < record["scores"]["psnr"] < 60
    assert -1 <= record["scores"]["ssim"] <= 1
    assert record["scores"]["toy_fd"] >= 0
    fewer = dataclasses.replace(config, generate=dataclasses.replace(config.generate, count=6))
    assert run_job(evaluate, fewer, 0.0) == 0
    assert next(iter(records(fewer).values()))["count"] == 6


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"evaluate__source": ""}, "config.evaluate.source is empty"),
        ({"evaluate__source": "nowhere"}, "there is no nowhere"),
        ({"evaluate__source": "autoencoder"}, "config.autoencoder.path"),
    ],
)
def test_sources_that_are_none(tmp_path, changes, said):
    with pytest.raises(UserError, match=said):
        evaluate.make_job(settings_of(tmp_path, "x", **changes), 0.0)


def test_a_set_that_fails_says_why_in_a_sentence(tmp_path, pictures):
    config = settings_of(tmp_path, pictures, sampling__metrics=("own",))
    assert run_job(evaluate, config, 0.0) == 2
    (path,) = (evaluate.Path(config.workdir) / "sets").glob(f"*/{FAILURE}")
    assert "names no metric for pictures that are there already" in path.read_text()


def test_a_checkpoint_that_is_not_there(tmp_path, run_folder):
    config = settings_of(tmp_path, run_folder)
    asked = dataclasses.replace(config, generate=dataclasses.replace(config.generate, source=str(run_folder), step=5))
    from rfjax.study.model_source import find_model

    with pytest.raises(UserError, match="checkpoints of the steps 4, 8"):
        find_model(asked)


@pytest.mark.job
def test_a_study_measures_along_its_runs_and_shows_it(tmp_path):
    from rfjax.study import runner

    c = tiny()
    c.workdir = str(tmp_path / "study")
    c.model.depth = 1
    c.training.validate_every = 4
    c.evaluate.reference_count = 12
    c.sampling.update(metrics=("own", "toy_embedder:FD"), along=True, weights="ema")
    assert run_job(runner, configs.parse(c), 0.0) == 0
    (path,) = (tmp_path / "study" / "runs").glob("*/metrics.jsonl")
    scores = [line for line in map(json.loads, path.read_text().splitlines()) if line["kind"] == "scores"]
    assert len(scores) == 2
    assert all(line["toy_fd"] > 0 and line["toy_fd_stderr"] > 0 and line["score"] >= 0 for line in scores)
    assert "FD toy" in (tmp_path / "study" / "report" / "index.html").read_text()


def test_a_reference_that_is_none_is_refused_before_training(tmp_path):
    from rfjax.study import runner

    c = tiny()
    c.workdir = str(tmp_path / "study")
    c.evaluate.reference = str(tmp_path / "none.npz")
    c.sampling.metrics = ("toy_embedder:FD",)
    with pytest.raises(UserError, match=r"there is no .*none\.npz"):
        runner.make_job(configs.parse(c), 0.0)
    c.evaluate.reference, c.sampling.metrics = "train", ("fid",)
    with pytest.raises(UserError, match=r"config\.evaluate\.inception"):
        runner.make_job(configs.parse(c), 0.0)


def test_a_metric_s_mistake_is_said_before_anything_is_drawn(tmp_path, run_folder):
    config = settings_of(tmp_path, run_folder, sampling__metrics=("fid",))
    assert run_job(evaluate, config, 0.0) == 2
    (path,) = (evaluate.Path(config.workdir) / "sets").glob(f"*/{FAILURE}")
    assert "config.evaluate.inception" in path.read_text()
    assert not (path.parent / archive_parts.NAME).exists()
    assert not (path.parent / "parts").exists()
    page = (evaluate.Path(config.workdir) / "report" / "index.html").read_text()
    assert "d2_step8_ema_2@1.0 failed: config.evaluate.inception" in page


def test_statistics_of_another_network_are_refused_before_anything_is_drawn(tmp_path, run_folder):
    np.savez(tmp_path / "other.npz", mu=np.zeros(2048), sigma=np.eye(2048))
    config = settings_of(
        tmp_path, run_folder, evaluate__reference=str(tmp_path / "other.npz"), sampling__metrics=("toy_embedder:FD",)
    )
    assert run_job(evaluate, config, 0.0) == 2
    (path,) = (evaluate.Path(config.workdir) / "sets").glob(f"*/{FAILURE}")
    assert "other.npz" in path.read_text()
    assert not (path.parent / archive_parts.NAME).exists()
    assert not (path.parent / "parts").exists()


def test_captions_that_are_missing_are_not_taken_for_empty_ones(tmp_path, pictures):
    np.savez(tmp_path / "bare.npz", arr_0=np.load(pictures)["arr_0"])
    config = settings_of(tmp_path, tmp_path / "bare.npz", sampling__metrics=("toy_embedder:AGREEMENT",))
    assert run_job(evaluate, config, 0.0) == 2
    (path,) = (evaluate.Path(config.workdir) / "sets").glob(f"*/{FAILURE}")
    assert "says not what its pictures show" in path.read_text()


def test_the_job_archive_s_folder_is_its_archive_and_one_picture_is_no_set(tmp_path, pictures):
    folder = tmp_path / "archive"
    folder.mkdir()
    (folder / archive_parts.NAME).write_bytes(pictures.read_bytes())
    (folder / "archive.json").write_text("{}")
    (subject,) = evaluate.find(settings_of(tmp_path, folder))
    assert (subject.name, subject.drawn, subject.source) == ("archive", False, folder / archive_parts.NAME)
    (tmp_path / "0.png").touch()
    with pytest.raises(UserError, match=r"0\.png is one picture"):
        evaluate.find(settings_of(tmp_path, tmp_path / "0.png"))


def test_a_reference_folder_whose_files_changed_is_embedded_again(tmp_path, pictures):
    folder = tmp_path / "reference"
    folder.mkdir()
    images = np.load(pictures)["arr_0"]
    values = []
    for own in (images, 255 - images):  # the second time into the same files: the folder's own time stays
        for number, image in enumerate(own):
            Image.fromarray(image).save(folder / f"{number}.bmp")
        config = settings_of(
            tmp_path, pictures, evaluate__reference=str(folder), sampling__metrics=("toy_embedder:FD",)
        )
        assert run_job(evaluate, config, 0.0) == 0
        ((name, record),) = records(config).items()
        (evaluate.Path(config.workdir) / "sets" / name / "metrics.json").unlink()
        values.append(record["scores"]["toy_fd"])
    assert values[0] == pytest.approx(0, abs=1e-9)
    assert values[1] > 1e-4


def test_a_number_that_can_t_be_had_does_not_take_the_others_with_it(tmp_path, pictures):
    config = settings_of(
        tmp_path,
        pictures,
        evaluate__reference=str(pictures),
        sampling__metrics=("toy_embedder:FD", "toy_embedder:REFUSED"),
    )
    assert run_job(evaluate, config, 0.0) == 0
    (record,) = records(config).values()
    assert record["scores"]["toy_fd"] == pytest.approx(0, abs=1e-9)
    assert "refused is left out. It needs more pictures." in record["notes"]
    assert "refused is left out" in (evaluate.Path(config.workdir) / "report" / "index.html").read_text()
