"""Originals in, prepared stores out: scan, make every clip ready, split, write, report.

Paper: Sec. 4 (corpora, 24 kHz, 128x128 aligned faces, 90/10 splits, unseen speakers). One store a
corpus; a mixture is a list of stores. Clips go straight into the arrays of the store to be, a
draft beside its place, so that a run that was stopped or killed goes on where it was.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import threading
import time
import warnings
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from datetime import timedelta
from functools import partial
from multiprocessing import get_context, parent_process
from multiprocessing.connection import wait as wait_for_any
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from xfavot import presets
from xfavot.audio.f0 import world_f0
from xfavot.audio.io import PCM_SCALE, MediaNote, load_waveform
from xfavot.audio.mel import MEL, log_mel
from xfavot.config import key_of
from xfavot.data.corpora import compare_counts, describe, offer
from xfavot.data.corpora import download as fetch_corpus
from xfavot.data.readers import (
    NOT_REJECTED,
    NOTED,
    READERS,
    VAL_SHARE,
    Clip,
    Reject,
    corpus_folder,
    fraction,
    printable,
)
from xfavot.data.report import CARD, PAGE, write_card, write_report
from xfavot.data.store import HEAD, POSITIONS, Draft, Entry, Item, Store, open_stores
from xfavot.errors import DataError
from xfavot.fetch import checksum_of
from xfavot.image.align import align_face, align_points, align_quad, detect, outside_share
from xfavot.image.io import load_frames, load_image, resize_image
from xfavot.media import MediaError
from xfavot.mini.generate import originals, speech_of
from xfavot.mini.people import SCHEMA

RECORD = "prepare.json"  # beside store.json: how the store was made
ORIGINALS = "originals"  # below data_root: what the package makes or fetches itself
IN_FLIGHT = 4  # clips given out per worker
COMPILED_KEPT = "16"  # convolutions; face detection gains nothing from more
LINE_SECONDS = 20.0  # between two lines of progress
CANNOT_BE_OPENED, CANNOT_BE_READ = "cannot be opened", "cannot be read"
DIED = "decoder died"
UNSETTLED = (CANNOT_BE_OPENED, CANNOT_BE_READ, DIED)  # may not be the file's fault: tried again
FACTS = ("sha256", "kept", "notes")  # of a clip that was made ready, beside its arrays
Arrays = dict[str, Any]
Log = Callable[[str], None]
Outcome = tuple[Clip, Arrays | Reject]


# One clip made ready: its voice decoded and analysed, its faces found and framed


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What decides how a clip is made ready; a change makes drafts and stores differ."""

    image_size: int = 128  # pixels, STATED
    faces_per_clip: int = 4  # frames of a film, evenly spaced
    least_seconds: float = 0.5
    least_share: float = 0.9  # of the length that a corpus promises; less is a truncated file
    least_face: int = 40  # pixels: width of the framed square in the picture
    most_outside: float = 0.6  # of the framed square may lie outside the picture


def process(clip: Clip, settings: Settings) -> Arrays | Reject:
    """Make one clip ready.

    Args:
        clip: what to read.
        settings: how.

    Returns:
        `faces` (F, H, W, 3) uint8 and `landmarks` (F, 5, 2) float32 in pixels of the crop, `audio`
        (N,) int16, `mel` (T, 80) float16, `f0` (T,) float32 Hz, `kept` the numbers of the images or
        frames kept, `sha256` of the content; or why the clip cannot be used. Nothing is raised for
        what a file may hold.
    """
    try:
        arrays: Arrays = {"sha256": content_sha256(clip), "kept": [], "notes": []}
        if clip.kind != "image":
            arrays |= _voice(clip, settings)
        if clip.kind != "audio":
            arrays |= _faces(clip, settings)
    except MediaError as error:
        return Reject(source=clip.source, reason=error.reason, detail=str(error))
    except OSError as error:
        return Reject(source=clip.source, reason=CANNOT_BE_OPENED, detail=str(error))
    except Exception as error:  # decoders raise anything; a bad file must never stop the rest
        detail = f"{type(error).__name__}: {error}"
        return Reject(source=clip.source, reason=CANNOT_BE_READ, detail=detail)
    return arrays


