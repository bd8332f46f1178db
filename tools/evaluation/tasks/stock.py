"""Measure a folder with lm-eval's own Hugging Face model: a script of its own, run in a process of its own.

`python stock.py REQUEST`, where REQUEST is a JSON file with the fields of `apart.Request`. Standard output has one JSON
object a line: `{"progress": [done, all]}`, and after each measurement `{"task": ..., "metrics": {name: [value, standard
error or null]}}` or `{"text": true, "nll": [...]}`, the mean negative log-likelihood of every window in nats a token.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any


def main() -> None:
    """One model, one request."""
    import torch

    from self_pruner.tools.evaluation.tasks.harness import AskedModel, run_task
    from self_pruner.tools.evaluation.tasks.suite import TaskSuite

    request: dict[str, Any] = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    model = AskedModel(
        request["folder"],
        progress=lambda done, total: say({"progress": [done, total]}),
        trust_remote_code=request["trust_remote_code"],
        dtype=request["dtype"],
        device=request["device"],
        batch_size=request["batch"],
        parallelize=request["parallelize"],
        use_safetensors=True,
    )
    suite = TaskSuite(model.tokenizer, Path(request["rows"]))
    for task in request["tasks"]:
        say({"task": task, "metrics": run_task(model, suite, task)})
    if request["text"] is not None:
        text = Path(request["text"]).read_text(encoding="utf-8")
        with torch.no_grad():
            say({"text": True, "nll": windows(model, text, request["length"])})


def windows(model: Any, text: str, length: int) -> list[float]:
    """The mean negative log-likelihood of each window of `length` tokens that follow each other in `text`."""
    import torch

    with_warning = model.tokenizer.model_max_length
    model.tokenizer.model_max_length = sys.maxsize  # the text is cut below: no warning that it is long
    ids = torch.tensor(model.tokenizer(text).input_ids)
    model.tokenizer.model_max_length = with_warning
    count = len(ids) // length
    if not count:
        raise SystemExit(f"Error: the text has {len(ids)} tokens, and a window takes {length}")
    rows = ids[: count * length].view(count, length)
    found: list[float] = []
    for window in rows:
        found.append(_nll(model.model, window.to(model.device)))
        say({"progress": [len(found), count]})
    return found


def _nll(model: Any, window: Any) -> float:
    """The mean negative log-likelihood of one window; of few tokens at a time where the family's logits are plain.

    All logits of a window of 2,048 tokens take a gigabyte in float32 where the vocabulary has 128,256.
    """
    import torch
    import torch.nn.functional as F

    from self_pruner.tools.evaluation.targets import head_chunks
    from self_pruner.tools.models.families import FAMILIES

    following = window[1:]
    if model.config.model_type not in FAMILIES:  # what its head gives may be scaled or capped
        logits = model(window[None]).logits[0, :-1].float()
        return float(F.cross_entropy(logits, following.to(logits.device)))
    hidden = model.get_decoder()(window[None]).last_hidden_state[0, :-1]
    pieces = []
    for positions in head_chunks(len(following)):
        logits = model.get_output_embeddings()(hidden[positions]).float()
        pieces.append(F.cross_entropy(logits, following[positions].to(logits.device), reduction="none"))
    return float(torch.cat(pieces).mean())


def say(line: dict[str, Any]) -> None:
    """One line for the process that asked."""
    print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
