import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from index import GalleryError
from index.durable import WriterLock, make_folder, open_plain, storage_error, write_whole


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_whole(path, b"old")
    write_whole(path, b"new" * 100_000)
    assert path.read_bytes() == b"new" * 100_000
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("failure", [OSError(errno.ENOSPC, "full"), KeyboardInterrupt()])
@pytest.mark.parametrize("step", ["write", "fsync"])
def test_a_failure_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, failure: BaseException
) -> None:
    path = tmp_path / "file"
    write_whole(path, b"old")

    def fail(*arguments: object) -> int:
        raise failure

    monkeypatch.setattr(os, step, fail)
    with pytest.raises(type(failure)):
        write_whole(path, b"new")
    monkeypatch.undo()
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_no_link_leads_the_bytes_elsewhere(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / f"file.{os.getpid()}.tmp").symlink_to(victim)
    with pytest.raises(OSError):
        write_whole(folder / "file", b"new")
    (folder / "lock").symlink_to(victim)
    with pytest.raises(GalleryError):
        WriterLock(folder / "lock").acquire()
    assert victim.read_bytes() == b"precious"


def test_folders_are_made_with_their_parents(tmp_path: Path) -> None:
    make_folder(tmp_path / "a" / "b" / "c")
    make_folder(tmp_path / "a" / "b" / "c")
    assert (tmp_path / "a" / "b" / "c").is_dir()


def test_one_holder_at_a_time_and_the_next_is_told_who(tmp_path: Path) -> None:
    with WriterLock(tmp_path / "lock"):
        with pytest.raises(GalleryError, match=f"process {os.getpid()} on"):
            WriterLock(tmp_path / "lock").acquire()
        code = "import sys; from pathlib import Path; from index.durable import WriterLock\n"
        code += "try: WriterLock(Path(sys.argv[1])).acquire()\nexcept Exception as error: print(error)"
        told = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path / "lock")], capture_output=True, text=True, check=True
        )
        assert f"process {os.getpid()} on" in told.stdout
    with WriterLock(tmp_path / "lock"):
        pass


def test_an_interrupt_while_taking_it_gives_it_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(descriptor: int, size: int) -> None:
        raise KeyboardInterrupt

    lock = WriterLock(tmp_path / "lock")
    with monkeypatch.context() as patch:
        patch.setattr(os, "ftruncate", interrupt)
        with pytest.raises(KeyboardInterrupt):
            lock.acquire()
    with WriterLock(tmp_path / "lock"):
        pass


def test_only_plain_files_are_read(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"content")
    with open_plain(tmp_path / "file") as file:
        assert file.read() == b"content"
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "zero").symlink_to("/dev/zero")
    for name in ("pipe", "zero"):
        with pytest.raises(GalleryError, match=f"{name}: is no plain file"):
            open_plain(tmp_path / name)
    with pytest.raises(IsADirectoryError):
        open_plain(tmp_path)


def test_a_lock_with_a_strange_note_is_still_a_lock(tmp_path: Path) -> None:
    with WriterLock(tmp_path / "lock"):
        (tmp_path / "lock").write_bytes(b"\xff[[[")
        with pytest.raises(GalleryError, match="another process is writing"):
            WriterLock(tmp_path / "lock").acquire()


@pytest.mark.parametrize(
    ("number", "words"),
    [(errno.ENOSPC, "disk is full"), (errno.EROFS, "read-only"), (errno.EFBIG, "larger"), (errno.EIO, "Input")],
)
def test_an_error_says_what_happened(number: int, words: str) -> None:
    assert words in str(storage_error(Path("g"), OSError(number, os.strerror(number))))
