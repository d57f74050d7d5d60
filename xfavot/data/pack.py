"""Staging files become a prepared store: splits, manifest, factors, quarantine."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from xfavot.data.manifest import StoreWriter
from xfavot.data.readers import VAL_SHARE, Clip, Reject, fraction, printable
from xfavot.data.stage import load_staged
from xfavot.errors import DataError

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
