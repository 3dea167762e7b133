import errno
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pytest

from index import GalleryError, QueryError, buffering, writer
from index.durable import write_whole
from index.gallery import Gallery
from index.layout import all_files
from index.manifest import MANIFEST_NAME, GalleryIdentity, read_manifest, write_manifest
from index.segments import digest, keys_of
from index.upkeep import build_gallery, gallery_info, remove_rows, verify_gallery
from index.writer import GalleryWriter, create_gallery


def in_batches(batch: Any, size: int, seen: list[str] | None = None) -> Callable[[pd.DataFrame], Iterator[Any]]:
    """Return an embedder that hands over the wanted rows of some findings a few at a time."""

    def embed(todo: pd.DataFrame) -> Iterator[Any]:
        places = [batch.records["row_id"].tolist().index(row_id) for row_id in todo["row_id"]]
        for start in range(0, len(places), size):
            part = places[start : start + size]
            if seen is not None:
                seen.extend(batch.records["row_id"][place] for place in part)
            yield SimpleNamespace(
                records=batch.records.iloc[part].reset_index(drop=True),
                vectors=batch.vectors[part],
                thumbnails=[batch.thumbnails[place] for place in part],
                failures=[],
            )

    return embed


class TestBuilding:
    def test_a_stream_of_small_batches_becomes_one_segment(
        self, tmp_path: Path, identity: GalleryIdentity, make_findings: Callable[..., Any]
    ) -> None:
        batch = make_findings(50)
        told: list[tuple[int, int]] = []
        report = build_gallery(
            tmp_path / "g", identity, batch.records, in_batches(batch, 7), progress=lambda *at: told.append(at)
        )
        assert (report.added, report.already_there, report.failures, report.generation) == (50, 0, (), 1)
        assert told[0] == (0, 50)
        assert told[-1] == (50, 50)
        assert told == sorted(told)
        gallery = Gallery.open(tmp_path / "g")
        np.testing.assert_array_equal(gallery.matrix, batch.vectors)
        assert [gallery.thumbnail(row_id) for row_id in gallery.row_ids] == batch.thumbnails
        assert len(gallery.manifest.segments) == 1

    def test_segments_are_committed_on_the_way(
        self, tmp_path: Path, identity: GalleryIdentity, make_findings: Callable[..., Any], monkeypatch: Any
    ) -> None:
        batch = make_findings(50)
        monkeypatch.setattr(buffering, "SEGMENT_ROWS", 20)
        build_gallery(tmp_path / "rows", identity, batch.records, in_batches(batch, 7))
        assert [entry.rows for entry in read_manifest(tmp_path / "rows").segments] == [21, 21, 8]

    def test_a_build_that_was_stopped_goes_on_where_it_was(
        self, tmp_path: Path, identity: GalleryIdentity, make_findings: Callable[..., Any], monkeypatch: Any
    ) -> None:
        batch = make_findings(50)
        monkeypatch.setattr(buffering, "SEGMENT_ROWS", 10)
        embed = in_batches(batch, 10)

        def stopped(todo: pd.DataFrame) -> Iterator[Any]:
            for number, part in enumerate(embed(todo)):
                if number == 3:
                    raise KeyboardInterrupt
                yield part

        with pytest.raises(KeyboardInterrupt):
            build_gallery(tmp_path / "g", identity, batch.records, stopped)
        assert len(Gallery.open(tmp_path / "g")) == 30
        seen: list[str] = []
        report = build_gallery(tmp_path / "g", identity, batch.records, in_batches(batch, 10, seen))
        assert (report.added, report.already_there) == (20, 30)
        assert seen == batch.records["row_id"].tolist()[30:]
        whole = build_gallery(tmp_path / "g", identity, batch.records, in_batches(batch, 10, seen))
        assert (whole.added, whole.already_there, whole.generation) == (0, 50, report.generation)
        assert len(seen) == 20

    def test_what_fails_is_listed_and_the_rest_is_stored(
        self, tmp_path: Path, identity: GalleryIdentity, make_findings: Callable[..., Any]
    ) -> None:
        batch = make_findings(9)
        failed, kept = batch.records.iloc[:2], make_findings(9)
        kept.records, kept.vectors, kept.thumbnails = batch.records.iloc[2:], batch.vectors[2:].copy(), None
        kept.vectors[1] = np.nan
        kept.failures = [(row_id, "no such file") for row_id in failed["row_id"]]
        told: list[tuple[int, int]] = []
        report = build_gallery(
            tmp_path / "g", identity, batch.records, lambda todo: [kept], progress=lambda *at: told.append(at)
        )
        assert report.added == 6
        assert told[-1] == (9, 9)
        assert dict(report.failures)["row-0000"] == "no such file"
        assert "not of length 1" in dict(report.failures)["row-0003"]
        assert len(Gallery.open(tmp_path / "g")) == 6

    def test_no_row_at_all_makes_an_empty_gallery(
        self, tmp_path: Path, identity: GalleryIdentity, make_findings: Callable[..., Any]
    ) -> None:
        report = build_gallery(tmp_path / "g", identity, make_findings(0).records, lambda todo: [])
        assert (report.added, report.generation) == (0, 0)
        assert len(Gallery.open(tmp_path / "g")) == 0

    def test_another_models_gallery_is_refused_before_any_work(
        self, gallery_folder: Path, identity: GalleryIdentity, make_findings: Callable[..., Any]
    ) -> None:
        batch, seen = make_findings(5, first=40), list[str]()
        other = replace(identity, preparation_digest="f" * 64)
        with pytest.raises(GalleryError, match="was made with the preparation"):
            build_gallery(gallery_folder, other, batch.records, in_batches(batch, 5, seen))
        assert seen == []

    def test_no_room_for_the_caches_is_no_failure(
        self,
        tmp_path: Path,
        identity: GalleryIdentity,
        make_findings: Callable[..., Any],
        monkeypatch: Any,
        index_engine: Any,
    ) -> None:
        def full(path: Path, data: bytes) -> None:
            if path.parent.name == "cache":
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            write_whole(path, data)

        monkeypatch.setattr("index.writer.write_whole", full)
        batch = make_findings(50)
        report = build_gallery(tmp_path / "g", identity, batch.records, in_batches(batch, 5))
        assert report.added == 50
        [note] = report.notes
        assert "the rows are stored" in note
        assert "the disk is full" in note
        assert gallery_info(tmp_path / "g")["index"]["engine"] == "exact"
        assert verify_gallery(tmp_path / "g").strays == ()
        monkeypatch.undo()

    def test_many_small_builds_are_compacted_on_the_way(
        self, tmp_path: Path, identity: GalleryIdentity, make_findings: Callable[..., Any], monkeypatch: Any
    ) -> None:
        batch = make_findings(60)
        monkeypatch.setattr(buffering, "SEGMENT_ROWS", 1)
        build_gallery(tmp_path / "g", identity, batch.records, in_batches(batch, 2))
        gallery = Gallery.open(tmp_path / "g")
        assert len(gallery.manifest.segments) <= writer.SMALL_SEGMENTS
        np.testing.assert_array_equal(gallery.matrix, batch.vectors)
        assert gallery.numbers.tolist() == list(range(60))
        assert [gallery.thumbnail(row_id) for row_id in gallery.row_ids] == batch.thumbnails


