"""Archives: unpacked whole below their folder, or nothing and a reason."""

from __future__ import annotations

import os
import stat
import tarfile
import zipfile
from pathlib import Path

import pytest

from tests.conftest import Patch, refuses
from tests.faults.loopback import PAGE, disk_of, pack
from xfavot import fetch
from xfavot.errors import DataError
from xfavot.fetch import stem, unpack

ENDINGS = ["zip", "tar", "tar.gz", "tar.bz2", "tar.xz"]


def packed(path: Path, *entries: tuple[str, bytes], kind: bytes = tarfile.REGTYPE) -> Path:
    """Write an archive of the kind that its ending says."""
    path.write_bytes(pack(path.name.partition(".")[2], *entries, kind=kind))
    return path


def refused(archive: Path, match: str) -> None:
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
    refused(path, "'bad' is a link or a device")


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
    refused(path, "it is too much to unpack")
    monkeypatch.setattr(fetch, "RATIO_FREE_BYTES", 10 * 512)
    monkeypatch.setattr(fetch, "MOST_RATIO", 0)
    refused(packed(path, *((f"{i}", b"") for i in range(11))), "too much")
    if ending == "zip":  # one that lies about its size
        content = packed(path, ("zeros", bytes(10 << 20))).read_bytes()
        sizes = [(size).to_bytes(4, "little") for size in (10 << 20, 999)]
        path.write_bytes(content.replace(*sizes))
        monkeypatch.undo()
        refused(path, "BadZipFile: Bad CRC")


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
        refused(path, reason)


@pytest.mark.parametrize("content", [b"", PAGE, b"\x1f\x8b" + bytes(99), b"PK"])
def test_what_is_no_archive(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(content)
    refused(tmp_path / "a.zip", "cannot be unpacked")


def test_a_disk_that_fills_up_leaves_nothing_half(tmp_path: Path) -> None:
    archive = packed(tmp_path / "a.zip", ("a", b"1"), ("b", os.urandom(400_000)))
    with disk_of(300_000):
        refused(archive, "File too large.*free some.*nothing was unpacked")
