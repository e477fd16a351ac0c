"""The same network here and in diffusers, and what both do in a training step and in a sampler.

Neither side waits for data: a batch of latents and text lies ready. A training step draws times and noise, mixes z_t,
predicts the velocity, takes the mean square and updates the weights with AdamW. Ours also clips the gradient, averages
the weights and watches the loss, as in every run; the peer is spared that. A sampler makes 50 Euler steps with
classifier-free guidance, both halves in one batch.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.race import Work, cores

LEARNING_RATE, DECAY, GUIDANCE, STEPS = 1e-4, 0.01, 5.0, 50
LONG = 10**6  # steps of a run that is worth a compiler's full effort


@dataclass(frozen=True)
class Shape:
    """A network and a batch.

    Attributes:
        kind: "mmdit", or "sit" with class labels. depth, width, heads: of the network. batch: examples.
        side, channels: of the latents; patches are 2 x 2. text: (tokens, width). pooled: width of the pooled vector, or
            number of classes. precision: "float32" or "bfloat16", of the matrix products.
    """

    kind: str
    depth: int
    width: int
    heads: int
    batch: int
    side: int = 16
    channels: int = 4
    text: tuple[int, int] = (16, 256)
    pooled: int = 256
    precision: str = "float32"

    @property
    def name(self) -> str:
        """What it is called in a table."""
        tokens = (self.side // 2) ** 2
        if self.kind == "mmdit":
            return f"MM-DiT d = {self.depth}, batch {self.batch}, {tokens} + {self.text[0]} tokens"
        return f"SiT {self.depth} x {self.width}, batch {self.batch}, {tokens} tokens"


def mmdit(depth: int, batch: int, **settings: Any) -> Shape:
    """MM-DiT by the paper's rule: width 64 d, d heads."""
    return Shape("mmdit", depth, 64 * depth, depth, batch, **settings)


