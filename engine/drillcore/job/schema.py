"""The JSON Schema of job files, for editors."""

from __future__ import annotations

import json
from copy import deepcopy

from drillcore.job.fields import Job


def job_schema() -> str:
    """The schema as text, the same at every call."""
    schema = Job.model_json_schema(by_alias=True)
    models, datasets = schema["properties"]["models"], schema["properties"]["datasets"]
    # The short forms that the job reader accepts.
    models["items"] = {"anyOf": [models["items"], {"type": "string"}]}
    unnamed = deepcopy(schema["$defs"]["Dataset"])
    unnamed["properties"].pop("name")
    unnamed["required"].remove("name")
    schema["$defs"]["UnnamedDataset"] = {**unnamed, "title": "UnnamedDataset"}
    a_dataset = {"anyOf": [{"type": "string"}, {"$ref": "#/$defs/UnnamedDataset"}]}
    schema["properties"]["datasets"] = {
        "anyOf": [datasets, {"type": "object", "additionalProperties": a_dataset, "minProperties": 1}]
    }
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "drillcore job"
    return json.dumps(schema, indent=2, ensure_ascii=False, sort_keys=True) + "\n"
