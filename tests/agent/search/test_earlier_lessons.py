"""What a run begins with: lessons of its own model first, then those of its family, carried over and marked."""

from dataclasses import replace
from types import SimpleNamespace

import pytest

from self_pruner.agent.prepare.workbench import described
from self_pruner.agent.search.planning.earlier_lessons import LESSONS, earlier_lessons
from self_pruner.agent.search.planning.shown import lessons_shown
from self_pruner.memory.profile import Profile
from self_pruner.memory.records import Candidate, Lesson
from self_pruner.memory.store import Memory
from self_pruner.prompts.sample import sample_variables
from self_pruner.prompts.templates import PromptSet
from self_pruner.tools.profiles.budget import Budget
from self_pruner.tools.profiles.space import Space

DEEP = Space(28, 2, 140, 2_000_000, 300_000, 10**9, 64)
FLAT = replace(DEEP, n_layers=24, n_blocks=76, fixed_params=10**8)


def bench(path, space, name, *, run="now", context=None, family="qwen2", sparsity=0.2):
    told = {"model": name, "weights": f"weights of {name}", **described(space, family)}
    memory = Memory(path, context or name, told)
    return SimpleNamespace(memory=memory, run=run, budget=Budget.from_sparsity(space, sparsity))


def lesson(run="earlier", number=0, take="mlp 4-7", give="attention 20-23", verdict="held", change=-0.01, params=0):
    return Lesson(run, 1, number, take, give, "some", "better", verdict, change, 0.001, ("c7",), params, 3)


def made(run):
    """What shows that a run was made in a context."""
    return Candidate(run, "c7", Profile((1,), (2,)), (), "mutation", "brain", 1, 3, 0, 0, 9, "")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "memory.sqlite"


def test_a_lesson_of_a_flatter_model_of_the_family_is_about_the_same_share_of_the_depth(path):
    flat = bench(path, FLAT, "Small", sparsity=0.3)
    flat.memory.record(lesson(params=flat.budget.target_params))
    deep = bench(path, DEEP, "Large")
    (found,) = earlier_lessons(deep)
    assert (found.take, found.give) == ("mlp 5-8", "attention 23-27")
    assert (found.model, found.run, found.verdict) == ("Small", "earlier", "held")
    deep.memory.record(found)
    history = SimpleNamespace(bench=deep, lessons=deep.memory.recall(Lesson))
    (row,) = lessons_shown(history)
    assert row.earlier and row.model == "Small" and row.sparsity == pytest.approx(0.3, abs=0.001)


def test_those_of_the_model_itself_come_first_and_of_these_those_of_the_nearest_budget(path):
    flat = bench(path, FLAT, "Small")
    flat.memory.record(*(lesson(number=number, params=flat.budget.target_params) for number in range(LESSONS)))
    deep = bench(path, DEEP, "Large")
    near, far = deep.budget.target_params, deep.budget.target_params // 2
    deep.memory.record(lesson("a", params=far), lesson("b", params=near), lesson("c", verdict="unclear", params=near))
    deep.memory.record(*map(made, "abc"))
    found = earlier_lessons(deep)
    assert [row.run for row in found] == ["b", "a", *["earlier"] * (LESSONS - 2)]
    assert [row.model for row in found] == ["", "", *["Small"] * (LESSONS - 2)]


def test_the_same_weights_with_another_text_are_no_other_model(path):
    other = bench(path, DEEP, "Large", context="another text")
    other.memory.record(lesson(give="attention 23-27", take="mlp 5-8", params=other.budget.target_params))
    (found,) = earlier_lessons(bench(path, DEEP, "Large"))
    assert (found.take, found.give, found.model) == ("mlp 5-8", "attention 23-27", "")


def test_lessons_of_another_text_stay_behind_those_of_this_one_once_a_run_began_with_them(path):
    other = bench(path, DEEP, "Large", context="another text")
    near, far = other.budget.target_params, other.budget.target_params // 2
    other.memory.record(made("there"), *(lesson("there", number, params=near) for number in range(LESSONS)))
    deep = bench(path, DEEP, "Large", run="first")
    deep.memory.record(made("first"), *earlier_lessons(deep), lesson("first", params=far))
    again = bench(path, DEEP, "Large", run="second")
    assert [row.run for row in earlier_lessons(again)] == ["first", *["there"] * (LESSONS - 1)]


def test_what_was_carried_over_is_not_carried_on_and_is_found_once(path):
    flat = bench(path, FLAT, "Small")
    flat.memory.record(lesson(params=flat.budget.target_params))
    deep = bench(path, DEEP, "Large", run="first")
    deep.memory.record(*earlier_lessons(deep))
    again = bench(path, DEEP, "Large", run="second")
    assert [row.model for row in earlier_lessons(again)] == ["Small"]
    third = bench(path, FLAT, "Third")
    assert [row.model for row in earlier_lessons(third)] == ["Small"]


@pytest.mark.parametrize(
    "told",
    [
        {"family": "llama", "layers": 24, "fixed_params": 1, "prunable_params": 9},
        {"family": "qwen2"},
        {"family": "qwen2", "layers": "24", "fixed_params": 1, "prunable_params": 9},
        {"family": "qwen2", "layers": 24, "fixed_params": 1, "prunable_params": 0},
        {"family": "qwen2", "layers": 3, "fixed_params": 1, "prunable_params": 9},
    ],
    ids=["another family", "an older version", "no number", "nothing to prune", "stretches that it has not"],
)
def test_a_context_that_cannot_be_carried_over_is_passed_over(path, told):
    with Memory(path, "other", told) as memory:
        memory.record(lesson())
    assert earlier_lessons(bench(path, DEEP, "Large")) == []


def test_stretches_that_fall_together_are_no_lesson(path):
    with Memory(path, "other", {**described(replace(FLAT, n_layers=60), "qwen2"), "model": "Deepest"}) as memory:
        memory.record(lesson(take="mlp 0-1", give="mlp 2-3"))
    assert earlier_lessons(bench(path, DEEP, "Large")) == []


@pytest.mark.parametrize("name", ["default", "expert", "terse"])
def test_a_prompt_names_the_model_that_a_lesson_is_of(name):
    variables = sample_variables("plan", ())
    lessons = tuple(
        replace(row, model=model, change=-0.01, earlier=True)
        for row, model in zip(variables.history.lessons, ("", "Qwen2.5\n0.5B", "other"), strict=True)
    )
    said = PromptSet(name).render(replace(variables, history=replace(variables.history, lessons=lessons))).turn
    assert "Qwen2.5 0.5B" in said and "other" in said
