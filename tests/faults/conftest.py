"""Fixtures of the fault tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.faults.loopback import Loopback
from xfavot import fetch


@pytest.fixture
def web(monkeypatch: pytest.MonkeyPatch) -> Iterator[Loopback]:
    """A server, and a client that bears little and does not pause."""
    monkeypatch.delenv("XFAVOT_OFFLINE", raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(fetch, "TRIES", 3)
    monkeypatch.setattr(fetch, "MOST_PAUSE_SECONDS", 0.0)
    monkeypatch.setattr(fetch, "SILENCE_SECONDS", 0.3)
    with Loopback() as server:
        yield server
