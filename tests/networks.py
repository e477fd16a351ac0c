"""Inputs and random parameters for the tests of networks."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from rfjax.compiling import quick_options
from rfjax.models import Inputs
from rfjax.models.counting import abstract_parameters

SMALL = Inputs(image=(16, 16, 3), text=(8, 32), pooled_width=24)


def arrays(inputs, batch=2, seed=0):
    """Random (z, t, context, pooled)."""
    draw = np.random.default_rng(seed)
    z, t, context, pooled = (draw.standard_normal(x.shape, np.float32) for x in inputs.abstract(batch))
    return tuple(map(jnp.asarray, (z, 1 / (1 + np.exp(-t)), context, pooled)))


def random_parameters(model, inputs, seed=0):
    """Parameters that are random everywhere: the initial ones hide most of the network behind zeros."""
    draw = np.random.default_rng(seed)
    shapes = abstract_parameters(model, inputs)
    return jax.tree.map(lambda x: jnp.asarray(0.2 * draw.standard_normal(x.shape, np.float32)), shapes)


@functools.cache
def jitted(model, method=None):
    """(params, z, t, context, pooled) -> prediction: one program, where the bare call would compile each operation."""
    run = lambda params, *inputs: model.apply({"params": params}, *inputs, method=method)  # noqa: E731
    return jax.jit(run, compiler_options=quick_options())


@functools.cache
def gradients(model):
    """(params, z, t, context, pooled) -> the mean square of the prediction, and its gradient by the parameters."""
    loss = lambda params, *inputs: (model.apply({"params": params}, *inputs) ** 2).mean()  # noqa: E731
    return jax.jit(jax.value_and_grad(loss), compiler_options=quick_options())
