from __future__ import annotations

import pytest
import torch

from self_pruner.memory.errors import MeasurementError, ModelError
from self_pruner.memory.profile import Profile
from self_pruner.tools.latency.measure import measure
from self_pruner.tools.pruning.elastic import ElasticModel
from self_pruner.tools.pruning.smaller_model import smaller_model
from tests.tiny import FAMILY_NAMES
from tests.tools.evaluation.populations import text, tiny_elastic

PROFILE = Profile((4, 1, 2), (12, 3, 7))


@pytest.fixture(scope="module")
def elastic() -> ElasticModel:
    return tiny_elastic("llama")


@pytest.mark.parametrize("compensation", ["none", "bias", "lstsq"])
@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_the_smaller_model_is_the_candidate(family: str, compensation: str) -> None:
    elastic = tiny_elastic(family, compensation)
    input_ids = text(2, 20)
    smaller = smaller_model(elastic, PROFILE)
    assert torch.allclose(smaller(input_ids).logits, elastic.logits(input_ids, PROFILE), atol=1e-4)


def test_it_decodes_with_a_cache_as_it_reads(elastic: ElasticModel) -> None:
    input_ids = text(2, 20)
    smaller = smaller_model(elastic, PROFILE)
    output = smaller(input_ids[:, :12], use_cache=True)
    steps = []
    for position in range(12, 20):
        output = smaller(input_ids[:, position : position + 1], past_key_values=output.past_key_values, use_cache=True)
        steps.append(output.logits[:, 0])
    assert torch.allclose(torch.stack(steps, 1), smaller(input_ids).logits[:, 12:], atol=1e-4)


def test_its_tensors_are_really_smaller_and_the_rest_is_shared(elastic: ElasticModel) -> None:
    smaller = smaller_model(elastic, PROFILE)
    space = elastic.space
    assert sum(parameter.numel() for parameter in smaller.parameters()) == space.params(PROFILE)
    assert all(parameter.is_contiguous() and parameter.device.type == "cpu" for parameter in smaller.parameters())
    assert smaller.get_input_embeddings() is elastic.model.get_input_embeddings()
    layers = smaller.get_decoder().layers
    assert layers[1].mlp.down_proj.weight.shape == (64, 3 * space.mlp_unit)
    assert layers[1].mlp.down_proj.weight.untyped_storage().nbytes() == 64 * 3 * space.mlp_unit * 4


def test_the_dense_model_is_as_it_was(elastic: ElasticModel) -> None:
    input_ids = text(1, 16)
    before = elastic.model(input_ids).logits
    measure(elastic, PROFILE, prompt_tokens=8, decode_tokens=2, batch=1, repeats=1)
    assert torch.equal(elastic.model(input_ids).logits, before)


def test_a_report_agrees_with_itself(elastic: ElasticModel) -> None:
    report = measure(elastic, PROFILE, prompt_tokens=16, decode_tokens=3, batch=2, repeats=3)
    assert (report.prompt_tokens, report.decode_tokens, report.batch, report.repeats) == (16, 3, 2, 3)
    numbers = [value for value in vars(report).values() if isinstance(value, float)]
    assert len(numbers) == 13
    assert all(number >= 0 for number in numbers)
    fastest = 2 * 4 * 1e3 / (report.prefill_ms + 3 * report.decode_ms)
    assert report.tokens_per_second == pytest.approx(fastest, rel=0.8)


def test_dense_and_candidate_are_timed_in_turn_after_a_warm_up(
    elastic: ElasticModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    import self_pruner.tools.latency.measure as module

    clock = iter(range(1000))
    asked: list[bool] = []

    def request(model: object, prompt: torch.Tensor, decode_tokens: int) -> module.Timing:
        asked.append(model is elastic.model)
        slow = 2.0 if model is elastic.model else 1.0
        return module.Timing(prefill=slow, decode=4 * slow + 0 * next(clock))

    monkeypatch.setattr(module, "request", request)
    report = measure(elastic, PROFILE, prompt_tokens=8, decode_tokens=4, batch=3, repeats=3)
    assert asked == [True, False, True, False, False, True, True, False]
    assert (report.prefill_ms, report.decode_ms, report.tokens_per_second) == (1000.0, 1000.0, 3.0)
    assert (report.dense_prefill_ms, report.dense_decode_ms, report.dense_tokens_per_second) == (2000.0, 2000.0, 1.5)
    assert (report.speedup_prefill, report.speedup_decode, report.speedup) == (2.0, 2.0, 2.0)
    assert report.prefill_spread == report.dense_decode_spread == 0.0


@pytest.mark.parametrize("setting", ["prompt_tokens", "decode_tokens", "batch", "repeats"])
def test_a_request_of_nothing_is_refused(elastic: ElasticModel, setting: str) -> None:
    settings = dict(prompt_tokens=8, decode_tokens=2, batch=1, repeats=1) | {setting: 0}
    with pytest.raises(MeasurementError, match="needs at least 1 for"):
        measure(elastic, PROFILE, **settings)


def test_a_request_beyond_the_context_is_refused(elastic: ElasticModel) -> None:
    with pytest.raises(MeasurementError, match="longer than the model's context of 2048"):
        measure(elastic, PROFILE, prompt_tokens=2048, decode_tokens=1, batch=1, repeats=1)


def test_a_profile_of_another_model_is_refused(elastic: ElasticModel) -> None:
    with pytest.raises(ModelError):
        smaller_model(elastic, Profile((5, 1, 1), (1, 1, 1)))
