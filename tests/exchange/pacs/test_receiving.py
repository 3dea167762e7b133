"""A receiver keeps what it is allowed to, and whoever misbehaves does not keep others out."""

import errno
import io
import socket
import struct
import threading
import time

import pydicom
import pytest
from pynetdicom import AE
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.dsutils import encode

from benchmarks.listener_parts import make_instance
from exchange import ExchangeError
from exchange.pacs.archive import open_archive
from exchange.pacs.receiving import start_receiver
from exchange.pacs.storing import store


@pytest.fixture
def receive(configure, free_port):
    """A function that starts a receiver and returns what reaches it, what it kept and what it said."""
    running = []

    def start(keep=None, client=None, **tables):
        listening = {"ae_title": "MINE", "port": free_port(), "callers": ["FRIEND"], **tables.pop("listen", {})}
        config = configure(dimse={"host": "x", "port": 1, "called_ae": "X"}, listen=listening, **tables)
        kept, said = {}, []

        def remember(instance, data):
            kept[instance.sop_uid] = data

        running.append(
            start_receiver(
                config.listen, config.listen.callers, keep or remember, said.append, config.limits, config.timeouts
            )
        )
        peer = {"host": "127.0.0.1", "port": listening["port"], "called_ae": "MINE", "calling_ae": "FRIEND"}
        client = client or {}
        return configure(dimse={**peer, **client.pop("dimse", {})}, **client), kept, said

    yield start
    for one in running:
        one.stop()


def test_what_a_friend_sends_is_kept_as_it_was_encoded(receive, small):
    target, kept, said = receive()
    files = small(images=2)
    assert store(target, files).failures == []
    for path in files:
        assert pydicom.dcmread(io.BytesIO(kept[str(pydicom.dcmread(path).SOPInstanceUID)])) == pydicom.dcmread(path)
    with open_archive(target) as archive:
        assert archive.echo()
    assert said == []


@pytest.mark.parametrize("change", [{"calling_ae": "STRANGER"}, {"called_ae": "OTHER"}])
def test_a_stranger_or_a_wrong_address_is_turned_away(receive, small, change):
    target, kept, _ = receive(client={"dimse": change})
    result = store(target, small(images=1))
    assert "rejects the association" in result.failures[0][1]
    assert kept == {}


def test_a_receiver_without_friends_does_not_start(receive):
    with pytest.raises(ExchangeError, match="names nobody"):
        receive(listen={"callers": []})


def test_a_port_that_is_taken_is_told(receive):
    with socket.create_server(("127.0.0.1", 0)) as server, pytest.raises(ExchangeError, match="can't be listened on"):
        receive(listen={"port": server.getsockname()[1]})


def test_success_is_answered_only_for_what_is_kept(receive, small):
    def full(instance, data):
        raise OSError(errno.ENOSPC, "No space left on device")

    target, _, said = receive(full)
    result = store(target, small(images=1))
    assert "0xA700" in result.failures[0][1]
    assert "No space left" in said[0]

    def broken(instance, data):
        raise RuntimeError("a defect")

    target, _, said = receive(broken)
    assert "0xA700" in store(target, small(images=1)).failures[0][1]
    assert "a defect" in said[0]


def test_an_instance_that_is_too_large_is_refused_however_it_comes(receive, small):
    limits = {"instance_mib": 0.01}
    target, kept, said = receive(limits=limits)
    (small_one,), big = small("1.2.3", 1), small("1.2.4", 1, ImageComments="x" * 9000)[0]
    result = store(target, [big, small_one])
    assert [name for name, _ in result.failures] == []
    huge = small("1.2.5", 1, PixelData=b"\0" * 100_000)[0]
    result = store(target, [huge, small_one])
    assert "0xA700" in result.failures[0][1]
    assert "larger than" in said[0]
    # One that is far too large is not even taken to its end.
    endless = small("1.2.6", 1, PixelData=b"\0" * 3_000_000)[0]
    result = store(target, [endless])
    assert "ended the association" in result.failures[0][1]
    assert set(kept) == {"1.2.3.1.1", "1.2.4.1.1"}
    assert store(target, [small_one]).failures == []


