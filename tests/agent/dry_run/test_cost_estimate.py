"""How tokens and seconds follow from plan, sizes and speed."""

from dataclasses import replace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.placements import machine
from self_pruner.agent.dry_run.cost_estimate import (
    calibration_seconds,
    charged_tokens,
    recalibration_seconds,
    solves,
    steps_of,
    stream_seconds,
    total_seconds,
)
from self_pruner.agent.dry_run.machine_speed import Speed
from self_pruner.agent.dry_run.plan import plan_of
from self_pruner.agent.prepare.bill import needed
from self_pruner.agent.settings.arms import ARMS
from self_pruner.agent.settings.settings import Settings
from self_pruner.memory.profile import PARTS, Profile
from self_pruner.prompts.templates import PromptSet
from self_pruner.tools.evaluation.first_order import PASS_COST
from self_pruner.tools.evaluation.workers.pool import Room
from self_pruner.tools.models.families import geometry
from self_pruner.tools.profiles.budget import Budget
from self_pruner.tools.pruning.calibration import calibrate
from self_pruner.tools.pruning.elastic import ElasticModel
from self_pruner.tools.pruning.recalibration import recalibrate
from self_pruner.tools.pruning.store import embed
from tests.agent.dry_run.smollm2 import NO_TIME, SIZES, SPACE, placement
from tests.tiny import tiny_model

# two CPU cores: 256 tokens in 0.31 s through the layers, 49 ms a decoded token
SPEED = Speed(layer=4e-5, head=3.3e-4, step=0.055, operation=5.65e-12, read=1e-8, again=1e-10, upload=0.0)


def steps(arm="hybrid", sizes=SIZES, speed=SPEED, prompt_tokens=500, placed=None, **settings):
    limits = Settings(**settings)
    plan = plan_of(limits, ARMS[arm], PromptSet(ARMS[arm].prompt_set), sizes.budget, 0)
    return steps_of(limits, plan, placed or placement(sizes, settings=limits), speed, prompt_tokens)


def step(found, what):
    """The step whose name begins so, or None."""
    return next((one for one in found if one.what.startswith(what)), None)


def test_a_default_run_is_estimated_within_a_factor_of_two():
    measured = {"Calibration": 73, "Dense targets": 38, "Sensitivity": 28, "Final choice": 44, "Recalibration": 144}
    found = steps()
    for what, seconds in measured.items():
        assert seconds / 2 < step(found, what).seconds < 2 * seconds, what
    assert 360 / 2 < sum(one.seconds for one in found if one.searching) < 2 * 360
    assert 711 / 2 < total_seconds(Settings(), found) < 2 * 711
    assert 9 / 2 < step(found, "Brain").seconds < 2 * 9  # seven plans without a thought
    assert 245_469 / 2 < charged_tokens(found) < 2 * 245_469
    assert 3.4e9 / 2 < needed(placement().lines, "memory") + 1.5e9 < 2 * 3.4e9  # beside Python's 0.6e9


def test_the_steps_add_up_to_the_whole():
    found = steps()
    assert total_seconds(Settings(), found) == pytest.approx(sum(one.seconds for one in found))
    named = ("Sensitivity", "Evaluations", "Sensitivities", "Brain")
    assert charged_tokens(found) == sum(step(found, what).tokens for what in named)


def test_tokens_follow_from_the_settings():
    found = steps()
    assert step(found, "Calibration").tokens == 16 * 2048
    assert step(found, "Sensitivity probes of 60 places").tokens == 60 * 512 + 1024
    assert step(found, "Dense targets").tokens == 4096 + 3072 + 4 * 1536 + 5120
    assert step(found, "Evaluations of 64 candidates, 36 of them in full").tokens == 64 * 1024 + 36 * 3072
    one, two = (step(steps(reporting_text=text), "Final choice").tokens for text in ("passages", "passages,c4"))
    assert two - one == 6 * 5120  # three baselines, the closed form, found, found and recalibrated
    assert one - step(steps(recalibrate=False), "Final choice").tokens == 3072 + 5120


