"""What the simulated test-chip board takes at once: what one message to it holds. The board says so
over its link, and so does the simulated array, which has none.
"""

from __future__ import annotations

from dataclasses import replace

from rram_hil.array import Geometry
from rram_hil.hardware.driver import Capabilities, Span

LARGEST_MESSAGE = 16 << 20
"""Bytes of the longest request."""
LARGEST_HEAD = 64
"""Bytes in front of a multiply's columns, in its request or its reply, are fewer."""
MOST_CELLS = 4096
MOST_STEPS = 64
MOST_WORDS = 65536


def most_coded_cells(max_message: int) -> int:
    """Cells of a coded read that a message of so many bytes holds: at worst each is a block of its
    own, and has three f64 and an i16 of the reply behind its first 32 bytes.
    """
    return max(0, max_message - 32) // (3 * 8 + 2)


def board_envelope(can: Capabilities, geometry: Geometry) -> Capabilities:
    """The chip's envelope, bounded by what one message holds."""
    # Input codes, or ADC codes of up to 4 bytes and sums of up to 8.
    a_vector = max(geometry.rows * (1 if can.input_bits <= 8 else 2), geometry.columns * 12)
    return replace(
        can,
        max_cells=min(can.max_cells, MOST_CELLS),
        max_steps=min(can.max_steps, MOST_STEPS),
        max_vectors=max(1, min(can.max_vectors, (LARGEST_MESSAGE - LARGEST_HEAD) // a_vector)),
        max_words=min(can.max_words, MOST_WORDS),
        max_coded_cells=min(can.max_coded_cells, most_coded_cells(LARGEST_MESSAGE)),
        width_s=Span(can.width_s.low, can.width_s.high, max(can.width_s.step, 1e-12)),
    )
