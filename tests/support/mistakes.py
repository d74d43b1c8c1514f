"""The likeliest mistakes, each as files and a command line: `docs/mistakes.md` shows what is said of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field

from support.runs import Work

JOB = "models: [./model]\ndatasets: [texts.csv]\n"
TEXTS = "text,label\n" + "".join(f"the river is {i},{'north' if i % 2 else 'south'}\n" for i in range(12))
# A job whose store the command is about is run before: quick, and without a model's weights.
QUICK = "extract: {backend: fake, shard_sentences: 16, block_sentences: 16, threads: 1}\n"


@dataclass(frozen=True)
class Mistake:
    """One mistake.

    kind: heading under which it stands. typed: the line that shows it, as a reader would know it. arguments: of the
    command, separated by blanks. files: what is written beforehand, beside a job and its texts, by name; None removes a
    file. first: Python that the command's process runs beforehand. before: commands that must end well beforehand.
    arrange: what else is done to the folder.
    """

    kind: str
    typed: str
    arguments: str = "run job.yaml"
    files: dict[str, str | bytes | None] = field(default_factory=dict)
    first: str = ""
    before: tuple[str, ...] = ()
    arrange: Callable[[Work], None] | None = None


def job(*lines: str, instead: str = JOB) -> dict[str, str | bytes | None]:
    """A job file with further lines."""
    return {"job.yaml": instead + "".join(f"{line}\n" for line in lines)}


def with_datasets(text: str) -> dict[str, str | bytes | None]:
    return job(instead=f"models: [./model]\ndatasets: {text}\n")


def with_model(text: str) -> dict[str, str | bytes | None]:
    return job(instead=f"models: [{text}]\ndatasets: [texts.csv]\n")


def texts(content: str | bytes) -> dict[str, str | bytes | None]:
    return {"texts.csv": content}


def without(module: str) -> str:
    return f"import sys\nsys.modules[{module!r}] = None\n"


def folder_of(kind: str) -> dict[str, str | bytes | None]:
    return {**with_model("./other"), "other/config.json": json.dumps({"model_type": kind})}


def bare_model(*, tokenizer: bool) -> Callable[[Work], None]:
    """Makes a model beside the job that lacks its tokenizer, or its weights."""

    def arrange(work: Work) -> None:
        source, other = work.forge.model, work.folder / "bare"
        other.mkdir()
        for path in sorted(source.iterdir()):
            is_tokenizer, is_weights = path.name.startswith("tokenizer"), path.suffix == ".safetensors"
            if not (is_tokenizer if tokenizer else is_weights):
                (other / path.name).symlink_to(path)

    return arrange


def folder_without_dot(work: Work) -> None:
    (work.folder / "my-model").symlink_to(work.forge.model)


def read_only(work: Work) -> None:
    work.folder.chmod(0o555)


YAML, FIELDS, SET, FILES = "The YAML", "Fields of the job", "Overrides", "Files of sentences"
MODELS, STORES, COMMANDS, EXTRAS = "Models", "Stores", "Commands", "What is not installed"
EXTRACT = ("extract job.yaml",)

# Takes from root, for good, the right to write where the mode of a folder forbids it (CAP_DAC_OVERRIDE).
NO_OVERRIDE = """
import ctypes, os
if os.geteuid() == 0:
    libc = ctypes.CDLL(None, use_errno=True)
    head, data = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    assert libc.capget(head, data) == 0
    data[0], data[1] = data[0] & ~0b10, data[1] & ~0b10
    assert libc.capset(head, data) == 0
