"""Recalibration: the output projections of one chosen profile, refitted in order so that they make up for each other.

In the search every layer is refitted by itself, on dense inputs towards its dense output, so that one set of moments
serves all profiles. In the pruned model the inputs are off, and what the layers miss piles up in the residual stream.
Once a profile is chosen it gets moments of its own: with inputs X of the pruned model, whose earlier layers are
refitted already, and the dense residual stream as the target (He et al., "Channel Pruning for Accelerating Very Deep
Neural Networks", arXiv 1707.06168, aim the last layer of a residual branch so).

The dense and the pruned model walk over the calibration text together, sublayer by sublayer. E is what the residual
stream of the pruned one would lack after the sublayer if that were kept at full width. E^T X beside X^T X gives the
refit of every width from one factor (compensation.py), and the chosen width's takes the pruned model on. The target
X W^T + s E makes up for a share s of the error; the less text there is, the more a small share keeps from overfitting.

E is the small difference of two large states, so both streams are kept in float32 whatever the weights are in.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from self_pruner.memory.errors import MeasurementError
from self_pruner.memory.profile import PARTS, Part, Profile
from self_pruner.tools.pruning.calibration import INPUTS, Calibration, Features, Moments, Squares
from self_pruner.tools.pruning.compensation import Compensator
from self_pruner.tools.pruning.elastic import ElasticModel
from self_pruner.tools.pruning.store import Embedded, branch, linear, output_projection

SHARE = 0.5  # of the error, by default: on 32k tokens of text all of it overfits, none of it leaves it to pile up


@torch.no_grad()
def recalibrate(
    elastic: ElasticModel,
    profile: Profile,
    input_ids: Tensor,
    *,
    batch: int = 8,
    share: float = SHARE,
    progress: Callable[[int, int], None] | None = None,
) -> Calibration:
    """The moments of the pruned model at `profile`, with the errors that its output projections are to make up for.

    `ElasticModel.recalibrated` makes a model of them. `elastic` stays as it is, and the moments are in the order of its
    channels. Held in memory are two hidden states a token in float32, the inputs of one output projection at a time,
    and the moments.

    Args:
        elastic: A model with least-squares refits, not recalibrated itself; its damping applies.
        profile: Units kept; places at full width are refitted too.
        input_ids: Rows of tokens [n, length] without padding.
        batch: Sequences in one forward pass.
        share: Of the error E, what each refit is asked to make up for. At 0 it makes up for nothing but its own
            missing units, on the inputs that it will have.
        progress: Called as progress(done, total), in layers.

    Raises:
        MeasurementError: The model, the profile, the text or the share is not as above, or a state is not finite.
    """
    _check(elastic, profile, input_ids, share)
    embedded = [elastic.embed(rows) for rows in input_ids.split(batch)]
    states = [each.hidden.float() for each in embedded]
    walk = _Walk(elastic, embedded[0]._replace(hidden=states[0][:0]), list(states), states, share)
    del embedded, states
    refits = Compensator("lstsq", 0, elastic.compensator.damping)
    kept: dict[Part, list[Features]] = {part: [] for part in PARTS}
    squares: dict[Part, list[Tensor]] = {part: [] for part in PARTS}
    layers = len(elastic.store)
    for index in range(layers):
        with elastic.store.layer(index) as layer:
            for part in PARTS:
                place = _Place(layer, index, part)
                channels = place.output.in_features // elastic.space.units(part) * profile.widths(part)[index]
                walk.dense_on(place)
                features, read, inputs = walk.moments(place, channels)
                walk.pruned_on(place, inputs, features, refits)
                kept[part].append(features)
                squares[part].append(read)
        if progress is not None:
            progress(index + 1, layers)
    return Calibration(
        tuple(kept["attention"]),
        tuple(kept["mlp"]),
        tuple(squares["attention"]),
        tuple(squares["mlp"]),
        input_ids.numel(),
    )


def moment_bytes(elastic: ElasticModel) -> int:
    """Bytes of memory that a recalibration of `elastic` takes on the CPU."""
    hidden = elastic.model.config.hidden_size
    channels = [elastic.channels(part, elastic.space.units(part)) for part in PARTS]
    return 4 * len(elastic.store) * sum(each * (each + hidden) for each in channels)


@dataclass(frozen=True, slots=True)
class _Place:
    """One part of one layer."""

    layer: nn.Module
    index: int
    part: Part

    @property
    def output(self) -> nn.Linear:
        return output_projection(self.layer, self.part)


@dataclass(frozen=True, slots=True)
class _Walk:
    """The dense and the pruned model at one depth, on the same batches of text."""

    elastic: ElasticModel
    beside: Embedded  # what the layers need beside a state; the same for all rows, for they are equally long
    dense: list[Tensor]  # states [batch, length, hidden], float32
    pruned: list[Tensor]
    share: float

    def dense_on(self, place: _Place) -> None:
        """Take the dense model through `place`."""
        for number, state in enumerate(self.dense):
            self.dense[number] = state + self._added(place, state)

    def moments(self, place: _Place, channels: int) -> tuple[Features, Tensor, list[Tensor]]:
        """What `place` reads in the pruned model, where the dense one is through already.

        Returns:
            The moments with the carried errors, the squares of what the other projections read, and of the inputs of
            the output projection the first [batch, length, channels].
        """
        output, device = place.output, self.elastic.device
        moments, squares = Moments(output.in_features, device), Squares(output.out_features, device)
        carried = torch.zeros(output.weight.shape, dtype=torch.float64, device=device)
        seen: list[Tensor] = []
        hooks = [
            output.register_forward_pre_hook(moments),
            output.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0])),
            linear(place.layer, place.part, INPUTS[place.part][0]).register_forward_pre_hook(squares),
        ]
        try:
            for number, (dense, state) in enumerate(zip(self.dense, self.pruned, strict=True)):
                error = (dense - (state + self._added(place, state))).flatten(0, -2)
                carried += error.T @ seen[number].flatten(0, -2).float()
                seen[number] = seen[number][..., :channels].clone()
        finally:
            for hook in hooks:
                hook.remove()
        features = replace(moments.features(), carried=(self.share * carried).float().cpu())
        assert features.carried is not None
        if not (torch.isfinite(features.gram).all() and torch.isfinite(features.carried).all()):
            raise MeasurementError(
                f"the pruned model gives non-finite activations in the {place.part} of layer {place.index}; "
                "try --dtype float32"
            )
        return features, squares.sums.float().cpu(), seen

    def pruned_on(self, place: _Place, inputs: list[Tensor], features: Features, refits: Compensator) -> None:
        """Take the pruned model through `place`, with its output projection of `inputs` refitted."""
        output, channels = place.output, inputs[0].shape[-1]
        weight, bias = refits.projection(
            (place.index, place.part), output.weight, output.bias, channels, lambda: features
        )
        for number, rows in enumerate(inputs):
            self.pruned[number] = self.pruned[number] + functional.linear(rows, weight, bias)

    def _added(self, place: _Place, state: Tensor) -> Tensor:
        """What all units of `place` with their dense weights add to `state`, in the type of the weights."""
        _, position_embeddings, masks = self.beside
        hidden = state.to(self.elastic.dtype)
        return branch(place.layer, place.part, {}, hidden, position_embeddings, masks[place.index])


def _check(elastic: ElasticModel, profile: Profile, input_ids: Tensor, share: float) -> None:
    if elastic.compensation != "lstsq" or elastic.is_recalibrated:
        raise MeasurementError("only a model with least-squares refits is recalibrated, and only once")
    if not elastic.space.contains(profile):
        raise MeasurementError(f"not a profile of this model: {profile.key()}")
    if input_ids.ndim != 2 or input_ids.numel() == 0:
        raise MeasurementError(
            f"recalibration needs rows of tokens [sequences, length], got shape {tuple(input_ids.shape)}"
        )
    if not 0 <= share <= 1:
        raise MeasurementError(f"a share of the error is 0 to 1, got {share}")
