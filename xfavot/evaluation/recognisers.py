"""Speech recognisers for word error rates; each has its own name in the tables.

`espnet_librispeech` is one of ESPnet's published models by its pinned record; the paper used one of
ESPnet's, not told which (A72). `pocketsphinx_grid` is pocketsphinx told GRID's grammar, for `mini`
and GRID alone: it can hear nothing else, so its rates compare with no other recogniser's.
"""

from __future__ import annotations

import contextlib
import io
import os
import tempfile
import warnings
from os import PathLike
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import yaml
from numpy.typing import NDArray

from xfavot.data.mini.speak import ADVERBS, COLOURS, COMMANDS, DIGITS, LETTERS, PREPOSITIONS
from xfavot.errors import DataError, WeightsError
from xfavot.evaluation import foreign
from xfavot.weights import fetched

RATE_HZ = 16_000  # of both
ESPNET, SPHINX_GRID = "espnet_librispeech", "pocketsphinx_grid"
NAMES = (ESPNET, SPHINX_GRID)
SLOTS = (COMMANDS, COLOURS, PREPOSITIONS, tuple(f"{one}." for one in LETTERS), DIGITS, ADVERBS)
SHORTEST_SAMPLES = 8_000  # half a second; ESPnet refuses clips of a few frames
BEAM, CTC_WEIGHT, LM_WEIGHT = 10, 0.5, 0.6  # of ESPnet's search; the paper tells none

Wave = NDArray[np.float32]


class Recogniser(Protocol):
    """Hears words."""

    @property
    def name(self) -> str:
        """Its name in the tables."""

    def hear(self, wave: Wave, rate_hz: int) -> str:
        """Return the words of one utterance (N,) in [-1, 1]; "" if none was heard."""


class PocketsphinxGrid:
    """pocketsphinx, US English, default settings, told GRID's grammar.

    Raises:
        WeightsError: it is not installed; it brings its model.
    """

    name = SPHINX_GRID

    def __init__(self) -> None:
        """Load the model."""
        try:
            import pocketsphinx  # type: ignore[import-not-found,import-untyped,unused-ignore]
        except ImportError as error:
            raise WeightsError(
                f'pocketsphinx is not installed ({error}); run: pip install "xfavot[metrics]"'
            ) from error
        self._decoder: Any = pocketsphinx.Decoder(
            hmm=pocketsphinx.get_model_path("en-us/en-us"),
            dict=pocketsphinx.get_model_path("en-us/cmudict-en-us.dict"),
            lm=None, samprate=float(RATE_HZ), loglevel="FATAL",
        )  # fmt: skip
        self._decoder.add_jsgf_string("grid", grid_grammar())
        self._decoder.activate_search("grid")

    def hear(self, wave: Wave, rate_hz: int) -> str:
        """See :class:`Recogniser`."""
        pcm = np.round(at_16_khz(wave, rate_hz) * 32767).astype("<i2").tobytes()
        self._decoder.start_utt()
        self._decoder.process_raw(pcm, full_utt=True)
        self._decoder.end_utt()
        found = self._decoder.hyp()
        return found.hypstr.replace(".", "").strip() if found is not None else ""


class Espnet:
    """A published model of ESPnet: its recogniser with its language model, joint CTC and attention.

    Args:
        folder: what its archive unpacks to, with `meta.yaml`.
        name: in the tables.

    Raises:
        WeightsError: ESPnet is not installed, or the folder is not such a model; a checkpoint that
            holds more than tensors is refused before ESPnet sees it.
    """

    def __init__(self, folder: str | PathLike[str], *, name: str = ESPNET) -> None:
        """Load the networks; see the class."""
        self.name = name
        files = espnet_files(folder)
        with _quiet():
            try:
                from espnet2.bin.asr_inference import (  # type: ignore[import-not-found,import-untyped,unused-ignore]
                    Speech2Text,
                )
            except ImportError as error:
                raise WeightsError(
                    f'ESPnet is not installed ({error}); run: pip install "xfavot[asr]"'
                ) from error
            with tempfile.TemporaryDirectory() as place:
                given = {
                    key: _located(path, Path(folder), Path(place)) for key, path in files.items()
                }
                self._network: Any = Speech2Text(
                    **given, device="cpu", beam_size=BEAM, ctc_weight=CTC_WEIGHT,
                    lm_weight=LM_WEIGHT if "lm_file" in given else 0.0,
                )  # fmt: skip

    def hear(self, wave: Wave, rate_hz: int) -> str:
        """See :class:`Recogniser`."""
        x = at_16_khz(wave, rate_hz)
        with _quiet():
            best = self._network(np.pad(x, (0, max(0, SHORTEST_SAMPLES - len(x)))))
        return str(best[0][0] or "") if best else ""


