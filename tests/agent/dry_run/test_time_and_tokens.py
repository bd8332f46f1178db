"""The bill: how tokens, seconds and bytes follow from sizes and speeds."""

from dataclasses import replace

import pytest

from self_pruner.agent.arms import ARMS
from self_pruner.agent.dry_run.machine_speed import Speed
from self_pruner.agent.dry_run.memory_and_disk import disk, memory, target_bytes
from self_pruner.agent.dry_run.rates import Rates, Sizes
from self_pruner.agent.dry_run.schedule import rounds
from self_pruner.agent.dry_run.talk import Talk
from self_pruner.agent.dry_run.time_and_tokens import Spoken, estimate
from self_pruner.agent.settings import Settings
from self_pruner.tools.evaluation.slopes import PASS_COST
from self_pruner.tools.profiles.budget import Budget
from self_pruner.tools.profiles.operators import uniform
from self_pruner.tools.profiles.space import Space

# SmolLM2-135M-Instruct at 30% sparsity
SPACE = Space(30, 3, 48, 294_912, 55_296, 28_346_688, 32)
SIZES = Sizes(
    space=SPACE,
    hidden=576,
    vocab=49_152,
    attention=576,
    intermediate=1536,
    keys=192,
    params=134_515_008,
    uniform=uniform(Budget.from_sparsity(SPACE, 0.3)),
    bytes=4,
    refit_memory=1 << 30,
    calibration=(16, 2048),
)
SPEED = Speed(layer=1e-4, head=1e-3, one=(1e-3, 1e-2), few=(2e-3, 2e-2), together=8, flops=7e10)
AT_ONCE = Speed(0.0, 0.0, (0.0, 0.0), (0.0, 0.0), 1, float("inf"))
TALKS = dict.fromkeys(("initialise", "vary", "latency", "survive"), Talk(prompt=900, cached=384, reply=120, steps=50))


def bill(arm="hybrid", sizes=SIZES, speed=SPEED, probed=True, **settings):
    limits = Settings(**settings)
    return estimate(Rates(limits, sizes, speed), ARMS[arm], rounds(limits, ARMS[arm]), TALKS, probed)


def seconds(cost, what):
    return next(item.most for item in cost.items if item.what.startswith(what))


def test_the_lines_add_up_to_the_whole():
    cost = bill()
    assert cost.most == pytest.approx(sum(item.most for item in cost.items))
    assert cost.likely == pytest.approx(sum(item.likely for item in cost.items))
    assert cost.charged == sum(cost.tokens(what) for what in ("Probes", "Uniform", "Stage", "Slopes", "Brain"))


def test_tokens_follow_from_the_settings():
    cost = bill()
    assert cost.tokens("Calibration") == 16 * 2048
    assert cost.tokens("Probes") == 60 * 512
    assert cost.tokens("Dense targets") == 4096 + 3072 + 4 * 4096 + 5120
    assert cost.tokens("Stage 1") == 64 * 1024
    assert cost.tokens("Stage 2") == 35 * 3072
    assert bill(reporting_text="passages,c4").tokens("Reporting") == 2 * cost.tokens("Reporting")
    assert bill(recalibrate=False).tokens("Final choice") == cost.tokens("Final choice") - 3072


def test_probes_pay_once_for_what_they_share():
    cost = bill()
    alone = 60 * 512 * (30 * SPEED.layer + SPEED.head)
    heads = 60 * 512 * SPEED.head
    assert heads < seconds(cost, "Probes") < 0.75 * alone


def test_a_candidate_takes_the_time_of_the_layers_it_keeps():
    dense, pruned = (bill(sizes=replace(SIZES, uniform=one)) for one in (SPACE.dense(), SIZES.uniform))
    layers = dense.tokens("Stage 1") * 30 * SPEED.layer
    assert seconds(dense, "Stage 1") - seconds(pruned, "Stage 1") == pytest.approx(0.3 * layers, rel=1e-3)


def test_a_search_that_learns_pays_for_the_slopes_at_its_best():
    cost = bill(offspring=12, slopes=2)  # generations 1, 3 and 5 of six
    assert cost.tokens("Slopes at the best, 3 times") == 3 * PASS_COST * 4096
    assert bill(offspring=12, slopes=2, slope_tokens=1024).tokens("Slopes") == 3 * PASS_COST * 1024
    assert bill(offspring=12, slopes=2, slope_tokens=8192).tokens("Slopes") == 3 * PASS_COST * 8192
    assert bill(slopes=0).tokens("Slopes") == bill("evolution").tokens("Slopes") == 0


