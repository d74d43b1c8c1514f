"""Templates over several fields: each writes the texts of a dataset of its own, and paraphrases share their nodes."""

from __future__ import annotations

import base64
import binascii
import contextlib
import json
import random
import re
import zlib
from collections.abc import Iterator

import numpy as np
import pytest

from support.crashes import KILL_BEFORE_FINGERPRINT
from support.placed import Plain, errors, run_job
from support.runs import snapshot

pytest_plugins = ["support.run_fixtures"]
TEMPLATES = {
    "short": "{{ passage }}\nQ: {{ question }} A:",
    "long": "{{ passage }}\n{% if hint %}Hint: {{ hint }}\n{% endif %}Answer {{ question }} with one word:",
    "first": "{{ passage }}\n{{ options[0] }} or {{ options | last }}? {{ question }}",
}
WORDS = ("the", "old", "river", "runs", "north", "of", "a", "town", "nobody", "knows", "and", "every", "boat", "late")
EXPORT = ("--group", "m/d~first", "--layer", "-1", "--to", "parquet", "--out", "first.parquet")


def rows_of(seed: int, count: int) -> list[dict]:
    """Rows with several fields; the passages share nothing with each other."""
    draw = random.Random(seed)
    return [
        {
            "passage": f"{number} " + " ".join(draw.choices(WORDS, k=20)),
            "question": f"who went {draw.choice(WORDS)}?",
            "hint": draw.choice([None, "", "a boat"]),
            "options": draw.sample(WORDS, 3),
            "label": "ab"[number % 2],
        }
        for number in range(count)
    ]


def rendered(row: dict) -> dict[str, str]:
    """What the templates write, by hand."""
    hint = f"Hint: {row['hint']}\n" if row["hint"] else ""
    passage, question, options = row["passage"], row["question"], row["options"]
    return {
        "short": f"{passage}\nQ: {question} A:",
        "long": f"{passage}\n{hint}Answer {question} with one word:",
        "first": f"{passage}\n{options[0]} or {options[2]}? {question}",
    }


def save(path, rows) -> None:
    path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")


@pytest.fixture
def prompted(new_work, seed):
    """A job of three templates over one file."""

    def make(name="work", count=40, *, templates=TEMPLATES, backend="transformers", sizes="", **dataset):
        work = new_work(name, seed=seed, backend=backend)
        work.job["datasets"] = [{"name": "d", "path": "d.jsonl", "templates": templates, **dataset}]
        if sizes == "auto":
            work.job["extract"] |= {"shard_sentences": "auto", "block_sentences": "auto"}
        work.texts("d", rows_of(seed, count))
        work.save()
        return work

    return make


@pytest.mark.parametrize("layout", ["packed", "padded"])
def test_each_is_its_string_alone(layout, models, tmp_path, seed):
    folder, rows = models(), rows_of(seed, 21)
    save(tmp_path / "d.jsonl", rows)
    dataset = {
        "path": "d.jsonl",
        "text": "passage",
        "templates": {**TEMPLATES, "plain": "{text} Why?"},
        "keep": ["question"],
    }
    tree = run_job(
        tmp_path, str(folder), dataset, ["last", "mean"], layout=layout, shard_sentences=8, block_sentences=16
    )
    names = [*TEMPLATES, "plain"]
    assert sorted(tree.children) == sorted([*(f"d~{n}" for n in names), *(f"d~{n}~mean" for n in names)])
    plain = Plain(folder)
    for name in names:
        found, of_means = tree[f"d~{name}"].to_dataset(), tree[f"d~{name}~mean"].to_dataset()
        texts = [rendered(row).get(name, row["passage"]) for row in rows]
        assert found.text.values.tolist() == texts
        encoded = [text + " Why?" if name == "plain" else text for text in texts]
        want = [plain.states(plain.tokenizer(text)["input_ids"]).astype(np.float64) for text in encoded]
        assert errors(found.hidden_states.values, np.stack([states[-1] for states in want])).max() <= 1e-5, name
        assert errors(of_means.hidden_states.values, np.stack([s[1:].mean(0) for s in want])).max() <= 1e-5, name
        assert found.label.values.tolist() == [row["label"] for row in rows]


def test_branches_and_places_are_those_of_what_is_written(models, tmp_path, seed):
    folder, rows = models(), rows_of(seed, 9)
    save(tmp_path / "d.jsonl", rows)
    dataset = {"path": "d.jsonl", "template": TEMPLATES["short"], "branches": {"sure": "{text} Sure?"}}
    tree = run_job(tmp_path, str(folder), dataset, ["last", {"text": "question", "name": "asked"}])
    plain, texts = Plain(folder), [rendered(row)["short"] for row in rows]
    assert sorted(tree.children) == ["d", "d~asked", "d~sure"]
    assert tree["d"].text.values.tolist() == tree["d~sure"].text.values.tolist() == texts
    want = np.stack([plain.states(plain.tokenizer(text + " Sure?")["input_ids"])[-1] for text in texts])
    assert errors(tree["d~sure"].hidden_states.values, want).max() <= 1e-5
    for n, (row, text) in enumerate(zip(rows, texts, strict=True)):
        start = text.index(row["question"])
        ids = plain.tokenizer(text)["input_ids"]
        token = plain.over(ids, text, start, start + len(row["question"]))[-1]
        assert errors(tree["d~asked"].hidden_states.values[n], plain.states(ids)[token]).max() <= 1e-5


