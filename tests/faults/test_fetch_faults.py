"""Files and archives from failing and hostile servers: the right one whole, or a reason."""

from __future__ import annotations

import io
import os
import stat
import subprocess
import sys
import tarfile
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.conftest import Patch, refuses
from tests.faults.loopback import (
    BODY,
    HALF,
    PAGE,
    Act,
    Loopback,
    disk_of,
    file,
    pack,
    sha256,
    status,
)
from xfavot import fetch
from xfavot.errors import DataError
from xfavot.fetch import Remote, alone, stem, unpack

ROOT = Path(__file__).resolve().parents[2]


def remote(url: str, *mirrors: str, size: int = 0, checksum: str = sha256(BODY)) -> Remote:
    return Remote(url=url, mirrors=mirrors, file="a.bin", bytes=size, checksum=checksum)


def get(wanted: Remote, folder: Path, log: list[str] | None = None) -> bytes:
    """Fetch, and expect that nothing but the file and the lock stays."""
    with alone(folder):
        path = fetch.fetch(wanted, folder, ([] if log is None else log).append)
    assert {entry.name for entry in folder.iterdir()} == {"a.bin", ".fetch.lock"}
    return path.read_bytes()


def refused(wanted: Remote, folder: Path, match: str, kept: int = 0) -> None:
    """Expect a refusal that names nothing complete and keeps so many bytes."""
    with pytest.raises(DataError, match=match), alone(folder):
        fetch.fetch(wanted, folder, [].append)
    left = folder / "a.bin.part"
    assert (left.stat().st_size if left.exists() else 0) == kept
    assert not (folder / "a.bin").exists()


@pytest.mark.parametrize("checksum", [sha256(BODY), sha256(BODY)[:15], ""])
def test_a_file_comes(checksum: str, web: Loopback, tmp_path: Path, monkeypatch: Patch) -> None:
    url, log = web.serve("/a", file(BODY)), list[str]()
    monkeypatch.setattr(fetch, "LINE_SECONDS", 0.0)
    for _ in range(2):
        assert get(remote(url, size=len(BODY), checksum=checksum), tmp_path, log) == BODY
    assert len(web.requests) == 1
    assert log[-2] == "a.bin: 1.05 MB of 1.05 MB"
    assert log[-1].startswith("a.bin: 1.05 MB are here, sha256:")
    assert ("nobody has published" in log[-1]) == (not checksum)
    words = ["0 bytes", "999 bytes", "1 kB", "1 MB"]
    assert [*map(fetch.size_text, (0, 999, 1000, 999_600))] == words


@pytest.mark.parametrize("checksum", [sha256(BODY), ""])
@pytest.mark.parametrize("stall", [False, True])
def test_a_cut_file_is_resumed(stall: bool, checksum: str, web: Loopback, tmp_path: Path) -> None:
    first = file(BODY, cut=HALF, stall=stall)
    url = web.serve("/a", first, status(503), file(BODY, cut=1 << 18), status(429), file(BODY))
    assert get(remote(url, checksum=checksum), tmp_path) == BODY
    there = [f"bytes={count}-" for count in (HALF, HALF, HALF + (1 << 18), HALF + (1 << 18))]
    assert web.ranges() == ["", *there]
    assert web.requests[1][1]["If-Range"] == '"one"'


def test_what_came_is_kept_for_the_next_run_and_for_a_mirror(web: Loopback, tmp_path: Path) -> None:
    url = web.serve("/a", file(BODY, cut=HALF), status(503))
    match = r"503.*3 tries.*524 kB are kept.*run again, or fetch .*/a by hand and put it at"
    refused(remote(url), tmp_path, match, kept=HALF)
    mirror = web.serve("/b", file(BODY))
    assert get(remote(web.serve("/a", status(404)), mirror), tmp_path) == BODY
    assert web.ranges()[-1] == f"bytes={HALF}-"


