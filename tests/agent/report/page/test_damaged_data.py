"""What no program wrote in a run's files costs what it would have told, and no page and no tab."""

import json
import re
import shutil

import pytest

from self_pruner.agent.report.page.data import page_data
from self_pruner.agent.run_files.run_directory import RunDirectory


def data_of(path):
    return page_data(RunDirectory.open(path, strict=False))


def test_a_sequence_without_tokens_is_said(runs, tmp_path):
    path = shutil.copytree(runs / "finished", tmp_path / "run")
    file = path / "settings.toml"
    file.write_text(re.sub("(?m)^sequence_length = .*", "sequence_length = 0", file.read_text()))
    assert [gap for gap in data_of(path)["gaps"] if "sequence-length" in gap]


@pytest.mark.parametrize(
    "damage",
    [
        {"kind": "act", "call": 0, "tool": "evaluate", "result": {"fidelity": 128, "results": [None]}},
        {"kind": "act", "call": 0, "tool": "prune_model", "result": {"candidates": ["c1"]}},
        {"kind": "think", "replies": "none"},
        {"kind": "think", "replies": [None]},
    ],
)
def test_a_record_that_the_script_could_not_go_through_is_left_out(runs, tmp_path, damage):
    path = shutil.copytree(runs / "finished", tmp_path / "run")
    with open(path / "trace.jsonl", "a") as trace:
        trace.write(json.dumps({"step": 999, "generation": 9, **damage}) + "\n")
    data = data_of(path)
    assert data["gaps"] == ["1 line of the trace is damaged and was left out"]
    assert data["trace"] == data_of(runs / "finished")["trace"]
