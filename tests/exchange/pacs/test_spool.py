"""The spool outlives a kill at any moment."""

import errno
import json
import os
import signal
import subprocess
from pathlib import Path

import pytest

import exchange.pacs.journal
import exchange.pacs.spool
from exchange import ExchangeError
from exchange.pacs.instances import identify
from exchange.pacs.journal import Journal
from exchange.pacs.listener import Listener
from exchange.pacs.spool import Spool, StudyState
from tests.exchange.pacs.listening import make_report


def filled_spool(folder: Path, files: list[Path], **options) -> Spool:
    spool = Spool(folder, **options)
    for path in files:
        data = path.read_bytes()
        spool.add(identify(data, path), data)
    return spool


def test_a_study_goes_from_receiving_to_sent_and_stays_there(tmp_path, small):
    spool = filled_spool(tmp_path / "spool", small(images=2))
    assert spool.names() == ["1.2.3"]
    assert spool.state("1.2.3").phase == "receiving"
    assert len(spool.complete("1.2.3").covered) == 2
    assert spool.results("1.2.3") is None
    spool.record("1.2.3", {"2.25.2": b"one", "2.25.1": b"two"})
    assert [path.read_bytes() for path in spool.results("1.2.3")] == [b"one", b"two"]
    assert spool.state("1.2.3").phase == "processed"
    spool.sent("1.2.3")
    spool.close()
    again = filled_spool(tmp_path / "spool", small(images=2))
    assert again.state("1.2.3").phase == "sent"
    assert again.counts() == {"receiving": 0, "complete": 0, "processed": 0, "sent": 1, "failed": 0, "emptied": 0}


def test_only_its_owner_can_look_into_a_spool_and_one_process_uses_it(tmp_path):
    spool = Spool(tmp_path / "spool")
    assert (tmp_path / "spool").stat().st_mode & 0o077 == 0
    with pytest.raises(ExchangeError, match="in use"):
        Spool(tmp_path / "spool")
    spool.close()
    Spool(tmp_path / "spool").close()


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b'{"phase": "gone"}', b'{"round": "x"}', b'{"other": 1}', b"\0" * 50]
)
def test_a_damaged_state_loses_no_image_and_no_round(tmp_path, small, content):
    spool = filled_spool(tmp_path / "spool", small(images=1))
    spool.complete("1.2.3")
    spool.record("1.2.3", {})
    (tmp_path / "spool/studies/1.2.3/state.json").write_bytes(content)
    assert spool.state("1.2.3") == StudyState(round=1)
    assert spool.complete("1.2.3").round == 2


def test_hostile_uids_stay_in_the_spool(tmp_path, small):
    spool = Spool(tmp_path / "spool")
    before = {path for path in tmp_path.rglob("*") if "spool" not in path.parts}
    data = small(images=1)[0].read_bytes()
    for uid in ("../../x", "..", "/", "1" * 64 + ".1", "lock", "a\0b"):
        instance = identify(data, "x").__class__(uid, uid, uid)
        name, is_new = spool.add(instance, data)
        assert is_new
        assert len(spool.images(name)) == 1
    assert {path.parent.name for path in tmp_path.rglob("*.dcm")} == {
        *spool.names(),
        "small",
    }  # series and study have the same name
    assert before <= set(tmp_path.rglob("*"))


def test_too_little_room_is_refused_before_anything_is_written(tmp_path, small):
    with pytest.raises(OSError, match="No space left") as caught:
        filled_spool(tmp_path / "spool", small(images=1), free_bytes=1 << 60)
    assert caught.value.errno == errno.ENOSPC
    assert not list((tmp_path / "spool").rglob("*.dcm*"))


@pytest.fixture
def small_disk(tmp_path):
    """A file system of its own with 300 KiB."""
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(place)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small file system takes root")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_full_disk_keeps_what_was_there_and_leaves_no_half(small_disk, small):
    spool, sent = Spool(small_disk / "spool"), [(path.read_bytes(), path) for path in small(images=200)]
    with pytest.raises(OSError, match="No space left"):
        all(spool.add(identify(data, path), data) for data, path in sent)
    kept = spool.images("1.2.3")
    assert 10 < len(kept) < 200
    for data, _ in sent[: len(kept)]:
        assert (spool.folder("1.2.3") / identify(data, "x").path.relative_to("1.2.3")).read_bytes() == data
    assert not list(small_disk.rglob("*.tmp"))
    spool.close()


