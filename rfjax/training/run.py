"""One run of a study, as its folder knows it."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rfjax.config import Config, differences
from rfjax.errors import UserError


@dataclass(frozen=True)
class Run:
    """One run of a study: its name, its config and its folder."""

    name: str
    config: Config
    folder: Path

    def result(self) -> dict[str, Any] | None:
        """What a complete run has written, or None.

        Raises:
            UserError: if the folder holds a run of another config.
        """
        path = self.folder / "config.json"
        if path.exists() and (found := differences(self.config.to_dict(), json.loads(path.read_bytes()))):
            raise UserError(
                f"{self.folder} holds a run of another config: {'; '.join(found[:3])}; choose another config.workdir"
            )
        path = self.folder / "result.json"
        return json.loads(path.read_bytes()) if path.exists() else None
