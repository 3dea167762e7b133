from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from index import GalleryError
from index.manifest import FileEntry, SegmentEntry, read_manifest
from index.reading import read_file, read_picture, read_segment
from index.segments import digest


@pytest.fixture
def entry(gallery_folder: Path) -> SegmentEntry:
    return read_manifest(gallery_folder).segments[0]


class TestFiles:
    @pytest.fixture
    def file(self, tmp_path: Path) -> FileEntry:
        (tmp_path / "file").write_bytes(b"content")
        return FileEntry("file", digest(b"content"), 7)

    def test_a_whole_file_is_read(self, tmp_path: Path, file: FileEntry) -> None:
        assert read_file(tmp_path, file) == b"content"

    @pytest.mark.parametrize("content", [b"", b"conten", b"contenT", b"content."])
    def test_any_other_content_is_refused(self, tmp_path: Path, file: FileEntry, content: bytes) -> None:
        (tmp_path / "file").write_bytes(content)
        with pytest.raises(GalleryError, match="file: is damaged"):
            read_file(tmp_path, file)

    def test_a_file_larger_than_the_memory_is_not_taken_into_it(
        self, tmp_path: Path, file: FileEntry, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("index.reading.available_memory", lambda: 6)
        with pytest.raises(GalleryError, match="GiB are free"):
            read_file(tmp_path, file)

    def test_what_is_not_there_or_is_no_file(self, tmp_path: Path, file: FileEntry) -> None:
        with pytest.raises(FileNotFoundError):
            read_file(tmp_path, replace(file, file="other"))
        (tmp_path / "folder").mkdir()
        with pytest.raises(GalleryError, match="directory"):
            read_file(tmp_path, replace(file, file="folder"))


class TestSegments:
    @pytest.mark.parametrize("checked", [True, False])
    def test_both_ways_of_reading_give_the_same(
        self, gallery_folder: Path, entry: SegmentEntry, make_findings: Callable[..., Any], checked: bool
    ) -> None:
        segment = read_segment(gallery_folder, entry, 16, checked=checked)
        np.testing.assert_array_equal(segment.vectors, make_findings(20).vectors)
        assert segment.numbers.tolist() == list(range(20))
        assert segment.columns["row_id"].cells.to_pylist()[:2] == ["row-0000", "row-0001"]
        with pytest.raises(ValueError):
            segment.vectors[0] = 0

    def test_the_file_stays_readable_when_its_name_is_gone(self, gallery_folder: Path, entry: SegmentEntry) -> None:
        segment = read_segment(gallery_folder, entry, 16, checked=False)
        (gallery_folder / entry.file).unlink()
        assert np.isfinite(segment.vectors).all()
        with pytest.raises(FileNotFoundError):
            read_segment(gallery_folder, entry, 16)

    @pytest.mark.parametrize("part", ["before the vectors", "after the vectors", "among the vectors"])
    def test_where_a_flipped_byte_is_met(self, gallery_folder: Path, entry: SegmentEntry, part: str) -> None:
        path = gallery_folder / entry.file
        data = bytearray(path.read_bytes())
        place = {"before the vectors": 9, "after the vectors": len(data) - 1}.get(part, entry.vectors_at + 500)
        data[place] ^= 16
        path.write_bytes(data)
        with pytest.raises(GalleryError, match=r"damaged.*\(20 rows\)"):
            read_segment(gallery_folder, entry, 16)
        if part == "among the vectors":
            assert read_segment(gallery_folder, entry, 16, checked=False).rows == 20
        else:
            with pytest.raises(GalleryError, match=r"damaged.*\(20 rows\)"):
                read_segment(gallery_folder, entry, 16, checked=False)

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            ({"first": 1}, "other rows"),
            ({"last": 30}, "other rows"),
            ({"pictures": None}, "pictures are not those"),
            ({"rest_sha256": "0" * 64}, "digest"),
            ({"sha256": "0" * 64}, "digest"),
            ({"rows": 19}, "digest"),
            ({"bytes": 10**6}, "digest"),
        ],
    )
    def test_an_entry_that_lies(
        self, gallery_folder: Path, entry: SegmentEntry, change: dict[str, Any], words: str
    ) -> None:
        with pytest.raises(GalleryError, match=words):
            read_segment(gallery_folder, replace(entry, **change), 16)

    @pytest.mark.parametrize("value", [np.nan, np.inf, 3e38, 0.0, 2.0])
    def test_vectors_that_are_not_of_length_1(self, gallery_folder: Path, entry: SegmentEntry, value: float) -> None:
        path = gallery_folder / entry.file
        data = bytearray(path.read_bytes())
        data[entry.vectors_at : entry.vectors_at + 64] = np.full(16, value, np.float32).tobytes()
        path.write_bytes(data)
        with pytest.raises(GalleryError, match="not of length 1"):
            read_segment(gallery_folder, replace(entry, sha256=digest(data)), 16)

    def test_many_vectors_are_digested_piece_by_piece(
        self, make_gallery: Callable[..., Path], make_findings: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("index.reading._CHUNK", 1000)
        folder = make_gallery(make_findings(300))
        assert read_segment(folder, read_manifest(folder).segments[0], 16).rows == 300


class TestPictures:
    def test_one_is_read_and_checked(self, gallery_folder: Path, make_findings: Callable[..., Any]) -> None:
        entry = read_manifest(gallery_folder).segments[0]
        picture = make_findings(20).thumbnails[3]
        assert entry.pictures is not None
        path = gallery_folder / entry.pictures.file
        data = path.read_bytes()
        start = data.index(picture)
        span = (start, start + len(picture))
        sha256 = bytes.fromhex(digest(picture))
        assert read_picture(gallery_folder, entry, span, sha256) == picture
        with pytest.raises(GalleryError, match="damaged"):
            read_picture(gallery_folder, entry, (start + 1, start + len(picture)), sha256)
        for damaged in (data[:-1], data[: start + 9] + b"X" + data[start + 10 :]):
            path.write_bytes(damaged)
            with pytest.raises(GalleryError, match="damaged"):
                read_picture(gallery_folder, entry, span, sha256)
        path.unlink()
        with pytest.raises(FileNotFoundError):
            read_picture(gallery_folder, entry, span, sha256)
