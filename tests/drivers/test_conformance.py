"""Every instrument driver that is installed, against its simulator: the checks of
`rram_hil.drivers.simulated.conformance`.
"""

from __future__ import annotations

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


@pytest.mark.parametrize("check", all_checks(), ids=str)
def test_conforms(check: Check) -> None:
    check()
