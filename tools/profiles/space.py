"""The space of profiles of one model: how many units each layer has, and what each costs in parameters."""

from __future__ import annotations

from dataclasses import dataclass

from self_pruner.memory.profile import Part, Profile


@dataclass(frozen=True, slots=True)
class Space:
    """Units and parameters of a model, the same in every layer as in all supported families.

    An attention unit is `attention_unit` KV groups, each one key/value head with the query heads it serves: one unless
    an engine wants head counts that divide. An MLP unit is `mlp_unit` neighbouring channels.
    Parameters of units are prunable; all others (embeddings, norms, head, biases no unit owns) are fixed.
    """

    n_layers: int
    n_groups: int  # attention units a layer, dense
    n_blocks: int  # MLP units a layer, dense
    group_params: int  # parameters of one attention unit, biases included
    block_params: int  # parameters of one MLP unit, biases included
    fixed_params: int  # parameters that no profile removes
    mlp_unit: int  # channels in an MLP unit
    attention_unit: int = 1  # KV groups in an attention unit
    added_params: int = 0  # among the fixed ones: biases that pruning adds and the dense model does not have

    def units(self, part: Part) -> int:
        """Units of `part` in a dense layer."""
        return self.n_groups if part == "attention" else self.n_blocks

    def unit_params(self, part: Part) -> int:
        """Parameters of one unit of `part`."""
        return self.group_params if part == "attention" else self.block_params

    def dense(self) -> Profile:
        """The profile that keeps everything."""
        return Profile((self.n_groups,) * self.n_layers, (self.n_blocks,) * self.n_layers)

    def smallest(self) -> Profile:
        """The profile that keeps one unit everywhere."""
        return Profile((1,) * self.n_layers, (1,) * self.n_layers)

    def contains(self, profile: Profile) -> bool:
        """Whether every width lies between one unit and the dense width."""
        return (
            profile.n_layers == self.n_layers
            and all(1 <= width <= self.n_groups for width in profile.attention)
            and all(1 <= width <= self.n_blocks for width in profile.mlp)
        )

    def prunable_params(self, profile: Profile) -> int:
        """Parameters of the units that `profile` keeps."""
        return sum(profile.attention) * self.group_params + sum(profile.mlp) * self.block_params

    def params(self, profile: Profile) -> int:
        """All parameters of the pruned model."""
        return self.fixed_params + self.prunable_params(profile)

    @property
    def dense_params(self) -> int:
        """All parameters of the dense model as it is, without what pruning adds."""
        return self.params(self.dense()) - self.added_params

    def sizes(self, profile: Profile) -> list[tuple[int, int]]:
        """KV groups and MLP channels of every layer, as a checkpoint's config states them."""
        return [
            (groups * self.attention_unit, blocks * self.mlp_unit)
            for groups, blocks in zip(profile.attention, profile.mlp, strict=True)
        ]

    def sparsity(self, profile: Profile) -> float:
        """Share of prunable decoder-block parameters that `profile` removes, 0 for the dense model."""
        return 1.0 - self.prunable_params(profile) / self.prunable_params(self.dense())
