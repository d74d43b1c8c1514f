"""Texts that are data sets of the Hugging Face hub, read by the real `datasets`: from job file to opened store."""

from __future__ import annotations

import io
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import drillcore
from conftest import require
from support.commands import Forge
from support.hub_server import TOKEN, Repo, hub_server
from support.runs import snapshot

pytest_plugins = ["support.run_fixtures"]
ROWS = [{"text": f"größe {n} ✓", "label": n % 2, "year": 2000 + n, "extra": [0.5] * 50} for n in range(40)]
OFFLINE = "import huggingface_hub.constants as c; c.HF_HUB_OFFLINE = True"
# `datasets` tries again for minutes where a connection breaks.
IMPATIENT = """
import datasets.config as c
c.STREAMING_READ_MAX_RETRIES = c.STREAMING_OPEN_MAX_RETRIES = 1
c.STREAMING_READ_RETRY_INTERVAL = c.STREAMING_OPEN_RETRY_INTERVAL = 0
import time
time.sleep = lambda seconds: None
"""
CARD = """\
---
configs:
- config_name: {0}
  data_files: [{{split: train, path: "{0}/train.jsonl"}}]
- config_name: {1}
  data_files: [{{split: train, path: "{1}/train.jsonl"}}]
---
"""


@pytest.fixture(scope="session")
def hub():
    with hub_server() as running:
        yield running


@pytest.fixture(scope="session")
def hub_forge(models, tmp_path_factory, hub):
    """Starts commands that know this hub and no other."""
    try:
        import datasets  # noqa: F401
    except ImportError:
        require("datasets", "datasets is not installed")
    folder = tmp_path_factory.mktemp("commands")
    env = {"HF_ENDPOINT": hub.endpoint, "HF_TOKEN": TOKEN, "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1"}
    made = Forge(models(), folder, {**env, "HF_HOME": str(folder / "hub"), "XDG_CACHE_HOME": str(folder / "cache")})
    yield made
    made.close()


@pytest.fixture
def work(new_work, hub, hub_forge):
    hub.repos.clear()
    hub.asked.clear()
    hub.failing, hub.dies_after = 0, None
    made = new_work()
    made.forge = hub_forge
    return made


def parquet(rows, **settings) -> bytes:
    written = io.BytesIO()
    pq.write_table(rows if isinstance(rows, pa.Table) else pa.Table.from_pylist(rows), written, **settings)
    return written.getvalue()


def lines(rows) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def texts(hub, name, files) -> Repo:
    repo = hub.repos[name] = Repo(private=False)
    repo.commit(files)
    return repo


def in_parts(rows=ROWS) -> dict[str, bytes]:
    """A split in two files, and another one."""
    return {
        "data/train-00000-of-00002.parquet": parquet(rows[:25], row_group_size=5),
        "data/train-00001-of-00002.parquet": parquet(rows[25:]),
        "data/test-00000-of-00001.parquet": parquet(rows[:3]),
    }


def asking_for(work, path, **more):
    work.job["datasets"] = [{"name": "d", "path": path, **more}]
    work.save()
    return work


def opened(work, path, **more):
    asking_for(work, path, **more).finish("--overwrite")
    return drillcore.open(work.store)["m/d"].to_dataset()


