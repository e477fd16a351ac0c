"""GenEval (Ghosh et al. 2023, arXiv 2310.11513): 553 prompts in six tasks, four pictures each, judged by a detector.

Prompts: `evaluation_metadata.jsonl`. Layout: `00000/metadata.jsonl`, which is the prompt's line alone, and
`00000/samples/0000.png`. Results: `results.jsonl`, one line a picture. The overall score is the mean of the six tasks'
shares of right pictures.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from rfjax.data.wording import RELATIONS
from rfjax.errors import UserError, one_line
from rfjax.evaluation.suites import Answer, Files, Prompt, Results, Suite, reading
from rfjax.evaluation.suites.rules import Box, shows
from rfjax.untrusted import Unreadable, parse_json

TASKS = ("single_object", "two_object", "counting", "colors", "position", "color_attr")
PROMPTS, RESULTS = "evaluation_metadata.jsonl", "results.jsonl"
DIGITS = 9  # that a number in a picture's path has at most
DEPTH = 8  # levels of a line of metadata


def read(path: Path) -> tuple[Prompt, ...]:
    """The prompts of a file, or of the folder of the official repository.

    Raises:
        UserError: if there is none, or it is of another version.
    """
    file = reading.found(path, PROMPTS, f"prompts/{PROMPTS}")
    rows = enumerate(reading.objects(file))
    return tuple(Prompt(n, *_checked(line, where)) for n, (where, line) in rows)


def _checked(line: dict[str, Any], where: str) -> tuple[str, str, dict[str, Any]]:
    """(text, task, line) of a line of the metadata."""
    if "vqa_list" in line:
        raise UserError(f"{where} is of GenEval 2, which another scorer judges: {reading.FIX} of GenEval")
    text = reading.prompt(line.get("prompt"), where)
    if line.get("tag") not in TASKS:
        raise UserError(f"{where} has the tag {line.get('tag')!r}, not one of {', '.join(TASKS)}: {reading.FIX}")
    check(line, where)
    return text, line["tag"], line


def check(line: Mapping[str, Any], where: str) -> None:
    """Checks what a line of the metadata asks for.

    Raises:
        UserError: if it is of another form than GenEval's.
    """
    include, exclude = line.get("include"), line.get("exclude", [])
    whole = isinstance(include, list) and isinstance(exclude, list) and bool(include)
    whole = whole and all(_is_clause(one, n) for n, one in enumerate(include))
    if not whole or not all(_is_clause(one, 0) for one in exclude):
        raise UserError(f"{where}: 'include' or 'exclude' is not of GenEval's form: {reading.FIX}")


def _is_clause(one: Any, number: int) -> bool:
    """Whether a clause has a class, a count, and at most a colour and a relation to one of `number` clauses before."""
    if not isinstance(one, dict) or not isinstance(one.get("class"), str) or type(one.get("count")) is not int:
        return False
    place = one.get("position", [RELATIONS[0], 0])
    if not isinstance(place, list) or len(place) != 2:
        return False
    before = "position" not in one or (type(place[1]) is int and 0 <= place[1] < number)
    return one["count"] > 0 and isinstance(one.get("color", ""), str) and place[0] in RELATIONS and before


def place(prompts: Sequence[Prompt], count: int) -> tuple[Files, ...]:
    """A folder for each prompt."""
    return tuple(
        Files(
            tuple(f"{one.number:05}/samples/{number:04}.png" for number in range(count)),
            beside=(f"{one.number:05}/metadata.jsonl", json.dumps(one.line)),
        )
        for one in prompts
    )


def find(folder: Path) -> Path | None:
    """results.jsonl in the work folder, or in that of the pictures."""
    return next((path for path in (folder / RESULTS, folder / "images" / RESULTS) if path.exists()), None)


def results(path: Path, prompts: Sequence[Prompt], count: int) -> Results:
    """What the official scorer says of each picture.

    Raises:
        UserError: if the file is of other prompts, or of another version.
    """
    file = reading.found(path, RESULTS)
    seen: dict[tuple[int, int], bool] = {}
    unlike = compared = 0
    for where, row in reading.objects(file, reading.SCORED):
        number, sample, right = _row(row, where)
        if number >= len(prompts) or (row["prompt"], row["tag"]) != (prompts[number].text, prompts[number].skill):
            here = f"'{one_line(prompts[number].text)}'" if number < len(prompts) else "none"
            raise UserError(
                f"{where} is of the prompt '{one_line(str(row['prompt']))}', and prompt {number:05} here is {here}: "
                "name the results of these prompts in config.suite.results"
            )
        if sample >= count or (number, sample) in seen:
            what = "is there twice" if (number, sample) in seen else f"is one more than the {count} of a prompt here"
            raise UserError(f"{where}: picture {number:05}/{sample:04} {what}: score a folder that holds these alone")
        seen[number, sample] = right
        if (again := _again(row, where)) is not None:
            compared, unlike = compared + 1, unlike + (again != right)
    notes = []
    if unlike:
        notes.append(
            f"{unlike:,} of {compared:,} pictures are judged otherwise than GenEval's rules judge their boxes: the "
            "scorer that wrote the file is not the official one, or is another version of it."
        )
    answers = tuple(Answer(number, float(right)) for (number, _), right in sorted(seen.items()))
    return Results(answers, notes=tuple(notes))


def _row(row: Mapping[str, Any], where: str) -> tuple[int, int, bool]:
    """(prompt, picture, whether it is right) of a line of results."""
    missing = [name for name in ("filename", "tag", "prompt", "correct", "metadata") if name not in row]
    if missing or type(row["correct"]) is not bool or not isinstance(row["filename"], str):
        said = f"lacks {', '.join(missing)}" if missing else "has a 'correct' or a 'filename' of another type"
        raise UserError(f"{where} {said}: it is not what GenEval's evaluate_images.py writes")
    path = PurePosixPath(row["filename"].replace("\\", "/"))
    named = (path.parent.parent.name, path.stem)
    if not all(name.isascii() and name.isdecimal() and len(name) <= DIGITS for name in named):
        name = one_line(row["filename"])
        raise UserError(f"{where}: '{name}' is no picture of GenEval's layout, 00000/samples/0000.png")
    return int(named[0]), int(named[1]), row["correct"]


def _again(row: Mapping[str, Any], where: str) -> bool | None:
    """What the rules say of the boxes of a line; None if it asks for colours, or has no boxes in the official form."""
    try:
        wanted, details = (parse_json(row[name], where, depth=DEPTH) for name in ("metadata", "details"))
        check(wanted, where)
        boxes = {name: [_box(box) for box in rows] for name, rows in details.items()}
    except (Unreadable, UserError, KeyError, TypeError, ValueError, AttributeError):
        return None
    return None if any("color" in one for one in wanted["include"]) else shows(wanted, boxes)


def _box(numbers: Any) -> Box:
    x1, y1, x2, y2, _ = map(float, numbers)  # the last is its score, by which the boxes are sorted
    return Box(x1, y1, x2, y2)


SUITE = Suite(
    title="GenEval",
    source="Ghosh et al. 2023, arXiv 2310.11513",
    asks="GenEval's evaluation_metadata.jsonl",
    prompts=553,
    per_prompt=4,
    scoring=(
        "run GenEval's evaluation/evaluate_images.py on the folder `images`, and put its results.jsonl into the work "
        "folder"
    ),
    read=read,
    files=place,
    find=find,
    results=results,
)
