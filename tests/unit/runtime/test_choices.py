"""What the report's points can be coloured by: values that are many, infinite, missing or written alike."""

from __future__ import annotations

import numpy as np

from drillcore.runtime.stages.render.choices import MOST_COLORS, MOST_VALUES, OTHERS, of_numbers, of_words


def test_the_most_frequent_values_have_colours_and_all_are_told(seed):
    rng = np.random.default_rng(seed)
    words = [f"w{k}" for k in range(50)]
    codes = rng.permutation(np.repeat(np.arange(50), np.arange(1, 51)))
    choice = of_words("k", "n", words, [codes])
    assert choice is not None and choice.has_others and choice.categories[-1] == OTHERS
    assert set(choice.categories[:-1]) == {f"w{k}" for k in range(50 - MOST_COLORS, 50)}
    assert choice.words == tuple(words) and (choice.codes[0]() == codes).all()
    told = [choice.categories[place] for place in choice.places]
    assert all(told[k] == (f"w{k}" if k >= 50 - MOST_COLORS else OTHERS) for k in range(50))
    few = of_words("k", "n", words[:MOST_COLORS], [codes[codes < MOST_COLORS]])
    assert few is not None and not few.has_others and len(few.categories) == MOST_COLORS


def test_of_too_many_values_the_colours_are_told():
    words = [f"w{k:05}" for k in range(MOST_VALUES + 1)]
    codes = np.concatenate([np.arange(len(words)), np.repeat(7, 9), [-1]])
    choice = of_words("k", "n", words, [codes])
    assert choice is not None and choice.words == choice.categories and len(choice.words) == MOST_COLORS + 1
    found = choice.codes[0]()
    assert choice.words[found[7]] == "w00007" and found[-1] == -1 and choice.words[found[1999]] == OTHERS
    numbers = of_numbers("k", "n", [np.linspace(0, 1, MOST_VALUES + 1)])
    assert numbers is not None and numbers.words == () and numbers.codes[0]()[[0, -1]].tolist() == [0, 255]


def test_numbers_are_told_exactly():
    values = np.array([0.1, np.nan, np.inf, -np.inf, 3.0, 1e-300])
    choice = of_numbers("k", "n", [values])
    assert choice is not None and choice.value_range == (1e-300, 3.0)
    codes = choice.codes[0]()
    assert [choice.words[c] if c >= 0 else None for c in codes] == ["0.1", None, "inf", "-inf", "3.0", "1e-300"]
    assert choice.places[codes[2]] == 255 and choice.places[codes[3]] == 0
    whole = of_numbers("k", "n", [np.array([2**62, 2**62 + 1], np.int64)])
    assert whole is not None and whole.words == (str(2**62), str(2**62 + 1))
    same = of_numbers("k", "n", [np.array([5, 5])])
    assert same is not None and same.value_range == (5.0, 5.0) and same.places.tolist() == [0]


def test_nothing_is_no_choice_and_rows_that_agree_are_one():
    assert of_numbers("k", "n", [np.array([np.nan, np.nan])]) is None
    assert of_words("k", "n", ["a"], [np.array([-1, -1])]) is None and of_words("k", "n", [], [np.array([-1])]) is None
    same, other = np.array([1, 2]), np.array([2, 1])
    for rows, arrays in (((same, same), 1), ((same, other), 2)):
        choice = of_numbers("k", "n", rows)
        assert choice is not None and len(choice.codes) == arrays
