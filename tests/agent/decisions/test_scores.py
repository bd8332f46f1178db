"""The file of scores: which rows of earlier calls stay."""

import hashlib
import json
import shutil
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import pytest

from self_pruner.agent.decisions.decision_set import FILE, DecisionSetError, read_set
from self_pruner.agent.decisions.kinds import DEFAULT
from self_pruner.agent.decisions.score import Row, always
from self_pruner.agent.decisions.scores import SCORES, known_rows, stamp_of, write_rows
from self_pruner.agent.decisions.table import gains, labelled, manners, page, sentences
from tests.agent.decisions.conftest import refused

COMMITTED = Path(__file__).parents[3] / "benchmarks" / "results" / "decisions"


def row_of(found, kind, **more):
    decided = tuple(always(one, 0) for one in found.of(kind))
    given = {"brain": "tiny", "prompts": "terse", "how": "exact", "kind": kind, "decided": decided}
    return Row(**{**given, "stamp": stamp_of(found, decided), **more})


def with_other_outcome(found, kind):
    """The set with another outcome in its first situation of that kind."""
    one = found.of(kind)[0]
    option = replace(one.options[0], outcome=1.0)
    return found.replaced(replace(one, options=(option, *one.options[1:])))


def without_last(found):
    """The set of before its last situation came."""
    return replace(found, situations=found.situations[:-1])


@pytest.fixture(params=["older", "newer"])
def saved(request, tmp_path, decision_set):
    """A folder with the scores that a version wrote before the last situation came to the set, and these rows."""
    found = without_last(decision_set)
    rows = [row_of(found, kind) for kind in DEFAULT]
    write_rows(tmp_path, found, rows)
    if request.param == "older":
        content = json.loads((tmp_path / SCORES).read_text())
        for row in content["rows"]:
            del row["stamp"]
        outcomes = [[one.id, one.outcomes] for one in found.situations]
        content["set"] = hashlib.sha256(json.dumps(outcomes).encode()).hexdigest()[:16]
        (tmp_path / SCORES).write_text(json.dumps(content))
    return tmp_path, rows


def test_rows_stay_on_the_same_set_and_on_one_that_grew(saved, decision_set):
    folder, rows = saved
    assert known_rows(folder, without_last(decision_set)) == (rows, [])
    assert known_rows(folder, decision_set) == (rows, [])


def test_rows_go_whose_situations_changed_and_no_others(saved, decision_set):
    folder, rows = saved
    kind = decision_set.situations[0].kind
    stay, go = known_rows(folder, with_other_outcome(decision_set, kind))
    if json.loads((folder / SCORES).read_text()).get("set"):  # one stamp over all does not tell which
        assert not stay and len(go) == len(rows)
    else:
        assert stay == [row for row in rows if row.kind != kind]
        assert [row.kind for row in go] == [kind]


def test_rows_go_whose_situations_are_no_longer_there(saved, decision_set):
    folder, rows = saved
    fewer = replace(decision_set, situations=tuple(decision_set.of("edit")))
    stay, go = known_rows(folder, fewer)
    assert {row.kind for row in go} >= {*DEFAULT} - {"edit"} and len(stay) + len(go) == len(rows)


def test_a_file_that_cannot_be_read_is_refused_and_not_taken_for_none(tmp_path, decision_set):
    assert known_rows(tmp_path, decision_set) == ([], [])
    for text in ("", "[]", "{}", '{"rows": 3}', '{"rows": [{}]}'):
        (tmp_path / SCORES).write_text(text)
        with pytest.raises(DecisionSetError, match="scores.json cannot be read as scores: move it away"):
            known_rows(tmp_path, decision_set)


def test_scores_that_cannot_be_read_are_not_written_over(command, own, capsys):
    (own / SCORES).write_text('{"rows": [')
    (own / FILE).unlink()  # else the set is there, and nothing is measured anyway
    assert "cannot be read as scores" in refused(capsys, command(own, "--brain", "first"))
    assert (own / SCORES).read_text() == '{"rows": [' and not (own / FILE).exists()


def test_a_row_of_before_has_no_position_where_the_order_of_the_options_changed_nothing(tmp_path, decision_set):
    rows = [row_of(decision_set, kind) for kind in DEFAULT[:2]]
    noise, told = [
        replace(row, decided=tuple(replace(one, first_quarter=value) for one in row.decided))
        for row, value in zip(rows, (6e-17, 0.01), strict=True)
    ]
    write_rows(tmp_path, decision_set, [noise, told])
    assert known_rows(tmp_path, decision_set) == ([rows[0], told], [])


