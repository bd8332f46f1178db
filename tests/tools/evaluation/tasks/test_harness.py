"""lm-eval's own Hugging Face model on a candidate: it sees the very model, says how far it is and what it cannot do."""

import copy
import random

import pytest
import torch

from self_pruner.memory.errors import MeasurementError
from self_pruner.tools.evaluation.tasks import harness
from self_pruner.tools.evaluation.tasks.harness import AskedModel, run_task
from self_pruner.tools.evaluation.tasks.rows import TASKS
from self_pruner.tools.evaluation.tasks.suite import METRICS, TaskSuite, silent
from self_pruner.tools.models.source import load, resolve
from self_pruner.tools.pruning.calibration import calibrate
from self_pruner.tools.pruning.elastic import ElasticModel
from self_pruner.tools.pruning.smaller_model import smaller_model
from self_pruner.tools.pruning.streamed import StreamedLayers
from tests.tiny import MLP_UNIT, tiny_model
from tests.tools.evaluation.populations import random_profile


def asked(elastic, profile, tokenizer, **options):
    return AskedModel(smaller_model(elastic, profile), tokenizer=tokenizer, batch_size=4, **options)


def test_likelihoods_are_those_of_the_elastic_model_at_the_profile(elastic, tokenizer, folder):
    profile = random_profile(elastic.space, random.Random(3))
    suite = TaskSuite(tokenizer, folder, 2)
    for task in ("boolq", "hellaswag"):
        with silent():
            suite.task(task).build_all_requests(limit=None)
        requests = list(suite.task(task).instances)
        found = asked(elastic, profile, tokenizer).loglikelihood(requests, disable_tqdm=True)
        for (context, choice), (nats, greedy) in zip((one.args for one in requests), found, strict=True):
            ids = torch.tensor([tokenizer.encode(context + choice)])
            start = len(tokenizer.encode(context))
            logs = elastic.logits(ids[:, :-1], profile)[0, start - 1 :].log_softmax(-1)
            own = ids[0, start:]
            assert nats == pytest.approx(float(logs[range(len(own)), own].sum()), abs=1e-4)
            assert greedy == bool((logs.argmax(-1) == own).all())


def test_a_choice_beyond_the_model_is_refused(tokenizer, folder):
    model = tiny_model("llama", tied=True, vocab_size=len(tokenizer), max_position_embeddings=4)
    text = torch.randint(len(tokenizer), (8, 4), generator=torch.Generator().manual_seed(7))
    short = ElasticModel(model, calibrate(model, text), mlp_unit=MLP_UNIT)
    with pytest.raises(MeasurementError, match=r"a choice has \d+ tokens, and the model reads 4 at the most"):
        run_task(asked(short, short.space.dense(), tokenizer), TaskSuite(tokenizer, folder, 1), "piqa")


def test_logits_that_are_no_numbers_are_no_likelihood(elastic, tokenizer, suite):
    broken = copy.deepcopy(smaller_model(elastic, elastic.space.dense()))
    broken.model.norm.weight[0] = float("nan")
    with pytest.raises(MeasurementError, match="not finite"):
        run_task(AskedModel(broken, tokenizer=tokenizer, batch_size=4), suite, "piqa")


def test_every_metric_of_a_task_is_there_and_progress_ends_at_its_total(elastic, tokenizer, suite):
    told: list[tuple[int, int]] = []
    model = asked(
        elastic, random_profile(elastic.space, random.Random(5)), tokenizer, progress=lambda *s: told.append(s)
    )
    for task in TASKS:
        told.clear()
        found = run_task(model, suite, task)
        assert list(found) == list(METRICS[task])
        assert all(0 <= value <= 1 and error is not None for value, error in found.values())
        assert [done for done, _ in told] == sorted(done for done, _ in told)
        assert told[-1][0] == told[-1][1] == len(suite.task(task).instances)


def test_a_single_row_has_no_standard_error(elastic, tokenizer, folder):
    model = asked(elastic, elastic.space.dense(), tokenizer)
    found = run_task(model, TaskSuite(tokenizer, folder, 1), "boolq")
    assert found in ({"acc": (0.0, None)}, {"acc": (1.0, None)})


def test_the_harness_says_nothing_of_its_own(elastic, tokenizer, suite, capfd):
    run_task(asked(elastic, elastic.space.dense(), tokenizer), suite, "hellaswag")
    output = capfd.readouterr()
    assert output.out == "" and output.err == ""


@pytest.mark.parametrize("compensation", ["lstsq", "bias"])
def test_a_streamed_model_is_asked_layer_by_layer_and_answers_as_one_in_memory(
    tmp_path, tokenizer, suite, monkeypatch, compensation
):
    model = tiny_model("llama", tied=True, vocab_size=len(tokenizer))
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    text = torch.randint(len(tokenizer), (4, 64), generator=torch.Generator().manual_seed(7))
    calibration = calibrate(model, text)
    loaded = load(resolve(str(tmp_path)), device="cpu", dtype="float32", layers=False)
    here = ElasticModel(model, calibration, mlp_unit=MLP_UNIT, compensation=compensation)
    profile = random_profile(here.space, random.Random(3))
    with StreamedLayers(loaded.model, loaded.files) as store:
        there = ElasticModel(loaded.model, calibration, mlp_unit=MLP_UNIT, compensation=compensation, store=store)
        resident, streamed = (asked(one, profile, tokenizer) for one in (here, there))
        for task in TASKS:
            before = store.layers_read
            assert run_task(streamed, suite, task) == run_task(resident, suite, task)
            assert store.layers_read == before + len(store)  # one pass, however many batches
        requests = list(suite.task("hellaswag").instances)
        assert streamed.loglikelihood(requests, disable_tqdm=True) == resident.loglikelihood(
            requests, disable_tqdm=True
        )
        monkeypatch.setattr(harness, "STATES", 0)  # room for one batch
        before = store.layers_read
        assert run_task(streamed, suite, "piqa") == run_task(resident, suite, "piqa")
        assert store.layers_read == before + 2 * len(store)  # six choices, four of them side by side
        assert all(one.is_meta for layer in streamed.model.model.layers for one in layer.parameters())
        torch.testing.assert_close(streamed.model(text).logits, resident.model(text).logits, rtol=0, atol=0)
