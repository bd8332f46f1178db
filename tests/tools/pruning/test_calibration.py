"""Calibration keeps the moments that a literal collection of activations gives, and its file is all or nothing."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from self_pruner.memory.errors import KeptFileError, MeasurementError
from self_pruner.memory.profile import PARTS, Part
from self_pruner.tools.pruning.calibration import FORMAT, INPUTS, Calibration, calibrate
from self_pruner.tools.pruning.store import OUTPUTS, linear
from tests.tiny import FAMILY_NAMES, tiny_model


def tokens(rows: int = 5, length: int = 24, seed: int = 0) -> Tensor:
    return torch.randint(0, 512, (rows, length), generator=torch.Generator().manual_seed(seed))


def collected(model, input_ids: Tensor, part: Part, name: str) -> list[Tensor]:
    """Inputs [tokens, channels] of one projection of every layer, in one plain forward pass of the whole model."""
    rows: list[Tensor] = []
    hooks = [
        linear(layer, part, name).register_forward_pre_hook(lambda _, inputs: rows.append(inputs[0].flatten(0, 1)))
        for layer in model.model.layers
    ]
    with torch.no_grad():
        model(input_ids)
    for hook in hooks:
        hook.remove()
    return rows


def assert_literal(model, input_ids: Tensor, batch: int) -> None:
    calibration = calibrate(model, input_ids, batch=batch)
    assert calibration.tokens == input_ids.numel()
    for part in PARTS:
        for layer, rows in enumerate(collected(model, input_ids, part, OUTPUTS[part])):
            features = calibration.features(layer, part)
            wide = rows.double()
            torch.testing.assert_close(features.gram.double(), wide.T @ wide, rtol=1e-5, atol=1e-5)
            torch.testing.assert_close(features.sums.double(), wide.sum(0), rtol=1e-5, atol=1e-5)
            assert features.tokens == len(rows)
        for name in INPUTS[part]:
            for layer, rows in enumerate(collected(model, input_ids, part, name)):
                literal = rows.double().square().sum(0)
                torch.testing.assert_close(calibration.input_squares(layer, part).double(), literal, rtol=1e-5, atol=0)


@pytest.mark.parametrize("mha", [False, True])
@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_moments_equal_those_of_activations_collected_in_a_plain_forward_pass(family, mha):
    assert_literal(tiny_model(family, mha), tokens(), batch=2)


@pytest.mark.parametrize("block", [1, 20, 64, 1000])
def test_a_gram_matrix_computed_in_blocks_is_the_literal_one_and_symmetric(monkeypatch, block):
    monkeypatch.setattr("self_pruner.tools.pruning.moments.GRAM_BLOCK", block)
    model = tiny_model("llama")
    assert_literal(model, tokens(), batch=2)
    gram = calibrate(model, tokens()).mlp[0].gram
    assert torch.equal(gram, gram.T)


def test_a_ragged_last_batch_changes_nothing():
    model = tiny_model("llama")
    whole, ragged = calibrate(model, tokens(), batch=5), calibrate(model, tokens(), batch=3)
    for layer in range(3):
        torch.testing.assert_close(whole.mlp[layer].gram, ragged.mlp[layer].gram)
        torch.testing.assert_close(whole.mlp_squares[layer], ragged.mlp_squares[layer])


@pytest.mark.parametrize(
    ("family", "overrides"),
    [
        ("mistral", {"sliding_window": 6}),
        ("qwen2", {"sliding_window": 6, "use_sliding_window": True, "max_window_layers": 1}),
        ("qwen3", {"sliding_window": 6, "use_sliding_window": True, "max_window_layers": 1}),
    ],
)
def test_sliding_windows_are_those_of_the_model_itself(family, overrides):
    assert_literal(tiny_model(family, **overrides), tokens(), batch=2)


def test_the_head_never_runs_and_the_model_is_left_as_it_was():
    model = tiny_model("llama")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}

    def fail(*_):
        raise AssertionError("the head ran")

    model.lm_head.register_forward_pre_hook(fail)
    calibrate(model, tokens())
    assert all(not module._forward_pre_hooks for layer in model.model.layers for module in layer.modules())
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_progress_counts_up_to_its_total():
    seen: list[tuple[int, int]] = []
    calibrate(tiny_model("llama"), tokens(), batch=2, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(done, 9) for done in range(1, 10)]


def test_a_saved_calibration_loads_as_it_was(tmp_path):
    calibration = calibrate(tiny_model("llama"), tokens())
    path = tmp_path / "cache" / "calibration.safetensors"
    calibration.save(path)
    loaded = Calibration.load(path)
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]
    assert loaded.tokens == calibration.tokens
    for part in PARTS:
        for layer in range(3):
            ours, theirs = calibration.features(layer, part), loaded.features(layer, part)
            assert torch.equal(ours.gram, theirs.gram) and torch.equal(ours.sums, theirs.sums)
            assert ours.tokens == theirs.tokens
            assert torch.equal(calibration.input_squares(layer, part), loaded.input_squares(layer, part))


def test_features_are_the_same_in_another_order_whether_they_are_in_memory_or_in_a_file(tmp_path, monkeypatch):
    calibration = calibrate(tiny_model("llama"), tokens())
    calibration.save(tmp_path / "file")
    monkeypatch.setattr(importlib.import_module(Calibration.__module__), "GRAM_BLOCK", 40)  # the last one is ragged
    for part in PARTS:
        order = torch.randperm(len(calibration.features(1, part).sums), generator=torch.Generator().manual_seed(1))
        here, there = (
            one.ordered_features(1, part, order) for one in (calibration, Calibration.load(tmp_path / "file"))
        )
        assert torch.equal(here.gram, there.gram) and torch.equal(here.sums, there.sums) and here.tokens == there.tokens
        assert torch.equal(here.gram, calibration.features(1, part).gram[order][:, order])


def write_truncated(path: Path) -> None:
    calibrate(tiny_model("llama"), tokens()).save(path)
    path.write_bytes(path.read_bytes()[:-100])


def write_foreign(path: Path) -> None:
    save_file({"weight": torch.zeros(2)}, path)


def write_incomplete(path: Path) -> None:
    save_file({"mlp.0.gram": torch.zeros(2, 2)}, path, {"format": FORMAT, "layers": "1", "tokens": "1"})


def write_older(path: Path) -> None:
    save_file({"mlp.0.gram": torch.zeros(2, 2)}, path, {"format": "self-pruner calibration 1", "layers": "1"})


@pytest.mark.parametrize(
    ("write", "sentence"),
    [
        (write_truncated, "is damaged"),
        (write_incomplete, "is damaged"),
        (write_foreign, "is not a calibration file"),
        (write_older, "is not a calibration file of this version; delete it"),
        (lambda path: path.write_bytes(b""), "is damaged"),
        (lambda path: None, "there is no calibration file"),
    ],
)
def test_a_file_that_is_no_whole_calibration_is_refused_in_one_sentence(tmp_path, write, sentence):
    path = tmp_path / "calibration.safetensors"
    write(path)
    with pytest.raises(KeptFileError, match=sentence):
        Calibration.load(path)


def test_a_calibration_that_is_written_as_it_is_made_is_the_same_file(tmp_path):
    together, apart = tmp_path / "together.safetensors", tmp_path / "apart.safetensors"
    calibrate(tiny_model("llama"), tokens()).save(together)
    made = calibrate(tiny_model("llama"), tokens(), path=apart)
    assert apart.read_bytes() == together.read_bytes()
    made.save(apart)  # it is there already
    assert made.features(1, "mlp").gram.shape == (96, 96) and len(made.attention) == 3


@pytest.mark.parametrize("as_it_is_made", [False, True])
def test_a_write_that_fails_leaves_neither_file_nor_remains(tmp_path, monkeypatch, as_it_is_made):
    def full(*_):
        raise OSError(28, "No space left on device")

    path = tmp_path / "calibration.safetensors"
    monkeypatch.setattr("self_pruner.tools.pruning.calibration.TensorWriter.write", full)
    with pytest.raises((OSError, KeptFileError), match="No space left"):
        calibrate(tiny_model("llama"), tokens(), path=path if as_it_is_made else None).save(path)
    assert list(tmp_path.iterdir()) == []


def test_empty_text_is_refused():
    with pytest.raises(MeasurementError, match="rows of tokens"):
        calibrate(tiny_model("llama"), torch.zeros(0, 8, dtype=torch.long))


def test_activations_that_are_not_finite_name_the_layer():
    model = tiny_model("llama")
    model.model.layers[1].mlp.up_proj.weight[0, 0] = float("nan")
    with pytest.raises(MeasurementError, match="mlp of layer 1"):
        calibrate(model, tokens())


def test_a_calibration_that_cannot_be_opened_is_made_anew_and_no_traceback(tmp_path):
    (tmp_path / "kept.safetensors").mkdir()
    with pytest.raises(KeptFileError, match="calibration file .* is damaged"):
        Calibration.load(tmp_path / "kept.safetensors")
