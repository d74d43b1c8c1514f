"""Wrong input ends with exit status 2 and one plain message, and nothing is written."""

from __future__ import annotations

import json
import shutil

import pytest
import yaml

from support.runs import sentences, snapshot

pytest_plugins = ["support.run_fixtures"]


@pytest.fixture
def work(new_work):
    return new_work(count=20)


def refused(work, *fragments, more=()):
    """The run is refused, says so plainly with all fragments, and leaves nothing."""
    before = snapshot(work.folder)
    command = work.run(*more)
    assert command.status == 2, (command.status, command.out, command.err)
    assert command.err.startswith("drillcore: ") and command.err.count("drillcore: ") == 1
    assert "Traceback" not in command.out + command.err and "bug in drillcore" not in command.err
    for fragment in fragments:
        assert fragment in command.err, command.err
    assert snapshot(work.folder) == before, "something was written"
    return command.err


def test_unknown_field_names_the_nearest(work):
    work.job["extract"]["layer"] = "all"
    work.save()
    refused(work, "job.yaml:", "extract.layer", "did you mean `layers`?")


def test_a_mistake_in_the_only_dataset_is_one_mistake(work):
    work.job["datasets"][0]["limt"] = 3
    work.save()
    assert refused(work, "datasets.0.limt", "did you mean `limit`?").count("job.yaml:") == 1


def test_a_mistake_in_a_dataset_named_by_its_key_has_its_own_line(work):
    first = work.job["datasets"][0]
    fields = {k: v for k, v in first.items() if k != "name"}
    work.job["datasets"] = {first["name"]: fields, "other": {**fields, "limt": 3}, "third": 3}
    work.save()
    lines = (work.folder / "job.yaml").read_text().splitlines()
    at = {
        word: next(i for i, line in enumerate(lines, 1) if line.strip().startswith(word)) for word in ("limt", "third")
    }
    refused(work, f"job.yaml:{at['limt']}: datasets.other.limt", f"job.yaml:{at['third']}: datasets.third.path")


def test_unknown_field_at_the_top(work):
    work.job["modles"] = work.job.pop("models")
    work.save()
    refused(work, "modles", "did you mean `models`?", "models: is required")


def test_every_mistake_at_once_each_with_its_line(work):
    work.job["extract"] |= {"dtype": "float8", "layers": ["last"]}
    work.job["datasets"][0]["limit"] = 0
    work.save()
    message = refused(work, "extract.dtype", "datasets.0.limit")
    assert message.count("job.yaml:") >= 3


def test_no_job_file(work):
    work.file = "nothing.yaml"
    refused(work, "there is no job file nothing.yaml")


@pytest.mark.parametrize("text", ["models: [", "- a\n- b\n", "", "models: &a [*a]\n", "a: b: c", "\x00"])
def test_a_file_that_is_not_a_job(work, text):
    (work.folder / "job.yaml").write_text(text, encoding="utf-8")
    refused(work, "job.yaml")


def test_a_field_given_twice(work):
    with (work.folder / "job.yaml").open("a", encoding="utf-8") as stream:
        stream.write("extract: {layers: all}\n")
    refused(work, "`extract` is given twice")


def test_missing_file(work):
    (work.folder / "d.jsonl").unlink()
    refused(work, "d.jsonl")


def test_a_folder_for_a_file(work):
    (work.folder / "d.jsonl").unlink()
    (work.folder / "d.jsonl").mkdir()
    refused(work, "d.jsonl")


def test_malformed_lines_with_their_numbers(work):
    lines = (work.folder / "d.jsonl").read_text(encoding="utf-8").splitlines()
    lines[4], lines[9] = "{not json", "[1, 2]"
    (work.folder / "d.jsonl").write_text("\n".join(lines), encoding="utf-8")
    refused(work, "d.jsonl:5: ", "d.jsonl:10: ")


@pytest.mark.parametrize("content", ["", "\n\n"])
def test_empty_file(work, content):
    (work.folder / "d.jsonl").write_text(content, encoding="utf-8")
    refused(work, "d.jsonl")


@pytest.mark.parametrize("text", ["", "   ", None, 7])
def test_empty_sentence(work, text):
    rows = sentences(0, 20)
    rows[6]["text"] = text
    work.texts("d", rows)
    refused(work, "d.jsonl:7: ", "text")


def test_a_sentence_beyond_the_context(work):
    rows = sentences(0, 20)
    rows[3]["text"] = "x" * 900
    work.texts("d", rows)
    refused(work, "sentence 3", "has 901 tokens", "512", "truncate")


def test_a_sentence_beyond_the_context_is_truncated_and_counted(work):
    rows = sentences(0, 20)
    rows[3]["text"] = "x" * 900
    work.texts("d", rows)
    work.job["extract"]["too_long"] = "truncate"
    work.save()
    assert "1 sentence truncated to 512 tokens" in work.finish().err


def test_a_sentence_beyond_every_context(work):
    rows = sentences(0, 20)
    rows[3]["text"] = "x" * 100_000_000
    work.texts("d", rows)
    refused(work, "d.jsonl: sentence 3 has 100,000,000 characters", "Split it")


@pytest.mark.parametrize("field", ["label", "group", "expected_next", "text", "keep"])
def test_a_field_absent_from_a_row(work, field):
    rows = [{"text": "a", "L": "x", "G": "y", "E": " z", "K": 1} for _ in range(8)]
    name = {"label": "L", "group": "G", "expected_next": "E", "text": "text", "keep": "K"}[field]
    del rows[5][name]
    work.texts("d", rows)
    work.job["datasets"][0][field] = [name] if field == "keep" else name
    work.save()
    refused(work, "d.jsonl:6: ", name)


