"""Everything that docs/building-a-board.md says, done in a folder beside a copy of `firmware/`."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path

import pytest
from firmware_builds import FIRMWARE, needs
from pages import Reader

PAGE = Path(__file__).parents[2] / "docs" / "building-a-board.md"


@pytest.mark.firmware
@pytest.mark.timeout(300)
@needs("cc", "make", "arm-none-eabi-gcc", "qemu-system-arm")
def test_the_page_leads_to_a_check_of_both_boards(tmp_path: Path) -> None:
    shutil.copytree(FIRMWARE, tmp_path / "firmware", ignore=shutil.ignore_patterns("build"))
    with contextlib.closing(Reader(tmp_path)) as reader:
        assert reader.read(PAGE) == 9
