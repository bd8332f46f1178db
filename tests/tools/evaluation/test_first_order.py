"""Sensitivities are the gradient of the plain KL of the whole model along every refit, whatever memory there is."""

from __future__ import annotations

import copy
from functools import cache

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

from self_pruner.memory.profile import Part, Profile
from self_pruner.tools.evaluation.first_order import FirstOrderError, first_order_sensitivities, logit_gradient
from self_pruner.tools.evaluation.fitness import Buckets, bucketed_kl
from self_pruner.tools.evaluation.targets import HEAD_TOKENS, DenseTargets
from self_pruner.tools.evaluation.walk import PopulationWalk
from self_pruner.tools.profiles.sensitivity import Costs
from self_pruner.tools.pruning.compensation import COMPENSATIONS
from self_pruner.tools.pruning.elastic import ElasticModel
from self_pruner.tools.pruning.store import BLOCKS, OUTPUTS, output_projection
from tests.tools.evaluation.populations import PLACES, PROFILES, text, tiny_elastic

FAMILIES = {"llama": {}, "qwen2": {}, "mistral": {"sliding_window": 8}}
Replaced = dict[tuple[int, Part], tuple[Tensor, Tensor]]  # weight [out, channels] and bias [out] of output projections


class Plain:
    """The whole model in float64 with all units computed, and output projections that may be replaced."""

    def __init__(self, elastic: ElasticModel, targets: DenseTargets) -> None:
        self.elastic, self.targets = elastic, targets
        self.model = copy.deepcopy(elastic.model).double()

    def output(self, place: tuple[int, Part], width: int) -> tuple[Tensor, Tensor]:
        """The weight and bias that make up for the units from `width` on, whose columns are zero."""
        layer, part = place
        dense = output_projection(self.elastic.model.model.layers[layer], part)
        made = self.elastic.block_weights(layer, part, width)
        weight = made.get(f"{OUTPUTS[part]}.weight", dense.weight).double()
        bias = made.get(f"{OUTPUTS[part]}.bias", dense.bias)
        padded = nn.functional.pad(weight, (0, dense.in_features - weight.shape[1]))
        return padded, torch.zeros(dense.out_features).double() if bias is None else bias.double()

    def outputs(self, profile: Profile) -> Replaced:
        return {(layer, part): self.output((layer, part), profile.widths(part)[layer]) for layer, part in PLACES}

    def kl(self, replaced: Replaced, sequence: int) -> Tensor:
        """KL(dense || candidate) over the targets' buckets from whole logits, in nats a token."""
        overrides = {}
        for (layer, part), tensors in replaced.items():
            for kind, tensor in zip(("weight", "bias"), tensors, strict=True):
                overrides[f"model.layers.{layer}.{BLOCKS[part]}.{OUTPUTS[part]}.{kind}"] = tensor
        input_ids = self.targets.input_ids[sequence : sequence + 1]
        q = functional_call(self.model, overrides, (input_ids,)).logits[0].log_softmax(-1)
        indices, dense = self.targets.buckets(sequence, slice(None), torch.device("cpu"))
        top, p = q.gather(1, indices), dense.top.double().exp()
        rest = q.exp().scatter(1, indices, 0.0).sum(1).log()
        p_rest = dense.rest.double().exp()
        return ((p * (dense.top - top)).sum(1) + p_rest * (dense.rest - rest)).mean()


@cache
def plain(family: str, compensation: str, length: int = 24) -> Plain:
    elastic = tiny_elastic(family, compensation, **FAMILIES[family])
    return Plain(elastic, DenseTargets.build(elastic, elastic.store, text(2, length), k=48))


def found(known: Plain, profile: Profile, sequence: int = 1) -> Costs:
    (costs,) = first_order_sensitivities(known.elastic, known.elastic.store, known.targets, profile, [sequence])
    return costs


def widths(part: Part) -> range:
    return range(1, 5 if part == "attention" else 13)


