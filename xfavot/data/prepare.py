"""Originals in, prepared stores out: scan, make every clip ready, split, write, report.

Paper: Sec. 4 (corpora, 24 kHz, 128x128 aligned faces, 90/10 splits, unseen speakers). One store a
corpus; a mixture is a list of stores. Each clip that is made ready is kept in a file of its own
until the store is whole, so that a run that was stopped or killed goes on where it was.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import threading
import time
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from datetime import timedelta
from functools import partial
from multiprocessing import get_context, parent_process
from multiprocessing.connection import wait as wait_for_any
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from xfavot import fetch
from xfavot.audio.f0 import world_f0
from xfavot.audio.io import PCM_SCALE, MediaNote, load_waveform
from xfavot.audio.mel import MEL, log_mel
from xfavot.config import key_of
from xfavot.data import corpora
from xfavot.data.readers import NOTED, VAL_SHARE, Clip, Reject, Source, fraction, printable
from xfavot.data.readers.layouts import scan
from xfavot.data.report import CARD, PAGE, summary, write_report
from xfavot.data.store import ARRAYS, HEAD, Store, open_stores, write_store
from xfavot.errors import DataError, import_optional, refusing
from xfavot.files import whole
from xfavot.image.align import align_face, align_points, align_quad, detect, outside_share
from xfavot.image.io import load_frames, load_image, resize_image
from xfavot.media import MediaError
from xfavot.mini.generate import generate, speech_of
from xfavot.mini.people import SCHEMA
from xfavot.parameters import MINI, Prepare

RECORD = "prepare.json"  # beside store.json: how the store was made
ORIGINALS = "originals"  # below data_root: what the package makes or fetches itself
COMPILED_KEPT = "16"  # convolutions; face detection gains nothing from more
LINE_SECONDS = 20.0  # between two lines of progress
CANNOT_BE_OPENED, CANNOT_BE_READ = "cannot be opened", "cannot be read"
DIED = "decoder died"
UNSETTLED = (CANNOT_BE_OPENED, CANNOT_BE_READ, DIED)  # may not be the file's fault: tried again
FACTS = ("reject", "sha256", "kept", "notes")  # of a clip that was made ready, beside its arrays
Made = dict[str, Any]
Log = Callable[[str], None]


# One clip made ready: its voice decoded and analysed, its faces found and framed


# what decides how a clip is made ready; a change makes the clips' files and stores differ
SETTINGS: Mapping[str, Any] = {
    "image_size": 128,  # pixels, STATED
    "faces_per_clip": 4,  # frames of a film, evenly spaced
    "least_seconds": 0.5,
    "least_share": 0.9,  # of the length that a corpus promises; less is a truncated file
    "least_face": 40,  # pixels: width of the framed square in the picture
    "most_outside": 0.6,  # of the framed square may lie outside the picture
}


def process(clip: Clip) -> Made:
    """Make one clip ready.

    Returns:
        `faces` (F, H, W, 3) uint8 and `landmarks` (F, 5, 2) float32 in pixels of the crop, `audio`
        (N,) int16, `mel` (T, 80) float16, `f0` (T,) float32 Hz, `kept` the numbers of the images or
        frames kept, `sha256` of the content, `notes`; or `reject`, the class of the fault and its
        detail. Nothing is raised for what a file may hold.
    """
    try:
        made: Made = {"sha256": content_sha256(clip), "kept": [], "notes": []}
        made |= {} if clip.kind == "image" else _voice(clip)
        made |= {} if clip.kind == "audio" else _faces(clip)
    except MediaError as error:
        return {"reject": [error.reason, str(error)]}
    except Exception as error:  # decoders raise anything; a bad file must never stop the rest
        reason = CANNOT_BE_OPENED if isinstance(error, OSError) else CANNOT_BE_READ
        return {"reject": [reason, f"{type(error).__name__}: {error}"]}
    return made


def _voice(clip: Clip) -> Made:
    path = clip.audio or clip.source
    with warnings.catch_warnings(record=True) as notes:
        warnings.simplefilter("always", MediaNote)
        waveform = load_waveform(path)
    seconds = len(waveform) / MEL.sample_rate
    promised = float(clip.extra.get("seconds", 0.0))
    found = f"{path}: {seconds:.2f} s of sound"
    if seconds < SETTINGS["least_share"] * promised:
        raise MediaError("truncated", f"{found}; a clip of this corpus has {promised} s")
    if seconds < SETTINGS["least_seconds"]:
        raise MediaError("too short", f"{found}; at least {SETTINGS['least_seconds']} s")
    return {
        "audio": np.clip(np.rint(waveform * PCM_SCALE), -PCM_SCALE, PCM_SCALE - 1).astype(np.int16),
        "mel": log_mel(torch.from_numpy(waveform)).numpy().T.astype(np.float16),
        "f0": world_f0(waveform).astype(np.float32),
        "notes": [str(note.message) for note in notes if note.category is MediaNote],
    }


def _faces(clip: Clip) -> Made:
    """Crops of a clip's pictures or of frames of its film; an unfit one costs itself alone."""
    framed: dict[int, tuple[NDArray[np.uint8], NDArray[np.float32]]] = {}
    faults: list[MediaError] = []
    count = SETTINGS["faces_per_clip"]
    pictures: Sequence[Any] = clip.images or load_frames(clip.source, count)
    spread = {int((i + 0.5) * len(pictures) / count) for i in range(count)}
    for number in sorted(spread):
        known = None if clip.landmarks is None else clip.landmarks[number]
        try:
            framed[number] = _framed(load_image(pictures[number]), known, clip.aligned)
        except MediaError as fault:
            faults.append(fault)
    if not framed:
        last = faults[-1]
        raise MediaError(last.reason, f"{last} ({len(faults)} of {len(faults)} pictures)")
    crops, points = zip(*framed.values(), strict=True)
    return {"faces": np.stack(crops), "landmarks": np.stack(points), "kept": list(framed)}


