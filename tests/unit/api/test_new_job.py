"""`drillcore init`: the job that is made of a file of texts, and what is refused with nothing written."""

from __future__ import annotations

import gzip
import json
import random
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml

from drillcore import open as open_store
from drillcore import run
from drillcore.api.new_job import OPTIONS, new_job
from drillcore.errors import DrillcoreError, JobError, ModelError, TextError
from drillcore.job.file import load_job
from drillcore.runtime.rows import read_tables
from drillcore.system.progress import Silent

WORDS = ("capital", "river", "city", "near", "north", "old", "where", "lies", "port")


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """A working directory and a cache of the test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def sentence(i):
    return f"{' '.join(random.Random(i).choices(WORDS, k=6))} {i}"


def csv(path, header, *columns, count=20, encoding="utf-8"):
    rows = [[str(column(i)) for column in columns] for i in range(count)]
    lines = [",".join(f'"{cell}"' if "," in cell else cell for cell in row) for row in [header, *rows]]
    path.write_text("\n".join(lines) + "\n", encoding=encoding)
    return path


def jsonl(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def made(*files, models=(), out=None, **options):
    """The job that is written, loaded, and its only dataset or all of them."""
    job = new_job(files, models, out, Silent(), **options)
    assert not job.path.exists() or options.get("force")
    job.write()
    loaded = load_job(job.path)
    assert read_tables(loaded, Silent())
    # What stands there as a comment is valid too.
    assert load_uncommented(job.path).job.datasets == loaded.job.datasets
    return loaded, loaded.job.datasets[0]


def load_uncommented(path):
    """The job with the optional settings at its end, which have the defaults, in force."""
    text = path.read_text(encoding="utf-8")
    head, mark, options = text.partition("# What else a job may say")
    assert mark and len(options.splitlines()) == len(OPTIONS.strip().splitlines())
    file = path.with_name("options-" + path.name)
    try:
        file.write_text(head + "#" + re.sub("(?m)^# ", "", options), encoding="utf-8")
        return load_job(file)
    finally:
        file.unlink()


def test_the_columns_are_found_by_their_names(here):
    csv(here / "a.csv", ["id", "Review", "target", "author"], int, sentence, lambda i: "np"[i % 2],
        lambda i: "abc"[i % 3])  # fmt: skip
    loaded, dataset = made(here / "a.csv")
    assert (dataset.name, dataset.path, dataset.text, dataset.label) == ("a", "a.csv", "Review", "target")
    assert dataset.keep == ("id",) and dataset.group is None and dataset.unlabelled == "error"
    assert [m.id for m in loaded.job.models] == ["demo/smollm2-135m-instruct"]
    text = (here / "a.yaml").read_text()
    assert "# group: author" in text and "n (10), p (10)" in text


def test_the_columns_are_found_by_their_values(here):
    csv(here / "a.csv", ["when", "short", "long", "kind", "number"], lambda i: f"d{i}", lambda i: f"s {i}", sentence,
        lambda i: "xyz"[i % 3], lambda i: i / 3)  # fmt: skip
    job = new_job([here / "a.csv"], (), None, Silent())
    dataset = made(here / "a.csv")[1]
    assert (dataset.text, dataset.label) == ("long", "kind")
    assert sum("a guess" in line for line in job.reasons) == 2


def test_what_else_could_be_the_label_is_said(here):
    """A column of numbers with gaps was left out without a word where its name cannot be that of a kept column."""
    csv(here / "a.csv", ["text", "Stars (0/1)", "size"], sentence, lambda i: "" if i % 9 == 4 else i % 2,
        lambda i: "sl"[i % 2])  # fmt: skip
    job = new_job([here / "a.csv"], (), None, Silent())
    assert made(here / "a.csv")[1].label == "size"
    assert any("perhaps rather `Stars (0/1)`" in line for line in job.reasons)
    assert "    # label: Stars (0/1) # in place of the label above" in (here / "a.yaml").read_text()


def test_a_column_of_different_values_is_no_label(here):
    csv(here / "a.csv", ["text", "label"], sentence, lambda i: f"name {i}", count=200)
    assert made(here / "a.csv")[1].label is None


def test_a_guess_holds_for_all_rows(here, monkeypatch):
    """The beginning of a file has two kinds, its rest one of each."""
    monkeypatch.setattr("drillcore.texts.guess.MOST_CELLS", 40)
    csv(here / "a.csv", ["text", "kind"], sentence, lambda i: "ab"[i % 2] if i < 30 else f"k{i}", count=60)
    assert made(here / "a.csv")[1].label == "auto"


@pytest.mark.parametrize("name", ["yes", "on", "1", "null", "a: b", "it's", "a #b", "[x]", "é, ü", "- d", "~", "1.5"])
def test_names_that_yaml_reads_otherwise(name, here):
    csv(here / "a.csv", [name, "no"], sentence, lambda i: "ab"[i % 2])
    _, dataset = made(here / "a.csv")
    assert (dataset.text, dataset.label) == (name, "no")
    csv(here / "b.csv", ["text", name], sentence, lambda i: "ab"[i % 2])
    assert made(here / "b.csv")[1].label == name


@pytest.mark.parametrize(
    "name", ["yes.csv", "my texts (2).csv", "2024.csv", "Käufe.csv", "文.csv", "~x.csv", "a'b.csv"]
)
def test_odd_names_of_files(name, here):
    csv(here / name, ["text", "label"], sentence, lambda i: "ab"[i % 2])
    loaded, dataset = made(here / name)
    assert loaded.paths(dataset)[0] == here / name
    assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._+=@-]*", dataset.name)


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_labels_with_fractions_are_numbers(kind, here):
    if kind == "csv":
        csv(here / "a.csv", ["text", "year", "target"], sentence, lambda i: i, lambda i: "" if i == 3 else i / 8)
    else:
        rows = [{"text": sentence(i), "year": i, "target": None if i == 3 else i / 8} for i in range(20)]
        jsonl(here / "a.jsonl", rows)
    _, dataset = made(here / f"a.{kind}")
    assert (dataset.label, dataset.label_type, dataset.unlabelled) == ("target", "number", "keep")
    assert "0 to 2.375, for which a regression is measured" in (here / "a.yaml").read_text()


def test_labels_that_pandas_wrote_as_fractions(here):
    csv(here / "a.csv", ["text", "label"], sentence, lambda i: f"{i % 2}.0")
    _, dataset = made(Path("a.csv"))
    assert dataset.label == "label"


def test_rows_without_a_label_are_kept(here):
    rows = [{"text": sentence(i), "label": "ab"[i % 2]} for i in range(20)]
    rows[3]["label"], rows[5]["label"], rows[7]["label"] = None, "", "NaN"
    del rows[9]["label"]
    jsonl(here / "a.jsonl", rows)
    job = new_job([here / "a.jsonl"], (), None, Silent())
    _, dataset = made(here / "a.jsonl")
    assert (dataset.unlabelled, dataset.missing) == ("keep", ("NaN",))
    assert any("4 rows without a label, `NaN` among them" in line for line in job.reasons)


def test_none_may_be_a_label(here):
    csv(here / "a.csv", ["text", "stance"], sentence, lambda i: ("for", "against", "none")[i % 3])
    assert made(here / "a.csv")[1].missing == ()


def test_repeated_texts_are_counted(here):
    (here / "a.txt").write_text("one\ntwo\none\none\n")
    assert any("2 rows with a text that stands in the file before" in r for r in new_job(
        [here / "a.txt"], (), None, Silent()).reasons)  # fmt: skip


def test_conversations(here):
    talk = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Yes?"}]
    jsonl(here / "a.jsonl", [{"prompt": "Hello", "messages": talk, "kind": "ab"[i % 2]} for i in range(8)])
    dataset = made(here / "a.jsonl")[1]
    assert (dataset.messages, dataset.label) == ("messages", "kind")
    csv(here / "b.csv", ["id", "chat"], int, lambda i: "x")
    (here / "b.csv").write_text('id,chat\n1,"[{""role"": ""user"", ""content"": ""Hi""}]"\n')
    assert made(here / "b.csv")[1].messages == "chat"


def test_what_is_expected_next(here):
    jsonl(here / "a.jsonl", [{"text": sentence(i), "expected_next": " Toronto"} for i in range(8)])
    assert made(here / "a.jsonl")[1].expected_next == "expected_next"


def test_parquet_and_compressed_files(here):
    frame = pd.DataFrame({"content": [sentence(i) for i in range(30)], "target": [1.0, 2.0, None] * 10})
    frame["day"] = pd.Timestamp("2020-01-01")
    frame.to_parquet(here / "a.parquet")
    _, dataset = made(here / "a.parquet")
    assert (dataset.text, dataset.label, dataset.unlabelled) == ("content", "target", "keep")
    (here / "b.txt.gz").write_bytes(gzip.compress(b"one sentence\nanother\n"))
    assert made(here / "b.txt.gz")[0].source == "b.yaml"


def test_thousands_of_columns(here):
    names = [f"c{i}" for i in range(3000)]
    csv(here / "a.csv", [*names, "note"], *[lambda i, j=j: i * j % 97 for j in range(3000)], sentence, count=150)
    assert made(here / "a.csv")[1].text == "note"
    assert (here / "a.yaml").stat().st_size < 4000


def test_a_byte_order_mark_and_one_column(here):
    csv(here / "a.csv", ["stuff"], sentence, encoding="utf-8-sig")
    assert made(here / "a.csv")[1].text == "stuff"


def test_several_files_and_models(here, models):
    for folder in ("x", "y"):
        (here / folder).mkdir()
        csv(here / folder / "a.csv", ["text", "label"], sentence, lambda i: "ab"[i % 2])
    for folder in ("x/m", "y/m"):
        (here / folder).mkdir()
        (here / folder / "config.json").write_text("{}")
    given = ["some/model", "x/m", str(here / "y" / "m"), "some/model", str(models())]
    loaded, _ = made(Path("x/a.csv"), Path("y/a.csv"), models=given, out=here / "jobs" / "j.yaml")
    assert [(d.name, d.path) for d in loaded.job.datasets] == [("a", "../x/a.csv"), ("a-2", "../y/a.csv")]
    assert [m.id for m in loaded.job.models] == ["some/model", "../x/m", str(here / "y" / "m"), str(models())]
    assert [m.group for m in loaded.job.models][1:3] == ["m", "m-2"]
    assert made(here / "x" / "a.csv", models=["x/m"])[0].job.models[0].id == "./x/m"


WRONG = {
    "commas in tabs' place": ("a.tsv", "text,label\nHello,a\nThere,b\n", "separated by commas"),
    "no header": ("a.csv", "\n".join(f"{sentence(i)},{'ab'[i % 2]}" for i in range(9)), "looks like a row"),
    "sentences alone": ("a.csv", "\n".join(f"{sentence(i)}." for i in range(9)), "looks like a row"),
    "empty": ("a.csv", "", "holds no sentence"),
    "header alone": ("a.csv", "text,label\n", "holds no sentence"),
    "numbers": ("a.csv", "a,b\n1,2\n3,4\n", "no column holds text"),
    "an empty text": ("a.csv", "text,label\nx,a\n,b\n", "a.csv:3: field `text` is empty"),
    "another encoding": ("a.csv", b"text,label\ncaf\xe9,a\n", "is not UTF-8"),
    "two of a name": ("a.csv", "text,text\na,b\n", "names `text` twice"),
    "a row too long": ("a.csv", "text,label\na,b\na,b,c\n", "has 3 fields where the header has 2"),
    "an array": ("a.jsonl", '[{"text": "a"}]', "but an array"),
    "lists": ("a.jsonl", '{"text": ["a"]}\n', "no column holds text"),
    "another kind": ("a.xlsx", "x", "files of this kind are not read"),
    "damaged": ("a.parquet", "PAR1", "is not a parquet file"),
}


@pytest.mark.parametrize(("sign", "written"), [(";", ";"), ("\t", "tab"), ("|", "|")])
def test_what_separates_the_fields_is_found_and_named(sign, written, here):
    rows = [("text", "label"), ("Hello, you", "a"), ("There", "b"), ("Yes, no", "a")]
    (here / "a.csv").write_text("\n".join(map(sign.join, rows)) + "\n")
    loaded, _ = made(Path("a.csv"))
    (dataset,) = loaded.job.datasets
    assert (dataset.delimiter, dataset.text, dataset.label) == (written, "text", "label")


@pytest.mark.parametrize("what", WRONG)
def test_what_is_wrong_is_one_error_and_nothing_is_written(what, here):
    name, content, said = WRONG[what]
    (here / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(TextError, match=re.escape(said)) as refused:
        new_job([here / name], (), None, Silent())
    assert refused.value.exit_status == 2 and refused.value.hint
    assert [p.name for p in here.iterdir()] == [name]


def test_the_job_runs(here, models):
    """Labels, a guess at them, and conversations, with the settings that the command leaves to their defaults."""
    rows = [{"text": sentence(i), "label": "ab"[i % 2], "id": i} for i in range(12)]
    rows[4]["label"] = None
    jsonl(here / "a.jsonl", rows)
    csv(here / "b.csv", ["yes"], sentence, count=6)
    done = drillcore("init", "a.jsonl", "b.csv", "--model", str(models()), "--out", "j.yaml", cwd=here)
    assert done.returncode == 0, done.stderr
    assert "next: drillcore plan j.yaml, then drillcore run j.yaml" in done.stdout
    faster = ["project.method=pca", "measure.permutations=9"]
    tree = open_store(run("j.yaml", set=faster))
    model = models().name
    assert tree[f"{model}/a"].sizes["sentence"] == 12 and tree[f"{model}/b"].sizes["sentence"] == 6
    assert tree[f"{model}/a"]["id"].values.tolist() == list(range(12))
    again = drillcore("init", "a.jsonl", "--out", "j.yaml", cwd=here)
    assert again.returncode == 2 and "--force" in again.stderr


def drillcore(*arguments, cwd):
    return subprocess.run(
        [sys.executable, "-m", "drillcore", *arguments], cwd=cwd, capture_output=True, text=True, check=False
    )


def test_no_file_is_overwritten_unasked(here):
    csv(here / "a.csv", ["text"], sentence)
    (here / "a.yaml").write_text("mine")
    with pytest.raises(JobError, match="is there already") as refused:
        new_job([here / "a.csv"], (), None, Silent())
    assert "--force" in refused.value.hint and (here / "a.yaml").read_text() == "mine"
    assert made(here / "a.csv", force=True)[1].text == "text"
    for out in (here / "a.csv", here):
        with pytest.raises(JobError, match="cannot be the job file"):
            new_job([here / "a.csv"], (), out, Silent(), force=True)


@pytest.mark.parametrize("model", ["./nothing", "demo/other", "", "x" * 300])
def test_a_model_that_cannot_be_is_refused(model, here):
    csv(here / "a.csv", ["text"], sentence)
    with pytest.raises(ModelError):
        new_job([here / "a.csv"], [model], None, Silent())


def test_any_table_gives_a_job_that_runs_or_one_error(here, seed):
    """Random columns of random names and values."""
    draw = random.Random(seed)
    names = ["text", "label", "yes", "", " ", "id", "a\tb", "é", "x" * 300, "auto", "keep", "a/b", "n_tokens", "None"]
    values = [
        *(lambda: None, lambda: "", lambda: [], lambda: {"a": 1}, lambda: True),
        *(lambda: draw.random(), lambda: draw.randint(0, 2), lambda: draw.choice(["a", "NA", "b"])),
        lambda: sentence(draw.random()),
    ]
    jobs = 0
    for number in range(150):
        chosen = {
            name: draw.sample(values, draw.choice([1, 1, 1, 2])) for name in draw.sample(names, draw.randint(1, 5))
        }
        rows = [{name: draw.choice(of)() for name, of in chosen.items()} for _ in range(draw.randint(1, 12))]
        path = jsonl(here / f"t{number}.jsonl", rows)
        try:
            made(path)
            jobs += 1
        except DrillcoreError as error:
            assert error.exit_status == 2 and not (here / f"t{number}.yaml").exists(), (rows, str(error))
    assert jobs > 20


def test_the_yaml_is_plain(here):
    csv(here / "a.csv", ["text", "label"], sentence, lambda i: "ab"[i % 2])
    made(here / "a.csv")
    assert yaml.safe_load((here / "a.yaml").read_text()) == {
        "models": ["demo/smollm2-135m-instruct"],
        "datasets": {"a": {"path": "a.csv", "text": "text", "label": "label"}},
    }
