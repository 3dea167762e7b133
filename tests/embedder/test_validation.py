"""Validation by retrieval against a slow version, and the figure's interval and counts."""

import numpy as np
import pytest
import torch

from embedder.objectives import MISSING
from embedder.validation import LabelledRows, map_at_r, map_at_r_figure


def some_rows(seed: int, codes: list[int], women: list[int]) -> LabelledRows:
    vectors = np.random.default_rng(seed).normal(size=(len(codes), 8)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return LabelledRows(torch.from_numpy(vectors), np.array(codes, np.int64), np.array(women, np.int64))


def slow_scores(queries: LabelledRows, gallery: LabelledRows) -> list[float]:
    scores = []
    for vector, code in zip(queries.vectors.numpy(), queries.codes, strict=True):
        order = np.argsort(-(gallery.vectors.numpy() @ vector), kind="stable")
        relevant = int((gallery.codes == code).sum())
        right = [gallery.codes[place] == code for place in order[:relevant]]
        scores.append(sum(sum(right[: i + 1]) / (i + 1) for i in range(relevant) if right[i]) / relevant)
    return scores


GALLERY = some_rows(1, [0, 1, 1, 0, 1, 0, 0, MISSING, 1], [10, 11, 12, 13, 13, 14, 15, 16, 17])
# The third row has no label, and the class of the last one is not in the gallery.
QUERIES = some_rows(0, [0, 1, MISSING, 1, 0, 0, 7], [1, 1, 1, 2, 3, 3, 4])


def test_the_figure_is_the_mean_of_what_can_be_asked() -> None:
    asked = QUERIES.chosen(np.array([True, True, False, True, True, True, False]))
    scores = slow_scores(asked, GALLERY.labelled())
    figure = map_at_r_figure(QUERIES, GALLERY, seed=3)
    assert figure is not None
    assert map_at_r(asked, GALLERY.labelled()) == pytest.approx(np.mean(scores), abs=1e-6)
    assert figure["value"] == pytest.approx(np.mean(scores), abs=1e-6)
    assert [figure[name] for name in ("rows", "women", "gallery_rows", "gallery_women")] == [5, 3, 8, 7]
    # Whole women are drawn, each with all her rows.
    by_woman = [np.array(scores)[asked.women == woman] for woman in (1, 2, 3)]
    generator = np.random.default_rng(0)
    means = [np.concatenate([by_woman[i] for i in generator.integers(0, 3, 3)]).mean() for _ in range(4000)]
    assert [figure["low"], figure["high"]] == pytest.approx(np.quantile(means, [0.025, 0.975]).tolist(), abs=0.03)
    assert map_at_r_figure(QUERIES, GALLERY, seed=3) == figure


def test_one_woman_has_no_interval_and_nobody_no_figure() -> None:
    figure = map_at_r_figure(QUERIES.chosen(QUERIES.women == 1), GALLERY, seed=0)
    assert figure is not None
    assert (figure["low"], figure["high"], figure["women"]) == (None, None, 1)
    assert map_at_r_figure(QUERIES.chosen(QUERIES.women == 4), GALLERY, seed=0) is None
