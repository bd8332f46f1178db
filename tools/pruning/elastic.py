"""The elastic model: the target model with its units reordered by importance, so that every profile is prefix slices.

KV groups and MLP channels are permuted once, in place. The dense function does not change, so one set of weights serves
the brain, calibration and every candidate: a candidate is views of the first units of each layer, and only the output
projections that are compensated own memory (remembered within a bound).

The attention unit is a whole KV group because `repeat_kv` is positional: query heads i * r to (i + 1) * r read
key/value head i. Stock attention modules take their head counts from shapes, so they run on the slices unchanged.
"""

from __future__ import annotations

import copy
from functools import partial

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from self_pruner.memory.errors import ModelError
from self_pruner.memory.profile import PARTS, Part, Profile
from self_pruner.tools.models.families import geometry, space_of
from self_pruner.tools.pruning.calibration import Calibration
from self_pruner.tools.pruning.compensation import Compensation, Compensator, Recalibrated, Recalibration
from self_pruner.tools.pruning.importance import Importance, Orders, importance_orders
from self_pruner.tools.pruning.reordering import OrderedMoments
from self_pruner.tools.pruning.store import (
    OUTPUTS,
    Embedded,
    LayerStore,
    ResidentLayers,
    branch,
    device_of,
    embed,
    linear,
    output_projection,
)

_REORDERED = "_self_pruner_reordered"


