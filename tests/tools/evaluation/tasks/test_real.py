"""On the bundled model and real questions the tasks tell a language model from a pruned one that is none any more."""

import copy
import gzip
import json

import pytest
import torch

from self_pruner.memory.profile import Profile
from self_pruner.tools.evaluation.tasks.harness import AskedModel, run_task
from self_pruner.tools.evaluation.tasks.suite import TaskSuite
from self_pruner.tools.models.bundled import bundled_text
from self_pruner.tools.models.source import load, resolve
from self_pruner.tools.pruning.calibration import calibrate
from self_pruner.tools.pruning.elastic import ElasticModel
from self_pruner.tools.pruning.smaller_model import smaller_model
from self_pruner.tools.pruning.streamed import StreamedLayers

SCHOOL = [
    ("What do cows eat?", ["glass", "grass", "stones", "metal"], "B"),
    ("What is the boiling point of water at sea level?", ["100 degrees Celsius", "5 degrees", "1000 degrees"], "A"),
    ("What do plants need to make their own food?", ["plastic", "meat", "salt", "sunlight"], "D"),
    ("What happens to water when it is cooled below zero degrees?", ["It boils.", "It freezes.", "It burns."], "B"),
    ("Which part of the body pumps blood?", ["the heart", "the liver", "the stomach", "the knee"], "A"),
    ("Which gas do people need to breathe?", ["helium", "chlorine", "oxygen", "neon"], "C"),
    ("What do bees make?", ["honey", "paper money", "gasoline", "glass"], "A"),
    ("What is the capital of France?", ["Berlin", "Madrid", "Paris", "Rome"], "C"),
]


@pytest.fixture(scope="module")
def elastic(bundled):
    """The bundled model, elastic: a copy, because its weights are reordered."""
    text = torch.randint(len(bundled.tokenizer), (2, 64), generator=torch.Generator().manual_seed(0))
    model = copy.deepcopy(bundled.model)
    return ElasticModel(model, calibrate(model, text))


@pytest.fixture(scope="module")
def suite(bundled, tmp_path_factory):
    """Eight rows of two tasks: questions of our own, and the first short ones of BoolQ's validation set."""
    folder = tmp_path_factory.mktemp("tasks")
    school = [
        {"question": question, "choices": {"text": texts, "label": list("ABCD")[: len(texts)]}, "answerKey": key}
        for question, texts, key in SCHOOL
    ]
    boolq = []
    for line in gzip.decompress(bundled_text("passages")).splitlines():
        request = json.loads(line)  # one a choice; the first of each question will do
        document = request["doc"]
        passage, _, question = document["query"].rpartition("\nQuestion: ")
        if request["idx"] == 0 and len(passage) < 300:
            right = document["choices"][document["gold"]]
            boolq.append({"question": question.partition("?")[0], "passage": passage, "label": int(right == "yes")})
    for task, rows in {"arc_easy": school, "boolq": boolq[:8]}.items():
        (folder / f"{task}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return TaskSuite(bundled.tokenizer, folder, 8)


def test_a_language_model_answers_and_its_remains_guess(elastic, suite):
    dense = elastic.space.dense()
    least = Profile((1,) * dense.n_layers, (1,) * dense.n_layers)
    models = [
        AskedModel(smaller_model(elastic, profile), tokenizer=suite.tokenizer, batch_size=8)
        for profile in (dense, least)
    ]
    found, left = (run_task(model, suite, "arc_easy") for model in models)
    assert found["acc"][0] >= 0.75 and found["acc_norm"][0] >= 0.75
    assert left["acc"][0] <= 0.5


def test_the_answers_are_the_same_with_its_layers_streamed(elastic, suite):
    few = TaskSuite(suite.tokenizer, suite.folder, 2)
    loaded = load(resolve("smollm2-135m"), device="cpu", dtype="float32", layers=False)
    profile = Profile((2,) * 30, (36,) * 30)
    with StreamedLayers(loaded.model, loaded.files) as store:
        there = ElasticModel(loaded.model, elastic.moments.calibration, store=store, orders=elastic.orders)
        streamed, resident = (
            AskedModel(smaller_model(one, profile), tokenizer=suite.tokenizer, batch_size=8) for one in (there, elastic)
        )
        for task in ("arc_easy", "boolq"):
            assert run_task(streamed, few, task) == run_task(resident, few, task)
        assert store.passes == 2
