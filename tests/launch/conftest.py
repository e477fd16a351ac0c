"""The launch scripts among fake programs, so that nothing is really started, queued or paid for."""

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

LAUNCH = Path(__file__).parents[2] / "launch"
FORBIDDEN = ("gcloud", "sbatch", "srun", "scontrol", "scancel", "xpk", "kubectl", "nvidia-smi")

# A Python that knows the names of three runs; --config.bad stands for what rfjax refuses.
PYTHON = """
if [[ $1 == -c ]]; then
  [[ " $* " != *" --config.bad="* ]] || { echo "rfjax: bad" >&2; exit 2; }
  echo d1,d2,d3
  exit
fi
"""


@dataclass
class Fakes:
    """A folder of fake programs that comes first in PATH; each writes its words to a log, then does what it is told."""

    folder: Path

    def program(self, name: str, body: str = "") -> Path:
        """Makes a program; in its body, $HOME is the test's own folder."""
        file = self.folder / "bin" / name
        log = f"printf '%s\\0' {name} \"$@\" $'\\x1e' >>\"$HOME/log\""  # one write, for others write too
        file.write_text(f"#!/usr/bin/env bash\nset -u\n{log}\n{body}\n")
        file.chmod(0o755)
        return file

    def python(self, body: str = "exit 0") -> None:
        """Makes the Python that the scripts run; `body` is what rfjax.main does. Its look-ups are not logged."""
        self.program("python", body)
        file = self.folder / "bin" / "python"
        head, rest = file.read_text().split("set -u\n")
        file.write_text(f"{head}set -u\n{PYTHON}{rest}")

    def calls(self) -> list[list[str]]:
        """The words of every call of a fake program, in order."""
        log = self.folder / "log"
        lines = log.read_text().split("\x1e\0")[:-1] if log.exists() else []
        return [line.split("\0")[:-1] for line in lines]

    def environ(self, **settings: str) -> dict[str, str]:
        path = f"{self.folder / 'bin'}:{os.environ['PATH']}"
        python = str(self.folder / "bin" / "python")
        return {"PATH": path, "HOME": str(self.folder), "PYTHON": python, "PAUSE": "0"} | settings

    def run(self, script: str, *words: str, **settings: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            [LAUNCH / script, *words], env=self.environ(**settings), cwd=self.folder,
            capture_output=True, text=True, check=False, timeout=30,
        )  # fmt: skip

    def start(self, script: str, *words: str, **settings: str) -> subprocess.Popen:
        return subprocess.Popen([LAUNCH / script, *words], env=self.environ(**settings), cwd=self.folder)


@pytest.fixture
def fakes(tmp_path: Path) -> Fakes:
    (tmp_path / "bin").mkdir()
    made = Fakes(tmp_path)
    made.python()
    for name in FORBIDDEN:
        made.program(name, "exit 99")
    return made
