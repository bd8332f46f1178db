"""Recalibration: every refit solves its least-squares problem on the pruned model's own activations, in order."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import NamedTuple

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from self_pruner.memory.profile import PARTS, Part, Profile
from self_pruner.tools.evaluation.targets import DenseTargets
from self_pruner.tools.evaluation.walk import PopulationWalk
from self_pruner.tools.export.card import CardFacts
from self_pruner.tools.export.publish import publish
from self_pruner.tools.pruning import least_squares
from self_pruner.tools.pruning.calibration import calibrate
from self_pruner.tools.pruning.elastic import ElasticModel
from self_pruner.tools.pruning.least_squares import factorise
from self_pruner.tools.pruning.recalibration import recalibrate, refit_bytes
from self_pruner.tools.pruning.store import OUTPUTS, output_projection
from tests.tiny import MLP_UNIT, tiny_model
from tests.tools.evaluation.populations import tiny_elastic
from tests.tools.pruning.recalibrations import OTHER, PROFILE, TEXT, recalibrated

WIDTHS = (PROFILE, Profile((1, 1, 4), (12, 1, 5)), Profile((3, 2, 2), (9, 11, 1)), Profile((4, 3, 3), (2, 7, 8)))
MODELS: dict[str, dict[str, object]] = {
    "llama": {},
    "llama, multi-head": {"mha": True},
    "llama, all biases": {"attention_bias": True, "mlp_bias": True},
    "qwen2, biases": {"family": "qwen2"},
    "qwen3, sliding window": {
        "family": "qwen3",
        "sliding_window": 6,
        "use_sliding_window": True,
        "max_window_layers": 1,
    },
}


class Problem(NamedTuple):
    """One output projection of the pruned model, with earlier ones refitted, as activations."""

    layer: int
    part: Part
    weight: Tensor  # [hidden, channels], dense
    inputs: Tensor  # [tokens, channels]
    target: Tensor  # [tokens, hidden], net of the bias

    def solution(self, k: int, damping: float = 0.01) -> Tensor:
        """The damped least squares as one tall plain problem: below the inputs are rows that say V = W[:, :k]."""
        below = self.ridge(damping) ** 0.5 * torch.eye(k, dtype=torch.float64)
        system = torch.cat([self.inputs[:, :k], below])
        return torch.linalg.lstsq(system, torch.cat([self.target, below @ self.weight[:, :k].T])).solution.T

    def ridge(self, damping: float) -> float:
        return damping * float(self.inputs.square().sum(0).mean())

    def error(self, kept: Tensor) -> float:
        return float((self.target - self.inputs[:, : kept.shape[1]] @ kept.double().T).square().sum())

    def objective(self, kept: Tensor, damping: float = 0.01) -> float:
        pull = float((kept.double() - self.weight[:, : kept.shape[1]]).square().sum())
        return self.error(kept) + self.ridge(damping) * pull


@torch.no_grad()
def problems(elastic: ElasticModel, profile: Profile, share: float = 1.0) -> Iterator[Problem]:
    """Every place in order, from two whole models in float64; the answer goes into the pruned one before the next.

    Whatever is removed reads as zero columns of the output projection, so the pruned model has the dense shapes.
    """
    dense, pruned = copy.deepcopy(elastic.model).double(), copy.deepcopy(elastic.model).double()
    for index in range(elastic.space.n_layers):
        for part in PARTS:
            output = output_projection(pruned.model.layers[index], part)
            before, _, inputs = run(pruned, index, part, TEXT)
            _, after, _ = run(dense, index, part, TEXT)
            target = (after - before).flatten(0, 1)
            if output.bias is not None:
                target = target - output.bias
            rows = inputs.flatten(0, 1)
            target = share * target + (1 - share) * rows @ output.weight.T
            problem = Problem(index, part, output.weight.clone(), rows, target)
            yield problem
            k = output.in_features // elastic.space.units(part) * profile.widths(part)[index]
            output.weight.zero_()
            output.weight[:, :k] = problem.solution(k)


def run(model, index: int, part: Part, ids: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The residual stream before and after one place, and the inputs of its output projection."""
    layer = model.model.layers[index]
    seen: dict[str, Tensor] = {}
    first, second = layer.input_layernorm, layer.post_attention_layernorm
    hooks = [
        first.register_forward_pre_hook(lambda _, inputs: seen.__setitem__("start", inputs[0])),
        second.register_forward_pre_hook(lambda _, inputs: seen.__setitem__("middle", inputs[0])),
        layer.register_forward_hook(lambda _, inputs, out: seen.__setitem__("end", out)),
        output_projection(layer, part).register_forward_pre_hook(lambda _, x: seen.__setitem__("inputs", x[0])),
    ]
    model(ids)
    for hook in hooks:
        hook.remove()
    names = ("start", "middle", "inputs") if part == "attention" else ("middle", "end", "inputs")
    before, after, inputs = (seen[name] for name in names)
    return before, after, inputs