def test_templates_that_are_projected_together_share_no_graph_of_one_alone():
    from drillcore.job.fields import Job
    from drillcore.runtime.stages.graphs import graphs_of

    job = {"models": ["./m"], "datasets": {"d": {"path": "d.csv", "templates": TEMPLATES}}}
    # The writer is not asked: nothing of one group alone is of use.
    assert graphs_of(Job.model_validate(job | {"project": {"fit": "joint"}}), object()) is None
    with pytest.raises(AttributeError):
        graphs_of(Job.model_validate(job), object())


def inflated(page: str) -> Iterator[str]:
    """What a report holds deflated: texts and numbers."""
    for blob in re.findall(r"[A-Za-z0-9+/]{24,}={0,2}", page):
        with contextlib.suppress(binascii.Error, zlib.error):
            yield zlib.decompress(base64.b64decode(blob)).decode(errors="replace")


def plan_of(work) -> tuple[dict[str, list[str]], str]:
    """The rows of a plan by their dataset, and all that it prints."""
    plan = work.forge.run("plan", "job.yaml", "--no-calibrate", cwd=work.folder)
    assert plan.status == 0, plan.err
    return {line.split()[1]: line.split() for line in plan.out.splitlines() if line.startswith("m ")}, plan.out


def test_nodes_are_those_of_the_plan_and_fewer_than_alone(prompted):
    """With the sizes of blocks and shards that a job has by itself."""
    alone = 0
    for name, template in TEMPLATES.items():
        single = prompted(name, template=template, templates={}, sizes="auto")
        single.finish()
        alone += single.manifest["models"]["m"]["extract"]["nodes"]
    work = prompted(sizes="auto")
    planned, printed = plan_of(work)
    work.finish()
    facts = work.manifest["models"]["m"]["extract"]
    assert facts["sentences"] == 3 * 40
    assert facts["nodes"] == int(planned["d~short"][4].replace(",", ""))
    passages = sum(len(row["passage"].encode()) for row in rows_of(0, 40))
    assert facts["nodes"] < alone - 1.5 * passages, (facts, alone)
    assert "with d~short" in printed and all(f"m/d~{name}, the first sentence" in printed for name in TEMPLATES), (
        printed
    )


def test_from_a_job_file_to_an_opened_store(prompted):
    import drillcore

    work = prompted(split="half", keep=["question"], expected_next="then")
    rows = rows_of(1, 40)
    work.texts("d", [{**row, "half": "train" if n < 30 else "test", "then": " yes"} for n, row in enumerate(rows)])
    work.job |= {"measure": {"permutations": 9}, "project": {"method": "pca"}}
    work.save()
    run = work.forge.run("run", "job.yaml", cwd=work.folder)
    assert run.status == 0, run.err
    opened = drillcore.open(work.store)["m"]
    assert sorted(opened.children) == ["d~first", "d~long", "d~short"]
    for name in TEMPLATES:
        states = opened[f"d~{name}"].to_dataset()
        assert states.text.values.tolist() == [rendered(row)[name] for row in rows]
        assert states.question.values.tolist() == [row["question"] for row in rows]
        assert states.half.values.tolist()[29:31] == ["train", "test"] and "next_token" in states
    page = (work.beside / "report.html").read_text(encoding="utf-8")
    assert all(f"d~{name}" in page for name in TEMPLATES)
    told = json.loads(page.split('id="meta">')[1].split("</script>")[0])["datasets"]
    assert [part["name"] for part in told] == [f"d~{name}" for name in TEMPLATES]
    for part in told:
        (notes,) = inflated(page.split(f'id="{part["notes"]}">')[1].split("</script>")[0])
        assert json.loads(notes) == ["expected next:  yes"] * 40
    for command in (
        ("verify", "runs/job.zarr"),
        ("show", "runs/job.zarr"),
        ("compare", "runs/job.zarr", "m/d~short", "m/d~long"),
        ("export", "runs/job.zarr", *EXPORT),
    ):
        done = work.forge.run(*command, cwd=work.folder)
        assert done.status == 0, (command, done.out, done.err)
    assert "up to date" in work.finish().err
    moved = work.forge.run("mv", "runs/job.zarr", "m/d", "e", cwd=work.folder)
    assert moved.status == 0 and "moved m/d~long to m/e~long" in moved.out, moved.err
    work.job["datasets"][0]["name"] = "e"
    work.save()
    assert "up to date" in work.finish().err
    kept, values = work.committed(), work.values()
    removed = work.forge.run("rm", "runs/job.zarr", "m/e~long", cwd=work.folder)
    assert removed.status == 0, removed.err
    work.finish()
    assert {key: now for key, now in work.committed().items() if "~long" not in key} == {
        key: then for key, then in kept.items() if "~long" not in key
    }
    assert np.array_equal(work.values()["m/e~long"], values["m/e~long"])