def sit(depth: int, width: int, batch: int, **settings: Any) -> Shape:
    """SiT (DiT with another time) on 10 classes."""
    return Shape("sit", depth, width, width // 64, batch, **({"pooled": 10} | settings))


def config(shape: Shape, **model: Any) -> Any:
    """rfjax's config of a long run with this network."""
    from rfjax import config as configs

    c = configs.default()
    c.data.update(name="none", image_size=shape.side, channels=shape.channels)
    c.model.update(backbone=shape.kind, depth=shape.depth, width=shape.width, heads=shape.heads, patch=2)
    c.model.update(precision=shape.precision, **model)
    c.training.update(batch=shape.batch, steps=LONG)
    c.optimizer.update(learning_rate=LEARNING_RATE, depth_exponent=0.0, weight_decay=DECAY, warmup=1)
    if shape.kind == "mmdit":
        c.text.update(encoder="stored", length=shape.text[0], width=shape.text[1], pooled_width=shape.pooled)
    else:
        c.text.update(encoder="labels", pooled_width=shape.pooled)
    return configs.parse(c)


def flops(shape: Shape) -> int:
    """Of the matrix products of one forward pass over the batch; a training step has three times as many."""
    from rfjax.training.spec import make_run_spec

    spec = make_run_spec(config(shape))
    return shape.batch * spec.model.forward_flops(spec.inputs)


def synthetic(shape: Shape) -> dict[str, np.ndarray]:
    """A batch as rfjax's pipeline makes them, before it is encoded."""
    rng = np.random.default_rng(0)
    batch = {
        "latent": rng.normal(size=(shape.batch, shape.side, shape.side, shape.channels)).astype(np.float32),
        "slot": np.arange(shape.batch, dtype=np.int32),
    }
    if shape.kind != "mmdit":
        return batch | {"label": rng.integers(0, shape.pooled, shape.batch, np.int32)}
    return batch | {
        "context": rng.normal(size=(shape.batch, *shape.text)).astype(np.float32),
        "pooled": rng.normal(size=(shape.batch, shape.pooled)).astype(np.float32),
    }


CHANGES = ("products", "attention", "memory", "effort", "unrolled")  # that make a step fast on a CPU


def undo(changes: Sequence[str]) -> dict[str, Any]:
    """Takes some of CHANGES out of this process, before its first program; returns settings of the model to go with it.

    products: weights' gradients as JAX has them. attention: JAX's. memory: given back as malloc does. effort: little,
    of the compiler. unrolled: a scan over the blocks.
    """
    import jax

    from rfjax import memory
    from rfjax.models import blocks, matmul
    from rfjax.training import spec

    if "products" in changes:
        matmul._product = matmul._contract
    if "attention" in changes:
        blocks.attention = lambda q, k, v, _: jax.nn.dot_product_attention(q, k, v)
    if "memory" in changes:
        memory.keep = bool
    if "effort" in changes:
        spec.worth_full_opt = lambda _: False
    return {"unroll": 1 if "unrolled" in changes else 0}


def ours(
    shape: Shape, steps: int = 1, model: dict[str, Any] | None = None, without: Sequence[str] | None = None
) -> Work:
    """rfjax's own step, compiled and called as the training loop does it, in a process as `rfjax.main` sets it up.

    without: of CHANGES, to see what they do.
    """
    from rfjax import memory

    if without is not None:
        model = (model or {}) | undo(without)
    memory.keep()
    import jax

    from rfjax import flow
    from rfjax.training import mesh as meshes
    from rfjax.training.encode import EncodeStage
    from rfjax.training.spec import make_run_spec
    from rfjax.training.state import initial_state
    from rfjax.training.step import jit_noise, jit_update

    run = config(shape, **(model or {}))
    spec, mesh = make_run_spec(run), meshes.make_mesh(run.mesh)
    rows = meshes.put_rows(synthetic(shape), shape.batch, mesh)
    arrays, seed = flow.formulation("rf/lognorm(0.00,1.00)").arrays, np.uint32(0)
    encode, sample_noise = EncodeStage.place(spec.encoders, mesh), jit_noise(spec.objective, spec.inputs, mesh)
    state, update = initial_state(spec, mesh, 0), jit_update(spec, mesh)

    def work() -> float:
        nonlocal state
        began = time.perf_counter()
        for _ in range(steps):
            batch = encode(rows, seed, state.step)
            state, _ = update(state, batch, sample_noise(arrays, seed, state.step, batch["slot"]))
        jax.block_until_ready(state)
        return (time.perf_counter() - began) / steps

    return work


def our_peak(shape: Shape, model: dict[str, Any] | None = None) -> Work:
    """The most bytes of a device's memory in use so far, after a step: as a work, whose result is no time."""
    work = ours(shape, 1, model)
    work()
    import jax

    return lambda: float((jax.local_devices()[0].memory_stats() or {}).get("peak_bytes_in_use", 0))


def our_sampler(shape: Shape) -> Work:
    """rfjax's sampler, as a study draws its samples."""
    from rfjax import memory

    memory.keep()
    import jax

    from rfjax import flow
    from rfjax.evaluation.sampler import Sampleable, SamplerSettings, sample_batch
    from rfjax.training import mesh as meshes
    from rfjax.training.encode import EncodeStage
    from rfjax.training.spec import make_run_spec
    from rfjax.training.state import initial_state

    run = config(shape)
    spec, mesh, rows = make_run_spec(run), meshes.make_mesh(run.mesh), synthetic(shape)
    params = initial_state(spec, mesh, 0).params
    network = Sampleable(
        spec.model, params, flow.formulation("rf"), spec.codec, flops=spec.model.forward_flops(spec.inputs)
    )
    settings = SamplerSettings("euler", STEPS, flow.Guidance(GUIDANCE))
    cond = EncodeStage.place(spec.encoders, mesh)(rows, np.uint32(0), np.int32(0))["cond"]

    def work() -> float:
        began = time.perf_counter()
        jax.block_until_ready(sample_batch(network, rows["slot"], cond, settings).z)
        return time.perf_counter() - began

    return work


def product(library: str, size: int, precision: str = "float32", times: int = 3) -> Work:
    """A large square matrix product: the rate that this machine can reach."""
    if library == "torch":
        import torch

        device = _torch_device()
        a, b = (torch.randn(size, size, device=device).to(getattr(torch, precision)) for _ in range(2))
        multiply, wait = torch.mm, _torch_wait
    else:
        from rfjax import memory

        memory.keep()
        import jax

        a, b = (jax.random.normal(jax.random.key(i), (size, size), precision) for i in range(2))
        multiply, wait = jax.jit(jax.numpy.matmul), jax.block_until_ready

    def work() -> float:
        began = time.perf_counter()
        for _ in range(times):
            out = multiply(a, b)
        wait(out)
        return (time.perf_counter() - began) / times

    return work


def _torch_device() -> str:
    import torch

    if torch.cuda.is_available():
        return "cuda"
    torch.set_num_threads(cores())
    return "cpu"


def _torch_wait(_: Any = None) -> None:
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _torch_network(shape: Shape, batch: int) -> tuple[Any, dict[str, Any]]:
    """diffusers' network of the same shape, and its arguments beside z and t for so many examples."""
    import torch
    from diffusers import DiTTransformer2DModel, SD3Transformer2DModel

    torch.manual_seed(0)
    same = {
        "sample_size": shape.side,
        "patch_size": 2,
        "in_channels": shape.channels,
        "out_channels": shape.channels,
        "num_layers": shape.depth,
        "attention_head_dim": shape.width // shape.heads,
        "num_attention_heads": shape.heads,
    }
    device = _torch_device()
    if shape.kind == "mmdit":
        module = SD3Transformer2DModel(
            **same,
            joint_attention_dim=shape.text[1],
            caption_projection_dim=shape.width,
            pooled_projection_dim=shape.pooled,
            pos_embed_max_size=shape.side // 2,
        )
        text = {
            "encoder_hidden_states": torch.randn(batch, *shape.text, device=device),
            "pooled_projections": torch.randn(batch, shape.pooled, device=device),
        }
    else:
        module = DiTTransformer2DModel(**same, num_embeds_ada_norm=shape.pooled)
        text = {"class_labels": torch.randint(0, shape.pooled, (batch,), device=device)}
    return module.to(device), text


def theirs(shape: Shape, compiled: bool, steps: int = 1) -> Work:
    """The peer's training step: diffusers' network and torch's fused AdamW, eager or compiled."""
    import torch

    module, text = _torch_network(shape, shape.batch)
    device, half = _torch_device(), shape.precision == "bfloat16"
    optimizer = torch.optim.AdamW(module.train().parameters(), lr=LEARNING_RATE, weight_decay=DECAY, fused=True)
    x0 = torch.randn(shape.batch, shape.channels, shape.side, shape.side, device=device)

    def loss_of(z: Any, t: Any, target: Any) -> Any:
        with torch.autocast(device, dtype=torch.bfloat16, enabled=half):
            out = module(hidden_states=z, timestep=1000 * t, **text, return_dict=False)[0]
        return torch.nn.functional.mse_loss(out.float(), target)

    loss_of = torch.compile(loss_of) if compiled else loss_of

    def work() -> float:
        began = time.perf_counter()
        for _ in range(steps):
            t = torch.sigmoid(torch.randn(shape.batch, device=device))
            eps, part = torch.randn_like(x0), t[:, None, None, None]
            loss_of((1 - part) * x0 + part * eps, t, eps - x0).backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        _torch_wait()
        return (time.perf_counter() - began) / steps

    return work


def their_peak(shape: Shape) -> Work:
    """`our_peak` of the peer, compiled."""
    theirs(shape, True)()
    import torch

    return lambda: float(torch.cuda.max_memory_allocated()) if torch.cuda.is_available() else 0.0


def their_sampler(shape: Shape, compiled: bool) -> Work:
    """The loop of diffusers' SD3 pipeline: its Euler scheduler and the network, in inference mode."""
    import torch
    from diffusers import FlowMatchEulerDiscreteScheduler

    module, text = _torch_network(shape, 2 * shape.batch)
    device, half = _torch_device(), shape.precision == "bfloat16"
    module = module.eval()
    network = torch.compile(module) if compiled else module

    def work() -> float:
        began = time.perf_counter()
        scheduler = FlowMatchEulerDiscreteScheduler()
        scheduler.set_timesteps(STEPS, device=device)
        z = torch.randn(shape.batch, shape.channels, shape.side, shape.side, device=device)
        with torch.inference_mode(), torch.autocast(device, dtype=torch.bfloat16, enabled=half):
            for t in scheduler.timesteps:
                both, times = torch.cat([z, z]), t.expand(2 * shape.batch)
                out = network(hidden_states=both, timestep=times, **text, return_dict=False)[0]
                without, with_text = out.chunk(2)
                z = scheduler.step(without + GUIDANCE * (with_text - without), t, z, return_dict=False)[0]
        _torch_wait()
        return time.perf_counter() - began

    return work
