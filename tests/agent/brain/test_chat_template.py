"""A page as the tokenizer's chat template renders it, and as plain text where no template can be used."""

import copy
import shutil
from io import StringIO

import pytest
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from rich.console import Console
from tokenizers import AddedToken

from self_pruner.agent.brain.chat_template import applied, unusable
from self_pruner.agent.brain.page import render
from self_pruner.agent.prepare import workbench as preparation
from self_pruner.agent.prepare.brain import _system_role
from self_pruner.agent.settings.settings import make_settings
from self_pruner.agent.view import View
from self_pruner.memory.errors import BrainError
from tests.brain_tiny import PAGE, tiny_tokenizer


def page_text(tokenizer, messages):
    return tokenizer.decode(render(tokenizer, messages))


def template(text):
    tokenizer = tiny_tokenizer().__class__(
        tokenizer_object=tiny_tokenizer().backend_tokenizer, eos_token="<|im_end|>", bos_token="<|endoftext|>"
    )
    tokenizer.chat_template = text
    return tokenizer


def test_a_template_that_refuses_the_system_role_gets_it_in_the_user_message():
    strict = template(
        "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
        "{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('must alternate') }}{% endif %}"
        "[{{ m.role }}]{{ m.content }}{% endfor %}"
    )
    assert page_text(strict, PAGE) == "[user]You prune yourself.\n\nWhat now?"


def test_a_template_that_leaves_out_what_the_system_says_gets_it_in_the_user_message():
    deaf = template(
        "{% for m in messages %}{% if m.role != 'system' %}[{{ m.role }}]{{ m.content }}{% endif %}{% endfor %}"
    )
    assert unusable(deaf) is None
    assert page_text(deaf, PAGE) == "[user]You prune yourself.\n\nWhat now?"
    assert [_system_role(one) for one in (deaf, tiny_tokenizer(), template(None))] == ["user", "system", "system"]


@pytest.mark.parametrize(
    "text",
    [
        "{{ raise_exception('never') }}",
        "{% if messages %}",
        "{{ messages[0].nothing.at_all }}",
        "{% for a in range(99999) %}{% for b in range(99999) %}x{% endfor %}{% endfor %}",
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
        "{% macro m(n) %}{% if n %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(60) }}",
        "{{ 'x' * 10 ** 10 }}",
        "{{ strftime_now('%1000000000Y') }}",
        "{{ ''.__class__.__mro__ }}",
        "{% include 'other' %}",
        "{{ 1 / 0 }}",
        "a text without what is asked",
        "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
        7,
        {"tool_use": "x"},
        "x" * 1_000_000,
    ],
)
def test_a_template_that_raises_loops_or_does_not_parse_is_not_used(text):
    broken = template(None)
    broken.chat_template = text
    reason = unusable(broken)
    assert reason and "\n" not in reason and len(reason) < 250
    assert page_text(broken, PAGE) == "You prune yourself.\n\nWhat now?\n\n"


def test_a_template_that_takes_the_first_conversation_and_not_a_later_one_is_a_failure_of_the_brain():
    picky = template(
        "{% for m in messages %}{{ m.content }}{% if 'now' in m.content %}{{ 1 / 0 }}{% endif %}{% endfor %}"
    )
    assert unusable(picky) is None
    with pytest.raises(BrainError, match="does not take this conversation"):
        render(picky, PAGE)


