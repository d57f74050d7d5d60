"""Corpora fetched from a server on loopback: listed, fetched, unpacked where the reader looks."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import namedtuple
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from tests.conftest import Patch, refuses
from tests.faults.loopback import BODY, Loopback, file, pack, status
from xfavot import presets
from xfavot.data import corpora
from xfavot.data.corpora import Download, describe, download, offer
from xfavot.data.readers.layouts import scan
from xfavot.errors import ConfigError, DataError


def offering(monkeypatch: Patch, corpus: str, entry: Download) -> None:
    """Let a corpus be fetched from elsewhere."""
    known = replace(describe(corpus), download=entry)
    monkeypatch.setattr(corpora, "describe", lambda name: known)


def zip_of(*names: str) -> bytes:
    return pack("zip", *((name, f"content of {name}".encode()) for name in names))


GRID = {
    "alignments.zip": zip_of("alignments/s1/bbaf2n.align"),
    "audio_25k.zip": zip_of("audio_25k/s1/bbaf2n.wav"),
    "s1.zip": zip_of("s1/bbaf2n.mpg", "s1/bbaf3s.mpg"),
    "s20.zip": zip_of("prwx1a.mpg"),  # no folder in it
}
LISTING = [
    {"key": name, "size": len(body), "checksum": f"md5:{hashlib.md5(body).hexdigest()}"}
    for name, body in GRID.items()
]


@pytest.fixture
def grid(web: Loopback, monkeypatch: Patch) -> Loopback:
    for name, body in GRID.items():
        web.serve(f"/api/records/7/files/{name}/content", file(body))
    url = web.serve("/api/records/7", file(json.dumps({"files": LISTING}).encode()))
    known = describe("grid").download
    assert known is not None
    assert known.record == "https://zenodo.org/api/records/3625687"
    offering(monkeypatch, "grid", replace(known, record=url))
    return web


def clips(corpus: str, source: Path) -> list[str]:
    return [*scan(corpus, source, 0).clips]


def test_grid_from_a_record(grid: Loopback, tmp_path: Path, monkeypatch: Any) -> None:
    lines: list[str] = []
    path = "/api/records/7/files/s20.zip/content"
    grid.serve(path, status(404))
    match = r"s20\.zip could not be fetched"
    refuses(DataError, match, download, "grid", tmp_path, on_log=lines.append)
    grid.serve(path, file(GRID["s20.zip"]))
    root = download("grid", tmp_path)  # goes on
    assert root == tmp_path / "grid"
    assert clips("grid", root) == clips("grid", tmp_path)
    assert clips("grid", root) == ["s1/bbaf2n", "s1/bbaf3s", "s20/prwx1a"]
    assert (root / "alignments" / "s1" / "bbaf2n.align").is_file()
    assert not (tmp_path / "archives" / "grid" / "audio_25k.zip").exists()
    text = "\n".join(lines)
    assert text.index("Licence: CC BY 4.0") < text.index("3 of 3 archives") < text.index("s1.zip: ")
    asked = [found for found, _ in grid.requests]
    assert {found: asked.count(found) for found in asked} == {**dict.fromkeys(asked, 1), path: 2}
    monkeypatch.setenv("XFAVOT_OFFLINE", "1")
    assert download("grid", tmp_path, on_log=lines.append) == root
    assert any("0 of 3 archives to fetch, 0 bytes" in line for line in lines)


@pytest.mark.parametrize(
    "listing", ["[]", "not json", '{"files": [{}]}', json.dumps({"files": LISTING[:2]})]
)
def test_a_record_of_no_use_is_asked_again(listing: str, grid: Loopback, tmp_path: Path) -> None:
    good = grid.acts["/api/records/7"]
    grid.serve("/api/records/7", file(listing.encode()))
    refuses(DataError, r"api/records/7 gave no listing that is of use", download, "grid", tmp_path)
    grid.serve("/api/records/7", *good)
    assert len(clips("grid", download("grid", tmp_path))) == 3


def test_archives_unpack_where_readers_are(web: Loopback, tmp_path: Path, monkeypatch: Any) -> None:
    for corpus, names, clip in (
        ("vctk", ("wav48/p225/p225_001.flac", "speaker-info.txt"), "p225/p225_001"),
        ("celeba_hq", ("celeba_hq/train/female/1.jpg",), "train/female/1.jpg"),
    ):
        url = web.serve(f"/{corpus}", file(zip_of(*names)))
        with monkeypatch.context() as patch:
            offering(patch, corpus, Download(url=url, file=f"{corpus}.zip"))
            root = download(corpus, tmp_path)
        assert clips(corpus, root) == clips(corpus, tmp_path) == [clip]


def test_a_disk_that_is_too_small(web: Loopback, tmp_path: Path, monkeypatch: Patch) -> None:
    entry = Download(url=web.serve("/v", file(BODY)), file="v.zip", bytes=10_000_000_000)
    offering(monkeypatch, "vctk", entry)
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(1 << 40, 0, 19_900_000_000))
    refuses(DataError, r"has 19\.9 GB free; expected about 20 GB", download, "vctk", tmp_path)
    assert web.requests == []


def test_what_can_be_fetched_and_what_must_be_asked_for(tmp_path: Path) -> None:
    offered = {name for name in presets.names("corpora") if describe(name).download}
    assert offered == {"grid", "vctk", "celeba_hq"}
    text = offer("vctk")
    for word in ("VCTK-Corpus-0.92.zip (11.7 GB, sha256:f962", "CC BY 4.0", "Cite: Yamagishi"):
        assert word in text
    for corpus in ("lrs3", "lip2wav", "voxceleb"):
        assert describe(corpus).how in offer(corpus)
        with pytest.raises(DataError, match="cannot be fetched; expected one that its owners"):
            download(corpus, tmp_path)
    with pytest.raises(ConfigError):
        download("vctkk", tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_malformed_description(monkeypatch: Patch) -> None:
    for entries, message in (
        ({"titel": "x"}, "titel is not a setting; did you mean 'title'"),
        ({"paper": {"speaker": 3}}, "'speaker' is unknown; did you mean 'speakers'"),
        ({"download": {"url": "u", "bytes": "3"}}, "expected int"),
        ({}, "missing .* 'title'"),
    ):
        monkeypatch.setattr(presets, "load", Mock(return_value=entries))
        refuses(ConfigError, message, describe, "grid")
