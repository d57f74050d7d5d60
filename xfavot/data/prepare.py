"""Originals in, prepared stores out: scan, make every clip ready, split, pack, report.

Paper: Sec. 4 (corpora, 24 kHz, 128x128 aligned faces, 90/10 splits, unseen speakers). One store a
corpus; a mixture is a list of stores. Finished clips are kept below ``<data_root>/.staging`` until
the store is whole, so that a run that was stopped or killed goes on where it was.
"""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
import numpy as np
import torch
from numpy.typing import NDArray
from xfavot.config import key_of
from xfavot.audio.io import load_waveform
from xfavot.audio.mel import MEL, log_mel
from xfavot.audio.f0 import world_f0
from xfavot.data.store import PCM_SCALE
from xfavot.data.readers import Clip, Reject
from xfavot.errors import DataError
from xfavot.image.align import align_face, align_points, align_quad, detect, outside_share
from xfavot.image.io import load_frames, load_image, resize_image
import json
import os
import threading
import zipfile
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context, parent_process
from multiprocessing.connection import wait as wait_for_any
from collections.abc import Mapping, Sequence
from xfavot.data.store import StoreWriter
from xfavot.data.readers import VAL_SHARE, Clip, Reject, fraction, printable
import importlib.util
from xfavot.audio.mel import MEL
from xfavot.data.corpora import describe
from xfavot.data.store import Store, open_stores
from xfavot.mini.people import SCHEMA
from xfavot.data.readers import READERS, Clip, Reject, corpus_folder
import time
from datetime import timedelta
from collections import deque
from collections.abc import Callable
import contextlib
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from xfavot import presets
from xfavot.data.report import CARD, write_card
from xfavot.data.corpora import compare_counts, describe
from xfavot.data.corpora import download as fetch_corpus
from xfavot.data.corpora import offer
from xfavot.data.report import write_report
from xfavot.data.readers import NOT_NEEDED, READERS, Reject
from xfavot.errors import ConfigError, DataError
from xfavot.strict import nearest


# One clip made ready: its voice decoded and analysed, its faces found and framed


STAGING_SCHEMA = 2  # of a staging file; another number is not resumed from
HASH_BLOCK_BYTES = 1 << 20
CANNOT_BE_OPENED, CANNOT_BE_READ = "cannot be opened", "cannot be read"  # perhaps not for ever

# Words of a message (of `audio.io`, `image.io`) to the class of a fault, for counting.
_SOUND_REASONS = (
    ("web page", "not media"),
    ("a playlist", "not media"),
    ("LFS pointer", "not media"),
    ("is empty", "empty file"),
    ("without sound track", "no sound track"),
    ("no samples", "no sound track"),
    ("silent", "silent"),
    ("truncated", "truncated"),
)
_IMAGE_REASONS = (("is text, not", "not media"), ("is empty (", "empty file"))

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What decides how a clip is made ready; a change makes staging files and stores differ."""

    image_size: int = 128  # pixels, STATED
    faces_per_clip: int = 4  # frames of a film, evenly spaced
    least_seconds: float = 0.5
    least_share: float = 0.9  # of the length that a corpus promises; less is a truncated file
    least_face: int = 40  # pixels: width of the framed square in the picture
    most_outside: float = 0.6  # of the framed square may lie outside the picture

    @property
    def hash(self) -> str:
        """First 16 hex digits of the sha256 of the settings, the mel contract and the schema."""
        plain = {**asdict(self), "mel": MEL.hash, "schema": STAGING_SCHEMA}
        return key_of(plain)


class _Unusable(Exception):
    """A clip that goes to the quarantine, with a short reason and the message behind it."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason, self.detail = reason, detail


