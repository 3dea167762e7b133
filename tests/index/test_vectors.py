import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from index.vectors import StoredVectors


@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(0, 7), max_size=5), st.data())
def test_blocks_are_read_as_one_array(sizes: list[int], data: st.DataObject) -> None:
    whole = np.arange(sum(sizes) * 3, dtype=np.float32).reshape(-1, 3)
    stored = StoredVectors(np.split(whole, np.cumsum(sizes)[:-1]) if sizes else [], 3)
    assert (len(stored), stored.nbytes) == (len(whole), whole.nbytes)
    np.testing.assert_array_equal(stored.whole(), whole)
    if len(whole):
        positions = np.array(data.draw(st.lists(st.integers(0, len(whole) - 1), max_size=9)), np.int64)
        np.testing.assert_array_equal(stored.take(positions), whole[positions])
    start = data.draw(st.integers(0, len(whole)))
    stop = data.draw(st.none() | st.integers(start, len(whole) + 3))
    rows = data.draw(st.integers(1, 6))
    parts = list(stored.parts(start, stop, rows=rows))
    assert all(1 <= len(part) <= rows and not part.flags.owndata for _, part in parts)
    assert [at for at, part in parts for at in range(at, at + len(part))] == list(
        range(*slice(start, stop).indices(len(whole)))
    )
    for at, part in parts:
        np.testing.assert_array_equal(part, whole[at : at + len(part)])


def test_what_is_taken_is_a_copy() -> None:
    block = np.eye(3, dtype=np.float32)
    for stored in (StoredVectors([block], 3), StoredVectors([block[:1], block[1:]], 3)):
        taken = stored.take(np.array([2, 0]))
        taken[:] = 9
        assert block.max() == 1


def test_one_block_is_not_copied() -> None:
    block = np.eye(3, dtype=np.float32)
    assert StoredVectors([block, block[:0]], 3).whole() is block
    assert StoredVectors([], 3).whole().shape == (0, 3)
