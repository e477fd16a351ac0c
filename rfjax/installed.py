"""What of the project is here: in a checkout, or installed from a wheel, which has the configs inside the package.

Nothing here needs another module of the project than the errors.
"""

import os
import subprocess
from pathlib import Path

from rfjax.errors import UserError, nearest

PACKAGE = Path(__file__).resolve().parent
FOLDER = "configs"
GIT_SECONDS = 10  # on a slow file system; then the commit is unknown


def configs() -> Path | None:
    """The folder of the project's own configs, or None if there is none."""
    inside, beside = PACKAGE / FOLDER, PACKAGE.parent / FOLDER
    if inside.is_dir():
        return inside
    return beside if (beside / "scaling.py").is_file() and (PACKAGE.parent / "setup.py").is_file() else None


def known_configs() -> list[str]:
    """The configs that `--config` finds from this folder, sorted."""
    ours = configs()
    names = {path.name for folder in (Path(FOLDER), ours) if folder for path in folder.glob("[!_]*.py")}
    return [f"{FOLDER}/{name}" for name in sorted(names)]


def find_config(path: Path) -> Path:
    """Finds a config file; configs/NAME.py is the project's own if this folder has no such file.

    Raises:
        UserError: if there is no such file; the message names the nearest one.
    """
    if path.is_file():
        return path
    ours = configs()
    if ours and path.parent == Path(FOLDER) and (ours / path.name).is_file():
        return ours / path.name
    raise UserError(f"there is no config file {path}{nearest(str(path), known_configs())}")


def commit(package: Path = PACKAGE) -> str:
    """The commit of the package's checkout, as `git describe` prints it, or "unknown".

    An installed package may lie inside another project's checkout, for example in its .venv. The commit counts only if
    rfjax/ is at the top of the checkout and git tracks it.
    """
    root = package.parent
    variables = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}

    def git(*words: str) -> str:
        command = ["git", "-C", str(root), *words]
        done = subprocess.run(
            command, env=variables, capture_output=True, text=True, check=False, timeout=GIT_SECONDS, errors="replace"
        )
        return done.stdout.strip() if done.returncode == 0 else ""

    try:
        top = git("rev-parse", "--show-toplevel")
        ours = Path(top).resolve() == root and git("ls-files", "--error-unmatch", f"{package.name}/__init__.py")
        return (ours and git("describe", "--always", "--dirty")) or "unknown"
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