def test_a_journal_forgets_only_the_line_that_was_cut(tmp_path, small):
    files = small(images=3)
    sent = [(identify(path.read_bytes(), path), path.read_bytes()) for path in files]
    journal = Journal(tmp_path / "sent.jsonl")
    for instance, data in sent[:2]:
        journal.add("there", instance, data)
    whole = (tmp_path / "sent.jsonl").read_bytes()
    (tmp_path / "sent.jsonl").write_bytes(whole[:-30])
    again = Journal(tmp_path / "sent.jsonl")
    assert [again.has("there", *one) for one in sent] == [True, False, False]
    assert not again.has("elsewhere", *sent[0])
    assert not again.has("there", sent[0][0], b"other bytes")
    again.add("there", *sent[2])
    assert [Journal(tmp_path / "sent.jsonl").has("there", *one) for one in sent] == [True, False, True]
    (tmp_path / "other").write_bytes(b"\x89PNG\r\n" * 9)
    with pytest.raises(ExchangeError, match="no journal"):
        Journal(tmp_path / "other")
    (tmp_path / "folder").mkdir()
    with pytest.raises(ExchangeError, match="can't be read"):
        Journal(tmp_path / "folder")


def drive(listener: Listener, name: str) -> str:
    """Do all steps of a study, without waiting."""
    for _ in range(20):
        phase = listener._spool.state(name).phase
        if phase in ("sent", "failed"):
            break
        listener._arrived(name)
        listener._due[name] = 0
        (listener._send if phase == "processed" else listener._advance)(name, phase)
    return phase


def test_a_study_survives_a_kill_before_and_after_every_step_that_is_written(configure, serve, small, tmp_path):
    """Each durable step in turn is the last one of a child that is then killed; a second run ends the work."""
    came: list[tuple[str, bytes]] = []

    def keep(method, path, body):
        data = body.partition(b"\r\n\r\n")[2].rpartition(b"\r\n--")[0]
        uid = identify(data, "what came").sop_uid
        came.append((uid, data))
        stored = {"vr": "SQ", "Value": [{"00081155": {"vr": "UI", "Value": [uid]}}]}
        return 200, {"Content-Type": "application/dicom+json"}, json.dumps({"00081199": stored}).encode()

    target = {"url": serve(keep)}
    files = small(images=2)
    repeats, killed_at = {}, []
    for step in range(60):
        folder = tmp_path / f"spool{step}"
        filled_spool(folder, files).close()
        config = configure(dicomweb=target, listen={"spool": str(folder), "callers": ["X"]})
        came.clear()
        child = os.fork()
        if child == 0:
            count = 0

            def killing(name, action, last=step):
                def wrapped(*arguments, **options):
                    nonlocal count
                    for moment in ("before", "after"):
                        if moment == "after":
                            answer = action(*arguments, **options)
                        if count == last:
                            (tmp_path / f"killed{last}").write_text(f"{moment} {name}")
                            os.kill(os.getpid(), signal.SIGKILL)
                        count += 1
                    return answer

                return wrapped

            exchange.pacs.spool.write_whole = killing("write", exchange.pacs.spool.write_whole)
            Path.rename = killing("rename", Path.rename)
            exchange.pacs.journal.Journal.add = killing("journal", exchange.pacs.journal.Journal.add)
            try:
                listener = Listener(config, make_report)
                drive(listener, "1.2.3")
            finally:
                os._exit(0)
        _, status = os.waitpid(child, 0)
        listener = Listener(config, make_report)
        assert drive(listener, "1.2.3") == "sent"
        assert not list(folder.rglob("*.tmp"))
        listener._spool.close()
        assert len({uid for uid, _ in came}) == 1, step
        assert len({data for _, data in came}) == 1, step
        if not os.WIFSIGNALED(status):
            break
        killed_at.append((tmp_path / f"killed{step}").read_text())
        repeats[killed_at[-1]] = len(came) - 1
    else:
        pytest.fail("the child never came to its end")
    assert {"before write", "after write", "before rename", "after journal"} <= set(killed_at)
    # Sent twice only when killed between the archive's answer and the journal's line: the same bytes, the same UID.
    assert {moment for moment, count in repeats.items() if count} == {"before journal"}
