"""A DICOMweb server that fails, lies or goes on for ever costs one clear error, and nothing else."""

import json
import time

import pytest

from exchange import ExchangeError
from exchange.pacs.archive import open_archive
from exchange.pacs.fetching import fetch
from exchange.pacs.instances import Instance
from exchange.pacs.query import Query
from exchange.pacs.storing import store

MULTIPART = {"Content-Type": 'multipart/related; type="application/dicom"; boundary=zz'}
JSON = {"Content-Type": "application/dicom+json"}
WANTED = Instance("1.2.3", "1.2.3.1", "1.2.3.1.1")


def one_part(data: bytes) -> bytes:
    return b"--zz\r\nContent-Type: application/dicom\r\n\r\n" + data + b"\r\n--zz--\r\n"


def element(tag: str, value: str) -> dict:
    return {tag: {"vr": "UI", "Value": [value]}}


def catalogue(*uids: str, study: str = "1.2.3", series: str = "1.2.3.1"):
    """Return a server's answer to searches: these instances in one series of one study."""

    def answer(path: str) -> bytes:
        if path.partition("?")[0].endswith("/instances"):
            return json.dumps([element("00080018", uid) for uid in uids]).encode()
        if path.partition("?")[0].endswith("/series"):
            return json.dumps([{**element("0020000E", series), **element("00080060", "MG")}]).encode()
        return json.dumps([{**element("0020000D", study), **element("00100020", "W7")}]).encode()

    return answer


@pytest.fixture
def at(configure):
    def make(address, **tables):
        return configure(dicomweb={"url": address}, **tables)

    return make


def test_a_server_that_fails_at_first_is_asked_again(serve, at, small, tmp_path):
    (file,) = small(images=1)
    asked, answers = [], catalogue("1.2.3.1.1")

    def answer(method, path, body):
        asked.append(path)
        if len(asked) % 2:
            return 503, {}, b"busy"
        if "/instances/" in path:
            return 200, MULTIPART, one_part(file.read_bytes())
        return 200, JSON, answers(path)

    # Three searches and a retrieval, each refused once.
    result = fetch(at(serve(answer), retries={"count": 1}), Query(study_uid="1.2.3"), tmp_path)
    assert (result.failures, [path.name for path in result.files]) == ([], ["1.2.3.1.1.dcm"])
    assert result.files[0].read_bytes() == file.read_bytes()


@pytest.mark.parametrize(("status", "tries"), [(500, 3), (503, 3), (429, 3), (401, 1), (403, 1), (404, 1), (302, 1)])
def test_only_failures_that_pass_are_met_again(serve, at, small, status, tries):
    asked = []

    def answer(method, path, body):
        asked.append(path)
        return status, {"Location": "http://127.0.0.1:1/"} if status == 302 else {}, b"no"

    result = store(at(serve(answer)), small(images=1))
    assert len(asked) == tries
    assert f"status {status}" in result.failures[0][1]
    assert result.transient == (tries > 1)


def test_a_server_that_is_down_is_told_after_some_tries_and_the_rest_is_not_tried(at, free_port, small):
    result = store(at(f"http://127.0.0.1:{free_port()}"), small(images=6))
    assert "Connection refused" in result.failures[0][1]
    assert "3 times" in result.failures[0][1]
    assert sum("was not tried" in told for _, told in result.failures) == 3


def test_a_server_that_does_not_answer_is_left(serve, at, small):
    def answer(method, path, body):
        time.sleep(1.5)
        return 200, {}, b""

    table = {"retries": {"count": 0}, "timeouts": {"response_s": 0.2}}
    assert "does not answer in time" in store(at(serve(answer), **table), small(images=1)).failures[0][1]


