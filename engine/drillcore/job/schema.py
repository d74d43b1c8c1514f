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
    schema["$defs"]["Dataset"]["required"].remove("name")
    under_a_name = deepcopy(schema["$defs"]["Dataset"])
    under_a_name["properties"].pop("name")
    schema["$defs"]["UnnamedDataset"] = {**under_a_name, "title": "UnnamedDataset"}
    a_dataset = {"anyOf": [{"type": "string"}, {"$ref": "#/$defs/UnnamedDataset"}]}
    models["items"] = {"anyOf": [models["items"], {"type": "string"}]}
    datasets["items"] = {"anyOf": [datasets["items"], {"type": "string"}]}
    by_name = {"type": "object", "additionalProperties": a_dataset, "minProperties": 1}
    schema["properties"]["models"] = {"anyOf": [models, {"type": "string"}]}
    schema["properties"]["datasets"] = {"anyOf": [datasets, by_name, {"type": "string"}]}
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "drillcore job"
    return json.dumps(schema, indent=2, ensure_ascii=False, sort_keys=True) + "\n"
