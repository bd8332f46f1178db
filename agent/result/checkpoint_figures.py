"""What the command `evaluate` measured of a checkpoint and its dense model: `evaluation.json`, and a table of it."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict

from self_pruner.agent.result.measure_tasks import CONVENTION, Accuracy
from self_pruner.agent.result.task_table import TITLES, TaskRow, TaskTable
from self_pruner.agent.run_files.atomic_write import atomic_write
from self_pruner.tools.evaluation.tasks.apart import TaskFigures, TextFigures
from self_pruner.tools.evaluation.tasks.rows import TASKS
from self_pruner.tools.export.card import CardTasks, with_evaluation

FILE = "evaluation.json"  # beside the checkpoint
CARD = "README.md"  # the model card in an exported folder
DENSE, PRUNED = "dense", "this checkpoint"


class Figures(BaseModel):
    """What is known of one model, by the digest of what it was asked."""

    model_config = ConfigDict(frozen=True)

    name: str
    parameters: int | None
    weights: str  # digest of config and weights
    tokenizer: str = ""  # digest of its files
    tasks: dict[str, dict[str, tuple[float, float | None]]] = {}  # by digest of the rows; metrics with standard errors
    texts: dict[str, TextFigures] = {}  # by digest of text and length

    def merged(self, other: Figures) -> Figures:
        """With the figures of `other` too, which is of the same weights and tokenizer."""
        return self.model_copy(update={"tasks": {**other.tasks, **self.tasks}, "texts": {**other.texts, **self.texts}})

    def with_result(self, result: TaskFigures | TextFigures, asked: Evaluation) -> Figures:
        """With one more figure, of what was `asked`."""
        if isinstance(result, TaskFigures):
            return self.model_copy(update={"tasks": {**self.tasks, asked.data[result.task]: dict(result.metrics)}})
        return self.model_copy(update={"texts": {**self.texts, asked.text_digest or "": result}})


class Evaluation(BaseModel):
    """A checkpoint beside its dense model."""

    model_config = ConfigDict(frozen=True)

    format: int = 1
    command: str
    harness: str
    rows: dict[str, int]  # asked, by task
    data: dict[str, str]  # digests of them
    text: str | None  # the name of the text of the perplexity; None where it was not to be had
    text_digest: str | None
    length: int  # tokens of its windows
    dtype: str
    device: str
    versions: dict[str, str]
    models: list[Figures]

    @property
    def way(self) -> tuple[object, ...]:
        """What its figures were computed with: those of another way are not to be mixed with them."""
        return self.dtype, self.harness, self.device, self.versions

    def write(self, folder: Path) -> None:
        """Keep it beside the checkpoint in `folder`."""
        atomic_write(folder / FILE, self.model_dump_json(indent=1) + "\n")

    def table(self) -> TaskTable:
        """The zero-shot part, as far as it is measured."""
        found = []
        for model in self.models:
            known = {task: model.tasks[self.data[task]] for task in TASKS if self.data[task] in model.tasks}
            figures = {task: metrics[CONVENTION[task]] for task, metrics in known.items()}
            tasks = {task: Accuracy(value=value, standard_error=error) for task, (value, error) in figures.items()}
            found.append(TaskRow.of(model.name, tasks))
        return TaskTable(rows=found, asked=self.rows, data=self.data, harness=self.harness)

    def cells(self) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
        """Header and rows as text: a column a model."""
        header, rows = self.table().cells()
        counts = ("parameters", *("-" if one.parameters is None else f"{one.parameters:,}" for one in self.models))
        if self.text is None:
            return header, [counts, *rows]
        name = TITLES.get(self.text, "WikiText-2" if self.text == "wikitext2" else self.text)
        perplexities = (_perplexity(one.texts.get(self.text_digest or "")) for one in self.models)
        return header, [counts, *rows, (f"{name}, perplexity at {self.length}", *perplexities)]

    @property
    def measured_on(self) -> str:
        """What the figures are."""
        windows = next((one.texts[key].windows for one in self.models if (key := self.text_digest) in one.texts), None)
        text = (
            ""
            if windows is None
            else f" Perplexity over {windows:,} windows of {self.length} tokens that do not overlap, text in one piece."
        )
        return (
            f"{self.table().measured_on} The folder's files in lm-eval's own Hugging Face model, a process of its own, "
            f"{self.dtype} on {self.device}.{text}"
        )

    def for_card(self) -> CardTasks:
        """The table as text."""
        header, rows = self.cells()
        return CardTasks(header, tuple(rows), self.measured_on)


def read_evaluation(folder: Path) -> Evaluation | None:
    """What was measured of the checkpoint in `folder`; None where there is nothing, or nothing that can be read."""
    try:
        found = Evaluation.model_validate_json((folder / FILE).read_text(encoding="utf-8"))
        found.cells()  # whose tasks may not be those that are known
        return found
    except (OSError, ValueError, KeyError):
        return None


def put_on_card(folder: Path) -> None:
    """Write the table of the checkpoint in `folder` on its model card, where it has both."""
    evaluation, card = read_evaluation(folder), folder / CARD
    if evaluation is not None and card.is_file():
        page = card.read_text(encoding="utf-8")
        atomic_write(card, with_evaluation(page, evaluation.for_card(), evaluation.command))


def _perplexity(found: TextFigures | None) -> str:
    if found is None:
        return "-"
    error = "" if found.standard_error is None else f" ± {found.standard_error:.2f}"
    return f"{found.perplexity:,.2f}{error}"
