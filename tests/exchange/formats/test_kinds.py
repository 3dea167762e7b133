"""What a file is, told by its content."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from exchange import ExchangeError
from exchange.formats.kinds import KINDS, guess_kind
from tests.exchange import caddocuments


@pytest.mark.parametrize(
    ("name", "text", "kind"),
    [
        ("a.json", "[]", "coco-results"),
        ("a.json", '\n [{"image_id": 1}]', "coco-results"),
        ("a.txt", '{"images": [], "annotations": []}', "coco"),
        ("a.json", json.dumps({"version": 1, "format": "mammoseek detections"}), "json"),
        ("w1.txt", "0 0.1 0.2 0.3 0.4\n", "yolo"),
        ("w1.txt", "", "yolo"),
        ("w1.txt", "path x0 y0 x1 y1", "csv"),
        ("a.tsv", "path\tx0\n", "csv"),
        ("a.csv", "0 0.1 0.2 0.3 0.4\n", "csv"),
        ("a.csv", "study_id,image_id,laterality,view_position,finding_categories,xmin,ymin,xmax,ymax\n", "vindr"),
        ("a.csv", "patient_id,left or right breast,image view,image file path,ROI mask file path\n", "cbis-ddsm"),
        ("Poem.csv", "Path,x0\n", "csv"),  # begins as a PGM file does
    ],
)
def test_the_content_tells_the_kind(tmp_path: Path, name: str, text: str, kind: str) -> None:
    (tmp_path / name).write_text(text)
    found, because = guess_kind(tmp_path / name)
    assert found == kind
    assert found in KINDS
    assert because


def test_folders_are_told_by_what_lies_in_them(tmp_path: Path) -> None:
    with pytest.raises(ExchangeError, match="holds no label files"):
        guess_kind(tmp_path)
    Image.fromarray(np.zeros((30, 30), np.uint8)).save(tmp_path / "a.png")
    assert guess_kind(tmp_path)[0] == "masks"
    caddocuments.build(caddocuments.CadDocument()).save_as(tmp_path / "0.dcm", enforce_file_format=True)
    assert guess_kind(tmp_path)[0] == "cad-sr"
    (tmp_path / "a.txt").write_text("")
    assert guess_kind(tmp_path)[0] == "yolo"


@pytest.mark.parametrize("name", ["missing.csv", "a\0b", "x" * 300, "loop"])
def test_what_is_not_there_is_told_without_a_traceback(tmp_path: Path, name: str) -> None:
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(ExchangeError):
        guess_kind(tmp_path / name)


def test_a_device_is_not_read() -> None:
    with pytest.raises(ExchangeError, match="is no plain file"):
        guess_kind(Path("/dev/zero"))
