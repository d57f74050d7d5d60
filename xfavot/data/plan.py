"""What is to be prepared, and whether it has been: the scan of a source, the record of a store."""

from __future__ import annotations

import hashlib
import importlib.util
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from xfavot.audio.mel import MEL
from xfavot.data.clip import Settings
from xfavot.data.corpora import describe
from xfavot.data.manifest import Store
from xfavot.data.mini.factors import SCHEMA
from xfavot.data.pack import RECORD
from xfavot.data.readers import READERS, Clip, Reject, corpus_folder
from xfavot.errors import DataError


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
            f"{READERS[corpus].LAYOUT}; set `source` to it"
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
