"""SD3's autoencoder, pictures a second, beside diffusers' under torch on the same pictures; and the memory it takes.

    python -m benchmarks.encoders_vae [encoder decoder] [batch=1,4] [side=128] [rounds=5] [--record]
    python -m benchmarks.encoders_vae memory [batch=1,16] [side=256]      the peers need torch

Weights are random and float32. Every contender has a process of its own with the same cores, and all work in turn;
medians with the smallest and the largest of the rounds. `memory` compiles programs that encode or decode 16 pictures,
`batch` of them at a time, and prints what XLA allocates beside weights, arguments and results; nothing runs.
"""

import sys
import time
from typing import Any

import numpy as np

from benchmarks import page
from benchmarks.race import PEERS, Contender, Work, cores, race, ratios, rounds_of, spread
from rfjax.memory import keep

HALVES = ("encoder", "decoder")
WIDTHS, RESNETS, LATENT, FACTOR = (128, 256, 512, 512), 2, 16, 8  # of SD3
PICTURES = 16  # of `memory`
MIB = 2**20


def description() -> Any:
    """SD3's autoencoder."""
    from rfjax.encoders.autoencoder import Architecture, Description

    return Description(Architecture(WIDTHS, RESNETS, LATENT, quant=False, post_quant=False), 1.5305, 0.0609)


def inputs(half: str, batch: int, side: int) -> np.ndarray:
    """Pictures from -1 to 1, or latents."""
    shape = (batch, side, side, 3) if half == "encoder" else (batch, side // FACTOR, side // FACTOR, LATENT)
    return np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32)


def our_weights(half: str) -> Any:
    """Random weights of one half."""
    import jax

    from rfjax.encoders.autoencoder import loading

    shapes, draw = loading.abstract_weights(description().arch, half), np.random.default_rng(0)
    scaled = lambda x: draw.standard_normal(x.shape, np.float32) / np.prod(x.shape[:-1]) ** 0.5  # noqa: E731
    return {half: jax.tree.map(lambda x: jax.device_put(scaled(x)), shapes)}


def ours(half: str, batch: int, side: int) -> Work:
    """rfjax's."""
    keep()  # as `rfjax.main` does
    import jax

    from rfjax.encoders.autoencoder import Autoencoder

    network, weights, x = Autoencoder("", description()), our_weights(half), jax.device_put(inputs(half, batch, side))
    run = jax.jit(network.moments if half == "encoder" else network.pixels)

    def work() -> float:
        start = time.perf_counter()
        jax.block_until_ready(run(weights, x))
        return time.perf_counter() - start

    return work


def theirs(half: str, batch: int, side: int, layout: str, compiled: bool) -> Work:
    """diffusers'."""
    import torch
    from diffusers import AutoencoderKL

    torch.set_num_threads(cores())
    levels = len(WIDTHS)
    network = AutoencoderKL(
        block_out_channels=WIDTHS,
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        layers_per_block=RESNETS,
        latent_channels=LATENT,
        use_quant_conv=False,
        use_post_quant_conv=False,
    ).eval()
    network = network.to(memory_format=getattr(torch, layout))
    x = torch.tensor(inputs(half, batch, side)).permute(0, 3, 1, 2).contiguous(memory_format=getattr(torch, layout))
    run = network.encoder if half == "encoder" else network.decoder
    run = torch.compile(run) if compiled else run

    def work() -> float:
        start = time.perf_counter()
        with torch.inference_mode():
            run(x)
        return time.perf_counter() - start

    return work


def flops(half: str, side: int) -> int:
    """Of one picture."""
    import jax

    from rfjax.encoders.autoencoder import Autoencoder, loading
    from rfjax.models.counting import traced_matmul_flops

    network, arch = Autoencoder("", description()), description().arch
    x = inputs(half, 1, side)
    shapes = {half: loading.abstract_weights(arch, half)}
    call = network.moments if half == "encoder" else network.pixels
    return traced_matmul_flops(call, shapes, jax.ShapeDtypeStruct(x.shape, x.dtype))


def lines(half: str, batch: int, side: int, rounds: int) -> list[str]:
    """The section about one half and one size of batch."""
    given = (half, batch, side)
    contenders = [Contender("rfjax", ours, given, warm=False)]
    if PEERS:
        contenders += [
            Contender("torch eager", theirs, (*given, "contiguous_format", False), warm=False),
            Contender("torch eager, channels last", theirs, (*given, "channels_last", False), warm=False),
            Contender("torch compiled, channels last", theirs, (*given, "channels_last", True), warm=False),
        ]
    found, count = race(contenders, rounds), flops(half, side)
    own, rows = found[0], []
    for times in found:
        speed = [batch / seconds for seconds in times.seconds]
        ratio = "" if times is own else spread(ratios(own, times))
        rate = f"{batch * count / times.median / 1e9:.0f}"
        rows.append((times.name, times.failure or spread(speed), rate, ratio))
    head = ("", "pictures a second", "GFLOP/s", "time over rfjax's")
    text = [f"**{half}**, {side} x {side} pixels, batch {batch}", "", *page.table(head, rows), ""]
    if PEERS:
        better = min(found[1:], key=lambda times: times.median)
        text += [f"Against the better, {better.name}: **{better.median / own.median:.2f} x** by the medians.", ""]
    return text


def temporary(half: str, at_once: int, side: int) -> int:
    """Bytes that XLA allocates for a program beside its weights, arguments and results."""
    import jax

    from rfjax.encoders.autoencoder import Autoencoder, loading
    from rfjax.encoders.parts import in_parts

    network, x = Autoencoder("", description()), inputs(half, 1, side)
    weights = {half: loading.abstract_weights(network.arch, half)}
    call = network.moments if half == "encoder" else network.pixels
    given = jax.ShapeDtypeStruct((PICTURES, *x.shape[1:]), x.dtype)
    return jax.jit(in_parts(call, at_once)).lower(weights, given).compile().memory_analysis().temp_size_in_bytes


def memory(batches: list[int], side: int) -> None:
    """Prints the memory of both halves."""
    rows = [(half, f"{n}", f"{temporary(half, n, side) / MIB:,.0f} MiB") for half in HALVES for n in batches]
    title = f"Memory of {PICTURES} pictures of {side} x {side} pixels, float32"
    page.show("encoders_vae_memory", [title, "", *page.table(("", "at once", "temporary memory"), rows)])


def main(arguments: list[str]) -> None:
    options = dict(word.split("=", 1) for word in arguments if "=" in word)
    words = [word for word in arguments if "=" not in word and not word.startswith("--")]
    if words == ["memory"]:
        memory([int(n) for n in options.get("batch", "1,16").split(",")], int(options.get("side", 256)))
        return
    batches, side = [int(n) for n in options.get("batch", "1,4").split(",")], int(options.get("side", 128))
    rounds = rounds_of(arguments, 5)
    found = [lines(half, batch, side, rounds) for half in words or HALVES for batch in batches]
    page.show("encoders_vae", [line for section in found for line in section][:-1])


if __name__ == "__main__":
    main(sys.argv[1:])
