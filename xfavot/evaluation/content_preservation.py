"""Does a converted voice still say what its source says? Read by the content network that ships.

Two figures for files of any system: the character error of what the network hears against the
transcript, and, where there is none, the cosine of its features in source and output frame by
frame, what L_sc compares (Sec. 3.3). It was trained for `mini`: by its own record it errs on 6 % of
the characters of mini's clips left out of training, but on 92 % of VCTK's (3 clips), so that its
figures of real voices say nothing; the ground truth's row beside them shows it. Models
of this project were trained to please such a network; a recogniser of words is the judge.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from xfavot import weights
from xfavot.audio.mel import Standardiser, log_mel
from xfavot.errors import DataError, WeightsError
from xfavot.evaluation.f0_agreement import MOST_DIFFERENCE
from xfavot.models.content import ContentNetwork
from xfavot.training.keeping import load_network, read_record
from xfavot.training.labels import decode, encode, spell
from xfavot.training.measures import edit_distance

CHARACTERS, LIKENESS = "content_character_error", "content_likeness"
DEFINITIONS = {
    CHARACTERS: "errors over characters of the transcripts, heard by the content network for mini",
    LIKENESS: "cosine of the content network's features of source and output; for mini",
}
SLACK_STEPS = 2  # of 25 ms, of very short clips

Wave = NDArray[np.float32]


class ContentReader:
    """The content network that comes with the package, on the CPU.

    Raises:
        WeightsError: none comes with this installation, or it is damaged.
    """

    def __init__(self) -> None:
        """Load the network; see the class."""
        path = weights.shipped("content")
        network, said = load_network(path).network, read_record(path)["standardiser"]
        if not isinstance(network, ContentNetwork):
            raise WeightsError(f"{path} holds no content network; install the package again")
        self._network = network
        self._standardiser = Standardiser(*(torch.tensor(said[name]) for name in ("mean", "std")))

    @torch.inference_mode()
    def read(self, wave: Wave) -> tuple[str, Tensor]:
        """Hear an utterance.

        Args:
            wave: (N,) in [-1, 1] at 24 kHz.

        Returns:
            Its characters, and the features (C, T / 2).
        """
        mel = log_mel(torch.from_numpy(np.ascontiguousarray(wave, dtype=np.float32)))
        x = self._standardiser.standardise(mel)[None, None]  # (1, 1, 80, T)
        return decode(self._network(x)[0]), self._network.features(x)[0]


def character_errors(said: str, heard: str) -> tuple[int, int]:
    """Count errors and characters of a transcript, spelt as the network spells.

    Raises:
        DataError: no character is left of the transcript.
    """
    truth = spell(encode(said))
    if not truth:
        raise DataError(f"content: transcript {said!r} has no letter; expected what is said")
    return edit_distance(truth, heard), len(truth)


def likeness(source: Tensor, output: Tensor) -> float:
    """Mean cosine of features (C, T) and (C, T') over the frames that both have.

    Raises:
        DataError: the lengths differ too much to be the same utterance.
    """
    longer, shorter = (pick(source.shape[1], output.shape[1]) for pick in (max, min))
    if longer - shorter > max(SLACK_STEPS, MOST_DIFFERENCE * longer):
        raise DataError(
            f"content: source and output have {source.shape[1]} and {output.shape[1]} steps of "
            f"25 ms; expected lengths that differ by {MOST_DIFFERENCE:.0%} at most; a system that "
            "changes the rhythm cannot be compared frame by frame"
        )
    return float(
        functional.cosine_similarity(source[:, :shorter], output[:, :shorter], dim=0).mean()
    )
