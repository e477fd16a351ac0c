"""`encoding.json` of a folder that the job `encode` wrote: which weights made its latents, text and features."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rfjax.errors import UserError, one_line
from rfjax.untrusted import read_json

NAME = "encoding.json"


@dataclass(frozen=True)
class Encoding:
    """What made a folder of encoded examples.

    Attributes:
        path: of its encoding.json.
        encoders: "autoencoder" or "text" or "features" -> part, such as "t5" -> fingerprint of its weights.
    """

    path: Path
    encoders: Mapping[str, Mapping[str, str]]

    @property
    def fingerprints(self) -> tuple[str, ...]:
        """All of them as texts, in a fixed order."""
        return tuple(
            f"{kind}\0{part}\0{mark}"
            for kind, parts in sorted(self.encoders.items())
            for part, mark in sorted(parts.items())
        )

    def check(self, kind: str, found: Mapping[str, str], key: str) -> None:
        """Refuses other encoders than those that made the folder.

        Args:
            kind: "autoencoder", "text" or "features".
            found: part -> fingerprint of the weights that the config names.
            key: of the config that names them, for the message.

        Raises:
            UserError: if a part has other weights, or was not among them.
        """
        known = self.encoders.get(kind, {})
        if not known:
            return
        for part, mark in found.items():
            if known.get(part) != mark:
                what = "had no such part" if part not in known else f"had others ({known[part]}, and here {mark})"
                raise UserError(
                    f"config.{key} names other weights of {part} than made these encodings: {self.path} {what}; name "
                    "the encoders that made them, or encode the data again"
                )


def read_encoding(root: Path, split: str, counts: Sequence[int]) -> Encoding | None:
    """Reads the index of a folder; None if it has none.

    Args:
        root: the folder.
        split: that is opened.
        counts: rows of each of its shards, as they lie there.

    Raises:
        UserError: if it can't be read, or its shards are not those that lie there.
    """
    path, fix = root / NAME, "repeat the command of the job `encode` that made the folder, or remove the file"
    plain = read_json(path, fix=fix)
    if plain is None:
        return None
    try:
        encoders = {
            str(kind): {one_line(str(part)): one_line(str(mark)) for part, mark in parts.items()}
            for kind, parts in plain["encoders"].items()
        }
        rows = [int(rows) for rows in plain["splits"].get(split, {"rows": counts})["rows"]]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path} is no index of encodings ({type(error).__name__}): {fix}") from error
    if rows != list(counts):
        raise UserError(
            f"{path} lists {len(rows)} shards with {sum(rows):,} rows of '{split}', and {len(counts)} with "
            f"{sum(counts):,} lie there: {fix}"
        )
    return Encoding(path, encoders)
