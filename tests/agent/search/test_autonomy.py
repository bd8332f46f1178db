"""`--autonomy free`: the whole tool protocol by a scripted brain, and brains that make nothing of it."""

import json
import re

import pytest
from pydantic import PrivateAttr, ValidationError

from self_pruner.agent.brain.scripted import UniformBrain
from self_pruner.agent.run_files.trace import Act, Think
from self_pruner.agent.search.history import SearchHistory, closed_generations
from self_pruner.agent.search.planning.recall_candidates import MOST
from self_pruner.agent.settings.limits import cost
from self_pruner.memory.records import Candidate
from self_pruner.tools.evaluate import measure
from tests.agent.search.test_search import Search
from tests.bench import LENGTH, tiny_settings
from tests.scripted_brains import FailingBrain, ScriptBrain

FIRST, LAST = 2 * LENGTH, 4 * LENGTH


def free(path, brain, **values):
    return Search(path, brain, **({"autonomy": "free", "offspring": 4, "evaluations": 40} | values))


def called(name, **arguments):
    return {"name": name, "args": arguments}


def mutated(parent, **what):
    return called("prune_model", operator="mutation", parents=[parent], **what)


def acts(run, tool=None):
    found = [record for record in run.records if isinstance(record, Act)]
    return [record for record in found if tool is None or record.tool == tool]


@pytest.fixture(scope="module")
def parents(tmp_path_factory):
    """The survivors that any free search of these settings begins with, best first, and the next id."""
    run = free(tmp_path_factory.mktemp("parents"), ScriptBrain(replies=[]))
    run.go()
    first = closed_generations(run.bench)[0]
    made = [row for row in run.bench.memory.recall(Candidate, run="run") if row.generation == 0]
    return first.survivors, len(made) + 1


def test_a_brain_carries_out_a_generation_by_itself(tmp_path, parents):
    (best, *_), number = parents
    new = [f"c{number + index}" for index in range(3)]
    run = free(
        tmp_path,
        ScriptBrain(
            replies=[
                called("recall_candidates", count=3, earlier=False),
                mutated(best, shift={"take": "mlp 2", "give": "mlp 0", "amount": "some"}),
                mutated(
                    best, edits=[{"layer": 1, "part": "mlp", "change": -2}, {"layer": 0, "part": "mlp", "change": 2}]
                ),
                called("prune_model", operator="initialise", attention=[4, 3, 2], mlp=[9, 9, 9]),
                called("evaluate", candidates=new, fidelity=FIRST),
                called("evaluate", candidates=new, fidelity=LAST),
                called("benchmark_latency", candidate=best),
                called("record_population", survivors=[best, *new], note="mine"),
            ]
        ),
    )
    state = run.go()
    own = [record for record in acts(run) if record.step > 0]
    begun = next(index for index, record in enumerate(own) if record.tool == "recall_candidates")
    protocol = own[begun : begun + 8]
    names = [record.tool for record in protocol]
    assert names[:4] == ["recall_candidates"] + ["prune_model"] * 3
    assert [record.error for record in protocol[:7]] == [None] * 7
    looked = protocol[0].result["found"]
    assert looked[0]["id"] == best and len(looked) == 3
    assert sorted(row["fitness"] for row in looked) == [row["fitness"] for row in looked]
    rows = {row.id: row for row in run.candidates()}
    assert all(rows[name].proposed_by == "brain" for name in new)
    assert protocol[4].tokens == 3 * FIRST and protocol[5].tokens == 3 * (LAST - FIRST)
    # the best of all must survive, which this brain could not know: then it is told so, and the tool goes on
    last = protocol[7]
    assert last.error is None or "must survive" in last.error
    assert state.evaluations >= 3
    run.assert_valid()


def test_errors_are_sentences_that_the_brain_reads_next(tmp_path, parents):
    (best, *_), _ = parents
    run = free(
        tmp_path,
        ScriptBrain(
            replies=[
                mutated("c999", edits=[{"layer": 1, "part": "mlp", "change": -2}]),
                called("evaluate", candidates=[best], fidelity=FIRST),  # there is nothing left to measure
                mutated(best, shift={"take": "mlp 7-9", "give": "mlp 0", "amount": "some"}),
            ]
        ),
        brain_failures=5,
    )
    run.go()
    told = [record.error for record in acts(run) if record.error]
    assert told[0] == "'mlp 7-9' is no stretch: write attention or mlp and layers from 0 to 2, as mlp 2-5"
    prompts = [
        record.prompt for record in run.records if isinstance(record, Think) and "Task: call one of" in record.prompt
    ]
    assert f"- call.parents[0] is 'c999', not one of '{best}', " in prompts[1]
    assert "- 'evaluate' is not legal now, only prune_model or" in prompts[2]
    assert "'mlp 7-9' is no stretch" in prompts[3] and "'c999'" in prompts[3]


