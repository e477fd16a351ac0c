import json
import os
import re
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image
from tiny import begun_run, run_job, tiny

from rfjax import config as configs
from rfjax import interop, main, memory
from rfjax.errors import UserError
from rfjax.study import generate, model_source, pictures
from rfjax.training.spec import make_run_spec
from rfjax.training.weights import Weights

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """The folder of a run, in that of a study."""
    c = tiny()
    c.model.depth = 1
    folder = tmp_path_factory.mktemp("source")
    (folder / "study.json").write_text("{}")
    begun_run(folder / "runs" / "d1", configs.parse(c))
    return str(folder / "runs" / "d1")


def sample(folder, source, sampler="euler", channels=0, **values):
    c = configs.default()
    c.update(job="generate", workdir=str(folder))
    c.sampling.update(sampler=sampler, guidance_channels=channels)
    c.generate.update(source=str(source), steps=2, count=6, batch=4)
    c.generate.update(values)
    return run_job(generate, configs.parse(c), time.time())


def read(folder, name):
    with np.load(folder / f"{name}.npz") as arrays:
        return dict(arrays), json.loads((folder / f"{name}.json").read_text())


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_the_same_command_gives_the_same_bits_and_another_one_files_of_its_own(source, tmp_path, capsys):
    assert sample(tmp_path, source) == 0
    out = capsys.readouterr().out
    assert "6 drawn in" in out
    assert re.search(r"score 0\.\d+ ± .* Fréchet distance \d", out)
    kept = {name: (tmp_path / name).read_bytes() for name in names(tmp_path) if not name.endswith(".json")}
    assert list(kept) == ["d1_euler_2@3.0_seed0.npz", "d1_euler_2@3.0_seed0.png"]
    arrays, about = read(tmp_path, "d1_euler_2@3.0_seed0")
    assert (arrays["images"].shape, arrays["images"].dtype) == ((6, 16, 16, 3), np.uint8)
    assert (list(arrays["captions"]), int(arrays["seed"])) == (about["settings"]["captions"], 0)
    assert (about["settings"]["step"], about["settings"]["formulation"]) == (8, "rf/lognorm(0.00,1.00)")
    assert about["found"]["frechet"] > 0
    assert about["seconds"] > 0
    grid = np.asarray(Image.open(tmp_path / "d1_euler_2@3.0_seed0.png"))
    assert (grid[-60 - 128 : -60] != 255).any()  # the second row

    assert sample(tmp_path, source) == 0
    assert {name: (tmp_path / name).read_bytes() for name in kept} == kept
    assert len(names(tmp_path)) == 3

    # Prompts: a picture each, no score; the same name is taken, so this one has a number, the second time too.
    capsys.readouterr()
    for _ in range(2):
        assert sample(tmp_path, source, prompts=("a red circle", "")) == 0
    assert "score" not in capsys.readouterr().out
    assert len(names(tmp_path)) == 6
    assert {name: (tmp_path / name).read_bytes() for name in kept} == kept
    other, about = read(tmp_path, "d1_euler_2@3.0_seed0_2")
    assert list(other["captions"]) == ["a red circle", ""]
    assert "score" not in about["found"]


def test_seed_size_weights_and_sampler_are_flags(source, tmp_path):
    assert sample(tmp_path, source, prompts=("a red circle",) * 2) == 0
    first = read(tmp_path, "d1_euler_2@3.0_seed0")[0]["images"]
    assert (first[0] != first[1]).any()
    assert sample(tmp_path, source, prompts=("a red circle",) * 2, seed=7) == 0
    assert (read(tmp_path, "d1_euler_2@3.0_seed7")[0]["images"] != first).any()
    assert sample(tmp_path, source, "heun", height=8, guidance=1.0, weights="raw") == 0
    arrays, about = read(tmp_path, "d1_heun_2@1.0_seed0")
    assert arrays["images"].shape == (6, 8, 16, 3)
    assert about["settings"]["weights"] == "raw"
    assert "score" not in about["found"]  # of another size than the data


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"source": "nowhere"}, "there is no nowhere"),
        ({"height": 6}, "height = 6 is not a multiple of the model's patch, 4"),
        ({"encodings": "nowhere.npz"}, "there is no such file"),
        ({"encodings": __file__}, "can't be read: it must be an .npz file"),
        ({"encodings": "/dev/zero"}, "/dev/zero is a device, and must be a file"),
        ({"channels": 4}, "guidance_channels"),
        ({"prompts": ("a red circle",), "encodings": "both.npz"}, "are both set"),
    ],
)
def test_a_mistake_is_one_sentence_before_a_folder_is_made(source, tmp_path, values, words):
    with pytest.raises(UserError) as error:
        sample(tmp_path / "out", **{"source": source, **values})
    assert words in str(error.value)
    assert "\n" not in str(error.value)
    assert names(tmp_path) == []


