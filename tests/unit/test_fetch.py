"""Files from the web and archives on good days; `faults/test_download.py` has the bad ones."""

from __future__ import annotations

import hashlib
import io
import json
import random
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.faults.loopback import Loopback, file
from xfavot.data.corpora import Download, describe, offer
from xfavot.errors import ConfigError, DataError
from xfavot.fetch import part
from xfavot.fetch.archives import STAMP, extract, is_unpacked, stem
from xfavot.fetch.part import checksum_of
from xfavot.fetch.progress import Meter, size_text
from xfavot.fetch.remote import Patience, Remote, fetch
from xfavot.fetch.zenodo import record_files
from xfavot.strict import build

BODY = random.Random(0).randbytes(3_000_000)
SHA256 = f"sha256:{hashlib.sha256(BODY).hexdigest()}"
MD5 = f"md5:{hashlib.md5(BODY).hexdigest()}"
RECORD = "https://zenodo.org/api/records/7"


@pytest.fixture
def web(monkeypatch: pytest.MonkeyPatch) -> Iterator[Loopback]:
    monkeypatch.delenv("XFAVOT_OFFLINE", raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with Loopback() as server:
        yield server


@pytest.mark.parametrize("checksum", [SHA256, MD5, ""])
def test_a_file_is_fetched_and_read_through_once(
    checksum: str, web: Loopback, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = web.serve("/a", file(BODY))
    wanted = Remote(url=url, name="a.bin", size=len(BODY), checksum=checksum)
    lines: list[str] = []
    path = fetch(wanted, tmp_path / "new" / "folder", on_log=lines.append)
    assert path.read_bytes() == BODY
    assert {found.name for found in path.parent.iterdir()} == {"a.bin", ".a.bin.json", part.LOCK}
    assert checksum_of(path) == (checksum or SHA256)
    assert lines[-1].startswith(f"a.bin: 3 MB are here, {checksum or SHA256}, ")
    with monkeypatch.context() as patch:
        patch.setattr(part, "_digest", None)  # reading it again would fail
        assert fetch(wanted, path.parent) == path
    assert len(web.requests) == 1
    assert checksum_of(path, "md5") == MD5


def test_a_file_that_changed_is_read_again(web: Loopback, tmp_path: Path) -> None:
    wanted = Remote(url=web.serve("/a", file(BODY)), name="a.bin", checksum=SHA256)
    path = fetch(wanted, tmp_path)
    path.write_bytes(BODY[::-1])
    with pytest.raises(DataError, match=rf"expected {SHA256}; remove"):
        fetch(wanted, tmp_path)


def test_memory_stays_bounded(web: Loopback, tmp_path: Path) -> None:
    import tracemalloc

    body = bytes(40 << 20)
    wanted = Remote(url=web.serve("/a", file(body)), name="a.bin")
    tracemalloc.start()
    try:
        fetch(wanted, tmp_path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 8 << 20


def test_progress_is_a_line_now_and_then() -> None:
    now = [0.0]
    lines: list[str] = []
    meter = Meter(
        "a.zip", lines.append, total=2_000_000_000, done=500_000_000, clock=lambda: now[0]
    )
    for _ in range(150):
        now[0] += 1.0
        meter.add(10_000_000)
    assert lines[0] == "a.zip: 600 MB of 2 GB (30%), 10 MB a second, 2:20 left"
    assert 10 <= len(lines) <= 16
    lines.clear()
    meter = Meter("b.zip", lines.append, clock=lambda: now[0])
    now[0] += 9.0
    meter.add(900)
    assert lines == ["b.zip: 900 bytes, 100 bytes a second"]


def test_lines_of_a_slow_transfer_tell_the_time_left(web: Loopback, tmp_path: Path) -> None:
    ticks = iter(range(0, 10**9, 1000))
    url = web.serve("/a", file(BODY))
    lines: list[str] = []
    patience = Patience(clock=lambda: float(next(ticks)))
    fetch(Remote(url=url, name="a.bin"), tmp_path, on_log=lines.append, patience=patience)
    assert any("of 3 MB" in line and " left" in line for line in lines)


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 bytes"),
        (999, "999 bytes"),
        (1000, "1 kB"),
        (11_747_302_977, "11.7 GB"),
        (999_600, "1 MB"),
        (123_456_789, "123 MB"),
        (5e15, "5000 TB"),
    ],
)
def test_sizes_in_words(count: float, text: str) -> None:
    assert size_text(count) == text


# --- archives ---


def make(path: Path, names: list[str]) -> Path:
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name in names:
                archive.writestr(name, f"in {name}")
        return path
    mode = {".gz": "w:gz", ".tgz": "w:gz", ".bz2": "w:bz2", ".xz": "w:xz"}.get(path.suffix, "w")
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for name in names:
            content = f"in {name}".encode()
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def tree(folder: Path) -> list[str]:
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != STAMP)
    return sorted(path.relative_to(folder).as_posix() for path in files)


