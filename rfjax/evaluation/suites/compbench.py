"""T2I-CompBench++ (Huang et al. 2023 and 2025, arXiv 2307.06350): eight categories of 300 prompts, ten pictures each.

Prompts: a folder of `<category>_val.txt`, a prompt a line, up to its first tab. Layout: for each category a folder
`samples` of `<prompt>_<index>.png`, where index is ten times the prompt's place in its file plus the picture's number.
The scorers take the prompt from the name, up to the first "_". Results: `annotation_*/vqa_result.json` below each
category's folder, a share of 1 for each picture. There is no official overall score; ours is the mean over categories.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rfjax.errors import UserError
from rfjax.evaluation.suites import Answer, Files, Prompt, Results, Suite, reading

# Category -> the file of its scorer, and whether that numbers the pictures as it finds them, not by their own index.
CATEGORIES = {
    "color": ("annotation_blip", True),
    "shape": ("annotation_blip", True),
    "texture": ("annotation_blip", True),
    "spatial": ("labels/annotation_obj_detection_2d", False),
    "3d_spatial": ("labels/annotation_obj_detection_3d", False),
    "numeracy": ("annotation_num", False),
    "non_spatial": ("annotation_clip", True),
    "complex": ("annotation_3_in_1", True),
}
ANSWERS = "vqa_result.json"
LONGEST_NAME = 255  # bytes of a file's name, on nearly all file systems
SLASH, INSTEAD = "/", "\u2215"  # the division slash looks alike, and may be in a name


def read(path: Path) -> tuple[Prompt, ...]:
    """The prompts of the categories whose files are in a folder.

    Raises:
        UserError: if there are none, or a line holds no prompt.
    """
    there = [category for category in CATEGORIES if (path / f"{category}_val.txt").exists()]
    if not there:
        raise UserError(f"{path} has no file such as color_val.txt: name the folder examples/dataset of T2I-CompBench")
    found = []
    for category in there:
        file = path / f"{category}_val.txt"
        for number, row in enumerate(reading.lines(file)):
            text = reading.prompt(row.split("\t")[0], f"{file}, line {number + 1}")
            found.append(Prompt(len(found), text, category, {"place": number}))
    return tuple(found)


def place(prompts: Sequence[Prompt], count: int) -> tuple[Files, ...]:
    """A folder `samples` for each category, with the prompts as names."""
    return tuple(
        Files(tuple(f"{one.skill}/samples/{file_name(one.text, count * _place(one) + j)}" for j in range(count)))
        for one in prompts
    )


def _place(one: Prompt) -> int:
    return one.line["place"]


def file_name(text: str, index: int) -> str:
    """The name of a picture: the prompt, without what no name can hold, and its index."""
    end = f"_{index:06}.png"
    head = text.replace(SLASH, INSTEAD).encode()[: LONGEST_NAME - len(end)]
    return head.decode(errors="ignore") + end


def warnings(prompts: Sequence[Prompt]) -> list[str]:
    """What the official scripts make of prompts that a file's name can't hold, or that hold a "_"."""
    long = [one for one in prompts if file_name(one.text, 0).removesuffix("_000000.png") != _as_name(one.text)]
    found = {
        "hold a '/', at which the official generation stops; here their names have U+2215 in its place, and that is "
        "what the scorers read": [one for one in prompts if SLASH in one.text],
        "are longer than a file's name may be, at which the official generation stops; here their names are cut, and "
        "the scorers read no more than that": long,
        "hold a '_', and the scorers read them only up to it": [one for one in prompts if "_" in one.text],
    }
    return [
        f"{len(rows)} of {len(prompts):,} prompts {what}; the first is {rows[0].skill}_val.txt, line "
        f"{_place(rows[0]) + 1}."
        for what, rows in found.items()
        if rows
    ]


def _as_name(text: str) -> str:
    return text.replace(SLASH, INSTEAD)


def find(folder: Path) -> Path | None:
    """The folder of the pictures, if a scorer has written below it."""
    images = folder / "images"
    there = any((images / name / file / ANSWERS).exists() for name, (file, _) in CATEGORIES.items())
    return images if there else None


def results(path: Path, prompts: Sequence[Prompt], count: int) -> Results:
    """What the scorers say of each picture of the categories that they have judged.

    Raises:
        UserError: if no category is judged, or a file does not fit the pictures.
    """
    answers: list[Answer] = []
    missing = []
    for category in dict.fromkeys(one.skill for one in prompts):
        folder, running = CATEGORIES[category]
        file = path / category / folder / ANSWERS
        if not file.exists():
            missing.append(category)
            continue
        own = [one for one in prompts if one.skill == category]
        found = _values(file, len(own) * count)
        if running and len(found) < len(own) * count:
            raise UserError(
                f"{file} has {len(found):,} answers for {len(own) * count:,} pictures: this scorer numbers what it "
                "finds, so it can't be told which are missing; score all pictures"
            )
        answers += [Answer(own[index // count].number, value) for index, value in sorted(found.items())]
    if not answers:
        raise UserError(f"{path} has no result such as color/annotation_blip/{ANSWERS}: run the scorers first")
    said = [f"No scorer has judged {', '.join(missing)}: the mean is over the other categories."] if missing else []
    return Results(tuple(answers), notes=tuple(said))


def _values(file: Path, pictures: int) -> dict[int, float]:
    """Index of a picture -> its answer."""
    found: dict[int, float] = {}
    for row in reading.list_of_objects(file, reading.SCORED):
        index, value = row.get("question_id"), _number(row.get("answer"))
        if type(index) is not int or index < 0 or value is None:
            raise UserError(f"{file} has an answer without 'question_id' or 'answer': it is of another version")
        if index >= pictures or index in found:
            raise UserError(
                f"{file}: picture {index} {'is there twice' if index in found else 'is none'} of the {pictures:,} of "
                "its category here: it is of other pictures"
            )
        found[index] = value
    return found


def _number(value: Any) -> float | None:
    """A share, or a cosine: BLIP's are written as texts."""
    try:
        found = float(value) if isinstance(value, str | int | float) else math.nan
    except ValueError:
        return None
    return found if -1 <= found <= 1 else None


SUITE = Suite(
    title="T2I-CompBench++",
    source="Huang et al., arXiv 2307.06350",
    asks="the folder examples/dataset of T2I-CompBench, with color_val.txt and the others",
    prompts=2400,
    per_prompt=10,
    scoring=(
        "run T2I-CompBench's scorers on each folder below `images`: BLIP-VQA on color, shape and texture, UniDet on "
        "spatial, 3d_spatial and numeracy, CLIP on non_spatial, 3-in-1 on complex"
    ),
    read=read,
    files=place,
    find=find,
    results=results,
    warnings=warnings,
    judged="share",
)
