"""What files, boards and instruments say reaches the terminal as text; wrong files are told apart
and misspelt keys named; files are written where they belong.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import socket
import sys
import threading
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from rram_hil.bench import calibrations
from rram_hil.bench.calibrations import utc_now
from rram_hil.cli import main
from rram_hil.errors import LONGEST_TOLD, ConfigError, DataError, printable
from rram_hil.terminal.console import Output
from rram_hil.units import elapsed

ESCAPE = "\x1b]0;pwned\x07\x1b[2J\x9b31m\u202e"
RUN = ("run", "recipe.toml", "--bench", "bench.toml", "--out", "r.h5")
READ = '[[step]]\nprotocol = "read-map"\n'


def clean(text: str) -> bool:
    return not any(c in text for c in ESCAPE if not c.isprintable())


def test_printable_text_stays_and_the_rest_is_shown_as_escapes() -> None:
    assert printable("12.3 µA ± 5 %\n\tΩ") == "12.3 µA ± 5 %\n\tΩ"
    assert printable("\x1b[2J\x9b\u202e\ud800") == "\\x1b[2J\\x9b\\u202e\\ud800"
    assert printable(printable(ESCAPE)) == printable(ESCAPE)


def test_the_text_of_an_error_is_short_and_harmless() -> None:
    error = ConfigError(ESCAPE + "x" * 100_000, where="bench.toml")
    assert clean(str(error))
    assert len(str(error)) < LONGEST_TOLD + 10
    assert str(error).startswith("bench.toml: ")


@pytest.mark.long
def test_titles_and_names_reach_neither_terminal_nor_page(here: Any) -> None:
    text = Path("bench.toml").read_text()
    quoted = json.dumps(ESCAPE)
    here.write(
        "bench.toml",
        f"operator = {quoted}\n" + text.replace("[driver]", f"lot = {quoted}\n[driver]"),
    )
    here.write("recipe.toml", f"title = {quoted}\n[[step]]\nprotocol = 'read-noise'\n")
    assert here.command(*RUN).status == 0
    with h5py.File("r.h5", "a") as file:
        (name,) = file["results"]
        file["results"].move(name, f"1_<script>{ESCAPE}")
    shown = here.command("show", "r.h5")
    assert shown.status == 0
    assert clean(shown.out + shown.err)
    assert "\\x1b[2J" in shown.out
    pytest.importorskip("matplotlib")
    assert here.command("report", "r.h5", "--out", "p.html").status == 0
    page = Path("p.html").read_text()
    assert clean(page)
    assert "<script>" not in page
    assert "&lt;script&gt;" in page


def test_a_table_shows_markup_as_it_stands(capsys: pytest.CaptureFixture[str]) -> None:
    output = Output()
    output.table(("[bold]a[/bold]" + ESCAPE,), [("[red]b" + ESCAPE,)])
    output.facts([("[blink]n", "[/]v" + ESCAPE)])
    output.heading("[i]h" + ESCAPE, ESCAPE)
    said = capsys.readouterr().out
    assert clean(said)
    for text in ("[bold]a[/bold]", "[red]b", "[blink]n", "[/]v", "[i]h"):
        assert text in said


def test_the_identity_of_an_instrument_is_text(here: Any) -> None:
    listener = socket.create_server(("127.0.0.1", 0))

    def answer() -> None:
        host, _ = listener.accept()
        with host:
            host.recv(99)
            host.sendall(f"KEITHLEY,MODEL 2400{ESCAPE.splitlines()[0]},1,2\n".encode())

    threading.Thread(target=answer, daemon=True).start()
    resource = f"TCPIP::127.0.0.1::{listener.getsockname()[1]}::SOCKET"
    said = here.command("devices", "-r", resource)
    assert said.status == 0
    assert "MODEL 2400" in said.out or "2400" in said.out
    assert clean(said.out)


def test_keys_and_columns_of_files_are_text(here: Any) -> None:
    here.write("b.toml", Path("bench.toml").read_text() + '\n"\\u001b[2Jk" = 1\n')
    assert "\\x1b[2Jk" in here.refused("check", "b.toml")
    Path("m.csv").write_bytes(b"cell,\x1b[2Jx\n1,2\n")
    assert "\\x1b[2Jx" in here.refused("calibrate", "device-model", "m.csv", "-o", "q.toml")


@pytest.mark.parametrize(
    "text",
    ["a=" + "[" * 30_000, ".".join("a" * 5000) + " = 1", "a = " + "9" * 5000, "a = " + "{b=" * 999],
)
def test_deep_and_endless_toml_is_one_line_everywhere(here: Any, text: str) -> None:
    here.write("deep.toml", text)
    bench = Path("bench.toml").read_text()
    here.write("c.toml", bench + '\n[calibration]\nfiles = ["deep.toml"]\n')
    here.write("m.toml", bench.replace('device = "hfo2"', 'device = "deep.toml"'))
    for command in (
        ("check", "deep.toml"),
        ("plan", "deep.toml", "--bench", "bench.toml"),
        ("check", "c.toml"),
        ("check", "m.toml"),
    ):
        line = here.refused(*command)
        assert "deep.toml" in line
        assert len(line) < LONGEST_TOLD + 50


def test_a_damaged_gzip_of_measured_data_is_one_line(here: Any) -> None:
    data = bytearray(gzip.compress(b"cell,r_hrs_ohm,r_lrs_ohm\n" + b"1,1000,100\n" * 300))
    data[20] ^= 0xFF
    Path("m.csv.gz").write_bytes(data)
    assert "m.csv.gz: cannot be read" in here.refused(
        "calibrate", "device-model", "m.csv.gz", "-o", "q.toml"
    )


def test_an_empty_npz_is_damage_and_no_operator(here: Any) -> None:
    Path("empty.npy").write_bytes(b"")
    here.write(
        "recipe.toml",
        '[[step]]\nprotocol = "write-verify"\ntargets = { map = "empty.npy" }\n',
    )
    said = here.command("plan", "recipe.toml", "--bench", "bench.toml")
    assert said.status == 2
    assert "stopped" not in said.err
    assert said.err.count("\n") <= 2


def test_a_file_that_ends_too_early_is_not_told_as_stopped(
    here: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command line's own library takes an `EOFError` for a key of the operator."""

    def ended(*_: object, **__: object) -> None:
        raise EOFError("No data left in file")

    monkeypatch.setattr("rram_hil.terminal.show.show_run", ended)
    said = here.command("show", "r.h5")
    assert said.status == 2
    assert "a file ended too early: No data left in file" in said.err


