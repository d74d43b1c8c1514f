"""The rows' cache: written once for each content, mapped and not loaded, whole or created again."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import random
import secrets
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from drillcore.errors import RunError, TextError
from drillcore.job.inputs import Dataset
from drillcore.system import cached
from drillcore.system.progress import with_lines
from drillcore.texts import rows
from drillcore.texts.problems import Problems
from drillcore.texts.rows import RowTable, ingest, row_ids
from support.damage import damages


def dataset(**settings: Any) -> Dataset:
    return Dataset(name="d", path="unused", **settings)


def ingested(path: Path, cache: Path, **settings: Any) -> RowTable:
    problems = Problems()
    table = ingest(path, dataset(**settings), cache, problems)
    problems.raise_if_any()
    assert table is not None
    return table


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "a.jsonl"
    lines = (json.dumps({"text": f"sentence {i} é", "label": i % 3, "id": i, "other": str(i)}) for i in range(20_000))
    path.write_text("\n".join(lines))
    return path


def names(cache: Path) -> list[str]:
    return sorted(path.name for path in cache.iterdir())


def test_rows_come_back_in_any_range(source: Path, tmp_path: Path) -> None:
    table = ingested(source, tmp_path / "deep" / "cache", keep=("id", "other"))
    assert table.num_rows == 20_000
    assert table.columns == ("text", "label", "id", "other")
    seed = secrets.randbits(32)
    print("seed", seed)
    draw = random.Random(seed)
    for _ in range(50):
        start, stop = sorted(draw.choices(range(20_001), k=2))
        stop = min(stop, start + 3000)
        assert table.texts(start, stop) == [f"sentence {i} é" for i in range(start, stop)]
        part = table.slice(start, stop)
        assert part.column("id").to_pylist() == list(range(start, stop))
        assert part.column("label").to_pylist() == [str(i % 3) for i in range(start, stop)]
    assert table.slice(0, 20_000).schema.types == [pa.string(), pa.string(), pa.int64(), pa.string()]


def test_a_range_beyond_the_rows_is_refused(source: Path, tmp_path: Path) -> None:
    table = ingested(source, tmp_path, limit=10)
    assert table.texts(10, 10) == []
    for start, stop in [(0, 11), (-1, 3), (5, 4)]:
        with pytest.raises(IndexError, match="of 10"):
            table.texts(start, stop)


def test_the_digest_depends_on_what_shapes_the_rows_and_on_nothing_else(source: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    first = ingested(source, cache)
    (tmp_path / "elsewhere").mkdir()
    moved = source.rename(tmp_path / "elsewhere" / "b.ndjson")
    same = Dataset(name="another", path="x", template="so: {text}", candidates=(" a",))
    again = ingest(moved, same, cache, Problems())
    assert again == first
    others = [
        {"text": "other"},
        {"label": "label"},
        {"label": None},
        {"unlabelled": "keep"},
        {"missing": ("NA",)},
        {"group": "id"},
        {"expected_next": "other"},
        {"keep": ("id",)},
        {"keep": ("other",)},
        {"limit": 7},
    ]
    tables = [ingested(moved, cache, **settings) for settings in others]
    moved.write_text(moved.read_text().replace("sentence 0", "sentence x"))
    tables.append(ingested(moved, cache))
    digests = {first.digest, *(table.digest for table in tables)}
    assert len(digests) == len(tables) + 1
    assert names(cache) == sorted(f"{d}.entry" for d in digests)


def test_notes_are_kept_with_the_rows_and_made_again_by_another_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.csv").write_text("text,label\na,x\nb,X\n")
    first = ingested(tmp_path / "a.csv", tmp_path / "cache")
    assert len(first.notes) == 1 and "`X` (1) and `x` (1)" in first.notes[0]
    assert ingested(tmp_path / "a.csv", tmp_path / "cache") == first
    monkeypatch.setattr(rows, "NOTES_VERSION", rows.NOTES_VERSION + 1)
    again, lines = with_lines(lambda cache: ingested(tmp_path / "a.csv", cache), tmp_path / "cache")
    assert again == first and lines == [f"cache: {first.path} (rows) is of another version; it is made again"]


def test_every_field_of_a_dataset_decides_its_rows_unless_it_is_known_not_to() -> None:
    assert set(Dataset.model_fields) >= rows.ALWAYS | rows.OF_NO_ROW
    kept = Dataset(name="d", path="d.jsonl")
    for name in set(Dataset.model_fields) - rows.ALWAYS - rows.OF_NO_ROW:
        changed = kept.model_copy(update={name: "changed"})
        with warnings.catch_warnings(action="ignore"):  # "changed" may be of another type than the field
            assert rows._settings(changed) != rows._settings(kept), name
    # A field that came later is left out while it has its default.
    assert set(rows._settings(kept)) == rows.ALWAYS


def test_the_same_bytes_in_another_format_are_other_rows(tmp_path: Path) -> None:
    for name in ("a.txt", "a.csv"):
        (tmp_path / name).write_text("text\nb\n")
    assert ingested(tmp_path / "a.txt", tmp_path).texts(0, 2) == ["text", "b"]
    assert ingested(tmp_path / "a.csv", tmp_path).texts(0, 1) == ["b"]


def test_an_undamaged_cache_is_not_written_again(source: Path, tmp_path: Path) -> None:
    first = ingested(source, tmp_path)
    before = first.path.stat()
    again = ingested(source, tmp_path)
    assert again == first
    after = first.path.stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)


def test_a_damaged_cache_is_created_again_and_that_is_said(tmp_path: Path, seed: int) -> None:
    draw = random.Random(seed)
    for name in ("a", "b"):
        lines = (json.dumps({"text": f"{name} {draw.random()}", "label": i % 2}) for i in range(200))
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines))
    first, other = (ingested(tmp_path / f"{name}.jsonl", tmp_path / "cache") for name in ("a", "b"))
    whole, texts = first.path.read_bytes(), first.texts(0, 200)
    for name, damage in damages(whole, other.path.read_bytes(), draw):
        damage(first.path)
        again, lines = with_lines(lambda cache: ingested(tmp_path / "a.jsonl", cache), tmp_path / "cache")
        assert again == first and again.texts(0, 200) == texts and again.path.read_bytes() == whole, name
        assert len(lines) == 1 and f"{first.path} (rows)" in lines[0], name
    assert first.texts(0, 200) == texts, "it has the old file mapped"


def test_a_table_in_another_process_checks_the_file_too(source: Path, tmp_path: Path, seed: int) -> None:
    table = ingested(source, tmp_path)
    raw = bytearray(table.path.read_bytes())
    raw[random.Random(seed).randrange(len(raw))] ^= 1
    frozen = pickle.dumps(table)
    table.path.unlink()
    table.path.write_bytes(raw)
    with pytest.raises(RunError, match="cannot read the cached rows: is damaged"):
        pickle.loads(frozen).texts(0, 1)


def test_wrong_rows_give_no_table_and_leave_no_file(tmp_path: Path) -> None:
    source = tmp_path / "a.txt"
    source.write_text("good\n" * 10_000 + "\nbad before\n")
    problems = Problems()
    assert ingest(source, dataset(), tmp_path / "cache", problems) is None
    assert [str(problem) for problem in problems.shown] == [f"{source}:10001: is empty: every line must hold a row"]
    assert names(tmp_path / "cache") == []


def test_earlier_problems_do_not_stop_a_good_dataset(source: Path, tmp_path: Path) -> None:
    problems = Problems()
    assert ingest(tmp_path / "missing.csv", dataset(), tmp_path, problems) is None
    table = ingest(source, dataset(), tmp_path, problems)
    assert table is not None
    assert table.num_rows == 20_000
    assert [problem.message for problem in problems.shown] == ["there is no such file"]


def test_a_mistake_in_the_job_is_raised(source: Path, tmp_path: Path) -> None:
    with pytest.raises(TextError, match="end of the name"):
        ingest(tmp_path / "a.docx", dataset(), tmp_path, Problems())


def test_a_cache_that_cannot_be_written_says_so(source: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(RunError, match="cannot write rows there") as caught:
        ingest(source, dataset(), tmp_path / "file" / "cache", Problems())
    assert "XDG_CACHE_HOME" in caught.value.hint


FULL = """
import resource, signal, sys
from pathlib import Path
from drillcore.errors import RunError
from drillcore.job.inputs import Dataset
from drillcore.texts.rows import ingest
from drillcore.texts.read import Problems
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))
try:
    ingest(Path(sys.argv[1]), Dataset(name="d", path="x"), Path(sys.argv[2]), Problems())
