"""The way of real data on a thumbnail of configs/scaling.py:pod: shards -> encode -> train -> prompt -> picture."""

import json
import time
from pathlib import Path

import numpy as np
import pytest
from makers import encoded as as_file
from makers import write_coco, write_tar, write_tars
from PIL import Image
from pipelines import POOLED, WIDTH, write_pipeline
from tiny import run_job

from rfjax import config as configs
from rfjax import data
from rfjax.errors import UserError
from rfjax.flags import read_flags
from rfjax.study import encode, generate, runner

ROOT = Path(__file__).parents[2]
COUNT, SIDE = 40, 16  # pictures, and pixels of their sides
LENGTH = 77 + 8


def job(kind, name, *flags):
    """Runs a job of a file in configs/, as on the command line; returns its exit code."""
    return run_job(kind, read_flags([f"--config={ROOT / 'configs' / name}", *flags]), time.time())


@pytest.fixture(scope="module")
def sd3(tmp_path_factory):
    return write_pipeline(tmp_path_factory.mktemp("sd3"))


def encoded(folder, sd3, split, *flags):
    """Encodes one split into a folder."""
    return job(
        encode,
        "encode.py",
        f"--config.workdir={folder}",
        f"--config.encode.splits=('{split}',)",
        f"--config.autoencoder.path={sd3}",
        f"--config.text.path={sd3}",
        f"--config.data.image_size={SIDE}",
        f"--config.text.length={LENGTH}",
        "--config.encode.shard=12",  # a batch of 8 and one of 4, which is filled up
        "--config.encode.batch=8",
        *flags,
    )


@pytest.fixture(scope="module")
def folders(tmp_path_factory, sd3):
    """Where CC12M's training pictures and COCO's validation pictures are encoded."""
    root = tmp_path_factory.mktemp("data")
    write_tars(root / "shards", COUNT)
    write_coco(root / "coco", range(16), split="val")
    cc12m = ("--config.data.name=webdataset", f"--config.data.path={root / 'shards'}")
    coco = ("--config.data.name=coco", f"--config.data.path={root / 'coco'}")
    assert encoded(root / "train", sd3, "train", *cc12m, "--config.data.validation_percent=0") == 0
    assert encoded(root / "validation", sd3, "validation", *coco) == 0
    return root


def opened(folders, split="train"):
    return data.open_source(
        configs.Data(
            name="latents",
            path=str(folders / "train"),
            validation_path=str(folders / "validation"),
            image_size=SIDE // 2,
            channels=4,
        ),
        split,
    )


def test_what_was_stored_is_read_back_with_its_shapes_and_types(folders):
    source = opened(folders)
    assert len(source) == COUNT
    fields = {name: (field.shape, field.dtype) for name, field in source.fields.items()}
    assert fields["latent"] == ((8, 8, 4), "float16")
    assert fields["context"] == ((LENGTH, WIDTH), "float16")
    assert fields["pooled"] == ((POOLED,), "float16")
    assert source[3]["caption"] == "number 3"
    assert source.encoding.encoders["text"].keys() == {"clip_l", "clip_g", "t5"}
    assert len(opened(folders, "validation")) == 16
    index = json.loads((folders / "train" / "encoding.json").read_text())
    assert index["splits"]["train"]["rows"] == [12, 12, 12, 4]
    assert index["splits"]["train"]["cut"] == COUNT  # T5 has 8 tokens; rows that fill up a batch are not counted


def pod(folders, workdir, *flags):
    """The flags of the paper's ladder, made small."""
    return (
        f"--config.workdir={workdir}",
        f"--config.data.path={folders / 'train'}",
        f"--config.data.validation_path={folders / 'validation'}",
        f"--config.data.image_size={SIDE // 2}",
        "--config.data.channels=4",
        f"--config.text.length={LENGTH}",
        f"--config.text.width={WIDTH}",
        f"--config.text.pooled_width={POOLED}",
        "--config.model.width_per_depth=16",
        "--config.model.precision=float32",
        "--config.study.axes.model.depth=(2,)",
        "--config.mesh.fsdp=1",
        "--config.training.batch=8",
        "--config.training.steps=4",
        "--config.training.validate_every=2",
        "--config.training.checkpoint_every=2",
        "--config.optimizer.warmup=1",
        "--config.validation.examples=16",
        "--config.validation.batch=16",
        "--config.cluster.join=never",
        *flags,
    )


def test_a_network_trains_on_it_and_a_prompt_becomes_a_picture(folders, sd3, tmp_path):
    assert job(runner, "scaling.py:pod", *pod(folders, tmp_path / "study")) == 0
    run = tmp_path / "study" / "runs" / "d2"
    assert json.loads((run / "result.json").read_text())["status"] == "complete"
    assert (
        job(
            generate,
            "generate.py",
            f"--config.workdir={tmp_path / 'pictures'}",
            f"--config.generate.source={run}",
            f"--config.text.path={sd3}",
            f"--config.autoencoder.path={sd3}",
            f"--config.text.length={LENGTH}",
            "--config.generate.prompts=('number 3', 'a red bicycle')",
            "--config.generate.steps=2",
        )
        == 0
    )
    with np.load(next((tmp_path / "pictures").glob("*.npz"))) as made:
        assert made["images"].shape == (2, SIDE, SIDE, 3) and made["images"].dtype == np.uint8
    with Image.open(next((tmp_path / "pictures").glob("*.png"))) as picture:
        assert picture.width > 2 * SIDE


