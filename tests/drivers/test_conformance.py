"""Every instrument driver that is installed, against its simulator: the checks of
`rram_hil.drivers.simulated.conformance`. The first model of each family is checked always, the
others in the long run.
"""

from __future__ import annotations

from typing import Any

import pytest

from rram_hil.drivers.simulated.conformance import Check, checks_of, kinds
from rram_hil.errors import ConfigError
from rram_hil.wire import link


def all_checks() -> list[Any]:
    """Those of every family; one that fails for a family that cannot be imported."""
    found = []
    for kind in kinds():
        try:
            checks = checks_of(kind)
        except ConfigError as error:
            text = str(error)
            checks = [Check(kind, "", "is importable", lambda text=text: pytest.fail(text))]  # type: ignore[misc]
        for check in checks:
            marks = () if check.model == checks[0].model else (pytest.mark.long,)
            found.append(pytest.param(check, marks=marks, id=str(check)))
    return found


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    # On the loopback nothing comes late after a connection was opened anew.
    monkeypatch.setattr(link, "QUIET_S", 0.02)


@pytest.mark.parametrize("check", all_checks())
def test_conforms(check: Check) -> None:
    check()