def test_what_the_disk_refuses_is_one_line(here: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object, **__: object) -> None:
        raise OSError(5, "Input/output error", "/disk/bench.toml")

    monkeypatch.setattr("rram_hil.bench.project.load_bench_file", refused)
    said = here.command("check", "bench.toml")
    assert said.status == 2
    assert said.err == "rram-hil: /disk/bench.toml: Input/output error\n"


# Which file, which key


def test_swapped_files_are_named(here: Any) -> None:
    told = here.refused("run", "bench.toml", "--bench", "recipe.toml")
    assert "bench.toml: a bench file, where a recipe is wanted" in told
    assert "a recipe, where a bench file is wanted" in here.refused("check", "recipe.toml")
    here.write(
        "b.toml", Path("bench.toml").read_text() + '\n[calibration]\nfiles = ["recipe.toml"]\n'
    )
    assert "a recipe, where a calibration file is wanted" in here.refused("check", "b.toml")


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("[limits]", "[limit]", "limit: unknown key; did you mean limits?"),
        ("cell_v = 4.0", "cel_v = 4.0", "limits.cel_v: unknown key; did you mean cell_v?"),
        ("seed = 1", "sed = 1", "simulation.sed: unknown key"),
        ("tiles = 1", "tyles = 1", "chip.tyles: unknown key; did you mean tiles?"),
        ("[driver]", "[drivr]", "drivr: unknown key; did you mean driver?"),
    ],
)
def test_a_misspelt_key_of_a_bench_file_is_named(here: Any, old: str, new: str, told: str) -> None:
    here.bench(old, new)
    assert told in here.refused("check", "bench.toml")


