"""Holding atypical rows out helps where labels are wrong, and the table says so against a fair control."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from benchmarks import typicality as benchmark
from index.typicality import typicality


def world(wrong: int, seed: int = 0) -> tuple[np.ndarray, pd.DataFrame]:
    """Return two kinds of findings far apart, two of each of 40 women, some of them with the other kind's label."""
    rng = np.random.default_rng(seed)
    kinds = np.arange(80) // 2 % 2
    vectors = np.eye(16)[kinds] + rng.normal(size=(80, 16)) * 0.05
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    labels = np.array(["A", "B"], object)[kinds]
    chosen = rng.choice(80, wrong, replace=False)
    labels[chosen] = np.where(labels[chosen] == "A", "B", "A")
    frame = pd.DataFrame(
        {
            "row_id": [f"r{i}" for i in range(80)],
            "dataset": "films",
            "patient_id": [f"w{i // 2}" for i in range(80)],
            "density": labels,
        }
    )
    frame.loc[5, "density"] = None
    return vectors.astype(np.float32), frame


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., pd.DataFrame]:
    """A function of vectors and rows that runs the benchmark on them and reads its table."""

    def make(vectors: np.ndarray, frame: pd.DataFrame) -> pd.DataFrame:
        class Read:
            pass

        Read.frame = frame.assign(granularity="breast")
        monkeypatch.setattr(benchmark, "read_dataset", lambda name, folder: Read)
        monkeypatch.setattr(benchmark, "find_data", lambda data: tmp_path)
        monkeypatch.setattr(benchmark, "embed_frozen", lambda rows, granularity: (vectors, "d" * 64))
        monkeypatch.setattr(benchmark, "manifest_digest", lambda rows: "m" * 64)
        output = tmp_path / "results" / "typicality.csv"
        arguments: dict[str, Any] = {"granularity": ["breast"], "folds": 4, "seeds": [0, 1], "resamples": 100}
        benchmark.run(argparse.Namespace(data=None, output=output, **arguments))
        return pd.read_csv(output)

    return make


def test_wrong_labels_are_found_and_answers_get_better(table: Callable[..., pd.DataFrame]) -> None:
    found = table(*world(14))
    assert set(found["seed"]) == {"0", "1", "all"}
    whole = found[(found["class"] == "all") & (found["seed"] == "all") & (found["score"] == "precision@10")]
    row = whole[whole["least"] == 0.3].iloc[0]
    assert 0.1 < row["held_out"] < 0.25  # 14 of 80
    assert row["difference_low"] > 0
    assert row["difference_to_random_low"] > 0
    assert abs(row["typical"] - row["whole"] - row["difference"]) < 2e-4
    assert abs(row["typical"] - row["random"] - row["difference_to_random"]) < 2e-4
    assert (found.loc[found["class"] == "all", "queries"] == 79).all()  # one has no label
    assert set(found["class"]) == {"all", "A", "B"}
    by_class = found[found["class"].isin(["A", "B"]) & (found["score"] == "brier") & (found["least"] == 0.5)]
    assert by_class["queries"].sum() == 79
    assert (found["relevant"] <= found["relevant_whole"]).all()
    assert (found["below_10"] >= found["below_10_whole"]).all()


def test_a_test_woman_says_nothing_of_what_answers_her(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors, frame = world(14)
    labels, keys = frame["density"].to_numpy(object), ("films/" + frame["patient_id"]).to_numpy(object)
    judged: list[set[str]] = []
    asked: list[set[str]] = []
    answered: list[set[str]] = []
    gallery_asked = benchmark._asked

    def judge(vectors: Any, labels: Any, women: Any, **options: Any) -> Any:
        judged.append(set(women))
        return typicality(vectors, labels, women, **options)

    def ask(vectors: Any, labels: Any, keys: Any, gallery: Any, queries: Any) -> pd.DataFrame:
        asked.append(set(keys[queries]))
        answered.append(set(keys[gallery]))
        return gallery_asked(vectors, labels, keys, gallery, queries)

    monkeypatch.setattr(benchmark, "typicality", judge)
    monkeypatch.setattr(benchmark, "_asked", ask)
    found = benchmark.asked_in_folds(vectors, frame, "density", labels, keys, 4, 0)
    each = len(asked) // len(judged)
    assert len(judged) == 4
    for number, women in enumerate(asked):
        assert not women & judged[number // each]
        assert not women & answered[number]
    assert all(len(part) == 80 and part.index.tolist() == list(range(80)) for part in found.values())
    assert found["whole"].loc[5].drop("held_out").isna().all()


def test_a_control_has_as_many_rows_of_each_class() -> None:
    labels = np.array(["A"] * 30 + ["B"] * 10, object)
    kept = np.arange(40) % 3 != 0
    drawn = [benchmark.draw_alike(kept, labels, np.random.default_rng(seed)) for seed in range(5)]
    for own in drawn:
        assert own[:30].sum() == kept[:30].sum()
        assert own[30:].sum() == kept[30:].sum()
    assert any((own != kept).any() for own in drawn)


def test_a_query_whose_label_is_left_nowhere_is_a_miss() -> None:
    vectors, frame = world(0)
    labels, keys = frame["density"].to_numpy(object), frame["patient_id"].to_numpy(object)
    only_a = np.flatnonzero(labels == "A")[:20]
    queries = np.flatnonzero(labels == "B")[-4:]
    found = benchmark._asked(vectors, labels, keys, only_a, queries)
    assert (found[["precision@10", "map@r", "accuracy", "relevant"]] == 0).all(axis=None)
    assert (found["brier"] == 2).all()
