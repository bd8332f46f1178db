"""The commands that are disturbed, on a tiny model, and what an undisturbed one leaves behind.

Every case of a scenario runs in one and the same folder, made anew, so that what it leaves can be compared byte by
byte.
"""

from __future__ import annotations

import hashlib
import json
import random
import re
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.campaign import forks
from tests.campaign.forks import Ended

SMALL = (
    "--sequence-length 64 --fidelity 128,256 --probe-tokens 64 --final-tokens 128 --reporting-tokens 128 "
    "--sensitivity-tokens 64 --calibration-length 64 --calibration-sequences 4 --evaluations 8 --offspring 3 "
    "--initial 2 --population 2 --final-candidates 2 --benchmarks 0 --sparsity 0.3 --samples 2 "
    "--thought-tokens 2 --remembered 0"
)
COMPARED = (
    "--arms uniform,random,hybrid --seeds 1 --sparsity 0.3 --tokens 2500 --offspring 3 --initial 2 --population 2 "
    "--brain first"
)
# Measured with a clock, or of the process: everything else of a result must be the same again.
TIMED = re.compile(r"second|minute|_ms$|speedup|peak_|^(time|at|created|date|made)$")
# A brain that is asked on after a stop reads its prompt again, and is charged for it.
READ_AGAIN = re.compile(r"^(cached|brain)_tokens$")
# Files whose content is of the process, or shows in other files' without its times.
DERIVED = ("checkpoint.sqlite", ".lock", "environment.json", "report.html", "compare.html", "table.md", "table.csv")
# Python's tempfile tries a folder out with such a file, and whoever is killed just then leaves it.
PROBE = re.compile(r"[a-z0-9_]{8}")
INODE = re.compile(r" \(file \d+\)")  # by which a run knows its memory
NAMED = re.compile(r"tiny-\d{8}-\d{6}(?:-[0-9a-f]{1,8}\b)*")


@dataclass(frozen=True)
class World:
    """What all cases share: a model, a text, rows of tasks, and the folder that each of them has in turn."""

    base: Path
    case: Path  # the folder of the case in hand
    brain: str = "self"

    @property
    def model(self) -> Path:
        """The tiny model."""
        return self.base / "tiny"

    def settings(self) -> list[object]:
        """The settings of a run on the tiny model, all its files in the case's folder."""
        text = self.base / "text.jsonl"
        texts = ["--calibration", text, "--fitness-text", text, "--reporting-text", text]
        return ["--model", self.model, *texts, "--cache", self.case / "cache", "--brain", self.brain, *SMALL.split()]

    def runs(self) -> list[Path]:
        """The run directories of the case."""
        return sorted(path for path in (self.case / "runs").glob("tiny-*") if (path / "settings.toml").is_file())


@dataclass(frozen=True)
class Scenario:
    """A command, what must be there before it, and how one goes on after it was ended."""

    name: str
    words: Callable[[World], list[object]]
    again: Callable[[World], list[object]]  # goes on with it
    before: str | None = None  # the scenario whose folder it starts from


def make_world(brain: str = "self") -> World:
    """A world in a folder of its own: in memory where that is possible, because forcing files to a disk takes time."""
    import torch

    from self_pruner.tools.models.quiet import quiet
    from tests.brain_tiny import tiny_tokenizer
    from tests.tiny import tiny_model
    from tests.tools.evaluation.tasks.seven import write_tasks

    torch.set_num_threads(1)
    shared = Path("/dev/shm")
    base = Path(tempfile.mkdtemp(prefix="campaign-", dir=shared if shared.is_dir() else None))
    with quiet():
        tiny_model("llama", tied=True, max_position_embeddings=8192).save_pretrained(base / "tiny")
    tiny_tokenizer().save_pretrained(base / "tiny")
    write_text(base / "text.jsonl")
    write_tasks(base / "tasks", 2)
    return World(base, base / "case", brain)


def write_text(path: Path, documents: int = 300) -> None:
    """Invented words in documents of sixty."""
    rng = random.Random(0)
    words = ["".join(rng.choice("abcdefghij") for _ in range(rng.randint(2, 8))) for _ in range(400)]
    lines = (json.dumps({"text": " ".join(rng.choice(words) for _ in range(60))}) for _ in range(documents))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _run(world: World) -> list[object]:
    return ["run", "--runs", world.case / "runs", *world.settings()]


def _resume(world: World) -> list[object]:
    return ["resume", world.runs()[0]] if world.runs() else _run(world)


def _evaluate(world: World) -> list[object]:
    text = world.base / "sentences.txt"
    if not text.exists():
        text.write_text("\n One sentence stands here , and another one after it .\n" * 12, encoding="utf-8")
    options = ["--task-data", world.base / "tasks", "--task-rows", 2, "--perplexity-text", text]
    return ["evaluate", world.runs()[0], *options, "--perplexity-length", 32, "--cache", world.case / "cache"]


