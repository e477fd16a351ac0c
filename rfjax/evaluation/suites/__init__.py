"""Prompt suites of text-to-image papers: their prompts, where each picture lies, what the official scorers found.

There is no detector and no judge here, for a score by another one is another score. A suite's pictures are drawn in the
layout that its own scorer reads, and the scorer's files are read back. This package imports no JAX.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from rfjax import lookup
from rfjax.errors import UserError

SUITES = {
    "geneval": "rfjax.evaluation.suites.geneval:SUITE",
    "compbench": "rfjax.evaluation.suites.compbench:SUITE",
    "parti": "rfjax.evaluation.suites.parti:SUITE",
    "dpg": "rfjax.evaluation.suites.dpg:SUITE",
}


@dataclass(frozen=True)
class Prompt:
    """One prompt.

    Attributes:
        number: its place in the suite, from 0.
        text: what the model reads.
        skill: the task or category that it belongs to.
        line: what else the official file says of it, as plain values.
    """

    number: int
    text: str
    skill: str
    line: Mapping[str, Any] = field(default_factory=dict)

    def to_plain(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Files:
    """The files of one prompt, relative to the folder of all pictures.

    Attributes:
        pictures: their paths, in order; a single one if they are the cells of a grid.
        columns: of the grid; 0: each picture is a file of its own.
        beside: path and content of a text file that goes with them, or None.
    """

    pictures: tuple[str, ...]
    columns: int = 0
    beside: tuple[str, str] | None = None

    @property
    def paths(self) -> tuple[str, ...]:
        """All of them."""
        return (*self.pictures, *(self.beside[:1] if self.beside else ()))


class Answer(NamedTuple):
    """What the official scorer says of one picture: the prompt's number, and a value, 1 if all is right."""

    number: int
    value: float


class Given(NamedTuple):
    """A skill's score that the official file gives itself, as a share, and how many answers it is the mean of."""

    skill: str
    value: float
    count: int  # 0: not known


@dataclass(frozen=True)
class Results:
    """An official result file.

    Attributes:
        answers: for each picture.
        given: scores by skill that do not follow from the answers.
        notes: sentences for the reader.
    """

    answers: tuple[Answer, ...]
    given: tuple[Given, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Suite:
    """A prompt suite.

    Attributes:
        title: its name, for people.
        source: who made it, for the page.
        asks: what `config.suite.prompts` must name, in words.
        prompts: how many the official suite has.
        per_prompt: how many pictures its protocol draws of each.
        allowed: other numbers of pictures that its layout has room for; empty: any.
        judged: how the scorer judges a picture: "right or wrong", or by a "share" of 1.
        scale: of the numbers as its papers print them: 1 or 100.
        by_skill: whether the overall score is the mean over skills of each skill's mean; else over all pictures.
        scoring: how to run the official scorer, in a sentence.
        read: path of the prompts -> the prompts.
        files: (prompts, pictures of each) -> the files of each prompt.
        find: the work folder -> the official result files in it, or None.
        results: (path, prompts, pictures of each) -> what they say; None if the suite has no scorer.
        warnings: prompts -> sentences on what its scorer will make of some of them.
    """

    title: str
    source: str
    asks: str
    prompts: int
    per_prompt: int
    scoring: str
    read: Callable[[Path], tuple[Prompt, ...]]
    files: Callable[[Sequence[Prompt], int], tuple[Files, ...]]
    find: Callable[[Path], Path | None] = lambda folder: None
    results: Callable[[Path, Sequence[Prompt], int], Results] | None = None
    warnings: Callable[[Sequence[Prompt]], list[str]] = lambda prompts: []
    allowed: tuple[int, ...] = ()
    judged: str = "right or wrong"
    scale: float = 1.0
    by_skill: bool = True

    def count(self, asked: int) -> int:
        """How many pictures of each prompt to draw, if the user asks for this many; 0: as the protocol does.

        Raises:
            UserError: if the layout has no room for them.
        """
        if asked and self.allowed and asked not in self.allowed:
            raise UserError(
                f"config.suite.per_prompt = {asked}: the scorer of {self.title} reads "
                f"{' or '.join(map(str, self.allowed))} pictures of a prompt"
            )
        return asked or self.per_prompt


def find_suite(name: str) -> Suite:
    """The suite that `config.suite.name` names: an entry of SUITES, or `MODULE:NAME`.

    Raises:
        UserError: if there is none.
    """
    return lookup.find(name, SUITES, "suite.name")
