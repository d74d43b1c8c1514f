"""The source experiment's sentences and job files: no trivial cue may tell Toronto from Montreal.

Every check here is deterministic. Classifiers are tested on topics they have not seen (the two sentences of a topic are
built alike and stay together), and may be right on at most 32 of 50: more would differ from guessing at the 5 % level
(two-sided binomial test).
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS, TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import LeaveOneGroupOut, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.tree import DecisionTreeClassifier

from drillcore.job.fields import Job
from drillcore.system.files import cache_dir
from drillcore.texts.columns import fields_named

JOBS = Path(__file__).parents[3] / "jobs"
CITIES = ("Toronto", "Montreal")
SETS = ("complete", "incomplete")
MOST_RIGHT_BY_CHANCE = 32
NAMES = re.compile("toronto|montr[eé]al", re.IGNORECASE)

Row = dict[str, str]


def read_rows(name: str) -> list[Row]:
    lines = (JOBS / "texts" / f"toronto-montreal-{name}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def words(text: str) -> list[str]:
    return re.findall(r"[\w'-]+", text)


def right_on_unseen_topics(classifier: Any, features: Any, rows: list[Row]) -> int:
    """Sentences whose label a classifier gets right, trained each time on the other 24 topics."""
    labels = np.array([row["label"] for row in rows])
    topics = [row["topic"] for row in rows]
    guesses = cross_val_predict(classifier, features, labels, groups=topics, cv=LeaveOneGroupOut())
    return int((guesses == labels).sum())


def right_by_number(of: Callable[[str], float], rows: list[Row]) -> tuple[int, float]:
    """How many labels one number per text gives away by a threshold, and the area under its ROC curve."""
    values = np.array([[of(row["text"])] for row in rows])
    area = roc_auc_score([row["label"] == CITIES[1] for row in rows], values[:, 0])
    return right_on_unseen_topics(DecisionTreeClassifier(max_depth=1, random_state=0), values, rows), float(area)


def right_by_words(rows: list[Row], **options: Any) -> int:
    """How many labels a TF-IDF classifier gets right once the cities' names are masked."""
    masked = [NAMES.sub("city", row["text"]) for row in rows]
    return right_on_unseen_topics(make_pipeline(TfidfVectorizer(**options), LogisticRegression(C=10)), masked, rows)


def best_word_lookup(rows: list[Row], position: int) -> float:
    """Share of labels right for the best table from one word of a text to a label, on the rows it was made from."""
    tables = {city: Counter(words(r["text"])[position] for r in rows if r["label"] == city) for city in CITIES}
    return sum((tables[CITIES[0]] | tables[CITIES[1]]).values()) / len(rows)


@pytest.fixture(params=SETS)
def rows(request: pytest.FixtureRequest) -> list[Row]:
    return read_rows(request.param)


def test_each_set_has_25_topics_with_one_sentence_for_each_city(rows: list[Row]) -> None:
    assert len(rows) == 50
    topics = Counter((row["topic"], row["label"]) for row in rows)
    assert set(topics.values()) == {1}
    assert {label for _, label in topics} == set(CITIES)
    assert len({topic for topic, _ in topics}) == 25


def test_texts_are_unique_clean_and_plain(rows: list[Row]) -> None:
    texts = [row["text"] for row in rows]
    assert len({" ".join(words(text.lower())) for text in texts}) == len(texts)
    for text in texts:
        assert text.isascii() and text.isprintable()
        assert text == text.strip() and "  " not in text


def test_no_text_is_in_both_sets() -> None:
    complete, incomplete = ({row["text"] for row in read_rows(name)} for name in SETS)
    assert not complete & incomplete


def test_complete_sentences_end_in_a_period_after_a_word() -> None:
    rows = read_rows("complete")
    assert {tuple(sorted(row)) for row in rows} == {("label", "text", "topic")}
    for row in rows:
        # A digit or a bracket before the period could give another last token.
        assert re.search(r"[a-z]\.$", row["text"]), row


def test_complete_sentences_name_their_own_city_equally_often_and_never_the_other() -> None:
    rows = read_rows("complete")
    named = Counter(row["label"] for row in rows if row["label"] in row["text"])
    assert named[CITIES[0]] == named[CITIES[1]] < 25
    for row in rows:
        assert set(NAMES.findall(row["text"])) <= {row["label"]}, row
        assert not NAMES.match(words(row["text"])[-1]), row


def test_incomplete_texts_stop_before_the_name_and_never_say_it() -> None:
    rows = read_rows("incomplete")
    assert {tuple(sorted(row)) for row in rows} == {("expected_next", "label", "text", "topic")}
    for row in rows:
        assert not NAMES.search(row["text"]), row
        assert re.search(r"[a-z]$", row["text"]), row
        assert row["expected_next"] == " " + row["label"]


def test_last_words_are_the_same_for_both_cities(rows: list[Row]) -> None:
    last = {city: Counter(words(row["text"])[-1] for row in rows if row["label"] == city) for city in CITIES}
    assert last[CITIES[0]] == last[CITIES[1]]
    assert len(last[CITIES[0]]) > 10
    assert best_word_lookup(rows, -1) == 0.5


