"""What the transformers backend needs before it is loaded: its packages. Imports nothing heavy."""

from __future__ import annotations

import sys
from types import BuiltinFunctionType
from typing import TYPE_CHECKING

from drillcore.backends.transformers.sharding import check as check_sharding
from drillcore.backends.transformers.streamed.refusals import check as check_streaming
from drillcore.errors import JobError, MissingExtraError
from drillcore.system.versions import installed_versions

if TYPE_CHECKING:
    from drillcore.backends.source import ModelSource
    from drillcore.job.extract import Extract

DISTRIBUTIONS = ("transformers", "torch")


def check(source: ModelSource | None, extract: Extract) -> None:
    """Raise MissingExtraError where a package is not installed, JobError for a setting that it does not take."""
    missing = [name for name in DISTRIBUTIONS if name not in versions()]
    if missing:
        raise MissingExtraError(
            f"backend transformers needs {missing[0]}, which is not installed",
            hint="pip install 'drillcore[transformers]'",
        )
    _refuse_foreign_hooks()
    if extract.tensor_parallel > 1:
        check_sharding(source, extract)
    if extract.weights != "resident":
        check_streaming(source, extract)


def _refuse_foreign_hooks() -> None:
    """Refuse hooks that the surrounding program put on every module: they may change states, and the self-check's too.

    Attention functions that it replaced are refused for the same reason.
    """
    modules = sys.modules.get("torch.nn.modules.module")
    for kind in ("_global_forward_hooks", "_global_forward_pre_hooks"):
        for hook in getattr(modules, kind, {}).values():
            raise JobError(
                f"the program registered a hook for all modules: {_name_of(hook)}",
                hint="Remove it with its handle before calling drillcore; it might change hidden states.",
            )
    attention = getattr(sys.modules.get("transformers.modeling_utils"), "ALL_ATTENTION_FUNCTIONS", {})
    for name in ("sdpa", "eager"):
        function = attention.get(name) if hasattr(attention, "get") else None
        if function is not None and not getattr(function, "__module__", "").startswith("transformers."):
            raise JobError(
                f"the program replaced transformers' attention function {name} by {_name_of(function)}",
                hint="Register it under a name of its own; the self-check compares with transformers' own attention.",
            )
    product = getattr(sys.modules.get("torch.nn.functional"), "scaled_dot_product_attention", None)
    if product is not None and not isinstance(product, BuiltinFunctionType):
        raise JobError(
            f"the program replaced torch.nn.functional.scaled_dot_product_attention by {_name_of(product)}",
            hint="Put PyTorch's own function back before calling drillcore; the self-check compares with it.",
        )


def _name_of(function: object) -> str:
    return f"{getattr(function, '__module__', '')}.{getattr(function, '__qualname__', repr(function))}"


def versions() -> dict[str, str]:
    """Installed distributions that decide bytes and speed."""
    return installed_versions(DISTRIBUTIONS)
