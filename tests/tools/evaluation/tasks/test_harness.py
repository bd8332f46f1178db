"""The harness on the elastic model says what it says on lm-eval's own Hugging Face model of the same weights."""

import copy
import random

import pytest
import torch

from self_pruner.tools.evaluation.tasks.rows import TASKS
from self_pruner.tools.evaluation.tasks.suite import METRICS, TaskSuite, silent
from self_pruner.tools.latency.measure import smaller_model
from self_pruner.tools.pruning.calibration import calibrate
from self_pruner.tools.pruning.elastic import ElasticModel
from tests.tiny import MLP_UNIT, tiny_model
from tests.tools.evaluation.populations import random_profile


@pytest.fixture(scope="module")
def begun(tokenizer):
    """The tokenizer as those of Llama are: it begins every text with a token of its own."""
    from tokenizers.processors import TemplateProcessing

    begun = copy.deepcopy(tokenizer)
    begin = begun.bos_token
    begun.backend_tokenizer.post_processor = TemplateProcessing(
        single=f"{begin} $A", pair=f"{begin} $A $B", special_tokens=[(begin, begun.bos_token_id)]
    )
    assert begun.encode("a")[0] == begun.bos_token_id
    return begun


def requests_of(suite, task):
    with silent():
        suite.task(task).build_all_requests(limit=None)
    return list(suite.task(task).instances)


def hugging_face(model, tokenizer):
    from lm_eval.models.huggingface import HFLM

    with silent():
        return HFLM(pretrained=model, tokenizer=tokenizer, batch_size=4)


def assert_same_likelihoods(elastic, profile, tokenizer, folder):
    from self_pruner.tools.evaluation.tasks.harness import ElasticLM

    suite = TaskSuite(tokenizer, folder, 4)
    reference = hugging_face(smaller_model(elastic, profile), tokenizer)
    own = ElasticLM(elastic, profile, tokenizer)
    for task in TASKS:
        requests = requests_of(suite, task)
        expected = reference.loglikelihood(requests, disable_tqdm=True)
        found = own.loglikelihood(requests)
        assert [greedy for _, greedy in found] == [greedy for _, greedy in expected]
        assert [nats for nats, _ in found] == pytest.approx([nats for nats, _ in expected], abs=1e-4)


@pytest.mark.parametrize("kind", ["tokenizer", "begun"])
def test_likelihoods_are_those_of_lm_evals_own_model(elastic, folder, kind, request):
    for profile in (elastic.space.dense(), random_profile(elastic.space, random.Random(3))):
        assert_same_likelihoods(elastic, profile, request.getfixturevalue(kind), folder)


def test_contexts_beyond_the_model_are_cut_as_lm_eval_cuts_them(tokenizer, folder):
    model = tiny_model("llama", tied=True, vocab_size=len(tokenizer), max_position_embeddings=24)
    text = torch.randint(len(tokenizer), (4, 24), generator=torch.Generator().manual_seed(7))
    short = ElasticModel(model, calibrate(model, text), mlp_unit=MLP_UNIT)
    assert len(tokenizer.encode(TaskSuite(tokenizer, folder, 1).rows("boolq")[0]["passage"])) > 24
    assert_same_likelihoods(short, random_profile(short.space, random.Random(1)), tokenizer, folder)


def test_a_choice_beyond_the_model_is_refused(tokenizer, folder):
    from self_pruner.tools.evaluation.tasks.harness import run_task
    from self_pruner.tools.evaluation.tasks.likelihood import LikelihoodError

    model = tiny_model("llama", tied=True, vocab_size=len(tokenizer), max_position_embeddings=4)
    text = torch.randint(len(tokenizer), (8, 4), generator=torch.Generator().manual_seed(7))
    short = ElasticModel(model, calibrate(model, text), mlp_unit=MLP_UNIT)
    with pytest.raises(LikelihoodError, match=r"a choice has \d+ tokens, and the model reads 4 at the most"):
        run_task(short, short.space.dense(), TaskSuite(tokenizer, folder, 1), "piqa")


def test_accuracies_and_standard_errors_are_lm_evals_own(elastic, tokenizer, folder):
    from lm_eval.evaluator import evaluate

    from self_pruner.tools.evaluation.tasks.harness import run_task

    profile = random_profile(elastic.space, random.Random(5))
    suite = TaskSuite(tokenizer, folder, 5)
    reference = hugging_face(smaller_model(elastic, profile), tokenizer)
    for task in TASKS:
        found = run_task(elastic, profile, suite, task)
        with silent():
            expected = evaluate(reference, {"tasks": {task: suite.task(task)}})["results"][task]
        assert [one.metric for one in found] == list(METRICS[task])
        for one in found:
            assert one.value == expected[f"{one.metric},none"]
            assert one.standard_error == expected[f"{one.metric}_stderr,none"]


def test_a_single_row_has_no_standard_error(elastic, tokenizer, folder):
    from self_pruner.tools.evaluation.tasks.harness import run_task

    (found,) = run_task(elastic, elastic.space.dense(), TaskSuite(tokenizer, folder, 1), "boolq")
    assert found.value in (0.0, 1.0) and found.standard_error is None


def test_an_empty_context_is_the_token_that_begins_a_text(elastic, tokenizer):
    from lm_eval.api.instance import Instance

    from self_pruner.tools.evaluation.tasks.harness import ElasticLM

    asked = [Instance("loglikelihood", {}, ("", " a glacier"), 0, metadata=("t", 0, 1))]
    expected = hugging_face(elastic.model, tokenizer).loglikelihood(asked, disable_tqdm=True)
    ((nats, greedy),) = ElasticLM(elastic, elastic.space.dense(), tokenizer).loglikelihood(asked)
    assert nats == pytest.approx(expected[0][0], abs=1e-4) and greedy == expected[0][1]


def test_the_harness_says_nothing_of_its_own(elastic, suite, capfd):
    from self_pruner.tools.evaluation.tasks.harness import run_task

    run_task(elastic, elastic.space.dense(), suite, "hellaswag")
    output = capfd.readouterr()
    assert output.out == "" and output.err == ""