@torch.enable_grad()
def literal(known: Plain, profile: Profile, sequence: int = 1) -> dict[tuple[int, Part], list[float]]:
    """The sensitivity of every width but 0 of every place, from autograd through the whole model."""
    own = {place: tuple(each.requires_grad_() for each in pair) for place, pair in known.outputs(profile).items()}
    known.kl(own, sequence).backward()
    expected: dict[tuple[int, Part], list[float]] = {}
    for (layer, part), pair in own.items():
        expected[layer, part] = [
            sum(
                float((before.grad * (after - before)).detach().sum())
                for before, after in zip(pair, known.output((layer, part), width), strict=True)
            )
            for width in widths(part)
        ]
    return expected


def assert_equal_to_the_greatest(costs: Costs, expected: dict[tuple[int, Part], list[float]], rel: float) -> None:
    """Every sensitivity agrees to a share of the greatest one."""
    greatest = max(abs(sensitivity) for row in expected.values() for sensitivity in row)
    for (layer, part), row in expected.items():
        assert list(costs.row(layer, part)[1:]) == pytest.approx(row, rel=0, abs=rel * greatest), (layer, part)


@pytest.mark.parametrize("profile", PROFILES, ids=Profile.key)
@pytest.mark.parametrize("compensation", COMPENSATIONS)
@pytest.mark.parametrize("family", FAMILIES)
def test_they_are_the_gradient_of_the_plain_kl_along_every_refit(family, compensation, profile):
    known = plain(family, compensation)
    assert_equal_to_the_greatest(found(known, profile), literal(known, profile), rel=1e-4)


def test_the_head_goes_in_chunks_and_gives_the_same():
    known = plain("llama", "lstsq", HEAD_TOKENS + 44)
    assert_equal_to_the_greatest(found(known, PROFILES[0]), literal(known, PROFILES[0]), rel=1e-4)


@pytest.mark.parametrize("compensation", COMPENSATIONS)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_small_step_towards_a_width_changes_the_kl_as_its_sensitivity_says(family, compensation):
    known, profile, step = plain(family, compensation), PROFILES[1], 1e-3
    measured, own = found(known, profile), known.outputs(profile)

    def moved(place: tuple[int, Part], width: int, share: float) -> float:
        ends = zip(own[place], known.output(place, width), strict=True)
        weight, bias = (before + share * (after - before) for before, after in ends)
        return float(known.kl({**own, place: (weight, bias)}, 1))

    steps: list[tuple[tuple[int, Part], int]] = [((0, "attention"), 1), ((1, "attention"), 4), ((1, "mlp"), 12)]
    for place, width in steps:
        sensitivity = (moved(place, width, step) - moved(place, width, -step)) / (2 * step)
        assert measured.row(*place)[width] == pytest.approx(sensitivity, rel=2e-3)


@pytest.mark.parametrize("compensation", COMPENSATIONS)
def test_the_widths_of_the_profile_itself_cost_nothing(compensation):
    known = plain("llama", compensation)
    for profile in (*PROFILES, known.elastic.space.dense(), known.elastic.space.smallest()):
        measured = found(known, profile)
        assert measured.total(profile) == 0.0
        assert all(measured.row(layer, part)[profile.widths(part)[layer]] == 0.0 for layer, part in PLACES)
        assert all(len(measured.row(layer, part)) == len(widths(part)) + 1 for layer, part in PLACES)


@pytest.mark.parametrize("compensation", COMPENSATIONS)
def test_the_dense_model_is_a_minimum_so_that_nothing_has_a_sensitivity_there(compensation):
    known = plain("qwen2", compensation)
    at_dense, pruned = found(known, known.elastic.space.dense()), found(known, PROFILES[0])
    greatest = max(abs(sensitivity) for layer, part in PLACES for sensitivity in pruned.row(layer, part))
    assert all(
        abs(sensitivity) < 1e-5 * greatest for layer, part in PLACES for sensitivity in at_dense.row(layer, part)
    )


