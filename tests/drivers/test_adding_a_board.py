"""docs/adding-a-board.md builds, installs and passes as it stands, as a package of a third party;
and the checks of whole benches notice a driver that is broken.
"""

from __future__ import annotations

import numpy as np
import pytest
from documented_packages import Lab

from rram_hil.storage.run_reader import read_run

TARGET = (
    "import numpy as np; np.save('target.npy', np.tile(np.linspace(20e-6, 90e-6, 8), (1, 8, 1)))"
)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    return Lab("adding-a-board.md", tmp_path_factory.mktemp("board"))


def test_the_document_has_all_files_and_four_spellings_of_the_name(lab: Lab) -> None:
    assert set(lab.files) == {
        "pyproject.toml",
        "lab_box.py",
        "lab_box_lines.py",
        "simulated_lab_box.py",
        "test_lab_box.py",
        "bench.toml",
        "recipe.toml",
    }
    for text in lab.files.values():
        for spelling in ("lab_box", "LabBox", "lab-box", "Lab Box"):
            text = text.replace(spelling, "")
        assert "lab" not in text.lower().replace("label", "").replace("available", "")


@pytest.mark.long
def test_its_own_tests_pass(lab: Lab) -> None:
    assert lab.passes_its_tests("test_lab_box.py", 10, "not conforms")


@pytest.mark.long
def test_the_checks_of_whole_benches_pass(lab: Lab) -> None:
    assert lab.passes_its_tests("test_lab_box.py", 18, "conforms")


@pytest.mark.long
def test_a_recipe_is_checked_planned_and_run_on_it(lab: Lab) -> None:
    owner = ("rram-hil-lab-box", "1.0")
    assert lab.listed("lab-box") == [
        ("driver", "lab-box", *owner, "lab_box:LabBox", ""),
        ("simulator", "lab-box", *owner, "simulated_lab_box:launch", ""),
    ]
    told = lab.cli("check bench.toml")
    assert "write-verify      from the host" in told
    assert "Outputs are off, verified." in told
    lab.python("-c", TARGET)
    assert "Nothing is beyond the limits." in lab.cli("plan recipe.toml --bench bench.toml")
    assert "outputs off" in lab.cli("run recipe.toml --bench bench.toml -o run.h5")
    with read_run(lab.work / "run.h5") as run:
        error_s = run.map("conductance").values[-1] - np.load(lab.work / "target.npy")
    assert np.median(np.abs(error_s)) < 3e-6
    assert "write-verify" in lab.cli("show run.h5")
    # Without the package the bench file is refused by name.
    told = lab.cli("check bench.toml", fails=True, installed=False)
    assert "lab-box" in told
    assert len(told.splitlines()) == 1


# The checks themselves: each of these mistakes must be noticed.

MISTAKES = {
    "a job asked again under a new number": (
        "lab_box_lines.py",
        'self._link.send(_line(f"{self._tag} {text}"))',
        (
            'import re; self._link.send(_line(f"{self._tag} " + re.sub(\'"job": .*?,\','
            " f'\"job\": {self._tag},', text)))"
        ),
        "drop-reply",
    ),
    "outputs not switched off": ("lab_box.py", '            self._ask("OFF")\n', "", "safe_off"),
    "a link left open": (
        "lab_box.py",
        "            except errors.BenchError:\n                self.close()\n",
        "            except errors.BenchError:\n",
        "another and model",
    ),
    "codes of another size": ("lab_box.py", "CODE_A = 1e-9", "CODE_A = 1.1e-9", "resistor"),
    "a damaged line believed": (
        "lab_box_lines.py",
        'if crc != _crc(text) or not text.startswith(f"{self._tag} "):',
        "if False:",
        "garbage",
    ),
    "a tag that no recording repeats": (
        "lab_box_lines.py",
        "secrets.randbits(31) if traffic is None else traffic.nonce()",
        "secrets.randbits(31)",
        "plays",
    ),
}


@pytest.mark.long
@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_noticed(mistake: str, lab: Lab) -> None:
    name, old, new, check = MISTAKES[mistake]
    text = lab.files[name]
    assert text.count(old) == 1
    installed = lab.site / name
    installed.write_text(text.replace(old, new), encoding="utf-8")
    try:
        told = lab.told_by_tests("test_lab_box.py", f"conforms and {check}")
    finally:
        installed.write_text(text, encoding="utf-8")
    assert "1 failed" in told
