"""The render stage, `show` and `export` on a store that a real run made: models of two depths and a random control."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
import zarr
from PIL import Image

import drillcore
from drillcore.cli.export import export_layer
from drillcore.cli.show import store_lines
from drillcore.cli.tables import BARS
from drillcore.errors import DrillcoreError, MissingExtraError, StoreError
from drillcore.job.file import load_job
from drillcore.pictures.grid.write import FRAME
from drillcore.runtime.runner import run_stages
from drillcore.system.progress import Silent

SENTENCES = [f"the {'north' if i % 2 else 'south'} river {'is' * (i % 3)} number {i}" for i in range(40)]


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory, models: Any) -> Path:
    """A job that has run but for its pictures."""
    folder = tmp_path_factory.mktemp("render")
    rows = [{"text": t, "label": ("north", "south")[i % 2], "score": i / 7} for i, t in enumerate(SENTENCES)]
    plain = [{"text": t, "score": 1.5 * i} for i, t in enumerate(SENTENCES)]
    for name, lines in (("labelled", rows), ("plain", plain)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    small, deep = str(models()), str(models("llama", num_hidden_layers=4, seed=1))
    job = {
        "store": "runs/job.zarr",
        "models": [
            {"id": small, "as": "small"},
            {"id": deep, "as": "deep"},
            {"id": small, "as": "random", "random_weights": True},
        ],
        "datasets": [{"name": name, "path": f"{name}.jsonl", "keep": ["score"]} for name in ("labelled", "plain")],
        "extract": {"threads": 1},
        "measure": {"permutations": 20},
        "project": {"method": "pca"},
        "render": {"panel_px": 150},
    }
    (folder / "job.yaml").write_text(yaml.safe_dump(job), encoding="utf-8")
    run_stages(load_job(folder / "job.yaml", (), None, None), ("extract", "measure", "project"), Silent())
    return folder / "job.yaml"


class Recorder(Silent):
    """Records the lines that a run reports."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, message: str) -> None:
        self.lines.append(message)

    warn = say

    def finish(self, summary: str) -> None:
        self.lines.append(summary)


def render(job: Path, out: Path, *sets: str) -> tuple[dict[str, bytes], list[str]]:
    """Render into a folder; returns its pictures and report by name, and the lines that were reported."""
    recorder = Recorder()
    run_stages(load_job(job, sets, None, None), ("render",), recorder, out)
    files = [*(out / "pictures").glob("*.png"), out / "report.html"]
    return {path.name: path.read_bytes() for path in files}, recorder.lines


@pytest.fixture(scope="module")
def drawn(job: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, bytes], list[str]]:
    """Everything rendered once: the folder, its files, and the lines that were reported."""
    folder = tmp_path_factory.mktemp("drawn")
    return folder, *render(job, folder)


def gray(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("L"))


def meta_of(report: bytes) -> dict[str, Any]:
    """The metadata in the page of a report."""
    text = report.decode().split('id="meta">')[1].split("</script>")[0]
    return dict(json.loads(text))


def test_pictures_are_drawn_once_and_again_only_after_a_change(job: Path, drawn: Any) -> None:
    folder, files, lines = drawn
    assert set(files) == {
        *(f"{m}--{d}.png" for m in ("small", "deep", "random") for d in ("labelled", "plain", "all-datasets")),
        *(f"all-models--{d}{end}.png" for d in ("labelled", "plain") for end in ("", "--curves")),
        *(f"{m}--curves.png" for m in ("small", "deep")),
        "report.html",
    }
    assert lines[-2].startswith("pictures: 15 drawn") and lines[-1] == f"report: {folder / 'report.html'}"
    times = {path: path.stat().st_mtime_ns for path in folder.rglob("*.png")}
    assert render(job, folder)[1][-2].startswith("pictures: 0 drawn, 15 up to date")
    (folder / "pictures" / "deep--plain.png").unlink()
    again, lines = render(job, folder)
    assert lines[-2].startswith("pictures: 1 drawn") and again == files, "same store, same bytes"
    assert sum(path.stat().st_mtime_ns != time for path, time in times.items()) == 1


