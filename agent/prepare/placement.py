"""Where a run's decoder layers are: on one device, spread over GPUs, or read from their files as they are needed.

Decided from the config and what is free, before a weight is fetched or read, and anew by every process that carries
a run out: a resumed run may find less memory than it had. What is shown, what is done and what is refused follow from
one bill. Figures do not depend on the placement (tools/pruning/streamed.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any, Literal, get_args

from self_pruner.agent.prepare.bill import (
    REMEMBERED,
    SERVED,
    STATE_MEMORY,
    Line,
    Sizes,
    bill_of,
    needed,
    sensitivity_states,
    short_of,
    sizes_of,
)
from self_pruner.agent.prepare.brain import asks_itself, quantises_nothing
from self_pruner.agent.prepare.checks import Target
from self_pruner.agent.prepare.devices import OTHER_DISK, Machine, dtype_of, spread, this_machine
from self_pruner.agent.prepare.texts import CPU_CALIBRATION, wanted_texts
from self_pruner.agent.settings.arms import ARMS
from self_pruner.agent.settings.panels import OWN
from self_pruner.agent.settings.settings import Settings
from self_pruner.memory.errors import SettingsError
from self_pruner.tools.engines.installed import VLLM
from self_pruner.tools.engines.share import Quantization, Room, Share, share_of, weights_of
from self_pruner.tools.evaluation.workers import pool
from self_pruner.tools.text.quantities import size

Mode = Literal["resident", "spread", "streamed"]
HOW: dict[Mode, str] = {
    "resident": "with all layers in memory",
    "spread": "with its layers spread over the GPUs",
    "streamed": "even with its layers streamed",
}
STREAMED_TURN = 86400.0  # seconds that a turn of a streamed brain may take


@dataclass(frozen=True, slots=True)
class Placement:
    """Where everything will be, what it takes, and why it cannot be."""

    mode: Mode
    layers: Mapping[str, int]  # layers by device that computes, in their order; all 0 where they are streamed
    grams_on_disk: bool  # whether Gram matrices go to the cache's disk one at a time
    states: str | None  # "memory" where hidden states of all text are kept there; None: where they are computed
    state_memory: int  # bytes that hidden states of a population may take: where layers are streamed, for few passes
    lines: list[Line]
    machine: Machine
    sizes: Sizes
    fault: str | None = None  # why it cannot be, in a sentence
    share: Share | None = None  # what a vLLM of the run's own gets that serves the brain
    workers: tuple[pool.Room | None, ...] = ()  # once it is decided how they are spread; None: this process does all

    def reserved(self, device: str) -> int:
        """Bytes of a device that a brain is to have which is not there yet: a vLLM, or another model."""
        names = {"cuda": {"cuda", "cuda:0"}, "cpu": {self.machine.memory.name}}.get(device, {device})
        served = max((line.bytes for line in self.lines if line.what == SERVED and line.where in names), default=0)
        other = self.sizes.brain_params > 0 and self.machine.first.name in names
        return served + other * (self.sizes.brain_weights + self.sizes.brain_bytes)

    @property
    def streamed(self) -> bool:
        """Whether layers are read from their files."""
        return self.mode == "streamed"

    @property
    def layer_devices(self) -> list[str]:
        """The device of every layer, first to last, where they are spread; else none."""
        return [name for name, count in self.layers.items() for _ in range(count)] if self.mode == "spread" else []

    @property
    def admits_workers(self) -> bool:
        """Whether the first GPU has room for a worker's model beside that of this process."""
        first, taken = self.machine.first, 3 * self.sizes.layer_bytes if self.streamed else self.sizes.weights
        return self.mode != "spread" and needed(self.lines, first.name) + taken <= first.free

    @property
    def recalibrates(self) -> bool:
        """Whether there is room for a recalibration; a run without it leaves it out."""
        return not short_of(self.lines, self.machine)

    @property
    def refit_memory(self) -> int:
        """Bytes that remembered refits may take."""
        return sum(line.bytes for line in self.lines if line.what == REMEMBERED)

    def refuse(self) -> None:
        """Refuse what cannot be; raises as `placed`."""
        if self.fault:
            raise SettingsError(self.fault)

    def applied(self, settings: Settings) -> Settings:
        """The settings as they are carried out here."""
        update: dict[str, object] = {}
        if self.streamed and settings.engine == "torch":
            update["benchmarks"] = 0  # it would be the disk's latency
        if not self.recalibrates:
            update["recalibrate"] = False
        if self.share and settings.brain in OWN and ARMS[settings.arm].asks_brain:
            update |= {"brain": "vllm", "brain_quantization": self.share.quantization}
        elif self.streamed and asks_itself(settings):  # a pass over all layers for every token
            if settings.thought_tokens == "auto":
                update["thought_tokens"] = 0
            if settings.brain_seconds == Settings.model_fields["brain_seconds"].default:
                update["brain_seconds"] = STREAMED_TURN
        return settings.model_copy(update=update) if update else settings

    def thinking(self, settings: Settings) -> Settings:
        """The settings with the thoughts that another model in the brain's place writes, which go by its size."""
        if not (settings.other_brain and self.sizes.brain_params):
            return settings
        return settings.model_copy(update={"thought_tokens": settings.thought_limit(self.sizes.brain_params)})

    def brain(self, settings: Settings) -> str:
        """Which brain is asked, in words; "" where that is not the placement's doing."""
        if self.share:
            what = f" in {self.share.quantization}" if self.share.quantization else ""
            return f" The brain is a vLLM on {' and '.join(self.share.gpus)}{what}."
        if self.streamed and asks_itself(settings):
            why = "which reads all layers for every token, so it writes no thoughts"
            return f" The brain is the streamed model, {why}: --brain-url or --arm evolution is faster."
        return ""

    def __str__(self) -> str:
        """Where the layers are, and what is needed of what is free."""
        where = f"in memory on {self.machine.first.name}" if self.machine.gpus else "in memory"
        if self.streamed:
            where = f"streamed from their files, {size(self.sizes.shape.n_layers * self.sizes.layer_bytes)} a pass"
        elif self.mode == "spread":
            where = f"spread over {len(self.layers)} GPUs ({', '.join(map(str, self.layers.values()))})"
        kept = self.recalibrates
        counts = {each: needed(self.lines, each.name, recalibration=kept) for each in self.machine.devices}
        used = {each: count for each, count in counts.items() if count}
        if self.mode == "spread":  # the fullest stands for all
            fullest = max(self.machine.gpus, key=lambda gpu: counts[gpu] - gpu.free)
            others = {each: count for each, count in used.items() if each.kind != "cuda"}
            used = {replace(fullest, name="each GPU at most"): counts[fullest]} | others
        bills = [f"{each.name} {size(count)} of {size(each.free)}" for each, count in used.items()]
        left_out = ""
        if not (kept or self.fault):
            short = short_of(self.lines, self.machine)
            wants = " and ".join(f"{size(count)} of {device.name}" for device, count in short.items())
            left_out = f" There is no room to recalibrate, which takes {wants}."
        return f"Layers {where}. Needed of what is free: {', '.join(bills)}.{left_out}"


