"""`rram-hil new` writes what works: each starting point is tried as its last line says."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from wheels import install_from_wheel

from rram_hil.terminal.starting_points import EXAMPLES, KINDS, PAGES, starting_point

ROOT = Path(__file__).parents[2]


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
    "like", [p.stem.removeprefix("recipe-") for p in (ROOT / "examples").glob("recipe-*.toml")]
)
def test_a_recipe_begins_as_an_example_with_all_that_it_reads(here: Any, like: str) -> None:
    bench = "2636b-707b" if like.endswith("smu") else "simulated"
    assert here.command("new", "bench", "b", "--like", bench).status == 0
    assert here.command("new", "recipe", "r", "--like", like).status == 0
    assert here.command("plan", "r.toml", "--bench", "b.toml", "--chips", "0").status == 0


def test_a_bench_and_a_recipe_run_as_they_are(here: Any) -> None:
    here.command("new", "bench", "b")
    here.command("new", "recipe", "r")
    assert here.command("run", "r.toml", "-b", "b.toml").status == 0


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("reciipe", "x"), "did you mean recipe?"),
        (("bench", "x", "--like", "simulatd"), "did you mean simulated?"),
        (("bench", "../x"), "a name is up to 40 letters"),
        (("protocol", "class"), "a word of Python"),
        (("protocol", "x", "--like", "y"), "--like goes with bench and recipe"),
        (("bench", "bench"), "bench.toml exists"),
    ],
)
def test_what_cannot_be_made_is_one_line_and_no_file(
    here: Any, arguments: tuple[str, ...], told: str
) -> None:
    assert told in here.refused("new", *arguments)


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
