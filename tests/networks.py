"""Inputs and random parameters for the tests of networks."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from rfjax.compiling import quick_options
from rfjax.models import Inputs
from rfjax.models.counting import abstract_parameters

SMALL = Inputs.of_text((16, 16, 3), (8, 32), 24)
VIDEO = Inputs.of_text((4, 8, 8, 3), (8, 32), 24)


def arrays(inputs, batch=2, seed=0):
    """Random (z, t, cond)."""
    draw = np.random.default_rng(seed)
    z, t, cond = jax.tree.map(lambda x: jnp.asarray(draw.standard_normal(x.shape, np.float32)), inputs.abstract(batch))
    return z, jax.nn.sigmoid(t), cond


def random_parameters(model, inputs, seed=0):
    """Parameters that are random everywhere: the initial ones hide most of the network behind zeros."""
    draw = np.random.default_rng(seed)
    shapes = abstract_parameters(model, inputs)
    return jax.tree.map(lambda x: jnp.asarray(0.2 * draw.standard_normal(x.shape, np.float32)), shapes)


@functools.cache
def jitted(model, method=None):
    """(params, z, t, cond) -> prediction: one program, where the bare call would compile each operation."""
    run = lambda params, *inputs: model.apply({"params": params}, *inputs, method=method)  # noqa: E731
    return jax.jit(run, compiler_options=quick_options())


@functools.cache
def gradients(model):
    """(params, z, t, cond) -> the mean square of the prediction, and its gradient by the parameters."""
    loss = lambda params, *inputs: (model.apply({"params": params}, *inputs) ** 2).mean()  # noqa: E731
    return jax.jit(jax.value_and_grad(loss), compiler_options=quick_options())
