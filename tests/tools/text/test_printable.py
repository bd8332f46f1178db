"""What comes from a model or a file cannot steer the terminal it is shown on."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console
from rich.text import Text

from main import main
from self_pruner.agent.command_line.commands import command_line
from self_pruner.agent.report.live_screen import SearchScreen
from self_pruner.agent.report.trace_view import show_step, show_steps
from self_pruner.agent.run_files.trace import Act, Judge, Reply, Think, TraceWriter
from self_pruner.agent.settings.settings import Settings
from self_pruner.agent.view import Screen, View
from self_pruner.memory.errors import SelfPrunerError
from self_pruner.tools.text.printable import printable

ROOT = Path(__file__).parents[3]
CLIPBOARD = "\x1b]52;c;aGVsbG8=\x07"
CONTROLS = [chr(code) for code in (*range(9), *range(11, 32), *range(127, 160))]
DIRECTIONS = [chr(code) for code in (0x61C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A))]
HOSTILE = CLIPBOARD + "".join([*CONTROLS, *DIRECTIONS])
OURS = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")  # colours and cursor of rich itself


def steering(text: str) -> list[str]:
    """The controls in `text` that rich did not write."""
    rest = OURS.sub("", text).replace("\r", "")
    return [one for one in rest if one in CONTROLS or one in DIRECTIONS]


@pytest.fixture(params=[True, False])
def shown(request):
    """A view on a terminal or a file, and what it has printed."""
    file = io.StringIO()
    return View(Screen(file=file, force_terminal=request.param, width=400, highlight=False)), file


@pytest.mark.parametrize("control", [*CONTROLS, *DIRECTIONS, "\u2028", "\udc80"])
def test_a_control_is_shown_as_an_escape(control):
    code = ord(control)
    assert printable(f"a{control}b") == (f"a\\x{code:02x}b" if code < 256 else f"a\\u{code:04x}b")


def test_newline_tab_and_ordinary_text_stay():
    text = "One\n\ttwo, drei: schön, четыре, 五, شش, ½ ± 3 🙂 e\u0301"
    assert printable(text) == text


def test_lines_tables_and_phases_obey_nothing(shown):
    view, file = shown
    view.line(HOSTILE)
    view.warn(HOSTILE)
    view.table(HOSTILE, [HOSTILE, HOSTILE], [[HOSTILE, HOSTILE]])
    with view.phase(HOSTILE) as progress:
        progress(1, 2)
    assert steering(file.getvalue()) == []
    assert r"\x1b]52;c;aGVsbG8=\x07" in file.getvalue() and r"\u202e" in file.getvalue()


def test_nor_does_what_goes_past_the_view(shown):
    view, file = shown
    view.console.print(Text(HOSTILE), HOSTILE)
    assert steering(file.getvalue()) == []


def test_the_live_screen_obeys_nothing(shown):
    view, file = shown
    screen = SearchScreen(view, Settings(evaluations=60), lambda best: {})
    call = {"name": HOSTILE, "args": {HOSTILE: HOSTILE}}
    judge = dict(spent={"evaluations": 1.0, "minutes": 1.0}, best=HOSTILE, fitness=0.5)
    with screen.shown():
        think = Think(step=1, generation=0, prompt=HOSTILE, replies=(Reply(raw="", thought=HOSTILE, call=call),))
        screen.see(think.model_copy(update={"error": HOSTILE}))
        screen.see(Act(step=1, call=0, tool=HOSTILE, arguments={}, error=HOSTILE))
        screen.see(think.model_copy(update={"step": 2}))
        screen.see(Act(step=2, call=0, tool=HOSTILE, arguments={}))
        for generation in range(2):
            screen.see(Judge(step=1, generation=generation, **judge))
        plain = Console(file=file, width=400, highlight=False)
        plain.print(screen.frame())
    assert steering(file.getvalue()) == [] and r"Plan    \x1b]52" in file.getvalue()
    assert view.moves or r"brain: called \x1b]52" in file.getvalue()


def test_a_trace_obeys_nothing(shown, tmp_path):
    view, file = shown
    path = tmp_path / "trace.jsonl"
    with TraceWriter(path) as trace:
        reply = Reply(raw=HOSTILE, thought=HOSTILE, call={"name": HOSTILE})
        trace.write(Think(step=1, generation=0, prompt=HOSTILE, replies=(reply,), error=HOSTILE))
        trace.write(Act(step=1, call=0, tool="x" + HOSTILE, arguments={HOSTILE: HOSTILE}, result={"id": HOSTILE}))
        trace.write(Act(step=1, call=1, tool="x", arguments={}, error=HOSTILE))
        trace.write(Judge(step=1, generation=0, spent={HOSTILE: 1.0}, best=HOSTILE, fitness=0.5, stop=HOSTILE))
    show_steps(path, view)
    show_step(path, 1, view)
    assert steering(file.getvalue()) == []


def test_an_error_that_quotes_a_file_obeys_nothing(monkeypatch, capsys):
    def fails(arguments):
        raise SelfPrunerError(f"{HOSTILE} cannot be read")

    monkeypatch.setattr(command_line, "carry_out", fails)
    assert main(["run"]) == 2
    assert steering(capsys.readouterr().err) == []


def test_no_key_reaches_the_screen(monkeypatch, capsys, shown):
    monkeypatch.setenv("HF_TOKEN", "no-usual-form")

    def fails(arguments):
        raise SelfPrunerError("the hub refuses no-usual-form")

    monkeypatch.setattr(command_line, "carry_out", fails)
    main(["run"])
    view, file = shown
    view.line("token no-usual-form")
    assert "[redacted]" in (error := capsys.readouterr().err) and "usual-form" not in error + file.getvalue()


def test_a_prompt_of_a_file_obeys_nothing(tmp_path):
    (tmp_path / "system.j2").write_text(f"You prune. {HOSTILE}", encoding="utf-8")
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8"}
    words = [sys.executable, "main.py", "prompts", "show", str(tmp_path), "--kind", "vary"]
    made = subprocess.run(words, env=environment, cwd=ROOT, capture_output=True, check=False)
    assert b"You prune" in made.stdout + made.stderr
    assert steering((made.stdout + made.stderr).decode().replace("\r\n", "\n")) == []


def test_the_name_of_a_model_obeys_nothing(tmp_path, capfd):
    folder = tmp_path / "model\x1b[2J\u202e"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "llama\x1b]0;owned\x07"}))
    assert main(["--model", str(folder), "--dry-run"]) == 2
    printed = capfd.readouterr()
    assert steering(printed.out + printed.err) == []
