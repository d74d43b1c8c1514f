"""What libraries say is a detail, is printed nowhere, and their settings come back."""

from __future__ import annotations

import logging
import subprocess
import sys
import warnings

from drillcore.system.logs import quiet_libraries, take_over_logs
from drillcore.system.progress import telling
from drillcore.system.quiet import quiet_transformers


def settings(*names):
    return [(g.handlers[:], g.propagate, g.level) for g in map(logging.getLogger, names)]


def test_lines_and_warnings_of_transformers_are_details(capfd):
    from transformers.utils import logging as transformers_logging

    logger = transformers_logging.get_logger("transformers.odd")
    before, heard = settings("transformers", "huggingface_hub"), []
    with telling(lambda line: None, heard.append), quiet_transformers():
        logger.warning("odd weights")
        logger.info("chatter")
        warnings.warn("an odd array", RuntimeWarning, stacklevel=1)
    assert heard == ["transformers.odd: odd weights", "RuntimeWarning: an odd array"]
    assert settings("transformers", "huggingface_hub") == before and capfd.readouterr().err == ""


def test_a_program_keeps_its_handlers():
    logger, handler = logging.getLogger("some_library.x"), logging.StreamHandler()
    logger.addHandler(handler)
    try:
        take_over_logs("some_library")
        assert logger.handlers == [handler]
        with quiet_libraries(lambda line: None):
            take_over_logs("some_library")
        assert logger.handlers == []
    finally:
        logger.handlers.clear()


def test_everything_at_the_root_comes_back():
    before, show = logging.getLogger().handlers[:], warnings.showwarning
    with quiet_libraries(lambda line: None):
        assert warnings.showwarning is not show
    assert logging.getLogger().handlers == before and warnings.showwarning is show


def test_a_warning_is_heard_and_not_printed():
    script = """
import warnings
from drillcore.system.logs import quiet_libraries
heard = []
with quiet_libraries(heard.append):
    warnings.warn("an odd array")
print(heard[0].count("an odd array"))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "1\n" and done.stderr == ""