def place(settings: Settings, target: Target, machine: Machine | None = None, *, begun: bool = False) -> Placement:
    """Decide it.

    Args:
        settings: of the run.
        target: its model.
        machine: what there is; None for this one.
        begun: whether the run was begun before, so that what it writes to disks is mostly there, and is not asked for.
    """
    machine, sizes = machine or this_machine(settings), sizes_of(settings, target)
    if begun:
        machine = replace(machine, disks={})
    if settings.placement == "spread" and len(machine.gpus) < 2:
        fault = f"--placement spread is for several GPUs, and {len(machine.gpus) or 'none'} can be used here: take auto"
        return replace(next(_ways(settings, sizes, machine, "streamed")), fault=fault)
    ways = [way for mode in _modes(settings, machine) for way in _ways(settings, sizes, machine, mode)]
    fitting = [way for way in ways if not short_of(way.lines, machine, recalibration=False)]
    if not fitting:
        return replace(ways[-1], fault=_shortage(settings, target, ways[-1]))
    if settings.own_vllm and machine.gpus:
        fitting = [served for way in fitting if (served := _serving(way, settings.brain_quantization))]
        if not fitting:
            return replace(ways[-1], fault=_no_room_for_brain(settings, ways))
    found = next((way for way in fitting if way.recalibrates), fitting[0])
    if found.streamed and machine.gpus and asks_itself(settings) and VLLM.is_there(settings.vllm_python):
        VLLM.python(settings.vllm_python)  # one that is named is taken to have it
        found = _serving(found, settings.brain_quantization or "fp8") or found
    reason = None if found.share or begun else quantises_nothing(settings)
    if found.streamed and settings.in_time and settings.engine == "torch":
        reason = "a budget in time needs a model in memory, or --engine vllm: this one's layers are streamed"
    return replace(found, fault=reason)


def _serving(way: Placement, quantization: Quantization | None) -> Placement | None:
    """The same with a vLLM beside it that serves the brain; None where that has no room."""
    sizes, groups = way.sizes, way.sizes.shape.n_groups
    rooms = {
        gpu.name: Room(gpu.total, gpu.free - needed(way.lines, gpu.name, recalibration=way.recalibrates))
        for gpu in way.machine.gpus
    }
    share = share_of(sizes.params, sizes.served_cache, groups, rooms, quantization, sizes.itemsize)
    if share is None:
        return None
    lines = [Line(SERVED, share.bytes, gpu) for gpu in share.gpus]
    kept = [line for line in way.lines if line.when != "spare" or line.where not in share.gpus]
    return replace(way, lines=[*kept, *lines], share=share)


