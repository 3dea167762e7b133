"""Roles: a woman is in one of them with all her rows; labels that can't be learned are told."""

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedder.checkpoint import ModelError
from embedder.findings import Finding, findings_frame, patient_key
from embedder.roles import label_classes, split_women, stated_splits

Make = Callable[..., pd.DataFrame]


def table(women: list[str], **columns: list[object]) -> pd.DataFrame:
    rows = [
        Finding(
            row_id=str(number),
            path="/x.png",
            granularity="breast",
            dataset="d",
            patient_id=woman,
            **{name: values[number] for name, values in columns.items()},
        )
        for number, woman in enumerate(women)
    ]
    return findings_frame(rows)


@given(st.integers(0, 10**6), st.integers(8, 30), st.sampled_from([0.1, 0.2, 0.34, 0.5]))
@settings(deadline=None, max_examples=15)
def test_no_woman_is_in_two_roles(seed: int, women: int, share: float) -> None:
    generator = np.random.default_rng(seed)
    owners = [str(i) for i in range(women)] + [str(i) for i in generator.integers(0, women, women)]
    kinds = ["mass", "calcification"] * women
    frame = table(owners, lesion_type=kinds)
    roles = split_women(frame, share, seed)
    assert roles.groupby(patient_key(frame)).nunique().max() == 1
    assert set(roles) == {"train", "validation"}
    held_out = patient_key(frame)[roles == "validation"].nunique() / women
    assert 0 < held_out <= share + 0.35
    assert split_women(frame, share, seed).equals(roles)


def test_held_out_women_are_about_their_share_and_of_every_class(synthetic_manifest: Make) -> None:
    frame = synthetic_manifest(40)
    roles = split_women(frame, 0.25, 0)
    held_out = frame[roles == "validation"]
    assert 8 <= len(held_out) <= 12
    counts = held_out["lesion_type"].value_counts()
    assert abs(counts["mass"] - counts["calcification"]) <= 2


def test_the_manifests_own_split_stands(synthetic_manifest: Make) -> None:
    frame = synthetic_manifest(12)
    split = ["train"] * 6 + ["validation"] * 3 + ["test"] * 3
    assert split_women(frame.assign(split=split), 0.2, 0).tolist() == split


def test_a_row_without_a_split_follows_its_woman() -> None:
    frame = table(["a", "a", "b", "b", "c"], split=["test", None, "validation", None, None])
    assert split_women(frame, 0.0, 0).tolist() == ["test", "test", "validation", "validation", "train"]


def test_a_split_is_stated_by_any_row_of_a_woman() -> None:
    frame = table(["a", "a", "b", "c", "c"], split=[None, "test", None, "train", None])
    frame.loc[[1, 3], "granularity"] = "finding"
    stated = stated_splits(frame)
    assert stated.where(stated.notna(), None).tolist() == ["test", "test", None, "train", "train"]


def test_the_same_number_in_two_data_sets_is_two_women() -> None:
    frame = table(["1", "1"], split=["test", None])
    frame.loc[1, "dataset"] = "other"
    assert split_women(frame, 0.0, 0).tolist() == ["test", "train"]


def test_a_woman_in_two_splits_is_refused() -> None:
    frame = table(["a", "a"], split=["train", "test"])
    with pytest.raises(ModelError, match="the woman d/a is in train and in test"):
        split_women(frame, 0.0, 0)


def test_an_unknown_split_is_refused() -> None:
    with pytest.raises(ModelError, match="split 'dev' is unknown; use train, validation, test"):
        split_women(table(["a"], split=["dev"]), 0.0, 0)


def test_too_few_women_to_hold_some_out_is_told(synthetic_manifest: Make) -> None:
    with pytest.raises(ModelError, match=r"has too few women to hold some.*set training.validation_share=0"):
        split_women(synthetic_manifest(4), 0.5, 0)
    assert set(split_women(synthetic_manifest(4), 0.0, 0)) == {"train"}


def test_classes_need_two_women_each() -> None:
    frame = table(
        ["a", "b", "c", "d", "e", "e"],
        lesion_type=["mass", "mass", "calcification", "calcification", "asymmetry", "asymmetry"],
        pathology=["benign", "benign", None, None, None, None],
        subtlety=[1, 1, 5, 5, None, None],
    )
    assert label_classes(frame) == {"lesion_type": ("calcification", "mass"), "subtlety": ("1", "5")}


def test_density_classes_stand_in_their_order() -> None:
    frame = table(list("abcdef"), density=["dense", "dense", "fatty", "fatty", "glandular", "glandular"])
    assert label_classes(frame)["density"] == ("fatty", "glandular", "dense")


@pytest.mark.parametrize(
    ("frame", "columns", "cause"),
    [
        (table(["a", "b"]), None, r"no label column has two classes of two women each \(2 rows of 2 women\)"),
        (table(["a"] * 4, pathology=["benign", "malignant"] * 2), None, "4 rows of 1 woman"),
        (table(list("abcd"), pathology=["benign"] * 4), None, "no label column has two classes"),
        (
            table(list("abc"), pathology=["benign", "benign", "malignant"]),
            ("pathology",),
            r"'pathology' can't be learned: it has benign \(2 women\), malignant \(1 woman\); it needs two",
        ),
        (table(["a"]), ("pathology",), "it has no labels"),
        (table(["a"]), ("colour",), "has no column 'colour'"),
    ],
)
def test_what_cannot_be_learned_is_told(frame: pd.DataFrame, columns: tuple[str, ...] | None, cause: str) -> None:
    with pytest.raises(ModelError, match=cause):
        label_classes(frame, columns)


def test_a_data_sets_own_words_are_learned_only_where_they_say_more() -> None:
    frame = table(["a", "b", "c", "d", "e", "f"]).assign(
        pathology=["benign", "malignant"] * 3,
        native_pathology=["B", "M"] * 3,
        lesion_type=["mass", "mass", "mass", "mass", "asymmetry", "asymmetry"],
        native_lesion_type=["CIRC", "CIRC", "SPIC", "SPIC", "ASYM", "ASYM"],
    )
    assert set(label_classes(frame)) == {"pathology", "lesion_type", "native_lesion_type"}
    assert "native_pathology" in label_classes(frame, ("native_pathology",)), "asked for, it is learned"
    frame.loc[0, "native_pathology"] = None
    assert "native_pathology" in label_classes(frame), "known elsewhere than the other, it says something of its own"
