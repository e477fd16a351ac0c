"""From a source to batches: order, shuffling, sharding by process, text, and a checkpointable iterator, by Grain."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

import numpy as np
from jaxtyping import Float32, Int32, UInt8

from rfjax.data import images
from rfjax.data.text import Labels, TextEncoder
from rfjax.data.types import Example, Source
from rfjax.errors import UserError


class Batch(TypedDict):
    """One process's share of a batch; `slot` is each example's place in the global batch."""

    image: UInt8[np.ndarray, "b H W C"] | Float32[np.ndarray, "b H W C"]
    context: Float32[np.ndarray, "b L E"]
    pooled: Float32[np.ndarray, "b P"]
    slot: Int32[np.ndarray, " b"]


@dataclass(frozen=True)
class Share:
    """Which part of each global batch this process loads."""

    process: int = 0
    processes: int = 1


def load(source: Source, encoder: TextEncoder, indices: Sequence[int]) -> tuple[Batch, list[str]]:
    """Reads the examples of these indices as one batch, and their captions; `slot` counts from 0.

    Raises:
        UserError: if the encoder is for class labels and the source has none.
    """
    if hasattr(source, "read"):
        stack, captions = source.read(indices)
        examples: list[Any] = []
    else:
        examples = [source[int(i)] for i in indices]
        stack, captions = np.stack([e["image"] for e in examples]), [e["caption"] for e in examples]
    if examples and "context" in examples[0]:
        context = np.stack([e["context"] for e in examples]).astype(np.float32)
        pooled = np.stack([e["pooled"] for e in examples]).astype(np.float32)
    else:
        context, pooled = encoder(_labels(examples) if isinstance(encoder, Labels) else captions)
    slot = np.arange(len(captions), dtype=np.int32)
    return {"image": stack, "context": context, "pooled": pooled, "slot": slot}, captions


def _labels(examples: Sequence[Example]) -> list[str]:
    if not all("label" in example for example in examples) or not examples:
        raise UserError("this data set has no class labels: choose another config.text.encoder than 'labels'")
    return [str(example["label"]) for example in examples]


def batches(
    source: Source, encoder: TextEncoder, *, batch: int, seed: int, flip: bool = False, share: Share = Share()
) -> Iterator[Batch]:
    """An endless Grain iterator over one process's share of training batches; its state goes into checkpoints.

    The global batch k holds the positions k batch ... (k + 1) batch - 1 of the shuffled, repeated source, whatever the
    number of processes, and an example's flip depends on (seed, position) alone.

    Args:
        source: examples. encoder: for captions that come without encodings.
        batch: global batch size, a multiple of the number of processes.
        seed: of the order (new in each epoch) and of the flips.
        flip: mirror half of the examples.
        share: which part of each global batch is this process's.
    """

    import grain  # it imports JAX, which preparing and reading data sets does not need

    def assemble(places: Sequence[tuple[int, int]]) -> Batch:
        positions, indices = zip(*places, strict=True)
        result, _ = load(source, encoder, indices)
        if flip:
            streams = [np.random.Generator(np.random.Philox(key=[seed, p])) for p in positions]
            result["image"] = np.stack(
                [images.random_flip(g, im) for g, im in zip(streams, result["image"], strict=True)]
            )
        result["slot"] = (np.asarray(positions) % batch).astype(np.int32)
        return result

    order = grain.MapDataset.range(len(source))
    if getattr(source, "shuffles", True):
        order = order.shuffle(seed)
    order = order.repeat().map_with_index(lambda position, index: (position, index))
    order = order[share.process :: share.processes]
    ready = order.batch(batch // share.processes, drop_remainder=True, batch_fn=list).map(assemble)
    return iter(ready.to_iter_dataset(grain.ReadOptions(num_threads=1, prefetch_buffer_size=4)))
