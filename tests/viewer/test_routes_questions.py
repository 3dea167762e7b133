"""Questions over HTTP: who answers, who must not, replay, batches, and opinions with their support."""

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from classifiers.cases import Source, ask_source, classify_source
from embedder.findings import Box
from index.gallery import Gallery
from index.questions import Question
from tests.viewer.readingroom import BOX, WOMEN, Room
from tests.viewer.test_routes_images import dicom_image
from viewer.opinions import opinion_sentence

PLACE = Box(13, 48, 37, 72)


def women_of(answer: dict[str, Any]) -> set[str]:
    return {one["row"].split("-")[0] for one in answer["neighbours"]}


@pytest.mark.parametrize("woman", [0, 7, 29])
def test_a_woman_never_meets_herself(room: Room, woman: int) -> None:
    everyone = {"k": 2 * WOMEN}
    for body in (
        {"image": room.image(woman), "box": BOX},
        {"image": room.image(woman, 1), "box": BOX, "further": [{"image": room.image(woman), "box": BOX}]},
        {"row": f"w{woman}-1"},
        {"image": room.image(woman), "box": BOX, "two_rows": True},
        {"image": room.image(woman), "box": BOX, "positive": ["w3-0"], "negative": ["w4-0"]},
        {"image": room.image(woman), "box": BOX, "typical": True},
    ):
        answer = room.ask(**body, **everyone)
        assert f"w{woman}" not in women_of(answer)
        assert len(answer["neighbours"]) == len(women_of(answer)) > 5
        assert answer["excluded_rows"] == 2


def test_an_answer_is_the_command_lines(room: Room, room_gallery: Path) -> None:
    answer = room.ask(image=room.image(5), box=BOX, k=7, filters={"density": ["A", "B"], "age": [45, 70]})
    where = "density in ('A', 'B') and age >= 45.0 and age <= 70.0"
    path = room.frame[room.frame["row_id"] == "w5-0"]["path"].iloc[0]
    plain = ask_source(room_gallery, Source(path=Path(path), box=PLACE), Question(k=7, where=where))
    assert [one["row"] for one in answer["neighbours"]] == [one.row_id for one in plain.neighbours]
    assert [one["similarity"] for one in answer["neighbours"]] == [round(o.similarity, 6) for o in plain.neighbours]
    assert answer["allowed_rows"] == plain.allowed_rows
    assert answer["closeness"]["no_close_precedent"] == plain.no_close_precedent
    first = answer["neighbours"][0]
    assert first["outcome"] in ("benign", "malignant")
    assert (first["size_mm"], first["mm"]) == (9.6, 20.0)
    assert first["has_picture"]
    assert first["image"]
    assert answer["suggested_mm"] == 20.0
    told = json.dumps(answer)
    assert "probab" not in told
    assert "vote" not in told
    assert "/tmp" not in told


def test_two_rows_face_each_other(room: Room) -> None:
    answer = room.ask(image=room.image(5), box=BOX, k=4, two_rows=True)
    assert [part["value"] for part in answer["classes"]] == ["malignant", "benign"]
    assert [one["outcome"] for one in answer["neighbours"]] == ["malignant"] * 4 + ["benign"] * 4
    assert [one["rank"] for one in answer["neighbours"]] == [1, 2, 3, 4] * 2


def test_steering_moves_the_answer_and_embeds_nothing(room: Room) -> None:
    plain = room.ask(image=room.image(6), box=BOX, k=5)
    worst = plain["neighbours"][0]["row"]
    moved = room.ask(image=room.image(6), box=BOX, k=5, negative=[worst], positive=["w9-0"])
    assert worst not in {one["row"] for one in moved["neighbours"]}
    assert moved["milliseconds"]["embedding"] == 0
    preferred = room.ask(
        image=room.image(6),
        box=BOX,
        k=5,
        facets=[{"column": "density", "weight": 1.0}, {"column": "size", "weight": 0.1}],
    )
    assert {one["density"] for one in preferred["neighbours"]} == {"C"}  # as the gallery says of the query's breast
    assert all(one["agreement"] is not None for one in preferred["neighbours"])
    filtered = room.ask(image=room.image(6), box=BOX, filters={"lesion_type": ["calcification"]})
    assert {one["lesion_type"] for one in filtered["neighbours"]} == {"calcification"}