@pytest.mark.parametrize("share", [1.0, 0.5, 0.0])
@pytest.mark.parametrize("profile", WIDTHS, ids=Profile.key)
@pytest.mark.parametrize("name", MODELS)
def test_every_place_solves_the_literal_problem(name, profile, share):
    elastic = tiny_elastic(**MODELS[name])
    found = recalibrated(elastic, profile, batch=4, share=share)
    for problem in problems(elastic, profile, share):
        width = profile.widths(problem.part)[problem.layer]
        k = problem.weight.shape[1] // elastic.space.units(problem.part) * width
        ours = found.block_weights(problem.layer, problem.part, width)[f"{OUTPUTS[problem.part]}.weight"]
        torch.testing.assert_close(ours.double(), problem.solution(k), rtol=1e-3, atol=3e-4)


@pytest.mark.parametrize("name", MODELS)
def test_no_other_refit_has_a_lower_damped_error_at_its_place(name):
    elastic = tiny_elastic(**MODELS[name])
    found = recalibrated(elastic)
    for problem in problems(elastic, PROFILE):
        width = PROFILE.widths(problem.part)[problem.layer]
        key = f"{OUTPUTS[problem.part]}.weight"
        ours = found.block_weights(problem.layer, problem.part, width)[key]
        slice_ = problem.weight[:, : ours.shape[1]]
        parallel = elastic.block_weights(problem.layer, problem.part, width).get(key, slice_)
        factor = factorise(lambda inputs=problem.inputs: (inputs.T @ inputs).float())
        on_own_inputs = factor.refit(problem.weight.float(), ours.shape[1])
        for other in (slice_, parallel, on_own_inputs):
            assert problem.objective(ours) <= problem.objective(other) * (1 + 1e-5) + 1e-8
        assert problem.error(ours) <= problem.error(slice_) * (1 + 1e-5) + 1e-8


@pytest.mark.parametrize("seed", range(4))
def test_the_recalibrated_model_is_closer_to_the_dense_one_on_the_text_it_saw(seed):
    elastic = tiny_elastic(seed=seed)
    dense = elastic.logits(TEXT, elastic.space.dense())
    searched = (elastic.logits(TEXT, PROFILE) - dense).square().mean()
    assert (recalibrated(elastic).logits(TEXT, PROFILE) - dense).square().mean() < searched / 2


@pytest.mark.parametrize("name", MODELS)
def test_the_dense_profile_stays_the_dense_function(name):
    elastic = tiny_elastic(**MODELS[name])
    dense = elastic.space.dense()
    found = recalibrated(elastic, dense)
    torch.testing.assert_close(found.logits(OTHER, dense), elastic.logits(OTHER, dense), rtol=1e-4, atol=1e-4)


def test_at_the_dense_profile_every_refit_is_the_dense_weight():
    elastic = tiny_elastic(family="qwen2")
    found = recalibrate(elastic, elastic.space.dense(), TEXT)
    for (index, part), refit in found.refits.items():
        weight = output_projection(elastic.model.model.layers[index], part).weight
        torch.testing.assert_close(refit, weight, rtol=1e-4, atol=1e-4)


def test_with_a_share_of_nothing_the_first_place_makes_up_for_its_own_units_alone():
    elastic = tiny_elastic()
    found = recalibrate(elastic, PROFILE, TEXT, share=0.0)
    weight = elastic.block_weights(0, "attention", 2)["o_proj.weight"]  # its inputs are those of the dense model
    inputs = run(elastic.model, 0, "attention", TEXT)[2].flatten(0, 1)
    expected = factorise(lambda: inputs.T @ inputs).refit(
        output_projection(elastic.model.model.layers[0], "attention").weight, weight.shape[1]
    )
    torch.testing.assert_close(found.refits[0, "attention"], expected, rtol=1e-5, atol=1e-6)


def test_the_share_is_what_is_made_up_for_of_the_first_error():
    elastic = tiny_elastic()
    whole, half, none = (recalibrate(elastic, PROFILE, TEXT, share=share).refits for share in (1.0, 0.5, 0.0))
    # what comes before the second place does not depend on the share: the first place has no error to carry
    torch.testing.assert_close(whole[0, "attention"], none[0, "attention"])
    change = whole[0, "mlp"] - none[0, "mlp"]
    assert change.abs().max() > 1e-3
    torch.testing.assert_close(half[0, "mlp"] - none[0, "mlp"], change / 2, rtol=1e-3, atol=1e-6)


