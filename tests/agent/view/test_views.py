"""Three views of the same events: for a person at a terminal or a log, for a script, for a program."""

from __future__ import annotations

import io
import json

import pytest
from rich.cells import cell_len

from self_pruner.agent.view import JsonView, QuietView, Screen, View
from self_pruner.agent.view.frame import Frame, Row, SteadyLive, cut, fitted

KEY = "hf_0123456789abcdefXYZ"
HOSTILE = "\x1b]0;title\x07\u202eevil\r\x9b2J"


def terminal(width=80, height=24, **options):
    """A console that is a terminal of that size, which keeps what is written."""
    options = {"color_system": None, "highlight": False, "soft_wrap": True, **options}
    return Screen(file=io.StringIO(), force_terminal=True, width=width, height=height, **options)


def speak(view):
    """All that a command says to a view."""
    view.tell("run", "Run runs/x", whole=True, run="runs/x")
    view.line("")
    view.line("Layers in memory.")
    with view.phase("Calibration", unit="sequences") as report:
        report(1, 2)
    with view.live("Search", lambda: Frame([Row("Best", "none")], 8)) as report:
        report(1, 4)
    for _ in range(2):
        view.warn("it is slow")
    view.table("Figures", ("", "KL"), [("dense", "0.0")])
    view.result("runs/x", lambda: view.line("All is done."), run="runs/x", figures=[1.5, float("nan")])


def test_a_log_has_plain_lines_and_each_warning_once(capsys):
    speak(View())
    said = capsys.readouterr()
    assert said.err == "" and "\x1b" not in said.out and "━━━━━━━━━━" not in said.out.replace("┏", "")
    lines = said.out.splitlines()
    assert lines[:3] == ["Run runs/x", "", "Layers in memory."]
    assert lines.count("warning: it is slow") == 1 and lines[-1] == "All is done."


def test_a_quiet_view_prints_one_line_and_warns_on_standard_error(capsys):
    view = QuietView()
    speak(view)
    view.tell("stopped", "Stopped. Go on with: python main.py resume runs/x", run="runs/x")
    said = capsys.readouterr()
    assert said.out == "runs/x\n"
    assert said.err == "warning: it is slow\nStopped. Go on with: python main.py resume runs/x\n"


def test_a_program_hears_every_event_as_an_object_a_line():
    output = io.StringIO()
    view = JsonView(output)
    view.seconds_between = 0.0
    speak(view)
    heard = [json.loads(line) for line in output.getvalue().splitlines()]
    assert [one["event"] for one in heard] == [
        *("run", "note", "phase_begun", "progress", "phase_ended", "phase_begun", "progress", "phase_ended"),
        *("warning", "result"),
    ]
    assert heard[3] == {"event": "progress", "phase": "Calibration", "done": 1, "total": 2, "unit": "sequences"}
    assert heard[4]["phase"] == "Calibration" and heard[4]["seconds"] >= 0
    assert heard[-1] == {"event": "result", "run": "runs/x", "figures": [1.5, None]}


def test_progress_is_told_now_and_then_only():
    output = io.StringIO()
    with JsonView(output).phase("Calibration") as report:
        for done in range(1000):
            report(done, 1000)
    assert output.getvalue().count('"progress"') <= 1


def test_a_program_gets_no_key_and_nothing_that_steers_a_terminal():
    output = io.StringIO()
    JsonView(output).warn(f"{HOSTILE} 剪枝 {KEY}")
    line = output.getvalue()
    assert line.isascii() and line.count("\n") == 1 and line[:-1].isprintable()
    assert json.loads(line)["text"] == f"{HOSTILE} 剪枝 [redacted]"


@pytest.mark.parametrize("width", [80, 60, 20])
def test_sentences_are_wrapped_at_words_and_what_is_copied_is_left_whole(width):
    console = terminal(width)
    view = View(console)
    view.line("one two three four five " * 20)
    assert max(map(cell_len, console.file.getvalue().splitlines())) <= width
    assert console.file.getvalue().split() == ["one", "two", "three", "four", "five"] * 20
    view.line("python main.py resume " + "long" * 30, whole=True)
    assert "python main.py resume " + "long" * 30 + "\n" in console.file.getvalue()


@pytest.mark.parametrize("width", [120, 80, 60, 20])
@pytest.mark.parametrize("name", ["Calibration", "Loading " + "/very/long/path" * 20, "剪枝" * 40, HOSTILE])
def test_the_bar_of_a_phase_is_one_line_that_fits(width, name):
    console = terminal(width)
    with View(console).phase(name, unit="bytes") as report:
        for done in (0, 1, 10**9):
            report(done, 10**9)
            lines = console.render_lines(console._live_stack[-1].get_renderable(), pad=False)
            assert len(lines) == 1 and sum(segment.cell_length for segment in lines[0]) < width


def test_a_terminal_that_only_prints_gets_no_moving_parts(monkeypatch):
    monkeypatch.setenv("TERM", "dumb")
    console = terminal()
    view = View(console)
    speak(view)
    assert not view.moves and "\x1b[?25l" not in console.file.getvalue() and "\x1b[1A" not in console.file.getvalue()


def test_what_does_not_change_is_not_drawn_again():
    console, text = terminal(), ["one"]
    with SteadyLive(
        console=console, get_renderable=lambda: Frame([Row("Best", text[0])], 8), auto_refresh=False
    ) as live:
        live.refresh()
        before = console.file.getvalue()
        live.refresh()
        assert console.file.getvalue() == before
        text[0] = "two"
        live.refresh()
        assert console.file.getvalue().removeprefix(before).endswith("two")


@pytest.mark.parametrize("text", ["", "word", "word " * 50, "w" * 200, "剪" * 100, "a\nb\tc\r\n" * 30, HOSTILE])
@pytest.mark.parametrize("width", [1, 2, 7, 79])
def test_text_is_fitted_to_its_place(text, width):
    for lines in (1, 3):
        found = fitted(text, width, lines)
        assert len(found) == lines and all(cell_len(line) <= width for line in found)
    assert cell_len(cut(text, width)) <= width


def test_what_has_no_room_is_an_ellipsis_and_what_has_is_whole():
    assert fitted("one two three", 7, 1) == ["one tw…"]
    assert fitted("one two three", 7, 2) == ["one two", "three"]
    assert cut("one two", 7) == "one two"
