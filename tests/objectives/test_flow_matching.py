import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import tiny

from rfjax import config as configs
from rfjax import flow
from rfjax.conditioning import TextConditioning
from rfjax.config import Mesh
from rfjax.encoders.text import WordVectors
from rfjax.errors import UserError
from rfjax.models import Inputs
from rfjax.objectives import Objective, make_objective
from rfjax.objectives.flow_matching import FlowMatching
from rfjax.training import mesh as meshes
from rfjax.training.step import jit_noise

SHAPE, BATCH = (4, 4, 2), 16
INPUTS = Inputs(SHAPE, WordVectors(6, 8, 6, 3).output)
RF = flow.formulation("rf/lognorm(0.00,1.00)")


def noise(slots=range(BATCH), seed=3, step=4, shape=(1, 1), drop=0.5, formulation=RF):
    mesh = meshes.make_mesh(Mesh(data=shape[0], fsdp=shape[1]), jax.devices()[: shape[0] * shape[1]])
    sample = jit_noise(FlowMatching(drop), INPUTS, mesh)
    slot = meshes.place(jnp.asarray(list(slots), jnp.int32), mesh)
    return jax.device_get(sample(formulation.arrays, np.uint32(seed), np.int32(step), slot))


@pytest.mark.parametrize("shape", [(8, 1), (1, 8), (2, 2)])
def test_noise_does_not_depend_on_the_mesh(shape):
    jax.tree.map(np.testing.assert_array_equal, noise(shape=shape), noise())


def test_noise_belongs_to_seed_step_and_slot_alone():
    whole, some = noise(), noise(slots=(11, 2))
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, b[[11, 2]]), some, whole)
    assert len(np.unique(whole.at.time)) == len(np.unique(whole.eps.reshape(BATCH, -1), axis=0)) == BATCH
    for other in (noise(seed=4), noise(step=5)):
        assert (other.eps != whole.eps).all() and (other.at.time != whole.at.time).all()


def test_formulations_share_what_is_drawn():
    """Their times are quantiles of one uniform number, so all formulations see the same noise and drop alike."""
    a, b = noise(), noise(formulation=flow.formulation("rf"))
    np.testing.assert_array_equal(a.eps, b.eps)
    np.testing.assert_array_equal(a.keep, b.keep)
    np.testing.assert_array_equal(np.argsort(a.at.time), np.argsort(b.at.time))
    # The logistic function of a standard normal number is the quantile of log-normal (0, 1); rf's is the number itself.
    uniform = jax.scipy.stats.norm.cdf(np.log(a.at.time / (1 - a.at.time)))
    np.testing.assert_allclose(uniform, b.at.time, atol=1e-5)


def test_each_group_is_dropped_on_its_own_with_the_probability():
    keep, drop = noise(slots=range(2048), drop=0.464).keep, 0.464
    assert keep.shape == (2048, 3)
    for value, expected in ((~keep, drop), (~keep[:, :1] & ~keep[:, 1:], drop**2)):
        error = np.sqrt(expected * (1 - expected) / 2048)
        np.testing.assert_allclose(value.mean(0), expected, atol=4 * error)
    assert noise(drop=0.0).keep.all() and not noise(drop=1.0).keep.any()


class Networks:
    """Asked by the objective; remembers what it was shown."""

    def __init__(self, predict):
        self.predict, self.seen = predict, []

    def policy(self, z, t, cond):
        self.seen.append((z, t, cond))
        return self.predict(z, t, cond)


def batch():
    rng = np.random.default_rng(0)
    shapes = {"z": SHAPE, "context": (6, 8), "pooled": (6,)}
    z, context, pooled = (jnp.asarray(rng.normal(size=(BATCH, *s)), jnp.float32) for s in shapes.values())
    return {"z": z, "cond": TextConditioning(context, pooled, INPUTS.cond.parts)}


def test_the_loss_is_that_of_each_example_and_the_text_is_dropped():
    drawn, rows = jax.tree.map(jnp.asarray, noise()), batch()
    networks, objective = Networks(lambda z, t, cond: jnp.zeros_like(z)), FlowMatching(0.5)
    terms = objective(networks, rows, drawn)
    assert tuple(terms) == objective.terms == ("loss",)
    np.testing.assert_allclose(terms["loss"], ((drawn.eps - rows["z"]) ** 2).mean((1, 2, 3)), rtol=1e-5)  # velocity
    ((z, t, cond),) = networks.seen
    part = t[:, None, None, None]
    np.testing.assert_allclose(z, (1 - part) * rows["z"] + part * drawn.eps, atol=1e-5)
    jax.tree.map(np.testing.assert_array_equal, cond, rows["cond"].drop(drawn.keep))


def test_a_network_that_predicts_the_target_has_no_loss():
    drawn, rows = jax.tree.map(jnp.asarray, noise()), batch()
    terms = FlowMatching(0.5)(Networks(lambda z, t, cond: drawn.eps - rows["z"]), rows, drawn)
    np.testing.assert_allclose(terms["loss"], 0, atol=1e-10)


def own(config):
    return FlowMatching(0.125)


def test_a_config_names_the_objective():
    c = tiny()
    c.text.drop = 0.25
    made = make_objective(configs.parse(c))
    assert made == FlowMatching(0.25) and isinstance(made, Objective)
    assert hash(made) == hash(FlowMatching(0.25))  # a part of the compiled step's key
    c.training.objective = f"{__name__}:own"
    assert make_objective(configs.parse(c)) == FlowMatching(0.125)
    c.training.objective = f"{__name__}:other"
    with pytest.raises(UserError, match=r"config\.training\.objective = .* has no 'other'"):
        make_objective(configs.parse(c))
