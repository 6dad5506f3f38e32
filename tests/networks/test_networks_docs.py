"""docs/networks.md does what it says: its example runs, and prints the table below it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

pytest.importorskip("torch")

TEXT = (Path(__file__).parents[2] / "docs" / "networks.md").read_text(encoding="utf-8")


def test_the_example_prints_its_table(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    (code,) = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    exec(compile(code, "docs/networks.md", "exec"), {"__name__": "example"})
    printed = capsys.readouterr().out.splitlines()
    table = TEXT.split("| weight | values | where |\n|---|---|---|\n")[1].split("\n\n")[0]
    rows = [line.strip("| ").split(" | ") for line in table.splitlines()]
    assert [line.split("  ") for line in printed[: len(rows)]] == rows
    vectors, error, attached = printed[len(rows) :]
    assert len(re.findall(r"'[\w]+': \d+", vectors)) == len(rows) - 1  # all but the biases' row
    assert float(error) < 0.1
    assert attached.startswith("torch.Size([16, 10])")
    assert attached.endswith(" set()")
