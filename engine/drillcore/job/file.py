"""Reading a job file: safe YAML, overrides from the command line, and errors that name file, line and field."""

from __future__ import annotations

import difflib
import reprlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

from drillcore.errors import JobError
from drillcore.job.fields import Job, LoadedJob

Path_ = tuple[str | int, ...]


class _UniqueKeys(yaml.SafeLoader):
    """Safe YAML that refuses a key given twice, of which YAML would silently take the last."""

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep=deep)
        except (ValueError, LookupError, AttributeError, TypeError) as error:
            # PyYAML takes 2001-99-99 for a date and `._` for a number before it tries.
            kind = node.tag.rpartition(":")[2]
            problem = f"{_short(node.value)} is no {kind}: quote it if it is text"
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

    overrides: `a.b=c`, c being YAML. Raises JobError that lists every mistake with its line.
    """
    text = _read(path)
    try:
        tree = yaml.compose(text, Loader=_UniqueKeys)
        value = yaml.load(text, Loader=_UniqueKeys)  # a SafeLoader
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise JobError(f"{where}: {problem}", hint="Mend the YAML.") from None
    except RecursionError:
        raise JobError(f"{path}: nested too deep", hint="Mend the YAML.") from None
    if not isinstance(value, dict):
        raise JobError(f"{path}: a job file is a mapping with `models` and `datasets`", hint="See jobs/demo.yaml.")
    value.setdefault("name", path.stem)
    _override(value, overrides)
    if store is not None:
        value["store"] = store if store.startswith("s3://") else str(Path(store).resolve())
    try:
        job = Job.model_validate(value)
    except ValidationError as error:
        raise JobError(
            "\n".join(_explain(path, tree, error)), hint="`drillcore schema job` prints every field."
        ) from None
    if limit is not None:
        capped = [d.model_copy(update={"limit": min(limit, d.limit or limit)}) for d in job.datasets]
        job = job.model_copy(update={"datasets": tuple(capped)})
    return LoadedJob(job=job, base=path.resolve().parent, source=str(path))


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise JobError(f"there is no job file {path}", hint="Check the path.") from None
    except UnicodeDecodeError as error:
        raise JobError(f"{path}: not UTF-8 at byte {error.start}", hint="Save it as UTF-8.") from None
    except OSError as error:
        raise JobError(f"{path}: {error.strerror}", hint="Check the path.") from None


def _override(value: dict[str, Any], overrides: Iterable[str]) -> None:
    for override in overrides:
        name, equals, given = override.partition("=")
        if not equals or not name:
            raise JobError(f"--set {override}: expected field=value", hint="For example --set extract.dtype=float32.")
        *parents, last = name.split(".")
        place: Any = value
        for parent in parents:
            if isinstance(place, list) and parent.isdigit() and int(parent) < len(place):
                place = place[int(parent)]
            elif isinstance(place, dict):
                place = place.setdefault(parent, {})
            else:
                raise JobError(f"--set {override}: there is no {parent} to set", hint="Check the field's name.")
        try:
            parsed = yaml.safe_load(given)
        except yaml.YAMLError:
            raise JobError(f"--set {override}: invalid YAML", hint="Quote it.") from None
        if isinstance(place, list) and last.isdigit() and int(last) < len(place):
            place[int(last)] = parsed
        elif isinstance(place, dict):
            place[last] = parsed
        else:
            raise JobError(f"--set {override}: there is no {last} to set", hint="Check the field's name.")


def _explain(path: Path, tree: yaml.Node | None, error: ValidationError) -> Iterable[str]:
    """One line for each mistake: file, line, field, what is wrong, and the nearest right name."""
    seen = set()
    for mistake in error.errors():
        if mistake["type"] == "too_short" and mistake["input"]:
            continue  # pydantic counts only the valid items; each invalid one has a line of its own
        *parents, last = mistake["loc"] or ("job",)
        unknown = mistake["type"] == "extra_forbidden"  # the last part is the user's own name, not one of pydantic's
        loc: Path_ = (*filter(_is_place, parents), *((last,) if unknown or _is_place(last) else ()))
        message = mistake["msg"].removeprefix("Value error, ")
        if unknown:
            near = difflib.get_close_matches(str(last), _fields(loc[:-1]), n=1, cutoff=0.5)
            message = "unknown field" + (f"; did you mean `{near[0]}`?" if near else "")
        elif mistake["type"] == "missing":
            message = "is required"
        elif mistake["type"] not in ("value_error",):
            message = f"{message} (given: {_short(mistake['input'])})"
        line = f"{path}:{_line(tree, loc)}: {'.'.join(map(_printable, loc)) or 'job'}: {message}"
        if line not in seen:
            seen.add(line)
            yield line


def _short(value: Any) -> str:
    """The beginning of a value: with YAML aliases a few lines can describe a huge one."""
    short = reprlib.Repr()
    short.maxlevel, short.maxstring, short.maxother = 2, 60, 60
    try:
        return short.repr(value)
    except ValueError:  # Python does not print a number of more than 4,300 digits
        return "a very long number"


def _printable(part: str | int) -> str:
    return str(part) if str(part).isprintable() else repr(part)


def _is_place(part: str | int) -> bool:
    """Whether a part of a pydantic location is a field rather than the name of a union's branch."""
    return isinstance(part, int) or (not any(c in part for c in "[(") and part not in ("int", "bool", "tuple", "str"))


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
