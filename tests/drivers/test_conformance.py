"""Every instrument driver that is installed, against its simulator: the checks of
`rram_hil.drivers.simulated.conformance`. One model a family; the others are `long`.
"""

from __future__ import annotations

from typing import Any

import pytest

from rram_hil.drivers.simulated.conformance import Check, checks_of, kinds
from rram_hil.errors import ConfigError
from rram_hil.wire import link


def all_checks() -> list[Check]:
    """Those of every family; one that fails for a family that cannot be imported."""
    found: list[Check] = []
    for kind in kinds():
        try:
            found += checks_of(kind)
        except ConfigError as error:
            text = str(error)
            found.append(Check(kind, "", "is importable", lambda text=text: pytest.fail(text)))  # type: ignore[misc]
    return found


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    # On the loopback nothing comes late after a connection was opened anew.
    monkeypatch.setattr(link, "QUIET_S", 0.02)


def marked(checks: list[Check]) -> list[Any]:
    """The checks, those of every model but the first of its family marked `long`."""
    first: dict[str, str] = {}
    return [
        check
        if first.setdefault(check.kind, check.model) == check.model
        else pytest.param(check, marks=pytest.mark.long)
        for check in checks
    ]


@pytest.mark.parametrize("check", marked(all_checks()), ids=str)
def test_conforms(check: Check) -> None:
    check()
