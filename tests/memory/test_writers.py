"""Processes that write to one memory at once, or are killed at it: nothing that was recorded is lost."""

import os
import subprocess
import sys
from pathlib import Path

from self_pruner.memory.profile import Profile
from self_pruner.memory.records import Candidate, Score
from self_pruner.memory.store import Memory

ROOT = Path(__file__).parents[2]
WRITER = """
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from self_pruner.memory.profile import Profile
from self_pruner.memory.records import Candidate, Score
from self_pruner.memory.store import Memory

path, run = Path(sys.argv[1]), sys.argv[2]
print("ready", flush=True)
sys.stdin.readline()
with Memory(path, "context", {"model": "tiny"}) as memory:
    for i in range(60):
        profile = Profile((1,), (i + 1,))
        memory.record(
            Candidate(run, f"c{i}", profile, (), "mutation", "random", 0, i, 0, 0, 1, ""),
            Score(profile, "t", 0, float(run), 1.0, run, i),
        )
        first = memory.recall(Score, profile=profile)
        print(i, first[0].run, first[0].kl, flush=True)
"""


def test_two_processes_at_once_lose_nothing_and_agree_on_who_was_first(tmp_path):
    path = tmp_path / "fresh" / "memory.sqlite"  # both also race to make the file
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path), run],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
        )
        for run in ("1", "2")
    ]
    for writer in writers:
        assert writer.stdout.readline() == "ready\n"
    for writer in writers:
        writer.stdin.write("go\n")
        writer.stdin.flush()
    outputs = [writer.communicate(timeout=120) for writer in writers]
    assert [writer.returncode for writer in writers] == [0, 0], outputs
    assert outputs[0][0] == outputs[1][0]  # what either saw as the first measurement
    with Memory(path, "context", {}) as memory:
        assert len(memory.recall(Candidate, run="1")) == len(memory.recall(Candidate, run="2")) == 60
        assert all(found.kl == float(found.run) for found in memory.recall(Score))
        assert len(memory.recall(Score)) == 60
    assert sorted(file.name for file in path.parent.iterdir()) == ["memory.sqlite"]


def test_what_was_recorded_survives_a_kill(tmp_path):
    path = tmp_path / "memory.sqlite"
    code = WRITER.replace("for i in range(60)", "for i in range(10**6)")
    writer = subprocess.Popen(
        [sys.executable, "-c", code, str(path), "1"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    writer.stdout.readline()
    writer.stdin.write("go\n")
    writer.stdin.flush()
    for _ in range(20):
        last = writer.stdout.readline()
    writer.kill()
    rest = writer.communicate(timeout=60)[0].splitlines()
    told = int((rest[-1] if rest and rest[-1].count(" ") == 2 else last).split()[0])
    with Memory(path, "context", {}) as memory:
        found = {score.profile for score in memory.recall(Score)}
    assert {Profile((1,), (i + 1,)) for i in range(told + 1)} <= found
