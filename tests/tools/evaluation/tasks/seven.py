"""A few rows of each of the seven tasks, in the hub's field names, and a suite that asks them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

PASSAGE = "Glaciers are bodies of ice that move under their own weight. They form where snow outlasts the summer. " * 3


def rows_of(task: str, count: int = 3) -> list[dict[str, Any]]:
    """The first `count` made-up rows of a task; every answer position occurs."""
    return [_ROWS[task](index) for index in range(count)]


def write_tasks(folder: Path, count: int = 3, **changed: list[str]) -> Path:
    """Writes the seven files to `folder`; `changed` gives the lines of some of them."""
    folder.mkdir(parents=True, exist_ok=True)
    for task in _ROWS:
        lines = changed.get(task, [json.dumps(row) for row in rows_of(task, count)])
        (folder / f"{task}.jsonl").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return folder


def _boolq(index: int) -> dict[str, Any]:
    return {"question": f"do glaciers move {index}", "passage": PASSAGE, "idx": index, "label": index % 2}


def _piqa(index: int) -> dict[str, Any]:
    return {
        "goal": f"To keep bread number {index} fresh,",
        "sol1": "wrap it in a clean cloth.",
        "sol2": "leave it out in the rain for a day, then put it back on the shelf.",
        "label": index % 2,
    }


def _hellaswag(index: int) -> dict[str, Any]:
    return {
        "ind": index,
        "activity_label": "Baking",
        "ctx_a": f"A woman stands in kitchen {index} with a bowl of flour.",
        "ctx_b": "she" if index % 2 else "",
        "endings": [
            "adds water and stirs.",
            "adds salt [title] It rises.",
            "paints the ceiling and sings.",
            "sleeps.",
        ],
        "label": str(index % 4),
    }


def _winogrande(index: int) -> dict[str, Any]:
    return {
        "sentence": f"The trophy {index} does not fit in the suitcase because the _ is too large.",
        "option1": "trophy",
        "option2": "old suitcase",
        "answer": str(1 + index % 2),
    }


def _choices(index: int, labels: str = "ABCD") -> dict[str, Any]:
    texts = ["the sun", "a very large glacier", "the moon", "steam"][: len(labels)]
    return {"choices": {"text": texts, "label": list(labels)}, "answerKey": labels[index % len(labels)]}


def _arc(index: int) -> dict[str, Any]:
    labels = "1234" if index == 1 else "ABC" if index == 2 else "ABCD"  # as the data set mixes them
    return {"id": f"q{index}", "question": f"What melts ice {index} times a day?", **_choices(index, labels)}


def _openbookqa(index: int) -> dict[str, Any]:
    return {"id": f"q{index}", "question_stem": f"The water of river {index} comes from", **_choices(index)}


_ROWS = {
    "boolq": _boolq,
    "piqa": _piqa,
    "hellaswag": _hellaswag,
    "winogrande": _winogrande,
    "arc_easy": _arc,
    "arc_challenge": _arc,
    "openbookqa": _openbookqa,
}
