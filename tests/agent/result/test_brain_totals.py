"""What the brain's turns came to, counted in the trace."""

from self_pruner.agent.result.brain_totals import brain_faults
from self_pruner.agent.run_files.trace import Act, Reply, Think

REPLY = Reply(raw="x", call={"name": "prune_model", "args": {}})


def think(step, **values):
    return Think(step=step, generation=1, prompt="p", **{"replies": (REPLY,), **values})


def act(step, *known, error=None):
    made = {"candidates": [{"id": f"c{number}", "known": one} for number, one in enumerate(known)]}
    result = None if error else made
    return Act(step=step, call=0, tool="prune_model", arguments={}, result=result, error=error)


def test_a_turn_that_failed_in_two_ways_is_one_failed_turn():
    assert brain_faults([think(1, error="too slow"), act(1, True), think(2), act(2, error="refused")]) == {
        "failed_turns": 2,
        "fallbacks": 0,
        "illegal": 0,
    }


def test_a_turn_of_the_brain_that_made_nothing_new_failed_and_one_of_the_operators_did_not():
    assert brain_faults([think(1), act(1, True), think(2), act(2, False)])["failed_turns"] == 1
    assert brain_faults([think(1, replies=()), act(1, True), think(2)])["failed_turns"] == 0


def test_what_was_illegal_or_stood_in_for_adds_up_over_turns():
    found = brain_faults([think(1, illegal=2), think(2, illegal=1), think(3, replies=(), fallback=True)])
    assert found == {"failed_turns": 0, "fallbacks": 1, "illegal": 3}


def test_a_turn_of_an_older_trace_that_counts_surplus_replies_is_read():
    assert Think.model_validate({**think(1).model_dump(), "surplus": 2}) == think(1)
