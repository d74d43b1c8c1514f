"""Every stage takes groups at other places: measures, projections, pictures, report, export."""

from __future__ import annotations

import numpy as np
import pyarrow.parquet as pq
import pytest
import zarr

pytest_plugins = ["support.run_fixtures"]
QUICK = {"project": {"method": "pca", "fit": "joint"}, "measure": {"permutations": 19, "metrics": ["probe", "purity"]}}


@pytest.fixture
def work(new_work, models):
    made = new_work(backend="transformers", count=30, **QUICK)
    # Two models whose rows are others where tokens are.
    made.job["models"].append({"id": str(models("qwen2")), "as": "n"})
    words = ["old", "river", "wé", "北京"]
    rows = [{"text": f"the {words[i % 4]} port {i}", "word": words[i % 4], "label": "ab"[i % 2]} for i in range(30)]
    made.texts("d", rows)
    made.texts("e", rows[:24])
    made.job["datasets"] = [
        {"name": "d", "path": "d.jsonl", "branches": {"q": "{text} why?"}},
        {"name": "e", "path": "e.jsonl"},
    ]
    made.job["extract"]["positions"] = [
        "last",
        "mean",
        {"last": 3},
        "all",
        {"text": "word", "name": "w", "pool": "all"},
    ]
    made.job["render"] = {"color": "token"}
    made.save()
    return made


def test_all_of_them(work):
    command = work.forge.run("run", "job.yaml", cwd=work.folder)
    assert command.status == 0, command.err
    root = zarr.open_group(work.store, mode="r")
    for model in ("m", "n"):
        for dataset in ("d", "e"):
            for name in ("", "~mean", "~last-3", "~w"):
                group = root[f"{model}/{dataset}{name}"]
                rows = sum(group["row_size"][:]) if "row_size" in group else group["sentence"].shape[0]
                assert group["pca"].shape[1] == rows and np.isfinite(group["pca"][:]).all()
                assert group["separation"].shape[1] == 2
            assert "pca" not in root[f"{model}/{dataset}~all"], "every token is measured where the job says so"
    assert "pca" in root["m/d~q"]
    drawn = {path.name for path in (work.beside / "pictures").glob("*.png")}
    assert {"m--d.png", "m--d~mean.png", "m--d~last-3.png", "m--d~q.png", "all-models--d~w.png"} <= drawn
    page = (work.beside / "report.html").read_text(encoding="utf-8")
    assert "d~last-3" in page and "d~all" not in page
    shown = work.forge.run("show", "runs/job.zarr", cwd=work.folder)
    assert shown.status == 0 and "d~last-3" in shown.out
    again = work.forge.run("run", "job.yaml", cwd=work.folder)
    assert again.status == 0 and "0 drawn" in again.err


def test_export_has_a_row_for_each_token(work):
    work.finish()
    arguments = ("export", "runs/job.zarr", "--group", "m/d~w", "--layer", "2", "--to", "parquet", "--out", "w.parquet")
    command = work.forge.run(*arguments, cwd=work.folder)
    assert command.status == 0, command.err
    table = pq.read_table(work.folder / "w.parquet").to_pydict()
    group = zarr.open_group(work.store, path="m/d~w", mode="r")
    assert table["row"] == list(range(group["row"].shape[0])) and table["sentence"] == group["sentence"][:].tolist()
    texts = group["text"][:].tolist()
    assert table["text"] == [texts[n] for n in table["sentence"]]
    for text, word, start, stop in zip(
        table["text"], table["word"], table["char_start"], table["char_end"], strict=True
    ):
        assert text.index(word) <= start < stop <= text.index(word) + len(word)
