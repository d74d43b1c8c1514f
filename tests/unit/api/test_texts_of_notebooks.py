"""What `drillcore.extract` takes for texts, and what it refuses by saying what to pass."""

from __future__ import annotations

import array
import collections
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import xarray as xr

import drillcore
from drillcore.api.texts import column, list_of_texts, refuse_other_index
from drillcore.errors import TextError

TABLE = pd.DataFrame({"text": ["a b", "c"], "label": ["x", "y"]})


class Greeting(str):
    """A string whose str() is another one, such as a member of an enum of strings."""

    def __str__(self) -> str:
        return "Greeting.HELLO"


def test_a_string_is_one_sentence(models: Any) -> None:
    model = str(models())
    alone = drillcore.extract(model, "Hello")
    listed = drillcore.extract(model, ["Hello"])
    assert alone.sizes["sentence"] == 1 and alone.text.values.tolist() == ["Hello"]
    assert np.array_equal(alone.hidden_states, listed.hidden_states)


@pytest.mark.parametrize(
    "sentences",
    [
        ["a b", "c"],
        ("a b", "c"),
        collections.deque(["a b", "c"]),
        np.array(["a b", "c"]),
        np.array(["a b", "c"], object),
        np.array(["a b", "c"], np.dtypes.StringDType()),
        TABLE["text"],
        TABLE["text"].astype(object).set_axis([7, 3]),
        TABLE.set_index("text").index,
        pa.array(["a b", "c"]),
        pa.chunked_array([["a b"], ["c"]], pa.large_string()),
        pa.array(["a b", "c"]).dictionary_encode(),
        pa.table({"text": ["a b", "c"]})["text"],
    ],
    ids=lambda value: type(value).__name__,
)
def test_sequences_of_strings_are_taken_in_their_order(sentences: Any) -> None:
    taken = list_of_texts(sentences)
    assert taken == ["a b", "c"] and {type(text) for text in taken} == {str}


def test_a_string_of_another_class_is_its_characters() -> None:
    assert list_of_texts(Greeting("Hello")) == list_of_texts([Greeting("Hello")]) == ["Hello"]
    assert list_of_texts(np.str_("Hello")) == ["Hello"]


