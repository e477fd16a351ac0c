"""DPG-Bench (Hu et al. 2024, ELLA, arXiv 2403.05135): 1,065 long prompts, four pictures each, in one grid of 2 x 2.

Prompts: a folder of `<id>.txt`; `dpg_bench.csv` has the questions that mPLUG answers. Layout: `<id>.png`. Results: the
scorer's text file, a line a grid with the share of questions answered yes in each picture, then the scores by category.
The overall score is the mean over pictures, times 100.

The scorer's categories are not shares of the same answers: they count the last picture of each grid alone, and a
question also where the one that it depends on is answered no; and the first row of the table is never asked.
"""

import csv
import io
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from rfjax.errors import UserError, one_line
from rfjax.evaluation.suites import Answer, Files, Given, Prompt, Results, Suite, reading
from rfjax.untrusted import read_text

TABLE, FOLDER, ENDING = "dpg_bench.csv", "prompts", "_results.txt"
COLUMNS = {"item_id", "proposition_id", "dependency", "tuple", "question_natural_language"}
GRID = {1: 0, 4: 2}  # pictures of a prompt -> columns of their grid
SUMMARY, FIRST_LEVEL, SECOND_LEVEL = "Model: ", "L1 category scores:", "L2 category scores:"
WHOLE = "DPG-Bench score: "
ROUNDING = 1e-6  # of means that the scorer adds up in another order


def read(path: Path) -> tuple[Prompt, ...]:
    """The prompts of a folder, by their names, with the number of questions by category where the table is there.

    Raises:
        UserError: if there are none, or the table is of another version.
    """
    folder = path / FOLDER if (path / FOLDER).is_dir() else path
    files = sorted(folder.glob("*.txt")) if folder.is_dir() else []
    if not files:
        raise UserError(f"{folder} has no <id>.txt: name the folder dpg_bench of the repository of ELLA")
    table = next((place / TABLE for place in (path, path.parent) if (place / TABLE).exists()), None)
    asked = questions(table) if table else {}
    found = []
    for number, file in enumerate(files):
        text = " ".join((read_text(file, fix=reading.FIX) or "").split("\n")).strip()
        line = {"id": file.stem, "questions": dict(asked.get(file.stem, {}))}
        found.append(Prompt(number, reading.prompt(text, str(file)), "", line))
    return tuple(found)


def questions(table: Path) -> dict[str, Mapping[str, int]]:
    """Prompt -> how many questions of each category the scorer asks about it; it skips the table's first row.

    Raises:
        UserError: if the table has other columns.
    """
    rows = csv.DictReader(io.StringIO("\n".join(reading.lines(table))))
    if missing := COLUMNS - set(rows.fieldnames or ()):
        raise UserError(f"{table} has no column {', '.join(sorted(missing))}: {reading.FIX}")
    counts: dict[str, Counter[str]] = {}
    try:
        for number, row in enumerate(rows):
            if number:
                counts.setdefault(row["item_id"] or "", Counter())[category(row["tuple"] or "")] += 1
    except csv.Error as error:
        raise UserError(f"{table} can't be read as a table ({error}): {reading.FIX}") from error
    return dict(counts)


def category(text: str) -> str:
    """The broad category of a question: "entity" of "entity - whole (a lamp)"."""
    return text.partition("(")[0].partition("-")[0].strip()


def place(prompts: Sequence[Prompt], count: int) -> tuple[Files, ...]:
    """A grid for each prompt."""
    return tuple(Files((f"{one.line['id']}.png",), columns=GRID[count]) for one in prompts)


def find(folder: Path) -> Path | None:
    """The scorer's text file in the work folder or in that of the pictures.

    Raises:
        UserError: if there are several.
    """
    there = [path for where in (folder, folder / "images") for path in sorted(where.glob(f"*{ENDING}"))]
    if len(there) > 1:
        raise UserError(f"{folder} has {len(there)} files *{ENDING}: name one in config.suite.results")
    return there[0] if there else None


