import math

import pytest
import torch

from benchmarks.gpu import bandwidth, refits, walk
from benchmarks.gpu.device import Device
from benchmarks.gpu.headline import Depth, Request, _Timer, depth_that_fits, losses, speedups
from benchmarks.gpu.profiles import models, real_shapes, space_of_config, toy_shapes
from benchmarks.gpu.record import Record, figure
from self_pruner.memory.profile import Profile
from self_pruner.tools.latency.shapes import random_model
from self_pruner.tools.models.families import space_of
from self_pruner.tools.profiles.budget import Budget
from self_pruner.tools.profiles.operators import random_profile, uniform
from self_pruner.tools.pruning.least_squares import factorise


def test_all_layers_of_equal_seconds_follow_from_two_depths():
    depth = Depth(layers=80, deep=10, shallow=5)
    assert depth.whole(deep=3.0 + 10 * 0.2, shallow=3.0 + 5 * 0.2) == pytest.approx(3.0 + 80 * 0.2)
    assert depth.whole(deep=1.0, shallow=1.5) == 1.0  # noise is no negative layer
    assert Depth(80, 80, 0).whole(7.0, 0.0) == 7.0


def test_what_some_layers_take_is_never_told_of_all_of_them():
    timer = _Timer(None, None, None, Request(512, 128, 32, 3), Depth(80, 40, 20), torch.bfloat16, 1.0, 1.0)
    deep = {"model": "49B", "linear": 1.4, "paper": 1.39, "batch": 1, "mode": "graph"}
    deep |= {"prefill_ms": 40.0, "decode_ms": 4.0, "timed_decode_ms": 4.0}
    whole = timer._whole(deep, {"batch": 1, "mode": "graph", "prefill_ms": 20.0, "decode_ms": 2.0})
    assert whole["request_ms"] == pytest.approx(80 + 128 * 8) and "error" not in whole

    dense = {**whole, "model": "dense"}
    for shallow, why in (
        ({"batch": 1, "mode": "graph", "error": "out of memory"}, "out of memory"),
        (None, "only one"),
    ):
        row = timer._whole(deep, shallow)
        assert row["error"].startswith(why) and not {"prefill_ms", "decode_ms", "request_ms"} & row.keys()
        assert speedups([dense, row]) == []


@pytest.mark.parametrize(
    ("free", "expected"),
    [
        (None, Depth(80, 80, 0)),
        (150e9, Depth(80, 80, 0)),
        (80e9, Depth(80, 42, 21)),
        (1e9, Depth(80, 2, 1)),
    ],
)
def test_as_many_layers_are_timed_as_fit(free, expected):
    assert depth_that_fits(80, 1.76e9, 4e9, free) == expected


def test_the_models_have_the_sizes_that_their_names_say():
    made = {model.name: model for model in models(real_shapes())}
    assert made["dense"].parameters == 68_976_648_192  # LLaMA-2-70B
    for name, model in made.items():
        if name != "dense":
            assert model.parameters == pytest.approx(1e9 * float(name[:2]), rel=2e-3), name
            assert model.linear == made["dense"].parameters / model.parameters
            assert len(model.sizes) == 80
    assert made["49B unequal"].aligned == 1.0
    assert made["49B unequal, units of 32"].aligned < 0.5
    cut = [groups < 8 for groups, _ in made["49B unequal"].sizes]
    assert 80 / 4 < sum(cut) < 80 / 2
    assert len({channels for _, channels in made["35B unequal"].sizes}) > 40


def test_the_space_from_a_config_is_that_of_the_model():
    config = toy_shapes().giant
    sizes = [(config.num_key_value_heads, config.intermediate_size)] * config.num_hidden_layers
    model = random_model(config, sizes, dtype=torch.float32)
    assert space_of_config(config, 32) == space_of(model, 32)


def test_a_layer_has_the_bytes_of_its_parameters():
    assert bandwidth.layer_bytes(real_shapes()) == 1_711_308_800


def test_a_copy_is_hidden_where_both_take_as_long_as_the_longer():
    assert bandwidth.hidden(1.0, 2.0, 2.0) == 1.0
    assert bandwidth.hidden(1.0, 2.0, 3.0) == 0.0
    assert bandwidth.hidden(2.0, 1.0, 2.5) == 0.5


def test_repeats_give_their_median_and_their_spread_without_the_outer_twentieths():
    assert figure([1.0, 4.0, 2.0]) == {"median": 2.0, "spread": 1.5, "repeats": [1.0, 4.0, 2.0]}
    many = [100.0] + [1.0] * 18 + [0.1]
    assert figure(many)["spread"] == 0.0


