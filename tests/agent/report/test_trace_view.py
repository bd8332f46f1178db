"""The story of a search on the screen: what earlier runs had learnt comes first, and is not needed for the rest."""

import pytest

from main import main
from self_pruner.agent.report.trace_view import overview, stood_in
from self_pruner.agent.run_files.trace import Act, Step, Think
from tests.agent.report.page.made_up import made_up

KNOWN = "known from an earlier run: held: some of mlp 0-1 for mlp 4-5 -0.0200 ± 0.0100 (expected better), in Small"


def test_the_story_begins_with_what_earlier_runs_had_learnt(tmp_path, capsys):
    run = made_up(tmp_path, "one")
    assert main(["trace", str(run.path), "--plans"]) == 0
    assert " ".join(capsys.readouterr().out.split()).startswith(KNOWN)


def test_the_story_is_told_without_the_runs_own_file_too(tmp_path, capsys):
    run = made_up(tmp_path, "one")
    run.records.unlink()
    assert main(["trace", str(run.path), "--plans"]) == 0
    said = capsys.readouterr()
    assert "there is no memory file" in " ".join((said.out + said.err).split()) and KNOWN not in said.out


@pytest.mark.parametrize(
    ("tool", "words"),
    [
        (None, "the brain's plan failed, so it goes by rule"),
        ("prune_model", "candidates are drawn at random in the brain's place"),
        ("record_population", "the best survive, in the place of a choice of the brain's"),
    ],
)
def test_a_turn_that_the_tool_stood_in_for_says_what_it_did(tool, words):
    act = Act(step=1, call=0, tool=tool or "", arguments={}, error="there is no room")
    step = Step(1, Think(step=1, generation=1, prompt="", fallback=True), [act] if tool else [])
    assert stood_in(step) == words
    if tool:
        assert overview(step).endswith("there is no room")  # and not that it made nothing new