"""

MISTAKES = [
    Mistake(YAML, "`models:[./model]`", files=job(instead="models:[./model]\ndatasets: [texts.csv]\n")),
    Mistake(YAML, "a tab before `dtype:`", files=job("extract:", "\tdtype: float32")),
    Mistake(YAML, "`models: [./model`", files=job(instead="models: [./model\ndatasets: [texts.csv]\n")),
    Mistake(YAML, "`name: 'cities`", files=job("name: 'cities")),
    Mistake(YAML, "`name: a: b`", files=job("name: a: b")),
    Mistake(YAML, "`template: {text} is`", files=with_datasets("\n- path: texts.csv\n  template: {text} is")),
    Mistake(YAML, '`path: "C:\\data\\texts.csv"`', files=with_datasets('\n- path: "C:\\data\\texts.csv"')),
    Mistake(YAML, "`extract:` a second time", files=job("extract: {}", "extract: {}")),
    Mistake(YAML, "an item less indented", files=job(instead="datasets: [texts.csv]\nmodels:\n  - ./a\n - ./b\n")),
    Mistake(YAML, "`name: no`", files=job("name: no")),
    Mistake(FIELDS, "`modles:`", files=job(instead="modles: [./model]\ndatasets: [texts.csv]\n")),
    Mistake(FIELDS, "no `datasets:`", files=job(instead="models: [./model]\n")),
    Mistake(FIELDS, "`precision: fp16`", files=job("precision: fp16")),
    Mistake(FIELDS, "`extract: {dtype: fp16}`", files=job("extract: {dtype: fp16}")),
    Mistake(FIELDS, "`extract: {max_length: 512}`", files=job("extract: {max_length: 512}")),
    Mistake(FIELDS, "`extract: {batch_size: 8}`", files=job("extract: {batch_size: 8}")),
    Mistake(FIELDS, "`num_gpus: 2`", files=job("num_gpus: 2")),
    Mistake(FIELDS, "`output_dir: out`", files=job("output_dir: out")),
    Mistake(FIELDS, "`extract: {layers: -1}`", files=job("extract: {layers: -1}")),
    Mistake(FIELDS, "`extract: {layers: [99]}`", files=job("extract: {layers: [99]}")),
    Mistake(FIELDS, "`extract: {device: gpu}`", files=job("extract: {device: gpu}")),
    Mistake(FIELDS, "`measure: {metrics: probe}`", files=job("measure: {metrics: probe}")),
    Mistake(FIELDS, "`measure: {metrics: [purty]}`", files=job("measure: {metrics: [purty]}")),
    Mistake(FIELDS, "`project: {perplexity: 30}`", files=job("project: {perplexity: 30}")),
    Mistake(FIELDS, "`run: {address: auto}`", files=job("run: {address: auto}")),
    Mistake(FIELDS, "two files of one name", files=with_datasets("[texts.csv, old/texts.csv]")),
    Mistake(FIELDS, "`datasets: {path: texts.csv}`", files=with_datasets("{path: texts.csv}")),
    Mistake(SET, "`--set extract.dtype=floot32`", "run job.yaml --set extract.dtype=floot32"),
    Mistake(SET, "`--set extrct.dtype=float32`", "run job.yaml --set extrct.dtype=float32"),
    Mistake(SET, "`--set extract.dtype`", "run job.yaml --set extract.dtype"),
    Mistake(SET, "`--set models.1.dtype=float32`", "run job.yaml --set models.1.dtype=float32"),
    Mistake(FILES, "a file that is not there", files={"texts.csv": None}),
    Mistake(FILES, "`path: texts.xlsx`", files={**with_datasets("[texts.xlsx]"), "texts.xlsx": "a"}),
    Mistake(FILES, "the sentences are in `sentence`", files=texts("sentence,city\na,b\n")),
    Mistake(FILES, "`label: lable`", files=with_datasets("[{path: texts.csv, label: lable}]")),
    Mistake(FILES, "semicolons in a .csv file", files=texts(TEXTS.replace(",", ";"))),
    Mistake(FILES, "an empty sentence", files=texts("text,label\na,x\n,y\n")),
    Mistake(FILES, "an empty file", files=texts("")),
    Mistake(FILES, "a file that is not UTF-8", files=texts("text,label\ncaf\xe9,x\n".encode("latin-1"))),
    Mistake(FILES, "a label is missing", files=texts("text,label\na,x\nb,\n")),
    Mistake(
        FILES,
        "`label_type: number` of words",
        files={
            **with_datasets("[{path: t.jsonl, label: y, label_type: number}]"),
            "t.jsonl": '{"text": "a", "y": 0.5}\n{"text": "b", "y": "high"}\n',
        },
    ),
    Mistake(FILES, "a comma without quotes", files=texts("text,label\none, two,x\n")),
    Mistake(FILES, "a sentence beyond the context", files=texts("text,label\n" + "x" * 900 + ",a\n")),
    Mistake(
        FILES, "JSON in one array", files={**with_datasets("[t.jsonl]"), "t.jsonl": '[{"text": "a"},\n{"text": "b"}]\n'}
    ),
    Mistake(FILES, "text in a .parquet file", files={**with_datasets("[t.parquet]"), "t.parquet": "text\na\n"}),
    Mistake(FILES, "`t.csv.gz` that is not compressed", files={**with_datasets("[t.csv.gz]"), "t.csv.gz": TEXTS}),
    Mistake(MODELS, "`models: [org/nmae]`, offline", files=with_model("org/nmae")),
    Mistake(MODELS, "`models: [my-model]`, a folder", files=with_model("my-model"), arrange=folder_without_dot),
    Mistake(MODELS, "`models: [./nowhere]`", files=with_model("./nowhere")),
    Mistake(MODELS, "a BERT", files=folder_of("bert")),
    Mistake(MODELS, "a T5", files=folder_of("t5")),
    Mistake(MODELS, "no safetensors", files=with_model("./bare"), arrange=bare_model(tokenizer=False)),
    Mistake(MODELS, "no tokenizer", files=with_model("./bare"), arrange=bare_model(tokenizer=True)),
    Mistake(STORES, "a job file that is not there", "run nowhere.yaml"),
    Mistake(STORES, "`drillcore show job.yaml`", "show job.yaml"),
    Mistake(STORES, "`drillcore verify job.yaml`, run before", "verify job.yaml", job(QUICK), before=EXTRACT),
    Mistake(STORES, "`drillcore run STORE`", "run runs/job.zarr", job(QUICK), before=EXTRACT),
    Mistake(STORES, "`drillcore run texts.csv`", "run texts.csv"),
    Mistake(STORES, "`drillcore show` of no store", "show runs/job.zarr"),
    Mistake(STORES, "another job's store", "extract job.yaml --set name=other", job(QUICK), before=EXTRACT),
    Mistake(STORES, "a folder of something else", files={**job("store: out"), "out/notes.txt": "mine"}),
    Mistake(STORES, "changed settings", "extract job.yaml --set extract.layers=[0]", job(QUICK), before=EXTRACT),
    Mistake(STORES, "a folder that is read only", first=NO_OVERRIDE, arrange=read_only),
    Mistake(COMMANDS, "`drillcore shwo`", "shwo"),
    Mistake(COMMANDS, "`--limt 3`", "run job.yaml --limt 3"),
    Mistake(COMMANDS, "`--limit all`", "run job.yaml --limit all"),
    Mistake(COMMANDS, "`measure` before `extract`", "measure job.yaml"),
    Mistake(COMMANDS, "`render` before `extract`", "render job.yaml"),
    Mistake(COMMANDS, "`compare` of an unknown group", "compare runs/job.zarr a b", job(QUICK), before=EXTRACT),
    Mistake(
        COMMANDS,
        "`compare` by an unknown measure",
        "compare runs/job.zarr model/texts model/texts --metric prob",
        job(QUICK),
        before=(*EXTRACT, "measure job.yaml --set measure.permutations=0"),
    ),
    Mistake(
        COMMANDS,
        "`export` of an unknown layer",
        "export runs/job.zarr --layer 99 --to npy --out a.npy",
        job(QUICK),
        before=EXTRACT,
    ),
    Mistake(
        COMMANDS,
        "`export` to an unknown format",
        "export runs/job.zarr --layer 0 --to csv --out a.csv",
        job(QUICK),
        before=EXTRACT,
    ),
    Mistake(EXTRAS, "no umap", first=without("umap")),
    Mistake(EXTRAS, "no datashader", first=without("datashader")),
    Mistake(EXTRAS, "no Ray", files=job("run: {executor: ray}"), first=without("ray")),
]
