"""What the text networks share. B batch, L tokens, D width, H heads, K head width, F hidden units.

Matrices and the inputs of their products are of one dtype, `dtype`; what comes out of a product is float32, and so are
the residual stream, norms and softmax. The names of the weights are those that the mesh's rules know.
"""

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {  # by their names in config.json
    "gelu": functools.partial(nn.gelu, approximate=False),
    "gelu_new": functools.partial(nn.gelu, approximate=True),
    "gelu_pytorch_tanh": functools.partial(nn.gelu, approximate=True),
    "quick_gelu": lambda x: x * nn.sigmoid(1.702 * x),
}
HIDDEN = -1e30  # logit of what is not attended: its share is exactly 0


class Linear(nn.Module):
    """x @ kernel + bias over the last axis, float32.

    Attributes:
        features: axes of the output.
        dtype: of the kernel, and of x in the product.
        bias: whether there is one.
    """

    features: tuple[int, ...]
    dtype: Any = jnp.float32
    bias: bool = True

    @nn.compact
    def __call__(self, x: Float[Array, "*B D"]) -> Float[Array, "..."]:
        kernel = self.param("kernel", nn.initializers.zeros, (x.shape[-1], *self.features), self.dtype)
        contract = (((x.ndim - 1,), (0,)), ((), ()))
        out = lax.dot_general(x.astype(self.dtype), kernel, contract, preferred_element_type=jnp.float32)
        return out + self.param("bias", nn.initializers.zeros, self.features) if self.bias else out


class QKV(nn.Module):
    """One Linear to queries, keys and values, each (B, L, H, K)."""

    heads: int
    head: int
    dtype: Any
    bias: bool = True

    @nn.compact
    def __call__(self, x: Float[Array, "B L D"]) -> tuple[Array, Array, Array]:
        qkv = Linear((3, self.heads, self.head), self.dtype, self.bias, name="linear")(x)
        return qkv[:, :, 0], qkv[:, :, 1], qkv[:, :, 2]


class MLP(nn.Module):
    """Linear, activation, Linear; or, gated, fc2(activation(gate(x)) * fc1(x))."""

    hidden: int
    activation: str
    dtype: Any
    bias: bool = True
    gated: bool = False

    @nn.compact
    def __call__(self, x: Float[Array, "B L D"]) -> Float[Array, "B L D"]:
        linear = functools.partial(Linear, dtype=self.dtype, bias=self.bias)
        h, activation = linear((self.hidden,), name="fc1")(x), ACTIVATIONS[self.activation]
        h = activation(linear((self.hidden,), name="gate")(x)) * h if self.gated else activation(h)
        return linear((x.shape[-1],), name="fc2")(h)


def attention(
    qkv: tuple[Array, Array, Array],
    bias: Float[Array, "#B #H #L L"] | None,
    scale: float,
    dtype: Any,
) -> Float[Array, "B L D"]:
    """softmax(scale q k + bias) v of all heads, side by side.

    Args:
        qkv: queries, keys and values, each (B, L, H, K).
        bias: added to the logits; HIDDEN for what is not attended.
        scale: of the logits.
        dtype: of the inputs of both products.
    """
    q, k, v = qkv
    b, n, h, width = q.shape
    q, k, v = (x.astype(dtype).transpose(0, 2, 1, 3) for x in (q * scale, k, v))
    if jax.default_backend() == "cpu":  # small products run twice as fast on arrays that exist in this order
        q, k, v = lax.optimization_barrier((q, k, v))
    logits = jnp.einsum("bhnk,bhmk->bhnm", q, k, preferred_element_type=jnp.float32)
    weights = jax.nn.softmax(logits if bias is None else logits + bias).astype(dtype)
    out = jnp.einsum("bhnm,bhmk->bhnk", weights, v, preferred_element_type=jnp.float32)
    return out.transpose(0, 2, 1, 3).reshape(b, n, h * width)


def norm(epsilon: float, name: str) -> nn.LayerNorm:
    """A LayerNorm in float32, with the exact variance."""
    return nn.LayerNorm(epsilon, use_fast_variance=False, dtype=jnp.float32, name=name)


class Table(nn.Module):
    """Vectors of numbered things, float32: the weight is called `embedding`."""

    count: int
    width: int
    dtype: Any

    @nn.compact
    def __call__(self, ids: Int[Any, "*B"]) -> Float[Array, "*B D"]:
        table = self.param("embedding", nn.initializers.zeros, (self.count, self.width), self.dtype)
        return jnp.take(table, ids, axis=0).astype(jnp.float32)


def stacked(block: type[nn.Module], depth: int) -> Any:
    """`depth` blocks in a scan, over weights with a first axis of that length; all see the same other arguments."""
    return nn.scan(block, variable_axes={"params": 0}, split_rngs={"params": True}, in_axes=nn.broadcast, length=depth)
