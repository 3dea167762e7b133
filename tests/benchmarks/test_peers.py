"""Each engine returns what it should, in a process of its own; recall, tuning and timing are what they say."""

import argparse
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks import peer_process
from benchmarks.peer_data import SHARES, load_vectors, make_records, make_shares, recalls
from benchmarks.peer_databases import LancePeer, MilvusPeer, QdrantPeer
from benchmarks.peer_engines import FaissGraphPeer, FlatPeer, HnswlibPeer, Peer, Source, UsearchPeer
from benchmarks.peer_mammoseek import MammoseekExactPeer
from benchmarks.peer_process import Job, measure, timed, tune
from benchmarks.peers import choose, filter_rows, run, save_truth, table_row
from errors import MammoseekError

ENGINES = {
    FlatPeer: "faiss",
    FaissGraphPeer: "faiss",
    HnswlibPeer: "hnswlib",
    UsearchPeer: "usearch",
    LancePeer: "lancedb",
    QdrantPeer: "qdrant_client",
    MilvusPeer: "milvus_lite",
    MammoseekExactPeer: "index",
}


@pytest.mark.parametrize("kind", ENGINES, ids=lambda kind: kind.name)
@pytest.mark.filterwarnings("ignore")
@pytest.mark.usefixtures("plain_faiss")
def test_an_engine_finds_the_nearest_rows_among_all_and_among_a_share(
    kind: type[Peer], vector_folder: Path, tmp_path: Path
) -> None:
    pytest.importorskip(ENGINES[kind])
    rows = 600 if kind is MilvusPeer else 1500
    vectors = load_vectors(vector_folder, rows)
    peer = kind(tmp_path, 1)
    try:
        peer.build(Source.of_folder(vector_folder, rows))
        peer.set(kind.grid[-1])
        found = peer.search(vectors.queries, 10)
        assert recalls(found, vectors.neighbours[:, :10]).mean() > 0.97
        assert np.array_equal(peer.search(vectors.queries[:1], 10)[0], found[0])
        assert peer.index_bytes() > rows * 16
        assert peer.parameters()
        if kind.filters:
            share = make_shares(rows) == "tenth"
            similarities = np.where(share, vectors.queries @ vectors.gallery.T, -2)
            right = np.argsort(-similarities, axis=1)[:, :5]
            found = peer.search(vectors.queries, 5, "tenth")
            assert share[found[found >= 0]].all()
            assert recalls(found, right).mean() > 0.9
    finally:
        peer.close()


def test_a_source_reads_its_rows_in_parts_and_draws_a_sample(vector_folder: Path) -> None:
    source = Source.of_folder(vector_folder, 1100)
    gallery = np.load(vector_folder / "gallery.npy")[:1100]
    parts = list(source.parts(400))
    assert [start for start, _ in parts] == [0, 400, 800]
    assert np.array_equal(np.concatenate([part for _, part in parts]), gallery)
    sample = source.sample(50)
    assert len({vector.tobytes() for vector in sample} & {vector.tobytes() for vector in gallery}) == 50


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20), st.floats(0, 1))
@settings(deadline=None, max_examples=50)
def test_tuning_takes_the_first_value_that_reaches_the_recall(each: list[float], target: float) -> None:
    rising = sorted(each)
    grid = list(range(100, 100 + len(rising)))
    reaching = [value for value, reached in zip(grid, rising, strict=True) if reached >= target]
    assert tune(lambda value: rising[value - 100], grid, target) == (reaching[0] if reaching else grid[-1])


def test_recall_counts_the_neighbours_that_were_found_in_any_order() -> None:
    right = np.array([[4, 3, 2, 9], [1, 5, 6, 0]])
    found = np.array([[2, 4, 7], [-1, 8, 7]])
    assert recalls(found, right).tolist() == pytest.approx([2 / 3, 0])


def test_a_search_is_timed_until_the_queries_or_the_time_are_over() -> None:
    queries = np.arange(40, dtype=np.float32)[:, None]

    def search(asked: np.ndarray) -> np.ndarray:
        time.sleep(0.01)
        return asked.astype(np.int64)

    found, spent = timed(search, queries, 8, 60.0)
    assert found[:, 0].tolist() == list(range(40))
    assert len(spent) == 5
    assert min(spent) >= 0.01
    assert len(timed(search, queries, 8, 0.0)[1]) == 3


