"""A DIMSE peer that refuses, breaks off or is not there costs one clear error."""

import socket
import threading

import pydicom
import pytest

from exchange import ExchangeError
from exchange.pacs.archive import open_archive
from exchange.pacs.failures import TransientError
from exchange.pacs.query import Query
from exchange.pacs.storing import store

IMPLICIT = "1.2.840.10008.1.2"


def test_files_are_sent_byte_for_byte_on_one_association(start_sink, configure, small):
    sink = start_sink()
    files = small(images=3)
    assert store(configure(**sink.tables), files).failures == []
    for path, (uid, data) in zip(files, sink.came, strict=True):
        assert path.read_bytes().endswith(data)
        assert uid == pydicom.dcmread(path).SOPInstanceUID


def test_a_peer_that_takes_implicit_vr_alone_gets_it(start_sink, configure, small):
    sink = start_sink(syntaxes=[IMPLICIT])
    (file,) = small(images=1)
    assert store(configure(**sink.tables), [file]).failures == []
    data = sink.came[0][1]
    assert not file.read_bytes().endswith(data)
    assert pydicom.dcmread(file).PixelData in data


def test_a_mixed_lot_is_sent_whole(start_sink, configure, small, tmp_path):
    sink = start_sink(syntaxes=["1.2.840.10008.1.2.1", "1.2.840.10008.1.2.5"])
    files = [*small("1.2.3", 2), *small("1.2.4", 2)]
    for path in files[2:]:
        dataset = pydicom.dcmread(path)
        dataset.compress(pydicom.uid.RLELossless, generate_instance_uid=False)
        dataset.save_as(path)
    text = tmp_path / "text.txt"
    text.write_text("no DICOM")
    result = store(configure(**sink.tables), [files[0], files[2], text, files[1], files[3]])
    assert [name for name, _ in result.failures] == [str(text)]
    assert len(sink.uids) == 4


def test_a_syntax_that_the_peer_does_not_take_is_told(start_sink, configure, small):
    sink = start_sink(syntaxes=[IMPLICIT])
    (file,) = small(images=1)
    dataset = pydicom.dcmread(file)
    dataset.compress(pydicom.uid.RLELossless, generate_instance_uid=False)
    dataset.save_as(file)
    result = store(configure(**sink.tables), [file])
    assert "does not offer Digital Mammography" in result.failures[0][1] or "RLE" in result.failures[0][1]


@pytest.mark.parametrize(("status", "tries"), [(0xA700, 3), (0xC000, 1), (0x0122, 1)])
def test_only_a_peer_out_of_resources_is_asked_again(start_sink, configure, small, status, tries):
    sink, asked = start_sink(), []

    def answer(sop_uid, count):
        asked.append(sop_uid)
        return status

    sink.status = answer
    result = store(configure(**sink.tables), small(images=1))
    assert f"0x{status:04X}" in result.failures[0][1]
    assert len(asked) == tries


def test_an_association_that_is_cut_is_opened_again(start_sink, configure, small):
    sink, asked = start_sink(), []

    def answer(sop_uid, count):
        asked.append(sop_uid)
        return -1 if len(asked) == 2 else 0

    sink.status = answer
    assert store(configure(**sink.tables), small(images=3)).failures == []
    assert len(set(sink.uids)) == 3
    assert len(asked) == 4


@pytest.mark.parametrize("wrong", ["called", "calling"])
def test_a_wrong_ae_title_is_refused_at_once(start_sink, configure, wrong):
    tables = start_sink(callers=["FRIEND"]).tables
    tables["dimse"]["calling_ae"] = "FRIEND" if wrong == "called" else "STRANGER"
    tables["dimse"]["called_ae"] = "WRONG" if wrong == "called" else "SINK"
    with (
        open_archive(configure(**tables)) as archive,
        pytest.raises(ExchangeError, match=r"AE title not recogni[sz]ed") as caught,
    ):
        archive.echo()
    assert not isinstance(caught.value, TransientError)


def test_a_peer_that_is_down_is_told(configure, free_port):
    config = configure(dimse={"host": "127.0.0.1", "port": free_port(), "called_ae": "X"})
    with open_archive(config) as archive, pytest.raises(TransientError, match=r"can't be reached .Connection refused"):
        archive.echo()


def test_a_peer_without_a_service_is_told(start_sink, configure):
    with open_archive(configure(**start_sink().tables)) as archive:
        assert "C-ECHO" in archive.echo()
        with pytest.raises(ExchangeError, match=r"does not offer .*FIND"):
            archive.find(Query(patient_id="W7"))


@pytest.mark.parametrize(
    "said", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\x02\x00\x00\x00", b"\x02\x00\xff\xff\xff\xff"]
)
def test_a_peer_that_speaks_something_else_is_left_in_time(configure, said):
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer():
            for _ in range(2):
                connection, _ = server.accept()
                with connection:
                    connection.settimeout(2)
                    connection.recv(10)
                    connection.sendall(said)

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        peer = {"host": "127.0.0.1", "port": server.getsockname()[1], "called_ae": "X"}
        config = configure(dimse=peer, timeouts={"connect_s": 0.5, "response_s": 0.5})
        with open_archive(config) as archive, pytest.raises(TransientError, match="ends the connection"):
            archive.echo()
        thread.join(5)
