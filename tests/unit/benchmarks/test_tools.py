"""The checks of tools/ find what they look for."""

from __future__ import annotations

from pathlib import Path

from tools import dependencies, sizes

ROOT = Path(__file__).resolve().parents[3]


def test_an_import_that_is_not_declared_is_named(tmp_path):
    (tmp_path / "measures").mkdir()
    (tmp_path / "measures" / "one.py").write_text(
        "import os\nimport numpy as np\nfrom scipy.stats import norm\n\ndef f():\n    import PIL.Image\n",
        encoding="utf-8",
    )
    extras = {"": {"numpy"}, "umap": {"scipy"}, "pictures": {"pillow"}}
    (problem,) = dependencies.undeclared(tmp_path, extras)
    assert "one.py imports PIL: declare pillow in dependencies or [umap]" in problem
    assert dependencies.undeclared(tmp_path, {**extras, "umap": {"scipy", "pillow"}}) == []


def test_the_longest_path_decides_which_extras_a_file_has():
    assert dependencies.room_of("backends/vllm/engine.py") == "backends/vllm"
    assert dependencies.room_of("backends/base.py") == "backends"
    assert dependencies.room_of("store/layout.py") == ""
    assert dependencies.room_of("backends_more/base.py") == ""


def test_every_room_of_the_table_is_there():
    missing = [room for room in dependencies.EXTRAS if not (ROOT / dependencies.PACKAGE / room).exists()]
    missing += [place for _, place in dependencies.OPTIONAL if not (ROOT / dependencies.PACKAGE / place).exists()]
    assert missing == []


def test_large_modules_and_functions_are_named(tmp_path):
    body = "\n".join("    x = 1" for _ in range(60))
    (tmp_path / "large.py").write_text(f"def f():\n{body}\n\n\n" + "# more\n" * 400, encoding="utf-8")
    (tmp_path / "small.py").write_text("def f():\n    pass\n", encoding="utf-8")
    module, function = sizes.oversized(tmp_path)
    assert "large.py: 463 lines" in module and ":1 f: 61 lines" in function
