"""The report of a scaling study whose axis `study.compare` names designs: their comparison first, then one ladder.

Without `study.compare` the report is what it was.
"""

import dataclasses
from typing import Any

from rfjax.study.records import Records
from rfjax.study.reports import scaling_compare_page as page
from rfjax.study.reports.page import Report
from rfjax.study.reports.scaling_compare import (
    Comparison,
    analyse_designs,
    designs_of,
    fit_records,
    one_ladder,
)


@dataclasses.dataclass(frozen=True)
class Both:
    """The findings of the first design's ladder, and the comparison; None: the study compares no designs."""

    one: Any
    comparison: Comparison | None
    warnings: tuple[str, ...]


def with_designs(report: Report) -> Report:
    """The report of one ladder, with the designs of a study that compares some."""

    def analyse(records: Records) -> Both:
        comparison = analyse_designs(records)
        own = one_ladder(records)
        one = report.analyse(own)
        if comparison is None:
            return Both(one, None, one.warnings)
        first, known = next(iter(designs_of(records))), own.states()
        said = [f"{first}: {sentence}" for sentence in one.warnings if sentence not in known]
        return Both(one, comparison, tuple(dict.fromkeys([*records.states(), *comparison.warnings, *said])))

    def to_json(both: Both) -> Any:
        return report.to_json(both.one) + (fit_records(both.comparison) if both.comparison else [])

    def tables(records: Records, both: Both) -> Any:
        return report.tables(records, both.one) | (page.tables(both.comparison) if both.comparison else {})

    def figures(records: Records, both: Both) -> Any:
        more = page.figures(both.comparison) if both.comparison else {}
        return more | report.figures(one_ladder(records), both.one)

    def opening(records: Records, both: Both) -> str:
        if both.comparison:
            return page.box(both.comparison)
        return report.opening(records, both.one)

    def sections(records: Records, both: Both) -> list[str]:
        more = page.sections(both.comparison) if both.comparison else []
        return [*more, *report.sections(records, both.one)]

    def lines(records: Records, both: Both) -> list[str]:
        said = report.lines(records, both.one)
        if both.comparison is None:
            return said
        return [*page.lines(both.comparison), f"What follows is of {next(iter(designs_of(records)))} alone.", *said]

    own = {"analyse": analyse, "to_json": to_json, "tables": tables, "figures": figures}
    return dataclasses.replace(report, **own, opening=opening, sections=sections, lines=lines)