def _association_request() -> bytes:
    """Return the bytes with which pynetdicom asks for an association."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        entity = AE(ae_title="FRIEND")
        entity.acse_timeout = entity.network_timeout = 1
        entity.add_requested_context("1.2.840.10008.5.1.4.1.1.1.2")
        asking = threading.Thread(
            target=entity.associate, args=("127.0.0.1", server.getsockname()[1]), kwargs={"ae_title": "MINE"}
        )
        asking.start()
        connection, _ = server.accept()
        with connection:
            data = connection.recv(65536)
        asking.join(5)
        return data


@pytest.mark.parametrize("kind", ["silent", "half", "claims 4 GiB", "other protocol", "half an image"])
def test_a_broken_connection_is_left_in_time_and_keeps_nobody_out(receive, small, kind):
    timeouts = {"connect_s": 0.4, "response_s": 0.4}
    # Their threads take a moment to end.
    patient = {"retries": {"count": 40, "backoff_s": 0.05, "longest_s": 0.05}}
    target, kept, _ = receive(timeouts=timeouts, limits={"associations": 2}, client=patient)
    place = (target.dimse.host, target.dimse.port)
    request = _association_request()
    sent = {
        "silent": b"",
        "half": request[:50],
        "claims 4 GiB": b"\x01\x00\xff\xff\xff\xff" + b"x" * 1000,
        "other protocol": b"GET / HTTP/1.1\r\n\r\n",
        "half an image": request,
    }[kind]
    connections = [socket.create_connection(place, 2) for _ in range(3)]
    for connection in connections:
        connection.sendall(sent)
        if kind == "half an image":
            connection.recv(65536)
            connection.sendall(struct.pack(">BBL", 4, 0, 5000) + b"\0" * 100)
    start = time.monotonic()
    for connection in connections:
        connection.settimeout(5)
        try:
            while connection.recv(65536):
                pass
        except ConnectionResetError:
            pass
        connection.close()
    assert time.monotonic() - start < 4.5
    assert store(target, small(images=1)).failures == []
    assert len(kept) == 1


@pytest.mark.parametrize("kind", ["other uid", "no study", "garbage"])
def test_a_data_set_that_is_not_what_the_request_says_is_refused(receive, kind):
    target, kept, said = receive()
    entity = AE(ae_title="FRIEND")
    entity.add_requested_context("1.2.840.10008.5.1.4.1.1.1.2", "1.2.840.10008.1.2.1")
    association = entity.associate(target.dimse.host, target.dimse.port, ae_title="MINE")
    dataset = make_instance("1.2.3", "1.2.3.1", "1.2.3.1.1")
    if kind == "no study":
        del dataset.StudyInstanceUID
        status = association.send_c_store(dataset).Status
    else:
        request = C_STORE()
        request.MessageID, request.Priority = 1, 2
        request.AffectedSOPClassUID = dataset.SOPClassUID
        request.AffectedSOPInstanceUID = "1.2.3.1.2" if kind == "other uid" else "1.2.3.1.1"
        request.DataSet = io.BytesIO(encode(dataset, False, True) if kind == "other uid" else b"\xff" * 999)
        association._reactor_checkpoint.clear()
        association.dimse.send_msg(request, association.accepted_contexts[0].context_id)
        _, answer = association.dimse.get_msg(block=True)
        association._reactor_checkpoint.set()
        status = answer.Status
    association.release()
    assert status == {"other uid": 0xA900, "no study": 0xC000, "garbage": 0xC000}[kind]
    assert kept == {}
    assert len(said) == 1


def test_tls_takes_whom_it_trusts_and_a_silent_caller_keeps_nobody_out(receive, small, certificate):
    files = certificate("127.0.0.1")
    other = certificate("other.example")
    listening = {"certificate": str(files[0]), "private_key": str(files[1]), "client_ca": str(other[0])}
    trusted = {"ca_file": str(files[0]), "certificate": str(other[0]), "private_key": str(other[1])}
    target, kept, _ = receive(listen=listening, client={"dimse": {"tls": True}, "tls": trusted})
    with socket.create_connection((target.dimse.host, target.dimse.port), 2):  # says nothing
        assert store(target, small(images=1)).failures == []
    assert len(kept) == 1
    stranger, kept, _ = receive(
        listen=listening, client={"dimse": {"tls": True}, "tls": {"ca_file": str(files[0])}, "retries": {"count": 0}}
    )
    assert store(stranger, small(images=1)).failures
    assert kept == {}
    wrong, kept, _ = receive(listen=listening, client={"dimse": {"tls": True}, "tls": {"ca_file": str(other[0])}})
    result = store(wrong, small(images=1))
    assert "TLS connection fails" in result.failures[0][1]
    assert not result.transient
    plain, kept, _ = receive(listen=listening, client={"retries": {"count": 0}})
    assert store(plain, small(images=1)).failures
    assert kept == {}
