"""What the benchmarks share."""

from __future__ import annotations

import json
import subprocess
import sys
from types import SimpleNamespace

import pytest

from benchmarks import common


def options_of(*argv):
    parser = common.make_parser("One line.\n\nMore.", quick="little")
    parser.add_argument("--sentences", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=5)
    return common.parse(parser, {"sentences": 10, "repeats": 1}, argv)


def test_quick_changes_the_defaults_and_leaves_what_is_asked_for():
    assert (options_of().sentences, options_of().repeats) == (1000, 5)
    quick = options_of("--quick", "--repeats", "3")
    assert quick.quick and (quick.sentences, quick.repeats) == (10, 3)


def test_a_scratch_folder_is_removed(tmp_path):
    with common.scratch_folder(SimpleNamespace(scratch=tmp_path / "build"), "some") as folder:
        assert folder.parent == tmp_path / "build" and folder.name.startswith("some-")
        (folder / "file").touch()
    assert list((tmp_path / "build").iterdir()) == []


PEAKS = """
import json, pathlib, sys
from benchmarks.common import child_peak
folder = pathlib.Path(sys.argv[1])
print(json.dumps([child_peak([sys.executable, "-c", code], folder)[0] for code in sys.argv[2:]]))
"""


def test_a_childs_peak_is_its_own_where_the_parent_is_small(tmp_path):
    # This process is large, and its children would begin with its peak: as a benchmark does, a small one starts them.
    size = 200 * 2**20
    command = [sys.executable, "-c", PEAKS, str(tmp_path), f"x = bytearray({size}); print(len(x))", "pass"]
    done = subprocess.run(command, cwd=common.ROOT, capture_output=True, text=True, check=True)
    large, small = json.loads(done.stdout)
    assert size < large < size + 2**27 and small < large - size / 2


def test_a_child_that_fails_raises_with_the_end_of_its_output(tmp_path):
    with pytest.raises(RuntimeError, match=r"(?s)status 3.*went wrong"):
        common.child_peak([sys.executable, "-c", "print('went wrong'); raise SystemExit(3)"], tmp_path)


def test_results_are_written_in_one_form(tmp_path, monkeypatch):
    monkeypatch.setattr(common, "RESULTS", tmp_path)
    assert common.write_results("thing", options_of("--quick"), {"figure": 1}) is None
    path = common.write_results("thing", options_of(), {"figure": 1})
    assert path is not None and path.parent == tmp_path and path.name.endswith("-cores-thing.json")
    assert common.processor() in path.name
    results = json.loads(path.read_text(encoding="utf-8"))
    assert results["kind"] == "drillcore-thing" and results["format"] == 1 and results["figure"] == 1
    assert {"started", "git_commit", "hardware", "versions"} <= set(results)
    assert results["parameters"] == {"quick": False, "sentences": 1000, "repeats": 5}


@pytest.mark.parametrize(
    "name, slug",
    [
        ("AMD EPYC 9B14 96-Core Processor", "amd-epyc-9b14"),
        ("AMD EPYC", "amd-epyc"),
        ("Intel(R) Xeon(R) Platinum 8481C CPU @ 2.70GHz", "intel-xeon-platinum-8481c"),
        ("Apple M2", "apple-m2"),
        ("", "unknown"),
    ],
)
def test_results_are_named_after_the_processor(name, slug):
    assert common.slug(name) == slug
