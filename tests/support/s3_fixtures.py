"""Fixtures of a real S3 server on loopback: its port, and the environment that leads to it."""

from __future__ import annotations

import pytest

from support.s3_server import environment, s3_server


@pytest.fixture(scope="module")
def server():
    """The port of an S3 server."""
    pytest.importorskip("moto", reason="s3")
    with s3_server() as port:
        yield port


@pytest.fixture
def s3(server, monkeypatch):
    for name, value in environment(server).items():
        monkeypatch.setenv(name, value)
    return server
