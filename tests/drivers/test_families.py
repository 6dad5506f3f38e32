"""Models of labs that were refused once: driven now, or refused with the right answer."""

from __future__ import annotations

import contextlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rram_hil import Bench
from rram_hil.array import Cells, Status, pulse, read, read_step
from rram_hil.bench import discovery
from rram_hil.bench.standalone import start_model
from rram_hil.drivers.simulated.conformance import Family, Station, kinds
from rram_hil.errors import ConfigError
from rram_hil.hardware.instrument import PulseGenerator, SourceMeter, make_instrument

ROOT = Path(__file__).parents[2]
NOW_DRIVEN = {
    "2601A": ("keithley-2600b", "Keithley"),
    "2602A": ("keithley-2600b", "Keithley"),
    "2611A": ("keithley-2600b", "Keithley"),
    "2612A": ("keithley-2600b", "Keithley"),
    "2635A": ("keithley-2600b", "Keithley"),
    "2636A": ("keithley-2600b", "Keithley"),
    "B2901B": ("keysight-b2900", "Keysight"),
    "B2902B": ("keysight-b2900", "Keysight"),
    "B2911B": ("keysight-b2900", "Keysight"),
    "B2912B": ("keysight-b2900", "Keysight"),
    "B2901BL": ("keysight-b2900", "Keysight"),
    "B2910BL": ("keysight-b2900", "Keysight"),
    "33521A": ("keysight-33500", "Keysight"),
    "33522A": ("keysight-33500", "Keysight"),
    "3706": ("keithley-3706a", "Keithley"),
}
QUICK = ("2636A", "B2901BL", "33521A", "3706")


def _marked(model: str) -> object:
    return model if model in QUICK else pytest.param(model, marks=pytest.mark.long)


@pytest.fixture(autouse=True)
def _empty_computer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(discovery, "listed_visa", list)
    monkeypatch.setattr(discovery, "listed_serial", list)


@pytest.mark.parametrize("model", [_marked(model) for model in NOW_DRIVEN])
def test_a_model_is_simulated_found_and_driven_by_its_own_table(model: str) -> None:
    kind, maker = NOW_DRIVEN[model]
    far_side = start_model(f"{maker} {model}", load_ohm=1e4)
    try:
        ((_, told, resource),) = far_side.instruments
        assert told == f"{maker} {model}"
        (found,) = discovery.find_devices([resource])
        assert (found.kind, found.model, found.problem) == (kind, model, "")
        instrument = make_instrument({"kind": kind, "model": model, "resource": resource}, "x")
        try:
            assert instrument.connect().model == model
            instrument.arm()
            if isinstance(instrument, SourceMeter):
                limits = instrument.limits(instrument.channels[0])
                assert limits.max_v == max(v for v, _ in limits.envelope)
            elif isinstance(instrument, PulseGenerator):
                assert instrument.limits("1").shortest_s == 16e-9
            instrument.safe_off()
        finally:
            instrument.close()
    finally:
        far_side.stop()


@pytest.mark.fast
@pytest.mark.parametrize(
    ("model", "channels"),
    [("2635A", 1), ("2636A", 2), ("B2902B", 2), ("B2910BL", 1), ("33522A", 2)],
)
def test_channels_of_the_new_models(model: str, channels: int) -> None:
    kind, _ = NOW_DRIVEN[model]
    family = Family.of(kind)
    instrument = family.driver(family.driver.Config(kind=kind))
    instrument.model = model  # type: ignore[attr-defined]
    assert len(instrument.channels) == channels  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("kind", "model", "told"),
    [
        ("keithley-2600b", "2636B", "2637B"),
        ("keithley-2600b", "2601B", "2601B-PULSE"),
        ("keithley-3706a", "3706A", "3706B"),
        ("keysight-b2900", "B2911A", "B2961B"),
        ("keysight-33500", "33522B", "33531B"),
    ],
)
def test_a_near_model_is_refused_with_the_nearest_and_the_key(
    kind: str, model: str, told: str
) -> None:
    family = Family.of(kind)
    with Station(family, model) as station:
        station.simulator.pretends = told
        with pytest.raises(ConfigError) as refusal:
            station.driver().connect()
        offered = str(refusal.value).partition('treat_as = "')[2].partition('"')[0]
        assert offered in family.driver.MODELS
        assert f"the nearest is {offered}" in str(refusal.value)
        near = station.driver(treat_as=offered)
        assert near.connect().model.endswith(f"treated as {offered}")
        near.close()


