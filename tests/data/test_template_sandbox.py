"""Chat templates of strangers: whatever they ask for, it is refused, and soon."""

from __future__ import annotations

import threading

import pytest

from llamafarm.data import template_sandbox
from llamafarm.data.rows import Message
from llamafarm.data.templates import ChatTemplate
from llamafarm.errors import DataError

SINGLE = (Message("user", "What is a fever?"), Message("assistant", "A high temperature."))
MILLION = "{% set x = 'ab' * 1000000 %}"
LONG_LIST = "{% set x = range(99999)|list %}"
# Every multiple of 2**61 - 1 has the hash 0.
COLLIDING = f"{{{{ range(0, {(2**61 - 1) * 50_000}, {2**61 - 1})"
DOUBLE = "{% set ns = namespace(x='ab', l=[1]) %}{% for i in range(60) %}"

BOMBS = {
    "a_long_loop": "{% for i in range(10**9) %}x{% endfor %}",
    "loops_in_loops": (
        "{% for a in range(99999) %}{% for b in range(99999) %}{% for c in range(99999) %}"
        "{% endfor %}{% endfor %}{% endfor %}"
    ),
    "loops_that_write": (
        "{% for a in range(9999) %}{% for b in range(9999) %}x{% endfor %}{% endfor %}"
    ),
    "loops_of_nothing": (
        "{% for a in range(99999) %}{% for b in range(99999) if b > a %}{% endfor %}{% endfor %}"
    ),
    "a_loop_over_a_generator": (
        "{% for a in range(99999)|map('string') %}{% for b in range(99999)|select %}{% endfor %}"
        "{% endfor %}"
    ),
    "a_recursive_loop": (
        "{% for i in [1, 2] recursive %}{% if loop.depth < 60 %}{{ loop([1, 2]) }}{% endif %}"
        "{% endfor %}"
    ),
    "a_text_many_times": "{{ 'a' * 10**10 }}",
    "a_text_many_times_on_the_right": "{{ 10**10 * 'a' }}",
    "a_text_many_times_in_steps": MILLION + "{{ x * 1000 }}",
    "a_constant_many_times": "{{ 'a' * 10000000000 }}",
    "a_list_many_times": "{{ ([messages] * 10000000)|length }}",
    "a_power": "{{ 9**(9**9) }}",
    "a_product": (
        "{% set ns = namespace(x=99) %}"
        "{% for i in range(60) %}{% set ns.x = ns.x * ns.x %}{% endfor %}"
    ),
    "a_wide_number": '{{ "%999999999d" % 1 }}',
    "a_wide_number_as_a_filter": '{{ "%999999999d"|format(1) }}',
    "a_precise_number": '{{ "%.999999999f" % 1 }}',
    "a_width_that_is_given": '{{ "%*d" % (999999999, 1) }}',
    "a_width_that_is_given_behind_a_flag": '{{ "%-*d" % (999999999, 1) }}',
    "a_precision_that_is_given": '{{ "%.*f" % (999999999, 1.0) }}',
    "a_text_used_often": MILLION + "{{ ('%(a)s' * 1000) % {'a': x} }}",
    "a_centred_text": "{{ 'x'|center(10**9) }}",
    "a_centred_constant": "{{ 'x'|center(1000000000)|length }}",
    "a_centred_text_as_a_method": "{{ 'x'.center(10**9) }}",
    "zeros": "{{ 'x'.zfill(1000000000) }}",
    "tabulators": "{{ '\\t'.expandtabs(1000000000) }}",
    "a_format": "{{ '{:>999999999}'.format(1) }}",
    "a_format_in_a_format": "{{ '{:>{}}'.format(1, 999999999) }}",
    "a_format_with_a_mapping": "{{ '{a:>999999999}'.format_map({'a': 1}) }}",
    "a_format_used_often": MILLION + "{{ ('{0}' * 1000).format(x) }}",
    "a_replacement": MILLION + "{{ x|replace('a', x) }}",
    "a_replacement_as_a_method": MILLION + "{{ x.replace('', x) }}",
    "an_indentation": "{{ 'a\\nb'|indent(10**9) }}",
    "an_indented_object": "{{ messages|tojson(indent=10**9) }}",
    "an_object_far_apart": MILLION + "{{ (messages * 1000)|tojson(separators=(x, x)) }}",
    "a_joined_list": MILLION + "{{ ([1] * 10000)|join(x) }}",
    "a_joined_list_as_a_method": MILLION + "{{ x.join('abcdefgh' * 1000) }}",
    "a_joined_generator": MILLION + "{{ range(90000)|map('string')|join(x) }}",
    "a_default_many_times": MILLION + "{{ (messages * 9)|map(attribute='no', default=x)|join }}",
    "replacements_in_a_map": MILLION
    + "{{ ([x[:9000]] * 200)|map('replace', 'a', x[:9000])|list|length }}",
    "sums_of_lists": "{{ ([[1]] * 99999)|sum(start=[])|length }}",
    "a_text_that_doubles": DOUBLE + "{% set ns.x = ns.x + ns.x %}{% endfor %}",
    "a_text_that_doubles_otherwise": DOUBLE + "{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
    "a_list_that_doubles": DOUBLE + "{% set ns.l = ns.l + ns.l %}{% endfor %}",
    "a_list_that_holds_itself_twice": DOUBLE
    + "{% set ns.l = [ns.l, ns.l] %}{% endfor %}{{ ns.l }}",
    "a_mapping_that_holds_itself_twice": (
        DOUBLE + "{% set ns.l = {'a': ns.l, 'b': ns.l} %}{% endfor %}{{ ns.l }}"
    ),
    "a_mapping_made_by_a_call": (
        DOUBLE + "{% set ns.l = dict(a=ns.l, b=ns.l) %}{% endfor %}{{ ns.l }}"
    ),
    "a_mapping_made_from_keys": (
        DOUBLE + "{% set ns.l = dict.fromkeys(['a', 'b'], ns.l) %}{% endfor %}{{ ns.l }}"
    ),
    "a_cycler_that_holds_itself_twice": (
        DOUBLE + "{% set ns.l = cycler(ns.l, ns.l).items %}{% endfor %}{{ ns.l }}"
    ),
    "a_json_that_escapes_itself": DOUBLE
    + "{% set ns.x = [ns.x, ns.x]|tojson|tojson %}{% endfor %}",
    "a_text_of_a_list_of_texts": DOUBLE + "{% set ns.x = [ns.x, '\\\\']|string %}{% endfor %}",
    "a_block_that_doubles": (
        DOUBLE + "{% set y %}{{ ns.x }}{{ ns.x }}{% endset %}{% set ns.x = y %}{% endfor %}"
    ),
    "a_block_that_is_long": (
        "{% set y %}{% for a in range(9999) %}{% for b in range(9999) %}"
        + "x" * 1000
        + "{% endfor %}{% endfor %}{% endset %}"
    ),
    "a_macro_that_is_long": (
        MILLION
        + "{% macro f() %}{% for a in range(999) %}{{ x }}{% endfor %}{% endmacro %}{{ f() }}"
    ),
    "a_macro_that_calls_itself_twice": (
        "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(60) }}"
    ),
    "a_macro_without_end": "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "a_macro_that_keeps_what_it_gets": (
        "{% macro f(n) %}{% if n %}{{ f(n - 1, varargs, varargs, varargs) }}{% else %}{{ varargs }}"
        "{% endif %}{% endmacro %}{{ f(90, 'aaaaaaaaaaaaaaaaa') }}"
    ),
    "a_filter_block": (
        MILLION + "{% filter upper %}{% for i in range(99) %}{{ x }}{% endfor %}{% endfilter %}"
    ),
    "a_long_sum": MILLION + "{{ " + " + ".join("x" * 900) + " }}",
    "a_long_concatenation": MILLION + "{{ " + " ~ ".join("x" * 900) + " }}",
    "slices": MILLION + "{{ " + " == ".join(["x[::-1]"] * 900) + " }}",
    "searches": MILLION + "{% for i in range(99999) %}{% if 'abb' in x %}{% endif %}{% endfor %}",
    "large_values_written_out": MILLION + "{% for i in range(9999) %}{{ x }}{% endfor %}",
    "a_block_that_is_asked_for_again": (
        "{% block b %}{% for i in range(9) %}{{ self.b() }}{% endfor %}{% endblock %}"
    ),
    "nonsense_words": "{{ lipsum(n=1000000) }}",
    "a_long_range": "{{ range(10**12)|list|length }}",
    "a_number_rounded_to_a_billion_digits": "{{ 1|round(-1000000000) }}",
    "a_number_rounded_up_to_a_billion_digits": "{{ 1.5|round(1000000000, 'ceil') }}",
    "numbers_rounded_in_a_map": "{{ [1]|map('round', -1000000000)|list }}",
    "numbers_of_a_million_digits": (
        "{% set x = ('f' * 3000000)|int(base=16) // ('f' * 1500000)|int(base=16) %}"
    ),
    "a_list_sought_in_itself": LONG_LIST + "{{ x|select('in', x)|list|length }}",
    "a_list_that_is_not_in_itself": LONG_LIST + "{{ x|reject('in', x)|first }}",
    "attributes_sought_in_a_list": LONG_LIST + "{{ x|selectattr('real', 'in', x)|list|length }}",
    "lists_compared_while_sorting": LONG_LIST
    + "{{ x|map(attribute='no', default=x)|sort|length }}",
    "lists_compared_while_grouping": LONG_LIST + "{{ x|groupby('no', default=x)|length }}",
    "the_largest_of_lists": LONG_LIST + "{{ x|map(attribute='no', default=x)|max|length }}",
    "many_attributes_to_sort_by": LONG_LIST + "{{ x|sort(attribute='real,' * 400)|length }}",
    "lists_made_in_a_map": LONG_LIST
    + "{{ x|map(attribute='no', default=x)|map('list')|list|length }}",
    "keys_that_collide": COLLIDING + "|unique|list|length }}",
    "keys_that_collide_in_a_mapping": (
        COLLIDING.replace("{{ ", "{{ dict(") + "|groupby('real'))|length }}"
    ),
    "a_group_that_holds_itself_twice": DOUBLE
    + "{% set ns.l = ([ns.l, ns.l]|groupby('no', default=1))|first %}{% endfor %}{{ ns.l }}",
    "a_search_from_the_end": "{{ ('a' * 2000000).rfind('ab' + 'a' * 1000000) }}",
    "a_text_stripped_of_many_characters": MILLION + "{{ x.strip('c' * 1000000 + 'ab') }}",
    "a_text_trimmed_of_many_characters": MILLION + "{{ x|trim('c' * 1000000 + 'ab') }}",
    "a_long_comparison": (
        MILLION + "{% set y = 'ab' * 1000000 %}{{ " + "x == y == " * 900 + "'a' }}"
    ),
    "blocks_in_a_loop": (
        "{% for i in range(9999) %}{% block b scoped %}{% for a in range(99999) %}"
        "{% for c in range(99999) %}{% endfor %}{% endfor %}{% endblock %}{% endfor %}"
    ),
    "a_date_format": "{{ strftime_now('%Y' * 100000) }}",
    "brackets": "{{ " + "(" * 20_000 + ")" * 20_000 + " }}",
    "conditions": "{% if a %}" * 5000 + "{% endif %}" * 5000,
    "many_blocks": "{% for a in b %}" * 30 + "{% endfor %}" * 30 + "{{ raise_exception('end') }}",
    "a_number_of_many_digits": "{{ " + "9" * 20_000 + " }}",
    "a_template_of_100_megabytes": "x" * 100_000_000,
}

