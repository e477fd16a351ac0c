"""The house: every arrow points down."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
GROUND = {"errors", "lookup", "untrusted", "config", "names", "buckets"}
ALLOWED = {
    "errors": set(),
    "lookup": {"errors"},
    "untrusted": {"errors"},
    "config": {"errors", "lookup", "untrusted", "names", "buckets"},
    "buckets": {"errors", "files", "ownership"},
    "names": {"errors"},
    "conditioning": set(),
    "trees": set(),
    "flow": {"errors", "names", "conditioning"},
    "models": {"errors", "lookup", "conditioning", "trees"},
    "encoders": GROUND | {"conditioning", "tensors", "files", "trees"},
    "objectives": GROUND | {"flow", "models", "encoders"},
    "data": GROUND | {"files", "memory", "terminal"},
    "analysis": {"errors"},
    "installed": {"errors"},
    "jsonl": {"errors", "files", "untrusted"},
    "compiling": set(),
    "memory": set(),
    "terminal": set(),
    "ownership": {"errors"},
    "disk": {"errors"},
    "files": {"errors", "untrusted", "ownership", "disk"},
    "evaluation": GROUND | {"compiling", "files", "names"} | {"flow", "models", "data", "encoders", "tensors"},
    "training": GROUND
    | {"compiling", "files", "jsonl", "ownership", "trees"}
    | {"flow", "models", "data", "encoders", "objectives", "evaluation", "analysis", "tensors"},
    "tensors": {"errors", "untrusted", "files"},
    "interop": GROUND | {"tensors", "models", "training", "files", "jsonl", "terminal", "trees"},
    "study": GROUND
    | {"interop", "files", "installed", "jsonl", "ownership"}
    | {"flow", "models", "data", "encoders", "evaluation", "training", "analysis", "names", "compiling"},
    "preferences": {"errors", "untrusted", "files", "jsonl", "terminal", "analysis", "study"},
    "planning": GROUND | {"flow", "jsonl", "models", "training", "analysis"},
    "flags": GROUND | {"installed"},
    "main": GROUND | {"study", "training", "planning", "memory", "installed", "terminal", "flags"},
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


def without_encoding(path: Path) -> list[str]:
    """The calls that read or write text in whatever encoding the machine's language has."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name | ast.Attribute):
            continue
        name = node.func.id if isinstance(node.func, ast.Name) else node.func.attr
        method = isinstance(node.func, ast.Attribute)
        if name not in {"open", "NamedTemporaryFile"} and not (method and name in {"read_text", "write_text"}):
            continue
        given = [*node.args, *(keyword.value for keyword in node.keywords)]
        words = {value.value for value in given if isinstance(value, ast.Constant) and isinstance(value.value, str)}
        text = name in {"read_text", "write_text"} or any(re.fullmatch(r"[rwax]\+?t?", word) for word in words)
        bare = name == "open" and method and not given  # path.open()
        said = "utf-8" in words or any(keyword.arg == "encoding" for keyword in node.keywords)
        if (text or bare) and not said:
            found.append(ast.unparse(node))
    return found


@pytest.mark.parametrize("path", sorted((ROOT / "rfjax").rglob("*.py")), ids=lambda p: str(p.relative_to(ROOT)))
def test_text_is_utf8_whatever_the_language_of_the_machine(path):
    allowed = ("archive.open(",)  # of a zip file, whose members are bytes
    assert [call for call in without_encoding(path) if not call.startswith(allowed)] == []


WRITES = {"write_text", "write_bytes", "savefig", "imsave", "save", "savez", "savez_compressed", "dump", "tofile"}
TEMPORARY = ("partial", "atomic(")  # names that files.atomic gives
OTHERWISE = {  # what else is called so, and why it leaves no half-written file
    "data/fashion_mnist.py": ["Image.fromarray(image).save(png,"],  # memory
    "data/tars.py": ["np.savez(file,"],  # a temporary file
    "interop/__init__.py": ["transfer.dump("],  # no file
    "preferences/ballots.py": ["pixels.save("],  # memory
    "tensors/pt.py": ["archive.open("],  # within a temporary file
    "encoders/autoencoder/loading.py": ["transfer.dump("],  # no file
    "encoders/embedding/convert.py": ["transfer.dump("],  # no file
    "study/encode_shards.py": ["values.tofile("],  # a temporary file
    "study/archive_parts.py": ["archive.open("],  # within temporary files
    "study/evaluate_sets.py": ["montage.save("],  # rfjax's own
    "study/pictures.py": ["np.savez(file,"],  # a temporary file
    "study/reports/drawing.py": ["figure.savefig(text,"],  # memory
    "study/reports/suites.py": ["picture.save("],  # memory
    "study/reports/widgets.py": ["strip.crop("],  # memory
    "training/tensorboard.py": ["path.open('r+b')"],  # cuts off what is half-written
    "training/loop.py": ["self.saved.save(", "self.save("],  # Orbax renames whole checkpoints
    "training/measurements/samples.py": ["montage.save("],  # rfjax's own
}


def writes(path: Path) -> list[str]:
    """The calls that may write a file."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name | ast.Attribute):
            continue
        name = node.func.id if isinstance(node.func, ast.Name) else node.func.attr
        given = [*node.args, *(keyword.value for keyword in node.keywords)]
        modes = [value.value for value in given if isinstance(value, ast.Constant) and isinstance(value.value, str)]
        if name in WRITES or (name == "open" and any(re.fullmatch(r"[rbt]*[wxa+][bt+]*", mode) for mode in modes)):
            found.append(ast.unparse(node))
    return found


def test_a_file_is_written_under_a_temporary_name():
    """So that a kill at any moment leaves no half of one: see rfjax/files.py."""
    for path in sorted((ROOT / "rfjax").rglob("*.py")):
        name = str(path.relative_to(ROOT / "rfjax"))
        if name != "files.py":
            left = [call for call in writes(path) if not any(word in call for word in TEMPORARY)]
            assert [call for call in left if not call.startswith(tuple(OTHERWISE.get(name, [])))] == [], name


@pytest.mark.parametrize(
    "module",
    [
        "rfjax.main",
        "rfjax.config",
        "rfjax.analysis",
        "rfjax.study.reports",
        "rfjax.study.locks",
        "rfjax.data.tfds",
        "rfjax.preferences.report",
        "rfjax.preferences.server",
    ],
)
def test_what_needs_no_jax_imports_none(module):
    code = f"import sys; sys.modules['jax'] = None; sys.modules['tensorflow'] = None; import {module}"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_configs_hold_no_mathematics():
    for path in (ROOT / "configs").glob("*.py"):
        assert {name.split(".")[0] for name in imports(path)} <= {"rfjax", "ml_collections"}, path
