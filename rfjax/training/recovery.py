"""What happens when the loss is not a number any more, or explodes: a run stops there, or leaves out the batch."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from rfjax.config import Recovery
from rfjax.training.logs import write_json

FILE = "recovery.json"


class Diverged(Exception):
    """A loss that is not finite, or exploded.

    Attributes:
        step: of the update (counted from 1) that saw it. loss: what it was.
    """

    def __init__(self, step: int, loss: float, sentence: str = "") -> None:
        super().__init__(sentence or f"the loss is {loss:.4g} at step {step}")
        self.step, self.loss = step, loss


@dataclass(frozen=True)
class Skip:
    """A batch that was left out.

    Attributes:
        step: of the update that saw it. batch: its number, counted from 0. loss: in words, for it may be no number.
        back_to: the step that the run went on from.
    """

    step: int
    batch: int
    loss: str
    back_to: int


def read(folder: Path) -> tuple[Skip, ...]:
    """The batches that a run has left out."""
    path = folder / FILE
    return tuple(Skip(**skip) for skip in json.loads(path.read_bytes())["skipped"]) if path.exists() else ()


def write(folder: Path, skips: tuple[Skip, ...]) -> None:
    """Writes them down, before the run goes on without them."""
    write_json(folder / FILE, {"skipped": [asdict(skip) for skip in skips]})


def give_up(trouble: Diverged, good: str, settings: Recovery, skipped: int) -> str:
    """The sentence on a run that stops. good: what came out well before."""
    advice = "lower config.optimizer.learning_rate"
    if not settings.skips:
        advice += ", or let config.recovery.skips leave out such batches"
    done = f" and {skipped} batch(es) left out" if skipped else ""
    return f"{trouble}, after {good}{done}: {advice}"
