"""Requests with a static KV cache: the tokens of the model itself, and nothing that a CUDA graph could not hold.

No graph is captured without a GPU. What would break one is looked for on tensors without numbers: they have no value
to read back, and whatever comes from the host's memory stands out.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from self_pruner.memory.errors import MeasurementError
from self_pruner.memory.profile import Profile
from self_pruner.tools.benchmark_latency import timed_all, without_graphs
from self_pruner.tools.latency import measure as module
from self_pruner.tools.latency.measure import measure
from self_pruner.tools.latency.shapes import meta_model
from self_pruner.tools.latency.static_decoder import StaticDecoder, captured
from self_pruner.tools.profiles.operators import uniform
from self_pruner.tools.pruning.smaller_model import smaller_model
from tests.bench import tiny_bench, tiny_settings
from tests.tiny import FAMILY_NAMES, tiny_config, tiny_model
from tests.tools.evaluation.populations import text, tiny_elastic

PROFILE = Profile((4, 1, 2), (12, 3, 7))  # other numbers of heads in every layer
REQUEST: dict[str, Any] = {"prompt_tokens": 8, "decode_tokens": 3, "batch": 2, "repeats": 1}


@pytest.mark.parametrize("length", [1, 12])
@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_its_tokens_are_those_of_the_whole_sequence_read_at_once(family, length):
    model = smaller_model(tiny_elastic(family), PROFILE)
    prompt = text(2, length)
    decoder = StaticDecoder(model, prompt, 6)
    for _ in range(2):  # what the first request leaves behind is not seen by the second
        decoder.prefill()
        tokens = [decoder.token.clone()]
        for _ in range(6):
            decoder.step()
            tokens.append(decoder.token.clone())
        written = torch.cat([prompt, *tokens], 1)
        expected = model(written[:, :-1]).logits[:, length - 1 :].argmax(-1)
        assert torch.equal(written[:, length:], expected)
    assert len(written.unique()) > 3  # or agreement would say nothing
    groups = [layer.keys.shape for layer in decoder.layers]
    assert groups == [(2, own, length + 6, model.config.head_dim) for own in PROFILE.attention]


class Watch(TorchDispatchMode):
    """Names of operations with a tensor that is not on the meta device, but for a number that goes along by value."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        tensors = [leaf for leaf in tree_leaves((args, kwargs, result)) if isinstance(leaf, torch.Tensor)]
        if any(one.device.type != "meta" for one in tensors):
            self.found.append(str(func))
        return result


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_prompt_and_step_read_nothing_back_and_take_nothing_from_the_host(family):
    model = meta_model(tiny_config(family), [(4, 96), (1, 24), (2, 56)]).eval()
    decoder = StaticDecoder(model, torch.zeros(2, 8, dtype=torch.int64, device="meta"), 4)
    decoder.prefill()
    decoder.step()
    with Watch() as watch:
        decoder.prefill()
        decoder.step()
    assert watch.found == []
    with Watch() as watch, pytest.raises(RuntimeError):
        decoder.position.add_(torch.tensor([1]).to("meta")).item()
    assert watch.found  # the watch sees both


def test_attention_that_slides_over_less_than_a_request_is_refused():
    model = tiny_model("mistral", sliding_window=16)
    StaticDecoder(model, text(1, 12), 4)
    with pytest.raises(MeasurementError, match="slides over 16 tokens"):
        StaticDecoder(model, text(1, 12), 5)


def test_layers_on_several_devices_are_refused():
    model = tiny_model("llama")
    model.model.layers[1].to("meta")
    with pytest.raises(MeasurementError, match="its layers are on several"):
        StaticDecoder(model, text(1, 12), 4)


def test_without_a_gpu_an_action_is_run_once_and_stays_itself():
    calls: list[int] = []
    action = captured(lambda: calls.append(1), torch.device("cpu"))
    assert calls == [1]
    action()
    assert calls == [1, 1]


@pytest.fixture
def graphs(monkeypatch):
    """Requests are made as on a GPU, but for the capture."""
    monkeypatch.setattr(module, "in_graphs", lambda device: True)


def test_requests_in_graphs_are_timed(graphs, monkeypatch):
    monkeypatch.delattr(module, "request")  # nothing is launched one by one
    report = measure(tiny_elastic("llama"), PROFILE, **REQUEST)
    assert report.graph_fault == "" and min(report.prefill_ms, report.decode_ms, report.dense_decode_ms) > 0


def test_where_one_cannot_be_captured_both_are_launched_one_by_one_and_the_report_says_why(graphs, monkeypatch):
    made: list[StaticDecoder] = []

    def fails(decoder: StaticDecoder) -> Any:
        made.append(decoder)
        if len(made) == 2:
            raise RuntimeError("operation not permitted\nwhen stream is capturing")
        return decoder.prefill, decoder.step

    monkeypatch.setattr(StaticDecoder, "captured", fails)
    eager: list[object] = []
    request = module.request
    monkeypatch.setattr(module, "request", lambda model, *rest: eager.append(model) or request(model, *rest))
    report = measure(tiny_elastic("llama"), PROFILE, **REQUEST)
    assert report.graph_fault == "operation not permitted when stream is capturing"
    assert len(made) == 2 and len(set(map(id, eager))) == 2


def test_what_was_launched_one_by_one_is_counted_and_said_with_the_result(graphs, monkeypatch, tmp_path):
    bench = tiny_bench(tmp_path, tiny_settings())
    profiles = [bench.budget.space.dense(), uniform(bench.budget)]
    timed_all(bench, profiles[:1], 1)
    assert without_graphs(bench) == []

    def fails(decoder: StaticDecoder) -> Any:
        raise RuntimeError("no capture")

    monkeypatch.setattr(StaticDecoder, "captured", fails)
    assert timed_all(bench, profiles, 2)[profiles[1]].values["without_cuda_graphs"] == 1.0
    assert without_graphs(bench) == [
        "1 of 2 profiles were timed without CUDA graphs: their latency is that of launches"
    ]
    assert "CUDA graphs could not be captured: no capture" in bench.elastic.warnings
