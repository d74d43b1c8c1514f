"""Files of rows in every format, and what adds them to a dataset; `appending_fixtures` makes the jobs."""

from __future__ import annotations

import gzip
import json

import pyarrow as pa
import pyarrow.parquet as pq
from reading import zstd

import drillcore
from support.runs import sentences

BEFORE = 20
ROW = {"text": "x", "label": "a", "year": 1}
# What formats without types and quotes can hold, too.
NEW = [
    {"text": "a river near", "label": "nan", "year": 7},
    {"text": 'the "old", port; | first', "label": "null", "year": 8},
    {"text": "  a city\u2028\u00e9 \U0001f600 ", "label": "Montreal", "year": 9},
]
BROKEN = {"text": 'lines\r\nof a "river"\nnear\ra,city\n', "label": "Toronto", "year": 10}


def rows_of(seed, count):
    return [row | {"year": 1900 + i} for i, row in enumerate(sentences(seed, count))]


def as_jsonl(rows, end="\n"):
    return end.join(json.dumps(row, ensure_ascii=False) for row in rows).encode() + end.encode()


def as_csv(rows, sign=",", end="\n", quote=False):
    def cell(value):
        text = str(value)
        odd = quote or any(c in text for c in sign + '"\r\n')
        return '"' + text.replace('"', '""') + '"' if odd else text

    return "".join(sign.join(map(cell, r)) + end for r in [list(rows[0]), *(r.values() for r in rows)]).encode()


def as_tsv(rows, end="\n"):
    return "".join("\t".join(map(str, r)) + end for r in [list(rows[0]), *(r.values() for r in rows)]).encode()


def as_parquet(rows):
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(rows), sink, compression="gzip", row_group_size=7)
    return bytes(sink.getvalue())


WRITERS = {
    "d.jsonl": as_jsonl,
    "d.csv": as_csv,
    "d.tsv": as_tsv,
    "d.json": lambda rows: json.dumps(rows, indent=1).encode(),
    "d.parquet": as_parquet,
    "d.txt": lambda rows: "".join(row["text"] + "\n" for row in rows).encode(),
    "d.jsonl.gz": lambda rows: gzip.compress(as_jsonl(rows)),
    "d.csv.zst": lambda rows: zstd(as_csv(rows)),
    "d.json.gz": lambda rows: gzip.compress(json.dumps(rows).encode()),
}
# Whose bytes before stay as they were.
GROWING = [name for name in WRITERS if ".json." not in name and name not in ("d.json", "d.parquet")]


def add(work, *files, first="", **named):
    return work.forge.run("append", "job.yaml", "d", *files, cwd=work.folder, first=first, **named)


def stored(work, *columns):
    group = drillcore.open(work.store)["m/d"].to_dataset()
    return [list(row) for row in zip(*(group[name].values.tolist() for name in columns), strict=True)]


def new_file(work, name="new.jsonl", rows=NEW, writer=as_jsonl):
    (work.folder / name).write_bytes(writer(rows))
    return name
