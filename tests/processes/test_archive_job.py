"""An archive of pictures: how many, which labels, which bytes, and what becomes of it when the job is stopped."""

import json
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from tiny import begun_run, run_job, tiny

from rfjax import config as configs
from rfjax import main
from rfjax.encoders.codec import Latents, Pixels, to_pixels
from rfjax.errors import UserError
from rfjax.evaluation import sampler
from rfjax.study import archive, archive_parts, generate

ROOT = Path(__file__).parents[2]
CLASSES = 10


def of_labels(**sections):
    c = tiny()
    c.model.update(depth=1, backbone="sit", heads=2)
    c.data.update(name="digits", image_size=8, channels=1)
    c.text.update(encoder="labels", pooled_width=CLASSES)
    for section, values in sections.items():
        c[section].update(values)
    return configs.parse(c)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """The folder of a run on digits, whose last layer has something to say."""
    folder = tmp_path_factory.mktemp("source") / "digits"
    begun_run(folder, of_labels(), (1,))
    return folder


def make(folder, source, labels="random", rounding="sit", sampling=None, **values):
    c = configs.default()
    c.update(job="archive", workdir=str(folder))
    c.archive.update(labels=labels, rounding=rounding)
    c.generate.update(source=str(source), steps=2, count=11, batch=4, guidance=1.0)
    c.generate.update(values)
    c.sampling.update(sampling or {})
    return run_job(archive, configs.parse(c), time.time())


def read(folder):
    with np.load(folder / "samples.npz", allow_pickle=False) as arrays:
        return dict(arrays), json.loads((folder / "archive.json").read_text())


def test_it_holds_exactly_as_many_pictures_as_were_asked_for_with_their_labels(source, tmp_path, capsys):
    assert make(tmp_path, source) == 0
    arrays, about = read(tmp_path)
    assert list(arrays) == ["arr_0", "arr_1"]
    assert (arrays["arr_0"].shape, arrays["arr_0"].dtype) == ((11, 8, 8, 1), np.uint8)
    assert (arrays["arr_1"].shape, arrays["arr_1"].dtype) == ((11,), np.int64)
    assert len(np.unique(arrays["arr_0"].reshape(11, -1), axis=0)) == 11
    assert (about["settings"]["count"], about["settings"]["content"]) == (11, "uint8 pictures")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["archive.json", "parts", "samples.npz"]
    assert not list((tmp_path / "parts").iterdir())
    assert "11 uint8 pictures are in" in " ".join(capsys.readouterr().out.split())
    before = (tmp_path / "samples.npz").read_bytes()
    assert make(tmp_path, source) == 0  # complete: nothing is drawn
    assert (tmp_path / "samples.npz").read_bytes() == before
    assert "0 batches took" in " ".join(capsys.readouterr().out.split())

    # The job `generate` draws the same pictures of the same labels and seed.
    c = configs.default()
    c.update(job="generate", workdir=str(tmp_path / "few"))
    c.generate.update(source=str(source), steps=2, batch=4, guidance=1.0)
    c.generate.prompts = tuple(map(str, arrays["arr_1"].tolist()))
    assert run_job(generate, configs.parse(c), time.time()) == 0
    few = np.load(next((tmp_path / "few").glob("*.npz")))["images"]
    np.testing.assert_array_equal(few, arrays["arr_0"])


def test_labels_are_random_by_seed_and_index_or_balanced():
    index = np.arange(20_000)
    drawn = archive.class_labels(index, CLASSES, "random", 3)
    np.testing.assert_array_equal(archive.class_labels(index[7:9], CLASSES, "random", 3), drawn[7:9])
    assert drawn.min() >= 0 and drawn.max() == CLASSES - 1
    counts = np.bincount(drawn, minlength=CLASSES)
    assert np.abs(counts - 2000).max() < 4.5 * np.sqrt(2000 * 0.9) and counts.std() > 5
    assert (archive.class_labels(index, CLASSES, "random", 4) != drawn).mean() == pytest.approx(0.9, abs=0.02)
    assert np.ptp(np.bincount(archive.class_labels(index[:10_005], CLASSES, "balanced", 0))) == 1
    high = archive.class_labels(np.arange(200_000), 1000, "random", 0)
    assert set(high.tolist()) == set(range(1000))


