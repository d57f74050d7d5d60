"""Reader of the embedded corpus `mini` in the layout that `xfavot.mini.generate` writes.

Per speaker the eighth part of the utterances (3 of 24, 12.5 %) is held out for validation, chosen
by a hash of the clip's id and the seed, so that every speaker has held-out speech and faces.
"""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from xfavot.errors import DataError

if TYPE_CHECKING:
    from xfavot.data.readers import Clip

LAYOUT = "speakers.csv, factors.json and <speaker>/<sentence>.wav, .txt, _0.png"
HELD_OUT_SHARE = 0.125


def _held_out(names: list[str], *, speaker: str, seed: int) -> set[str]:
    """Names kept for validation: at least one where there are two."""
    count = max(1, round(HELD_OUT_SHARE * len(names))) if len(names) > 1 else 0

    def rank(name: str) -> str:
        return hashlib.sha256(f"{seed}/{speaker}/{name}".encode()).hexdigest()

    return set(sorted(names, key=rank)[:count])


def _table(source: Path) -> dict[str, str]:
    path = source / "speakers.csv"
    if not path.is_file():
        raise DataError(
            f"{source} has no speakers.csv; expected a folder written by "
            "xfavot.mini.generate; generate the corpus first"
        )
    with path.open(encoding="utf-8", newline="") as file:
        return {row["speaker"]: row["gender"] for row in csv.DictReader(file)}


def scan(source: Path, *, seed: int) -> Iterator[Clip]:
    """Yield every clip of the corpus.

    Args:
        source: folder with `speakers.csv`, `factors.json` and one folder a speaker.
        seed: of the split.

    Yields:
        Clips of kind "av". `extra` holds `hidden` (the speaker's factors) and `faces` (one dict of
        nuisance a picture, in the order of `images`).

    Raises:
        DataError: `source` is not such a folder.
    """
    from xfavot.data.readers import Clip

    genders = _table(source)
    path = source / "factors.json"
    factors: dict[str, Any] = json.loads(path.read_text("utf-8")) if path.is_file() else {}
    for speaker, gender in sorted(genders.items()):
        waves = sorted((source / speaker).glob("*.wav"))
        held_out = _held_out([w.stem for w in waves], speaker=speaker, seed=seed)
        for wave in waves:
            text = wave.with_suffix(".txt")
            images = tuple(sorted(wave.parent.glob(f"{wave.stem}_*.png")))
            poses = [dict(factors.get("faces", {}).get(f"{speaker}/{i.stem}", {})) for i in images]
            points = [pose.pop("landmarks", None) for pose in poses]
            known = images and all(point is not None for point in points)
            yield Clip(
                id=f"{speaker}/{wave.stem}",
                kind="av",
                speaker=f"mini/{speaker}",
                gender=gender,
                transcript=text.read_text("utf-8").strip() if text.is_file() else "",
                split="val" if wave.stem in held_out else "train",
                audio=wave,
                images=images,
                video=None,
                aligned=True,
                landmarks=np.array(points, dtype=np.float32) if known else None,
                extra={
                    "hidden": factors.get("people", {}).get(speaker, {}),
                    "faces": poses,
                },
            )
