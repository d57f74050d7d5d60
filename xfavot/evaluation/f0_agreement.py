"""Does a converted voice keep the melody of its source, and does it have the sex of its reference?

F0 by WORLD (`xfavot.data.f0`) on both recordings, frame by frame at 12.5 ms. The paper converts
frame by frame, so source and output are compared without warping; files whose lengths differ by
more than a twentieth are not compared (A71). Sex by pitch is a coarse judge: the median F0 above or
below one line. It is wrong at times (A73).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from xfavot.errors import DataError

CORRELATION, VOICING, GENDER = "f0_correlation", "voicing_agreement", "gender_agreement_f0"
DEFINITIONS = {
    CORRELATION: "correlation of log F0 (WORLD) of source and output, frames voiced in both",
    VOICING: "share of frames of source and output that WORLD calls alike, voiced or unvoiced",
    GENDER: "share of outputs whose median F0 (WORLD) lies on the side of 165 Hz of the reference",
}
GENDER_HZ = 165.0
LEAST_VOICED = 10  # frames
LEAST_MOVEMENT = 1e-6  # of log F0; less is rounding
MOST_DIFFERENCE = 0.05  # of the lengths, share of the longer
SLACK_FRAMES = 4  # 50 ms, of very short clips

Track = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Agreement:
    """How well two F0 tracks agree.

    Args:
        voicing: share of frames that are voiced in both or in neither.
        correlation: of log F0 over the frames voiced in both; ``None`` where there are fewer than
            ten, or one of the two does not move.
        voiced: frames voiced in both.
    """

    voicing: float
    correlation: float | None
    voiced: int


def agreement(source: Track, output: Track) -> Agreement:
    """Compare two tracks.

    Args:
        source, output: F0 in Hz, (T,) and (T',), 0 where unvoiced.

    Raises:
        DataError: one is empty, or their lengths differ too much to be the same utterance.
    """
    longer, shorter = max(len(source), len(output)), min(len(source), len(output))
    if not shorter or longer - shorter > max(SLACK_FRAMES, MOST_DIFFERENCE * longer):
        raise DataError(
            f"F0 agreement: source and output have {len(source)} and {len(output)} frames of "
            f"12.5 ms; expected lengths that differ by {MOST_DIFFERENCE:.0%} at most; a system "
            "that changes the rhythm cannot be compared frame by frame"
        )
    a, b = source[:shorter], output[:shorter]
    both = (a > 0) & (b > 0)
    voiced, correlation = int(both.sum()), None
    if voiced >= LEAST_VOICED:
        pair = np.log(np.stack([a[both], b[both]]).astype(np.float64))
        if (pair.std(axis=1) > LEAST_MOVEMENT).all():
            correlation = float(np.corrcoef(pair)[0, 1])
    return Agreement(float(np.mean((a > 0) == (b > 0))), correlation, voiced)


def gender_by_pitch(f0: Track) -> str:
    """Guess the sex of a voice from its median F0.

    Args:
        f0: (T,) Hz, 0 where unvoiced.

    Returns:
        "f" or "m", or "" with fewer than ten voiced frames.
    """
    voiced = f0[f0 > 0]
    if len(voiced) < LEAST_VOICED:
        return ""
    return "f" if float(np.median(voiced)) > GENDER_HZ else "m"
