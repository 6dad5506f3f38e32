"""Recordings: what goes over a link survives in a file, and a playback stands in for the far
side.
"""

from __future__ import annotations

import json
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rram_hil.array import pulse
from rram_hil.bench.bench import Bench
from rram_hil.bench.bench_file import load_bench_file
from rram_hil.drivers.simulated.server.control import BoardControl
from rram_hil.errors import BenchError, DataError, LinkError
from rram_hil.wire.dialog import Dialog, ese_probe
from rram_hil.wire.open_link import make_link
from rram_hil.wire.recording import Playback, Recorder, Traffic, read_traffic

RESOURCE = "GPIB0::24::INSTR"


def recording(folder: Path, *events: tuple[str, bytes], name: str = "session.jsonl") -> Path:
    """A recording of one link with these events, made as a link makes it."""
    path = folder / name
    with Recorder(path) as recorder:
        for do, data in events:
            recorder.note(RESOURCE, do, data)  # type: ignore[arg-type]
    return path


def replay(path: Path) -> tuple[Dialog, Playback]:
    """A dialog with the playback of a recording."""
    playback = Playback(path)
    return Dialog(make_link(RESOURCE, playback), ese_probe, timeout_s=0.2), playback


@given(
    st.lists(st.tuples(st.sampled_from(["send", "receive"]), st.binary(max_size=300)), max_size=12)
)
def test_any_bytes_survive(events: list[tuple[str, bytes]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        seed, kept = read_traffic(recording(Path(folder), *events))
    assert [(e.do, e.data) for e in kept] == events
    assert {e.link for e in kept} <= {RESOURCE}
    assert (np.diff([e.time_s for e in kept]) >= 0).all()
    assert seed >= 0


@settings(deadline=None)
@given(
    st.lists(st.binary(min_size=1, max_size=40), min_size=1, max_size=8),
    st.lists(st.integers(1, 60), min_size=1, max_size=30),
)
def test_a_playback_gives_the_same_bytes_in_whatever_pieces_they_are_asked_for(
    pieces: list[bytes], sizes: list[int]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = recording(Path(folder), ("open", b""), *(("receive", piece) for piece in pieces))
        playback = Playback(path)
    link = make_link(RESOURCE, playback)
    link.open()
    whole, got = b"".join(pieces), b""
    for size in sizes:
        if len(got) == len(whole):
            break
        part = link.receive(size, 0.0)
        assert part == whole[len(got) : len(got) + size]
        got += part
    while len(got) < len(whole):
        line = link.receive(1000, 0.0, b"\n")
        assert line == whole[len(got) :].partition(b"\n")[0] + b"\n" * (b"\n" in whole[len(got) :])
        got += line
    assert playback.left() == 0
    with pytest.raises(DataError, match="used up"):
        link.receive(1, 0.0)


def test_a_reply_that_came_in_one_piece_is_taken_in_several_and_the_other_way_round(
    tmp_path: Path,
) -> None:
    path = recording(
        tmp_path,
        ("open", b""),
        ("send", b"A?\n"),
        ("receive", b"1.25\n"),
        ("send", b"B?\n"),
        ("receive", b"#1"),
        ("receive", b"3ab"),
        ("receive", b"c"),
        ("receive", b"\n"),
    )
    dialog, playback = replay(path)
    dialog.open()
    dialog.link.send(b"A?\n")
    assert [dialog.link.receive(2, 1.0) for _ in range(3)] == [b"1.", b"25", b"\n"]
    assert dialog.query("B?") == "#13abc"
    assert playback.left() == 0


@pytest.mark.parametrize(
    ("act", "told"),
    [
        (
            lambda d: d.query("C?"),
            r"send b'C\?\\n' where the recording has, after 0\.\d+ s, send b'A\?\\n'",
        ),
        (
            lambda d: d.link.receive(10, 0.1),
            r"a reply is awaited where the recording has, after .* send b'A\?\\n'",
        ),
        (lambda d: d.link.drain(), r"drain b'' where the recording has, after .* send b'A\?\\n'"),
        (
            lambda d: (d.query("A?"), d.query("A?")),
            r"send b'A\?\\n' where the recording is used up",
        ),
        (
            lambda d: (d.query("A?"), d.link.receive(1, 0.1)),
            "a reply is awaited where the recording is used up",
        ),
    ],
)
def test_what_differs_from_the_recording_is_named(
    tmp_path: Path, act: Callable[[Dialog], object], told: str
) -> None:
    path = recording(tmp_path, ("open", b""), ("send", b"A?\n"), ("receive", b"1\n"))
    dialog, _ = replay(path)
    dialog.open()
    with pytest.raises(DataError, match=rf"session\.jsonl: {RESOURCE}: {told}"):
        act(dialog)


def test_another_resource_than_the_recorded_one_is_named(tmp_path: Path) -> None:
    path = recording(tmp_path, ("open", b""))
    with pytest.raises(DataError, match=r"COM7: open b'' where the recording is used up"):
        make_link("COM7", Playback(path)).open()


def test_failures_are_played_back_too(tmp_path: Path) -> None:
    path = recording(
        tmp_path,
        ("error", b"refused"),
        ("close", b""),
        ("open", b""),
        ("send", b"A?\n"),
        ("receive", b""),
        ("drain", b""),
        ("send", b"*ESE 1;*ESE?\n"),
        ("receive", b"1\n"),
        ("send", b"A?\n"),
        ("error", b"gone"),
        ("close", b""),
        ("open", b""),
    )
    dialog, playback = replay(path)
    with pytest.raises(LinkError, match="refused"):
        dialog.open()
    assert not dialog.link.is_open
    dialog.open()
    with pytest.raises(LinkError, match=r"no reply to 'A\?'"):
        dialog.query("A?")
    with pytest.raises(LinkError, match="gone"):
        dialog.query("A?")
    assert not dialog.link.is_open
    dialog.open()
    assert dialog.link.is_open
    assert playback.left() == 0


def test_a_driver_may_look_more_or_less_often_before_it_gives_up(tmp_path: Path) -> None:
    path = recording(
        tmp_path, ("open", b""), ("send", b"A?\n"), *[("receive", b"")] * 3, ("send", b"B?\n")
    )
    for looks in (1, 3, 5):
        dialog, playback = replay(path)
        dialog.open()
        dialog.link.send(b"A?\n")
        assert [dialog.link.receive(10, 0.001) for _ in range(looks)] == [b""] * looks
        dialog.link.send(b"B?\n")
        assert playback.left() == 0


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ('{"t": 0, "link": "a", "do": "send"', "line 3 is not an event"),
        ('{"t": 0, "link": "a", "do": "send"}', "line 3 is not an event"),
        ('{"t": 0, "link": "a", "do": "sing", "data": ""}', "line 3: unknown event 'sing'"),
        ('{"t": 0, "link": "a", "do": "send", "data": "\\u20ac"}', "line 3 is not an event"),
        ("[1, 2]", "line 3 is not an event"),
        ("", "line 3 is not an event"),
    ],
)
def test_a_damaged_line_is_named(tmp_path: Path, line: str, told: str) -> None:
    path = recording(tmp_path, ("open", b""), ("send", b"A?\n"))
    lines = path.read_text(encoding="utf-8").splitlines()
    lines[2] = line
    path.write_text("\n".join([*lines, "more"]), encoding="utf-8")
    with pytest.raises(DataError, match=rf"session\.jsonl: {told}"):
        Playback(path)


@pytest.mark.parametrize(
    "text",
    ["", "{}", '{"format": "other", "version": 1}', '{"format": "rram-hil traffic", "version": 9}'],
)
def test_what_is_no_recording_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "x").write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=r"not a recording|line 1"):
        read_traffic(tmp_path / "x")
    with pytest.raises(DataError, match="cannot be read"):
        read_traffic(tmp_path / "nothing")


