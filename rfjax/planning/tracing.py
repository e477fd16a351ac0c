"""Traces the training step for a mesh, from shapes alone, and compiles it for virtual CPU devices."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding

from rfjax import flow
from rfjax.config import Config
from rfjax.models.counting import jaxpr_flops
from rfjax.planning.advice import changed
from rfjax.planning.programs import Program, peak_bytes, read_program
from rfjax.training import mesh as meshes
from rfjax.training import step as steps
from rfjax.training.context import check_mesh
from rfjax.training.spec import RunSpec, make_run_spec
from rfjax.training.state import abstract_state

MOST_COMPILED = 2048  # devices that JAX's CPU client assigns to one process


@dataclass(frozen=True)
class DeviceMemory:
    """Bytes on one device.

    Attributes:
        parameters: the device's shards of the parameters.
        ema: its shards of the averaged parameters.
        optimizer: its shards of the optimizer's state.
        gradients: its shards of the gradients.
        encoders: its shards of the weights of frozen encoders: of pictures, of text and of features.
        batch: its examples, with their noise and times.
        encoding: what the autoencoder makes of the pictures that it encodes at once, before the step.
        activations: what the forward pass of the traced program saves for the backward pass.
        traced_peak: the step's arguments, and the most arrays that exist at one time in the traced program if no
            operations are fused; or the same of the encoding, if it is more.
        compiled_peak: arguments, results and temporary arrays of XLA's program for CPUs; 0 if it was not compiled.
    """

    parameters: int
    ema: int
    optimizer: int
    gradients: int
    encoders: int
    batch: int
    encoding: int
    activations: int
    traced_peak: int
    compiled_peak: int = 0

    @property
    def peak(self) -> int:
        """The number to compare with a chip's memory: the smaller peak, because both overestimate other compilers."""
        return min(self.traced_peak, self.compiled_peak) if self.compiled_peak else self.traced_peak


@dataclass(frozen=True)
class TracedStep:
    """A traced training step.

    Attributes:
        stage: the result of `jax.jit(...).trace`.
        mesh: the mesh that the step runs on.
        program: the counts of the step on one device.
        memory: the bytes on one device.
        parameters: number of parameters of the whole model.
    """

    stage: Any
    mesh: Mesh
    program: Program
    memory: DeviceMemory
    parameters: int


@dataclass(frozen=True)
class CompiledStep:
    """A compiled training step.

    Attributes:
        text: the program in HLO.
        peak: bytes on one device.
        mesh: the mesh that the step was compiled for.
    """

    text: str
    peak: int
    mesh: Mesh


def trace(config: Config, devices: Sequence[jax.Device]) -> TracedStep:
    """Traces a config's training step for a mesh of these devices.

    Raises:
        UserError: if the mesh does not fit the devices, the batch or the model.
    """
    if config.model.unroll < 0:  # -1 depends on the machine, and the plan is for another one
        config = changed(config, {"model.unroll": 1})
    mesh, spec = meshes.make_mesh(config.mesh, devices), make_run_spec(config)
    check_mesh(config, spec, mesh)
    state = abstract_state(spec, mesh)
    rows = arguments(config, spec, mesh)
    stage = steps.jit_update(spec, mesh).trace(state, *rows)
    counted = read_program(stage.jaxpr, mesh.size)
    weights, batch = local_bytes(state.params), local_bytes(rows)
    encoders = frozen_bytes(spec, mesh)
    _, before = encoding(spec, min(config.training.batch // meshes.sharing(mesh), config.autoencoder.batch))
    memory = DeviceMemory(
        parameters=weights,
        ema=local_bytes(state.ema_params),
        optimizer=local_bytes(state.opt_state),
        gradients=weights,
        encoders=encoders,
        batch=batch,
        encoding=before,
        activations=counted.saved,
        traced_peak=local_bytes(state) + encoders + batch + max(counted.peak, before),
    )
    return TracedStep(stage, mesh, counted, memory, sum(x.size for x in jax.tree.leaves(state.params)))


def frozen_bytes(spec: RunSpec, mesh: Mesh) -> int:
    """Bytes on a device of the weights of frozen encoders that can tell them without reading them."""
    able = [one for one in (*spec.encoders, *spec.features) if hasattr(one, "abstract_weights")]
    return sum(local_bytes(meshes.with_shardings(one.abstract_weights(), mesh)) for one in able)


def arguments(config: Config, spec: RunSpec, mesh: Mesh) -> tuple[Any, Any]:
    """An encoded batch and its noise as shapes, spread over the mesh. Latents are of the type `config.plan.latents`."""
    size, spread = config.training.batch, NamedSharding(mesh, meshes.BATCH)
    whole = lambda leaf: jax.ShapeDtypeStruct((size, *leaf.shape), leaf.dtype)  # noqa: E731
    scalar = lambda dtype: jax.ShapeDtypeStruct((), dtype)  # noqa: E731
    slot = jax.ShapeDtypeStruct((size,), jnp.int32)
    z = jax.ShapeDtypeStruct(spec.inputs.shape, z_type(config, spec))
    tokens = lambda one: jax.ShapeDtypeStruct((math.prod(one.grid), one.width), jnp.float32)  # noqa: E731
    features = {one.name: whole(tokens(one)) for one in spec.features}
    batch = {"z": whole(z), "cond": jax.tree.map(whole, spec.inputs.cond), "slot": slot, **features}
    if spec.synthetic:
        batch[steps.SYNTHETIC] = jax.ShapeDtypeStruct((size,), jnp.bool_)
    formulation = flow.formulation(config.flow.formulation, config.flow.shift).arrays
    sample = steps.jit_noise(spec.objective, spec.inputs, mesh)
    noise = jax.eval_shape(sample, formulation, scalar(jnp.uint32), scalar(jnp.int32), slot)
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=spread), (batch, noise))


