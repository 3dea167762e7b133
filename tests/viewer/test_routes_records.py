"""Routes of records: verdicts, the audit log, the session, health and figures, and the report of a study."""

import csv
import io
import json
from types import SimpleNamespace

import pydicom
import pytest

from exchange.readerverdicts import read_assessments
from exchange.reportreading import read_opinions
from tests.exchange.report_cases import some_image
from tests.viewer.sites import IMAGE, MEANT, OTHER_STUDY, STUDY, open_site, small_gallery, visit
from viewer import StatusError, ViewerError
from viewer.access import Person
from viewer.chain import verify

SCRIPT = "<script>alert('x')</script>"


@pytest.fixture(scope="module")
def gallery(tmp_path_factory):
    return small_gallery(tmp_path_factory.mktemp("gallery") / "gallery")


@pytest.fixture
def state(gallery, tmp_path):
    return open_site(gallery, tmp_path / "state")


@pytest.fixture
def client(state):
    with visit(state) as opened:
        yield opened


def decide(client, **fields):
    body = {"key": "key-0000001", "study": STUDY, "birads": "4A", **fields}
    return client.post("/verdicts", json=body, headers=MEANT)


def test_the_session_says_who_asks_and_what_the_gallery_offers(client):
    told = client.get("/session").json()
    assert (told["user"], told["role"], told["opinion_hidden"], told["names_shown"]) == ("anna", "curator", True, False)
    assert told["gallery"]["rows"] == 12
    assert told["gallery"]["women"] == 4
    assert told["filters"] == {
        "density": ["A", "B", "C", "D"],
        "view": ["CC", "MLO"],
        "lesion_type": [],
        "dataset": ["films"],
        "age": [41.0, 51.0],
    }
    assert told["facets"] == ["density"]
    assert told["typical_label"] is None


def test_a_verdict_is_acknowledged_when_it_is_durable_and_listed(client, state, monkeypatch):
    synced = []
    monkeypatch.setattr("viewer.chain.os.fsync", lambda descriptor: synced.append(descriptor))
    answer = decide(client, image=IMAGE, box=[1, 2, 30, 40], detection="d1", decision="accept", text=SCRIPT)
    assert answer.status_code == 201
    assert synced
    verdict = answer.json()
    assert (verdict["user"], verdict["text"], verdict["box"]) == ("anna", SCRIPT, [1, 2, 30, 40])
    listed = client.get("/verdicts", params={"study": STUDY})
    assert listed.json()["verdicts"] == [verdict]
    assert listed.headers["content-type"] == "application/json"
    assert client.get("/verdicts", params={"study": OTHER_STUDY}).json() == {"verdicts": []}
    assert decide(client, image=IMAGE, box=[1, 2, 30, 40], detection="d1", decision="accept", text=SCRIPT).json() == (
        verdict
    )
    undone = decide(client, key="key-0000002", birads=None, undoes=verdict["id"])
    assert undone.status_code == 201
    assert client.get("/verdicts", params={"study": STUDY}).json()["verdicts"][0]["undone_by"] == undone.json()["id"]
    assert state.audit.head == verify(state.audit.path, "audit").head


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"study": "0" * 16}, 404),
        ({"image": "b" * 16}, 404),
        ({"study": OTHER_STUDY, "image": IMAGE}, 404),
        ({"image": IMAGE, "detection": "d2", "decision": "accept"}, 404),
        ({"study": "../../etc/passwd"}, 422),
        ({"birads": "9"}, 422),
        ({"birads": None}, 422),
        ({"text": "x" * 10_001}, 422),
        ({"text": 7}, 422),
        ({"box": [1, 2, 3]}, 422),
        ({"unknown": 1}, 422),
        ({"undoes": "c" * 16, "birads": None}, 404),
        ({"question": {"a": "x" * 70_000}}, 422),
        (
            {"question": {"image": IMAGE, "box": [1, 2, 3, 4], "filters": json.loads('{"a":' * 400 + "1" + "}" * 400)}},
            422,
        ),
        ({"image": IMAGE, "box": [-5, 2, 30, 40]}, 422),
        ({"image": IMAGE, "box": [1, 2, 81, 40]}, 422),
        ({"image": IMAGE, "box": [1, 2, 1, 40]}, 422),
        ({"image": IMAGE, "box": [0, 0, 10**30, 10]}, 422),
    ],
)
def test_what_is_no_verdict_is_refused(client, state, fields, status):
    answer = decide(client, **fields)
    assert answer.status_code == status
    assert set(answer.json()["error"]) == {"subject", "cause", "remedy"}
    assert len(state.verdicts) == 0


