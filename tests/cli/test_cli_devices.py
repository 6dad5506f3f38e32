"""`rram-hil devices`: who answers where, asked with `*IDN?` alone, and a section of a bench file
that works as it is pasted.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pytest_mock import MockerFixture

from rram_hil.array import Geometry, Limits
from rram_hil.bench import discovery as looking
from rram_hil.bench.bench_file import ThermostatSection
from rram_hil.drivers.simulated.conformance import Family, Station, kinds
from rram_hil.drivers.simulated.test_chip_board import launch
from rram_hil.hardware.driver import Driver
from rram_hil.hardware.far_side import FarSideRequest, SimulatedFarSide
from rram_hil.hardware.instrument import make_instrument
from rram_hil.hardware.thermostat import Thermostat
from rram_hil.pytest_plugin import LIMITS
from rram_hil.simulation.config import Simulation
from rram_hil.wire.recording import read_traffic

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def empty_computer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing can be listed on this computer, whatever hangs on it."""
    monkeypatch.setattr(looking, "listed_visa", list)
    monkeypatch.setattr(looking, "listed_serial", list)


@pytest.fixture
def board(tmp_path: Path) -> Iterator[SimulatedFarSide]:
    """A simulated board on a pseudo-terminal, of a geometry that no bench file here knows."""
    limits = Limits.model_validate(LIMITS)
    far = launch(
        FarSideRequest(Simulation(transport="pty"), Geometry(2, 3, 5), limits, "c1", tmp_path)
    )
    yield far
    far.stop()


@pytest.mark.parametrize("kind", kinds())
def test_an_instrument_is_known_by_its_identification_alone(here: Any, kind: str) -> None:
    family = Family.of(kind)
    for model in family.driver.MODELS:
        with Station(family, model) as station:
            station.on()
            heard = station.watch()
            said = here.command("devices", "--json", "--resource", station.server.resource)
            assert said.status == 0, said.err
            (found,) = json.loads(said.out)
            assert heard == ["*IDN?"]
            assert station.outputs_on
            assert (found["kind"], found["model"], found["problem"]) == (kind, model, "")
            assert found["serial"]
            told = tomllib.loads(found["toml"])
            if issubclass(family.driver, Thermostat):
                section = ThermostatSection.model_validate(told["thermostat"]).settings
            else:
                (section,) = told["driver"]["instruments"].values()
            station.instrument.close()
            pasted = make_instrument(section, "driver.instruments.x")
            try:
                assert pasted.connect().model == model
                pasted.safe_off()
            finally:
                pasted.close()


def test_the_screen_has_blocks_to_paste_with_different_names(here: Any) -> None:
    smu = Family.of("keithley-2400")
    with (
        Station(smu, "2400") as one,
        Station(smu, "2400") as two,
        Station(Family.of("keithley-707b"), "707B") as matrix,
    ):
        resources = [s.server.resource for s in (one, two, matrix)]
        said = here.command("devices", *(word for r in resources for word in ("-r", r)))
    pasted = "\n".join(line for line in said.out.split("For the bench file")[1].splitlines())
    instruments = tomllib.loads(pasted)["driver"]["instruments"]
    assert {name: section["resource"] for name, section in instruments.items()} == dict(
        zip(("smu", "smu2", "matrix"), resources, strict=True)
    )


def test_a_wrong_or_dead_address_is_a_problem_of_its_own_and_no_error(here: Any) -> None:
    with Station(Family.of("keithley-2400"), "2400") as station:
        dead = "TCPIP::127.0.0.1::9::SOCKET"
        options = ("-r", dead, "-r", "no::such::thing", "-r", station.server.resource)
        said = here.command("devices", "--json", *options)
    assert said.status == 0
    first, second, third = json.loads(said.out)
    assert "refused" in first["problem"]
    assert "is no VISA resource name" in second["problem"]
    assert third["kind"] == "keithley-2400"


def test_a_model_that_no_driver_knows_is_told_with_its_name(here: Any) -> None:
    with Station(Family.of("keithley-2400"), "2400") as station:
        station.simulator.pretends = ""
        station.simulator.identification = lambda: "ACME,MODEL 2400,17,1.0"  # type: ignore[attr-defined]
        said = here.command("devices", "--json", "-r", station.server.resource)
        (found,) = json.loads(said.out)
        assert (found["maker"], found["model"], found["kind"]) == ("ACME", "MODEL 2400", "")
        assert found["problem"] == (
            "no installed driver knows this model; keithley-2400 drives a 2400 of KEITHLEY"
            " INSTRUMENTS INC. or KEITHLEY INSTRUMENTS"
        )
        station.simulator.identification = lambda: "hello"  # type: ignore[attr-defined]
        (found,) = json.loads(here.command("devices", "--json", "-r", station.server.resource).out)
        assert "it answers 'hello' to *IDN?" in found["problem"]
        station.simulator.identification = lambda: ""  # type: ignore[attr-defined]
        (found,) = json.loads(here.command("devices", "--json", "-r", station.server.resource).out)
        assert "no answer to *IDN?" in found["problem"]


