"""From a job file to a picture, through the command line, on tiny models of the architectures of the real job."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from support.plain import plain_states, relative_error

TEXTS = Path(__file__).parents[2] / "jobs" / "texts"


def drillcore(*arguments: str, cwd: Path) -> subprocess.CompletedProcess:
    """The command as a user runs it."""
    command = [sys.executable, "-m", "drillcore", *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)


def colors_of(path: Path) -> set[tuple[int, int, int]]:
    with Image.open(path) as picture:
        return {color for _, color in picture.convert("RGB").getcolors(1 << 24)}


@pytest.fixture(scope="module")
def finished(tmp_path_factory, models):
    """The source experiment on tiny stand-ins for SmolLM and Llama models of different depths, once run."""
    folder = tmp_path_factory.mktemp("job")
    job = yaml.safe_load((TEXTS.parent / "toronto-montreal.yaml").read_text(encoding="utf-8"))
    stand_ins = [models("llama"), models("llama", num_hidden_layers=4, seed=1)]
    job |= {
        "store": "runs/tm.zarr",
        "models": [{"id": str(path), "as": f"tiny-{i}"} for i, path in enumerate(stand_ins)],
        "datasets": [{**d, "path": str(TEXTS.parent / d["path"])} for d in job["datasets"]],
        "project": {"n_epochs": 20},
        "measure": {"permutations": 20},
    }
    (folder / "job.yaml").write_text(yaml.safe_dump(job), encoding="utf-8")
    done = drillcore("run", "job.yaml", cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder, job, done


def test_pictures_are_there_one_panel_a_layer(finished):
    folder, job, _ = finished
    pictures = {p.stem: colors_of(p) for p in (folder / "runs" / "tm" / "pictures").glob("*.png")}
    names = {f"tiny-{i}--{d['name']}" for i in range(2) for d in job["datasets"]}
    assert names | {f"all-models--{d['name']}" for d in job["datasets"]} <= set(pictures)
    labels, lines = {(0xD5, 0x5E, 0x00), (0x00, 0x72, 0xB2)}, {(0x33, 0x22, 0x88), (0x11, 0x77, 0x33)}
    for name, colors in pictures.items():
        assert (lines if "curves" in name else labels) <= colors, name


def test_the_small_print_says_how_the_points_were_computed(finished):
    folder, job, _ = finished
    page = (folder / "runs" / "tm" / "report.html").read_text(encoding="utf-8")
    meta = json.loads(page.split('id="meta">')[1].split("</script>")[0])
    assert len(meta["datasets"]) == len(job["datasets"])
    for dataset in meta["datasets"]:
        assert "umap-learn" in dataset["footer"]
        assert "seed 0, n_neighbors 15, min_dist 0.1, metric euclidean" in dataset["footer"]


def test_xarray_opens_the_store_without_a_warning(finished):
    import xarray as xr

    folder, _, _ = finished
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tree = xr.open_datatree(folder / "runs" / "tm.zarr")
        group = xr.open_zarr(folder / "runs" / "tm.zarr", group="tiny-1/incomplete")
        assert tree["tiny-0/complete"].hidden_states.dims == ("sentence", "layer", "hidden")
        assert group.sizes["layer"] == 6 and group.sizes["sentence"] == 50
        assert {"text", "label", "n_tokens", "last_token_id", "row_id", "layer_name"} <= set(group.coords)
        assert group.layer.values.tolist() == [0, 1, 2, 3, 4, 5]
        assert group.layer_name.values[[0, 1, -1]].tolist() == ["embed", "block_1", "final_norm"]
        assert group.umap.dims == ("layer", "sentence", "axis") and np.isfinite(group.umap).all()
        assert group.separation.dims == ("layer", "metric", "bound")
        probe = group.separation.sel(metric="probe", bound="value")
        assert ((probe[1:] >= 0) & (probe[1:] <= 1)).all()
        assert group.layer_cka.shape == (6, 6)
        assert set(group.label.values.tolist()) == {"Toronto", "Montreal"}


def test_the_stored_states_equal_the_plain_way(finished):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    import drillcore as package

    folder, job, _ = finished
    tree = package.open(folder / "runs" / "tm.zarr")
    for i, model in enumerate(job["models"]):
        plain = AutoModelForCausalLM.from_pretrained(model["id"], dtype="float32").eval()
        tokenizer = AutoTokenizer.from_pretrained(model["id"])
        stored = tree[f"tiny-{i}/complete"]
        for n in range(0, 50, 7):
            ids = tokenizer(str(stored.text.values[n]))["input_ids"]
            want = plain_states(plain, ids, 3 + i)
            assert relative_error(stored.hidden_states.values[n], want).max() <= 1e-5
            assert int(stored.last_token_id[n]) == ids[-1] and int(stored.n_tokens[n]) == len(ids)


def test_a_second_run_finds_everything_done(finished):
    folder, _, _ = finished
    manifest = json.loads((folder / "runs" / "tm" / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["status"] == "done"
    before = {p: p.stat().st_mtime_ns for p in (folder / "runs").rglob("*.png")}
    again = drillcore("run", "job.yaml", cwd=folder)
    assert again.returncode == 0 and again.stderr.count("up to date") >= 5, again.stderr
    assert before == {p: p.stat().st_mtime_ns for p in (folder / "runs").rglob("*.png")}


def test_show_says_what_is_there(finished):
    folder, _, _ = finished
    shown = drillcore("show", "runs/tm.zarr", cwd=folder)
    assert shown.returncode == 0 and shown.stdout.count("100%") == 4 and "umap" in shown.stdout


def test_a_few_sentences_in_python(models):
    import drillcore as package

    states = package.extract(str(models("gpt2")), ["one sentence", "and another one"], layers="hf")
    assert states.hidden_states.shape == (2, 4, 32)
    assert states.layer.values.tolist() == [0, 1, 2, 4]
