"""The wheel alone: built from the source distribution, unpacked into an environment of its own, run from elsewhere.

Nothing is fetched: the dependencies are those of the environment that runs the tests.
"""

from __future__ import annotations

import csv
import email
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest
import yaml

from drillcore.api.demo import FILES

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The wheel and the source distribution, made from a copy, so that nothing of earlier builds counts."""
    folder, copy = tmp_path_factory.mktemp("built"), tmp_path_factory.mktemp("copy")
    for name in ("engine", "jobs", "schemas"):
        left_out = shutil.ignore_patterns("*.egg-info", "__pycache__")
        shutil.copytree(ROOT / name, copy / name, symlinks=True, ignore=left_out)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy / name)
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, copy]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=_without_path())
    assert done.returncode == 0, done.stderr[-3000:]
    (wheel,), (source,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    return wheel, source


@pytest.fixture(scope="module")
def installed(built, tmp_path_factory):
    """The bin folder of an environment that has the wheel, and sees the dependencies but not this checkout."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False)
    (python,) = folder.glob("bin/python")
    asked = [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    place = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()
    # A .pth file does not read the .pth files of the folder that it names, so that no editable installation counts.
    Path(place, "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    command = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", "--no-index"]
    done = subprocess.run([*command, "--ignore-installed", built[0]], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder / "bin"


def _without_path():
    return {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}


def run(installed, *arguments, cwd):
    return subprocess.run(
        [installed / "drillcore", *arguments], cwd=cwd, capture_output=True, text=True, check=False, env=_without_path()
    )


def test_wheel_and_source_distribution_hold_every_file(built):
    wheel, source = built
    package = ROOT / "engine" / "drillcore"
    assets = {p.relative_to(package).as_posix() for p in package.glob("pictures/report/assets/*")}
    modules = {p.relative_to(package).as_posix() for p in package.rglob("*.py")}
    wanted = {f"drillcore/{name}" for name in modules | assets | {f"data/{name}" for name in FILES} | {"py.typed"}}
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
        assert held == wanted
        for name in FILES:
            assert archive.read(f"drillcore/data/{name}") == (ROOT / name).read_bytes()
        (about,) = [name for name in archive.namelist() if name.endswith("METADATA")]
        facts = email.message_from_bytes(archive.read(about))
        assert any(name.endswith("licenses/LICENSE") for name in archive.namelist())
    with tarfile.open(source) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
        assert all(member.isfile() or member.isdir() for member in archive.getmembers())
    assert {f"engine/{name}" for name in wanted} | {"pyproject.toml", "README.md", "LICENSE"} <= names
    assert facts["Description-Content-Type"] == "text/markdown" and facts.get_payload().startswith("# drillcore")
    assert {"transformers", "umap", "pictures", "all"} <= set(facts.get_all("Provides-Extra"))


def test_the_metadata_are_those_that_an_index_takes(built):
    done = subprocess.run(
        [sys.executable, "-m", "twine", "check", "--strict", *built], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


def test_the_package_is_that_of_the_wheel(installed, tmp_path):
    code = "import drillcore, sys; print(drillcore.__file__, 'torch' in sys.modules)"
    done = subprocess.run(
        [installed / "python", "-c", code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
        env=_without_path(),
    )
    path, is_heavy = done.stdout.split()
    assert Path(path).is_relative_to(installed.parent) and is_heavy == "False"
    assert "init" in run(installed, "--help", cwd=tmp_path).stdout


def test_demo_and_schema_come_out_of_it(installed, tmp_path):
    done = run(installed, "demo", "--write-only", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for name in FILES:
        assert (tmp_path / "drillcore-demo" / name).read_bytes() == (ROOT / name).read_bytes()
    done = run(installed, "schema", "--write", "job.schema.json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "job.schema.json").read_bytes() == (ROOT / "schemas" / "job.schema.json").read_bytes()


def test_from_a_table_to_a_job_that_runs(installed, models, tmp_path):
    with (tmp_path / "reviews.csv").open("w", newline="", encoding="utf-8") as stream:
        table = csv.writer(stream)
        table.writerow(["id", "review", "sentiment"])
        table.writerows([i, f"the river, number {i} is", "pos" if i % 2 else "neg"] for i in range(200))
    done = run(installed, "init", "reviews.csv", "--model", str(models()), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    job = yaml.safe_load((tmp_path / "reviews.yaml").read_text(encoding="utf-8"))
    assert job["datasets"]["reviews"] == {
        "path": "reviews.csv", "text": "review", "label": "sentiment", "keep": ["id"]
    }  # fmt: skip
    faster = ["--set", "project.method=pca", "--set", "measure.permutations=9"]
    done = run(installed, "run", "reviews.yaml", *faster, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "runs" / "reviews" / "report.html").exists()
    shown = run(installed, "show", "runs/reviews.zarr", cwd=tmp_path)
    assert shown.returncode == 0 and "200" in shown.stdout
