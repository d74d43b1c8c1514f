"""What readers of several positions get: a dimension for the last tokens, and trees from `drillcore.extract`."""

from __future__ import annotations

import numpy as np
import pytest

import drillcore
from drillcore.errors import JobError, TextError
from support.placed import Plain, errors

TEXTS = ["Ada met Zoë in 北京", "a", "👩‍🚀!", "it is"]


def test_the_last_tokens_are_a_dimension(models):
    tree = drillcore.extract(str(models()), TEXTS, positions=["last", {"last": 5}, {"last": 2}], threads=1)
    assert sorted(tree.children) == ["last", "last-2", "last-5"]
    plain = Plain(models())
    ids = [plain.tokenizer(text)["input_ids"] for text in TEXTS]
    for count in (2, 5):
        found = tree[f"last-{count}"].to_dataset()
        assert found.hidden_states.dims == ("sentence", "position", "layer", "hidden")
        assert found.position.values.tolist() == list(range(-count, 0))
        for n, tokens in enumerate(ids):
            there = min(count, len(tokens))
            mask = [False] * (count - there) + [True] * there
            assert found.mask[n].values.tolist() == mask
            one = found.isel(sentence=n)
            assert one.token_id.values.tolist() == [-1] * (count - there) + tokens[-there:]
            assert np.isnan(one.hidden_states.values[: count - there]).all()
            want = plain.states(tokens)[-there:]
            assert errors(one.hidden_states.values[count - there :], want).max() <= 1e-5
        last = found.sel(position=-1)
        np.testing.assert_allclose(last.hidden_states, tree["last"].hidden_states, rtol=1e-4, atol=1e-5)
        assert found.text.dims == ("sentence",) and found.text.values.tolist() == TEXTS
    # Some of it, by any kind of index.
    lazy = tree["last-5"].hidden_states
    some = lazy.isel(sentence=[3, 0], position=slice(2, None), layer=1, hidden=[0, 5])
    np.testing.assert_array_equal(some, lazy.values[[3, 0]][:, 2:, 1][..., [0, 5]])
    assert tree["last-2"].to_dataset().isel(sentence=0, position=-1).char_end.item() == len(TEXTS[0])


def test_a_sentence_of_one_token_among_longer_ones_is_not_mistaken(models):
    tree = drillcore.extract(str(models()), ["ab", "c"], positions=[{"last": 3}], special_tokens="none", threads=1)
    found = tree["last-3"].to_dataset()
    assert found.mask.values.tolist() == [[False, True, True], [False, False, True]]
    assert found.row_size.values.tolist() == [2, 1]


def test_fields_of_the_sentences(models):
    texts = ["Ada met Zoë", "Zoë met Ada"]
    tree = drillcore.extract(
        str(models()),
        texts,
        positions=["mean", {"span": ["a", "b"], "name": "who"}, {"all": {}}],
        fields={"a": np.array([8, 0]), "b": [11, 3]},
        threads=1,
    )
    who = tree["who"].to_dataset()
    places = zip(texts, who.char_start.values, who.char_end.values, strict=True)
    assert [text[a:b] for text, a, b in places] == ["ë", "ë"]
    assert tree["all"].to_dataset().sizes["row"] == sum(len(t.encode()) + 1 for t in texts)
    with pytest.raises(TextError, match="4 to 99 is beyond the text"):
        drillcore.extract(
            str(models()), "Ada", positions=[{"span": ["a", "b"], "name": "x"}], fields={"a": [4], "b": [99]}
        )
    with pytest.raises(TextError, match="fields: a has 1 values; there are 2 texts"):
        drillcore.extract(str(models()), texts, positions=["mean"], fields={"a": [1]})
    with pytest.raises(JobError, match="needs a `name:`"):
        drillcore.extract(str(models()), texts, positions=[{"after": "met"}])