def test_a_split_comes_to_the_store_at_one_commit_and_is_streamed_once(work, hub):
    repo = texts(hub, "me/parts", in_parts())
    found = opened(work, "hf://datasets/me/parts/train", keep=["year"])
    assert found.text.values.tolist() == [row["text"] for row in ROWS]
    assert found.label.values.tolist() == [str(row["label"]) for row in ROWS]
    assert found.year.values.tolist() == [row["year"] for row in ROWS]
    assert work.manifest["datasets"] == {"d": {"commit": repo.head}}
    asked = [path for _, path, _ in hub.asked if "/resolve/" in path]
    assert all(f"/{repo.head}/" in path for path in asked)
    # Again: which commit it is, and nothing else.
    hub.asked.clear()
    there = work.committed()
    again = work.finish()
    assert f"d: hf://datasets/me/parts/train at commit {repo.head}" in again.err
    assert {path for _, path, _ in hub.asked} - {"/api/agent-harnesses"} == {"/api/datasets/me/parts/revision/main"}
    assert work.committed() == there
    # With its commit in the job the hub is not asked at all.
    hub.asked.clear()
    asking_for(work, "hf://datasets/me/parts/train", keep=["year"], revision=repo.head).finish()
    assert not [path for _, path, _ in hub.asked if "me/parts" in path] and work.committed() == there


def test_a_branch_that_moves_is_taken_anew_and_what_is_equal_is_kept(work, hub):
    repo = texts(hub, "me/moves", in_parts())
    opened(work, "hf://datasets/me/moves/train")
    first = repo.head
    repo.commit(in_parts([*ROWS[:-1], {**ROWS[-1], "text": "another"}]))
    repo.names["v1"] = first
    assert work.finish("--overwrite").status == 0
    assert work.manifest["datasets"]["d"]["commit"] == repo.head != first
    assert 0 < work.extracted() < len(ROWS)
    assert opened(work, "hf://datasets/me/moves/train", revision="v1").text.values.tolist()[-1] == ROWS[-1]["text"]
    assert work.manifest["datasets"]["d"]["commit"] == first


def test_a_limit_and_few_columns_are_all_that_is_fetched(work, hub):
    wide = [{"text": f"row {n}", "label": "ab"[n % 2], "extra": f"{n:08}" * 40_000} for n in range(80)]
    files = {"data/train-1.parquet": parquet(wide, row_group_size=10, use_dictionary=False, compression="none")}
    files["data/train-2.parquet"] = files["data/train-1.parquet"]
    texts(hub, "me/wide", files)

    def fetched(**more) -> int:
        hub.asked.clear()
        opened(work, "hf://datasets/me/wide/train", **more)
        return sum(int(b) - int(a) + 1 for _, _, part in hub.asked if part for a, b in [part[6:].split("-")])

    few, size = fetched(limit=7), len(files["data/train-1.parquet"])
    assert len(drillcore.open(work.store)["m/d"].to_dataset().text) == 7
    assert not [path for _, path, part in hub.asked if "train-2" in path and part]
    assert few < size / 2
    # Those without a label are not of the seven.
    half = [{**row, "label": row["label"] if n % 2 else None} for n, row in enumerate(wide)]
    texts(hub, "me/half", {"train.parquet": parquet(half)})
    found = opened(work, "hf://datasets/me/half/train", limit=7, unlabelled="drop")
    assert found.text.values.tolist() == [f"row {n}" for n in range(1, 15, 2)]


def test_class_labels_are_their_numbers_and_fields_lie_in_fields(work, hub):
    from datasets import ClassLabel, Dataset, Features, Value

    features = Features(
        {"text": Value("string"), "label": ClassLabel(names=["bad", "good"]), "meta": {"n": Value("int64")}}
    )
    rows = [{"text": f"row {n}", "label": n % 2, "meta": {"n": n}} for n in range(20)]
    written = io.BytesIO()
    Dataset.from_list(rows, features=features).to_parquet(written)
    texts(hub, "me/classes", {"train.parquet": written.getvalue()})
    found = opened(work, "hf://datasets/me/classes/train", keep=["meta.n"], limit=15)
    assert found.label.values.tolist() == [str(n % 2) for n in range(15)]
    assert found["meta.n"].values.tolist() == list(range(15))


def test_a_configuration_stands_before_the_split(work, hub):
    files = {f"{name}/train.jsonl": lines([{"text": f"{name} {n}"} for n in range(5)]) for name in ("one", "two")}
    texts(hub, "me/configs", {**files, "README.md": CARD.format("one", "two").encode()})
    found = opened(work, "hf://datasets/me/configs/two/train")
    assert found.text.values.tolist() == [f"two {n}" for n in range(5)] and "label" not in found


