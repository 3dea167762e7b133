import threading
import weakref
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

import embedder.rois
from embedder.findings import Box, Finding, findings_frame
from embedder.header import Header, Mammogram
from embedder.mammogram import MammogramError
from embedder.preparation import PreparationConfig, PreparationError
from embedder.rois import default_workers, load_crops, read_crop, read_rois, row_box

CONFIG = PreparationConfig(height=48, width=32, floor_pixels=40)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Six pictures of a textured half disc, 200 × 160."""
    folder = tmp_path_factory.mktemp("images")
    rows, columns = np.mgrid[:200, :160]
    paths = []
    for number in range(6):
        generator = np.random.default_rng(number)
        tissue = (rows - 100) ** 2 + columns**2 < 90**2
        picture = np.where(tissue, generator.integers(60, 220, (200, 160)), 3)
        paths.append(folder / f"{number}.png")
        cv2.imwrite(str(paths[-1]), picture.astype(np.uint8))
    return paths


def finding(number: int, path: Path, box: tuple[int, int, int, int] = (20, 80, 60, 120), **values: object) -> Finding:
    return Finding(f"r{number}", str(path), "finding", "d", f"w{number}", *box, **values)  # type: ignore[arg-type]


@pytest.fixture
def frame(images: list[Path]) -> pd.DataFrame:
    """Two findings on each image, the second ones after all first ones."""
    first = [finding(number, path) for number, path in enumerate(images)]
    second = [finding(10 + number, path, (5, 60, 30, 90)) for number, path in enumerate(images)]
    return findings_frame([*first, *second])


def one_by_one(frame: pd.DataFrame, **options: float) -> list[np.ndarray]:
    return [read_crop(Path(row["path"]), row_box(row), CONFIG, **options)[0].pixels for _, row in frame.iterrows()]


@pytest.mark.parametrize("workers", [1, 3])
def test_a_row_is_the_same_alone_and_among_others(frame: pd.DataFrame, workers: int) -> None:
    reads = list(read_rois(frame, CONFIG, workers=workers))
    # Image by image, in the order of their first rows.
    assert [read.position for read in reads] == [0, 6, 1, 7, 2, 8, 3, 9, 4, 10, 5, 11]
    for read, expected in zip(reads, np.array(one_by_one(frame))[[r.position for r in reads]], strict=True):
        assert read.error is None
        assert read.crop is not None
        np.testing.assert_array_equal(read.crop.pixels, expected)


def test_an_image_is_read_once(frame: pd.DataFrame, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[Path] = []

    def counting(path: Path, **options: int | None) -> Mammogram:
        opened.append(path)
        return read(path, **options)

    read = embedder.rois.read_mammogram
    monkeypatch.setattr(embedder.rois, "read_mammogram", counting)
    assert len(list(read_rois(frame, CONFIG, workers=2))) == 12
    assert len(opened) == len(set(opened)) == 6


@pytest.mark.parametrize("workers", [1, 2])
def test_one_full_image_a_worker(images: list[Path], monkeypatch: pytest.MonkeyPatch, workers: int) -> None:
    """Every image is gone when its worker opens the next, however slowly the crops are taken."""
    alive: list[weakref.ref[np.ndarray]] = []
    most, lock = [0], threading.Lock()

    def watched(path: Path, **options: int | None) -> Mammogram:
        mammogram = read(path, **options)
        with lock:
            alive.append(weakref.ref(mammogram.pixels))
            most[0] = max(most[0], sum(reference() is not None for reference in alive))
        return mammogram

    read = embedder.rois.read_mammogram
    monkeypatch.setattr(embedder.rois, "read_mammogram", watched)
    frame = findings_frame([finding(n, images[n % 6], spacing_mm=0.1 + n / 1000) for n in range(24)])
    held = list(read_rois(frame, CONFIG, workers=workers))
    assert len(alive) == len(held) == 24
    assert most[0] <= workers
    assert all(reference() is None for reference in alive)


def test_a_header_does_not_hold_the_pixels(images: list[Path]) -> None:
    crop, header = read_crop(images[0], Box(20, 80, 60, 120), CONFIG)
    assert type(header) is Header
    assert (header.rows, header.columns) == (200, 160)
    assert crop.pixels.base is None or crop.pixels.base.size < 200 * 160


def test_no_more_is_read_than_asked_for(frame: pd.DataFrame, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[Path] = []

    def counting(path: Path, **options: int | None) -> Mammogram:
        opened.append(path)
        return read(path, **options)

    read = embedder.rois.read_mammogram
    monkeypatch.setattr(embedder.rois, "read_mammogram", counting)
    many = findings_frame([finding(n, Path(frame["path"][n % 6]), spacing_mm=0.1 + n / 1000) for n in range(60)])
    reads = read_rois(many, CONFIG, workers=1)
    next(reads)
    reads.close()
    assert len(opened) <= 8


def test_a_bad_image_costs_its_own_rows_only(frame: pd.DataFrame, tmp_path: Path) -> None:
    junk, empty = tmp_path / "junk.png", tmp_path / "empty.png"
    junk.write_bytes(b"\x89PNG\r\n\x1a\n junk")
    empty.write_bytes(b"")
    frame.loc[1, "path"], frame.loc[2, "path"], frame.loc[3, "path"] = str(junk), str(empty), str(tmp_path / "none.png")
    frame.loc[4, "x1"] = 4000
    reads = {read.position: read for read in read_rois(frame, CONFIG, workers=2)}
    assert len(reads) == 12
    assert {position for position, read in reads.items() if read.error} == {1, 2, 3, 4}
    for position, word in ((1, "junk.png"), (2, "empty"), (3, "no such file"), (4, "does not lie inside")):
        assert word in str(reads[position].error)
        assert str(frame["path"][position]) in str(reads[position].error)
        assert reads[position].crop is None


def test_errors_of_one_crop_name_the_file(images: list[Path], tmp_path: Path) -> None:
    with pytest.raises(PreparationError, match=r"0\.png: the box .* does not lie inside"):
        read_crop(images[0], Box(0, 0, 161, 10), CONFIG)
    with pytest.raises(MammogramError, match="no such file"):
        read_crop(tmp_path / "none.png", Box(0, 0, 1, 1), CONFIG)


def test_an_image_of_another_size_is_refused(images: list[Path]) -> None:
    """A box that was drawn on a larger copy would mark another place."""
    right = finding(1, images[0], image_rows=200, image_columns=160)
    wrong = finding(2, images[0], image_rows=400, image_columns=320)
    reads = list(read_rois(findings_frame([right, wrong]), CONFIG))
    assert reads[0].crop is not None
    assert "it has 160 × 200 pixels, and its boxes are for 320 × 400" in str(reads[1].error)


def test_rows_of_one_image_keep_their_own_spacing_and_view(images: list[Path]) -> None:
    config = PreparationConfig(height=48, width=48, floor_mm=20)
    rows = [finding(1, images[0], spacing_mm=0.5), finding(2, images[0]), finding(3, images[0], spacing_mm=0.25)]
    extents = [read.crop.extent_mm for read in read_rois(findings_frame(rows), config) if read.crop]
    assert extents == [pytest.approx(30.0), None, pytest.approx(20.0)]


@pytest.fixture
def two_frames(write_dicom: Callable[..., Path]) -> tuple[Path, np.ndarray]:
    """A multi-frame DICOM file of two textured half discs, and its stored values."""
    rows, columns = np.mgrid[:200, :160]
    tissue = (rows - 100) ** 2 + columns**2 < 90**2
    noise = np.random.default_rng(0).integers(60, 220, (2, 200, 160))
    stored = np.where(tissue, noise, 3).astype(np.uint8)
    return write_dicom(stored, bits=8), stored


def test_a_multi_frame_file_is_read_by_frame(
    two_frames: tuple[Path, np.ndarray], write_dicom: Callable[..., Path]
) -> None:
    path, stored = two_frames
    box = Box(20, 80, 60, 120)
    with pytest.raises(MammogramError, match="frame"):
        read_crop(path, box, CONFIG)
    crops = [read_crop(path, box, CONFIG, frame=number)[0].pixels for number in (1, 2)]
    for pixels, values in zip(crops, stored, strict=True):
        alone = read_crop(write_dicom(values, bits=8, name="one.dcm"), box, CONFIG)[0].pixels
        np.testing.assert_array_equal(pixels, alone)
    rows = [finding(number, path) for number in range(6)]
    asked = findings_frame(rows).assign(frame=[1, 2, "2", "two", 0, None])
    reads = {read.position: read for read in read_rois(asked, CONFIG, workers=2)}
    for position, pixels in ((0, crops[0]), (1, crops[1]), (2, crops[1])):
        np.testing.assert_array_equal(reads[position].crop.pixels, pixels)
    assert f"{path}: frame 'two' is no whole number from 1" in reads[3].error
    assert "frame '0' is no whole number" in reads[4].error
    assert "frame" in reads[5].error


def test_for_processing_images_are_taken_where_they_are_asked_for(
    write_dicom: Callable[..., Path], two_frames: tuple[Path, np.ndarray]
) -> None:
    path = write_dicom(two_frames[1][0], bits=8, name="raw.dcm", PresentationIntentType="FOR PROCESSING")
    box = Box(20, 80, 60, 120)
    with pytest.raises(MammogramError, match=r"(?i)for processing"):
        read_crop(path, box, CONFIG)
    assert read_crop(path, box, CONFIG, allow_for_processing=True)[0].pixels.shape == (48, 32)


@pytest.mark.parametrize("margin", [1.0, 1.24])
def test_crops_in_memory_and_in_a_file_are_the_same(frame: pd.DataFrame, margin: float) -> None:
    frame.loc[3, "path"] = "/nowhere/none.png"
    calls: list[tuple[int, int]] = []
    memory = load_crops(frame, CONFIG, margin=margin, progress=lambda done, total: calls.append((done, total)))
    mapped = load_crops(frame, CONFIG, margin=margin, memory_limit=0)
    assert isinstance(mapped.pixels, np.memmap)
    assert not isinstance(memory.pixels, np.memmap)
    np.testing.assert_array_equal(memory.pixels, mapped.pixels)
    pd.testing.assert_frame_equal(memory.frame, mapped.frame)
    assert memory.failures == mapped.failures
    assert calls == [(done, 12) for done in range(1, 13)]
    # Row by row what is read alone, in the manifest's order, without the row that failed.
    kept = frame.drop(index=3)
    assert memory.frame["row_id"].tolist() == kept["row_id"].tolist()
    assert [row_id for row_id, _ in memory.failures] == ["r3"]
    expected = np.array(one_by_one(kept, margin=margin), np.float16)
    np.testing.assert_array_equal(memory.pixels, expected)


@pytest.mark.parametrize("limit", [0, 1 << 30])
def test_taking_rows(frame: pd.DataFrame, limit: int) -> None:
    frame.loc[3, "path"] = "/nowhere/none.png"
    store = load_crops(frame, CONFIG, memory_limit=limit)
    asked = frame.iloc[[8, 3, 0]].assign(role="train")
    taken = store.take(asked)
    assert taken.frame["row_id"].tolist() == ["r12", "r0"]
    assert taken.frame["role"].tolist() == ["train", "train"]
    assert [row_id for row_id, _ in taken.failures] == ["r3"]
    np.testing.assert_array_equal(taken.pixels[1], store.pixels[0])
    np.testing.assert_array_equal(taken.pixels[0], store.pixels[store.frame["row_id"].tolist().index("r12")])
    assert isinstance(taken.pixels, np.memmap) == (limit == 0)
    # All rows in order are the store itself: nothing is copied.
    assert store.take(store.frame).pixels is store.pixels
    assert len(store.take(frame.iloc[[3]]).frame) == 0


def test_nothing_to_read(frame: pd.DataFrame) -> None:
    store = load_crops(frame.iloc[:0], CONFIG)
    assert store.pixels.shape == (0, 48, 32)
    assert store.frame.empty


def test_no_room_for_the_crops(frame: pd.DataFrame, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.posix_fallocate", full)
    with pytest.raises(PreparationError, match=r"no room .*No space left.*TMPDIR"):
        load_crops(frame, CONFIG, memory_limit=0)


def test_workers() -> None:
    assert 1 <= default_workers() <= 8
