"""The size and the shape of the code: what a reader has to hold in mind.

    python -m benchmarks.measures

Prints the frames of rfjax between `main` and the loss, functions above 60 lines, files above 300, the lines of each
package with and without docstrings, comments and blank lines, and those of the core: the flow, one backbone with its
blocks, the objective, the state, the step and the loop (not what puts blocks into a scan and shards over devices).
"""

import ast
import sys
import tempfile
import traceback
from pathlib import Path

ROOT = Path(__file__).parents[1]
CORE = (
    "flow/paths.py", "flow/densities.py", "flow/quantities.py", "flow/formulations.py", "flow/losses.py",
    "models/backbone.py", "models/blocks.py", "models/layers.py", "models/mmdit.py",
    "objectives/flow_matching.py", "training/state.py", "training/step.py", "training/loop.py",
)  # fmt: skip
LONGEST_FUNCTION, LONGEST_FILE = 60, 300
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


def main() -> int:
    """Prints the measures."""
    packages: dict[str, list[int]] = {}
    for path in sorted((ROOT / "rfjax").rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        name, tree = str(path.relative_to(ROOT / "rfjax")), ast.parse(text)
        lines = len(text.splitlines())
        total = packages.setdefault(name.split("/", maxsplit=1)[0] if "/" in name else "top level", [0, 0])
        total[0] += lines
        total[1] += code_lines(text, tree)
        if lines > LONGEST_FILE:
            print(f"file of {lines} lines: {name}")
        for node in ast.walk(tree):
            if isinstance(node, FUNCTIONS) and (length := node.end_lineno - node.lineno + 1) > LONGEST_FUNCTION:
                print(f"function of {length} lines: {name} {node.name}")
    for name, (lines, code) in packages.items():
        print(f"{name:12} {lines:6,} lines, {code:6,} of code")
    lines, code = map(sum, zip(*packages.values(), strict=True))
    print(f"{'all':12} {lines:6,} lines, {code:6,} of code")
    core = sum(len((ROOT / "rfjax" / name).read_text(encoding="utf-8").splitlines()) for name in CORE)
    print(f"core: {core:,} lines in {len(CORE)} files")
    frames = frames_to_the_loss()
    print(f"frames from main to the loss: {len(frames)}: {', '.join(frames)}")
    return 0


def code_lines(text: str, tree: ast.AST) -> int:
    """Lines that are neither blank, nor a comment, nor a part of a docstring."""
    skipped = {number for number, line in enumerate(text.splitlines(), 1) if line.strip()[:1] in ("", "#")}
    for node in ast.walk(tree):
        if (
            isinstance(node, (ast.Module, ast.ClassDef, *FUNCTIONS))
            and ast.get_docstring(node, clean=False) is not None
        ):
            skipped |= set(range(node.body[0].lineno, node.body[0].end_lineno + 1))
    return len(text.splitlines()) - len(skipped)


def frames_to_the_loss() -> list[str]:
    """The functions of rfjax on the stack when the loss is traced, from `main` on."""
    from rfjax import flow
    from rfjax.main import main as run

    found: list[str] = []
    loss = flow.cfm_loss

    def traced(*arguments: object) -> object:
        frames = [frame for frame in traceback.extract_stack() if f"{ROOT}/rfjax/" in frame.filename]
        found[:] = found or [f"{Path(frame.filename).stem}.{frame.name}" for frame in frames]
        return loss(*arguments)

    flow.cfm_loss = traced
    flags = [
        "--config.training.steps=1",
        "--config.sampling.count=0",
        "--config.optimizer.warmup=1",
        "--config.only=d1",
    ]
    with tempfile.TemporaryDirectory() as folder:
        run(
            [
                f"--config={ROOT}/configs/scaling.py",
                f"--config.workdir={folder}",
                "--config.optimizer.decay=none",
                *flags,
            ]
        )
    return [*found, "losses.cfm_loss"]


if __name__ == "__main__":
    sys.exit(main())
