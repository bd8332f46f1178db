"""Packing loses nothing: every choice sees exactly what it would see alone, and what is common is there once."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from self_pruner.tools.evaluation.tasks.packing import PADDING, Pack, Question, batch_of, batches, pack

TOKENS = st.lists(st.integers(1, 3), min_size=1, max_size=6).map(tuple)
QUESTIONS = st.lists(st.builds(Question, TOKENS, TOKENS), min_size=1, max_size=4)
CPU = torch.device("cpu")


def seen(packed: Pack, place: int, window: int | None = None) -> list[tuple[int, int]]:
    """(position, token) of everything that the token at `place` attends to, by the mask."""
    mask = batch_of([packed], window, CPU).mask[0, 0, place]
    return [(packed.positions[i], packed.tokens[i]) for i in mask.nonzero().flatten().tolist()]


@given(QUESTIONS, st.integers(6, 14))
def test_every_answer_is_predicted_from_its_own_context_and_nothing_else(questions, longest):
    packed = pack(questions, longest)
    assert packed.answers == tuple(question.continuation for question in questions)
    for question, reads in zip(questions, packed.reads, strict=True):
        inputs = (question.context + question.continuation)[-(longest + 1) :][:-1]
        for number, place in enumerate(reads):
            before = len(inputs) - len(question.continuation) + number + 1
            assert seen(packed, place) == list(enumerate(inputs[:before]))


@given(QUESTIONS)
def test_tokens_that_all_choices_share_are_computed_once(questions):
    packed = pack(questions, 99)
    alone = [question.inputs(99) for question in questions]
    common = 0
    while all(len(one) > common for one in alone) and len({one[common] for one in alone}) == 1:
        common += 1
    assert len(packed.tokens) == sum(len(one) - common for one in alone) + common


def test_answers_of_one_token_cost_nothing_beyond_their_context():
    packed = pack([Question((5, 6, 7), (1,)), Question((5, 6, 7), (2,))], 99)
    assert packed.tokens == (5, 6, 7)
    assert packed.reads == ((2,), (2,))


@given(QUESTIONS, st.integers(1, 4))
def test_a_window_hides_what_is_further_back(questions, window):
    packed = pack(questions, 99)
    for reads in packed.reads:
        for place in reads:
            position = packed.positions[place]
            assert [at for at, _ in seen(packed, place, window)] == list(
                range(max(0, position - window + 1), position + 1)
            )


def test_padding_is_seen_by_nobody_and_sees_something():
    long, short = pack([Question((1, 2, 3, 4), (5,))], 99), pack([Question((1,), (2,)), Question((1,), (3,))], 99)
    batch = batch_of([long, short], None, CPU)
    assert batch.input_ids.shape == (2, 4)
    real = torch.tensor([[True] * 4, [True, False, False, False]])
    assert not batch.mask[1, 0][real[1]][:, ~real[1]].any()
    assert batch.mask.any(-1).all()  # a row that sees nothing would be no number
    assert PADDING not in (*long.branches, *short.branches)


@given(st.lists(st.integers(1, 40), min_size=1, max_size=20), st.integers(10, 60))
def test_batches_hold_every_pack_once_within_the_bound(lengths, tokens):
    packs = [pack([Question((1,) * length, (2,))], 99) for length in lengths]
    groups = list(batches(packs, tokens))
    assert sorted(index for group in groups for index in group) == list(range(len(packs)))
    for group in groups:
        longest = max(lengths[index] for index in group)
        assert len(group) == 1 or len(group) * longest <= tokens
    assert [lengths[index] for group in groups for index in group] == sorted(lengths, reverse=True)


@pytest.mark.parametrize("longest", [3, 4, 6])
def test_a_long_context_is_cut_on_the_left(longest):
    question = Question((1, 2, 3, 4, 5), (6, 7))
    assert question.inputs(longest) == (1, 2, 3, 4, 5, 6)[-longest:]
