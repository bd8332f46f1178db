"""Paths that nobody can use: one sentence for each, whatever the command."""

import errno
import json

import pytest

from main import main
from self_pruner.agent.run_files.run_directory import RunDirectory

LONG = "x" * 300
COMMANDS = {
    "resume": ["resume", LONG],
    "trace": ["trace", LONG],
    "watch": ["watch", LONG],
    "prompts": ["prompts", "check", LONG],
    "a memory": ["--memory", LONG, "--dry-run"],
    "runs": ["--runs", LONG, "--dry-run"],
    "a text": ["--calibration", LONG, "--dry-run"],
    "a text file": ["--calibration", f"{LONG}.txt", "--dry-run"],
    "a model": ["--model", LONG, "--dry-run"],
}
UNKNOWN = {
    "a model": ["--model", "~nosuchuser/x", "--dry-run"],
    "a brain": ["--brain", "~nosuchuser/x", "--dry-run"],
    "a text": ["--calibration", "~nosuchuser/x.txt", "--dry-run"],
    "a program": ["--vllm-python", "~nosuchuser/bin/python", "--dry-run"],
}


@pytest.fixture
def refused(capfd, tmp_path, monkeypatch):
    """The sentence that a command is refused with."""
    monkeypatch.chdir(tmp_path)

    def refused(words):
        assert main(words) == 2
        output = capfd.readouterr()
        assert output.err.startswith("error: ") and output.err.count("\n") == 1
        assert not list(tmp_path.iterdir())
        return output.err

    return refused


@pytest.mark.parametrize("case", COMMANDS)
def test_a_name_that_is_too_long_is_refused_in_a_sentence(refused, case):
    said = refused(COMMANDS[case])
    assert LONG in said and "too long" in said


@pytest.mark.parametrize("case", UNKNOWN)
def test_the_home_folder_of_nobody_is_refused_in_a_sentence(refused, case):
    assert "begins with ~nosuchuser, whose home folder is not known" in refused(UNKNOWN[case])


@pytest.mark.parametrize("json_too", [False, True])
def test_a_folder_that_may_not_be_read_is_refused_in_a_sentence(capfd, monkeypatch, json_too):
    def forbidden(path, **options):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(RunDirectory, "open", forbidden)
    assert main(["resume", "theirs", *(["--json"] if json_too else [])]) == 2
    output = capfd.readouterr()
    assert output.err == "error: 'theirs' cannot be used: Permission denied\n"
    if json_too:
        assert json.loads(output.out.splitlines()[-1])["text"] == "'theirs' cannot be used: Permission denied"