def test_the_report_shows_measures_tables_and_datasets_of_the_run(job: Path, drawn: Any) -> None:
    meta = meta_of(drawn[1]["report.html"])
    titles = [chart["title"] for chart in meta["charts"]]
    assert not any("plain · Linear" in t for t in titles)
    probes = [meta["charts"][titles.index(f"labelled · Linear probe (primary) · {name}")] for name in ("small", "deep")]
    assert all(probe["relativeDepth"] and probe["range"] == [0, 1] for probe in probes)
    assert [[s["name"] for s in probe["series"] if not s["control"]] for probe in probes] == [["small"], ["deep"]]
    lines = {s["name"]: s for probe in probes for s in probe["series"]}
    assert lines["deep"]["shows"] == ["labelled", "deep"]
    answer, measured = meta["answer"], [p["figure"] for p in meta["datasets"][0]["rows"][1]["panels"]]
    assert "north and south" in answer["words"][0] and answer["panel"][0] == "labelled"
    np.testing.assert_allclose([float(v) for v in measured], lines["deep"]["value"], atol=0.0051)
    assert not lines["small"]["control"] and len(lines["deep"]["value"]) == 6
    untrained = lines["control: random weights"]
    assert untrained["control"] and untrained["of"] == "small" and untrained["low"] is None
    words = lines["control: TF-IDF"]
    assert words["control"] and len(set(words["value"])) == 1 and len(words["layers"]) == 6, "one for both models"
    group = zarr.open_group(job.parent / "runs/job.zarr", path="deep/labelled", mode="r", use_consolidated=False)
    stored = np.asarray(group["separation"])[:, 0]
    np.testing.assert_allclose(lines["deep"]["value"], stored[:, 0].tolist(), rtol=1e-5)
    np.testing.assert_allclose(lines["deep"]["nullHigh"], stored[:, 4].tolist(), rtol=1e-5)
    tables = {table["title"]: table for table in meta["tables"]}
    assert [row[0] for row in tables["Models"]["rows"]] == ["small", "deep", "random (random weights)"]
    assert tables["Datasets"]["rows"][0][2:4] == ["40", "north 20, south 20"]
    assert [d["name"] for d in meta["datasets"]] == ["labelled", "plain"]
    assert [len(row["panels"]) for row in meta["datasets"][0]["rows"]] == [5, 6, 5]
    assert "no label, one colour" in meta["datasets"][1]["subtitle"]


def test_the_job_chooses_layers_colours_depths_and_tiles(job: Path, tmp_path: Path, drawn: Any) -> None:
    folder, whole, _ = drawn
    chosen, _ = render(job, tmp_path / "chosen", "render.layers=[0,3]", "render.color=score", "render.tile_px=1000")
    meta = meta_of(chosen["report.html"])
    assert [p["title"] for p in meta["datasets"][0]["rows"][1]["panels"]] == ["embed", "block 3"]
    assert meta["datasets"][0]["valueRange"] == [0, pytest.approx(39 / 7)] and not meta["datasets"][1]["unlabelled"]
    assert meta["datasets"][1]["valueName"] == "score"
    second, _ = render(job, tmp_path / "second", "render.layers=2", "render.align_depth=true")
    panels = meta_of(second["report.html"])["datasets"][0]["rows"]
    assert [[p["title"] for p in row["panels"]] for row in panels][:2] == [
        ["embed", "block 2", "final norm"],
        ["embed", "block 2", "block 4", "final norm"],
    ]
    # The shallow models' three panels stand in the first, third and last of four columns.
    aligned = gray(tmp_path / "second/pictures/all-models--labelled.png")
    edges = [(aligned[:, left + 5 : left + 145] == FRAME[0]).all(axis=1).sum() for left in range(16, 16 + 4 * 158, 158)]
    assert edges == [6, 2, 6, 6]
    tiles, _ = render(job, folder, "render.tile_px=1000", "render.panel_px=200")
    assert "all-models--labelled.png" not in tiles and {n for n in tiles if n.startswith("all-models--labelled-r")}
    for name in tiles:
        if "-r1-c" in name:
            with Image.open(folder / "pictures" / name) as image:
                assert max(image.size) <= 1000
    again, _ = render(job, folder)
    assert again == whole, "tiles that are no longer drawn are gone"


def test_labels_that_read_like_none_are_labels(tmp_path: Path, models: Any) -> None:
    labels = ["nan", "None", "null", "NA"]
    rows = [json.dumps({"text": t, "label": labels[i % 4]}) + "\n" for i, t in enumerate(SENTENCES)]
    (tmp_path / "d.jsonl").write_text("".join(rows), encoding="utf-8")
    job = {
        "store": "job.zarr", "models": [{"id": str(models()), "as": "m"}], "datasets": {"d": "d.jsonl"},
        "extract": {"threads": 1}, "measure": {"permutations": 20}, "project": {"method": "pca"},
    }  # fmt: skip
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(job), encoding="utf-8")
    run_stages(load_job(tmp_path / "job.yaml", (), None, None), ("extract", "measure", "project"), Silent())
    files, _ = render(tmp_path / "job.yaml", tmp_path / "out")
    meta = meta_of(files["report.html"])
    assert meta["datasets"][0]["categories"] == ["NA", "None", "nan", "null"] and not meta["datasets"][0]["unlabelled"]
    tables = {table["title"]: table for table in meta["tables"]}
    assert tables["Datasets"]["rows"][0][3] == "NA 10, None 10, nan 10, null 10"


