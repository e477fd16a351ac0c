"""RECORD=1 writes the recordings anew; PARITY_TABLE=FILE gets a table of the largest differences."""

import os
from pathlib import Path

import parity_results
import pytest

KEY = "parity"


@pytest.fixture
def compared(record_property):
    """(name, found, expected) -> nothing: notes the differences of two results, and fails beyond the tolerance."""

    def check(name, found, expected):
        difference = parity_results.compare(found, expected)
        record_property(KEY, [name, difference.output, difference.gradient, difference.worst])
        print(f"{name}: output {difference.output:.1e}, gradients {difference.gradient:.1e} ({difference.worst})")
        assert difference.within, difference

    return check


@pytest.fixture
def recording():
    """(name, expected, shapes) -> nothing: writes down a result of torch's, or checks that it is what was written."""

    def check(name, expected, shapes):
        summary = parity_results.summarise(expected)
        if os.environ.get("RECORD", "") not in ("", "0"):
            parity_results.record(name, summary, shapes.items())
        known, old = parity_results.recorded(name)
        assert known == shapes
        assert (difference := parity_results.compare_summaries(summary, old)).within, difference

    return check


def pytest_terminal_summary(terminalreporter):
    """The largest differences of each case over all seeds."""
    rows = {}
    for report in (*terminalreporter.stats.get("passed", ()), *terminalreporter.stats.get("failed", ())):
        for key, value in getattr(report, "user_properties", ()):
            if key == KEY:
                name, output, gradient, worst = value
                old = rows.get(name, (0.0, 0.0, "", 0))
                worst = worst if gradient >= old[1] else old[2]
                rows[name] = (max(output, old[0]), max(gradient, old[1]), worst, old[3] + 1)
    if not rows:
        return
    lines = ["| case | runs | output | gradients | worst gradient |", "|---|---|---|---|---|"]
    for name, (output, gradient, worst, count) in sorted(rows.items()):
        lines.append(f"| {name} | {count} | {output:.1e} | {gradient:.1e} | {worst.removeprefix('grad/')} |")
    if path := os.environ.get("PARITY_TABLE"):
        Path(path).write_text("\n".join(lines) + "\n")
    top = [max(row[i] for row in rows.values()) for i in (0, 1)]
    terminalreporter.write_line(f"largest relative differences: outputs {top[0]:.1e}, gradients {top[1]:.1e}")
