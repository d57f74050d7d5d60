"""Corpora fetched from a server on loopback: listed, fetched, unpacked where the reader looks."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from pathlib import Path
from typing import Any

import pytest

from tests.faults.download_factory import BODY, patience, sha256, small_disk
from tests.faults.loopback import Loopback, file, status
from xfavot.data import corpora
from xfavot.data.corpora import Corpus, Download, describe, download, offer
from xfavot.data.readers import READERS, Clip
from xfavot.errors import ConfigError, DataError
from xfavot.fetch.archives import STAMP


def offering(
    monkeypatch: pytest.MonkeyPatch, corpus: str, *entries: Download, **fields: Any
) -> None:
    """Let a corpus be fetched from elsewhere."""
    known = describe(corpus)
    given = {name: getattr(known, name) for name in Corpus.__slots__}
    faked = Corpus(**{**given, "downloads": entries, **fields})
    monkeypatch.setattr(corpora, "describe", lambda name: faked)


def zip_of(*names: str) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name in names:
            archive.writestr(name, f"content of {name}")
    return stream.getvalue()


def serve_grid(web: Loopback, bodies: dict[str, bytes]) -> Download:
    files = []
    for name, body in bodies.items():
        link = web.serve(f"/api/records/7/files/{name}/content", file(body))
        checksum = f"md5:{hashlib.md5(body).hexdigest()}"
        entry = {"key": name, "size": len(body), "checksum": checksum, "links": {"self": link}}
        files.append(entry)
    listing = json.dumps({"id": 7, "files": files}).encode()
    url = web.serve("/api/records/7", file(listing, kind="application/json", etag=""))
    return Download(record=url, files=describe("grid").downloads[0].files)


GRID = {
    "alignments.zip": zip_of("alignments/s1/bbaf2n.align"),
    "audio_25k.zip": zip_of("audio_25k/s1/bbaf2n.wav"),
    "s1.zip": zip_of("s1/bbaf2n.mpg", "s1/bbaf3s.mpg"),
    "s20.zip": zip_of("prwx1a.mpg"),  # no folder in it
}


def clips(corpus: str, source: Path) -> list[str]:
    found = [c for c in READERS[corpus].scan(source, seed=0) if isinstance(c, Clip)]
    return [clip.id for clip in found]


def test_grid_from_a_record(web: Loopback, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    offering(monkeypatch, "grid", serve_grid(web, GRID))
    lines: list[str] = []
    root = download("grid", tmp_path, on_log=lines.append, patience=patience())
    assert root == tmp_path / "grid"
    assert clips("grid", root) == clips("grid", tmp_path)
    assert clips("grid", root) == ["s1/bbaf2n", "s1/bbaf3s", "s20/prwx1a"]
    assert (root / "alignments" / "s1" / "bbaf2n.align").is_file()
    assert not (tmp_path / "archives" / "grid" / "audio_25k.zip").exists()
    text = "\n".join(lines)
    assert text.index("Licence: CC BY 4.0") < text.index("3 archives") < text.index("s1.zip: ")
    count = len(web.requests)
    monkeypatch.setenv("XFAVOT_OFFLINE", "1")
    lines.clear()
    assert download("grid", tmp_path, on_log=lines.append) == root
    assert len(web.requests) == count
    assert any("0 archives (0 bytes) to fetch" in line for line in lines)


def test_some_files_then_the_others_without_keeping_archives(
    web: Loopback, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    offering(monkeypatch, "grid", serve_grid(web, GRID))
    root = download("grid", tmp_path, files=["s20.zip"], keep_archives=False)
    assert clips("grid", root) == ["s20/prwx1a"]
    download("grid", tmp_path, keep_archives=False)
    assert len(clips("grid", root)) == 3
    assert not list((tmp_path / "archives").rglob("*.zip"))
    paths = [path for path, _ in web.requests]
    assert len(paths) == len(set(paths)) == 4  # the record and three archives, once each
    with pytest.raises(DataError, match=r"has no file 's21\.zip'; did you mean"):
        download("grid", tmp_path, files=["s21.zip"])


def test_a_run_cut_between_archives_goes_on(
    web: Loopback, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    offering(monkeypatch, "grid", serve_grid(web, GRID))
    path = "/api/records/7/files/s20.zip/content"
    web.serve(path, status(404))
    with pytest.raises(DataError, match=r"s20\.zip could not be fetched"):
        download("grid", tmp_path, patience=patience())
    assert clips("grid", tmp_path) == ["s1/bbaf2n", "s1/bbaf3s"]
    web.serve(path, file(GRID["s20.zip"]))
    assert len(clips("grid", download("grid", tmp_path, patience=patience()))) == 3
    asked = [found for found, _ in web.requests]
    assert asked.count("/api/records/7/files/s1.zip/content") == 1


@pytest.mark.parametrize("listing", [b"[]", b'{"files": []}', b"not json", b'{"files": [{}]}'])
def test_a_record_without_a_listing_is_asked_again(
    listing: bytes, web: Loopback, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    offering(monkeypatch, "grid", serve_grid(web, GRID))
    good = web.acts["/api/records/7"]
    web.serve("/api/records/7", file(listing))
    with pytest.raises(DataError, match=r"api/records/7 (gave no listing|lists no file)"):
        download("grid", tmp_path, patience=patience())
    web.serve("/api/records/7", *good)
    assert len(clips("grid", download("grid", tmp_path))) == 3


def test_vctk_and_celeba_unpack_where_their_readers_look(
    web: Loopback, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = zip_of(
        "wav48_silence_trimmed/p225/p225_001_mic1.flac", "speaker-info.txt", "txt/p/a.txt"
    )
    url = web.serve("/v", file(body))
    entry = Download(url=url, file="VCTK-Corpus-0.92.zip", bytes=len(body), checksum=sha256(body))
    offering(monkeypatch, "vctk", entry)
    root = download("vctk", tmp_path)
    assert clips("vctk", root) == clips("vctk", tmp_path) == ["p225/p225_001"]
    body = zip_of("celeba_hq/train/female/1.jpg", "celeba_hq/val/male/2.jpg")
    offering(
        monkeypatch, "celeba_hq", Download(url=web.serve("/c", file(body)), file="celeba_hq.zip")
    )
    lines: list[str] = []
    root = download("celeba_hq", tmp_path, on_log=lines.append)
    assert clips("celeba_hq", root) == ["train/female/1.jpg", "val/male/2.jpg"]
    assert clips("celeba_hq", tmp_path) == clips("celeba_hq", root)
    assert any(sha256(body) in line and "nobody has published" in line for line in lines)
    assert json.loads((root / STAMP).read_text(encoding="utf-8"))["checksum"] == sha256(body)


def test_a_zip_in_an_archive_is_unpacked_too(
    web: Loopback, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    films = io.BytesIO()
    with zipfile.ZipFile(films, "w") as archive:
        archive.writestr("s1/films.zip", zip_of("bbaf2n.mpg"))
    bodies = {name: films.getvalue() for name in ("s1.zip", "s20.zip", "alignments.zip")}
    offering(monkeypatch, "grid", serve_grid(web, bodies))
    download("grid", tmp_path, files=["s1.zip"])
    assert (tmp_path / "grid" / "s1" / "films" / "bbaf2n.mpg").is_file()


def test_originals_in_place_stop_a_download_before_it_starts(
    web: Loopback, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "vctk" / "wav48" / "p225").mkdir(parents=True)
    offering(monkeypatch, "vctk", Download(url=web.serve("/v", file(BODY)), file="v.zip"))
    with pytest.raises(DataError, match=r"holds something else.*use them as they are"):
        download("vctk", tmp_path)
    assert web.requests == []


def test_a_disk_too_small_for_the_corpus(
    web: Loopback, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = zip_of("wav48/p225/p225_001.wav")
    entry = Download(url=web.serve("/v", file(body)), file="v.zip", bytes=10_000_000_000)
    offering(monkeypatch, "vctk", entry)
    small_disk(monkeypatch, 20_900_000_000)
    with pytest.raises(DataError, match=r"20\.9 GB free; expected about 21 GB.*keep_archives"):
        download("vctk", tmp_path)
    assert web.requests == []


@pytest.mark.parametrize("corpus", ["lrs3", "lip2wav", "voxceleb"])
def test_what_must_be_asked_for(corpus: str, tmp_path: Path) -> None:
    assert describe(corpus).how in offer(corpus)
    with pytest.raises(DataError, match="cannot be fetched; expected one that its owners"):
        download(corpus, tmp_path)
    assert not list(tmp_path.iterdir())
    with pytest.raises(ConfigError):
        download("vctkk", tmp_path)
