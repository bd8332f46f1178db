"""A Llama of given shapes as an engine runs it: fused projections, a static KV cache, nothing that asks the host.

Every step works on the same tensors, so it can be captured in a CUDA graph. Widths may differ from layer to layer. The
projections of queries, keys and values are one matrix, and so are gate and up, as in vLLM; the model of transformers
can be laid over the same memory (`stock`), so that both are timed on one set of weights.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.gpu.device import Device, random_numbers
from self_pruner.tools.latency.shapes import NUMBERS, Sizes, fill, resize
from self_pruner.tools.models.families import Geometry, geometry
from self_pruner.tools.pruning.smaller_model import put


@dataclass(frozen=True, slots=True)
class LayerWeights:
    """One decoder layer."""

    qkv: Tensor  # [(heads + 2 groups) * head_dim, hidden]
    out: Tensor  # [hidden, heads * head_dim]
    gate_up: Tensor  # [2 * channels, hidden]
    down: Tensor  # [hidden, channels]
    norms: tuple[Tensor, Tensor]  # before attention and before the MLP, [hidden] each
    groups: int
    channels: int


@dataclass(frozen=True, slots=True)
class Weights:
    """A model: what a decoder runs on."""

    config: Any  # of the dense model, as transformers has it
    shape: Geometry
    embedding: Tensor  # [vocab, hidden]
    head: Tensor  # [vocab, hidden]
    norm: Tensor  # [hidden]
    layers: tuple[LayerWeights, ...]

    @property
    def matrices(self) -> list[Tensor]:
        """What a decoding step reads of the weights whole: all but the embedding."""
        per_layer = [(layer.qkv, layer.out, layer.gate_up, layer.down, *layer.norms) for layer in self.layers]
        return [self.head, self.norm, *(tensor for layer in per_layer for tensor in layer)]

    @property
    def parameters(self) -> int:
        """All parameters."""
        return self.embedding.numel() + sum(tensor.numel() for tensor in self.matrices)


def random_weights(config: Any, sizes: Sequence[Sizes], device: Device, dtype: torch.dtype) -> Weights:
    """Weights of random numbers, made as fast as memory is written; `sizes` are groups and channels of each layer."""
    shape = geometry(config)
    some = random_numbers(device, dtype, NUMBERS)

    def matrix(rows: int, columns: int) -> Tensor:
        tensor = torch.empty(rows, columns, dtype=dtype, device=device.torch)
        fill(tensor, some)
        return tensor

    def norm() -> Tensor:
        return torch.ones(shape.hidden, dtype=dtype, device=device.torch)

    layers = []
    for groups, channels in sizes:
        queries, keys = groups * shape.group_width, groups * shape.head_dim
        layers.append(
            LayerWeights(
                matrix(queries + 2 * keys, shape.hidden),
                matrix(shape.hidden, queries),
                matrix(2 * channels, shape.hidden),
                matrix(shape.hidden, channels),
                (norm(), norm()),
                groups,
                channels,
            )
        )
    vocab = matrix(shape.vocab, shape.hidden), matrix(shape.vocab, shape.hidden)
    return Weights(config, shape, *vocab, norm(), tuple(layers))


class Decoder:
    """Prefill and greedy or sampled decoding of a batch of equally long prompts."""

    def __init__(self, weights: Weights, batch: int, length: int, temperature: float = 0.0) -> None:
        """Make the KV cache.

        Args:
            weights: the model.
            batch: replies side by side.
            length: positions of the cache: prompt and reply.
            temperature: of sampling; 0 takes the likeliest token.
        """
        shape, like = weights.shape, weights.embedding
        self.weights, self.batch, self.length, self.temperature = weights, batch, length, temperature
        self.eps = float(weights.config.rms_norm_eps)
        self.caches = [
            (like.new_zeros(size), like.new_zeros(size))
            for size in ((batch, layer.groups, length, shape.head_dim) for layer in weights.layers)
        ]
        self.cosine, self.sine = _rotary(weights, length)
        self.slots = torch.arange(length, device=like.device)
        self.position = torch.zeros(1, dtype=torch.int64, device=like.device)
        self.token = torch.zeros(batch, dtype=torch.int64, device=like.device)
        self.state = like.new_full((batch, shape.hidden), 0.01)  # what the pieces are timed on

    @property
    def cache_bytes(self) -> int:
        """Bytes of keys and values, which a step reads whole."""
        return sum(tensor.nbytes for pair in self.caches for tensor in pair)

    @property
    def step_bytes(self) -> int:
        """Bytes that a decoding step has to read."""
        return sum(tensor.nbytes for tensor in self.weights.matrices) + self.cache_bytes

    def prefill_flops(self, tokens: int) -> float:
        """Operations of reading prompts of `tokens` each, the head for the last position only."""
        shape, count = self.weights.shape, self.batch * tokens
        products = sum(
            2.0 * count * matrix.numel()
            for layer in self.weights.layers
            for matrix in (layer.qkv, layer.out, layer.gate_up, layer.down)
        )
        heads = sum(layer.groups * shape.heads_per_group for layer in self.weights.layers)
        attention = 2.0 * self.batch * tokens**2 * heads * shape.head_dim  # causal: half of QK^T and of PV
        return products + attention + 2.0 * self.batch * self.weights.head.numel()

    @torch.no_grad()
    def prefill(self, prompt: Tensor) -> Tensor:
        """Read `prompt` [batch, n], or [1, n] for a whole batch of the same; returns logits [rows, vocab]."""
        shape, rows, n = self.weights.shape, *prompt.shape
        hidden = functional.embedding(prompt, self.weights.embedding).view(rows * n, -1)
        for layer, (keys, values) in zip(self.weights.layers, self.caches, strict=True):
            queries, new_keys, new_values = self._qkv(layer, hidden, rows, n, self.cosine[:n], self.sine[:n])
            keys[:, :, :n] = new_keys
            values[:, :, :n] = new_values
            mixed = functional.scaled_dot_product_attention(
                queries.flatten(1, 2), new_keys, new_values, is_causal=True, enable_gqa=shape.heads_per_group > 1
            )
            mixed = mixed.transpose(1, 2).reshape(rows * n, -1)
            hidden = torch.addmm(hidden, mixed, layer.out.T)
            hidden = self.mlp(layer, hidden)
        logits = self.logits(hidden.view(rows, n, -1)[:, -1])
        self.token.copy_(self._chosen(logits))
        self.position.fill_(n)
        return logits

    @torch.no_grad()
    def step(self) -> Tensor:
        """Feed the last token of every reply and choose the next; returns logits [batch, vocab]."""
        hidden = functional.embedding(self.token, self.weights.embedding)
        for layer, cache in zip(self.weights.layers, self.caches, strict=True):
            hidden = self.mlp(layer, self.attention(layer, cache, hidden))
        logits = self.logits(hidden)
        self.token.copy_(self._chosen(logits))
        self.position.add_(1)
        return logits

    # --- pieces, which are timed apart too ----------------------------------------------------------------------

    def attention(self, layer: LayerWeights, cache: tuple[Tensor, Tensor], hidden: Tensor) -> Tensor:
        """One attention sublayer of a decoding step: [batch, hidden] to the same shape."""
        keys, values = cache
        shape, rows = self.weights.shape, self.batch * layer.groups
        cosine, sine = (table.index_select(0, self.position) for table in (self.cosine, self.sine))
        queries, new_keys, new_values = self._qkv(layer, hidden, self.batch, 1, cosine, sine)
        keys.index_copy_(2, self.position, new_keys)
        values.index_copy_(2, self.position, new_values)
        unseen = torch.zeros(self.length, dtype=hidden.dtype, device=hidden.device)
        unseen = unseen.masked_fill(self.slots > self.position, float("-inf")).expand(rows, 1, self.length)
        queries = queries.reshape(rows, shape.heads_per_group, shape.head_dim)
        scores = torch.baddbmm(
            unseen, queries, keys.view(rows, self.length, -1).transpose(1, 2), alpha=shape.head_dim**-0.5
        )
        mixed = torch.bmm(scores.softmax(-1), values.view(rows, self.length, -1))
        return torch.addmm(hidden, mixed.view(self.batch, -1), layer.out.T)

    def mlp(self, layer: LayerWeights, hidden: Tensor) -> Tensor:
        """One MLP sublayer: [n, hidden] to the same shape."""
        normed = functional.rms_norm(hidden, hidden.shape[-1:], layer.norms[1], self.eps)
        gate, up = functional.linear(normed, layer.gate_up).split(layer.channels, -1)
        return torch.addmm(hidden, functional.silu(gate) * up, layer.down.T)

    def logits(self, hidden: Tensor) -> Tensor:
        """The final norm and the head: [n, hidden] to [n, vocab]."""
        normed = functional.rms_norm(hidden, hidden.shape[-1:], self.weights.norm, self.eps)
        return functional.linear(normed, self.weights.head)

    def pieces(self) -> dict[str, tuple[Callable[[], object], int]]:
        """All attention sublayers, all MLPs, the head: each as an action, with the bytes that it reads."""
        layers = self.weights.layers

        @torch.no_grad()
        def attention() -> None:
            for layer, cache in zip(layers, self.caches, strict=True):
                self.attention(layer, cache, self.state)

        @torch.no_grad()
        def mlp() -> None:
            for layer in layers:
                self.mlp(layer, self.state)

        @torch.no_grad()
        def head() -> None:
            self.logits(self.state)

        def size(names: Sequence[str]) -> int:
            return sum(getattr(layer, name).nbytes for layer in layers for name in names)

        return {
            "attention": (attention, size(("qkv", "out")) + self.cache_bytes),
            "mlp": (mlp, size(("gate_up", "down"))),
            "head": (head, self.weights.head.nbytes),
        }

    def _qkv(
        self, layer: LayerWeights, hidden: Tensor, rows: int, n: int, cosine: Tensor, sine: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Queries [rows, groups, heads a group, n, head_dim], keys and values [rows, groups, n, head_dim], rotated."""
        shape, groups = self.weights.shape, layer.groups
        normed = functional.rms_norm(hidden, hidden.shape[-1:], layer.norms[0], self.eps)
        heads = functional.linear(normed, layer.qkv).view(rows, n, -1, shape.head_dim).transpose(1, 2)
        turned, values = heads.split((groups * (shape.heads_per_group + 1), groups), 1)
        turned = torch.addcmul(turned * cosine, turned.roll(shape.head_dim // 2, -1), sine)
        queries, keys = turned.split((groups * shape.heads_per_group, groups), 1)
        return queries.unflatten(1, (groups, shape.heads_per_group)), keys, values

    def _chosen(self, logits: Tensor) -> Tensor:
        """The next token of every row: the likeliest, or drawn by the exponential trick, which needs no host."""
        if not self.temperature:
            return logits.argmax(-1)
        chances = (logits.float() / self.temperature).softmax(-1)
        return chances.div_(torch.empty_like(chances).exponential_()).argmax(-1)


@torch.no_grad()
def stock(weights: Weights) -> Any:
    """The model of transformers over the same memory: its projections are rows of the fused ones."""
    import transformers

    config = copy.deepcopy(weights.config)
    config.num_hidden_layers = len(weights.layers)
    config._attn_implementation = "sdpa"
    with torch.device("meta"):
        model: Any = transformers.LlamaForCausalLM(config).eval()
    decoder, shape = model.get_decoder(), weights.shape
    decoder.rotary_emb = type(decoder.rotary_emb)(config=config).to(weights.embedding.device)
    for owner, name, tensor in (
        (decoder, "embed_tokens.weight", weights.embedding),
        (decoder, "norm.weight", weights.norm),
        (model, "lm_head.weight", weights.head),
    ):
        put(owner, name, tensor)
    for module, layer in zip(decoder.layers, weights.layers, strict=True):
        queries, keys = layer.groups * shape.group_width, layer.groups * shape.head_dim
        with torch.device("meta"):
            resize(module, queries, keys, layer.channels)
        query, key, value = layer.qkv.split((queries, keys, keys))
        gate, up = layer.gate_up.split(layer.channels)
        for name, tensor in (
            ("self_attn.q_proj.weight", query),
            ("self_attn.k_proj.weight", key),
            ("self_attn.v_proj.weight", value),
            ("self_attn.o_proj.weight", layer.out),
            ("mlp.gate_proj.weight", gate),
            ("mlp.up_proj.weight", up),
            ("mlp.down_proj.weight", layer.down),
            ("input_layernorm.weight", layer.norms[0]),
            ("post_attention_layernorm.weight", layer.norms[1]),
        ):
            put(module, name, tensor)
    return model


def _rotary(weights: Weights, length: int) -> tuple[Tensor, Tensor]:
    """Cosines and signed sines of the rotary embedding, [length, head_dim]: x * cos + roll(x, half) * sin."""
    base = float(weights.config.rope_parameters["rope_theta"])
    size, device, dtype = weights.shape.head_dim, weights.embedding.device, weights.embedding.dtype
    frequencies = base ** (-torch.arange(0, size, 2, device=device, dtype=torch.float32) / size)
    angles = torch.outer(torch.arange(length, device=device, dtype=torch.float32), frequencies)
    cosine, sine = angles.cos(), angles.sin()
    return torch.cat([cosine, cosine], 1).to(dtype), torch.cat([-sine, sine], 1).to(dtype)
