"""Drivers of whole benches, each before its simulated far side: nothing touched at connect, outputs
off after whatever goes wrong, no pulse that the ledger does not know, right values or a typed error
for every fault, sessions that play back.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from chain_benches import ARC_ONE, BOARD, CHAINS, PULSED, bench_text
from firmware_builds import host_board

from rram_hil.array import Scheme
from rram_hil.bench.plugins import driver_class
from rram_hil.drivers.simulated.conformance import BENCH_FAULTS, WholeBench, docstring_problems
from rram_hil.drivers.simulated.conformance import whole_bench as rules
from rram_hil.drivers.simulated.conformance.whole_bench import Place
from rram_hil.plugins import names
from rram_hil.wire import link

SIZE = 2
FIRMWARE = "firmware"
"""The board of `firmware/` in the simulated one's place."""
CELL = {ARC_ONE: "1R"}
INSTRUMENTS = {
    BOARD: [""],
    FIRMWARE: [""],
    ARC_ONE: [""],
    **{
        chain: list(tomllib.loads(text[0])["driver"]["instruments"])
        for chain, text in (CHAINS | PULSED).items()
    },
}
TEXT_FAULTS = ["queue-full", "line-overrun"]
LONG = [*list(CHAINS)[1:], *PULSED]
"""Chains that are tried among the long tests: of source-meters one is enough here."""


def marks_of(bench: str) -> list[pytest.MarkDecorator]:
    """When a chain is tried."""
    if bench == FIRMWARE:
        return [pytest.mark.firmware]
    return [pytest.mark.long] * (bench in LONG)


BENCHES = [
    pytest.param(bench, marks=marks_of(bench))
    for bench in [BOARD, FIRMWARE, ARC_ONE, *CHAINS, *PULSED]
]
CASES = [
    pytest.param(bench, instrument, kind, marks=marks_of(bench))
    for bench in INSTRUMENTS
    for instrument in INSTRUMENTS[bench]
    for kind in [
        *BENCH_FAULTS,
        *(TEXT_FAULTS if instrument else []),
        *(["line-overrun"] if bench == ARC_ONE else []),
    ]
]


def text_of(chain: str) -> str:
    """The bench file of a chain, with timeouts that suit a test."""
    if chain == FIRMWARE:
        text = bench_text(BOARD, size=SIZE, firmware=host_board())
    else:
        text = bench_text(chain, CELL.get(chain, "1T1R"), SIZE)
    if chain in (BOARD, FIRMWARE, ARC_ONE):
        own = "version_s = 0.25" if chain == ARC_ONE else "patience_s = 0.5"
        return text.replace("\n[limits]", f"timeout_s = 0.25\n{own}\n[limits]", 1)
    return text.replace("\nmodel =", "\ntimeout_s = 0.25\nmodel =")


def whole(chain: str) -> WholeBench:
    """The bench of a chain, as the checks take it."""
    return WholeBench(
        text_of(chain),
        width_s=1e-6 if chain in (BOARD, FIRMWARE, ARC_ONE, *PULSED) else 2e-3,
        unselected=Scheme.HALF if CELL.get(chain) == "1R" else Scheme.INHIBIT,
        faults=dict.fromkeys(INSTRUMENTS[chain], BENCH_FAULTS),
    )


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Place]]:
    """Benches that are open, one a chain, opened when they are first asked for."""
    opened: dict[str, Place] = {}

    class Opening(dict[str, Place]):
        def __missing__(self, chain: str) -> Place:
            place = Place.open(whole(chain), tmp_path_factory.mktemp("bench"))
            self[chain] = opened[chain] = place
            return place

    yield Opening()
    for place in opened.values():
        place.close()


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "QUIET_S", 0.05)


@pytest.mark.parametrize("name", names("rram_hil.drivers"))
def test_docstrings_have_the_form(name: str) -> None:
    problems = docstring_problems(driver_class(name))
    if name in ("simulated-array", "smu-matrix"):  # no hardware of their own, no document
        problems = [p for p in problems if "names the document" not in p]
    assert not problems


@pytest.mark.parametrize("chain", BENCHES)
def test_connecting_touches_nothing_and_opening_again_neither(chain: str, tmp_path: Path) -> None:
    rules.connecting_touches_nothing(whole(chain), tmp_path)


@pytest.mark.parametrize(
    ("chain", "instrument"),
    [
        pytest.param(bench, instrument, marks=marks_of(bench))
        for bench in INSTRUMENTS
        for instrument in INSTRUMENTS[bench]
    ],
)
def test_another_instrument_is_refused_and_every_link_closed(
    chain: str, instrument: str, tmp_path: Path
) -> None:
    rules.another_model_is_refused(whole(chain), instrument, tmp_path)


@pytest.mark.parametrize("chain", BENCHES)
def test_a_map_is_right_and_stresses_nothing(chain: str, places: dict[str, Place]) -> None:
    rules.a_map_stresses_nothing(places[chain])


@pytest.mark.parametrize("chain", BENCHES)
def test_a_known_resistor_reads_as_what_it_is(chain: str, tmp_path: Path) -> None:
    rules.a_known_resistor(whole(chain), tmp_path)


@pytest.mark.parametrize("error", [RuntimeError("mine"), KeyboardInterrupt()], ids=repr)
@pytest.mark.parametrize("chain", BENCHES)
def test_an_exception_in_the_middle_leaves_outputs_off(
    chain: str, error: BaseException, places: dict[str, Place]
) -> None:
    rules.an_exception_leaves_outputs_off(places[chain], error)


@pytest.mark.parametrize(("chain", "instrument", "kind"), CASES)
def test_a_fault_in_a_reading_is_a_right_value_or_a_typed_error(
    chain: str, instrument: str, kind: str, places: dict[str, Place]
) -> None:
    rules.a_fault_in_a_reading(places[chain], instrument, kind)


@pytest.mark.parametrize(("chain", "instrument", "kind"), CASES)
def test_a_fault_in_a_pulse_never_gives_it_twice_and_the_ledger_knows_it(
    chain: str, instrument: str, kind: str, places: dict[str, Place]
) -> None:
    rules.a_fault_in_a_pulse(places[chain], instrument, kind)


@pytest.mark.parametrize("chain", BENCHES)
def test_safe_off_works_through_a_fault_or_says_that_it_did_not(
    chain: str, places: dict[str, Place]
) -> None:
    rules.safe_off_through_faults(places[chain])


@pytest.mark.parametrize("chain", BENCHES)
def test_a_far_side_that_is_gone_is_a_typed_error(chain: str, tmp_path: Path) -> None:
    rules.a_far_side_that_is_gone(whole(chain), tmp_path)


@pytest.mark.parametrize("chain", BENCHES)
def test_a_session_is_played_back_without_its_instruments(chain: str, tmp_path: Path) -> None:
    rules.a_session_plays_back(whole(chain), tmp_path)
