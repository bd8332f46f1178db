"""Folding a turn's answers into the state."""

import json
from dataclasses import replace

from langchain_core.messages import AIMessage, ToolMessage

from self_pruner.agent.search.history import best_of, generations_since_best
from self_pruner.agent.search.state import first_state, fold, latest_turn
from self_pruner.memory.records import Generation


def turn(state, *calls):
    """`state` with a turn of (tool, arguments, answer) calls; an answer that is text is an error."""
    spoken = [
        {"name": name, "args": args, "id": f"s1.{i}", "type": "tool_call"} for i, (name, args, _) in enumerate(calls)
    ]
    answered = [
        ToolMessage(
            content=answer if isinstance(answer, str) else json.dumps(answer),
            tool_call_id=f"s1.{index}",
            status="error" if isinstance(answer, str) else "success",
        )
        for index, (_, _, answer) in enumerate(calls)
    ]
    return replace(state, messages=[AIMessage(content="", tool_calls=spoken), *answered])


def made(name, known=False):
    return {"candidates": [{"id": name, "known": known}]}


def test_only_the_current_turn_is_kept():
    first, answer = AIMessage(content="a"), ToolMessage(content="b", tool_call_id="1")
    assert latest_turn([first], [answer]) == [first, answer]
    assert latest_turn([first, answer], [AIMessage(content="c")])[0].content == "c"
    assert latest_turn([first, answer], []) == []


def test_new_candidates_become_offspring_and_known_ones_only_count_as_attempts():
    state = turn(
        first_state(["c1", "c2"], 0), ("prune_model", {}, made("c3")), ("prune_model", {}, made("c1", known=True))
    )
    update = fold(state, 32)
    assert update["offspring"] == ["c1", "c2", "c3"]
    assert (update["attempts"], update["next_id"], update["failures"]) == (2, 5, 0)


def test_a_turn_that_makes_nothing_new_is_a_failed_turn_of_the_brain():
    state = turn(first_state(["c1"], 0), ("prune_model", {}, made("c1", known=True)))
    assert fold(state, 32)["failures"] == 1
    assert fold(replace(state, proposed_by="fallback"), 32)["failures"] == 0


def test_failed_turns_in_a_row_add_up_and_each_counts_once():
    repeats = turn(replace(first_state(["c1"], 0), failures=1), ("prune_model", {}, made("c1", known=True)))
    assert fold(repeats, 32)["failures"] == 2
    assert fold(replace(repeats, failures=2, faulty=True), 32)["failures"] == 2
    slow_but_new = turn(replace(repeats, failures=2, faulty=True), ("prune_model", {}, made("c2")))
    assert fold(slow_but_new, 32)["failures"] == 2
    after_stand_in = turn(replace(repeats, failures=2, proposed_by="fallback"), ("prune_model", {}, made("c2")))
    assert fold(after_stand_in, 32)["failures"] == 2
    works = turn(replace(repeats, failures=2), ("prune_model", {}, made("c2")))
    assert fold(works, 32)["failures"] == 0


def test_a_stand_in_fills_up_the_generation_even_if_it_finds_nothing():
    state = turn(first_state(["c1"], 0))
    assert fold(replace(state, proposed_by="fallback"), 32)["filled"] is True
    assert "filled" not in fold(state, 32)


def test_evaluations_count_once_and_tokens_always():
    answer = {"fidelity": 32, "results": [{"id": "c1"}, {"id": "c2"}], "charged_tokens": 64}
    state = turn(first_state(["c1", "c2"], 100), ("evaluate", {}, answer))
    assert fold(state, 32) == {"messages": [], "proposals": [], "tokens": 164, "evaluations": 2}
    assert "evaluations" not in fold(state, 16)


def test_sensitivities_cost_tokens_and_no_evaluation_and_make_their_candidate_the_centre():
    answer = {"fidelity": 32, "results": [{"id": "c2"}], "charged_tokens": 192}
    asked = {"candidates": ["c2"], "fidelity": 32, "sensitivities": True}
    state = replace(first_state(["c1", "c2"], 100), generation=3)
    update = fold(turn(state, ("evaluate", asked, answer)), 32)
    assert update == {"messages": [], "proposals": [], "tokens": 292, "centre": "c2", "centred_at": 3}


def test_a_recorded_population_begins_a_new_generation():
    answer = {"generation": 0, "survivors": ["c2", "c1"], "best": "c2", "note": ""}
    state = replace(first_state(["c1", "c2"], 0), attempts=7, filled=True)
    update = fold(turn(state, ("record_population", {}, answer)), 32)
    assert (update["generation"], update["population"]) == (1, ["c2", "c1"])
    assert (update["offspring"], update["attempts"], update["filled"]) == ([], 0, False)


def test_the_best_and_how_long_it_stands_follow_from_the_closed_generations():
    def closed(*best):
        return [Generation("run", number, (name,), name, "", number) for number, name in enumerate(best)]

    assert best_of([]) == ""
    for names, since in ((["c1"], 0), (["c1", "c2"], 0), (["c1", "c2", "c2", "c2"], 2)):
        assert (best_of(closed(*names)), generations_since_best(closed(*names))) == (names[-1], since)


def test_a_refused_call_is_a_failed_turn():
    update = fold(turn(first_state(["c1"], 0), ("prune_model", {}, "mutation needs one parent, got 0")), 32)
    assert update["failures"] == 1
