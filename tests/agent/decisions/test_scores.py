"""The file of scores: which rows of earlier calls stay."""

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from self_pruner.agent.decisions.decision_set import FILE, read_set
from self_pruner.agent.decisions.kinds import DEFAULT
from self_pruner.agent.decisions.score import Row, always
from self_pruner.agent.decisions.scores import SCORES, known_rows, stamp_of, write_rows

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


def test_a_file_that_cannot_be_read_has_no_rows(tmp_path, decision_set):
    for text in ("", "[]", "{}", '{"rows": 3}', '{"rows": [{}]}'):
        (tmp_path / SCORES).write_text(text)
        assert known_rows(tmp_path, decision_set) == ([], [])


def test_a_committed_table_stays_when_its_set_grows(tmp_path):
    for folder in COMMITTED.glob("*/"):
        found = read_set(folder / FILE)
        extra = replace(found.situations[0], id=f"{found.situations[0].kind}-99")
        grown = replace(found, situations=(*found.situations, extra))
        stay, go = known_rows(shutil.copytree(folder, tmp_path / folder.name), grown)
        assert stay and not go