def test_a_candidate_takes_the_time_of_the_layers_it_keeps():
    less, more = (step(steps(sizes=replace(SIZES, budget=Budget.from_sparsity(SPACE, s))), "Eval") for s in (0.5, 0.2))
    assert less.tokens == more.tokens
    assert more.seconds - less.seconds == pytest.approx(0.7 * 0.3 * less.tokens * 30 * SPEED.layer, rel=1e-2)


def test_a_search_that_learns_pays_for_the_sensitivities_at_its_best():
    found = steps(offspring=12, sensitivities=2)  # generations 1, 3 and 5 of five and a half
    assert step(found, "Sensitivities, 3 times").tokens == 3 * PASS_COST * 1536
    assert (
        step(steps(offspring=12, sensitivities=2, sensitivity_tokens=1024), "Sensitivities").tokens
        == 3 * PASS_COST * 1024
    )
    assert step(steps(sensitivities=0), "Sensitivities") is step(steps("evolution"), "Sensitivities") is None


def test_refits_cost_one_factor_a_place_a_pass_where_nothing_fits_and_one_in_all_where_everything_does():
    room = {name: placement(remembered=count) for name, count in {"all": 1 << 40, "one": 1 << 29, "none": 0}.items()}
    found = {name: step(steps(placed=one), "Least-squares") for name, one in room.items()}
    seconds = [found[name].seconds for name in ("all", "one", "none")]
    assert seconds == sorted(seconds) and seconds[0] < seconds[2]
    factor = sum(n**3 / 3 for n in SIZES.shape.channels.values()) * 30 * SPEED.operation
    walks, sensitivities = 9 * 2, 8 * 2  # 9 generations of 2 stages, and 8 measurements of sensitivities there and back
    solved = seconds[2] - factor * (walks + sensitivities)
    assert solved > 0 and seconds[2] < 64 * factor + solved  # far from one factor a candidate
    assert step(steps(compensation="bias"), "Least-squares") is step(steps(compensation="bias"), "Recalib") is None


def test_a_streamed_run_takes_as_long_as_its_passes_or_longer_and_counts_them():
    slow = replace(SPEED, read=1e-6, again=1e-6)
    streamed = placement(mode="streamed")
    found = steps(placed=streamed, speed=slow)
    pace = stream_seconds(streamed, slow)
    stored = 30 * SIZES.layer * 93_000_000 / SIZES.params
    assert pace == pytest.approx(stored * 1e-6)
    assert all(one.seconds >= one.passes * pace for one in found)
    passes = {one.what.split()[0]: one.passes for one in found if one.passes}
    assert passes["Calibration"] == 2 and passes["Dense"] == 2 and passes["Recalibration"] == passes["Export"] == 1
    assert passes["Sensitivities,"] == 7 * 2  # there and back
    tight = replace(streamed, state_memory=1 << 28)  # three sequences of 60 states at a time
    whole = steps(placed=tight, speed=slow, sensitivity_tokens=4096)  # eight sequences
    assert step(whole, "Sensitivities").passes == 7 * 2 * 3
    assert all(one.passes == 0 for one in steps())
    brain = next(one for one in found if one.what.startswith("Brain"))
    assert brain.passes > 7 * 10  # a pass for every token that is decided
    endpoint = steps(placed=streamed, speed=slow, brain="vllm", brain_url="http://localhost:1/v1")
    assert step(endpoint, "Brain").passes == 0


def test_files_that_memory_has_room_for_are_read_from_the_disk_once():
    slow = replace(SPEED, read=1e-6)
    wide, narrow = (placement(mode="streamed", there=machine(memory=gib)) for gib in (64, 2))
    assert stream_seconds(narrow, slow) > 100 * stream_seconds(wide, slow) > 0
    gpu = placement(mode="streamed", there=machine(24, memory=64))
    assert stream_seconds(gpu, replace(slow, upload=1e-3)) == pytest.approx(30 * SIZES.layer * 4 * 1e-3)


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


