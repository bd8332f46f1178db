"""Brain: one turn of the giant as its own brain, eight replies to one prompt, without a grammar."""

from __future__ import annotations

import statistics
from collections.abc import Callable

import torch

from benchmarks.gpu.decoder import Decoder, random_weights
from benchmarks.gpu.device import Device
from benchmarks.gpu.headline import ACTIVATIONS, depth_that_fits
from benchmarks.gpu.profiles import Shapes
from benchmarks.gpu.record import Deadline, Record, figure, rounded

REPLIES = 8
TEMPERATURE = 0.8


def run(record: Record, device: Device, shapes: Shapes, deadline: Deadline) -> None:
    """Read the prompt once for all replies, then sample them side by side: launched one by one, and as graphs."""
    config = shapes.giant
    prompt_tokens, reply_tokens, eager_tokens = (32, 4, 2) if shapes.toy else (1536, 96, 24)
    dtype = torch.float32 if shapes.toy else torch.bfloat16
    copy_rate = device.copy_rate()
    device.release()
    cache = 4.0 * REPLIES * (prompt_tokens + reply_tokens) * config.num_key_value_heads * config.head_dim
    layer = 2.0 * (
        2 * config.hidden_size * config.head_dim * (config.num_attention_heads + config.num_key_value_heads)
        + 3 * config.hidden_size * config.intermediate_size
    )
    depth = depth_that_fits(shapes.layers, layer + cache, ACTIVATIONS, device.free_bytes())
    sizes = [(config.num_key_value_heads, config.intermediate_size)] * depth.deep
    weights = random_weights(config, sizes, device, dtype)
    decoder = Decoder(weights, REPLIES, prompt_tokens + reply_tokens, TEMPERATURE)
    prompt = torch.randint(config.vocab_size, (1, prompt_tokens), device=device.torch, generator=device.generator(0))
    record.set(layers=depth.deep, of=shapes.layers, replies=REPLIES, prompt_tokens=prompt_tokens)

    def prefill() -> None:
        decoder.prefill(prompt)

    ways: list[tuple[str, Callable[[], Callable[[], object]], int]] = [
        ("eager", lambda: decoder.step, eager_tokens),
        ("graph", lambda: device.captured(decoder.step), reply_tokens),
    ]
    for mode, make, count in ways:
        if deadline.left() < 0:
            record.row(mode=mode, skipped="no time")
            continue
        reading = device.repeat(prefill, 3)
        step = make()
        prefill()  # capturing has moved the position on
        laps = device.laps(step, count)
        read, one = statistics.median(reading), statistics.median(laps)
        record.row(
            mode=mode,
            prompt_ms=rounded(1e3 * read),
            step_ms=rounded(1e3 * one),
            turn_seconds=rounded(read + reply_tokens * one),
            reply_tokens=reply_tokens,
            tokens_per_second=rounded(REPLIES / one),
            share_of_copy=rounded(decoder.step_bytes / one / copy_rate, 3),
            prompt_seconds=figure(reading),
            step_seconds=figure(laps),
        )
