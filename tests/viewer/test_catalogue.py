"""Which files may be shown: none that a link or a name leads to from outside."""

import json
import os
import shutil
from pathlib import Path

import cv2
import pandas as pd
import pytest

from exchange import ExchangeError
from index.gallery import Gallery
from tests.conftest import draw_breast
from viewer.catalogue import Catalogue, image_id
from viewer.problems import BusyError, NotFoundError


@pytest.fixture
def gallery(room_gallery: Path) -> Gallery:
    return Gallery.open(room_gallery)


def film(path: Path, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), draw_breast(seed, mass=True))
    return path


def test_links_that_lead_out_are_not_followed(gallery: Gallery, tmp_path: Path) -> None:
    outside, root = tmp_path / "outside", tmp_path / "films"
    film(outside / "secret.png")
    film(root / "a.png")
    film(root / "below" / "b.png")
    (root / "link.png").symlink_to(outside / "secret.png")
    (root / "folder").symlink_to(outside)
    (root / "inside.png").symlink_to(root / "below" / "b.png")
    (root / ".hidden.png").write_bytes(b"x")
    found = Catalogue(gallery, [root])
    listed = {entry.path for entry in found._entries.values() if entry.listed}
    assert listed == {str(root.resolve() / "a.png"), str(root.resolve() / "below" / "b.png")}
    for path in (outside / "secret.png", root / "folder" / "secret.png", root / "link.png"):
        assert found.of_path(str(path)) is None
    with pytest.raises(NotFoundError):
        found.entry(image_id(str((outside / "secret.png").resolve())))


def test_a_file_that_becomes_a_link_or_goes_is_not_shown(gallery: Gallery, tmp_path: Path) -> None:
    root = tmp_path / "films"
    path = film(root / "a.png").resolve()
    film(tmp_path / "secret.png")
    found = Catalogue(gallery, [root])
    image = image_id(str(path))
    assert found.detailed(image).details is not None
    path.unlink()
    with pytest.raises(NotFoundError, match="gone"):
        found.detailed(image)
    path.symlink_to(tmp_path / "secret.png")
    with pytest.raises(NotFoundError, match="gone"):
        found.detailed(image)


def test_the_gallery_knows_its_images(gallery: Gallery, room_frame: pd.DataFrame) -> None:
    found = Catalogue(gallery)
    with pytest.raises(BusyError, match="still being read"):
        found.studies()
    found.load()
    entry = found.of_row(gallery.position("w4-1"))
    assert entry is not None
    assert entry.path == os.path.realpath(room_frame[room_frame["row_id"] == "w4-1"]["path"].iloc[0])
    details = found.detailed(entry.image).details
    assert details is not None
    assert (details.woman, details.view, details.spacing_mm, details.age) == ("w4", "CC", 0.4, 44.0)
    study = found.study(str(found.study_of(entry.image)))
    assert study.woman == "w4"
    assert len(study.images) == 2
    assert len(found.studies()) == 30  # no folder is named: the gallery's own women


