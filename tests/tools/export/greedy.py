"""Write the greedy tokens of some prompts with one engine: a script of its own, run in the environment of the engine.

`python greedy.py ENGINE REQUESTS`, where ENGINE is transformers or vllm and REQUESTS a JSON file with a list of
objects: `folder`, `prompts` (lists of token ids), `new_tokens`, `dtype` and, for transformers, `trust_remote_code`, for
vLLM `options` of its `LLM`. The last line of standard output is a JSON list with an object for each: `tokens`, a list
for each prompt; `gaps`, where transformers wrote them, how far the best logit was above the second at each; and
`engine`, its version. Nothing of this project is imported.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any


def with_transformers(request: dict[str, Any]) -> dict[str, Any]:
    """With the model's own code where that may run."""
    import torch
    import transformers

    model: Any = transformers.AutoModelForCausalLM.from_pretrained(
        request["folder"],
        trust_remote_code=request["trust_remote_code"],
        dtype=request["dtype"],
        use_safetensors=True,
    )
    model = model.to("cuda" if torch.cuda.is_available() else "cpu").eval()
    written, gaps = [], []
    for prompt in request["prompts"]:
        ids = torch.tensor([prompt], device=model.device)
        found = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            generation_config=transformers.GenerationConfig(
                max_new_tokens=request["new_tokens"], do_sample=False, eos_token_id=None, pad_token_id=0
            ),
            return_dict_in_generate=True,
            output_logits=True,
        )
        written.append(found.sequences[0, len(prompt) :].tolist())
        best = [logits[0].float().topk(2).values for logits in found.logits]
        gaps.append([float(first - second) for first, second in best])
    return {"tokens": written, "gaps": gaps, "engine": f"transformers {transformers.__version__}"}


def with_vllm(request: dict[str, Any]) -> dict[str, Any]:
    """With vLLM, without compiled graphs: they take minutes and compute the same."""
    import vllm

    model = vllm.LLM(
        model=request["folder"],
        dtype=request["dtype"],
        enforce_eager=True,
        skip_tokenizer_init=True,
        max_model_len=max(map(len, request["prompts"])) + request["new_tokens"],
        **request["options"],
    )
    outputs = model.generate(
        [{"prompt_token_ids": prompt} for prompt in request["prompts"]],
        vllm.SamplingParams(temperature=0, max_tokens=request["new_tokens"], ignore_eos=True, detokenize=False),
        use_tqdm=False,
    )
    model.llm_engine.engine_core.shutdown()
    written = [list(output.outputs[0].token_ids) for output in outputs]
    return {"tokens": written, "gaps": [], "engine": f"vllm {vllm.__version__}"}


def main() -> None:
    """One engine, its requests one after the other."""
    engine, requests = sys.argv[1], json.loads(Path(sys.argv[2]).read_text(encoding="utf-8"))
    write = {"transformers": with_transformers, "vllm": with_vllm}[engine]
    print(json.dumps([write(request) for request in requests]))


if __name__ == "__main__":  # vLLM's own processes import this file again
    main()
