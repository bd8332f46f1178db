"""What the card and the report say of the same again is true."""

import subprocess

import pytest

from self_pruner.agent.result.same_again import same_again
from self_pruner.agent.run_files.run_directory import RunDirectory
from self_pruner.agent.settings.settings import Settings
from tests.agent.session.test_resume import SETTINGS, candidates, command
from tests.ended import ENVIRONMENT
from tests.stopped import do

CPU = {"device": "cpu"}


def test_it_takes_a_memory_versions_and_a_device():
    said = same_again(Settings(benchmarks=0), CPU)
    assert "these versions" in said and "device (cpu)" in said and "--memory" in said
    assert "latencies" not in said and "server" not in said and "minutes" not in said


@pytest.mark.parametrize(
    ("values", "word"),
    [
        ({"benchmarks": 1}, "--benchmarks 0"),
        ({"minutes": 2.0}, "limit in minutes"),
        ({"brain": "vllm", "benchmarks": 0}, "up to the server"),
    ],
)
def test_what_no_two_runs_have_alike_is_named(values, word):
    assert word in same_again(Settings(**values), CPU)


def test_a_run_without_a_brain_names_no_brain():
    said = same_again(Settings(arm="evolution", benchmarks=1), CPU)
    assert "brain" not in said


@pytest.mark.slow
def test_the_same_command_twice_makes_the_same_candidates_and_the_same_bytes(model, cache, tmp_path):
    words = ["--model", model, "--cache", cache, *SETTINGS.split(), "--evaluations", 8]
    do(*words, "--runs", tmp_path / "a")  # each with a memory of its own, and one in a process of its own
    subprocess.run(command(*words, "--runs", tmp_path / "b"), capture_output=True, check=True, env=ENVIRONMENT)
    runs = [RunDirectory.latest(tmp_path / name) for name in ("a", "b")]
    assert candidates(runs[0]) == candidates(runs[1])
    folders = [{file.name: file.read_bytes() for file in (run / "model").iterdir()} for run in runs]
    assert folders[0].keys() == folders[1].keys() > {"model.safetensors", "config.json", "README.md"}
    assert [name for name in folders[0] if folders[0][name] != folders[1][name]] == []
    for page in (runs[0] / "model" / "README.md", runs[0] / "report.html"):
        assert "makes the same candidates and the same bytes again" in " ".join(page.read_text().split())
