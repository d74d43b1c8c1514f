"""`drillcore doctor` names the wheel of cuML that fits the driver."""

from __future__ import annotations

import shutil
import subprocess
import sys

import pytest

from conftest import require
from drillcore.api import doctor
from drillcore.system.machine import driver_cuda

DRIVER = "int cuDriverGetVersion(int *version) { *version = %d; return %d; }"


def run_with_driver(folder, version: int, failed: int = 0) -> str:
    """The output of the command beside a driver that says so."""
    if shutil.which("gcc") is None:
        require("compiler", "the driver's library is made by gcc")
    (folder / "driver.c").write_text(DRIVER % (version, failed), encoding="utf-8")
    library = folder / "libcuda.so.1"
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", library, folder / "driver.c"], check=True)
    code = (
        "import drillcore.system.machine as machine; machine.CUDA_DRIVER = %r; "
        "from drillcore.cli.main import main; import sys; sys.argv[1:] = ['doctor']; main()"
    )
    command = [sys.executable, "-c", code % str(library)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize(
    ("version", "failed", "wanted"),
    [
        (13010, 0, "drillcore[gpu]' (cuml-cu13: the driver runs CUDA 13.1"),
        (12080, 0, "drillcore[gpu-cu12]' (cuml-cu12: the driver runs CUDA 12.8"),
        (11040, 0, "the driver runs CUDA 11.4, and cuML needs 12 or later"),
        (13000, 100, "no NVIDIA driver on this machine"),
    ],
)
def test_the_wheel_that_fits_the_driver(tmp_path, version, failed, wanted):
    assert wanted in " ".join(run_with_driver(tmp_path, version, failed).split())


@pytest.mark.parametrize(
    ("built", "driver", "extra"), [(12, (13, 0), "gpu-cu12"), (13, (13, 0), "gpu"), (13, (12, 8), "gpu-cu12")]
)
def test_pytorchs_own_cuda_decides_where_the_driver_runs_both(monkeypatch, built, driver, extra):
    monkeypatch.setattr(doctor, "_built_for", lambda: built)
    assert f"drillcore[{extra}]" in doctor._wheel(driver)


@pytest.mark.parametrize(
    ("installed", "driver", "present", "said"),
    [
        ({"cuml-cu13": "26.6.0"}, (13, 0), True, "cuml-cu13 26.6.0"),
        ({"cuml-cu13": "26.6.0"}, (12, 8), False, "cuml-cu13 needs CUDA 13; pip install 'drillcore[gpu-cu12]'"),
        ({"cuml-cu12": "26.6.0", "cuml-cu13": "26.6.0"}, (13, 0), False, "both cuml-cu12 and cuml-cu13 are installed"),
        ({"cuml-cu12": "26.6.0"}, None, True, "cuml-cu12 26.6.0"),
    ],
)
def test_a_wheel_that_does_not_fit_is_told(monkeypatch, installed, driver, present, said):
    monkeypatch.setattr(doctor, "_version", installed.get)
    monkeypatch.setattr(doctor, "driver_cuda", lambda: driver)
    part = doctor._cuml()
    assert part.present is present and said in part.detail + part.remedy


def test_a_machine_without_a_driver_has_none():
    assert driver_cuda() is None or driver_cuda()[0] >= 11
