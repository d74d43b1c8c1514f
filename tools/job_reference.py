"""Writes docs/reference/job.md from the models of a job: every field with its meaning, values, default and an example.

    python -m tools.job_reference

Meanings and defaults stand at the fields in engine/drillcore/job, examples in tools/job_examples.py. A field without
either ends it with 1 and a line that names it.
"""

from __future__ import annotations

import json
import sys
import textwrap
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from drillcore.job.common import MOST
from drillcore.job.extract import Extract
from drillcore.job.fields import Job
from drillcore.job.inputs import Dataset, SplitOf
from drillcore.job.model import Model
from drillcore.job.positions import AllOf, MeanOf, Position, TurnsOf
from drillcore.job.stages import Measure, Project, Render, Run
from tools.job_examples import EXAMPLES

PAGE = Path("docs/reference/job.md")
HEAD = """\
# Job reference

Every field of a job file, made from the models that check it (`make reference`). All paths are relative to the job
file. A field that is left out has its default; an unknown field is refused with the nearest name. For one command,
`--set extract.dtype=float32` overrides a field, `--set datasets.0.limit=100` one in a list. Editors complete and check
job files that begin with `# yaml-language-server: $schema=` and the path or address of `schemas/job.schema.json`, which
`drillcore schema job` prints.

Each example is a part of a job that is valid with the rest.
"""
# What each model of fields is called in a job, what its fields stand below, and what an example begins with.
SECTIONS: list[tuple[str, type[BaseModel], str, str]] = [
    ("The job", Job, "", ""),
    ("Fields of models", Model, "models", "models:\n  - id: ./my-model\n"),
    ("Fields of datasets", Dataset, "datasets", "datasets:\n  - name: cities\n    path: cities.csv\n"),
    ("Fields of split", SplitOf, "datasets.split", ""),
    ("Fields of extract", Extract, "extract", "extract:\n"),
    ("Fields of positions", Position, "positions", "extract:\n  positions:\n"),
    ("Fields of mean", MeanOf, "positions.mean", "extract:\n  positions:\n"),
    ("Fields of all", AllOf, "positions.all", "extract:\n  positions:\n"),
    ("Fields of turns", TurnsOf, "positions.turns", ""),
    ("Fields of measure", Measure, "measure", "measure:\n"),
    ("Fields of project", Project, "project", "project:\n"),
    ("Fields of render", Render, "render", "render:\n"),
    ("Fields of run", Run, "run", "run:\n"),
]
# Fields of the job that are sections of their own, and what they hold; their meaning stands here.
WHOLE = {
    "models": "The models, one or more: an id, or a mapping with the fields [below](#fields-of-models).",
    "datasets": "The files of sentences, one or more: a mapping of names to paths, a mapping of names to the fields "
    "[below](#fields-of-datasets), or a list of such mappings that have a `name`.",
    "extract": "How hidden states are taken: [fields](#fields-of-extract).",
    "measure": "How separation is measured: [fields](#fields-of-measure).",
    "project": "How layers are brought to two dimensions: [fields](#fields-of-project).",
    "render": "How pictures are drawn: [fields](#fields-of-render).",
    "run": "Where the work runs: [fields](#fields-of-run).",
}


def page() -> str:
    """The whole page; raises LookupError where a field has no meaning or no example, or an example no field."""
    lines, known = [HEAD], set[str]()
    for title, model, prefix, begin in SECTIONS:
        lines.append(f"## {title}\n")
        if model.__doc__ and model is not Job:
            lines.append(f"{textwrap.fill(model.__doc__, 120)}\n")
        properties = model.model_json_schema(by_alias=True)["properties"]
        for field in properties:
            path = f"{prefix}.{field}".lstrip(".")
            known.add(path)
            lines += _field(path, properties[field], field in model.model_json_schema().get("required", ()), begin)
    if spare := sorted(set(EXAMPLES) - known):
        raise LookupError(f"tools/job_examples.py has examples of fields that do not exist: {', '.join(spare)}")
    return "\n".join(lines)


def _field(path: str, schema: dict[str, Any], required: bool, begin: str) -> list[str]:
    meaning = WHOLE.get(path) or " ".join(schema.get("description", "").split())
    if not meaning or path not in EXAMPLES:
        raise LookupError(f"{path} has no {'example in tools/job_examples.py' if meaning else 'docstring'}")
    default = "required" if required else f"default {_default(schema.get('default'))}"
    values = "" if path in WHOLE else f"{_values(schema)}; "
    indent = "    " if begin.startswith(("models", "datasets")) else "  " * begin.count("\n")
    whole = EXAMPLES[path].startswith("datasets:")
    example = EXAMPLES[path] if whole else begin + textwrap.indent(EXAMPLES[path], indent)
    return [f"### {path}\n", f"{textwrap.fill(meaning, 120)}\n", f"*{values}{default}*\n", f"```yaml\n{example}\n```\n"]


def _default(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, dict) and value:
        return "all fields at theirs"
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return "`[last]`"
    text = value if isinstance(value, str) else json.dumps(value)
    return f"`{text}`"


def _values(schema: dict[str, Any]) -> str:
    """What a field may hold, in words."""
    if "anyOf" in schema:
        # What may be left out need not be called null, unless null says something else than the default.
        null_counts = schema.get("default") is not None
        return " or ".join(_values(part) for part in schema["anyOf"] if null_counts or part.get("type") != "null")
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2].removesuffix("Of").lower()
        return (
            "a [position](#fields-of-positions)" if name == "position" else f"a mapping of [fields](#fields-of-{name})"
        )
    if "const" in schema or "enum" in schema:
        return ", ".join(f"`{name}`" for name in schema.get("enum", [schema.get("const")]))
    match schema.get("type"):
        case "integer" | "number":
            return _number(schema)
        case "array":
            if "prefixItems" in schema:
                return f"a list of {len(schema['prefixItems'])} texts"
            return f"a list, each {_values(schema['items'])}"
        case "object":
            return f"a mapping of names, each to {_values(schema['additionalProperties'])}"
        case "null":
            return "`null`"
        case "boolean":
            return "`true` or `false`"
    return "text"


def _number(schema: dict[str, Any]) -> str:
    kind = "a whole number" if schema["type"] == "integer" else "a number"
    low, high = schema.get("minimum"), schema.get("maximum")
    above = "" if low is None else f" from {low:,}"
    return kind + above + ("" if high is None or high >= MOST else f" to {high:,}")


def main() -> int:
    """Write the page; 1 where a field lacks something."""
    try:
        text = page()
    except LookupError as error:
        print(error.args[0])
        return 1
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
