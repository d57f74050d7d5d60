"""Originals in, prepared stores out: scan, make every clip ready, split, pack, report.

Paper: Sec. 4 (corpora, 24 kHz, 128x128 aligned faces, 90/10 splits, unseen speakers). One store a
corpus; a mixture is a list of stores. Finished clips are kept below ``<data_root>/.staging`` until
the store is whole, so that a run that was stopped or killed goes on where it was.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from xfavot import presets
from xfavot.data.cards import CARD, write_card
from xfavot.data.clip import Settings
from xfavot.data.corpora import compare_counts, describe
from xfavot.data.download import download as fetch_corpus
from xfavot.data.download import offer
from xfavot.data.manifest import Store
from xfavot.data.mini.factors import SCHEMA
from xfavot.data.pack import pack
from xfavot.data.plan import Plan, existing, require_packages, scan, store_record
from xfavot.data.prepare_report import write_report
from xfavot.data.progress import Progress
from xfavot.data.readers import NOT_NEEDED, READERS, Reject
from xfavot.data.stage import is_staged, stage
from xfavot.errors import ConfigError, DataError
from xfavot.strict import nearest

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
        elif download and describe(corpus).downloads:
            fetch_corpus(corpus, originals, on_log=log)
        try:
            scan(corpus, originals, seed)
        except DataError as error:
            more = "\nGive download True to fetch it." if describe(corpus).downloads else ""
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
    from xfavot.data.mini.generate import generate

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
