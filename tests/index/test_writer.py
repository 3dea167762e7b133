import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from index import GalleryError, QueryError
from index import writer as writing
from index.gallery import Gallery
from index.indexing import rebuild_index
from index.layout import LOCK_NAME, REMOVALS_NAME, all_files, stray_files
from index.manifest import MANIFEST_NAME, GalleryIdentity, read_manifest, write_manifest
from index.upkeep import verify_gallery
from index.writer import GalleryWriter, create_gallery


def holds(folder: Path, needle: bytes) -> list[str]:
    """Return the files of a folder in which some bytes stand, at any offset."""
    return [name for name in all_files(folder) if needle in (folder / name).read_bytes()]


class TestCreation:
    def test_again_with_the_same_identity_is_fine(self, gallery_folder: Path, identity: GalleryIdentity) -> None:
        create_gallery(gallery_folder, identity)
        assert len(Gallery.open(gallery_folder)) == 33

    def test_another_model_is_refused_and_both_are_named(self, gallery_folder: Path, identity: GalleryIdentity) -> None:
        with pytest.raises(GalleryError) as error:
            create_gallery(gallery_folder, replace(identity, model_digest="f" * 64))
        assert identity.model_digest in str(error.value)
        assert "f" * 64 in str(error.value)

    def test_a_folder_with_something_else_is_left_alone(self, tmp_path: Path, identity: GalleryIdentity) -> None:
        (tmp_path / "thesis.txt").write_text("precious")
        with pytest.raises(GalleryError, match=r"not empty \(it holds thesis.txt\)"):
            create_gallery(tmp_path, identity)
        assert all_files(tmp_path) == ["thesis.txt"]
        with pytest.raises(GalleryError, match="not a folder"):
            create_gallery(tmp_path / "thesis.txt", identity)

    def test_what_an_interrupted_creation_left_is_taken_over(self, tmp_path: Path, identity: GalleryIdentity) -> None:
        (tmp_path / "segments").mkdir()
        (tmp_path / LOCK_NAME).write_text("{}")
        (tmp_path / f"{MANIFEST_NAME}.77.tmp").write_text("{")
        create_gallery(tmp_path, identity)
        with GalleryWriter(tmp_path) as writer:
            assert writer.cleaned == (f"{MANIFEST_NAME}.77.tmp",)

    def test_no_lock_is_left_in_a_folder_that_is_no_gallery(self, tmp_path: Path) -> None:
        with pytest.raises(GalleryError, match="not a gallery"), GalleryWriter(tmp_path):
            pass
        assert list(tmp_path.iterdir()) == []