def test_encodings_of_other_weights_are_refused(folders, tmp_path, tmp_path_factory):
    other = write_pipeline(tmp_path_factory.mktemp("other"), seed=9)
    flags = pod(folders, tmp_path / "study", f"--config.text.path={other}")
    with pytest.raises(UserError, match=r"config\.text\.path names other weights of clip_l than made these encodings"):
        job(runner, "scaling.py:pod", *flags)
    assert not (tmp_path / "study").exists()


def test_a_pipeline_gives_the_same_pictures_with_one_network_at_a_time(sd3, tmp_path):
    images = []
    for offload in (False, True):
        folder = tmp_path / str(offload)
        flags = (
            f"--config.workdir={folder}",
            f"--config.generate.source={sd3}",
            f"--config.generate.offload={offload}",
        )
        flags += ("--config.generate.prompts=('a photo of a cat', 'a red circle', 'x')", "--config.generate.steps=2")
        assert job(generate, "generate.py", *flags, "--config.generate.batch=2") == 0
        with np.load(next(folder.glob("*.npz"))) as made:
            images.append(made["images"])
        parts = json.loads(next(folder.glob("*.json")).read_text())["parts"]
        names = {"clip_l", "clip_g", "t5", "network", "autoencoder"} if offload else {"text", "network", "autoencoder"}
        assert {part["part"] for part in parts} == names and all(part["bytes"] for part in parts)
    assert images[0].shape == (3, SIDE, SIDE, 3)
    np.testing.assert_array_equal(*images)


def test_a_killed_job_goes_on_to_the_same_bytes(folders, sd3, tmp_path):
    cc12m = ("--config.data.name=webdataset", f"--config.data.path={folders / 'shards'}")
    whole = {path.name: path.read_bytes() for path in (folders / "train" / "train").iterdir()}
    flags = (*cc12m, "--config.data.validation_percent=0")
    assert encoded(tmp_path / "x", sd3, "train", *flags) == 0
    # What a kill leaves: files of a shard without its record, and no index.
    (tmp_path / "x" / "encoding.json").unlink()
    (tmp_path / "x" / "shards" / "train_00001" / "result.json").unlink()
    (tmp_path / "x" / "train" / "latents_00001.npy").write_bytes(b"half")
    assert encoded(tmp_path / "x", sd3, "train", *flags) == 0
    assert {path.name: path.read_bytes() for path in (tmp_path / "x" / "train").iterdir()} == whole
    kept = tmp_path / "x" / "shards" / "train_00000" / "result.json"
    before = kept.stat().st_mtime_ns
    assert encoded(tmp_path / "x", sd3, "train", *flags) == 0
    assert kept.stat().st_mtime_ns == before


def test_moments_flips_and_pixels_are_read_back(sd3, tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (8, SIDE, SIDE, 3), np.uint8)
    pictures = (
        (f"{i:09}", {"png": as_file(Image.fromarray(one), "png"), "txt": f"{i}"}) for i, one in enumerate(noise)
    )
    write_tar(tmp_path / "shards" / "00000.tar", pictures)
    source = ("--config.data.name=webdataset", f"--config.data.path={tmp_path / 'shards'}")
    flags = (*source, "--config.data.validation_percent=0", "--config.encode.text=False")
    assert (
        encoded(tmp_path / "m", sd3, "train", *flags, "--config.encode.images=moments", "--config.encode.flips=True")
        == 0
    )
    moments = data.open_source(
        configs.Data(name="latents", path=str(tmp_path / "m"), image_size=8, channels=4, validation_percent=0), "train"
    )
    assert moments.fields["moments"].shape == moments.fields["moments_flipped"].shape == (8, 8, 8)
    assert (moments[0]["moments"][..., 4:] > 0).all()  # standard deviations
    assert not np.array_equal(moments[0]["moments"], moments[0]["moments_flipped"])
    assert encoded(tmp_path / "p", sd3, "train", *flags, "--config.encode.images=pixels") == 0
    pixels = data.open_source(
        configs.Data(name="latents", path=str(tmp_path / "p"), image_size=SIDE, channels=3, validation_percent=0),
        "train",
    )
    shards = data.open_source(
        configs.Data(name="webdataset", path=str(tmp_path / "shards"), image_size=SIDE, validation_percent=0), "train"
    )
    for i in range(8):
        np.testing.assert_array_equal(pixels[i]["image"], shards[i]["image"])
        np.testing.assert_array_equal(pixels[i]["image"], noise[i])
