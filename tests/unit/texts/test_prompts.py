"""Jinja templates: what they write of a row, what is refused, and that nothing of null or of the machine is written."""

from __future__ import annotations

import json
import math

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from drillcore.errors import TextError
from drillcore.job.inputs import Dataset
from drillcore.job.prompts import check_template, prompt_of
from drillcore.texts.problems import Problems
from drillcore.texts.read import read_batches
from drillcore.texts.rows import ingest

ROW = {
    "question": "Who went?",
    "options": ["Ada", "Bo"],
    "messages": [{"role": "user", "content": "Hi"}, {"role": "system", "content": None}],
    "count": 3,
    "share": 1.0,
    "right": True,
    "hint": None,
    "first answer": "<b>",
}


def texts_of(path, template: str, **settings) -> list[str]:
    """What a template writes of each row; raises TextError with all that is wrong."""
    problems = Problems()
    dataset = Dataset(name="d", path=str(path), template=template, **settings)
    found = [text for batch in read_batches(path, dataset, problems) for text in batch.column("text").to_pylist()]
    problems.raise_if_any()
    return found


@pytest.fixture(params=["rows.jsonl", "rows.json", "rows.parquet", "rows.arrow"])
def path(request, tmp_path):
    """One row in each format that has types."""
    file = tmp_path / request.param
    if file.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist([ROW]), file)
    elif file.suffix == ".arrow":
        with pa.ipc.new_file(file, (table := pa.Table.from_pylist([ROW])).schema) as writer:
            writer.write_table(table)
    else:
        file.write_text(json.dumps([ROW] if file.suffix == ".json" else ROW) + "\n", encoding="utf-8")
    return file


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{{ question }}\n", "Who went?\n"),
        ("{{ count }} {{ share }} {{ right }}", "3 1.0 True"),
        ("{% for o in options %}{{ loop.index }}. {{ o }} {% endfor %}", "1. Ada 2. Bo "),
        ("{{ options | join(' or ') }}", "Ada or Bo"),
        ("{{ messages[0].content }}{{ messages | length }}", "Hi2"),
        ("{{ messages[1].content or '-' }}{{ messages[1].content is none }}{{ hint == none }}", "-TrueTrue"),
        ("{{ messages | tojson }}", '[{"role": "user", "content": "Hi"}, {"role": "system", "content": null}]'),
        ("{{ row['first answer'] }}&{{ row['first answer'] | tojson }}", '<b>&"<b>"'),
        ("{{ hint or question }}{% if hint %}{{ hint }}{% endif %}", "Who went?"),
        ("{{ '{{' }}{{ question }}", "{{Who went?"),
        (
            "{% set n = namespace(a=1) %}{{ n.a }}{% macro q(x) %}[{{ x }}]{% endmacro %}{{ q(question) }}",
            "1[Who went?]",
        ),
    ],
)
def test_what_is_written(template, text, path):
    assert texts_of(path, template) == [text]


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{ hint }}", "the field `hint` is null; `{{ hint or '' }}` writes nothing there"),
        ("{{ 'a' ~ hint }}", "the field `hint` is null"),
        ("{{ hint | upper }}", "the field `hint` is null"),
        ("{{ hint | trim }}", "the field `hint` is null"),
        ("{{ '%s' | format(hint) }}", "the field `hint` is null"),
        ("{{ [question, hint] | join }}", "the field `hint` is null"),
        ("{{ messages[1].content }}", "the field `messages[1].content` is null"),
        ("{{ hint.error }}{{ hint._path }}", "the field `hint` is null"),
        ("{{ hint.path }}", "the field `hint` is null"),
        ("{{ hint[0] }}", "the field `hint` is null"),
        ("{% for o in hint %}{{ o }}{% endfor %}{{ question }}", "the field `hint` is null"),
        ("{{ hint | length }}{{ question }}", "the field `hint` is null"),
        ("{{ none }}{{ question }}", "a value that it writes is null"),
        ("{{ qestion }}", "did you mean `question`?"),
        ("{{ row['first anser'] }}", "did you mean `first answer`?"),
        ("{{ messages[0].contnt }}", "no `contnt` in an object of role, content; did you mean `content`?"),
        ("{{ question }}\n{{ messages[5] }}", "template, line 2: list object has no element 5"),
        ("{{ options }}", "writes a list, which is no text"),
        ("{{ messages[0] }}", "writes an object, which is no text"),
        ("{{ question.upper }}", "writes a function, which is no text"),
        ("{{ question.upper ~ '' }}", "writes the `built-in method upper of str object`, which is no text"),
        ("{{ (options | map('upper')) ~ '' }}", "writes the `generator object sync_do_map`, which is no text"),
        ("{{ options.append('c') }}{{ options }}", "'append' of 'list' object is unsafe"),
        ("{{ question.__class__.__mro__ }}", "'__class__' of 'str' object is unsafe"),
        ("{{ count / 0 }}", "division by zero"),
        ("{{ range(10 ** 9) | length }}{{ question }}", "Range too big"),
        ("{{ 'a' * 10 ** 10 }}{{ question }}", "needed more than 0.5 GiB of memory"),
        ("{% if hint %}{{ hint }}{% endif %}", "the text that `template` writes is empty"),
    ],
)
def test_what_is_refused_of_a_row(template, message, path):
    with pytest.raises(TextError) as raised:
        texts_of(path, template)
    assert message in str(raised.value)
    assert str(raised.value).startswith(str(path))


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{ question", "line 1: unexpected end of template"),
        ("a\n{{ question | shout }}", "line 2: no filter named 'shout'"),
        ("{{ question | random }}", "line 1: no filter named 'random'"),
        ("{% include 'a' %}{{ question }}", "line 1: a template stands alone"),
        ("{{ question }} {text}", "holds {text} beside Jinja's {{ }}"),
        ("{{ 1 + 1 }}", "names no field of the rows"),
        ("{{ row }}", "`row` holds all fields"),
        ("{{ row.question }}", "`row` holds all fields"),
        ("{{ " + "(" * 5000 + "question" + ")" * 5000 + " }}", "nested too deeply"),
        ("no place", "must hold {text} exactly once"),
    ],
)
def test_what_is_refused_of_a_job(template, message):
    with pytest.raises(ValueError) as raised:
        check_template(template)
    assert message in str(raised.value)


