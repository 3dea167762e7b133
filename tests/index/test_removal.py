import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from index import GalleryError
from index.gallery import Gallery
from index.indexing import rebuild_index
from index.layout import REMOVALS_NAME, all_files
from index.manifest import GalleryIdentity, read_manifest
from index.removal import _Search, _Twins, log_removal, settle_log, stored_forms
from index.upkeep import build_gallery, remove_rows, verify_gallery
from index.writer import GalleryWriter

_faiss: Any = faiss
DIMENSION = 64
ROWS = 1200
PRESETS = ["exact", "float16", "int8", "hnsw", "ivf", "ivf-sq", "ivf-pq"]


def holds(folder: Path, needles: list[bytes]) -> list[str]:
    """Return the files of a folder in which any of some bytes stand, at any offset."""
    found = []
    for name in all_files(folder):
        data = (folder / name).read_bytes()
        found += [name for needle in needles if needle in data]
    return sorted(set(found))


class TestAWomanIsGone:
    @pytest.mark.parametrize(("preset", "woman"), [*((preset, 100) for preset in PRESETS), ("ivf", ROWS // 3 - 1)])
    def test_from_every_file_whatever_the_index(
        self, tmp_path: Path, make_findings: Callable[..., Any], preset: str, woman: int
    ) -> None:
        folder, batch = tmp_path / "gallery", make_findings(ROWS, dimension=DIMENSION)
        # Clustered, with the last woman's rows far from all: an inverted file may give each a cell of its own.
        batch.vectors[: ROWS - 3] += 3 * batch.vectors[0]
        batch.vectors /= np.linalg.norm(batch.vectors, axis=1, keepdims=True)
        batch.records["study_id"] = [f"STUDY-{int(patient[1:]):05d}" for patient in batch.records["patient_id"]]
        identity = GalleryIdentity("a" * 64, "b" * 64, "finding", DIMENSION)
        build_gallery(folder, identity, batch.records, lambda todo: [batch])
        rebuild_index(folder, {"engine": preset})
        entry = read_manifest(folder).index
        assert (entry is None) == (preset == "exact")
        rows = np.arange(3 * woman, 3 * woman + 3)
        vectors = batch.vectors[rows]
        needles = stored_forms(vectors)
        if entry is not None:
            needles += codes_of(folder / entry.cache.file, rows, vectors)
        names = ["row_id", "patient_id", "study_id", "path"]
        others = batch.records.drop(index=rows)
        for name in names:
            own = set(batch.records.loc[rows, name]) - set(others[name])
            needles += [value.encode() for value in own]
        needles += [batch.thumbnails[row] for row in rows]
        before = holds(folder, needles)
        assert {name.rsplit(".")[-1] for name in before if name.startswith("segments")} == {"h5", "pictures"}
        assert any(name.startswith("cache") for name in before) or preset in ("exact", "ivf-pq")
        report = remove_rows(folder, patient=f"W{woman:03d}")
        assert report.removed == 3
        assert holds(folder, needles) == []
        gallery = Gallery.open(folder)
        assert gallery.index.description["engine"] == preset
        assert gallery.notes == ()
        assert not np.isin(gallery.numbers, rows).any()
        assert verify_gallery(folder).ok


def codes_of(path: Path, rows: np.ndarray, vectors: np.ndarray) -> list[bytes]:
    """Return what an index makes of some rows: the vectors as it turns them, and their codes as they lie in it.

    A code that is packed with those of other rows does not lie in one piece; it can't be searched for.
    """
    index = _faiss.deserialize_index(np.frombuffer(path.read_bytes(), np.uint8))
    found = []
    if isinstance(index, faiss.IndexPreTransform):
        turned = index.apply_chain(len(vectors), faiss.swig_ptr(vectors))
        found += [v.tobytes() for v in _faiss.rev_swig_ptr(turned, vectors.size).reshape(vectors.shape).copy()]
    if isinstance(index, faiss.IndexIDMap):
        inner = _faiss.downcast_index(index.index)
        inner = _faiss.downcast_index(inner.storage) if isinstance(inner, faiss.IndexHNSW) else inner
        codes = _faiss.vector_to_array(inner.codes).reshape(inner.ntotal, -1)
        held = np.flatnonzero(np.isin(_faiss.vector_to_array(index.id_map), rows))
        return found + [codes[row].tobytes() for row in held]
    lists = _faiss.extract_index_ivf(index).invlists
    if lists.code_size != faiss.InvertedLists.INVALID_CODE_SIZE:
        for cell in range(lists.nlist):
            if size := lists.list_size(cell):
                ids = _faiss.rev_swig_ptr(lists.get_ids(cell), size)
                codes = _faiss.rev_swig_ptr(lists.get_codes(cell), size * lists.code_size).reshape(size, -1)
                found += [codes[place].tobytes() for place in np.flatnonzero(np.isin(ids, rows))]
    return found


def test_the_forms_of_vectors_are_those_that_stand_in_an_index() -> None:
    random = np.random.default_rng(0)
    vectors = random.normal(size=(500, DIMENSION)).astype(np.float32)
    vectors[0, :4] = 0, -0.0, 1e-30, -1e-42
    forms = stored_forms(vectors)
    for place, coding in enumerate(("Flat", "SQfp16", "SQbf16")):
        index = _faiss.index_factory(DIMENSION, f"IDMap,{coding}", _faiss.METRIC_INNER_PRODUCT)
        index.add_with_ids(vectors, np.arange(500))
        data = _faiss.serialize_index(index).tobytes()
        assert all(form in data for form in forms[place * 500 : place * 500 + 500])


@given(st.integers(0, 2**32 - 1))
@settings(deadline=None, max_examples=60)
def test_a_twin_in_any_form_is_known(seed: int) -> None:
    random = np.random.default_rng(seed)
    removed = random.normal(size=(3, 16)).astype(np.float32)
    # As near as the rounding of either half: some are one in it, some are not.
    kept = np.concatenate(
        [removed * (1 + random.choice([0, 2.0**-9, 2.0**-12, 2.0**-24], (3, 1))), random.normal(size=(5, 16))]
    )
    kept = kept.astype(np.float32)
    twins = _Twins(removed)
    twins.note(kept)
    assert set(twins.without_twin()) == set(stored_forms(removed)) - set(stored_forms(kept))


class TestTheProof:
    @pytest.fixture
    def writer(self, gallery_folder: Path) -> Any:
        with GalleryWriter(gallery_folder) as writer:
            yield writer

    @pytest.mark.parametrize("form", [0, 1, 2])
    @pytest.mark.parametrize("name", ["notes.txt", "segments/notes", "removals.log", "old/copy.h5"])
    def test_a_copy_in_any_file_is_found(self, writer: GalleryWriter, name: str, form: int) -> None:
        vector = stored_forms(Gallery.open(writer.folder).matrix[4:5])[form]
        path = writer.folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"abc" + vector + b"\n")
        with pytest.raises(GalleryError, match=f"{name}: still holds a part"):
            writer.remove(["row-0004"])
        path.unlink()
        states = (writer.folder / REMOVALS_NAME).read_text() if name != "removals.log" else ""
        assert "proven" not in states

    def test_a_picture_that_stays_is_found(self, writer: GalleryWriter, make_findings: Callable[..., Any]) -> None:
        (writer.folder / "seen.png").write_bytes(make_findings(20).thumbnails[4])
        with pytest.raises(GalleryError, match="still holds a part"):
            writer.remove(["row-0004"])

    def test_many_rows_are_searched_for_at_once(self, writer: GalleryWriter) -> None:
        vector = Gallery.open(writer.folder).matrix[19].tobytes()
        (writer.folder / "notes.txt").write_bytes(b"abc" + vector)
        with pytest.raises(GalleryError, match=r"notes\.txt: still holds a part"):
            writer.remove([f"row-{row:04d}" for row in range(20)])

    def test_a_text_that_no_row_has_is_found(self, writer: GalleryWriter, monkeypatch: pytest.MonkeyPatch) -> None:
        """A writer that takes the rows and forgets the list of distinct texts."""

        def careless(segment: Any, rows: Any) -> Any:
            from dataclasses import replace

            columns = {
                name: replace(c, codes=c.codes[rows], missing=c.missing[rows])
                if c.codes is not None and name != "row_id"
                else take_rows(c, rows)
                for name, c in segment.columns.items()
            }
            return replace(
                segment,
                vectors=segment.vectors[rows],
                numbers=segment.numbers[rows],
                columns=columns,
                pictures=None,
            )

        from index.table import take_rows

        monkeypatch.setattr("index.writer.select", careless)
        with pytest.raises(GalleryError, match=r"still holds a text of .* that is no row's"):
            writer.remove(["row-0003", "row-0004", "row-0005"])

    def test_what_is_no_file_is_left_alone(self, writer: GalleryWriter, tmp_path: Path) -> None:
        vector = Gallery.open(writer.folder).matrix[4].tobytes()
        (tmp_path / "elsewhere").write_bytes(vector)
        (writer.folder / "link").symlink_to(tmp_path / "elsewhere")
        (writer.folder / "endless").symlink_to("/dev/zero")
        os.mkfifo(writer.folder / "pipe")
        (writer.folder / "empty").touch()
        assert writer.remove(["row-0004"]) == 1


@settings(deadline=None, max_examples=40)
@given(st.data())
def test_the_search_finds_what_python_finds(data: st.DataObject) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    content = rng.integers(0, 2, data.draw(st.integers(0, 3000)), dtype=np.uint8).tobytes()
    patterns = [rng.integers(0, 2, 32, dtype=np.uint8).tobytes() for _ in range(data.draw(st.sampled_from([1, 20])))]
    start = data.draw(st.integers(0, max(0, len(content) - 1)))
    stop = data.draw(st.integers(start, len(content)))
    if data.draw(st.booleans()) and len(content) >= 32:
        place = data.draw(st.integers(0, len(content) - 32))
        content = content[:place] + data.draw(st.sampled_from(patterns)) + content[place + 32 :]
    expected = any(pattern in content[start:stop] for pattern in patterns)
    assert _Search(patterns).finds(content, start, stop) == expected


@pytest.mark.parametrize("count", [1, 20])
@pytest.mark.parametrize("place", range(17))
def test_a_pattern_is_found_at_every_offset(count: int, place: int) -> None:
    patterns = [bytes([number] * 40) for number in range(1, 1 + count)]
    content = bytes(place) + patterns[-1] + bytes(9)
    search = _Search(patterns)
    assert search.finds(content, 0, len(content))
    assert search.finds(content, place, place + 40)
    assert not search.finds(content, place + 1, len(content))
    assert not search.finds(content, 0, place + 39)


class TestTheLog:
    def test_a_torn_line_does_not_swallow_the_next(self, tmp_path: Path) -> None:
        (tmp_path / REMOVALS_NAME).write_text('{"time": "2020')
        log_removal(tmp_path, "begun", 3, 1, 1, "rows")
        lines = (tmp_path / REMOVALS_NAME).read_text().splitlines()
        assert lines[0] == '{"time": "2020'
        assert json.loads(lines[1])["generation"] == 3

    @pytest.mark.parametrize(("stands", "state"), [(2, "undone"), (3, "unproven")])
    def test_what_was_cut_short_is_settled_once(self, tmp_path: Path, stands: int, state: str) -> None:
        log_removal(tmp_path, "begun", 3, 5, 2, "patient")
        for _ in range(2):
            settle_log(tmp_path, stands)
        lines = [json.loads(line) for line in (tmp_path / REMOVALS_NAME).read_text().splitlines()]
        assert [line["state"] for line in lines] == ["begun", state]
        assert (lines[1]["rows"], lines[1]["women"], lines[1]["by"]) == (5, 2, "patient")

    @pytest.mark.parametrize(
        "content",
        [
            b"",
            b"\n",
            b"nonsense\n",
            b"[" * 3000,
            b"\xff\xfe\n",
            b'{"state": "begun"}\n',
            b'{"state": ["begun"]}\n',
            b"7\n",
        ],
    )
    def test_a_log_of_somebody_else_is_added_to(self, tmp_path: Path, content: bytes) -> None:
        (tmp_path / REMOVALS_NAME).write_bytes(content)
        settle_log(tmp_path, 3)
        assert (tmp_path / REMOVALS_NAME).read_bytes() == content

    def test_a_log_that_leads_elsewhere_is_not_written(self, tmp_path: Path) -> None:
        (tmp_path / "victim").write_text("precious")
        (tmp_path / REMOVALS_NAME).symlink_to(tmp_path / "victim")
        with pytest.raises(GalleryError):
            log_removal(tmp_path, "begun", 3, 1, 1, "rows")
        settle_log(tmp_path, 3)
        assert (tmp_path / "victim").read_text() == "precious"
