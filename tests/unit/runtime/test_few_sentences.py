"""What `drillcore.extract` takes for sentences, and what it refuses by saying what to pass."""

from __future__ import annotations

import array
import collections
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import xarray as xr

import drillcore
from drillcore.errors import TextError
from drillcore.runtime.few_sentences import list_of_sentences

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
    ],
    ids=lambda value: type(value).__name__,
)
def test_sequences_of_strings_are_taken_in_their_order(sentences: Any) -> None:
    taken = list_of_sentences(sentences)
    assert taken == ["a b", "c"] and {type(text) for text in taken} == {str}


def test_a_string_of_another_class_is_its_characters() -> None:
    assert list_of_sentences(Greeting("Hello")) == list_of_sentences([Greeting("Hello")]) == ["Hello"]
    assert list_of_sentences(np.str_("Hello")) == ["Hello"]


@pytest.mark.parametrize(
    ("wrong", "remedy"),
    [
        (TABLE, "list(table['text'])"),
        (pa.table({"text": ["a"]}), "list(table['text'])"),
        (np.array([["a", "b"]]), "one column or row"),
        (np.array("Hello"), "one column or row"),
        ({"a": "one", "b": "two"}, "list(sentences.values())"),
        (xr.Dataset({"text": ("sentence", ["a"])}), "list(sentences.values())"),
        (b"Hello", "decode it"),
        (bytearray(b"Hello"), "decode it"),
        ((text for text in ["a"]), "list(sentences)"),
        (iter(["a"]), "list(sentences)"),
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
        (["a", None], "sentences[1] is None"),
        (["a", ["b", "c"]], "sentences[1] is of type list"),
        ([b"a"], "sentences[0] is of type bytes"),
        ([1, 2], "sentences[0] is of type int"),
        (range(3), "sentences[0] is of type int"),
        (np.array([b"a"]), "sentences[0] is of type bytes_"),
        (np.array([1.5]), "sentences[0] is of type float64"),
        (pd.Series(["a", None]), "sentences[1] is of type float"),
        (pd.Series(["a", pd.NA], dtype="string"), "sentences[1] is "),
        (pa.array(["a"]), "sentences[0] is of type StringScalar"),
        (collections.UserString("Hello"), "sentences[0] is of type UserString"),
        ([{"text": "a"}], "sentences[0] is of type dict"),
    ],
)
def test_an_item_that_is_no_string_is_named(items: Any, named: str) -> None:
    with pytest.raises(TypeError, match="pass one string for each sentence") as caught:
        list_of_sentences(items)
    assert named in str(caught.value)


@pytest.mark.parametrize(
    ("sentences", "what"),
    [
        ([], "there is no sentence"),
        ("", "the sentence is empty"),
        (["a", " \n"], "sentences[1] is empty"),
        (["a\0b"], "sentences[0] holds a NUL"),
        (["a", "\ud800"], "sentences[1] holds half a surrogate pair"),
    ],
)
def test_a_sentence_that_cannot_be_read_is_named_by_its_place(sentences: Any, what: str) -> None:
    with pytest.raises(TextError) as caught:
        list_of_sentences(sentences)
    assert str(caught.value).startswith(what) and caught.value.hint
