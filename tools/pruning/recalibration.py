"""Recalibration: the output projections of one chosen profile, refitted in order so that they make up for each other.

In the search every layer is refitted by itself, on dense inputs towards its dense output, so that one set of moments
serves all profiles. In the pruned model the inputs are off, and what the layers miss piles up in the residual stream.
Once a profile is chosen it gets moments of its own: with inputs X of the pruned model, whose earlier layers are
refitted already, and the dense residual stream as the target (He et al., "Channel Pruning for Accelerating Very Deep
Neural Networks", arXiv 1707.06168, aim the last layer of a residual branch so).

The dense and the pruned model walk over the calibration text together, sublayer by sublayer. E is what the residual
stream of the pruned one would lack after the sublayer if that were kept at full width. E^T X beside X^T X gives the
refit of the width that was chosen (least_squares.py), which takes the pruned model on and is all that is kept. The
target X W^T + s E makes up for a share s of the error; the less text there is, the more a small share keeps from
overfitting.

E is the small difference of two large states, so both streams are kept in float32 whatever the weights are in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.nn import functional

from self_pruner.memory.errors import KeptFileError, MeasurementError, ModelError
from self_pruner.memory.profile import PARTS, Part, Profile
from self_pruner.tools.models.tensor_files import TensorFiles, TensorWriter
from self_pruner.tools.pruning.compensation import Place, Recalibration
from self_pruner.tools.pruning.elastic import ElasticModel
from self_pruner.tools.pruning.least_squares import Factor, factorise
from self_pruner.tools.pruning.moments import Moments
from self_pruner.tools.pruning.store import Embedded, branch, device_of, output_projection

FORMAT = "self-pruner refits 1"  # of the file that keeps a recalibration
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
    path: Path | None = None,
    made_for: str = "",
) -> Recalibration:
    """The output projections of `profile`, refitted in order so that they make up for each other.

    `ElasticModel.recalibrated` makes a model of them. `elastic` stays as it is. Held in memory are two hidden states a
    token in float32, of one place at a time the moments and the inputs of the output projection, and, unless a file
    takes them, the refits.

    Args:
        elastic: A model with least-squares refits, not recalibrated itself; its damping applies.
        profile: Units kept; places at full width are refitted too.
        input_ids: Rows of tokens [n, length] without padding.
        batch: Sequences in one forward pass.
        share: Of the error E, what each refit is asked to make up for. At 0 it makes up for nothing but its own
            missing units, on the inputs that it will have.
        progress: Called as progress(done, total), in layers.
        path: A file that takes each refit as it is made, from which it is read when it is asked for. It has its name
            once all of them are there.
        made_for: What that file says it is of.

    Raises:
        MeasurementError: The model, the profile, the text or the share is not as above, or a state is not finite.
        OSError: The file cannot be written.
    """
    _check(elastic, profile, input_ids, share)
    made = _refits(elastic, profile, input_ids, batch, share, progress)
    if path is None:
        return Recalibration(profile, dict(made))
    expected = {_name(place): (elastic.dtype, shape) for place, shape in _shapes(elastic, profile).items()}
    with TensorWriter(path, expected, {"format": FORMAT, "made_for": made_for}) as writer:
        for place, refit in made:
            writer.write(_name(place), refit)
    return Recalibration(profile, KeptRefits(TensorFiles([path]), tuple(_shapes(elastic, profile))))


@torch.no_grad()
def _refits(
    elastic: ElasticModel,
    profile: Profile,
    input_ids: Tensor,
    batch: int,
    share: float,
    progress: Callable[[int, int], None] | None,
) -> Iterator[tuple[Place, Tensor]]:
    """The refits of all places in their order, on the CPU."""
    embedded = [elastic.embed(rows) for rows in input_ids.split(batch)]
    states = [each.hidden.float().to(elastic.states) for each in embedded]
    walk = _Walk(elastic, embedded[0]._replace(hidden=states[0][:0]), list(states), states, share)
    del embedded, states
    layers = len(elastic.store)
    for index in range(layers):
        with elastic.store.layer(index) as layer:
            for part in PARTS:
                at = _At(layer, index, part)
                channels = elastic.channels(part, profile.widths(part)[index])
                walk.dense_on(at)
                moments, carried, inputs = walk.moments(at, channels)
                made = [moments.gram()]
                del moments  # the factor takes over the memory of the matrix
                factor = factorise(partial(walk.gram, at, channels, made), elastic.compensator.damping)
                refit = walk.refit(at, factor, carried, channels)
                del factor, carried
                walk.pruned_on(at, inputs, refit)
                del inputs
                yield (index, part), refit.cpu()
        if progress is not None:
            progress(index + 1, layers)


def refit_bytes(elastic: ElasticModel, profiles: Sequence[Profile], *, full: bool = False) -> int:
    """Bytes of all distinct refits of `profiles`; with `full` of places at full width too, as in a recalibration."""
    if elastic.compensation != "lstsq":
        return 0
    widths = {
        (index, part, width)
        for profile in profiles
        for part in PARTS
        for index, width in enumerate(profile.widths(part))
        if full or width < elastic.space.units(part)
    }
    channels = sum(elastic.channels(part, width) for _, part, width in widths)
    return channels * elastic.model.config.hidden_size * elastic.dtype.itemsize


def recalibration_bytes(elastic: ElasticModel) -> int:
    """Bytes of a recalibration of `elastic` beside the states and the refits: one place at work, also in float64."""
    widest = max(elastic.channels(part, elastic.space.units(part)) for part in PARTS)
    hidden = elastic.model.config.hidden_size
    return 4 * widest * (hidden + max(widest + 2 * hidden, 3 * widest))


@dataclass(frozen=True, slots=True)
class _At:
    """One part of one layer."""

    layer: nn.Module
    index: int
    part: Part

    @property
    def output(self) -> nn.Linear:
        return output_projection(self.layer, self.part)

    @property
    def device(self) -> torch.device:
        return device_of(self.layer)


@dataclass(frozen=True, slots=True)
class _Walk:
    """The dense and the pruned model at one depth, on the same batches of text."""

    elastic: ElasticModel
    beside: Embedded  # what the layers need beside a state; the same for all rows, for they are equally long
    dense: list[Tensor]  # states [batch, length, hidden], float32
    pruned: list[Tensor]
    share: float

    def dense_on(self, place: _At) -> None:
        """Take the dense model through `place`."""
        for number, state in enumerate(self.dense):
            state = state.to(place.device)
            self.dense[number] = (state + self._added(place, state)).to(self.elastic.states)

    def moments(self, place: _At, channels: int) -> tuple[Moments, Tensor, list[Tensor]]:
        """What `place` reads in the pruned model, where the dense one is through already.

        Returns:
            The moments of the inputs of the output projection, E^T X [hidden, channels] of the first `channels` of
            them for the share of the error that is made up for, and of the inputs the same [batch, length, channels].
        """
        output, device = place.output, place.device
        moments = Moments(output.in_features, device)
        carried = torch.zeros(len(output.weight), channels, device=device)
        seen: list[Tensor] = []
        hooks = [
            output.register_forward_pre_hook(moments),
            output.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0])),
        ]
        try:
            for number, (dense, state) in enumerate(zip(self.dense, self.pruned, strict=True)):
                state = state.to(device)
                error = (dense.to(device) - (state + self._added(place, state))).flatten(0, -2)
                kept = seen[number][..., :channels]
                carried.addmm_(error.T, kept.flatten(0, -2).float(), alpha=self.share)
                seen[number] = kept.clone().to(self.elastic.states)
        finally:
            for hook in hooks:
                hook.remove()
        if not (torch.isfinite(moments.sums).all() and torch.isfinite(carried).all()):
            raise MeasurementError(
                f"the pruned model gives non-finite activations in the {place.part} of layer {place.index}; "
                "try --dtype float32"
            )
        return moments, carried, seen

    def gram(self, place: _At, channels: int, made: list[Tensor]) -> Tensor:
        """The Gram matrix of `place`: the one that was made, or another one where that was overwritten."""
        return made.pop() if made else self.moments(place, channels)[0].gram()

    def refit(self, place: _At, factor: Factor, carried: Tensor, channels: int) -> Tensor:
        """The output projection [hidden, channels] of `place`, in the type of the weights."""
        weight = place.output.weight
        return factor.refit(weight, channels, carried).to(weight.dtype)

    def pruned_on(self, place: _At, inputs: list[Tensor], refit: Tensor) -> None:
        """Take the pruned model through `place`, with its output projection of `inputs` refitted."""
        for number, rows in enumerate(inputs):
            added = functional.linear(rows.to(place.device), refit, place.output.bias)
            self.pruned[number] = (self.pruned[number].to(place.device) + added).to(self.elastic.states)

    def _added(self, place: _At, state: Tensor) -> Tensor:
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


class KeptRefits(Mapping[Place, Tensor]):
    """Refits in a file, each read when it is asked for."""

    def __init__(self, files: TensorFiles, places: Sequence[Place]) -> None:
        self._files, self._places = files, places

    def __getitem__(self, place: Place) -> Tensor:
        if place not in self._places:
            raise KeyError(place)
        return self._files.read(_name(place))

    def __iter__(self) -> Iterator[Place]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


def load_refits(path: Path, made_for: str, elastic: ElasticModel, profile: Profile) -> Recalibration | None:
    """What `recalibrate` wrote to a file; None where there is none, or one that was made for something else.

    Raises:
        KeptFileError: it is damaged, or does not fit the model.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
        if (metadata.get("format"), metadata.get("made_for")) != (FORMAT, made_for):
            return None
        files = TensorFiles([path])
    except FileNotFoundError:
        return None
    except (SafetensorError, ModelError, OSError) as error:
        raise KeptFileError(f"{str(path)!r} is damaged ({error})") from error
    shapes = _shapes(elastic, profile)
    for place, shape in shapes.items():
        stored = files.stored.get(_name(place))
        if stored is None or (stored.dtype, stored.shape) != (elastic.dtype, shape):
            raise KeptFileError(f"{str(path)!r} does not fit the model")
    return Recalibration(profile, KeptRefits(files, tuple(shapes)))


def _shapes(elastic: ElasticModel, profile: Profile) -> dict[Place, tuple[int, int]]:
    """The shapes of all refits, in the order in which they are made."""
    hidden = elastic.model.config.hidden_size
    return {
        (layer, part): (hidden, elastic.channels(part, profile.widths(part)[layer]))
        for layer in range(elastic.space.n_layers)
        for part in PARTS
    }


def _name(place: Place) -> str:
    """Of a refit in a file."""
    layer, part = place
    return f"{part}.{layer}"
