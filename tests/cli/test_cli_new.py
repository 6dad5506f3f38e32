"""`rram-hil new` writes what works: each starting point is tried as its last line says."""

from __future__ import annotations

import errno
import os
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from wheels import install_from_wheel

from rram_hil.errors import DataError
from rram_hil.terminal.starting_points import EXAMPLES, KINDS, PAGES, starting_point

ROOT = Path(__file__).parents[2]
LONG_PLANS = ("characterise", "program-smu")
"""Recipes whose plan alone takes seconds."""
OWN_BENCHES = {"smu": "2636b-707b", "ni-rram": "ni-pxi", "temperature": "thermostat"}
"""Words in a recipe's name, and the bench that it is for."""


@pytest.mark.parametrize(
    "like", [p.stem.removeprefix("bench-") for p in (ROOT / "examples").glob("bench-*.toml")]
)
def test_a_bench_begins_as_an_example_with_a_chip_of_its_own(here: Any, like: str) -> None:
    said = here.command("new", "bench", "lab-3", "--like", like)
    assert said.status == 0, said
    text = (here.folder / "lab-3.toml").read_text(encoding="utf-8")
    assert tomllib.loads(text)["chip"]["id"] == "lab-3"
    assert "example" not in text
    assert "rram-hil check lab-3.toml" in said.out


@pytest.mark.parametrize(
    "like",
    [
        pytest.param(name, marks=[pytest.mark.long] * (name in LONG_PLANS))
        for name in sorted(p.stem[7:] for p in (ROOT / "examples").glob("recipe-*.toml"))
    ],
)
def test_a_recipe_begins_as_an_example_with_all_that_it_reads(here: Any, like: str) -> None:
    bench = next((b for words, b in OWN_BENCHES.items() if words in like), "simulated")
    assert here.command("new", "bench", "b", "--like", bench).status == 0
    assert here.command("new", "recipe", "r", "--like", like).status == 0
    assert here.command("plan", "r.toml", "--bench", "b.toml", "--chips", "0").status == 0


def test_a_bench_and_a_recipe_run_as_they_are(here: Any) -> None:
    here.command("new", "bench", "b")
    here.command("new", "recipe", "r")
    assert here.command("run", "r.toml", "-b", "b.toml").status == 0


@pytest.mark.parametrize(
    ("bench", "recipe"),
    [("simulated", ""), pytest.param("2636b-707b", "program-smu", marks=pytest.mark.long)],
)
def test_the_commands_that_follow_a_bench_make_a_recipe_and_name_the_bench(
    here: Any, bench: str, recipe: str
) -> None:
    Path("bench.toml").unlink()
    Path("recipe.toml").unlink()
    said = here.command("new", "bench", "lab", "--like", bench)
    told = [line.split() for line in said.out.splitlines() if "rram-hil " in line]
    like = ["--like", recipe] * bool(recipe)
    assert [words[1:] for words in told] == [
        ["check", "lab.toml"],
        ["new", "recipe", "first", *like],
        ["run", "first.toml", "--bench", "lab.toml"],
    ]
    said = here.command(*told[1][1:])
    assert "rram-hil run first.toml --bench lab.toml" in " ".join(said.out.split())
    assert here.command("plan", *told[2][2:], "--chips", "0").status == 0


def test_of_several_benches_none_is_guessed(here: Any) -> None:
    here.command("new", "bench", "second")
    assert "--bench YOUR-BENCH.toml" in here.command("new", "recipe", "r").out


def test_two_recipes_share_what_both_read_and_overwrite_nothing(here: Any) -> None:
    assert here.command("new", "recipe", "one", "--like", "program-smu").status == 0
    said = here.command("new", "recipe", "two", "--like", "program-smu")
    assert said.status == 0, said.err
    assert "target.npy" not in said.out
    Path("target.npy").write_bytes(b"of my own")
    said = here.command("new", "recipe", "three")
    assert said.status == 0, said.err
    assert Path("target.npy").read_bytes() == b"of my own"
    assert Path("three-target.npy").exists()
    assert tomllib.loads(Path("three.toml").read_text())["step"][-2]["targets"] == {
        "map": "three-target.npy"
    }
    Path("four-target.npy").write_bytes(b"also")
    assert "four-target.npy exists" in here.refused("new", "recipe", "four")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("reciipe", "x"), "did you mean recipe?"),
        (("bench", "x", "--like", "simulatd"), "did you mean simulated?"),
        (("bench", "../x"), "a name is up to 40 letters"),
        (("protocol", "class"), "a word of Python"),
        (("protocol", "rram_hil"), "is installed already"),
        (("instrument", "os"), "is installed already"),
        (("protocol", "write-verify"), "is installed already"),
        (("calibration", "leads"), "is installed already"),
        (("protocol", "x", "--like", "y"), "--like goes with bench and recipe"),
        (("bench", "bench"), "bench.toml exists"),
    ],
)
def test_what_cannot_be_made_is_one_line_and_no_file(
    here: Any, arguments: tuple[str, ...], told: str
) -> None:
    assert told in here.refused("new", *arguments)


def test_a_full_disk_leaves_no_part_of_a_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = starting_point("protocol", "mine", out=tmp_path)
    write, left = Path.write_bytes, iter(range(2))

    def full(path: Path, content: bytes) -> int:
        if next(left, None) is None:
            write(path, content[:1])
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(path, content)

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(DataError, match="No space left"):
        made.write()
    assert not list(tmp_path.iterdir())


def test_every_kind_is_told_and_no_file_keeps_the_name_of_the_page(tmp_path: Path) -> None:
    assert set(KINDS) == {*EXAMPLES, *PAGES}
    for kind, page in PAGES.items():
        made = starting_point(kind, "Zeta-7", out=tmp_path)
        assert "zeta_7.py" in made.files
        assert page.module not in "".join(made.files) + str(made.files)


@pytest.mark.long
@pytest.mark.parametrize("kind", PAGES)
def test_a_package_installs_passes_its_tests_and_does_its_commands(
    kind: str, tmp_path: Path
) -> None:
    made = starting_point(kind, "zeta", out=tmp_path / "work")
    made.write()
    install_from_wheel(made.folder, tmp_path / "site")
    environment = os.environ | {"PYTHONPATH": str(tmp_path / "site")}
    # The checks of whole benches take a minute, and tests/drivers/test_adding_a_board.py does them.
    chosen = ["-k", "not conforms"] * (kind == "driver")
    tests = ["-m", "pytest", "-q", "-p", "no:cacheprovider", *chosen]
    install, test, *commands = made.commands
    assert (install, test) == ("pip install -e .", "pytest")
    assert commands
    ways = {"rram-hil": ["-m", "rram_hil.cli"], "python": []}
    tried = [[*ways[name], *rest] for name, *rest in map(shlex.split, commands)]
    for arguments in (tests, *tried):
        done = subprocess.run(
            [sys.executable, "-P", *arguments],
            cwd=made.folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=110,
        )
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
