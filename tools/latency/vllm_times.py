"""Time models of given shapes in vLLM: a script of its own, run in the environment of the engine.

`python vllm_times.py SETUP`, where SETUP is a JSON file with `dense` (folder and options of vLLM's `LLM`), `dtype`,
`prompt`, `decode`, `batch`, `repeats`, `share` (of a GPU's memory for one engine), `together` (whether the dense model
stays beside the others) and `eager` (no compiled graphs). Every line of standard input is a JSON object with a `folder`
and its `options`, and is answered by one line: `dense` and `candidate`, lists of [seconds of the prompt, seconds of
what is decoded after it], in turn. Weights are random, for speed depends on shapes alone. Nothing of this project is
imported.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import time
from pathlib import Path
from typing import Any


def main() -> None:
    """Answer until standard input ends."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print is no answer
    setup = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    dense = engine(setup, setup["dense"])
    alone = None
    if setup["together"]:
        import vllm.v1.engine.core as core

        # An engine that ends takes down the process groups that the dense model's still needs.
        core.cleanup_dist_env_and_memory = lambda *_, **__: None
    else:
        request(setup, dense)
        alone = [request(setup, dense) for _ in range(setup["repeats"])]
        release(dense)
        dense = None
    for line in sys.stdin:
        model = engine(setup, json.loads(line))
        for one in filter(None, (dense, model)):
            request(setup, one)  # warm-up
        found: dict[str, list[tuple[float, float]]] = {"dense": list(alone or ()), "candidate": []}
        for repeat in range(setup["repeats"]):
            sides = [("candidate", model)] if dense is None else [("dense", dense), ("candidate", model)]
            for name, one in sides if repeat % 2 == 0 else reversed(sides):
                found[name].append(request(setup, one))
        release(model)
        model = None
        answers.write(json.dumps(found) + "\n")
        answers.flush()


def engine(setup: dict[str, Any], model: dict[str, Any]) -> Any:
    """VLLM on the config in a folder."""
    import vllm

    return vllm.LLM(
        model=model["folder"],
        load_format="dummy",
        dtype=setup["dtype"],
        enforce_eager=setup["eager"],
        skip_tokenizer_init=True,
        enable_prefix_caching=False,
        max_model_len=setup["prompt"] + setup["decode"] + 1,
        max_num_seqs=setup["batch"],
        max_num_batched_tokens=max(2048, setup["prompt"] * setup["batch"]),
        gpu_memory_utilization=setup["share"],
        **model["options"],
    )


def request(setup: dict[str, Any], model: Any) -> tuple[float, float]:
    """Seconds to read the prompts and give the first token, and those of the tokens after it."""
    first = run(setup, model, 1)
    return first, max(run(setup, model, 1 + setup["decode"]) - first, 1e-9)


def run(setup: dict[str, Any], model: Any, tokens: int) -> float:
    """Seconds of a batch that writes so many tokens greedily."""
    import vllm

    prompts = [
        {"prompt_token_ids": [1 + (31 * row + 7 * place) % 251 for place in range(setup["prompt"])]}
        for row in range(setup["batch"])
    ]
    options = vllm.SamplingParams(
        temperature=0, max_tokens=tokens, min_tokens=tokens, ignore_eos=True, detokenize=False
    )
    start = time.perf_counter()
    model.generate(prompts, options, use_tqdm=False)
    return time.perf_counter() - start


def release(model: Any) -> None:
    """End an engine, so that its memory can be taken again."""
    import torch

    model.llm_engine.engine_core.shutdown()
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


if __name__ == "__main__":  # vLLM's own processes import this file again
    main()
