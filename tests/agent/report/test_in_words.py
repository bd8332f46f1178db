"""What the brain decided is said in words that name candidates and layers."""

import pytest

from self_pruner.agent.report.in_words import decisions, in_words
from self_pruner.agent.run_files.trace import Act

EDITS = [{"layer": 9, "part": "mlp", "change": 2}, {"layer": 3, "part": "mlp", "change": -2}]


@pytest.mark.parametrize(
    ("tool", "arguments", "words"),
    [
        ("prune_model", {"operator": "mutation", "parents": ["c12"], "edits": EDITS}, "mutated c12 (layers 3, 9)"),
        ("prune_model", {"operator": "mutation", "parents": ["c1"], "edits": EDITS[:1]}, "mutated c1 (layer 9)"),
        ("prune_model", {"operator": "mutation", "parents": ["c1"], "attention": [1], "mlp": [1]}, "mutated c1"),
        ("prune_model", {"operator": "initialise", "attention": [1], "mlp": [1]}, "made a profile of its own"),
        ("prune_model", {"operator": "crossover", "parents": ["c1", "c2"], "layers": [0, 3]}, "crossed c1 and c2"),
        ("record_population", {"survivors": ["c5", "c3", "c1"], "note": "noise"}, "kept c5, c3, c1"),
        ("benchmark_latency", {"candidate": "c4"}, "timed c4"),
        ("another_tool", {"anything": 1}, "called another_tool"),
    ],
)
def test_a_call_is_said_in_words(tool, arguments, words):
    assert in_words(tool, arguments) == words


def test_calls_of_a_turn_are_one_clause():
    acts = [Act(step=1, call=n, tool="benchmark_latency", arguments={"candidate": f"c{n}"}) for n in (1, 2)]
    assert decisions(acts) == "timed c1, timed c2" and decisions([]) == ""
