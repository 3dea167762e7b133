"""Hard negatives: what a model takes for lesions, of the training women alone, the surest first, none twice."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from classifiers import ClassificationError, mining
from classifiers.mining import (
    choose_hard,
    lesion_probability,
    mine_hard_negatives,
    number_rows,
    training_women,
)
from embedder.embedding import EmbeddedBatch
from embedder.findings import Box, Finding, findings_frame, patient_key
from embedder.manifest import validate
from embedder.normaltissue import add_normal_tissue, overlap
from embedder.preparation import PreparationConfig

HALF = 100  # row of a synthetic film below which the planted model sees lesions everywhere


@dataclass
class Planted:
    """A model that takes the lower half of a film for a lesion, and knows real lesions and known normal tissue."""

    roles: dict[str, str] = field(default_factory=dict)
    granularity: str = "finding"
    preparation: PreparationConfig = field(default_factory=PreparationConfig)
    dimension: int = 2
    asked: list[str] = field(default_factory=list)

    @property
    def card(self) -> Any:
        return SimpleNamespace(role=lambda key: self.roles.get(key, "unseen"))

    def embed_manifest(self, frame: pd.DataFrame, *, workers: int | None = None) -> Iterator[EmbeddedBatch]:
        self.asked += frame["row_id"].tolist()
        generator = np.random.default_rng(len(frame))
        # Candidates come as normal tissue alone, and what is known with lesions.
        lesion = frame["tissue"] == "lesion"
        alarm = lesion if lesion.any() else (frame["y0"] + frame["y1"]) / 2 > HALF
        vectors = np.where(alarm.to_numpy(np.bool_)[:, None], [1.0, 0.0], [0.0, 1.0])
        vectors = vectors + generator.normal(0, 0.05, vectors.shape)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        # The last row fails, and the others come in another order than asked for.
        order = np.arange(len(frame) - 1)[::-1]
        lost = [(str(frame["row_id"].iloc[-1]), "the file is cut off")]
        yield EmbeddedBatch(frame.iloc[order], vectors[order].astype(np.float32), None, lost)


@pytest.fixture(scope="module")
def with_normal(tissue_manifest: pd.DataFrame) -> pd.DataFrame:
    return add_normal_tissue(tissue_manifest, per_image=2).frame


@pytest.fixture
def planted(monkeypatch: pytest.MonkeyPatch) -> Planted:
    model = Planted()
    monkeypatch.setattr(mining.Embedder, "load", lambda folder, device: model)
    return model


def test_the_planted_false_alarms_are_found_and_nothing_else(with_normal: pd.DataFrame, planted: Planted) -> None:
    found = mine_hard_negatives(with_normal, Path("model"), per_image=3, candidates=12)
    mined = found.frame.iloc[len(with_normal) :]
    assert found.added == len(mined) > 20
    assert (((mined["y0"] + mined["y1"]) / 2) > HALF).all()
    assert (mined["tissue"] == "normal").all()
    assert mined[["lesion_type", "pathology"]].isna().all(axis=None)
    assert mined.groupby("path").size().max() <= 3
    assert found.images == mined["path"].nunique()
    assert found.frame.iloc[: len(with_normal)]["row_id"].tolist() == with_normal["row_id"].tolist()
    assert [message for _, message in found.failures] == ["the file is cut off"] * 2
    validate(found.frame)
    # Nothing but the planted half is lesion-like: at its own threshold the model raises no alarm elsewhere.
    assert found.candidates > found.added


def test_only_training_women_are_looked_at(with_normal: pd.DataFrame, planted: Planted) -> None:
    held = {"tissue/t1": "test", "tissue/t2": "validation", "tissue/t3": "test"}
    keys = patient_key(with_normal)
    # Her split stands on one of her rows only.
    first = ~keys.duplicated()
    frame = with_normal.assign(split=keys.map(held).where(first, None))
    found = mine_hard_negatives(frame, Path("model"))
    mined = found.frame.iloc[len(frame) :]
    assert len(mined)
    assert not set(patient_key(mined)) & set(held)
    asked = {name.split("l")[0].split("r")[0] for name in planted.asked}
    assert not asked & {"t01", "t02", "t03"}
    assert found.women == keys.nunique() - len(held)


def test_women_whom_the_model_left_alone_are_left_alone(with_normal: pd.DataFrame, planted: Planted) -> None:
    planted.roles = {f"tissue/t{n}": "train" for n in range(4)} | {"tissue/t4": "validation"}
    found = mine_hard_negatives(with_normal, Path("model"))
    assert set(patient_key(found.frame.iloc[len(with_normal) :])) <= {f"tissue/t{n}" for n in range(4)}
    assert found.women == 4
    # A woman whom the manifest tests is not mined though the model was trained on her.
    planted.roles = dict.fromkeys(planted.roles, "train")
    tested = with_normal.assign(split=np.where(with_normal["patient_id"] == "t0", "test", "train"))
    assert training_women(tested, planted.card) == {f"tissue/t{n}" for n in range(1, 5)}
    planted.roles = {"tissue/t4": "validation"}
    assert "tissue/t4" not in training_women(with_normal, planted.card)


def test_the_same_question_gives_the_same_places(with_normal: pd.DataFrame, planted: Planted) -> None:
    first, second = (mine_hard_negatives(with_normal, Path("model"), seed=4).frame for _ in range(2))
    pd.testing.assert_frame_equal(first, second)


def test_where_no_place_has_room_nothing_is_added(
    with_normal: pd.DataFrame, planted: Planted, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = mining.candidate_places
    monkeypatch.setattr(mining, "candidate_places", lambda *args, **options: real(*args, **options).iloc[:0])
    found = mine_hard_negatives(with_normal, Path("model"))
    assert (found.added, found.images, found.candidates) == (0, 0, 0)
    pd.testing.assert_frame_equal(found.frame[with_normal.columns], with_normal)


def test_a_second_round_adds_other_places(with_normal: pd.DataFrame, planted: Planted) -> None:
    once = mine_hard_negatives(with_normal, Path("model"), seed=0).frame
    twice = mine_hard_negatives(once, Path("model"), seed=1).frame
    assert len(twice) > len(once) > len(with_normal)
    validate(twice)
    mined = twice.iloc[len(with_normal) :]
    for _, rows in mined.groupby("path"):
        boxes = [Box(*map(int, corners)) for corners in rows[["x0", "y0", "x1", "y1"]].to_numpy()]
        assert max((overlap(a, b) for i, a in enumerate(boxes) for b in boxes[:i]), default=0) <= 0.2


def test_bad_input_is_told(with_normal: pd.DataFrame, tissue_manifest: pd.DataFrame, planted: Planted) -> None:
    for options in ({"per_image": 0}, {"per_image": 13}, {"minimum": 1.5}, {"minimum": float("nan")}):
        with pytest.raises(ClassificationError, match="can't be had"):
            mine_hard_negatives(with_normal, Path("model"), **options)
    with pytest.raises(ClassificationError, match="no normal tissue"):
        mine_hard_negatives(tissue_manifest, Path("model"))
    with pytest.raises(ClassificationError, match="do not have both"):
        mine_hard_negatives(with_normal.assign(split="test"), Path("model"))
    planted.granularity = "breast"
    with pytest.raises(ClassificationError, match="whole breasts"):
        mine_hard_negatives(with_normal, Path("model"))


def test_a_places_own_woman_does_not_judge_it(with_normal: pd.DataFrame) -> None:
    """Each woman's rows lie on an axis of her own: that a place there is a lesion, only she herself could say."""
    known = with_normal[with_normal["tissue"].notna()].reset_index(drop=True)
    women = sorted(known["patient_id"].unique())
    axes = np.eye(len(women), dtype=np.float32)
    vectors = axes[[women.index(name) for name in known["patient_id"]]]
    known = known.assign(tissue=np.where(known["patient_id"].isin(["t1", "t2"]), "lesion", "normal"))
    row = known[known["patient_id"] == "t1"].iloc[:1]
    place = axes[[women.index("t1")]]
    herself = lesion_probability(vectors, known, place, row)[0]
    another = lesion_probability(vectors, known, place, row.assign(patient_id="somebody"))[0]
    assert herself < another - 0.1
    # Places of both kinds of women are judged as each would be alone.
    both = pd.concat([row, row.assign(patient_id="somebody")])
    assert lesion_probability(vectors, known, place[[0, 0]], both) == pytest.approx([herself, another])
    assert lesion_probability(vectors, known, vectors[:0], known.iloc[:0]).shape == (0,)


