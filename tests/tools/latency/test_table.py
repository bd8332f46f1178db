"""The latency table against machines whose times are known, and random models of given shapes."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from self_pruner.memory.errors import KeptFileError
from self_pruner.memory.profile import Profile
from self_pruner.tools.latency.measure import LatencyReport, in_turn
from self_pruner.tools.latency.shapes import random_model
from self_pruner.tools.latency.table import (
    LatencyTable,
    Timed,
    check_table,
    measure_table,
    read_table,
    timed_widths,
    wanted_profiles,
)
from self_pruner.tools.profiles.space import Space
from tests.tiny import FAMILY_NAMES, tiny_config, tiny_model

TIMED = Timed("tiny", 4, {"attention": 4, "mlp": 48}, 8, 1, "torch", "cpu", "float32", 100, 10, 1)
SPACE = Space(n_layers=4, n_groups=4, n_blocks=48, group_params=48, block_params=9, fixed_params=1000, mlp_unit=8)


def report(prefill: float, decode: float, dense: tuple[float, float], decode_tokens: int = 10) -> LatencyReport:
    whole, own = dense[0] + decode_tokens * dense[1], prefill + decode_tokens * decode
    values = dict.fromkeys(LatencyReport.__dataclass_fields__, 0)
    values |= {"prefill_ms": prefill, "decode_ms": decode, "dense_prefill_ms": dense[0], "dense_decode_ms": dense[1]}
    ratios = {"speedup_prefill": dense[0] / prefill, "speedup_decode": dense[1] / decode, "speedup": whole / own}
    return LatencyReport(**(values | ratios))


def machine(profile: Profile) -> tuple[float, float]:
    """A fixed time and one for every unit: prefill and decode."""
    groups, blocks = sum(profile.attention), sum(profile.mlp)
    return 5 + 2.0 * groups + 0.5 * blocks, 1 + 0.3 * groups + 0.05 * blocks


def timer(profile: Profile) -> LatencyReport:
    return report(*machine(profile), machine(SPACE.dense()))


@settings(deadline=None, derandomize=True, max_examples=50)
@given(st.lists(st.integers(1, 4), min_size=4, max_size=4), st.lists(st.integers(1, 48), min_size=4, max_size=4))
def test_where_time_is_linear_in_units_every_profile_is_predicted(attention, mlp):
    profile = Profile(tuple(attention), tuple(mlp))
    found = measure_table(SPACE, TIMED, timer).predict(profile)
    assert (found.prefill, found.decode) == pytest.approx(machine(profile))


def test_the_table_survives_its_file_and_is_compared_with_measurements():
    table = measure_table(SPACE, TIMED, timer)
    again = LatencyTable.from_json(json.loads(json.dumps(table.to_json())))
    profile = Profile((1, 2, 3, 4), (48, 20, 7, 1))
    assert again.predict(profile) == table.predict(profile)
    (checked,) = check_table(again, [("one", profile)], timer)
    assert checked.predicted == pytest.approx(checked.measured) and checked.error == pytest.approx(0.0)


def test_an_error_is_that_of_the_time():
    table = measure_table(SPACE, TIMED, timer)
    slow = check_table(table, [("one", SPACE.dense())], lambda profile: report(40.0, 8.0, (20.0, 4.0)))
    assert slow[0].error == pytest.approx(-0.5)  # it was predicted to take half of what it takes


def test_dense_places_take_nothing_more_and_widths_may_be_slower():
    def odd(profile: Profile) -> LatencyReport:
        slower = 4.0 if 24 in profile.mlp else 1.0
        prefill, decode = machine(profile)
        return report(slower * prefill, decode, machine(SPACE.dense()))

    table = measure_table(SPACE, TIMED, odd)
    assert table.predict(SPACE.dense()) == table.dense
    assert table.rows["mlp"][24].prefill > 0


@pytest.mark.parametrize(
    "units, widths", [(1, []), (3, [1, 2]), (8, [1, 2, 3, 4, 5, 6, 7]), (48, [1, 6, 12, 18, 24, 30, 36, 42])]
)
def test_few_widths_are_timed_all_and_many_in_part(units, widths):
    assert timed_widths(units) == widths


@pytest.mark.parametrize("family", FAMILY_NAMES)
@pytest.mark.parametrize("mha", [False, True])
def test_a_random_model_has_the_tensors_of_its_layers_and_runs(family, mha):
    config = tiny_config(family, mha)
    model = random_model(config, [(1, 40), (4, 96)], dtype=torch.float32)
    heads = 1 if mha else 2
    first, second = model.get_decoder().layers
    assert first.self_attn.q_proj.weight.shape == (16 * heads, 64) and first.mlp.down_proj.weight.shape == (64, 40)
    assert second.self_attn.k_proj.weight.shape == (64, 64)
    assert config.num_hidden_layers == 3  # the config that was given is left alone
    found = in_turn(model, model, 8, 2, 2, 1)
    assert found.batch == 2 and found.prefill_ms > 0
    ids = torch.arange(8)[None]
    whole = model(ids).logits
    assert whole.isfinite().all()
    step = model(ids[:, :7], use_cache=True)
    last = model(ids[:, 7:], past_key_values=step.past_key_values).logits
    torch.testing.assert_close(last[:, 0], whole[:, -1], atol=1e-4, rtol=1e-4)


def test_it_rotates_as_the_family_does():
    real = tiny_model("llama")
    made = random_model(real.config, [(4, 96)] * 3, dtype=torch.float32)
    made.load_state_dict(real.state_dict())
    ids = torch.arange(12)[None]
    torch.testing.assert_close(made(ids).logits, real(ids).logits)


def test_a_table_says_what_it_is_of_and_of_what_it_is_no_use():
    assert str(TIMED) == "torch on cpu in float32, 100 + 10 tokens, batch 1"
    assert TIMED.refuses(SPACE) is None
    other = Space(n_layers=5, n_groups=4, n_blocks=48, group_params=48, block_params=9, fixed_params=1000, mlp_unit=8)
    assert "it is of tiny: 4 layers of 4 attention units" in TIMED.refuses(other)
    assert "this model has 5 layers" in TIMED.refuses(other)


def test_a_device_of_one_thread_is_said_in_the_singular():
    assert " on a CPU 1 thread in " in str(replace(TIMED, device="a CPU 1 threads"))
    for name in ("a CPU 2 threads", "a CPU 11 threads", "NVIDIA H200"):
        assert f" on {name} in " in str(replace(TIMED, device=name))


def test_a_table_is_of_the_devices_that_shared_a_layer_and_of_biases():
    four = replace(TIMED, engine="vLLM 0.32.0", tensor_parallel=4)
    assert str(four) == "vLLM 0.32.0 on 4 x cpu in float32, 100 + 10 tokens, batch 1"
    assert four.refuses(SPACE) == "it is of --tensor-parallel 4, and 1 is asked for" and not four.refuses(SPACE, 4)
    here = replace(TIMED, tensor_parallel=4)  # this process has one device, whatever serves the result
    assert str(here) == str(TIMED) and not here.refuses(SPACE)
    biased = replace(TIMED, bias=True)
    assert str(biased) == f"{TIMED}, with biases" and not biased.refuses(SPACE, bias=True)
    assert "of cut layers with biases, and this --compensation leaves them without" in biased.refuses(SPACE)


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"dense": 1, "rows": {}}', None])
def test_a_file_that_is_no_table_is_one_sentence(tmp_path, content):
    if content is not None:
        (tmp_path / "table.json").write_text(content)
    with pytest.raises(KeptFileError, match=r"table\.json (is no latency table|cannot be read)"):
        read_table(tmp_path / "table.json")


def test_a_table_that_was_interrupted_goes_on(tmp_path):
    notes, timed = tmp_path / "notes", []

    def killed(profile: Profile) -> LatencyReport:
        if len(timed) == 4:
            raise KeyboardInterrupt
        timed.append(profile)
        return timer(profile)

    with pytest.raises(KeyboardInterrupt):
        measure_table(SPACE, TIMED, killed, notes=notes)
    with notes.open("a", encoding="utf-8") as file:
        file.write('\n["mlp", 42, {"prefill')  # the line in hand when it was killed
    again = []
    table = measure_table(SPACE, TIMED, lambda profile: again.append(profile) or timer(profile), notes=notes)
    assert len(again) == len(wanted_profiles(SPACE)) - 4 and not set(again) & set(timed)
    assert table == measure_table(SPACE, TIMED, timer) and not notes.exists()


@pytest.mark.parametrize(
    "change", [{"dense": {"prefill": 0.0, "decode": 1.0}}, {"offset": {"prefill": 1e999, "decode": 0}}]
)
def test_a_table_of_impossible_times_is_none(tmp_path, change):
    (tmp_path / "table.json").write_text(json.dumps({**measure_table(SPACE, TIMED, timer).to_json(), **change}))
    with pytest.raises(KeptFileError, match="is no latency table"):
        read_table(tmp_path / "table.json")


@pytest.mark.parametrize("widths", [[], ["48"], ["1", "42"], ["6", "48"]])
def test_a_table_without_a_width_of_one_unit_or_a_dense_one_is_none(tmp_path, widths):
    values = measure_table(SPACE, TIMED, timer).to_json()
    values["rows"]["mlp"] = {width: values["rows"]["mlp"][int(width)] for width in widths}
    (tmp_path / "table.json").write_text(json.dumps(values))
    with pytest.raises(KeptFileError, match="is no latency table, or is damaged"):
        read_table(tmp_path / "table.json")


@pytest.mark.parametrize("name", ["decode", "layers", "tensor_parallel"])
@pytest.mark.parametrize("count", ["4", 0, -1])
def test_a_table_whose_counts_are_no_numbers_is_none(tmp_path, name, count):
    values = measure_table(SPACE, TIMED, timer).to_json()
    values["timed"][name] = count
    (tmp_path / "table.json").write_text(json.dumps(values))
    with pytest.raises(KeptFileError, match="is no latency table, or is damaged"):
        read_table(tmp_path / "table.json")


@pytest.mark.parametrize(
    ("field", "value"), [("engine", 5), ("device", None), ("dtype", []), ("model", 1.5), ("without_graphs", 1e999)]
)
def test_a_table_of_other_types_of_values_is_none(tmp_path, field, value):
    values = measure_table(SPACE, TIMED, timer).to_json()
    (values if field in values else values["timed"])[field] = value
    (tmp_path / "table.json").write_text(json.dumps(values))
    with pytest.raises(KeptFileError, match="is no latency table, or is damaged"):
        read_table(tmp_path / "table.json")


def test_a_table_says_which_models_were_timed_without_graphs_and_why_from_its_file_too(tmp_path):
    def launched(profile: Profile) -> LatencyReport:
        return replace(timer(profile), graph_fault="no capture" if profile.attention[0] == 2 else "")

    notes = tmp_path / "table.lines"

    def killed(profile: Profile) -> LatencyReport:
        if 12 in profile.mlp:
            raise KeyboardInterrupt
        return launched(profile)

    with pytest.raises(KeyboardInterrupt):  # the fault is in the notes when it goes on
        measure_table(SPACE, TIMED, killed, notes=notes)
    table = measure_table(SPACE, TIMED, timer, notes=notes)
    (tmp_path / "table.json").write_text(json.dumps(table.to_json()))
    for one in (table, read_table(tmp_path / "table.json")):
        assert one.setting == f"{TIMED}, 1 model timed without CUDA graphs, so as launches one by one: no capture"
    every = measure_table(SPACE, TIMED, lambda profile: replace(timer(profile), graph_fault="no capture"))
    assert every.fault.startswith(f"{len(wanted_profiles(SPACE))} models timed without CUDA graphs")
    assert measure_table(SPACE, TIMED, timer).setting == str(TIMED)


def test_a_table_of_before_graph_faults_were_kept_can_be_read(tmp_path):
    values = measure_table(SPACE, TIMED, timer).to_json()
    del values["without_graphs"], values["graph_fault"]
    (tmp_path / "table.json").write_text(json.dumps(values))
    assert read_table(tmp_path / "table.json") == measure_table(SPACE, TIMED, timer)