@pytest.mark.parametrize("backend", ["fake", "transformers"])
def test_rows_that_are_added_are_the_only_ones_computed(backend, prompted, seed):
    work = prompted(count=30, backend=backend)
    work.finish()
    values = work.values()
    work.texts("d", rows_of(seed, 35))
    work.finish()
    assert work.extracted() == 3 * 5
    assert all(np.array_equal(now[:30], values[path]) for path, now in work.values().items())
    verify = work.forge.run("verify", "runs/job.zarr", cwd=work.folder)
    assert verify.status == 0, verify.out


def test_a_template_that_is_added_leaves_the_others(prompted):
    work = prompted(templates={name: TEMPLATES[name] for name in ("short", "long")}, backend="fake")
    work.finish()
    kept = work.committed()
    work.job["datasets"][0]["templates"] = TEMPLATES
    work.save()
    work.finish()
    now = work.committed()
    assert {key: now[key] for key in kept} == kept and len(now) > len(kept)
    changed = {**TEMPLATES, "long": TEMPLATES["long"].replace("one word", "a word")}
    work.job["datasets"][0]["templates"] = changed
    work.save()
    refused = work.run()
    assert refused.status == 2 and "40 of 40 sentences are others" in refused.err, refused.err
    assert work.committed() == now


def test_killed_and_resumed(prompted):
    want = prompted("whole")
    want.finish()
    work = prompted("killed")
    for nth in (2, 4):
        assert work.run(first=KILL_BEFORE_FINGERPRINT.format(nth=nth)).status != 0
    work.finish()
    assert work.states() == want.states()


def test_python_gives_a_tree(models):
    import drillcore

    templates = {"asked": "{{ text }} {{ who }}?", "short": "{text}!"}
    tree = drillcore.extract(str(models()), ["Ada", "Bo"], fields={"who": ["why", "how"]}, templates=templates)
    assert sorted(tree) == ["asked", "short"]
    assert tree["asked"].text.values.tolist() == ["Ada why?", "Bo how?"]
    alone = drillcore.extract(str(models()), ["Ada why?", "Bo how?"])
    assert errors(tree["asked"].hidden_states.values, alone.hidden_states.values).max() <= 1e-5
    single = drillcore.extract(
        str(models()), ["Ada", "Bo"], fields={"who": ["why", "how"]}, template="{{ who }} {{ text }}"
    )
    assert single.text.values.tolist() == ["why Ada", "how Bo"]
    asked = drillcore.extract(str(models()), ["Ada", "Bo"], branches={"q": "{text} why?"})
    assert sorted(asked) == ["last", "q"] and not np.array_equal(asked["q"].hidden_states, asked["last"].hidden_states)


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        ({"templates": {"a": "{{ passage", "b": "{{ question }}"}}, "templates: a: line 1: unexpected end of template"),
        ({"template": "{{ passage }}\n{% endif %}"}, "template: line 2: encountered unknown tag 'endif'"),
        ({"template": "{{ pasage }}"}, "no field `pasage`; there is"),
        ({"template": "{{ pasage }}"}, "did you mean `passage`?"),
        ({"template": "{{ passage }} {{ hint }}"}, "template: the field `hint` is null; `{{ hint or '' }}`"),
        ({"template": "{{ passage }} {text}"}, "holds {text} beside Jinja's {{ }}"),
        ({"template": "{{ passage }} {{ options }}"}, "writes a list, which is no text"),
        ({"template": "{{ passage }} {{ passage.__class__ }}"}, "access to attribute '__class__'"),
        ({"template": "{{ passage | random }}"}, "no filter named 'random'"),
        ({"template": "{% for n in range(10**5) %}{% for m in range(10**5) %}{% endfor %}{% endfor %}{{ passage }}"},
         "took more than 2 seconds of processor time"),
        ({"templates": {"a": "{{ passage }}"}, "branches": {"q": "{text}?"}}, "does not go with `branches`"),
        ({"templates": {"a": "{{ passage }}"}, "template": "{{ passage }}"}, "does not go with `template`"),
        ({"templates": {"a~b": "{{ passage }}"}}, "may hold letters"),
        ({"templates": {"mean": "{{ passage }}"}, "positions": ["last", "mean"]}, "of a position and of a template"),
        ({"template": "{{ passage }}", "text": "passage"}, "text: 'passage' is not read"),
        ({"templates": {"a": "{{ passage }}", "b": "{{ hint }}"}, "empty": "drop"}, "rows with a text and d~a has 12"),
        ({"templates": {"a": "{{ passage if label == 'a' }}", "b": "{{ passage if label == 'b' }}"}, "empty": "drop"},
         "d~a, d~b leave out different rows"),
    ],
)  # fmt: skip
def test_wrong_templates_are_refused_before_anything_is_written(dataset, message, prompted):
    work = prompted(count=12, templates={}, backend="fake")
    del work.job["datasets"][0]["templates"]
    work.job["datasets"][0] |= dataset
    work.save()
    before = snapshot(work.folder)
    refused = work.run()
    assert refused.status == 2 and message in refused.err, refused.err
    assert snapshot(work.folder) == before
