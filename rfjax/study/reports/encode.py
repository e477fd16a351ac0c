"""The report of the job `encode`: storage and cost of each encoder, beside the paper's Table 7."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import matplotlib.pyplot as plt

from rfjax.data.encoding import NAME
from rfjax.study.encode_shards import RESULT, SHARDS
from rfjax.study.records import Records
from rfjax.study.reports import compare
from rfjax.study.reports.drawing import Figures
from rfjax.study.reports.page import Report
from rfjax.study.reports.widgets import NONE, Tables, escape, headline, section
from rfjax.untrusted import Unreadable, read_json

# SD3's Table 7: memory of the weights in GB, forward pass in ms an example at batch 32, storage in kB an example.
TABLE_7 = {
    "VAE (encoder)": (0.14, 2.45, 65.5),
    "CLIP-L": (0.49, 0.45, 121.3),
    "CLIP-G": (2.78, 2.77, 202.2),
    "T5": (19.05, 17.46, 630.7),
}
FILES = {  # the kinds of files that each encoder writes
    "autoencoder": ("latents", "moments", "images", "flipped"),
    "text": ("context", "pooled"),
    "features": ("features",),
}
TITLES = {"autoencoder": "pictures", "text": "text", "features": "vision features"}


@dataclass(frozen=True)
class Cost:
    """What one kind of encoder cost.

    Attributes:
        kind: "autoencoder", "text" or "features".
        memory: bytes of its weights on the devices together.
        milliseconds: an example, the devices of one job together.
        bytes: an example, in the files.
    """

    kind: str
    memory: int
    milliseconds: float
    bytes: float


@dataclass(frozen=True)
class Findings:
    """All that the report says.

    Attributes:
        rows: examples by split.
        counts: "skipped" examples, "synthetic" captions, and captions that were "cut".
        size: bytes of all files.
        costs: of each kind of encoder.
        seconds: by activity, over all shards.
        encoders: kind -> part -> fingerprint, of the index; empty until all shards are there.
    """

    rows: Mapping[str, int]
    counts: Mapping[str, int]
    size: int
    costs: tuple[Cost, ...]
    seconds: Mapping[str, float]
    encoders: Mapping[str, Mapping[str, str]]
    warnings: tuple[str, ...]

    @property
    def examples(self) -> int:
        """Of all splits."""
        return sum(self.rows.values())


def analyse(study: Records) -> Findings:
    """Adds up the records of the shards."""
    rows, seconds, sizes, memory = Counter(), Counter(), Counter(), Counter()
    counts, reasons, unread = Counter(), [], 0
    for folder in sorted((study.folder / SHARDS).glob("*/")):
        try:
            record = read_json(folder / RESULT)
            if record is None:
                continue
            rows[folder.name.rpartition("_")[0]] += int(record["rows"])
            seconds.update({str(key): float(value) for key, value in record["seconds"].items()})
            sizes.update({str(key): int(value) for key, value in record["sizes"].items()})
            memory |= Counter({str(key): int(value) for key, value in record["memory"].items()})
            counts.update({key: int(record[key]) for key in ("skipped", "synthetic", "cut")})
            reasons += [str(reason) for reason in record["reasons"]]
        except (Unreadable, AttributeError, KeyError, TypeError, ValueError):
            unread += 1
    index = read_json(study.folder / NAME)
    count = sum(rows.values()) or 1
    costs = [
        Cost(kind, memory[kind], 1000 * seconds[kind] / count, sum(sizes[file] for file in files) / count)
        for kind, files in FILES.items()
        if kind in seconds
    ]
    warnings = study.states()
    if not index:
        warnings.append("Not all shards are encoded yet: the same command goes on.")
    if unread:
        warnings.append(f"{unread} records of shards can't be read.")
    if left_out := counts["skipped"]:
        warnings.append(f"{left_out:,} examples are left out: {'; '.join(reasons[:3]) or 'their encodings overflow'}.")
    if counts["cut"]:
        warnings.append(f"{counts['cut']:,} captions were too long for a text encoder and are cut.")
    encoders = index["encoders"] if index else {}
    return Findings(dict(rows), dict(counts), sizes.total(), tuple(costs), dict(seconds), encoders, tuple(warnings))


def to_json(found: Findings) -> dict[str, Any]:
    """The findings as plain JSON."""
    return {
        "rows": found.rows,
        **found.counts,
        "bytes": found.size,
        "seconds": found.seconds,
        "encoders": found.encoders,
        "costs": [vars(cost) for cost in found.costs],
        "warnings": found.warnings,
    }


def tables(study: Records, found: Findings) -> Tables:
    """encode.csv: the costs."""
    header = ("encoder", "memory_bytes", "milliseconds_per_example", "bytes_per_example")
    return {"encode": (header, [(cost.kind, cost.memory, cost.milliseconds, cost.bytes) for cost in found.costs])}


def figures(study: Records, found: Findings) -> Figures:
    """Where the time went."""
    if not found.seconds:
        return {}
    figure, axes = plt.subplots(figsize=(6.4, 0.5 + 0.4 * len(found.seconds)))
    parts = sorted(found.seconds.items(), key=lambda part: part[1])
    axes.barh([TITLES.get(name, name) for name, _ in parts], [1000 * s / max(found.examples, 1) for _, s in parts])
    axes.set(xlabel="milliseconds an example")
    return {"time": ("Where the time goes", figure)}


def subtitle(study: Records) -> str:
    """What was encoded."""
    return f"Stored encodings of {compare.dataset_name(study.config)} (SD3, App. E and Table 7)"


def opening(study: Records, found: Findings) -> str:
    """How much was encoded, and what it takes."""
    if not found.examples:
        return headline(["Nothing is encoded yet."], 0)
    by_split = ", ".join(f"{count:,} of {split}" for split, count in found.rows.items())
    each = f"{found.size / found.examples / 1000:,.1f} kB an example"
    return headline([f"{found.examples:,} examples ({by_split}): {found.size / 1e6:,.1f} MB, {each}."], 0)


def sections(study: Records, found: Findings) -> list[str]:
    """The table beside the paper's, and the weights."""
    paper = {"autoencoder": TABLE_7["VAE (encoder)"]}
    paper["text"] = tuple(sum(row[i] for name, row in TABLE_7.items() if "VAE" not in name) for i in range(3))
    rows = []
    for cost in found.costs:
        own = [f"{cost.memory / 1e9:.3f}", f"{cost.milliseconds:.2f}", f"{cost.bytes / 1000:,.1f}"]
        theirs = [f"{value:,.2f}" for value in paper[cost.kind]] if cost.kind in paper else [NONE] * 3
        rows.append([escape(TITLES[cost.kind]), *own, *theirs])
    header = ["encoder", *["GB", "ms", "kB"] * 2]
    said = (
        "Memory is that of the weights. The paper's are SD3's own encoders at batch 32 (CLIP L, CLIP G and T5 together "
        "for text): compare storage, and time only on a like machine. Text is stored here as the network reads it, so "
        "CLIP's channels are padded to T5's width; the paper's 954 kB leave the zeros out."
    )
    marks = [
        [escape(kind), escape(str(part)), f"<code>{escape(str(mark))}</code>"]
        for kind, own in found.encoders.items()
        for part, mark in own.items()
    ]
    groups = [("", 1), ("here, an example", 3), ("the paper, an example", 3)]
    return [
        section("Cost and storage", header, rows, said, groups=groups),
        section("Weights that encoded", ["encoder", "part", "fingerprint"], marks),
    ]


def lines(study: Records, found: Findings) -> list[str]:
    """What the terminal shows at the end."""
    said = [f"{found.examples:,} examples are encoded, {found.size / 1e6:,.1f} MB"]
    for cost in found.costs:
        said.append(
            f"{TITLES[cost.kind]:>16}: {cost.milliseconds:8.2f} ms and {cost.bytes / 1000:9,.1f} kB an example, "
            f"{cost.memory / 1e9:.3f} GB of weights"
        )
    return said


REPORT = Report("encode.json", analyse, to_json, tables, figures, subtitle, opening, sections, lines)
