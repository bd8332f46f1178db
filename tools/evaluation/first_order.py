"""First-order sensitivities: how fitness changes with every width of every place, from one backward pass at a profile.

Narrowing a place to k channels changes the weight of its output projection from V_w to V_k, its refit at that width, so
to first order the KL divergence changes by <M, V_k> - <M, V_w>, where M is its gradient with respect to that weight.
All units reach the projection during the pass (columns of removed ones are zero), so one M serves every width, narrower
and wider, and one pass serves every place. Unlike the additive costs of the probes this knows what is cut elsewhere.
First-order pruning scores go back to Molchanov et al. (arXiv 1906.10771); here the step is a compensated width.

All sequences go through the layers together, there and back, and each layer is computed a second time on the way back.
So a place's factor is asked for once a pass, and memory holds one hidden state a sublayer and sequence, and the
gradients of one layer for one sequence. A sequence's numbers are those it would get alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from self_pruner.memory.errors import SelfPrunerError
from self_pruner.memory.profile import PARTS, Part, Profile
from self_pruner.tools.evaluation.fitness import Buckets
from self_pruner.tools.evaluation.targets import DenseTargets, head_chunks
from self_pruner.tools.profiles.sensitivity import Costs
from self_pruner.tools.pruning.elastic import ElasticModel
from self_pruner.tools.pruning.store import OUTPUTS, Embedded, LayerStore, branch, device_of

PASS_COST = 5  # tokens charged for a token of a pass: the time it takes, rounded up, in evaluations of one candidate


class FirstOrderError(SelfPrunerError):
    """A profile at which fitness has no finite first-order sensitivities, or none that fit in memory."""


def first_order_sensitivities(
    elastic: ElasticModel, store: LayerStore, targets: DenseTargets, profile: Profile, sequences: Sequence[int]
) -> list[Costs]:
    """The first-order change of KL(dense || candidate) with every width, on some sequences of the targets' text.

    Args:
        elastic: the elastic model.
        store: its layers.
        targets: the dense model's distributions.
        profile: where the sensitivities are taken.
        sequences: indices of sequences; they pass the layers together.

    Returns:
        One table a sequence, in nats a token, 0 at the widths of `profile`; entry 0 of a row, which no profile uses,
        continues the curve.

    Raises:
        FirstOrderError: they are not finite.
    """
    embedded = elastic.embed(targets.input_ids[list(sequences)])
    states = [list(embedded.hidden.split(1))]  # before every sublayer, then the last ones: [1, length, hidden] each
    embedded = embedded._replace(hidden=embedded.hidden[:0])
    with elastic.compensator.one_pass():
        for index in range(len(store)):
            with store.layer(index) as layer:
                for part in PARTS:
                    states.append([_through(elastic, layer, index, part, profile, embedded, one) for one in states[-1]])
        gradients = [
            head_gradient(elastic, targets, one, number) for one, number in zip(states.pop(), sequences, strict=True)
        ]
        rows: dict[Part, list[list[tuple[float, ...]]]] = {part: [] for part in PARTS}
        for index in reversed(range(len(store))):
            with store.layer(index) as layer:
                for part in reversed(PARTS):
                    width = profile.widths(part)[index]
                    overrides = elastic.padded(layer, index, part, width)
                    found = []
                    for number, hidden in enumerate(states.pop()):
                        gradient = gradients[number].to(device_of(layer))
                        weight, through = _back(layer, index, part, overrides, hidden, embedded, gradient)
                        row = elastic.first_order(layer, index, part, weight, gradient.sum((0, 1))) / targets.length
                        if not torch.isfinite(row).all():
                            raise FirstOrderError(
                                f"fitness has no finite sensitivities at {profile.key()}; try --dtype float32"
                            )
                        found.append(tuple((row - row[width]).tolist()))
                        gradients[number] = gradient + through
                    rows[part].append(found)
    by_sequence = {part: list(zip(*reversed(rows[part]), strict=True)) for part in PARTS}
    return [Costs(*tables) for tables in zip(*(by_sequence[part] for part in PARTS), strict=True)]


def _through(
    elastic: ElasticModel,
    layer: nn.Module,
    index: int,
    part: Part,
    profile: Profile,
    embedded: Embedded,
    hidden: Tensor,
) -> Tensor:
    width = profile.widths(part)[index]
    if part == "mlp":
        return elastic.mlp_block(layer, index, width, hidden)
    positions, mask = embedded.position_embeddings, embedded.masks[index]
    return elastic.attention_block(layer, index, width, hidden, positions, mask)


def head_gradient(elastic: ElasticModel, targets: DenseTargets, hidden: Tensor, sequence: int) -> Tensor:
    """The gradient of KL, summed over positions, with respect to the last hidden state [1, length, hidden].

    The derivative of the bucketed divergence by a logit is q - p in a bucket of its own and q (1 - r / s) in the rest,
    with p, r the dense and q, s the candidate's probabilities of the token and of the rest.
    """
    model, hidden = elastic.model, hidden.to(elastic.device)
    pieces = []
    for positions in head_chunks(hidden.shape[1]):
        indices, dense = targets.buckets(sequence, positions, hidden.device)
        with torch.enable_grad():
            state = hidden[0, positions].detach().requires_grad_()
            logits = model.get_output_embeddings()(model.get_decoder().norm(state))
        gradient = logit_gradient(logits.detach(), indices, dense).to(logits.dtype)
        pieces.append(torch.autograd.grad(logits, state, gradient)[0])
    return torch.cat(pieces)[None]


def logit_gradient(logits: Tensor, indices: Tensor, dense: Buckets) -> Tensor:
    """The gradient of the bucketed KL of every row by its logits: [n, vocab], float32.

    Args:
        logits: of the candidate, [n, vocab].
        indices: tokens with a bucket of their own, [n, k] int64.
        dense: the targets' buckets.
    """
    chances = logits.float().softmax(1)
    top = chances.gather(1, indices)
    rest = chances.scatter(1, indices, 0.0).sum(1).clamp_min(torch.finfo(torch.float32).tiny)
    return chances.mul_((1 - dense.rest.exp() / rest)[:, None]).scatter_(1, indices, top - dense.top.exp())


def _back(
    layer: nn.Module,
    index: int,
    part: Part,
    overrides: dict[str, Tensor],
    hidden: Tensor,
    embedded: Embedded,
    gradient: Tensor,
) -> tuple[Tensor, Tensor]:
    """Gradients with respect to the output projection's weight at full width and to what goes into the sublayer."""
    weight = overrides[f"{OUTPUTS[part]}.weight"].requires_grad_()
    with torch.enable_grad():
        state = hidden.detach().to(device_of(layer)).requires_grad_()
        added = branch(layer, part, overrides, state, embedded.position_embeddings, embedded.masks[index])
    found = torch.autograd.grad(added, [weight, state], gradient)
    return found[0], found[1]