def _voice(clip: Clip, settings: Settings) -> Arrays:
    path = clip.audio or clip.video
    if path is None:
        raise MediaError("no voice", "the clip names no sound file and no film")
    with warnings.catch_warnings(record=True) as notes:
        warnings.simplefilter("always", MediaNote)
        waveform = load_waveform(path)
    seconds = len(waveform) / MEL.sample_rate
    promised = float(clip.extra.get("seconds", 0.0))
    found = f"{path}: {seconds:.2f} s of sound"
    if promised and seconds < settings.least_share * promised:
        raise MediaError("truncated", f"{found}; a clip of this corpus has {promised} s")
    if seconds < settings.least_seconds:
        raise MediaError("too short", f"{found}; at least {settings.least_seconds} s")
    mel = log_mel(torch.from_numpy(np.ascontiguousarray(waveform, dtype=np.float32)))
    pcm = np.clip(np.rint(waveform * PCM_SCALE), -PCM_SCALE, PCM_SCALE - 1).astype(np.int16)
    f0 = world_f0(waveform).astype(np.float32)
    said = [str(note.message) for note in notes if note.category is MediaNote]
    return {"audio": pcm, "mel": mel.numpy().T.astype(np.float16), "f0": f0, "notes": said}


def _faces(clip: Clip, settings: Settings) -> Arrays:
    """Crops of a clip's pictures or of frames of its film; an unfit one costs itself alone."""
    framed: dict[int, tuple[NDArray[np.uint8], NDArray[np.float32]]] = {}
    faults: list[MediaError] = []
    total, count = len(clip.images), settings.faces_per_clip
    frames = load_frames(clip.video, count) if clip.video and not total else []
    spread = [int((i + 0.5) * total / count) for i in range(count)]
    for number in range(total or len(frames)) if total <= count else spread:
        known = None if clip.landmarks is None else clip.landmarks[number]
        try:
            picture = load_image(clip.images[number]) if total else frames[number]
            framed[number] = _framed(picture, known, clip.aligned, settings)
        except MediaError as fault:
            faults.append(fault)
    if not framed:
        last = faults[-1] if faults else MediaError("no picture", "the clip names none")
        raise MediaError(last.reason, f"{last} ({len(faults)} of {len(faults)} pictures)")
    crops, points = zip(*framed.values(), strict=True)
    return {"faces": np.stack(crops), "landmarks": np.stack(points), "kept": list(framed)}


