"""Pictures: PNG files that any reader takes, colours in order, round ticks."""

import base64
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rram_hil.errors import DataError
from rram_hil.report.picture import Axis, Plot, data_uri, diverging, png, sequential, ticks


def decode(data: bytes) -> np.ndarray:  # type: ignore[type-arg]
    """A PNG reader of its own: checks signature, chunks and CRCs; gives the RGB image."""
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    at, chunks = 8, []
    while at < len(data):
        size, kind = struct.unpack(">I4s", data[at : at + 8])
        body = data[at + 8 : at + 8 + size]
        assert struct.unpack(">I", data[at + 8 + size : at + 12 + size])[0] == zlib.crc32(
            kind + body
        )
        chunks.append((kind, body))
        at += 12 + size
    assert chunks[0][0] == b"IHDR"
    assert chunks[-1] == (b"IEND", b"")
    width, height, depth, colour, *_ = struct.unpack(">IIBBBBB", chunks[0][1])
    assert depth == 8
    found = dict(chunks)
    lines = np.frombuffer(zlib.decompress(found[b"IDAT"]), dtype=np.uint8).reshape(height, -1)
    assert not lines[:, 0].any()
    if colour == 3:
        return np.frombuffer(found[b"PLTE"], dtype=np.uint8).reshape(-1, 3)[lines[:, 1:]]
    assert colour == 2
    return lines[:, 1:].reshape(height, width, 3)


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 255), st.integers(0, 1000))
def test_a_png_decodes_to_the_image_it_was_made_of(
    height: int, width: int, shades: int, seed: int
) -> None:
    image = np.random.default_rng(seed).integers(0, shades + 1, (height, width, 3)).astype(np.uint8)
    assert np.array_equal(decode(png(image)), image)


def test_an_image_of_few_colours_is_stored_with_a_palette() -> None:
    rng = np.random.default_rng(1)
    few = sequential(rng.random((200, 200)))
    many = rng.integers(0, 256, (200, 200, 3)).astype(np.uint8)
    assert png(few)[25] == 3
    assert png(many)[25] == 2
    assert len(png(few)) < 200 * 200 * 1.1


def test_a_data_uri_holds_the_png() -> None:
    image = np.zeros((2, 3, 3), dtype=np.uint8)
    head, body = data_uri(image).split(",")
    assert head == "data:image/png;base64"
    assert base64.b64decode(body) == png(image)


@pytest.mark.parametrize(
    "bad", [np.zeros((2, 2)), np.zeros((2, 2, 3)), np.zeros((0, 2, 3), dtype=np.uint8)]
)
def test_what_is_not_an_image_is_refused(bad: np.ndarray) -> None:  # type: ignore[type-arg]
    with pytest.raises(DataError, match="height, width, 3"):
        png(bad)


def luminance(rgb: np.ndarray) -> np.ndarray:  # type: ignore[type-arg]
    linear = (rgb / 255.0) ** 2.2
    return np.asarray(linear @ np.array([0.2126, 0.7152, 0.0722]))


def test_colour_maps_change_lightness_in_one_direction() -> None:
    assert np.all(np.diff(luminance(sequential(np.linspace(0, 1, 30)))) > 0)
    sides = luminance(diverging(np.linspace(-1, 1, 41)))
    assert np.all(np.diff(sides[:21]) > 0)
    assert np.all(np.diff(sides[20:]) < 0)


def test_colour_maps_take_nan_and_values_beyond_the_ends() -> None:
    values = np.array([np.nan, -5.0, 5.0, np.inf])
    assert np.array_equal(sequential(values)[1:], sequential(np.array([0.0, 1.0, 1.0])))
    assert np.array_equal(diverging(values)[0], diverging(np.array(0.0)))


@given(st.floats(-1e6, 1e6), st.floats(1e-6, 1e6), st.integers(2, 8))
def test_ticks_are_round_and_inside(low: float, span: float, count: int) -> None:
    high = low + span
    places = ticks(low, high, count)
    if high > low and span > 1e-9 * abs(low):
        assert 1 <= len(places) <= count + 1
        slack = 1e-5 * span + 1e-9
        assert all(low - slack <= p <= high + slack for p in places)


def test_ticks_of_a_range_that_is_none() -> None:
    assert ticks(float("nan"), 1.0) == []
    assert ticks(2.0, 2.0) == [2.0]


def test_axes_write_powers_of_ten_and_true_minus_signs() -> None:
    log = Axis(1e-5, 1.0, "share", log=True)
    assert [log.text(v) for v in log.places] == ["10⁻⁵", "10⁻⁴", "10⁻³", "0.01", "0.1", "1"]
    assert Axis(-1, 1, "x").text(-0.5) == "−0.5"
    assert Axis(0, 1, "x", per_cent=True).text(0.975) == "97.5 %"


def test_a_plot_puts_values_where_its_axes_say() -> None:
    plot = Plot(Axis(0, 10, "x"), Axis(0, 1, "y"))
    assert plot.at_x([0, 10]).tolist() == [plot.left, plot.width - plot.right]
    assert plot.at_y([0, 1]).tolist() == [plot.height - plot.bottom, plot.top]