def test_a_recording_overwrites_nothing(tmp_path: Path) -> None:
    path = recording(tmp_path)
    with pytest.raises(DataError, match="exists; a recording does not overwrite"):
        Recorder(path)
    with pytest.raises(DataError, match="cannot be written"):
        Recorder(tmp_path / "no folder" / "x")
    with pytest.raises(ZeroDivisionError), Recorder(tmp_path / "none"):
        raise ZeroDivisionError
    assert not (tmp_path / "none").exists()
    recorder = Recorder(tmp_path / "some")
    recorder.note("x", "open")
    recorder.__exit__(ZeroDivisionError)
    assert len(read_traffic(tmp_path / "some")[1]) == 1


@pytest.fixture
def counter() -> Iterator[str]:
    """A text instrument "host:port" that counts its queries; LATE? is answered too late, GONE? by
    hanging up.
    """
    listener = socket.create_server(("127.0.0.1", 0))
    asked = 0

    def serve() -> None:
        nonlocal asked
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection, connection.makefile("rb") as stream:
                for line in stream:
                    asked += 1
                    if line.startswith(b"*ESE"):
                        connection.sendall(line[5:].partition(b";")[0] + b"\n")
                    elif line == b"GONE?\n":
                        break
                    elif line == b"BLOCK?\n":
                        connection.sendall(b"#3256" + bytes(range(256)) + b"\n")
                    elif line != b"LATE?\n":
                        connection.sendall(f"{asked} {line!r}\n".encode())

    threading.Thread(target=serve, daemon=True).start()
    yield "{}:{}".format(*listener.getsockname())
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()