except RunError as error:
    print(error)
"""


def test_a_disk_that_fills_up_leaves_nothing_behind(source: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    done = subprocess.run(
        [sys.executable, "-c", FULL, source, cache], capture_output=True, text=True, check=True, timeout=60
    )
    assert "cannot write rows there: " in done.stdout
    assert names(cache) == []
    assert ingested(source, cache).num_rows == 20_000


RACE = """
import sys, time
from pathlib import Path
from drillcore.job.inputs import Dataset
from drillcore.texts.rows import ingest
from drillcore.texts.read import Problems
while not Path(sys.argv[3]).exists():
    time.sleep(0.001)
table = ingest(Path(sys.argv[1]), Dataset(name="d", path="x"), Path(sys.argv[2]), Problems())
print(table.num_rows, table.digest, table.texts(19_999, 20_000)[0])
"""


def test_processes_that_race_agree(source: Path, tmp_path: Path) -> None:
    go = tmp_path / "go"
    command = [sys.executable, "-c", RACE, source, tmp_path / "cache", go]
    racers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    go.touch()
    answers = {racer.communicate(timeout=60)[0] for racer in racers}
    assert [racer.returncode for racer in racers] == [0, 0, 0]
    table = ingested(source, tmp_path / "cache")
    assert answers == {f"20000 {table.digest} sentence 19999 é\n"}
    assert names(tmp_path / "cache") == [f"{table.digest}.entry"]


def test_old_scratch_files_of_killed_runs_are_removed(source: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    cache.mkdir()
    for name in ("rows-old.tmp", "rows-new.tmp"):
        (cache / name).write_bytes(b"half")
    old = time.time() - cached.STALE_SECONDS - 60
    os.utime(cache / "rows-old.tmp", (old, old))
    table = ingested(source, cache)
    assert names(cache) == [f"{table.digest}.entry", "rows-new.tmp"]


def test_a_pickled_table_holds_its_path_and_no_rows(source: Path, tmp_path: Path) -> None:
    table = ingested(source, tmp_path)
    table.texts(0, 1)
    frozen = pickle.dumps(table)
    assert len(frozen) < 1000
    copy = pickle.loads(frozen)
    assert copy == table
    assert copy.texts(5, 6) == ["sentence 5 é"]


def test_a_table_whose_file_was_removed_raises_a_run_error(source: Path, tmp_path: Path) -> None:
    table = pickle.loads(pickle.dumps(ingested(source, tmp_path)))
    table.path.unlink()
    with pytest.raises(RunError, match="cannot read the cached rows") as caught:
        table.texts(0, 1)
    assert "Run again" in caught.value.hint


MEMORY = """
import random, resource, sys
from pathlib import Path
from drillcore.job.inputs import Dataset
from drillcore.texts.rows import ingest
from drillcore.texts.read import Problems
source, cache, seed, what = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
if what == "ingest":
    before = peak()
    ingest(source, Dataset(name="d", path="x"), cache, Problems())
