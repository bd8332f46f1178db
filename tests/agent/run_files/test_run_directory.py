"""A run directory is whole or not there, belongs to one process at a time, and says how far its run came."""

import json
import os
import re
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import pytest

import self_pruner.agent.run_files.run_directory as run_directory
from self_pruner.agent.run_files.atomic_write import WriteError
from self_pruner.agent.run_files.run_directory import NoRunError, RunDirectory
from self_pruner.memory.errors import RunDirectoryError

NOW = datetime(2026, 11, 23, 9, 5, 7)
SETTINGS = {"model": "tiny", "sparsity": 0.3, "params": None, "fidelity": (1024, 4096), "resume": False}
ROOT = Path(__file__).parents[3]


def create(base, model="tiny", now=NOW, settings=SETTINGS):
    return RunDirectory.create(base, model, settings, device="cpu", seed=3, now=now)


def test_a_new_run_holds_its_settings_its_environment_and_its_status(tmp_path):
    with create(tmp_path / "runs") as run:
        assert run.path == tmp_path / "runs" / "tiny-20261123-090507"
        assert run.name == "tiny-20261123-090507"
        assert run.status == "running"
        assert run.prompts.is_dir()
        assert not any(path.exists() for path in (run.checkpoint, run.trace, run.report, run.model))
        again = RunDirectory.open(run.path)
    assert again.settings == {"model": "tiny", "sparsity": 0.3, "fidelity": [1024, 4096], "resume": False}
    assert again.settings == run.settings
    assert again.environment == run.environment
    assert again.environment["device"] == "cpu"
    assert again.environment["seed"] == 3
    assert again.environment["created"] == "2026-11-23T09:05:07"
    assert again.environment["versions"]["torch"].startswith("2.")


@pytest.mark.parametrize(
    ("model", "stem"),
    [
        ("org/Some-Model_1.5B", "Some-Model_1.5B"),
        ("/models/my llama/", "my-llama"),
        ("..", "model"),
        ("../../etc", "etc"),
        ("C:\\models\\a:b", "a-b"),
        ("x" * 300, "x" * 80),
    ],
)
def test_the_name_is_the_last_part_of_the_model_in_plain_characters(tmp_path, model, stem):
    with create(tmp_path, model) as run:
        assert run.path == tmp_path / f"{stem}-20261123-090507"


def test_runs_of_one_second_get_numbers(tmp_path):
    names = []
    for _ in range(3):
        with create(tmp_path) as run:
            names.append(run.name)
    assert names == ["tiny-20261123-090507", "tiny-20261123-090507-2", "tiny-20261123-090507-3"]


def test_a_folder_that_another_process_is_making_is_left_to_it(tmp_path):
    partial = tmp_path / ".tiny-20261123-090507.partial"
    partial.mkdir()
    with create(tmp_path) as run:
        assert run.name == "tiny-20261123-090507-2"
    assert list(partial.iterdir()) == []