def test_a_stopped_job_goes_on_and_ends_in_the_same_bytes(source, tmp_path, monkeypatch):
    assert make(tmp_path / "whole", source, labels="balanced") == 0
    drawn = []

    def fails(*arguments, **settings):
        drawn.append(arguments[1].tolist())
        if len(drawn) == 3:
            raise MemoryError
        return sampler.sample_batch(*arguments, **settings)

    monkeypatch.setattr(archive, "sample_batch", fails)
    with pytest.raises(MemoryError):
        make(tmp_path / "other", source, labels="balanced")
    assert not (tmp_path / "other" / "samples.npz").exists()
    assert archive_parts.first_missing(tmp_path / "other", 3) == 2
    assert make(tmp_path / "other", source, labels="balanced") == 0
    assert drawn == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 0], [8, 9, 10, 0]]  # the last is filled up
    found, expected = ((tmp_path / name / "samples.npz").read_bytes() for name in ("other", "whole"))
    assert found == expected
    assert read(tmp_path / "whole")[0]["arr_1"].tolist() == [*range(10), 0]


def test_a_part_that_is_damaged_is_named(source, tmp_path):
    assert make(tmp_path, source) == 0
    (tmp_path / "samples.npz").unlink()
    for number in range(3):
        archive_parts.part(tmp_path, number).write_bytes(b"PK")
    with pytest.raises(UserError, match=r"000000.npz can't be read .*: remove it and repeat the same command"):
        make(tmp_path, source)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"count": 12}, "count is 11 there and 12 here"),
        ({"seed": 1}, "seed is 0 there and 1 here"),
        ({"labels": "balanced"}, "labels is 'random' there and 'balanced' here"),
        ({"rounding": "repa"}, "rounding is 'sit' there and 'repa' here"),
        ({"preset": "repa-ode-50"}, "steps is 2 there and 50 here"),
        ({"weights": "raw"}, "weights is 'ema' there and 'raw' here"),
    ],
)
def test_a_folder_of_another_archive_is_refused(source, tmp_path, values, words):
    (tmp_path / "archive.json").write_text(json.dumps({"settings": about_of(tmp_path, source)}))
    with pytest.raises(UserError, match=rf"holds another archive: .*{words}.*choose another folder"):
        make(tmp_path, source, **values)


ABOUT = {}


def about_of(tmp_path, source):
    if not ABOUT:
        assert make(tmp_path / "first", source) == 0
        ABOUT.update(read(tmp_path / "first")[1]["settings"])
    return ABOUT


def test_other_weights_under_the_same_name_are_another_archive(source, tmp_path):
    about = about_of(tmp_path, source)
    (tmp_path / "archive.json").write_text(json.dumps({"settings": about | {"fingerprint": "0"}}))
    with pytest.raises(UserError, match="fingerprint is '0' there"):
        make(tmp_path, source)
    (tmp_path / "archive.json").unlink()
    (tmp_path / "samples.npz").write_bytes(b"")
    with pytest.raises(UserError, match=r"has samples.npz and no archive.json"):
        make(tmp_path, source)


def test_both_roundings():
    """SiT's clamp(127.5 s + 128) is to the nearest level, REPA's cuts 255 (s + 1) / 2 off; bytes come back in both."""
    s = np.array([-1.5, -1, -0.999, 0, 0.5, 0.9999, 1, 2], np.float32)
    assert to_pixels(s).tolist() == [0, 0, 0, 128, 191, 255, 255, 255]
    assert to_pixels(s, "repa").tolist() == [0, 0, 0, 127, 191, 254, 255, 255]
    bytes_ = np.arange(256) / np.float32(127.5) - 1
    np.testing.assert_array_equal(to_pixels(bytes_), np.arange(256))
    assert np.abs(to_pixels(bytes_, "repa").astype(int) - np.arange(256)).max() <= 1
    random = np.random.default_rng(0).uniform(-1, 1, 100_000).astype(np.float32)
    assert to_pixels(random).mean() - to_pixels(random, "repa").mean() == pytest.approx(0.5, abs=0.01)
    assert archive.rounded(Pixels((8, 8, 1)), "repa") == Pixels((8, 8, 1), "repa")
    assert archive.rounded(Latents((8, 8, 4)), "repa") == Latents((8, 8, 4))


