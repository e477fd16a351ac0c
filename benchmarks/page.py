"""The page of figures, benchmarks/README.md: each benchmark prints its section, and writes it with --record."""

import datetime
import importlib.metadata
import os
import platform
import re
import sys
from collections.abc import Sequence
from pathlib import Path

PAGE = Path(__file__).with_name("README.md")
LIBRARIES = ("jax", "flax", "torch", "diffusers")


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A table in Markdown."""
    return ["| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *rows)]


def machine() -> str:
    """What this was measured on, in a line: processor, cores, versions, date."""
    names = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    found = re.search(r"model name\s*:\s*(.+)", names)
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in LIBRARIES if _installed(name))
    cores = len(os.sched_getaffinity(0))
    return (
        f"{_accelerator()}{cores} cores of {found[1] if found else platform.processor()}, "
        f"Python {platform.python_version()}, {versions}; {datetime.date.today()}"
    )


def _installed(name: str) -> bool:
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _accelerator() -> str:
    import jax

    return "" if jax.default_backend() == "cpu" else f"{jax.devices()[0].device_kind}, "


def show(name: str, lines: Sequence[str], page: Path = PAGE) -> None:
    """Prints a benchmark's section; with --record among the command's words, also puts it into the page.

    Args:
        name: of the benchmark, the section's mark. lines: what was found, in Markdown.
    """
    program = Path(sys.argv[0]).stem
    command = " ".join(["python -m benchmarks." + program, *(word for word in sys.argv[1:] if word != "--record")])
    text = "\n".join([f"`{command}`", "", *lines, "", machine(), ""])
    print(text, flush=True)
    if "--record" in sys.argv:
        page.write_text(placed(page.read_text(), name, text))


def placed(page: str, name: str, text: str) -> str:
    """The page with a section's text in place of the one before.

    Raises:
        ValueError: if the page has no such section.
    """
    start, end = f"<!-- {name} -->\n", f"<!-- /{name} -->"
    if start not in page or end not in page:
        raise ValueError(f"the page has no section {name}")
    before, rest = page.split(start, 1)
    return before + start + text + end + rest.split(end, 1)[1]
