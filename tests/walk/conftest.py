"""Sums up the walk at its end, whichever processes took part."""

from collections import Counter
from typing import Any


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Prints how many values were tried, and what became of them."""
    total: Counter[str] = Counter()
    for reports in terminalreporter.stats.values():
        for report in reports:
            for name, value in getattr(report, "user_properties", ()):
                total.update(value if name == "outcomes" and report.when == "call" else {})
    said = ", ".join(f"{total[word]} {word}" for word in ("refused", "ran", "failed", "traceback", "hung"))
    terminalreporter.write_line(f"the walk over all keys: {total.total()} tried, {said}")