ESCAPES = {
    "classes": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "classes_by_subscript": "{{ ''['__class__']['__mro__'] }}",
    "classes_by_filter": "{{ (''|attr('__class__'))|attr('__mro__') }}",
    "classes_by_map": "{{ ['']|map(attribute='__class__')|list|first|attr('mro') }}{{ nothing.x }}",
    "globals_of_a_function": "{{ raise_exception.__globals__['__builtins__'] }}",
    "globals_of_a_class": "{{ cycler.__init__.__globals__.os.system('touch ran') }}",
    "globals_of_a_joiner": "{{ joiner.__init__.__globals__.os.system('touch ran') }}",
    "globals_of_a_namespace": "{{ namespace.__init__.__globals__.os.system('touch ran') }}",
    "globals_of_a_date": "{{ strftime_now.__globals__.datetime }}",
    "globals_of_a_macro": "{% macro f() %}{% endmacro %}{{ f._func.__globals__ }}",
    "nonsense_words": "{{ lipsum.__globals__.os.system('touch ran') }}",
    "the_template_itself": "{{ self._TemplateReference__context.environment.globals }}",
    "the_loop": "{% for m in messages %}{{ loop._iterable.__class__.__mro__ }}{% endfor %}",
    "a_generator": "{{ (messages|map('string')).gi_frame.f_builtins }}",
    "a_format": "{{ '{0.__class__.__mro__}'.format('') }}",
    "a_format_of_an_object": "{{ '{0.__init__.__globals__}'.format(cycler) }}",
    "a_format_with_a_mapping": "{{ '{a.__class__}'.format_map({'a': ''}) }}",
    "a_format_by_filter": "{{ (('{0.__class__.__mro__}')|attr('format'))('') }}",
    "a_changed_list": "{{ messages.append(1) }}",
    "a_changed_mapping": "{{ messages[0].update(role='system') }}",
    "a_changed_namespace": "{% set ns = namespace() %}{% set ns.__class__ = 1 %}{{ ns.__class__ }}",
    "bytes": "{{ 'a'.encode().hex() }}",
    "a_table_of_characters": "{{ 'a'.translate({97: 'b' * 1000}) }}",
    "another_template": "{% include '/etc/passwd' %}",
    "another_template_as_a_parent": "{% extends '/etc/passwd' %}",
    "another_template_as_a_module": "{% import '/etc/passwd' as x %}{{ x }}",
}


