"""Importance: the within-layer score that orders the units of one layer, most important first.

- wanda-sp: sum_i |W_ij| * ||X_j||, the structured form of Wanda (Sun et al., arXiv 2306.11695) used in FLAP.
- flap: WIFV, the variance of X_j times ||W_:j||^2 (An et al., FLAP, arXiv 2312.11983).
- magnitude: the sum of |w| over all weights of the unit.
- taylor: the sum of |w dL/dw| over the same, L the loss on a few short samples (the element-wise first-order criterion
  of LLM-Pruner, Ma et al., arXiv 2305.11627).

The first two score the input channels of the output projection (`o_proj`, `down_proj`); a KV group scores the sum of
its channels. MLP channels are sorted first and cut into blocks afterwards, so that a block
holds channels of like importance.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel

from self_pruner.memory.errors import MeasurementError
from self_pruner.memory.profile import PARTS, Part
from self_pruner.tools.pruning.calibration import INPUTS, Calibration
from self_pruner.tools.pruning.moments import ChannelMoments
from self_pruner.tools.pruning.store import LayerStore, brought, device_of, embed, linear, output_projection

Importance = Literal["wanda-sp", "flap", "magnitude", "taylor"]
IMPORTANCES: tuple[Importance, ...] = get_args(Importance)
TAYLOR_SEQUENCES, TAYLOR_LENGTH = 10, 64  # samples that `taylor` reads, as published


class Orders(NamedTuple):
    """Permutations by descending importance, one a layer: entry p is the old index of what comes to place p."""

    attention: list[Tensor]  # of KV groups, int64 [groups] each
    mlp: list[Tensor]  # of channels, int64 [intermediate] each


def wanda_sp(weight: Tensor, moments: ChannelMoments) -> Tensor:
    """Scores [in] of the input channels of `weight` [out, in], given their moments."""
    return weight.float().abs().sum(0) * moments.squares.clamp(min=0).sqrt().to(weight.device)


def flap_wifv(weight: Tensor, moments: ChannelMoments) -> Tensor:
    """Scores [in] of the input channels of `weight` [out, in], given their moments.

    The variance is the unbiased one; with a single row it is taken as zero.
    """
    # In float64: the variance is a small difference of large numbers when the mean is large.
    centred = moments.squares.double() - moments.sums.double().square() / moments.tokens
    variance = (centred.clamp(min=0) / max(moments.tokens - 1, 1)).float().to(weight.device)
    return variance * weight.float().square().sum(0)


def magnitude(*matrices: Tensor) -> Tensor:
    """Scores [n]: the sum of |w| over all weights of unit j, which are row j of every matrix [n, ...]."""
    return torch.stack([matrix.float().abs().flatten(1).sum(1) for matrix in matrices]).sum(0)


def group_scores(channel_scores: Tensor, n_groups: int) -> Tensor:
    """Scores [n_groups] of groups of equally many neighbouring channels: the sum of `channel_scores` [channels]."""
    return channel_scores.view(n_groups, -1).sum(1)


def linear_maps(layer: nn.Module, part: Part) -> list[nn.Linear]:
    """The linear maps of one part of a layer, its output projection last."""
    return [*(linear(layer, part, name) for name in INPUTS[part]), output_projection(layer, part)]


def by_unit(part: Part, matrices: Sequence[Tensor], n_groups: int) -> list[Tensor]:
    """Matrices shaped like the weights of `linear_maps`, each with a row a KV group or MLP channel: [units, ...]."""
    *inputs, output = matrices
    rows = [*inputs, output.T]
    return [matrix.reshape(n_groups, -1) for matrix in rows] if part == "attention" else rows


def unit_order(scores: Tensor) -> Tensor:
    """Permutation (int64) that sorts `scores` in descending order; equal scores keep their places."""
    return torch.argsort(scores, descending=True, stable=True)


def part_scores(
    layer: nn.Module, part: Part, moments: Callable[[], ChannelMoments], n_groups: int, method: Importance
) -> Tensor:
    """Scores of one layer: of the KV groups [n_groups] for attention, of the channels [intermediate] for the MLP.

    Args:
        layer: not yet reordered.
        part: one of its parts.
        moments: gives those of the input channels of its output projection; called only where they are needed.
        n_groups: KV groups of the layer.
        method: the importance.

    Raises:
        MeasurementError: the method is `taylor`, which is no matter of one layer; see `taylor_orders`.
    """
    weight = output_projection(layer, part).weight
    if method == "taylor":
        raise MeasurementError("first-order importance follows from a loss and is not known from the calibration")
    if method == "magnitude":
        return magnitude(*by_unit(part, [map_.weight for map_ in linear_maps(layer, part)], n_groups))
    channels = flap_wifv(weight, moments()) if method == "flap" else wanda_sp(weight, moments())
    return group_scores(channels, n_groups) if part == "attention" else channels


@torch.no_grad()
def importance_orders(store: LayerStore, calibration: Calibration, n_groups: int, method: Importance) -> Orders:
    """Orders of the KV groups and MLP channels of every layer of a model that is not yet reordered."""
    by_part: dict[Part, list[Tensor]] = {part: [] for part in PARTS}
    for index in range(len(store)):
        with store.layer(index) as layer:
            for part, orders in by_part.items():
                moments = partial(calibration.channel_moments, index, part)
                orders.append(unit_order(part_scores(layer, part, moments, n_groups, method)))
    return Orders(by_part["attention"], by_part["mlp"])


def taylor_orders(model: PreTrainedModel, store: LayerStore, input_ids: Tensor, n_groups: int) -> Orders:
    """Orders by first-order importance: one walk through the layers of a dense model there and back.

    Args:
        model: The dense model, not yet reordered; it is left as it was.
        store: Its layers, of which one at a time has gradients.
        input_ids: Calibration text [sequences, length]. The first `TAYLOR_LENGTH` tokens of `TAYLOR_SEQUENCES` of them
            are read, in one batch.
        n_groups: KV groups of a layer.

    Raises:
        MeasurementError: a sample has fewer than two tokens, or the loss or a gradient is not finite.
    """
    rows = input_ids[:TAYLOR_SEQUENCES, :TAYLOR_LENGTH].to(model.device)
    if rows.ndim != 2 or rows.shape[0] < 1 or rows.shape[1] < 2:
        raise MeasurementError(f"first-order importance needs samples of two tokens, got shape {tuple(rows.shape)}")
    with torch.no_grad():
        state, position_embeddings, masks = embed(model, rows)
        states = [state]
        for index in range(len(store)):
            with store.layer(index) as layer:
                states.append(_through(layer, states[-1], masks[index], position_embeddings))
    last = states.pop().detach().requires_grad_()
    with torch.enable_grad():
        logits = model.get_output_embeddings()(model.get_decoder().norm(last)).float()
        loss = functional.cross_entropy(logits[:, :-1].flatten(0, 1), rows[:, 1:].flatten().to(logits.device))
    (gradient,) = torch.autograd.grad(loss, last)
    found: dict[Part, list[Tensor]] = {part: [] for part in PARTS}
    for index in reversed(range(len(store))):
        with store.layer(index) as layer:
            weights = {part: [each.weight for each in linear_maps(layer, part)] for part in PARTS}
            wanted = [weight for of_part in weights.values() for weight in of_part]
            start = states.pop().detach().to(device_of(layer)).requires_grad_()
            needed = [weight.requires_grad for weight in wanted]
            try:
                with torch.enable_grad():
                    for weight in wanted:
                        weight.requires_grad_()
                    end = _through(layer, start, masks[index], position_embeddings)
                gradient, *of_weights = torch.autograd.grad(end, [start, *wanted], gradient.to(end.device))
            finally:
                for weight, before in zip(wanted, needed, strict=True):
                    weight.requires_grad_(before)
            with torch.no_grad():
                products = [weight.float() * each.float() for weight, each in zip(wanted, of_weights, strict=True)]
                for part in PARTS:
                    own, products = products[: len(weights[part])], products[len(weights[part]) :]
                    scores = magnitude(*by_unit(part, own, n_groups))
                    if not torch.isfinite(scores).all():
                        raise MeasurementError(
                            f"the loss has no finite gradient in the {part} of layer {index}; try --dtype float32"
                        )
                    found[part].insert(0, unit_order(scores))
    return Orders(found["attention"], found["mlp"])


def _through(layer: nn.Module, state: Tensor, mask: Tensor | None, position_embeddings: tuple[Tensor, ...]) -> Tensor:
    device = device_of(layer)
    brought_embeddings = brought(position_embeddings, device)
    out: Tensor = layer(state.to(device), attention_mask=brought(mask, device), position_embeddings=brought_embeddings)
    return out