def test_lines_of_json_may_lack_a_label(work, hub):
    rows = [{"text": f"row {n}", **({"label": "x"} if n % 3 else {})} for n in range(9)]
    texts(hub, "me/lines", {"train.jsonl": lines(rows)})
    found = opened(work, "hf://datasets/me/lines/train", unlabelled="keep")
    assert found.label.values.tolist() == [row.get("label", "") for row in rows]


def test_offline_the_cache_is_enough_where_it_has_the_rows(work, hub):
    texts(hub, "me/offline", in_parts())
    asking_for(work, "hf://datasets/me/offline/train").finish()
    hub.asked.clear()
    there = work.committed()
    again = work.run(first=OFFLINE)
    assert again.status == 0 and not hub.asked and work.committed() == there
    assert "main is taken to be the commit that it was when last asked" in again.err
    before = snapshot(work.store)
    for path, said in {
        "me/offline/test": "and the cache does not have the rows",
        "me/new/train": "no earlier run asked",
    }.items():
        refused = asking_for(work, f"hf://datasets/{path}").run(first=OFFLINE)
        assert refused.status == 2 and said in refused.err and "nset HF_HUB_OFFLINE" in refused.err
        assert not hub.asked
    assert snapshot(work.store) == before


def test_a_hub_that_dies_in_the_middle_leaves_nothing_and_the_next_run_reads_it(work, hub):
    texts(hub, "me/dies", in_parts())
    asking_for(work, "hf://datasets/me/dies/train")
    before, hub.dies_after = snapshot(work.folder), 2
    died = work.run(first=IMPATIENT)
    assert died.status == 2 and "the data set me/dies" in died.err and "Traceback" not in died.err, died.err
    assert died.err.count("drillcore: ") == 1
    assert snapshot(work.folder) == before
    hub.dies_after = None
    assert opened(work, "hf://datasets/me/dies/train").text.values.tolist() == [row["text"] for row in ROWS]