def test_an_unknown_model_of_a_known_family_is_told_with_the_key_that_drives_it(here: Any) -> None:
    with Station(Family.of("keithley-2400"), "2400") as station:
        station.simulator.pretends = "MODEL 2409"
        said = here.command("devices", "--json", "-r", station.server.resource)
    (found,) = json.loads(said.out)
    assert (found["kind"], found["toml"]) == ("", "")
    assert 'of keithley-2400 the nearest is 2401: treat_as = "2401"' in found["problem"]


def test_check_tells_what_is_driven_as_another_model(here: Any) -> None:
    text = (ROOT / "examples" / "bench-2636b-707b.toml").read_text(encoding="utf-8")
    text = text.replace('model = "2636B"', 'model = "2637B"\ntreat_as = "2636B"')
    (here.folder / "near.toml").write_text(text, encoding="utf-8")
    said = here.command("check", "near.toml", "--no-touch")
    assert said.status == 0, said.err
    assert "2637B treated as 2636B + 707B" in said.out
    (here.folder / "wrong.toml").write_text(
        text.replace('treat_as = "2636B"', 'treat_as = "2400"'), encoding="utf-8"
    )
    refused = here.command("check", "wrong.toml", "--no-touch")
    assert refused.status == 2
    assert "driver.instruments.smu.treat_as: '2400' is wrong: one of 2601B" in refused.err


def test_the_table_of_models_in_the_docs_is_what_the_command_prints(here: Any) -> None:
    printed = here.command("devices", "--models").out.strip()
    page = (ROOT / "docs" / "instrument-sheets.md").read_text(encoding="utf-8")
    _, _, rest = page.partition("<!-- begin rram-hil devices --models -->\n")
    table, _, _ = rest.partition("\n<!-- end -->")
    assert table == printed
    models = [m for family in kinds() for m in Family.of(family).driver.MODELS]
    assert sorted(models) == sorted(
        m
        for row in json.loads(here.command("devices", "--models", "--json").out)
        for m in row["models"]
    )


def test_serial_ports_are_opened_only_where_that_is_asked_for(
    here: Any, mocker: MockerFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(looking, "listed_serial", lambda: ["COM3"])
    opened = mocker.patch("serial.serial_for_url")
    said = here.command("devices", "--resource", "COM4")
    assert said.status == 0
    opened.assert_not_called()
    told = " ".join(said.out.split())
    assert "COM3" in told
    assert "COM4" in told
    assert "--probe-serial" in told


def test_a_board_is_known_whatever_chip_is_in_it(here: Any, board: SimulatedFarSide) -> None:
    port = board.settings["port"]
    said = here.command("devices", "--json", "--probe-serial", "-r", port)
    assert said.status == 0, said.err
    (found,) = json.loads(said.out)
    assert found["driver"] == "test-chip-board"
    assert found["model"]
    assert tomllib.loads(found["toml"]) == {"driver": {"name": "test-chip-board", "port": port}}


def test_a_driver_that_cannot_tell_says_nobody() -> None:
    assert Driver.identify_at("COM1") is None


def test_nothing_found_says_what_to_do(here: Any) -> None:
    said = here.command("devices")
    assert said.status == 0
    told = " ".join(said.out.split())
    assert "Nothing found" in told
    assert "--resource TCPIP::" in told
    assert here.command("devices", "--json").out.strip() == "[]"


def test_what_was_asked_can_be_recorded(here: Any) -> None:
    with Station(Family.of("keithley-2400"), "2400") as station:
        said = here.command(
            "devices", "--json", "-r", station.server.resource, "--record", "x.jsonl"
        )
    assert json.loads(said.out)[0]["model"] == "2400"
    _, events = read_traffic(here.folder / "x.jsonl")
    assert [e.do for e in events] == ["open", "send", "receive", "close"]


@pytest.fixture
def real_lists(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()


@pytest.mark.usefixtures("real_lists")
def test_listing_tolerates_missing_backends_and_leaves_serial_ports_to_pyserial(
    mocker: MockerFixture,
) -> None:
    manager = mocker.patch("pyvisa.ResourceManager")
    manager.return_value.list_resources.return_value = (
        "ASRL/dev/ttyS0::INSTR",
        "PRLGX-ASRL::/dev/ttyS0::INTFC",
        "USB0::0x05E6::0x2450::01::INSTR",
        "GPIB0::24::INSTR",
    )
    assert looking.listed_visa() == ["USB0::0x05E6::0x2450::01::INSTR", "GPIB0::24::INSTR"]
    for error in (ValueError("no backend"), OSError("no library"), Exception("usb")):
        manager.side_effect = error
        assert looking.listed_visa() == []
    port = mocker.Mock(device="COM5")
    mocker.patch("serial.tools.list_ports.comports", return_value=[port])
    assert looking.listed_serial() == ["COM5"]
    mocker.patch("serial.tools.list_ports.comports", side_effect=OSError("no /sys"))
    assert looking.listed_serial() == []
