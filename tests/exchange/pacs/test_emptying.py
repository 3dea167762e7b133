"""What was sent is deleted in time, whatever a kill leaves; no study is lost and none is reported twice."""

import os
import shutil
import signal
import time
from pathlib import Path

import pytest

import exchange.pacs.spool
from exchange import ExchangeError
from exchange.pacs.instances import identify
from exchange.pacs.listenconfig import Listen
from exchange.pacs.retention import Retention, delete_studies
from exchange.pacs.spool import Spool
from exchange.pacs.spoolview import look

DAY = 86400.0
NAME = "1.2.3"


def receive(spool: Spool, files: list[Path]) -> None:
    for path in files:
        data = path.read_bytes()
        spool.add(identify(data, path), data)


@pytest.fixture
def files(small) -> list[Path]:
    return small(NAME, images=2)


@pytest.fixture
def report(small) -> Path:
    """What stands for the report of the study."""
    return small(NAME, images=1, first=9)[0]


@pytest.fixture
def spool(tmp_path, files, report):
    """A spool with one study that was sent."""
    spool = Spool(tmp_path / "spool")
    receive(spool, files)
    send(spool, report)
    yield spool
    spool.close()


def send(spool: Spool, report: Path) -> None:
    spool.complete(NAME)
    spool.begin(NAME)
    (spool.work(NAME) / "patient data").write_text("x")
    spool.record(NAME, {identify(report.read_bytes(), report).sop_uid: report.read_bytes()})
    spool.sent(NAME)


def remains(spool: Spool) -> set[str]:
    study = spool.folder(NAME).parent
    return {path.relative_to(study).as_posix() for path in study.rglob("*") if path.is_file()}


def is_new(spool: Spool) -> bool:
    """Tell whether what came would be processed, as the listener finds out."""
    return spool.state(NAME).phase == "receiving" and bool(spool.images(NAME)) and not spool.nothing_new(NAME)


def test_the_processings_own_files_go_when_the_round_is_recorded(spool):
    assert not spool.work(NAME).exists()
    assert not spool.view(NAME).exists()


def test_an_emptied_study_that_is_sent_again_as_it_was_gives_nothing_new(spool, files, report):
    assert spool.empty(NAME)
    assert remains(spool) == {"state.json"}
    assert spool.state(NAME).phase == "emptied"
    for again in (files, files[:1], [*files, files[0]]):
        receive(spool, again)
        assert len(spool.images(NAME)) == len(set(again)), "what is answered with success is on disk"
        assert not is_new(spool)
        assert remains(spool) == {"state.json"}
    assert spool.state(NAME).phase == "emptied"


@pytest.mark.parametrize("change", [{"first": 5}, {"PatientID": "W8"}])
def test_something_new_in_an_emptied_study_is_processed_with_all_that_came_with_it(spool, files, small, report, change):
    spool.empty(NAME)
    receive(spool, files)
    receive(spool, small(NAME, images=1, **change))
    assert is_new(spool)
    count = len(spool.images(NAME))
    assert count == (3 if "first" in change else 2)
    send(spool, report)
    assert spool.state(NAME).round == 2
    assert len(spool.state(NAME).covered) == count


def test_what_was_known_before_a_further_round_is_known_still(spool, files, small, report):
    spool.empty(NAME)
    receive(spool, new := small(NAME, images=1, first=5))
    send(spool, report)
    assert len(spool.state(NAME).covered) == 1
    spool.empty(NAME)
    receive(spool, [*files, *new])
    assert not is_new(spool)


def test_our_own_report_that_an_archive_sends_back_is_nothing_new(spool, files, report):
    instance = identify(report.read_bytes(), report)
    assert spool.add(instance, b"with other bytes") == (NAME, False)
    assert spool.state(NAME).phase == "sent"
    exchange.pacs.spool.Journal(spool.journal(NAME)).add("archive", instance, b"")
    spool.empty(NAME)
    receive(spool, [*files, report])
    assert not is_new(spool)
    spool.journal(NAME).write_text("damaged")
    assert spool.add(instance, b"x") == (NAME, True), "a damaged journal keeps no image out"


def test_what_is_not_sent_or_has_a_further_image_is_not_emptied(spool, small, files):
    receive(spool, small(NAME, images=1, first=4))
    assert not spool.empty(NAME)
    spool.complete(NAME)
    assert not spool.empty(NAME)
    spool.refused(NAME, "processing", "odd", 1)
    assert not spool.empty(NAME)
    assert not spool.remove(NAME, "emptied")
    assert len(spool.images(NAME)) == 3
    assert spool.remove(NAME, "failed")
    assert spool.names() == []
    receive(spool, files)
    assert is_new(spool), "a failed study that was deleted had no report"


@pytest.mark.parametrize("is_sent", [False, True])
def test_an_image_that_comes_while_it_is_emptied_is_kept(spool, small, report, monkeypatch, is_sent):
    digests = spool._digests

    def slow(name):
        found = digests(name)
        monkeypatch.undo()
        receive(spool, small(NAME, images=1, first=4))
        if is_sent:
            send(spool, report)
        return found

    monkeypatch.setattr(spool, "_digests", slow)
    assert not spool.empty(NAME)
    assert is_new(spool) != is_sent
    assert len(spool.images(NAME)) == 3