def refusal(text: str) -> str:
    with pytest.raises(DataError) as caught:
        template = ChatTemplate(text, {"bos_token": "<s>"})
        template.render(SINGLE)
    return caught.value.render()


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(template_sandbox, "MAX_SECONDS", 0.2)


@pytest.mark.usefixtures("soon")
@pytest.mark.parametrize("name", BOMBS)
def test_a_template_that_would_not_end_is_refused(name: str) -> None:
    assert "chat template" in refusal(BOMBS[name])


@pytest.mark.parametrize("name", ESCAPES)
def test_a_template_reaches_nothing_outside(name: str) -> None:
    try:
        written = ChatTemplate(ESCAPES[name], {"bos_token": "<s>"}).render(SINGLE)
    except DataError as refused:
        written = refused.summary.removeprefix("the chat template fails: ")[:0]
    assert written == ""


@pytest.mark.usefixtures("soon")
@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("loops_in_loops", "it takes more than 0.2 seconds for one conversation"),
        ("a_text_many_times", "characters of one conversation"),
        ("a_power", "a number of more than 10,000 bits"),
        ("a_template_of_100_megabytes", "100,000,000 characters, more than 100,000"),
        ("bytes", "the method encode of str is not offered here"),
        ("a_centred_text", "No filter named 'center'"),
    ],
)
def test_what_was_exceeded_is_said(name: str, said: str) -> None:
    assert said in refusal((BOMBS | ESCAPES)[name])


