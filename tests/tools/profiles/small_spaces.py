"""Small spaces of every proportion, with all of their profiles and what these cost, and two real spaces."""

from functools import cache

import torch
from hypothesis import settings
from hypothesis import strategies as st

from self_pruner.memory.profile import PARTS
from self_pruner.tools.profiles.space import Space

SMOLLM2 = Space(30, 3, 48, 294_912, 55_296, 28_348_992, 32)
LLAMA_70B = Space(80, 8, 224, 18 * 8192 * 128, 3 * 8192 * 128, 2 * 32_000 * 8192 + 161 * 8192, 128)
SMALL = Space(3, 4, 12, 48, 9, 1000, 8)

property_test = settings(deadline=None, derandomize=True, max_examples=150)


@st.composite
def spaces(draw: st.DrawFn) -> Space:
    """Small spaces of every proportion: attention units heavier than, as heavy as and lighter than MLP units."""
    return Space(
        n_layers=draw(st.integers(1, 3)),
        n_groups=draw(st.integers(1, 4)),
        n_blocks=draw(st.integers(1, 12)),
        group_params=draw(st.integers(1, 60)),
        block_params=draw(st.integers(1, 20)),
        fixed_params=draw(st.sampled_from([0, 77])),
        mlp_unit=8,
    )


@cache
def every_profile(space: Space) -> torch.Tensor:
    """All profiles of a small space: [profiles, 2 * n_layers], attention first."""
    axes = [torch.arange(1, space.units(part) + 1) for part in PARTS for _ in range(space.n_layers)]
    return torch.cartesian_prod(*axes)


def params(space: Space, profiles: torch.Tensor) -> torch.Tensor:
    groups, blocks = profiles[:, : space.n_layers].sum(1), profiles[:, space.n_layers :].sum(1)
    return space.fixed_params + groups * space.group_params + blocks * space.block_params
