"""Fixtures shared by all tests."""

from __future__ import annotations

import errno
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.faults.loopback import Loopback

# no test checks addresses in notebooks, and its grammar takes seconds to load
sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]

Patch = pytest.MonkeyPatch
ROOT = Path(__file__).resolve().parents[1]
FULL_DISK = OSError(errno.ENOSPC, "No space left on device")


@pytest.fixture(scope="session")
def real_corpus() -> Path:
    """The folder of real samples beside the checkout; tests skip where it is absent."""
    folder = ROOT.parent / "shared" / "corpus"
    if not folder.is_dir():
        pytest.skip("no folder of real samples beside the checkout")
    return folder


def refuses(
    error: Any, match: str, call: Callable[..., object], /, *arguments: Any, **keywords: Any
) -> None:
    """Expect that a call raises an error, or one of several, whose message matches."""
    with pytest.raises(error, match=match):
        call(*arguments, **keywords)


@pytest.fixture
def web(monkeypatch: Patch) -> Iterator[Loopback]:
    """A server, and a client that bears little and does not pause."""
    fetch = pytest.importorskip("xfavot.fetch")
    monkeypatch.delenv("XFAVOT_OFFLINE", raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(fetch, "TRIES", 3)
    monkeypatch.setattr(fetch, "MOST_PAUSE_SECONDS", 0.0)
    monkeypatch.setattr(fetch, "SILENCE_SECONDS", 0.3)
    with Loopback() as server:
        yield server
