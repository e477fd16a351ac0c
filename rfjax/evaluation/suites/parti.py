"""PartiPrompts (Yu et al. 2022, arXiv 2206.10789): 1,632 prompts in twelve categories, for people to judge.

Prompts: `PartiPrompts.tsv` with the columns Prompt, Category, Challenge and Note. Quotation marks are text there: a
reader that takes them for quoting changes a prompt. There is no official layout and no scorer: pictures lie as
GenEval's do, `00000/metadata.jsonl` (prompt, category, challenge) and `00000/samples/0000.png`. SD3 compares models on
these prompts by people's votes.
"""

import json
from collections.abc import Sequence
from pathlib import Path

from rfjax.errors import UserError
from rfjax.evaluation.suites import Files, Prompt, Suite, reading

FILE = "PartiPrompts.tsv"
COLUMNS = ["Prompt", "Category", "Challenge", "Note"]
NEEDED = 3  # a note may be missing


def read(path: Path) -> tuple[Prompt, ...]:
    """The prompts of the file, with their spaces at the edges.

    Raises:
        UserError: if there is none, or it has other columns.
    """
    file = reading.found(path, FILE)
    header, *rows = reading.lines(file)
    if header.split("\t") != COLUMNS:
        raise UserError(f"{file} has other columns than {', '.join(COLUMNS)}, with tabs between them: {reading.FIX}")
    if not rows:
        raise UserError(f"{file} has no prompt below its header: {reading.FIX}")
    found = []
    for number, row in enumerate(rows):
        where, cells = f"{file}, line {number + 2}", row.split("\t")
        if not NEEDED <= len(cells) <= len(COLUMNS):
            raise UserError(f"{where} has {len(cells)} columns, not {len(COLUMNS)}: {reading.FIX}")
        found.append(Prompt(number, reading.prompt(cells[0], where), cells[1], {"challenge": cells[2]}))
    return tuple(found)


def place(prompts: Sequence[Prompt], count: int) -> tuple[Files, ...]:
    """A folder for each prompt."""
    return tuple(
        Files(
            tuple(f"{one.number:05}/samples/{number:04}.png" for number in range(count)),
            beside=(
                f"{one.number:05}/metadata.jsonl",
                json.dumps({"prompt": one.text, "category": one.skill, **one.line}),
            ),
        )
        for one in prompts
    )


SUITE = Suite(
    title="PartiPrompts",
    source="Yu et al. 2022, arXiv 2206.10789",
    asks="PartiPrompts.tsv of the repository google-research/parti",
    prompts=1632,
    per_prompt=1,
    scoring=(
        "no scorer goes with these prompts: let people compare the pictures of two models, or rate them with a model "
        "that has learnt from votes"
    ),
    read=read,
    files=place,
)
