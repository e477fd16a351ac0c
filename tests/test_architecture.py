"""The house: five floors, every arrow points down."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
GROUND = {"errors", "config"}
ALLOWED = {
    "errors": set(),
    "config": {"errors"},
    "names": {"errors"},
    "flow": {"errors", "names"},
    "models": {"errors"},
    "data": GROUND,
    "analysis": {"errors"},
    "compiling": set(),
    "evaluation": GROUND | {"compiling"} | {"flow", "models", "data"},
    "training": GROUND | {"compiling"} | {"flow", "models", "data", "evaluation"},
    "interop": GROUND | {"models", "training"},
    "study": GROUND
    | {"interop"}
    | {"flow", "models", "data", "evaluation", "training", "analysis", "names", "compiling"},
    "main": GROUND | {"study", "training"},
}


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


@pytest.mark.parametrize("path", sorted((ROOT / "rfjax").rglob("*.py")), ids=lambda p: str(p.relative_to(ROOT)))
def test_nothing_imports_upward(path):
    floor = path.relative_to(ROOT / "rfjax").parts[0].removesuffix(".py")
    if floor == "__init__":
        return
    used = {name.split(".")[1] for name in imports(path) if name.startswith("rfjax.")}
    assert used - {floor} <= ALLOWED[floor]


@pytest.mark.parametrize(
    "module", ["rfjax.main", "rfjax.config", "rfjax.analysis", "rfjax.study.reports", "rfjax.data.tfds"]
)
def test_what_needs_no_jax_imports_none(module):
    code = f"import sys; sys.modules['jax'] = None; sys.modules['tensorflow'] = None; import {module}"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_configs_hold_no_mathematics():
    for path in (ROOT / "configs").glob("*.py"):
        assert {name.split(".")[0] for name in imports(path)} <= {"rfjax", "ml_collections"}, path
