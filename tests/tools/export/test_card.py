"""The model card: its header is valid for any name, its table says what was measured, and it can be reproduced from."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from huggingface_hub import ModelCard

from self_pruner.agent.command_line.commands import command_line
from self_pruner.memory.profile import Profile
from self_pruner.tools.export.card import CardFacts, CardRow, CardTasks, model_card
from self_pruner.tools.export.provenance import provenance_of
from self_pruner.tools.profiles.space import Space

SPACE = Space(n_layers=3, n_groups=4, n_blocks=12, group_params=1000, block_params=500, fixed_params=7000, mlp_unit=8)
PROFILE = Profile((1, 2, 3), (4, 5, 12))
ROWS = (
    CardRow("dense", 37000, 0.0, 28.5, 10.0, 2.5, 400.0),
    CardRow("uniform", 23500, 0.81234, 73.9),
    CardRow("found", 23500, 0.7654321, 66.666, 8.0, 2.0, 500.0),
)


def card(**changes) -> ModelCard:
    facts = {
        "base_model": "HuggingFaceTB/SmolLM2-135M-Instruct",
        "family": "llama",
        "sparsity": 0.3,
        "rows": ROWS,
        "measured_on": "passages, 8,192 tokens in sequences of 512",
        "command": "python main.py --seed 0",
        "license": "apache-2.0",
        "calibration": "passages, 32,768 tokens, digest 0123abcd",
        "settings": {"seed": 0, "sparsity": 0.3},
        "versions": {"torch": "2.13.0", "transformers": "5.19.0"},
    }
    return model_card(CardFacts(**(facts | changes)), PROFILE, SPACE)


def test_the_header_is_what_the_hub_reads():
    data = ModelCard(str(card())).data.to_dict()

    assert data["license"] == "apache-2.0"
    assert data["base_model"] == "HuggingFaceTB/SmolLM2-135M-Instruct"
    assert data["library_name"] == "transformers"
    assert data["pipeline_tag"] == "text-generation"
    assert {"self-pruner", "structured-pruning", "llama"} <= set(data["tags"])


@pytest.mark.parametrize("serving", ["transformers", "vllm", "vllm-native", "uniform"])
def test_the_tag_of_own_code_is_on_the_cards_of_folders_that_bring_some(serving):
    tags = ModelCard(str(card(serving=serving))).data.to_dict()["tags"]
    assert ("custom_code" in tags) == (serving != "uniform")


def test_a_card_names_only_commands_that_there_are():
    named = set(re.findall(r"main\.py ([a-z][a-z-]*)", str(card())))
    assert "evaluate" in named and named <= set(command_line.commands)


def test_the_table_sets_dense_uniform_and_found_side_by_side():
    lines = str(card()).splitlines()

    assert "| dense | 37,000 | 0.0000 | 28.50 | 10.00 | 2.50 | 400.0 |" in lines
    assert "| uniform | 23,500 | 0.8123 | 73.90 | not measured | not measured | not measured |" in lines
    assert "| found | 23,500 | 0.7654 | 66.67 | 8.00 | 2.00 | 500.0 |" in lines


def test_the_parameters_and_the_sparsity_are_those_of_the_profile():
    text = " ".join(str(card()).split())

    assert "23,500 of 37,000 parameters remain; 45.00% of the decoder blocks' parameters were removed" in text
    assert "(asked for: 30.00%; embeddings" in text


def test_a_time_that_was_asked_for_is_stated_alone_or_beside_the_sparsity():
    time = "a request 1.4 times as fast"
    assert f"(asked for: {time}; embeddings" in str(card(sparsity=None, time=time))
    assert f"(asked for: 30.00% and {time}; embeddings" in str(card(time=time))


def test_biases_that_pruning_adds_are_none_of_the_dense_models_parameters():
    facts = CardFacts("m", "llama", 0.3, ROWS, "passages", "python main.py")
    added = replace(SPACE, fixed_params=7600, added_params=600)
    assert "24,100 of 37,000 parameters remain" in " ".join(str(model_card(facts, PROFILE, added)).split())
    found = provenance_of(facts, PROFILE, added)
    assert (found.parameters, found.dense_parameters) == (24_100, 37_000)


def test_command_settings_versions_text_and_widths_are_there_to_make_it_again():
    text = str(card())

    for needed in (
        "python main.py --seed 0",
        "seed = 0",
        "sparsity = 0.3",
        "torch 2.13.0",
        "transformers 5.19.0",
        "digest 0123abcd",
        "`1 2 3`",
        "`32 40 96`",
    ):
        assert needed in text


def test_it_says_how_to_load_it_and_that_vllm_needs_its_code_trusted():
    text = str(card())

    assert "AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True" in text
    assert "vllm serve . --trust-remote-code --model-impl transformers" in text


def test_a_name_that_is_no_hub_id_stays_out_of_the_header_and_cannot_break_the_page():
    broken = card(base_model='my: "model" | x\n---\n# y', license=None)
    data = ModelCard(str(broken)).data.to_dict()

    assert "base_model" not in data and "license" not in data
    assert "\n# y" not in str(broken)
    assert "licence could not be read" in str(broken)


def test_backticks_in_a_command_do_not_end_its_code_block():
    assert "````sh\npython main.py --model '```'\n````" in str(card(command="python main.py --model '```'"))


def test_another_candidate_than_the_found_one_is_named_wherever_the_found_one_would_be():
    text = str(card(candidate="c7", exported="found, recalibrated"))
    assert "This is candidate c7 of that search, and not the one that it chose." in text
    assert "| candidate c7 | 23,500 |" in text and "*candidate c7, recalibrated* is this" in text
    assert "found" not in re.findall(r"^\| ([^|]*) \|", text, re.MULTILINE) and "*found" not in text
    assert "This is" not in str(card())


def test_tasks_have_a_table_of_their_own_where_they_were_measured():
    tasks = CardTasks(
        header=("", "BoolQ", "mean of 7"),
        rows=(("dense", "60.0 ± 2.2", "44.1 ± 0.8"), ("found", "-", "-")),
        measured_on="Zero-shot accuracy in per cent, 500 rows of each task.",
    )
    text = str(card(tasks=tasks))
    start = text.index("## Zero-shot tasks")
    table = text[start : text.index("## How to load it")].splitlines()
    assert table[2:6] == [
        "|  | BoolQ | mean of 7 |",
        "| --- | ---: | ---: |",
        "| dense | 60.0 ± 2.2 | 44.1 ± 0.8 |",
        "| found | - | - |",
    ]
    assert "500 rows of each task." in text
    assert "; safety behaviour was not measured again" in text


def test_without_tasks_the_card_says_so_and_shows_no_table():
    text = str(card())
    assert "Zero-shot" not in text
    assert "; task accuracy and safety behaviour were not measured again" in text


@pytest.mark.parametrize(
    "serving, devices, command, code",
    [
        ("transformers", 1, "vllm serve . --trust-remote-code --model-impl transformers", True),
        ("vllm", 4, "vllm serve . --trust-remote-code --model-impl transformers --tensor-parallel-size 4", True),
        ("vllm-native", 1, "vllm serve . --trust-remote-code", True),
        ("uniform", 2, "vllm serve . --tensor-parallel-size 2", False),
    ],
)
def test_the_command_that_serves_it_is_that_of_its_format(serving, devices, command, code):
    text = card(serving=serving, tensor_parallel=devices).text
    assert f"\n{command}\n" in text
    assert ("trust_remote_code=True" in text) is code