@pytest.mark.usefixtures("soon")
def test_a_bound_holds_in_other_threads_too() -> None:
    said: list[str] = []
    thread = threading.Thread(target=lambda: said.append(refusal(BOMBS["loops_in_loops"])))
    thread.start()
    thread.join()
    assert "takes more than" in said[0]


def test_a_long_conversation_is_allowed_a_longer_text() -> None:
    long = (Message("user", "ab" * 3_000_000), Message("assistant", "ok"))
    template = ChatTemplate("{% for m in messages %}{{ m.content + '\\n' }}{% endfor %}", {})
    assert len(template.render(long)) == 6_000_004
    twenty = ChatTemplate("{% for i in range(20) %}{{ messages[0].content }}{% endfor %}", {})
    with pytest.raises(DataError, match="characters of one conversation"):
        twenty.render(long)


def test_a_long_loop_still_knows_where_it_is() -> None:
    many = tuple(Message("user", str(i)) for i in range(40))
    template = ChatTemplate(
        "{% for m in messages %}{{ loop.index }}/{{ loop.length }}{{ ',' if not loop.last }}"
        "{% endfor %}",
        {},
    )
    assert template.render(many) == ",".join(f"{i + 1}/40" for i in range(40))


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("{{ 'a' ~ 1 ~ 'b' ~ bos_token ~ [1, 'x'] ~ none }}", "a1b<s>[1, 'x']None"),
        ("{{ 'a' + 'b' + bos_token + 'c' + bos_token + bos_token }}", "ab<s>c<s><s>"),
        ("{{ [1] + [2, bos_token] }}", "[1, 2, '<s>']"),
        ("{{ '%02d|%s|%5.1f%%' % (7, bos_token, 2) }}", "07|<s>|  2.0%"),
        ("{{ '{:>4}|{a}'.format(1, a=bos_token) }}", "   1|<s>"),
        ("{{ 'a' * 3 }}{{ 2 ** 10 }}{{ 7 % 4 }}", "aaa10243"),
        (
            "{{ {'a': [1, {'b': none}]}|tojson(indent=2) }}",
            '{\n  "a": [\n    1,\n    {\n      "b": null\n    }\n  ]\n}',
        ),
        ("{{ ['a', 'b']|join(', ') }}{{ ', '.join(['a', 'b']) }}", "a, ba, b"),
        (
            "{{ 'a\nb'|indent(2) }}{{ 'aXa'|replace('X', 'b') }}{{ 'a-b'.replace('-', '+') }}",
            "a\n  babaa+b",
        ),
        (
            "{% macro f(a, b='x') %}<{{ a }}{{ b }}>{% endmacro %}{{ f(1) }}{{ f(2, b=3) }}",
            "<1x><23>",
        ),
        ("{% set x %}{{ bos_token }}!{% endset %}{{ x }}", "<s>!"),
        ("{% for a, b in [(1, bos_token)] %}{{ a }}{{ b }}{% endfor %}", "1<s>"),
        (
            (
                "{% for i in [[1, [2]], []] recursive %}"
                "({{ loop(i) if i is iterable else i }}){% endfor %}"
            ),
            "((1)((2)))()",
        ),
        (
            "{{ messages[::-1][0].role }}{{ messages|map(attribute='role')|list }}",
            "assistant['user', 'assistant']",
        ),
        ("{{ 'b' in 'abc' }}{{ messages[0].role in ['user', bos_token] }}", "TrueTrue"),
        (
            "{{ [1, 2]|sum }}{{ 'Ab'|upper|lower|trim }}{{ {'b': 1, 'a': 2}|dictsort|first }}",
            "3ab('a', 2)",
        ),
        ("{% filter upper %}a{{ bos_token }}{% endfilter %}", "A<S>"),
        (
            "{{ 2.567|round(1) }}{{ '0x1f'|int(base=16) }}{{ ' a '|trim }}{{ 'xax'.strip('x') }}",
            "2.631aa",
        ),
        (
            (
                "{{ [3, 1]|sort|first }}{{ [1, 1]|unique|list }}{{ [2, 5]|max }}"
                "{% for role, group in messages|groupby('role') %}{{ role }}{% endfor %}"
            ),
            "1[1]5assistantuser",
        ),
        ("{{ dict([('a', 1)], b=2) }}{{ dict({'a': 1}) }}", "{'a': 1, 'b': 2}{'a': 1}"),
        (
            (
                "{{ messages|selectattr('role', 'equalto', 'user')|map(attribute='role')|first }}"
                "{{ 1 < 2 < 3 }}{{ nothing|list }}{{ nothing|selectattr('a')|list }}"
            ),
            "userTrue[][]",
        ),
        ("{% generation %}{{ bos_token }}{% endgeneration %}", "<s>"),
        (
            (
                "{% set ns = namespace(n=1) %}"
                "{% for i in range(40) %}{% set ns.n = ns.n + i %}{% endfor %}{{ ns.n }}"
            ),
            "781",
        ),
        ("{% set c = cycler('a', 'b') %}{{ c.next() }}{{ c.next() }}{{ c.next() }}", "aba"),
    ],
)
def test_what_templates_usually_do_is_as_it_was(text: str, written: str) -> None:
    assert ChatTemplate(text, {"bos_token": "<s>"}).render(SINGLE) == written
