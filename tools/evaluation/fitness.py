"""Fitness: how far a candidate's next-token distribution is from the dense model's, in nats a token.

KL(dense || candidate) over the `TOP_K` most probable tokens of the dense model, every other token lumped into one
"rest" bucket. Lumping can only lower the divergence, and at 512 tokens it hardly does; in exchange the dense side is
two small tensors a token instead of one as wide as the vocabulary, so it is computed once and kept. Perplexity on the
same text is a by-product of the same logits: reported, never searched on, because it rewards overfitting the text
(Li et al., "Tyr-the-Pruner", arXiv 2503.09657).

Everything here is a pure function of tensors, except that `split` consumes the logits it is given: they are by far the
largest tensor of an evaluation, and a copy would cost more than the arithmetic.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

TOP_K = 512


class Buckets(NamedTuple):
    """A next-token distribution in k + 1 buckets, as log-probabilities in nats, float32."""

    top: Tensor  # [n, k] of the tokens that the dense model finds most probable
    rest: Tensor  # [n] of all other tokens together; log of the smallest normal float32 where nothing is left


class Split(NamedTuple):
    """What `split` reads from the logits of n tokens."""

    buckets: Buckets
    chosen: Tensor  # [n] log-probability of one given token each, nats, float32


def split(logits: Tensor, indices: Tensor, chosen: Tensor) -> Split:
    """Reduce logits to buckets and to the log-probability of one token a row. Destroys float32 `logits`.

    The rest bucket is summed over its own members (the top ones are zeroed first), never taken as 1 - sum(top): that
    difference is rounding noise, of either sign, wherever the dense top tokens hold nearly all probability.

    Args:
        logits: [n, vocab], any float type; overwritten if float32.
        indices: [n, k] int64, distinct within a row: the tokens with a bucket of their own.
        chosen: [n] int64, the token whose log-probability is wanted (the next one of the text).
    """
    logits = logits.float()
    top = logits.gather(1, indices)
    of_chosen = logits.gather(1, chosen[:, None]).squeeze(1)
    peak = logits.amax(dim=1, keepdim=True)
    rest = logits.sub_(peak).exp_().scatter_(1, indices, 0.0).sum(dim=1)
    top = top.sub_(peak)
    log_total = top.exp().sum(dim=1).add_(rest).log_()
    rest = rest.clamp_(min=torch.finfo(torch.float32).tiny).log_()
    return Split(
        buckets=Buckets(top=top.sub_(log_total[:, None]), rest=rest.sub_(log_total)),
        chosen=of_chosen.sub_(peak.squeeze(1)).sub_(log_total),
    )


def bucketed_kl(dense: Buckets, candidate: Buckets) -> Tensor:
    """KL(dense || candidate) over the buckets, in nats a token.

    Not finite exactly where the candidate's logits were not, or where it gives a top token no probability at all.

    Args:
        dense: the targets, n tokens.
        candidate: the same buckets (the same token indices) of the candidate.

    Returns:
        [n] float32; never below zero by more than rounding.
    """
    top = (dense.top.exp() * (dense.top - candidate.top)).sum(dim=1)
    return top + dense.rest.exp() * (dense.rest - candidate.rest)


def next_tokens(input_ids: Tensor) -> Tensor:
    """The token that follows each position, [n, length]; the last of a row, which has none, repeats its own."""
    return torch.cat([input_ids[:, 1:], input_ids[:, -1:]], dim=1)


def sequence_means(per_token: Tensor, *, last: bool) -> list[float]:
    """Mean over the positions of every sequence, summed in float64.

    Args:
        per_token: [n, length].
        last: whether the last position counts. It does for KL; it does not for the negative log-likelihood, which has
            no next token there.
    """
    return (per_token if last else per_token[:, :-1]).double().mean(dim=1).tolist()