def test_misspelt_keys_of_a_recipe_are_named(here: Any) -> None:
    for text, told in (
        ('[[step]]\nprotocl = "read-map"\n', "protocol: missing; give its name"),
        ('[[step]]\nprotocl = "read-map"\n', "; there is 'protocl'"),
        ('[[steps]]\nprotocol = "read-map"\n', "steps: unknown key; did you mean step?"),
        (f"{READ}repeats = 3\n", "repeats: unknown key; did you mean repeat?"),
    ):
        here.write("wrong.toml", text)
        assert told in here.refused("plan", "wrong.toml", "--bench", "bench.toml")


def test_calibrate_without_arguments_prints_its_help(here: Any) -> None:
    said = here.command("calibrate")
    assert said.status == 0
    assert "Usage: rram-hil calibrate" in said.out
    assert "device-model" in said.out
    assert said.err == ""


def test_an_address_that_is_none_is_told_as_such(here: Any) -> None:
    said = here.command("devices", "-r", "garbage", "--json")
    (found,) = [d for d in json.loads(said.out) if d["resource"] == "garbage"]
    assert said.status == 0
    assert found["problem"].startswith("neither a VISA resource")
    assert "Traceback" not in said.err
    plain = here.command("devices", "-r", "garbage")
    assert plain.status == 0
    assert "neither a VISA resource" in " ".join(plain.out.split())


# Where files are written


LINES = """\
[[step]]
protocol = "lines"
file = "{file}"
references = [ {{ row = 0, column = 7, ohm = 1000.0, half_width_ohm = 0.2 }},
               {{ row = 7, column = 0, ohm = 1000.0, half_width_ohm = 0.2 }} ]
"""
RESISTORS = "[[simulation.resistors]]\nrow = {}\ncolumn = {}\nohm = 1000.0\n"


def test_a_calibration_stays_in_the_recipes_folder_and_spares_other_files(here: Any) -> None:
    inside = here.folder / "in"
    inside.mkdir()
    notes = here.folder / "notes.txt"
    notes.write_text("the lab's notes")
    (inside / "notes.txt").write_text("more notes")
    (inside / "link.toml").symlink_to(notes)
    bench = Path("bench.toml").read_text() + RESISTORS.format(0, 7) + RESISTORS.format(7, 0)
    here.write("bench.toml", bench)
    for file, told in (
        ("../notes.txt", "lies outside the recipe's folder"),
        (str(notes), "lies outside the recipe's folder"),
        ("link.toml", "lies outside the recipe's folder"),
        ("notes.txt", "exists and is no calibration"),
    ):
        here.write("in/r.toml", LINES.format(file=file))
        for resume in ((), ("--resume",)):
            line = here.refused("run", "in/r.toml", "--bench", "bench.toml", "-o", "r.h5", *resume)
            assert told in line
            assert "--force" in line
    assert notes.read_text() == "the lab's notes"
    assert (inside / "notes.txt").read_text() == "more notes"
    here.write("in/r.toml", LINES.format(file="new.toml"))
    for name in ("1.h5", "2.h5"):  # the second writes over a calibration, which is what it is for
        said = here.command("run", "in/r.toml", "--bench", "bench.toml", "-o", name)
        assert said.status == 0, said.err
    here.write("in/r.toml", LINES.format(file="../notes.txt"))
    said = here.command("run", "in/r.toml", "--bench", "bench.toml", "-o", "3.h5", "--force")
    assert said.status == 0, said.err
    assert notes.read_text().startswith('kind = "lines"')


LINES_KEYS = "references" + LINES.partition("references")[2]


