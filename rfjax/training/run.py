"""One run of a study, as its folder knows it. Imports no JAX."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from rfjax.buckets import mirror
from rfjax.config import Config, differences
from rfjax.errors import UserError
from rfjax.jsonl import number, write_json
from rfjax.untrusted import Unreadable, read_json

CONFIG, RESULT = "config.json", "result.json"
AGAIN = "the same command makes it again"


class Result(NamedTuple):
    """What a run wrote at its end.

    Attributes:
        found: the content of `result.json`, or None where there is none that counts.
        trouble: why it does not, or "".
    """

    found: dict[str, Any] | None
    trouble: str = ""


def read_result(folder: Path) -> Result:
    """A run's result; one that can't be read, or whose validation loss is not finite, does not make it complete."""
    path = folder / RESULT
    try:
        found = read_json(path, fix=AGAIN)
        if found is None:
            return Result(None)
        if "status" not in found:
            return Result(None, f"{path} is not what a run writes (it has no 'status'): {AGAIN}")
        losses = {weights: number(measured["loss"]) for weights, measured in found.get("validation", {}).items()}
    except Unreadable as error:
        return Result(None, str(error))
    except (AttributeError, KeyError, TypeError, ValueError):
        return Result(None, f"{path} is not what a run writes (its 'validation' can't be read): {AGAIN}")
    bad = not_finite(losses, found.get("step"))
    return Result(None if bad else found, bad)


def not_finite(losses: dict[str, float], step: Any) -> str:
    """The sentence on validation losses (kind of weights -> loss) that are not finite; "" where all are."""
    said = lambda loss: "NaN" if math.isnan(loss) else f"{loss:g}"  # noqa: E731
    bad = [f"{said(loss)} with {weights} weights" for weights, loss in losses.items() if not math.isfinite(loss)]
    return f"the validation loss is not finite ({', '.join(bad)} at step {step})" if bad else ""


@dataclass(frozen=True)
class Run:
    """One run of a study: its name, its config and its folder.

    Attributes:
        trunk: the folder of the run that it branches off; None: it begins by itself.
        kept: steps at which it keeps a checkpoint, for its branches.
    """

    name: str
    config: Config
    folder: Path
    trunk: Path | None = None
    kept: tuple[int, ...] = ()

    @property
    def first(self) -> int:
        """The step that it begins from: that at which its decay starts if it is a branch, else 0.

        All that a run does before its decay is the same for any number of steps, so a branch is, bit for bit, the run
        that trains all its steps by itself, where both compile alike (`compiling.worth_full_opt`).
        """
        return self.config.optimizer.decay_start(self.config.training.steps) if self.trunk else 0

    def complete(self) -> bool:
        """Whether the run has its result.

        Raises:
            UserError: if the folder holds a run of another config.
        """
        known, _ = self._known()
        if known is not None and (found := differences(self.config.to_dict(), known)):
            raise UserError(
                f"{self.folder} holds a run of another config: {'; '.join(found[:3])}; choose another config.workdir"
            )
        return read_result(self.folder).found is not None

    def _known(self) -> tuple[dict[str, Any] | None, str]:
        """The config in its folder, or None and why it can't be read, if it is there."""
        try:
            return read_json(self.folder / CONFIG, fix="it is written again from this study's config"), ""
        except Unreadable as error:
            return None, str(error)

    def troubles(self) -> list[str]:
        """Sentences on files of the folder that can't be read, and that are made again."""
        return [sentence for sentence in (read_result(self.folder).trouble, self._known()[1]) if sentence]

    def write_config(self) -> None:
        written = self.config.to_dict()
        write_json(self.folder / CONFIG, written | {"workdir": mirror.named(written["workdir"])})

    def restore_config(self) -> None:
        """Writes the config of a complete run again if it is missing; training does so for the others."""
        if self._known()[0] is None and read_result(self.folder).found:
            self.write_config()
