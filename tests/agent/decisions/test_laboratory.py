"""The command: what it makes, what it goes on with, what it refuses."""

import json
import math
import re
import signal
import sqlite3
from collections import Counter
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from statistics import fmean, stdev

import pytest

from self_pruner.agent.decisions import make as making
from self_pruner.agent.decisions.decision_set import FILE, read_set
from self_pruner.agent.decisions.kinds import DEFAULT
from self_pruner.agent.decisions.scores import SCORES, TABLE
from self_pruner.agent.run_files.run_lock import RunLock
from self_pruner.prompts.files import SETS
from tests.agent.decisions.conftest import AMOUNTS, refused
from tests.ended import ended
from tests.endpoint import obedient, serving
from tests.tiny import tiny_folder

ROOT = Path(__file__).parents[3]


def test_every_kind_has_its_situations_and_every_option_its_outcome(decision_set):
    assert decision_set.complete and decision_set.kinds == DEFAULT
    for kind in DEFAULT:
        found = decision_set.of(kind)
        assert len(found) == 8 and len({one.id for one in found}) == 8
        for one in found:
            assert 4 <= len(one.options) <= 16
            assert len(set(map(str, (option.call for option in one.options)))) == len(one.options)
            assert one.measured and len(set(one.outcomes)) > 1
            assert 0 <= one.tool < len(one.options)
            assert all(option.error is not None for option in one.options)
    assert all(len(one.options) == 16 for one in decision_set.of("edit"))


def test_an_outcome_is_the_paired_difference_to_the_parent_on_tokens_no_search_saw(decision_set, made):
    assert (decision_set.made.first, decision_set.made.tokens, decision_set.made.length) == (2, 128, 64)
    with closing(sqlite3.connect(made / making.MEMORY)) as memory:
        rows = memory.execute("SELECT profile, sequence, kl FROM score WHERE text = 'fitness'").fetchall()
    kl = {(profile, sequence): value for profile, sequence, value in rows}
    for situation in decision_set.situations:
        (parent,) = situation.reference
        for option in situation.options:
            differences = [
                fmean(kl[profile, sequence] for profile in option.profiles) - kl[parent, sequence]
                for sequence in (2, 3)
            ]
            assert option.outcome == pytest.approx(fmean(differences))
            assert option.error == pytest.approx(stdev(differences) / math.sqrt(2))


def test_every_place_of_an_edit_is_offered_as_often_as_any_other(decision_set):
    for situation in decision_set.of("edit"):
        edits = [option.call["arguments"]["edits"] for option in situation.options]
        for side, sign in ((0, -1), (1, +1)):
            often = Counter((pair[side]["layer"], pair[side]["part"]) for pair in edits)
            assert len(often) >= 4 and max(often.values()) - min(often.values()) <= 1
            assert all(sign * pair[side]["change"] > 0 for pair in edits)


def test_the_tools_choice_among_survivors_is_the_best_shown_of_every_bracket(decision_set):
    for situation in decision_set.of("survive"):
        own = situation.options[situation.tool].call["arguments"]["survivors"]
        assert own == [bracket[0] for bracket in situation.variables.ask.brackets]


def test_a_set_is_read_as_it_was_written_and_is_small(made, tmp_path):
    there = read_set(made / FILE)
    there.save(tmp_path / FILE)
    assert read_set(tmp_path / FILE) == there
    assert (tmp_path / FILE).stat().st_size < 1_000_000


