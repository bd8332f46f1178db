"""A default run of SmolLM2-135M-Instruct at 30% sparsity: its sizes, and where its layers are placed."""

from dataclasses import replace

from benchmarks.placements import machine
from self_pruner.agent.dry_run.machine_speed import Speed
from self_pruner.agent.prepare.bill import REMEMBERED, Sizes, bill_of
from self_pruner.agent.prepare.placement import Placement
from self_pruner.agent.settings.settings import Settings
from self_pruner.tools.models.families import Geometry
from self_pruner.tools.profiles.budget import Budget
from self_pruner.tools.profiles.space import Space

SPACE = Space(30, 3, 48, 294_912, 55_296, 28_346_688, 32)
SHAPE = Geometry(n_layers=30, hidden=576, n_groups=3, heads_per_group=3, head_dim=64, intermediate=1536, vocab=49_152)
SIZES = Sizes(
    shape=SHAPE,
    budget=Budget.from_sparsity(SPACE, 0.3),
    context=8192,
    params=134_515_008,
    layer=3_540_096,
    itemsize=4,
    calibration_tokens=16 * 2048,
    calibration_length=2048,
    target_tokens=4096 + 3072 + 4 * 1536 + 5120,
    to_fetch=93_000_000,
    grams_kept=False,
    brain=SHAPE,
    brain_params=0,
    brain_to_fetch=0,
)
NO_TIME = Speed(*[0.0] * 7)
HERE = machine(memory=16)


def placement(sizes=SIZES, there=HERE, mode="resident", remembered=None, settings=None):
    """A placement without asking what fits; `remembered` overrules what refits may take."""
    first = there.first.name
    layers = {first: 0 if mode == "streamed" else 30}
    streamed = mode == "streamed"
    lines = bill_of(
        settings or Settings(),
        sizes,
        there,
        layers,
        streamed=streamed,
        grams_on_disk=streamed,
        states=None,
        state_memory=1 << 30,
    )
    if remembered is not None:
        lines = [replace(line, bytes=remembered) if line.what == REMEMBERED else line for line in lines]
    return Placement(mode, layers, streamed, None, 1 << 30, lines, there, sizes)