def test_an_answer_that_ends_early_is_not_taken_for_an_instance(serve, at, small, tmp_path):
    (file,) = small(images=1)
    whole, answers = one_part(file.read_bytes()), catalogue("1.2.3.1.1")
    for cut, headers in (
        (len(whole) - 4, MULTIPART),
        (len(whole) - 8, MULTIPART),
        (len(whole) - 300, {**MULTIPART, "Content-Length": "9999"}),
    ):

        def answer(method, path, body, cut=cut, headers=headers):
            return (200, headers, whole[:cut]) if "/instances/" in path else (200, JSON, answers(path))

        result = fetch(at(serve(answer), retries={"count": 1}), Query(study_uid="1.2.3"), tmp_path / "out")
        assert len(result.failures) == 1
        assert "2 times" in result.failures[0][1]
        assert not list(tmp_path.glob("out/*/*/*"))


def test_another_instance_than_the_one_asked_for_is_refused(serve, at, small):
    other = small("1.2.4", 1)[0].read_bytes()
    config = at(serve(lambda *_: (200, MULTIPART, one_part(other))))
    with open_archive(config) as archive, pytest.raises(ExchangeError, match="another instance"):
        archive.retrieve(WANTED)


@pytest.mark.parametrize(
    ("headers", "body", "told"),
    [
        (MULTIPART, one_part(b"<html>sign in</html>"), "not a DICOM file"),
        ({"Content-Type": "text/html"}, b"<html>sign in</html>", "not a DICOM file"),
        ({"Content-Type": "application/dicom"}, b"", "not a DICOM file"),
        ({"Content-Type": "multipart/related"}, b"x", "not a DICOM file"),
        (MULTIPART, b"", "ends too early"),
        (MULTIPART, one_part(b"a\r\n--zz\r\n\r\nb"), "several instances"),
        (MULTIPART, b"0" * 200_000, "larger than"),
        ({}, b"", "not a DICOM file"),
    ],
)
def test_what_is_no_instance_is_told(serve, at, headers, body, told):
    config = at(serve(lambda *_: (200, headers, body)), limits={"instance_mib": 0.1})
    with open_archive(config) as archive, pytest.raises(ExchangeError, match=told):
        archive.retrieve(WANTED)


@pytest.mark.parametrize("body", [b"<html>", b"{", b"3", b"[3]", b'["x"]', b"null", b"[" * 99999])
def test_a_search_that_is_answered_with_nonsense_is_told(serve, at, body):
    config = at(serve(lambda *_: (200, JSON, body)))
    with open_archive(config) as archive, pytest.raises(ExchangeError, match="answers"):
        archive.find(Query(study_uid="1.2.3"))


@pytest.mark.parametrize(
    "body", [b"", b"[]", b'{"0020000D": 3}', b'[{"0020000D": {"Value": []}}]', b'[{"0020000D": null}]']
)
def test_a_search_that_names_nothing_finds_nothing(serve, at, body):
    with open_archive(at(serve(lambda *_: (200, JSON, body)))) as archive:
        assert archive.find(Query(study_uid="1.2.3")) == []


def test_a_server_that_knows_no_offset_or_finds_without_end_is_not_read_for_ever(serve, at):
    uids = [f"1.2.3.1.{number}" for number in range(1, 501)]
    answers = catalogue(*uids)
    address = serve(lambda method, path, body: (200, JSON, answers(path)))
    with open_archive(at(address)) as archive:
        assert len(archive.find(Query(study_uid="1.2.3"))) == 500
    config = at(address, limits={"results": 100})
    with open_archive(config) as archive, pytest.raises(ExchangeError, match="more than 100"):
        archive.find(Query(study_uid="1.2.3"))


def test_a_study_of_another_woman_is_not_taken_from_a_server_that_ignores_the_question(serve, at):
    answers = catalogue("1.2.3.1.1")
    with open_archive(at(serve(lambda method, path, body: (200, JSON, answers(path))))) as archive:
        assert archive.find(Query(patient_id="W8")) == []
        assert archive.find(Query(study_uid="1.2.9")) == []
        assert len(archive.find(Query(patient_id="W7"))) == 1


