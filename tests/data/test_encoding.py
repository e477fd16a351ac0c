"""The index of a stored data set: its shards must lie there, and its encoders must be those of the config."""

import json

import numpy as np
import pytest

from rfjax import config as configs
from rfjax import data
from rfjax.errors import UserError
from rfjax.study.encode_shards import Shard, Writer, divide, read_record, write_index, write_record

MARKS = {"autoencoder": {"autoencoder": "a1"}, "text": {"t5": "b2", "clip_l": "c3"}}


def write(root, rows=(3, 2), encoders=MARKS):
    """A data set of tiny latents, as the job `encode` leaves it."""
    shards = [shard for shard in divide("train", sum(rows), rows[0])]
    for shard in shards:
        count = shard.stop - shard.start
        with Writer(root, shard) as writer:
            latents = np.arange(shard.start, shard.stop, dtype=np.float16)[:, None, None, None] * np.ones((1, 2, 2, 4))
            for part in np.array_split(np.arange(count), 2):  # in two batches
                writer.append({"latents": latents[part].astype(np.float16)}, [f"no.\n{shard.start + i}" for i in part])
            writer.finish()
        record = {"rows": count, "skipped": 0, "synthetic": 0, "cut": 0, "sizes": writer.sizes}
        write_record(root, shard, record)
    assert write_index(root, shards, {"encoders": encoders})
    return shards


def opened(root, **values):
    values = {"name": "latents", "path": str(root), "image_size": 2, "channels": 4, "validation_percent": 0} | values
    return data.open_source(configs.Data(**values), "train")


def test_what_was_written_in_batches_is_read_back(tmp_path):
    write(tmp_path)
    source = opened(tmp_path)
    assert len(source) == 5
    assert [source[i]["caption"] for i in range(5)] == [f"no. {i}" for i in range(5)]
    assert [float(source[i]["latent"].mean()) for i in range(5)] == [0, 1, 2, 3, 4]
    assert source.fields["latent"].dtype == "float16"
    assert source.encoding.encoders == MARKS


def test_a_shard_is_there_once_its_record_is(tmp_path):
    shards = [Shard("train", 0, 0, 2), Shard("train", 1, 2, 3)]
    assert read_record(tmp_path, shards[0]) is None
    write_record(tmp_path, shards[0], {"rows": 2, "skipped": 0, "synthetic": 0, "cut": 0, "sizes": {}})
    assert read_record(tmp_path, shards[0])["rows"] == 2
    assert read_record(tmp_path, Shard("train", 0, 0, 5)) is None  # of other examples
    assert not write_index(tmp_path, shards, {"encoders": {}})
    assert not (tmp_path / "encoding.json").exists()


def test_a_writer_that_fails_leaves_no_file(tmp_path):
    with pytest.raises(RuntimeError), Writer(tmp_path, Shard("train", 0, 0, 2)) as writer:
        writer.append({"latents": np.zeros((1, 2, 2, 4), np.float16)}, ["x"])
        raise RuntimeError
    assert list((tmp_path / "train").iterdir()) == []


def test_mirrored_latents_take_the_place_of_mirrored_arrays(tmp_path):
    rng, count = np.random.default_rng(0), 8
    latents, mirrored = (rng.standard_normal((count, 2, 2, 4)).astype(np.float16) for _ in range(2))
    (tmp_path / "train").mkdir()
    np.save(tmp_path / "train" / "latents.npy", latents)
    np.save(tmp_path / "train" / "flipped.npy", mirrored)
    np.save(tmp_path / "train" / "labels.npy", np.arange(count))
    source = opened(tmp_path)
    stream = data.batches(
        source, lambda found: dict(found.arrays), data.Order(count, 0, flip=True), names=["latent", "label"]
    )
    batch = next(stream)
    kinds = [
        "plain" if (one == latents[i]).all() else "mirrored" if (one == mirrored[i]).all() else "neither"
        for i, one in zip(batch["label"], batch["latent"], strict=True)
    ]
    assert set(kinds) == {"plain", "mirrored"}


@pytest.mark.parametrize(
    ("kind", "found", "words"),
    [
        ("text", {"t5": "b2"}, None),
        ("features", {"dinov2": "x"}, None),  # none are stored
        (
            "text",
            {"t5": "zz"},
            r"names other weights of t5 than made these encodings: .* had others \(b2, and here zz\)",
        ),
        ("text", {"clip_g": "d4"}, r"names other weights of clip_g .* had no such part"),
        ("autoencoder", {"autoencoder": "zz"}, "names other weights of autoencoder"),
    ],
)
def test_other_encoders_are_refused(tmp_path, kind, found, words):
    write(tmp_path)
    encoding = opened(tmp_path).encoding
    if words is None:
        encoding.check(kind, found, "text.path")
        return
    with pytest.raises(UserError, match=words):
        encoding.check(kind, found, "text.path")


def test_an_index_of_other_shards_is_refused(tmp_path):
    write(tmp_path)
    np.save(tmp_path / "train" / "latents_00001.npy", np.zeros((1, 2, 2, 4), np.float16))
    (tmp_path / "train" / "captions_00001.txt").write_text("x\n")
    with pytest.raises(UserError, match=r"lists 2 shards with 5 rows of 'train', and 2 with 4 lie there"):
        opened(tmp_path)
    (tmp_path / "encoding.json").write_text(json.dumps({"encoders": [], "splits": {}}))
    with pytest.raises(UserError, match="is no index of encodings"):
        opened(tmp_path)