def load(name: str, *, cache: str | PathLike[str] | None = None) -> Recogniser:
    """Load a recogniser.

    Args:
        name: one of `NAMES`.
        cache: the folder of weights; see `fetched.root`.

    Raises:
        DataError: no such recogniser.
        WeightsError: a package or the weights are not here; the message says how to get them.
    """
    if name == SPHINX_GRID:
        return PocketsphinxGrid()
    if name == ESPNET:
        return Espnet(fetched.path(ESPNET, cache))
    raise DataError(f"recogniser {name!r} is not known; expected one of {', '.join(NAMES)}")


def grid_grammar() -> str:
    """Write GRID's grammar in JSGF; the dictionary spells letters with a full stop."""
    body = " ".join(f"({' | '.join(words)})" for words in SLOTS)
    return f"#JSGF V1.0;\ngrammar grid;\npublic <sentence> = {body};\n"


def in_grid_grammar(transcript: str) -> bool:
    """Whether a transcript is one of GRID's sentences: six words, each of its place."""
    words = transcript.lower().split()
    return len(words) == len(SLOTS) and all(
        word in {one.rstrip(".") for one in allowed}
        for word, allowed in zip(words, SLOTS, strict=True)
    )


def at_16_khz(wave: Wave, rate_hz: int) -> Wave:
    """Resample (N,) to 16 kHz; what overshoots full scale is cut."""
    from scipy.signal import resample_poly

    common = int(np.gcd(rate_hz, RATE_HZ))
    made = resample_poly(wave, RATE_HZ // common, rate_hz // common)
    return np.asarray(np.clip(made, -1.0, 1.0), dtype=np.float32)


def espnet_files(folder: str | PathLike[str]) -> dict[str, Path]:
    """Read from `meta.yaml` which files ESPnet's `Speech2Text` is to be given, by argument.

    Raises:
        WeightsError: it is missing or not as ESPnet writes it, a file is missing or lies elsewhere.
    """
    meta = Path(folder, "meta.yaml")
    try:
        held = yaml.safe_load(meta.read_text(encoding="utf-8"))
        named = {**held["yaml_files"], **held["files"]}
        files = {str(key): Path(folder, value) for key, value in named.items()}
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError) as error:
        raise WeightsError(
            f"{meta} cannot be read ({error!r}); expected yaml_files and files as ESPnet writes "
            f"them; run {fetched.COMMAND} {ESPNET}"
        ) from error
    home = Path(folder).resolve()
    odd = [str(f) for f in files.values() if not f.is_file() or home not in f.resolve().parents]
    if odd or "asr_train_config" not in files or "asr_model_file" not in files:
        raise WeightsError(
            f"{meta} names {', '.join(odd) or sorted(files)}; expected asr_train_config, "
            f"asr_model_file and what else it names as files beside it; run {fetched.COMMAND} "
            f"{ESPNET}"
        )
    return files


def _located(path: Path, folder: Path, place: Path) -> str:
    """Check a checkpoint; copy a configuration so that its relative paths lead into the folder."""
    if path.suffix not in {".yaml", ".yml"}:
        foreign.read(path)
        return str(path)
    settings = yaml.safe_load(path.read_text(encoding="utf-8"))
    copy = place / path.relative_to(folder)
    copy.parent.mkdir(parents=True, exist_ok=True)
    copy.write_text(yaml.safe_dump(_absolute(settings, folder)), encoding="utf-8")
    return str(copy)


def _absolute(value: Any, folder: Path) -> Any:
    """Make strings that name a file in the folder absolute, at any depth."""
    if isinstance(value, dict):
        return {key: _absolute(one, folder) for key, one in value.items()}
    if isinstance(value, list) and len(value) < 100:  # a longer one lists tokens
        return [_absolute(one, folder) for one in value]
    inside = isinstance(value, str) and value and not os.path.isabs(value)
    return str(folder.resolve() / value) if inside and (folder / value).is_file() else value


@contextlib.contextmanager
def _quiet() -> Any:
    """Keep ESPnet's own messages (missing nltk data, deprecations) out of a notebook."""
    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        with contextlib.redirect_stdout(io.StringIO()):
            yield
