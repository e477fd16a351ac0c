"""Recovery from a loss that is not finite or explodes: the run stops there, or leaves out the batch."""

from dataclasses import asdict, dataclass
from pathlib import Path

from rfjax.config import Recovery
from rfjax.errors import UserError
from rfjax.jsonl import write_json
from rfjax.untrusted import read_json

FILE = "recovery.json"


class Diverged(Exception):
    """A loss that is not finite, or exploded.

    Attributes:
        step: of the update (counted from 1) that saw it.
    """

    def __init__(self, step: int, loss: float, sentence: str = "") -> None:
        super().__init__(sentence or f"the loss is {loss:.4g} at step {step}")
        self.step, self.loss = step, loss


@dataclass(frozen=True)
class Skip:
    """A batch that was left out.

    Attributes:
        step: of the update that saw it.
        batch: its number, counted from 0.
        loss: as text, because it may be no number.
        back_to: the step that the run went on from.
    """

    step: int
    batch: int
    loss: str
    back_to: int


def read(folder: Path) -> tuple[Skip, ...]:
    """The batches that a run has left out.

    Raises:
        UserError: if the file can't be read: nothing else says so, and a run that goes on without it would see other
            batches.
    """
    path = folder / FILE
    fix = "put back the file as it was, or move the run's folder away to train it anew"
    found = read_json(path, fix=f"it says which batches the run has left out, and without it others would come: {fix}")
    if found is None:
        return ()
    try:
        skips = tuple(Skip(**skip) for skip in found["skipped"])
    except (KeyError, TypeError):
        skips = None
    counts = [number for skip in skips or () for number in (skip.step, skip.batch, skip.back_to)]
    texts = [skip.loss for skip in skips or ()]
    sound = all(type(n) is int and n >= 0 for n in counts) and all(isinstance(text, str) for text in texts)
    if skips is None or not sound:
        raise UserError(f"{path} does not say as it should which batches the run has left out: {fix}")
    return skips


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