def test_a_full_disk_of_the_audit_log_does_not_deny_the_verdict(client, state, monkeypatch):
    def full(*_, **__):
        raise StatusError(507, state.audit.path, "can't be written (no space left): nothing was recorded", "free some")

    monkeypatch.setattr(state.audit, "note", full)
    answer = decide(client)
    assert answer.status_code == 507
    assert "the verdict is recorded" in answer.json()["error"]["cause"]
    assert len(state.verdicts) == 1
    monkeypatch.undo()
    assert decide(client).status_code == 200  # sent again, it is the same


def test_files_of_the_server_are_not_named(client, state, monkeypatch, tmp_path):
    path = tmp_path / "tokens.toml"

    def gone(*_, **__):
        raise ViewerError(path, f"{path} is gone", f"make it by mammoseek serve-token NAME --tokens {path}")

    monkeypatch.setattr(state.verdicts, "add", gone)
    answer = decide(client)
    assert answer.status_code == 500
    assert answer.json()["error"]["subject"] == "a file of the server"
    assert str(tmp_path) not in answer.text
    assert "it is gone" in answer.text


def test_half_a_character_is_refused_not_a_defect(client):
    body = json.dumps({"key": "key-0000001", "study": STUDY, "text": "x"}).replace('"x"', '"\\ud800"')
    answer = client.post("/verdicts", content=body, headers={**MEANT, "content-type": "application/json"})
    assert answer.status_code == 422


def test_the_csv_is_for_spreadsheets_that_take_text_for_formulas(client):
    decide(client, text='=HYPERLINK("http://evil.example")')
    decide(client, key="key-0000002", text=f"{SCRIPT}, ö\n2nd line")
    answer = client.get("/verdicts.csv")
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    assert answer.headers["content-disposition"] == 'attachment; filename="verdicts.csv"'
    first, second = csv.DictReader(io.StringIO(answer.text, newline=""))
    assert first["text"] == '\'=HYPERLINK("http://evil.example")'
    assert second["text"] == f"{SCRIPT}, ö\n2nd line"
    assert client.get("/verdicts.csv", params={"study": OTHER_STUDY}).text.count("\r\n") == 1


def test_free_text_never_reaches_the_audit_log(client, state):
    decide(client, text="Erika Mustermann, secret")
    assert "secret" not in state.audit.path.read_text()
    (entry,) = [record.entry for record in state.audit.entries("verdict")]
    assert entry["digest"] == state.verdicts.head


def test_what_was_looked_at_is_told_and_kept(client, state):
    assert not state.audit.has_seen(STUDY)
    assert client.post("/seen", json={"study": STUDY, "image": IMAGE}, headers=MEANT).json()["state"] == "seen"
    assert state.audit.has_seen(STUDY)
    assert client.post("/seen", json={"study": OTHER_STUDY, "image": IMAGE}, headers=MEANT).status_code == 404


def test_the_audit_log_is_verified_when_it_is_read(client, state):
    for number in range(5):
        state.audit.note(Person("bea"), "query", number=number)
    told = client.get("/audit", params={"limit": 3, "offset": 1}).json()
    assert [entry["number"] for entry in told["entries"]] == [3, 2, 1]
    assert (told["intact"], told["total"]) == (True, 6)
    assert len(told["head"]) == 64
    state.audit.path.write_bytes(state.audit.path.read_bytes().replace(b'"bea"', b'"eve"', 1))
    changed = client.get("/audit").json()
    assert changed["intact"] is False
    assert changed["chains"]["audit"]["broken_line"] == 2


def test_health_and_figures(client):
    assert client.get("/health").json() == {"status": "ok", "worker": "ready"}
    lines = client.get("/metrics").text.splitlines()
    assert "mammoseek_rows 12" in lines
    assert 'mammoseek_requests_total{method="GET",route="/health",status="200"} 1' in lines


