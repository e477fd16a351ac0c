"""What the report of a prompt suite finds: its scores by skill with their intervals, and what is missing."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from rfjax.analysis.binomial import share_interval
from rfjax.analysis.clusters import mean_of_means
from rfjax.analysis.multipliers import Estimate
from rfjax.config.paths import expanded
from rfjax.errors import UserError
from rfjax.evaluation.suites import Prompt, Results, Suite, find_suite
from rfjax.study import suite_files
from rfjax.study.records import Records
from rfjax.study.reports import suites_paper

GENEVAL = "geneval"


@dataclass(frozen=True)
class Row:
    """The score of one skill, as a share of 1.

    Attributes:
        pictures: how many were judged.
        prompts: of how many prompts; 0: not known.
        clustered: the mean, with its interval over prompts.
        wilson: Wilson's interval, which takes pictures for independent; None where a picture is no right or wrong.
    """

    skill: str
    pictures: int
    prompts: int
    clustered: Estimate
    wilson: tuple[float, float] | None


@dataclass(frozen=True)
class Findings:
    """All that the report says.

    Attributes:
        suite: the suite.
        name: as the config names it.
        about: what suite.json says of the pictures.
        prompts: how many there are.
        pictures: how many there should be.
        missing: how many files of pictures are not there.
        side: width of a picture in pixels; None if there is none.
        path: the official results; None if there are none yet.
        rows: the scores by skill.
        given: those by category that the scorer gives itself.
        overall: the score, with its interval over prompts; None without results.
        right_prompts: prompts with at least one right picture, GenEval's second number; None elsewhere.
        differences: from the protocol of the paper beside it, in sentences.
    """

    suite: Suite
    name: str
    about: Mapping[str, Any]
    prompts: int
    pictures: int
    missing: int
    side: int | None
    path: Path | None
    rows: tuple[Row, ...]
    given: tuple[Row, ...]
    overall: Estimate | None
    right_prompts: float | None
    differences: tuple[str, ...]
    warnings: tuple[str, ...]


def analyse(study: Records) -> Findings:
    """Reads what was drawn and what the official scorer says of it.

    Raises:
        UserError: if the folder has no prompts of a suite.
    """
    root, config = study.folder, study.config["suite"]
    prompts, about = suite_files.read_prompts(root), suite_files.read_about(root)
    if not prompts:
        raise UserError(f"{root} has no {suite_files.PROMPTS}: run the job 'suite' first")
    suite = find_suite(config["name"])
    count = suite.count(config["per_prompt"])
    placed = suite.files(prompts, count)
    missing, files = suite_files.missing(root, placed), sum(len(one.pictures) for one in placed)
    warnings, path, results = study.states(), None, Results(())
    try:
        path = _path(suite, root, config["results"])
        if path and suite.results:
            results = suite.results(path, prompts, count)
    except UserError as error:
        path, warnings = None, [*warnings, f"The official results can't be used: {error}."]
    about_drawn = missing < files
    if missing and about_drawn:
        warnings.append(f"{missing:,} of {files:,} files of pictures are missing: the same command draws them.")
    lack = len(prompts) * count - len(results.answers)
    if results.answers and lack and "No scorer" not in " ".join(results.notes):
        warnings.append(f"{lack:,} of {len(prompts) * count:,} pictures have no answer in {path}.")
    warnings += [*results.notes, *suite.warnings(prompts)]
    side = _side(root, placed) if about_drawn else None
    side = side // placed[0].columns if side and placed[0].columns else side
    geneval = config["name"] == GENEVAL
    return Findings(
        suite=suite,
        name=config["name"],
        about=about,
        prompts=len(prompts),
        pictures=len(prompts) * count,
        missing=missing,
        side=side,
        path=path,
        rows=tuple(_rows(suite, prompts, results)),
        given=tuple(_given(results)),
        overall=_overall(suite, prompts, results),
        right_prompts=_right_prompts(results) if geneval and results.answers else None,
        differences=tuple(suites_paper.differences(about, side)) if geneval else (),
        warnings=tuple(warnings),
    )


def _path(suite: Suite, root: Path, asked: str) -> Path | None:
    return expanded(asked, "config.suite.results") if asked else suite.find(root)


def _side(root: Path, placed: Any) -> int | None:
    """The width of the first picture that can be read."""
    for one in placed:
        for path in one.pictures:
            try:
                with Image.open(root / suite_files.IMAGES / path) as picture:
                    return picture.width
            except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):  # Pillow raises all of these
                continue
    return None


def grouped(prompts: tuple[Prompt, ...], results: Results) -> dict[str, dict[int, list[float]]]:
    """Skill -> prompt -> the values of its pictures."""
    found: dict[str, dict[int, list[float]]] = {}
    for number, value in results.answers:
        found.setdefault(prompts[number].skill, {}).setdefault(number, []).append(value)
    return found


def _rows(suite: Suite, prompts: tuple[Prompt, ...], results: Results) -> list[Row]:
    rows = []
    for skill, by_prompt in grouped(prompts, results).items():
        if not skill:
            continue  # a suite without skills has an overall score alone
        values = [value for own in by_prompt.values() for value in own]
        clustered = mean_of_means([list(by_prompt.values())])
        wilson = share_interval(clustered.value, len(values)) if suite.judged == "right or wrong" else None
        rows.append(Row(skill, len(values), len(by_prompt), clustered, wilson))
    return rows


def _given(results: Results) -> list[Row]:
    return [
        Row(
            one.skill, one.count, 0, Estimate(one.value, None, None),
            share_interval(one.value, one.count) if one.count else None,
        )
        for one in results.given
    ]  # fmt: skip


def _overall(suite: Suite, prompts: tuple[Prompt, ...], results: Results) -> Estimate | None:
    groups = grouped(prompts, results)
    if not groups:
        return None
    if suite.by_skill:
        return mean_of_means([list(own.values()) for own in groups.values()])
    return mean_of_means([[values for own in groups.values() for values in own.values()]])


def _right_prompts(results: Results) -> float:
    best: dict[int, float] = {}
    for number, value in results.answers:
        best[number] = max(best.get(number, 0.0), value)
    return sum(best.values()) / len(best)


def to_json(found: Findings) -> dict[str, Any]:
    """The findings as plain JSON."""

    def plain(row: Row) -> dict[str, Any]:
        spans = {"by_prompt": list(row.clustered[1:]), "wilson": list(row.wilson) if row.wilson else None}
        return {"score": row.clustered.value, "pictures": row.pictures, "prompts": row.prompts} | spans

    return {
        "suite": found.suite.title,
        "protocol": dict(found.about),
        "prompts": found.prompts,
        "pictures": found.pictures,
        "missing": found.missing,
        "results": str(found.path) if found.path else None,
        "skills": {row.skill: plain(row) for row in found.rows},
        "given": {row.skill: plain(row) for row in found.given},
        "overall": found.overall and dict(zip(("score", "low", "high"), found.overall, strict=True)),
        "right_prompts": found.right_prompts,
        "differences": list(found.differences),
        "warnings": list(found.warnings),
    }
