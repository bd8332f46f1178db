"""A file is replaced whole or not at all."""

import os

import pytest

from self_pruner.agent.run_files.atomic_write import WriteError, atomic_write


def test_the_text_is_written_as_it_is(tmp_path):
    path = tmp_path / "file.txt"
    atomic_write(path, "eins\nzwei é\r\n")
    assert path.read_bytes() == "eins\nzwei é\r\n".encode()
    atomic_write(path, "drei")
    assert path.read_text() == "drei"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_full_disk_leaves_the_old_text_and_nothing_else(tmp_path, monkeypatch, call):
    path = tmp_path / "file.txt"
    path.write_text("old")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, call, full)
    with pytest.raises(WriteError, match=r"cannot write .*file\.txt: No space left on device"):
        atomic_write(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_is_a_file_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(WriteError, match="Not a directory"):
        atomic_write(tmp_path / "file" / "below.txt", "text")
