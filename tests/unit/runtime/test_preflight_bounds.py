"""Hostile files of a model end preflight as one plain refusal: no fault, no hang, no memory, nothing written."""

from __future__ import annotations

import json
import os
import shutil
import struct
import sys
from pathlib import Path

import pytest
import yaml

from drillcore.errors import InputError
from drillcore.job.file import load_job
from drillcore.runtime.preflight import check_job
from drillcore.system.progress import Silent


class Case:
    """A job on a copy of a tiny model, to be broken."""

    def __init__(self, folder: Path, model: Path) -> None:
        self.folder, self.model = folder, folder / "model"
        shutil.copytree(model, self.model)
        (folder / "d.txt").write_text("\n".join(f"a sentence {i}" for i in range(12)), encoding="utf-8")
        self.job = {"models": [{"id": "./model", "as": "m"}], "datasets": [{"name": "d", "path": "d.txt"}]}

    def set(self, file: str, **entries: object) -> None:
        path = self.model / file
        path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), **entries}), encoding="utf-8")

    def raw(self, file: str, name: str, text: str) -> None:
        """Set an entry to JSON that Python would not write."""
        self.set(file, **{name: "@@"})
        path = self.model / file
        path.write_text(path.read_text(encoding="utf-8").replace('"@@"', text), encoding="utf-8")

    def check(self):
        (self.folder / "job.yaml").write_text(yaml.safe_dump(self.job), encoding="utf-8")
        return check_job(load_job(self.folder / "job.yaml"), Silent())

    def refused(self, *words: str) -> str:
        before = sorted(p.relative_to(self.folder) for p in self.folder.rglob("*"))
        with pytest.raises(InputError) as caught:
            self.check()
        message = str(caught.value)
        assert all(word in message for word in words), message
        after = sorted(p.relative_to(self.folder) for p in self.folder.rglob("*"))
        assert set(after) - {Path("job.yaml")} == set(before) - {Path("job.yaml")}
        return message


@pytest.fixture
def case(tmp_path, models, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "work").mkdir()
    return Case(tmp_path / "work", models())


def test_the_case_itself_is_right(case):
    assert case.check().layers == {"m": (0, 1, 2, 3, 4)}


COUNTS = {
    "num_hidden_layers": (1001, 50_000, 10**9, 2**62, 2**70, 1e300),
    "num_labels": (10**9, 2**62),
    "num_local_experts": (10**9,),
    "head_dim": (10**9, 2**62),
    "hidden_size": (10**9, 2**62, 2**70),
    "vocab_size": (10**9, 2**62),
}


@pytest.mark.parametrize("drawn", [False, True])
@pytest.mark.parametrize("name", COUNTS)
def test_a_number_that_no_model_has_is_refused_before_anything_is_built(name, drawn, case, monkeypatch):
    import transformers

    def built(*arguments, **named):
        raise AssertionError("something was built")

    monkeypatch.setattr(transformers.AutoConfig, "from_pretrained", built)
    case.job["models"][0]["random_weights"] = drawn
    for number in COUNTS[name]:
        case.set("config.json", **{name: number})
        case.refused("./model", f"config.json says {name}: ", "more than any model has")


def test_a_number_deep_in_a_configuration_is_found_too(case):
    case.set("config.json", text_config={"vision_config": [{"num_hidden_layers": 10**9}]})
    case.refused("text_config.vision_config.num_hidden_layers: 1,000,000,000")
    case.set("config.json", text_config=None, attention_types=[[["global", "local"], 10**9]])
    case.refused("attention_types: 1,000,000,000")


def test_more_layers_than_the_files_hold_tensors(case):
    case.set("config.json", num_hidden_layers=900)
    case.refused("num_hidden_layers: 900", "its files hold 30 tensors", "config.json has more layers than the files")


def test_random_weights_that_do_not_fit_into_memory(case):
    case.job["models"][0]["random_weights"] = True
    case.set("config.json", hidden_size=2**20, intermediate_size=2**20)
    case.refused("./model", "random weights would take", "GiB")


