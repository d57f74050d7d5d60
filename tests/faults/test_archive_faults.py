"""Hostile and damaged archives: unpacked whole below their folder, or nothing and a reason."""

from __future__ import annotations

import io
import os
import resource
import shutil
import stat
import tarfile
import zipfile
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.faults.download_factory import PAGE, small_disk
from xfavot.errors import DataError
from xfavot.fetch import archives
from xfavot.fetch.archives import STAMP, Bounds, extract


def make_zip(path: Path, *entries: tuple[str | zipfile.ZipInfo, bytes], level: int = 8) -> Path:
    with zipfile.ZipFile(path, "w", level) as archive:
        for name, content in entries:
            archive.writestr(name, content)
    return path


def make_tar(path: Path, *entries: tuple[str, bytes, bytes], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for name, kind, content in entries:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, content.decode() if kind != tarfile.REGTYPE else ""
            info.size, info.mode = len(content) if kind == tarfile.REGTYPE else 0, 0o6777
            archive.addfile(info, io.BytesIO(content))
    return path


def hostile(archive: Path, match: str, **keywords: Any) -> None:
    """Expect a refusal after which nothing is left beside the archive and its records."""
    outside = sorted(archive.parent.parent.iterdir())
    with pytest.raises(DataError, match=match):
        extract(archive, archive.parent / "out", **keywords)
    left = {path.name for path in archive.parent.iterdir()}
    assert left <= {archive.name, f".{archive.name}.json", ".fetch.lock"}
    assert sorted(archive.parent.parent.iterdir()) == outside


NAMES = ["../x", "a/../../x", "/x", "//x", "C:x", "c:\\x", "a\\..\\x", "a/..", "\0", "a\0/../x"]


@pytest.mark.parametrize("name", NAMES)
def test_names_that_lead_out(name: str, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    written = "Q" * len(name.encode())  # zipfile itself would tidy the name
    archive = make_zip(tmp_path / "in" / "a.zip", ("good", b"1"), (written, b"2"))
    patched(archive, written.encode(), name.encode(), count=2)
    hostile(archive, "no plain relative path|leads out of its folder")
    if "\0" not in name:
        entries = ("good", tarfile.REGTYPE, b"1"), (name, tarfile.REGTYPE, b"2")
        tar = make_tar(tmp_path / "in" / "a.tar", *entries)
        archive.unlink()
        (tmp_path / "in" / ".a.zip.json").unlink()
        hostile(tar, "no plain relative path|leads out of its folder")


@pytest.mark.parametrize(
    ("kind", "word"),
    [
        (tarfile.SYMTYPE, "symbolic link"),
        (tarfile.LNKTYPE, "hard link"),
        (tarfile.CHRTYPE, "device"),
        (tarfile.BLKTYPE, "device"),
        (tarfile.FIFOTYPE, "device"),
    ],
)
def test_links_and_devices(kind: bytes, word: str, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    entries = ("good", tarfile.REGTYPE, b"1"), ("bad", kind, b"good")
    hostile(make_tar(tmp_path / "in" / "a.tar", *entries), f"'bad': a {word}")


def test_a_symbolic_link_in_a_zip(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    link = zipfile.ZipInfo("bad")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    archive = make_zip(tmp_path / "in" / "a.zip", (link, b"/etc"), ("bad/x", b"1"))
    hostile(archive, "'bad': a symbolic link")


@pytest.mark.parametrize(
    "names",
    [
        ("a", "a"),
        ("a", "A"),
        ("d/a", "D/b"),
        ("a", "a/b"),
        ("a/b", "a"),
        ("\u00e9", "e\u0301"),
        ("a", "./a"),
        ("a/", "A/x"),
    ],
)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_names_that_meet(names: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    entries = [(name, b"") for name in names]
    hostile(make_zip(tmp_path / "in" / "a.zip", *entries), "meets ")


@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
def test_a_bomb_by_ratio(kind: str, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    zeros = bytes(20 << 20)
    path = tmp_path / "in" / f"a.{kind}"
    if kind == "zip":
        make_zip(path, ("zeros", zeros))
    else:
        make_tar(path, ("zeros", tarfile.REGTYPE, zeros), mode=f"w:{kind[-2:]}")
    hostile(path, "'zeros': with it there are more than .* 16777216 bytes")


def test_bounds_are_arguments(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    archive = make_zip(tmp_path / "in" / "a.zip", *((str(i), bytes(100)) for i in range(20)))
    hostile(archive, "more than 19 files", bounds=Bounds(files=19))
    hostile(archive, "1999 bytes", bounds=Bounds(bytes=1999))
    extract(archive, tmp_path / "in" / "out", bounds=Bounds(files=20, bytes=2000))
    assert len(list((tmp_path / "in" / "out").iterdir())) == 21


def patched(path: Path, old: bytes, new: bytes, count: int) -> None:
    content = path.read_bytes()
    assert content.count(old) == count
    path.write_bytes(content.replace(old, new))


def test_a_bomb_that_lies_about_its_size(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    size = 20 << 20
    archive = make_zip(tmp_path / "in" / "a.zip", ("zeros", bytes(size)))
    patched(archive, size.to_bytes(4, "little"), (999).to_bytes(4, "little"), count=2)
    hostile(archive, r"is damaged \(BadZipFile: Bad CRC")


def test_bytes_are_counted_while_they_are_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "in").mkdir()
    archive = make_zip(tmp_path / "in" / "a.zip", ("zeros", bytes(1 << 21)), level=0)
    judge = archives.judge

    def blind(path: Path, members: Iterable[Any], **most: int) -> Any:
        return judge(path, (replace(member, size=1) for member in members), **most)

    monkeypatch.setattr(archives, "judge", blind)
    hostile(archive, "unpacks to more bytes than it may", bounds=Bounds(bytes=1 << 20))


def test_an_encrypted_zip(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    archive = make_zip(tmp_path / "in" / "a.zip", ("a", b"1"))
    content = bytearray(archive.read_bytes())
    content[6] |= 1
    content[content.index(b"PK\x01\x02") + 8] |= 1
    archive.write_bytes(content)
    hostile(archive, "'a': encrypted")


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz", "tar.bz2", "tar.xz"])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.9])
def test_a_truncated_archive(kind: str, share: float, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    path = tmp_path / "in" / f"a.{kind}"
    content = os.urandom(50_000)
    if kind == "zip":
        make_zip(path, ("a", content), ("b", content))
    else:
        entries = ("a", tarfile.REGTYPE, content), ("b", tarfile.REGTYPE, content)
        make_tar(path, *entries, mode=f"w:{kind.partition('.')[2]}")
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    hostile(path, "is damaged|holds no file")


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz", "tar.bz2", "tar.xz"])
def test_flipped_bits_never_escape_as_another_error(kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"a.{kind}"
    content = b"word " * 2000
    if kind == "zip":
        make_zip(path, ("d/a", content), ("d/b", content))
    else:
        entries = ("d/a", tarfile.REGTYPE, content), ("d/b", tarfile.REGTYPE, content)
        make_tar(path, *entries, mode=f"w:{kind.partition('.')[2]}")
    whole = path.read_bytes()
    caught = 0
    for place in range(0, len(whole), max(len(whole) // 30, 1)):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << place % 8
        path.write_bytes(damaged)
        try:
            extract(path, tmp_path / "out")
        except DataError:
            caught += 1
            assert not (tmp_path / "out").exists()
        shutil.rmtree(tmp_path / "out", ignore_errors=True)
    assert caught >= (1 if kind == "tar" else 5)  # a tar has no checksum of its contents


def test_a_tar_that_ends_early(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    entries = ("a", tarfile.REGTYPE, b"1"), ("b", tarfile.REGTYPE, b"2")
    path = make_tar(tmp_path / "in" / "a.tar", *entries)
    whole = path.read_bytes()
    for damaged in (whole[:1024], whole[:1024] + b"x" + whole[1025:]):  # as if only `a` were there
        path.write_bytes(damaged)
        hostile(path, "breaks off or a header is damaged")
    path.write_bytes(whole + bytes(20 << 20))
    hostile(path, "bytes after its end")


def test_the_checksum_of_gzip_is_heeded(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    path = tmp_path / "in" / "a.tar.gz"
    make_tar(path, ("a", tarfile.REGTYPE, os.urandom(5000)), mode="w:gz")
    content = bytearray(path.read_bytes())
    content[-8] ^= 1
    path.write_bytes(content)
    hostile(path, "is damaged.*CRC check failed")


@pytest.mark.parametrize("content", [b"", PAGE, os.urandom(2000), b"\x1f\x8b" + bytes(99)])
def test_what_is_no_archive(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.zip").write_bytes(content)
    hostile(tmp_path / "in" / "a.zip", "is no archive|is damaged")


def test_a_tar_with_a_name_of_gigabytes(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    header = tarfile.TarInfo("name")
    header.type, header.size = tarfile.GNUTYPE_LONGNAME, 1 << 32
    path = tmp_path / "in" / "a.tar"
    path.write_bytes(header.tobuf(tarfile.GNU_FORMAT) + bytes(4096))
    hostile(path, "a header of 4294967296 bytes")


def test_modes_are_not_taken_over(tmp_path: Path) -> None:
    tar = make_tar(tmp_path / "a.tar", ("d/tool", tarfile.REGTYPE, b"1"))
    mode = (extract(tar, tmp_path / "out") / "d" / "tool").stat().st_mode
    assert mode & (stat.S_ISUID | stat.S_ISGID | stat.S_IXUSR | stat.S_IWOTH) == 0


def test_a_disk_that_fills_up_leaves_nothing_half(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    archive = make_zip(tmp_path / "in" / "a.zip", ("a", b"1"), ("b", os.urandom(400_000)))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, limits[1]))
    try:
        hostile(archive, "cannot be written.*free some space.*nothing is half unpacked")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_disk_too_small_for_the_listing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "in").mkdir()
    archive = make_zip(tmp_path / "in" / "a.zip", ("a", bytes(5000)))
    small_disk(monkeypatch, 4999)
    hostile(archive, r"has 5 kB free; expected 5 kB for the files of a\.zip")


def test_a_killed_extraction_is_done_again(tmp_path: Path) -> None:
    archive = make_zip(tmp_path / "a.zip", ("a", b"new"))
    half = tmp_path / ".out.unpacking"
    half.mkdir()
    (half / "b").write_bytes(b"old")  # what a killed process has left
    out = extract(archive, tmp_path / "out")
    assert sorted(path.name for path in out.iterdir()) == [STAMP, "a"]
    assert not half.exists()


def test_a_folder_of_others_is_never_replaced(tmp_path: Path) -> None:
    archive = make_zip(tmp_path / "a.zip", ("a", b"1"))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(DataError, match=r"out holds something else.*use them as they are"):
        extract(archive, tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["thesis.txt"]
