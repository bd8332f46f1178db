"""How tokens, seconds and bytes follow from plan, sizes and speed."""

from dataclasses import replace

import pytest

from self_pruner.agent.dry_run.cost_estimate import (
    Sizes,
    bytes_of,
    charged_tokens,
    refit_operations,
    steps_of,
    target_tokens,
    total_seconds,
)
from self_pruner.agent.dry_run.machine_speed import Speed
from self_pruner.agent.dry_run.plan import plan_of
from self_pruner.agent.prepare.placement import Need, Placement
from self_pruner.agent.settings.arms import ARMS
from self_pruner.agent.settings.settings import Settings
from self_pruner.prompts.templates import PromptSet
from self_pruner.tools.evaluation.first_order import PASS_COST
from self_pruner.tools.models.families import Geometry
from self_pruner.tools.profiles.budget import Budget
from self_pruner.tools.profiles.space import Space

IN_MEMORY = Placement(streamed=False, need=Need(4 * 134_515_008, 200_000_000, 1 << 30), free=1 << 36)

# SmolLM2-135M-Instruct at 30% sparsity
SPACE = Space(30, 3, 48, 294_912, 55_296, 28_346_688, 32)
SIZES = Sizes(
    shape=Geometry(
        n_layers=30, hidden=576, n_groups=3, heads_per_group=3, head_dim=64, intermediate=1536, vocab=49_152
    ),
    budget=Budget.from_sparsity(SPACE, 0.3),
    params=134_515_008,
    itemsize=4,
    calibration_tokens=16 * 2048,
    refit_memory=1 << 30,
)
# two CPU cores: 256 tokens in 0.31 s through the layers, 49 ms a decoded token
SPEED = Speed(layer=4e-5, head=3.3e-4, step=0.055)
NO_TIME = Speed(0.0, 0.0, 0.0)


def steps(arm="hybrid", sizes=SIZES, speed=SPEED, prompt_tokens=500, **settings):
    limits = Settings(**settings)
    prompts = PromptSet(ARMS[arm].prompt_set)
    return steps_of(limits, plan_of(limits, ARMS[arm], prompts, sizes.budget, 0), sizes, speed, prompt_tokens)


def step(found, what):
    """The step whose name begins so, or None."""
    return next((one for one in found if one.what.startswith(what)), None)


def test_a_default_run_is_estimated_within_a_factor_of_two():
    measured = {"Calibration": 73, "Dense targets": 38, "Sensitivity": 28, "Final choice": 44, "Recalibration": 144}
    found = steps(thought_tokens=32)  # as the run that was measured
    for what, seconds in measured.items():
        assert seconds / 2 < step(found, what).seconds < 2 * seconds, what
    assert 360 / 2 < sum(one.seconds for one in found if one.searching) < 2 * 360
    assert 711 / 2 < total_seconds(Settings(), found) < 2 * 711
    assert 70 / 2 < step(found, "Brain").seconds < 2 * 70
    assert 318_492 / 2 < charged_tokens(found) < 2 * 318_492
    memory = sum(
        line.bytes for line in bytes_of(Settings(), SIZES, IN_MEMORY, "cpu", 630_000_000, 0) if line.where == "memory"
    )
    assert 4.0e9 / 2 < memory < 2 * 4.0e9


def test_the_steps_add_up_to_the_whole():
    found = steps()
    assert total_seconds(Settings(), found) == pytest.approx(sum(one.seconds for one in found))
    named = ("Sensitivity", "Evaluations", "Slopes", "Brain")
    assert charged_tokens(found) == sum(step(found, what).tokens for what in named)


def test_tokens_follow_from_the_settings():
    found = steps()
    assert step(found, "Calibration").tokens == 16 * 2048
    assert step(found, "Sensitivity probes of 60 places").tokens == 60 * 512 + 1024
    assert step(found, "Dense targets").tokens == 4096 + 3072 + 4 * 4096 + 5120
    assert step(found, "Evaluations of 64 candidates, 35 of them in full").tokens == 64 * 1024 + 35 * 3072
    one, two = (step(steps(reporting_text=text), "Final choice").tokens for text in ("passages", "passages,c4"))
    assert two - one == 4 * 5120  # uniform, the closed form, found, found and recalibrated
    assert one - step(steps(recalibrate=False), "Final choice").tokens == 3072 + 5120


def test_a_candidate_takes_the_time_of_the_layers_it_keeps():
    less, more = (step(steps(sizes=replace(SIZES, budget=Budget.from_sparsity(SPACE, s))), "Eval") for s in (0.5, 0.2))
    assert less.tokens == more.tokens
    assert more.seconds - less.seconds == pytest.approx(0.7 * 0.3 * less.tokens * 30 * SPEED.layer, rel=1e-2)