def _no_room_for_brain(settings: Settings, ways: Sequence[Placement]) -> str:
    """Why no vLLM fits beside the model, however it is placed, and what to do."""
    weights = weights_of(ways[0].sizes.params, settings.brain_quantization, ways[0].sizes.itemsize)
    fitting = [way for way in ways if not short_of(way.lines, way.machine, recalibration=False)]
    smaller = next((each for each in get_args(Quantization) if any(_serving(way, each) for way in fitting)), None)
    advice = f"--brain-quantization {smaller} would fit" if smaller else "serve it on another machine (--brain-url)"
    return f"a vLLM for the brain needs {size(weights)} for its weights alone, which no GPU has left; {advice}"


def placed(settings: Settings, target: Target, *, begun: bool = False) -> Placement:
    """Decide it, and refuse what cannot be.

    Raises:
        SettingsError: what is needed, what there is, and which option would help.
    """
    found = place(settings, target, begun=begun)
    found.refuse()
    return found


def _ways(settings: Settings, sizes: Sizes, machine: Machine, mode: Mode) -> Iterator[Placement]:
    """How everything can be placed in one mode: Gram matrices in memory or not, states on a GPU or not."""
    first, elsewhere = machine.first, (None, machine.memory.name) if machine.gpus else (None,)
    for on_disk, states in product((True,) if mode == "streamed" else (False, True), elsewhere):
        others = {"streamed": mode == "streamed", "grams_on_disk": on_disk, "states": states}

        def bill(layers: Mapping[str, int], memory: int, others: dict[str, Any] = others) -> list[Line]:
            return bill_of(settings, sizes, machine, layers, state_memory=memory, **others)

        layers, memory = {first.name: 0 if mode == "streamed" else sizes.shape.n_layers}, STATE_MEMORY
        if mode == "spread":
            empty = bill(dict.fromkeys([gpu.name for gpu in machine.gpus], 0), memory)
            layers = spread(
                sizes.shape.n_layers,
                sizes.layer_bytes,
                {gpu: gpu.free - needed(empty, gpu.name) for gpu in machine.gpus},
            )
        if mode == "streamed":
            searching = [line for line in bill(layers, memory) if line.when in ("always", "search")]
            left = first.free - needed(searching, first.name)
            memory = max(memory, min(sensitivity_states(settings, sizes), memory + left * 3 // 4))
        for bound in dict.fromkeys((memory, STATE_MEMORY)):
            yield Placement(mode, layers, on_disk, states, bound, bill(layers, bound), machine, sizes)


def _shortage(settings: Settings, target: Target, found: Placement) -> str:
    """What is short, and what would help."""
    short = short_of(found.lines, found.machine, recalibration=False)
    asked = [f"{size(count)} of {device.name}, where {size(device.free)} are free" for device, count in short.items()]
    advice = next(_helpful(settings, target, found.machine), None)
    disks = [OTHER_DISK[use] for use, disk in found.machine.disks.items() if disk in short]
    if advice is None and disks:
        advice = f"another disk, named by {' or '.join(disks)}, would help"
    beside = f" with {target.brain.name} as its brain" if target.brain else ""
    return f"{target.outline.name}{beside} needs {' and '.join(asked)}, {HOW[found.mode]}; " + (
        advice or "free some, or take a smaller model"
    )


def _helpful(settings: Settings, target: Target, machine: Machine) -> Iterator[str]:
    """Options with which there would be room, the least change first."""
    options: dict[str, dict[str, Any]] = {
        "--placement auto": {"placement": "auto"},
        f"--calibration-sequences {CPU_CALIBRATION}": {"calibration_sequences": CPU_CALIBRATION},
        "--dtype bfloat16": {"dtype": "bfloat16"},
        "--no-export": {"export": False},
        "--device cpu": {"device": "cpu"},
        **({"--brain self": {"brain": "self"}} if settings.other_brain or settings.own_vllm else {}),
    }
    for option, update in options.items():
        changed = settings.model_copy(update=update)
        if changed == settings:
            continue
        device = "cpu" if changed.device == "cpu" else target.device
        longest = target.outline.model.config.max_position_embeddings
        texts = wanted_texts(changed, longest, device)
        brain = target.brain if changed.other_brain else None
        other = replace(target, device=device, dtype=dtype_of(changed, device), texts=texts, brain=brain)
        there = replace(machine, gpus=()) if device == "cpu" else machine
        sizes, modes = sizes_of(changed, other), _modes(changed, there)
        if any(
            not short_of(way.lines, there, recalibration=False)
            for mode in modes
            for way in _ways(changed, sizes, there, mode)
        ):
            yield f"{option} would fit"


def _modes(settings: Settings, machine: Machine) -> list[Mode]:
    """The modes that may be, the fastest first."""
    if settings.placement != "auto":
        return [settings.placement]
    return ["resident", *(("spread",) if len(machine.gpus) > 1 else ()), "streamed"]
