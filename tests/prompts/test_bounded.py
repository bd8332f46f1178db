"""Templates that would take all time or memory there is: one sentence with file and line, soon."""

import signal

import pytest

from self_pruner.prompts.bounded import LARGEST, WORK, BoundedEnvironment, TooMuchError, weight
from self_pruner.prompts.files import PromptError
from self_pruner.prompts.sample import sample_variables
from self_pruner.prompts.templates import PromptSet

SECONDS = 60  # nothing here takes more than a few, and without bounds most would take for ever
DOUBLING = "{% set n = namespace(x=START) %}{% for _ in range(64) %}{% set n.x = STEP %}{% endfor %}{{ n.x }}"


@pytest.fixture(autouse=True)
def _no_hang():
    def give_up(*_):
        pytest.fail("it hangs")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(SECONDS)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def refused(folder, text, **files):
    for name, content in {"ask_vary": f"fine\n{text}", **files}.items():
        (folder / f"{name}.j2").write_text(content)
    with pytest.raises(PromptError) as caught:
        PromptSet("default", folder).check()
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 600
    return caught.value


def doubling(start, step):
    return DOUBLING.replace("START", start).replace("STEP", step)


@pytest.mark.parametrize(
    "text",
    [
        # loops
        "{% for a in range(9999) %}{% for b in range(9999) %}{% for c in range(9999) %}x{% endfor %}{% endfor %}"
        "{% endfor %}",
        "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
        "{% for a in range(10**9) %}{% endfor %}",
        "{% for a in 'x' * 1000000 %}{% for b in 'x' * 1000000 %}{% endfor %}{% endfor %}",
        "{% for a in range(99999) if loop is defined or a > 5 %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
        "{% for a in range(9999) recursive %}{{ loop(range(9999)) }}{% endfor %}",
        "{% set x %}{% for a in range(90000) %}" + "y" * 1000 + "{% endfor %}{% endset %}{{ x|length }}",
        "{% for a in range(99999) %}{{ range(99999)|sum }}{% endfor %}",
        "{% for a in range(99999) %}{{ range(99999)|list == range(99999)|list }}{% endfor %}",
        "{% for a in range(99999) %}{% if 'b' in 'a' * 1000000 %}{% endif %}{% endfor %}",
        "{{ range(99999)|map('center', 99999)|list|length }}",
        # numbers
        "{{ 10 ** (10 ** 10) }}",
        "{{ 2 ** (10 ** 9) }}",
        doubling("9", "n.x * n.x"),
        "{{ 1.0|decimals(10**9) }}",
        "{{ 1.0|round(10**9, 'ceil') }}",
        # values that are long at once
        "{{ 'x' * 10**10 }}",
        "{{ 10**10 * 'x' }}",
        "{{ ([1] * 10**10)|length }}",
        "{{ ((1, 2) * 10**10)|length }}",
        "{{ 'x'|center(10**10) }}",
        "{{ 'x'.ljust(10**10) }}",
        "{{ 'x'.zfill(10**10) }}",
        "{{ '\t'.expandtabs(10**10) }}",
        "{{ 'a\nb'|indent(10**10) }}",
        "{{ ('x' * 100000).replace('x', 'y' * 100000) }}",
        "{{ ('x' * 100000)|replace('x', 'y' * 100000) }}",
        "{{ ('x' * 100000).join('y' * 100000) }}",
        "{{ range(90000)|join('y' * 100000) }}",
        "{{ [1]|batch(10**10, 'x')|list }}",
        "{{ [1]|slice(10**10)|list }}",
        "{{ [1]|tojson(indent=10**10) }}",
        "{{ '%1000000000d' % 1 }}",
        "{{ '%*d' % (10**9, 1) }}",
        "{{ '%.1000000000f'|format(1.0) }}",
        "{{ '{:1000000000}'.format(1) }}",
        "{{ '{:{}}'.format(1, 10**9) }}",
        "{{ '{x:{y}}'.format_map({'x': 1, 'y': 10**9}) }}",
        "{{ ('x'.encode() * 10**9)|length }}",
        # filters that take long
        "{{ 1|round(4000000, 'ceil') }}",
        "{{ 1|round(precision=-4000000) }}",
        "{{ ([[1]] * 100000)|sum(start=[])|length }}",
        # values that grow
        doubling("'x'", "n.x ~ n.x"),
        doubling("'x'", "n.x + n.x"),
        doubling("'x'", "n.x|string * 2"),
        doubling("'x'", "n.x|replace('x', 'xx')"),
        doubling("'x'", "'%s%s' % (n.x, n.x)"),
        doubling("'x'", "'{0}{0}'.format(n.x)"),
        doubling("'x'", "[n.x, n.x]|join"),
        doubling("[1]", "n.x + n.x"),
        doubling("[1]", "[n.x, n.x]"),
        doubling("(1,)", "(n.x, n.x)"),
        doubling("1", "{'a': n.x, 'b': n.x}"),
        doubling("1", "dict").replace("dict", "{1: n.x, 2: n.x}"),
        doubling("[1]", "namespace(a=[n.x, n.x])"),
        "{% set n = namespace(x='x') %}{% for _ in range(64) %}{% set n.x %}{{ n.x }}{{ n.x }}{% endset %}{% endfor %}",
        "{% set n = namespace() %}{% set n.x = [n] %}{{ n }}",
        # macros and blocks
        "{% macro m(n) %}{{ m(n - 1) }}{{ m(n - 1) }}{% endmacro %}{{ m(10**9) }}",
        "{% macro m(n) %}{% if n %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(60) }}",
        "{% macro m(f, n) %}{% if n %}{{ f(f, n - 1) }}{{ f(f, n - 1) }}{% endif %}{% endmacro %}{{ m(m, 60) }}",
        "{% block b %}{{ self.b() }}{% endblock %}",
        # what is no prompt
        "{{ [1, 2, 3]|random }}",
        "{{ range }}",
        "{{ 'x'.upper }}",
        "{{ 'x'.upper ~ '' }}",
        "{{ 'x'.upper|string }}",
        "{{ [range]|join }}",
        "{{ [range] }}",
        "{{ [(1, range)]|string }}",
        "{{ {'a': range}.items() }}",
        "{{ '%s' % (range,) }}",
        "{{ '%s'|format([range]) }}",
        "{{ '{}'.format([range]) }}",
        "{% macro m() %}{% endmacro %}{{ namespace(a=m) }}",
        # what the compiler gives up on
        "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
        "{{ " + "-" * 5000 + "1 }}",
        "{{ " + "1 + " * 5000 + "1 }}",
        "".join(f"{{% for a{i} in [1] %}}" for i in range(60)) + "{% endfor %}" * 60,
        "{% if 1 %}" * 3000 + "{% endif %}" * 3000,
    ],
)
def test_a_template_that_would_not_come_back_is_refused(tmp_path, text):
    error = refused(tmp_path, text)
    assert error.file == tmp_path / "ask_vary.j2"


