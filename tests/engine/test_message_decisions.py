"""The check that nothing decides by the text of an error, on snippets, and on the product."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]


def _load() -> ModuleType:
    path = ROOT / "tests" / "checks" / "no_message_decisions.py"
    spec = importlib.util.spec_from_file_location("no_message_decisions", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


CHECKER = _load()
CAUGHT = "try:\n    work()\nexcept Exception as e:\n    "


@pytest.mark.parametrize(
    "statement",
    [
        "if 'off' in str(e): raise",
        "if 'off' not in f'{e}': raise",
        "if str(e) == 'off': raise",
        "if str(e).startswith('step '): raise",
        "if f'{e}'.endswith('off'): raise",
        "if str(e).lower().find('off') >= 0: raise",
        "if e.args[0] == 'off': raise",
        "if 'off' in e.args: raise",
        "if e.message.startswith('off'): raise",
        "if re.search('off', str(e)): raise",
        "if pattern.match(str(e)): raise",
        "told = str(e).removeprefix('a: ')",
        "told = str(e).splitlines()[-1].strip()",
        "told = (str(e) or 'nothing').split(':')",
        "told = str(e)[:60]",
        "text = str(e)\n    if 'off' in text: raise",
        "text = f'x: {e}'\n    head, _, tail = text.partition(':')",
        "again = e\n    if 'off' in str(again): raise",
        "if (text := str(e)) == 'off': raise",
    ],
)
def test_decisions_by_the_text_of_an_error_are_found(statement: str) -> None:
    found = CHECKER.findings_of(CAUGHT + statement + "\n")
    assert len(found) == 1
    assert found[0].line >= 4
    assert "text of an error" in found[0].reason


@pytest.mark.parametrize(
    "statement",
    [
        "raise ValueError(f'x: {e}') from e",
        "text = str(e) or type(e).__name__\n    print(text)",
        "if isinstance(e, OSError): raise",
        "if e.code == 3: raise",
        "if e.outputs_off is None: raise",
        "print('a b'.split(), str(e))",
        "parts = [str(e), 'more']",
    ],
)
def test_telling_an_error_is_no_decision(statement: str) -> None:
    assert CHECKER.findings_of(CAUGHT + statement + "\n") == []


def test_an_error_that_is_a_parameter_counts_and_one_in_another_function_does_not() -> None:
    helper = "def f(error: BaseException | None) -> str:\n    return str(error).splitlines()[0]\n"
    assert [f.line for f in CHECKER.findings_of(helper)] == [2]
    other = "def f(e: str) -> list[str]:\n    return str(e).splitlines()\n"
    assert CHECKER.findings_of(CAUGHT + "pass\n" + other) == []


def test_casts_of_yielded_results_are_found() -> None:
    found = CHECKER.findings_of(
        "def run():\n"
        "    a = cast(ApplyResult, (yield read(cells)))\n"
        "    b = typing.cast(T, (yield from x()))\n"
        "    c = cast(T, x)\n"
    )
    assert [f.line for f in found] == [2, 3]


def test_a_second_quantity_is_found(tmp_path: Path) -> None:
    for folder in CHECKER.PRODUCT:
        (tmp_path / folder).mkdir()
    (tmp_path / "rram_hil" / "units.py").write_text("def quantity(): ...\n")
    assert CHECKER.check(tmp_path) == []
    (tmp_path / "drivers" / "more.py").write_text("\ndef quantity(): ...\n")
    assert [(f.path, f.line) for f in CHECKER.check(tmp_path)] == [
        (str(Path("drivers", "more.py")), 2),
        (str(Path("rram_hil", "units.py")), 1),
    ]


def test_conformance_is_exempt(tmp_path: Path) -> None:
    folder = tmp_path / CHECKER.EXEMPT
    folder.mkdir(parents=True)
    (folder / "a.py").write_text(CAUGHT + "if 'off' in str(e): raise\n")
    assert CHECKER.check(tmp_path) == []


@pytest.mark.long
def test_nothing_in_the_product_decides_by_the_text_of_an_error() -> None:
    assert [str(f) for f in CHECKER.check(ROOT) if "text of an error" in f.reason] == []
