"""Many samples of one prompt as one sequence: the prompt's keys and values exist once.

The samples are branches of a tree. Their tokens lie behind the prompt in one cache of batch size 1, in the order in
which they were fed, and a mask lets a token see the prompt and its own branch only (tree attention, as in Miao et al.,
"SpecInfer", arXiv 2305.09781). Against a padded batch this copies no prompt for each sample, needs no padding where
branches are fed unequal numbers of tokens, and costs one forward pass of exactly the tokens that are new.

Between turns the prompt stays in the cache: of the next prompt only what follows the longest common prefix is computed.
A model whose layers are streamed reads all pieces of a prompt layer by layer, with the same figures and one pass.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from threading import Lock
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.cache_utils import Cache, DynamicLayer

from self_pruner.tools.pruning.store import LayerStore

PROMPT = -1  # the owner of prompt tokens; branches are numbered from 0
CHUNK = 128  # prompt tokens a forward pass: bounds the activations, and a warm cache computes what a cold one does


class GrowingLayer(DynamicLayer):
    """Keys and values of one layer in a buffer that doubles: a new token costs no copy of the old ones."""

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Appends [1, heads, new, head_dim] and returns all of it."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self._key_buffer = key_states[:, :, :0]
            self._value_buffer = value_states[:, :, :0]
        old, new = self.get_seq_length(), self.get_seq_length() + key_states.shape[-2]
        if new > self._key_buffer.shape[-2]:
            self._key_buffer = grown(self._key_buffer, old, 2 * new)
            self._value_buffer = grown(self._value_buffer, old, 2 * new)
        self._key_buffer[:, :, old:new] = key_states
        self._value_buffer[:, :, old:new] = value_states
        keys, values = self._key_buffer[:, :, :new], self._value_buffer[:, :, :new]
        self.keys, self.values = keys, values
        return keys, values

    def truncate(self, length: int) -> None:
        """Keeps the first `length` tokens; the buffer stays."""
        self.keys, self.values = self._key_buffer[:, :, :length], self._value_buffer[:, :, :length]


def grown(buffer: Tensor, used: int, size: int) -> Tensor:
    """A buffer of `size` tokens that begins with the `used` ones of the old."""
    shape = (*buffer.shape[:2], size, buffer.shape[-1])
    bigger = torch.empty(shape, dtype=buffer.dtype, device=buffer.device)
    bigger[:, :, :used] = buffer[:, :, :used]
    return bigger


class Branches:
    """A model, the prompt it has read, and any number of continuations of that prompt."""

    def __init__(self, model: PreTrainedModel, passing: AbstractContextManager[Any] | None = None) -> None:
        """An empty cache of its own; `passing` is held during a pass, where other caches of the model have it too."""
        self.model = model
        self.passing = passing or nullcontext()
        self.lock = Lock()  # for whoever reads a prompt and continues it: one at a time
        self.forget()

    def forget(self) -> None:
        """Drops the cache, as after a change of the model's weights."""
        self.layers = [GrowingLayer() for _ in range(self.model.config.num_hidden_layers)]
        self.cache = Cache(layers=list(self.layers))
        self.tokens: list[int] = []  # the prompt in the cache
        self.owners: list[int] = []  # the owner of every token in the cache, PROMPT or a branch
        self.lengths: dict[int, int] = {}  # tokens of every branch
        self.intact = True  # False from the start of a pass to its end: an interrupted one leaves half its keys

    def read(self, prompt: Sequence[int]) -> tuple[Tensor, int]:
        """Makes `prompt` (at least one token) the cache's prompt and drops all branches.

        Returns:
            The logits [vocab] that follow the prompt, and how many of its tokens were in the cache already.
        """
        if not self.intact:
            self.forget()
        kept = 0
        for old, new in zip(self.tokens, prompt[:-1], strict=False):  # the last one is computed anew for its logits
            if old != new:
                break
            kept += 1
        kept -= kept % CHUNK  # passes begin at the same places whatever was cached, so they round alike
        self.rewind(kept)
        logits = torch.empty(0)
        pieces = {start: list(prompt[start : start + CHUNK]) for start in range(kept, len(prompt), CHUNK)}
        if (streamed := getattr(self.model, "streamed_layers", None)) is not None:
            logits = self._layer_by_layer(streamed, pieces)
        else:
            for start, piece in pieces.items():
                positions = list(range(start, start + len(piece)))
                logits = self.forward(piece, [PROMPT] * len(piece), positions, [len(piece) - 1])
                self.tokens += piece
        return logits[0], kept

    def extend(self, tokens: Mapping[int, Sequence[int]]) -> dict[int, Tensor]:
        """Feeds every named branch its new tokens (at least one each) in one forward pass.

        Returns:
            For every named branch the logits [vocab] that follow its last token.
        """
        flat: list[int] = []
        owners: list[int] = []
        positions: list[int] = []
        last = []
        for branch, new in tokens.items():
            start = len(self.tokens) + self.lengths.get(branch, 0)
            flat += new
            owners += [branch] * len(new)
            positions += range(start, start + len(new))
            last.append(len(flat) - 1)
            self.lengths[branch] = self.lengths.get(branch, 0) + len(new)
        logits = self.forward(flat, owners, positions, last)
        return {branch: logits[row] for row, branch in enumerate(tokens)}

    def rewind(self, length: int | None = None) -> None:
        """Drops all branches and keeps the first `length` prompt tokens (all of them by default)."""
        length = len(self.tokens) if length is None else length
        for layer in self.layers:
            if layer.is_initialized:
                layer.truncate(length)
        self.tokens, self.owners, self.lengths = self.tokens[:length], [PROMPT] * length, {}

    @torch.inference_mode()
    def forward(self, tokens: list[int], owners: list[int], positions: list[int], keep: list[int]) -> Tensor:
        """One pass over new tokens; returns float32 logits [len(keep), vocab] on the CPU at the places in `keep`."""
        device = self.model.device
        self.intact = False
        mask = self._mask(owners)
        with self.passing:
            output = self.model(
                input_ids=torch.tensor([tokens], device=device),
                position_ids=torch.tensor([positions], device=device),
                attention_mask=mask,
                past_key_values=self.cache,
                use_cache=True,
                logits_to_keep=torch.tensor(keep, device=device),
            )
        self.intact = True
        return output.logits[0].float().cpu()

    @torch.inference_mode()
    def _layer_by_layer(self, layers: LayerStore, pieces: Mapping[int, list[int]]) -> Tensor:
        """What `forward` gives for the last of some pieces of the prompt, by where they begin: logits [1, vocab].

        All pieces pass a layer before any passes the next, so each layer is asked for once.
        """
        decoder, device = self.model.get_decoder(), self.model.device
        self.intact = False
        states, beside = [], []
        for start, piece in pieces.items():
            positions = torch.arange(start, start + len(piece), device=device)[None]
            states.append(decoder.embed_tokens(torch.tensor([piece], device=device)))
            rotary = decoder.rotary_emb(states[-1], positions)
            mask = self._mask([PROMPT] * len(piece))
            beside.append({"position_ids": positions, "position_embeddings": rotary, "attention_mask": mask})
        with self.passing:
            for index in range(len(layers)):
                with layers.layer(index) as layer:
                    for number, given in enumerate(beside):
                        states[number] = layer(states[number], past_key_values=self.cache, use_cache=True, **given)
            logits = self.model.get_output_embeddings()(decoder.norm(states[-1])[:, -1:])
        self.tokens += [token for piece in pieces.values() for token in piece]
        self.intact = True
        return logits[0].float().cpu()

    def _mask(self, owners: list[int]) -> Tensor:
        """What new tokens of these owners, which the cache counts from here on, see of all: [1, 1, new, all]."""
        device, seen = self.model.device, len(self.owners)
        self.owners += owners
        owner = torch.tensor(self.owners, device=device)
        slot = torch.arange(len(self.owners), device=device)
        visible = ((owner == PROMPT) | (owner == owner[seen:, None])) & (slot <= slot[seen:, None])
        mask = torch.zeros(visible.shape, dtype=self.model.dtype, device=device).masked_fill_(~visible, -torch.inf)
        return mask[None, None]
