import json
import shutil

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from rfjax.buckets import mirror
from rfjax.errors import UserError
from rfjax.training import parts
from rfjax.training.checkpoints import Checkpoints, Damaged, Progress
from rfjax.training.state import State


@pytest.fixture
def folder(memory):
    """A folder that mirrors a bucket's."""
    with mirror.opened("memory://bucket/run", "x", writes=True) as opened:
        yield parts.Path(opened) / "checkpoints" / "4"


def mesh(*shape):
    return jax.make_mesh(shape, ("a", "b"))


def tree(made):
    """Arrays of several kinds, spread in several ways."""
    put = lambda value, *spec: jax.device_put(value, NamedSharding(made, P(*spec)))  # noqa: E731
    x = np.random.default_rng(0).normal(size=(8, 4, 3)).astype(np.float32)
    return {
        "spread": [put(x, "a", "b"), put(x, None, "a"), put(x), put(x, ("a", "b"))],
        "half": put(x.astype(ml_dtypes.bfloat16), "b"),
        "count": put(jnp.int32(7)),
        "key": put(np.arange(2, dtype=np.uint32)),
        "here": np.float64(1.5),
        "empty": put(np.zeros((0, 4), np.float32)),
    }


def abstract(value):
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding) if isinstance(x, jax.Array) else x, value
    )


def same(one, other):
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        assert a.dtype == b.dtype
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


@pytest.mark.parametrize("block", [parts.BLOCK, 100])
def test_what_is_read_is_what_was_written_on_any_mesh(folder, block, monkeypatch):
    monkeypatch.setattr(parts, "BLOCK", block)
    saved = tree(mesh(4, 2))
    parts.write(parts.copy_out(saved, 1), folder)
    for made in (mesh(4, 2), mesh(2, 4), mesh(1, 1), mesh(2, 1)):
        found = parts.read(folder, abstract(tree(made)))
        same(found, saved)
        assert found["spread"][0].sharding.mesh.shape == made.shape
    copied = folder.parent.parent.with_name("copied")  # as by a person, with the store's own tool
    shutil.copytree(folder, copied)
    for entry in mirror.place_of(folder).entries():
        (copied / entry.name).write_bytes(mirror.place_of(folder / entry.name).look().data)
    assert mirror.place_of(copied) is None
    same(parts.read(copied, abstract(saved)), saved)


def test_each_number_is_written_once(folder):
    saved = parts.copy_out(tree(mesh(4, 2)), 1)
    assert sum(value.size for value in saved.values) == sum(x.size for x in jax.tree.leaves(tree(mesh(1, 1))))


def test_the_list_of_parts_is_written_last_and_names_this_save_s_parts(folder, memory, monkeypatch):
    written = []
    real = type(memory).write
    monkeypatch.setattr(type(memory), "write", lambda place, *given: written.append(place.name) or real(place, *given))
    stray = mirror.place_of(folder / "000000ff-00000-of-00001.part")
    real(stray, b"of a save that was killed")
    (folder.parents[1] / "metrics.jsonl").write_text("a line\n")
    parts.write(parts.copy_out(tree(mesh(4, 2)), 1), folder)
    assert written == ["00000001-00000-of-00001.part", "metrics.jsonl", "parts.json"]
    parts.clean(folder.parent)
    assert [one.name for one in mirror.place_of(folder).entries()] == ["00000001-00000-of-00001.part", "parts.json"]


def test_a_part_that_does_not_come_is_one_sentence(folder, monkeypatch):
    monkeypatch.setattr(parts, "PATIENCE", 0.3)
    saved = parts.copy_out(tree(mesh(1, 1)), 1)
    with pytest.raises(UserError, match="1 of 2 processes have written no part of this checkpoint"):
        parts.write(saved._replace(name="00000001-00000-of-00002.part"), folder)
    assert not (folder / parts.MANIFEST).exists()


def test_damage_is_noticed(folder):
    saved = tree(mesh(4, 2))
    parts.write(parts.copy_out(saved, 1), folder)
    place = mirror.place_of(folder / "00000001-00000-of-00001.part")
    data = place.look().data
    place.write(data[:-1])
    with pytest.raises(ValueError, match=r"has .* bytes, not"):
        parts.read(folder, abstract(saved))
    place.write(data)
    with pytest.raises(ValueError, match="it has 0 of 5 numbers of more"):
        parts.read(folder, abstract(saved) | {"more": np.zeros(5)})
    manifest = json.loads((folder / parts.MANIFEST).read_text())
    manifest["parts"][0]["arrays"].pop()
    (folder / parts.MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match="numbers of spread"):
        parts.read(folder, abstract(saved))


def test_checkpoints_in_a_bucket_are_kept_removed_and_put_aside(folder, memory):
    def state(step):
        w = {"w": jnp.arange(99.0)}
        return State(jnp.int32(step), w, {}, w, {}, {"loss": jnp.float32(0)}, {})

    wanted = abstract(state(0))
    saved = Checkpoints(folder.parent, 2)
    for step in (1, 2, 3):
        saved.save(state(step), Progress(seconds=step))
    saved.close()
    there = lambda: {one.name.split("/")[0] for one in mirror.place_of(folder.parent).entries()}  # noqa: E731
    assert there() == {"2", "3"}
    damaged = next(e.name for e in mirror.place_of(folder.parent / "3").entries() if e.name.endswith(".part"))
    part = mirror.place_of(folder.parent / "3" / damaged)
    data = bytearray(part.look().data)
    data[100] ^= 1
    part.write(bytes(data))
    said = []
    again = Checkpoints(folder.parent, 2)
    found, progress = again.newest(wanted, said.append)
    again.close()
    assert (int(found.step), progress.seconds) == (2, 2.0)
    same(found, state(2))
    assert "has changed since it was saved" in said[0]
    mirror.publish(folder)
    assert there() == {"2"}
    aside = mirror.place_of(folder.parent.with_name("checkpoints.damaged"))
    assert len(aside.entries()) == 2
    with pytest.raises(Damaged):
        Checkpoints(folder.parent, 2, writes=False).restore(wanted, 3)
