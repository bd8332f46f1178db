"""Who listens to a run: a program, a script, a person at a terminal; each hears a whole run of the tiny model."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest
from rich.cells import cell_len

from self_pruner.agent import session
from tests.stopped import SMALL, do

ROOT = Path(__file__).parents[3]
PIPED = 128 + signal.SIGPIPE
WHOLE = [word for word in SMALL if word not in ("--no-recalibrate", "--no-export")]
EVENTS = {
    "begin": {"format", "command"},
    "run": {"run", "resumed", "settings"},
    "note": {"text"},
    "phase_begun": {"phase"},
    "phase_ended": {"phase", "seconds"},
    "progress": {"phase", "done", "total", "unit"},
    "plan": {"generation", "text", "plan"},
    "lesson": {"generation", "text", "lesson"},
    "generation": {
        *("generation", "best", "fitness", "baselines", "spent", "share", "minutes_left", "brain"),
    },
    "warning": {"text"},
    "stopped": {"run", "resume"},
    "error": {"text", "status"},
}


def heard(output: str) -> list[dict]:
    """The events of an output in which every line is one, each with the facts that are documented."""
    events = [json.loads(line) for line in output.splitlines()]
    for one in events:
        facts = EVENTS.get(one["event"])
        assert facts is None or set(one) == {"event", *facts}, one
    return events


@pytest.fixture(scope="module")
def words(model, cache, tmp_path_factory):
    """A command line of a small run, in a folder of this module."""
    return [
        "--model",
        model,
        "--cache",
        cache,
        "--runs",
        tmp_path_factory.mktemp("runs"),
        *WHOLE,
        *("--evaluations", "22", "--offspring", "6"),  # enough for each to have its share of every generation
    ]


@pytest.fixture(scope="module")
def told(words, believed):
    """What a program hears of a whole run."""
    return do(*words, "--json")


def test_a_program_hears_a_whole_run_in_order(told):
    assert told.returncode == 0 and told.stderr == ""
    events = heard(told.stdout)
    names = [one["event"] for one in events]
    assert names[:2] == ["begin", "run"] and names[-1] == "result" and names.count("result") == 1
    assert events[0] == {"event": "begin", "format": 1, "command": "run"}
    assert events[1]["settings"]["sparsity"] == 0.3 and not events[1]["resumed"]
    open_phases: list[str] = []
    for one in events:
        if one["event"] == "phase_begun":
            open_phases.append(one["phase"])
        elif one["event"] == "phase_ended":
            assert open_phases.pop() == one["phase"] and one["seconds"] >= 0
    assert not open_phases
    phases = [one["phase"] for one in events if one["event"] == "phase_begun"]
    main_ones = ["Calibration", "Search", "Recalibration", "Export and verification"]
    assert [name for name in phases if name in main_ones] == main_ones
    told_of = [one["event"] for one in events if one["event"] in ("plan", "lesson", "generation")]
    assert re.fullmatch("(plan )?(generation )((plan )(lesson )*(generation ))+", " ".join([*told_of, ""]))
    assert "lesson" in told_of
    generations = [one["generation"] for one in events if one["event"] == "generation"]
    assert generations == list(range(len(generations))) and len(generations) > 1


def test_the_result_has_the_figures_and_paths_of_the_run(told):
    result = heard(told.stdout)[-1]
    kept = json.loads(Path(result["figures"]).read_text())
    assert result["run"] == heard(told.stdout)[1]["run"] and result["candidate"] == kept["candidate"]
    assert result["rows"] == kept["rows"] and result["spent"] == kept["spent"]
    for name in ("checkpoint", "report", "trace"):
        assert Path(result[name]).exists()


@pytest.mark.parametrize("form", [[], ["--format", "gguf", "--type", "f16"]])
def test_export_says_one_line_or_its_events(told, tmp_path, form):
    run = heard(told.stdout)[-1]["run"]
    quiet = do("export", run, "--output", tmp_path / "one", "--quiet", *form)
    assert (quiet.returncode, quiet.stdout) == (0, f"{tmp_path / 'one'}\n")
    events = heard(do("export", run, "--output", tmp_path / "two", "--json", *form).stdout)
    assert events[0]["command"] == "export" and events[-1]["event"] == "result"
    assert events[-1]["checkpoint"] == str(tmp_path / "two") and (tmp_path / "two").exists()


@pytest.mark.usefixtures("believed")
def test_a_quiet_run_prints_its_path_as_it_was_typed(words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = do(*words, "--runs", "mine", "--no-recalibrate", "--no-export", "--quiet")
    (run,) = Path("mine").glob("tiny-*")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{run}\n", "")


def test_a_run_that_was_stopped_says_how_it_goes_on(words, tmp_path, monkeypatch):
    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(session, "choose", interrupted)
    places = ["--runs", tmp_path / "one"], ["--runs", tmp_path / "other"]
    done = do(*words, *places[0], "--json", check=False)
    event = heard(done.stdout)[-1]
    assert done.returncode == 130 and event["event"] == "stopped" and Path(event["run"]).is_dir()
    assert event["resume"] == f"python main.py resume {event['run']}"
    done = do(*words, *places[1], "--quiet", check=False)
    (run,) = (tmp_path / "other").glob("tiny-*")
    assert (done.returncode, done.stdout) == (130, "") and f"python main.py resume {run}\n" in done.stderr


@pytest.mark.usefixtures("believed")
def test_a_comparison_is_heard_too(words, tmp_path):
    small = [*words, "--no-export"]
    small = small[: small.index("--sparsity")] + small[small.index("--sparsity") + 2 :]
    asked = ["compare", *small, "--arms", "uniform,ends", "--seeds", "1", "--into", tmp_path / "both", "--json"]
    events = [json.loads(line) for line in do(*asked).stdout.splitlines()]
    assert [one["run"].split("-")[0] for one in events if one["event"] == "run"] == ["uniform", "ends"]
    assert events[-1]["page"] == str(tmp_path / "both" / "compare.html") and not events[-1]["missing"]
    assert do("resume", tmp_path / "both", "--quiet").stdout == f"{tmp_path / 'both'}\n"


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        (["--quiet"], "--quiet prints one line and --json every event: give only one of them"),
        (["--dry-run"], "--dry-run tells people what a run would cost: give it without --quiet and --json"),
        (["--sparsity", "2"], "--sparsity: it takes a number above 0 and below 1, got 2"),
        (["--sparsty", "2"], "there is no option --sparsty"),
        (["--model", "no/such\x1bfolder"], "no/such"),
    ],
)
def test_an_error_is_an_event_and_a_sentence(wrong, sentence):
    done = do("--json", *wrong, check=False)
    event = heard(done.stdout)[-1]
    assert event["event"] == "error" and event["status"] == done.returncode == 2
    assert sentence in event["text"] and done.stderr == f"error: {event['text']}\n"


def test_a_quiet_error_is_the_sentence_alone():
    done = do("--quiet", "--sparsity", "2", check=False)
    assert done.stdout == "" and done.stderr.startswith("error: --sparsity")


def started(words, *more, **streams):
    return subprocess.Popen([sys.executable, str(ROOT / "main.py"), *map(str, words), *more], text=True, **streams)


def test_a_reader_of_events_that_goes_ends_the_run_as_any_pipe_does(words):
    with started(words, "--json", stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert json.loads(process.stdout.readline())["event"] == "begin"
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == PIPED


class Terminal:
    """A screen of so many columns, as far as this program uses one; refuses what would leave it."""

    def __init__(self, columns: int) -> None:
        self.columns, self.row, self.column = columns, 0, 0
        self.lines = [""]

    def write(self, text: str) -> None:
        for part in re.findall(r"\x1b\[[0-9;?]*[A-Za-z]|[\r\n]|[^\x1b\r\n]+|\x1b", text):
            if part == "\n":
                self.row, self.column = self.row + 1, 0
                if self.row == len(self.lines):
                    self.lines.append("")
            elif part == "\r":
                self.column = 0
            elif part.startswith("\x1b"):
                self._control(part)
            else:
                line = self.lines[self.row]
                self.lines[self.row] = line[: self.column].ljust(self.column) + part + line[self.column + len(part) :]
                self.column += cell_len(part)
                assert self.column <= self.columns, part

    def _control(self, part: str) -> None:
        if up := re.fullmatch(r"\x1b\[([0-9]*)A", part):
            self.row -= int(up[1] or 1)
            assert self.row >= 0
        elif part == "\x1b[2K":
            self.lines[self.row] = ""
        else:
            assert re.fullmatch(r"\x1b\[([0-9;]*m|\?25[lh])", part), part


def test_in_a_terminal_no_line_is_too_long_and_what_moved_leaves_nothing_behind(words, tmp_path):
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES", "NO_COLOR")}
    streams = dict(stdin=theirs, stdout=theirs, stderr=theirs)
    short = ["--runs", "r", "--no-recalibrate", "--no-export"]
    process = started(words, *short, cwd=tmp_path, env=environment | {"TERM": "xterm-256color"}, **streams)
    os.close(theirs)
    written = b""
    while True:
        try:
            written += os.read(ours, 65536)
        except OSError:  # the other end is closed
            break
    os.close(ours)
    assert process.wait() == 0
    screen = Terminal(80)
    screen.write(written.decode().replace("\r\n", "\n"))
    page = "\n".join(screen.lines)
    assert "Spent   " in written.decode() and "Spent   " not in page
    assert page.count("generation 0: KL") == 1
    assert "of the decoder is removed" in page and screen.lines[-1] == ""
