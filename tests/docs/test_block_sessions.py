"""What the runner of blocks does with each kind, and that it finds what is wrong."""

from __future__ import annotations

import pytest

from support.sessions import Session
from tools.pages import blocks_in

PAGE = """
<!-- file: a/b.txt -->
```text
one
```

    cat a/b.txt  # a comment
    make nothing

<!-- output -->
```text
o...
```

```python
import pathlib

x = pathlib.Path("a/b.txt").read_text()
```

```python
print(x.strip() + "!")
```

<!-- output -->
```text
one!
```

<!-- fails: 3 -->
```bash
exit 3
```

```yaml
extract:
  layers: [0, 2]
```

<!-- not run: a drawing -->
```text
+-+
```
"""


def run(tmp_path, text):
    session = Session(tmp_path, None)
    for block in blocks_in("page.md", text):
        session.run(block)


def test_the_blocks_of_a_page_are_one_session(tmp_path):
    run(tmp_path, PAGE)


def test_what_is_not_run_is_known_with_its_reason():
    skipped = [entry for block in blocks_in("page.md", PAGE) for entry in block.skipped]
    assert [what for what, _ in skipped] == ["make nothing", "+-+"] and skipped[1][1] == "a drawing"


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ("```bash\nfalse\n```", "page.md:2: status 1"),
        ("```bash\nfalse | cat\n```", "status 1"),
        ("<!-- fails: 2 -->\n```bash\ntrue\n```", "page.md:3: status 0"),
        ("```yaml\nextract: {layer: 3}\n```", "page.md:2: .*layer: unknown field"),
        ("```yaml\n- 1\n```", "is no part of a job"),
        ("```bash\necho two\n```\n\n<!-- output -->\n```text\none\n```", "page.md:7: the page says"),
        ("```text\nwhat is this\n```", "needs a comment above it"),
        ("a paragraph <!-- not run: a comment -->\n\n```text\nwhat\n```", "needs a comment above it"),
    ],
)
def test_what_is_wrong_is_found(block, message, tmp_path):
    with pytest.raises(AssertionError, match=message):
        run(tmp_path, block)


def test_an_error_of_python_names_the_line_of_the_page(tmp_path):
    with pytest.raises(ZeroDivisionError) as raised:
        run(tmp_path, "text\n\n```python\nx = 1\nx / 0\n```")
    assert raised.traceback[-1].lineno + 1 == 5