class TestRemoving:
    @pytest.mark.parametrize(
        ("condition", "rows"),
        [
            ({"patient": "W003"}, [9, 10, 11]),
            ({"patient": "W003", "dataset": "films"}, [9, 10, 11]),
            ({"where": "age > 65 and view == 'MLO'"}, [29]),
            ({"row_ids": ["row-0010", "row-0030"]}, [10, 30]),
            ({"row_ids": ["row-0010", "row-0030"], "patient": "W003"}, [10]),
            ({"dataset": "films"}, list(range(33))),
            ({"study": "S2"}, [10, 11, 12, 13, 14]),
            ({"study": "S2", "where": "view == 'CC'"}, [10, 12, 14]),
        ],
    )
    def test_all_conditions_must_hold(
        self,
        make_gallery: Callable[..., Path],
        make_findings: Callable[..., Any],
        condition: dict[str, Any],
        rows: list[int],
    ) -> None:
        batches = make_findings(20), make_findings(13, first=20)
        for batch in batches:
            batch.records["study_id"] = [f"S{int(row_id[-4:]) // 5}" for row_id in batch.records["row_id"]]
        gallery_folder = make_gallery(*batches)
        before = Gallery.open(gallery_folder)
        report = remove_rows(gallery_folder, **condition)
        assert list(report.row_ids) == [f"row-{row:04d}" for row in rows]
        assert (report.removed, report.remaining) == (len(rows), 33 - len(rows))
        assert report.women == len({row // 3 for row in rows})
        assert json.loads(json.dumps(report.to_dict()))["removed"] == len(rows)
        everything = b"".join((gallery_folder / name).read_bytes() for name in all_files(gallery_folder))
        for row in range(33):
            assert (before.matrix[row].tobytes() in everything) == (row not in rows)
            if row in rows:
                assert f"row-{row:04d}".encode() not in everything
        assert verify_gallery(gallery_folder).ok
        assert len(Gallery.open(gallery_folder)) == 33 - len(rows)

    @pytest.mark.parametrize(
        ("condition", "words"),
        [
            ({"patient": "w003"}, "patient 'w003'; nothing was removed; did you mean W003"),
            ({"patient": "W003", "dataset": "Films"}, "data set 'Films'; nothing was removed; did you mean films"),
            ({"patient": "W999"}, "patient 'W999'; nothing was removed; `mammoseek index info`"),
            ({"patient": ""}, "patient ''; nothing was removed"),
            ({"patient": "\udcff"}, "nothing was removed"),
            ({"dataset": "\udcff"}, "nothing was removed"),
            ({"study": "S1"}, "study 'S1'; nothing was removed"),
            ({"where": "age > 1000"}, "filter 'age > 1000'; nothing was removed"),
            ({"row_ids": ["row-0001"], "patient": "W003"}, "nothing was removed"),
        ],
    )
    def test_a_mistyped_request_does_not_look_done(
        self, gallery_folder: Path, condition: dict[str, Any], words: str
    ) -> None:
        before = read_manifest(gallery_folder)
        with pytest.raises(QueryError, match="no row matches") as error:
            remove_rows(gallery_folder, **condition)
        assert words in str(error.value)
        assert read_manifest(gallery_folder) == before

    @pytest.mark.parametrize(
        "condition",
        [{}, {"where": "nonsense is None"}, {"where": "("}, {"row_ids": ["row-9"]}, {"row_ids": ["\udcff"]}],
    )
    def test_nothing_is_removed_by_mistake(self, gallery_folder: Path, condition: dict[str, Any]) -> None:
        with pytest.raises(QueryError):
            remove_rows(gallery_folder, **condition)
        assert len(Gallery.open(gallery_folder)) == 33


def test_the_info_counts_what_is_known(gallery_folder: Path, identity: GalleryIdentity) -> None:
    info = json.loads(json.dumps(gallery_info(gallery_folder)))
    assert (info["rows"], info["women"], info["segments"], info["generation"]) == (33, 11, 2, 2)
    assert info["identity"]["model_digest"] == identity.model_digest
    assert info["datasets"] == {"films": 33}
    assert info["labels"]["view"] == {"CC": 17, "MLO": 16}
    assert sum(info["labels"]["density"].values()) == 33 - 7
    sizes = [path.stat().st_size for name in ("segments", "cache") for path in (gallery_folder / name).iterdir()]
    assert info["bytes"] == sum(sizes)
    assert (info["index"]["engine"], info["rows_beside_index"]) == ("exact", 0)


def test_the_info_of_an_empty_gallery(tmp_path: Path, identity: GalleryIdentity) -> None:
    create_gallery(tmp_path, identity)
    info = gallery_info(tmp_path)
    assert (info["rows"], info["women"], info["labels"], info["datasets"]) == (0, 0, {}, {})
    assert verify_gallery(tmp_path).ok


class TestVerifying:
    def test_a_sound_gallery(self, gallery_folder: Path) -> None:
        report = verify_gallery(gallery_folder)
        assert report.ok
        assert {file.state for file in report.files} == {"good"}
        assert sum(file.rows for file in report.files) == 33
        assert {file.file for file in report.files} == set(all_files(gallery_folder)) - {"writer.lock"}

    def test_a_flipped_byte_in_any_file_is_pinned_to_that_file(self, gallery_folder: Path) -> None:
        rng = np.random.default_rng(0)
        rows = {entry.file: entry.rows for entry in read_manifest(gallery_folder).segments}
        for name in sorted(set(all_files(gallery_folder)) - {"writer.lock"}):
            data = (gallery_folder / name).read_bytes()
            for place in rng.choice(len(data), 3, replace=False):
                changed = data[:place] + bytes([data[place] ^ 4]) + data[place + 1 :]
                (gallery_folder / name).write_bytes(changed)
                report = verify_gallery(gallery_folder)
                assert not report.ok
                assert [(file.file, file.rows) for file in report.damaged] == [(name, rows.get(name, 0))]
                assert json.loads(json.dumps(report.to_dict()))["ok"] is False
            (gallery_folder / name).write_bytes(data)
        assert verify_gallery(gallery_folder).ok

    def test_missing_files_are_named(self, gallery_folder: Path) -> None:
        with GalleryWriter(gallery_folder) as holder:
            holder.store_precedents(b"anything")
        manifest = read_manifest(gallery_folder)
        first, second = manifest.segments
        assert second.pictures is not None
        assert manifest.precedents is not None
        gone = [first.file, second.keys.file, second.pictures.file, manifest.precedents.file]
        for name in gone:
            (gallery_folder / name).unlink()
        assert [(file.file, file.state) for file in verify_gallery(gallery_folder).damaged] == [
            (name, "missing") for name in gone
        ]

    def test_strays_are_told_apart(self, gallery_folder: Path) -> None:
        (gallery_folder / "segments" / "ab.h5").write_bytes(b"x")
        (gallery_folder / "notes.txt").write_bytes(b"x")
        report = verify_gallery(gallery_folder)
        assert report.ok
        assert [(file.file, file.state) for file in report.strays] == [
            ("notes.txt", "stray"),
            ("segments/ab.h5", "unfinished"),
        ]

    def test_no_gallery_is_an_error(self, tmp_path: Path) -> None:
        with pytest.raises(GalleryError, match="not a gallery"):
            verify_gallery(tmp_path)

    def test_a_manifest_that_names_a_segment_of_the_same_rows_twice(self, gallery_folder: Path) -> None:
        manifest = read_manifest(gallery_folder)
        first = manifest.segments[0]
        name = f"segments/{'0' * 32}.h5"
        data = bytearray((gallery_folder / first.file).read_bytes())
        with h5py.File(gallery_folder / first.file) as file:
            numbers_at = file["numbers"].id.get_offset()
        # The same rows, numbered upwards from the last: only their names say that they are the same.
        data[numbers_at : numbers_at + 20 * 8] = np.arange(33, 53).tobytes()
        (gallery_folder / name).write_bytes(data)
        end = first.vectors_at + 20 * 16 * 4
        rest = digest(data[: first.vectors_at] + data[end:])
        again = replace(first, file=name, sha256=digest(data), rest_sha256=rest, first=33, last=52)
        write_manifest(gallery_folder, replace(manifest, segments=(*manifest.segments, again), next_number=53))
        [damaged] = verify_gallery(gallery_folder).damaged
        assert (damaged.file, damaged.problem) == (MANIFEST_NAME, "two rows have the row id row-0000")
        assert len(Gallery.open(gallery_folder)) == 53
        # A removal takes both.
        assert remove_rows(gallery_folder, patient="W000").removed == 6
        assert b"row-0001" not in b"".join((gallery_folder / name).read_bytes() for name in all_files(gallery_folder))

    def test_keys_of_other_rows_are_found(self, gallery_folder: Path) -> None:
        manifest = read_manifest(gallery_folder)
        entry = manifest.segments[0]
        keys = np.sort(keys_of([f"other {row}" for row in range(20)])).tobytes()
        (gallery_folder / entry.keys.file).write_bytes(keys)
        lying = replace(entry, keys=replace(entry.keys, sha256=digest(keys)))
        write_manifest(gallery_folder, replace(manifest, segments=(lying, manifest.segments[1])))
        [damaged] = verify_gallery(gallery_folder).damaged
        assert (damaged.file, damaged.problem) == (entry.keys.file, "it is not of this segment's rows")

    def test_one_long_vector_among_short_ones_is_found(self, gallery_folder: Path) -> None:
        manifest = read_manifest(gallery_folder)
        entry = manifest.segments[0]
        data = bytearray((gallery_folder / entry.file).read_bytes())
        end = entry.vectors_at + 20 * 16 * 4
        vectors = np.frombuffer(data, np.float32, 20 * 16, entry.vectors_at).reshape(20, 16).copy()
        vectors[0] *= np.float32(np.sqrt(1.5))
        vectors[1] *= np.float32(np.sqrt(0.5))
        data[entry.vectors_at : end] = vectors.tobytes()
        (gallery_folder / entry.file).write_bytes(data)
        lying = replace(entry, sha256=digest(data))
        write_manifest(gallery_folder, replace(manifest, segments=(lying, manifest.segments[1])))
        [damaged] = verify_gallery(gallery_folder).damaged
        assert damaged.file == entry.file
        assert "a vector is not of length 1" in damaged.problem

    def test_a_writer_at_work_is_no_damage(self, gallery_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        stale = read_manifest(gallery_folder)
        remove_rows(gallery_folder, patient="W003")
        manifests = iter([stale])
        monkeypatch.setattr("index.upkeep.read_manifest", lambda folder: next(manifests, None) or read_manifest(folder))
        assert verify_gallery(gallery_folder).ok
