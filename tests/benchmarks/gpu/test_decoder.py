import pytest
import torch

from benchmarks.gpu.decoder import Decoder, random_weights, stock
from benchmarks.gpu.device import Device
from benchmarks.gpu.profiles import config

SIZES = [(4, 96), (2, 64), (1, 32)]
PROMPT, REPLY = 7, 5


@pytest.fixture(scope="module")
def weights():
    small = config(
        "llama-2-70b",
        hidden_size=64,
        num_hidden_layers=3,
        num_attention_heads=8,
        num_key_value_heads=4,
        intermediate_size=96,
        vocab_size=97,
        max_position_embeddings=64,
    )
    made = random_weights(small, SIZES, Device("cpu"), torch.float32)
    for number, matrix in enumerate(made.matrices):  # numbers large enough for attention and tokens to matter
        if matrix.ndim == 2:
            noise = torch.randn(matrix.shape, generator=torch.Generator().manual_seed(number))
            matrix.copy_(noise * matrix.shape[1] ** -0.5)
    made.embedding.copy_(torch.randn(made.embedding.shape, generator=torch.Generator().manual_seed(99)))
    return made


@pytest.mark.parametrize("batch", [1, 3])
def test_prompt_and_reply_are_those_of_transformers_on_the_same_weights(weights, batch):
    prompt = torch.randint(97, (batch, PROMPT), generator=torch.Generator().manual_seed(batch))
    decoder = Decoder(weights, batch, PROMPT + REPLY)
    logits, tokens = [decoder.prefill(prompt)], []
    for _ in range(REPLY):
        tokens.append(decoder.token.clone())
        logits.append(decoder.step())
    expected = stock(weights)(torch.cat([prompt, torch.stack(tokens, 1)], 1)).logits[:, PROMPT - 1 :]
    torch.testing.assert_close(torch.stack(logits, 1), expected, rtol=1e-4, atol=1e-4)
    assert expected.std() > 0.5  # or agreement would say nothing


def test_one_prompt_serves_all_replies(weights):
    prompt = torch.randint(97, (1, PROMPT), generator=torch.Generator().manual_seed(0))
    together, alone = Decoder(weights, 3, PROMPT + REPLY), Decoder(weights, 1, PROMPT + REPLY)
    together.prefill(prompt)
    alone.prefill(prompt)
    torch.testing.assert_close(together.step(), alone.step().expand(3, -1), rtol=1e-4, atol=1e-4)


def test_sampling_draws_by_the_probabilities(weights):
    decoder = Decoder(weights, 4000, 2, temperature=0.5)
    logits = torch.tensor([[0.0, 0.5, 1.0]]).expand(4000, 3)
    torch.manual_seed(0)
    drawn = torch.bincount(decoder._chosen(logits), minlength=3) / 4000
    torch.testing.assert_close(drawn, logits[0].div(0.5).softmax(0), atol=0.03, rtol=0)


def test_a_step_reads_all_weights_but_the_embedding_and_the_whole_cache(weights):
    decoder = Decoder(weights, 2, 12)
    groups = sum(groups for groups, _ in SIZES)
    assert decoder.cache_bytes == 4 * 2 * groups * 2 * 12 * 8  # float32, keys and values, batch, positions, head_dim
    assert decoder.step_bytes == 4 * (weights.parameters - 97 * 64) + decoder.cache_bytes
    pieces = decoder.pieces()
    norms = 4 * 64 * (2 * len(SIZES) + 1)
    assert sum(size for _, size in pieces.values()) == decoder.step_bytes - norms


def test_prefill_counts_two_operations_a_weight_and_token_and_causal_attention(weights):
    decoder = Decoder(weights, 2, 12)
    layer_matrices = sum(
        matrix.numel() for layer in weights.layers for matrix in (layer.qkv, layer.out, layer.gate_up, layer.down)
    )
    heads = 2 * sum(groups for groups, _ in SIZES)
    attention = 2 * 2 * 2 * (10 * 10 / 2) * 8 * heads  # batch; QK and PV; multiply and add; half a square; head_dim
    assert decoder.prefill_flops(10) == 2 * 2 * 10 * layer_matrices + attention + 2 * 2 * 97 * 64