@pytest.mark.parametrize("pattern", [r"^\W*[\w'-]+", r"[\w'-]+\W*$"], ids=["first", "last"])
def test_first_or_last_word_does_not_give_the_label_away(rows: list[Row], pattern: str) -> None:
    assert right_by_words(rows, token_pattern=pattern, lowercase=False) <= MOST_RIGHT_BY_CHANCE


@pytest.mark.parametrize(
    "measure",
    [len, lambda text: len(words(text)), lambda text: len(text) / len(words(text)), lambda text: text.count(",")],
    ids=["characters", "words", "word-length", "commas"],
)
def test_length_does_not_give_the_label_away(rows: list[Row], measure: Callable[[str], float]) -> None:
    right, area = right_by_number(measure, rows)
    assert right <= MOST_RIGHT_BY_CHANCE
    assert 0.4 <= area <= 0.6


def test_lengths_vary(rows: list[Row]) -> None:
    for city in CITIES:
        counts = [len(words(row["text"])) for row in rows if row["label"] == city]
        assert min(counts) <= 10 and max(counts) >= 20 and len(set(counts)) >= 8


@pytest.mark.parametrize(
    "options",
    [{"vocabulary": sorted(ENGLISH_STOP_WORDS)}, {}, {"ngram_range": (1, 2)}],
    ids=["function-words", "words", "word-pairs"],
)
def test_words_do_not_give_the_label_away(rows: list[Row], options: dict[str, Any]) -> None:
    assert right_by_words(rows, **options) <= MOST_RIGHT_BY_CHANCE


def test_no_word_but_the_name_belongs_to_one_city(rows: list[Row]) -> None:
    seen = {
        city: Counter(w for row in rows if row["label"] == city for w in set(words(row["text"].lower())))
        for city in CITIES
    }
    lopsided = {w for one, other in (CITIES, CITIES[::-1]) for w, n in seen[one].items() if n - seen[other][w] > 3}
    assert lopsided <= {city.lower() for city in CITIES}


def planted(rows: list[Row], cue: Callable[[str], str]) -> list[Row]:
    return [row | {"text": cue(row["text"])} if row["label"] == CITIES[0] else row for row in rows]


def test_the_checks_find_planted_cues() -> None:
    rows = read_rows("incomplete")
    longer = planted(rows, lambda text: "As most of its own people would be glad to tell you, " + text)
    assert right_by_number(len, longer)[0] > MOST_RIGHT_BY_CHANCE
    assert right_by_words(longer, vocabulary=sorted(ENGLISH_STOP_WORDS)) > MOST_RIGHT_BY_CHANCE
    ending = planted(rows, lambda text: text + " beautiful")
    assert best_word_lookup(ending, -1) == 1.0
    assert right_by_words(ending, token_pattern=r"[\w'-]+\W*$") > MOST_RIGHT_BY_CHANCE


def test_names_are_one_token_and_sentences_share_their_last_token_in_the_demo_tokenizer() -> None:
    file = cache_dir() / "models" / "smollm2-135m-instruct" / "tokenizer.json"
    if not file.exists():
        pytest.skip("the demo model is not in the cache: run `make demo` or `drillcore demo-model`")
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(file))
    for row in read_rows("incomplete"):
        whole, before, name = (
            tokenizer.encode(text, add_special_tokens=False).ids
            for text in (row["text"] + row["expected_next"], row["text"], row["expected_next"])
        )
        assert len(name) == 1
        assert whole == before + name
    complete = read_rows("complete")
    assert len({tokenizer.encode(row["text"], add_special_tokens=False).ids[-1] for row in complete}) == 1
    for rows in (complete, read_rows("incomplete")):
        _, area = right_by_number(lambda text: len(tokenizer.encode(text).ids), rows)
        assert 0.4 <= area <= 0.6


@pytest.mark.parametrize(
    ("stem", "models"),
    [
        (
            "toronto-montreal",
            [
                "HuggingFaceTB/SmolLM-135M",
                "HuggingFaceTB/SmolLM-1.7B",
                "HuggingFaceTB/SmolLM2-1.7B",
                "meta-llama/Llama-3.2-1B",
                "meta-llama/Llama-3.2-3B",
            ],
        ),
        ("demo", ["demo/smollm2-135m-instruct", "random-weights"]),
    ],
)
def test_job_file_holds(stem: str, models: list[str]) -> None:
    source = (JOBS / f"{stem}.yaml").read_text(encoding="utf-8")
    assert source.startswith("# yaml-language-server: $schema=../schemas/job.schema.json\n")
    job = Job.model_validate(yaml.safe_load(source))
    assert (job.name, job.store) == (stem, f"../runs/{stem}.zarr")
    assert [model.as_ or model.id for model in job.models] == models
    assert [dataset.name for dataset in job.datasets if dataset.name != "complete-no-period"] == list(SETS)
    for dataset in job.datasets:
        rows = [json.loads(line) for line in (JOBS / dataset.path).read_text(encoding="utf-8").splitlines()]
        assert all(row.keys() >= set(fields_named(dataset)) for row in rows)
        assert dataset.expected_next == ("expected_next" if dataset.name == "incomplete" else None)