def test_the_same_question_gets_the_same_answer(room: Room) -> None:
    body = {"image": room.image(8), "box": BOX, "filters": {"view": ["CC"]}, "positive": ["w2-0", "w3-0"]}
    first, second = room.ask(**body), room.ask(**{**body, "positive": ["w3-0", "w2-0"]})
    for answer in (first, second):
        del answer["milliseconds"]
    assert first == second
    assert first["replay"]["generation"] == room.state.gallery.generation
    entries = [record.entry for record in room.state.audit.entries("query")]
    said = next(one for one in reversed(entries) if one["question_id"] == first["question_id"])
    again = room.ask(**{name: value for name, value in said["question"].items() if value is not None})
    assert [one["row"] for one in again["neighbours"]] == said["rows"]
    assert "w8" not in json.dumps(said["rows"])


def test_many_at_once_get_what_one_gets(room: Room) -> None:
    bodies = [{"image": room.image(woman, view), "box": BOX, "k": 6} for woman in range(10, 18) for view in (0, 1)]
    with ThreadPoolExecutor(8) as readers:
        together = list(readers.map(lambda body: room.ask(**body), bodies))
    for body, answer in zip(bodies, together, strict=True):
        alone = room.ask(**body)
        assert [(one["row"], one["similarity"]) for one in alone["neighbours"]] == [
            (one["row"], one["similarity"]) for one in answer["neighbours"]
        ]


def test_an_image_that_is_not_in_the_gallery(room: Room) -> None:
    image = dicom_image(room, "L")
    answer = room.ask(image=image, box=[15, 50, 36, 70])
    assert answer["excluded_rows"] == 0
    assert any("no row of V77" in note for note in answer["notes"])
    entry = next(r.entry for r in room.state.audit.entries("query") if r.entry["question"]["image"] == image)
    assert entry["study"] == room.state.catalogue.study_of(image)


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"box": [0, 0, 0, 0]}, 422),
        ({"box": [0, 0, 10**6, 10**6]}, 422),
        ({"box": None}, 422),
        ({"k": 10**9}, 422),
        ({"image": "f" * 16}, 404),
        ({"positive": ["nobody"]}, 404),
        ({"positive": ["w2-0"], "negative": ["w2-0"]}, 422),
        ({"positive": ["w2-0"] * 10_000}, 422),
        ({"facets": [{"column": "nothing", "weight": 0.1}]}, 422),
        ({"facets": [{"column": "size", "weight": 0.1, "value": "x"}]}, 422),
        ({"filters": {"density": ["A' or '1' == '1"]}}, 200),
        ({"filters": {"density": ["x" * 200] * 2 + [f"{n}" * 60 for n in range(40)]}}, 422),
        ({"further": [{"image": "{other}", "box": BOX}]}, 422),
    ],
)
def test_questions_that_are_none(room: Room, change: dict[str, Any], status: int) -> None:
    body = {"image": room.image(5), "box": BOX, **change}
    sent = json.dumps(body).replace("{other}", room.image(6))
    response = room.client.post("/query", content=sent, headers={"content-type": "application/json"})
    assert response.status_code == status, response.text
    if status == 200:
        assert response.json()["neighbours"] == []
    nan = sent.replace("48", "NaN", 1)
    assert room.client.post("/query", content=nan, headers={"content-type": "application/json"}).status_code == 422


