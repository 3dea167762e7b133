"""Run-length codes of masks."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from exchange.formats.marks import RowError
from exchange.formats.runs import decode_runs, decompress, runs_outline


def counts_of(mask: np.ndarray) -> list[int]:
    counts, last = [0], 0
    for value in mask.T.ravel():
        if value == last:
            counts[-1] += 1
        else:
            counts.append(1)
            last = value
    return counts


def compressed(counts: list[int]) -> str:
    """The other way round, as COCO's maskApi describes it."""
    text = ""
    for position, count in enumerate(counts):
        value = count - (counts[position - 2] if position > 2 else 0)
        more = True
        while more:
            bits = value & 31
            value >>= 5
            more = value != -1 if bits & 16 else value != 0
            text += chr(bits + (32 if more else 0) + 48)
    return text


masks = arrays(np.uint8, st.tuples(st.integers(1, 12), st.integers(1, 12)), elements=st.integers(0, 1))


@given(masks)
def test_plain_and_compressed_runs_give_the_mask(mask: np.ndarray) -> None:
    counts = counts_of(mask)
    size = list(mask.shape)
    assert np.array_equal(decode_runs({"size": size, "counts": counts}), mask)
    assert np.array_equal(decode_runs({"size": size, "counts": compressed(counts)}), mask)


def test_a_published_code_is_read() -> None:
    # The beginning of a public detector's result on 360 × 640 pixels whose bbox is [5.03, 311.4, 326.0, 19.6]: the
    # mask begins in column 5 at row 317, and goes on in the next column.
    assert decompress("UR2:m:3N0O2O001O")[:4] == [5 * 360 + 317, 10, 349, 13]


@given(st.one_of(st.text(max_size=20), st.lists(st.one_of(st.integers(), st.none(), st.floats()), max_size=6)))
def test_garbage_is_refused_and_never_crashes(counts: object) -> None:
    try:
        mask = decode_runs({"size": [3, 4], "counts": counts})
    except RowError:
        return
    assert mask.shape == (3, 4)


@pytest.mark.parametrize("size", [None, [3], [0, 4], [1e9, 1e9], ["a", 4], [-3, -4]])
def test_a_senseless_size_is_refused_before_memory_is_taken(size: object) -> None:
    with pytest.raises(RowError):
        decode_runs({"size": size, "counts": [12]})


def test_the_largest_part_gives_the_outline() -> None:
    mask = np.zeros((20, 30), np.uint8)
    mask[2:4, 2:4] = mask[10:15, 20:28] = 1
    code: dict[str, object] = {"size": [20, 30], "counts": counts_of(mask)}
    assert set(runs_outline(code, 20, 30)) == {(20.0, 10.0), (28.0, 10.0), (28.0, 15.0), (20.0, 15.0)}
    with pytest.raises(RowError, match="and the image"):
        runs_outline(code, 30, 20)
    with pytest.raises(RowError, match="marks nothing"):
        runs_outline({"size": [2, 2], "counts": [4]}, None, None)
