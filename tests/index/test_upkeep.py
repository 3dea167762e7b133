import errno
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from index import GalleryError, QueryError, buffering
from index.gallery import Gallery
from index.layout import all_files
from index.manifest import MANIFEST_NAME, GalleryIdentity, read_manifest, write_manifest
from index.upkeep import build_gallery, gallery_info, remove_rows, verify_gallery
from index.writer import create_gallery


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
        np.testing.assert_array_equal(gallery.vectors, batch.vectors)
        assert [gallery.thumbnail(row_id) for row_id in gallery.row_ids] == batch.thumbnails
        assert len(gallery.manifest.segments) == 1
        assert gallery_info(tmp_path / "g")["cache"] == "good"

    def test_segments_are_committed_on_the_way(
        self, tmp_path: Path, identity: GalleryIdentity, make_findings: Callable[..., Any], monkeypatch: Any
    ) -> None:
        batch = make_findings(50)
        monkeypatch.setattr(buffering, "SEGMENT_ROWS", 20)
        build_gallery(tmp_path / "rows", identity, batch.records, in_batches(batch, 7))
        assert [entry.rows for entry in read_manifest(tmp_path / "rows").segments] == [21, 21, 8]
        monkeypatch.setattr(buffering, "COMMIT_SECONDS", 0.0)
        build_gallery(tmp_path / "time", identity, batch.records, in_batches(batch, 10))
        assert [entry.rows for entry in read_manifest(tmp_path / "time").segments] == [10] * 5

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

    def test_no_room_for_the_cache_is_no_failure(
        self, tmp_path: Path, identity: GalleryIdentity, make_findings: Callable[..., Any], monkeypatch: Any
    ) -> None:
        def full(path: Path, data: bytes) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr("index.cache.write_whole", full)
        batch = make_findings(5)
        assert build_gallery(tmp_path / "g", identity, batch.records, in_batches(batch, 5)).added == 5
        assert gallery_info(tmp_path / "g")["cache"] == "none"


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
        ],
    )
    def test_all_conditions_must_hold(self, gallery_folder: Path, condition: dict[str, Any], rows: list[int]) -> None:
        before = Gallery.open(gallery_folder)
        report = remove_rows(gallery_folder, **condition)
        assert list(report.row_ids) == [f"row-{row:04d}" for row in rows]
        assert (report.removed, report.remaining) == (len(rows), 33 - len(rows))
        assert report.women == len({row // 3 for row in rows})
        assert json.loads(json.dumps(report.to_dict()))["removed"] == len(rows)
        everything = b"".join((gallery_folder / name).read_bytes() for name in all_files(gallery_folder))
        for row in range(33):
            assert (before.vectors[row].tobytes() in everything) == (row not in rows)
        assert verify_gallery(gallery_folder).ok
        assert len(Gallery.open(gallery_folder)) == 33 - len(rows)

    @pytest.mark.parametrize(
        ("condition", "words"),
        [
            ({"patient": "w003"}, "patient 'w003'; nothing was removed; did you mean W003"),
            ({"patient": "W003", "dataset": "Films"}, "data set 'Films'; nothing was removed; did you mean films"),
            ({"patient": "W999"}, "patient 'W999'; nothing was removed; `mammoseek index info`"),
            ({"patient": ""}, "patient ''; nothing was removed"),
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

    @pytest.mark.parametrize("condition", [{}, {"where": "nonsense is None"}, {"where": "("}, {"row_ids": ["row-9"]}])
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
    sizes = [path.stat().st_size for path in (gallery_folder / "segments").iterdir()]
    assert info["bytes"] == sum(sizes)


def test_the_info_of_an_empty_gallery(tmp_path: Path, identity: GalleryIdentity) -> None:
    create_gallery(tmp_path, identity)
    info = gallery_info(tmp_path)
    assert (info["rows"], info["women"], info["labels"], info["cache"]) == (0, 0, {}, "none")
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
            for place in rng.choice(len(data), 8, replace=False):
                changed = data[:place] + bytes([data[place] ^ 4]) + data[place + 1 :]
                (gallery_folder / name).write_bytes(changed)
                report = verify_gallery(gallery_folder)
                assert not report.ok
                assert [(file.file, file.rows) for file in report.damaged] == [(name, rows.get(name, 0))]
                assert json.loads(json.dumps(report.to_dict()))["ok"] is False
            (gallery_folder / name).write_bytes(data)
        assert verify_gallery(gallery_folder).ok

    def test_missing_files_are_named(self, gallery_folder: Path) -> None:
        manifest = read_manifest(gallery_folder)
        assert manifest.cache is not None
        gone = [manifest.segments[0].file, manifest.cache.file]
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
        (gallery_folder / "segments" / "00.h5").write_bytes((gallery_folder / first.file).read_bytes())
        twice = (*manifest.segments, replace(first, file="segments/00.h5"))
        write_manifest(gallery_folder, replace(manifest, segments=twice))
        assert [file.file for file in verify_gallery(gallery_folder).damaged] == [MANIFEST_NAME]
        with pytest.raises(GalleryError, match="same row id"):
            Gallery.open(gallery_folder)
