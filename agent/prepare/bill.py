"""What a run fills: bytes by device and by time, for layers in memory, spread over GPUs, or streamed from their files.

Everything follows from the config and the settings, so it is known before a weight is fetched. Bounds that a run keeps
to are taken as used up. Nothing is counted for Python and its libraries, which are there when free memory is asked for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch

from self_pruner.agent.prepare.checks import Target
from self_pruner.agent.prepare.devices import Device, Machine
from self_pruner.agent.prepare.kept import kept_calibration
from self_pruner.agent.settings.arms import ARMS
from self_pruner.agent.settings.settings import Settings
from self_pruner.tools.engines.server import LONGEST
from self_pruner.tools.engines.share import taken_on_cpu
from self_pruner.tools.evaluation.fitness import TOP_K
from self_pruner.tools.evaluation.shortage import free_memory
from self_pruner.tools.evaluation.targets import HEAD_TOKENS
from self_pruner.tools.models.aliases import BUNDLED
from self_pruner.tools.models.bundled import cache_dir
from self_pruner.tools.models.families import Geometry, geometry
from self_pruner.tools.profiles.budget import Budget
from self_pruner.tools.pruning.compensation import slice_bytes

AT_WORK = 3  # layers that exist at a time where they are streamed: one in use, one on its way, one being converted
STATE_MEMORY, PREFIX_MEMORY, REFIT_MEMORY = 1 << 30, 1 << 29, 1 << 30
WORK_SPACE = 1 << 29  # of libraries, and what an allocator cannot use
BRAIN_TOKENS = 4096  # of its prompt and all replies to it, with room to grow
CPU_BATCH, GPU_BATCH = 2, 8  # sequences of calibration text in one pass
CPU_TOKENS, GPU_TOKENS = 4096, 16384  # the same of a recalibration, in tokens

REMEMBERED, TARGETS, SERVED = "Remembered refits", "Dense targets", "A vLLM that serves the brain"
# A recalibration that has no room is left out, and what is remembered takes room that nothing else needs.
When = Literal["always", "calibration", "search", "recalibration", "spare"]


@dataclass(frozen=True, slots=True)
class Sizes:
    """What the cost of a run depends on in its dense model."""

    shape: Geometry
    budget: Budget
    context: int  # tokens that the model can read
    params: int  # embeddings and head included
    layer: int  # parameters of one decoder layer
    itemsize: int  # bytes of a weight
    calibration_tokens: int
    calibration_length: int  # of them in a sequence
    target_tokens: int  # whose dense distributions are kept
    to_fetch: int  # bytes of the checkpoint that are not here yet
    grams_kept: bool  # whether the cache has Gram matrices of this size already
    brain: Geometry  # of the model that is asked: this one, or another
    brain_params: int  # of another model that is asked here; 0 where there is none
    brain_to_fetch: int

    @property
    def kept(self) -> float:
        """Share of the decoder blocks' parameters that a candidate keeps."""
        return 1.0 - self.budget.sparsity

    @property
    def weights(self) -> int:
        """Bytes of all weights."""
        return self.itemsize * self.params

    @property
    def layer_bytes(self) -> int:
        """Bytes of one decoder layer."""
        return self.itemsize * self.layer

    @property
    def other_weights(self) -> int:
        """Bytes of what is no layer: embedding, final norm and head."""
        return self.weights - self.shape.n_layers * self.layer_bytes

    @property
    def pruned_bytes(self) -> int:
        """Bytes of the weights of a candidate."""
        return self.budget.target_params * self.itemsize

    @property
    def brain_weights(self) -> int:
        """Bytes of the weights of another model that is asked here."""
        return self.itemsize * self.brain_params

    @property
    def brain_bytes(self) -> int:
        """Bytes of keys and values of a prompt and its replies, in all layers."""
        return 2 * BRAIN_TOKENS * self.brain.n_layers * self.brain.n_groups * self.brain.head_dim * self.itemsize

    @property
    def served_cache(self) -> int:
        """Bytes of keys and values of the longest request to a vLLM that serves the model."""
        shape = self.shape
        return 2 * self.itemsize * min(self.context, LONGEST) * shape.n_layers * shape.n_groups * shape.head_dim

    @property
    def refit_bytes(self) -> int:
        """Bytes of the refits of one candidate, all places refitted."""
        channels = self.shape.n_layers * sum(self.shape.channels.values())
        return int(self.kept * channels * self.shape.hidden) * self.itemsize


@dataclass(frozen=True, slots=True)
class Line:
    """What takes so many bytes, where, and when."""

    what: str
    bytes: int
    where: str  # name of a device
    when: When = "always"


