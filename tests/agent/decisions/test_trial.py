"""`prompts try` on the turns of a real run, and what its memory says of prompt sets afterwards."""

import json
import re
import shutil

import pytest

from main import main
from self_pruner.agent.run_files.run_directory import RunDirectory
from self_pruner.agent.run_files.trace import Think, read_trace
from self_pruner.prompts.asked import recall
from self_pruner.prompts.templates import PromptSet
from self_pruner.prompts.workbench import digest
from tests.endpoint import serving

RUN = (
    *("--sequence-length", "64", "--fidelity", "64,128", "--probe-tokens", "64", "--final-tokens", "64"),
    *("--sensitivity-tokens", "64", "--calibration-length", "64", "--calibration-sequences", "4"),
    *("--reporting-tokens", "64", "--fitness-text", "passages", "--dtype", "float32", "--sparsity", "0.3"),
    *("--evaluations", "24", "--offspring", "6", "--initial", "4", "--benchmarks", "0", "--no-export"),
    *("--no-recalibrate", "--thought-tokens", "0"),
)


@pytest.fixture(scope="module")
def carried_out(tiny_target, tmp_path_factory):
    """Runs whose brain is the tiny model itself, by arm: `hybrid` plans, `self` varies."""
    folder, found = tmp_path_factory.mktemp("tried"), {}
    for arm in ("hybrid", "self"):
        words = ["--model", str(tiny_target), "--runs", str(folder / arm), "--cache", str(folder / "cache")]
        assert main([*words, *RUN, "--arm", arm]) == 0
        (path,) = (one for one in (folder / arm).iterdir() if one.is_dir())
        found[arm] = RunDirectory.open(path)
    return found


@pytest.fixture
def run(carried_out):
    """The run that plans."""
    return carried_out["hybrid"]


@pytest.fixture
def varied(carried_out):
    """The run in which the brain makes all offspring."""
    return carried_out["self"]


def asked(run, kind):
    """The first turn of that kind in which the brain was asked."""
    thinks = [one for one in read_trace(run.trace) if isinstance(one, Think) and one.replies]
    return next(one for one in thinks if recall(run.asked, one.step).variables.ask.kind == kind)


def tried(capfd, run, step, name, *words):
    status = main(["prompts", "try", str(name), "--run", str(run.path), "--step", str(step), *words])
    found = capfd.readouterr()
    return status, found.out, found.err


@pytest.mark.parametrize(("arm", "kind"), [("hybrid", "plan"), ("self", "vary"), ("self", "survive")])
def test_the_same_templates_and_the_same_brain_say_the_same(carried_out, capfd, arm, kind):
    run = carried_out[arm]
    then = asked(run, kind)
    status, out, _ = tried(capfd, run, then.step, run.prompts)
    assert status == 0
    assert not re.search(r"^[+-]", out, re.MULTILINE)  # nothing differs in the prompt
    said = [re.findall(rf"^{when}, reply \d+: (.*)$", out, re.MULTILINE) for when in ("then", "now")]
    assert said[0] == said[1] == [reply.raw for reply in then.replies]


def test_a_changed_template_is_shown_beside_the_one_that_was_used(varied, capfd, tmp_path):
    shutil.copytree(varied.prompts, tmp_path / "mine")
    turn = tmp_path / "mine" / "turn.j2"
    turn.write_text(turn.read_text().replace("Generation {{ generation }}.", "This is generation {{ generation }}."))
    then = asked(varied, "vary")
    status, out, _ = tried(capfd, varied, then.step, tmp_path / "mine")
    assert status == 0
    assert f"-Generation {then.generation}.\n" in out and f"+This is generation {then.generation}.\n" in out


@pytest.mark.parametrize("arm", ["hybrid", "self"])
def test_a_single_file_replaces_that_of_the_set_of_the_run(carried_out, capfd, tmp_path, arm):
    run = carried_out[arm]
    kind = {"hybrid": "plan", "self": "vary"}[arm]
    text = (run.prompts / f"ask_{kind}.j2").read_text(encoding="utf-8")
    (tmp_path / f"ask_{kind}.j2").write_text(text + "\nThink of the middle layers.\n", encoding="utf-8")
    status, out, _ = tried(capfd, run, asked(run, kind).step, tmp_path)
    assert status == 0
    assert [line for line in re.findall(r"^[+-].*", out, re.MULTILINE) if line != "+"] == [
        "+Think of the middle layers."
    ]


def test_a_known_move_shows_what_it_was_measured_to_bring(varied, capfd):
    then = asked(varied, "vary")
    _, out, _ = tried(capfd, varied, then.step, varied.prompts)
    known = re.findall(r"^  .*: fitness ([\d.]+) on (\d+) sequences", out, re.MULTILINE)
    acts = [act for act in read_trace(varied.trace) if act.kind == "act" and act.tool == "evaluate"]
    scores = {f"{row['fitness']:.4f}" for act in acts for row in act.result["results"] if row["status"] == "ok"}
    assert known and {score for score, _ in known} <= scores