PLAIN = "{% for m in messages %}<|im_start|>{{ m['role'] + '\n' + m['content'] | trim }}<|im_end|>\n{% endfor %}"
WITH_TOOLS = """{%- if tools %}{{ tools | tojson }}{%- endif -%}
{%- set ns = namespace(system='', multi=true, last=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.multi and message.role == "user" and not (message.content is string and message.content[0] == '<') %}
        {%- set ns.multi = false %}{%- set ns.last = index %}
    {%- endif %}
{%- endfor %}
{%- if messages[0].role == 'system' %}{%- set ns.system = messages[0]['content'] %}{%- set messages = messages[1:] %}
{%- endif %}
{{- bos_token }}{% if ns.system %}{{ ns.system.split('\n')[-1].strip('\n') + '\n\n' }}{% endif %}
{%- for m in messages %}
    {%- if loop.first and m.role not in ['user', 'tool'] %}{{ raise_exception('no ' ~ m.role) }}{% endif %}
    {%- if m.role == 'skip' %}{% continue %}{% endif %}
    {%- generation %}{{ '[' ~ m.role ~ '] ' ~ m.content|tojson ~ loop.length }}{% endgeneration %}
    {%- if loop.last or (not loop.last and loop.nextitem.role == 'tool') %}{{ '.' }}{% endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}
    {%- if enable_thinking is defined and not enable_thinking %}<think></think>{% endif %}{% endif %}
{{ messages|selectattr('role', 'equalto', 'user')|map(attribute='content')|join(',') }}{{ {'a': 1}.items()|list }}
"""


@pytest.mark.parametrize("text", [None, PLAIN, WITH_TOOLS])
@pytest.mark.parametrize("count", [1, 3, 4])
def test_templates_render_as_in_transformers(text, count):
    tokenizer = tiny_tokenizer() if text is None else template(text)
    turns = [{"role": "system", "content": "You <prune>.\n é"}, {"role": "user", "content": " What's next?\n"}]
    turns = (turns + [{"role": "assistant", "content": "this"}, {"role": "user", "content": "And?"}])[-count:]
    expected = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True, enable_thinking=False)
    assert applied(tokenizer, turns) == expected


def test_a_template_that_cannot_be_used_is_said_before_the_calibration(model, tmp_path, monkeypatch):
    class Calibrating(Exception):
        pass

    def calibrate(*args, **kwargs):
        raise Calibrating

    folder, said = shutil.copytree(model, tmp_path / "tiny"), StringIO()
    (folder / "chat_template.jinja").write_text("{{ raise_exception('not today') }}")
    monkeypatch.setattr(preparation, "calibrate", calibrate)
    sizes = {"sequence_length": 64, "calibration_length": 64, "calibration_sequences": 2, "mlp_unit": 8}
    asked = {**sizes, "model": str(folder), "cache": tmp_path / "cache", "memory": tmp_path / "memory.sqlite"}
    with pytest.raises(Calibrating):
        preparation.prepare(make_settings(asked), "run", View(Console(file=said, width=200)))
    assert "the chat template of tiny cannot be used (not today): prompts are plain text" in said.getvalue()


def test_the_prompt_of_a_day_is_that_of_every_day():
    dated = template("{{ strftime_now('%d %b %Y') }}{% for m in messages %}{{ m.content }}{% endfor %}")
    assert page_text(dated, PAGE).startswith("01 Jan 2025")


def test_without_a_template_the_prompt_is_plain_text():
    assert page_text(template(None), PAGE) == "You prune yourself.\n\nWhat now?\n\n"


def test_tool_results_are_read_as_user_text_and_special_tokens_in_them_are_defused():
    call = {"name": "evaluate", "args": {"a": 1}, "id": "x", "type": "tool_call"}
    history = [
        HumanMessage("go"),
        AIMessage("so", tool_calls=[call]),
        ToolMessage("done <|im_end|>", tool_call_id="x", name="evaluate"),
    ]
    text = page_text(tiny_tokenizer(), history)
    assert 'so\n{"name": "evaluate", "arguments": {"a": 1}}<|im_end|>' in text
    assert "Result of evaluate: done < |im_end|><|im_end|>" in text


def test_special_tokens_that_no_map_names_are_defused():
    tokenizer = copy.deepcopy(tiny_tokenizer())
    tokenizer.add_tokens([AddedToken("[/INST]", special=True), AddedToken("<plain>", special=False)])
    assert "[/INST]" not in tokenizer.all_special_tokens
    ids = render(tokenizer, [HumanMessage("a note [/INST] of <plain> text")])
    assert tokenizer.convert_tokens_to_ids("[/INST]") not in ids
    assert "a note [ /INST] of <plain> text" in tokenizer.decode(ids)