def process(clip: Clip, settings: Settings) -> Arrays | Reject:
    """Make one clip ready.

    Args:
        clip: what to read.
        settings: how.

    Returns:
        `faces` (F, H, W, 3) uint8 and `landmarks` (F, 5, 2) float32 in pixels of the crop, `audio`
        (N,) int16, `mel` (80, T) float16, `f0` (T,) float32 Hz, `kept` (F,) the numbers of the
        images or frames kept, `sha256` of the content; or why the clip cannot be used. Nothing is
        raised for what a file may hold.
    """
    try:
        arrays: Arrays = {"sha256": np.array(content_sha256(clip))}
        if clip.kind in ("av", "audio"):
            arrays |= _voice(clip, settings)
        if clip.kind in ("av", "image"):
            arrays |= _faces(clip, settings)
    except _Unusable as error:
        return Reject(source=clip.source, reason=error.reason, detail=error.detail)
    except OSError as error:
        return Reject(source=clip.source, reason=CANNOT_BE_OPENED, detail=str(error))
    except Exception as error:  # decoders raise anything; a bad file must never stop the rest
        detail = f"{type(error).__name__}: {error}"
        return Reject(source=clip.source, reason=CANNOT_BE_READ, detail=detail)
    return arrays


def _voice(clip: Clip, settings: Settings) -> Arrays:
    path = clip.audio or clip.video
    if path is None:
        raise _Unusable("no voice", "the clip names no sound file and no film")
    try:
        waveform = load_waveform(path)
    except DataError as error:
        text = str(error).replace(str(path), "")
        reason = next((r for words, r in _SOUND_REASONS if words in text), "sound unreadable")
        raise _Unusable(reason, str(error)) from error
    seconds = len(waveform) / MEL.sample_rate
    promised = float(clip.extra.get("seconds", 0.0))
    if promised and seconds < settings.least_share * promised:
        raise _Unusable(
            "truncated", f"{path}: {seconds:.2f} s of sound; a clip of this corpus has {promised} s"
        )
    if seconds < settings.least_seconds:
        raise _Unusable(
            "too short", f"{path}: {seconds:.2f} s of sound; at least {settings.least_seconds} s"
        )
    mel = log_mel(torch.from_numpy(np.ascontiguousarray(waveform, dtype=np.float32)))
    pcm = np.clip(np.rint(waveform * PCM_SCALE), -PCM_SCALE, PCM_SCALE - 1).astype(np.int16)
    return {"audio": pcm, "mel": mel.numpy().astype(np.float16), "f0": world_f0(waveform)}


def _faces(clip: Clip, settings: Settings) -> Arrays:
    pictures, failures = _pictures(clip, settings)
    crops: list[NDArray[np.uint8]] = []
    points: list[NDArray[np.float32]] = []
    kept: list[int] = []
    for number, picture in pictures:
        known = None if clip.landmarks is None else clip.landmarks[number]
        try:
            crop, landmarks = _framed(picture, known, aligned=clip.aligned, settings=settings)
        except _Unusable as error:
            failures.append((error.reason, error.detail))
            continue
        crops.append(crop)
        points.append(landmarks)
        kept.append(number)
    if not crops:
        reason, detail = failures[-1] if failures else ("no picture", "the clip names none")
        raise _Unusable(reason, f"{detail} ({len(failures)} of {len(failures)} pictures)")
    return {"faces": np.stack(crops), "landmarks": np.stack(points), "kept": np.array(kept)}


def _pictures(
    clip: Clip, settings: Settings
) -> tuple[list[tuple[int, NDArray[np.uint8]]], list[tuple[str, str]]]:
    """Decode frames or still images; the second list holds the faults of those that do not."""
    count = settings.faces_per_clip
    if clip.video is not None and not clip.images:
        try:
            return list(enumerate(load_frames(clip.video, count))), []
        except DataError as error:
            raise _Unusable(_image_reason(error), str(error)) from error
    total = len(clip.images)
    chosen = (
        range(total) if total <= count else [int((i + 0.5) * total / count) for i in range(count)]
    )
    pictures: list[tuple[int, NDArray[np.uint8]]] = []
    failures: list[tuple[str, str]] = []
    for number in chosen:
        try:
            pictures.append((number, load_image(clip.images[number])))
        except DataError as error:
            failures.append((_image_reason(error), str(error)))
    return pictures, failures


def _image_reason(error: DataError) -> str:
    return next((r for words, r in _IMAGE_REASONS if words in str(error)), "picture unreadable")


