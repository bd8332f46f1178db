"""Seconds of the parts that a run is made of, from the sizes of the model and the speed of one layer on this machine.

What is not timed is counted in operations and taken to be as fast as the matrix products of a layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from self_pruner.agent.dry_run.machine_speed import Speed
from self_pruner.agent.search.initial_population import probe_width
from self_pruner.agent.settings import Settings
from self_pruner.memory.profile import PARTS, Part, Profile
from self_pruner.tools.evaluation.sharing import trie
from self_pruner.tools.profiles.space import Space

DISK = 1e8  # bytes a second, read or written
DRAWN = 0.006  # seconds that one drawn token takes beside its pass: grammar, sampling, attention to the prompt


@dataclass(frozen=True, slots=True)
class Sizes:
    """What of a dense model and its calibration text the cost depends on."""

    space: Space
    hidden: int
    vocab: int
    attention: int  # input channels of o_proj
    intermediate: int  # input channels of down_proj
    keys: int  # key channels of all KV heads of a layer
    params: int  # embeddings and head included
    uniform: Profile  # a candidate
    bytes: int  # of one weight
    refit_memory: int  # bytes of remembered refits
    calibration: tuple[int, int]  # sequences, tokens a sequence

    @property
    def layers(self) -> int:
        """Decoder layers."""
        return self.space.n_layers

    @property
    def calibration_tokens(self) -> int:
        """Tokens of the calibration text."""
        return self.calibration[0] * self.calibration[1]

    @property
    def kept(self) -> float:
        """Share of the decoder blocks' parameters that a candidate keeps."""
        return self.space.prunable_params(self.uniform) / self.space.prunable_params(self.space.dense())

    @property
    def pruned_params(self) -> int:
        """Parameters of a candidate, embeddings and head included."""
        space = self.space
        return self.params - space.prunable_params(space.dense()) + space.prunable_params(self.uniform)

    def channels(self, part: Part) -> int:
        """Input channels of the output projection of a part."""
        return self.attention if part == "attention" else self.intermediate

    @property
    def gram_bytes(self) -> int:
        """Bytes of the Gram matrices of all layers, float32."""
        return 4 * self.layers * sum(self.channels(part) ** 2 for part in PARTS)


@dataclass(frozen=True, slots=True)
class Rates:
    """Seconds of what a run does with text."""

    settings: Settings
    sizes: Sizes
    speed: Speed

    def dense(self, tokens: float) -> float:
        """Tokens through all layers and the head."""
        return tokens * (self.sizes.layers * self.speed.layer + self.speed.head)

    def candidates(self, tokens: float) -> float:
        """Tokens through candidates on budget, one by one."""
        return tokens * (self.sizes.kept * self.sizes.layers * self.speed.layer + self.speed.head)

    def calibration(self) -> float:
        """The calibration text through the layers, with the moments of what enters the output projections."""
        return self._moments(1.0, 2.0 * (self.sizes.attention**2 + self.sizes.intermediate**2))

    def recalibration(self) -> float:
        """The same for a dense and a pruned model side by side, with carried errors and a refit of every place."""
        sizes = self.sizes
        channels = sizes.attention + sizes.intermediate
        moments = 2.0 * (sizes.attention**2 + sizes.intermediate**2 + sizes.hidden * channels)
        pruned = 2.0 * sizes.hidden * sizes.kept * channels
        return self._moments(2.0, moments + pruned) + self.factors() + self.refits(1)

    def _moments(self, passes: float, operations: float) -> float:
        """The calibration text through all layers so many times, with so many operations more a token and layer."""
        longer = max(0, self.sizes.calibration[1] - self.settings.sequence_length)
        attending = 2.0 * self.sizes.attention * longer  # operations a token more than in the sequences that were timed
        layer = self.speed.layer + attending / self.speed.flops
        return self.sizes.calibration_tokens * self.sizes.layers * (passes * layer + operations / self.speed.flops)

    def factors(self) -> float:
        """The factor of every place, from which all its refits are made."""
        if self.settings.compensation != "lstsq":
            return 0.0
        return self.sizes.layers * sum(map(self._factor, PARTS)) / self.speed.flops

    def refits(self, widths: int) -> float:
        """Refits of every place at so many widths; where memory does not hold all factors, each begins with its own."""
        sizes = self.sizes
        if self.settings.compensation != "lstsq":
            return 0.0
        remembered = sizes.layers * sum(map(self.factor_bytes, PARTS)) <= sizes.refit_memory
        operations = 0.0
        for part in PARTS:
            product = 2 * sizes.hidden * (sizes.kept * sizes.channels(part)) ** 2
            again = 0.0 if remembered else self._factor(part)
            operations += min(widths, sizes.space.units(part) - 1) * (product + again)
        return sizes.layers * operations / self.speed.flops

    def _factor(self, part: Part) -> float:
        """Operations of a Cholesky factor in float64, at half the speed, its inverse, and its product with weights."""
        n = self.sizes.channels(part)
        return 5 / 3 * n**3 + 2 * self.sizes.hidden * n**2

    def factor_bytes(self, part: Part) -> int:
        """Bytes of the remembered factor of one place."""
        n = self.sizes.channels(part)
        return 4 * n * (n + self.sizes.hidden)

    def probes(self) -> tuple[int, float]:
        """How many places are probed, and the seconds that takes."""
        space = self.sizes.space
        profiles = [
            space.dense().with_width(layer, part, probe_width(space.units(part)))
            for part in PARTS
            if space.units(part) > 1
            for layer in range(space.n_layers)
        ]
        return len(profiles), self._together(profiles) + self.factors() + self.refits(1)

    def _together(self, profiles: Sequence[Profile]) -> float:
        """Profiles on the probes' tokens in one walk: what they agree on is computed once."""
        space = self.sizes.space
        params = sum(node.width * space.unit_params(node.part) for nodes in trie(profiles) for node in nodes)
        layers = self.sizes.layers * params / space.prunable_params(space.dense())
        return self.settings.probe_tokens * (layers * self.speed.layer + len(profiles) * self.speed.head)

    def decoding(self, steps: float, together: float) -> float:
        """Decoding steps in which so many replies go on together."""
        return steps * (self.speed.step(self.sizes.layers, together) + together * DRAWN)

    def latency(self) -> float:
        """One latency measurement: the dense model and a candidate in turn, after a warm-up."""
        batch = self.settings.latency_batch
        prefill = batch * self.settings.latency_prompt * self.sizes.layers * self.speed.layer
        step = self.speed.step(self.sizes.layers, batch)
        request = prefill + self.settings.latency_decode * step
        return 2 * (self.settings.latency_repeats * request + prefill + 2 * step)

    def moved(self, weights: float) -> float:
        """So many weights read from or written to disk."""
        return weights * self.sizes.bytes / DISK
