"""The story of a search on the screen: what earlier runs had learnt comes first, and is not needed for the rest."""

from main import main
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