def _framed(
    picture: NDArray[np.uint8], known: NDArray[np.float32] | None, aligned: bool
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Return the crop of one picture and its landmarks in the crop's pixels."""
    size = SETTINGS["image_size"]
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
    if side < SETTINGS["least_face"]:
        raise MediaError("face too small", f"{side:.0f} pixels; at least {SETTINGS['least_face']}")
    outside = outside_share(picture.shape, landmarks)
    if outside > SETTINGS["most_outside"]:
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
    lines: list[str] = []
    for path in clip.files:
        try:
            lines.append(fetch.checksum_of(path).removeprefix("sha256:"))
        except OSError:
            if not lines:
                raise
            lines.append("")
    text = "".join(f"{line}\n" for line in lines)
    return lines[0] if len(lines) == 1 else hashlib.sha256(text.encode()).hexdigest()


# Many clips made ready, in this process or in several


def process_all(
    work: Callable[[Clip], Made], clips: Sequence[Clip], workers: int
) -> Iterator[tuple[Clip, Made]]:
    """Work on clips in processes; a clip at which a decoder dies costs itself alone.

    Args:
        work: what to do with each, as :func:`process` does.
        clips: the clips.
        workers: processes, of one thread each; 0 works in this one.

    Yields:
        Each clip once, in order, with what comes of it.

    Raises:
        DataError: processes cannot be started.
    """
    if not workers:
        yield from zip(clips, map(work, clips), strict=True)
        return
    own, pools = threading.local(), list[ProcessPoolExecutor]()  # one of one process a thread

    def one(clip: Clip) -> Made:
        try:
            if getattr(own, "pool", None) is None:
                own.pool = _started()
                pools.append(own.pool)
            made: Made = own.pool.submit(work, clip).result()
            return made
        except BrokenProcessPool:
            own.pool = None
            return {"reject": [DIED, "its process died (a fault of a decoder, or no memory)"]}

    threads = ThreadPoolExecutor(workers)
    try:
        yield from zip(clips, threads.map(one, clips), strict=True)
    finally:
        threads.shutdown(cancel_futures=True)
        for pool in pools:
            pool.shutdown()


def _started() -> ProcessPoolExecutor:
    pool = ProcessPoolExecutor(1, mp_context=get_context("spawn"), initializer=_start_worker)
    advice = "guard a script by if __name__ == '__main__', or use workers=0"
    with refusing(BrokenProcessPool, DataError, "worker processes cannot be started", advice):
        pool.submit(int).result()
    return pool


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


# What is to be prepared, and whether it has been


def _state(path: Path) -> list[int]:
    """Bytes of a file and its time of change in ns."""
    with suppress(OSError):
        return [path.stat().st_size, path.stat().st_mtime_ns]
    return [-1, 0]


def asked_for(corpus: str, seed: int) -> dict[str, Any]:
    """Describe the store of a corpus by what is asked for, apart from its source."""
    return {
        "corpus": corpus,
        "seed": seed,
        "held_out": sorted(corpora.describe(corpus).held_out),
        "mel": MEL.hash,
        "settings": {**SETTINGS},
        **({"generator": SCHEMA} if corpus == "mini" else {}),
    }


def existing(target: Path, wanted: Mapping[str, Any]) -> Store | None:
    """Open a finished store made as `wanted` says; refuse any other."""
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return None
    store = Store.open(target, corpus=wanted["corpus"])
    try:
        made = MINI | json.loads((target / RECORD).read_text(encoding="utf-8"))  # older: not all
        made["speakers"] = len({item.speaker for item in store.items})
        wrong = [
            f"{name} is {made.get(name)!r}, now {value!r}"
            for name, value in wanted.items()
            if made.get(name) != value
        ]
    except (OSError, ValueError) as error:
        wrong = [f"{RECORD} is missing or damaged ({error})"]
    if wrong:
        raise DataError(
            f"prepared store {target} was made otherwise: {'; '.join(wrong)} (the fingerprint is "
            "that of the list of source files); remove it to prepare anew, or set another data_root"
        )
    return store


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
    plan: Source, wanted: Mapping[str, Any], data_root: Path | str, workers: int, log: Log
) -> Store:
    """Make the prepared store of one corpus, or open it if it is there already.

    Args:
        plan: what :func:`xfavot.data.readers.scan` found.
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
    sizes = "".join(f"{clip.id}\0{_state(clip.source)[0]}\0" for clip in plan.clips.values())
    record = {**wanted, "fingerprint": hashlib.sha256(sizes.encode()).hexdigest()[:16]}
    store = existing(target, record)
    if store is None:
        for package in ("av", "PIL", "pyworld", "soxr"):  # lest all clips be quarantined
            import_optional(package, extra="data", purpose="preparing")
        if any(clip.kind != "audio" and not clip.aligned for clip in plan.clips.values()):
            detect([np.zeros((64, 64, 3), np.uint8)])
        ready = target.with_name(f".{plan.corpus}.partial")
        with fetch.alone(ready):
            store = existing(target, record)  # another process may have made it meanwhile
            if store is None:
                store = _assembled(plan, target, record, _made_ready(plan, ready, workers, log))
            shutil.rmtree(ready, ignore_errors=True)
        log(summary([store]).partition("\n")[0])
    else:
        log(f"{plan.corpus}: {target} is ready ({len(store.items)} items); nothing to do")
    if not (target / PAGE).is_file() or not (target / CARD).is_file():
        write_report(store)
        log(f"{plan.corpus}: report in {target / PAGE}, card in {target / CARD}")
    return store


def _made_ready(plan: Source, folder: Path, workers: int, log: Log) -> dict[str, tuple[Path, Made]]:
    """Make each clip of a plan ready in a file of its own, but for those that a run left before.

    Returns:
        By the clip's id its file, which holds the arrays, and its :data:`FACTS`.
    """
    ready: dict[str, tuple[Path, Made]] = {}
    files = {clip.id: _file(clip, folder) for clip in plan.clips.values()}
    for name, file in files.items():
        if file.exists():
            with np.load(file) as made:
                ready[name] = file, {fact: made[fact].tolist() for fact in FACTS if fact in made}
    kept = f", {len(ready)} of them finished before" if ready else ""
    log(f"{plan.corpus}: {len(plan.clips)} clips in {plan.root}{kept}")
    todo = [clip for clip in plan.clips.values() if clip.id not in ready]
    begun, said, rejected = 0.0, time.monotonic(), 0
    outcomes = process_all(partial(_keep, folder=folder), todo, workers)
    for done, (clip, facts) in enumerate(outcomes, start=1):
        ready[clip.id] = files[clip.id], facts
        rejected += "reject" in facts
        now = time.monotonic()
        begun = begun or now  # counted from the end of the first, lest the workers' start blur it
        if done == len(todo) or (done > 1 and now - said >= LINE_SECONDS):
            pace, said = (now - begun) / max(done - 1, 1), now
            left = timedelta(seconds=round(pace * (len(todo) - done)))
            log(f"{plan.corpus}: {done} of {len(todo)} clips, {left} left, {rejected} rejected")
    return ready


def _file(clip: Clip, folder: Path) -> Path:
    """Where a clip that was made ready lies; another one if the clip or the settings change."""
    known = [clip.id, clip.kind, clip.aligned, [_state(path) for path in clip.files]]
    return folder / f"{key_of({**SETTINGS, 'mel': MEL.hash, 'clip': known})}.npz"


def _keep(clip: Clip, folder: Path) -> Made:
    """Make a clip ready in its file, unless it may get well; return its :data:`FACTS`."""
    made = process(clip)
    facts = {name: made[name] for name in FACTS if name in made}
    if facts.get("reject", ("",))[0] not in UNSETTLED:
        with whole(_file(clip, folder)) as draft:
            np.savez(draft, **made)
    return facts


def _assembled(
    plan: Source, target: Path, record: Mapping[str, Any], ready: Mapping[str, tuple[Path, Made]]
) -> Store:
    """Write the store of clips that are all ready."""
    accepted, rejects = list[Clip](), [*plan.rejects]
    people, faces = dict[str, Any](), list[Any]()  # what a made corpus knows of each stored face
    for clip in plan.clips.values():
        facts = ready[clip.id][1]
        rejects += [Reject(clip.source, NOTED, note) for note in facts.get("notes", ())]
        if "reject" in facts:
            rejects.append(Reject(clip.source, *facts["reject"]))
            continue
        accepted.append(clip)
        if "hidden" in clip.extra:
            people[clip.speaker] = clip.extra["hidden"]
            known = dict(enumerate(clip.extra["faces"]))
            faces += [known.get(number, {}) for number in facts["kept"]]
    if not accepted:
        bad = [facts["reject"] for _, facts in ready.values()]
        reasons = Counter(reason for reason, _ in bad).most_common()
        raise DataError(
            f"{plan.corpus}: none of the {len(plan.clips)} clips in {plan.root} can be used "
            f"({', '.join(f'{count} {reason}' for reason, count in reasons)}; the first: "
            f"{bad[0][1]}); expected readable faces and voices; check the source"
        )
    rejects.sort(key=lambda reject: (str(reject.source), reject.reason))
    splits = assign_splits(accepted, seed=record["seed"], held_out=record["held_out"])

    def relative(path: Path) -> str:
        inside = path.is_relative_to(plan.root)
        return printable(path.relative_to(plan.root).as_posix() if inside else str(path))

    def clips() -> Iterator[tuple[dict[str, str], Made]]:
        for clip in accepted:
            names = ("id", "kind", "speaker", "gender", "transcript")
            texts = {name: getattr(clip, name) for name in names}
            texts |= {"source": relative(clip.source), "split": splits[clip.id]}
            file, facts = ready[clip.id]
            with np.load(file) as made:
                arrays = {name: made[name] for name in ARRAYS if name in made}
            yield {**texts, "sha256": facts["sha256"]}, arrays

    beside = {RECORD: {**record, "clips": len(plan.clips), "source": str(plan.root)}}
    if people:
        beside["factors.json"] = {"people": people, "faces": faces}
    left_out = [(relative(r.source), r.reason, printable(r.detail), r.files) for r in rejects]
    how = {"image_size": SETTINGS["image_size"], "seed": record["seed"]}
    return write_store(target, clips(), left_out=left_out, beside=beside, **how)


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
        return prepare_dataset(Prepare(data_root=str(data_root)), on_log)
    return open_stores(data_root, corpora, on_log)


def prepare_dataset(
    cfg: Prepare, on_log: Log | None = None, *, workers: int | None = None
) -> list[Store]:
    """Prepare every corpus of a mixture; those that are absent from the source are reported.

    Args:
        cfg: what is prepared, of which originals, and where.
        on_log: receives plain lines of progress.
        workers: processes; 0 works in this one. The configuration's if left out.

    Returns:
        The stores that are ready, in the order of the mixture.

    Raises:
        DataError: no corpus of the mixture could be prepared, one that is present fails, or a
            download fails.
    """
    log: Log = on_log or (lambda line: None)
    stores, missing = list[Store](), list[str]()
    source, seed, workers = cfg.originals, cfg.seed, cfg.processes if workers is None else workers
    places = (Path(source), Path(source) / "mini") if source else ()
    given = any((place / "factors.json").is_file() for place in places)  # somebody's own `mini`
    for corpus in cfg.corpora:
        wanted, folder = asked_for(corpus, seed), Path(source)
        if corpus == "mini" and not given:
            size = {"speakers": cfg.speakers, "utterances": cfg.utterances, "seed": seed}
            wanted |= {"speakers": cfg.speakers, "speech": speech_of(cfg.voices, **size)}
            wanted |= {"utterances": cfg.utterances, "twins": cfg.twins}
            # the originals are the package's own: a finished store does not need them again
            if store := existing(Path(cfg.data_root) / corpus, wanted):
                log(f"mini: {store.path} is ready ({len(store.items)} items); nothing to do")
                stores.append(store)
                continue
            folder = Path(cfg.data_root) / ORIGINALS / corpus
            generate(
                folder,
                **size,
                workers=max(workers, 1),
                voices=cfg.voices,
                twins=cfg.twins,
                on_log=log,
            )
        if cfg.download and corpora.describe(corpus).download:
            corpora.download(corpus, source, on_log=log)
        try:
            plan = scan(corpus, folder, seed)
        except DataError as error:
            offer = corpora.offer(corpus)
            missing.append(f"MISSING from {cfg.dataset}: {corpus}: {error}\n{offer}")
        else:
            stores.append(prepare(plan, wanted, cfg.data_root, workers, log))
    if not stores:
        raise DataError(f"dataset {cfg.dataset!r}: nothing to prepare.\n" + "\n".join(missing))
    for line in missing:
        log(line)
    return stores