def test_made_up_records_have_the_shares_they_promise_and_women_as_small_as_asked() -> None:
    women = np.random.default_rng(0).integers(1, 30, 20_000).astype(np.int32)
    assert (pd.factorize(make_records(women)["patient_id"])[0] == pd.factorize(women)[0]).all()
    records = make_records(women, 4)
    counts = records["share"].value_counts()
    assert {name: counts[name] for name in SHARES} == {name: round(20_000 * share) for name, share in SHARES.items()}
    assert records.groupby("patient_id").size().max() == 4
    # A made-up woman stands for rows of one real woman, and shares her density and age.
    for one, of_one in (("patient_id", "real"), ("real", "density"), ("real", "age")):
        assert records.assign(real=women)[[one, of_one]].drop_duplicates()[one].is_unique
    assert records["row_id"].is_unique


def test_truth_among_a_share_is_the_brute_force_answer(vector_folder: Path, tmp_path: Path) -> None:
    vectors = load_vectors(vector_folder)
    save_truth(tmp_path / "truth.npz", vectors, ("tenth", "ten-thousandth"))
    shares = make_shares(len(vectors.gallery))
    with np.load(tmp_path / "truth.npz") as truth:
        similarities = np.where(shares == "tenth", vectors.queries @ vectors.gallery.T, -2)
        assert np.array_equal(truth["tenth"], np.argsort(-similarities, axis=1)[:, :10])
        assert truth["ten-thousandth"].shape == (60, 1)


def test_an_engine_is_measured_and_stands_in_both_tables(
    vector_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peer_process, "TUNED_ON", 20)
    monkeypatch.setattr(peer_process, "FILTERED_TUNED_ON", 20)
    save_truth(tmp_path / "truth.npz", load_vectors(vector_folder), ("half",))
    job = Job(
        "faiss-flat", str(vector_folder), 1500, str(tmp_path / "truth.npz"), 1, batches=(1, 16), seconds=0.1,
        shares=("half",),
    )  # fmt: skip
    found = measure(job)
    row = table_row(found)
    assert row["recall"] == 1
    assert row["queries"] == 32  # of the 40 that were not tuned on, two batches of 16
    assert row["batch_1_per_second"] > 0
    assert row["peak_megabytes"] > 0
    whole, half = filter_rows(found)
    assert (whole["share"], half["share"]) == (1.0, 0.5)
    assert half["recall"] == 1
    assert whole["batch_16_to_unfiltered"] == 1


def test_the_command_writes_a_row_of_a_process_of_its_own(vector_folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "results" / "peers.csv"
    options = {"rows": 1500, "queries": 60, "peers": "faiss-flat", "filters": False, "recall": 0.98, "seconds": 0.1}
    output.parent.mkdir()
    pd.DataFrame([{"peer": "faiss HNSW", "rows": 7}, {"peer": "faiss IndexFlatIP", "rows": 7}]).to_csv(output)
    run(argparse.Namespace(vectors=vector_folder, threads=1, output=output, keep=True, **options))
    kept, row = pd.read_csv(output).to_dict("records")
    assert (kept["peer"], kept["rows"]) == ("faiss HNSW", 7)
    run(argparse.Namespace(vectors=vector_folder, threads=1, output=output, keep=False, **options))
    [row] = pd.read_csv(output).to_dict("records")
    assert (row["peer"], row["rows"], row["threads"]) == ("faiss IndexFlatIP", 1500, 1)
    assert row["recall"] == 1
    assert row["yardstick"] > 0


def test_a_process_that_fails_is_told_by_its_last_words(vector_folder: Path, tmp_path: Path) -> None:
    from benchmarks.peers import measure_apart

    job = Job("faiss-flat", str(vector_folder), 1500, str(tmp_path / "missing.npz"), 1)
    assert asdict(job)["peer"] == "faiss-flat"
    with pytest.raises(MammoseekError, match=r"missing\.npz"):
        measure_apart(job, tmp_path)


def test_unknown_engines_and_sizes_are_refused(vector_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(MammoseekError, match="'annoy' is none of them"):
        choose("faiss-flat,annoy")
    with pytest.raises(MammoseekError, match="has 1500 rows and 60 queries"):
        load_vectors(vector_folder, 2000)
    with pytest.raises(MammoseekError, match="holds no vectors"):
        load_vectors(tmp_path)
