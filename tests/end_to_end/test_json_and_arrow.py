"""JSON arrays, Arrow files and folders of `save_to_disk`: from job file to opened store, and what is refused."""

from __future__ import annotations

import json
import tracemalloc

import pyarrow as pa
import pyarrow.feather
import pytest

import drillcore
from conftest import require
from drillcore.job.inputs import Dataset
from drillcore.texts.problems import Problems
from drillcore.texts.read import read_batches
from support.runs import snapshot

pytest_plugins = ["support.run_fixtures"]
ROWS = [{"text": f"größe {n} ✓", "label": "ab"[n % 2], "year": 2000 + n} for n in range(20)]


def saved(folder, tables) -> None:
    """A folder as save_to_disk of datasets writes it: streams of Arrow, and the order of its files."""
    folder.mkdir(parents=True)
    names = [f"data-{n:05d}-of-{len(tables):05d}.arrow" for n in range(len(tables))]
    for name, table in zip(names, tables, strict=True):
        with pa.ipc.new_stream(folder / name, table.schema) as writer:
            writer.write_table(table)
    state = {"_data_files": [{"filename": name} for name in names], "_split": "train"}
    (folder / "state.json").write_text(json.dumps(state), encoding="utf-8")
    (folder / "dataset_info.json").write_text("{}", encoding="utf-8")


@pytest.fixture
def work(new_work):
    work = new_work()
    table = pa.Table.from_pylist(ROWS)
    (work.folder / "a.json").write_text(json.dumps(ROWS), encoding="utf-8")
    (work.folder / "indented.json").write_text(json.dumps(ROWS, indent=2, ensure_ascii=False), encoding="utf-8-sig")
    pyarrow.feather.write_feather(table, work.folder / "a.feather", compression="lz4", chunksize=3)
    with pa.ipc.new_file(work.folder / "a.arrow", table.schema) as writer:
        writer.write_table(table)
    saved(work.folder / "hub" / "train", [table.slice(0, 11), table.slice(11)])
    (work.folder / "hub" / "dataset_dict.json").write_text('{"splits": ["train"]}', encoding="utf-8")
    return work


@pytest.mark.parametrize("path", ["a.json", "indented.json", "a.arrow", "a.feather", "hub/train"])
def test_rows_come_to_the_store(work, path):
    work.job["datasets"] = [{"name": "d", "path": path, "keep": ["year"]}]
    work.save()
    work.finish()
    found = drillcore.open(work.store)["m/d"].to_dataset()
    assert found.text.values.tolist() == [row["text"] for row in ROWS]
    assert found.label.values.tolist() == [row["label"] for row in ROWS]
    assert found.year.values.tolist() == [row["year"] for row in ROWS]


REFUSED = {
    "lines": ("b.json", b'{"text": "a"}\n{"text": "b"}\n', "holds no array: one array of objects is wanted"),
    "lines, and what to do": ("b.json", b'{"text": "a"}\n{"text": "b"}\n', "end its name in .jsonl"),
    "no object": ("b.json", b'[{"text": "a"}, 5]', "b.json:2: is not a JSON object but a number"),
    "cut": ("b.json", b'[{"text": "a"}, {"text": "b"', "b.json:2: is not JSON"),
    "no end": ("b.json", b'[{"text": "a"}', "b.json:1: is followed by neither a comma nor the closing bracket"),
    "more": ("b.json", b'[{"text": "a"}] 7', "more follows the array"),
    "twice": ("b.json", b'[{"text": "a", "text": "b"}]', "b.json:1: names the field `text` twice"),
    "an empty text": ("b.json", b'[{"text": "a"}, {"text": ""}]', "b.json:2: field `text` is empty"),
    "no Arrow": ("b.arrow", b"text,label\na,b\n", "b.arrow: is not a arrow file, or is damaged"),
    "a spreadsheet": ("b.xlsx", b"PK", 'pandas.read_excel("b.xlsx").to_parquet("b.parquet")'),
    "a pickle": ("b.pkl", b"", 'pandas.DataFrame(pandas.read_pickle("b.pkl")).to_parquet("b.parquet")'),
    "an array": ("b.npy", b"", 'pandas.DataFrame({"text": numpy.load("b.npy")}).to_parquet("b.parquet")'),
    "a tensor": ("b.pt", b"", 'pandas.DataFrame(torch.load("b.pt")).to_parquet("b.parquet")'),
    "several splits": ("hub", None, "hub holds several splits: train"),
    "a split to name": ("hub", None, "such as hub/train"),
    "a folder of another kind": (".", None, "is a directory, not a file"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_it_is_refused_in_one_message(work, case):
    name, content, message = REFUSED[case]
    if content is not None:
        (work.folder / name).write_bytes(content)
    work.job["datasets"] = [{"name": "d", "path": name}]
    work.save()
    before = snapshot(work.folder)
    command = work.run()
    assert command.status == 2 and message in command.err and "Traceback" not in command.err, command.err
    assert snapshot(work.folder) == before


def test_a_large_array_is_not_held_as_a_whole(tmp_path):
    path, num_rows = tmp_path / "large.json", 100_000
    path.write_text(json.dumps([{"text": f"{n} " + "x" * 200} for n in range(num_rows)]), encoding="utf-8")
    tracemalloc.start()
    counts = [batch.num_rows for batch in read_batches(path, Dataset(name="d", path="large.json"), Problems())]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert sum(counts) == num_rows and peak < path.stat().st_size


@pytest.mark.parametrize("name", ["a.json", "a.arrow"])
def test_init_makes_a_job_of_it(work, name):
    command = work.forge.run("init", name, "--out", "made.yaml", cwd=work.folder)
    assert command.status == 0, command.err
    made = (work.folder / "made.yaml").read_text(encoding="utf-8")
    assert f"path: {name}" in made and "label: label" in made


def test_folders_that_datasets_itself_wrote_are_read(new_work):
    """A Dataset in several shards, and a split of a DatasetDict; class labels are their numbers."""
    try:
        import datasets
    except ImportError:
        require("datasets", "datasets is not installed")
    work = new_work()
    features = {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["bad", "good"])}
    features["year"] = datasets.Value("int32")
    rows = [{**row, "label": "ab".index(row["label"])} for row in ROWS]
    made = datasets.Dataset.from_list(rows, features=datasets.Features(features))
    made.save_to_disk(work.folder / "sharded", num_shards=3)
    splits = datasets.DatasetDict({"train": made, "test": made.select(range(5))})
    splits.save_to_disk(work.folder / "splits", num_shards={"train": 2, "test": 1})
    # What it reads again is what is stored, of rows that are chosen and in another order too.
    made.shuffle(seed=1).select(range(7)).save_to_disk(work.folder / "chosen")
    assert len(list((work.folder / "sharded").glob("*.arrow"))) == 3
    for path in ("sharded", "splits/train", "splits/test", "chosen"):
        wanted = datasets.load_from_disk(work.folder / path).to_dict()
        work.job["datasets"] = [{"name": "d", "path": path, "keep": ["year"]}]
        work.save()
        work.finish("--overwrite")
        found = drillcore.open(work.store)["m/d"].to_dataset()
        assert found.text.values.tolist() == wanted["text"] and found.year.values.tolist() == wanted["year"]
        assert found.label.values.tolist() == list(map(str, wanted["label"]))
    work.job["datasets"] = [{"name": "d", "path": "splits"}]
    work.save()
    refused = work.run("--overwrite")
    assert refused.status == 2 and "splits holds several splits: test, train" in refused.err
