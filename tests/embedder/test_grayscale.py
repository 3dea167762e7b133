import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedder.grayscale import Rendering, Table, UnusableError, Window, render


def slow_window(x: float, center: float, width: float, function: str) -> float:
    """PS3.3 C.11.2.1.2.1 and C.11.2.1.3, as they are written there, with y from 0 to 1."""
    if function == "SIGMOID":
        return 1 / (1 + math.exp(min(700, -4 * (x - center) / width)))
    if function == "LINEAR_EXACT":
        if x <= center - width / 2:
            return 0.0
        return 1.0 if x > center + width / 2 else (x - center) / width + 0.5
    if x <= center - 0.5 - (width - 1) / 2:
        return 0.0
    if x > center - 0.5 + (width - 1) / 2:
        return 1.0
    return (x - (center - 0.5)) / (width - 1) + 0.5


@st.composite
def stored_images(draw):
    """Stored values of some bits and sign, in 8 or 16 bits, with at least two values."""
    allocated = draw(st.sampled_from([8, 16]))
    bits = draw(st.integers(8, allocated))
    signed = draw(st.booleans())
    low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
    values = draw(st.lists(st.integers(low, high), min_size=2, max_size=12, unique=True))
    return np.array(values, f"{'i' if signed else 'u'}{allocated // 8}").reshape(1, -1)


@given(
    stored=stored_images(),
    slope=st.floats(-4, 4).filter(lambda slope: abs(slope) > 0.01),
    intercept=st.integers(-3000, 3000),
    center=st.floats(-5000, 70000),
    width=st.floats(1, 70000),
    function=st.sampled_from(["LINEAR", "LINEAR_EXACT", "SIGMOID"]),
    inverted=st.booleans(),
)
@settings(deadline=None, max_examples=50)
def test_window_equals_the_standards_formula_pixel_by_pixel(
    stored, slope, intercept, center, width, function, inverted
):
    window = Window(center, width, function)
    rendering = Rendering(slope=slope, intercept=float(intercept), voi=(window,), inverted=inverted)
    expected = [slow_window(int(v) * slope + intercept, center, width, function) for v in stored[0]]
    pixels, notes = render(stored, rendering)
    if max(expected) == min(expected):
        # The window shows nothing: the image's own range is taken instead, and a note says so.
        assert len(notes) == 1
        assert pixels.min() == 0
        assert pixels.max() == 1
        return
    if inverted:
        expected = [1 - y for y in expected]
    assert pixels.dtype == np.float32
    np.testing.assert_allclose(pixels[0], expected, atol=1e-6)
    assert notes == ()


@given(
    stored=stored_images(),
    first=st.integers(-300, 300),
    entries=st.lists(st.integers(0, 4095), min_size=2, max_size=40),
    as_voi=st.booleans(),
)
@settings(deadline=None, max_examples=50)
def test_tables_equal_a_lookup_pixel_by_pixel(stored, first, entries, as_voi):
    table = Table(first, np.array(entries, np.float64), 12)
    looked_up = [entries[min(max(int(v) - first, 0), len(entries) - 1)] for v in stored[0]]
    if as_voi:
        rendering, expected = Rendering(voi=(table,)), [y / 4095 for y in looked_up]
    else:
        window = Window(2048, 4096, "LINEAR_EXACT")
        rendering, expected = Rendering(modality=table, voi=(window,)), [y / 4096 for y in looked_up]
    if len(set(looked_up)) > 1:
        pixels, _ = render(stored, rendering)
        np.testing.assert_allclose(pixels[0], expected, atol=1e-6)


