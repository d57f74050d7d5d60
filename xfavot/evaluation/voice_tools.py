"""The networks that voices are measured by, each loaded once, and each file read once by each.

What is not installed or has no weights is no tool: its reason is in `missing`. Files are read as
mono at 24 kHz (A70). Results are kept by file, waves only for the last few, so memory does not grow
with the sound.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from os import PathLike
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from xfavot.audio.io import load_waveform
from xfavot.audio.mel import MEL
from xfavot.data.f0 import world_f0
from xfavot.errors import DataError, WeightsError
from xfavot.evaluation import content_preservation, nisqa, recognisers, speaker_similarity

KEPT_WAVES = 4  # files; source, reference and output of a row, and one more
CONTENT = "content"

T = TypeVar("T")
Wave = NDArray[np.float32]


class VoiceTools:
    """See the module.

    Args:
        recogniser: one of `recognisers.NAMES`.
        cache: the folder of weights; see `weights.root`.

    Raises:
        DataError: no such recogniser.
    """

    def __init__(self, recogniser: str, *, cache: str | PathLike[str] | None = None) -> None:
        """Load what there is; see the class."""
        if recogniser not in recognisers.NAMES:
            recognisers.load(recogniser)
        self.recogniser = recogniser
        self.missing: dict[str, str] = {}
        self._tools: dict[str, Any] = {}
        ways: dict[str, Callable[[], Any]] = {
            nisqa.NISQA: lambda: nisqa.load(nisqa.NISQA, cache=cache),
            nisqa.NISQA_TTS: lambda: nisqa.load(nisqa.NISQA_TTS, cache=cache),
            speaker_similarity.METRIC: lambda: speaker_similarity.SpeakerEncoder(cache=cache),
            recogniser: lambda: recognisers.load(recogniser, cache=cache),
            CONTENT: content_preservation.ContentReader,
        }
        for name, make in ways.items():
            try:
                self._tools[name] = make()
            except WeightsError as error:
                self.missing[name] = str(error)
        self._waves: OrderedDict[Path, Wave] = OrderedDict()
        self._found: dict[tuple[str, Path], Any] = {}

    def has(self, name: str) -> bool:
        """Whether there is a tool: of NISQA, speaker similarity, the recogniser, or `CONTENT`."""
        return name in self._tools

    def rate(self, metric: str, file: Path) -> dict[str, float]:
        """NISQA's scores of a file."""
        return self._once(metric, file, lambda w: dict(self._tools[metric](w, MEL.sample_rate)))

    def embed(self, file: Path) -> speaker_similarity.Vector:
        """Resemblyzer's embedding of a file."""
        name = speaker_similarity.METRIC
        return self._once(name, file, lambda w: self._embedding(w))

    def hear(self, file: Path) -> str:
        """The words that the recogniser hears in a file."""
        name = self.recogniser
        return self._once(name, file, lambda w: str(self._tools[name].hear(w, MEL.sample_rate)))

    def content(self, file: Path) -> Any:
        """What `ContentReader.read` gives for a file."""
        return self._once(CONTENT, file, lambda w: self._tools[CONTENT].read(w))

    def f0(self, file: Path) -> NDArray[np.float32]:
        """WORLD's F0 of a file."""
        return self._once("f0", file, world_f0)

    def wave(self, file: Path) -> Wave:
        """Sound of a file, (N,) at 24 kHz.

        Raises:
            DataError: see `load_waveform`; silence is an error.
        """
        failed = self._found.get(("wave", file))
        if failed is not None:
            raise failed
        if file not in self._waves:
            try:
                self._waves[file] = load_waveform(file)
            except DataError as error:
                self._found["wave", file] = error
                raise
            while len(self._waves) > KEPT_WAVES:
                self._waves.popitem(last=False)
        self._waves.move_to_end(file)
        return self._waves[file]

    def _embedding(self, wave: Wave) -> speaker_similarity.Vector:
        encoder: speaker_similarity.SpeakerEncoder = self._tools[speaker_similarity.METRIC]
        return encoder.embed(wave, MEL.sample_rate)

    def _once(self, name: str, file: Path, measure: Callable[[Wave], T]) -> T:
        """Measure a file, or return what was found before; a failure is raised again."""
        key = (name, file)
        if key not in self._found:
            try:
                self._found[key] = measure(self.wave(file))
            except DataError as error:
                self._found[key] = error
        found = self._found[key]
        if isinstance(found, DataError):
            raise found
        result: T = found
        return result
