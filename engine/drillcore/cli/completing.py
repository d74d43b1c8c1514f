"""What the shell offers for arguments: read from names of folders and small files, so that pressing Tab is quick."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import typer

from drillcore.system.bounds import read_bytes
from drillcore.system.tables import EXPORTS

# Bytes of a job file that is read while somebody waits for a name.
MOST_BYTES = 2**16

Completer = Callable[[typer.Context, str], list[str]]


def groups(context: typer.Context, incomplete: str) -> list[str]:
    """The groups of the local store that the command line names, MODEL/DATASET."""
    # The arguments are not taken apart yet where the word is an option's value.
    store = str(context.params.get("store") or next((a for a in context.args if not a.startswith("-")), ""))
    if not store or store.startswith(("s3://", "hf://")):
        return []
    try:
        found = [f"{path.parent.parent.name}/{path.parent.name}" for path in Path(store).glob("*/*/zarr.json")]
    except OSError:
        return []
    # Arrays of a model's own, such as its canaries, are no groups of a dataset.
    return sorted(name for name in found if not any(part.startswith(("_", ".")) for part in name.split("/")))


def models_and_groups(context: typer.Context, incomplete: str) -> list[str]:
    """The groups of the store, and the models that hold them."""
    names = groups(context, incomplete)
    return [*dict.fromkeys(name.split("/")[0] for name in names), *names]


def datasets(context: typer.Context, incomplete: str) -> list[str]:
    """The datasets of the job file that the command line names; only their names are read."""
    import yaml

    job = str(context.params.get("job") or next((a for a in context.args if not a.startswith("-")), ""))
    try:
        found = yaml.safe_load(read_bytes(Path(job), MOST_BYTES))["datasets"]
    except (OSError, ValueError, LookupError, TypeError, RecursionError, yaml.YAMLError):
        return []
    named = (
        found
        if isinstance(found, dict)
        else [each["name"] for each in found if isinstance(each, dict) and "name" in each]
    )
    return sorted(map(str, named))


def _one_of(*names: str) -> Completer:
    def offered(context: typer.Context, incomplete: str) -> list[str]:
        return list(names)

    return offered


# By command and argument.
COMPLETERS: dict[tuple[str, str], Completer] = {
    ("append", "dataset"): datasets,
    ("compare", "a"): groups,
    ("compare", "b"): groups,
    ("export", "group"): groups,
    ("export", "to"): _one_of(*EXPORTS),
    ("rm", "group"): models_and_groups,
    ("mv", "group"): models_and_groups,
    ("schema", "what"): _one_of("job"),
}