@pytest.mark.parametrize("action", ["empty", "nothing_new", "remove"])
def test_a_kill_at_any_step_of_deleting_loses_no_study_and_gives_no_second_report(
    tmp_path, files, small, spool, action
):
    if action != "empty":
        spool.empty(NAME)
    if action == "nothing_new":
        receive(spool, files)
    spool.close()
    killed = 0
    for step in range(40):
        folder = tmp_path / f"spool{step}"
        shutil.copytree(tmp_path / "spool", folder)  # keeps times, which mark images
        child = os.fork()
        if child == 0:
            try:
                kill_at(step, lambda folder=folder: act(Spool(folder), action))
            finally:
                os._exit(0)
        status = os.waitpid(child, 0)[1]
        again = Spool(folder)
        assert not list(folder.rglob("*.tmp"))
        forgotten = NAME not in again.names()
        assert forgotten <= (action == "remove")
        if not forgotten:
            assert again.state(NAME).phase != "receiving" or not is_new(again)
            act(again, action)
            receive(again, files)
            assert is_new(again) == (action == "remove")
            receive(again, small(NAME, images=1, first=7))
            assert is_new(again)
        again.close()
        if not os.WIFSIGNALED(status):
            break
        killed += 1
    else:
        pytest.fail("the child never came to its end")
    assert killed >= {"empty": 6, "nothing_new": 3, "remove": 3}[action]


def act(spool: Spool, action: str) -> None:
    if action == "remove":
        spool.remove(NAME, "emptied")
    else:
        getattr(spool, action)(NAME)


def kill_at(step: int, run) -> None:
    """Run something, and end this process before its n-th call that changes a file."""
    count = 0

    def killing(action):
        def wrapped(*arguments, **options):
            nonlocal count
            if count == step:
                os.kill(os.getpid(), signal.SIGKILL)
            count += 1
            return action(*arguments, **options)

        return wrapped

    exchange.pacs.spool.write_whole = killing(exchange.pacs.spool.write_whole)
    exchange.pacs.spool.sync_folder = killing(exchange.pacs.spool.sync_folder)
    Path.rename = killing(Path.rename)
    os.unlink, os.rmdir = killing(os.unlink), killing(os.rmdir)
    run()


def test_images_go_after_some_days_and_all_the_rest_after_more(spool):
    now = [time.time()]
    told: list[str] = []
    retention = Retention(spool, Listen(keep_days=2, keep_journal_days=30), told.append, lambda: now[0])
    for days, phase in ((0, "sent"), (1.9, "sent"), (-5, "sent"), (2.1, "emptied"), (29.9, "emptied")):
        now[0] = spool.sent_at(NAME) + days * DAY
        retention.look_at(NAME)
        assert spool.state(NAME).phase == phase
    now[0] += DAY
    retention.go_on()
    assert spool.names() == []
    assert [line.partition(", ")[0] for line in told] == [f"{NAME}: its images are deleted", f"{NAME}: is forgotten"]


def test_no_days_are_none_and_what_is_not_sent_stays(spool, small):
    told: list[str] = []
    retention = Retention(spool, Listen(keep_days=0, keep_journal_days=0), told.append, lambda: time.time() + 9e9)
    receive(spool, small("1.2.4", 1))
    retention.look_at("1.2.4")
    assert told == []
    assert len(spool.images("1.2.4")) == 1
    spool.refused(NAME, "sending", "refused", 1)
    retention.look_at(NAME)
    assert spool.state(NAME).phase == "failed"
    spool.sent(NAME)
    retention.look_at(NAME)
    assert spool.names() == ["1.2.4"]


def test_the_state_of_an_older_spool_is_as_old_as_its_file(spool):
    state = spool._read(NAME)
    spool._write(NAME, exchange.pacs.spool.replace(state, sent_at=0.0))
    assert spool.sent_at(NAME) == pytest.approx(time.time(), abs=60)


def test_whoever_looks_sees_all_without_the_lock_and_whoever_deletes_says_what_stays(spool, tmp_path, small):
    receive(spool, small("1.2.4", 3))
    receive(spool, small("1.2.5", 1))
    spool.complete("1.2.5")
    spool.begin("1.2.5")
    spool.refused("1.2.5", "processing", "nothing to see", 1)
    rows = {row.study: row for row in look(tmp_path / "spool")}
    assert {name: (row.phase, row.images, row.failures) for name, row in rows.items()} == {
        "1.2.3": ("sent", 2, 0),
        "1.2.4": ("receiving", 3, 0),
        "1.2.5": ("failed", 1, 1),
    }
    assert rows["1.2.5"].reason == "nothing to see"
    one = small("1.2.5", 1)[0].stat().st_size
    assert one <= rows["1.2.5"].bytes < one + 1000, "links of a round are counted once"
    assert all(0 <= row.age_s < 60 for row in rows.values())
    assert [row.images for row in look(tmp_path / "spool", ["1.2.4"])] == [3]
    with pytest.raises(ExchangeError, match=r"holds no study 1\.2\.9"):
        look(tmp_path / "spool", ["1.2.9"])
    with pytest.raises(ExchangeError, match="is no spool"):
        look(tmp_path / "nothing")
    failures = delete_studies(spool, sorted(rows))
    assert failures == [("1.2.4", "is receiving: there is work to be done on it")]
    assert {row.study: row.phase for row in look(tmp_path / "spool")} == {"1.2.3": "emptied", "1.2.4": "receiving"}
