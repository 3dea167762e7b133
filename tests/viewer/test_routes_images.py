"""Pictures over HTTP: what is known of an image, its tiles, and what hostile addresses get."""

import threading
from pathlib import Path

import cv2
import numpy as np
import pydicom.uid as uid
import pytest

from tests.conftest import draw_breast, mammography_dataset
from tests.viewer.readingroom import Room
from tests.viewer.test_pictures import pixels_of
from viewer.catalogue import image_id


def dicom_image(room: Room, side: str) -> str:
    return image_id(str((room.folder / "studies" / f"{side}.dcm").resolve()))


@pytest.mark.parametrize(("side", "wall"), [("R", "right"), ("L", "left")])
def test_an_image_and_its_tiles(room: Room, side: str, wall: str) -> None:
    image = dicom_image(room, side)
    info = room.client.get(f"/images/{image}").json()
    assert (info["rows"], info["columns"], info["bits"], info["tile"]) == (120, 120, 12, 512)
    assert (info["view"], info["laterality"], info["spacing_mm"]) == ("CC", side, 0.4)
    assert (info["chest_wall"], info["flip"]) == (wall, False)
    assert info["name"] == f"{side}.dcm"
    assert [window["name"] for window in info["windows"]][:2] == ["from the file", "breast"]
    assert info["levels"] == [{"level": 0, "rows": 120, "columns": 120, "scale": 1}]
    assert [mark["detection"] for mark in info["detections"]] == (["d1"] if side == "L" else [])
    tile = room.client.get(f"/images/{image}/tiles/0/0/0")
    drawn = draw_breast(7 + "RL".index(side), mass=True).astype(np.float64) * 16
    drawn = drawn[:, ::-1] if side == "R" else drawn
    assert np.abs(pixels_of(tile) - drawn * 65535 / 4095).max() <= 1
    assert tile.headers["cache-control"].startswith("private")
    again = room.client.get(f"/images/{image}/tiles/0/0/0", headers={"if-none-match": tile.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["etag"] == tile.headers["etag"]


@pytest.mark.parametrize(
    ("address", "status"),
    [
        ("/images/ffffffffffffffff", 404),
        ("/images/ffffffffffffffff/tiles/0/0/0", 404),
        ("/images/ffffffffffffffff/crop", 404),
        ("/images/..%2F..%2Fetc%2Fpasswd", 404),
        ("/images/../../etc/passwd", 404),
        ("/images/{image}/tiles/9/0/0", 404),
        ("/images/{image}/tiles/0/7/0", 404),
        ("/images/{image}/tiles/-1/0/0", 422),
        ("/images/{image}/tiles/0/0/99999999999999999999", 422),
        ("/images/{image}/crop?x0=0&y0=0&x1=999&y1=9&mm=20", 422),
        ("/images/{image}/crop?x0=5&y0=5&x1=5&y1=9&mm=20", 422),
        ("/images/{image}/crop?x0=1&y0=1&x1=9&y1=9&mm=nan", 422),
        ("/images/{image}/crop?x0=1&y0=1&x1=9&y1=9&mm=1e9", 422),
        ("/images/{image}/crop?x0=1&y0=1&x1=9&y1=9&mm=20&pixels=100000", 422),
        ("/rows/nobody", 404),
        ("/rows/nobody/crop", 404),
        ("/rows/%00", 404),
        ("/rows/%ed%a0%80", 404),
        ("/rows/w1-0/crop?mm=-3", 422),
    ],
)
def test_addresses_that_are_none(room: Room, address: str, status: int) -> None:
    response = room.client.get(address.replace("{image}", dicom_image(room, "L")))
    assert response.status_code == status
    assert set(response.json()["error"]) == {"subject", "cause", "remedy"}
    assert "/tmp" not in response.text


def test_what_is_known_of_a_row(room: Room) -> None:
    found = room.client.get("/rows/w4-0").json()
    assert found["outcome"] == "benign"
    assert found["box"] == [13, 48, 37, 72]
    assert found["woman"] == "woman 5"
    assert [(one["row"], one["view"]) for one in found["other_views"]] == [("w4-1", "CC")]
    assert found["image"] == room.image(4)
    assert found["other_views"][0]["image"] == room.image(4, 1)
    facts = {fact["name"]: fact["value"] for fact in found["facts"]}
    assert facts["Outcome"] == "benign"
    assert facts["Age"] == "44"
    assert not {"path", "patient_id", "study_id", "sop_uid"} & set(found["record"])


def test_a_file_that_vanishes_or_breaks_costs_itself(room: Room) -> None:
    path = room.folder / "studies" / "new.png"
    cv2.imwrite(str(path), draw_breast(50, mass=True))
    room.state.catalogue.refresh()
    image = image_id(str(path.resolve()))
    assert room.client.get(f"/images/{image}").status_code == 200
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 3])
    broken = room.client.get(f"/images/{image}")
    assert broken.status_code == 422
    assert "decoded" in broken.json()["error"]["cause"]
    assert str(room.folder) not in broken.text
    path.unlink()
    for address in (f"/images/{image}", f"/images/{image}/tiles/0/0/0", f"/images/{image}/crop"):
        assert room.client.get(address).status_code == 404
    room.state.catalogue.refresh()
    assert room.client.get("/health").json()["status"] == "ok"