def sizes_of(settings: Settings, target: Target) -> Sizes:
    """The sizes of the target model that its cost depends on."""
    text = next(one for one in target.texts if one.part == "calibration")
    model, to_fetch = target.outline.model, target.outline.to_fetch
    params, brain = parameters_of(model), target.brain and target.brain.model
    if settings.model.lower() == BUNDLED and to_fetch:
        to_fetch += 4 * params  # it is unpacked
    return Sizes(
        shape=geometry(model.config),
        budget=target.budget,
        context=model.config.max_position_embeddings,
        params=params,
        layer=parameters_of(model.get_decoder().layers[0]),
        itemsize=getattr(torch, target.dtype).itemsize,
        calibration_tokens=text.sequences * text.length,
        calibration_length=text.length,
        target_tokens=settings.fitness_tokens + settings.reporting_tokens * len(settings.reporting_texts),
        to_fetch=to_fetch,
        grams_kept=not to_fetch and kept_calibration(settings.cache or cache_dir(), geometry(model.config).gram_bytes),
        brain=geometry((brain or model).config),
        brain_params=0 if brain is None else parameters_of(brain),
        brain_to_fetch=0 if target.brain is None else target.brain.to_fetch,
    )


def parameters_of(module: Any) -> int:
    """Parameters of a torch module, which may be one without weights."""
    return sum(parameter.numel() for parameter in module.parameters())