@pytest.mark.parametrize(
    "text",
    [
        "{% set b = 'x' * 200000 %}{{ (('%(a)s' * 5000) % {'a': b})|length }}",
        "{% set b = 'x' * 200000 %}{{ ('%(a)s' * 5000)|format(a=b)|length }}",
        "{% set b = 'x' * 200000 %}{{ ('{0}' * 5000).format(b)|length }}",
        "{% set b = 'x' * 200000 %}{{ ('{a}' * 5000).format_map({'a': b})|length }}",
        "{% set b = ('x' * 200000).encode() %}{{ (('%(a)s' * 5000).encode() % {'a'.encode(): b})|length }}",
        "{{ ('%(a)9999d' * 20000) % {'a': 1} }}",
    ],
)
def test_a_format_of_too_many_fields_is_refused_before_it_is_filled(tmp_path, text):
    assert "a format has too many fields for what is put into them" in str(refused(tmp_path, text))


@pytest.mark.parametrize("text", ["{{ 'x' * 10**10 }}", "{{ 1.0|decimals(10**9) }}", "{{ 'x'|center(10**10) }}"])
def test_the_line_is_named(tmp_path, text):
    assert refused(tmp_path, text).line == 2


@pytest.mark.parametrize(
    "text",
    [
        "{{ [range(1)]|map('counted steps', -600000)|map('list')|list }}",
        "{{ [range(1)]|map('counted ' ~ 'steps', cost=-600000)|map('list')|list }}",
        "{{ [1]|map('weighed value')|list }}",
        "{{ [1]|map('weighed text')|list }}",
    ],
)
def test_no_template_gives_itself_work_by_a_filter_that_counts(tmp_path, text):
    assert "No filter named" in str(refused(tmp_path, text))


