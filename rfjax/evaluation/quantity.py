"""What a metric gives: a number with a label and a direction, so that reports need to know no metric by name."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any


@dataclass(frozen=True)
class Quantity:
    """One number of a line of scores, and the keys of what the line says beside it.

    Attributes:
        key: of the number in the line.
        label: what a page calls it.
        better: "higher" or "lower".
        error: key of its standard error over pictures, or "" where the line has none.
        floor: key of the value that as many true pictures have, or "".
        parts: key of a dict of its parts, where it is a fraction of pictures, such as a score by skill, or "".
    """

    key: str
    label: str
    better: str
    error: str = ""
    floor: str = ""
    parts: str = ""

    def __post_init__(self) -> None:
        if not all(isinstance(value, str) for value in asdict(self).values()) or not self.key:
            raise ValueError("a quantity's entries are texts, and its key is not empty")
        if self.better not in ("higher", "lower"):
            raise ValueError(f"a quantity is better when 'higher' or 'lower', not '{self.better}'")

    @property
    def worst(self) -> float:
        """The value of pictures that can't be scored."""
        return float("-inf" if self.better == "higher" else "inf")

    @property
    def form(self) -> str:
        """How a page writes the number: scores with three decimals, distances with three digits."""
        return ".3f" if self.better == "higher" else ".3g"

    def to_plain(self) -> dict[str, str]:
        return asdict(self)

    @classmethod
    def from_plain(cls, values: Mapping[str, Any]) -> "Quantity":
        """The quantity that `to_plain` wrote; keys of later versions are left out.

        Raises:
            TypeError: if a needed entry is missing.
            ValueError: if an entry is no text or no direction.
        """
        return cls(**{field.name: values[field.name] for field in fields(cls) if field.name in values})


STANDARD = (
    Quantity("score", "score", "higher", error="stderr", parts="parts"),
    Quantity("frechet", "Fréchet distance", "lower", error="frechet_stderr", floor="frechet_floor"),
)
