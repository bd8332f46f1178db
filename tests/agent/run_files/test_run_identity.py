"""What a run is known by, whatever its folder is called, and what is left where it could not be made or read."""

import errno
import os
from datetime import datetime
from pathlib import Path

import pytest

from self_pruner.agent.run_files.run_directory import RunDirectory
from self_pruner.memory.errors import RunDirectoryError
from tests.processes import open_files_of

NOW = datetime(2026, 11, 23, 9, 5, 7)


def create(base: Path) -> RunDirectory:
    return RunDirectory.create(base, "tiny", {"model": "tiny"}, device="cpu", seed=3, now=NOW)


def test_two_runs_of_one_name_are_known_apart(tmp_path):
    with create(tmp_path / "one") as one, create(tmp_path / "two") as two:
        assert one.name == two.name
        assert one.id != two.id
        assert one.id.startswith("tiny-20261123-090507-")


def test_a_run_is_known_by_the_same_id_after_its_folder_was_renamed(tmp_path):
    with create(tmp_path) as run:
        pass
    renamed = run.path.rename(tmp_path / "the good one")
    with RunDirectory.resume(renamed) as again:
        assert again.name == "the good one"
        assert again.id == run.id


def test_a_run_of_before_there_were_ids_is_known_by_its_name(tmp_path):
    with create(tmp_path) as run:
        (run.path / "environment.json").write_text('{"device": "cpu"}')
    assert RunDirectory.open(run.path).id == run.name


def test_the_folders_above_the_runs_are_made_too(tmp_path):
    with create(tmp_path / "deep" / "below" / "runs") as run:
        assert run.path.parent == tmp_path / "deep" / "below" / "runs"


def test_a_run_keeps_the_latency_table_it_was_begun_with(tmp_path):
    with create(tmp_path) as run:
        assert "latency_table" not in RunDirectory.open(run.path).settings
        run.latency_table.write_text("{}")
        assert RunDirectory.open(run.path).settings["latency_table"] == str(run.path / "latency_table.json")


def test_the_name_of_a_new_run_is_forced_to_the_disk(tmp_path, monkeypatch):
    forced: list[tuple[Path, list[str]]] = []
    force = os.fsync

    def watch(descriptor: int) -> None:
        target = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        forced.append((target, [file.name for file in tmp_path.iterdir()]))
        force(descriptor)

    monkeypatch.setattr(os, "fsync", watch)
    with create(tmp_path) as run:
        assert (tmp_path, [run.name]) in forced  # after it got its name


@pytest.mark.parametrize("number", [errno.EACCES, errno.ENOSPC])
def test_a_run_that_cannot_be_given_its_name_is_said_and_leaves_nothing(tmp_path, monkeypatch, number):
    def refuse(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(RunDirectoryError, match=f"cannot make a run directory in {tmp_path}: {os.strerror(number)}"):
        create(tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert open_files_of(tmp_path) == []


@pytest.mark.usefixtures("lost_race")
def test_a_name_lost_to_another_process_is_not_kept_open(tmp_path):
    with create(tmp_path) as run:
        assert open_files_of(tmp_path) == [str(run.path / ".lock")]


def test_a_run_let_go_twice_is_let_go(tmp_path):
    with create(tmp_path) as run:
        run.close()
        run.close()
    assert open_files_of(tmp_path) == []
    RunDirectory.resume(run.path).close()


def test_a_missing_environment_is_named(tmp_path):
    with create(tmp_path) as run:
        (run.path / "environment.json").unlink()
    with pytest.raises(RunDirectoryError, match=r"cannot read .*environment\.json: No such file"):
        RunDirectory.open(run.path)


def test_a_missing_status_is_named(tmp_path):
    with create(tmp_path) as run:
        (run.path / "status.json").unlink()
        with pytest.raises(RunDirectoryError, match=r"cannot read .*status\.json: No such file"):
            _ = run.status