def test_the_cost_is_said_before_anything_is_measured(command, tmp_path, capsys, monkeypatch):
    def stopped(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(making, "with_probes", stopped)
    assert command(tmp_path / "set") != 0
    assert re.search(
        r"To measure: at most [\d,]+ tokens of outcomes and about [\d,]+ of \d+ searches", capsys.readouterr().out
    )


def test_one_that_was_stopped_goes_on_with_the_situation_in_hand_and_ends_the_same(
    command, decision_set, tmp_path, monkeypatch, capsys
):
    measured = []

    def stopping(bench, situation, made):
        if len(measured) == 5:
            raise KeyboardInterrupt
        measured.append(situation.id)
        return with_outcomes(bench, situation, made)

    with_outcomes = making.with_outcomes
    folder = tmp_path / "set"
    monkeypatch.setattr(making, "with_outcomes", stopping)
    assert command(folder, "--brain", "first") == 130
    assert "The same command goes on" in capsys.readouterr().out
    half = read_set(folder / FILE)
    assert [one.id for one in half.situations if one.measured] == measured
    monkeypatch.setattr(making, "with_outcomes", lambda *given: measured.append(given[1].id) or with_outcomes(*given))
    assert command(folder, "--brain", "first") == 0
    assert len(measured) == len(set(measured)) == 24
    assert read_set(folder / FILE).situations == decision_set.situations


def test_a_search_that_was_stopped_goes_on_and_brings_the_same(command, decision_set, tmp_path, monkeypatch):
    def stopping(search, moment):
        if search.found.situations:
            raise KeyboardInterrupt
        take(search, moment)

    take = making._Search._take
    folder = tmp_path / "set"
    monkeypatch.setattr(making._Search, "_take", stopping)
    assert command(folder, "--brain", "first") == 130
    assert 0 < len(read_set(folder / FILE).situations) < 16
    monkeypatch.setattr(making._Search, "_take", take)
    assert command(folder, "--brain", "first") == 0
    assert read_set(folder / FILE).situations == decision_set.situations


def test_after_a_kill_no_situation_is_measured_again(command, decision_set, tiny_target, tmp_path, monkeypatch, warm):
    folder = tmp_path / "set"
    words = ["decisions", "--model", tiny_target, "--cache", tmp_path / "cache", "--into", folder, *AMOUNTS]
    status, errors = ended([*words, "--brain", "first"], folder, "decision_measured")
    assert status == -signal.SIGKILL, errors
    known = {one.id for one in read_set(folder / FILE).situations if one.measured}
    measured = []
    with_outcomes = making.with_outcomes
    monkeypatch.setattr(making, "with_outcomes", lambda *given: measured.append(given[1].id) or with_outcomes(*given))
    assert command(folder, "--brain", "first") == 0
    assert known and not known & set(measured)
    assert read_set(folder / FILE).situations == decision_set.situations


def test_a_set_grows(command, own, decision_set):
    assert command(own, "--situations", "9", "--brain", "first") == 0
    found = read_set(own / FILE)
    assert [len(found.of(kind)) for kind in DEFAULT] == [9, 9, 9] and found.complete
    assert set(map(str, decision_set.situations)) < set(map(str, found.situations))
    rows = json.loads((own / SCORES).read_text())["rows"]
    assert {(row["brain"], row["kind"], len(row["decided"])) for row in rows} == {
        (brain, kind, situations) for brain, situations in (("uniform", 8), ("first", 9)) for kind in DEFAULT
    }


def test_two_processes_do_not_work_on_one_set(command, own, capsys):
    lock = RunLock(own)
    assert "is in use by process" in refused(capsys, command(own, "--brain", "first"))
    lock.close()


def test_a_whole_set_is_not_made_again(command, own, monkeypatch):
    monkeypatch.delattr(making, "prepare")
    assert command(own, "--brain", "first") == 0


def test_a_brain_in_this_process_is_scored_exactly_and_rows_of_earlier_calls_stay(command, own, capsys):
    assert command(own, "--prompts", "default,paper", "--kinds", "survive") == 0
    said = capsys.readouterr().out
    assert re.search(r"survive: tiny with default \(exact\) (is not told from|chooses \w+ than) chance", said)
    assert re.search(r"survive: for tiny, default (and|is) .* paired", said)
    rows = json.loads((own / SCORES).read_text())["rows"]
    assert {(row["brain"], row["prompts"]) for row in rows} == {
        *(("tiny", "default"), ("tiny", "paper"), ("uniform", "-"), ("first", "-")),
    }
    table = (own / TABLE).read_text()
    assert "| survive | tiny | paper |" in table and "| edit | uniform | - |" in table


def test_a_template_of_ones_own_is_compared_with_the_usual_ones(command, own, tmp_path, capsys):
    mine = tmp_path / "mine"
    mine.mkdir()
    text = (SETS / "terse" / "ask_vary.j2").read_text(encoding="utf-8")
    (mine / "ask_vary.j2").write_text(text + "\nThink of the middle layers.\n", encoding="utf-8")
    assert command(own, "--prompts", f"terse,{mine}", "--kinds", "edit") == 0
    assert re.search(r"edit: for tiny, terse (and|is) .*mine.* over 8 situations, paired", capsys.readouterr().out)


def test_another_model_is_a_brain_too(command, own, tmp_path, capsys):
    other = tiny_folder(tmp_path / "other", family="qwen2", seed=3)
    assert command(own, "--brain", str(other), "--kinds", "survive") == 0
    assert "survive: other with terse (exact)" in capsys.readouterr().out


def test_brains_of_one_name_temperatures_and_edited_prompts_have_rows_of_their_own(command, own, tmp_path, capsys):
    brains = [str(tiny_folder(tmp_path / place / "model", seed=seed)) for seed, place in ((3, "A"), (4, "B"))]
    mine = tmp_path / "mine"
    mine.mkdir()
    text = (SETS / "terse" / "ask_survive.j2").read_text(encoding="utf-8")

    def rows_after(*words):
        assert command(own, "--kinds", "survive", "--prompts", str(mine), *words) == 0
        rows = json.loads((own / SCORES).read_text())["rows"]
        return [row for row in rows if row["brain"] == "model"]

    (mine / "ask_survive.j2").write_text(text, encoding="utf-8")
    rows = rows_after("--brain", ",".join(brains))
    assert len({row["fingerprint"] for row in rows}) == len(rows) == 2
    assert [(row["place"], row["temperature"]) for row in rows] == [("A", 0.8), ("B", 0.8)]
    assert "survive: A/model with mine (exact)" in " ".join(capsys.readouterr().out.split())
    assert len(rows_after("--brain", brains[0])) == 2  # scored anew
    assert len(rows_after("--brain", brains[0], "--temperature", "0.2")) == 3
    assert "| survive | A/model | mine at temperature 0.2 |" in (own / TABLE).read_text()
    (mine / "ask_survive.j2").write_text(text + "\nThink.\n", encoding="utf-8")
    rows = rows_after("--brain", brains[0])
    assert len(rows) == 4 and len({row["digest"] for row in rows}) == 2
    controls = [row for row in json.loads((own / SCORES).read_text())["rows"] if row["brain"] == "first"]
    assert {(row["temperature"], row["digest"], row["fingerprint"]) for row in controls} == {(None, None, None)}


def test_an_endpoint_is_sampled_and_that_is_said(command, own, capsys):
    with serving(obedient) as server:
        assert command(own, "--brain-url", server.url, "--kinds", "survive") == 0
        assert len(server.asked) > 8 * 4
    said = capsys.readouterr().out
    assert "has no log-probabilities of given replies: target is scored by 16 samples an order" in said
    assert "survive: target with terse (16 samples an order)" in said


def test_scores_of_situations_that_changed_are_not_shown_and_that_is_said(command, own, decision_set, capsys):
    one = decision_set.situations[0]
    option = replace(one.options[0], outcome=1.0)
    decision_set.replaced(replace(one, options=(option, *one.options[1:]))).save(own / FILE)
    assert command(own, "--brain", "first") == 0
    rows = {(row["brain"], row["kind"]) for row in json.loads((own / SCORES).read_text())["rows"]}
    assert rows == {(brain, kind) for brain in ("uniform", "first") for kind in DEFAULT} - {("uniform", one.kind)}
    said = " ".join(capsys.readouterr().out.split())
    assert "go, since their situations changed: " in said and f"{one.kind}: uniform (16 samples an order)" in said


def test_too_little_to_decide_is_said(command, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(making, "SEARCHES", 1)
    assert "1 searches brought" in refused(capsys, command(tmp_path / "set", "--situations", "40"))


def test_whole_vectors_are_scored_by_their_sequences(command, tmp_path, capsys):
    folder = tmp_path / "set"
    words = ("--kinds", "vectors,initialise", "--situations", "2", "--prompts", "paper", "--brain", "self,first")
    assert command(folder, *words) == 0
    found = read_set(folder / FILE)
    for kind in ("vectors", "initialise"):
        assert len(found.of(kind)) == 2
        for one in found.of(kind):
            assert len(one.options) == 16 and len(set(one.outcomes)) > 1
            assert {*one.options[0].call["arguments"]} >= {"operator", "attention", "mlp"}
    rows = [row for row in json.loads((folder / SCORES).read_text())["rows"] if row["brain"] == "tiny"]
    assert {row["kind"] for row in rows} == {"vectors", "initialise"}
    for row in rows:
        assert all(0 < one["entropy"] < one["most_entropy"] for one in row["decided"])
        assert all(one["first_quarter"] is None for one in row["decided"])  # the prompt is the same in every order
    assert "vectors: tiny with paper (exact)" in capsys.readouterr().out