@pytest.mark.parametrize("form", ["TCPIP::{}::{}::SOCKET", "socket://{}:{}"])
def test_a_session_with_its_failures_is_the_same_when_played_back(
    tmp_path: Path, counter: str, form: str
) -> None:
    resource = form.format(*counter.split(":"))

    def session(traffic: Traffic) -> list[Any]:
        dialog = Dialog(make_link(resource, traffic), ese_probe, timeout_s=0.1)
        dialog.open()
        got: list[Any] = [traffic.nonce()]
        for question in ("A?", "BLOCK?", "LATE?", "B?", "GONE?", "C?"):
            try:
                got.append(
                    dialog.query_block(question) if question == "BLOCK?" else dialog.query(question)
                )
            except LinkError as error:
                got.append(str(error))
                if not dialog.link.is_open:
                    dialog.open()
        dialog.close()
        return got

    with Recorder(tmp_path / "x") as recorder:
        before = session(recorder)
    assert before[2] == bytes(range(256))
    assert "no reply" in before[3]
    playback = Playback(tmp_path / "x")
    assert session(playback) == before
    assert playback.left() == 0


BOARD = """
[chip]
id = "c1"
tiles = 1
rows = 8
columns = 8
cell = "1T1R"

[driver]
name = "test-chip-board"
{port}

[limits]
bl_v = 4.0
sl_v = 4.0
wl_v = 4.0
cell_v = 4.0
gate_over_v = 4.2
half_select_v = 0.5
read_v = 0.25
current_a = 1e-3
energy_j = 1e-7
width_s = 1e-5
pulses_per_cell = 1000
"""


@pytest.mark.parametrize("transport", ["socket", "pty"])
def test_a_session_with_the_board_is_played_back_without_it(tmp_path: Path, transport: str) -> None:
    def session(bench: Bench) -> list[np.ndarray]:
        cells = bench.cells()
        results: list[Any] = [
            bench.do(pulse(cells, bl_v=3.5, wl_v=2.0, width_s=1e-6, read=bench.file.read.step))
        ]
        if bench.far_side is not None:
            with BoardControl(bench.far_side.control) as control:
                control.inject("drop-reply", "APPLY")
                control.inject("corrupt-reply", "APPLY")
        results.append(
            bench.do(pulse(cells[::3], sl_v=1.4, wl_v=3.5, width_s=2e-7, read=bench.file.read.step))
        )
        maps = [bench.read_map() for _ in range(2)]
        return [*maps, *(a for r in results for a in (r.last_s, r.status))]

    (tmp_path / "bench.toml").write_text(
        BOARD.format(port="") + f'[simulation]\ntransport = "{transport}"\n'
    )
    with (
        Recorder(tmp_path / "x") as recorder,
        Bench.open(tmp_path / "bench.toml", traffic=recorder) as bench,
    ):
        before, identity = session(bench), bench.identity
        assert bench.far_side is not None
        told = bench.far_side.settings
    (tmp_path / "c1.ledger.npy").unlink()
    real = tmp_path / "real.toml"
    real.write_text(
        BOARD.format(port="\n".join(f"{key} = {json.dumps(value)}" for key, value in told.items()))
    )
    playback = Playback(tmp_path / "x")
    with Bench.open(real, traffic=playback) as bench:
        assert bench.far_side is None
        assert bench.identity == identity
        after = session(bench)
    assert playback.left() == 0
    for one, other in zip(before, after, strict=True):
        np.testing.assert_array_equal(one, other)
    # Another question than then is refused, and names what was sent then.
    (tmp_path / "c1.ledger.npy").unlink()
    with (
        pytest.raises(BenchError, match="where the recording has"),
        Bench.open(real, traffic=Playback(tmp_path / "x")) as b,
    ):
        b.read_map()


def test_a_bench_with_a_simulation_section_is_played_back_without_starting_it(
    tmp_path: Path,
) -> None:
    (tmp_path / "bench.toml").write_text(BOARD.format(port='port = "COM9"') + "[simulation]\n")
    path = recording(tmp_path, ("open", b""))
    with pytest.raises(DataError, match="COM9: open"):
        Bench.open(load_bench_file(tmp_path / "bench.toml"), traffic=Playback(path))