ENDINGS = ["zip", "tar", "tar.gz", "tgz", "tar.bz2", "tar.xz"]


@pytest.mark.parametrize("ending", ENDINGS)
def test_an_archive_is_told_by_content_and_unpacked_once(ending: str, tmp_path: Path) -> None:
    names = ["d/a.txt", "d/e/b.txt", "c \u00fc.txt", "./f.txt", f"{'n' * 120}/g.txt"]
    archive = make(tmp_path / f"x.{ending}", names).rename(tmp_path / "download")
    out = extract(archive, tmp_path / "out")
    assert tree(out) == sorted(name.removeprefix("./") for name in names)
    assert (out / "d" / "e" / "b.txt").read_text(encoding="utf-8") == "in d/e/b.txt"
    stamp = json.loads((out / STAMP).read_text(encoding="utf-8"))
    size = archive.stat().st_size
    assert stamp == {"archive": "download", "bytes": size, "checksum": checksum_of(archive)}
    (out / "d" / "a.txt").unlink()
    extract(archive, tmp_path / "out")
    assert not (out / "d" / "a.txt").exists()  # it was not unpacked again
    assert is_unpacked(out, name="download", size=size)
    with pytest.raises(DataError, match=r"out holds download of sha256:.*move them away"):
        is_unpacked(out, name="download", checksum="sha256:" + "0" * 64)
    with pytest.raises(DataError, match="out holds download"):
        is_unpacked(out, name="another.zip")


def test_a_top_folder_called_as_the_archive_is_dropped(tmp_path: Path) -> None:
    inside = ["s1/a.mpg", "s1/v/b.mpg"]
    out = extract(make(tmp_path / "s1.zip", inside), tmp_path / "out")
    assert tree(out) == ["a.mpg", "v/b.mpg"]
    out = extract(make(tmp_path / "s2.zip", inside), tmp_path / "out2")
    assert tree(out) == inside
    out = extract(make(tmp_path / "s3.zip", ["s3/a", "b"]), tmp_path / "out3")
    assert tree(out) == ["b", "s3/a"]
    assert [path.name for path in tmp_path.glob(".*unpacking")] == []


def test_zips_in_archives_one_level_deep(tmp_path: Path) -> None:
    make(tmp_path / "c.zip", ["deep.txt"])
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as archive:
        archive.write(tmp_path / "c.zip", "c.zip")
        archive.writestr("b.txt", "b")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.write(tmp_path / "b.zip", "films/b.zip")
        archive.writestr("not.zip", "text")
    flat = extract(tmp_path / "a.zip", tmp_path / "flat")
    assert tree(flat) == ["films/b.zip", "not.zip"]
    out = extract(tmp_path / "a.zip", tmp_path / "out", nested=True)
    assert tree(out) == ["films/b/b.txt", "films/b/c.zip", "not.zip"]
    with zipfile.ZipFile(tmp_path / "a.zip", "a") as archive:
        archive.writestr("films/b/x", "taken")
    with pytest.raises(DataError, match=r"b\.zip inside the archive unpacks to 'b'"):
        extract(tmp_path / "a.zip", tmp_path / "new", nested=True)
    assert not (tmp_path / "new").exists()


