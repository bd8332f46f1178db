"""Runs in an environment with llama-cpp-python: logits, greedy tokens and tokens of texts of one GGUF file, as JSON.

`python llama_child.py FILE REQUEST ANSWER`; REQUEST has `prompts` (token ids), `new_tokens` and `texts`.
"""

import json
import sys
from pathlib import Path

import llama_cpp


def main(file: str, request: dict) -> dict:
    model = llama_cpp.Llama(
        model_path=file,
        n_ctx=256,
        logits_all=True,
        verbose=False,
        n_threads=1,
        n_threads_batch=1,
        flash_attn=False,
        type_k=llama_cpp.GGML_TYPE_F32,
        type_v=llama_cpp.GGML_TYPE_F32,
    )
    logits, written = [], []
    for prompt in request["prompts"]:
        model.reset()
        model.eval(prompt)
        logits.append(model.scores[: len(prompt)].tolist())
        tokens = []
        for _ in range(request["new_tokens"]):
            tokens.append(int(model.scores[model.n_tokens - 1].argmax()))
            model.eval(tokens[-1:])
        written.append(tokens)
    return {
        "logits": logits,
        "tokens": written,
        "texts": [model.tokenize(text.encode(), add_bos=True, special=True) for text in request["texts"]],
        "bos": model.token_bos(),
        "eos": model.token_eos(),
        "metadata": model.metadata,
        "version": llama_cpp.__version__,
    }


if __name__ == "__main__":
    answer = main(sys.argv[1], json.loads(Path(sys.argv[2]).read_text()))
    Path(sys.argv[3]).write_text(json.dumps(answer))
