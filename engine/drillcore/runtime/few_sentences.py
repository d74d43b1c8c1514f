"""`drillcore.extract`: the states of a few sentences, without a job file or a store to keep."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from drillcore.errors import JobError
from drillcore.job.fields import Job, LoadedJob, expand, is_local
from drillcore.runtime.runner import run_stages
from drillcore.store.tree import open_tree
from drillcore.system.progress import Silent

if TYPE_CHECKING:
    import xarray as xr


def extract_in_memory(model: str, sentences: Sequence[str], settings: dict[str, Any]) -> xr.Dataset:
    """Run the extract stage with a store in a temporary folder, and load the result into memory.

    settings: fields of the job's `extract` section. Returns and raises what `drillcore.extract` does.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq
    from pydantic import ValidationError

    with tempfile.TemporaryDirectory(prefix="drillcore-") as scratch:
        folder = Path(scratch)
        pq.write_table(pa.table({"text": pa.array(list(sentences), pa.string())}), folder / "sentences.parquet")
        location = str(expand(model).resolve()) if is_local(model) else model
        try:
            job = Job.model_validate(
                {
                    "name": "memory",
                    "store": str(folder / "memory.zarr"),
                    "models": [{"id": location, "as": "model"}],
                    "datasets": {"sentences": "sentences.parquet"},
                    "extract": settings,
                }
            )
        except ValidationError as error:
            first = error.errors()[0]
            raise JobError(
                f"{'.'.join(map(str, first['loc']))}: {first['msg']}", hint="See `drillcore schema job`."
            ) from None
        loaded = LoadedJob(job=job, base=folder, source="memory")
        run_stages(loaded, ("extract",), Silent())
        states: xr.Dataset = open_tree(loaded.store)["model/sentences"].to_dataset().load()
    return states
