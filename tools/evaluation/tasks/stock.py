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
    from lm_eval.models.huggingface import HFLM

    from self_pruner.tools.evaluation.tasks.harness import ask
    from self_pruner.tools.evaluation.tasks.suite import TaskSuite, silent

    request: dict[str, Any] = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))

    class Model(HFLM):  # type: ignore[misc, unused-ignore]
        """lm-eval's, which says how far it is."""

        asked = done = 0

        def loglikelihood(self, requests: Any, disable_tqdm: bool = False) -> Any:
            """As lm-eval does it."""
            self.asked, self.done = len(requests), 0
            return super().loglikelihood(requests, disable_tqdm=disable_tqdm)

        def _model_call(self, inps: Any, *args: Any, **kwargs: Any) -> Any:
            found = super()._model_call(inps, *args, **kwargs)
            self.done += len(inps)
            say({"progress": [min(self.done, self.asked), self.asked]})
            return found

    with silent():
        model = Model(
            pretrained=request["folder"],
            trust_remote_code=request["trust_remote_code"],
            dtype=request["dtype"],
            device=request["device"],
            batch_size=request["batch"],
            parallelize=request["parallelize"],
            use_safetensors=True,
        )
    suite = TaskSuite(model.tokenizer, Path(request["rows"]))
    for task in request["tasks"]:
        found = ask(model, suite, task)
        say({"task": task, "metrics": {one.metric: [one.value, one.standard_error] for one in found}})
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