@pytest.mark.fast
@pytest.mark.parametrize(
    ("kind", "told", "offered"),
    [
        ("keithley-2400", "2409", "2401"),
        ("keithley-2400", "2400-NFP", "2400"),
        ("keithley-2450", "2450-EC", "2450"),
        ("keithley-2450", "2461-SYS", "2461"),
        ("keithley-2600b", "2601B-PULSE", "2601B"),
        ("keithley-2600b", "2609B", "2601B"),
        ("keithley-2600b", "2632B", "2602B"),
        ("keysight-b2900", "B2962A", "B2902A"),
        ("keysight-b1500", "B1505A", "B1500A"),
        ("keysight-33500", "33622B", "33522B"),
    ],
)
def test_of_the_known_names_that_are_equally_near_the_tightest_table_is_offered(
    kind: str, told: str, offered: str
) -> None:
    assert f"the nearest is {offered}:" in Family.of(kind).driver.offer(told)


@pytest.mark.fast
@pytest.mark.parametrize(
    ("kind", "told"),
    [
        ("keithley-2600b", "2657B"),
        ("keithley-2600b", "2636"),
        ("keysight-33500", "33502A"),
        ("keysight-33500", "33220A"),
        ("keysight-b1500", "B1506A"),
        ("keysight-b2900", "B2985A"),
    ],
)
def test_what_no_table_of_a_family_fits_is_not_near(kind: str, told: str) -> None:
    assert Family.of(kind).driver.offer(told) == ""


@pytest.mark.parametrize("told", ["2606B", "2651A", "2657A", "2602"])
def test_a_source_meter_that_no_table_is_tight_enough_for_is_refused_whatever_it_is_treated_as(
    told: str,
) -> None:
    with Station(Family.of("keithley-2600b"), "2602B") as station:
        station.simulator.pretends = told
        for settings in ({}, {"treat_as": "2602B"}):
            with pytest.raises(ConfigError, match="is not driven"):
                station.driver(**settings).connect()
        (found,) = discovery.find_devices([station.server.resource])
        assert "is not driven" in found.problem


@pytest.mark.parametrize(
    "answer",
    [
        "KEITHLEY INSTRUMENTS INC.,MODEL 2400-C,SN 12a34,C34 Sep 21 2016 15:30:00/A02 /K/H",
        "KEITHLEY INSTRUMENTS INC. , Model 2400 , 1234567 , C30 , more",
        "Keithley Instruments,2400,0012345,1.0\0",
        "keithley instruments inc,model 2400\0",
    ],
)
def test_the_model_is_read_out_of_an_identification_however_it_is_written(answer: str) -> None:
    with Station(Family.of("keithley-2400"), "2400") as station:
        station.simulator.identification = lambda: answer  # type: ignore[attr-defined]
        for asked in ("", "2400", "2400-C", "Model 2400"):
            driver = station.driver(model=asked)
            identity = driver.connect()
            assert identity.model == "2400"
            assert "\0" not in identity.serial + identity.firmware
            driver.close()
        (found,) = discovery.find_devices([station.server.resource])
        assert (found.kind, found.model) == ("keithley-2400", "2400") or answer.count(",") < 2