def test_an_empty_folder_may_be_there_already(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    assert tree(extract(make(tmp_path / "a.zip", ["x"]), tmp_path / "out")) == ["x"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("s1.zip", "s1"),
        ("a.tar.gz", "a"),
        ("VCTK-Corpus-0.92.zip", "VCTK-Corpus-0.92"),
        ("b.tgz", "b"),
        (".zip", ".zip"),
        ("plain", "plain"),
    ],
)
def test_the_stem_of_an_archive(name: str, expected: str) -> None:
    assert stem(name) == expected


# --- records and descriptions ---

HEX = "0123456789abcdef" * 2
LISTINGS: dict[str, Any] = {
    "key": [
        {"key": "s 1.zip", "size": 5, "checksum": f"md5:{HEX}", "links": {"self": "https://z/1"}}
    ],
    "filename": [
        {
            "filename": "s 1.zip",
            "filesize": 5,
            "checksum": HEX,
            "links": {"self": "https://z/no", "download": "https://z/1"},
        }
    ],
    "entries": {
        "enabled": True,
        "entries": {
            "s 1.zip": {
                "size": 5,
                "checksum": f"md5:{HEX}",
                "links": {"self": "https://z/about", "content": "https://z/1"},
            }
        },
    },
    "list of entries": {
        "entries": [
            {
                "key": "s 1.zip",
                "size": 5,
                "checksum": f"md5:{HEX}",
                "links": {"content": "https://z/1"},
            }
        ]
    },
}


@pytest.mark.parametrize("form", LISTINGS)
def test_every_form_of_a_record_is_read(form: str) -> None:
    (found,) = record_files(RECORD + "/", json.dumps({"id": 7, "files": LISTINGS[form]}))
    assert (found.name, found.size, found.checksum) == ("s 1.zip", 5, f"md5:{HEX}")
    assert found.url == "https://z/1"
    assert found.mirrors[-1] == f"{RECORD}/files/s%201.zip/content"


def test_what_a_record_leaves_out_or_hides() -> None:
    entry = {"key": "a.zip", "checksum": "crc32:0011", "links": {"self": "http://z/1"}}
    (found,) = record_files(RECORD, json.dumps({"files": [entry]}))
    assert (found.size, found.checksum, found.mirrors) == (0, "", ())
    assert found.url == f"{RECORD}/files/a.zip/content"  # the link is not https
    with pytest.raises(DataError, match="expected a plain one"):
        record_files(RECORD, json.dumps({"files": [{"key": "../../a.zip"}]}))


def test_an_offer_tells_files_size_and_terms() -> None:
    text = offer("vctk")
    for word in ("VCTK-Corpus-0.92.zip (11.7 GB, sha256:f962", "datashare.is.ed", "CC BY 4.0"):
        assert word in text
    assert "Terms: https://datashare.ed.ac.uk" in text
    assert "Cite: Yamagishi" in text
    assert "no published checksum" in offer("celeba_hq")
    assert "zenodo.org/api/records/3625687" in offer("grid")
    assert "ask for access" in offer("lrs3")


def test_what_can_be_fetched_is_well_described() -> None:
    fetched = {name for name in ("grid", "vctk", "celeba_hq", "lrs3") if describe(name).downloads}
    assert fetched == {"grid", "vctk", "celeba_hq"}
    for name in fetched:
        for entry in describe(name).downloads:
            Remote(url=entry.url or entry.record, name=entry.file or "x", checksum=entry.checksum)
            assert entry.terms.startswith("https://")


@pytest.mark.parametrize(
    ("entry", "match"),
    [
        ({"url": "https://a.org/b"}, "expected url with file, or record with files"),
        ({"record": "https://a.org/b"}, "expected url with file, or record with files"),
        ({"url": "u", "file": "f", "record": "r", "files": ["x"]}, "expected url with file"),
        ({"url": "u", "file": "f", "size": 3}, "size is not a setting"),
        ({"url": "u", "file": "f", "bytes": "3"}, "expected int"),
    ],
)
def test_an_entry_that_says_too_little_or_too_much(entry: dict[str, Any], match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        build(Download, entry)