REFUSED = {
    "no data set": ("me/nothing/train", {}, "the hub has no data set me/nothing that you may read"),
    "a private one": ("me/private/train", {}, "the hub has no data set me/private that you may read"),
    "gated": ("me/gated/train", {}, "the data set me/gated is gated"),
    "gated files": ("me/files/train", {}, "the data set me/files is gated"),
    "no split": ("me/parts/dev", {}, "the data set me/parts has no split dev; it has train, test"),
    "no split, a remedy": ("me/parts/dev", {}, "hf://datasets/me/parts/train"),
    "no configuration": ("me/configs/x/train", {}, "has no configuration x; it has one, two"),
    "several": ("me/configs/train", {}, "has several configurations; it has one, two"),
    "several, a remedy": ("me/configs/train", {}, "hf://datasets/me/configs/one/train"),
    "no revision": ("me/parts/train", {"revision": "v9"}, "the data set me/parts has no revision v9"),
    "no commit": ("me/parts/train", {"revision": "0" * 40}, f"has no revision {'0' * 40}"),
    "a program": ("me/program/train", {}, "the data set me/program is a program (program.py)"),
    "nothing in it": ("me/empty/train", {}, "the data set me/empty has no files of rows"),
    "no rows": ("me/rows/train", {}, "hf://datasets/me/rows/train holds no row"),
    "no such column": ("me/parts/train", {"text": "body"}, "hf://datasets/me/parts/train: no field `body`"),
    "a wrong row": ("me/wrong/train", {}, "hf://datasets/me/wrong/train:3: field `text` is empty"),
    "a damaged file": ("me/damaged/train", {}, "hf://datasets/me/damaged/train: its rows cannot be read"),
    "columns that change": ("me/types/train", {"keep": ["n"]}, "types"),
    "no address": ("me/parts", {}, "names no split of a data set of the hub: write hf://datasets/ORG/NAME/SPLIT"),
    "a file": ("me/parts/data/train.parquet", {}, "names a file, not a split"),
    "a revision in the path": ("me/parts@v1/train", {}, "`revision:` names a branch, tag or commit"),
    "a delimiter": ("me/parts/train", {"delimiter": ";"}, "delimiter: is that of a .csv file"),
    "an encoding": ("me/parts/train", {"encoding": "cp1252"}, "encoding: is that of .csv"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_it_is_refused_in_one_message(work, hub, case):
    texts(hub, "me/parts", in_parts())
    texts(hub, "me/empty", {"README.md": b"nothing"})
    texts(hub, "me/program", {"program.py": b"import datasets"})
    texts(hub, "me/rows", {"train.parquet": parquet(pa.table({"text": pa.array([], pa.string())}))})
    texts(hub, "me/wrong", {"train.parquet": parquet([{"text": t} for t in ("a", "b", "", "d")])})
    texts(hub, "me/damaged", {"train.parquet": parquet(ROWS)[:-40] + b"x" * 40})
    typed = {"a/train-0.jsonl": [{"text": "a", "n": 1}] * 3, "a/train-1.jsonl": [{"text": "a", "n": {"x": 1}}] * 3}
    texts(hub, "me/types", {name: lines(rows) for name, rows in typed.items()})
    files = {f"{name}/train.jsonl": lines([{"text": name}]) for name in ("one", "two")}
    texts(hub, "me/configs", {**files, "README.md": CARD.format("one", "two").encode()})
    hub.repos["me/gated"] = Repo(private=False, gated=True)
    texts(hub, "me/files", in_parts()).gated_files = True
    texts(hub, "me/private", in_parts()).private = True
    path, more, message = REFUSED[case]
    asking_for(work, f"hf://datasets/{path}", **more)
    before = snapshot(work.folder)
    refused = work.run(env={"HF_TOKEN": "hf_of_someone_else"} if case == "a private one" else None)
    assert refused.status == 2 and message in refused.err, refused.err
    assert refused.err.count("drillcore: ") == 1 and "Traceback" not in refused.err, refused.err
    assert snapshot(work.folder) == before


def test_several_paths_and_a_revision_of_files_are_refused(work, hub):
    for dataset, said in (
        ({"path": ["d.jsonl", "hf://datasets/me/parts/train"]}, "one of them is on the hub"),
        ({"path": "d.jsonl", "revision": "main"}, "revision: is that of a data set of the hub"),
    ):
        work.job["datasets"] = [{"name": "d", **dataset}]
        work.save()
        refused = work.run()
        assert refused.status == 2 and said in refused.err and not hub.asked


def test_without_the_package_one_message_says_what_to_install(work, hub):
    texts(hub, "me/parts", in_parts())
    asking_for(work, "hf://datasets/me/parts/test")
    before = snapshot(work.folder)
    refused = work.run(first="import sys; sys.modules['datasets'] = None")
    assert refused.status == 2 and refused.err.count("drillcore: ") == 1
    assert (
        "needs datasets, which is not installed" in refused.err and "pip install 'drillcore[datasets]'" in refused.err
    )
    assert snapshot(work.folder) == before


def test_init_says_where_such_an_address_stands(work, hub):
    refused = work.forge.run("init", "hf://datasets/me/parts/train", cwd=work.folder)
    assert refused.status == 2 and "is on the hub, and init looks at files" in refused.err
    assert "datasets: hf://datasets/me/parts/train" in refused.err


def test_a_dataset_without_a_name_is_called_after_both(work, hub):
    texts(hub, "me/parts", in_parts())
    work.job["datasets"] = ["hf://datasets/me/parts/test"]
    work.save()
    work.finish()
    assert list(drillcore.open(work.store)["m"].children) == ["parts-test"]