def test_what_lies_in_the_folder_already_is_never_mistaken_for_ours(tmp_path):
    for content in ("", "[" * 99999, "[1]", '{"settings": 5}', "\udcff"):
        (tmp_path / "x.json").write_text(content, errors="surrogateescape")
        assert pictures.free_name(tmp_path, "x", {"a": 1}) == tmp_path / "x_2.png"
    (tmp_path / "x.json").write_text('{"settings": {"a": 1}}')
    assert pictures.free_name(tmp_path, "x", {"a": 1}) == tmp_path / "x.png"


def test_a_long_name_of_a_model_is_cut(tmp_path):
    (tmp_path / ("ä" * 120)).mkdir()
    assert model_source.label_of(tmp_path / ("ä" * 120)) == "ä" * 40


def test_a_study_is_told_to_name_a_run_and_a_run_without_a_checkpoint_to_train(source, tmp_path):
    with pytest.raises(UserError, match=r"is the folder of a study: .* such as .*runs/d1$"):
        sample(tmp_path, Path(source).parents[1])
    (tmp_path / "begun" / "checkpoints").mkdir(parents=True)
    (tmp_path / "begun" / "config.json").write_text((Path(source) / "config.json").read_text())
    with pytest.raises(UserError, match="has no checkpoint yet"):
        sample(tmp_path, tmp_path / "begun")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"can't be written .*: set config.workdir"):
        sample(tmp_path / "file", source)


def imported(monkeypatch, tmp_path, **sections):
    """A tiny network of latents that stands for another project's checkpoint; returns its path."""
    c = tiny()
    c.data.update(image_size=8, channels=4)
    c.data.name = "tfds"
    c.data.dataset = "none_such"
    c.data.data_dir = str(tmp_path)
    c.model.depth = 1
    for section, values in sections.items():
        c[section].update(values)
    config = configs.parse(c)
    spec = make_run_spec(config)
    example = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), spec.inputs.abstract(1))
    params = jax.jit(spec.model.init)(jax.random.key(0), *example)["params"]
    # Final layers start at zero: a bias gives the pictures something to show.
    params = jax.tree.map(lambda x: x + 0.01, params)
    asked = []

    def read_checkpoint(path, layout, mesh):
        asked.append((path.name, layout))
        return Weights(config, spec, params, 0)

    monkeypatch.setattr(interop, "read", read_checkpoint)
    monkeypatch.setattr(interop, "read_config", lambda path, layout: config)
    path = tmp_path / "SiT.pt"
    path.write_text("weights")
    return path, asked, params


def test_a_checkpoint_of_another_project_draws_latents_of_class_labels(monkeypatch, tmp_path, capsys):
    labels = {"encoder": "labels", "pooled_width": 10, "length": 1}
    path, asked, params = imported(monkeypatch, tmp_path, text=labels, model={"backbone": "sit"})
    out = tmp_path / "out"
    assert sample(out, path, prompts=("7", "0", ""), layout="sit", columns=2, width=4) == 0
    assert asked == [("SiT.pt", "sit")]
    assert "latents of 4 channels have no decoder here" in capsys.readouterr().out
    arrays, about = read(out, "SiT_euler_2@3.0_seed0")
    assert (arrays["images"].shape, arrays["images"].dtype) == ((3, 8, 4, 4), np.float32)
    assert about["settings"]["image"] == [8, 4, 4]
    assert len(np.unique(np.asarray(Image.open(out / "SiT_euler_2@3.0_seed0.png")).reshape(-1, 3), axis=0)) > 50

    with pytest.raises(UserError, match="'ten' is not the number of a class, 0 to 9"):
        sample(out, path, prompts=("ten",))
    with pytest.raises(
        UserError, match=r"^give config\.generate\.prompts: .* no captions to offer: there is no prepared"
    ):
        sample(out, path)
    assert len(names(out)) == 3

    # In a single step, channels that are not guided are those of the conditional network.
    for seed, how in ((1, {"channels": 3}), (2, {}), (3, {"guidance": 1.0})):
        assert sample(tmp_path / f"{seed}", path, prompts=("7", "0"), steps=1, **how) == 0
    some, whole, none = (np.load(next((tmp_path / f"{i}").glob("*.npz")))["images"] for i in (1, 2, 3))
    np.testing.assert_array_equal(some[..., :3], whole[..., :3])
    np.testing.assert_array_equal(some[..., 3], none[..., 3])
    assert (whole[..., 3] != none[..., 3]).any()
    assert "guidance 3, on 3 of 4 channels" in capsys.readouterr().out

    params["final"]["bias"] = params["final"]["bias"] + np.nan
    assert sample(out, path, prompts=("7", "0"), seed=1) == 1
    assert "2 of 2 pictures are not finite" in capsys.readouterr().out