def refit_memory(device: str, reserved: int = 0, streamed: bool = False) -> int:
    """Bytes that remembered refits may take: half of what the loaded model leaves, on a CPU at most 1 GiB.

    What is `reserved` is for others. Without a GPU a streamed model gets a quarter of that: of a large one a GiB would
    hold few of the refits that a pass asks for.
    """
    left = max(0, free_memory(device) - reserved) // 2
    return left if device.startswith("cuda") else min(REFIT_MEMORY // (4 if streamed else 1), left)


def prefix_memory(device: str, reserved: int = 0) -> int:
    """Bytes of hidden states that a search keeps for its next generation at most.

    Half a GiB, or a quarter of what the loaded model leaves of a GPU, whose models have the larger states.
    """
    left = max(0, free_memory(device) - reserved) // 4
    return max(PREFIX_MEMORY, left if device.startswith("cuda") else 0)


def sensitivity_states(settings: Settings, sizes: Sizes) -> int:
    """Bytes of all hidden states of one measurement of sensitivities, which is one walk there and back if they fit."""
    state = settings.sequence_length * sizes.shape.hidden * sizes.itemsize
    sequences = settings.sequences(settings.sensitivity_tokens) if settings.sensitivities else 0
    return 2 * sizes.shape.n_layers * sequences * state


def work_of(settings: Settings, sizes: Sizes, near: str, state_memory: int, cpu: bool, on_disk: bool) -> list[Line]:
    """What computing takes on the device named `near`; other arguments as for `bill_of`."""
    shape, refitted, one = sizes.shape, settings.compensation == "lstsq", sizes.itemsize
    channels, hidden = max(shape.channels.values()), shape.hidden
    inside = (5 * shape.intermediate + 6 * hidden) * one  # of a token in a layer
    batch = (CPU_BATCH if cpu else GPU_BATCH) * sizes.calibration_length
    state = settings.sequence_length * hidden * one
    walked = (settings.offspring + 1) * settings.sequences(settings.fidelity[-1]) * state
    walked = min(state_memory, max(walked, sensitivity_states(settings, sizes)))
    # of one sequence at least: probes have a state a place, and sensitivities keep one a sublayer
    walked = max(walked, (2 * shape.n_layers + 1) * state, sizes.target_tokens * hidden * one)
    gram, head = 4 * channels**2, 16 * HEAD_TOKENS * shape.vocab
    slices = (1 if cpu or on_disk else 2) * gram + slice_bytes(channels, hidden)  # a GPU has one of memory twice
    lines = [
        Line("A layer's moments and activations", gram + batch * inside, near, "calibration"),
        Line("Hidden states of candidates", walked, near, "search"),
        Line("A place at work, logits", shape.refit_bytes + head if refitted else max(slices, head), near, "search"),
    ]
    if refitted and settings.recalibrate:
        batch = (CPU_TOKENS if cpu else GPU_TOKENS) * inside
        place = 4 * channels * hidden + max(gram + max(batch, 8 * channels * hidden), shape.refit_bytes)
        lines.append(Line("A place that is recalibrated", place, near, "recalibration"))
    return lines


def text_states(settings: Settings, sizes: Sizes, where: str) -> list[Line]:
    """The hidden states of all calibration text, which the layers take over one after the other."""
    tokens, hidden = sizes.calibration_tokens, sizes.shape.hidden
    lines = [Line("Hidden states of the calibration", tokens * hidden * sizes.itemsize, where, "calibration")]
    if settings.compensation == "lstsq" and settings.recalibrate:  # dense and pruned ones, and what a projection reads
        read = max(sizes.shape.channels.values()) * sizes.itemsize  # a place may be whole
        both = tokens * (8 * hidden + read)
        lines.append(Line("Hidden states of the recalibration", both, where, "recalibration"))
    return lines


def bill_of(
    settings: Settings,
    sizes: Sizes,
    machine: Machine,
    layers: Mapping[str, int],
    *,
    streamed: bool,
    grams_on_disk: bool,
    states: str | None,
    state_memory: int,
) -> list[Line]:
    """All that a run fills.

    Args:
        settings: of the run.
        sizes: of its model.
        machine: what there is; where it has no disks, they are left out.
        layers: how many layers the devices have that compute, by their names.
        streamed: whether layers are read from their files instead.
        grams_on_disk: whether memory holds the Gram matrices of one layer only.
        states: device that holds hidden states of all text; None for the one that computes.
        state_memory: bytes that hidden states of a population may take.
    """
    memory, first, shape, cpu = machine.memory.name, machine.first.name, sizes.shape, not machine.gpus
    lines, refitted = list[Line](), settings.compensation == "lstsq"
    for name, count in layers.items():
        held = AT_WORK if streamed else count
        said = f"Weights of {held} layers{' at a time' if streamed else ''}"
        beside, others = (", embedding and head", sizes.other_weights) if name == first else ("", 0)
        lines.append(Line(said + beside, others + held * sizes.layer_bytes, name))
        lines.append(Line("Work space of libraries", WORK_SPACE, name))
        if settings.brain == "self" and ARMS[settings.arm].asks_brain:
            share = 1.0 if streamed else count / shape.n_layers
            lines.append(Line("Keys and values of the brain", int(share * sizes.brain_bytes), name))
        elif sizes.brain_params and name == first:
            lines.append(Line("The brain, its keys and values", sizes.brain_weights + sizes.brain_bytes, name))
        lines += work_of(settings, sizes, name, state_memory, cpu, grams_on_disk)
        if states is None:
            lines += text_states(settings, sizes, name)
    if states is not None:
        lines += text_states(settings, sizes, states)
    targets = sizes.target_tokens * (8 * TOP_K + 12)
    if grams_on_disk:  # of the layer before; one that is read to refit a place on a CPU is counted there
        one = shape.gram_bytes // shape.n_layers
        lines.append(Line("Gram matrices of a layer", one, memory, "calibration" if cpu else "always"))
    else:
        lines.append(Line("Gram matrices", shape.gram_bytes, memory))
    lines.append(Line(TARGETS, targets, memory))
    if settings.own_vllm and cpu:  # on GPUs it takes what the layers leave
        lines.append(Line(SERVED, taken_on_cpu(sizes.weights, sizes.served_cache), memory))
    if streamed and not cpu:
        lines.append(Line("Layers on their way", 2 * sizes.layer_bytes, memory))
    if machine.disks:
        disks = {use: disk.name for use, disk in machine.disks.items()}
        kept = targets + (0 if sizes.grams_kept else shape.gram_bytes)
        lines.append(Line("The checkpoint, to be fetched", sizes.to_fetch, disks["models"]))
        lines.append(Line("The brain, to be fetched", sizes.brain_to_fetch, disks.get("brain", disks["models"])))
        lines.append(Line("Gram matrices and dense targets", kept, disks["cache"]))
        lines.append(Line("The pruned checkpoint", sizes.pruned_bytes if settings.export else 0, disks["runs"]))
        if refitted and settings.recalibrate:
            lines.append(Line("Refits of the recalibration", sizes.refit_bytes, disks["runs"], "recalibration"))
    lines += [line for name in layers for line in remembered(lines, machine, name, refitted, streamed)]
    return [line for line in lines if line.bytes]


def remembered(lines: Sequence[Line], machine: Machine, name: str, refitted: bool, streamed: bool) -> list[Line]:
    """What takes shares of the room that is left on a device, up to a bound on a CPU, and gives it back when asked."""
    device = next(each for each in machine.devices if each.name == name)
    left = max(0, device.free - needed(lines, name))
    refits, states = left // 2, left // 4
    if device.kind == "cpu":
        refits, states = min(REFIT_MEMORY // (4 if streamed else 1), refits), min(PREFIX_MEMORY, states)
    found = [Line("Remembered states", states, name, "spare")]
    return [Line(REMEMBERED, refits, name, "spare"), *found] if refitted else found


def needed(lines: Sequence[Line], where: str, *, recalibration: bool = True) -> int:
    """The most bytes that are used of a device at a time, with or without a recalibration."""
    by_time = dict.fromkeys(("always", "calibration", "search", "recalibration"), 0)
    for line in lines:
        if line.where == where and line.when in by_time and (recalibration or line.when != "recalibration"):
            by_time[line.when] += line.bytes
    return by_time.pop("always") + max(by_time.values())


def short_of(lines: Sequence[Line], machine: Machine, *, recalibration: bool = True) -> dict[Device, int]:
    """The devices that have less than is needed, and how much that is."""
    asked = {device: needed(lines, device.name, recalibration=recalibration) for device in machine.devices}
    return {device: count for device, count in asked.items() if count > device.free}
