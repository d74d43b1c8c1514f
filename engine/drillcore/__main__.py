"""`python -m drillcore` is the command `drillcore`."""

from __future__ import annotations

from drillcore.cli.main import main

if __name__ == "__main__":
    main()
