"""What a package index and a user without a checkout get: description, version, sources."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tarfile
from email import message_from_string
from importlib.util import find_spec
from pathlib import Path

import pytest

import rram_hil

ROOT = Path(__file__).parents[2]
BUILD = "import sys; from setuptools import build_meta; build_meta.build_sdist(sys.argv[1])"


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The archive of the sources, unpacked."""
    if find_spec("setuptools") is None:
        pytest.skip("building an archive needs setuptools in this environment")
    tree, out = tmp_path_factory.mktemp("tree") / "tree", tmp_path_factory.mktemp("out")
    left_out = (".*_cache", ".git", ".hypothesis", ".venv", "build", "site", "*.egg-info")
    shutil.copytree(ROOT, tree, ignore=shutil.ignore_patterns("__pycache__", *left_out))
    done = subprocess.run(
        [sys.executable, "-P", "-c", BUILD, str(out)], cwd=tree, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (archive,) = out.glob("*.tar.gz")
    with tarfile.open(archive) as packed:
        packed.extractall(out, filter="data")
    return out / archive.name.removesuffix(".tar.gz")


@pytest.mark.long
def test_the_sources_have_tests_docs_and_examples(sources: Path) -> None:
    for folder in ("docs", "examples", "tests", "benchmarks", "rram_hil", "drivers"):
        for kind in ("*.py", "*.md", "*.toml"):
            there = {p.relative_to(ROOT) for p in (ROOT / folder).rglob(kind)}
            assert there == {p.relative_to(sources) for p in (sources / folder).rglob(kind)}
    for name in ("constraints.txt", "mkdocs.yml", "CHANGELOG.md", ".ci/run", "LICENSE"):
        assert (sources / name).exists()
    assert not list(sources.rglob("__pycache__"))


@pytest.mark.long
def test_the_description_is_the_readme_without_what_needs_an_address(sources: Path) -> None:
    told = message_from_string((sources / "PKG-INFO").read_text(encoding="utf-8"))
    assert told["Description-Content-Type"] == "text/markdown"
    assert told["Version"] == rram_hil.__version__
    text = str(told.get_payload())
    assert text.strip().startswith("# rram_hil")
    assert "![" not in text
    links = re.findall(r"\]\(([^)]+)\)", text)
    assert links
    assert all(link.startswith("https://") for link in links)


def test_the_citation_has_the_version() -> None:
    text = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\nversion: {rram_hil.__version__}\n" in text