else:
    table = ingest(source, Dataset(name="d", path="x"), cache, Problems())
    draw = random.Random(seed)
    before = peak()
    for start in draw.choices(range(table.num_rows - 3), k=100):
        assert [text.split()[0] for text in table.texts(start, start + 3)] == [str(start + i) for i in range(3)]
print(peak() - before)
"""


def test_neither_writing_nor_slicing_loads_all_rows(tmp_path: Path) -> None:
    source = tmp_path / "a.txt"
    with source.open("w") as file:
        for i in range(20_000):
            file.write(f"{i} {'x' * 10_000}\n")
    seed = secrets.randbits(32)
    print("seed", seed)
    for what in ("ingest", "slice"):
        command = [sys.executable, "-c", MEMORY, source, tmp_path / "cache", str(seed), what]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
        print(what, done.stdout)
        assert int(done.stdout) < source.stat().st_size / 2
    assert next((tmp_path / "cache").glob("*.entry")).stat().st_size > 200_000_000


def test_slices_are_not_copied(source: Path, tmp_path: Path) -> None:
    table = ingested(source, tmp_path)
    before = pa.total_allocated_bytes()
    parts = [table.slice(start, start + 100) for start in range(0, 20_000, 100)]
    assert pa.total_allocated_bytes() == before
    assert sum(part.num_rows for part in parts) == 20_000


class _Growing(Dataset):
    """A dataset whose file gets another line between the hashing and the reading of it."""

    def model_dump(self, **options: Any) -> dict[str, Any]:
        with Path(self.path).open("a") as file:
            file.write('\n{"text": "late", "label": "x"}')
        return super().model_dump(**options)


def test_a_file_that_changes_while_it_is_read_is_refused(source: Path, tmp_path: Path) -> None:
    problems = Problems()
    cache = tmp_path / "cache"
    assert ingest(source, _Growing(name="d", path=str(source)), cache, problems) is None
    assert [problem.message for problem in problems.shown] == ["changed while it was read"]
    assert names(cache) == []
    assert ingested(source, cache).num_rows == 20_001


@pytest.mark.parametrize(("kind", "is_new"), [("jsonl", False), ("csv", False), ("tsv", True)])
def test_rows_of_a_reader_whose_rules_changed_are_read_again(tmp_path: Path, kind: str, is_new: bool) -> None:
    """Other readers keep the keys that they had, and stores written with them stay up to date."""
    content = b'{"text": "a"}\n' if kind == "jsonl" else b"text\na\n"
    (tmp_path / f"a.{kind}").write_bytes(content)
    settings = {"version": 1, "kind": [kind, ""], "source": hashlib.sha256(content).hexdigest()}
    settings |= {"text": "text", "label": None, "group": None, "expected_next": None, "keep": [], "limit": None}
    before = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()
    assert (ingested(tmp_path / f"a.{kind}", tmp_path / "cache").digest != before) is is_new


def test_row_ids_are_hashes_of_the_text() -> None:
    texts = ["a", "é", "a", "a "]
    ids = row_ids(texts)
    assert ids == [hashlib.sha256(text.encode()).digest()[:16].hex() for text in texts]
    assert ids[0] == ids[2] == "ca978112ca1bbdcafac231b39a23dc4d"
    assert len(set(ids)) == 3
    assert row_ids([]) == []