CHANGED = {
    "range ignored": file(BODY, ranges=False),
    "offset off": file(BODY, shift=7),
    "changed": file(BODY, etag='"two"'),
    "shorter": file(BODY[:HALF], heed_if_range=False),
}


@pytest.mark.parametrize("change", CHANGED)
def test_what_does_not_continue_starts_anew(change: str, web: Loopback, tmp_path: Path) -> None:
    acts = file(bytes(len(BODY)), cut=HALF), CHANGED[change], file(BODY, ranges=False)
    assert get(remote(web.serve("/a", *acts), checksum=""), tmp_path) == BODY


def test_a_server_that_never_gets_further_is_given_up(web: Loopback, tmp_path: Path) -> None:
    cuts = (1 << 17, 1 << 16, 1 << 17)
    url = web.serve("/a", *(file(BODY, ranges=False, cut=cut) for cut in cuts))
    refused(remote(url), tmp_path, "3 tries in a row", kept=1 << 17)
    assert len(web.requests) == 3


# an answer in place of the file, what is known of the file, and the words of the refusal
OTHERS: list[tuple[Act, dict[str, Any], str]] = [
    (file(BODY[::-1]), {}, rf"is {sha256(BODY[::-1])}; expected {sha256(BODY)};"),
    (file(BODY[::-1]), {"checksum": sha256(BODY)[:15]}, r"expected sha256:\w{8}; it was removed"),
    (file(BODY), {"size": HALF}, f"has {HALF + (1 << 16)} bytes; expected {HALF}"),
    (file(BODY[:HALF], sized=False), {"size": len(BODY)}, f"has {HALF} bytes; expected"),
    (file(b"\n" + PAGE), {}, "is a web page"),
    (status(404), {}, "status 404"),
    (status(302, Location="file:///etc/hostname"), {}, "file:///etc/hostname"),
    (status(302, Location="/a"), {}, "redirects"),
    (status(302, Location="http://127.0.0.1:9/a"), {}, r"127\.0\.0\.1.* refused"),
]


@pytest.mark.parametrize(("answer", "known", "match"), OTHERS)
def test_another_file_is_refused_and_the_mirror_asked(
    answer: Act, known: dict[str, Any], match: str, web: Loopback, tmp_path: Path
) -> None:
    url = web.serve("/a", answer)
    refused(remote(url, **known), tmp_path, match)
    mirror = web.serve("/b", status(302, Location=web.serve("/c", file(BODY))))
    assert get(remote(url, mirror, size=len(BODY)), tmp_path) == BODY


def test_no_redirect_from_https_to_http(tmp_path: Path, monkeypatch: Patch) -> None:
    plain, safe = requests.Response(), requests.Response()
    plain.url, safe.url, plain.status_code = "http://a.test/b", "https://a.test/b", 200
    plain.history, plain.raw = [safe], io.BytesIO()
    monkeypatch.delenv("XFAVOT_OFFLINE", raising=False)
    monkeypatch.setattr(requests, "get", lambda url, **keywords: plain)
    refused(remote("https://a.test/b"), tmp_path, "by https and http")


def test_offline_nothing_is_asked(web: Loopback, tmp_path: Path, monkeypatch: Patch) -> None:
    wanted = remote(web.serve("/a", file(BODY)))
    monkeypatch.setenv("XFAVOT_OFFLINE", "1")
    refused(wanted, tmp_path, rf"XFAVOT_OFFLINE forbids.*put it at {tmp_path}/a\.bin")
    (tmp_path / "a.bin").write_bytes(BODY)  # by hand
    assert get(wanted, tmp_path) == BODY
    (tmp_path / "a.bin").write_bytes(b"mine")
    match = r"expected sha256:.*; remove it and run again"
    refuses(DataError, match, fetch.fetch, wanted, tmp_path, print)
    assert (tmp_path / "a.bin").read_bytes() == b"mine"
    assert web.requests == []


