"""A request as a server runs it on a GPU: a KV cache of its full length from the start, and no launches one by one.

Every step works on the same tensors and asks the host nothing, so prompt and step are captured once as CUDA graphs and
replayed. Layers may differ in their numbers of heads: each has buffers of its own size.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from transformers import Cache, PreTrainedModel
from transformers.cache_utils import StaticLayer

from self_pruner.memory.errors import MeasurementError
from self_pruner.tools.export.serving import window_of


class _Slots(StaticLayer):
    """Keys and values of one layer. A prompt, which is read from an empty cache, attends to itself alone."""

    cumulative_length: Any  # a tensor, the positions that are filled

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Keep keys and values [batch, groups, n, head_dim] and return those to attend to."""
        kept = super().update(key_states, value_states, *args, **kwargs)
        return kept if key_states.shape[-2] == 1 else (key_states, value_states)

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Length and offset of the keys that so many queries attend to."""
        return (self.max_cache_len if query_length == 1 else query_length), 0


class StaticDecoder:
    """Greedy decoding after a batch of equally long prompts."""

    def __init__(self, model: PreTrainedModel, prompt: Tensor, decode_tokens: int) -> None:
        """Make the buffers.

        Args:
            model: a causal LM; layers may have different numbers of KV heads.
            prompt: token ids [batch, n].
            decode_tokens: tokens after the one that the prompt gives; at least 1.

        Raises:
            MeasurementError: attention slides over fewer tokens than that, or layers are on other devices.
        """
        if any(parameter.device != prompt.device for parameter in model.parameters()):
            raise MeasurementError("a graph holds one device, and its layers are on several")
        window = window_of(model.config)
        if window is not None and window < prompt.shape[1] + decode_tokens:
            raise MeasurementError(f"its attention slides over {window} tokens, less than a request has")
        self.model, self.prompt = model, prompt
        length, device = prompt.shape[1] + decode_tokens, prompt.device
        self.layers = [_Slots(length) for _ in model.get_decoder().layers]
        self.cache = Cache(layers=list(self.layers))
        self.slots = torch.arange(length, device=device)
        self.token = torch.zeros(prompt.shape[0], 1, dtype=torch.int64, device=device)
        self.position = torch.zeros(1, 1, dtype=torch.int64, device=device)

    @torch.no_grad()
    def prefill(self) -> None:
        """Read the prompt into the empty cache and choose the first token."""
        for layer in self.layers:
            layer.cumulative_length.zero_()  # what is left of the last request is written over, or not attended to
        output = self.model(
            self.prompt,
            past_key_values=self.cache,
            position_ids=self.slots[None, : self.prompt.shape[1]],
            use_cache=True,
            logits_to_keep=1,
        )
        self.position.fill_(self.prompt.shape[1])
        self.token.copy_(output.logits[:, -1:].argmax(-1))

    @torch.no_grad()
    def step(self) -> None:
        """Feed the last token of every row and choose the next."""
        seen = (self.slots <= self.position)[None, None]  # [1, 1, 1, length]
        output = self.model(
            self.token,
            attention_mask=seen,
            past_key_values=self.cache,
            position_ids=self.position,
            use_cache=True,
        )
        self.position.add_(1)
        self.token.copy_(output.logits[:, -1:].argmax(-1))

    def captured(self) -> tuple[Callable[[], object], Callable[[], object]]:
        """`prefill` and `step` as CUDA graphs; on a CPU themselves.

        Raises:
            RuntimeError: they cannot be captured, or memory is short.
        """
        self.prefill()  # buffers are made outside of any graph
        self.step()
        prefill = captured(self.prefill, self.prompt.device)
        prefill()  # so that there is room for the step that `captured` runs
        return prefill, captured(self.step, self.prompt.device)


def captured(action: Callable[[], object], device: torch.device) -> Callable[[], object]:
    """`action` as a CUDA graph, which is replayed without the host; on the CPU `action` itself. It is run once before.

    Args:
        action: does the same on the same tensors every time, and reads nothing back from the device.
        device: where it runs.

    Raises:
        RuntimeError: it cannot be captured.
    """
    if device.type != "cuda":
        action()
        return action
    stream, current = torch.cuda.Stream(device), torch.cuda.current_stream(device)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.device(device), torch.cuda.stream(current):  # puts back what a failed capture leaves as current
        stream.wait_stream(current)
        with torch.cuda.stream(stream):
            action()  # handles and workspaces of libraries are made here
        current.wait_stream(stream)
        with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
            action()

    def replay(_: object = action) -> None:  # whose tensors live as long as the graph
        graph.replay()

    return replay
