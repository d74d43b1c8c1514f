"""What is said of a command line that cannot be read: the mistake, the nearest right word, and where help is."""

from __future__ import annotations

from typing import Any

# Its words, and ours for them.
WORDS = {
    "No such command": "there is no command",
    ". Did you mean": "; did you mean",
    "Got unexpected extra argument(s)": "there are more arguments than it takes:",
    "Got unexpected extra argument": "there are more arguments than it takes:",
    "Missing option": "an option is missing:",
    "Missing argument": "an argument is missing:",
}


def usage_message(error: Any) -> str:
    """The message for a usage error of the library that reads the command line."""
    context = getattr(error, "ctx", None)
    path = getattr(context, "command_path", "") or "drillcore"
    return f"drillcore: {_what(error).rstrip('.')}\n  `{path} --help` lists what there is."


def _what(error: Any) -> str:
    said, near = str(error.format_message()), getattr(error, "possibilities", None)
    if name := getattr(error, "option_name", ""):
        if fields := _fields(name):
            named = " or ".join(f"`--set {field}=...`" for field in fields)
            return f"there is no option {name}; a field of a job is set by {named}"
        return f"there is no option {name}" + (f"; did you mean `{near[0]}`?" if near else "")
    detail: list[dict[str, Any]] = getattr(error.__cause__, "errors", list)()
    if not detail:
        for theirs, ours in WORDS.items():
            said = said.replace(theirs, ours)
        return said
    (first, *_), param = detail, error.param
    limits = first.get("ctx", {})
    bound = "".join(
        f" of at {word} {limits[key]:,}" for key, word in (("ge", "least"), ("le", "most")) if key in limits
    )
    name = param.opts[-1] if param.opts else param.name
    return f"{name}: must be a whole number{bound} (given: {first.get('input')})"


def _fields(option: str) -> list[str]:
    """The fields of a job, with their sections, that are called like an option.

    >>> _fields("--layers"), _fields("--batch-tokens"), _fields("--nothing")
    (['extract.layers', 'render.layers'], ['extract.batch_tokens'], [])
    """
    from drillcore.job.fields import Job

    name = option.lstrip("-").replace("-", "_")
    sections = {field: info.annotation for field, info in Job.model_fields.items()}
    return [f"{s}.{name}" for s, kind in sections.items() if name in getattr(kind, "model_fields", {})]
