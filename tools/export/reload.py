"""Load an exported folder as a stranger would, with transformers alone, and print how far its logits are.

Run as a script of its own, `python -I reload.py FOLDER EXPECTED DEVICE LAYERS`: isolated, so this project cannot be
imported. EXPECTED is a safetensors file with `input_ids` [batch, length] and `logits` [batch, length, vocab]. DEVICE
computes; LAYERS is the same, or `disk` for decoder layers that are read module by module as they are called. The last
line of standard output is one JSON object.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import torch
from safetensors.torch import load_file

# transformers would import it where it is installed: a quarter of the time of this process, for nothing used here
sys.modules.setdefault("sklearn", None)  # type: ignore[arg-type]
from transformers import AutoModelForCausalLM  # noqa: E402

PARTS = ("model.embed_tokens", "model.norm", "model.rotary_emb", "lm_head")  # all but the layers


@torch.no_grad()
def compare(folder: str, expected: str, device: str, layers: str) -> dict[str, object]:
    """The differences of all logits, and of the last token's when it is decoded with the KV cache."""
    reference = load_file(expected)
    places = None if device == layers == "cpu" else {**dict.fromkeys(PARTS, device), "model.layers": layers}
    loaded: Any = AutoModelForCausalLM.from_pretrained(
        folder,
        trust_remote_code=True,
        dtype="auto",
        use_safetensors=True,
        output_loading_info=True,
        device_map=places,
    )
    model, info = loaded
    model.eval()
    ids, logits = reference["input_ids"].to(device), reference["logits"]
    whole = (model(ids).logits.float().cpu() - logits).abs()
    prompt = model(ids[:, :-1], use_cache=True)
    last = model(ids[:, -1:], past_key_values=prompt.past_key_values).logits[:, -1]
    cached = (last.float().cpu() - logits[:, -1]).abs()
    wrong = [*info["missing_keys"], *info["unexpected_keys"], *info["mismatched_keys"]]
    return {
        "max_abs": whole.max().item(),
        "cached_max_abs": cached.max().item(),
        "scale": logits.abs().max().item(),
        "dtype": str(model.dtype).removeprefix("torch."),
        "wrong_keys": sorted(map(str, wrong)),
    }


if __name__ == "__main__":
    print(json.dumps(compare(*sys.argv[1:5])))
