"""Walking a folder of originals: every file once, loops of links end, nothing is passed over.

Files whose names begin with a dot are hidden, as are folders of that kind with all they hold. A
file that is neither a plain file nor a link (a pipe, a device, a socket) is never handed out, since
opening it could wait for ever.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from xfavot.data.readers.records import LeftOut, Reject, media_kind

ARCHIVE_SUFFIXES = frozenset({".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar"})


@dataclass(frozen=True, slots=True, kw_only=True)
class _Folder:
    """One folder and what lies in it, sorted by name."""

    path: Path
    files: list[Path] = field(default_factory=list)
    folders: list[Path] = field(default_factory=list)
    links: list[Path] = field(default_factory=list)  # links to folders
    hidden: list[Path] = field(default_factory=list)
    special: list[Path] = field(default_factory=list)  # pipes, devices, sockets
    fault: str = ""


def walk(folder: Path) -> Iterator[tuple[Path, list[Path]]]:
    """Yield each folder below `folder` with its files, sorted.

    Links to folders are followed last, and every folder is entered once, so that a folder is seen
    under its own name where it has one and a loop of links ends.
    """
    for place in _folders(folder):
        yield place.path, place.files


def left_over(root: Path, taken: Collection[Path]) -> Iterator[Reject | LeftOut]:
    """Account for everything below `root` that no record of a reader names.

    Args:
        root: the corpus's folder.
        taken: files that records name.
    """
    for place in _folders(root):
        if place.fault:
            yield Reject(source=place.path, reason="cannot be opened", detail=place.fault)
        elif media_kind(place.path) and not (place.files or place.folders or place.links):
            detail = "expected a file of that name"
            yield Reject(source=place.path, reason="a folder, not a file", detail=detail)
        for path in place.special:
            if media_kind(path):
                detail = "a pipe, a device or a socket"
                yield Reject(source=path, reason="not a plain file", detail=detail)
        for path in place.files:
            kind = media_kind(path)
            if kind and path not in taken:
                yield LeftOut(source=path, why=f"{kind} files that this corpus's reader leaves out")
        for path in place.hidden:
            if path.is_dir():
                yield LeftOut(source=path, why="hidden folders (a dot begins the name)")
            elif media_kind(path):
                yield LeftOut(source=path, why="hidden files (a dot begins the name)")


def archives(root: Path) -> list[str]:
    """Return the names of archives below `root`, which may still have to be unpacked."""
    return [
        path.name
        for _, files in walk(root)
        for path in files
        if path.suffix.casefold() in ARCHIVE_SUFFIXES
    ]


def _folders(root: Path) -> Iterator[_Folder]:
    seen: set[tuple[int, int]] = set()
    waiting: list[Path] = [root]
    links: list[Path] = []
    while waiting or links:
        here = waiting.pop() if waiting else links.pop(0)
        try:
            state = os.stat(here)
            if (state.st_dev, state.st_ino) in seen:
                continue
            seen.add((state.st_dev, state.st_ino))
            place = _read(here)
        except OSError as error:
            place = _Folder(path=here, fault=str(error))
        waiting += reversed(place.folders)
        links += place.links
        yield place


def _read(here: Path) -> _Folder:
    place = _Folder(path=here)
    with os.scandir(here) as stream:
        entries = sorted(stream, key=lambda entry: entry.name)
    for entry in entries:
        path = here / entry.name
        if entry.name.startswith("."):
            place.hidden.append(path)
        elif entry.is_dir(follow_symlinks=False):
            place.folders.append(path)
        elif entry.is_file(follow_symlinks=False):
            place.files.append(path)
        elif not entry.is_symlink():
            place.special.append(path)
        elif path.is_dir():
            place.links.append(path)
        elif path.is_file() or not path.exists():
            place.files.append(path)  # a link that leads nowhere is met again, and named, later
        else:
            place.special.append(path)
    return place
