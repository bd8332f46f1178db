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

WINDOW_BATCH = 4  # windows whose logits are held together


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
    import torch.nn.functional as F

    with_warning = model.tokenizer.model_max_length
    model.tokenizer.model_max_length = sys.maxsize  # the text is cut below: no warning that it is long
    ids = torch.tensor(model.tokenizer(text).input_ids)
    model.tokenizer.model_max_length = with_warning
    count = len(ids) // length
    if not count:
        raise SystemExit(f"Error: the text has {len(ids)} tokens, and a window takes {length}")
    rows = ids[: count * length].view(count, length)
    found: list[float] = []
    for batch in rows.split(WINDOW_BATCH):
        batch = batch.to(model.device)
        logits = model.model(batch).logits[:, :-1].float()
        nll = F.cross_entropy(logits.transpose(1, 2), batch[:, 1:], reduction="none")
        found += nll.mean(1).tolist()
        say({"progress": [len(found), count]})
    return found


def say(line: dict[str, Any]) -> None:
    """One line for the process that asked."""
    print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