def test_a_speed_up_is_dense_over_own_in_the_same_batch_and_mode():
    def row(model, batch, prefill, decode):
        facts = {"linear": 1.4, "paper": 1.39, "mode": "graph", "request_ms": prefill + 10 * decode}
        return {"model": model, "batch": batch, "prefill_ms": prefill, "decode_ms": decode, **facts}

    rows = [row("dense", 1, 10.0, 4.0), row("49B", 1, 8.0, 3.0), row("49B", 16, 8.0, 3.0), {"model": "35B"}]
    (found,) = speedups([*rows, row("dense again", 1, 10.0, 4.0)])
    assert (found["prefill"], found["decode"]) == (1.25, 1.333)
    assert found["request"] == pytest.approx(50 / 38, rel=1e-3)


def test_what_is_lost_adds_up_to_what_the_step_takes_above_the_linear_share():
    def row(model, linear, attention, mlp, head, whole):
        pieces = {name: {"ms": ms} for name, ms in (("attention", attention), ("mlp", mlp), ("head", head))}
        return {"model": model, "batch": 1, "linear": linear, "pieces": pieces, "timed_decode_ms": whole}

    (lost,) = losses([row("dense", 1.0, 10.0, 30.0, 2.0, 44.0), row("35B", 2.0, 8.0, 15.0, 2.0, 26.5)])
    assert lost == {
        "model": "35B",
        "batch": 1,
        "lost_ms": 4.5,
        "attention": 3.0,
        "mlp": 0.0,
        "head": 1.0,
        "rest": 0.5,
    }


def test_every_way_to_refit_solves_the_damped_equations():
    problem = refits.make_problem(Device("cpu"), hidden=24, channels=48, tokens=96, toy=True)
    exact = refits._float64_gram(problem)
    for gram in (refits.product_gram(problem, 32), refits.earlier_gram(problem, 32), refits.float32_gram(problem)):
        assert refits.relative_error(gram, exact) < 1e-6
    wanted = factorise(exact.float, refits.DAMPING).refit(problem.weight, problem.kept)
    solved = refits.float64_refit(problem, exact.clone())
    torch.testing.assert_close(solved.float(), wanted, rtol=1e-4, atol=1e-6)
    for way in (
        refits.product_refit(problem, exact.float())[0],
        refits.solved_refit(problem, exact.float(), torch.float64)[0],
        refits.solved_refit(problem, exact.float(), torch.float32)[0],
    ):
        assert refits.relative_error(way(), solved) < 1e-4


def test_a_factor_without_an_inverse_holds_as_much_but_says_where_it_fails():
    problem = refits.make_problem(Device("cpu"), hidden=24, channels=48, tokens=96, toy=True)
    broken = -torch.eye(48)
    with pytest.raises(RuntimeError, match="not positive definite"):
        refits.solved_refit(problem, broken, torch.float32)


def test_offspring_are_distinct_and_on_budget():
    import random

    budget = Budget.from_sparsity(space_of_config(real_shapes().giant, 128), 0.3)
    rng = random.Random(0)
    children = walk.offspring_of(budget, [uniform(budget), random_profile(budget, rng)], rng)
    assert len(children) == len(set(children)) == walk.OFFSPRING
    assert all(isinstance(child, Profile) and budget.holds(child) for child in children)


def test_a_record_is_whole_after_every_measurement(tmp_path):
    import json

    record = Record(tmp_path / "part.json", "bandwidth", 20, {"tokens": 3})
    row = record.row(copy="a", seconds=figure([1.0, 2.0]))
    row["later"] = math.pi
    record.set(device={"name": "d"})
    content = json.loads((tmp_path / "part.json").read_text())
    assert content["status"] == "running"
    assert content["rows"] == [{"copy": "a", "seconds": figure([1.0, 2.0]), "later": math.pi}]
    record.target("share", 0.856789, least=0.85)
    record.target("bytes", None, most=1e9)
    record.end("failed", "why")
    content = json.loads((tmp_path / "part.json").read_text())
    assert (content["status"], content["why"]) == ("failed", "why")
    assert content["targets"] == [
        {"figure": "share", "value": 0.8568, "target": "at least 0.85", "met": True},
        {"figure": "bytes", "value": None, "target": "at most 1e+09", "met": False},
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["part.json"]
