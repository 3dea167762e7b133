"""The page of a triage: whole, needing nothing beside it, and harmless whatever a detection is called."""

import html.parser
import re
from dataclasses import replace
from pathlib import Path

import pytest

from classifiers.filling import new_gallery
from embedder.embedding import pretrained_model
from exchange import ExchangeError
from exchange.detections import Detection, detections_frame
from exchange.secondreader import SecondReader
from exchange.triage import triage
from exchange.triagepage import write_triage_page


@pytest.fixture(scope="module")
def reader(synthetic_manifest, tiny_network, tiny_preparation, tmp_path_factory) -> SecondReader:
    folder = tmp_path_factory.mktemp("page")
    pretrained_model(folder / "model", tiny_network, tiny_preparation)
    # Without pathology nothing is classified: the page must do without.
    frame = synthetic_manifest(22).assign(pathology=None)
    new_gallery(frame, folder / "model", folder / "gallery", device="cpu", workers=1)
    return SecondReader(folder / "gallery", device="cpu")


class _Page(html.parser.HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.sources: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.sources += [value for name, value in attrs if name in ("src", "href")]

    def handle_data(self, data):
        self.text.append(data)


def test_the_page_shows_the_worklist_and_the_most_urgent_with_pictures(reader, synthetic_manifest, tmp_path):
    path = synthetic_manifest(24)["path"].iloc[-1]
    evil = "<script>alert(1)</script>"
    place = {"x0": 13, "y0": 48, "x1": 37, "y1": 72}
    one = Detection("d0", path, "archive", "new", score=0.2, lesion_type="mass", note=evil, **place)
    many = [replace(one, detection_id=f"{evil}{n}", patient_id=evil, score=n / 10) for n in range(1, 6)]
    triage(reader, detections_frame([one, *many]), tmp_path, workers=1)
    page = write_triage_page(tmp_path, reader, pictured=2)
    text = page.read_text()
    read = _Page()
    read.feed(text)
    assert "script" not in read.tags
    assert all(source.startswith("data:image/png;base64,") for source in read.sources)
    assert len(read.sources) == 2 * 7, "the detection and six similar cases, of two detections"
    assert not re.search(r"https?://", text)
    shown = " ".join(read.text)
    assert f"1. {evil}5 of archive/{evil}" in shown
    assert "Not a medical device" in shown
    assert f"3. {evil}3" not in shown
    assert "unknown 10" in shown
    assert shown.index(f"{evil}5") < shown.index(f"{evil}4") < shown.index("d0"), "the most urgent first"


def test_a_folder_without_a_triage_is_told(reader, tmp_path):
    with pytest.raises(ExchangeError, match="run `mammoseek triage` first"):
        write_triage_page(tmp_path, reader)


def test_an_image_that_went_away_leaves_an_empty_place(reader, synthetic_manifest, tmp_path):
    copy = tmp_path / "image.png"
    copy.write_bytes(Path(synthetic_manifest(24)["path"].iloc[-1]).read_bytes())
    place = {"x0": 13, "y0": 48, "x1": 37, "y1": 72}
    triage(reader, detections_frame([Detection("d0", str(copy), "archive", "new", **place)]), tmp_path, workers=1)
    copy.unlink()
    assert "no picture" in write_triage_page(tmp_path, reader).read_text()
