"""Linear probes: a linear classifier on each block's frozen states, all blocks at once (REPA Figs. 2 and 3).

Sources differ on REPA's protocol, so it has names:

"repa", as the paper says it, after l-DAE: normalisation without parameters, a linear layer, Adam at 1e-3 with a cosine
decay, 90 epochs, batch 16384. (Its author also told users of `nn.BatchNorm1d(hidden)` and a linear layer: the
parameters of that normalisation change nothing that the linear layer can express.)

"mae", as MAE's code does it, which the author named elsewhere: the same with LARS, whose rate is .1 x batch / 256 after
ten epochs of warm-up, momentum .9, no weight decay, and weights that start at .01 times a truncated normal. MAE also
crops and mirrors each picture anew, which fixed states leave out. LARS moves a matrix by a small share of its norm, so
that it needs thousands of steps.

"logistic": the weights that minimise the cross-entropy with an L2 penalty of 1 / (2 n) on the matrix, by L-BFGS on all
examples. It has an optimum, and so no steps, rates or order to be argued about; for sets of some thousand examples.

In training, "repa" and "mae" normalise by the batch; everything else is normalised by the mean and the variance of all
training states, which batch normalisation's running averages estimate.

d blocks, m training and n test examples, D width, C classes.
"""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Float32, Int

from rfjax.compiling import quick_options
from rfjax.errors import UserError


@dataclass(frozen=True)
class Settings:
    """How a probe is trained.

    Attributes:
        protocol: of PROTOCOLS, or "logistic".
        epochs, batch: of those of PROTOCOLS; a batch of at most all examples.
        seed: of the initial weights and of the order.
        classes: C; 0: the largest training label plus one.
    """

    protocol: str = "logistic"
    epochs: int = 90
    batch: int = 16_384
    seed: int = 0
    classes: int = 0


class Protocol(NamedTuple):
    """A probe that is trained by steps.

    Attributes:
        optimizer: schedule -> optimizer.
        rate: the peak rate, by batch.
        warmup: epochs in which the rate rises.
        spread: of the initial weights.
        epsilon: of the normalisation.
    """

    optimizer: Callable[[optax.Schedule], optax.GradientTransformation]
    rate: Callable[[int], float]
    warmup: int
    spread: Callable[[int], float]
    epsilon: float


def _matrices(params: Any) -> Any:
    return jax.tree.map(lambda leaf: leaf.ndim > 1, params)


def _lars(schedule: optax.Schedule) -> optax.GradientTransformation:
    """As in MAE's code, where momentum comes before the rate, and biases have no trust ratio."""
    trust = optax.masked(optax.scale_by_trust_ratio(trust_coefficient=0.001), _matrices)
    return optax.chain(trust, optax.trace(0.9), optax.scale_by_learning_rate(schedule))


PROTOCOLS = {
    "repa": Protocol(optax.adam, lambda batch: 1e-3, 0, lambda width: 1 / math.sqrt(3 * width), 1e-5),
    "mae": Protocol(_lars, lambda batch: 0.1 * batch / 256, 10, lambda width: 0.01, 1e-6),
}
LOGISTIC = "logistic"
ITERATIONS = 200  # of L-BFGS at most; some thousand examples need 30 to 100
TOLERANCE = 1e-4  # norm of the gradient at which it ends
Params = dict[str, Array]  # "kernel" (D, C), "bias" (C,); with all blocks, a leading axis of d


class Probe(NamedTuple):
    """What probes find.

    Attributes:
        correct: whether each test example's label is found, by block.
        classes: C.
    """

    correct: Bool[np.ndarray, "d n"]
    classes: int

    @property
    def accuracy(self) -> Float[np.ndarray, " d"]:
        """The share of right answers of each block."""
        return self.correct.mean(axis=1)


def probe(
    train: Float32[np.ndarray, "d m D"],
    labels: Int[np.ndarray, " m"],
    test: Float32[np.ndarray, "d n D"],
    test_labels: Int[np.ndarray, " n"],
    settings: Settings,
) -> Probe:
    """Trains a probe for each block, all at once, and tests it.

    Every process does all of it on its first device: nothing depends on the mesh.

    Args:
        train: pooled states of the training split.
        labels: of these, from 0.
        test: of another split.
        test_labels: of these; classes that the training examples lack are never found.
        settings: the protocol.

    Raises:
        UserError: for labels below 0 or beyond the classes, or states that are not finite.
    """
    if not (np.isfinite(train).all() and np.isfinite(test).all()):
        raise UserError("a linear probe needs finite hidden states, and some are not: look at the run's losses")
    classes = settings.classes or int(labels.max()) + 1
    if min(labels.min(), test_labels.min()) < 0 or labels.max() >= classes:
        raise UserError(
            f"the labels go from {min(labels.min(), test_labels.min())} to {labels.max()}, and the probe knows 0 to "
            f"{classes - 1}: set config.representations.classes"
        )
    mean, variance = train.mean(axis=1, dtype=np.float64), train.var(axis=1, dtype=np.float64)
    with jax.default_device(jax.local_devices()[0]), jax.default_matmul_precision("highest"):
        if settings.protocol == LOGISTIC:
            epsilon = PROTOCOLS["repa"].epsilon
            scaled = _scaled(train, mean, variance, epsilon)
            params = _jit_logistic(classes)(scaled, np.asarray(labels, np.int32))
        else:
            epsilon = PROTOCOLS[settings.protocol].epsilon
            params = _train(train, np.asarray(labels, np.int32), classes, settings)
        guesses = np.asarray(_guess(params, _scaled(test, mean, variance, epsilon)))
    return Probe(guesses == test_labels[None], classes)


