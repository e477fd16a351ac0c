"""What a metric measures: the key of a number in the lines of metrics, its label, and which way is better."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Quantity:
    """A number that reports show.

    Attributes:
        key: of the number in a line of scores.
        label: what reports call it.
        better: "higher" or "lower".
        error: key of its standard error; "": it has none.
        floor: key of its value for true pictures; "": it has none.
        parts: key of its values by part, name -> value; "": it has none.
    """

    key: str
    label: str
    better: str
    error: str = ""
    floor: str = ""
    parts: str = ""

    def to_dict(self) -> dict[str, str]:
        """Plain values, ready for JSON."""
        return asdict(self)


def from_dict(plain: Mapping[str, Any]) -> Quantity:
    """The inverse of `Quantity.to_dict`; raises TypeError for other keys."""
    return Quantity(**plain)


SCORE = Quantity("score", "score", "higher", error="stderr", parts="parts")
FRECHET = Quantity("frechet", "Fréchet distance", "lower", error="frechet_stderr", floor="frechet_floor")
STANDARD = (SCORE, FRECHET)  # of folders that do not say what their quantities are