def test_factors_that_do_not_fit_in_memory_are_paid_for_again_and_again():
    few = Rates(Settings(), replace(SIZES, refit_memory=1 << 20), SPEED)
    enough = Rates(Settings(), SIZES, SPEED)
    assert few.refits(1) == pytest.approx(enough.refits(1) + enough.factors())
    assert few.refits(20) > 5 * enough.refits(20)
    plain = Rates(Settings(compensation="bias"), SIZES, SPEED)
    assert plain.refits(20) == plain.factors() == 0.0


def test_factors_are_paid_for_by_the_probes_or_else_by_the_search():
    with_probes, without = (seconds(bill("evolution", probed=probed), "Least-squares") for probed in (True, False))
    assert without - with_probes == pytest.approx(Rates(Settings(), SIZES, SPEED).factors())


def test_a_brain_that_is_not_asked_costs_nothing():
    for cost in (bill("evolution"), bill("hybrid", brain="uniform")):
        assert cost.spoken.turns == cost.spoken.read == cost.tokens("Brain") == 0
    assert bill("hybrid").tokens("Brain writes") > 0


def test_the_first_prompt_finds_no_cache_and_all_others_do():
    spoken = Spoken(Rates(Settings(), SIZES, SPEED), TALKS)
    spoken.ask("vary", 1, 8, 1.0, 1.0)
    assert spoken.computed == 900
    spoken.ask("survive", 2, 2, 1.0, 1.0)
    assert (spoken.read, spoken.computed) == (3 * 900, 900 + 2 * (900 - 384))
    spoken.ask("latency", 0, 0, 1.0, 1.0)
    assert (spoken.turns, spoken.written) == (3, 10 * 120)


def test_replies_that_go_on_together_share_their_passes():
    rates = Rates(Settings(), SIZES, SPEED)
    alone, together = rates.decoding(80, 1), rates.decoding(10, 8)
    assert together < 0.5 * alone
    assert SPEED.step(30, 1) == pytest.approx(30 * 1e-3 + 1e-2)
    assert SPEED.step(30, 8) == pytest.approx(30 * 2e-3 + 2e-2)


def test_limits_cap_the_time_of_the_search_and_not_what_surrounds_it():
    free = bill()
    search = sum(item.most for item in free.items if item.phase == "search")
    assert bill(minutes=1.0).most == pytest.approx(free.most - search + 60)
    assert bill(tokens=free.charged // 2).most == pytest.approx(free.most - search / 2, rel=1e-4)
    assert bill(tokens=10 * free.charged, minutes=1e6).most == pytest.approx(free.most)


def test_an_arm_without_probes_and_brain_starts_at_once():
    cost = bill("owl", probed=False)
    assert cost.tokens("Probes") == cost.tokens("Uniform") == 0
    assert cost.evaluations == 1


def test_a_machine_without_a_speed_gives_tokens_and_no_seconds():
    cost = bill(speed=AT_ONCE)
    assert cost.tokens("Stage 1") == 64 * 1024
    assert seconds(cost, "Stage 1") == seconds(cost, "Calibration") == 0.0


def test_memory_and_disk_hold_weights_grams_targets_and_the_checkpoint():
    limits = Settings()
    held = {line.what: line for line in memory(limits, SIZES, TALKS, "cpu", 600_000_000)}
    assert held["Weights"].bytes == 4 * 134_515_008
    assert held["Gram matrices"].bytes == 4 * 30 * (576**2 + 1536**2)
    assert held["Remembered refits"].bytes <= 1 << 30
    # 4,096 tokens to rank on, 3,072 for the final choice, four windows of 4,096 for slopes, 5,120 to report on
    assert held["Dense targets"].bytes == target_bytes(limits) == 28_672 * (512 * 8 + 12)
    assert target_bytes(Settings(slopes=0)) == target_bytes(Settings(arm="evolution")) == 12_288 * (512 * 8 + 12)
    assert {line.where for line in held.values()} == {"memory"}
    written = {line.what: line for line in disk(limits, SIZES, bill(), {"smollm2-135m": 93_000_000}, 538_000_000)}
    assert written["Pruned checkpoint"].bytes == 4 * SIZES.pruned_params
    assert written["Fetched: smollm2-135m"].where == "cache"
    assert "Pruned checkpoint" not in {line.what for line in disk(Settings(export=False), SIZES, bill(), {}, 0)}


def test_on_a_gpu_the_weights_lie_on_it_and_the_gram_matrices_do_not():
    held = {line.what: line.where for line in memory(Settings(), SIZES, TALKS, "cuda", 600_000_000)}
    assert held["Weights"] == held["Remembered refits"] == "device"
    assert held["Gram matrices"] == held["Dense targets"] == "memory"


def test_controls_have_no_prompt_cache_and_plain_slices_no_refits():
    held = [line.what for line in memory(Settings(brain="first", compensation="none"), SIZES, TALKS, "cpu", 0)]
    assert not {"Brain's prompt cache", "Remembered refits", "Moments of the recalibration"} & set(held)
