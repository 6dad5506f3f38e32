"""The 707B and 708B and the base of TSP drivers, each over a real TCP link to its simulator."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rram_hil.drivers.dialects.text import number_in
from rram_hil.drivers.dialects.tsp import numbers
from rram_hil.drivers.keithley_707b import Keithley707B
from rram_hil.drivers.simulated.array.terminals import Bus, Fabric, Place
from rram_hil.drivers.simulated.keithley_707b import Simulated707B
from rram_hil.drivers.simulated.server.control import Injected, LinkFault
from rram_hil.drivers.simulated.server.instrument import InstrumentServer
from rram_hil.errors import ConfigError, InstrumentError, LinkError
from rram_hil.simulation.config import Timing

LINK_S = 5e-3


class Watch(Fabric):
    """Every state of the relays, in order."""

    def __init__(self) -> None:
        self.states: list[frozenset[tuple[str, int]]] = []

    def set_closed(self, points: frozenset[tuple[str, int]]) -> None:
        self.states.append(points)

    @property
    def now(self) -> frozenset[tuple[str, int]]:
        return self.states[-1]


class Station:
    """A simulated mainframe behind its port, and the driver connected and armed."""

    def __init__(
        self,
        model: str = "707B",
        cards: list[str] | None = None,
        bus: Bus | None = None,
        **config: Any,
    ) -> None:
        self.fabric = Watch()
        self.bus = bus or Bus()
        self.simulated = Simulated707B(
            model, Place(name="matrix", bus=self.bus, fabric=self.fabric), cards
        )
        self.server = InstrumentServer(self.simulated, Timing(link_s=LINK_S, bytes_per_s=1e9))
        self.driver = Keithley707B(
            Keithley707B.Config(resource=self.server.resource, timeout_s=1.0, **config)
        )
        self.driver.connect()
        self.driver.arm()

    def close(self) -> None:
        self.driver.close()
        self.server.stop()


@pytest.fixture
def make() -> Iterator[Callable[..., Station]]:
    made: list[Station] = []

    def new(*args: Any, **more: Any) -> Station:
        made.append(Station(*args, **more))
        return made[-1]

    yield new
    for station in made:
        station.close()


@pytest.fixture
def station(make: Callable[..., Station]) -> Station:
    return make()


def test_columns_run_on_over_all_slots_and_empty_slots_keep_their_numbers(
    make: Callable[..., Station],
) -> None:
    station = make(cards=["7174A", "", "7173"])
    matrix = station.driver
    assert matrix.columns == 72
    assert [(c.slot, c.model, c.rows, c.columns) for c in matrix.cards] == [
        (1, "7174A", 8, 12),
        (3, "7173", 4, 12),
    ]
    matrix.switch(close=[("H", 12), ("D", 25)])
    assert matrix.closed_names() == ("1H12", "3D01")
    assert matrix.closed() == station.fabric.now == {("H", 12), ("D", 25)}
    sent = matrix.dialog.transactions
    for point in (("A", 13), ("E", 25), ("I", 1), ("", 1), ("A", 0), ("A", 73), ("AB", 1)):
        with pytest.raises(ConfigError, match="no crosspoint"):
            matrix.switch(close=[point])
    assert matrix.dialog.transactions == sent


def test_a_708b_has_one_slot_and_is_refused_where_a_707b_is_named(
    make: Callable[..., Station],
) -> None:
    station = make("708B")
    assert (station.driver.identity.model, station.driver.columns) == ("708B", 12)
    other = Keithley707B(
        Keithley707B.Config(resource=station.server.resource, model="707B", timeout_s=0.3)
    )
    with pytest.raises(ConfigError, match="708B"):
        other.connect()
    assert not other.dialog.link.is_open


def test_what_was_switched_is_read_back_whatever_it_was(station: Station) -> None:
    points = st.sets(st.tuples(st.sampled_from("ABCDEFGH"), st.integers(1, 72)), max_size=40)

    @settings(max_examples=25, deadline=None)
    @given(points, points)
    def law(first: set[tuple[str, int]], second: set[tuple[str, int]]) -> None:
        station.driver.open_all()
        station.driver.switch(close=first)
        assert station.driver.closed() == station.fabric.now == first
        station.driver.switch(open=first - second, close=second)
        assert station.driver.closed() == station.fabric.now == second

    law()


def test_a_switch_of_several_hundred_relays_is_one_transaction_in_lines_that_fit(
    station: Station,
) -> None:
    points = [(row, column) for row in "ABCDEFGH" for column in range(1, 73)]
    turns = station.server.transactions
    station.driver.switch(close=points)
    assert station.server.transactions == turns + 1
    assert station.fabric.now == set(points)
    np.testing.assert_array_equal(station.driver.counts(points), np.ones(576, dtype=np.int64))
    assert station.server.transactions == turns + 2


def test_breaks_before_it_makes(station: Station) -> None:
    station.driver.switch(close=[("A", 1)])
    before = len(station.fabric.states)
    station.driver.switch(open=[("A", 1)], close=[("A", 2)])
    assert station.fabric.states[before:] == [frozenset(), {("A", 2)}]


def test_nothing_closes_where_the_instrument_reported_an_error_before(station: Station) -> None:
    station.driver.switch(close=[("A", 1)])
    station.simulated.push_error(-286, "somebody else's mistake")
    with pytest.raises(InstrumentError, match="somebody else's mistake") as caught:
        station.driver.switch(open=[("A", 1)], close=[("A", 2)])
    assert caught.value.code == -286
    assert station.fabric.now == frozenset()


def test_a_forbidden_channel_raises_with_code_text_and_command(station: Station) -> None:
    station.driver.run('channel.setforbidden("1A03")')
    with pytest.raises(InstrumentError, match="forbidden") as caught:
        station.driver.switch(close=[("A", 3)])
    assert caught.value.code == 1116
    assert 'channel.close("1A03")' in caught.value.command
    assert station.driver.is_off()


def test_counts_are_closures_and_survive_a_reset(station: Station) -> None:
    for _ in range(3):
        station.driver.switch(close=[("B", 2)])
        station.driver.switch(close=[("B", 2)])
        station.driver.switch(open=[("B", 2)])
    station.driver.arm()
    counts = station.driver.counts([("B", 3), ("B", 2), ("B", 3), ("B", 2)])
    assert counts.tolist() == [0, 3, 0, 3]
    assert station.driver.counts([]).shape == (0,)


def test_a_switch_takes_the_settling_of_opening_and_of_closing(
    make: Callable[..., Station],
) -> None:
    station = make(cards=["7174A", "7072"], settle_s=0.5)
    clock = station.bus.clock
    assert station.driver.settle_s == pytest.approx(0.515)
    station.driver.switch(close=[("A", 1)])
    began = clock.now_s
    station.driver.switch(open=[("A", 1)], close=[("A", 13), ("B", 13)])
    assert clock.now_s - began == pytest.approx(LINK_S + 2e-3 + 15e-3 + 0.5, abs=1e-3)
    station.driver.run("channel.connectsequential = channel.ON")
    station.driver.open_all()
    began = clock.now_s
    station.driver.switch(close=[("A", 13), ("B", 13)])
    assert clock.now_s - began == pytest.approx(LINK_S + 2 * 15e-3 + 0.5, abs=1e-3)


def test_connect_leaves_relays_settings_and_errors_as_they_are(station: Station) -> None:
    station.driver.switch(close=[("C", 7)])
    station.driver.close()
    station.simulated.push_error(1107, "left over")
    station.simulated.rule = 2.0
    station.driver.connect()
    assert station.fabric.now == {("C", 7)}
    assert station.simulated.rule == 2.0
    assert [error.code for error in station.driver.errors()] == [1107]


def test_arm_opens_all_and_sets_break_before_make(station: Station) -> None:
    station.driver.switch(close=[("C", 7)])
    station.driver.run("channel.connectrule = channel.MAKE_BEFORE_BREAK localnode.prompts = 1")
    station.driver.arm()
    assert not station.simulated.outputs_on
    assert station.simulated.rule == 1.0
    assert not station.simulated.prompts


def test_works_with_prompts_on(station: Station) -> None:
    station.driver.run("localnode.prompts = 1")
    station.driver.switch(close=[("A", 1)])
    assert station.driver.closed() == {("A", 1)}
    with pytest.raises(InstrumentError):
        station.driver.run('channel.close("7A01")')
    assert station.driver.closed_names() == ("1A01",)


def test_safe_off_is_verified_on_the_same_connection(station: Station) -> None:
    station.driver.switch(close=[("A", 1), ("H", 72)])
    link = station.driver.dialog.link
    station.driver.safe_off()
    assert station.driver.dialog.link is link
    assert not station.simulated.outputs_on
    station.simulated.globals.get("channel").values["open"] = lambda channels: None
    station.driver.run('channel.close("1A01")')
    with pytest.raises(InstrumentError, match="still on"):
        station.driver.safe_off()


@pytest.mark.parametrize(
    "fault", [LinkFault.STUCK, LinkFault.DROP_REPLY, LinkFault.DISCONNECT_REPLY, LinkFault.GARBAGE]
)
def test_safe_off_works_after_a_fault_in_it(station: Station, fault: LinkFault) -> None:
    station.driver.switch(close=[("A", 1)])
    station.server.faults.add(Injected(fault))
    station.driver.safe_off()
    assert not station.simulated.outputs_on


def test_a_late_reply_is_not_taken_for_the_next(station: Station) -> None:
    station.driver.switch(close=[("A", 1)])
    station.server.faults.add(Injected(LinkFault.DELAY_REPLY, seconds=1.3))
    with pytest.raises(LinkError):
        station.driver.ask('print("old")')
    assert station.driver.ask('print("new")') == "new"
    assert station.driver.closed() == {("A", 1)}


def answering(
    bus: Bus, seen: list[frozenset[tuple[str, int]]], fabric: Watch, answers: int
) -> None:
    """A partner that takes a point at each pulse on its line 3 and tells so on its line 4, so many
    times.
    """
    bus.wire(("matrix", 1), ("meter", 3))
    bus.wire(("meter", 4), ("matrix", 2))

    def take() -> None:
        seen.append(fabric.now)
        bus.clock.advance(0.02)
        if len(seen) <= answers:
            bus.pulse(("meter", 4))

    bus.listen(("meter", 3), take)


def row(columns: int) -> list[tuple[list[tuple[str, int]], list[tuple[str, int]]]]:
    return [([("A", c - 1)] if c > 1 else [], [("A", c)]) for c in range(1, columns + 1)]


def test_triggered_steps_are_one_transaction_that_lasts_as_long_as_the_work(
    station: Station,
) -> None:
    seen: list[frozenset[tuple[str, int]]] = []
    answering(station.bus, seen, station.fabric, answers=32)
    station.driver.use_triggers(1, 2)
    turns, began = station.server.transactions, station.bus.clock.now_s
    station.driver.run_steps(row(32), out_line=1, in_line=2, takes_s=32 * 0.02)
    assert station.server.transactions == turns + 1
    assert seen == [{("A", c)} for c in range(1, 33)]
    assert station.bus.clock.now_s - began == pytest.approx(
        LINK_S + 32 * 0.02 + 63 * 2e-3, rel=0.05
    )


def test_a_trigger_that_stays_out_names_the_step_and_nothing_more_switches(
    station: Station,
) -> None:
    seen: list[frozenset[tuple[str, int]]] = []
    answering(station.bus, seen, station.fabric, answers=5)
    station.driver.use_triggers(1, 2)
    with pytest.raises(InstrumentError, match=r"line 2 .* after 5 of 8 steps"):
        station.driver.run_steps(row(8), out_line=1, in_line=2, timeout_s=2.0)
    assert station.fabric.now == {("A", 6)}


def test_an_error_in_a_step_ends_the_steps(station: Station) -> None:
    seen: list[frozenset[tuple[str, int]]] = []
    answering(station.bus, seen, station.fabric, answers=99)
    station.driver.use_triggers(1, 2)
    station.driver.run('channel.setforbidden("1A03")')
    with pytest.raises(InstrumentError, match="forbidden"):
        station.driver.run_steps(row(8), out_line=1, in_line=2)
    assert len(seen) == 2
    assert station.fabric.now == frozenset()


def test_an_old_pulse_does_not_release_the_first_step(station: Station) -> None:
    station.bus.wire(("meter", 4), ("matrix", 2))
    station.driver.use_triggers(1, 2)
    station.bus.pulse(("meter", 4))
    with pytest.raises(InstrumentError, match="after 0 of 1 steps"):
        station.driver.run_steps(row(1), out_line=1, in_line=2)


@pytest.mark.parametrize(("out_line", "in_line"), [(0, 2), (1, 15), (3, 3)])
def test_digital_lines_that_cannot_be_are_refused(
    station: Station, out_line: int, in_line: int
) -> None:
    with pytest.raises(ConfigError, match="digital line"):
        station.driver.use_triggers(out_line, in_line)


def test_is_a_node_on_tsp_link(make: Callable[..., Station]) -> None:
    bus = Bus()
    master, other = make("708B", bus=bus), make("708B", bus=bus)
    bus.nodes |= {1: master.simulated, 2: other.simulated}
    other.driver.switch(close=[("B", 5)])
    assert (
        master.driver.ask('node[2].channel.close("1A04") print(node[2].channel.getclose("slot1"))')
        == "1A04;1B05"
    )
    assert other.fabric.now == {("A", 4), ("B", 5)}
    assert master.driver.is_off()


@pytest.mark.parametrize(
    ("listed", "closed"),
    [
        ("1a01, 2H12", "1A01;2H12"),
        ("1A11:1B02", "1A11;1A12;1B01;1B02"),
        ("1B02;1A01,1B02", "1A01;1B02"),
    ],
)
def test_channel_lists(station: Station, listed: str, closed: str) -> None:
    station.driver.run(f'channel.close("{listed}")')
    assert station.driver.ask('print(channel.getclose("allslots"))') == closed
    assert station.driver.ask('print(channel.getclose("slot6"))') == "nil"


@pytest.mark.parametrize(
    "listed",
    ["", "1A13", "1I01", "7A01", "slot7", "allslots", "1A02:1A01", "1A01:", "bogus", "1A01,bogus"],
)
def test_a_list_with_an_error_closes_nothing(station: Station, listed: str) -> None:
    with pytest.raises(InstrumentError):
        station.driver.run(f'channel.close("{listed}")')
    assert station.driver.is_off()


def test_exclusive_closing_follows_the_connection_rule(station: Station) -> None:
    run = station.driver.run
    run('channel.close("1A01,2A01")')
    before = len(station.fabric.states)
    run('channel.exclusiveslotclose("2A02")')
    assert station.fabric.states[before:] == [{("A", 1)}, {("A", 1), ("A", 14)}]
    run('channel.connectrule = channel.MAKE_BEFORE_BREAK channel.exclusiveclose("1B01")')
    assert station.fabric.states[-2:] == [{("A", 1), ("A", 14), ("B", 1)}, {("B", 1)}]
    run('channel.exclusiveclose("")')
    assert station.driver.is_off()


def test_queries_answer_in_the_forms_of_the_manual(station: Station) -> None:
    ask = station.driver.ask
    station.driver.run(
        'channel.close("1A02") channel.setdelay("1A01", 3.1) channel.setforbidden("1A03")'
    )
    assert ask('print(channel.getstate("1A01:1A03"))') == "0,1,0"
    assert ask('print(channel.getcount("1A01:1A03"))') == "0,1,0"
    assert ask('print(channel.getdelay("1A01,1A02"))') == "3.10000e+00,0.00000e+00"
    assert ask('print(channel.getforbidden("allslots"))') == "1A03"
    assert (
        ask("print(channel.createspecifier(2, 8, 12), channel.connectrule)") == "2H12\t1.00000e+00"
    )
    with pytest.raises(InstrumentError) as caught:
        ask('print(channel.getdelay("1A77"))')
    assert caught.value.code == 1107


def test_a_syntax_error_is_raised_at_once_with_the_code_sent(station: Station) -> None:
    with pytest.raises(InstrumentError, match="Syntax") as caught:
        station.driver.run("channel.close('1A01'")
    assert (caught.value.code, caught.value.command) == (-285, "channel.close('1A01'")


def test_a_run_time_error_ends_the_script_and_is_raised(station: Station) -> None:
    with pytest.raises(InstrumentError, match="Runtime") as caught:
        station.driver.run('nothing.at_all = 1\nchannel.close("1A01")')
    assert caught.value.code == -286
    assert station.driver.is_off()


def test_several_errors_are_told_together_and_the_queue_is_empty_after(station: Station) -> None:
    with pytest.raises(InstrumentError, match="and 2 more: 1107; 1107"):
        station.driver.run('channel.close("x") channel.close("y") channel.close("z")')
    assert station.driver.errors() == []
    station.simulated.fill_queue()
    assert station.driver.errors()[-1].code == -350


def test_printing_more_or_less_than_asked_is_an_error_of_the_link(station: Station) -> None:
    with pytest.raises(LinkError, match="2 lines"):
        station.driver.ask("print(1) print(2)")
    with pytest.raises(LinkError, match="answered"):
        station.driver.run("print(1)")
    assert station.driver.lines("print(1) print('b')") == ["1.00000e+00", "b"]


def test_a_line_too_long_is_refused_and_nothing_sent(station: Station) -> None:
    sent = station.driver.dialog.transactions
    with pytest.raises(ConfigError, match="1200 characters"):
        station.driver.run("x = 1".ljust(1200))
    assert station.driver.dialog.transactions == sent


def test_loaded_scripts_are_there_and_what_does_not_compile_is_raised(station: Station) -> None:
    station.driver.load("double", "function double_it(x)\n\n  return 2 * x\nend")
    assert station.driver.ask("print(double_it(21))") == "4.20000e+01"
    with pytest.raises(InstrumentError) as caught:
        station.driver.load("broken", "function (")
    assert caught.value.code == -285
    with pytest.raises(ConfigError):
        station.driver.load("not a name", "x = 1")


def test_buffers_come_as_binary_in_full_precision_with_any_byte_in_them(station: Station) -> None:
    ends_lines = np.frombuffer(b"\n\n#0\n\r\n\x3f", dtype="<f8")[0]
    values = [1 / 3, -1.0000000000000002e-12, float(ends_lines), 9.91e37]
    station.driver.run(f"i = {{{', '.join(map(repr, values))}}} v = {{1, 2, 3, 4}}")
    turns = station.server.transactions
    data = station.driver.ask_buffers("n = 4", "i, v", "n")
    assert station.server.transactions == turns + 1
    np.testing.assert_array_equal(data, np.transpose([values, [1, 2, 3, 4]]))
    assert station.driver.ask_buffers("", "i", "0").shape == (0, 1)
    assert station.driver.ask("printbuffer(1, 2, v)") == "1.00000e+00, 2.00000e+00"


def test_an_error_before_a_binary_buffer_is_raised_and_the_link_stays_in_step(
    station: Station,
) -> None:
    with pytest.raises(InstrumentError):
        station.driver.ask_buffers("x = nil + 1", "i", "4")
    with pytest.raises((InstrumentError, LinkError)):
        station.driver.ask_buffers("i = {1}", "i", "3")
    assert station.driver.ask('print("fine")') == "fine"


def test_numbers_of_a_printed_line() -> None:
    assert numbers("1.0e-3\t2,  -3e37").tolist() == [1e-3, 2.0, -3e37]
    with pytest.raises(LinkError, match="nil"):
        numbers("1.0\tnil")


def test_an_error_that_quotes_what_is_no_text_is_told_as_an_error(station: Station) -> None:
    station.driver.dialog.link.send(b"\xff\x80~\n")
    (error,) = station.driver.errors()
    assert error.code == -285
    assert "xff" in str(error)
    assert station.driver.errors() == []


def test_garbage_before_the_answer_to_arm_is_a_link_error(
    station: Station, monkeypatch: pytest.MonkeyPatch
) -> None:
    act = station.simulated.message
    right = b"1.00000e+00\tnil"

    def spoiled(line: str) -> str | bytes:
        reply = act(line)
        data = reply if isinstance(reply, bytes) else reply.encode("latin-1")
        return data.replace(right, b"#14" + right)

    monkeypatch.setattr(station.simulated, "message", spoiled)
    with pytest.raises(LinkError, match=r"'#141.00000e\+00' is no number"):
        station.driver.arm()


@pytest.mark.parametrize("word", ["", "#141.0", "1.00000e/00", "nan", "1e999"])
def test_a_word_that_is_no_finite_number_is_a_link_error(word: str) -> None:
    with pytest.raises(LinkError, match="is no number"):
        number_in(word, "matrix")