class RecordingBrain(UniformBrain):
    """Keeps what it was offered."""

    _offered: list = PrivateAttr(default_factory=list)

    def answer(self, calls, seed, index):
        self._offered.append({call.name: call.parameters for call in calls})
        return super().answer(calls, seed, index)


def ids_in(schema):
    """All candidates that a schema names."""
    return set(re.findall(r'"(c\d+)"', json.dumps(schema)))


def test_a_call_can_name_no_candidate_that_does_not_exist(tmp_path):
    brain = RecordingBrain(seed=3)
    run = free(tmp_path, brain, evaluations=60)
    run.go()
    turns = [offer for offer in brain._offered if "recall_candidates" in offer]
    assert {name for offer in turns for name in offer} >= {"prune_model", "evaluate", "record_population"}
    there = {row.id for row in run.candidates()}
    assert all(ids_in(offer) <= there for offer in turns)
    texts = [json.dumps(offer) for offer in turns]
    assert not any('"minLength": 2' in text for text in texts)  # as ids were when they were free text
    errors = [record.error for record in run.records if record.kind in ("act", "think") and record.error]
    assert not [error for error in errors if "no candidate" in error]


def test_a_candidate_of_a_closed_generation_that_is_measured_later_is_known_at_once(tmp_path):
    run = free(tmp_path, UniformBrain(seed=2), evaluations=20)
    run.go()
    history = SearchHistory(run.bench, free=True).read()
    old = next(row for row in history.candidates.values() if history.fitness(row.profile, LAST) is None)
    measure(run.bench, [old.profile], range(LAST // LENGTH), step=99)
    assert history.read().fitness(old.profile, LAST) == SearchHistory(run.bench).read().fitness(old.profile, LAST)
    assert history.fitness(old.profile, LAST) is not None


def test_no_call_can_spend_more_tokens_than_are_left(tmp_path):
    limit, brain = 60 * LENGTH, RecordingBrain(seed=4)
    run = free(tmp_path, brain, evaluations=400, tokens=limit)
    state = run.go()
    assert cost(state.spent) <= limit and "tokens" in state.stop
    ways = [way for offer in brain._offered if "evaluate" in offer for way in offer["evaluate"]["anyOf"]]
    asked = [(way["properties"]["fidelity"]["const"], way["properties"]["candidates"]["maxItems"]) for way in ways]
    assert {tokens for tokens, _ in asked} == {FIRST, LAST}
    assert all(tokens * most < limit for tokens, most in asked)  # something was spent before each of them


def test_whatever_is_shown_can_be_named_and_a_long_run_makes_the_schema_no_longer(tmp_path):
    brain = RecordingBrain(seed=3)
    run = free(tmp_path, brain, evaluations=120)
    run.go()
    most = run.settings.population + run.settings.offspring + 2 * MOST
    prompts = [one.prompt for one in run.records if isinstance(one, Think) and "Task: call one of" in one.prompt]
    offers = [offer for offer in brain._offered if "recall_candidates" in offer]
    making = [pair for pair in zip(prompts, offers, strict=True) if "prune_model" in pair[1]]
    assert len(run.candidates()) > most
    for prompt, offer in making:
        assert set(re.findall(r"^(c\d+):", prompt, re.MULTILINE)) <= ids_in(offer["prune_model"])
        assert len(ids_in(offer["prune_model"])) <= most


@pytest.mark.parametrize(
    "brain",
    [
        UniformBrain(seed=5),
        FailingBrain(seed=0, failure="illegal"),
        FailingBrain(seed=0, failure="exception"),
        ScriptBrain(replies=["I would rather not."] * 500),
        ScriptBrain(replies=[called("recall_candidates", count=1, earlier=True)] * 500),
        ScriptBrain(replies=[called("evaluate", candidates=["c1"], fidelity=FIRST)] * 500),
    ],
    ids=["random", "unknown tool", "raises", "no call", "only looks up", "the same call for ever"],
)
def test_whatever_the_brain_does_the_run_ends_with_a_valid_result(tmp_path, brain):
    run = free(tmp_path, brain, evaluations=20, brain_failures=2)
    state = run.go()
    assert state.stop in ("20 evaluations are used up", "6 generations brought nothing better")
    run.assert_valid()
    rows = [row for row in run.candidates() if run.bench.fitness(row.profile, FIRST)]
    assert state.evaluations == len(rows) <= 20 + 4
    thoughts = [record for record in run.records if isinstance(record, Think)]
    if not isinstance(brain, UniformBrain) or isinstance(brain, FailingBrain):
        assert any(record.fallback for record in thoughts)  # it was stood in for, and that shows


def test_it_is_for_arms_that_ask_a_brain():
    with pytest.raises(ValidationError, match="--autonomy free is for an arm that asks a brain: evolution asks none"):
        tiny_settings(arm="evolution", autonomy="free")