def test_a_table_of_every_position_that_does_not_fit(tmp_path, models, monkeypatch):
    """XGLM computes its positions while its weights are put together, on no device of its own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "work").mkdir()
    monkeypatch.setattr("drillcore.backends.configuration.BYTES", 2**27)
    case = Case(tmp_path / "work", models("xglm"))
    case.check()
    case.set("config.json", max_position_embeddings=4 * 10**6)
    case.refused("./model", "cannot be put together")


@pytest.fixture(autouse=True)
def usual_depth():
    """Python's own limit of recursion: PyTorch's compiler raises it for the whole process."""
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(1000)
    yield
    sys.setrecursionlimit(before)


CONFIGS = {
    "digits": ("num_hidden_layers", "9" * 4400, "a number too long to read"),
    "deep": ("rope_scaling", "[" * 100_000 + "]" * 100_000, "nested too deeply"),
    "deeper than it builds": ("rope_scaling", '{"a":' * 900 + "1" + "}" * 900, ""),
    "infinite layers": ("num_hidden_layers", "1e400", ""),
    "no layers": ("num_hidden_layers", "0", ""),
    "minus one": ("num_hidden_layers", "-1", ""),
    "text": ("num_hidden_layers", '"many"', ""),
    "half": ("hidden_size", "1.5", ""),
    "no heads": ("num_attention_heads", "0", ""),
    "architectures 5": ("architectures", "5", "architectures in its config.json must be a list of names"),
    "architectures [5]": ("architectures", "[5]", "architectures in its config.json must be a list of names"),
    "auto_map": ("auto_map", "[5]", "auto_map in its config.json must be an object"),
    "weights 5": ("transformers_weights", "5", "transformers_weights in its config.json must be the name of a file"),
    "weights outside": ("transformers_weights", '"../model.safetensors"', "must be the name of a file there"),
    "type": ("model_type", "[]", ""),
    "sub_configs": ("sub_configs", "[5]", ""),
    "quantised": ("quantization_config", "5", ""),
}


@pytest.mark.parametrize("what", CONFIGS)
def test_a_configuration_of_any_shape(what, case, capfd):
    name, text, said = CONFIGS[what]
    case.raw("config.json", name, text)
    case.refused("./model", said)
    assert capfd.readouterr().err == ""


def socket_at(path: Path) -> None:
    import socket

    with socket.socket(socket.AF_UNIX) as opened:
        here = Path.cwd()
        os.chdir(path.parent)
        opened.bind(path.name)
        os.chdir(here)


ODD = {
    "pipe": os.mkfifo,
    "device": lambda path: path.symlink_to("/dev/zero"),
    "broken link": lambda path: path.symlink_to("nothing"),
    "loop": lambda path: path.symlink_to(path.name),
    "folder": lambda path: path.mkdir(),
    "socket": socket_at,
}
FILES = ("config.json", "model.safetensors", "model.safetensors.index.json", "tokenizer.json", "tokenizer_config.json")
OTHERS = ("generation_config.json", "chat_template.jinja", "special_tokens_map.json", "other.safetensors", "vocab.json")


@pytest.mark.parametrize("kind", ODD)
def test_a_file_of_another_kind(kind, case):
    for name in (*FILES, *OTHERS):
        kept = case.model / f"{name}.kept"
        path = case.model / name
        if path.exists():
            path.rename(kept)
        ODD[kind](path)
        case.refused("./model", name)
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        if kept.exists():
            kept.rename(path)
    case.check()


SHAPES = ("", "[]", "null", "5", '"x"', "[" * 100_000, '{"a":' * 50_000, "9" * 5000, "\x00\xff", "1e400")


@pytest.mark.parametrize(
    "name", ["config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors.index.json"]
)
def test_a_json_file_of_another_shape(name, case, capfd):
    if name.endswith("index.json"):
        (case.model / "model.safetensors").rename(case.model / "a.safetensors")
    for text in SHAPES:
        (case.model / name).write_text(text, encoding="utf-8")
        case.refused("model")
    (case.model / name).touch()
    os.truncate(case.model / name, 2**33)
    case.refused("./model", name, "more than the")
    assert "panicked" not in capfd.readouterr().err


INDEXES = {
    "outside": "../outside.safetensors",
    "absolute": "/tmp/a.safetensors",
    "folder": "sub/a.safetensors",
    "missing": "b.safetensors",
    "NUL": "a\0b",
    "long": "x" * 5000,
    "none": "",
    "null": None,
    "number": 5,
    "list": ["a.safetensors"],
    "control": "\x1b[31m",
}


@pytest.mark.parametrize("what", INDEXES)
def test_an_index_names_files_of_its_folder_only(what, case):
    weights = case.model / "a.safetensors"
    (case.model / "model.safetensors").rename(weights)
    shutil.copy(weights, case.folder / "outside.safetensors")
    (case.model / "sub").mkdir()
    shutil.copy(weights, case.model / "sub")
    index = {"metadata": {}, "weight_map": {"lm_head.weight": INDEXES[what]}}
    (case.model / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    case.refused("./model", "model.safetensors.index.json")


@pytest.mark.parametrize(
    "index",
    [{"metadata": 5, "weight_map": {"a": "a.safetensors"}}, {"metadata": {}, "weight_map": {}}, {"metadata": {}}, {}],
)
def test_an_index_that_says_nothing(index, case):
    (case.model / "model.safetensors").rename(case.model / "a.safetensors")
    (case.model / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    case.refused("it must hold `metadata` and `weight_map`")


def entry(shape, stop=4, dtype="F32"):
    return {"dtype": dtype, "shape": shape, "data_offsets": [0, stop]}


HEADERS = {
    "empty": b"",
    "list": b"[]",
    "deep": b"[" * 100_000,
    "no tensor": b"{}",
    "huge shape": {"a": entry([2**62, 4])},
    "no values, huge stride": {"model.norm.weight": entry([0, 2**62, 2**62], 0)},
    "unknown type": {"a": entry([1], dtype="Q4")},
    "many dimensions": {"a": entry([1] * 5000)},
    "digits": b'{"a":{"dtype":"F32","shape":[' + b"9" * 5000 + b'],"data_offsets":[0,4]}}',
}


@pytest.mark.parametrize("what", HEADERS)
def test_a_header_of_any_shape(what, case):
    header = HEADERS[what]
    header = header if isinstance(header, bytes) else json.dumps(header).encode()
    (case.model / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + b"\0" * 4)
    case.refused("./model")


def test_a_header_longer_than_its_file(case):
    for length in (1, 2**40, 2**63):
        (case.model / "model.safetensors").write_bytes(struct.pack("<Q", length) + b"{}")
        case.refused("./model", "model.safetensors")


LOOP = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
TEMPLATES = {
    "fails": "{{ raise_exception('no') }}",
    "divides by zero": "{{ 1 // 0 }}",
    "no template": "{% if",
    "calls itself": "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "never ends": LOOP,
    "never ends for a sentence": "{% if messages[0].content != 'a' %}" + LOOP + "{% endif %}{{ messages[0].content }}",
    "writes without end": "{% for a in range(99999) %}{% for b in range(99999) %}xxxxxxxx{% endfor %}{% endfor %}",
    "gigabytes": "{{ 'x' * 10000000000 }}",
    "centred": "{{ 'x'.center(9999999999) }}",
    "formatted": "{{ '%9999999999d' % 1 }}",
    "doubled": "{% set l = namespace(a='x') %}{% for i in range(60) %}{% set l.a = l.a ~ l.a %}{% endfor %}{{ l.a }}",
    "indented": "{{ ('x\n' * 10000) | indent(1000000) }}",
    "JSON": "{{ messages | tojson(indent=999999999) }}",
    "a large number": "{{ (2 ** 100000) ** 10000 }}",
    "beyond every context": "{{ 'x' * 5000000 }}",
    "half of a pair": "{{ '\\ud800' }}",
    "nothing": "",
}


@pytest.mark.parametrize("what", TEMPLATES)
def test_a_chat_template_is_a_program(what, case, monkeypatch):
    monkeypatch.setattr("drillcore.tokens.tokenizer.TEMPLATE_SECONDS", 0.3)
    case.set("tokenizer_config.json", chat_template=TEMPLATES[what])
    case.job["datasets"][0]["template"] = "chat"
    case.refused()


@pytest.mark.parametrize("template", [[1], {"a": 1}, 5, True, [[["a"]]], [{"name": "x", "template": 5}]], ids=str)
def test_a_chat_template_of_another_shape(template, case):
    case.set("tokenizer_config.json", chat_template=template)
    case.job["datasets"][0]["template"] = "chat"
    case.refused()


VALUES = {
    "tokenizer_class": (5, [], {}, "Nope"),
    "bos_token": (5, [], {"content": 5}),
    "added_tokens_decoder": ([], 5, {"x": {"content": "a"}}, {"5": 5}),
    "extra_special_tokens": (5, [5]),
    "auto_map": (5,),
    "model_max_length": ("x", []),
}


@pytest.mark.parametrize("name", VALUES)
def test_settings_of_a_tokenizer_of_another_shape(name, case):
    """Each is refused, or changes nothing."""
    config = (case.model / "tokenizer_config.json").read_text(encoding="utf-8")
    for value in VALUES[name]:
        (case.model / "tokenizer_config.json").write_text(config, encoding="utf-8")
        case.set("tokenizer_config.json", **{name: value})
        try:
            case.check()
        except InputError as error:
            assert "tokenizer" in str(error)


def plain_token(number):
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {"id": number, "content": "zzz", "special": True, **flags}


VOCABULARIES = {
    "a huge id": lambda t: t["model"]["vocab"].update(a=2**31),
    "an id beyond all": lambda t: t["model"]["vocab"].update(a=2**32 - 1),
    "an id of 2^62": lambda t: t["model"]["vocab"].update(a=2**62),
    "a huge added id": lambda t: t.update(added_tokens=[plain_token(2**31)]),
    "a huge id around": lambda t: t["post_processor"]["special_tokens"]["<s>"].update(ids=[2**31]),
    "a million around": lambda t: t["post_processor"]["special_tokens"]["<s>"].update(
        ids=[1] * 10**6, tokens=["<s>"] * 10**6
    ),
    "a panic": lambda t: t["post_processor"].update(special_tokens={}),
    "no vocabulary": lambda t: t["model"].update(vocab=[]),
    "negative": lambda t: t["model"]["vocab"].update(a=-1),
    "no model": lambda t: t.update(model=None),
}


@pytest.mark.parametrize("what", VOCABULARIES)
def test_a_vocabulary_of_any_shape(what, case, capfd):
    path = case.model / "tokenizer.json"
    tokenizer = json.loads(path.read_text(encoding="utf-8"))
    VOCABULARIES[what](tokenizer)
    path.write_text(json.dumps(tokenizer), encoding="utf-8")
    case.refused("tokenizer")
    assert capfd.readouterr().err == ""


def test_links_in_a_circle(case, monkeypatch, capsys):
    """Wherever a path is named: model, texts, store, and the folder beside it."""
    from drillcore.cli.main import main

    (case.folder / "circle").symlink_to("circle")
    for model in ("./circle", "./circle/below"):
        case.job["models"] = [{"id": model, "as": "m"}]
        case.refused(model)
    case.job["models"] = [{"id": "./model", "as": "m"}]
    for path in ("circle", "circle/d.txt", "circle.txt"):
        case.job["datasets"][0]["path"] = path
        case.refused(path)
    monkeypatch.chdir(case.folder)
    for arguments in (
        *(["extract", "job.yaml", "--store", "circle"], ["extract", "job.yaml", "--store", "circle/a.zarr"]),
        *(["extract", "job.yaml", "--out", "circle"], ["extract", "circle"], ["extract", "circle/job.yaml"]),
        *(["show", "circle"], ["show", "circle/a.zarr"], ["verify", "circle"], ["verify", "circle/a.zarr"]),
        *(["rm", "circle", "m"], ["compare", "circle", "a", "b"]),
        ["export", "circle", "--layer", "1", "--to", "npy", "--out", "a"],
    ):
        monkeypatch.setattr("sys.argv", ["drillcore", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code == 2 and "bug in drillcore" not in capsys.readouterr().err, arguments