def z_type(config: Config, spec: RunSpec) -> jnp.dtype:
    """Pictures stay bytes until the step, and are float32 once an autoencoder has encoded them; stored latents are what
    config.plan.latents says, for no data set is opened."""
    if "image" not in spec.codec.reads:
        return jnp.dtype(config.plan.latents)
    return jnp.dtype(jnp.float32 if getattr(spec.codec, "encodes", False) else jnp.uint8)


def encoding(spec: RunSpec, pictures: int) -> tuple[int, int]:
    """What an autoencoder does before each step: (FLOPs, bytes) for this many pictures at once; zeros where none does.

    The bytes are those of all arrays that exist at one time if no operations are fused.
    """
    codec = spec.codec
    if not getattr(codec, "encodes", False):
        return 0, 0
    images = jax.ShapeDtypeStruct((pictures, *codec.example), jnp.uint8)
    traced = jax.make_jaxpr(codec.moments)(codec.abstract_weights(), images).jaxpr
    return jaxpr_flops(traced), peak_bytes(traced)


def local_bytes(tree: Any) -> int:
    """Bytes on one device of a tree of sharded arrays or shapes."""
    return sum(math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize for x in jax.tree.leaves(tree))


def compile_step(config: Config, step: TracedStep, devices: Sequence[jax.Device]) -> CompiledStep | None:
    """Compiles a step for virtual CPU devices.

    If the mesh has more than MOST_COMPILED devices, the step is compiled with fewer copies along `data`, which does not
    change what one device does.

    Returns:
        The compiled step, or None if one copy has too many devices.
    """
    smaller = fewer_copies(config, step.mesh)
    if smaller is None:
        return None
    if smaller is not config:
        step = trace(smaller, devices[: smaller.mesh.data * smaller.mesh.fsdp * smaller.mesh.tensor])
    compiled = step.stage.lower().compile()
    stats = compiled.memory_analysis()
    # The new state takes the memory of the donated old one, so both count once.
    results = stats.output_size_in_bytes - stats.alias_size_in_bytes
    peak = stats.argument_size_in_bytes + results + stats.temp_size_in_bytes
    return CompiledStep(compiled.as_text(), peak, step.mesh)


def fewer_copies(config: Config, mesh: Mesh, most: int = MOST_COMPILED) -> Config | None:
    """The config for a mesh of at most `most` devices: with fewer copies along `data` and their share of the batch.

    Returns:
        The config itself if the mesh is small enough, or None if one copy has more than `most` devices.
    """
    if mesh.size <= most:
        return config
    shape = dict(mesh.shape)
    of_copy = mesh.size // shape["data"]
    copies = [n for n in range(1, shape["data"]) if shape["data"] % n == 0 and n * of_copy <= most]
    if not copies:
        return None
    mesh_keys = {f"mesh.{axis}": count for axis, count in (shape | {"data": copies[-1]}).items()}
    return changed(config, mesh_keys | {"training.batch": config.training.batch * copies[-1] // shape["data"]})
