"""The state folder: one server at a time, and a sentence that says why it can't be used."""

import errno
import os

import pytest

from viewer import ViewerError
from viewer.records import take_folder


def test_a_folder_that_can_not_be_written_is_not_called_in_use(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr("index.durable.os.open", refuse)
    with pytest.raises(ViewerError) as caught:
        take_folder(tmp_path / "state")
    told = "can't be written (read-only file system); name another folder by --state"
    assert str(caught.value) == f"{tmp_path / 'state'}: {told}"


def test_a_folder_that_another_server_uses_is_told_with_who_it_is(tmp_path):
    lock = take_folder(tmp_path / "state")
    try:
        with pytest.raises(ViewerError, match=f"are in use by process {os.getpid()} on .*; stop that server"):
            take_folder(tmp_path / "state")
    finally:
        lock.release()
