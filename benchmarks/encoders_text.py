"""Texts a second of the text encoders, beside transformers under torch: the same sizes and tokens, random weights.

    python -m benchmarks.encoders_text [clip_l t5_base t5_wide ...] [batch=8] [rounds=5] [cpu] [--record]

`clip_l` is SD3's CLIP L, `clip_g` 8 of the 32 blocks of its CLIP G, `t5_base` T5 v1.1 base, `t5_wide` two blocks of
XXL's width, `minilm` all-MiniLM. Every contender has a process of its own with the same cores, and all work in turn;
medians with the smallest and the largest of the rounds. float32 on both sides. The peers need torch and transformers.
With `cpu` each has one core, and its processor's time counts, which other programs on the machine hardly change.
"""

import dataclasses
import importlib.util
import os
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks import page
from benchmarks.race import Contender, Work, cores, race, ratios, rounds_of, spread
from rfjax.encoders.language.bert import Bert
from rfjax.encoders.language.clip import Clip
from rfjax.encoders.language.t5 import T5
from rfjax.memory import keep

PEERS = all(importlib.util.find_spec(name) for name in ("torch", "transformers"))


@dataclasses.dataclass(frozen=True)
class Shape:
    """A network and how many tokens a text has.

    Attributes:
        kind: of our towers. arch: its sizes. length: tokens of a text.
    """

    kind: str
    arch: Any
    length: int


L = Clip(768, 12, 12, 3072, 49408, 77, 768, "quick_gelu", 1e-5, 2)
G = Clip(1280, 8, 20, 5120, 49408, 77, 1280, "gelu", 1e-5, 2)
SHAPES = {
    "clip_l": Shape("clip", L, 77),
    "clip_g": Shape("clip", G, 77),
    "t5_base": Shape("t5", T5(768, 12, 12, 64, 2048, 32128), 77),
    "t5_base_256": Shape("t5", T5(768, 12, 12, 64, 2048, 32128), 256),
    "t5_wide": Shape("t5", T5(4096, 2, 64, 64, 10240, 32128), 77),
    "minilm": Shape("bert", Bert(384, 6, 12, 1536, 30522, 512, 2, "gelu", 1e-12), 32),
}
DEFAULT = ("clip_l", "t5_base", "t5_base_256", "t5_wide")
ROUNDS, BATCH = 5, 8


def tokens(shape: Shape, batch: int) -> np.ndarray:
    """The same for all."""
    ids = np.random.default_rng(0).integers(3, shape.arch.vocabulary - 2, (batch, shape.length)).astype(np.int32)
    ids[:, -1] = shape.arch.vocabulary - 1
    return ids


def clock_of(alone: bool) -> Callable[[], float]:
    """What tells the time; `alone`: of this process's work, which is pinned to one core."""
    if not alone:
        return time.perf_counter
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    return time.process_time


def ours(shape: Shape, batch: int, alone: bool) -> Work:
    """Our tower, with the compiler's full effort."""
    clock = clock_of(alone)
    keep()  # as `rfjax.main` does
    import jax

    from rfjax.compiling import options
    from rfjax.encoders.language import Tower

    tower, random = Tower("", shape.kind, shape.arch), np.random.default_rng(0)
    draw = lambda x: jax.device_put(random.standard_normal(x.shape, np.float32) * 0.02)  # noqa: E731
    weights, ids = jax.tree.map(draw, tower.abstract_weights()), tokens(shape, batch)
    given = (ids, np.ones(ids.shape, bool)) if shape.kind == "bert" else (ids,)
    program = jax.jit(tower, compiler_options=options(full=True))

    def work() -> float:
        start = clock()
        jax.block_until_ready(program(weights, *given))
        return clock() - start

    return work


def theirs(shape: Shape, batch: int, alone: bool, compiled: bool) -> Work:
    """The class of transformers that diffusers' pipeline loads."""
    clock = clock_of(alone)
    import torch
    import transformers

    torch.set_num_threads(cores())
    a = shape.arch
    if shape.kind == "t5":
        config = transformers.T5Config(
            vocab_size=a.vocabulary, d_model=a.width, d_kv=a.head, d_ff=a.hidden, num_layers=a.depth, num_heads=a.heads,
            feed_forward_proj="gated-gelu",
        )  # fmt: skip
        model = transformers.T5EncoderModel(config)
    elif shape.kind == "clip":
        config = transformers.CLIPTextConfig(
            vocab_size=a.vocabulary, hidden_size=a.width, intermediate_size=a.hidden, projection_dim=a.projected,
            num_hidden_layers=a.depth, num_attention_heads=a.heads, hidden_act=a.activation, eos_token_id=2,
        )  # fmt: skip
        model = transformers.CLIPTextModelWithProjection(config)
    else:
        config = transformers.BertConfig(
            vocab_size=a.vocabulary, hidden_size=a.width, num_hidden_layers=a.depth, num_attention_heads=a.heads,
            intermediate_size=a.hidden, max_position_embeddings=a.positions,
        )  # fmt: skip
        model = transformers.BertModel(config)
    model, ids = model.eval(), torch.tensor(tokens(shape, batch)).long()
    model = torch.compile(model) if compiled else model

    def work() -> float:
        with torch.inference_mode():
            start = clock()
            model(ids, output_hidden_states=shape.kind == "clip")
            return clock() - start

    return work


def lines(name: str, batch: int, rounds: int, alone: bool) -> list[str]:
    """The section about one network."""
    shape = SHAPES[name]
    contenders = [Contender("rfjax", ours, (shape, batch, alone))]
    if PEERS:
        contenders += [Contender("torch eager", theirs, (shape, batch, alone, False)),
                       Contender("torch compiled", theirs, (shape, batch, alone, True))]  # fmt: skip
    found = race(contenders, rounds)
    rows = []
    for times in found:
        speed = [batch / seconds for seconds in times.seconds]
        rate = batch * shape.arch.flops(shape.length) / times.median / 1e9
        ratio = "" if times is found[0] else spread(ratios(found[0], times))
        rows.append((times.name, times.failure or spread(speed), f"{rate:.0f}", ratio))
    head = ("", "texts a second", "GFLOP/s", "time over rfjax's")
    how = ", one core, processor's time" if alone else ""
    text = [f"**{name}**, batch {batch}, {shape.length} tokens{how}", "", *page.table(head, rows), ""]
    if PEERS:
        better = min(found[1:], key=lambda times: times.median)
        text += [f"Against the better, {better.name}: **{better.median / found[0].median:.2f} x** by the medians.", ""]
    return text


def main(arguments: list[str]) -> None:
    words = [a for a in arguments if not a.startswith("--") and "=" not in a]
    alone, words = "cpu" in words, [word for word in words if word != "cpu"]
    rounds = rounds_of(arguments, ROUNDS)
    batches = [int(a.removeprefix("batch=")) for a in arguments if a.startswith("batch=")] or [BATCH]
    found = [lines(word, batch, rounds, alone) for word in words or DEFAULT for batch in batches]
    page.show("encoders_text", [line for section in found for line in section][:-1])


if __name__ == "__main__":
    main(sys.argv[1:])