def test_duplicate_dataset_name(work):
    work.job["datasets"] *= 2
    work.save()
    refused(work, "datasets: d is named twice")


def test_duplicate_model_name(work):
    work.job["models"] *= 2
    work.save()
    refused(work, "models: m is named twice", "`as:`")


@pytest.mark.parametrize("model", ["./nowhere", "no-such-org/no-such-model", "demo/nothing", "odd id?*", "a/b/c/d"])
def test_unknown_model(work, model):
    work.job["models"] = [{"id": model}]
    work.save()
    refused(work, model)


def test_a_model_that_is_not_a_causal_decoder(work):
    for name, kind in (("encoder", "bert"), ("both", "t5")):
        folder = work.folder / name
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps({"model_type": kind}), encoding="utf-8")
    reasons = {"encoder": "not a causal decoder", "both": "an encoder with a decoder, not a decoder alone"}
    for name, reason in reasons.items():
        work.job["models"] = [{"id": f"./{name}"}]
        work.save()
        refused(work, reason)


def test_a_broken_model_directory(work):
    folder = work.folder / "broken"
    folder.mkdir()
    for text in ("", "{", "[]", '{"model_type": "nonsense"}', '{"model_type": "llama"}'):
        (folder / "config.json").write_text(text, encoding="utf-8")
        work.job["models"] = [{"id": "./broken"}]
        work.save()
        refused(work, "./broken" if "llama" not in text else "no safetensors weights")
    shutil.copy(next(work.forge.model.glob("*.safetensors")), folder)
    refused(work, "its files lack 261 of the weights", "model.layers.3.* (9)", "config.json has more layers")
    shutil.copy(work.forge.model / "config.json", folder)
    refused(work, "tokenizer")


def test_a_layer_out_of_range(work):
    work.job["extract"]["layers"] = [0, 9]
    work.save()
    refused(work, "layer 9 is out of range", "0 (embed) to 4 (final_norm)")


def test_a_store_that_is_a_file(work):
    work.store.parent.mkdir()
    work.store.write_text("precious", encoding="utf-8")
    refused(work, "is a file")


@pytest.mark.parametrize("what", ["text", "zarr group", "zarr array", "zarr below"])
def test_a_store_that_is_not_ours(work, what):
    import zarr

    if what == "text":
        work.store.mkdir(parents=True)
        (work.store / "thesis.txt").write_text("precious", encoding="utf-8")
    elif what == "zarr group":
        zarr.create_group(work.store, attributes={"mine": True})
    elif what == "zarr array":
        zarr.create_array(work.store, shape=(3,), dtype="int8")
    else:
        zarr.create_array(work.store / "below", shape=(3,), dtype="int8")
    refused(work, "is not a drillcore store")


def test_a_store_of_another_job(work):
    work.finish()
    before, manifest = snapshot(work.store), (work.beside / "manifest.json").read_bytes()
    work.job["name"] = "another"
    work.save()
    command = work.run()
    assert command.status == 2 and "belongs to the job job, not another" in command.err
    assert snapshot(work.store) == before and (work.beside / "manifest.json").read_bytes() == manifest


def test_a_store_of_another_format(work):
    work.finish()
    document = json.loads((work.store / "zarr.json").read_text(encoding="utf-8"))
    document["attributes"]["format"] = 99
    (work.store / "zarr.json").write_text(json.dumps(document), encoding="utf-8")
    before = snapshot(work.store)
    command = work.run()
    assert command.status == 2 and "has format 99, this version reads formats 1 and 2" in command.err
    assert snapshot(work.store) == before


def test_wrong_input_leaves_a_good_store_as_it_is(work):
    work.finish()
    rows = sentences(0, 20)
    rows[2]["text"] = " "
    work.texts("d", rows)
    refused(work, "d.jsonl:3: ")


@pytest.mark.parametrize(
    "more", [("--set", "extract.layers"), ("--set", "extract.no=1"), ("--limit", "0"), ("--what",)]
)
def test_wrong_arguments(work, more):
    refused(work, more=more)


@pytest.mark.parametrize("store", ["s3://", "s3://bucket", "s3://UPPER/x.zarr", "s3://bucket/a/../b", "s3://a:b@c/d"])
def test_wrong_address(work, store):
    work.job["store"] = store
    work.save()
    refused(work, "credentials" if "@" in store else store)


def test_the_job_file_may_be_anywhere(work):
    """Relative paths are the job file's: the same job from another folder is the same."""
    (work.folder / "below").mkdir()
    command = work.forge.run("extract", "../job.yaml", cwd=work.folder / "below")
    assert command.status == 0, command.err
    assert yaml.safe_load((work.folder / "job.yaml").read_text(encoding="utf-8")) == work.job


def test_a_budget_of_tokens_below_a_pack_is_said(new_work):
    work = new_work(count=20, backend="transformers")
    work.job["extract"]["batch_tokens"] = 4
    work.save()
    command = work.finish()
    assert "extract.batch_tokens is 4: a pass computes 64 tokens or more" in command.out + command.err
    work.job["extract"]["batch_tokens"] = 64
    work.save()
    assert "extract.batch_tokens" not in work.finish("--store", "other.zarr").out
