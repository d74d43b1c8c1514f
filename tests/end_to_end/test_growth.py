"""A job that grows, or changes with --overwrite, computes what that touches, and nothing else."""

from __future__ import annotations

import os
import random
import secrets

import numpy as np
import pytest
import zarr

from support.runs import BLOCK, assert_close, sentences

pytest_plugins = ["support.run_fixtures"]


@pytest.fixture(scope="module")
def texts_seed():
    found = int(os.environ.get("DRILLCORE_SEED", secrets.randbits(32)))
    print(f"DRILLCORE_SEED={found}")
    return found


@pytest.fixture
def work(new_work, texts_seed):
    """A job that has been run once: model m on dataset d, 100 sentences in 4 blocks of 7 shards."""
    made = new_work(seed=texts_seed, count=100)
    made.finish()
    assert len(made.committed()) == 7
    return made


def untouched(work, before, also=lambda key: True):
    now = work.committed()
    return all(now.get(key) == mark for key, mark in before.items() if also(key))


def column(work, name, group="m/d"):
    return [str(v) for v in zarr.open_group(work.store, path=group, mode="r")[name][:]]


def test_a_dataset_is_added(work, texts_seed):
    before = work.committed()
    work.texts("e", sentences(texts_seed + 1, 50))
    work.job["datasets"].append({"name": "e", "path": "e.jsonl"})
    work.save()
    work.finish()
    assert work.extracted() == 50
    assert untouched(work, before) and len(work.committed()) == 7 + 4


def test_a_model_is_added(work, models):
    before = work.committed()
    work.job["models"].insert(0, {"id": str(models("gpt2")), "as": "another"})
    work.save()
    done = work.finish()
    assert "m: all 100 sentences are up to date" in done.err
    assert work.extracted("another") == 100
    assert untouched(work, before) and len(work.committed()) == 14


def test_labels_change_and_states_stay(work, texts_seed):
    before = work.committed()
    rows = sentences(texts_seed, 100)
    flipped = [{**r, "label": "Montreal" if r["label"] == "Toronto" else "Toronto"} for r in rows]
    work.texts("d", flipped)
    done = work.finish()
    assert "up to date" in done.err and work.committed() == before
    assert column(work, "label") == [r["label"] for r in flipped]


def test_columns_come_and_go_and_states_stay(work, texts_seed):
    before, rows = work.committed(), sentences(texts_seed, 100)
    work.texts("d", [{"text": r["text"], "topic": f"topic {i % 3}", "weight": i / 2} for i, r in enumerate(rows)])
    work.job["datasets"][0]["keep"] = ["topic", "weight"]
    work.save()
    work.finish()
    group = zarr.open_group(work.store, path="m/d", mode="r")
    assert work.committed() == before and "label" not in group
    assert column(work, "topic")[:4] == ["topic 0", "topic 1", "topic 2", "topic 0"]
    assert group["weight"].dtype == np.float64 and group["weight"][5] == 2.5
    names = ["layer_name", "text", "topic", "weight", "n_tokens", "last_token_id", "row_id"]
    assert group.attrs["coordinates"].split() == names
    work.texts("d", rows)
    del work.job["datasets"][0]["keep"]
    work.save()
    work.finish()
    assert work.committed() == before and column(work, "label") == [r["label"] for r in rows]
    assert "topic" not in zarr.open_group(work.store, path="m/d", mode="r")


def test_killed_while_columns_change(work, texts_seed):
    """Columns made from two things are never taken for whole, not even when the old rows come back."""
    before, rows = work.committed(), sentences(texts_seed, 100)
    work.texts("d", [{**r, "label": "other"} for r in rows])
    killed = work.run(
        first="""
import os, signal
import drillcore.runtime.stages.extract.coordinates as columns
pieces = columns._pieces
def dying(*arguments):
    for start, values in pieces(*arguments):
        yield start, {"label": values["label"]}
        os.killpg(0, signal.SIGKILL)
columns._pieces = dying
"""
    )
    assert killed.status == -9 and column(work, "label")[0] == "other"
    work.texts("d", rows)
    work.finish()
    assert work.committed() == before and column(work, "label") == [r["label"] for r in rows]