class TestAppending:
    @pytest.fixture
    def writer(self, gallery_folder: Path) -> Iterator[GalleryWriter]:
        with GalleryWriter(gallery_folder) as writer:
            yield writer

    def test_each_append_is_one_generation(self, writer: GalleryWriter, make_findings: Callable[..., Any]) -> None:
        before = writer.generation
        for first in (40, 50):
            batch = make_findings(5, first=first)
            writer.append(batch.vectors, batch.records)
        gallery = Gallery.open(writer.folder)
        assert gallery.generation == writer.generation == before + 2
        assert len(gallery) == 43
        np.testing.assert_array_equal(gallery.matrix[-5:], batch.vectors)
        assert gallery.numbers.tolist() == list(range(43))

    def test_nothing_is_no_generation(self, writer: GalleryWriter, make_findings: Callable[..., Any]) -> None:
        batch = make_findings(0)
        before = writer.generation
        writer.append(batch.vectors, batch.records)
        assert writer.generation == before
        assert writer.present(batch.records).stored.shape == (0,)

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            (lambda v: v.astype(np.float64), "float64"),
            (lambda v: v[:, :-1], "wanted"),
            (lambda v: v[:-1], "wanted"),
            (lambda v: v * np.float32(1.01), "row 1 is not of length 1"),
            (lambda v: np.where(np.arange(len(v))[:, None] == 3, np.nan, v).astype(np.float32), "row 4 is not"),
            (lambda v: v * np.float32(0), "row 1 is not of length 1"),
        ],
    )
    def test_vectors_that_do_not_fit(
        self, writer: GalleryWriter, make_findings: Callable[..., Any], change: Callable[..., Any], words: str
    ) -> None:
        batch = make_findings(5, first=40)
        with pytest.raises(GalleryError, match=words):
            writer.append(change(batch.vectors), batch.records)
        assert len(Gallery.open(writer.folder)) == 33

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            ({"granularity": "breast"}, "keep findings and breasts in two galleries"),
            ({"row_id": "row-0099"}, "row-0099 stands twice"),
            ({"row_id": [f"row-{i:04d}" for i in range(30, 35)]}, "row-0030 is already stored"),
            ({"age": "old"}, "column age is of another kind"),
            ({"rank": 1}, "rank"),
            ({"patient_id": None}, "patient_id"),
        ],
    )
    def test_records_that_do_not_fit(
        self, writer: GalleryWriter, make_findings: Callable[..., Any], change: dict[str, Any], words: str
    ) -> None:
        batch = make_findings(5, first=40)
        with pytest.raises(GalleryError, match=words):
            writer.append(batch.vectors, batch.records.assign(**change))
        assert len(Gallery.open(writer.folder)) == 33

    @pytest.mark.parametrize("pictures", [[b"\x89PNG\r\n\x1a\n"] * 4, [b"GIF"] * 5])
    def test_thumbnails_that_do_not_fit(
        self, writer: GalleryWriter, make_findings: Callable[..., Any], pictures: list[bytes]
    ) -> None:
        batch = make_findings(5, first=40)
        with pytest.raises(GalleryError, match="one PNG file per row"):
            writer.append(batch.vectors, batch.records, pictures)

    def test_columns_may_come_and_go(self, writer: GalleryWriter, make_findings: Callable[..., Any]) -> None:
        batch = make_findings(5, first=40)
        records = batch.records.drop(columns="view").assign(age=[1, 2, 3, 4, 5], shape="round")
        writer.append(batch.vectors, records)
        stored = Gallery.open(writer.folder).records
        assert stored["view"].notna().sum() == 33
        assert stored["shape"].tolist()[-5:] == ["round"] * 5
        assert stored["age"].tolist()[-5:] == [1, 2, 3, 4, 5]


