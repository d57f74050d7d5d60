"""What the tests of downloads share: a body, its checksum, a patience, two ways to fetch."""

from __future__ import annotations

import hashlib
import shutil
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest

from xfavot.errors import DataError
from xfavot.fetch.remote import Patience, Remote, fetch

ROOT = Path(__file__).resolve().parents[2]
BODY = bytes(range(256)) * 4096  # 1 MiB
HALF = len(BODY) // 2
PAGE = b"<!DOCTYPE html><title>Sign in</title>"


def sha256(body: bytes) -> str:
    return f"sha256:{hashlib.sha256(body).hexdigest()}"


def remote(url: str, *mirrors: str, size: int = 0, checksum: str = sha256(BODY)) -> Remote:
    return Remote(url=url, name="a.bin", size=size, checksum=checksum, mirrors=mirrors)


def patience(pauses: list[float] | None = None, tries: int = 3) -> Patience:
    record = [] if pauses is None else pauses
    return Patience(tries=tries, silence=0.3, most_pause=5.0, sleep=record.append)


def get(wanted: Remote, folder: Path, **keywords: Any) -> bytes:
    path = fetch(wanted, folder, patience=patience(), **keywords)
    assert path == folder / wanted.name
    assert not list(folder.glob("*.part*")) + list(folder.glob(".*.part*"))
    return path.read_bytes()


def refused(wanted: Remote, folder: Path, match: str, kept: int = 0) -> None:
    """Expect a refusal that names nothing complete and keeps so many bytes."""
    with pytest.raises(DataError, match=match):
        fetch(wanted, folder, patience=patience())
    assert not (folder / wanted.name).exists()
    left = folder / f"{wanted.name}.part"
    assert (left.stat().st_size if left.exists() else 0) == kept


def small_disk(monkeypatch: pytest.MonkeyPatch, free: int) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(1 << 40, 0, free))