def _framed(
    picture: NDArray[np.uint8], known: NDArray[np.float32] | None, aligned: bool, settings: Settings
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Return the crop of one picture and its landmarks in the crop's pixels."""
    size = settings.image_size
    height, width = picture.shape[:2]
    if aligned:
        if abs(height - width) > 0.02 * max(height, width):
            raise MediaError("not square", f"aligned faces are square; this has {width}x{height}")
        scale = size / min(height, width)
        points = np.full((5, 2), np.nan, np.float32) if known is None else known * np.float32(scale)
        return resize_image(picture, size), points.astype(np.float32)
    landmarks = known if known is not None else detect([picture])[0]
    if landmarks is None:
        raise MediaError("no face found", f"no face in a picture of {width}x{height} pixels")
    quad = align_quad(landmarks)
    side = float(np.hypot(*(quad[3] - quad[0])))
    if side < settings.least_face:
        raise MediaError("face too small", f"{side:.0f} pixels; at least {settings.least_face}")
    outside = outside_share(picture.shape, landmarks)
    if outside > settings.most_outside:
        raise MediaError("face cut off", f"{outside:.0%} of the framed square lies outside")
    points = align_points(landmarks, landmarks, size)
    return align_face(picture, landmarks, size), points.astype(np.float32)


def content_sha256(clip: Clip) -> str:
    """Return the sha256 of what a clip's files hold, as 64 hex digits.

    That of the one file; of several (film, sound, images, in this order), that of their sha256 as
    hex digits, each with a newline. A file beside the first that cannot be read counts as an empty
    line, because one bad picture does not cost the clip.

    Raises:
        OSError: the first file cannot be read.
    """
    lines = [checksum_of(clip.source)]
    for path in clip.files[1:]:
        try:
            lines.append(checksum_of(path))
        except OSError:
            lines.append("")
    lines = [line.removeprefix("sha256:") for line in lines]
    if len(lines) == 1:
        return lines[0]
    return hashlib.sha256("".join(f"{line}\n" for line in lines).encode()).hexdigest()


# Many clips made ready, in this process or in several


def process_all(
    clips: Iterable[Clip], settings: Settings, workers: int, window: int = 0
) -> Iterator[Outcome]:
    """Make clips ready; a clip at which a decoder dies costs itself alone.

    Args:
        clips: what to do.
        settings: how.
        workers: processes; 0 works in this one. Each uses one thread.
        window: clips given out at a time, 0 for some a worker; those that are out when a worker
            dies are done again one by one.

    Yields:
        Each clip once, in order, with what `process` returns.

    Raises:
        DataError: processes cannot be started.
    """
    if not workers:
        yield from ((clip, process(clip, settings)) for clip in clips)
        return
    window = window or IN_FLIGHT * workers
    waiting = deque(clips)
    while waiting:
        pool = ProcessPoolExecutor(
            workers, mp_context=get_context("spawn"), initializer=_start_worker
        )
        flying: deque[tuple[Clip, Future[Arrays | Reject]]] = deque()
        try:
            _require_start(pool)
            while waiting or flying:
                while waiting and len(flying) < window:
                    flying.append((waiting[0], pool.submit(process, waiting[0], settings)))
                    waiting.popleft()
                clip, future = flying[0]
                outcome = future.result()
                flying.popleft()
                yield clip, outcome
        except BrokenProcessPool:
            lost = [clip for clip, _ in flying]
            if window > 1:
                yield from process_all(lost, settings, workers=1, window=1)
            else:
                detail = "the process that decoded it died (a fault of a decoder, or no memory)"
                for clip in lost:
                    yield clip, Reject(source=clip.source, reason=DIED, detail=detail)
        finally:
            pool.shutdown(cancel_futures=True)


def _require_start(pool: ProcessPoolExecutor) -> None:
    try:
        pool.submit(int).result()
    except BrokenProcessPool as error:
        raise DataError(
            f"worker processes cannot be started ({error}); expected a notebook, a module, or a "
            "script guarded by if __name__ == '__main__'; guard it, or use workers=0"
        ) from error


def _start_worker() -> None:
    """Keep a worker to one core and little memory; let it end with the process that started it.

    oneDNN compiles a convolution anew for every size of picture and number of crops and would keep
    a thousand of them. A worker waits for clips on a pipe that it holds open itself, so that
    without a watch it would outlive a killed parent for ever.
    """
    torch.set_num_threads(1)
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", COMPILED_KEPT)
    if (parent := parent_process()) is not None:

        def watch() -> None:
            wait_for_any([parent.sentinel])
            os._exit(1)

        threading.Thread(target=watch, daemon=True).start()


def with_progress(
    outcomes: Iterable[Outcome],
    name: str,
    total: int,
    log: Log,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[Outcome]:
    """Pass outcomes on and write a line now and then, with the rate and the time left.

    Lines begin with `name`; of `total` clips, the rate counts from the first one's end, so that the
    start of the workers does not blur it.
    """
    last, first, rejected = clock(), 0.0, 0
    for done, (clip, outcome) in enumerate(outcomes, start=1):
        yield clip, outcome
        rejected += isinstance(outcome, Reject)
        now = clock()
        first = first or now
        if now - last >= LINE_SECONDS or done == total:
            last, pace = now, (done - 1) / max(now - first, 1e-6)
            left = timedelta(seconds=round((total - done) / max(pace, 1e-6)))
            log(
                f"{name}: {done} of {total} clips, {pace:.1f} a second, {left} left, {rejected} "
                "rejected"
            )


# What is to be prepared, and whether it has been: the scan of a source, the record of a store


@dataclass(frozen=True, slots=True)
class Plan:
    """What a scan found."""

    corpus: str
    root: Path
    clips: dict[str, Clip]
    rejects: list[Reject]
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
    for record in READERS[corpus].scan(source, seed=seed):
        if isinstance(record, Reject):
            rejects.append(record)
        elif record.id in clips:
            detail = f"{record.id} is also {clips[record.id].source}, which is taken"
            rejects.append(Reject(source=record.source, reason="second copy", detail=detail))
        else:
            clips[record.id] = record
    sizes = "".join(f"{clip.id}\0{_state(clip.source)[0]}\0" for clip in clips.values())
    fingerprint = hashlib.sha256(sizes.encode()).hexdigest()[:16]
    return Plan(corpus, corpus_folder(source, corpus), clips, rejects, fingerprint)


def _state(path: Path) -> list[int]:
    """Bytes of a file and its time of change in ns."""
    try:
        state = path.stat()
        return [state.st_size, state.st_mtime_ns]
    except OSError:
        return [-1, 0]


def asked_for(
    corpus: str, seed: int, held_out: Sequence[str] | None = None, settings: Settings | None = None
) -> dict[str, Any]:
    """Describe a store by what was asked for, apart from its source.

    Args:
        corpus: its name.
        seed: of the splits.
        held_out: names of unseen speakers; ``None`` takes those of `presets/corpora`.
        settings: sizes and thresholds.
    """
    record = {
        "corpus": corpus,
        "seed": seed,
        "held_out": sorted(describe(corpus).held_out if held_out is None else held_out),
        "mel": MEL.hash,
        "settings": asdict(settings or Settings()),
    }
    return record | ({"generator": SCHEMA} if corpus == "mini" else {})


def existing(target: Path, wanted: Mapping[str, Any]) -> Store | None:
    """Open a finished store made as `wanted` says; refuse any other."""
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return None
    store = Store.open(target, corpus=wanted["corpus"])
    advice = f"remove {target} to prepare it anew, or choose another data_root"
    try:
        made = json.loads((target / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(
            f"prepared store {target}: {RECORD} is missing or damaged ({error}); {advice}"
        ) from error
    made["speakers"] = len({item.speaker for item in store.items})
    wrong = [
        f"{name} is {made.get(name)!r}, now {value!r}"
        for name, value in wanted.items()
        if made.get(name) != value
    ]
    if wrong:
        raise DataError(
            f"prepared store {target} was made otherwise: {'; '.join(wrong)} (the fingerprint is "
            f"that of the list of source files); {advice}"
        )
    return store


def require_packages(clips: Collection[Clip]) -> None:
    """Refuse to start without the packages that the clips need, lest all be quarantined."""
    heard = {"av", "soxr", "pyworld"} if any(clip.kind != "image" for clip in clips) else set()
    seen = {"av", "PIL"} if any(clip.kind != "audio" for clip in clips) else set()
    if any(clip.kind != "audio" and not clip.aligned for clip in clips):
        seen.add("facenet_pytorch")
    missing = sorted(name for name in heard | seen if not importlib.util.find_spec(name))
    if missing:
        raise DataError(
            f"preparing needs {', '.join(missing)}, not installed; expected the extra `data`; "
            'run: pip install "xfavot[data]"'
        )


def assign_splits(clips: Iterable[Clip], *, seed: int, held_out: Iterable[str]) -> dict[str, str]:
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
    groups: dict[tuple[str, str], dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    prescribed: dict[tuple[str, str], set[str]] = defaultdict(set)
    for clip in clips:
        domain = (clip.kind, clip.gender)
        if clip.speaker.partition("/")[2] in unseen:
            splits[clip.id] = "unseen"
        elif clip.split:
            splits[clip.id] = clip.split
            prescribed[domain].add(clip.split)
        else:
            groups[domain][str(clip.extra.get("group", clip.id))].append(clip.id)
    for domain, members in groups.items():
        ranks = sorted(members, key=partial(fraction, seed=seed))
        least = int("val" not in prescribed[domain])
        most = len(ranks) - int("train" not in prescribed[domain])
        count = sum(fraction(name, seed=seed) < VAL_SHARE for name in ranks)
        count = min(max(count, least), most) if len(ranks) > 1 else 0
        for rank, name in enumerate(ranks):
            splits |= dict.fromkeys(members[name], "val" if rank < count else "train")
    return splits


# A corpus, and a mixture of them


def prepare(
    plan: Plan, wanted: Mapping[str, Any], data_root: Path | str, workers: int, log: Log
) -> Store:
    """Make the prepared store of one corpus, or open it if it is there already.

    Args:
        plan: what :func:`scan` found.
        wanted: what :func:`asked_for` says.
        data_root: the store becomes ``<data_root>/<corpus>``.
        workers: processes; 0 works in this one.
        log: receives plain lines of progress.

    Returns:
        The store, opened.

    Raises:
        DataError: nothing could be used, a store of other settings or another source stands in
            the way, a package is missing, or the disk is full (what was finished is kept for the
            next run).
    """
    target = Path(data_root) / plan.corpus
    record = {**wanted, "fingerprint": plan.fingerprint}
    store = existing(target, record)
    if store is None:
        store = _made(plan, target, record, workers, log)
    else:
        log(f"{plan.corpus}: {target} is ready ({len(store.items)} items); nothing to do")
    if not (target / PAGE).is_file() or not (target / CARD).is_file():
        log(f"{plan.corpus}: report in {write_report(store)}, card in {write_card(store)}")
    return store


def _made(plan: Plan, target: Path, record: dict[str, Any], workers: int, log: Log) -> Store:
    """Make the clips of a plan ready, those that a stopped run left, and publish the store."""
    corpus, settings = plan.corpus, Settings(**record["settings"])
    require_packages(plan.clips.values())
    try:
        with Draft(target.with_name(f".{corpus}.partial"), settings.image_size) as draft:
            draft.keep(_still_valid(draft.entries, plan.clips, settings))
            before = {entry["id"] for entry in draft.entries}
            todo = [clip for clip in plan.clips.values() if clip.id not in before]
            kept = f", {len(before)} of them finished before" if before else ""
            log(f"{corpus}: {len(plan.clips)} clips in {plan.root}{kept}")
            outcomes = process_all(todo, settings, workers)
            for clip, outcome in with_progress(outcomes, corpus, len(todo), log):
                entry: Entry = {"id": clip.id, "stamp": _stamp(clip, settings)}
                if isinstance(outcome, Reject):
                    entry["reject"], outcome = [outcome.reason, outcome.detail], {}
                entry |= {name: outcome.pop(name) for name in FACTS if name in outcome}
                draft.append(entry, outcome)
            return _published(plan, draft, target, record, log)
    except OSError as error:
        raise DataError(
            f"{target}: cannot be written ({error}); expected a folder with free space; free some "
            "or change data_root, and run again: what was finished is kept"
        ) from error


def _still_valid(
    entries: Sequence[Entry], clips: Mapping[str, Clip], settings: Settings
) -> list[Entry]:
    """What a stopped run left, up to the first clip that has changed since."""
    valid = []
    for entry in entries:
        clip = clips.get(entry["id"])
        if clip is None or entry["stamp"] != _stamp(clip, settings):
            break
        if entry.get("reject", ("",))[0] not in UNSETTLED:
            valid.append(entry)
    return valid


def _stamp(clip: Clip, settings: Settings) -> list[Any]:
    """By what a clip that was made ready before is known to be the same; plain JSON."""
    key = key_of({**asdict(settings), "mel": MEL.hash})
    return [key, clip.kind, clip.aligned, [_state(path) for path in clip.files]]


def _published(plan: Plan, draft: Draft, target: Path, record: dict[str, Any], log: Log) -> Store:
    """Turn a draft whose clips are all ready into the store."""
    corpus, clips = plan.corpus, plan.clips
    entries = {entry["id"]: entry for entry in draft.entries}
    accepted, rejects = list[Clip](), [*plan.rejects]
    for clip in clips.values():
        entry = entries[clip.id]
        rejects += [Reject(clip.source, NOTED, note) for note in entry.get("notes", ())]
        if "reject" in entry:
            rejects.append(Reject(clip.source, *entry["reject"]))
        else:
            accepted.append(clip)
    rejects.sort(key=lambda reject: (str(reject.source), reject.reason))
    unfit: Counter[str] = Counter()
    for reject in rejects:
        unfit[reject.reason] += reject.files
    spare = ", ".join(f"{unfit.pop(reason, 0)} {reason}" for reason in NOT_REJECTED)
    reasons = ", ".join(f"{count} {reason}" for reason, count in unfit.most_common()) or "none"
    if not accepted:
        first = f"; the first: {rejects[0].source}: {rejects[0].detail}" if rejects else ""
        raise DataError(
            f"{corpus}: none of the {len(clips)} clips in {plan.root} can be used "
            f"({reasons}{first}); expected readable faces and voices; check the source"
        )
    splits = assign_splits(accepted, seed=record["seed"], held_out=record["held_out"])
    names = ("id", "kind", "speaker", "gender", "transcript")
    items = [
        Item(
            corpus=corpus,
            split=splits[clip.id],
            source=_relative(clip.source, plan.root),
            sha256=entries[clip.id]["sha256"],
            **{name: getattr(clip, name) for name in names},
            **{name: entries[clip.id][name] for name in POSITIONS},
        )
        for clip in accepted
    ]
    record |= {"clips": len(clips), "source": str(plan.root)}
    factors = _factors(accepted, entries)
    store = draft.publish(
        target,
        items,
        corpus=corpus,
        seed=record["seed"],
        left_out=[
            (_relative(r.source, plan.root), r.reason, printable(r.detail), r.files)
            for r in rejects
        ],
        beside={RECORD: record, **({"factors.json": factors} if factors else {})},
    )
    log(f"{corpus}: {len(items)} accepted, {unfit.total()} rejected ({reasons}); files {spare}")
    return store


def _factors(clips: Iterable[Clip], entries: Mapping[str, Entry]) -> dict[str, Any]:
    """What a made corpus knows: factors by speaker, and one entry a stored face; else empty."""
    people, faces = {}, []
    for clip in clips:
        if "hidden" in clip.extra:
            people[clip.speaker] = clip.extra["hidden"]
            known = dict(enumerate(clip.extra.get("faces", ())))
            faces += [known.get(number, {}) for number in entries[clip.id]["kept"]]
    return {"people": people, "faces": faces} if people else {}


def _relative(path: Path, root: Path) -> str:
    return printable(path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path))


def open_or_make_mini(
    data_root: Path | str, corpora: Sequence[str], on_log: Log | None = None
) -> list[Store]:
    """Open the stores of a mixture as `open_stores` does; ``mini`` alone is made if missing.

    Raises:
        DataError: no store is there, or one is damaged.
    """
    if tuple(corpora) == ("mini",) and not (Path(data_root) / "mini" / HEAD).exists():
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
    speakers: int = 16,
    voices: str = "auto",
) -> list[Store]:
    """Prepare every corpus of a mixture; those that are absent from the source are reported.

    Args:
        dataset: one of `presets/datasets`.
        source: folder of originals; may be empty for `mini`, which makes its own.
        data_root, workers: as in `prepare`.
        seed: of the splits.
        on_log: receives plain lines of progress.
        download: first fetch into `source` what the owners let anyone download.
        speakers, voices: people in `mini`, if it is made, and who speaks; see
            :func:`xfavot.mini.generate.speech_of`.

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
    places = (Path(source), Path(source) / "mini") if str(source) else ()
    given = any((place / "factors.json").is_file() for place in places)  # somebody's own `mini`
    for corpus in presets.load("datasets", dataset)["corpora"]:
        wanted, folder, more = asked_for(corpus, seed), source, ""
        if corpus == "mini" and not given:
            speech = speech_of(voices, speakers=speakers, seed=seed)
            wanted |= {"speakers": speakers, "speech": speech}
            # the originals are the package's own: a finished store does not need them again
            if store := existing(Path(data_root) / corpus, wanted):
                log(f"mini: {store.path} is ready ({len(store.items)} items); nothing to do")
                stores.append(store)
                continue
            folder = Path(data_root) / ORIGINALS / corpus
            size = {"speakers": speakers, "seed": seed, "workers": max(workers, 1)}
            originals(folder, **size, voices=voices, on_log=log)
        if describe(corpus).download:
            more = "\nGive download True to fetch it."
            if download:
                fetch_corpus(corpus, source, on_log=log)
        try:
            plan = scan(corpus, folder, seed)
        except DataError as error:
            missing.append(f"{corpus}: {error}\n{offer(corpus)}{more}")
        else:
            stores.append(prepare(plan, wanted, data_root, workers, log))
    if not stores:
        raise DataError(f"dataset {dataset!r}: nothing to prepare.\n" + "\n".join(missing))
    for line in missing:
        log(f"MISSING from {dataset}: {line}")
    for store in stores:
        for line in compare_counts(store):
            log(line)
    return stores