@pytest.mark.usefixtures("lost_race")
def test_a_name_taken_at_the_last_moment_is_not_overwritten(tmp_path):
    with create(tmp_path) as run:
        assert run.name == "tiny-20261123-090507-2"
    assert [file.name for file in (tmp_path / "tiny-20261123-090507").iterdir()] == ["theirs"]
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("failing", ["settings.toml", "environment.json", "status.json"])
def test_a_disk_that_fills_up_while_a_run_is_made_leaves_nothing(tmp_path, monkeypatch, failing):
    write = run_directory.atomic_write

    def full(path, text):
        if path.name == failing:
            raise WriteError(f"cannot write {path}: No space left on device")
        write(path, text)

    monkeypatch.setattr(run_directory, "atomic_write", full)
    with pytest.raises(RunDirectoryError, match=f"cannot make a run directory in {tmp_path}: .*No space left"):
        create(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_settings_that_cannot_be_written_leave_nothing(tmp_path):
    with pytest.raises(TypeError, match="not TOML serializable"):
        create(tmp_path / "runs", settings={"wrong": object()})
    assert list(tmp_path.iterdir()) == []


def test_runs_below_a_regular_file_are_refused(tmp_path):
    (tmp_path / "file").write_text("a file")
    with pytest.raises(RunDirectoryError, match="cannot make a run directory in .*Not a directory"):
        create(tmp_path / "file" / "runs")


def test_runs_in_a_folder_that_may_not_be_written_are_refused(unprivileged):
    unprivileged.chmod(0o555)
    with pytest.raises(RunDirectoryError, match="cannot make a run directory in .*Permission denied"):
        create(unprivileged)
    assert list(unprivileged.iterdir()) == []


def test_a_run_that_may_not_be_written_can_be_read_but_not_resumed(unprivileged):
    with create(unprivileged) as run:
        pass
    for file in (run.path / ".lock", run.path):
        file.chmod(0o555)
    try:
        assert RunDirectory.open(run.path).status == "running"
        with pytest.raises(RunDirectoryError, match=f"cannot lock the run {run.path}: Permission denied"):
            RunDirectory.resume(run.path)
    finally:
        run.path.chmod(0o755)


def test_the_status_outlives_the_process_and_has_a_reason(tmp_path):
    with create(tmp_path) as run:
        run.set_status("stopped", "stopped by the user")
    again = RunDirectory.open(run.path)
    assert (again.status, again.reason) == ("stopped", "stopped by the user")
    with RunDirectory.resume(run.path) as resumed:  # it may still be refused, and is as it was until then
        assert (resumed.status, resumed.reason) == ("stopped", "stopped by the user")
        resumed.set_status("running")
        assert (resumed.status, resumed.reason) == ("running", "")


def test_a_finished_run_is_not_resumed_and_stays_free(tmp_path):
    with create(tmp_path) as run:
        run.set_status("finished", "no better candidate in 5 generations")
    with pytest.raises(RunDirectoryError, match=f"the run {run.path} is finished"):
        RunDirectory.resume(run.path)
    RunDirectory.open(run.path, exclusive=True).close()


def test_a_run_in_use_is_refused_naming_the_process_but_may_be_read(tmp_path):
    with create(tmp_path) as run:
        module = "self_pruner.agent.run_files.run_directory"
        code = f"import sys; from {module} import RunDirectory; RunDirectory.resume(sys.argv[1])"
        other = subprocess.run(
            [sys.executable, "-c", code, str(run.path)],
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=60,
        )
        last = other.stderr.splitlines()[-1]
        assert last.startswith("self_pruner.memory.errors.RunDirectoryError: ")
        assert f"is in use by process {os.getpid()}: wait for it or stop it" in last
        assert RunDirectory.open(run.path).status == "running"
    RunDirectory.resume(run.path).close()


def test_a_run_is_free_again_when_its_process_is_killed(tmp_path):
    code = (
        "import sys, pathlib, datetime; from self_pruner.agent.run_files.run_directory import RunDirectory\n"
        "run = RunDirectory.create(pathlib.Path(sys.argv[1]), 'tiny', {'seed': 0}, device='cpu', seed=0)\n"
        "print(run.path, flush=True); sys.stdin.read()"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    path = Path(holder.stdout.readline().strip())
    try:
        with pytest.raises(RunDirectoryError, match=f"process {holder.pid}"):
            RunDirectory.resume(path)
    finally:
        holder.kill()
        holder.communicate()
    with RunDirectory.resume(path) as run:
        assert run.status == "running"


def test_the_latest_run_is_the_newest_of_any_model(tmp_path):
    for model, second in [("zebra", 1), ("tiny", 3), ("apple", 2)]:
        create(tmp_path, model, NOW.replace(second=second)).close()
    for _ in range(10):  # numbers sort as numbers
        create(tmp_path, "tiny", NOW.replace(second=3)).close()
    (tmp_path / ".tiny-20270101-000000.partial").mkdir()
    (tmp_path / ".tiny-20270101-000000.partial" / "settings.toml").write_text("")
    (tmp_path / "tiny-20280101-000000").mkdir()
    (tmp_path / "memory.sqlite").write_text("")
    assert RunDirectory.latest(tmp_path) == tmp_path / "tiny-20261123-090503-11"


def test_an_access_token_on_the_command_line_is_in_no_file_of_the_run(tmp_path, monkeypatch):
    secret = "hf_AbCdEfGhIjKlMnOpQrStUvWx"
    monkeypatch.setattr(sys, "argv", ["main.py", "--brain-model", f"x@{secret}", "--seed", "3"])
    with create(tmp_path) as run:
        environment = json.loads((run.path / "environment.json").read_text())
        assert environment["command"] == ["main.py", "--brain-model", "x@[redacted]", "--seed", "3"]
        for path in run.path.rglob("*"):
            assert not path.is_file() or secret not in path.read_text()


def test_no_run_to_be_found_is_said(tmp_path):
    with pytest.raises(NoRunError, match="there is no run in"):
        RunDirectory.latest(tmp_path)
    with pytest.raises(NoRunError, match="No such file"):
        RunDirectory.latest(tmp_path / "none")
    (tmp_path / "file").touch()
    said = {"": "it has no settings.toml", "none": "there is no such folder", "file": "it is no folder"}
    for name, words in said.items():
        with pytest.raises(NoRunError, match=re.escape(f"there is no run in {tmp_path / name}: {words}") + "$"):
            RunDirectory.open(tmp_path / name)


@pytest.mark.parametrize("below", ["", "arm", "runs/arm"])  # of all runs, of a comparison's, and a comparison
def test_a_folder_of_runs_is_no_run_and_names_the_newest(tmp_path, below):
    made = [create(tmp_path / below, model=f"model{number}").path for number in range(4)]
    for age, path in enumerate(made):
        os.utime(path / "settings.toml", (1000 - age, 1000 - age))
    said = f"there is no run in {tmp_path}: it is a folder of runs, so name one, such as {made[0]} or {made[1]}"
    with pytest.raises(NoRunError, match=re.escape(f"{said} or {made[2]}") + "$"):
        RunDirectory.open(tmp_path)


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("settings.toml", b'model = "tiny'),
        ("settings.toml", b"\xff\xfe"),
        ("settings.toml", b""),
        ("environment.json", b"{"),
        ("environment.json", b"[]"),
    ],
)
def test_a_damaged_file_of_a_run_is_named(tmp_path, file, content):
    with create(tmp_path) as run:
        (run.path / file).write_bytes(content)
    with pytest.raises(RunDirectoryError, match=f"{file} is damaged"):
        RunDirectory.open(run.path)


def test_a_damaged_status_is_named(tmp_path):
    with create(tmp_path) as run:
        (run.path / "status.json").write_text(json.dumps({"status": "dancing"}))
        with pytest.raises(RunDirectoryError, match=r"status\.json is damaged: unknown status 'dancing'"):
            _ = run.status
