"""The study's folder: what was asked for, what each sitting cost, and the report at its end."""

import contextlib
import importlib.metadata
import json
import platform
import shlex
import subprocess
import sys
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jax

from rfjax.compiling import Compilations
from rfjax.config import Config, differences
from rfjax.errors import UserError
from rfjax.study import reports
from rfjax.training.logs import write_json

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "diffrax", "numpy", "scipy")


@dataclass
class Sitting:
    """One process's share of a study: when it started, seconds by activity, programs compiled."""

    started: float
    split: dict[str, float] = field(default_factory=dict)
    compilations: Compilations = field(default_factory=Compilations)

    def add(self, split: dict[str, float]) -> None:
        """Adds seconds by activity."""
        for activity, seconds in split.items():
            self.split[activity] = self.split.get(activity, 0.0) + seconds

    def close(self, config: Config) -> str:
        """Writes the report and this sitting's line; returns what the terminal shows."""
        began = time.time()
        drawn = reports.draw(Path(config.workdir))
        self.add({"report": time.time() - began})
        line = {"date": datetime.now(UTC).isoformat(timespec="seconds"), "seconds": time.time() - self.started}
        line |= {"split": self.split, "compilations": self.compilations.record()}
        with (Path(config.workdir) / "sittings.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")
        return reports.summary(drawn, reports.write(drawn))


def prepare_folder(config: Config, names: list[str]) -> None:
    """Makes the study's folder and its `study.json`.

    Raises:
        UserError: if it can't be written, or holds a study of another config.
    """
    folder = Path(config.workdir)
    path = folder / "study.json"
    try:
        (folder / "runs").mkdir(parents=True, exist_ok=True)
        known = json.loads(path.read_text()) if path.exists() else None
        if known and (found := differences(config.to_dict(), known["config"])):
            raise UserError(
                f"{folder} holds another study: {'; '.join(found[:3])}; choose another folder with --config.workdir"
            )
        if jax.process_index() == 0:
            for name in names:
                (folder / "runs" / name).mkdir(exist_ok=True)
            write_json(path, {"config": config.to_dict(), "runs": names, **facts()})
    except OSError as error:
        raise UserError(f"the work folder {folder} can't be written ({error.strerror}): set config.workdir") from error


def facts() -> dict[str, Any]:
    """What else a result depends on: command, commit, versions, machine."""
    git = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    with contextlib.suppress(OSError):
        commit = subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip()
    return {
        "command": f"python -m rfjax.main {shlex.join(sys.argv[1:])}",
        "commit": commit or "unknown",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
        "devices": f"{jax.device_count()} x {jax.devices()[0].device_kind}",
        "machine": f"{platform.system()} {platform.machine()}",
    }
