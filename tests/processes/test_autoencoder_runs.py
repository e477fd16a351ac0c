"""Whole runs with an autoencoder: pictures that are encoded in each step, and latents that were encoded before."""

import jax
import numpy as np
import pytest
from autoencoder_cases import write_vae
from PIL import Image
from tiny import tiny

from rfjax import config as configs
from rfjax.encoders import make_codec
from rfjax.jsonl import read_lines
from rfjax.training import loop, stop
from rfjax.training import mesh as meshes
from rfjax.training.checkpoints import Checkpoints
from rfjax.training.encode import EncodeStage
from rfjax.training.spec import make_run_spec
from rfjax.training.state import abstract_state

SIDE, LATENT = 16, 8


class StopAt(stop.Stop):
    """A signal when the run asks for the n-th time."""

    def __init__(self, at):
        super().__init__()
        self.at, self.asked = at, 0

    def granted(self):
        self.asked += 1
        return self.asked == self.at


class Silent:
    """A display that shows nothing."""

    def __getattr__(self, name):
        return lambda *words: None


def stored(folder, autoencoder):
    """Latents of random pictures, with captions."""
    c = tiny()
    c.autoencoder.update(path=str(autoencoder), posterior="mode")
    c.model.patch = 2
    codec = make_codec(configs.parse(c))
    mesh = meshes.make_mesh(configs.Mesh())
    stage = EncodeStage.place((codec,), mesh)
    for split, count in (("train", 64), ("validation", 16)):
        images = np.random.default_rng(count).integers(0, 256, (count, SIDE, SIDE, 3), np.uint8)
        batch = meshes.put_rows({"image": images, "slot": np.arange(count, dtype=np.int32)}, count, mesh)
        z = np.asarray(stage(batch, jax.numpy.uint32(0), jax.numpy.int32(0))["z"])
        (folder / split).mkdir(parents=True)
        np.save(folder / split / "latents.npy", z.astype(np.float16))
        (folder / split / "captions.txt").write_text("".join(f"picture {i}\n" for i in range(count)))
    return {"name": "latents", "path": str(folder), "image_size": LATENT, "channels": 4}


def make_run(folder, autoencoder, **sections):
    c = tiny()
    c.model.patch = 2
    c.autoencoder.update(path=str(autoencoder), batch=1)
    for section, values in ({"training": {"validate_every": 4}} | sections).items():
        c[section].update(values)
    return loop.Run("run", configs.parse(c), folder)


def state_of(run):
    saved = Checkpoints(run.folder / "checkpoints", 2)
    state, _ = saved.restore(abstract_state(make_run_spec(run.config), meshes.make_mesh(run.config.mesh)))
    saved.close()
    return jax.device_get(state)


@pytest.mark.parametrize("kind", ["pictures", "latents"])
def test_a_stopped_run_goes_on_to_the_same_bits(kind, tmp_path):
    autoencoder = write_vae(tmp_path / "vae")
    if kind == "pictures":  # with features of the same pictures: alignment without anything stored
        sections = {"alignment": {"encoders": ("shapes",), "weight": 0.5}}
    else:
        sections = {"data": stored(tmp_path / "data", autoencoder)}
    runs = [make_run(tmp_path / name, autoencoder, **sections) for name in ("whole", "stopped")]
    assert make_run_spec(runs[0].config).inputs.shape == (LATENT, LATENT, 4)
    loop.train(runs[0], Silent(), stop.Stop())
    with pytest.raises(stop.Interrupted):
        loop.train(runs[1], Silent(), StopAt(3))
    loop.train(runs[1], Silent(), stop.Stop())
    jax.tree.map(np.testing.assert_array_equal, *map(state_of, runs))
    lines = [[line for line in read_lines(run.folder / "metrics.jsonl")[0]] for run in runs]
    losses = [[line["loss"] for line in each if line["kind"] in ("train", "validation")] for each in lines]
    assert losses[0] == losses[1] and np.isfinite(losses[0]).all()
    for run in runs:
        assert {path.stem for path in (run.folder / "samples").iterdir()} >= {"raw", "ema", "data"}
    shown = [[(path.name, path.read_bytes()) for path in sorted((run.folder / "samples").iterdir())] for run in runs]
    assert shown[0] == shown[1]
    if kind == "pictures":
        assert any(line["kind"] == "scores" and line["frechet"] > 0 for line in lines[0])


def test_the_datas_own_latents_are_shown_decoded(tmp_path):
    """The first true picture of the montage is the decoded latent."""
    autoencoder = write_vae(tmp_path / "vae")
    run = make_run(tmp_path / "run", autoencoder, data=stored(tmp_path / "data", autoencoder),
                   training={"steps": 2, "validate_every": 0, "checkpoint_every": 2})  # fmt: skip
    loop.train(run, Silent(), stop.Stop())
    codec = make_codec(run.config)
    weights = EncodeStage.place((codec,), meshes.make_mesh(run.config.mesh)).weights[0]
    first = np.load(tmp_path / "data" / "validation" / "latents.npy")[:1]
    expected = np.asarray(jax.jit(codec.decode)(weights, first))[0]
    tiles = np.asarray(Image.open(run.folder / "samples" / "data_tiles.png"))
    found = tiles[:SIDE, :SIDE]
    assert np.abs(found.astype(int) - expected).max() <= 1