def test_encodings_from_a_file_stand_for_prompts(monkeypatch, tmp_path):
    path, *_ = imported(monkeypatch, tmp_path, text={"encoder": "stored", "length": 8, "width": 8, "pooled_width": 6})
    for values, words in (({"prompts": ("a",)}, "or an .npz file"), ({}, r"^give config\.generate\.encodings")):
        with pytest.raises(UserError, match=words):
            sample(tmp_path / "out", path, **values)

    def save(**arrays):
        np.savez(tmp_path / "text.npz", **arrays)
        return str(tmp_path / "text.npz")

    random = np.random.default_rng(0)
    context, pooled = random.normal(size=(3, 8, 8)), random.normal(size=(3, 6)).astype(np.float16)
    captions = np.array(["a cat", "a dog", "a cow"])
    assert sample(tmp_path / "out", path, encodings=save(context=context, pooled=pooled, captions=captions)) == 0
    arrays, _ = read(tmp_path / "out", "SiT_euler_2@3.0_seed0")
    assert list(arrays["captions"]) == list(captions)
    # Other encodings under the same captions are other settings.
    assert sample(tmp_path / "out", path, encodings=save(context=context + 1, pooled=pooled, captions=captions)) == 0
    assert (read(tmp_path / "out", "SiT_euler_2@3.0_seed0_2")[0]["images"] != arrays["images"]).any()
    assert sample(tmp_path / "out", path, encodings=save(context=context, pooled=pooled), seed=1) == 0
    assert list(read(tmp_path / "out", "SiT_euler_2@3.0_seed1")[0]["captions"]) == ["no. 1", "no. 2", "no. 3"]

    # A network takes any number of text tokens, unless it has weights for some of them.
    assert sample(tmp_path / "out", path, encodings=save(context=context[:, :5], pooled=pooled), seed=2) == 0

    for wrong, words in (
        ({"context": context[..., :5]}, "expected context of shape (3, 8, 8) for this model, found (3, 8, 5)"),
        ({"pooled": pooled[:, :5]}, "expected pooled of shape (3, 6) for this model, found (3, 5)"),
        ({"pooled": pooled[0]}, "expected 'pooled' as finite numbers of shape (n, P), found float16 of (6,)"),
        ({"context": context * np.nan}, "as finite numbers"),
        ({"captions": captions[:2]}, "it has 3 of context, 3 of pooled, 2 captions"),
        ({"context": context[:0], "pooled": pooled[:0], "captions": captions[:0]}, "it has 0 of context"),
        ({"captions": captions.astype(object)}, "can't be read"),
    ):
        with pytest.raises(UserError) as error:
            sample(
                tmp_path / "out",
                path,
                encodings=save(**({"context": context, "pooled": pooled, "captions": captions} | wrong)),
            )
        assert words in str(error.value)
    with pytest.raises(UserError, match="has no array 'pooled'"):
        sample(tmp_path / "out", path, encodings=save(context=context))


def test_a_file_of_encodings_that_is_none_or_unpacks_to_more_than_memory_is_refused(tmp_path, monkeypatch):
    bomb, fifo = tmp_path / "bomb.npz", tmp_path / "fifo.npz"
    np.savez_compressed(bomb, context=np.zeros((1000, 10, 10), np.float32), pooled=np.zeros((1000, 10), np.float32))
    os.mkfifo(fifo)
    assert generate.read_encodings(bomb).arrays["pooled"].shape == (1000, 10)
    monkeypatch.setattr(memory, "installed", lambda: 10 * bomb.stat().st_size)
    for file, words in ((bomb, "GiB of memory, and there are"), (fifo, "is a FIFO, and must be a file")):
        with pytest.raises(UserError, match=words):
            generate.read_encodings(file)


def test_the_config_reaches_the_job(source, tmp_path, capsys):
    file = f"--config={ROOT / 'configs' / 'generate.py'}"
    config = main.read_flags([file])
    assert (config.job, config.workdir) == ("generate", "work/samples")
    assert config.generate.source == "work/scaling/runs/d7-seed0"
    flags = [f"--config.workdir={tmp_path}", f"--config.generate.source={source}", "--config.generate.steps=2"]
    assert main.main([file, *flags, "--config.generate.prompts=('a red circle',)"]) == 0
    assert "1 drawn in" in capsys.readouterr().out