def test_a_vector_for_programs(room: Room) -> None:
    body = {"image": room.image(5), "box": BOX}
    told = room.client.post("/embed", json=body).json()
    assert "vector" not in told
    shown = room.client.post("/embed?vector=true", json=body).json()
    vector = np.array(shown["vector"], np.float32)
    stored = room.state.gallery
    assert float(vector @ stored.vectors.take(np.array([stored.position("w5-0")]))[0]) == pytest.approx(1, abs=1e-5)
    assert shown["digest"] == hashlib.sha256(vector.tobytes()).hexdigest() == told["digest"]
    assert shown["cached"]


def test_an_opinion_is_the_command_lines_and_on_record(room: Room, room_gallery: Path) -> None:
    body = {"image": room.image(5), "box": BOX}
    room.ask(**body)
    response = room.client.post("/opinion", json=body)
    while response.status_code == 503:
        response = room.client.post("/opinion", json=body)
    said = response.json()
    pathology = said["targets"][0]
    assert pathology["target"] == "pathology"
    assert sum(pathology["vote"]["counts"].values()) == pathology["vote"]["neighbours"] == 10
    path = Path(room.frame[room.frame["row_id"] == "w5-0"]["path"].iloc[0])
    [plain] = classify_source(room_gallery, Source(path=path, box=PLACE), targets=("pathology",)).targets
    assert pathology["vote"]["counts"] == plain.knn.counts
    assert pathology["vote"]["probabilities"] == pytest.approx(plain.knn.probabilities)
    assert plain.risk is not None
    assert pathology["calibrated"]["probability"] == pytest.approx(plain.risk.probability)
    assert pathology["calibrated"]["low"] <= pathology["calibrated"]["high"]
    assert said["sentences"][0] == opinion_sentence(pathology)
    assert "95 % interval" in said["sentences"][0]
    assert f"from {pathology['vote']['women']} women" in said["sentences"][0]
    [entry] = [r.entry for r in room.state.audit.entries("opinion")]
    assert entry["targets"] == said["targets"]
    assert entry["question_id"] == said["question_id"]
    assert said["excluded_women"] == 1
    again = room.client.post("/opinion", json=body).json()
    assert again == said


def test_triage_of_an_images_own_detections_and_of_others(room: Room) -> None:
    own = room.client.post("/triage", json={"image": dicom_image(room, "L")}).json()
    [opinion] = own["opinions"]
    assert (opinion["detection_id"], opinion["box"], opinion["score"]) == ("d1", [15, 50, 36, 70], 0.8)
    assert opinion["path"] is None
    assert len(opinion["similar"]) == 10
    assert opinion["vote"]["neighbours"] == 10
    sent = {"image": room.image(5), "detections": [{"box": BOX, "score": 0.5}]}
    other = room.client.post("/triage", json=sent).json()
    assert "w5" not in {one["patient_id"] for one in other["opinions"][0]["similar"]}
    nothing = room.client.post("/triage", json={"image": room.image(5)}).json()
    assert (nothing["opinions"], nothing["failures"]) == ([], [])
    bad = room.client.post("/triage", json={**sent, "detections": [{"box": [0, 0, 999, 9]}]})
    assert bad.status_code == 422


def test_a_busy_embedder_says_so(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room.state.worker._child, "capacity", 0)
    box = [14, 48, 37, 72]
    response = room.client.post("/query", json={"image": room.image(5), "box": box})
    assert response.status_code == 503
    assert int(response.headers["retry-after"]) >= 1
    assert "waiting" in response.json()["error"]["cause"]
    assert room.client.get("/queue").json()["capacity"] == 0
    assert room.client.get("/health").json()["worker"] == "busy"
    assert room.client.post("/query", json={"row": "w5-0"}).status_code == 200  # nothing is to be embedded
    monkeypatch.undo()
    assert room.client.post("/query", json={"image": room.image(5), "box": box}).status_code == 200


def test_the_gallery_is_the_servers_own_generation(room: Room, room_gallery: Path) -> None:
    assert Gallery.open(room_gallery).generation == room.state.gallery.generation
    assert room.state.desk.health()["newer_generation"] is None
