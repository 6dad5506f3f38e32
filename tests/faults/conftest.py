"""The table of the link campaign, at the end of its run."""

from __future__ import annotations

from collections import Counter

import pytest


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What came of the faults, a row each family (docs/safety.md)."""
    found: dict[str, Counter[str]] = {}
    reports = [report for some in terminalreporter.stats.values() for report in some]
    for report in reports:
        if getattr(report, "when", "") != "call":
            continue
        for name, value in report.user_properties:
            if name == "link campaign":
                family, outcomes = value
                found.setdefault(family, Counter()).update(outcomes)
    columns = list(next(iter(found.values()), ()))
    if found:
        terminalreporter.write_line(f"| family | exchanges x faults | {' | '.join(columns)} |")
    for family, outcomes in found.items():
        cells = " | ".join(str(outcomes[column]) for column in columns)
        terminalreporter.write_line(f"| {family} | {outcomes.total()} | {cells} |")