def test_a_disk_that_fills_up_keeps_the_part(web: Loopback, tmp_path: Path) -> None:
    url = web.serve("/a", file(BODY))
    with disk_of(HALF):
        refused(remote(url), tmp_path, "cannot be written.*free some.*is kept", kept=HALF)
    assert get(remote(url), tmp_path) == BODY
    assert web.ranges() == ["", f"bytes={HALF}-"]


FETCHER = """
import sys
from pathlib import Path
from xfavot.fetch import Remote, alone, fetch
with alone(Path(sys.argv[3])):
    fetch(Remote(url=sys.argv[1], file="a.bin", checksum=sys.argv[2]), Path(sys.argv[3]), print)
"""


def test_a_killed_process_is_resumed_by_one_of_two(web: Loopback, tmp_path: Path) -> None:
    url = web.serve("/a", file(BODY, cut=HALF, stall=True), file(BODY))
    call = [sys.executable, "-c", FETCHER, url, sha256(BODY), str(tmp_path)]
    with subprocess.Popen(call, env={**os.environ, "PYTHONPATH": str(ROOT)}) as process:
        left = tmp_path / "a.bin.part"
        while process.poll() is None and not (left.exists() and left.stat().st_size == HALF):
            time.sleep(0.01)
        process.kill()
    with ThreadPoolExecutor(2) as pool:
        assert [*pool.map(get, [remote(url)] * 2, [tmp_path] * 2)] == [BODY, BODY]
    assert web.ranges() == ["", f"bytes={HALF}-"]


ENDINGS = ["zip", "tar", "tar.gz", "tar.bz2", "tar.xz"]


def packed(path: Path, *entries: tuple[str, bytes], kind: bytes = tarfile.REGTYPE) -> Path:
    """Write an archive of the kind that its ending says."""
    path.write_bytes(pack(path.name.partition(".")[2], *entries, kind=kind))
    return path


def not_unpacked(archive: Path, match: str) -> None:
    """Expect a refusal after which nothing is left beside the archive."""
    refuses(DataError, match, unpack, archive, archive.parent / "out")
    assert list(archive.parent.iterdir()) == [archive]


@pytest.mark.parametrize("ending", ENDINGS)
def test_an_archive_is_known_by_its_content_and_unpacked_once(ending: str, tmp_path: Path) -> None:
    names = ["d/a.txt", "d/e/b.txt", "c \u00fc.txt", "./f.txt", f"{'n' * 120}/g.txt"]
    archive = packed(tmp_path / f"x.{ending}", *((name, name.encode()) for name in names))
    archive, out = archive.rename(tmp_path / "download"), tmp_path / "out"
    (tmp_path / ".out.unpacking").mkdir()  # what a killed process has left
    out.mkdir()  # an empty folder is no hindrance
    unpack(archive, out)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["download", "out"]
    for name in names:
        assert (out / name).read_bytes() == name.encode()
        assert (out / name).stat().st_mode & (stat.S_ISUID | stat.S_ISGID | stat.S_IWOTH) == 0
    (out / "d" / "a.txt").unlink()
    unpack(archive, out)
    assert not (out / "d" / "a.txt").exists()  # what lies there is never touched


def test_a_top_folder_called_as_the_archive_is_dropped(tmp_path: Path) -> None:
    for name, inside, there in (
        ("s1", ["s1/a", "s1/v/b"], {"a", "v"}),
        ("s2", ["s1/a"], {"s1"}),
        ("s3", ["s3/a", "b"], {"s3", "b"}),
    ):
        unpack(packed(tmp_path / f"{name}.zip", *((i, b"1") for i in inside)), tmp_path / name)
        assert {entry.name for entry in (tmp_path / name).iterdir()} == there
    names = ("s1.zip", "a.tar.gz", "VCTK-Corpus-0.92.zip", "b.tgz", ".zip", "plain")
    assert [*map(stem, names)] == ["s1", "a", "VCTK-Corpus-0.92", "b", ".zip", "plain"]


