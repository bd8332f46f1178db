"""What a prompt names of shifts is what the schema of the reply allows."""

import re

from pydantic import PrivateAttr

from self_pruner.agent.brain.scripted import UniformBrain
from tests.agent.search.test_planning import plans
from tests.agent.search.test_search import Search


def test_what_a_prompt_offers_to_take_from_or_to_give_to_can_be(tmp_path):
    class Recording(UniformBrain):
        _offered: list = PrivateAttr(default_factory=list)

        def answer(self, calls, seed, index):
            self._offered.append(calls[0].parameters)
            return super().answer(calls, seed, index)

    brain = Recording(seed=2)
    run = Search(tmp_path, brain, "terse", evaluations=40, patience=40)
    run.go()
    asked = plans(run)
    offers = [
        offer["properties"]["hypotheses"]["items"]["anyOf"]
        for offer in brain._offered
        if "hypotheses" in offer["properties"]
    ]
    assert len(asked) == len(offers) > 2
    for record, shapes in zip(asked, offers, strict=True):
        take, give = (
            re.search(rf"^{words}, the best first: (.*)\.$", record.prompt, re.MULTILINE)[1].split(", ")
            for words in ("Take from", "Give to")
        )
        assert set(take) <= {shape["properties"]["take"]["const"] for shape in shapes}
        assert set(give) <= {name for shape in shapes for name in shape["properties"]["give"]["enum"]}
