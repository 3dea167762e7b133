"""From a folder to Milvus and back: nothing is lost, whatever it is."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pandas.testing import assert_frame_equal

from index import GalleryError
from index.gallery import Gallery
from index.manifest import GalleryIdentity
from index.writer import GalleryWriter, create_gallery

pytest.importorskip("pymilvus", reason="pymilvus is not installed (mammoseek[milvus])", exc_type=ImportError)
pytest.importorskip("milvus_lite", reason="milvus-lite is not installed (mammoseek[milvus])", exc_type=ImportError)

from index.milvus.copy import copy_from_milvus, copy_to_milvus
from index.milvus.gallery import MilvusGallery
from index.milvus.link import MilvusLink

IDENTITY = GalleryIdentity("a" * 64, "b" * 64, "finding", 8)
PNG = b"\x89PNG\r\n\x1a\n"


def difficult() -> tuple[np.ndarray, list[pd.DataFrame], list[bytes]]:
    """Return rows with every kind of column, and what else may be lost on the way."""
    rng = np.random.default_rng(3)
    vectors = rng.normal(size=(40, 8)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors[0] = [1, -0.0, 1e-30, -1e-38, 1e-45, 0, 0, 0]  # minus zero and denormal numbers
    names = [
        "D",
        "",
        " D ",
        'D"',
        "D\\n",
        "a\nb",
        "null",
        "3",
        "3.0",
        "true",
        "é",
        "e\u0301",
        "乳腺",
        "\x01",
        "🩻",
        None,
    ]
    records = pd.DataFrame(
        {
            "row_id": [f"row {i} 'ä\" \\" for i in range(40)],
            "granularity": "finding",
            "patient_id": [f"00{i // 3}" for i in range(40)],
            "dataset": ["films", "Films "][0],
            "text": [names[i % len(names)] for i in range(40)],
            "long": ["x" * 20_000 if i % 10 == 0 else None for i in range(40)],
            "integer": pd.array(
                [None if i % 7 == 0 else (-1) ** i * (2**63 - 1 - i) for i in range(40)], dtype="Int64"
            ),
            "number": [
                np.nan if i % 5 == 0 else [0.1, -0.0, 3.0, 5e-324, 1.7976931348623157e308][i % 5] for i in range(40)
            ],
            "truth": pd.array([None if i % 4 == 0 else i % 2 == 0 for i in range(40)], dtype="boolean"),
            "no_number": np.full(40, np.nan),
            "no_text": pd.Series([None] * 40, dtype=pd.Series(["text"]).dtype),
            "no_integer": pd.array([None] * 40, dtype="Int64"),
            "no_truth": pd.array([None] * 40, dtype="boolean"),
            "Größe in mm": [float(i) for i in range(40)],
            "_record": [f"own {i}" for i in range(40)],
            "column_4": ["odd" if i % 2 else None for i in range(40)],
            "later_a_number": pd.array(list(range(40)), dtype="Int64"),
        }
    )
    first = records[:25].drop(columns=["truth", "_record"])
    second = records[25:].assign(later_a_number=[i + 0.5 for i in range(15)])
    pictures = [PNG + rng.bytes(int(size)) if size else b"" for size in rng.choice([0, 1, 300, 70_000, 140_000], 40)]
    return vectors, [first, second], pictures


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    vectors, parts, pictures = difficult()
    create_gallery(tmp_path / "gallery", IDENTITY)
    with GalleryWriter(tmp_path / "gallery") as writer:
        writer.append(vectors[:25], parts[0].reset_index(drop=True), pictures[:25])
        writer.append(vectors[25:], parts[1].reset_index(drop=True), pictures[25:])
    return tmp_path / "gallery"


def assert_same(one: Path, other: Path, *, pictures: bool = True) -> None:
    first, second = Gallery.open(one), Gallery.open(other)
    assert first.identity == second.identity
    assert_frame_equal(first.records, second.records, check_exact=True)
    number = first.records["number"].to_numpy()
    assert number.tobytes() == second.records["number"].to_numpy().tobytes()
    assert first.matrix.tobytes() == second.matrix.tobytes()
    for name in first.table.names:
        assert first.table.kind(name) == second.table.kind(name)
    for position in range(len(first)):
        assert first.record(position) == second.record(position)
        picture = first.thumbnail(first.row_id(position))
        assert second.thumbnail(second.row_id(position)) == (picture if pictures else None)


def test_there_and_back(folder: Path, tmp_path: Path) -> None:
    address = f"milvus://{tmp_path}/m.db/findings"
    told: list[tuple[int, int]] = []
    report = copy_to_milvus(folder, address, progress=lambda done, rows: told.append((done, rows)))
    assert (report.added, report.already_there, report.failures) == (40, 0, ())
    back = copy_from_milvus(address, tmp_path / "back", progress=lambda done, rows: told.append((done, rows)))
    assert (back.added, back.already_there, back.failures) == (40, 0, ())
    assert told == [(40, 40)] * 2
    assert_same(folder, tmp_path / "back")
    gallery = Gallery.open(folder)
    with MilvusGallery.open(address) as copy:
        for position in range(40):
            row_id = gallery.row_id(position)
            record, wanted = copy.record_of(row_id), gallery.record(position)
            assert record == wanted
            assert {name: type(value) for name, value in record.items()} == {n: type(v) for n, v in wanted.items()}
            assert copy.vector(row_id).tobytes() == gallery.matrix[position].tobytes()
            assert copy.thumbnail(row_id) == gallery.thumbnail(row_id)
    # Once more changes nothing, either way.
    assert copy_to_milvus(folder, address).already_there == 40
    assert copy_from_milvus(address, tmp_path / "back").already_there == 40
    assert_same(folder, tmp_path / "back")
    assert copy_from_milvus(address, tmp_path / "bare", thumbnails=False).added == 40
    assert_same(folder, tmp_path / "bare", pictures=False)


@pytest.mark.parametrize("requests", [1, 2, 3, 4, 5, 6])
def test_a_stopped_copy_goes_on(folder: Path, tmp_path: Path, requests: int, monkeypatch: pytest.MonkeyPatch) -> None:
    address = f"milvus://{tmp_path}/m.db/findings"
    MilvusGallery.create(address, IDENTITY).close()
    original, left = MilvusLink.upsert, [requests]

    def stopping(self: MilvusLink, collection: str, rows: Any) -> None:
        left[0] -= 1
        if not left[0]:
            raise KeyboardInterrupt
        # Small requests, so that a copy consists of several.
        half = len(rows) // 2 if collection == "findings" else len(rows)
        original(self, collection, rows[:half])
        if half < len(rows) and left[0] < 2:
            raise KeyboardInterrupt
        if rows[half:]:
            original(self, collection, rows[half:])

    monkeypatch.setattr(MilvusLink, "upsert", stopping)
    stopped = False
    try:
        copy_to_milvus(folder, address)
    except KeyboardInterrupt:
        stopped = True
    assert stopped == (requests < 6)
    monkeypatch.setattr(MilvusLink, "upsert", original)
    copy_to_milvus(folder, address)
    copy_from_milvus(address, tmp_path / "back")
    assert_same(folder, tmp_path / "back")
    with MilvusGallery.open(address) as copy:
        kept = {row["_number"] for row in copy.meeting("_number >= 0", [])}
        pictured = {row["_number"] for row in copy.link.query("findings__pictures", "_number >= 0", ["_number"])}
        assert pictured <= kept
        assert len(kept) == 40


def test_another_models_gallery_is_no_target(folder: Path, tmp_path: Path, make_gallery: Callable[..., Path]) -> None:
    address = f"milvus://{tmp_path}/m.db/findings"
    copy_to_milvus(folder, address, thumbnails=False)
    other = make_gallery(name="other")
    with pytest.raises(GalleryError, match="dimension"):
        copy_to_milvus(other, address)
    with pytest.raises(GalleryError, match="dimension"):
        copy_from_milvus(address, other)


def test_what_differs_is_named_and_left(make_gallery: Callable[..., Path], make_findings: Any, tmp_path: Path) -> None:
    address = f"milvus://{tmp_path}/m.db/findings"
    copy_to_milvus(make_gallery(make_findings(20)), address)
    changed = make_findings(22)
    changed.records.loc[3, "density"] = "other"
    report = copy_to_milvus(make_gallery(changed, name="changed"), address)
    assert (report.added, report.already_there) == (2, 19)
    assert [row for row, _ in report.failures] == ["row-0003"]
    assert "another density" in report.failures[0][1]
    with MilvusGallery.open(address) as copy:
        assert copy.record_of("row-0003")["density"] != "other"
    back = copy_from_milvus(address, tmp_path / "changed")
    assert (back.added, back.already_there, len(back.failures)) == (0, 21, 1)
