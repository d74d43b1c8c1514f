"""Every package that `engine/` imports is declared in pyproject.toml, in an extra that whoever runs that room has."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from pathlib import Path

PACKAGE = Path("engine/drillcore")
# Import names that differ from the distribution's.
DISTRIBUTIONS = {
    "PIL": "pillow",
    "fontTools": "fonttools",
    "cuml": "cuml-cu13",
    "sklearn": "scikit-learn",
    "umap": "umap-learn",
    "yaml": "pyyaml",
}
# Rooms and modules by path, and the extras they may count on beside the plain dependencies; the longest path decides.
EXTRAS = {
    "": (),
    "api/calibration.py": ("transformers", "umap"),
    "backends": ("transformers",),
    "backends/transformers/adapted.py": ("transformers", "adapters"),
    "backends/transformers/streamed/adapters.py": ("transformers", "adapters"),
    "backends/transformers/quantised.py": ("transformers", "quantized"),
    "backends/vllm": ("transformers", "vllm"),
    "cli/bench": ("transformers",),
    "measures": ("umap",),
    "neighbours.py": ("umap", "gpu"),
    "pictures": ("pictures",),
    "projections": ("umap", "gpu"),
    "runtime/executors/local.py": ("umap",),
    "runtime/executors/ray": ("transformers", "ray"),
    "system/machine.py": ("transformers",),
    "system/quiet.py": ("transformers",),
    "tokens/identity.py": ("transformers",),
    "tokens/tokenizer.py": ("transformers",),
    "texts/hub.py": ("datasets",),
}
# Not declared: imported only where it is found, with an error of ours or another way where it is not.
OPTIONAL = {
    ("IPython", "api/progress.py"),
    ("anndata", "api/export.py"),
    ("pandas", "api/export.py"),
    ("pandas", "api/measure.py"),
    ("pandas", "api/tables.py"),
    ("torch", "api/doctor.py"),
    ("cupy", "projections/__init__.py"),
}


def imported(path: Path) -> set[str]:
    """Top-level names that a file imports from outside the project and the standard library."""
    modules: list[str] = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            modules += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            modules.append(node.module)
    return {m.partition(".")[0] for m in modules} - {"drillcore", *sys.stdlib_module_names}


def declared(project: dict[str, object]) -> dict[str, set[str]]:
    """Distributions by extra; the plain dependencies under the empty name."""
    extras = {"": project["dependencies"], **project["optional-dependencies"]}  # type: ignore[dict-item]
    return {name: {_name(line) for line in lines} for name, lines in extras.items()}  # type: ignore[attr-defined]


def _name(requirement: str) -> str:
    match = re.match(r"[A-Za-z0-9._-]+", requirement)
    return (match.group() if match else requirement).lower().replace("_", "-")


def room_of(place: str) -> str:
    """The key of EXTRAS that decides for a file, by its path below the package."""
    return max((room for room in EXTRAS if not room or place == room or place.startswith(f"{room}/")), key=len)


def undeclared(package: Path, extras: dict[str, set[str]]) -> list[str]:
    """Imports that no declaration covers, a line each."""
    problems = []
    for path in sorted(package.rglob("*.py")):
        place = path.relative_to(package).as_posix()
        names = ("", *EXTRAS[room_of(place)])
        available = set[str]().union(*(extras[name] for name in names))
        for module in sorted(imported(path)):
            distribution = _name(DISTRIBUTIONS.get(module, module))
            if distribution not in available and (module, place) not in OPTIONAL:
                where = " or ".join(f"[{name}]" if name else "dependencies" for name in names)
                problems.append(f"{path} imports {module}: declare {distribution} in {where} of pyproject.toml")
    return problems


def main() -> int:
    """Check the whole package; 1 where something is not declared."""
    project = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["project"]
    problems = undeclared(PACKAGE, declared(project))
    print("\n".join(problems) or "dependencies: every import is declared")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