def _scaled(x: Any, mean: Any, variance: Any, epsilon: float) -> Float32[np.ndarray, "d n D"]:
    return ((x - mean[:, None]) / np.sqrt(variance[:, None] + epsilon)).astype(np.float32)


@jax.jit
def _guess(params: Params, x: Float[Array, "d n D"]) -> Int[Array, "d n"]:
    return (jnp.einsum("bnd,bdc->bnc", x, params["kernel"]) + params["bias"][:, None]).argmax(-1)


def _loss(params: Params, x: Float[Array, "m D"], labels: Int[Array, " m"]) -> Float[Array, ""]:
    logits = x @ params["kernel"] + params["bias"]
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def _train(x: Float32[np.ndarray, "d m D"], labels: Int[np.ndarray, " m"], classes: int, settings: Settings) -> Params:
    """Steps over batches from the host, in an order that depends on (seed, epoch) alone."""
    blocks, count, width = x.shape
    rounds = max(count // settings.batch, 1)
    batch = count // rounds
    begin, step = _jit_steps(settings.protocol, batch, settings.epochs, rounds)
    state = begin(jnp.uint32(settings.seed), jnp.zeros((blocks, width, classes)))
    for epoch in range(settings.epochs):
        order = np.random.Generator(np.random.Philox(key=[settings.seed, epoch])).permutation(count)
        for chosen in order[: rounds * batch].reshape(rounds, batch):
            state = step(state, x[:, chosen], labels[chosen])
    return state[0]


@functools.cache
def _jit_steps(name: str, batch: int, epochs: int, rounds: int) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """(seed, zeros of all kernels) -> the state before training, and (state, x, labels) -> the state after a step."""
    protocol, steps = PROTOCOLS[name], epochs * rounds
    warmup = min(protocol.warmup, epochs // 2) * rounds
    schedule = optax.warmup_cosine_decay_schedule(
        0.0 if warmup else protocol.rate(batch), protocol.rate(batch), warmup, steps
    )
    optimizer = protocol.optimizer(schedule)

    def begin(seed: Any, like: Float[Array, "d D C"]) -> Any:
        drawn = jax.random.truncated_normal(jax.random.key(seed), -2, 2, like.shape[1:]) * protocol.spread(
            like.shape[1]
        )
        kernels = jnp.broadcast_to(drawn, like.shape)  # alike for all blocks, so that only the states differ
        params = {"kernel": kernels, "bias": jnp.zeros((like.shape[0], like.shape[2]))}
        return params, jax.vmap(optimizer.init)(params)

    def one(params: Params, state: Any, x: Float[Array, "b D"], labels: Int[Array, " b"]) -> Any:
        mean, variance = x.mean(axis=0), x.var(axis=0)
        grads = jax.grad(_loss)(params, (x - mean) / jnp.sqrt(variance + protocol.epsilon), labels)
        changes, state = optimizer.update(grads, state, params)
        return optax.apply_updates(params, changes), state

    step = jax.vmap(one, in_axes=(0, 0, 0, None))
    options = quick_options()
    return jax.jit(begin, compiler_options=options), jax.jit(
        lambda state, x, labels: step(*state, x, labels), donate_argnums=0, compiler_options=options
    )


@functools.cache
def _jit_logistic(classes: int) -> Callable[..., Params]:
    """(scaled states of all blocks, labels) -> the optimum of each, jitted."""

    def fit(x: Float[Array, "m D"], labels: Int[Array, " m"]) -> Params:
        loss = lambda params: _loss(params, x, labels) + (params["kernel"] ** 2).sum() / (2 * len(x))  # noqa: E731
        solver, value_and_grad = optax.lbfgs(), optax.value_and_grad_from_state(loss)
        start = {"kernel": jnp.zeros((x.shape[1], classes)), "bias": jnp.zeros(classes)}

        def going(carry: Any) -> Bool[Array, ""]:
            _, _, norm, count = carry
            return (count < ITERATIONS) & (norm > TOLERANCE)

        def step(carry: Any) -> Any:
            params, state, _, count = carry
            value, grad = value_and_grad(params, state=state)
            changes, state = solver.update(grad, state, params, value=value, grad=grad, value_fn=loss)
            return optax.apply_updates(params, changes), state, optax.tree.norm(grad), count + 1

        return jax.lax.while_loop(going, step, (start, solver.init(start), jnp.float32(jnp.inf), 0))[0]

    return jax.jit(jax.vmap(fit, in_axes=(0, None)), compiler_options=quick_options())
