"""What the real trackers keep of a run, offline, and that a run outlives them."""

import json
import threading
from http.server import BaseHTTPRequestHandler

import pytest

from main import main
from self_pruner.agent.report.telemetry.listeners import listening
from self_pruner.agent.report.telemetry.tracker import QUIET, WAIT
from self_pruner.agent.run_files.run_directory import RunDirectory
from self_pruner.agent.run_files.trace import Judge, read_trace
from self_pruner.agent.settings.limits import cost
from self_pruner.agent.settings.settings import make_settings
from self_pruner.agent.view import View
from tests.endpoint import listening as serving


@pytest.fixture(scope="module")
def kept(begin, tmp_path_factory):
    """A run that was told to Trackio, and how to read there what it kept."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRACKIO_DIR", str(tmp_path_factory.mktemp("trackio")))  # read as the package is imported
        _, path = begin("--track", "trackio", "--brain", "self")
        from trackio.sqlite_storage import SQLiteStorage

        return path, SQLiteStorage


def test_trackio_has_the_best_fitness_against_tokens_and_the_final_table(kept):
    path, storage = kept
    *generations, last = storage.get_logs("self-pruner", path.name)
    judged = [one for one in read_trace(path / "trace.jsonl") if isinstance(one, Judge) and one.fitness is not None]
    ended = {one.generation: one for one in reversed(judged)}  # the first of each
    assert [(one["step"], one["fitness"]) for one in generations] == [
        (cost(one.spent), one.fitness) for _, one in sorted(ended.items())
    ]
    rows = json.loads((path / "result.json").read_text())["rows"]
    assert {f"{row['name']}/kl": row["kl"] for row in rows}.items() <= last.items()


def test_trackio_has_the_settings(kept):
    path, storage = kept
    config = storage.get_run_config("self-pruner", path.name)
    assert config["evaluations"] == 10 and config["brain"] == "self"


def test_a_resumed_run_goes_on_in_the_same_place(kept, begin, monkeypatch):
    from self_pruner.agent import session

    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    _, storage = kept
    with monkeypatch.context() as patch:
        patch.setattr(session, "choose", interrupted)
        status, path = begin("--track", "trackio")
        assert status == 130
    before = storage.get_logs("self-pruner", path.name)
    assert main(["resume", str(path)]) == 0
    after = storage.get_logs("self-pruner", path.name)
    assert before and after[: len(before)] == before and "found/kl" in after[-1]
    assert len([run for run in storage.get_runs("self-pruner") if path.name in str(run)]) == 1


def tell(name, path):
    """Tells a tracker of a run that is over, as if it went on."""
    settings = make_settings({"track": name})
    with listening(settings, RunDirectory.open(path), View()) as listeners:
        for record in read_trace(path / "trace.jsonl"):
            listeners.see(record)


def test_weights_and_biases_keeps_the_same(kept, tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    import wandb

    path, _ = kept
    tell("wandb", path)
    wandb.teardown()  # as the end of a process does: now all is written
    (file,) = tmp_path.glob("wandb/offline-run-*/*.wandb")
    content = file.read_bytes()
    for text in (path.name, "self-pruner", "evaluations", "fitness", "found/kl"):
        assert text.encode() in content
    output = capfd.readouterr()
    assert output.out + output.err == ""


def test_a_tracker_that_cannot_begin_is_said_once_and_told_nothing_more(kept, tmp_path, monkeypatch, capfd):
    import wandb

    wandb.teardown()  # it reads its variables once
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))  # where no key is
    for name in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    tell("wandb", kept[0])
    output = capfd.readouterr()
    assert output.out.startswith("warning: wandb is told nothing more: UsageError: ") and output.out.count("\n") == 1


@pytest.mark.parametrize(("begins", "said"), [(False, "CommError: "), (True, "TimeoutError: ")])
def test_a_server_that_falls_silent_is_waited_for_a_while_and_said_once(
    kept, tmp_path, monkeypatch, capfd, begins, said
):
    import wandb

    begun, over = threading.Event(), threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = self.rfile.read(int(self.headers["content-length"]))
            if begun.is_set() or not begins:
                over.wait(60)
                return
            bucket = {"id": "x", "name": "x", "project": {"name": "x", "entity": {"name": "x"}}}
            if b"upsertBucket" in asked:
                begun.set()
            data = {"upsertBucket": {"bucket": bucket, "inserted": True}} if begun.is_set() else {"model": None}
            answer = json.dumps({"data": data}).encode()
            self.send_response(200)
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None:
            pass

    wandb.teardown()  # it reads its variables once
    for name in ("WANDB_DIR", "HOME"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    wait = {"init_timeout": 300.0 if begins else 1.0, "finish_timeout": 1.0}
    monkeypatch.setitem(QUIET["wandb"], "settings", {**QUIET["wandb"]["settings"], **wait})
    with serving(Handler) as address:
        monkeypatch.setenv("WANDB_BASE_URL", address)
        tell("wandb", kept[0])
        over.set()
        wandb.teardown()
    output = capfd.readouterr()
    assert begun.is_set() == begins
    assert output.out.startswith(f"warning: wandb is told nothing more: {said}") and output.out.count("\n") == 1


def test_a_run_waits_for_no_tracker_without_end():
    waits = [QUIET["wandb"]["settings"][name] for name in ("init_timeout", "finish_timeout")]
    assert waits == [WAIT, WAIT] and 0 < WAIT <= 30


def test_what_a_tracker_loses_is_said_once(kept, tmp_path, monkeypatch, capfd):
    from trackio import sqlite_storage

    (tmp_path / "file").touch()
    monkeypatch.setattr(sqlite_storage, "TRACKIO_DIR", tmp_path / "file")  # no folder can be made there
    tell("trackio", kept[0])
    output = capfd.readouterr()
    assert output.out.startswith("warning: trackio ") and output.out.count("\n") == 1 and output.err == ""