def test_one_text_changes_and_its_block_runs(work, texts_seed):
    before, rows = work.committed(), sentences(texts_seed, 100)
    rows[40]["text"] = "another sentence altogether"
    work.texts("d", rows)
    work.finish("--overwrite")
    assert work.extracted() == BLOCK
    assert untouched(work, before, lambda key: int(key.split()[1]) not in (2, 3))
    now = work.committed()
    assert all(now[f"m/d {shard}"] != before[f"m/d {shard}"] for shard in (2, 3))
    assert column(work, "text")[40] == rows[40]["text"]


@pytest.mark.parametrize(
    "change", [{"layers": [0, 2]}, {"store_dtype": "float16"}, {"special_tokens": "none"}, {"shard_sentences": 32}]
)
def test_a_setting_of_the_extraction_changes_and_all_runs(change, work, new_work, texts_seed):
    work.job["extract"] |= change
    work.save()
    work.finish("--overwrite")
    assert work.extracted() == 100
    fresh = new_work("fresh", seed=texts_seed, count=100)
    fresh.job["extract"] |= change
    fresh.save()
    fresh.finish()
    assert work.states() == fresh.states()


def test_a_setting_of_a_later_stage_changes_and_nothing_runs(work):
    before = work.committed()
    work.job |= {"project": {"n_neighbors": 7}, "render": {"panel_px": 300}, "measure": {"folds": 3}}
    work.save()
    assert "up to date" in work.finish().err and work.committed() == before


def test_another_model_under_the_same_name_runs(work, models):
    before = work.committed()
    work.job["models"][0]["id"] = str(models("llama", seed=5))
    work.save()
    work.finish("--overwrite")
    assert work.extracted() == 100 and not set(work.committed().values()) & set(before.values())


def test_any_sequence_of_changes_ends_as_a_fresh_run(new_work, texts_seed, models, seed):
    """Rows and settings change and runs are killed: the store ends as if it were made at once, up to rounding."""
    draw = random.Random(seed)
    work = new_work("changing", seed=texts_seed, count=80)
    rows, extract = sentences(texts_seed, 80), work.job["extract"]
    for _ in range(7):
        kind = draw.choice(["text", "label", "append", "drop", "shuffle", "layers", "dtype", "shard", "limit"])
        if kind == "text":
            rows[draw.randrange(len(rows))] = sentences(draw.getrandbits(32), 1)[0]
        elif kind == "label":
            rows = [{**r, "label": draw.choice("ab")} for r in rows]
        elif kind == "append":
            rows = rows + sentences(draw.getrandbits(32), draw.randint(1, 30))
        elif kind == "drop":
            rows = rows[draw.randint(1, 10) :]
        elif kind == "shuffle":
            draw.shuffle(rows)
        elif kind == "layers":
            extract["layers"] = draw.choice(["all", "hf", [1], [0, 4]])
        elif kind == "dtype":
            extract["store_dtype"] = draw.choice(["float32", "float16"])
        elif kind == "shard":
            extract["shard_sentences"] = draw.choice([8, 16, 32])
        else:
            work.job["datasets"][0]["limit"] = draw.choice([33, 64, 1000])
        print(kind, end=" ")
        work.texts("d", rows)
        work.save()
        command = work.start("--overwrite")
        if not command.ended_within(draw.uniform(0, 1.5)):
            command.send()
    work.finish("--overwrite")
    fresh = new_work("fresh", count=1)
    fresh.job = work.job
    fresh.texts("d", rows)
    fresh.save()
    fresh.finish()
    assert_close(work.values(), fresh.values())
    for name in ("text", "label", "n_tokens", "last_token_id", "row_id", "sentence", "layer", "layer_name"):
        assert column(work, name) == column(fresh, name), name