@given(stored=stored_images(), data=st.data())
@settings(deadline=None, max_examples=50)
def test_padding_is_background_and_takes_no_part_in_the_range(stored, data):
    first, last = sorted(
        (data.draw(st.sampled_from(stored[0].tolist())), data.draw(st.sampled_from(stored[0].tolist())))
    )
    inverted = data.draw(st.booleans())
    kept = [int(v) for v in stored[0] if not first <= v <= last]
    rendering = Rendering(padding=(first, last), inverted=inverted)
    if len(kept) < 2:
        with pytest.raises(UnusableError):
            render(stored, rendering)
        return
    pixels, _ = render(stored, rendering)
    span = max(kept) - min(kept)
    for v, y in zip(stored[0].tolist(), pixels[0].tolist(), strict=True):
        expected = (v - min(kept)) / span
        expected = 1 - expected if inverted else expected
        assert y == pytest.approx(0 if first <= v <= last else expected, abs=1e-6)


@pytest.mark.parametrize(
    "window",
    [
        Window(100, 0),
        Window(100, 0.5),
        Window(100, -20, "LINEAR_EXACT"),
        Window(100, 0, "SIGMOID"),
        Window(math.nan, 100),
        Window(100, math.inf),
        Window(100, 100, "GAUSS"),
        Window(60000, 10),
    ],
)
def test_a_window_that_makes_no_sense_gives_way_to_the_next_and_then_to_the_range(window):
    stored = np.arange(1000, dtype=np.uint16).reshape(20, 50)
    by_range, notes = render(stored, Rendering(voi=(window,)))
    np.testing.assert_array_equal(by_range, render(stored, Rendering())[0])
    assert len(notes) == 1
    by_next, notes = render(stored, Rendering(voi=(window, Window(500, 100))))
    np.testing.assert_array_equal(by_next, render(stored, Rendering(voi=(Window(500, 100),)))[0])
    assert len(notes) == 1


def test_a_linear_window_of_width_one_is_a_threshold():
    pixels, _ = render(np.array([[4, 5, 6]], np.uint8), Rendering(voi=(Window(5.5, 1),)))
    assert pixels.tolist() == [[0, 0, 1]]


def test_a_table_with_entries_beyond_its_bits_is_not_used():
    stored = np.arange(100, dtype=np.uint8).reshape(10, 10)
    pixels, notes = render(stored, Rendering(voi=(Table(0, np.arange(300.0), 8),)))
    np.testing.assert_array_equal(pixels, render(stored, Rendering())[0])
    assert "8 bits" in notes[0]


def test_a_few_dead_pixels_do_not_take_the_contrast():
    stored = np.tile(np.arange(1000, 2000, dtype=np.uint16), (400, 1))
    clean, _ = render(stored, Rendering())
    stored[0, :2], stored[1, :2] = 65535, 0
    pixels, _ = render(stored, Rendering())
    assert pixels[0, 0] == 1
    assert pixels[1, 0] == 0
    np.testing.assert_allclose(pixels[2:], clean[2:], atol=1e-6)


def test_a_small_white_region_in_an_empty_mask_is_not_an_outlier():
    stored = np.zeros((500, 500), np.uint8)
    stored[0, 0] = 255
    pixels, _ = render(stored, Rendering())
    assert pixels[0, 0] == 1
    assert pixels.sum() == 1


def test_exposure_becomes_bright_where_tissue_is_dense():
    # Attenuation μt of 0, 1 and 2 lets through e^0, e^-1 and e^-2 of the X-rays.
    stored = np.round(np.array([[30000, 30000 / math.e, 30000 / math.e**2]])).astype(np.uint16)
    pixels, _ = render(stored, Rendering(exposure="LINEAR"))
    np.testing.assert_allclose(pixels[0], [0, 0.5, 1], atol=1e-4)
    pixels, _ = render(np.array([[1000, 600, 200]], np.uint16), Rendering(exposure="LOG"))
    np.testing.assert_allclose(pixels[0], [0, 0.5, 1], atol=1e-6)


@pytest.mark.parametrize("value", [0, 7, 255])
def test_an_image_of_one_value_is_unusable(value):
    with pytest.raises(UnusableError, match="one value"):
        render(np.full((20, 20), value, np.uint8), Rendering(voi=(Window(7, 3),)))