def test_what_draws_or_remembers_is_a_field_like_any_other():
    assert prompt_of("{{ lipsum }}{{ cycler }}{{ joiner }}{{ range(2) }}").fields == ("cycler", "joiner", "lipsum")


def test_cells_of_csv_are_text_and_an_absent_column_is_named_once(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("question,count\nWho?,1.0\nWhy?,\n", encoding="utf-8")
    assert texts_of(path, "{{ question }} {{ count }}") == ["Who? 1.0", "Why? "]
    with pytest.raises(TextError) as raised:
        texts_of(path, "{{ question }} {{ cuont | default('') }}")
    assert str(raised.value).count("no field `cuont`") == 1 and "did you mean `count`?" in str(raised.value)


def test_the_field_that_is_named_is_the_one_that_lacks(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"m": {"content": "x"}}\n', encoding="utf-8")
    assert texts_of(path, "{{ m.content }}{{ hint | default('!') }}") == ["x!"]
    with pytest.raises(TextError) as raised:
        texts_of(path, "{{ hint | default('!') }}{{ m.contnt }}")
    assert "no `contnt` in an object of content" in str(raised.value) and "hint" not in str(raised.value)


def test_nan_is_no_text(tmp_path):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"share": [0.5, math.nan], "q": ["a", "b"]}), path)
    assert texts_of(path, "{{ q }}{{ share or '' }}") == ["a0.5", "b"]
    with pytest.raises(TextError, match="the field `share` is NaN"):
        texts_of(path, "{{ q }}{{ share }}")


def test_rows_are_left_out_where_the_template_writes_nothing(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"q": "a"}\n{"q": null}\n{"q": " "}\n{"q": "b"}\n', encoding="utf-8")
    assert texts_of(path, "{{ q }}", empty="drop") == ["a", "b"]
    assert texts_of(path, "{{ q }}", empty="drop", limit=1) == ["a"]
    path.write_text('{"q": "a", "label": "x"}\n{"q": null, "label": null}\n', encoding="utf-8")
    assert texts_of(path, "{{ q }}", label="label", unlabelled="drop") == ["a"]


def test_the_template_decides_the_rows_and_a_short_form_does_not(tmp_path):
    path, digests = tmp_path / "a.csv", []
    path.write_text("text,who\na,b\n", encoding="utf-8")
    for template in (None, "{text}!", "{{ text }}!", "{{ text }}?"):
        table = ingest(path, Dataset(name="d", path="a.csv", template=template), tmp_path / "cache", Problems())
        digests.append(table.digest)
    assert digests[0] == digests[1] and len({*digests}) == 3
    # As versions wrote it that had no Jinja.
    assert digests[0] == "6345da3b743ed7cdd23bfc0d72e92f92867c7f9642f85749b6209d18c2429186"
