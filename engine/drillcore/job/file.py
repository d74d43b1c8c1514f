"""Reading a job file: safe YAML, overrides from the command line, and errors that name file, line and field."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from drillcore.errors import JobError
from drillcore.job.choices import did_you_mean, shortened
from drillcore.job.common import in_place
from drillcore.job.fields import Job, LoadedJob
from drillcore.system.bounds import read_bytes, real_path

Path_ = tuple[str | int, ...]
# Bytes of a job file, which takes seconds to read for each million, and how many of its mistakes are listed.
MOST_BYTES, MOST_MISTAKES = 2**20, 50
# Characters of a path that are repeated.
LONGEST = 300


class _UniqueKeys(yaml.SafeLoader):
    """Safe YAML that refuses a key given twice; YAML itself would silently take the last one."""

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep=deep)
        except (ValueError, LookupError, AttributeError, TypeError) as error:
            # PyYAML goes by the look of a value: 2001-99-99 is a date to it, and `._` a number, until it converts them.
            kind = node.tag.rpartition(":")[2]
            problem = f"{shortened(node.value)} is not a valid {kind}: quote it if it is text"
            raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark) from error

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, str) and key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"`{key}` is given twice", key_node.start_mark)
            seen.add(key if isinstance(key, str) else None)
        return super().construct_mapping(node, deep)


def load_job(
    path: Path, overrides: Sequence[str] = (), store: str | None = None, limit: int | None = None
) -> LoadedJob:
    """Read and check a job file.

    overrides: `a.b=c`, c being YAML. store: replaces the job's store. limit: caps the sentences of every dataset, and
    the store is one of its own, beside the job's, unless `store` names one. Raises JobError, which lists every mistake
    with its line.
    """
    tree, value = _parse(_read(path), str(path), "Fix the YAML.")
    if not isinstance(value, dict):
        raise JobError(f"{path}: a job file is a mapping with `models` and `datasets`", hint="See jobs/demo.yaml.")
    value.setdefault("name", path.stem)
    _override(value, overrides)
    if store is not None:
        value["store"] = store if store.startswith("s3://") else str(in_place(Path(store)))
    try:
        job = Job.model_validate(value)
    except ValidationError as error:
        raise JobError(
            "\n".join(_explain(path, tree, error)), hint="`drillcore schema job` prints every field."
        ) from None
    if limit is not None:
        capped = [d.model_copy(update={"limit": min(limit, d.limit or limit)}) for d in job.datasets]
        job = job.model_copy(update={"datasets": tuple(capped)})
    loaded = LoadedJob(job=job, base=real_path(path).parent, source=str(path))
    if limit is None or store is not None:
        return loaded
    return loaded.model_copy(update={"job": job.model_copy(update={"store": limited_store(loaded.store, limit)})})


def limited_store(address: str, limit: int) -> str:
    """Address of the store for the first `limit` sentences: beside the whole one, which it must not overwrite.

    >>> limited_store("s3://bucket/runs/job.zarr", 10)
    's3://bucket/runs/job-limit10.zarr'
    """
    folder, slash, name = address.rstrip("/").rpartition("/")
    suffix = Path(name).suffix
    return f"{folder}{slash}{name.removesuffix(suffix)}-limit{limit}{suffix}"


def _read(path: Path) -> str:
    try:
        return read_bytes(path, MOST_BYTES).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise JobError(f"{path}: not UTF-8 at byte {error.start}", hint="Save it as UTF-8.") from None
    except OSError as error:
        name = str(path) if len(str(path)) <= LONGEST else f"{str(path)[:LONGEST]}..."
        why = error.strerror or str(error)
        message = f"there is no job file {name}" if "no such file" in why else f"{name}: {why}"
        raise JobError(message, hint="Check the path.") from None


def _parse(text: str, where: str, hint: str) -> tuple[yaml.Node | None, Any]:
    """A YAML document, as nodes with their lines and as values; raises JobError, whatever is wrong with it."""
    try:
        loader = _UniqueKeys(text)
        tree = loader.get_single_node()
        return tree, None if tree is None else loader.construct_document(tree)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark and "\n" in text else ""
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise JobError(f"{where}{line}: {problem}", hint=hint) from None
    except RecursionError:
        raise JobError(f"{where}: nested too deeply", hint=hint) from None


def _override(value: dict[str, Any], overrides: Iterable[str]) -> None:
    for override in overrides:
        name, equals, given = override.partition("=")
        shown = f"--set {shortened(override)[1:-1]}"
        if not equals or not name:
            raise JobError(f"{shown}: expected field=value", hint="For example --set extract.dtype=float32.")
        *parents, last = name.split(".")
        place: Any = value
        for parent in parents:
            if isinstance(place, list) and (item := _item(place, parent)) is not None:
                place = place[item]
            elif isinstance(place, dict):
                place = place.setdefault(parent, {})
            else:
                raise JobError(f"{shown}: there is no {shortened(parent)} to set", hint="Check the field's name.")
        _, parsed = _parse(given, shown, "Quote the value where it is text; otherwise fix its YAML.")
        if isinstance(place, list) and (item := _item(place, last)) is not None:
            place[item] = parsed
        elif isinstance(place, dict):
            place[last] = parsed
        else:
            raise JobError(f"{shown}: there is no {shortened(last)} to set", hint="Check the field's name.")


def _item(items: list[Any], number: str) -> int | None:
    """The position that a part of an override names, None where the list has no such one."""
    return int(number) if number.isdecimal() and len(number) < 10 and int(number) < len(items) else None


def _explain(path: Path, tree: yaml.Node | None, error: ValidationError) -> Iterable[str]:
    """One line for each mistake: file, line, field, what is wrong, and the nearest right name."""
    answers: dict[Path_, dict[tuple[str, str], None]] = {}
    for mistake in error.errors(include_url=False)[: 10 * MOST_MISTAKES]:
        *parents, last = mistake["loc"] or ("job",)
        unknown = mistake["type"] == "extra_forbidden"  # the last part is the user's own name, not one of pydantic's
        loc: Path_ = (*filter(_is_place, parents), *((last,) if unknown or _is_place(last) else ()))
        answers.setdefault(loc, {})[_message(mistake, loc)] = None
    # pydantic reports every branch of a union, and a list's length too: the deepest place is where the mistake is.
    outer = {loc[:depth] for loc in answers for depth in range(len(loc))}
    deepest = [loc for loc in answers if loc not in outer]
    for loc in deepest[:MOST_MISTAKES]:
        branches = answers[loc]
        wrong, *others = [message for message, _ in branches]
        message = ", or ".join([wrong, *(other.removeprefix("Input should be ") for other in others)])
        place = ".".join(map(_printable, loc)) or "job"
        yield f"{path}:{_line(tree, loc)}: {place}: {message}{max((given for _, given in branches), key=len)}"
    if len(deepest) > MOST_MISTAKES:
        yield "... and more"


def _message(mistake: ErrorDetails, loc: Path_) -> tuple[str, str]:
    """One mistake in the words of someone who writes YAML: what is wrong, and what was given."""
    message, given = mistake["msg"].removeprefix("Value error, "), f" (given: {shortened(mistake['input'])})"
    match mistake["type"]:
        case "value_error":
            given = ""
        case "missing":
            message, given = "is required", ""
        case "extra_forbidden":
            message, given = "unknown field", did_you_mean(str(mistake["loc"][-1]), _fields(loc[:-1]))
        case "literal_error":
            given += did_you_mean(mistake["input"], re.findall(r"'([^']*)'", mistake["ctx"]["expected"]))
        case "tuple_type":
            message = message.replace("a valid tuple", "a list")
        case "int_parsing" | "float_parsing" | "bool_parsing":
            message = message.partition(",")[0]
    return message, given


def _printable(part: str | int) -> str:
    short = str(part) if len(str(part)) <= LONGEST else f"{str(part)[:LONGEST]}..."
    return short if short.isprintable() else repr(short)


def _is_place(part: str | int) -> bool:
    """Whether a part of a pydantic location is a field or an item, not the name of a union's branch."""
    return isinstance(part, int) or (part.isidentifier() and part not in ("int", "bool", "tuple", "str"))


def _fields(loc: Path_) -> list[str]:
    """Field names that are allowed at a place."""
    kind: Any = Job
    for part in loc:
        if isinstance(part, int) or not isinstance(kind, type) or not issubclass(kind, BaseModel):
            continue
        field = next((f for n, f in kind.model_fields.items() if part in (n, f.alias)), None)
        inner = field.annotation if field else None
        candidates = [inner, *get_args(inner)]
        kind = next((c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)), None)
    return [f.alias or n for n, f in kind.model_fields.items()] if kind else []


def _line(node: yaml.Node | None, loc: Path_) -> int:
    """Line of the deepest node that a location reaches."""
    line = 1
    for part in loc:
        if isinstance(node, yaml.MappingNode):
            # The short form of datasets is a mapping where the job has a list.
            by_number = node.value[part : part + 1] if isinstance(part, int) else []
            entry = next(((k, v) for k, v in node.value if k.value == str(part)), None) or next(iter(by_number), None)
            if entry is None:
                break
            line, node = entry[0].start_mark.line + 1, entry[1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
            line = node.start_mark.line + 1
        else:
            break
    return line
