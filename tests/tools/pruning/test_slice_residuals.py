"""Residuals of plain slices: exact for every cut, in blocks of bounded size, each made once."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from self_pruner.tools.pruning import compensation
from self_pruner.tools.pruning.compensation import Compensator, slice_residuals
from self_pruner.tools.pruning.moments import Features
from tests.tools.pruning.test_compensation import CHANNELS, ROWS, problem


class Largest(TorchDispatchMode):
    """Counts the entries of the largest tensor that an operation gives, and all of those that matrix products give."""

    def __init__(self):
        super().__init__()
        self.entries = self.products = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        found = func(*args, **(kwargs or {}))
        if isinstance(found, Tensor):
            entries = found.numel() if func._schema.returns[0].alias_info is None else 0  # a view has no memory
            self.entries = max(self.entries, entries)
            self.products += entries * (func is torch.ops.aten.mm.default)
        return found


@pytest.mark.parametrize("centred", [False, True])
@pytest.mark.parametrize("block", [1, 5, 12, 512])
def test_residuals_of_slices_come_in_blocks_each_of_which_is_multiplied_once(monkeypatch, centred, block):
    monkeypatch.setattr(compensation, "GRAM_BLOCK", block)
    weight, inputs = problem()
    weight, inputs, cuts = weight[:2], inputs.double(), [0, 3, 7, 11]
    gram, sums = inputs.T @ inputs, inputs.sum(0)
    before = gram.clone()
    energy = weight.double().T @ weight.double() * (gram - centred * torch.outer(sums, sums) / ROWS)
    with Largest() as largest:
        found = slice_residuals(weight, gram, cuts, sums if centred else None, ROWS)
    assert found.dtype == torch.float64 and torch.equal(gram, before)
    assert found.tolist() == pytest.approx([energy[k:, k:].sum().item() for k in cuts], rel=1e-9)
    assert largest.entries <= max(CHANNELS, 2 * block, block**2) and largest.entries <= CHANNELS**2
    rows = [min(block, CHANNELS - start) for start in range(0, CHANNELS, block)]
    assert largest.products == sum(rows[i] * rows[j] for i in range(len(rows)) for j in range(i, len(rows)))


@pytest.mark.parametrize("kind", ["none", "bias"])
def test_residuals_of_either_kind_are_the_errors_of_what_it_gives(kind):
    weight, inputs = problem()
    features = Features(inputs.T @ inputs, inputs.sum(0), ROWS)
    made, cuts = Compensator(kind, 0), [1, 4, 9]
    found = made.residuals((0, "mlp"), weight, cuts, lambda: features)
    for k, residual in zip(cuts, found.tolist(), strict=True):
        kept, bias = made.projection((0, "mlp"), weight, None, k, lambda: features)
        wrong = inputs @ weight.T - inputs[:, :k] @ kept.T - (0 if bias is None else bias)
        assert residual == pytest.approx(float(wrong.square().sum()), rel=1e-3)
