"""The likelihoods of packed choices are those of plain runs of the elastic model, one sequence at a time."""

import random

import pytest
import torch

from self_pruner.tools.evaluation.tasks.likelihood import LikelihoodError, likelihoods
from self_pruner.tools.evaluation.tasks.packing import Question, pack
from tests.tiny import FAMILY_NAMES
from tests.tools.evaluation.populations import random_profile, tiny_elastic


def questions(seed: int, count: int = 7, vocab: int = 512) -> list[list[Question]]:
    """Rows of two to four choices after a common context, of any length."""
    rng = random.Random(seed)

    def tokens(most: int) -> tuple[int, ...]:
        return tuple(rng.randrange(vocab) for _ in range(rng.randint(1, most)))

    rows = []
    for _ in range(count):
        context = tokens(30)
        rows.append([Question(context, tokens(8)) for _ in range(rng.randint(2, 4))])
    return rows


def alone(elastic, profile, question):
    """Nats of one continuation and whether it is the greedy one, from the reference's logits."""
    ids = torch.tensor([question.context + question.continuation])
    logs = elastic.logits(ids[:, :-1], profile)[0].float().log_softmax(-1)[-len(question.continuation) :]
    after = torch.tensor(question.continuation)
    return float(logs.gather(1, after[:, None]).sum()), bool((logs.argmax(-1) == after).all())


def assert_as_alone(elastic, profile, rows, found):
    for row, choices in zip(rows, found, strict=True):
        for question, choice in zip(row, choices, strict=True):
            nats, greedy = alone(elastic, profile, question)
            assert choice.nats == pytest.approx(nats, abs=1e-4)
            assert choice.greedy == greedy


@pytest.mark.parametrize("family", FAMILY_NAMES)
@pytest.mark.parametrize("compensation", ["lstsq", "bias"])
def test_packed_choices_have_the_likelihoods_they_have_alone(family, compensation):
    elastic = tiny_elastic(family, compensation)
    rows = questions(1)
    for profile in (elastic.space.dense(), random_profile(elastic.space, random.Random(2))):
        found = likelihoods(elastic, profile, [pack(row, 2048) for row in rows])
        assert_as_alone(elastic, profile, rows, found)


@pytest.mark.parametrize(("family", "window"), [("mistral", {"sliding_window": 8}), ("qwen2", {})])
def test_a_sliding_window_holds_inside_a_pack(family, window):
    settings = window or {
        "use_sliding_window": True,
        "sliding_window": 8,
        "layer_types": ["full_attention", "sliding_attention", "full_attention"],
    }
    elastic = tiny_elastic(family, **settings)
    rows = questions(3)
    profile = random_profile(elastic.space, random.Random(4))
    assert_as_alone(elastic, profile, rows, likelihoods(elastic, profile, [pack(row, 2048) for row in rows]))


def test_little_memory_means_more_turns_and_the_same_numbers():
    elastic = tiny_elastic()
    profile = random_profile(elastic.space, random.Random(5))
    packs = [pack(row, 2048) for row in questions(6, count=60)]
    assert sum(len(one.tokens) for one in packs) > 1024  # more than one batch
    at_once = likelihoods(elastic, profile, packs)
    in_turns = likelihoods(elastic, profile, packs, state_memory=1)
    assert in_turns == at_once


def test_a_greedy_continuation_is_known_as_one():
    elastic = tiny_elastic()
    context = torch.tensor([[5, 6, 7]])
    best = int(elastic.logits(context, elastic.space.dense())[0, -1].argmax())
    row = [Question((5, 6, 7), (best,)), Question((5, 6, 7), ((best + 1) % 512,))]
    ((first, second),) = likelihoods(elastic, elastic.space.dense(), [pack(row, 2048)])
    assert first.greedy and not second.greedy
    assert first.nats > second.nats


def test_progress_ends_at_its_total():
    elastic = tiny_elastic()
    told: list[tuple[int, int]] = []
    packs = [pack(row, 2048) for row in questions(8)]
    likelihoods(elastic, elastic.space.dense(), packs, lambda *step: told.append(step))
    assert told[-1][0] == told[-1][1] == sum(len(one.tokens) for one in packs) * (elastic.space.n_layers + 1)
    assert [done for done, _ in told] == sorted(done for done, _ in told)


def test_logits_that_are_no_numbers_are_no_likelihood():
    elastic = tiny_elastic()
    elastic.model.model.layers[1].mlp.up_proj.weight[0, 0] = float("nan")
    with pytest.raises(LikelihoodError, match="not finite"):
        likelihoods(elastic, elastic.space.dense(), [pack(questions(9)[0], 2048)])
