"""A fingerprint of a network's weights in files: the same wherever they lie, from a few kilobytes of each tensor."""

import hashlib
import json
import math
from pathlib import Path

from rfjax.tensors.opening import open_tensors
from rfjax.tensors.stored import Tensors

DIGITS = 16  # hexadecimal
SAMPLES = 8  # places of a tensor whose bytes are compared
SAMPLE = 512  # bytes


def fingerprint_of(path: Path) -> str:
    """The fingerprint of a file, or of a folder of safetensors.

    It shows another name, type or shape of any tensor, and another byte in up to SAMPLES spread-out places of each. It
    does not show how tensors are divided among files. Training changes every byte of a network, so a sample is enough.

    Raises:
        UserError: if the files can't be read.
    """
    with open_tensors(path) as tensors:
        return fingerprint(tensors)


def fingerprint(tensors: Tensors) -> str:
    """The same of tensors that are open."""
    whole = hashlib.sha256()
    for name in sorted(tensors.names):
        shape = tensors.shape(name)
        whole.update(json.dumps([name, tensors.kind(name), shape]).encode())
        if not tensors.readable(name) or 0 in shape:
            continue
        rows = shape[0] if shape else 1
        width = max(1, math.prod(shape[1:]) * tensors.dtype(name).itemsize)  # bytes of a row
        for place in sorted({i * rows // SAMPLES for i in range(SAMPLES)}):
            count = max(1, min(SAMPLE // width, rows - place))
            values = tensors.read(name, (place, place + count) if shape else None)
            whole.update(values.reshape(-1).view("u1")[:SAMPLE].tobytes())
    return whole.hexdigest()[:DIGITS]