def test_a_committed_table_stays_when_its_set_grows(tmp_path):
    for folder in COMMITTED.glob("*/"):
        found = read_set(folder / FILE)
        extra = replace(found.situations[0], id=f"{found.situations[0].kind}-99")
        grown = replace(found, situations=(*found.situations, extra))
        stay, go = known_rows(shutil.copytree(folder, tmp_path / folder.name), grown)
        assert stay and not go


def shown(found, *rows):
    """What the tables and the sentences call rows of one kind, and which of them are paired."""
    called = [(row.brain, row.prompts) for row in labelled(found, rows)]
    return called, [one for one in sentences(found, rows) if "paired" in one]


def test_rows_at_different_temperatures_are_told_apart_and_not_paired(decision_set):
    cold, warm = (row_of(decision_set, "edit", temperature=value) for value in (0.2, 0.8))
    assert not cold.is_again(warm)
    called, paired = shown(decision_set, cold, warm, replace(warm, prompts="default"))
    assert called[:2] == [("tiny", "terse at temperature 0.2"), ("tiny", "terse at temperature 0.8")]
    (sentence,) = paired
    assert "edit: for tiny, terse at temperature 0.8 and default at temperature 0.8 are not told apart" in sentence
    assert shown(decision_set, warm, replace(warm, prompts="default"))[0] == [("tiny", "terse"), ("tiny", "default")]


def test_a_prompt_set_that_was_edited_is_another_one(decision_set):
    one, other = (row_of(decision_set, "edit", temperature=0.8, prompts="mine", digest=hex) for hex in ("1a", "2b"))
    assert not one.is_again(other)
    called, paired = shown(decision_set, one, other)
    assert called == [("tiny", "mine (1a)"), ("tiny", "mine (2b)")]
    assert len(paired) == 1 and "for tiny, mine (1a) and mine (2b) are not told apart" in paired[0]


def test_brains_of_one_name_are_told_apart_and_not_paired(decision_set):
    one, other, third = (
        row_of(decision_set, "edit", fingerprint=hex * 16, place=place)
        for hex, place in (("a1", "A"), ("b2", "B"), ("c3", "B"))
    )
    assert not any(first.is_again(second) for first, second in combinations((one, other, third), 2))
    called, paired = shown(decision_set, one, replace(other, prompts="default"))
    assert called == [("A/tiny", "terse"), ("B/tiny", "default")] and not paired
    called, _ = shown(decision_set, one, other, third)
    assert [brain for brain, _ in called] == ["A/tiny", "tiny (b2b2b2b2)", "tiny (c3c3c3c3)"]


def test_what_an_older_row_does_not_know_keeps_it_from_no_pair(decision_set):
    older = row_of(decision_set, "edit", prompts="default")
    newer = row_of(decision_set, "edit", temperature=0.8, digest="1a", fingerprint="a1" * 16, place="A")
    called, paired = shown(decision_set, older, newer, replace(newer, prompts="default"))
    assert called[:2] == [("tiny", "default"), ("tiny", "terse")]  # no two temperatures are known
    assert len(paired) == 2  # not default with default, which may be the same
    assert replace(newer, prompts="default").is_again(older)  # and takes its place when it is scored anew
    assert not newer.is_again(older) and newer.is_again(newer)


def test_a_row_over_fewer_situations_says_so(decision_set):
    row = row_of(without_last(decision_set), decision_set.situations[-1].kind)
    (called,) = labelled(decision_set, [row])
    assert called.how == "exact, 7 of 8 situations"
    assert gains([called]).rows[0][1] == manners([called]).rows[0][1] == "tiny (exact, 7 of 8 situations)"
    assert "| tiny (exact, 7 of 8 situations) |" in page(decision_set, [row], [row.kind])
    (whole,) = labelled(decision_set, [row_of(decision_set, row.kind)])
    assert gains([whole]).rows[0][1] == "tiny"


def test_a_brain_that_was_asked_in_two_ways_is_told_apart_in_tables_and_between_prompts(decision_set):
    exact = [row_of(decision_set, "edit", prompts=name) for name in ("terse", "default")]
    rows = [*exact, *(replace(row, how="16 samples") for row in exact)]
    called = labelled(decision_set, rows)
    names = ["tiny (exact)", "tiny (exact)", "tiny (16 samples)", "tiny (16 samples)"]
    assert [cells[1] for cells in gains(called).rows] == [cells[1] for cells in manners(called).rows] == names
    first, second = shown(decision_set, *rows)[1]
    assert "for tiny (exact), terse and default" in first and "for tiny (16 samples), terse and default" in second