def test_a_search_that_learns_pays_for_the_slopes_at_its_best():
    found = steps(offspring=12, slopes=2)  # generations 1, 3 and 5 of six
    assert step(found, "Slopes, 3 times").tokens == 3 * PASS_COST * 4096
    assert step(steps(offspring=12, slopes=2, slope_tokens=1024), "Slopes").tokens == 3 * PASS_COST * 1024
    assert step(steps(slopes=0), "Slopes") is step(steps("evolution"), "Slopes") is None


def test_factors_that_do_not_fit_in_memory_are_paid_for_again_and_again():
    few = replace(SIZES, refit_memory=1 << 20)
    assert refit_operations(few, 1) == refit_operations(SIZES, 1)
    assert refit_operations(few, 20) > 1.5 * refit_operations(SIZES, 20)
    assert step(steps(compensation="bias"), "Least-squares") is step(steps(compensation="bias"), "Recalib") is None


def test_a_brain_that_is_not_asked_or_reads_nothing_costs_nothing():
    assert step(steps("evolution"), "Brain") is step(steps(brain="uniform"), "Brain") is None
    assert step(steps(), "Brain").tokens > step(steps(prompt_tokens=100), "Brain").tokens > 0
    edits, vectors = step(steps(), "Brain"), step(steps("self"), "Brain")
    assert vectors.tokens > edits.tokens and vectors.seconds > edits.seconds  # whole vectors are longer


def test_limits_cap_the_time_of_the_search_and_not_what_surrounds_it():
    found = steps()
    free = total_seconds(Settings(), found)
    search = sum(one.seconds for one in found if one.searching)
    assert total_seconds(Settings(minutes=1.0), found) == pytest.approx(free - search + 60)
    half = Settings(tokens=charged_tokens(found) // 2)
    assert total_seconds(half, found) == pytest.approx(free - search / 2, rel=1e-4)
    assert total_seconds(Settings(tokens=10 * charged_tokens(found), minutes=1e6), found) == pytest.approx(free)


def test_an_arm_without_probes_and_brain_starts_at_once():
    found = steps("owl")
    assert step(found, "Sensitivity") is step(found, "Brain") is None
    assert step(found, "Evaluations of 1 candidates").tokens == 4096


def test_a_machine_without_a_speed_gives_tokens_and_no_seconds():
    found = steps(speed=NO_TIME)
    assert step(found, "Evaluations").tokens == step(steps(), "Evaluations").tokens
    assert step(found, "Evaluations").seconds == step(found, "Calibration").seconds == 0.0


def test_memory_and_disk_hold_weights_grams_targets_and_the_checkpoint():
    limits = Settings()
    found = bytes_of(limits, SIZES, IN_MEMORY, "cpu", 600_000_000, 93_000_000)
    held = {line.what: line.bytes for line in found if line.where == "memory"}
    assert held["Weights"] == 4 * 134_515_008
    assert held["Gram matrices"] == 4 * 30 * (576**2 + 1536**2)
    # 4,096 tokens to rank on, 3,072 for the final choice, four windows of 4,096 for slopes, 5,120 to report on
    assert held["Dense targets"] == target_tokens(limits) * (512 * 8 + 12) == 28_672 * (512 * 8 + 12)
    assert target_tokens(Settings(slopes=0)) == target_tokens(Settings(arm="evolution")) == 12_288
    written = {line.what: line.bytes for line in found if line.where == "disk"}
    assert written["Pruned checkpoint"] == 4 * SIZES.budget.target_params
    assert written["What is fetched"] == 93_000_000
    assert "Pruned checkpoint" not in {
        line.what for line in bytes_of(Settings(export=False), SIZES, IN_MEMORY, "cpu", 0, 0)
    }


def test_where_layers_are_streamed_memory_holds_those_at_work_and_one_gram_matrix():
    streamed = replace(IN_MEMORY, streamed=True)
    held = {line.what: line.bytes for line in bytes_of(Settings(), SIZES, streamed, "cpu", 0, 0)}
    assert held["Weights"] == 200_000_000 and held["Gram matrices"] == 4 * (576**2 + 1536**2)
    assert held["Gram matrices and dense targets, in the cache"] > 30 * held["Gram matrices"]


def test_on_a_gpu_the_weights_lie_on_it_and_the_gram_matrices_do_not():
    held = {line.what: line.where for line in bytes_of(Settings(), SIZES, IN_MEMORY, "cuda", 600_000_000, 0)}
    assert held["Weights"] == held["Remembered refits and hidden states"] == "device"
    assert held["Gram matrices"] == held["Dense targets"] == "memory"


def test_plain_slices_have_no_refits_to_remember():
    plain, refitted = (
        {line.what: line.bytes for line in bytes_of(Settings(compensation=name), SIZES, IN_MEMORY, "cpu", 0, 0)}
        for name in ("none", "lstsq")
    )
    kept = "Remembered refits and hidden states"
    assert refitted[kept] - plain[kept] == 1 << 30
    assert "Refits of the recalibration" in refitted and "Refits of the recalibration" not in plain
