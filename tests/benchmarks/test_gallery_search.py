"""The benchmarks of a large gallery at a small size: what they measure is what they say."""

import argparse
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks.gallery_filters import FILTERS
from benchmarks.gallery_filters import run as run_filters
from benchmarks.gallery_search import own_milliseconds, run
from benchmarks.gallery_turns import Way, calls_for, in_turn
from benchmarks.peer_data import load_vectors
from benchmarks.peer_engines import Source
from benchmarks.peer_mammoseek import make_gallery, women_asked
from index.answers import Question
from index.gallery import Gallery


def test_a_way_of_half_the_speed_has_half_the_ratio_and_none_is_always_first() -> None:
    order: list[tuple[str, int]] = []

    def way(name: str, seconds: float) -> Way:
        def ask(asked: np.ndarray, place: slice) -> None:
            assert asked[:, 0].tolist() == list(range(place.start, place.stop))
            order.append((name, place.start))
            time.sleep(seconds)

        return ask

    queries = np.arange(12, dtype=np.float32)[:, None]
    timed = in_turn({"bare": way("bare", 0.02), "slow": way("slow", 0.04)}, queries, 4, 2, 1, "bare")
    assert timed["bare"].ratio == 1
    assert timed["slow"].ratio == pytest.approx(0.5, abs=0.15)
    assert timed["slow"].per_second == pytest.approx(100, rel=0.3)
    assert order[2:] == [("bare", 0), ("slow", 0), ("slow", 4), ("bare", 4)]


def test_calls_fill_the_time_that_is_given() -> None:
    assert calls_for(0.5, 4.0) == 8
    assert calls_for(100.0, 4.0) == 1


def test_the_table_compares_exact_with_bare_and_auto_with_exact(vector_folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "search.csv"
    arguments = argparse.Namespace(
        parts=("exact", "auto"),
        vectors=vector_folder,
        rows=1500,
        work=tmp_path / "work",
        threads=1,
        repeats=1,
        seconds=0.01,
        output=output,
    )
    run(arguments)
    table = pd.read_csv(output)
    assert set(table["part"]) == {"exact", "auto"}
    assert (table.loc[table["way"] == "faiss.IndexFlatIP", "ratio"] == 1).all()
    assert (table.loc[table["way"] == "ask_many, exact", "ratio"] == 1).all()
    auto = table[table["way"] == "ask_many, auto"]
    assert (auto["recall"] > 0.97).all()
    assert table.loc[table["own_ms"].notna(), "batch"].tolist() == [1]
    assert (table["threads"] == 1).all()


def test_the_filters_table_has_the_shares_and_full_recall_of_an_exact_engine(
    vector_folder: Path, tmp_path: Path
) -> None:
    output = tmp_path / "filters.csv"
    arguments = argparse.Namespace(
        vectors=vector_folder, rows=1500, work=tmp_path / "work", threads=1, repeats=1, seconds=0.01, queries=30,
        output=output,
    )  # fmt: skip
    run_filters(arguments)
    table = pd.read_csv(output)
    assert set(table["where"]) == set(FILTERS.values())
    half = table[table["where"] == "share == 'half'"]
    assert (half["allowed"] == 750).all()
    assert (table["recall"] == 1).all()  # so few rows are searched exactly
    assert (table.loc[table["allowed"] >= 10, "filled"] == 1).all()
    assert (table.loc[table["allowed"] < 10, "filled"] == 0).all()


def test_our_own_time_leaves_the_engine_s_out(
    vector_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_gallery(tmp_path / "gallery", Source.of_folder(vector_folder, 200))
    gallery = Gallery.open(tmp_path / "gallery")
    engine = gallery.index
    quick = type(engine).search

    def slow(self: object, *arguments: object, **options: object) -> object:
        time.sleep(0.05)
        return quick(self, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(type(engine), "search", slow)
    queries = load_vectors(vector_folder, 200).queries[:5]
    assert own_milliseconds(gallery, queries, women_asked(gallery, 5), Question()) < 40
    assert gallery.index is engine