@pytest.mark.fast
@pytest.mark.parametrize("model", ["707A", "708A"])
def test_a_bench_file_that_names_a_707a_is_told_what_it_speaks(model: str) -> None:
    section = {"kind": "keithley-707b", "model": model, "resource": "GPIB0::18::INSTR"}
    with pytest.raises(ConfigError, match=r"driver.instruments.m.model: .*DDC") as refusal:
        make_instrument(section, "driver.instruments.m")
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("told", ["707A", "708A"])
def test_a_matrix_that_tells_it_is_a_707a_is_refused_by_name(told: str) -> None:
    with Station(Family.of("keithley-707b"), "707B") as station:
        station.simulator.pretends = told
        with pytest.raises(ConfigError, match="a 707A or 708A is not driven"):
            station.driver().connect()
        (found,) = discovery.find_devices([station.server.resource])
        assert "a 707A or 708A is not driven" in found.problem


def test_a_4200a_at_the_address_of_a_source_meter_is_refused_by_name() -> None:
    with Station(Family.of("keithley-2400"), "2400") as station:
        station.simulator.identification = lambda: "KEITHLEY INSTRUMENTS,KI4200A,1489223,V1.14"  # type: ignore[attr-defined]
        with pytest.raises(ConfigError, match="a 4200A-SCS is not driven"):
            station.driver().connect()


def test_b2900bl_gives_what_its_tighter_table_says_and_no_pulse_shape() -> None:
    with Station(Family.of("keysight-b2900"), "B2901BL") as station:
        limits = station.instrument.limits("1")
        assert (limits.max_v, limits.max_a) == (21.0, 1.515)
        assert limits.voltage_ranges_v == (0.2, 2.0, 20.0)
        assert limits.shortest_aperture_s == 50e-6
        station.simulator.message(":SOUR:FUNC:SHAP PULS")
        assert station.simulator.message(":SYST:ERR?") != station.simulator.NO_ERROR  # type: ignore[attr-defined]


@pytest.mark.fast
def test_every_model_says_what_it_stands_on_and_what_nobody_has_seen() -> None:
    for kind in ("keithley-2600b", "keysight-b2900", "keysight-33500", "keithley-3706a"):
        driver = Family.of(kind).driver
        assert set(driver.SHEETS) == set(driver.MODELS)
        for sheet in driver.SHEETS.values():
            assert sheet.documents
            assert sheet.unverified


_NEAR_NAMES = st.sampled_from(
    ["Keithley", "KEITHLEY INSTRUMENTS", "Agilent Technologies", "LSCI", "TEMPTRONIC", "ACME", ""]
) | st.text(max_size=12)


@pytest.mark.fast
@pytest.mark.parametrize("kind", kinds())
@given(maker=_NEAR_NAMES, model=st.data(), treat_as=st.booleans())
def test_who_is_driven_is_of_a_known_maker_and_model_or_at_the_users_own_risk(
    kind: str, maker: str, model: st.DataObject, *, treat_as: bool
) -> None:
    driver = Family.of(kind).driver
    first = driver.MODELS[0]
    told = model.draw(st.sampled_from(driver.MODELS) | st.text(max_size=8))
    instead = first if treat_as else ""
    instrument = driver(driver.Config(kind=kind, resource="x", treat_as=instead))
    own = driver.is_made_by(maker) and told in driver.MODELS
    with contextlib.suppress(ConfigError):
        assert instrument.accept(maker, told) == (told if own else instead)


@pytest.mark.long
@pytest.mark.parametrize(
    ("file", "known", "model"),
    [
        ("bench-2636b-707b.toml", "2636B", "2636A"),
        ("bench-b2902a-707b.toml", "B2902A", "B2912B"),
    ],
)
def test_a_matrix_bench_forms_and_reads_with_a_new_model(
    tmp_path: Path, file: str, known: str, model: str
) -> None:
    text = (ROOT / "examples" / file).read_text(encoding="utf-8")
    path = tmp_path / "bench.toml"
    path.write_text(text.replace(f'"{known}"', f'"{model}"'), encoding="utf-8")
    cells = Cells.block(0, [0], range(4))
    with Bench.open(path) as bench:
        bench.do(pulse(cells, bl_v=3.5, wl_v=1.6, width_s=2e-3))
        result = bench.do(read(cells, read_step(width_s=20e-3)))
    assert (result.status == Status.OK).all()
    assert np.median(result.current_a) > 1e-6