@pytest.mark.parametrize("kind", ["plan", "survive"])
def test_replies_that_were_not_legal_are_shown_and_nothing_is_looked_up_for_them(carried_out, capfd, tmp_path, kind):
    run = RunDirectory.open(shutil.copytree(carried_out["hybrid" if kind == "plan" else "self"].path, tmp_path / "run"))
    then = asked(run, kind)
    lines = [json.loads(line) for line in run.trace.read_text().splitlines()]
    for line in lines:
        for reply in line.get("replies", ()) if line["kind"] == "think" and line["step"] == then.step else ():
            wrong = {"hypotheses": [{"take": ["mlp 0"]}]} if kind == "plan" else {"survivors": 3}
            reply["call"] = {"name": reply["call"]["name"], "args": wrong}
    run.trace.write_text("".join(json.dumps(line) + "\n" for line in lines))
    status, out, error = tried(capfd, run, then.step, run.prompts)
    assert status == 0, error
    assert "then, reply 1: " in out and "now, reply 1: " in out


def test_another_brain_may_be_asked(run, capfd):
    then = asked(run, "plan")
    with serving() as server:
        status, out, _ = tried(capfd, run, then.step, "terse", "--brain-url", server.url)
    assert status == 0 and "now, reply 1: " in out
    spoken = server.asked[-1]["messages"]
    assert "Plan this generation." in json.dumps(spoken)


def test_a_brain_that_is_named_is_asked_though_the_run_had_an_endpoint(tiny_target, tmp_path, capfd):
    words = ["--model", str(tiny_target), "--runs", str(tmp_path / "runs"), "--cache", str(tmp_path / "cache"), *RUN]
    with serving() as server:
        assert main([*words, "--brain", "vllm", "--brain-url", server.url]) == 0
        run = RunDirectory.open(next(one for one in (tmp_path / "runs").iterdir() if one.is_dir()))
        then, before = asked(run, "plan"), len(server.asked)
        status, out, _ = tried(capfd, run, then.step, "terse", "--brain", "first")
        assert status == 0 and "now, reply 1: " in out and len(server.asked) == before
        status, out, _ = tried(capfd, run, then.step, "terse", "--brain", "self")
        assert status == 0 and "now, reply 1: " in out and len(server.asked) == before
        assert tried(capfd, run, then.step, "terse")[0] == 0 and len(server.asked) > before


def test_what_is_wrong_is_said_in_one_line(run, capfd, tmp_path):
    (tmp_path / "turn.j2").write_text("{{ 1 / (generation - generation) }}")
    then = asked(run, "plan")
    for step, name, words, sentence in (
        (then.step, tmp_path, (), "turn.j2"),
        (10_000, "terse", (), "the brain was asked nothing in step 10000 that is kept; steps are"),
        (then.step, "tersee", (), "did you mean 'terse'"),
        (then.step, "terse", ("--brain", "nobody"), "nobody"),
        (then.step, "terse", ("--brain", "self", "--brain-url", "http://x"), "give one of them"),
        (then.step, "terse", ("--brain-url", "ftp://x"), "'ftp://x' is no address of an endpoint"),
    ):
        status, out, error = tried(capfd, run, step, name, *words)
        assert (status, error.count("\n")) == (2, 1), error
        assert sentence in error and "now, reply" not in out


def test_a_torn_line_costs_its_turn_and_no_other(run, tmp_path):
    whole = run.asked.read_bytes()
    torn = tmp_path / "asked.jsonl"
    torn.write_bytes(whole[:-100])
    first = asked(run, "plan").step
    assert recall(torn, first) == recall(run.asked, first)


def test_a_memory_says_what_came_of_a_set(run, capfd):
    memory = run.path.parent / "memory.sqlite"
    assert main(["prompts", "list", "--memory", str(memory)]) == 0
    out = capfd.readouterr().out
    thinks = [one for one in read_trace(run.trace) if isinstance(one, Think) and one.replies]
    row = next(line for line in out.splitlines() if digest(PromptSet("terse")) in line and "│" in line)
    cells = [cell.strip() for cell in row.strip("│").split("│")]
    assert cells[0] == "terse" and cells[3:5] == ["1", str(len(thinks))]
    replies, illegal = (sum(f(one) for one in thinks) for f in (lambda one: len(one.replies), lambda one: one.illegal))
    assert cells[6] == f"{(replies - illegal) / replies:.0%}"
    tokens = sum(one.input_tokens + one.output_tokens for one in thinks)
    assert cells[8] == f"{tokens / len(thinks):,.0f}"


def test_a_memory_that_is_named_must_be_there(tmp_path, capfd):
    assert main(["prompts", "list", "--memory", str(tmp_path / "none.sqlite")]) == 2
    assert "there is no memory file" in capfd.readouterr().err