class Operations(TorchDispatchMode):
    """Counts the multiplications and additions of all products, factors and solves inside."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0.0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        found = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        if name in ("mm", "bmm"):
            self.count += 2 * found.numel() * args[0].shape[-1]
        elif name in ("addmm", "addmm_"):
            self.count += 2 * found.numel() * args[1].shape[-1]
        elif name == "linalg_solve_triangular":
            self.count += found.numel() * len(args[0])
        elif name == "linalg_cholesky_ex":
            self.count += len(args[0]) ** 3 / 3
        elif name.startswith("_scaled_dot_product"):
            query, key = args[:2]
            self.count += 4 * query.numel() * key.shape[-2]
        return found


def counted(run) -> float:
    with torch.no_grad(), Operations() as operations:
        run()
    return operations.count


@pytest.mark.parametrize("kept", [0.25, 0.5, 0.75])
def test_calibration_and_recalibration_cost_the_operations_that_they_are(kept):
    length, text = 64, torch.randint(512, (8, 64), generator=torch.Generator().manual_seed(0))
    model = tiny_model("llama", hidden_size=256, intermediate_size=1024, head_dim=32)
    layer, shape = model.model.layers[0], geometry(model.config)
    embedded = embed(model, text[:1])
    states, rest = embedded.hidden, {"attention_mask": None, "position_embeddings": embedded.position_embeddings}
    pace = counted(lambda: layer(states, **rest)) / length
    found = []
    calibrating = counted(lambda: found.append(calibrate(model, text)))
    elastic = ElasticModel(model, found[0], mlp_unit=8)
    sizes = replace(
        SIZES,
        shape=shape,
        budget=Budget.from_sparsity(elastic.space, 1 - kept),
        layer=sum(each.numel() for each in layer.parameters()),
        calibration_tokens=text.numel(),
        calibration_length=length,
    )
    speed = replace(NO_TIME, layer=pace, operation=1.0, head=1e9)  # the head is not gone through
    assert calibration_seconds(sizes, speed) == pytest.approx(calibrating, rel=0.02)
    profile = Profile((round(4 * kept),) * 3, (round(128 * kept),) * 3)
    recalibrating = counted(lambda: recalibrate(elastic, profile, text))
    assert recalibration_seconds(sizes, speed) == pytest.approx(recalibrating, rel=0.05)
    places = [(index, part) for index in range(3) for part in PARTS]
    for place in places:
        elastic.residual(*place)  # so that its factor is there
    solving = counted(lambda: [elastic.block_weights(*place, profile.widths(place[1])[place[0]]) for place in places])
    assert solves(sizes, 1) == pytest.approx(solving, rel=0.02)


def test_workers_share_what_is_measured_and_each_makes_the_refits_that_it_needs(monkeypatch):
    monkeypatch.setattr("torch.get_num_threads", lambda: 4)
    monkeypatch.setattr("self_pruner.tools.evaluation.workers.worker._cores", lambda: 8)
    one, two, four = (steps(placed=replace(placement(), workers=(room,))) for room in (None, Room(2, 2), Room(4, 4)))
    seconds = {
        what: [step(found, what).seconds for found in (one, two, four)] for what in ("Evaluat", "Least", "Calib")
    }
    first = seconds["Evaluat"][0]
    assert seconds["Evaluat"] == pytest.approx([first, first / 2, first / 2])  # four have two threads each
    assert seconds["Calib"] == pytest.approx([seconds["Calib"][0]] * 3)
    assert seconds["Least"][1] == pytest.approx(seconds["Least"][0])
    assert seconds["Least"][2] == pytest.approx(2 * seconds["Least"][0])
    streamed = [steps(placed=replace(placement(mode="streamed"), workers=(room,))) for room in (None, Room(2, 2))]
    alone, shared = (step(found, "Evaluations").passes for found in streamed)
    assert alone <= shared <= 2 * alone
