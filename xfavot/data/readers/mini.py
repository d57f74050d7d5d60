"""Reader of the embedded corpus `mini` in the layout that `xfavot.mini.generate` writes.

Per speaker the eighth part of the utterances (3 of 24, 12.5 %) is held out for validation, chosen
by a hash of the clip's id and the seed, so that every speaker has held-out speech and faces.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from typing import Any

import numpy as np

from xfavot.data.readers.source import Clip, Source, read_words
from xfavot.errors import DataError

LAYOUT = "speakers.csv, factors.json and <speaker>/<sentence>.wav, .txt, _0.png"
HELD_OUT_SHARE = 0.125


def scan(source: Source) -> Iterator[Clip]:
    """Yield every clip of the corpus.

    Yields:
        Clips of kind "av". `extra` holds `hidden` (the speaker's factors) and `faces` (one dict of
        nuisance a picture, in the order of `images`).

    Raises:
        DataError: the folder is not such a corpus.
    """
    if not source.speakers.codes:
        raise DataError(
            f"{source.root} has no speakers.csv; expected a folder written by "
            "xfavot.mini.generate; generate the corpus first"
        )
    path = source.root / "factors.json"
    factors: dict[str, Any] = json.loads(path.read_text("utf-8")) if path.is_file() else {}
    for speaker in sorted(source.speakers.codes):
        waves = sorted((source.root / speaker).glob("*.wav"))
        held_out = _held_out([w.stem for w in waves], speaker=speaker, seed=source.seed)
        for wave in waves:
            images = tuple(sorted(wave.parent.glob(f"{wave.stem}_*.png")))
            poses = [dict(factors.get("faces", {}).get(f"{speaker}/{i.stem}", {})) for i in images]
            points = [pose.pop("landmarks", None) for pose in poses]
            known = images and all(point is not None for point in points)
            yield Clip(
                f"{speaker}/{wave.stem}",
                "av",
                f"mini/{speaker}",
                source.speakers.gender(speaker),
                read_words(wave.with_suffix(".txt")),
                "val" if wave.stem in held_out else "train",
                audio=wave,
                images=images,
                aligned=True,
                landmarks=np.array(points, dtype=np.float32) if known else None,
                extra={"hidden": factors.get("people", {}).get(speaker, {}), "faces": poses},
            )


def _held_out(names: list[str], *, speaker: str, seed: int) -> set[str]:
    """Choose names for validation: at least one where there are two."""
    count = max(1, round(HELD_OUT_SHARE * len(names))) if len(names) > 1 else 0

    def rank(name: str) -> str:
        return hashlib.sha256(f"{seed}/{speaker}/{name}".encode()).hexdigest()

    return set(sorted(names, key=rank)[:count])
