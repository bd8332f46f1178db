"""Time GGUF files in llama.cpp: a script of its own, run in the environment that has llama-cpp-python.

`python llama_times.py SETUP`, where SETUP is a JSON file with `dense` (a file), `prompt`, `decode`, `batch`, `repeats`,
`threads` and `together` (whether the dense model stays beside the others). Every line of standard input is a JSON
object with a `file`, and is answered by one line: `dense` and `candidate`, lists of [seconds of the prompt, seconds of
what is decoded after it], in turn. Files are removed once they are loaded. Nothing of this project is imported.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np

CELLS = 256  # llama.cpp rounds the length of a context up to so many


def main() -> None:
    """Answer until standard input ends."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print is no answer
    setup = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    llama_cpp.llama_backend_init()
    first = Model(setup, setup["dense"])
    dense: Model | None = first
    alone: list[tuple[float, float]] = []
    if not setup["together"]:
        first.request()
        alone = [first.request() for _ in range(setup["repeats"])]
        first.close()
        dense = None
    for line in sys.stdin:
        model = Model(setup, json.loads(line)["file"])
        for one in filter(None, (dense, model)):
            one.request()  # warm-up
        found: dict[str, list[tuple[float, float]]] = {"dense": list(alone), "candidate": []}
        for repeat in range(setup["repeats"]):
            sides = [("candidate", model)] if dense is None else [("dense", dense), ("candidate", model)]
            for name, one in sides if repeat % 2 == 0 else reversed(sides):
                found[name].append(one.request())
        model.close()
        answers.write(json.dumps(found) + "\n")
        answers.flush()


class Model:
    """A loaded file, its context and one batch of tokens."""

    def __init__(self, setup: dict[str, Any], file: str) -> None:
        self.prompt, self.decode, self.rows = setup["prompt"], setup["decode"], setup["batch"]
        loading = llama_cpp.llama_model_default_params()
        loading.n_gpu_layers = 0
        self.model = llama_cpp.llama_model_load_from_file(file.encode(), loading)
        if not self.model:
            raise RuntimeError(f"llama.cpp does not load {file}")
        os.unlink(file)  # it stays mapped
        params = llama_cpp.llama_context_default_params()
        length = -(-(self.prompt + self.decode + 1) // CELLS) * CELLS
        params.n_ctx, params.n_seq_max = self.rows * length, self.rows
        params.n_threads = params.n_threads_batch = setup["threads"]
        self.context = llama_cpp.llama_init_from_model(self.model, params)
        if not self.context:
            raise RuntimeError(f"llama.cpp has no room for a context of {params.n_ctx} tokens")
        self.vocab = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(self.model))
        self.most = llama_cpp.llama_n_batch(self.context)
        self.batch = llama_cpp.llama_batch_init(max(self.most, self.rows), 0, 1)

    def request(self) -> tuple[float, float]:
        """Seconds to read the prompts and give the first token, and those of the tokens after it, greedily."""
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self.context), True)
        start = time.perf_counter()
        tokens = self._read()
        read = time.perf_counter()
        for position in range(self.prompt, self.prompt + self.decode):
            self._run([(token, position, row, True) for row, token in enumerate(tokens)])
            tokens = [self._chosen(row) for row in range(self.rows)]
        return read - start, max(time.perf_counter() - read, 1e-9)

    def _read(self) -> list[int]:
        """The token after each prompt; prompts are read side by side, in as large parts as llama.cpp takes."""
        prompts = [
            ((1 + 31 * row + 7 * place) % self.vocab, place, row, place == self.prompt - 1)
            for row in range(self.rows)
            for place in range(self.prompt)
        ]
        tokens = []
        for begin in range(0, len(prompts), self.most):
            part = prompts[begin : begin + self.most]
            self._run(part)
            tokens += [self._chosen(index) for index, (*_, last) in enumerate(part) if last]
        return tokens

    def _run(self, tokens: list[tuple[int, int, int, bool]]) -> None:
        """Read tokens: id, position, row, whether logits are wanted."""
        batch = self.batch
        batch.n_tokens = len(tokens)
        for index, (token, position, row, wanted) in enumerate(tokens):
            batch.token[index], batch.pos[index] = token, position
            batch.n_seq_id[index], batch.seq_id[index][0] = 1, row
            batch.logits[index] = wanted
        if status := llama_cpp.llama_decode(self.context, batch):
            raise RuntimeError(f"llama.cpp cannot read {len(tokens)} tokens (status {status})")

    def _chosen(self, index: int) -> int:
        """The likeliest token by the logits of that place of the batch."""
        logits: Any = llama_cpp.llama_get_logits_ith(self.context, index)
        address = ctypes.cast(logits, ctypes.POINTER(ctypes.c_float))
        return int(np.ctypeslib.as_array(address, (self.vocab,)).argmax())

    def close(self) -> None:
        """Give the memory back."""
        llama_cpp.llama_batch_free(self.batch)
        llama_cpp.llama_free(self.context)
        llama_cpp.llama_model_free(self.model)


if __name__ == "__main__":
    main()
