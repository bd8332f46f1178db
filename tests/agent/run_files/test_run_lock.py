"""The lock on a run: one holder, who is named, and nothing left open by whoever was refused."""

import errno
import fcntl
import os

import pytest

from self_pruner.agent.run_files.run_lock import RunLock
from self_pruner.memory.errors import RunDirectoryError
from tests.processes import open_files_of


def test_the_holder_is_named_in_full_and_nothing_else_is(tmp_path):
    (tmp_path / ".lock").write_text("4194304123456789")  # of a holder with a longer number
    lock = RunLock(tmp_path)
    with pytest.raises(
        RunDirectoryError, match=f"{tmp_path} is in use by process {os.getpid()}: wait for it or stop it"
    ):
        RunLock(tmp_path)
    lock.close()
    RunLock(tmp_path).close()


def test_a_lock_whose_holder_wrote_nonsense_is_in_use_all_the_same(tmp_path):
    with open(tmp_path / ".lock", "wb", buffering=0) as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.write(b"\xff\xfe")
        with pytest.raises(RunDirectoryError, match="is in use by process"):
            RunLock(tmp_path)


def test_a_file_system_without_locks_is_said(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(RunDirectoryError, match=f"cannot lock the run {tmp_path}: No locks available"):
        RunLock(tmp_path)


def test_a_refusal_leaves_no_file_open(tmp_path, monkeypatch):
    lock = RunLock(tmp_path)
    assert len(open_files_of(tmp_path)) == 1
    with pytest.raises(RunDirectoryError):
        RunLock(tmp_path)
    assert len(open_files_of(tmp_path)) == 1
    lock.close()
    assert open_files_of(tmp_path) == []

    def refuse(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(RunDirectoryError):
        RunLock(tmp_path)
    assert open_files_of(tmp_path) == []