def results(path: Path, prompts: Sequence[Prompt], count: int) -> Results:
    """What the scorer says of each picture, and by category.

    Raises:
        UserError: if the file is of other prompts, or of another version.
    """
    rows = reading.lines(path, reading.SCORED)
    end = next((number for number, row in enumerate(rows) if row.startswith(SUMMARY)), len(rows))
    numbers = {str(one.line["id"]): one.number for one in prompts}
    found: dict[int, list[float]] = {}
    for number, row in enumerate(rows[:end], start=1):
        where = f"{path}, line {number}"
        name, shares = _row(row, where)
        if name not in numbers or numbers[name] in found:
            what = "is there twice" if name in numbers else "is none of the prompts here"
            raise UserError(f"{where}: '{one_line(name)}' {what}: name the results of these pictures")
        if len(shares) != count:
            raise UserError(
                f"{where}: {len(shares)} pictures of a grid are scored, and {count} are in it: set PIC_NUM={count}"
            )
        found[numbers[name]] = shares
    answers = tuple(Answer(number, share) for number, shares in sorted(found.items()) for share in shares)
    return Results(answers, *_summary(rows[end:], answers, [prompts[number] for number in found], str(path)))


def _row(row: str, where: str) -> tuple[str, list[float]]:
    """(prompt, the share of each picture) of a line of a grid."""
    *parts, whole = row.split(", ")
    shares: list[float] = []
    while len(parts) > 1 and (share := _share(parts[-1])) is not None:
        shares.insert(0, share)
        parts.pop()
    mean = _share(whole)
    if not shares or mean is None or abs(mean - sum(shares) / len(shares)) > ROUNDING:
        raise UserError(f"{where} has no path, shares and their mean: it is not what compute_dpg_bench.py writes")
    return PurePosixPath(", ".join(parts).replace("\\", "/")).name.split(".")[0], shares


def _share(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if 0 <= value <= 1 else None


def _summary(
    rows: Sequence[str], answers: Sequence[Answer], prompts: Sequence[Prompt], where: str
) -> tuple[tuple[Given, ...], tuple[str, ...]]:
    """The scores by category, and what is wrong with them."""
    said = [row for row in rows if row.startswith(WHOLE)]
    if not said or not answers:
        return (), ("The scorer has not written its summary: it was stopped before its end.",)
    whole, mean = _float(said[-1].removeprefix(WHOLE)), 100 * sum(one.value for one in answers) / len(answers)
    if not abs(whole - mean) < 100 * ROUNDING:
        raise UserError(f"{where} says {whole:g} in all, and its pictures have a mean of {mean:g}: it was changed")
    asked: Counter[str] = Counter()
    for one in prompts:
        asked.update(one.line.get("questions") or {})
    first, second = (
        next((n for n, row in enumerate(rows) if row == title), 0) for title in (FIRST_LEVEL, SECOND_LEVEL)
    )
    given = []
    for row in rows[first + 1 : second]:
        name, _, value = row.strip().rpartition(": ")
        share = _float(value) / 100
        if not name or not 0 <= share <= 1 + ROUNDING:
            raise UserError(f"{where}: '{one_line(row)}' is no category's score: it is of another version")
        given.append(Given(name, share, asked[name]))
    return tuple(sorted(given)), (
        "The categories are the scorer's own: they count the last picture of each grid alone, and a question also "
        "where the one that it depends on is answered no, so they are no parts of the overall score.",
    )


def _float(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def warnings(prompts: Sequence[Prompt]) -> list[str]:
    """What the table of questions lacks."""
    without = [one for one in prompts if not one.line["questions"]]
    if not without:
        return []
    if len(without) == len(prompts):
        return [f"There is no {TABLE} beside the prompts, so how many questions a category has is not known."]
    return [
        f"{len(without):,} of {len(prompts):,} prompts have no question in {TABLE}, and the scorer leaves them out; "
        f"the first is {one_line(without[0].line['id'])}.txt."
    ]


SUITE = Suite(
    title="DPG-Bench",
    source="Hu et al. 2024, arXiv 2403.05135",
    asks="the folder dpg_bench of the repository of ELLA, with prompts/ and dpg_bench.csv",
    prompts=1065,
    per_prompt=4,
    allowed=tuple(GRID),
    scoring=(
        "run ELLA's dpg_bench/dist_eval.sh on the folder `images`, with the side of one picture as its resolution, and "
        "put its text file *_results.txt into the work folder"
    ),
    read=read,
    files=place,
    find=find,
    results=results,
    warnings=warnings,
    judged="share",
    scale=100.0,
    by_skill=False,
)
