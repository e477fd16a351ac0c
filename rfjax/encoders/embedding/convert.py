"""Writes FID's Inception network, from any file that `config.evaluate.inception` takes, as .safetensors.

    python -m rfjax.encoders.embedding.convert classify_image_graph_def.pb inception.safetensors

The tensors are those of torch-fidelity's .pth, bit for bit. Exit codes: 0 done, 2 a mistake (the message says which).
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rfjax.encoders.embedding.inception_names import LAYOUT, read_inception
from rfjax.errors import Exit, UserError
from rfjax.tensors import transfer
from rfjax.tensors.safetensors import write_safetensors


def convert(source: Path, target: Path) -> int:
    """Writes `target`; returns the number of its tensors.

    Raises:
        UserError: if the source holds another network, or the target has another suffix.
    """
    if target.suffix != ".safetensors":
        raise UserError(f"{target} must end in .safetensors")
    if not source.exists():
        raise UserError(f"there is no {source}: give the .pth or the .pb of FID's Inception network")
    leaves = read_inception(source)
    write_safetensors(target, transfer.dump(leaves, LAYOUT), transfer.specs(leaves, LAYOUT))
    return len(leaves)


def main(arguments: Sequence[str]) -> int:
    """Runs the command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m rfjax.encoders.embedding.convert",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("source", type=Path, help="a .pth, .pb or .safetensors file")
    parser.add_argument("target", type=Path, help="the .safetensors file to write")
    given = parser.parse_args(arguments)
    try:
        count = convert(given.source, given.target)
    except UserError as error:
        print(f"rfjax: {error}", file=sys.stderr)
        return Exit.MISTAKE
    print(f"{given.target}: {count} tensors")
    return Exit.DONE


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