def test_uids_that_are_paths_are_failures_and_lead_nowhere(serve, at, small, tmp_path):
    (file,) = small(images=1)
    asked = []

    def answer(method, path, body):
        asked.append(path)
        if "/instances/" in path:
            return 200, MULTIPART, one_part(file.read_bytes())
        return 200, JSON, catalogue("../../x", "..", "1" * 300, "", "1.2.3.1.1")(path)

    result = fetch(at(serve(answer)), Query(study_uid="1.2.3"), tmp_path / "a" / "b")
    assert [path.name for path in result.files] == ["1.2.3.1.1.dcm"]
    assert len(result.failures) == 4
    assert sorted(path.name for path in tmp_path.rglob("*.dcm") if "small" not in path.parts) == ["1.2.3.1.1.dcm"]
    assert sum("/instances/" in path for path in asked) == 1


@pytest.mark.parametrize("odd", [{"study": ".."}, {"series": "../../x"}, {"series": ""}])
def test_a_study_or_series_whose_uid_is_a_path_is_not_asked_for(serve, at, odd):
    asked = []

    def answer(method, path, body):
        asked.append(path)
        return 200, JSON, catalogue("1.2.3.1.1", **odd)(path)

    with open_archive(at(serve(answer))) as archive:
        assert archive.find(Query(patient_id="W7")) == []
        assert len(archive.odd) == 1
    assert not any("/instances" in path for path in asked)


@pytest.mark.parametrize(
    ("status", "said", "told", "tries"),
    [
        (409, {"00081198": {"vr": "SQ", "Value": [{"00081197": {"vr": "US", "Value": [0x0122]}}]}}, "0x0122", 1),
        (200, {"00081198": {"vr": "SQ", "Value": [{"00081197": {"vr": "US", "Value": [0xA700]}}]}}, "resources", 3),
        (200, {"00081199": {"vr": "SQ", "Value": []}}, "does not count it", 1),
        (200, {"00081198": {"vr": "SQ", "Value": ["x"]}}, "says not whether", 1),
        (409, {}, "refuses it", 1),
    ],
)
def test_a_store_counts_only_when_the_server_says_so(serve, at, small, tmp_path, status, said, told, tries):
    asked = []

    def answer(method, path, body):
        asked.append(body)
        return status, JSON, json.dumps(said).encode()

    result = store(at(serve(answer)), small(images=1), tmp_path / "sent.jsonl")
    assert told in result.failures[0][1]
    assert len(asked) == tries
    assert result.sent == []
    assert not (tmp_path / "sent.jsonl").exists()


def test_a_wrong_certificate_ends_the_run_and_the_right_one_works(serve, at, small, certificate, tmp_path):
    stored = json.dumps({"00081199": {"vr": "SQ", "Value": [element("00081155", "1.2.3.1.1")]}}).encode()
    address = serve(lambda *_: (200, JSON, stored), certificate("127.0.0.1"))
    files = small(images=1)
    right, wrong = certificate("127.0.0.1")[0], certificate("other.example")[0]
    for table in ({}, {"ca_file": str(wrong)}):
        result = store(at(address, tls=table, retries={"count": 9, "backoff_s": 9.0}), files)
        assert "TLS connection fails" in result.failures[0][1]
        assert "certificate" in result.failures[0][1]
    assert store(at(address, tls={"ca_file": str(right)}), files).failures == []
    with pytest.raises(ExchangeError, match="there is no such file"):
        store(at(address, tls={"ca_file": str(tmp_path / "absent.pem")}), files)
    named = serve(lambda *_: (200, JSON, stored), certificate("other.example"))
    assert "is not valid for" in store(at(named, tls={"ca_file": str(wrong)}), files).failures[0][1]


def test_a_bearer_token_is_sent_and_stays_out_of_the_errors(at, small, monkeypatch, serve):
    monkeypatch.setenv("PACS_TOKEN", "t0ken")
    result = store(
        at(serve(lambda *_: (403, {}, b"")), credentials={"kind": "bearer", "secret_env": "PACS_TOKEN"}),
        small(images=1),
    )
    assert "t0ken" not in str(result.failures)
