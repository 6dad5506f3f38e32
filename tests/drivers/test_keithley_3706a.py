"""The 3706A over a real TCP link to its simulator: our driver and the one of QCoDeS."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from qcodes.instrument_drivers.Keithley import Keithley3706A as QcodesKeithley3706A

from rram_hil.drivers.keithley_3706a import Keithley3706A
from rram_hil.drivers.simulated.array.terminals import Fabric, Place
from rram_hil.drivers.simulated.keithley_3706a import Simulated3706A
from rram_hil.drivers.simulated.server.instrument import InstrumentServer
from rram_hil.errors import ConfigError, InstrumentError
from rram_hil.simulation.config import Timing

TWO_CARDS = ["3730", "3730", "", "", "", ""]
NAMES = map("switch{}".format, itertools.count())


class Watch(Fabric):
    """What is closed now."""

    now: frozenset[tuple[str, int]] = frozenset()

    def set_closed(self, points: frozenset[tuple[str, int]]) -> None:
        self.now = points


class Station:
    """A simulated mainframe behind its port, and the driver connected and armed."""

    def __init__(self, cards: list[str] | None = None) -> None:
        self.fabric = Watch()
        self.simulated = Simulated3706A("3706A", Place(fabric=self.fabric), cards)
        self.server = InstrumentServer(self.simulated, Timing())
        self.driver = Keithley3706A(
            Keithley3706A.Config(resource=self.server.resource, timeout_s=1.0)
        )
        self.driver.connect()
        self.driver.arm()


@pytest.fixture
def make() -> Iterator[Callable[..., Station]]:
    made: list[Station] = []

    def new(cards: list[str] | None = None) -> Station:
        made.append(Station(cards))
        return made[-1]

    yield new
    for station in made:
        station.driver.close()
        station.server.stop()


@pytest.fixture
def station(make: Callable[..., Station]) -> Station:
    return make()


def test_rows_are_letters_and_columns_run_on_over_the_slots(make: Callable[..., Station]) -> None:
    station = make(["3730", "", "3730", "", "", ""])
    assert station.driver.identity.model == "3706A"
    assert station.driver.columns == 96
    assert [(c.slot, c.rows, c.columns) for c in station.driver.cards] == [(1, 6, 16), (3, 6, 16)]
    station.driver.switch(close=[("A", 1), ("F", 16), ("B", 33)])
    assert station.driver.closed_names() == ("1101", "1616", "3201")
    assert station.driver.closed() == station.fabric.now == {("A", 1), ("F", 16), ("B", 33)}
    for point in (("G", 1), ("A", 17), ("A", 97)):
        with pytest.raises(ConfigError, match="no crosspoint"):
            station.driver.switch(close=[point])


def test_what_was_switched_is_read_back_whatever_it_was(station: Station) -> None:
    @settings(max_examples=25, deadline=None)
    @given(st.sets(st.tuples(st.sampled_from("ABCDEF"), st.integers(1, 96)), max_size=40))
    def law(points: set[tuple[str, int]]) -> None:
        station.driver.open_all()
        station.driver.switch(close=points)
        assert station.driver.closed() == station.fabric.now == points

    law()


def test_counts_are_closures(station: Station) -> None:
    for _ in range(2):
        station.driver.switch(close=[("C", 20)])
        station.driver.switch(open=[("C", 20)])
    assert station.driver.counts([("C", 20), ("A", 1)]).tolist() == [2, 0]


def test_a_closed_backplane_relay_is_not_off_and_all_open_opens_it(station: Station) -> None:
    station.driver.switch_backplane(close=["1911", "2916"])
    assert station.driver.closed() == frozenset()
    assert station.driver.closed_names() == ("1911", "2916")
    assert not station.driver.is_off()
    station.driver.switch_backplane(open=["1911"], close=["1912"])
    assert station.driver.closed_names() == ("1912", "2916")
    station.driver.safe_off()
    assert station.driver.is_off()
    assert not station.simulated.outputs_on


def test_an_open_interlock_keeps_the_backplane_open_and_not_the_crosspoints(
    station: Station,
) -> None:
    station.simulated.interlocks[2] = 0
    assert station.driver.interlocks() == {1: 3, 2: 0, 3: 3, 4: 3, 5: 3, 6: 3}
    with pytest.raises(ConfigError, match="interlock of slot 2"):
        station.driver.switch_backplane(close=["2911"])
    with pytest.raises(InstrumentError, match="interlock"):
        station.driver.run('channel.close("2911")')
    station.driver.switch(close=[("A", 17)])
    assert station.driver.closed_names() == ("2101",)


@pytest.mark.parametrize("name", ["1101", "7911", "1917", "3911", ""])
def test_names_that_are_no_backplane_relay_are_refused(
    make: Callable[..., Station], name: str
) -> None:
    with pytest.raises(ConfigError, match="no backplane relay"):
        make(TWO_CARDS).driver.switch_backplane(close=[name])


def test_variants_are_one_model_and_a_near_one_is_refused_with_the_key_that_drives_it() -> None:
    driver = Keithley3706A(Keithley3706A.Config(resource="unused"))
    assert driver.plain_model("MODEL 3706A-SNFP") == "3706A"
    assert driver.plain_model("MODEL 3706-NFP") == "3706"
    with pytest.raises(ConfigError, match='treat_as = "3706A"'):
        driver.accept("KEITHLEY INSTRUMENTS INC.", driver.plain_model("MODEL 3707A"))


@pytest.fixture
def qcodes_driver(make: Callable[..., Station]) -> Iterator[tuple[Station, QcodesKeithley3706A]]:
    station = make(TWO_CARDS)
    station.driver.close()
    other = QcodesKeithley3706A(next(NAMES), station.server.resource, visalib="@py", timeout=2)
    yield station, other
    other.close()


def test_qcodes_connects_and_reads_what_there_is(
    qcodes_driver: tuple[Station, QcodesKeithley3706A],
) -> None:
    station, other = qcodes_driver
    assert other.get_idn()["model"] == "3706A-SNFP"
    assert [card["slot_no"] for card in other.get_switch_cards()] == ["1", "2"]
    assert len(other.get_channels()) == 2 * 6 * 16
    assert {s["state"] for s in other.get_interlock_state()} == {
        "Both interlock 1 and 2 are engaged"
    }
    assert len(other.get_available_memory()) == 4
    assert other.get_ip_address() == "127.0.0.1"
    assert (other.gpib_enabled(), other.lan_enabled(), other.gpib_address()) == (True, True, 16)
    other.gpib_address(9)
    assert other.gpib_address() == 9
    other.gpib_enabled(False)
    assert other.gpib_enabled() is False
    assert not station.simulated.queue


def test_qcodes_closes_opens_and_reads_back(
    qcodes_driver: tuple[Station, QcodesKeithley3706A], soon_off: Any
) -> None:
    station, other = qcodes_driver
    assert other.get_closed_channels("allslots") is None
    other.close_channel("1101")
    other.close_channel("2603,2604")
    assert other.get_closed_channels("allslots") == ["1101", "2603", "2604"]
    assert station.fabric.now == {("A", 1), ("F", 19), ("F", 20)}
    other.exclusive_slot_close("1102")
    assert other.get_closed_channels("allslots") == ["1102", "2603", "2604"]
    other.open_channel("2603:2604")
    assert other.get_closed_channels("slot2") is None
    other.channel_connect_rule("MAKE_BEFORE_BREAK")
    assert other.channel_connect_rule() == "MAKE_BEFORE_BREAK"
    other.exclusive_close("1203")
    assert other.get_closed_channels("allslots") == ["1203"]
    other.connect_row_to_columns(1, 2, [3])
    other.disconnect_row_from_columns(1, 2, [4, 5])
    assert other.get_closed_channels("allslots") == ["1204", "1205"]
    other.open_channel("allslots")
    assert soon_off(station.simulated)
    assert not station.simulated.queue


def test_qcodes_sets_delays_backplane_and_forbidden_channels(
    qcodes_driver: tuple[Station, QcodesKeithley3706A],
) -> None:
    station, other = qcodes_driver
    other.set_delay("1305", 0.5)
    assert other.get_delay("1305,1306") == [0.5, 0.0]
    other.set_backplane("1101", "1911")
    assert other.get_backplane("1101") == "1911"
    other.close_channel("1101")
    assert other.get_closed_channels("allslots") == ["1101", "1911"]
    other.open_channel("1101")
    assert other.get_closed_channels("allslots") is None
    other.set_forbidden_channels("1305,1306")
    assert other.get_forbidden_channels("allslots") == "1305,1306"
    with pytest.warns(UserWarning, match="forbidden"):
        other.close_channel("1305")
    assert other.get_closed_channels("1305") is None
    assert [error.code for error in station.simulated.queue] == [1116]
    other.clear_forbidden_channels("1305")
    assert other.get_forbidden_channels("allslots") == "1306"
    other.reset_channel("allslots")
    assert other.get_forbidden_channels("allslots") == "nil"
    assert other.get_delay("1305") == [0.0]
