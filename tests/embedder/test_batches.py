"""How rows are cut into batches: whole studies, every row once, and the same cuts after a stop."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedder.batches import study_batches

rows = st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from(["s", "t", "u", None]), st.sampled_from("xyz")))


def manifest(findings: list[tuple[str, str | None, str]]) -> pd.DataFrame:
    frame = pd.DataFrame(findings, columns=["patient_id", "study_id", "path"])
    return frame.assign(dataset="d", row_id=[str(row) for row in range(len(frame))])


def in_order_of_studies(frame: pd.DataFrame) -> dict[tuple[str, ...], list[int]]:
    groups: dict[tuple[str, ...], list[int]] = {}
    for place, row in enumerate(frame.itertuples()):
        key = (row.patient_id, "image", row.path) if pd.isna(row.study_id) else (row.patient_id, "study", row.study_id)
        groups.setdefault(key, []).append(place)
    return groups


@given(rows, st.integers(1, 5))
@settings(deadline=None, max_examples=25)
def test_every_row_once_and_studies_whole(findings: list[tuple[str, str | None, str]], size: int) -> None:
    frame = manifest(findings)
    batches = study_batches(frame, size)
    groups = in_order_of_studies(frame)
    assert [int(row) for batch in batches for row in batch] == [row for group in groups.values() for row in group]
    assert all(1 <= len(batch) <= size for batch in batches)
    for group in groups.values():
        touched = [set(batch) & set(group) for batch in batches if set(batch) & set(group)]
        assert len(touched) == 1 or len(group) > size


@given(rows, st.integers(1, 5), st.integers(0, 9))
@settings(deadline=None, max_examples=25)
def test_what_is_left_after_a_stop_is_cut_as_it_would_have_been(
    findings: list[tuple[str, str | None, str]], size: int, done: int
) -> None:
    frame = manifest(findings)
    together = [row for group in in_order_of_studies(frame).values() for row in group]
    frame = frame.iloc[together].reset_index(drop=True)
    batches = [list(frame["row_id"].iloc[batch]) for batch in study_batches(frame, size)]
    stored = {row for batch in batches[:done] for row in batch}
    left = frame[~frame["row_id"].isin(stored)].reset_index(drop=True)
    assert [list(left["row_id"].iloc[batch]) for batch in study_batches(left, size)] == batches[done:]


def test_batches_are_filled_with_studies_that_fit() -> None:
    frame = manifest([("a", study, "x") for study in "sssttuuuuuuuvvw"])
    assert [batch.tolist() for batch in study_batches(frame, 5)] == [
        [0, 1, 2, 3, 4],
        [5, 6, 7, 8, 9],
        [10, 11, 12, 13, 14],
    ]
    assert study_batches(frame.iloc[:0], 5) == []


def test_studies_of_one_name_are_told_apart_by_woman_and_data_set() -> None:
    frame = manifest([("a", "1", "x"), ("b", "1", "x"), ("a", "1", "x")])
    assert study_batches(frame, 2)[0].tolist() == [0, 2]
    assert study_batches(frame.assign(dataset=["d", "d", "e"]), 1)[1].tolist() == [1]


@pytest.mark.parametrize("columns", [["dataset", "patient_id", "path"], ["dataset", "patient_id", "path", "study_id"]])
def test_a_table_without_studies_goes_by_image(columns: list[str]) -> None:
    frame = manifest([("a", None, "x"), ("a", None, "y"), ("a", None, "x"), ("a", None, "y")])[columns]
    assert np.concatenate(study_batches(frame, 3)).tolist() == [0, 2, 1, 3]
