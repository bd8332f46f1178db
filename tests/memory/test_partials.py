"""What a killed process leaves aside is removed by whoever makes the same thing next, and nothing else is."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from contextlib import closing
from pathlib import Path

import pytest

from self_pruner.agent.run_files import atomic_write as atomic
from self_pruner.agent.run_files.atomic_write import atomic_write
from self_pruner.memory.errors import SelfPrunerError
from self_pruner.memory.partials import owner, partial_of, scratch
from self_pruner.memory.store import Memory
from tests.campaign.disk import REMOUNT, ROOM, in_fork, mount


@pytest.fixture(scope="module")
def gone() -> int:
    """The number of a process that has ended."""
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    return ended.pid


def test_what_a_dead_process_left_of_a_file_goes_when_the_file_is_written_again(tmp_path, gone):
    dead = tmp_path / f".report.html.{owner(gone)}.partial"
    living = tmp_path / f".report.html.{owner(os.getppid())}.partial"
    other = tmp_path / f".report.txt.{owner(gone)}.partial"
    elsewhere = tmp_path / f".report.html.{owner(gone).replace(str(gone), f'x-{gone}')}.partial"  # a shared disk
    for path in (dead, living, other, elsewhere):
        path.write_text("a part")
    atomic_write(tmp_path / "report.html", "whole")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        [living.name, other.name, elsewhere.name, "report.html"]
    )


def test_a_write_that_is_interrupted_leaves_nothing_aside(tmp_path, monkeypatch):
    def interrupted(descriptor: int) -> None:
        raise KeyboardInterrupt

    (tmp_path / "result.json").write_text("old")
    monkeypatch.setattr(atomic.os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        atomic_write(tmp_path / "result.json", "new")
    assert [path.name for path in tmp_path.iterdir()] == ["result.json"]
    assert (tmp_path / "result.json").read_text() == "old"


def test_a_memory_that_was_being_made_by_a_dead_process_goes_with_its_logs(tmp_path, gone):
    for suffix in ("", "-wal", "-shm"):
        (tmp_path / f".memory.sqlite.{owner(gone)}.partial{suffix}").write_text("a part")
    for _ in range(2):  # one that makes the file, one that finds it
        with closing(Memory(tmp_path / "memory.sqlite", "context", {})):
            pass
        assert [path.name for path in tmp_path.iterdir()] == ["memory.sqlite"]
        (tmp_path / f".memory.sqlite.{owner(gone)}.partial").write_text("a part")


@pytest.mark.parametrize("size", range(131_072, 180_224, 8_192))
def test_a_memory_that_does_not_fit_on_the_disk_has_no_name_yet_and_is_made_once_there_is_room(tmp_path, size):
    said = in_fork(lambda: made_on_a_full_disk(tmp_path, size))
    if said == "not allowed":
        pytest.skip("only who may mount can fill up a disk")
    assert said == "MemoryFileError, then made"


def made_on_a_full_disk(folder: Path, size: int) -> str:
    """What comes of making a memory on a disk of so many bytes, and again with room."""
    if not mount(folder, size):
        return "not allowed"
    path, said = folder / "memory.sqlite", "made"
    try:
        Memory(path, "context", {}).close()
    except SelfPrunerError as error:
        said = type(error).__name__
    mount(folder, ROOM, REMOUNT)
    try:
        Memory(path, "context", {}).close()
        return f"{said}, then made"
    except SelfPrunerError as error:
        return f"{said}, then {error}"


def test_a_folder_that_is_not_there_has_nothing_to_remove(tmp_path):
    assert partial_of(tmp_path / "none" / "file").name == f".file.{owner(os.getpid())}.partial"


def test_temporary_files_of_dead_processes_go_and_those_of_living_ones_stay(tmp_path, monkeypatch, gone):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    dead, living = (
        tmp_path / f"self-pruner-rows-{owner(gone)}-abc",
        tmp_path / f"self-pruner-rows-{owner(os.getppid())}-abc",
    )
    stranger = tmp_path / f"other-rows-{gone}-abc"
    for folder in (dead, living, stranger):
        folder.mkdir()
        (folder / "piqa.jsonl").write_text("rows")
    with scratch("rows") as folder:
        assert Path(folder).name.startswith(f"self-pruner-rows-{owner(os.getpid())}-")
        assert not dead.exists() and living.exists() and stranger.exists()
    assert not Path(folder).exists()


def test_no_link_is_followed_when_temporary_files_are_removed(tmp_path, monkeypatch, gone):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "kept.txt").write_text("kept")
    (tmp_path / "tmp" / f"self-pruner-rows-{owner(gone)}-abc").symlink_to(tmp_path / "mine")
    with scratch("rows"):
        pass
    assert (tmp_path / "mine" / "kept.txt").read_text() == "kept"
