"""Does a driver keep the contract of `rram_hil.hardware.instrument`? Its class against its
simulator, both found by their entry points.

Any package that adds an instrument runs these checks in its own tests (docs/adding-a-driver.md):

    @pytest.mark.parametrize("check", checks_of("acme-100"), ids=str)
    def test_conforms(check):
        check()

A check connects the driver to the simulator over TCP on 127.0.0.1, compares what the driver says
with what the simulator really did (its terminals, its outputs), and raises `AssertionError` with
what is wrong. Times are the computer's, in s, and short.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import entry_points

from typing_extensions import override

from rram_hil.hardware.instrument import Instrument

from .climate import THERMOSTAT
from .link import COMMON, FAULTS, OF_THE_LINK, fault_in_connect, fault_in_step
from .scope import OSCILLOSCOPE
from .source import SOURCE_METER
from .station import STEPS, Family, Role, Station, role_of, say
from .switching import PULSE_GENERATOR, SWITCH_MATRIX


@dataclass(frozen=True)
class Check:
    """One rule for one model; call it. `str` names it."""

    kind: str
    model: str
    title: str
    run: Callable[[], None] = field(repr=False)

    def __call__(self) -> None:
        """Raises `AssertionError` with what is wrong."""
        self.run()

    @override
    def __str__(self) -> str:
        return f"{self.kind} {self.model}: {self.title}"


def kinds() -> list[str]:
    """Names of all instrument families that are installed, sorted."""
    return sorted({e.name for e in entry_points(group="rram_hil.instruments")})


def checks_of(family: str | Family) -> list[Check]:
    """Every check of a family. What concerns the link (fault modes too) and the source's form is
    asked of the first model.
    """
    family = Family.of(family) if isinstance(family, str) else family
    first = family.driver.MODELS[0] if family.driver.MODELS else "no model"
    checks = [
        Check(family.kind, model, title, _on_station(family, model, rule))
        for model in family.driver.MODELS
        for title, rule in _rules(family.driver)
        if model == first or rule not in OF_THE_LINK
    ]
    checks += [
        Check(
            family.kind, first, f"fault {name!r} in {step!r}", _in_fault(family, first, name, step)
        )
        for name in FAULTS
        for step in ("connect", *STEPS[role_of(family.driver)])
    ]
    checks += [
        Check(family.kind, first, title, partial(rule, family))
        for title, rule in (
            ("says who it drives", _says_who),
            ("docstrings have the form", _docstrings),
        )
    ]
    return checks


def _on_station(family: Family, model: str, rule: Callable[[Station], None]) -> Callable[[], None]:
    def run() -> None:
        with Station(family, model) as station:
            rule(station)

    return run


def _in_fault(family: Family, model: str, name: str, step: str) -> Callable[[], None]:
    return lambda: (
        fault_in_connect(family, model, name)
        if step == "connect"
        else fault_in_step(family, model, name, step)
    )


def _rules(driver: type[Instrument]) -> tuple[tuple[str, Callable[[Station], None]], ...]:
    own = {
        Role.SOURCE_METER: SOURCE_METER,
        Role.MATRIX: SWITCH_MATRIX,
        Role.GENERATOR: PULSE_GENERATOR,
        Role.THERMOSTAT: THERMOSTAT,
        Role.SCOPE: OSCILLOSCOPE,
    }
    return COMMON + own.get(role_of(driver), ())


_SOURCE = re.compile(
    r"manual|reference|guide|data ?sheet|handbook|specification|protocol\.md|source of",
    re.IGNORECASE,
)


_UNIT = re.compile(
    r"\b(?:V|A|S|s|Hz|ohms?|volts?|amperes?|amps|siemens|seconds?|fraction|percent|K)\b"
    r"|`(?:\w+)_(?:s|v|a|ohm|hz|k)`"
)


def _says_who(family: Family) -> None:
    driver, simulator = family.driver, family.simulator
    say(driver.MAKER, f"{driver.__name__}.MAKER is empty")
    say(driver.MAKERS, f"{driver.__name__}.MAKERS is empty")
    say(all(driver.MAKERS.values()), f"{driver.__name__}.MAKERS: a name without its document")
    say(driver.MODELS, f"{driver.__name__}.MODELS is empty")
    say(simulator.MAKER == driver.MAKER, f"makers differ: {simulator.MAKER!r} and {driver.MAKER!r}")
    missing = set(driver.MODELS) - set(simulator.MODELS)
    say(not missing, f"{simulator.__name__}.MODELS has not got {sorted(missing)}")
    sheets = set(driver.SHEETS)
    say(
        not sheets or sheets == set(driver.MODELS),
        f"{driver.__name__}.SHEETS has {sorted(sheets)}, MODELS {sorted(driver.MODELS)}",
    )


def _docstrings(family: Family) -> None:
    problems = docstring_problems(family.driver)
    say(not problems, "; ".join(problems[:5]))


def docstring_problems(driver: type) -> list[str]:
    """What is wrong with the docstrings of a driver class: full stops, units of numbers, the name
    of a source document. An override without a docstring has that of the method it overrides.
    """
    problems = []
    module = inspect.getdoc(sys.modules[driver.__module__]) or ""
    if not _SOURCE.search(module + (inspect.getdoc(driver) or "")):
        problems.append(f"{driver.__name__}: no docstring names the document that it follows")
    for name, value in inspect.getmembers(driver):
        if name.startswith("_") or not (inspect.isfunction(value) or isinstance(value, property)):
            continue
        function = value.fget if isinstance(value, property) else value
        text = (inspect.getdoc(value) or "").strip()
        where = f"{driver.__name__}.{name}"
        first = text.split("\n\n")[0].rstrip()
        if not (text.endswith(".") and first.endswith((".", ":"))):
            problems.append(f"{where}: the docstring does not end with a full stop: {first!r}")
        returns = str(inspect.signature(function).return_annotation) if function is not None else ""
        # A name such as `settle_s` tells its unit.
        is_own = (
            not re.search(r"_(?:s|v|a|hz|ohm|k)$", name)
            and getattr(function, "__module__", "") == driver.__module__
        )
        if is_own and re.search(r"\bfloat\b|FloatArray", returns) and not _UNIT.search(text):
            problems.append(f"{where}: numbers without a unit in the docstring: {text!r}")
    return problems
