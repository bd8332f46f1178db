"""Which models are timed: LLaMA-2-70B, and the profiles of 49 and 35 billion parameters that stand for its results."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from self_pruner.memory.profile import Profile
from self_pruner.tools.latency.shapes import Sizes
from self_pruner.tools.models.aliases import PUBLISHED
from self_pruner.tools.models.families import Geometry, geometry
from self_pruner.tools.profiles.budget import Budget, Place
from self_pruner.tools.profiles.operators import uniform
from self_pruner.tools.profiles.space import Space

UNITS = (128, 32)  # channels of an MLP unit: what matrix kernels like, and what a small model would take


@dataclass(frozen=True, slots=True)
class Shapes:
    """What the parts run on: the giant and its smaller relative, whole or as toys."""

    giant: Any  # configs of transformers
    relative: Any
    targets: tuple[tuple[str, float, float | None], ...]  # name, share of the parameters kept, the paper's speed-up
    toy: bool
    streamed: int  # layers of the giant that are written to the disk and streamed

    @property
    def layers(self) -> int:
        """Of the giant."""
        return int(self.giant.num_hidden_layers)


def real_shapes(streamed: int = 12) -> Shapes:
    """LLaMA-2-70B and LLaMA-2-7B, at the sizes that the paper gives."""
    dense = space_of_config(config("llama-2-70b"), 128)
    total = dense.params(dense.dense())
    targets = (("49B", 49e9 / total, 1.39), ("35B", 35e9 / total, 1.70))
    return Shapes(config("llama-2-70b"), config("llama-2-7b"), targets, False, streamed)


def toy_shapes() -> Shapes:
    """The same on shapes that any processor runs in seconds."""
    giant = config(
        "llama-2-70b",
        hidden_size=64,
        num_hidden_layers=6,
        num_attention_heads=8,
        num_key_value_heads=4,
        intermediate_size=768,
        vocab_size=512,
        max_position_embeddings=512,
    )
    relative = config(
        "llama-2-7b",
        hidden_size=64,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=4,
        intermediate_size=192,
        vocab_size=512,
        max_position_embeddings=512,
    )
    return Shapes(giant, relative, (("70%", 0.7, 1.39), ("50%", 0.5, 1.70)), True, 3)


def config(alias: str, **changes: int) -> Any:
    """The published config of a model, some values changed."""
    from transformers import LlamaConfig

    made = LlamaConfig(**(PUBLISHED[alias] | changes))
    made._attn_implementation = "sdpa"
    return made


def space_of_config(config: Any, mlp_unit: int) -> Space:
    """The space of a Llama's profiles, from its config alone."""
    shape: Geometry = geometry(config)
    group = 2 * shape.hidden * (shape.group_width + shape.head_dim)
    block = 3 * shape.hidden * mlp_unit
    fixed = 2 * shape.vocab * shape.hidden + (2 * shape.n_layers + 1) * shape.hidden
    return Space(shape.n_layers, shape.n_groups, shape.intermediate // mlp_unit, group, block, fixed, mlp_unit)


@dataclass(frozen=True, slots=True)
class Model:
    """One model to time."""

    name: str
    target: str  # of which size; "dense" for the whole
    sizes: tuple[Sizes, ...]  # KV groups and channels of every layer
    parameters: int
    linear: float  # speed-up that its parameters promise: dense over these
    paper: float | None = None  # the speed-up that the paper gives for this size

    @property
    def aligned(self) -> float:
        """Share of the MLPs whose channels are a multiple of 128."""
        return sum(channels % 128 == 0 for _, channels in self.sizes) / len(self.sizes)


def models(shapes: Shapes) -> list[Model]:
    """The dense model, then every size: uniform, as a search finds it, the same with finer units; most wanted first."""
    aligned, fine = (space_of_config(shapes.giant, unit) for unit in UNITS)
    total = aligned.params(aligned.dense())
    found: dict[str, list[Model]] = {"uniform": [], "unequal": [], "unequal, units of 32": []}
    for target, share, paper in shapes.targets:
        for name, space, make in (
            ("uniform", aligned, uniform),
            ("unequal", aligned, searched),
            ("unequal, units of 32", fine, searched),
        ):
            budget = Budget(space, round(share * total))
            profile = make(budget)
            params = space.params(profile)
            sizes = tuple(space.sizes(profile))
            found[name].append(Model(f"{target} {name}", target, sizes, params, total / params, paper))
    dense = Model("dense", "dense", tuple(aligned.sizes(aligned.dense())), total, 1.0)
    return [dense, *(model for kind in found.values() for model in kind)]


def searched(budget: Budget) -> Profile:
    """A profile of the kind that a search finds: late layers and middle MLPs thinner, groups cut in a third of them.

    The first layers and the very last keep most. Widths waver from layer to layer, as found ones do.
    """
    space = budget.space
    kept = 1.0 - budget.sparsity
    attention, mlp = [], []
    for layer in range(space.n_layers):
        depth = layer / max(space.n_layers - 1, 1)
        middle, late = math.exp(-(((depth - 0.55) / 0.25) ** 2)), depth**2
        edge = 0.25 if layer < max(1, space.n_layers // 20) or layer == space.n_layers - 1 else 0.0
        waver = 0.06 * math.sin(2.4 * layer)
        mlp.append(space.n_blocks * (kept - 0.02 + edge + 0.10 - 0.22 * middle - 0.12 * late + waver))
        attention.append(space.n_groups * (kept if layer % 3 == 2 else 1.0))
    cut, whole = [round(width) for width in attention], [max(1, round(width)) for width in mlp]
    held: frozenset[Place] = frozenset((layer, "attention") for layer in range(space.n_layers))
    return budget.project(cut, whole, held).profile