def test_the_rounding_reaches_the_pictures(source, tmp_path):
    for rounding in ("sit", "repa"):
        assert make(tmp_path / rounding, source, rounding=rounding, preset="sit-heun-250", count=4) == 0
    sit, repa = (read(tmp_path / name)[0]["arr_0"].astype(int) for name in ("sit", "repa"))
    assert set(np.unique(sit - repa)) <= {0, 1} and 0.1 < (sit - repa).mean() < 0.8


def test_a_model_of_text_draws_captions_and_one_of_latents_keeps_latents(tmp_path, capsys):
    c = tiny()
    c.model.depth = 1
    begun_run(tmp_path / "text", configs.parse(c))
    with pytest.raises(UserError, match="labels = 'random' is for models of class labels"):
        make(tmp_path / "out", tmp_path / "text")
    assert not (tmp_path / "out").exists()
    assert make(tmp_path / "out", tmp_path / "text", labels="captions") == 0
    arrays, _ = read(tmp_path / "out")
    assert list(arrays) == ["arr_0", "captions"] and len(set(arrays["captions"].tolist())) > 3
    assert arrays["arr_0"].shape == (11, 16, 16, 3)

    latents = of_labels(data={"name": "moments", "path": "nowhere", "channels": 4, "latent_scale": 0.25})
    begun_run(tmp_path / "latents", latents)
    assert make(tmp_path / "kept", tmp_path / "latents") == 0
    arrays, about = read(tmp_path / "kept")
    assert (arrays["arr_0"].shape, arrays["arr_0"].dtype) == ((11, 8, 8, 4), np.float32)
    assert about["settings"]["content"] == "float32 latents, as the network makes them"
    assert "decode arr_0, divided by 0.25, before you" in " ".join(capsys.readouterr().out.split())


def test_pictures_that_are_not_finite_are_refused_and_not_written(source, tmp_path, monkeypatch):
    def broken(*arguments, **settings):
        made = sampler.sample_batch(*arguments, **settings)
        return made._replace(finite=made.finite.at[2].set(False))

    monkeypatch.setattr(archive, "sample_batch", broken)
    with pytest.raises(UserError, match="1 pictures of batch 0 are not finite, the first is number 2"):
        make(tmp_path, source)
    assert not list(tmp_path.glob("parts/*"))


def test_the_pictures_do_not_depend_on_the_batch_beyond_rounding(source, tmp_path):
    """Noise and label belong to the picture's index."""
    for batch in (3, 11):
        assert make(tmp_path / str(batch), source, batch=batch, preset="repa-sde-250", count=5) == 0
    few, many = (read(tmp_path / name)[0] for name in ("3", "11"))
    np.testing.assert_array_equal(few["arr_1"], many["arr_1"])
    assert np.abs(few["arr_0"].astype(int) - many["arr_0"]).max() <= 1


def test_the_config_reaches_the_job(source, tmp_path, capsys):
    file = f"--config={ROOT / 'configs' / 'archive.py'}"
    config = main.read_flags([file])
    assert (config.job, config.generate.count, config.generate.preset) == ("archive", 50_000, "repa-sde-250")
    flags = [f"--config.workdir={tmp_path}", f"--config.generate.source={source}", "--config.generate.count=2"]
    assert main.main([file, *flags, "--config.generate.preset=repa-ode-50"]) == 0
    assert read(tmp_path)[1]["settings"]["sampler"] == "euler"
    assert jax.process_count() == 1
