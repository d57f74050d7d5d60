"""Many clips made ready, in this process or in several, resumable.

Every finished clip is kept in a staging file of its own, written atomically, so that a run that was
killed goes on where it was; so is the reason why a clip cannot be used. Memory holds a few clips at
a time, however many there are. A file that kills its decoder costs that clip alone.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
import zipfile
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context, parent_process
from multiprocessing.connection import wait as wait_for_any
from pathlib import Path

import numpy as np
import torch

from xfavot.data.clip import (
    CANNOT_BE_OPENED,
    CANNOT_BE_READ,
    Arrays,
    Settings,
    content_sha256,
    process,
)
from xfavot.data.readers import Clip, Reject
from xfavot.errors import DataError

IN_FLIGHT = 4  # clips given out per worker
COMPILED_KEPT = "16"  # convolutions; face detection gains nothing from more
KEPT_TEXTS = ("stamp", "sha256", "reason", "detail")
UNSETTLED = (CANNOT_BE_OPENED, CANNOT_BE_READ)  # may not be the file's fault: tried again


def staging_path(folder: Path, clip: Clip) -> Path:
    """Return the staging file of a clip, in one of 256 folders."""
    name = hashlib.sha256(clip.id.encode()).hexdigest()[:32]
    return folder / name[:2] / f"{name}.npz"


def is_staged(folder: Path, clip: Clip) -> bool:
    """Tell whether a clip was made ready before, from files that have not changed since."""
    return _before(folder, clip) == (True, None)


def _before(folder: Path, clip: Clip) -> tuple[bool, Reject | None]:
    """Tell whether an earlier run has settled a clip, and the reason if it cannot be used."""
    path = staging_path(folder, clip)
    if not path.is_file():
        return False, None
    try:
        with np.load(path, allow_pickle=False) as arrays:
            kept = {name: str(arrays[name]) for name in KEPT_TEXTS if name in arrays.files}
        found = _stamp(clip)
        # Same sizes at other times, as after a copy: the content of the files decides.
        if kept["stamp"] != found and (
            _sizes(kept["stamp"]) != _sizes(found) or kept["sha256"] != content_sha256(clip)
        ):
            return False, None
        if "reason" not in kept:
            return True, None
        return True, Reject(source=clip.source, reason=kept["reason"], detail=kept["detail"])
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return False, None


def load_staged(folder: Path, clip: Clip) -> Arrays:
    """Read a staging file.

    Raises:
        DataError: it is missing or damaged.
    """
    path = staging_path(folder, clip)
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        path.unlink(missing_ok=True)
        raise DataError(
            f"staging file of {clip.id} is damaged ({error}); it was removed; "
            "run again, which prepares this clip anew"
        ) from error


def _save_staged(folder: Path, clip: Clip, arrays: Arrays) -> None:
    path = staging_path(folder, clip)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.stem}.{os.getpid()}.part")
    try:
        with part.open("wb") as stream:
            np.savez(stream, **{"stamp": np.array(_stamp(clip)), **arrays})  # type: ignore[arg-type]
        os.replace(part, path)
    except OSError:
        part.unlink(missing_ok=True)
        raise


def _work(clip: Clip, settings: Settings, folder: Path) -> Reject | None:
    """Make one clip ready and keep it; an `OSError` here is the staging disk's, not the clip's."""
    done = process(clip, settings)
    if not isinstance(done, Reject):
        _save_staged(folder, clip, done)
        return None
    if done.reason not in UNSETTLED:
        texts = {"reason": np.array(done.reason), "detail": np.array(done.detail)}
        _save_staged(folder, clip, texts)
    return done


def stage(
    clips: Sequence[Clip], *, folder: Path, settings: Settings, workers: int
) -> Iterator[tuple[Clip, Reject | None]]:
    """Make clips ready and yield each as it ends, with the reason if it cannot be used.

    Args:
        clips: what to do.
        folder: where staging files go.
        settings: how.
        workers: processes; 0 works in this one. Each uses one thread.

    Yields:
        Each clip once, in the order in which they end.

    Raises:
        OSError: a staging file cannot be written.
    """
    todo: list[Clip] = []
    for clip in clips:
        settled, reject = _before(folder, clip)
        if settled:
            yield clip, reject
        else:
            todo.append(clip)
    if workers == 0:
        for clip in todo:
            yield clip, _work(clip, settings, folder)
        return
    todo.reverse()  # lists are worked off from their ends
    while todo:
        lost: list[Clip] = []
        yield from _pool(todo, lost, IN_FLIGHT, folder=folder, settings=settings, workers=workers)
        while lost:  # a worker died: find the clip that killed it, one at a time
            killers: list[Clip] = []
            yield from _pool(lost, killers, 1, folder=folder, settings=settings, workers=1)
            for clip in killers:
                detail = "the process that decoded it died (a fault of a decoder, or no memory)"
                yield clip, Reject(source=clip.source, reason="decoder died", detail=detail)


def _pool(
    todo: list[Clip],
    lost: list[Clip],
    ahead: int,
    *,
    folder: Path,
    settings: Settings,
    workers: int,
) -> Iterator[tuple[Clip, Reject | None]]:
    """Work off `todo`, `ahead` clips a worker; those in flight when a worker dies go to `lost`."""
    pool = ProcessPoolExecutor(
        min(workers, len(todo)), mp_context=get_context("spawn"), initializer=_start_worker
    )
    flying: dict[Future[Reject | None], Clip] = {}
    try:
        pool.submit(_ready).result()
    except BrokenProcessPool as error:
        pool.shutdown(wait=False)
        raise DataError(
            f"worker processes cannot be started ({error}); expected a notebook, a module, or a "
            "script guarded by if __name__ == '__main__'; guard it, or use workers=0"
        ) from error
    try:
        while todo or flying:
            while todo and len(flying) < ahead * workers:
                flying[pool.submit(_work, todo[-1], settings, folder)] = todo[-1]
                todo.pop()
            for future in wait(flying, return_when=FIRST_COMPLETED).done:
                outcome = future.result()
                yield flying.pop(future), outcome
    except BrokenProcessPool:
        for clip in flying.values():
            settled, reject = _before(folder, clip)
            if settled:
                yield clip, reject
            else:
                lost.append(clip)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _start_worker() -> None:
    """Keep a worker to one core and little memory; let it end with the process that started it.

    oneDNN compiles a convolution anew for every size of picture and number of crops and would keep
    a thousand of them. A worker waits for clips on a pipe that it holds open itself, so that
    without a watch it would outlive a killed parent for ever.
    """
    torch.set_num_threads(1)
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", COMPILED_KEPT)
    parent = parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()


def _end_with(sentinel: int) -> None:
    wait_for_any([sentinel])
    os._exit(1)


def _ready() -> None:
    """Do nothing, in a worker."""


def _stamp(clip: Clip) -> str:
    stamps = []
    for path in clip.files:
        try:
            state = path.stat()
            stamps.append([state.st_size, state.st_mtime_ns])
        except OSError:
            stamps.append([-1, 0])
    return json.dumps([clip.kind, clip.aligned, stamps])


def _sizes(stamp: str) -> list[int]:
    return [size for size, _ in json.loads(stamp)[2]]