def slow_choice(places: pd.DataFrame, surety: np.ndarray, taken: pd.DataFrame, per_image: int, minimum: float) -> set:
    """Take the surest place that may still be taken until there is none."""
    here = [(row.path, Box(row.x0, row.y0, row.x1, row.y1)) for row in taken.itertuples() if row.tissue == "normal"]
    chosen: dict[str, str] = {}
    while True:
        open_ = [
            (-surety[i], row.row_id, row.path, Box(row.x0, row.y0, row.x1, row.y1))
            for i, row in enumerate(places.itertuples())
            if surety[i] >= minimum and row.row_id not in chosen
        ]
        open_ = [
            entry
            for entry in open_
            if list(chosen.values()).count(entry[2]) < per_image
            and all(path != entry[2] or overlap(box, entry[3]) <= 0.2 for path, box in here)
        ]
        if not open_:
            return set(chosen)
        _, name, path, box = min(open_)
        chosen[name] = path
        here.append((path, box))


def rows_of(boxes: list[tuple[int, int, int, int]], word: str, tissue: str) -> pd.DataFrame:
    findings = [
        Finding(f"{word}{i}", f"film{film}", "finding", "d", "w", x0=x, y0=y, x1=x + side, y1=y + side)
        for i, (film, x, y, side) in enumerate(boxes)
    ]
    return findings_frame(findings).assign(tissue=tissue)


PLACES = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 30), st.integers(0, 30), st.integers(5, 20)), max_size=12)


@settings(max_examples=40, deadline=None)
@given(PLACES, PLACES, PLACES, st.data())
def test_the_choice_is_the_slow_one(candidates: list, normal: list, lesions: list, data: st.DataObject) -> None:
    places = rows_of(candidates, "c", "normal")
    taken = pd.concat([rows_of(normal, "n", "normal"), rows_of(lesions, "l", "lesion")], ignore_index=True)
    levels = st.sampled_from([0.1, 0.5, 0.7, 0.9])
    surety = np.array(data.draw(st.lists(levels, min_size=len(places), max_size=len(places))))
    per_image = data.draw(st.integers(1, 3))
    found = choose_hard(places, surety, taken, per_image=per_image, minimum=0.5)
    assert set(found["row_id"]) == slow_choice(places, surety, taken, per_image, 0.5)
    assert found["row_id"].is_unique


def test_row_ids_are_new_ones() -> None:
    rows = pd.DataFrame({"row_id": ["a-hard-7", "a-hard-9", "b-hard-1"]})
    assert number_rows(rows, {"a-hard-1", "b"})["row_id"].tolist() == ["a-hard-2", "a-hard-3", "b-hard-1"]
