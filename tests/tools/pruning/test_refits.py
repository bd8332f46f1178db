"""The refits of a recalibration kept in a file: the same model again, and of nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from self_pruner.memory.errors import KeptFileError, MeasurementError, ModelError
from self_pruner.tools.pruning.recalibration import KeptRefits, load_refits, recalibrate
from tests.tools.evaluation.populations import tiny_elastic
from tests.tools.pruning.recalibrations import PROFILE, TEXT, recalibrated


def test_a_model_with_kept_refits_computes_what_the_recalibrated_one_does(tmp_path: Path):
    elastic, file = tiny_elastic(), tmp_path / "refits.safetensors"
    expected = recalibrated(elastic, share=0.5)
    made = recalibrate(elastic, PROFILE, TEXT, path=file, made_for="this")
    assert isinstance(made.refits, KeptRefits) and len(made.refits) == 6
    assert [path.name for path in tmp_path.iterdir()] == [file.name]
    kept = load_refits(file, "this", elastic, PROFILE)
    assert kept is not None
    found = elastic.recalibrated(kept)
    for one in (found, elastic.recalibrated(made)):
        assert torch.equal(one.logits(TEXT, PROFILE), expected.logits(TEXT, PROFILE))
    assert found.is_recalibrated and not elastic.is_recalibrated and found.model is elastic.model
    assert found.warnings == expected.warnings
    with pytest.raises(MeasurementError, match="no residuals"):
        found.residual(0, "mlp")
    with pytest.raises(ModelError, match="channels, not at"):
        found.block_weights(0, "mlp", 5)


def test_a_file_of_something_else_or_a_damaged_one_is_not_taken(tmp_path: Path):
    elastic, file = tiny_elastic(), tmp_path / "refits.safetensors"
    assert load_refits(file, "this", elastic, PROFILE) is None
    recalibrate(elastic, PROFILE, TEXT, path=file, made_for="this")
    assert load_refits(file, "another", elastic, PROFILE) is None
    with pytest.raises(KeptFileError, match="does not fit"):
        load_refits(file, "this", elastic, PROFILE.with_width(0, "mlp", 5))
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(KeptFileError, match="is damaged"):
        load_refits(file, "this", elastic, PROFILE)


def test_a_pass_that_ends_early_leaves_no_file(tmp_path: Path):
    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        recalibrate(tiny_elastic(), PROFILE, TEXT, path=tmp_path / "refits.safetensors", progress=stop)
    assert list(tmp_path.iterdir()) == []
