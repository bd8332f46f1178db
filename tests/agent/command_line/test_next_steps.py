"""What a command suggests next for a run that has no result yet: by who carries it out, in words that a shell takes."""

from __future__ import annotations

import io
import json
import re

import pytest

from main import main
from self_pruner.agent.command_line.runs import _stopped
from self_pruner.agent.report.page import server
from self_pruner.agent.report.page.data import page_data
from self_pruner.agent.report.page.run_state import run_state
from self_pruner.agent.run_files.run_directory import STOPPED_BY_USER, RunDirectory
from self_pruner.agent.run_files.steering import REQUEST, wait_while_paused
from self_pruner.agent.settings.settings import Settings
from self_pruner.agent.view import JsonView, Screen, View, terminal
from self_pruner.prompts.templates import PromptSet
from tests.agent.report.page.made_up import finish, made_up


@pytest.fixture
def run(tmp_path):
    """A run that is held, as by the process that carries it out, in a folder with a space in its name."""
    settings = Settings(model="tiny").to_toml()
    with RunDirectory.create(tmp_path / "my runs", "tiny", settings, device="cpu", seed=0) as run:
        PromptSet("default").copy_to(run.prompts)
        yield run


def said(capfd, *words):
    """The status of a command, and what it says, each line whole."""
    status = main([str(word) for word in words])
    output = capfd.readouterr()
    assert "Traceback" not in output.err
    return status, output.out + output.err


def report(capfd, run):
    status, told = said(capfd, "report", run.path)
    assert status == 0
    return told


def export(capfd, run, tmp_path):
    status, told = said(capfd, "export", run.path, "--output", tmp_path / "out")
    assert status == 2 and told.startswith(f"error: the run {run.path} has no result yet; ")
    return told


def test_a_run_that_goes_on_is_watched(run, tmp_path, capfd):
    command = f"python main.py watch '{run.path}'"
    assert f"\nIt goes on: {command}\n" in report(capfd, run)
    assert export(capfd, run, tmp_path).endswith(f" it goes on: {command}\n")
    assert said(capfd, "evaluate", run.path)[1].endswith(f"has no result yet; it goes on: {command}\n")
    assert said(capfd, "tell", run.path, "x")[1].endswith("as one of the last 3 notes.\n")


def test_a_run_that_is_paused_is_let_go_on(run, tmp_path, capfd):
    command = f"python main.py pause '{run.path}' --off"
    assert said(capfd, "pause", run.path)[1].endswith(f"Go on with: {command}\n")
    assert f"\nIt is paused; go on with: {command}\n" in report(capfd, run)
    assert export(capfd, run, tmp_path).endswith(f" it is paused; go on with: {command}\n")
    assert said(capfd, "tell", run.path, "x")[1].endswith(f"notes, once the run goes on: {command}\n")
    looks = iter([False, True, True])
    wait_while_paused(run.path, lambda: next(looks), View())
    assert f"Paused. Go on with: {command}\n" in capfd.readouterr().out
    assert said(capfd, "stop", run.path)[1].endswith(f"Go on with: python main.py resume '{run.path}'\n")


@pytest.fixture
def screen(monkeypatch):
    """What is said to a terminal that is too narrow for any of these lines."""
    console = Screen(file=io.StringIO(), force_terminal=True, color_system=None, soft_wrap=True, width=40)
    monkeypatch.setattr(terminal, "Screen", lambda **_options: console)
    return console.file


def test_no_terminal_is_too_narrow_for_what_is_copied(run, tmp_path, screen, monkeypatch):
    pause, resume = f"python main.py pause '{run.path}' --off", f"python main.py resume '{run.path}'"
    words = [["pause", run.path], ["stop", run.path], ["report", run.path], ["prompts", "new", tmp_path / "a set"]]
    for each in words:
        assert main([str(word) for word in each]) == 0
    looks = iter([False, True, True])
    (run.path / REQUEST).write_text('{"request": "pause"}')
    wait_while_paused(run.path, lambda: next(looks), View())
    monkeypatch.setattr(server._Server, "run", lambda *_self, **_sockets: None)
    assert main(["watch", str(run.path.parent), "--port", "0"]) == 0
    said = screen.getvalue()
    for copied in (f"turn. Go on with: {pause}", f"Paused. Go on with: {pause}", f"Go on with: {resume}"):
        assert f"{copied}\n" in said
    assert f"{run.path}/report.html holds" in said and f"Use it with --prompts '{tmp_path}/a set'\n" in said
    assert re.search(r" at http://127\.0\.0\.1:\d+/\?token=[\w-]{32} \(Ctrl-C", said)


def test_a_run_that_nobody_carries_out_is_resumed(run, tmp_path, capfd):
    run.close()
    command = f"python main.py resume '{run.path}'"
    for status in ("running", "stopped"):  # as after kill -9, and as after Ctrl-C
        run.set_status(status, "" if status == "running" else STOPPED_BY_USER)
        assert f"\nGo on with: {command}\n" in report(capfd, run)
        assert export(capfd, run, tmp_path).endswith(f" go on with: {command}\n")
        assert said(capfd, "evaluate", run.path)[1].endswith(f"has no result yet; go on with: {command}\n")
        assert said(capfd, "tell", run.path, "x")[1].endswith(f"notes, once the run goes on: {command}\n")
        assert f"{command} goes on with it" in said(capfd, "pause", run.path)[1]
    run.set_status("running")
    (run.path / ".lock").write_text("4194305")  # a number that no process has
    assert run_state(run)["reason"] == f"its process is gone: {command}"


def test_a_run_that_was_stopped_says_how_it_goes_on_to_people_and_programs(run, capsys):
    command = f"python main.py resume '{run.path}'"
    assert _stopped(run.path, View()) == 130 and f"Go on with: {command}\n" in capsys.readouterr().out
    _stopped(run.path, JsonView())
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["resume"] == command


@pytest.mark.parametrize("status, words", [("stopped", ""), ("running", " if it is stopped")])
def test_what_is_still_to_do_is_resumed_where_nobody_does_it(tmp_path, status, words):
    run = finish(made_up(tmp_path / "my runs", "tiny"))
    with RunDirectory.open(run.path, exclusive=True) as held:
        held.set_status(status, STOPPED_BY_USER if status == "stopped" else "")
        gaps = page_data(held)["gaps"]
    assert any(f"still to do{words}: python main.py resume '{run.path}'" in gap for gap in gaps)
