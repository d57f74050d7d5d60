"""Files and folders written whole: another process sees the old or the new, never a part of it."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from os import PathLike
from pathlib import Path


@contextmanager
def whole(path: str | PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path beside a file, and put what is written there in the file's place.

    The temporary file exists and is empty; it ends as the file does, since many writers choose
    the format by the suffix. If the block fails, it is removed and the file stays as it was.

    Args:
        path: the file; its folder is made.

    Raises:
        OSError: the disk refuses; the caller says what could not be written.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = target.with_name(f".{target.stem[:100]}.{secrets.token_hex(4)}.part{target.suffix}")
    draft.open("xb").close()
    try:
        yield draft
        with draft.open("rb") as file:
            os.fsync(file.fileno())
        draft.replace(target)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise


@contextmanager
def whole_folder(path: Path, *, replace: bool = False) -> Iterator[Path]:
    """Yield an empty folder beside another, and put it in that one's place.

    If the block fails, it is removed, and so is what a killed process left of it; what was at the
    path stays as it was.

    Args:
        path: the folder; those above it are made.
        replace: it may be there already.

    Raises:
        OSError: the disk refuses, or something is there that is not to be replaced.
    """
    draft, before = (path.with_name(f".{path.name}.{end}") for end in ("draft", "before"))
    shutil.rmtree(draft, ignore_errors=True)
    try:
        draft.mkdir(parents=True)
        yield draft
        if replace and path.exists():
            shutil.rmtree(before, ignore_errors=True)
            path.rename(before)
        draft.rename(path)
    except BaseException:
        if before.exists() and not path.exists():
            before.rename(path)
        raise
    finally:
        for left in (draft, before):
            shutil.rmtree(left, ignore_errors=True)


def write_whole(path: str | PathLike[str], data: bytes | str) -> None:
    """Write a file whole or not at all; text as UTF-8. See :func:`whole`."""
    content = data.encode("utf-8") if isinstance(data, str) else data
    with whole(path) as draft:
        draft.write_bytes(content)


def unused(folder: Path, stem: str, suffix: str) -> Path:
    """Choose a file of a folder that is not there yet: `stem.png`, or `stem_2.png` and so on."""
    names = (f"{stem}_{number}{suffix}" if number > 1 else stem + suffix for number in count(1))
    return next(file for file in map(folder.joinpath, names) if not file.exists())