class TestTwoWriters:
    def test_the_second_is_refused_and_told_who_is_first(self, gallery_folder: Path) -> None:
        code = "import sys; from index.writer import GalleryWriter\nfrom pathlib import Path\n"
        code += "with GalleryWriter(Path(sys.argv[1])):\n print('in', flush=True); sys.stdin.read()"
        with subprocess.Popen(
            [sys.executable, "-c", code, str(gallery_folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as first:
            assert first.stdout is not None
            assert first.stdout.readline() == b"in\n"
            with pytest.raises(GalleryError, match=f"process {first.pid} on"), GalleryWriter(gallery_folder):
                pass
            assert len(Gallery.open(gallery_folder)) == 33  # readers are not kept waiting
            first.kill()
        with GalleryWriter(gallery_folder):
            pass


class TestCompacting:
    @pytest.fixture
    def folder(self, tmp_path: Path, identity: GalleryIdentity, make_findings: Callable[..., Any]) -> Path:
        """Small segments that differ in their columns, in what a column holds, and in whether there are pictures."""
        create_gallery(tmp_path / "g", identity)
        with GalleryWriter(tmp_path / "g") as writer:
            for number, first in enumerate(range(0, 24, 4)):
                batch = make_findings(4, first=first)
                records = batch.records
                if number == 1:
                    records = records.drop(columns="view")
                if number == 2:
                    records = records.assign(age=[50, 51, 52, 53], shape="round")
                if number == 3:
                    records = records.assign(implant=[True, None, False, None], density=None)
                writer.append(batch.vectors, records, None if number in (2, 4) else batch.thumbnails)
            writer.remove(["row-0003", "row-0009", "row-0020"])
        return tmp_path / "g"

    def state(self, folder: Path) -> dict[str, Any]:
        gallery = Gallery.open(folder)
        return {
            "vectors": gallery.matrix.tobytes(),
            "numbers": gallery.numbers.tolist(),
            "records": [gallery.record(row) for row in range(len(gallery))],
            "pictures": [gallery.thumbnail(row_id) for row_id in gallery.row_ids],
            "women": gallery.women.tolist(),
            "kinds": {name: gallery.table.kind(name) for name in gallery.table.names},
        }

    def test_all_stays_as_it_was_but_the_files(self, folder: Path) -> None:
        before, manifest = self.state(folder), read_manifest(folder)
        assert before["pictures"].count(None) == 7
        with GalleryWriter(folder) as writer:
            assert writer.compact() == 5
            assert writer.compact() == 0
            assert writer.generation == manifest.generation + 1
        assert self.state(folder) == before
        after = read_manifest(folder)
        assert [(entry.rows, entry.first, entry.last) for entry in after.segments] == [(21, 0, 23)]
        assert (after.columns, after.next_number) == (manifest.columns, 24)
        assert stray_files(folder, after) == []
        assert verify_gallery(folder).ok

    def test_it_goes_up_to_a_full_segment(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        before = self.state(folder)
        monkeypatch.setattr(GalleryWriter, "_full_rows", 8)
        with GalleryWriter(folder) as writer:
            assert writer.compact() == 3
        assert [entry.rows for entry in read_manifest(folder).segments] == [7, 7, 7]
        assert self.state(folder) == before

    def test_when_many_have_gathered(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        with GalleryWriter(folder) as writer:
            assert writer.compact_when_many() == 0
            monkeypatch.setattr(writing, "SMALL_SEGMENTS", 5)
            assert writer.compact_when_many() == 5

    def test_numbers_are_never_used_again(self, folder: Path, make_findings: Callable[..., Any]) -> None:
        again = make_findings(4, first=20)
        with GalleryWriter(folder) as writer:
            writer.remove([f"row-{row:04d}" for row in (21, 22, 23)])
            writer.compact()
            writer.append(again.vectors, again.records)
        gallery = Gallery.open(folder)
        assert gallery.numbers.tolist()[-4:] == [24, 25, 26, 27]
        assert gallery.row_ids.tolist()[-4:] == again.records["row_id"].tolist()

    def test_an_index_goes_on_as_it_was(self, folder: Path, index_engine: Any) -> None:
        rebuild_index(folder, {})
        index = read_manifest(folder).index
        with GalleryWriter(folder) as writer:
            assert writer.compact() == 5
        gallery = Gallery.open(folder)
        assert gallery.manifest.index == index
        assert (gallery.index.description["engine"], gallery.notes) == ("stub", ())

    def test_a_damaged_segment_stops_it(self, folder: Path) -> None:
        manifest = read_manifest(folder)
        (folder / manifest.segments[2].file).write_bytes(b"")
        with GalleryWriter(folder) as writer, pytest.raises(GalleryError, match="damaged"):
            writer.compact()
        assert read_manifest(folder) == manifest


class TestDroppingDamage:
    def test_a_damaged_segment_is_given_up_and_its_rows_may_come_again(
        self, gallery_folder: Path, make_findings: Callable[..., Any], index_engine: Any
    ) -> None:
        rebuild_index(gallery_folder, {})
        first, second = read_manifest(gallery_folder).segments
        (gallery_folder / first.file).write_bytes(b"")
        batch = make_findings(20)
        with GalleryWriter(gallery_folder) as writer:
            assert writer.drop_damaged() == (first.file,)
            assert writer.drop_damaged() == ()
            assert writer.manifest.segments == (second,)
            assert (writer.manifest.index, writer.manifest.precedents) == (None, None)
            writer.append(batch.vectors, batch.records, batch.thumbnails)
        gallery = Gallery.open(gallery_folder)
        assert gallery.numbers.tolist() == [*range(20, 33), *range(33, 53)]
        assert stray_files(gallery_folder, gallery.manifest) == []
        assert verify_gallery(gallery_folder).ok

    @pytest.mark.parametrize("part", ["keys", "pictures"])
    @pytest.mark.parametrize("damage", ["gone", "cut"])
    def test_vectors_and_records_outlive_their_companions(self, gallery_folder: Path, part: str, damage: str) -> None:
        entry = getattr(read_manifest(gallery_folder).segments[0], part)
        path = gallery_folder / entry.file
        path.unlink() if damage == "gone" else path.write_bytes(path.read_bytes()[:-1])
        before = Gallery.open(gallery_folder)
        assert [file.file for file in verify_gallery(gallery_folder).damaged] == [entry.file]
        with GalleryWriter(gallery_folder) as writer:
            assert writer.drop_damaged() == (entry.file,)
        after = Gallery.open(gallery_folder)
        np.testing.assert_array_equal(after.matrix, before.matrix)
        assert after.row_ids.tolist() == before.row_ids.tolist()
        assert (after.thumbnail("row-0003") is None) == (part == "pictures")
        assert after.thumbnail("row-0023") is not None
        assert verify_gallery(gallery_folder).ok

    def test_a_segment_of_other_columns_is_damaged_too(self, gallery_folder: Path) -> None:
        manifest = read_manifest(gallery_folder)
        write_manifest(gallery_folder, replace(manifest, columns={**manifest.columns, "view": "number"}))
        with GalleryWriter(gallery_folder) as writer:
            assert len(writer.drop_damaged()) == 2
        assert len(Gallery.open(gallery_folder)) == 0

    def test_rows_are_known_without_their_keys(self, gallery_folder: Path, make_findings: Callable[..., Any]) -> None:
        for entry in read_manifest(gallery_folder).segments:
            (gallery_folder / entry.keys.file).unlink()
        with GalleryWriter(gallery_folder) as writer:
            assert writer.present(make_findings(40).records).stored.sum() == 33


class TestRemoval:
    @pytest.mark.parametrize("rows", [[4], [0, 5, 21, 32], list(range(20)), list(range(33))])
    def test_nothing_is_left_in_any_file(
        self, gallery_folder: Path, make_findings: Callable[..., Any], index_engine: Any, rows: list[int]
    ) -> None:
        before = Gallery.open(gallery_folder)
        first, second = make_findings(20), make_findings(13, first=20)
        pictures = first.thumbnails + second.thumbnails
        copies = before.matrix.astype(np.float16)
        with GalleryWriter(gallery_folder) as writer:
            writer.rebuild_index()
            writer.store_precedents(b"".join(before.matrix[row].tobytes() for row in rows))
            for row in rows:
                assert {name.split("/")[0] for name in holds(gallery_folder, before.matrix[row].tobytes())} == {
                    "segments", "cache"
                }  # fmt: skip
                assert holds(gallery_folder, copies[row].tobytes())
                assert holds(gallery_folder, pictures[row])
            assert writer.remove([f"row-{row:04d}" for row in rows]) == len(rows)
        index = read_manifest(gallery_folder).index
        assert (0 if index is None else index.description["rows"]) == 33 - len(rows)
        for row in rows:
            assert holds(gallery_folder, before.matrix[row].tobytes()) == []
            assert holds(gallery_folder, copies[row].tobytes()) == []
            assert holds(gallery_folder, pictures[row]) == []
            assert holds(gallery_folder, f"row-{row:04d}".encode()) == []
        after = Gallery.open(gallery_folder)
        kept = [row for row in range(33) if row not in rows]
        np.testing.assert_array_equal(after.matrix, before.matrix[kept])
        assert after.row_ids.tolist() == before.row_ids[kept].tolist()
        assert after.numbers.tolist() == kept
        if kept:
            assert after.index.description["engine"] == "stub"
        assert [after.thumbnail(row_id) for row_id in after.row_ids] == [pictures[row] for row in kept]
        assert stray_files(gallery_folder, after.manifest) == []
        assert after.generation == before.generation + 1

    def test_a_mask_does_the_same(self, gallery_folder: Path) -> None:
        with GalleryWriter(gallery_folder) as writer:
            assert writer.remove(np.arange(33) % 2 == 0) == 17
            assert writer.row_ids == [f"row-{i:04d}" for i in range(1, 33, 2)]
            assert writer.remove(np.zeros(16, np.bool_)) == 0
            with pytest.raises(GalleryError, match="does not fit 16 rows"):
                writer.remove(np.ones(33, np.bool_))

    def test_a_row_that_is_not_there_removes_nothing(self, gallery_folder: Path) -> None:
        with GalleryWriter(gallery_folder) as writer, pytest.raises(QueryError, match="did you mean"):
            writer.remove(["row-0001", "row-00001"])
        assert len(Gallery.open(gallery_folder)) == 33

    def test_a_twin_that_stays_is_no_leftover(
        self, tmp_path: Path, identity: GalleryIdentity, make_findings: Callable[..., Any]
    ) -> None:
        batch = make_findings(4)
        batch.vectors[3] = batch.vectors[0]
        create_gallery(tmp_path, identity)
        with GalleryWriter(tmp_path) as writer:
            writer.append(batch.vectors, batch.records, [batch.thumbnails[0]] * 4)
            assert writer.remove(["row-0000"]) == 1

    def test_a_twin_in_an_index_is_no_leftover(
        self, tmp_path: Path, identity: GalleryIdentity, make_findings: Callable[..., Any], index_engine: Any
    ) -> None:
        batch = make_findings(40)
        batch.vectors[30:40] = batch.vectors[:10]
        create_gallery(tmp_path, identity)
        with GalleryWriter(tmp_path) as writer:
            writer.append(batch.vectors, batch.records)
            writer.rebuild_index()
            assert writer.remove(np.arange(40) < 10) == 10

    def test_an_index_that_keeps_a_vector_goes(
        self, gallery_folder: Path, index_engine: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Rows may be gone from an index, and one of them still be the centre of its cell."""
        to_bytes = index_engine.to_bytes
        centre = Gallery.open(gallery_folder).matrix[4].tobytes()
        monkeypatch.setattr(index_engine, "to_bytes", lambda engine: to_bytes(engine) + centre)
        rebuild_index(gallery_folder, {})
        with GalleryWriter(gallery_folder) as writer:
            writer.remove(["row-0004"])
        assert read_manifest(gallery_folder).index is None
        assert holds(gallery_folder, centre) == []

    def test_an_index_that_keeps_a_row_is_found(
        self, gallery_folder: Path, index_engine: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        rebuild_index(gallery_folder, {})
        monkeypatch.setattr(index_engine, "without", lambda engine, removed: engine)
        monkeypatch.setattr("index.writer.holds_vector", lambda data, removed: False)
        with GalleryWriter(gallery_folder) as writer, pytest.raises(GalleryError, match=r"faiss: still holds a part"):
            writer.remove(["row-0004"])

    def test_an_index_that_keeps_a_code_of_a_row_is_found(
        self, gallery_folder: Path, index_engine: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Its bytes are no copy of the vector that could be searched for; its number says whose it is."""
        monkeypatch.setattr(index_engine, "without", lambda engine, removed: engine)
        monkeypatch.setattr(index_engine, "to_bytes", lambda engine: engine.numbers.tobytes())
        rebuild_index(gallery_folder, {})
        with GalleryWriter(gallery_folder) as writer, pytest.raises(GalleryError, match="not rid of the removed rows"):
            writer.remove(["row-0004"])

    def test_an_index_that_cannot_forget_goes(
        self, gallery_folder: Path, index_engine: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        rebuild_index(gallery_folder, {})
        monkeypatch.setattr(index_engine, "without", lambda engine, removed: None)
        with GalleryWriter(gallery_folder) as writer:
            writer.remove(["row-0004"])
        assert read_manifest(gallery_folder).index is None
        assert not [name for name in all_files(gallery_folder) if name.endswith("faiss")]

    def test_rows_beside_the_index_leave_it_as_it_is(
        self, gallery_folder: Path, index_engine: Any, make_findings: Callable[..., Any]
    ) -> None:
        rebuild_index(gallery_folder, {})
        index = read_manifest(gallery_folder).index
        batch = make_findings(4, first=40)
        with GalleryWriter(gallery_folder) as writer:
            writer.append(batch.vectors, batch.records)
            writer.remove(["row-0041"])
        gallery = Gallery.open(gallery_folder)
        assert gallery.manifest.index == index
        assert gallery.index.description["engine"] == "stub"

    def test_the_log_tells_what_was_done_and_of_nobody(self, gallery_folder: Path) -> None:
        with GalleryWriter(gallery_folder) as writer:
            writer.remove(["row-0004", "row-0030"], reason="patient")
            writer.remove(["row-0005"])
        text = (gallery_folder / REMOVALS_NAME).read_text()
        lines = [json.loads(line) for line in text.splitlines()]
        assert [(line["state"], line["rows"], line["women"], line["by"]) for line in lines] == [
            ("begun", 2, 2, "patient"), ("proven", 2, 2, "patient"), ("begun", 1, 1, "rows"), ("proven", 1, 1, "rows"),
        ]  # fmt: skip
        assert [line["generation"] for line in lines] == [3, 3, 4, 4]
        for word in ("row-", "W0", "films"):
            assert word not in text

    def test_a_leftover_is_found(self, gallery_folder: Path) -> None:
        vector = Gallery.open(gallery_folder).matrix[4].tobytes()
        (gallery_folder / "copy.bin").write_bytes(b"abc" + vector + b"def")
        with GalleryWriter(gallery_folder) as writer, pytest.raises(GalleryError, match=r"copy\.bin: still holds"):
            writer.remove(["row-0004"])
