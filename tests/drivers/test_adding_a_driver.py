"""docs/adding-a-driver.md builds, installs and passes as it stands; and the conformance checks
notice a driver that is broken.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import types
from collections.abc import Iterator
from pathlib import Path

import pytest
from wheels import install_from_wheel

from rram_hil.drivers.simulated.conformance import Check, Family, checks_of
from rram_hil.terminal.starting_points import files_of_page
from rram_hil.wire import link

DOC = Path(__file__).parents[2] / "docs" / "adding-a-driver.md"
FILES = files_of_page(DOC.read_text(encoding="utf-8"))


def test_the_document_has_all_files() -> None:
    assert set(FILES) == {
        "pyproject.toml",
        "acme_100.py",
        "simulated_acme_100.py",
        "test_acme_100.py",
        "bench.toml",
    }


def ran(command: list[str], folder: Path, **environment: str) -> str:
    done = subprocess.run(
        command,
        cwd=folder,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=110,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A folder with the document's test and bench file, and the folder in which its package is
    installed from a wheel.
    """
    source, site, work = (tmp_path_factory.mktemp(name) for name in ("source", "site", "work"))
    for name, text in FILES.items():
        is_package = name in ("pyproject.toml", "acme_100.py", "simulated_acme_100.py")
        (source if is_package else work).joinpath(name).write_text(text, encoding="utf-8")
    install_from_wheel(source, site)
    return work, str(site)


@pytest.mark.long
def test_the_package_passes_its_own_checks(lab: tuple[Path, str]) -> None:
    work, site = lab
    command = [sys.executable, "-P", "-m", "pytest", "-p", "no:cacheprovider", "test_acme_100.py"]
    told = ran(command, work, PYTHONPATH=site)
    passed = re.search(r"(\d+) passed", told)
    assert passed, told
    assert int(passed[1]) > 100
    assert "failed" not in told


@pytest.mark.long
def test_devices_and_simulate_find_the_package(lab: tuple[Path, str]) -> None:
    work, site = lab
    cli = [sys.executable, "-P", "-m", "rram_hil.cli"]
    with subprocess.Popen(
        [*cli, "simulate", "--model", "Acme 100", "--load", "10000"],
        cwd=work,
        env=os.environ | {"PYTHONPATH": site},
        stdout=subprocess.PIPE,
        text=True,
    ) as simulator:
        try:
            assert simulator.stdout is not None
            _, model, resource = simulator.stdout.readline().rstrip("\n").split("\t")
            assert model == "Acme 100"
            found = json.loads(
                ran([*cli, "devices", "--json", "-r", resource], work, PYTHONPATH=site)
            )
        finally:
            simulator.terminate()
    (device,) = [d for d in found if d["resource"] == resource]
    assert (device["kind"], device["model"], device["problem"]) == ("acme-100", "100", "")
    assert 'kind = "acme-100"' in device["toml"]


@pytest.mark.long
def test_a_bench_file_names_it_and_reads_an_array(lab: tuple[Path, str]) -> None:
    work, site = lab
    cli = [sys.executable, "-P", "-m", "rram_hil.cli"]
    told = ran([*cli, "check", "bench.toml"], work, PYTHONPATH=site)
    assert "100 + 100 + 707B" in told
    assert "Outputs are off, verified." in told
    look = (
        "from rram_hil import Bench\nfrom rram_hil.hardware.instrument import instrument_class\n"
        "assert instrument_class('acme-100').__module__ == 'acme_100'\n"
        "with Bench.open('bench.toml') as bench:\n    print(bench.read_map().shape)\n"
    )
    assert ran([sys.executable, "-P", "-c", look], work, PYTHONPATH=site).strip() == "(1, 4, 4)"


# The checks themselves: each of these mistakes must be noticed.