def _tasks(world: World) -> list[object]:
    return ["tasks", world.runs()[0], "--task-data", world.base / "tasks", "--task-rows", 2]


def _export(world: World) -> list[object]:
    return ["export", world.runs()[0], "--candidate", "c1", "--output", world.case / "exported"]


def _compare(world: World) -> list[object]:
    return [
        "compare",
        "--runs",
        world.case / "runs",
        "--into",
        world.case / "compared",
        *world.settings(),
        *COMPARED.split(),
    ]


def _compare_again(world: World) -> list[object]:
    into = world.case / "compared"
    return ["resume", into] if (into / "plan.json").is_file() else _compare(world)


SCENARIOS = {
    scenario.name: scenario
    for scenario in (
        Scenario("run", _run, _resume),
        Scenario("evaluate", _evaluate, _evaluate, before="run"),
        Scenario("tasks", _tasks, _tasks, before="run"),
        Scenario("export", _export, _export, before="run"),
        Scenario("compare", _compare, _compare_again),
    )
}


def fresh(world: World, scenario: Scenario) -> None:
    """The case's folder as the scenario finds it."""
    if world.case.exists():
        shutil.rmtree(world.case)
    if scenario.before is None:
        world.case.mkdir()
    else:
        shutil.copytree(world.base / f"after-{scenario.before}", world.case, symlinks=True)


def begin(world: World, scenario: Scenario, prepare: Callable[[], None] = lambda: None) -> Ended:
    """Its command, in the case's folder."""
    return forks.call(scenario.words(world), world.case, prepare)


def left_behind(world: World) -> dict[str, object]:
    """Everything in the case's folder by name, in a form that is equal where nothing but time differs."""
    found: dict[str, object] = {}
    for path in sorted(world.case.rglob("*")):
        if path.parent == world.case / "tmp" and PROBE.fullmatch(path.name):
            path.unlink()
    for path in sorted(world.case.rglob("*")):
        if path.is_dir():
            if not any(path.iterdir()):
                found[_name(world, path) + "/"] = "empty"
            continue
        found[_name(world, path)] = _content(path)
    return found


def differences(before: dict[str, object], after: dict[str, object]) -> list[str]:
    """What is not the same, a line each."""
    lines = [f"missing: {name}" for name in sorted(before.keys() - after.keys())]
    lines += [f"stray: {name}" for name in sorted(after.keys() - before.keys())]
    for name in sorted(before.keys() & after.keys()):
        if before[name] != after[name]:
            lines.append(f"differs: {name}{_where(before[name], after[name])}")
    return lines


def _where(one: Any, other: Any) -> str:
    """The first place where two contents differ."""
    if isinstance(one, dict) and isinstance(other, dict):
        key = next((key for key in {**one, **other} if one.get(key) != other.get(key)), "")
        return f" [{key}]{_where(one.get(key), other.get(key))}"
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        pairs = zip(one, other, strict=False)
        index = next((index for index, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))
        rest = _where(one[index], other[index]) if index < min(len(one), len(other)) else ""
        return f" ({len(one)} and {len(other)}) [{index}]{rest}"
    return f": {str(one)[:120]!r} and {str(other)[:120]!r}"


def _name(world: World, path: Path) -> str:
    return NAMED.sub("RUN", str(path.relative_to(world.case)))


def _content(path: Path) -> object:
    """A file's content without times, process numbers and the order of what has none."""
    name = path.name
    if name in DERIVED:
        return "there"
    if name.endswith(".sqlite"):
        return _rows(path)
    if name == "trace.jsonl":
        return _trace(path)
    if name.endswith(".json"):
        return _untimed(json.loads(_text(path)))
    if name.endswith((".md", ".toml", ".py", ".j2", ".jinja")):
        return _text(path).splitlines()
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _text(path: Path) -> str:
    return INODE.sub("", NAMED.sub("RUN", path.read_text(encoding="utf-8")))


def _untimed(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _untimed(item) for key, item in value.items() if not _is_cost(key)}
    return [_untimed(item) for item in value] if isinstance(value, list) else value


def _is_cost(name: str) -> bool:
    return bool(TIMED.search(name) or READ_AGAIN.search(name))


def _rows(path: Path) -> dict[str, list[str]]:
    """All rows of a database, by table."""
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        found = {}
        for table in tables:
            if table != "latency":
                rows = connection.execute(f'SELECT * FROM "{table}"').fetchall()
                found[table] = sorted(NAMED.sub("RUN", json.dumps(row)) for row in rows)
        return found


def _trace(path: Path) -> list[object]:
    """What every step made and measured, without times."""
    from self_pruner.agent.run_files.trace import read_trace

    return [_untimed(json.loads(NAMED.sub("RUN", record.model_dump_json()))) for record in read_trace(path)]


def status_of(run: Path) -> Sequence[str]:
    """The status that a run says it has, and why."""
    said = json.loads((run / "status.json").read_text(encoding="utf-8"))
    return said["status"], said.get("reason", "")