def test_the_thumbnail_takes_the_place_of_an_image_that_is_gone(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(room.state.catalogue), "of_row", lambda *_: None)
    crop = room.client.get("/rows/w3-0/crop?mm=20&pixels=64")
    assert crop.headers["x-source"] == "thumbnail"
    assert crop.headers["x-mm-per-pixel"] == ""
    assert pixels_of(crop).shape == (64, 64)
    assert pixels_of(crop).any()
    monkeypatch.setattr(room.state.gallery, "thumbnail", lambda _: None)
    gone = room.client.get("/rows/w3-0/crop?mm=20&pixels=64")
    assert gone.status_code == 404
    assert "no picture" in gone.json()["error"]["cause"]


def test_a_compressed_image_is_seen_before_it_is_decoded(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    target = room.folder / "studies" / "compressed.dcm"
    drawn = cv2.resize(draw_breast(2, mass=True), (1500, 2100), interpolation=cv2.INTER_CUBIC).astype(np.uint16) * 16
    dataset = mammography_dataset(drawn, bits=12, syntax=uid.ExplicitVRLittleEndian)
    dataset.PatientID, dataset.ImageLaterality, dataset.ViewPosition = "V99", "L", "CC"
    dataset.compress(uid.JPEG2000Lossless)
    dataset.save_as(target, enforce_file_format=True)
    room.state.catalogue.refresh()
    pyramids, gate = room.state.desk.pyramids, threading.Event()
    read = pyramids._read
    monkeypatch.setattr(pyramids, "_read", lambda path, frame: gate.wait(60) and read(path, frame))
    address = f"/images/{image_id(str(target.resolve()))}"
    try:
        picture = room.client.get(f"{address}/crop?pixels=128")
        info = room.client.get(address).json()
        assert [level["rows"] for level in info["levels"]] == [2100, 1050, 525, 263]
        coarse = [room.client.get(f"{address}/tiles/{level}/0/0") for level in (2, 3)]
        version = pyramids.version(str(target.resolve()))
        assert pyramids.kept(version) is None
        gate.set()
        fine = room.client.get(f"{address}/tiles/1/0/0")  # waits until it is decoded
        assert fine.headers["x-rows"] == "512"
        assert pyramids.kept(version) is not None
        for level, tile in zip((2, 3), coarse, strict=True):
            again = room.client.get(f"{address}/tiles/{level}/0/0")
            assert (again.content, again.headers["etag"]) == (tile.content, tile.headers["etag"])
        assert room.client.get(address).json() == info
        assert room.client.get(f"{address}/crop?pixels=128").content == picture.content
    finally:
        gate.set()
        target.unlink()
        room.state.catalogue.refresh()


def test_a_full_size_file(room: Room, cbis_dicom: list[Path]) -> None:
    entry_folder = room.folder / "studies"
    target = entry_folder / "full.dcm"
    target.write_bytes(cbis_dicom[0].read_bytes())
    room.state.catalogue.refresh()
    try:
        info = room.client.get(f"/images/{image_id(str(target.resolve()))}").json()
        assert [level["scale"] for level in info["levels"]] == [1, 2, 4, 8, 16]
        coarse = room.client.get(f"/images/{info['image']}/tiles/4/0/0")
        assert int(coarse.headers["x-rows"]) == info["levels"][4]["rows"]
        assert pixels_of(coarse).max() > 1000
    finally:
        target.unlink()
        room.state.catalogue.refresh()


def test_whoever_sees_a_picture_is_on_record_once(room: Room) -> None:
    def noted(action: str, **facts: str) -> int:
        entries = (record.entry for record in room.state.audit.entries(action))
        return sum(all(entry.get(name) == value for name, value in facts.items()) for entry in entries)

    image = room.image(25)
    for _ in range(3):
        assert room.client.get(f"/images/{image}/tiles/0/0/0").status_code == 200
    assert noted("image opened", image=image) == 1
    for _ in range(2):
        assert room.client.get("/rows/w26-0/crop?mm=20").status_code == 200
    assert noted("row opened", row="w26-0") == 1
    shown = room.ask(row="w27-0", k=1)["neighbours"][0]["row"]
    before = noted("row opened", row=shown)
    assert room.client.get(f"/rows/{shown}/crop?mm=20").status_code == 200
    assert noted("row opened", row=shown) == before  # the answer is on record


def test_a_file_that_is_replaced_is_read_again(room: Room) -> None:
    path = room.folder / "studies" / "twice.png"
    cv2.imwrite(str(path), draw_breast(51, mass=True))
    room.state.catalogue.refresh()
    image = image_id(str(path.resolve()))
    first = room.client.get(f"/images/{image}/tiles/0/0/0")
    cv2.imwrite(str(path), np.pad(draw_breast(52, mass=True), ((0, 40), (0, 0))))
    info = room.client.get(f"/images/{image}").json()
    assert (info["rows"], info["levels"][0]["rows"]) == (160, 160)
    second = room.client.get(f"/images/{image}/tiles/0/0/0", headers={"if-none-match": first.headers["etag"]})
    assert second.status_code == 200
    path.unlink()
    room.state.catalogue.refresh()
