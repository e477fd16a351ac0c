"""Pictures a second of CLIP's tower as an embedder, beside transformers under torch: the same sizes, random weights.

    python -m benchmarks.embedding_clip [l14 l14_6 h14 dino_l14 ...] [batch=8] [side=256] [rounds=5] [cpu] [--record]

From bytes of side x side pixels to projected vectors. `transformers` is its Pillow processor and the model as users run
them; `network alone` and `network compiled` are given pixels that were prepared before, and so do less than ours. Each
has a process of its own with the same cores, and all work in turn; float32 on both sides. `l14_6` has 6 of the 24
blocks. With `cpu` each has one core, and its processor's time counts, which other programs hardly change.
"""

import dataclasses
import importlib
import importlib.util
import sys

import numpy as np

from benchmarks import page
from benchmarks.encoders_text import clock_of
from benchmarks.race import Contender, Work, cores, race, ratios, rounds_of, spread
from rfjax.encoders.embedding.clip import ClipEmbedder
from rfjax.encoders.embedding.dinov2 import DinoEmbedder
from rfjax.encoders.language.clip import Clip
from rfjax.encoders.language.tokens import Tokenizer
from rfjax.encoders.vision.families import CLIP, IMAGENET, Description
from rfjax.encoders.vision.vit import Architecture

PEERS = all(importlib.util.find_spec(name) for name in ("torch", "transformers"))
L14 = Architecture(14, 1024, 24, 16, 4096, "quick_gelu", 1e-5, pre_norm=True)
H14 = dataclasses.replace(L14, width=1280, depth=32, hidden=5120, activation="gelu")
DINO = dataclasses.replace(L14, activation="gelu", epsilon=1e-6, pre_norm=False, layer_scale=True)
WORDS = Clip(8, 1, 1, 8, 9, 77, 768, "quick_gelu", 1e-5, 2)  # the tower of texts is not run


def clip(arch: Architecture, projected: int) -> ClipEmbedder:
    """A CLIP without files."""
    what, text = Description("clip", arch, 16, ("patch",)), dataclasses.replace(WORDS, projected=projected)
    return ClipEmbedder("", "", what, text, Tokenizer("", "clip_l", 77), "pil", CLIP)


NETWORKS = {
    "l14": clip(L14, 768),
    "l14_6": clip(dataclasses.replace(L14, depth=6), 768),
    "h14": clip(H14, 1024),
    "dino_l14": DinoEmbedder("", "", Description("dinov2", DINO, 37), IMAGENET),
}
ROUNDS, BATCH, SIDE, SIZE = 5, 8, 256, 224


def pictures(batch: int, side: int) -> np.ndarray:
    """The same for all."""
    return np.random.default_rng(0).integers(0, 256, (batch, side, side, 3)).astype(np.uint8)


def ours(name: str, batch: int, side: int, alone: bool) -> Work:
    """Our embedder, with the compiler's full effort."""
    clock = clock_of(alone)
    import jax

    from rfjax.compiling import options
    from rfjax.encoders.vision.loading import abstract_weights

    embedder, random = NETWORKS[name], np.random.default_rng(0)
    draw = lambda x: jax.device_put(random.standard_normal(x.shape, np.float32) * 0.02)  # noqa: E731
    if isinstance(embedder, ClipEmbedder):
        vision = jax.tree.map(draw, abstract_weights(embedder.vision.arch, (16, 16)))
        shape = jax.ShapeDtypeStruct((embedder.vision.arch.width, embedder.text.projected), np.float32)
        weights = {"vision": vision, "projection": draw(shape)}
    else:
        weights = jax.tree.map(draw, abstract_weights(embedder.what.arch, embedder.grid))
    images, program = pictures(batch, side), jax.jit(embedder.embed, compiler_options=options(full=True))

    def work() -> float:
        start = clock()
        jax.block_until_ready(program(weights, images))
        return clock() - start

    return work


def theirs(name: str, batch: int, side: int, alone: bool, how: str) -> Work:
    """The class of transformers; how: "whole" with its processor, "alone" or "compiled" without."""
    clock = clock_of(alone)
    import torch
    import transformers
    from PIL import Image

    torch.set_num_threads(cores())
    embedder = NETWORKS[name]
    arch = embedder.vision.arch if isinstance(embedder, ClipEmbedder) else embedder.what.arch
    sizes = {"hidden_size": arch.width, "num_hidden_layers": arch.depth, "num_attention_heads": arch.heads,
             "patch_size": arch.patch, "hidden_act": arch.activation}  # fmt: skip
    if isinstance(embedder, ClipEmbedder):
        sizes |= {"intermediate_size": arch.hidden, "projection_dim": embedder.text.projected, "image_size": SIZE}
        model = transformers.CLIPVisionModelWithProjection(transformers.CLIPVisionConfig(**sizes))
    else:
        model = transformers.Dinov2Model(transformers.Dinov2Config(**sizes, image_size=518))
    model = torch.compile(model.eval()) if how == "compiled" else model.eval()
    processor = importlib.import_module("transformers.models.clip.image_processing_pil_clip").CLIPImageProcessorPil()
    images = pictures(batch, side)
    prepare = lambda: processor([Image.fromarray(x) for x in images], return_tensors="pt")["pixel_values"]  # noqa: E731
    ready = prepare()

    def work() -> float:
        with torch.inference_mode():
            start = clock()
            model(prepare() if how == "whole" else ready)
            return clock() - start

    return work


def lines(name: str, batch: int, side: int, rounds: int, alone: bool) -> list[str]:
    """The section about one network."""
    given = (name, batch, side, alone)
    contenders = [Contender("rfjax", ours, given)]
    if PEERS:
        words = {"whole": "transformers", "alone": "network alone", "compiled": "network compiled"}
        contenders += [Contender(word, theirs, (*given, how)) for how, word in words.items()]
    found = race(contenders, rounds)
    embedder = NETWORKS[name]
    arch = embedder.vision.arch if isinstance(embedder, ClipEmbedder) else embedder.what.arch
    rows = []
    for times in found:
        speed = [batch / seconds for seconds in times.seconds]
        rate = batch * arch.flops((16, 16)) / times.median / 1e9
        ratio = "" if times is found[0] else spread(ratios(found[0], times))
        rows.append((times.name, times.failure or spread(speed), f"{rate:.0f}", ratio))
    head = ("", "pictures a second", "GFLOP/s", "time over rfjax's")
    how = ", one core, processor's time" if alone else ""
    return [f"**{name}**, batch {batch}, {side} x {side} pixels{how}", "", *page.table(head, rows), ""]


def main(arguments: list[str]) -> None:
    """Races the networks that are named."""
    words = [a for a in arguments if not a.startswith("--") and "=" not in a]
    alone, words = "cpu" in words, [word for word in words if word != "cpu"]
    given = dict(a.split("=", 1) for a in arguments if "=" in a)
    batch, side = int(given.get("batch", BATCH)), int(given.get("side", SIDE))
    rounds = rounds_of(arguments, ROUNDS)
    found = [lines(word, batch, side, rounds, alone) for word in words or ("l14",)]
    page.show("embedding_clip", [line for section in found for line in section][:-1])


if __name__ == "__main__":
    main(sys.argv[1:])