MISTAKES = {
    "numbers rounded to nothing": (
        "PROT {number(setup.compliance)}",
        "PROT {setup.compliance:f}",
        "settings keep full precision",
    ),
    "a level rounded": ("LEV {number(level)}", "LEV {level:.3f}", "settings keep full precision"),
    "a reset at connect": (
        "    def arm(self)",
        (
            "    def connect(self):\n        who = super().connect()\n        self.send('*RST')\n  "
            "      return who\n\n    def arm(self)"
        ),
        "connect touches nothing",
    ),
    "any model accepted": (
        "    def arm(self)",
        "    def accept(self, told, model):\n        pass\n\n    def arm(self)",
        "refuses another model",
    ),
    "a link left open": (
        "    def arm(self)",
        (
            "    def connect(self):\n        try:\n            return super().connect()\n       "
            " except Exception:\n            self.dialog.open()\n            raise\n\n    def"
            " arm(self)"
        ),
        "refuses another model",
    ),
    "an output believed off": (
        'return self.ask(":OUTP?") == "0"',
        "return True",
        "connect touches nothing",
    ),
    "an output left on": ('":SOUR:LEV 0", ":OUTP OFF"', '":SOUR:LEV 0"', "safe_off"),
    "off, but not verified": (
        "    def switch_off",
        (
            "    def safe_off(self):\n        self.switch_off()\n        self.ask(':OUTP?')\n\n   "
            " def switch_off"
        ),
        "safe_off is verified",
    ),
    "errors not read": (
        'self.send(f":SOUR:LEV {number(level)}")',
        'self.dialog.write(f":SOUR:LEV {number(level)}")',
        "raises the error queue",
    ),
    "a timeout that does not follow": (
        "takes_s=len(levels) * self._reading_s",
        "takes_s=0.0",
        "timeouts follow the work",
    ),
    "compliance not told": (
        "amps, status == 1, time_s",
        "amps, status == 7, time_s",
        "status of readings",
    ),
    "volts for amperes": (
        "Readings.of(volts, amps",
        "Readings.of(amps, volts",
        "status of readings",
    ),
    "the other quantity left on its last range": (
        '            f":SENS:{forced}:RANG AUTO",  # what is forced is measured back\n',
        "",
        "status of readings",
    ),
    "refused after sending": (
        (
            '        self._within("level", abs(level), 0.0, self._full_scale)\n       '
            ' self.send(f":SOUR:LEV {number(level)}")'
        ),
        (
            '        self.send(f":SOUR:LEV 0")\n        self._within("level", abs(level), 0.0,'
            ' self._full_scale)\n        self.send(f":SOUR:LEV {number(level)}")'
        ),
        "refuses before it sends",
    ),
    "NaN passes": (
        "if not low <= value <= high:",
        "if value < low or value > high:",
        "refuses before it sends",
    ),
    "a sweep point by point": (
        "        return self.list_sweep(channel, np.linspace(start, stop, points))",
        (
            "        found = []\n        for level in np.linspace(start, stop, points):\n          "
            "  self.source(channel, level)\n            found.append(self.measure(channel))\n      "
            "  self.source(channel, 0.0)\n        return Readings(*(np.concatenate([getattr(r, n)"
            " for r in found]) for n in ('volts', 'amps', 'status', 'time_s')))"
        ),
        "sweeps and lists in one transaction",
    ),
    "a stale reply believed": (
        "    def arm(self)",
        (
            "    def ask(self, *commands, takes_s=0.0):\n        self.dialog._in_step = True\n"
            "        return super().ask(*commands, takes_s=takes_s)\n\n    def arm(self)"
        ),
        "no stale reply after a timeout",
    ),
    "no lock": (
        "    def arm(self)",
        (
            "    def connect(self):\n        import contextlib\n        who = super().connect()\n  "
            "      self.dialog.lock = contextlib.nullcontext()\n        return who\n\n    def"
            " arm(self)"
        ),
        "one lock a link",
    ),
    "a docstring without a full stop": (
        "The level to zero, then the output off.",
        "The level to zero, then the output off",
        "docstrings have the form",
    ),
    "no source named": (
        "After the Acme 100 reference manual, chapters 3 (ranges)",
        "See",
        "docstrings have the form",
    ),
    "another maker": ('MAKER = "Acme"', 'MAKER = "Ace"', "says who it drives"),
    "a maker without its document": (
        "Acme 100 reference manual, chapter 5, *IDN?",
        "",
        "says who it drives",
    ),
    "any maker": (
        "    def arm(self)",
        (
            "    @classmethod\n    def is_made_by(cls, maker):\n        return True\n\n"
            "    def arm(self)"
        ),
        "refuses another maker's",
    ),
}


@pytest.fixture
def acme() -> Iterator[type[types.ModuleType]]:
    yield types.ModuleType
    for name in ("acme_100", "simulated_acme_100"):
        sys.modules.pop(name, None)


def family(driver_text: str) -> Family:
    """The document's family with this text as its driver."""
    made = []
    for name, text in (
        ("acme_100", driver_text),
        ("simulated_acme_100", FILES["simulated_acme_100.py"]),
    ):
        module = types.ModuleType(name)
        sys.modules[name] = module
        exec(compile(text, name, "exec"), module.__dict__)
        made.append(module)
    return Family("acme-100", made[0].Acme100, made[1].SimulatedAcme100)


def titled(checks: list[Check], title: str) -> Check:
    (found,) = [check for check in checks if check.title == title]
    return found


@pytest.mark.usefixtures("acme")
@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_noticed(mistake: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "QUIET_S", 0.02)
    old, new, title = MISTAKES[mistake]
    text = FILES["acme_100.py"]
    assert text.count(old) >= 1
    broken = titled(checks_of(family(text.replace(old, new, 1))), title)
    with pytest.raises(Exception, match=r".") as noticed:
        broken()
    print(f"{mistake}: {noticed.value}")


@pytest.mark.usefixtures("acme")
def test_the_unbroken_driver_passes_the_same_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "QUIET_S", 0.02)
    checks = checks_of(family(FILES["acme_100.py"]))
    for title in {title for _, _, title in MISTAKES.values()}:
        titled(checks, title)()
