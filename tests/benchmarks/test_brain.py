"""The benchmark of a brain judges replies with a thought and without one."""

import pytest

from benchmarks.brain import ask, judged, kinds
from tests.brain_tiny import tiny_brain

FACTS = {"name": "tiny", "layers": 3, "groups": 4, "blocks": 12}


@pytest.mark.parametrize("thought_tokens", [0, 4])
def test_replies_of_a_brain_that_thinks_or_does_not_are_legal(thought_tokens):
    brain = tiny_brain(thought_tokens=thought_tokens)
    for entry in kinds(3, 4, 12).values():
        for message in ask(brain, FACTS, [entry], 1, 2):
            raw = message.response_metadata["raw"]
            assert judged(raw, message, [entry], thought_tokens > 0) == "legal"
            assert judged(raw + "}", message, [entry], thought_tokens > 0) == "malformed"
