from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from self_pruner.memory.errors import MeasurementError
from self_pruner.tools.evaluation.targets import HEAD_TOKENS, DenseTargets
from self_pruner.tools.pruning.elastic import ElasticModel
from self_pruner.tools.pruning.store import ResidentLayers
from tests.tools.evaluation.populations import text, tiny_elastic


@pytest.fixture(scope="module")
def elastic() -> ElasticModel:
    return tiny_elastic("qwen2")


def build(elastic: ElasticModel, input_ids: torch.Tensor, k: int = 32) -> DenseTargets:
    return DenseTargets.build(elastic, ResidentLayers(elastic.model), input_ids, k=k)


def test_they_are_the_dense_models_own_top_probabilities(elastic: ElasticModel) -> None:
    input_ids = text(3, HEAD_TOKENS + 44)  # more than one head chunk, the last one short
    targets = build(elastic, input_ids)
    logprobs = elastic.model(input_ids).logits.log_softmax(-1)
    top = logprobs.topk(32, dim=-1)
    assert torch.allclose(targets.top, top.values, atol=1e-4)
    assert (targets.indices == top.indices).float().mean() > 0.999  # ties may swap
    rest = (1 - top.values.double().exp().sum(-1)).log()
    assert torch.allclose(targets.rest.double(), rest, atol=1e-4)
    nll = -logprobs[:, :-1].gather(2, input_ids[:, 1:, None]).mean((1, 2))
    assert targets.nll == pytest.approx(nll.tolist(), abs=1e-4)


def test_a_vocabulary_smaller_than_k_leaves_no_rest(elastic: ElasticModel) -> None:
    targets = build(elastic, text(1, 8), k=9999)
    assert targets.top.shape == (1, 8, 512)
    assert (targets.rest.exp() < 1e-30).all()


def test_a_saved_file_reads_back_the_same(elastic: ElasticModel, tmp_path: Path) -> None:
    targets = build(elastic, text(2, 16))
    targets.save(tmp_path / "targets.safetensors")
    loaded = DenseTargets.load(tmp_path / "targets.safetensors")
    assert loaded.nll == targets.nll
    for name in ("input_ids", "indices", "top", "rest"):
        assert torch.equal(getattr(loaded, name), getattr(targets, name))
    assert [path.name for path in tmp_path.iterdir()] == ["targets.safetensors"]


def test_a_file_of_something_else_is_refused(elastic: ElasticModel, tmp_path: Path) -> None:
    path = tmp_path / "targets.safetensors"
    with pytest.raises(MeasurementError, match="does not hold dense targets"):
        DenseTargets.load(path)
    path.write_text("not safetensors at all")
    with pytest.raises(MeasurementError, match="does not hold dense targets"):
        DenseTargets.load(path)
    save_file({"weight": torch.zeros(2)}, path)
    with pytest.raises(MeasurementError, match="does not hold dense targets"):
        DenseTargets.load(path)
    build(elastic, text(2, 16)).save(path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(MeasurementError, match="does not hold dense targets"):
        DenseTargets.load(path)


def test_a_text_without_a_next_token_is_refused(elastic: ElasticModel) -> None:
    with pytest.raises(MeasurementError, match="at least one sequence of two tokens"):
        build(elastic, text(3, 1))


def test_a_dense_model_that_is_not_finite_is_refused(elastic: ElasticModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(elastic, "head_input", lambda hidden: hidden * float("nan"))
    with pytest.raises(MeasurementError, match="not finite on sequence 0"):
        build(elastic, text(2, 16))


def test_progress_ends_at_its_total(elastic: ElasticModel) -> None:
    steps: list[tuple[int, int]] = []
    DenseTargets.build(
        elastic,
        ResidentLayers(elastic.model),
        text(2, 16),
        k=8,
        progress=lambda done, total: steps.append((done, total)),
    )
    assert steps == [(done, 5) for done in range(1, 6)]