def test_measuring_leaves_the_model_as_it_was():
    known = plain("llama", "lstsq")
    before = {name: tensor.clone() for name, tensor in known.elastic.model.state_dict().items()}
    logits = known.elastic.logits(known.targets.input_ids, PROFILES[0])
    found(known, PROFILES[0])
    assert all(torch.equal(tensor, before[name]) for name, tensor in known.elastic.model.state_dict().items())
    assert torch.equal(known.elastic.logits(known.targets.input_ids, PROFILES[0]), logits)
    assert all(each.grad is None and not each.requires_grad for each in known.elastic.model.parameters())


@pytest.mark.parametrize("k", [1, 8, 40])
def test_the_sensitivity_with_a_logit_is_that_of_the_bucketed_kl(k):
    generator = torch.Generator().manual_seed(0)
    dense = 3 * torch.randn(6, 40, generator=generator)
    logits = (dense + torch.randn(6, 40, generator=generator)).requires_grad_()
    indices = dense.topk(k, dim=1).indices

    def buckets(logits: Tensor) -> Buckets:
        chances = logits.log_softmax(1)
        rest = chances.exp().scatter(1, indices, 0.0).sum(1)
        return Buckets(chances.gather(1, indices), rest.clamp_min(torch.finfo(torch.float32).tiny).log())

    with torch.enable_grad():
        bucketed_kl(buckets(dense), buckets(logits)).sum().backward()
    assert logits.grad is not None
    torch.testing.assert_close(logit_gradient(logits.detach(), indices, buckets(dense)), logits.grad, rtol=0, atol=2e-6)


@pytest.fixture
def walk() -> PopulationWalk:
    elastic = tiny_elastic(refit_memory=0)
    ids = text(4, 24)
    return PopulationWalk(elastic, elastic.store, DenseTargets.build(elastic, elastic.store, ids, k=48), ids)


def test_a_pass_over_all_sequences_factors_a_place_at_most_twice_whatever_may_be_remembered(walk):
    expected = [costs for one in range(4) for _, costs in walk.first_order(PROFILES[0], [one])]
    before = walk.elastic.compensator.factorisations
    assert [costs for _, costs in walk.first_order(PROFILES[0], range(4))] == expected
    # once on the way there, where the width is not the dense one, and once on the way back
    assert walk.elastic.compensator.factorisations - before <= 2 * len(PLACES)


def test_memory_that_is_short_is_met_with_less_at_a_time_and_the_same_figures(walk, monkeypatch):
    expected = list(walk.first_order(PROFILES[0], range(4)))
    walk.measure(PROFILES, range(4))
    asked, real = [], walk.elastic.embed

    def small(ids: Tensor) -> object:
        asked.append((len(ids), len(walk.prefixes)))
        if len(ids) > 1:
            raise torch.OutOfMemoryError("no room")
        return real(ids)

    monkeypatch.setattr(walk.elastic, "embed", small)
    assert list(walk.first_order(PROFILES[0], range(4))) == expected
    kept = asked[0][1]
    assert kept > 0 and asked == [(4, kept), (4, 0), (2, 0), (1, 0), (1, 0), (1, 0), (1, 0)]

    def full(ids: Tensor) -> object:
        raise RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`\nand more")

    monkeypatch.setattr(walk.elastic, "embed", full)
    with pytest.raises(FirstOrderError, match="^out of memory even on one sequence: CUDA error: CUBLAS[^\n]*$"):
        list(walk.first_order(PROFILES[0], range(2)))


def test_states_of_all_sequences_stay_within_the_memory_for_states(walk, monkeypatch):
    expected = list(walk.first_order(PROFILES[0], range(4)))
    asked, real = [], walk.elastic.embed
    monkeypatch.setattr(walk.elastic, "embed", lambda ids: asked.append(len(ids)) or real(ids))
    walk.state_memory = 3 * 6 * 24 * 64 * 4
    assert list(walk.first_order(PROFILES[0], range(4))) == expected and asked == [3, 1]