@pytest.mark.parametrize(
    ("wrong", "remedy"),
    [
        (TABLE, "list(table['text'])"),
        (pa.table({"text": ["a"]}), "list(table['text'])"),
        (np.array([["a", "b"]]), "one column or row"),
        (np.array("Hello"), "one column or row"),
        ({"a": "one", "b": "two"}, "list(texts.values())"),
        (xr.Dataset({"text": ("sentence", ["a"])}), "list(texts.values())"),
        (b"Hello", "decode it"),
        (bytearray(b"Hello"), "decode it"),
        ((text for text in ["a"]), "list(texts)"),
        (iter(["a"]), "list(texts)"),
        ({"a": 1}.keys(), "a list of strings"),
        ({"a", "b"}, "a list of strings"),
        (array.array("u", "Hello"), "a list of strings"),
        (None, "a list of strings"),
        (5, "a list of strings"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_is_no_sequence_of_strings_is_a_type_error_that_says_what_to_pass(wrong: Any, remedy: str) -> None:
    with pytest.raises(TypeError) as caught:
        drillcore.extract("there is no such model", wrong)
    assert remedy in str(caught.value) and type(wrong).__name__ in str(caught.value).replace("None", "NoneType")


@pytest.mark.parametrize(
    ("items", "named"),
    [
        (["a", None], "texts[1] is None"),
        (["a", ["b", "c"]], "texts[1] is of type list"),
        ([b"a"], "texts[0] is of type bytes"),
        ([1, 2], "texts[0] is of type int"),
        (range(3), "texts[0] is of type int"),
        (np.array([b"a"]), "texts[0] is of type bytes_"),
        (np.array([1.5]), "texts[0] is of type float64"),
        (pd.Series(["a", None]), "texts[1] is of type float"),
        (pd.Series(["a", pd.NA], dtype="string"), "texts[1] is "),
        (pa.array(["a", None]), "texts[1] is None"),
        (pa.array([1]), "texts[0] is of type int"),
        (collections.UserString("Hello"), "texts[0] is of type UserString"),
        ([{"text": "a"}], "texts[0] is of type dict"),
    ],
)
def test_an_item_that_is_no_string_is_named(items: Any, named: str) -> None:
    with pytest.raises(TypeError, match="pass one string for each text") as caught:
        list_of_texts(items)
    assert named in str(caught.value)


@pytest.mark.parametrize(
    ("sentences", "what"),
    [
        ([], "there is no text"),
        ("", "the text is empty"),
        (["a", " \n"], "texts[1] is empty"),
        (["a\0b"], "texts[0] holds a NUL"),
        (["a", "\ud800"], "texts[1] holds half a surrogate pair"),
    ],
)
def test_a_sentence_that_cannot_be_read_is_named_by_its_place(sentences: Any, what: str) -> None:
    with pytest.raises(TextError) as caught:
        list_of_texts(sentences)
    assert str(caught.value).startswith(what) and caught.value.hint


@pytest.mark.parametrize(
    "values",
    [
        ["a", None],
        np.array(["a", None], object),
        pd.Series(["a", None]),
        pd.Series(["a", pd.NA], dtype="string"),
        pa.array(["a", None]),
        ("a", float("nan")),
    ],
    ids=lambda value: type(value).__name__,
)
def test_values_beside_the_texts_are_plain_and_missing_ones_are_none(values: Any) -> None:
    assert column("labels", values, 2) == ["a", None]


def test_numbers_beside_the_texts_are_numbers() -> None:
    assert column("fields: a", np.array([1, 2]), 2) == [1, 2]
    assert type(column("fields: a", pd.Series([1, 2]), 2)[0]) is int


@pytest.mark.parametrize(
    ("values", "kind", "named"),
    [
        (["a"], TextError, "labels has 1 values; there are 2 texts"),
        ("ab", TypeError, "type str"),
        ({"a": 1, "b": 2}, TypeError, "type dict"),
        (5, TypeError, "type int"),
        (np.zeros((2, 2)), TypeError, "type ndarray"),
        ((v for v in "ab"), TypeError, "type generator"),
    ],
)
def test_values_that_are_not_one_for_each_text_are_refused(values: Any, kind: type[Exception], named: str) -> None:
    with pytest.raises(kind, match="labels") as caught:
        column("labels", values, 2)
    assert named in str(caught.value)


def test_columns_of_pandas_belong_together_by_their_index() -> None:
    texts, labels = pd.Series(["a", "b"]), pd.Series(["x", "y"], index=[1, 0])
    with pytest.raises(TextError, match="labels and texts are columns of pandas with different indexes"):
        refuse_other_index(texts, {"labels": labels})
    refuse_other_index(texts, {"labels": labels.sort_index(), "fields: a": [1, 2], "b": labels.to_numpy()})
    refuse_other_index(["a", "b"], {"labels": labels})


@pytest.mark.parametrize("as_given", [list, tuple, pd.Series, np.array, lambda names: names[0]])
def test_names_of_files_are_not_taken_as_texts(tmp_path: Path, monkeypatch: Any, as_given: Any) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a.csv", "b.jsonl.gz", "notes"):
        (tmp_path / name).write_text("text\nHello\n", encoding="utf-8")
    with pytest.raises(TextError, match="their names would be taken as the texts") as refused:
        list_of_texts(as_given(["a.csv", "b.jsonl.gz"]))
    assert '"path": ' in refused.value.hint and "a.csv" in refused.value.hint
    # One that is none, and words that happen to be files of another kind, are texts.
    assert list_of_texts(["a.csv", "Hello"]) == ["a.csv", "Hello"] and list_of_texts(["notes"]) == ["notes"]
    assert list_of_texts(["gone.csv"]) == ["gone.csv"]
