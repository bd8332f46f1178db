"""The documentation says what is: commands, options, links, paths, figures and the map of the packages."""

from __future__ import annotations

import importlib.util
import io
import re
import shlex
import subprocess
from contextlib import redirect_stdout
from pathlib import Path

import pytest
import yaml

from self_pruner.agent.settings.settings import Settings, make_settings
from tests import package_diagram
from tests.command_line import given, options

ROOT = Path(__file__).parents[1]
PAGES = [
    "README.md",
    *(str(path.relative_to(ROOT)) for path in sorted((ROOT / "docs").glob("*.md"))),
    *("prompts/README.md", "benchmarks/results/README.md", "tests/campaign/README.md"),
]
README_LINES = 160
OTHERS = ("--no-deps", "--model-impl", "--trust-remote-code")  # options of pip and vLLM
RESULTS = re.compile(r"<!-- results (\S+) -->\n(.*?)<!-- /results -->", re.DOTALL)
DECISIONS = re.compile(r"<!-- decisions ([^>]+) -->\n(.*?)<!-- /decisions -->", re.DOTALL)


def text_of(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def prose_of(page: str) -> str:
    """The page without its blocks of code."""
    return re.sub(r"^```.*?^```", "", text_of(page), flags=re.DOTALL | re.MULTILINE)


def quoted(page: str) -> list[str]:
    """What stands in backticks within sentences."""
    return re.findall(r"`([^`\n]+)`", prose_of(page))


def commands_of(page: str) -> list[list[str]]:
    """The words of every command of a page: a line of a console block, or a command in a sentence."""
    blocks = re.findall(r"^```console\n(.*?)^```", text_of(page), re.DOTALL | re.MULTILINE)
    lines = [line[2:] for block in blocks for line in block.splitlines() if line.startswith("$ ")]
    lines += [each for each in quoted(page) if each.startswith(("python main.py ", "python -m ", "python benchmarks/"))]
    return [shlex.split(part, comments=True) for line in lines for part in line.split("&&")]


def after(words: list[str], *start: str) -> list[str] | None:
    """The words behind `start`, whichever Python runs it; None for another command."""
    behind = 1 + len(start)
    return words[behind:] if Path(words[0]).stem.startswith("python") and words[1:behind] == [*start] else None


def our_commands(page: str) -> list[list[str]]:
    """The words behind `main.py`."""
    found = [after(words, "main.py") for words in commands_of(page)]
    return [words for words in found if words is not None]


def slugs(page: Path) -> set[str]:
    """What a link into a page may name, as GitHub makes it from a heading."""
    heads = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


def summary_of(monkeypatch: pytest.MonkeyPatch, *folders: str) -> list[str]:
    from benchmarks import summary

    monkeypatch.setattr("sys.argv", ["summary", *(str(ROOT / folder) for folder in folders)])
    with redirect_stdout(io.StringIO()) as printed:
        summary.main()
    return printed.getvalue().splitlines()


def test_the_readme_is_short_and_has_the_two_commands_that_ci_runs():
    text = text_of("README.md")
    assert len(text.splitlines()) <= README_LINES
    marked = text.split("<!-- commands -->")[1].split("<!-- /commands -->")[0]
    assert [line[2:] for line in marked.splitlines() if line.startswith("$ ")] == [
        "python3 -m venv .venv && .venv/bin/pip install -e . && .venv/bin/python main.py",
        'python3 -m venv .venv && .venv/bin/pip install -e ".[test]" && .venv/bin/python -m pytest',
    ]


@pytest.mark.parametrize("page", PAGES)
def test_every_command_of_the_program_is_understood(page):
    for words in our_commands(page):
        with redirect_stdout(io.StringIO()):  # of --help-all
            options(words)
            if not words or words[0] == "run" or words[0].startswith("-"):
                make_settings(given(words))


@pytest.mark.parametrize("page", PAGES)
def test_every_module_that_a_command_runs_is_there(page):
    for words in commands_of(page):
        module = after(words, "-m")
        if module:
            assert importlib.util.find_spec(module[0]), words
        if len(words) > 1 and words[1].startswith("benchmarks/"):
            assert (ROOT / words[1]).is_file(), words


@pytest.mark.parametrize("page", PAGES)
def test_every_option_in_a_sentence_is_a_setting_or_in_a_command_that_is_tested(page):
    shown = {word for each in PAGES for words in commands_of(each) for word in words if word.startswith("--")}
    known = shown | {f"--{name.replace('_', '-')}" for name in Settings.model_fields} | {*OTHERS}
    assert {each.split()[0] for each in quoted(page) if each.startswith("--")} <= known


@pytest.mark.parametrize("page", PAGES)
def test_every_link_leads_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", prose_of(page)):
        if target.startswith("https://"):
            continue
        name, _, anchor = target.partition("#")
        path = (ROOT / page).parent / name if name else ROOT / page
        assert path.exists(), target
        assert not anchor or anchor in slugs(path), target


@pytest.mark.parametrize("page", PAGES)
def test_every_file_of_the_program_that_is_named_is_there(page):
    for name in quoted(page):
        if re.fullmatch(r"(agent|tools|prompts|memory|benchmarks|tests|docs)/[\w/.-]*", name):
            assert (ROOT / name).exists(), name


@pytest.mark.parametrize("page", ["docs/results.md", "benchmarks/results/README.md"])
def test_the_figures_of_the_results_are_those_of_the_comparison(page, monkeypatch):
    tables = RESULTS.findall(text_of(page))
    assert tables
    for folder, table in tables:
        assert table.splitlines() == summary_of(monkeypatch, folder)


def test_every_row_of_the_readmes_table_has_the_figures_of_an_arm(monkeypatch):
    ((folder, table),) = RESULTS.findall(text_of("README.md"))
    figures = {line.split("|", 2)[2] for line in summary_of(monkeypatch, folder)}
    assert {line.split("|", 2)[2] for line in table.splitlines()} <= figures


def test_what_the_readme_says_of_brains_are_the_figures_of_the_decision_sets(monkeypatch):
    ((folders, table),) = DECISIONS.findall(text_of("README.md"))
    found = summary_of(monkeypatch, *(f"benchmarks/results/decisions/{name}" for name in folders.split()))
    figures = [line.split("|")[2:] for line in found[2:]]  # of the brains that the table calls by shorter names
    rows = [line.split("|")[2:] for line in table.splitlines()[2:]]
    assert len(rows) > 5 and all(row in figures for row in rows)


def test_every_decimal_on_the_readmes_first_screen_is_one_of_the_comparisons():
    part = text_of("README.md").split("**What the search brings.**")[1].split("```")[0]
    decimals = re.findall(r"\d+\.\d+", part)
    measured = re.findall(r"\d+\.\d+", text_of("benchmarks/results/seeds/table.md"))
    assert len(decimals) > 5 and {*decimals} <= {*measured}


def test_sentences_of_the_results_are_those_that_the_comparison_computed():
    part = text_of("docs/results.md").split("## What the comparison says of itself")[1].split("\n## ")[0]
    said = [line for line in part.splitlines() if line.startswith("- ")]
    assert said and {*said} <= {*text_of("benchmarks/results/c4/table.md").splitlines()}


def test_the_examples_for_a_cluster_are_understood_by_the_tools_that_they_are_for(tmp_path):
    blocks = dict(re.findall(r"^```(bash|yaml)\n(.*?)^```", text_of("docs/workers.md"), re.DOTALL | re.MULTILINE))
    (tmp_path / "job.sh").write_text(blocks["bash"], encoding="utf-8")
    subprocess.run(["bash", "-n", tmp_path / "job.sh"], check=True)
    util = pytest.importorskip("ray.autoscaler._private.util")
    cluster = util.prepare_config(yaml.safe_load(blocks["yaml"]))
    util.validate_config(cluster)
    assert cluster["max_workers"] == len(cluster["provider"]["worker_ips"]) == 2
    with pytest.raises(Exception, match="surplus"):
        util.validate_config({**cluster, "surplus": 1})


def test_the_map_of_the_packages_is_made_from_the_imports():
    (drawn,) = package_diagram.MARKED.findall(text_of("docs/contributing.md"))
    assert drawn == package_diagram.diagram(), "python -m tests.package_diagram draws it anew"
