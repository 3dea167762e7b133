"""The worklist over HTTP."""

from tests.viewer.readingroom import WOMEN, Room
from tests.viewer.test_routes_images import dicom_image


def test_the_worklist_and_a_study(room: Room) -> None:
    first = room.client.get("/studies?limit=5").json()
    assert first["total"] == WOMEN + 1
    assert len(first["studies"]) == 5
    urgent = first["studies"][0]
    assert (urgent["woman"], urgent["urgency"], urgent["detections"], urgent["name"]) == ("V77", 0.8, 1, None)
    assert (urgent["state"], urgent["verdicts"], urgent["date"]) == ("new", 0, "2024-01-02")
    study = room.client.get(f"/studies/{urgent['study']}").json()
    assert [(one["laterality"], one["place"]) for one in study["images"]] == [
        ("R", {"row": 0, "column": 0}),
        ("L", {"row": 0, "column": 1}),
    ]
    assert [mark["detection"] for mark in study["images"][1]["detections"]] == ["d1"]
    for image in study["images"]:
        room.client.get(f"/images/{image['image']}")
    again = room.client.get(f"/studies/{urgent['study']}").json()
    assert [one["flip"] for one in again["images"]] == [False, False]
    assert "Doe" not in room.client.get("/studies?limit=100").text


def test_search_sort_and_state(room: Room) -> None:
    def women(query: str) -> list[str]:
        return [one["woman"] for one in room.client.get(f"/studies?{query}").json()["studies"]]

    assert women("search=v77") == ["V77"]
    assert women("search=nobody%27%22%3B") == []
    assert women("sort=woman&limit=2") == ["V77", "w0"]
    assert women("sort=date&limit=1") == ["V77"]
    study = room.client.get("/studies?search=w11").json()["studies"][0]
    image = study["images"][0]["image"]
    assert room.client.post("/seen", json={"study": study["study"], "image": image}).status_code == 200
    assert "w11" in women("state=seen")
    verdict = {"key": "12345678", "study": study["study"], "image": image, "birads": "2"}
    assert room.client.post("/verdicts", json=verdict).status_code == 201
    assert women("state=decided") == ["w11"]
    [line] = room.client.get("/studies?state=decided").json()["studies"]
    assert line["verdicts"] == 1
    for query in ("state=lost", "sort=name", "limit=0", "limit=100000", "offset=-1"):
        assert room.client.get(f"/studies?{query}").status_code == 422


def test_studies_that_are_none(room: Room) -> None:
    assert room.client.get("/studies/ffffffffffffffff").status_code == 404
    assert room.client.get("/studies/..%2F..").status_code in (404, 422)
    assert room.state.catalogue.study_of(dicom_image(room, "L")) is not None