def test_a_gram_matrix_that_is_needed_twice_is_made_twice(monkeypatch):
    elastic, tried = tiny_elastic(), []
    expected = recalibrate(elastic, PROFILE, TEXT).refits

    def inaccurate(lower, *_):
        tried.append(lower.dtype)
        return float("inf")

    monkeypatch.setattr(least_squares, "_error", inaccurate)  # of every factor in float32
    found = recalibrate(elastic, PROFILE, TEXT).refits
    assert tried == [torch.float32] * len(expected)
    for place, refit in expected.items():
        torch.testing.assert_close(found[place], refit, rtol=1e-3, atol=1e-4)


def test_how_the_text_is_batched_changes_nothing():
    elastic = tiny_elastic()
    one, all_ = (recalibrate(elastic, PROFILE, TEXT, batch=batch).refits for batch in (1, 8))
    for place, refit in one.items():
        torch.testing.assert_close(refit, all_[place], rtol=1e-3, atol=1e-4)


def test_the_elastic_model_is_left_as_it_was_and_shares_its_weights():
    elastic = tiny_elastic()
    before = {name: tensor.clone() for name, tensor in elastic.model.state_dict().items()}
    logits, residual = elastic.logits(OTHER, PROFILE), elastic.residual(1, "mlp")
    found = recalibrated(elastic)
    found.logits(OTHER, PROFILE)
    assert found.model is elastic.model and found.store is elastic.store and found.orders is elastic.orders
    assert all(torch.equal(before[name], tensor) for name, tensor in elastic.model.state_dict().items())
    assert torch.equal(elastic.logits(OTHER, PROFILE), logits) and torch.equal(elastic.residual(1, "mlp"), residual)
    assert elastic.block_weights(1, "attention", 4) == {} and not elastic.is_recalibrated
    assert "o_proj.weight" in found.block_weights(1, "attention", 4) and found.is_recalibrated
    assert not any(module._forward_pre_hooks for module in elastic.model.modules())


def test_the_bytes_of_the_refits_are_known_before():
    elastic = tiny_elastic()
    kept = recalibrate(elastic, PROFILE, TEXT)
    assert len(kept.refits) == 6
    held = sum(refit.untyped_storage().nbytes() for refit in kept.refits.values())
    assert held == refit_bytes(elastic, [PROFILE], full=True)
    assert refit_bytes(elastic, [PROFILE, PROFILE]) < held  # places at full width are refitted in recalibrations only
    other = PROFILE.with_width(2, "mlp", 5)
    assert refit_bytes(elastic, [PROFILE, other]) == refit_bytes(elastic, [PROFILE]) + 64 * 5 * MLP_UNIT * 4


@pytest.mark.parametrize("name", ["llama, multi-head", "qwen2, biases"])
def test_an_exported_folder_is_the_recalibrated_model(name, tmp_path):
    found = recalibrated(tiny_elastic(**MODELS[name]))
    card = CardFacts("tiny", "llama", 0.3, (), "random text", "python main.py")
    assert publish(found, PROFILE, None, tmp_path / "model", card, OTHER) <= 1e-4
    tensors = load_file(tmp_path / "model" / "model.safetensors")
    assert sum(tensor.numel() for tensor in tensors.values()) == found.space.params(PROFILE)


def test_a_walk_scores_the_recalibrated_model_and_keeps_no_state_of_the_other():
    elastic = tiny_elastic()
    found = recalibrated(elastic)
    targets = DenseTargets.build(elastic, elastic.store, OTHER, k=64)
    profiles = [PROFILE, PROFILE.with_width(2, "mlp", 5)]
    walk = PopulationWalk(elastic, elastic.store, targets, OTHER)
    searched = walk.measure(profiles, range(3))
    walk.elastic = found
    ours = walk.measure(profiles, range(3))
    assert ours[1].error is not None and "recalibrated at" in ours[1].error  # it has the widths of one profile
    ours, searched, profiles = ours[:1], searched[:1], profiles[:1]
    alone = PopulationWalk(found, found.store, targets, OTHER, prefix_memory=0).measure(profiles, range(3))
    assert [one.kl for one in ours] == [one.kl for one in alone] != [one.kl for one in searched]
    likely = torch.log_softmax(found.logits(OTHER, PROFILE), -1)[:, :-1].gather(-1, OTHER[:, 1:, None])
    assert ours[0].nll == pytest.approx((-likely).mean((1, 2)).tolist(), rel=1e-4)


def test_it_runs_in_the_type_of_the_weights():
    model = tiny_model("llama", dtype=torch.bfloat16)
    found = recalibrated(ElasticModel(model, calibrate(model, TEXT), mlp_unit=MLP_UNIT))
    assert found.block_weights(0, "mlp", 6)["down_proj.weight"].dtype == torch.bfloat16
    assert torch.isfinite(found.logits(OTHER, PROFILE)).all()


def test_progress_ends_where_it_said():
    told: list[tuple[int, int]] = []
    recalibrate(tiny_elastic(), PROFILE, TEXT, progress=lambda done, total: told.append((done, total)))
    assert told == [(1, 3), (2, 3), (3, 3)]
