"""The examples of the documentation, as a stranger's type checkers see them against an installed
wheel.
"""

from __future__ import annotations

import re
import subprocess
import sys
import sysconfig
import venv
from importlib.util import find_spec
from pathlib import Path

import pytest
from wheels import copy_of_sources, install_from_wheel

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
NEEDED = ("mypy", "basedpyright")


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An interpreter that has the package from a wheel, its dependencies from where they are."""
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        pytest.skip(f"this needs {', '.join(missing)}")
    home = tmp_path_factory.mktemp("home")
    venv.create(home)
    paths = {"base": str(home), "platbase": str(home)}
    site = Path(sysconfig.get_path("purelib", "venv", vars=paths))
    install_from_wheel(copy_of_sources(tmp_path_factory.mktemp("tree")), site)
    others = [path for path in sys.path if path.endswith("-packages")]
    (site / "others.pth").write_text("\n".join(others), encoding="utf-8")
    return Path(sysconfig.get_path("scripts", "venv", vars=paths)) / Path(sys.executable).name


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a module for each Python block of the pages: of the name that the heading
    above gives it, for other blocks import it. Their pytest files are untyped, and left out.
    """
    folder = tmp_path_factory.mktemp("examples")
    for page in PAGES:
        heading = ""
        for number, part in enumerate(page.read_text("utf-8").split("\n```")):
            if number % 2 == 0:  # prose; code stands between two fences
                titles = re.findall(r"^##.*", part, re.MULTILINE)
                heading = titles[-1] if titles else ""
                continue
            language, _, code = part.partition("\n")
            name = f"{page.stem.lower().replace('-', '_')}_{number // 2 + 1}.py"
            named = re.search(r"`(\w+\.py)`", heading)
            name = named.group(1) if named else name
            if language == "python" and not name.startswith("test_"):
                (folder / name).write_text(code + "\n", encoding="utf-8")
    return folder


def test_there_are_examples(examples: Path) -> None:
    assert len(list(examples.glob("*.py"))) > 8
    assert list(examples.glob("readme_*.py"))


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "command",
    [
        "mypy --strict --cache-dir={cache} --python-executable={python}",
        "basedpyright --level error --pythonpath {python}",
    ],
    ids=["mypy", "basedpyright"],
)
def test_the_examples_are_typed(command: str, python: Path, examples: Path, tmp_path: Path) -> None:
    (examples / "pyrightconfig.json").write_text('{"typeCheckingMode": "standard"}', "utf-8")
    # h5py brings no types.
    (examples / "mypy.ini").write_text(
        "[mypy]\n[mypy-h5py]\nignore_missing_imports = true", "utf-8"
    )
    words = command.format(cache=tmp_path, python=python).split()
    told = subprocess.run(
        [sys.executable, "-m", *words, "."], cwd=examples, capture_output=True, text=True
    )
    assert told.returncode == 0, told.stdout + told.stderr