@pytest.mark.parametrize("ending", ["zip", "tar"])
@pytest.mark.parametrize("name", ["../x", "a/../../x", "/x", "//x", "a/..", "a\0/../x"])
def test_names_that_lead_out_are_refused_or_stay_in(name: str, ending: str, tmp_path: Path) -> None:
    written = "Q" * len(name)  # zipfile itself would tidy the name
    archive = packed(tmp_path / f"a.{ending}", ("good", b"1"), (written, b"2"))
    archive.write_bytes(archive.read_bytes().replace(written.encode(), name.encode()))
    before = set(Path("/").iterdir())
    try:
        unpack(archive, tmp_path / "out")
    except DataError:
        assert list(tmp_path.iterdir()) == [archive]
    assert {path.name for path in tmp_path.iterdir()} <= {archive.name, "out"}
    assert set(Path("/").iterdir()) == before


@pytest.mark.parametrize("kind", ["SYMTYPE", "LNKTYPE", "CHRTYPE", "BLKTYPE", "FIFOTYPE"])
def test_links_and_devices(kind: str, tmp_path: Path) -> None:
    path = packed(tmp_path / "a.tar", ("good", b"1"), ("bad", b"good"), kind=getattr(tarfile, kind))
    not_unpacked(path, "'bad' is a link or a device")


def test_a_link_in_a_zip_becomes_a_plain_file(tmp_path: Path) -> None:
    link = zipfile.ZipInfo("bad")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(link, b"/etc")
    unpack(tmp_path / "a.zip", tmp_path / "out")
    assert not (tmp_path / "out" / "bad").is_symlink()


@pytest.mark.parametrize("ending", ["zip", "tar.gz"])
def test_bombs(ending: str, tmp_path: Path, monkeypatch: Patch) -> None:
    path = packed(tmp_path / f"a.{ending}", ("small", b"1"), ("zeros", bytes(20 << 20)))
    not_unpacked(path, "it is too much to unpack")
    monkeypatch.setattr(fetch, "RATIO_FREE_BYTES", 10 * 512)
    monkeypatch.setattr(fetch, "MOST_RATIO", 0)
    not_unpacked(packed(path, *((f"{i}", b"") for i in range(11))), "too much")
    if ending == "zip":  # one that lies about its size
        content = packed(path, ("zeros", bytes(10 << 20))).read_bytes()
        sizes = [(size).to_bytes(4, "little") for size in (10 << 20, 999)]
        path.write_bytes(content.replace(*sizes))
        monkeypatch.undo()
        not_unpacked(path, "BadZipFile: Bad CRC")


@pytest.mark.parametrize("ending", ENDINGS)
def test_truncated_archives(ending: str, tmp_path: Path) -> None:
    path = packed(tmp_path / f"a.{ending}", ("a", os.urandom(20_000)), ("b", b"word " * 4000))
    whole = path.read_bytes()
    damaged = [(whole[: len(whole) // part], r"cannot be unpacked \(") for part in (50, 2)]
    if ending == "tar":  # as if only `a` were there
        end = 512 + 20_480
        early = "breaks off or a header is damaged"
        damaged += [(whole[:end], early), (whole[:end] + b"x" + whole[end + 1 :], early)]
    if ending == "tar.gz":
        damaged += [(whole[:-8] + bytes([whole[-8] ^ 1]) + whole[-7:], "CRC check failed")]
    for content, reason in damaged:
        path.write_bytes(content)
        not_unpacked(path, reason)


@pytest.mark.parametrize("content", [b"", PAGE, b"\x1f\x8b" + bytes(99), b"PK"])
def test_what_is_no_archive(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(content)
    not_unpacked(tmp_path / "a.zip", "cannot be unpacked")


def test_a_disk_that_fills_up_leaves_nothing_half(tmp_path: Path) -> None:
    archive = packed(tmp_path / "a.zip", ("a", b"1"), ("b", os.urandom(400_000)))
    with disk_of(300_000):
        not_unpacked(archive, "File too large.*free some.*nothing was unpacked")