def _framed(
    picture: NDArray[np.uint8],
    known: NDArray[np.float32] | None,
    *,
    aligned: bool,
    settings: Settings,
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Return the crop of one picture and its landmarks in the crop's pixels."""
    size = settings.image_size
    height, width = picture.shape[:2]
    if aligned:
        if abs(height - width) > 0.02 * max(height, width):
            raise _Unusable("not square", f"aligned faces are square; this has {width}x{height}")
        scale = size / min(height, width)
        points = np.full((5, 2), np.nan, np.float32) if known is None else known * np.float32(scale)
        return resize_image(picture, size), points.astype(np.float32)
    landmarks = known if known is not None else detect([picture])[0]
    if landmarks is None:
        raise _Unusable("no face found", f"no face in a picture of {width}x{height} pixels")
    quad = align_quad(landmarks)
    side = float(np.hypot(*(quad[3] - quad[0])))
    if side < settings.least_face:
        raise _Unusable("face too small", f"{side:.0f} pixels; at least {settings.least_face}")
    outside = outside_share(picture.shape, landmarks)
    if outside > settings.most_outside:
        raise _Unusable("face cut off", f"{outside:.0%} of the framed square lies outside")
    return align_face(picture, landmarks, size), align_points(landmarks, landmarks, size)


def content_sha256(clip: Clip) -> str:
    """Return the sha256 of what a clip's files hold, as 64 hex digits.

    That of the one file; of several (film, sound, images, in this order), that of their sha256 as
    hex digits, each with a newline. A file beside the first that cannot be read counts as an empty
    line, because one bad picture does not cost the clip.

    Raises:
        OSError: the first file cannot be read.
    """
    first, *others = clip.files
    lines = [file_sha256(first)]
    for path in others:
        try:
            lines.append(file_sha256(path))
        except OSError:
            lines.append("")
    if not others:
        return lines[0]
    return hashlib.sha256("".join(f"{line}\n" for line in lines).encode()).hexdigest()


def file_sha256(path: Path) -> str:
    """Return the sha256 of a file as 64 hex digits.

    Raises:
        OSError: it cannot be read.
    """
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(HASH_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


# Many clips made ready, in this process or in several, resumable


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


# Staging files become a prepared store: splits, manifest, factors, quarantine


RECORD = "prepare.json"  # beside store.json: how the store was made


def assign_splits(clips: Sequence[Clip], *, seed: int, held_out: Sequence[str]) -> dict[str, str]:
    """Give every clip its split: unseen speakers, what the corpus prescribes, else 90/10.

    A tenth of the clips goes to validation by a hash of the id (of `extra["group"]`, if the corpus
    has one, so that a video stays together). Within each kind and gender, validation and training
    both get at least one group where there are two.

    Args:
        clips: those that were accepted.
        seed: of the hash.
        held_out: names of unseen speakers, without the corpus.

    Returns:
        Clip id to "train", "val" or "unseen".
    """
    unseen = set(held_out)
    splits: dict[str, str] = {}
    groups: dict[tuple[str, str], dict[str, list[str]]] = {}
    prescribed: dict[tuple[str, str], set[str]] = {}
    for clip in clips:
        domain = (clip.kind, clip.gender)
        if clip.speaker.partition("/")[2] in unseen:
            splits[clip.id] = "unseen"
        elif clip.split:
            splits[clip.id] = clip.split
            prescribed.setdefault(domain, set()).add(clip.split)
        else:
            name = str(clip.extra.get("group", clip.id))
            groups.setdefault(domain, {}).setdefault(name, []).append(clip.id)
    for domain, members in groups.items():
        ranks = sorted(members, key=lambda name: fraction(name, seed=seed))
        held = sum(fraction(name, seed=seed) < VAL_SHARE for name in ranks)
        known = prescribed.get(domain, set())
        if len(ranks) > 1:
            least = 0 if "val" in known else 1
            most = len(ranks) - (0 if "train" in known else 1)
            held = min(max(held, least), most)
        else:
            held = 0
        for position, name in enumerate(ranks):
            for clip_id in members[name]:
                splits[clip_id] = "val" if position < held else "train"
    return splits


def pack(
    target: Path,
    clips: Sequence[Clip],
    rejects: Sequence[Reject],
    *,
    staging: Path,
    root: Path,
    record: Mapping[str, Any],
) -> None:
    """Stream staging files into the store, in the order of the scan; the store appears whole.

    Args:
        target: the store's folder.
        clips: those that were made ready.
        rejects: what could not be used.
        staging: folder of the staging files.
        root: folder of the originals; paths in the store are relative to it.
        record: how the store is made (corpus, seed, held_out, settings ...), kept beside it.

    Raises:
        DataError: a staging file is damaged, or the disk is full.
    """
    size = record["settings"]["image_size"]
    splits = assign_splits(clips, seed=record["seed"], held_out=record["held_out"])
    factors: dict[str, Any] = {"people": {}, "faces": []}
    with StoreWriter(
        target, corpus=record["corpus"], seed=record["seed"], image_size=size
    ) as writer:
        for clip in clips:
            arrays = load_staged(staging, clip)
            fields = {
                "id": clip.id,
                "kind": clip.kind,
                "speaker": clip.speaker,
                "gender": clip.gender,
                "split": splits[clip.id],
                "transcript": clip.transcript,
                "source": _relative(clip.source, root),
                "sha256": str(arrays["sha256"]),
            }
            mel = arrays.get("mel")
            writer.add(
                fields,
                faces=arrays.get("faces"),
                landmarks=arrays.get("landmarks"),
                waveform=arrays.get("audio"),
                log_mel=None if mel is None else mel.astype("float32"),
                f0=arrays.get("f0"),
            )
            _add_factors(factors, clip, arrays)
        for reject in rejects:
            source = _relative(reject.source, root)
            writer.quarantine(source, reject.reason, printable(reject.detail))
        try:
            if factors["people"]:
                _write_json(writer.folder / "factors.json", factors)
            _write_json(writer.folder / RECORD, record)
        except OSError as error:
            raise DataError(
                f"{writer.folder}: cannot be written ({error}); expected free space; free some and "
                "run again: the clips that are finished are kept"
            ) from error


def _add_factors(factors: dict[str, Any], clip: Clip, arrays: dict[str, Any]) -> None:
    """Collect what a made corpus knows: factors by speaker, and one entry a stored face."""
    if "hidden" in clip.extra:
        factors["people"][clip.speaker] = clip.extra["hidden"]
        faces = clip.extra.get("faces", [])
        kept = [int(number) for number in arrays.get("kept", ())]
        factors["faces"] += [faces[number] if number < len(faces) else {} for number in kept]


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def _relative(path: Path, root: Path) -> str:
    return printable(path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path))


# What is to be prepared, and whether it has been: the scan of a source, the record of a store


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a scan found."""

    root: Path
    clips: tuple[Clip, ...]
    rejects: tuple[Reject, ...]
    fingerprint: str


def scan(corpus: str, source: Path | str, seed: int) -> Plan:
    """List the clips of a source; a second clip of one id is rejected.

    Args:
        corpus: its name.
        source: the corpus's own folder, or one that holds one folder a corpus.
        seed: of the splits that a corpus draws itself.

    Raises:
        DataError: the source is empty, missing, or holds nothing in the corpus's layout.
    """
    if not str(source).strip():
        raise DataError(
            f"source is empty; expected the folder of the {corpus} originals: "
            f"{READERS[corpus].layout}; set `source` to it"
        )
    source = Path(source)
    clips: dict[str, Clip] = {}
    rejects: list[Reject] = []
    digest = hashlib.sha256()
    for record in READERS[corpus].scan(source, seed=seed):
        if isinstance(record, Reject):
            rejects.append(record)
        elif record.id in clips:
            taken = clips[record.id].source
            detail = f"{record.id} is also {taken}, which is taken"
            rejects.append(Reject(source=record.source, reason="second copy", detail=detail))
        else:
            clips[record.id] = record
    root = corpus_folder(source, corpus)
    for clip in clips.values():
        digest.update(f"{clip.id}\0{_size(clip.source)}\0".encode())
    return Plan(
        root=root,
        clips=tuple(clips.values()),
        rejects=tuple(rejects),
        fingerprint=digest.hexdigest()[:16],
    )


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1


def store_record(
    corpus: str, seed: int, held_out: Sequence[str] | None, settings: Settings
) -> dict[str, Any]:
    """Describe a store by what was asked for, apart from its source."""
    names = sorted(describe(corpus).held_out if held_out is None else held_out)
    record = {
        "corpus": corpus,
        "seed": seed,
        "held_out": names,
        "mel": MEL.hash,
        "settings": asdict(settings),
    }
    return record | ({"generator": SCHEMA} if corpus == "mini" else {})


def existing(target: Path, wanted: Mapping[str, Any]) -> Store | None:
    """Open a finished store made as `wanted` says; refuse any other."""
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return None
    advice = f"remove {target} to prepare it anew, or choose another data_root"
    store = Store.open(target, corpus=wanted["corpus"])
    try:
        found = json.loads((target / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(
            f"prepared store {target}: {RECORD} is missing or damaged ({error}); expected a store "
            f"made by prepare_data; {advice}"
        ) from error
    names = {"fingerprint": "the list of source files (fingerprint)"}
    wrong = [
        f"{names.get(name, name)} is {found.get(name)!r}, now {value!r}"
        for name, value in wanted.items()
        if found.get(name) != value
    ]
    if wrong:
        raise DataError(
            f"prepared store {target} was made otherwise: {'; '.join(wrong)}; expected the same; "
            f"{advice}"
        )
    return store


def require_packages(clips: Sequence[Clip]) -> None:
    """Refuse to start without the packages that the clips need, lest all be quarantined."""
    voices = any(clip.kind != "image" for clip in clips)
    needs = {
        "soundfile": voices,
        "soxr": voices,
        "pyworld": voices,
        "av": any(clip.video is not None for clip in clips),
        "PIL": any(clip.kind != "audio" for clip in clips),
        "facenet_pytorch": any(clip.kind != "audio" and not clip.aligned for clip in clips),
    }
    missing = [name for name, need in needs.items() if need and not importlib.util.find_spec(name)]
    if missing:
        raise DataError(
            f"preparing needs {', '.join(missing)}, not installed; expected the extra `data`; "
            'run: pip install "xfavot[data]"'
        )


# Progress of a long preparation as plain lines, with the rate and the time left


LINE_SECONDS = 5.0  # least time between two lines of progress ...
LINE_SHARE = 0.05  # ... or this share of the time left, up to
LINE_MOST_SECONDS = 60.0
FIRST_LINES = 3  # come after the least time
RATE_LINES = 10  # the rate is that since the tenth line before


class Progress:
    """Counts clips and writes a line now and then, with the rate and the time left.

    The rate is that of late, and counts from the first clip on: neither the start of the workers
    nor clips of an earlier run blur it.
    """

    def __init__(
        self,
        name: str,
        total: int,
        log: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
        *,
        before: int = 0,
    ) -> None:
        """Start the clock.

        Args:
            name: what is counted, the first word of a line.
            total: how many there are.
            log: receives the lines.
            clock: seconds.
            before: how many of them were finished in an earlier run.
        """
        self._name, self._total, self._log, self._clock = name, total, log, clock
        self._done, self._rejected = before, 0
        self._marks: deque[tuple[float, int]] = deque(maxlen=RATE_LINES)  # seconds, clips done
        self._last = clock()

    def step(self, *, rejected: bool) -> None:
        """Count one clip."""
        self._done += 1
        self._rejected += rejected
        now = self._clock()
        if not self._marks:
            self._marks.append((now, self._done))
        since, done = self._marks[0]
        rate = (self._done - done) / max(now - since, 1e-6)
        left = (self._total - self._done) / rate if rate else 0.0
        share = LINE_SHARE if len(self._marks) > FIRST_LINES else 0.0
        pause = min(max(LINE_SECONDS, share * left), LINE_MOST_SECONDS)
        if now - self._last < pause and self._done < self._total:
            return
        self._last = now
        self._marks.append((now, self._done))
        pace = f"{rate:.1f} a second, {timedelta(seconds=round(left))} left, " if rate else ""
        self._log(
            f"{self._name}: {self._done} of {self._total} clips, {pace}{self._rejected} rejected"
        )


Log = Callable[[str], None]
STAGING = ".staging"
ORIGINALS = "originals"  # below data_root: what the package makes or fetches itself
SPEAKERS = 16  # people in `mini`


def prepare(
    corpus: str,
    *,
    source: Path | str,
    data_root: Path | str,
    workers: int,
    seed: int,
    on_log: Log | None = None,
    held_out: Sequence[str] | None = None,
    settings: Settings | None = None,
) -> Store:
    """Make the prepared store of one corpus, or open it if it is there already.

    Args:
        corpus: one of `READERS`.
        source: its folder of originals, or a folder that holds one folder a corpus.
        data_root: the store becomes ``<data_root>/<corpus>``.
        workers: processes; 0 works in this one.
        seed: of the splits.
        on_log: receives plain lines of progress.
        held_out: names of unseen speakers; ``None`` takes those of `presets/corpora`.
        settings: sizes and thresholds.

    Returns:
        The store, opened.

    Raises:
        ConfigError: no such corpus, a negative number.
        DataError: the source is missing or of another layout, nothing could be used, a store of
            other settings or another source stands in the way, a package is missing, or the disk
            is full (what was finished is kept for the next run).
    """
    log: Log = on_log or (lambda line: None)
    _require_arguments(corpus, workers, seed)
    settings = settings or Settings()
    target = Path(data_root) / corpus
    record = store_record(corpus, seed, held_out, settings)
    plan = scan(corpus, source, seed)
    ready = existing(target, {**record, "fingerprint": plan.fingerprint})
    if ready is not None:
        if not (target / "report.html").is_file() or not (target / CARD).is_file():
            write_report(ready)
            write_card(ready)
        log(f"{corpus}: {target} is ready ({len(ready.items)} items); nothing to do")
        return ready
    require_packages(plan.clips)
    staging = Path(data_root) / STAGING / corpus / settings.hash
    rejects = list(plan.rejects)
    try:
        staging.mkdir(parents=True, exist_ok=True)
        todo = [clip for clip in plan.clips if not is_staged(staging, clip)]
        done = len(plan.clips) - len(todo)
        kept = f", {done} of them finished before" if done else ""
        log(f"{corpus}: {len(plan.clips)} clips in {plan.root}{kept}")
        bad: set[str] = set()
        progress = Progress(corpus, len(todo), log)
        for clip, reject in stage(todo, folder=staging, settings=settings, workers=workers):
            if reject is not None:
                rejects.append(reject)
                bad.add(clip.id)
            progress.step(rejected=reject is not None)
    except OSError as error:
        raise DataError(
            f"{staging}: cannot be written ({error}); expected a folder with free space; free some "
            "or change data_root, and run again: what was finished is kept there"
        ) from error
    accepted = [clip for clip in plan.clips if clip.id not in bad]
    rejects.sort(key=lambda reject: (str(reject.source), reject.reason))
    if not accepted:
        raise DataError(_nothing(corpus, plan, rejects))
    record |= {"fingerprint": plan.fingerprint, "clips": len(plan.clips), "source": str(plan.root)}
    pack(target, accepted, rejects, staging=staging, root=plan.root, record=record)
    store = Store.open(target, corpus=corpus)
    shutil.rmtree(staging, ignore_errors=True)
    for folder in (staging.parent, staging.parent.parent):
        with contextlib.suppress(OSError):  # other corpora or settings still have clips there
            folder.rmdir()
    unfit = [reject.reason for reject in rejects if reject.reason != NOT_NEEDED]
    counts = ", ".join(f"{n} {reason}" for reason, n in Counter(unfit).most_common())
    log(f"{corpus}: {len(store.items)} accepted, {len(unfit)} rejected ({counts or 'none'})")
    log(f"{corpus}: report in {write_report(store)}, card in {write_card(store)}")
    return store


def open_or_make_mini(
    data_root: Path | str, corpora: Sequence[str], on_log: Log | None = None
) -> list[Store]:
    """Open the prepared stores of a mixture; ``mini`` alone is made where it is missing.

    Args:
        data_root, corpora, on_log: as in `open_stores`.

    Raises:
        DataError: no store is there, or one is damaged.
    """
    if tuple(corpora) == ("mini",) and not (Path(data_root) / "mini" / "store.json").exists():
        if on_log is not None:
            on_log(f"the corpus mini is not in {data_root} yet: drawing and speaking it")
        return prepare_dataset("mini", "", data_root, os.cpu_count() or 1, 0, on_log)
    return open_stores(data_root, corpora, on_log)


def prepare_dataset(
    dataset: str,
    source: Path | str,
    data_root: Path | str,
    workers: int,
    seed: int,
    on_log: Log | None = None,
    *,
    download: bool = False,
    speakers: int = SPEAKERS,
) -> list[Store]:
    """Prepare every corpus of a mixture; those that are absent from the source are reported.

    Args:
        dataset: one of `presets/datasets`.
        source: folder of originals; may be empty for `mini`, which makes its own.
        data_root, workers, seed, on_log: as in `prepare`.
        download: first fetch into `source` what the owners let anyone download.
        speakers: people in `mini`, if it is made.

    Returns:
        The stores that are ready, in the order of the mixture.

    Raises:
        ConfigError: no such dataset.
        DataError: no corpus of the mixture could be prepared, one that is present fails, or a
            download fails.
    """
    log: Log = on_log or (lambda line: None)
    stores: list[Store] = []
    missing: list[str] = []
    for corpus in presets.load("datasets", dataset)["corpora"]:
        originals = Path(source)
        if corpus == "mini" and not _holds_mini(source):
            # the originals are the package's own: a finished store does not need them again
            ready = existing(Path(data_root) / corpus, store_record(corpus, seed, None, Settings()))
            if ready is not None:
                _require_people(ready, speakers)
                log(f"mini: {ready.path} is ready ({len(ready.items)} items); nothing to do")
                stores.append(ready)
                continue
            originals = _mini_originals(Path(data_root), speakers, workers, seed, log)
        elif download and describe(corpus).download:
            fetch_corpus(corpus, originals, on_log=log)
        try:
            scan(corpus, originals, seed)
        except DataError as error:
            more = "\nGive download True to fetch it." if describe(corpus).download else ""
            missing.append(f"{corpus}: {error}\n{offer(corpus)}{more}")
            continue
        stores.append(
            prepare(
                corpus,
                source=originals,
                data_root=data_root,
                workers=workers,
                seed=seed,
                on_log=log,
            )
        )
    if not stores:
        raise DataError(f"dataset {dataset!r}: nothing to prepare.\n" + "\n".join(missing))
    for line in missing:
        log(f"MISSING from {dataset}: {line}")
    for store in stores:
        for line in compare_counts(store):
            log(line)
    return stores


def _holds_mini(source: Path | str) -> bool:
    """Say whether somebody's own originals of `mini` lie in a source."""
    places = (Path(source), Path(source) / "mini") if str(source) else ()
    return any((place / "factors.json").is_file() for place in places)


def _require_people(store: Store, speakers: int) -> None:
    found = len({item.speaker for item in store.items})
    if found != speakers:
        raise DataError(
            f"prepared store {store.path} holds {found} people; expected {speakers}; remove it and "
            f"the originals beside it, choose another data_root, or give speakers {found}"
        )


def _mini_originals(data_root: Path, speakers: int, workers: int, seed: int, log: Log) -> Path:
    """Make the originals of `mini`, or find them made."""
    from xfavot.mini.generate import generate

    folder = data_root / ORIGINALS / "mini"
    made = folder / "factors.json"
    if made.is_file():
        record = json.loads(made.read_text(encoding="utf-8"))
        wanted = {"schema": SCHEMA, "seed": seed, "speakers": speakers}
        found = {key: record.get(key) for key in wanted}
        if found == wanted:
            log(f"mini: originals in {folder} are ready")
            return folder
        raise DataError(
            f"{folder} holds originals of {found}; expected {wanted}; "
            "remove the folder or choose another data_root"
        )
    return generate(folder, speakers=speakers, seed=seed, workers=max(workers, 1), on_log=log)


def _require_arguments(corpus: str, workers: int, seed: int) -> None:
    if corpus not in READERS:
        raise ConfigError(f"corpus is {corpus!r}; {nearest(corpus, READERS)}")
    for name, value in (("workers", workers), ("seed", seed)):
        if value < 0:
            raise ConfigError(f"{name} is {value}; expected 0 or more; use 0")


def _nothing(corpus: str, plan: Plan, rejects: Sequence[Reject]) -> str:
    counts = Counter(reject.reason for reject in rejects).most_common()
    reasons = ", ".join(f"{count} {reason}" for reason, count in counts)
    first = f"{rejects[0].source}: {rejects[0].detail}" if rejects else ""
    return (
        f"{corpus}: none of the {len(plan.clips)} clips in {plan.root} can be used ({reasons}; "
        f"the first: {first}); expected readable faces and voices; check the source"
    )
