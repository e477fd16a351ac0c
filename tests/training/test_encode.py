"""The encode stage: what encoders make of a batch on the mesh."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec
from tiny import tiny

from rfjax import config as configs
from rfjax import data
from rfjax.conditioning import TextConditioning
from rfjax.config import Mesh
from rfjax.encoders import Encoder, make_encoders
from rfjax.encoders.codec import Pixels
from rfjax.encoders.text import WordVectors
from rfjax.errors import UserError
from rfjax.training import mesh as meshes
from rfjax.training.encode import EncodeStage

BATCH, SHAPE = 16, (4, 4, 3)
ARRAYS = (("image", SHAPE, "uint8"), ("label", (), "int32"), ("extra", (3,), "int8"))
MESHES = [(1, 1), (8, 1), (1, 8), (2, 4)]


@dataclass(frozen=True)
class Noisy:
    """An encoder that draws: standard normal numbers through a frozen matrix, whatever the example."""

    name = "noisy"
    reads = ("label",)

    def weights(self):
        return {"kernel": np.eye(8, dtype=np.float32), "scale": np.float32(2)}

    def prepare(self, arrays, captions):
        return {"doubled": 2 * arrays["label"]}

    def encode(self, weights, batch, keys):
        drawn = jax.vmap(lambda key: jax.random.normal(key, (8,)))(keys)
        return {"drawn": drawn @ weights["kernel"] * weights["scale"], "doubled": batch["doubled"]}


ENCODERS = (Pixels(SHAPE), WordVectors(4, 8, 6), Noisy())


class Numbered:
    """A source whose pictures and labels are their index."""

    def __init__(self):
        self.fields = {name: data.Field(shape, dtype) for name, shape, dtype in ARRAYS}

    def __len__(self):
        return 64

    def __getitem__(self, index):
        arrays = {"image": np.full(SHAPE, index, np.uint8), "label": np.int32(index), "extra": np.zeros(3, np.int8)}
        return arrays | {"caption": f"number {index}", "index": index}


def encoded(shape=(1, 1), seed=5, step=7, slots=range(BATCH), encoders=ENCODERS):
    """The batch of some slots, each with the example of its own number, on a mesh."""
    mesh = meshes.make_mesh(Mesh(data=shape[0], fsdp=shape[1]), jax.devices()[: shape[0] * shape[1]])
    stage, slots = EncodeStage.place(encoders, mesh), list(slots)
    source = Numbered()
    batch, _ = data.load(source, slots, stage.prepare, stage.names(source))
    placed = meshes.put_rows(batch | {"slot": np.array(slots, np.int32)}, len(slots), mesh)
    return jax.device_get(stage(placed, np.uint32(seed), np.int32(step)))


def test_a_toy_encoder_keeps_the_contract():
    assert isinstance(Noisy(), Encoder)


@pytest.mark.parametrize("shape", MESHES)
def test_what_is_encoded_does_not_depend_on_the_mesh(shape):
    one, many = encoded(), encoded(shape)
    assert set(one) == {"z", "cond", "noisy", "slot"}
    jax.tree.map(np.testing.assert_array_equal, many, one)
    assert one["z"].dtype == np.uint8
    np.testing.assert_array_equal(one["z"][:, 0, 0, 0], np.arange(BATCH))
    np.testing.assert_array_equal(one["noisy"]["doubled"], 2 * np.arange(BATCH))
    assert isinstance(one["cond"], TextConditioning)


def test_what_an_encoder_draws_belongs_to_seed_step_and_slot_alone():
    whole = encoded()["noisy"]["drawn"]
    some = encoded(slots=(9, 3, 3))["noisy"]["drawn"]
    np.testing.assert_array_equal(some, whole[[9, 3, 3]])
    assert len(np.unique(whole, axis=0)) == BATCH
    for other in ({"seed": 6}, {"step": 8}):
        assert (encoded(**other)["noisy"]["drawn"] != whole).all()


def test_what_is_drawn_does_not_depend_on_the_other_encoders():
    others = (Pixels(SHAPE), WordVectors(2, 2, 2, 2), Noisy())
    np.testing.assert_array_equal(encoded(encoders=others)["noisy"]["drawn"], encoded()["noisy"]["drawn"])


@pytest.mark.parametrize("shape", MESHES)
def test_frozen_weights_are_placed_by_the_rules_of_the_mesh(shape):
    mesh = meshes.make_mesh(Mesh(data=shape[0], fsdp=shape[1]), jax.devices()[: shape[0] * shape[1]])
    stage = EncodeStage.place(ENCODERS, mesh)
    assert stage.weights[:2] == ((), ())
    placed = stage.weights[2]
    wanted = meshes.shard_tree(Noisy().weights(), mesh)
    assert jax.tree.map(lambda x: x.sharding, placed) == wanted
    assert placed["scale"].sharding.spec == PartitionSpec()
    assert placed["kernel"].addressable_shards[0].data.size == 64 // shape[1]
    np.testing.assert_array_equal(placed["kernel"], np.eye(8))


def test_a_stage_reads_what_its_encoders_use_and_no_more():
    stage = EncodeStage(ENCODERS, ())
    assert stage.names(Numbered()) == ["image", "label"]
    assert EncodeStage(ENCODERS[:2], ()).names(Numbered()) == ["image"]
    examples = data.take(Numbered(), [3, 4], ["image", "label"])
    assert set(stage.prepare(examples)) == {"image", "context", "pooled", "doubled"}
    with pytest.raises(UserError, match="'pixels' reads 'image', and the data set has label"):
        stage.prepare(data.take(Numbered(), [3], ["label"]))


def test_the_conditioning_of_texts_is_that_of_the_same_captions():
    mesh = meshes.make_mesh(Mesh(data=8, fsdp=1))
    stage = EncodeStage.place(ENCODERS, mesh)
    prompts = ENCODERS[1].prompts([f"number {index}" for index in range(BATCH)])
    cond = stage.condition({name: meshes.place(jnp.asarray(array), mesh) for name, array in prompts.items()})
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(cond), encoded()["cond"])


def make_noisy(config):
    return Noisy()


def test_a_config_adds_encoders_after_the_codec_and_the_text():
    c = tiny()
    c.encoders = (f"{__name__}:make_noisy",)
    made = make_encoders(configs.parse(c))
    assert [one.name for one in made] == ["z", "cond", "noisy"]
    c.encoders = (f"{__name__}:make_nosy",)
    with pytest.raises(UserError, match=r"config\.encoders = .* has no 'make_nosy'"):
        make_encoders(configs.parse(c))
