"""A training step for devices that need not be there: traced from shapes, counted, and compiled for virtual ones."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding

from rfjax import flow
from rfjax.config import Config
from rfjax.planning.programs import Program, program
from rfjax.training import mesh as meshes
from rfjax.training import step as steps
from rfjax.training.context import check_mesh
from rfjax.training.spec import RunSpec, make_run_spec
from rfjax.training.state import abstract_state

MOST_COMPILED = 2048  # devices that a process of JAX's CPU client has; those beyond seem to it another process's


@dataclass(frozen=True)
class Memory:
    """Bytes on one device.

    Attributes:
        parameters, average, moments, gradients: its shards of them. batch: its examples, with their noise and times.
        kept: what the forward pass leaves for the backward pass, of the traced program.
        most: the step's arguments and all arrays that exist at one time, of the traced program, if a compiler joins no
            two operations.
        compiled: arguments, results and temporary arrays of the program that XLA makes for CPUs; 0: not compiled.
    """

    parameters: int
    average: int
    moments: int
    gradients: int
    batch: int
    kept: int
    most: int
    compiled: int = 0

    @property
    def peak(self) -> int:
        """What is held against a chip's memory: either number is too high for another compiler, for its own reason."""
        return min(self.most, self.compiled) if self.compiled else self.most


@dataclass(frozen=True)
class Step:
    """A traced step. stage: what `jax.jit(...).trace` gave. parameters: of the whole model."""

    stage: Any
    mesh: Mesh
    program: Program
    memory: Memory
    parameters: int


@dataclass(frozen=True)
class Compiled:
    """A compiled step: its text, its bytes on one device, and the devices that it was compiled for."""

    text: str
    peak: int
    mesh: Mesh


def trace(config: Config, devices: Sequence[jax.Device]) -> Step:
    """Traces a config's step for a mesh of these devices.

    Raises:
        UserError: if the mesh can't be made of them, or divide the batch or the model.
    """
    if config.model.unroll < 0:  # what runs there is not what would run on this CPU
        config = replace(config, model=replace(config.model, unroll=1))
    mesh, spec = meshes.make_mesh(config.mesh, devices), make_run_spec(config)
    check_mesh(config, spec, mesh)
    state = abstract_state(spec, mesh)
    rows = arguments(config, spec, mesh)
    stage = steps.jit_update(spec, mesh).trace(state, *rows)
    counted = program(stage.jaxpr, mesh.size)
    weights, batch = local_bytes(state.params), local_bytes(rows)
    memory = Memory(
        parameters=weights,
        average=local_bytes(state.ema_params),
        moments=local_bytes(state.opt_state),
        gradients=weights,
        batch=batch,
        kept=counted.kept,
        most=local_bytes(state) + batch + counted.most,
    )
    return Step(stage, mesh, counted, memory, sum(x.size for x in jax.tree.leaves(state.params)))


def arguments(config: Config, spec: RunSpec, mesh: Mesh) -> tuple[Any, Any]:
    """An encoded batch and its noise as shapes, spread over the mesh. Latents are of the type `config.plan.latents`."""
    size, spread = config.training.batch, NamedSharding(mesh, meshes.BATCH)
    whole = lambda leaf: jax.ShapeDtypeStruct((size, *leaf.shape), leaf.dtype)  # noqa: E731
    scalar = lambda dtype: jax.ShapeDtypeStruct((), dtype)  # noqa: E731
    slot = jax.ShapeDtypeStruct((size,), jnp.int32)
    z = jax.ShapeDtypeStruct(spec.inputs.shape, z_type(config, spec))
    batch = {"z": whole(z), "cond": jax.tree.map(whole, spec.inputs.cond), "slot": slot}
    formulation = flow.formulation(config.flow.formulation, config.flow.shift).arrays
    sample = steps.jit_noise(spec.objective, spec.inputs, mesh)
    noise = jax.eval_shape(sample, formulation, scalar(jnp.uint32), scalar(jnp.int32), slot)
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=spread), (batch, noise))


def z_type(config: Config, spec: RunSpec) -> jnp.dtype:
    """Pictures become float32; latents are what config.plan.latents says, for no data set is opened."""
    return jnp.dtype(jnp.float32 if spec.codec.pictures else config.plan.latents)


def local_bytes(tree: Any) -> int:
    """Bytes of a tree of (abstract) arrays on one device."""
    return sum(math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize for x in jax.tree.leaves(tree))


def compile_step(config: Config, step: Step, devices: Sequence[jax.Device]) -> Compiled | None:
    """Compiles a step for CPUs: for all its devices, or for fewer copies along `data` where they are too many.

    What one device does is the same then. Returns None where even one copy is too large.
    """
    smaller = fewer_copies(config, step.mesh)
    if smaller is None:
        return None
    if smaller is not config:
        step = trace(smaller, devices[: smaller.mesh.data * smaller.mesh.fsdp * smaller.mesh.tensor])
    compiled = step.stage.lower().compile()
    stats = compiled.memory_analysis()
    # The new state lies where the donated old one did, and counts once.
    results = stats.output_size_in_bytes - stats.alias_size_in_bytes
    return Compiled(compiled.as_text(), stats.argument_size_in_bytes + results + stats.temp_size_in_bytes, step.mesh)


def fewer_copies(config: Config, mesh: Mesh, most: int = MOST_COMPILED) -> Config | None:
    """The config; or, for `most` devices, with fewer copies along `data` and their share of the batch; or None."""
    shape = dict(mesh.shape)
    if mesh.size <= most:
        return config
    of_copy = mesh.size // shape["data"]
    copies = [n for n in range(1, shape["data"]) if shape["data"] % n == 0 and n * of_copy <= most]
    if not copies:
        return None
    return replace(
        config,
        mesh=replace(config.mesh, **shape | {"data": copies[-1]}),
        training=replace(config.training, batch=config.training.batch * copies[-1] // shape["data"]),
    )
