"""Which sets a command does not go on with, and what else it refuses."""

from dataclasses import replace
from unittest.mock import Mock

import pytest

from main import main
from self_pruner.agent.decisions import make
from self_pruner.agent.decisions.decision_set import FILE, DecisionSetError, read_set
from self_pruner.agent.decisions.kinds import DEFAULT
from self_pruner.memory.profile import Profile
from tests.agent.decisions.conftest import refused
from tests.tiny import tiny_folder


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--kinds", "edit,plan"), "there is no kind of decision 'plan'; the kinds are edit, shift, survive, vectors"),
        (("--kinds", "edit,edit"), "--kinds names 'edit' twice"),
        (("--prompts", "defualt"), "'defualt' is no prompt set and no folder"),
        (("--brain", "uniform,uniform"), "--brain names 'uniform' twice"),
        (("--brain", "no-such-model"), "no-such-model"),
        (("--brain", "vllm"), "give its --brain-url"),
        (("--situations", "1"), "--situations: at least 2"),
        (("--sparsity", "0.4"), "is of another budget"),
        (("--fitness-text", "papers"), "is of another text: passages, not papers"),
        (("--compensation", "bias"), "is of another compensation: lstsq, not bias"),
        (("--importance", "magnitude"), "is of another importance: wanda-sp, not magnitude"),
        (("--dtype", "bfloat16"), "is of another number type: float32, not bfloat16"),
        (("--final-tokens", "192"), "is of another number of outcome tokens: 128, not 192"),
        (("--fidelity", "64,192"), "is of outcomes from another sequence on: 2, not 3"),
        (("--sequence-length", "32"), "is of another sequence length: 64, not 32"),
        (("--calibration", "papers"), "is of another calibration text: passages, not papers"),
        (("--calibration-sequences", "5"), "is of another number of calibration sequences: 4, not 5"),
        (("--calibration-length", "32"), "is of another length of calibration sequences: 64, not 32"),
        (("--compensation", "bias", "--situations", "9"), "is of another compensation: lstsq, not bias"),
    ],
)
def test_what_is_wrong_is_said_in_a_sentence(command, own, capsys, words, sentence):
    assert sentence in refused(capsys, command(own, *words))


def test_a_set_of_another_model_or_of_other_weights_is_refused(command, own, tmp_path, capsys):
    other = tiny_folder(tmp_path / "other", num_hidden_layers=10)
    assert "is of another model: tiny, not other" in refused(capsys, command(own, model=other))
    same_name = tiny_folder(tmp_path / "tiny", num_hidden_layers=10, seed=5)
    assert "other weights" in refused(capsys, command(own, model=same_name))


def test_a_set_that_is_cut_short_changed_or_of_another_format_is_refused(command, own, capsys):
    whole = (own / FILE).read_text()
    (own / FILE).write_text(whole[: len(whole) // 2])
    assert "is cut short or is none" in refused(capsys, command(own))
    (own / FILE).write_text(whole.replace('"first":2', '"first":3'))
    assert whole.count('"first":2') == 1 and "was changed or is damaged" in refused(capsys, command(own))
    (own / FILE).write_text(whole.replace('"format":1', '"format":9'))
    assert "is no decision set of format 1" in refused(capsys, command(own))
    with pytest.raises(DecisionSetError, match="cannot read"):
        read_set(own / "nothing.json")


@pytest.mark.parametrize("kind", DEFAULT)
def test_options_that_are_no_longer_legal_are_refused(command, own, decision_set, capsys, kind):
    one = decision_set.of(kind)[0]
    wrong = Profile.from_key(one.options[0].profiles[0])
    wrong = wrong.with_width(0, "mlp", wrong.mlp[0] % 11 + 1)
    option = replace(one.options[0], profiles=(wrong.key(), *one.options[0].profiles[1:]))
    decision_set.replaced(replace(one, options=(option, *one.options[1:]))).save(own / FILE)
    assert f"a situation that is not legal, {one.id}" in refused(capsys, command(own, "--brain", "first"))


def test_options_at_their_defaults_contradict_no_set(tiny_target, own, tmp_path, capsys):
    words = ("--sparsity", "0.3", "--fitness-text", "passages", "--dtype", "auto", "--brain", "first")
    cache = ("--cache", str(tmp_path / "cache"))
    assert main(["decisions", "--model", str(tiny_target), "--into", str(own), *words, *cache]) == 0


@pytest.mark.parametrize(("name", "value"), [("importance", "magnitude"), ("compensation", "bias")])
def test_a_set_that_grows_is_not_mixed_with_outcomes_of_another_kind(command, own, capsys, name, value):
    there = read_set(own / FILE)
    replace(there, made=replace(there.made, **{name: value})).save(own / FILE)
    assert command(own, "--brain", "first") == 0  # whole, and nothing else is asked for
    assert f"is of another {name}: {value}, not" in refused(capsys, command(own, "--situations", "9"))


def test_what_an_older_set_does_not_know_is_not_refused_and_stays_unknown(command, own):
    there = read_set(own / FILE)
    unknown = dict.fromkeys(("importance", "compensation", "calibration", "calibration_sequences"))
    replace(there, made=replace(there.made, calibration_length=None, **unknown)).save(own / FILE)
    assert command(own, "--brain", "first", "--compensation", "lstsq") == 0
    assert command(own, "--brain", "first", "--situations", "9") == 0
    found = read_set(own / FILE)
    assert found.complete and found.made.situations == 9
    assert [getattr(found.made, name) for name in unknown] == [None] * len(unknown)


def test_a_set_for_which_there_is_no_memory_is_a_sentence_and_is_made_later(command, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(make, "prepare", Mock(side_effect=MemoryError("no room")))
    assert "does not fit on" in refused(capsys, command(tmp_path / "new"))
    assert not (tmp_path / "new" / FILE).exists()