def test_a_gallery_without_folders_is_matched_by_name(
    gallery: Gallery, room_frame: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "films"
    for path in room_frame["path"][:6]:
        root.mkdir(exist_ok=True)
        shutil.copy(path, root)
    from viewer import galleryimages

    real = galleryimages._real
    monkeypatch.setattr(galleryimages, "_real", lambda *_: None)
    found = Catalogue(gallery, [root])
    monkeypatch.setattr(galleryimages, "_real", real)
    entry = found.of_row(gallery.position("w0-0"))
    assert entry is not None
    assert entry.path == str(root.resolve() / "w0-0.png")
    assert found.of_row(gallery.position("w20-0")) is None
    (root / "more").mkdir()
    shutil.copy(root / "w0-0.png", root / "more")
    monkeypatch.setattr(galleryimages, "_real", lambda *_: None)
    assert Catalogue(gallery, [root]).of_row(gallery.position("w0-0")) is None  # it may be either


def test_bad_files_cost_themselves_and_new_ones_come_in(gallery: Gallery, tmp_path: Path) -> None:
    root = tmp_path / "films"
    film(root / "a.png")
    (root / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\nnonsense")
    (root / "bad.dcm").write_bytes(b"\0" * 128 + b"DICM" + b"\xff" * 50)
    found = Catalogue(gallery, [root])
    found.load()
    assert len(found.studies()) == 1
    assert {name for name, _ in found.problems} == {"bad.png", "bad.dcm"}
    film(root / "b.png", 1)
    (root / "a.png").unlink()
    found.refresh()
    assert [study.woman for study in found.studies().values()] == ["b.png"]


def test_a_file_that_was_still_being_copied_comes_in_when_it_is_whole(gallery: Gallery, tmp_path: Path) -> None:
    root = tmp_path / "films"
    whole = film(tmp_path / "whole.png").read_bytes()
    root.mkdir()
    path = root / "late.png"
    path.write_bytes(whole[:20])
    told: list[str] = []
    found = Catalogue(gallery, [root], say=told.append)
    found.load()
    assert not found.studies()
    assert [name for name, _ in found.problems] == ["late.png"]
    found.refresh()
    assert len([line for line in told if "late.png" in line]) == 1
    path.write_bytes(whole)
    found.refresh()
    assert [study.woman for study in found.studies().values()] == ["late.png"]
    assert not found.problems
    before = found.detailed(image_id(str(path.resolve()))).details
    cv2.imwrite(str(path), draw_breast(3, mass=True)[:100])
    found.refresh()
    after = found.entry(image_id(str(path.resolve()))).details
    assert before is not None
    assert after is not None
    assert (before.header.rows, after.header.rows) == (120, 100)


def test_names_need_not_be_unicode(gallery: Gallery, tmp_path: Path) -> None:
    root = tmp_path / "films"
    film(root / "a.png")
    (root / "a.png").rename(os.fsdecode(os.fsencode(root) + b"/\xff\xfebad.png"))
    Path(os.fsdecode(os.fsencode(root) + b"/\xffworse.png")).write_bytes(b"no picture")
    found = Catalogue(gallery, [root])
    found.load()
    [study] = found.studies().values()
    assert study.woman.endswith("bad.png")
    json.dumps([study.woman, found.problems], ensure_ascii=False).encode()
    assert str(root) not in str(found.problems)
    assert found.detailed(study.images[0].image).details is not None


def test_an_empty_folder_is_not_taken_for_none(gallery: Gallery, tmp_path: Path) -> None:
    (tmp_path / "films").mkdir()
    told: list[str] = []
    found = Catalogue(gallery, [tmp_path / "films"], say=told.append)
    found.load()
    assert not found.studies()
    assert told == [f"No images in {(tmp_path / 'films').resolve()}"]


def test_detections_lie_on_their_images(gallery: Gallery, tmp_path: Path) -> None:
    root = tmp_path / "films"
    film(root / "a.png")
    table = tmp_path / "marks.csv"
    table.write_text(
        "detection_id,image,patient_id,dataset,x0,y0,x1,y1,score\n"
        "d1,a.png,anna,films,10,10,30,30,0.9\nd2,nowhere.png,anna,films,1,1,9,9,0.5\n"
    )
    told: list[str] = []
    found = Catalogue(gallery, [root], [table], say=told.append)
    found.load()
    [study] = found.studies().values()
    assert study.woman == "anna"
    assert (study.detections, study.urgency) == (1, 0.9)
    assert [mark.detection for mark in study.images[0].detections] == ["d1"]
    assert len(found.problems) == 1
    assert "nowhere.png" in str(found.problems)
    [line] = told
    assert line.startswith("Not shown: marks.csv")
    assert "nowhere.png" in line
    found.load()
    assert len(told) == 1, "each is told once"


def test_of_many_that_can_not_be_shown_a_few_are_told(gallery: Gallery, tmp_path: Path) -> None:
    film(tmp_path / "films" / "a.png")
    for number in range(9):
        (tmp_path / "films" / f"{number}.png").write_bytes(b"no picture")
    told: list[str] = []
    Catalogue(gallery, [tmp_path / "films"], say=told.append).load()
    assert len(told) == 6
    assert told[-1] == "Not shown: 4 more"


def test_what_is_not_there_is_told_at_the_start(gallery: Gallery, tmp_path: Path) -> None:
    with pytest.raises(ExchangeError, match="no such folder"):
        Catalogue(gallery, [tmp_path / "nothing"])
    with pytest.raises(ExchangeError, match="no such file"):
        Catalogue(gallery, [], [tmp_path / "nothing.csv"])
    (tmp_path / "file").write_text("x")
    with pytest.raises(ExchangeError, match="is no folder"):
        Catalogue(gallery, [tmp_path / "file"])