def test_calibrate_writes_over_a_file_only_with_force(here: Any) -> None:
    bench = Path("bench.toml").read_text() + RESISTORS.format(0, 7) + RESISTORS.format(7, 0)
    here.write("bench.toml", bench)
    here.write("keys.toml", LINES_KEYS.format())
    command = ("calibrate", "lines", "keys.toml", "--bench", "bench.toml", "-o", "new.toml")
    Path("new.toml").write_text("the lab's notes")
    assert "new.toml exists; add --force to overwrite it" in here.refused(*command)
    assert Path("new.toml").read_text() == "the lab's notes"
    for _ in range(2):  # the second time over a calibration, and beside its run file
        said = here.command(*command, "--force")
        assert said.status == 0, said.err
        assert Path("new.toml").read_text().startswith('kind = "lines"')
    assert {"new.h5", "new-2.h5"} <= here.files()
    assert "new-2.h5" in said.out


# A run that is finished


def test_a_viewer_that_holds_the_run_file_at_the_end_does_not_fail_the_run(
    here: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    here.write("recipe.toml", READ)
    given = os.replace

    def held(source: Any, target: Any) -> None:
        if Path(target).name == "r.h5" and Path(target).exists():
            raise PermissionError(13, "another program has it open")
        given(source, target)

    monkeypatch.setattr("os.replace", held)
    said = here.command(*RUN)
    told = " ".join(said.err.split())
    assert said.status == 0, said.err
    assert "done, but r.h5: cannot be replaced: another program has it open" in told
    assert "the run file will be written by --resume" in told
    assert "Done  1 step, outputs off" in said.out
    with h5py.File("r.h5") as file:
        assert file.attrs["status"] == "interrupted"
    monkeypatch.setattr("os.replace", given)
    assert here.command(*RUN, "--resume").status == 0
    with h5py.File("r.h5") as file:
        assert file.attrs["status"] == "complete"


@pytest.mark.parametrize("encoding", ["cp1252", "ascii"])
def test_a_terminal_that_lacks_letters_fails_no_run(
    here: Any, monkeypatch: pytest.MonkeyPatch, encoding: str
) -> None:
    here.write("recipe.toml", f'title = "\u03a9 \u96fb\u5727 \u263a"\n{READ}')
    for command in (RUN, ("show", "r.h5")):
        streams = {}
        for name in ("stdout", "stderr"):
            streams[name] = io.TextIOWrapper(io.BytesIO(), encoding=encoding, write_through=True)
            monkeypatch.setattr(sys, name, streams[name])
        with pytest.raises(SystemExit) as left:
            main(list(command))
        said = b"".join(stream.buffer.getvalue() for stream in streams.values())  # type: ignore[attr-defined]
        assert left.value.code == 0, said
    assert b"? ?? ?" in said


# Clocks


def test_a_clock_off_the_calendar_is_at_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    class Calendar:
        max = calibrations.datetime.max

        @staticmethod
        def now(_: object) -> None:
            raise ValueError("year 10265 is out of range")

    monkeypatch.setattr(calibrations, "datetime", Calendar)
    assert utc_now().year == 9999


def test_a_clock_that_was_set_back_gives_no_negative_time(here: Any) -> None:
    assert elapsed(1.0, 3.5) == 2.5
    assert np.isnan(elapsed(3.5, 1.0))
    here.write("recipe.toml", READ)
    assert here.command(*RUN).status == 0
    with h5py.File("r.h5", "a") as file:
        file.attrs["ended_utc"] = "1999-01-01T00:00:00+00:00"
        file["steps/started_s"][:] = 1e9
    said = here.command("show", "r.h5")
    assert said.status == 0
    assert "clock was set back" in " ".join(said.out.split())
    assert "-1" not in said.out.split("Steps")[1].split("Maps")[0]


def test_errors_of_data_name_what_they_are_of() -> None:
    assert str(DataError("cut", where="x.npz")) == "x.npz: cut"
