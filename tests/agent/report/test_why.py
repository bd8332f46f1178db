"""`why`: the decisions behind a profile, read from the run's own file."""

import json
import re
import shutil
import sqlite3
from contextlib import closing

import pytest

from main import main
from self_pruner.agent.report.why import Origin, read_origin, scores_of
from self_pruner.agent.run_files.run_directory import RunDirectory
from self_pruner.memory.profile import PARTS
from tests.agent.report.page.made_up import made_up


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of six generations, to be looked at only."""
    return made_up(tmp_path_factory.mktemp("why") / "runs", "told", generations=6)


def told(capsys, *words):
    status = main(["why", *map(str, words)])
    found = capsys.readouterr()
    return status, found.out.split("\n"), found.err


def test_the_line_leads_from_the_result_to_what_the_run_began_with(run, capsys):
    status, lines, _ = told(capsys, run.path)
    assert status == 0
    origin = read_origin(RunDirectory.open(run.path, strict=False))
    names = [re.match(r"(c\d+) \(", line)[1] for line in lines if re.match(r"c\d+ \(", line)]
    assert names[0] == origin.result and len(names) > 1
    assert origin.rows[names[-1]]["proposed_by"] == "seed" and not origin.rows[names[-1]]["parents"]
    for child, parent in zip(names, names[1:], strict=False):
        assert parent in origin.rows[child]["parents"]
    assert "a closed form" in " ".join(lines) and "where it began" in " ".join(lines)


@pytest.mark.parametrize("layer", range(6))
def test_the_changes_of_a_layer_add_up_to_its_widths(run, capsys, layer):
    status, lines, _ = told(capsys, run.path, "--layer", layer)
    assert status == 0
    origin = read_origin(RunDirectory.open(run.path, strict=False))
    text = "\n".join(lines)
    for part in PARTS:
        width = origin.profile(origin.result).widths(part)[layer]
        block = text[text.index(f"layer {layer} {part}: {width} units") :].split("\nlayer ")[0]
        steps = [tuple(map(int, pair)) for pair in re.findall(r"^  (\d+) to (\d+) by", block, re.MULTILINE)]
        (began,) = re.findall(r"^  (\d+) in c", block, re.MULTILINE)
        for (before, _), (_, after) in zip(steps, steps[1:], strict=False):  # the latest first
            assert before == after
        assert (steps[0][1] if steps else int(began)) == width
        assert (steps[-1][0] if steps else width) == int(began)


def test_what_made_a_candidate_is_said_once():
    def said(proposed_by, detail):
        row = {"proposed_by": proposed_by, "detail": detail, "generation": 2}
        return Origin({"c6": row}, {}, "c6").proposer("c6")

    assert said("seed", "closed form: 19 attention units in all") == "c6 (a closed form: 19 attention units in all)"
    assert said("seed", "ends: attention whole") == "c6 (a closed form: ends: attention whole)"
    drawn = "drawn at random, for the operators found nothing new"
    assert said("fallback", drawn) == f"c6 (the tool: {drawn})"
    assert said("fallback", "drawn at random") == "c6 (the tool: drawn at random)"  # in runs of before, for whomever
    assert said("memory", "") == "c6 (the best of an earlier run)"
    assert said("model", "closed form: a step") == "c6 (model, generation 2: closed form: a step)"


def test_fitness_is_of_the_sequences_that_rank_and_not_of_the_holdout():
    rows = {"score": [dict(text="fitness", profile="a", sequence=index, kl=float(index)) for index in range(4)]}
    rows["score"] += [dict(text="fitness", profile="b", sequence=0, kl=None), dict(rows["score"][0], text="other")]
    assert scores_of(rows, 3) == {"a": {0: 0.0, 1: 1.0, 2: 2.0}}


@pytest.mark.parametrize("column", ["parents = '3'", "parents = 'null'", "profile = '1;1'", "profile = '1|1'"])
@pytest.mark.parametrize("layer", [[], ["--layer", "5"]])
def test_a_row_that_no_program_wrote_is_a_sentence(run, capsys, tmp_path, column, layer):
    copy = RunDirectory.open(shutil.copytree(run.path, tmp_path / "copy"))
    with closing(sqlite3.connect(copy.records)) as connection, connection:
        first = read_origin(run).rows[read_origin(run).result]["parents"][0]
        connection.execute(f"UPDATE candidate SET {column} WHERE id = ?", [first])
    status, _, error = told(capsys, copy.path, *layer)
    assert status == 2 and error.count("\n") == 1 and ("damaged" in error or "corrupt" in error)


def test_a_candidate_that_descends_from_itself_is_said_once(run, capsys, tmp_path):
    copy = RunDirectory.open(shutil.copytree(run.path, tmp_path / "copy"))
    origin = read_origin(run)
    with closing(sqlite3.connect(copy.records)) as connection, connection:
        names = json.dumps([origin.result])
        connection.execute("UPDATE candidate SET parents = ?", [names])
    status, lines, _ = told(capsys, copy.path)
    assert status == 0 and len(lines) == 2 and lines[0].endswith(": where it began")


def test_what_is_wrong_is_said_in_a_sentence(run, capsys, tmp_path):
    assert told(capsys, run.path, "--layer", 6)[0::2] == (2, "error: --layer: layers are 0 to 5, got 6\n")
    with RunDirectory.create(tmp_path, "begun", {"model": "tiny"}, device="cpu", seed=0) as begun:
        pass
    status, _, error = told(capsys, begun.path)
    assert status == 2 and "has not begun yet; go on with: python main.py resume" in error
    status, _, error = told(capsys, tmp_path / "nowhere")
    assert status == 2 and error.count("\n") == 1