class ElasticModel:
    """A causal language model that runs at any profile without a copy of its weights."""

    def __init__(
        self,
        model: PreTrainedModel,
        calibration: Calibration,
        *,
        importance: Importance = "wanda-sp",
        compensation: Compensation = "lstsq",
        mlp_unit: int | None = None,
        attention_unit: int = 1,
        refit_memory: int = 2 << 30,
        damping: float = 0.01,
        store: LayerStore | None = None,
        states: str | None = None,
        orders: Orders | None = None,
    ) -> None:
        """Reorders the weights of `model` in place; they must not be reordered already.

        Args:
            model: A model of a supported family, attention implementation `sdpa`.
            calibration: Moments of this very model, before reordering.
            importance: The score that orders the units.
            compensation: What makes up for removed units.
            mlp_unit: Channels in an MLP unit; None takes the default of the model's size.
            attention_unit: KV groups in an attention unit.
            refit_memory: Bytes that remembered refits and factors may take.
            damping: Of the least-squares refit, as a share of the mean Gram diagonal.
            store: Where the layers of `model` come from; None for the model's own, in memory.
            states: Device that holds hidden states of a whole text between layers; None for that of the layer.
            orders: Of the units, where they are known; None finds them.

        Raises:
            ModelError: The model is an elastic model already or the calibration is of another model.
        """
        if getattr(model, _REORDERED, False):
            raise ModelError("this model is reordered already; load it again to make another elastic model")
        self.model = model
        self.space = space_of(model, mlp_unit, compensation == "bias", attention_unit)
        self.importance, self.compensation = importance, compensation
        self.store = store or ResidentLayers(model)
        self.states = states
        self.compensator = Compensator(compensation, refit_memory, damping)
        self._shape = shape = geometry(model.config)
        self._check_calibration(calibration)
        self.orders = orders or importance_orders(self.store, calibration, shape.n_groups, importance)
        self.moments = OrderedMoments(calibration, self.orders, shape.head_dim, shape.heads_per_group)
        for index in range(len(self.store)):
            self.store.reorder(index, partial(self.moments.permute, index=index))
        setattr(model, _REORDERED, True)

    @property
    def device(self) -> torch.device:
        """Where the embeddings, and so the inputs, are."""
        return self.model.device

    @property
    def dtype(self) -> torch.dtype:
        """Data type of the weights."""
        return self.model.dtype

    @property
    def warnings(self) -> list[str]:
        """Sentences about numerical trouble so far, such as a singular Gram matrix that was damped more."""
        return self.compensator.warnings

    @property
    def is_recalibrated(self) -> bool:
        """Whether this is what `recalibrated` made of another one."""
        return isinstance(self.compensator, Recalibrated)

    # --- slices -------------------------------------------------------------------------------------------------

    def block_weights(self, layer: int, part: Part, width: int) -> dict[str, Tensor]:
        """Parameters that make `part` of `layer` keep its first `width` units; {} when that is all of them.

        A recalibrated model refits its output projections at full width too, and has the widths of one profile only.
        Keys are as `torch.func.functional_call` on `layer.self_attn` or `layer.mlp` wants them. All are views of the
        model's own weights but a refitted output projection, or its bias, which is remembered.
        """
        with self.store.layer(layer) as module:
            return self._overrides(module, layer, part, width)

    def _overrides(self, layer: nn.Module, index: int, part: Part, width: int) -> dict[str, Tensor]:
        units = self.space.units(part)
        if not 1 <= width <= units:
            raise ModelError(f"the {part} of layer {index} keeps 1 to {units} units, not {width}")
        if width == units and not self.is_recalibrated:
            return {}
        overrides: dict[str, Tensor] = {}
        for name, rows in self._rows(part, width).items():
            module = linear(layer, part, name)
            overrides[f"{name}.weight"] = module.weight[:rows]
            if module.bias is not None:
                overrides[f"{name}.bias"] = module.bias[:rows]
        output = output_projection(layer, part)
        channels, features = self.channels(part, width), partial(self.moments.features, index, part)
        weight, bias = self.compensator.projection((index, part), output.weight, output.bias, channels, features)
        overrides[f"{OUTPUTS[part]}.weight"] = weight
        if bias is not None:
            overrides[f"{OUTPUTS[part]}.bias"] = bias
        return overrides

    def padded(self, layer: nn.Module, index: int, part: Part, width: int) -> dict[str, Tensor]:
        """Overrides that make `part` of `layer` give what `width` units give while all its units are computed.

        The columns of the others are zero in the output projection, whose weight is a copy. So its gradient says what
        any unit would change, whether it is kept or not.
        """
        output = output_projection(layer, part)
        kept = self._overrides(layer, index, part, width)
        weight = kept.get(f"{OUTPUTS[part]}.weight", output.weight)
        full = {f"{OUTPUTS[part]}.weight": nn.functional.pad(weight, (0, output.in_features - weight.shape[1])).clone()}
        if (bias := kept.get(f"{OUTPUTS[part]}.bias")) is not None:
            full[f"{OUTPUTS[part]}.bias"] = bias
        return {name: tensor.detach() for name, tensor in full.items()}

    @torch.no_grad()
    def first_order(self, layer: nn.Module, index: int, part: Part, weight: Tensor, output: Tensor) -> Tensor:
        """What a function of the outputs of `part` is to first order at every width, up to a constant.

        Args:
            layer: the layer.
            index: its number.
            part: one of its parts.
            weight: gradient of the function with respect to the output projection's weight [out, channels], from
                overrides of `padded`.
            output: the same with respect to its bias: the gradient of its outputs summed over tokens, [out].

        Returns:
            [units + 1], float64, from width 0 to dense.
        """
        dense = output_projection(layer, part).weight
        features = partial(self.moments.features, index, part)
        terms = self.compensator.first_order((index, part), dense, weight, output, features).cpu()
        sums = torch.cat([terms.new_zeros(1), terms.cumsum(0)])
        return sums[:: self.channels(part, 1)]

    def channels(self, part: Part, width: int) -> int:
        """Input channels of the output projection that `width` units are."""
        if part == "mlp":
            return width * self.space.mlp_unit
        return width * self.space.attention_unit * self._shape.group_width

    def _rows(self, part: Part, width: int) -> dict[str, int]:
        """Rows that `width` units have in the other projections."""
        channels = self.channels(part, width)
        if part == "mlp":
            return {"gate_proj": channels, "up_proj": channels}
        keys = channels // self._shape.heads_per_group
        return {"q_proj": channels, "k_proj": keys, "v_proj": keys}

    # --- running ------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def embed(self, input_ids: Tensor) -> Embedded:
        """What goes into the first layer for `input_ids` [batch, length]; `masks[l]` is for layer l."""
        return embed(self.model, input_ids.to(self.device))

    @torch.no_grad()
    def attention_block(
        self,
        layer: nn.Module,
        index: int,
        width: int,
        hidden: Tensor,
        position_embeddings: tuple[Tensor, Tensor],
        attention_mask: Tensor | None = None,
    ) -> Tensor:
        """Norm, attention with `width` units, residual: [batch, length, hidden] to the same on the layer's device."""
        hidden = hidden.to(device_of(layer))
        kept = self._overrides(layer, index, "attention", width)
        return hidden + branch(layer, "attention", kept, hidden, position_embeddings, attention_mask)

    @torch.no_grad()
    def mlp_block(self, layer: nn.Module, index: int, width: int, hidden: Tensor) -> Tensor:
        """Norm, MLP with `width` units, residual: [batch, length, hidden] to the same on the layer's device."""
        hidden = hidden.to(device_of(layer))
        return hidden + branch(layer, "mlp", self._overrides(layer, index, "mlp", width), hidden)

    @torch.no_grad()
    def head_input(self, hidden: Tensor) -> Tensor:
        """The final norm: [..., hidden] to the same shape."""
        return self.model.get_decoder().norm(hidden)

    @torch.no_grad()
    def lm_head(self, normed: Tensor) -> Tensor:
        """Logits [..., vocab] of normed hidden states [..., hidden]."""
        return self.model.get_output_embeddings()(normed)

    @torch.no_grad()
    def logits(self, input_ids: Tensor, profile: Profile) -> Tensor:
        """Logits [batch, length, vocab] of `input_ids` [batch, length] at `profile`: the plain reference."""
        self.check(profile)
        hidden, position_embeddings, masks = self.embed(input_ids)
        for index in range(len(self.store)):
            with self.store.layer(index) as layer:
                hidden = self.attention_block(
                    layer, index, profile.attention[index], hidden, position_embeddings, masks[index]
                )
                hidden = self.mlp_block(layer, index, profile.mlp[index], hidden)
        return self.lm_head(self.head_input(hidden))

    @torch.no_grad()
    def residual(self, layer: int, part: Part) -> Tensor:
        """Squared error a token of the output of `part` of `layer` keeping its first w units, [units + 1], float64.

        Entry w has this model's compensation; entry 0 removes the part, the last entry is zero. It comes from the
        Gram matrix alone, so it is exact on the calibration text for the dense inputs of the layer. A recalibrated
        model has none, and says so in a MeasurementError.
        """
        units = self.space.units(part)
        cuts = [self.channels(part, width) for width in range(units)]
        with self.store.layer(layer) as module:
            weight = output_projection(module, part).weight
        errors = self.compensator.residuals((layer, part), weight, cuts, partial(self.moments.features, layer, part))
        return torch.cat([errors, errors.new_zeros(1)]) / self.moments.calibration.tokens

    def recalibrated(self, recalibration: Recalibration) -> ElasticModel:
        """This model with the refits that `recalibrate` made of it: at the profile it was made at, and no other.

        The two share weights, store, orders and moments; what either remembers or warns of is its own.

        Raises:
            ModelError: this model has no least-squares refits, is recalibrated already, or has no such profile.
        """
        if self.compensation != "lstsq":
            raise ModelError(f"recalibration needs the compensation 'lstsq', not {self.compensation!r}")
        if self.is_recalibrated:
            raise ModelError("a model is recalibrated once, with what recalibrate made of it")
        self.check(recalibration.profile)
        other = copy.copy(self)
        other.compensator = Recalibrated(recalibration)
        return other

    # --- making -------------------------------------------------------------------------------------------------

    def check(self, profile: Profile) -> None:
        """Refuse a profile of another model with an ModelError."""
        if not self.space.contains(profile):
            raise ModelError(
                f"profile {profile.key()!r} does not fit a model of {self.space.n_layers} layers with 1 to "
                f"{self.space.n_groups} attention and 1 to {self.space.n_blocks} MLP units each"
            )

    def _check_calibration(self, calibration: Calibration) -> None:
        layers = len(calibration.mlp)
        if layers != len(self.store):
            raise ModelError(f"the calibration has {layers} layers, the model {len(self.store)}")
        for part in PARTS:
            found = calibration.channels(part)
            expected = self.channels(part, self.space.units(part))
            if found != expected:
                raise ModelError(f"the calibration has {found} {part} channels, the model {expected}")
