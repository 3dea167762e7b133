"""Which women are left out together."""

from collections import Counter

import numpy as np

from classifiers.parts import left_out, parts_of_women


def test_few_women_are_each_judged_without_herself_and_many_without_their_tenth():
    few = np.array([f"a/w{number}" for number in range(60) for _ in range(2)], dtype=object)
    assert parts_of_women(few) == {woman: woman for woman in few}
    many = np.array([f"a/w{number}" for number in range(500) for _ in range(2)], dtype=object)
    parts = parts_of_women(many)
    assert set(parts) == set(many)
    sizes = Counter(parts.values())
    assert len(sizes) == 10
    assert max(sizes.values()) < 2 * min(sizes.values())
    assert parts_of_women(many[::-1]) == parts, "her part is hers, whoever else is there"
    assert parts_of_women(many[:400]) == {woman: parts[woman] for woman in many[:400]}


def test_a_woman_leaves_out_all_of_her_part_and_nobody_else():
    many = np.array([f"a/w{number}" for number in range(500)], dtype=object)
    parts = parts_of_women(many)
    out = left_out(parts, ["a/w7", "b/w8"])
    assert "a/w7" in out
    assert out == {woman for woman, part in parts.items() if part == parts["a/w7"]}
    assert left_out(parts, ["b/w8"]) == frozenset()
    assert left_out(parts, many.tolist()) == set(many.tolist())