@pytest.mark.parametrize(
    ("setting", "message", "hint"),
    [
        ("render.layers=[9]", "layer 9 is in no model's store", "small: 0 to 4"),
        ("render.layers=[5]", "no layer of small, random is chosen", "deep: 0 to 5"),
        ("render.color=nothing", "no dataset has a coordinate nothing", "label, last_token_id, n_tokens, score"),
        ("project.method=umap", "small/labelled: there is no umap projection to draw", "drillcore project"),
    ],
)
def test_a_job_that_cannot_be_drawn_is_refused_with_a_hint(
    job: Path, tmp_path: Path, setting: str, message: str, hint: str
) -> None:
    # The store records what its job asks of each stage, so the changed job has a copy of its own.
    copy = shutil.copytree(job.parent, tmp_path / "copy") / job.name
    with pytest.raises(DrillcoreError, match=message) as caught:
        render(copy, tmp_path / "pictures", setting)
    assert hint in f"{caught.value} {caught.value.hint}"


def test_show_draws_separation_along_the_layers(job: Path) -> None:
    lines = list(store_lines(str(job.parent / "runs" / "job.zarr")))
    assert sum("100%" in line for line in lines) == 6
    curves = lines[lines.index("") + 2 :]
    assert [line.split()[:2] for line in curves] == [[m, "labelled"] for m in ("deep", "random", "small")]
    assert all(len(set(line) & set(BARS)) >= 1 for line in curves)
    code = "import drillcore.cli.show as s, sys; list(s.store_lines(sys.argv[1])); print(sorted(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code, str(job.parent / "runs/job.zarr")], capture_output=True, text=True, check=True
    )
    assert not any(f"'{name}'" in done.stdout for name in ("matplotlib", "datashader", "pandas", "torch", "xarray"))


def test_export_writes_what_is_stored(job: Path, tmp_path: Path) -> None:
    store = str(job.parent / "runs" / "job.zarr")
    tree = drillcore.open(store)["deep/labelled"]
    states = tree.hidden_states.sel(layer=3).values
    for layer in ("3", "block_3"):
        list(export_layer(store, layer, "npy", tmp_path / "a.npy", "deep/labelled"))
        np.testing.assert_array_equal(np.load(tmp_path / "a.npy"), states)
    list(export_layer(store, "3", "parquet", tmp_path / "a.parquet", "deep/labelled"))
    table = pq.read_table(tmp_path / "a.parquet")
    np.testing.assert_array_equal(np.array(table["hidden_state"].to_pylist(), np.float32), states)
    assert table["text"].to_pylist() == SENTENCES and table["score"].to_pylist() == tree.score.values.tolist()
    lines = list(export_layer(store, "3", "embedding-atlas", tmp_path / "b.parquet", "deep/labelled"))
    assert "--x projection_x --y projection_y --neighbors neighbors" in lines[-1]
    table = pq.read_table(tmp_path / "b.parquet")
    points = tree.pca.sel(layer=3).values
    np.testing.assert_array_equal(table["projection_x"].to_numpy(), points[:, 0])
    distances = np.linalg.norm(states[:, None] - states[None], axis=2)
    np.fill_diagonal(distances, np.inf)
    for i, nearest in enumerate(table["neighbors"].to_pylist()):
        assert len(nearest["ids"]) == 15 and i not in nearest["ids"]
        np.testing.assert_allclose(nearest["distances"], np.sort(distances[i])[:15], rtol=1e-3, atol=1e-5)
    assert {p.name for p in tmp_path.iterdir()} == {"a.npy", "a.parquet", "b.parquet"}


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        (("3", "npy", "a.npy", None), StoreError, "several models or datasets"),
        (("3", "npy", "a.npy", "deep/none"), StoreError, "no group deep/none"),
        (("9", "npy", "a.npy", "deep/plain"), StoreError, "no layer 9"),
        (("3", "csv", "a.csv", "deep/plain"), StoreError, "there is no format csv"),
        (("3", "npy", "none/a.npy", "deep/plain"), DrillcoreError, "could not be written"),
    ],
)
def test_export_refuses_wrong_arguments(
    job: Path, tmp_path: Path, arguments: tuple[Any, ...], kind: type[Exception], message: str
) -> None:
    layer, form, name, group = arguments
    with pytest.raises(kind, match=message):
        list(export_layer(str(job.parent / "runs/job.zarr"), layer, form, tmp_path / name, group))
    assert not list(tmp_path.iterdir())


def test_export_to_anndata_or_a_hint_what_to_install(job: Path, tmp_path: Path) -> None:
    path, store = tmp_path / "a.h5ad", str(job.parent / "runs/job.zarr")
    try:
        import anndata
    except ImportError:
        with pytest.raises(MissingExtraError, match="needs anndata") as caught:
            list(export_layer(store, "3", "anndata", path, "deep/plain"))
        assert "pip install anndata" in caught.value.hint and not path.exists()
        return
    list(export_layer(store, "3", "anndata", path, "deep/plain"))
    data = anndata.read_h5ad(path)
    np.testing.assert_array_equal(data.X, np.asarray(drillcore.open(store)["deep/plain"].hidden_states.sel(layer=3)))
