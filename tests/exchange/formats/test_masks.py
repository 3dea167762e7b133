"""Masks as detections."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from exchange import ExchangeError
from exchange.formats import ReadOptions, read_detections
from exchange.formats.masks import mask_image
from exchange.images import ImageCatalogue


def blank() -> np.ndarray:
    return np.zeros((300, 200), np.uint8)


def test_each_part_of_a_binary_mask_is_a_detection_and_tiny_ones_are_counted(
    tmp_path: Path, catalogue: ImageCatalogue
) -> None:
    mask = blank()
    mask[20:60, 10:30] = mask[100:110, 150:160] = 255
    mask[200:203, 5:8] = 255  # 9 pixels
    Image.fromarray(mask).save(tmp_path / "w1-cc_mask.png")
    Image.fromarray(blank()).save(tmp_path / "w2-cc.png")
    reading = read_detections(tmp_path, catalogue)
    assert (reading.kind, reading.problems) == ("masks", ())
    assert [(one.x0, one.y0, one.x1, one.y1) for one in reading.detections] == [(10, 20, 30, 60), (150, 100, 160, 110)]
    assert set(reading.detections[0].outline or ()) == {(10.0, 20.0), (30.0, 20.0), (30.0, 60.0), (10.0, 60.0)}
    assert {one.native_label for one in reading.detections} == {None}
    assert "1 parts of fewer than 16 pixels were dropped" in reading.notes
    assert len(read_detections(tmp_path, catalogue, options=ReadOptions(minimum_area=1)).detections) == 3


def test_values_of_a_labelled_mask_are_classes_that_touch(tmp_path: Path, catalogue: ImageCatalogue) -> None:
    mask = blank().astype(np.uint16)
    mask[20:60, 10:30], mask[20:60, 30:50] = 1, 700
    Image.fromarray(mask).save(tmp_path / "w1-cc.png")
    names = tmp_path / "names.txt"
    names.write_text("background\nmass\n")
    reading = read_detections(tmp_path / "w1-cc.png", catalogue, options=ReadOptions(names=names))
    assert [(one.native_label, one.lesion_type, one.x0) for one in reading.detections] == [
        ("mass", "mass", 10),
        ("700", None, 30),
    ]


def test_masks_of_one_bit_palettes_and_equal_channels_are_read(tmp_path: Path, catalogue: ImageCatalogue) -> None:
    mask = blank()
    mask[20:60, 10:30] = 255
    Image.fromarray(mask).convert("1").save(tmp_path / "w1-cc.png")
    Image.fromarray(mask).convert("P").save(tmp_path / "w1-mlo.png")
    Image.fromarray(np.stack([mask] * 3, axis=2)).save(tmp_path / "w2-cc.tif")
    reading = read_detections(tmp_path, catalogue)
    assert reading.problems == ()
    assert [(one.x0, one.y0, one.x1, one.y1) for one in reading.detections] == [(10, 20, 30, 60)] * 3
    assert read_detections(tmp_path / "w1-cc.png", catalogue).kind == "masks"


def test_a_dicom_mask_is_read_where_it_is_said_to_be_one(
    tmp_path: Path, catalogue: ImageCatalogue, write_dicom: Callable[..., Path]
) -> None:
    mask = blank()
    mask[20:60, 10:30] = 255
    file = write_dicom(mask, name="w1-cc.dcm")
    assert read_detections(file, catalogue, "masks").detections[0].x1 == 30
    with pytest.raises(ExchangeError, match="is a DICOM file"):
        read_detections(file, catalogue)


def test_what_is_no_mask_of_its_image_is_refused_by_name(tmp_path: Path, catalogue: ImageCatalogue) -> None:
    mask = np.zeros((150, 100), np.uint8)
    mask[10:30, 10:30] = 255
    Image.fromarray(mask).save(tmp_path / "w1-cc.png")
    Image.fromarray(np.arange(60_000, dtype=np.uint32).reshape(300, 200).astype(np.uint16)).save(tmp_path / "w2-cc.png")
    colour = np.zeros((300, 200, 3), np.uint8)
    colour[20:60, 10:30, 0] = 255
    Image.fromarray(colour).save(tmp_path / "w3-cc.png")
    (tmp_path / "w1-mlo.png").write_bytes((tmp_path / "w2-cc.png").read_bytes()[:300])
    (tmp_path / "empty.png").write_bytes(b"")
    reading = read_detections(tmp_path, catalogue, "masks")
    assert reading.detections == ()
    told = dict(reading.problems)
    assert "made for an image of 100 × 150 pixels" in told["w1-cc.png part 1"]
    assert "no mask but a picture" in told["w2-cc.png"]
    assert "is coloured" in told["w3-cc.png"]
    assert "can't be read as a mask" in told["w1-mlo.png"]
    assert "can't be read as a mask" in told["empty.png"]


def test_noise_is_refused_before_it_becomes_ten_thousand_detections(tmp_path: Path, catalogue: ImageCatalogue) -> None:
    mask = blank()
    mask[::2, ::2] = 255
    Image.fromarray(mask).save(tmp_path / "w1-cc.png")
    assert "parts" in read_detections(tmp_path, catalogue, options=ReadOptions(minimum_area=1)).problems[0][1]


@pytest.mark.parametrize(
    ("file", "image"),
    [
        ("mdb001_mask.png", "mdb001"),
        ("1.2.3.dcm", "1.2.3"),
        ("_mask.png", "_mask"),
        ("a-Mask.tif", "a"),
        ("roi.png", "roi"),
    ],
)
def test_a_mask_is_named_as_its_image(file: str, image: str) -> None:
    assert mask_image(Path(file)) == image
