"""Parameters and FLOPs of a model from shapes alone: nothing is allocated."""

import math
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax

from rfjax.models.backbone import Backbone
from rfjax.models.backbones import Inputs


@dataclass(frozen=True)
class Size:
    """How large a model is.

    Attributes:
        parameters: all of them.
        without_modulation: all but adaLN's, which run once per example and not per token.
        active_per_token: those that one image token is multiplied with.
        forward_flops: of the matrix products, for one example.
        train_flops: of one example's training step, three times forward (Kaplan et al. 2020).
    """

    parameters: int
    without_modulation: int
    active_per_token: int
    forward_flops: int

    @property
    def train_flops(self) -> int:
        return 3 * self.forward_flops


def abstract_parameters(model: nn.Module, inputs: Inputs) -> Any:
    """The tree of parameters as shapes and dtypes."""
    return jax.eval_shape(model.init, jax.random.key(0), *inputs.abstract(1))["params"]


def measure(model: Backbone, inputs: Inputs) -> Size:
    """Counts a model's parameters by `eval_shape` and its FLOPs by its own formula."""
    leaves = jax.tree_util.tree_leaves_with_path(abstract_parameters(model, inputs))
    sizes = {jax.tree_util.keystr(path, simple=True, separator="/"): leaf.size for path, leaf in leaves}
    return Size(
        parameters=sum(sizes.values()),
        without_modulation=sum(n for path, n in sizes.items() if "modulation" not in path),
        active_per_token=sum(n for path, n in sizes.items() if model.used_by_image_token(path)),
        forward_flops=model.forward_flops(*inputs.shapes),
    )


def traced_matmul_flops(function: Any, *args: Any) -> int:
    """FLOPs of every matrix product and convolution in a function's jaxpr: an independent check of a formula.

    Scans are multiplied out; products with a convolution's padding are left out.
    """
    return _count(jax.make_jaxpr(function)(*args).jaxpr)


def _count(jaxpr: Any) -> int:
    total = 0
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            left, out = equation.invars[0].aval, equation.outvars[0].aval
            total += 2 * out.size * math.prod(left.shape[i] for i in contracted)
        if equation.primitive.name == "conv_general_dilated":
            total += 2 * _products(equation)
        times = equation.params.get("length", 1) if equation.primitive.name == "scan" else 1
        for value in equation.params.values():
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                total += times * _count(inner)
    return total


def _products(convolution: Any) -> int:
    """Multiplications of a convolution with stride 1 that don't involve its padding."""
    numbers, padding = (convolution.params[name] for name in ("dimension_numbers", "padding"))
    image, kernel = (convolution.invars[i].aval.shape for i in (0, 1))
    count = image[numbers.lhs_spec[0]] * kernel[numbers.rhs_spec[0]] * kernel[numbers.rhs_spec[1]]
    for axis, (low, high) in enumerate(padding):
        length, taps = image[numbers.lhs_spec[2 + axis]], kernel[numbers.rhs_spec[2 + axis]]
        places = range(low + length + high - taps + 1)
        count *= sum(low <= place + tap < low + length for place in places for tap in range(taps))
    return count