def test_files_that_include_one_another_many_times_are_refused(tmp_path):
    files = {f"f{i}": f'{{% include "f{i + 1}.j2" %}}' * 2 for i in range(30)} | {"f30": "x"}
    assert "takes more steps than" in str(refused(tmp_path, '{% include "f0.j2" %}', **files))


def test_a_prompt_file_of_any_size_is_not_read(tmp_path):
    (tmp_path / "turn.j2").touch()
    with open(tmp_path / "turn.j2", "r+b") as opened:
        opened.truncate(1 << 40)
    assert "bytes" in str(refused(tmp_path, "fine"))


@pytest.mark.parametrize("name", ["default", "paper"])
def test_what_the_sets_of_the_program_take_is_far_from_the_bounds(name):
    prompts = PromptSet(name)
    variables = sample_variables("vary", prompts.actions, 200)
    prompts.render(variables)
    assert prompts._environment.work > 0.9 * WORK
    again = prompts.render(variables)
    assert again == prompts.render(variables)  # each has all of its work


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{{ '{:,}'.format(49000000000) }} {{ '%5.2f' % 1 }} {{ 'x'.ljust(3) }}|", "49,000,000,000  1.00 x  |"),
        ("{{ 70000000000|filesizeformat }} {{ none|default(70000000000) }}", "70.0 GB None"),
        (
            "{% for x in [1, 2, 3] %}{{ loop.index }}/{{ loop.length }}{{ ',' if not loop.last }}{% endfor %}",
            "1/3,2/3,3/3",
        ),
        ("{% for x in [] %}x{% else %}none{% endfor %}", "none"),
        ("{% for a, b in {'k': (1, 2)}.items() %}{{ a }}{{ b[1:] }}{% endfor %}", "k(2,)"),
        ("{% set a, b = 1, 2 %}{{ a + b }} {{ 7 % 4 }} {{ 2 ** 10 }} {{ 3 in [1, 3] }}", "3 3 1024 True"),
        ("{{ [3, 1, 2]|sort|map('string')|join('-') }} {{ range(4)|batch(2)|list }}", "1-2-3 [[0, 1], [2, 3]]"),
        ("{% macro m(x) %}<{{ x }}{{ caller() }}>{% endmacro %}{% call m(1) %}c{% endcall %}", "<1c>"),
        ("{% for x in [[1, [2]], 3] recursive %}{{ loop(x) if x is iterable else x }}{% endfor %}", "123"),
        (
            "{{ [1.25, 2]|sum }} {{ 2.345|round(1) }} {{ '%s-%s' % ('a', 7) }} {{ '{a}{a}'.format(a=1) }}",
            "3.25 2.3 a-7 11",
        ),
        ("{% macro m(f) %}{{ f(1) }}{% endmacro %}{% macro n(x) %}<{{ x }}>{% endmacro %}{{ m(n) }}", "<1>"),
        ("{{ 'a' ~ 1 ~ none }} {{ 1 if 1 < 2 < 3 }} {{ 5|decimals(2) }} {{ 'x' * 3 }}", "a1None 1 5.00 xxx"),
    ],
)
def test_what_templates_do_they_still_do(text, expected):
    environment = BoundedEnvironment()
    environment.filters["decimals"] = lambda value, digits=3: f"{value:.{digits}f}"
    environment.bound()
    assert environment.from_string(text).render() == expected


def test_a_weight_counts_what_text_would_show():
    assert weight("abc") == 3 and weight(["ab", {"c": 1}]) == 2 + 2 + 1 + 1 and weight(7) == 0
    shared = ["x" * 1000] * 1000
    with pytest.raises(TooMuchError):
        weight([shared] * 10)
    assert weight(range(LARGEST)) == LARGEST