def write_image(path, **attributes):
    image = some_image(**attributes)
    image.file_meta = pydicom.dataset.FileMetaDataset()
    image.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    image.save_as(path, enforce_file_format=True)
    return path


def test_images_of_another_dicom_study_do_not_hinder_the_report_of_one(client, state, tmp_path):
    pytest.importorskip("highdicom", reason="install mammoseek[exchange] for structured reports")
    other = "b" * 16
    state.catalogue.paths[IMAGE] = write_image(tmp_path / "a.dcm")
    state.catalogue.paths[other] = write_image(tmp_path / "b.dcm", StudyInstanceUID="1.2.9", SOPInstanceUID="1.2.9.1")
    images = tuple(SimpleNamespace(image=name, detections=()) for name in (IMAGE, other))
    state.catalogue.study = lambda study: SimpleNamespace(study=study, images=images)
    decide(client, image=IMAGE, box=[1, 2, 30, 40])
    address = f"/studies/{STUDY}/report.dcm"
    document = pydicom.dcmread(io.BytesIO(client.get(address).content))
    assert document.StudyInstanceUID == some_image().StudyInstanceUID
    decide(client, key="key-0000002", image=other)
    refused = client.get(address)
    assert refused.status_code == 409
    assert "several DICOM studies" in refused.json()["error"]["cause"]


def test_a_study_of_dicom_images_has_a_report_of_verdicts_and_answers(client, state, tmp_path):
    pytest.importorskip("highdicom", reason="install mammoseek[exchange] for structured reports")
    state.catalogue.paths[IMAGE] = write_image(tmp_path / "a.dcm")
    address = f"/studies/{STUDY}/report.dcm"
    assert client.get(address).status_code == 409
    decide(client, image=IMAGE, box=[1, 2, 30, 40])
    undone = decide(client, key="key-0000002", birads="5").json()
    decide(client, key="key-0000003", birads=None, undoes=undone["id"])
    state.audit.query(
        Person("bea"),
        question_id="f" * 16,
        question={"image": IMAGE, "box": [1, 2, 30, 40]},
        study=STUDY,
        rows=["row-0003", "gone"],
        similarities=[0.9, 0.8],
        no_close_precedent=False,
        replay={},
    )
    answer = client.get(address)
    assert answer.status_code == 200, answer.text
    document = pydicom.dcmread(io.BytesIO(answer.content))
    assert [category for _, category in read_assessments(document)] == ["4A"]
    (opinion,) = read_opinions(document).opinions
    assert [case.similarity for case in opinion.similar] == [0.9]
    assert opinion.box == (1, 2, 30, 40)
    assert opinion.vote is None
    assert any("Asked by bea" in note for note in opinion.notes)
    targets = [
        {
            "target": "pathology",
            "vote": {"neighbours": 10, "women": 9, "probabilities": {"malignant": 0.7, "benign": 0.3}},
            "head": None,
            "calibrated": {"probability": 0.62, "low": 0.5, "high": 0.74, "of": "malignant"},
            "basis": "200 findings",
        }
    ]
    state.audit.opinion(Person("bea"), question_id="f" * 16, question={}, study=STUDY, targets=targets, replay={})
    (opinion,) = read_opinions(pydicom.dcmread(io.BytesIO(client.get(address).content))).opinions
    assert opinion.vote is not None
    assert (opinion.vote.neighbours, opinion.vote.women) == (10, 9)
    assert opinion.risk is not None
    assert opinion.risk.probability == pytest.approx(0.62)


def test_a_study_of_plain_pictures_has_no_report(client, state, tmp_path):
    state.catalogue.paths[IMAGE] = tmp_path / "a.png"
    state.catalogue.paths[IMAGE].write_bytes(b"\x89PNG")
    decide(client)
    answer = client.get(f"/studies/{STUDY}/report.dcm")
    assert answer.status_code == 409
    assert answer.json()["error"]["cause"] == "is no DICOM file, and so has no study to report to"


def test_closing_writes_the_end_into_the_log_and_frees_the_folder(gallery, tmp_path):
    for _ in range(2):
        state = open_site(gallery, tmp_path / "again")
        with visit(state):
            pass
    lines = [json.loads(line)["entry"]["action"] for line in state.audit.path.read_text().splitlines()]
    assert lines == ["server started", "server stopped"] * 2
