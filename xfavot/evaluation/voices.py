"""The networks that voices are measured by, each loaded once, and each file read once by each.

What is not installed or has no weights is no tool: its reason is in `missing`. Files are read as
mono at 24 kHz (A70). Results are kept by file, waves only for the last few, so memory does not grow
with the sound.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import tempfile
import unicodedata
import warnings
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
import yaml
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from xfavot import weights
from xfavot.audio.f0 import world_f0
from xfavot.audio.io import load_waveform
from xfavot.audio.mel import MEL, Standardiser, log_mel
from xfavot.errors import DataError, WeightsError
from xfavot.evaluation import external
from xfavot.mini.speak import ADVERBS, COLOURS, COMMANDS, DIGITS, LETTERS, PREPOSITIONS
from xfavot.models.content import ContentNetwork
from xfavot.training.keeping import load_network, read_record
from xfavot.training.speech import decode, edit_distance, encode, spell
from xfavot.weights import fetched

# NISQA (Mittag et al. 2021): how good a voice sounds, read from the sound alone


NISQA, NISQA_TTS = "nisqa", "nisqa_tts"
DIMENSIONS = ("noisiness", "discontinuity", "coloration", "loudness")  # in the network's order
NISQA_DEFINITIONS = {
    NISQA: "NISQA v2.0 (nisqa.tar), at {rate} Hz without resampling",
    NISQA_TTS: "NISQA-TTS v1.0 (nisqa_tts.tar), at {rate} Hz without resampling",
}
KIND = {NISQA: "NISQA_DIM", NISQA_TTS: "NISQA"}  # of network, as the files say
SMALLEST_AMPLITUDE, RANGE_DB = 1e-4, 80.0
LOWEST_RATE_HZ, HIGHEST_RATE_HZ = 4000, 204_800  # above, a window of 20 ms exceeds the FFT
CHANNELS = (16, 32, 64, 64, 64, 64)  # of the TTS variant's convolutions
POOLED = (0, 1, 3)  # convolutions that a pooling follows
CODE, HIDDEN = 20, 128  # numbers a segment, units of the LSTM in one direction
AT_ONCE = 512  # segments

Wave = NDArray[np.float32]


class Nisqa:
    """One network with its weights, loaded once for many files.

    Args:
        metric: `NISQA` or `NISQA_TTS`.
        path: its weights, as NISQA's authors publish them.

    Raises:
        WeightsError: no such file, it holds something else, or torchmetrics or librosa is missing.
    """

    def __init__(self, metric: str, path: str | PathLike[str]) -> None:
        """Load the network; see the class."""
        held = external.read(path)
        args = held.get("args") if isinstance(held, Mapping) else None
        if not isinstance(args, Mapping) or args.get("model") != KIND[metric]:
            got = args.get("model") if isinstance(args, Mapping) else "nothing that says"
            raise WeightsError(
                f"weights {path}: they are for a network {got}; expected {KIND[metric]}; "
                f"run {fetched.COMMAND} {metric}"
            )
        self.metric = metric
        self.args: Mapping[str, Any] = args
        self.network = (_library_network if metric == NISQA else Naturalness)(args)
        state = external.read_state(path, at=("model_state_dict",))
        if metric == NISQA_TTS:
            state = {_own_name(name): value for name, value in state.items()}
        external.require_tensors(path, state, self.network.state_dict())
        self.network.load_state_dict(state)
        self.network.eval().requires_grad_(False)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the scores."""
        more = [f"{NISQA}_{one}" for one in DIMENSIONS] if self.metric == NISQA else []
        return (self.metric, *more)

    @torch.inference_mode()
    def __call__(self, wave: Wave, rate_hz: int) -> dict[str, float]:
        """Rate a voice, from 1 (bad) to 5 (excellent).

        Args:
            wave: (N,) in [-1, 1], mono.
            rate_hz: of the wave; scores of different rates are not comparable.

        Returns:
            Scores by name; overall quality first.

        Raises:
            DataError: too short, too long, not finite, or no sensible rate.
        """
        mel = nisqa_mel(wave, rate_hz, self.args)  # (48, T)
        length, hop = self.args["ms_seg_length"], self.args["ms_seg_hop_length"]
        most, shortest = self.args["ms_max_segments"], length * self.args["ms_hop_length"]
        count = -(-(mel.shape[1] - length + 1) // hop)
        if not 1 <= count <= most:
            longest = most * hop * self.args["ms_hop_length"]
            raise DataError(
                f"{self.metric}: a voice of {len(wave) / rate_hz:.2f} s; expected {shortest:.2f} "
                f"to {longest:.0f} s; cut it or leave it out"
            )
        segments = mel.unfold(1, length, hop).transpose(0, 1)  # (count, 48, 15)
        if self.metric == NISQA:
            found = self.network(segments[None], torch.tensor([count]))[0]
        else:
            found = self.network(segments)
        return dict(zip(self.names, map(float, found), strict=True))


def load_nisqa(metric: str = NISQA, *, cache: str | PathLike[str] | None = None) -> Nisqa:
    """Load a network with its checked weights.

    Args:
        metric: `NISQA` or `NISQA_TTS`.
        cache: the folder of weights; see `fetched.root`.

    Raises:
        WeightsError: the weights are not here (the message says how to get them), or see `Nisqa`.
    """
    return Nisqa(metric, fetched.path(metric, cache))


def nisqa_mel(wave: Wave, rate_hz: int, args: Mapping[str, Any]) -> Tensor:
    """Return the mel-spectrogram (48, T) in dB that the networks see.

    Args:
        wave: (N,) in [-1, 1].
        rate_hz: of the wave.
        args: settings of a file of weights.

    Raises:
        DataError: the wave has another shape, is empty or not finite, or the rate is senseless.
    """
    x = np.asarray(wave, dtype=np.float32)
    right = type(rate_hz) is int and LOWEST_RATE_HZ <= rate_hz <= HIGHEST_RATE_HZ
    if x.ndim != 1 or not x.size or not right or not np.isfinite(x).all():
        raise DataError(
            f"NISQA: got samples of shape {x.shape} at {rate_hz!r} Hz, "
            f"{int((~np.isfinite(x)).sum())} of them not finite; expected (N,) finite ones, mono, "
            f"at {LOWEST_RATE_HZ} to {HIGHEST_RATE_HZ} Hz (int); read the file with load_waveform"
        )
    librosa = _librosa()
    with warnings.catch_warnings():  # of bands above half the rate, and of very short clips
        warnings.filterwarnings("ignore", message="Empty filters detected")
        warnings.filterwarnings("ignore", message="n_fft=.*is too large")
        mel = librosa.feature.melspectrogram(
            y=x,
            sr=rate_hz,
            n_fft=args["ms_n_fft"],
            hop_length=int(rate_hz * args["ms_hop_length"]),
            win_length=int(rate_hz * args["ms_win_length"]),
            window="hann",
            center=True,
            pad_mode="reflect",
            power=1.0,
            n_mels=args["ms_n_mels"],
            fmin=0.0,
            fmax=args["ms_fmax"],
            htk=False,
            norm="slaney",
        )
    level = librosa.amplitude_to_db(mel, ref=1.0, amin=SMALLEST_AMPLITUDE, top_db=RANGE_DB)
    return torch.from_numpy(np.asarray(level, dtype=np.float32))


class Naturalness(nn.Module):
    """The TTS variant's network.

    Args:
        args: settings of its file of weights.
    """

    def __init__(self, args: Mapping[str, Any]) -> None:
        """Build it with random weights."""
        super().__init__()
        wide = zip((1, *CHANNELS), CHANNELS, strict=False)
        self.convolutions = nn.ModuleList(nn.Conv2d(a, b, 3, padding=1) for a, b in wide)
        self.norms = nn.ModuleList(nn.BatchNorm2d(width) for width in CHANNELS)
        rows, columns = args["ms_n_mels"] // 8, (args["ms_seg_length"] + 1) // 8
        self.code = nn.Linear(CHANNELS[-1] * rows * columns, CODE)
        self.lstm = nn.LSTM(CODE, HIDDEN, batch_first=True, bidirectional=True)
        self.rating = nn.Linear(2 * HIDDEN, 1)

    def forward(self, segments: Tensor) -> Tensor:
        """Rate the segments (n, 48, 15) of one voice: (1,)."""
        codes = torch.cat([self._encode(part) for part in torch.split(segments, AT_ONCE)])
        steps = self.lstm(codes[None])[0][0]  # (n, 256): forward, then backward
        rating: Tensor = self.rating(torch.cat([steps[-1, :HIDDEN], steps[0, HIDDEN:]]))
        return rating

    def _encode(self, segments: Tensor) -> Tensor:
        x = segments[:, None]  # (n, 1, 48, 15)
        for number, (layer, norm) in enumerate(zip(self.convolutions, self.norms, strict=True)):
            x = functional.relu(norm(layer(x)))
            if number in POOLED:
                x = functional.max_pool2d(x, 2, padding=(0, int(number == 0)))
        code: Tensor = self.code(x.flatten(1))  # (n, 64, 6, 2) before
        return code


def _own_name(name: str) -> str:
    """Rename a tensor of the TTS variant's file to that of `Naturalness`."""
    layer = re.fullmatch(r"cnn\.model\.(conv|bn)(\d)\.(\w+)", name)
    if layer:
        kind = "convolutions" if layer[1] == "conv" else "norms"
        return f"{kind}.{int(layer[2]) - 1}.{layer[3]}"
    for theirs, ours in (
        ("cnn.model.fc_out", "code"),
        ("time_dependency.model.lstm", "lstm"),
        ("pool.model.linear", "rating"),
    ):
        if name.startswith(f"{theirs}."):
            return ours + name.removeprefix(theirs)
    return name


def _library_network(args: Mapping[str, Any]) -> nn.Module:
    """Build torchmetrics' network of v2.0; its public function would fetch weights itself."""
    try:
        from torchmetrics.functional.audio.nisqa import _NISQADIM
    except ImportError as error:
        raise WeightsError(
            f"NISQA needs torchmetrics 1.9 ({error}); run: "
            'pip install "xfavot[metrics]", in the versions of constraints.txt'
        ) from error
    network: nn.Module = _NISQADIM(dict(args))
    return network


def _librosa() -> Any:
    try:
        import librosa
    except ImportError as error:
        raise WeightsError(
            f'NISQA needs librosa, which is not installed ({error}); run: pip install "xfavot'
            '[metrics,data]"'
        ) from error
    return librosa


# Speech recognisers for word error rates; each has its own name in the tables


RATE_HZ = 16_000  # of both
ESPNET, SPHINX_GRID = "espnet_librispeech", "pocketsphinx_grid"
NAMES = (ESPNET, SPHINX_GRID)
SLOTS = (COMMANDS, COLOURS, PREPOSITIONS, tuple(f"{one}." for one in LETTERS), DIGITS, ADVERBS)
SHORTEST_SAMPLES = 8_000  # half a second; ESPnet refuses clips of a few frames
BEAM, CTC_WEIGHT, LM_WEIGHT = 10, 0.5, 0.6  # of ESPnet's search; the paper tells none


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
            lm=None,
            samprate=float(RATE_HZ),
            loglevel="FATAL",
        )
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
                    **given,
                    device="cpu",
                    beam_size=BEAM,
                    ctc_weight=CTC_WEIGHT,
                    lm_weight=LM_WEIGHT if "lm_file" in given else 0.0,
                )

    def hear(self, wave: Wave, rate_hz: int) -> str:
        """See :class:`Recogniser`."""
        x = at_16_khz(wave, rate_hz)
        with _quiet():
            best = self._network(np.pad(x, (0, max(0, SHORTEST_SAMPLES - len(x)))))
        return str(best[0][0] or "") if best else ""


def load_recogniser(name: str, *, cache: str | PathLike[str] | None = None) -> Recogniser:
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
        external.read(path)
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


# SpkSim: does a converted voice sound like the person whom it should?


METRIC = "speaker_similarity"
DEFINITION = "SpkSim: cosine of Resemblyzer's utterance embeddings"
MOST_UTTERANCES = 10

Vector = NDArray[np.float64]


class SpeakerEncoder:
    """Resemblyzer with its checked weights, loaded once for many voices; on the CPU.

    Args:
        cache: the folder of weights; see `fetched.root`. The package brings its own.

    Raises:
        WeightsError: the package is not installed, or its weights are others than published.
    """

    def __init__(self, *, cache: str | PathLike[str] | None = None) -> None:
        """Load the network; see the class."""
        path = fetched.path("resemblyzer", cache)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of its own imports
                from resemblyzer import (  # type: ignore[import-untyped]
                    VoiceEncoder,
                    preprocess_wav,
                )
        except ImportError as error:
            raise WeightsError(
                f'Resemblyzer is not installed ({error}); run: pip install "xfavot[metrics]"'
            ) from error
        self._prepare: Any = preprocess_wav
        self._network: Any = VoiceEncoder("cpu", verbose=False, weights_fpath=path)

    def embed(self, wave: Wave, rate_hz: int) -> Vector:
        """Embed one utterance.

        Args:
            wave: (N,) in [-1, 1], mono.
            rate_hz: of the wave, any.

        Returns:
            (256,) of unit length.

        Raises:
            DataError: not finite or of another shape, or no voice is left once silence is cut.
        """
        x = np.asarray(wave, dtype=np.float32)
        if x.ndim != 1 or not np.isfinite(x).all() or not np.abs(x).max(initial=0.0) > 0:
            raise DataError(
                f"speaker similarity: got samples of shape {x.shape}, "
                f"{int((~np.isfinite(x)).sum())} not finite, peak {np.abs(x).max(initial=0.0):g}; "
                "expected one mono voice, finite and not silent; read it with load_waveform"
            )
        voice = self._prepare(x, source_sr=rate_hz)
        if not len(voice):
            raise DataError(
                f"speaker similarity: Resemblyzer finds no voice in {len(x) / rate_hz:.2f} s of "
                "sound; expected speech; listen to the file"
            )
        return np.asarray(self._network.embed_utterance(voice), dtype=np.float64)


def similarity(output: Vector, *utterances: Vector) -> float:
    """Mean cosine of an output with utterances of one speaker, (256,) each, of unit length."""
    return float(np.mean([output @ one for one in utterances]))


# Does a converted voice keep the melody of its source, and does it have the sex of its reference?


CORRELATION, VOICING, GENDER = "f0_correlation", "voicing_agreement", "gender_agreement_f0"
F0_DEFINITIONS = {
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


# Does a converted voice still say what its source says? Read by the content network that ships


CHARACTERS, LIKENESS = "content_character_error", "content_likeness"
CONTENT_DEFINITIONS = {
    CHARACTERS: "errors over characters of the transcripts, heard by the content network for mini",
    LIKENESS: "cosine of the content network's features of source and output; for mini",
}
SLACK_STEPS = 2  # of 25 ms, of very short clips


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


KEPT_WAVES = 4  # files; source, reference and output of a row, and one more
CONTENT = "content"

T = TypeVar("T")


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
        if recogniser not in NAMES:
            load_recogniser(recogniser)
        self.recogniser = recogniser
        self.missing: dict[str, str] = {}
        self._tools: dict[str, Any] = {}
        ways: dict[str, Callable[[], Any]] = {
            NISQA: lambda: load_nisqa(NISQA, cache=cache),
            NISQA_TTS: lambda: load_nisqa(NISQA_TTS, cache=cache),
            METRIC: lambda: SpeakerEncoder(cache=cache),
            recogniser: lambda: load_recogniser(recogniser, cache=cache),
            CONTENT: ContentReader,
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

    def embed(self, file: Path) -> Vector:
        """Resemblyzer's embedding of a file."""
        name = METRIC
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

    def _embedding(self, wave: Wave) -> Vector:
        encoder: SpeakerEncoder = self._tools[METRIC]
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


# Word and character error rate of what a recogniser hears in converted voices


WER, CER = "word_error", "character_error"
WORD_DEFINITIONS = {
    WER: "errors over words of the transcripts (jiwer), NFKC, lower case, no punctuation",
    CER: "errors over characters of the transcripts, spaces included (jiwer), same normalisation",
}
APOSTROPHES = dict.fromkeys(map(ord, "‘’ʼ`´"), "'")  # noqa: RUF001 - they are what is replaced
_OTHER = re.compile(r"[^\w']|_")
_LOOSE = re.compile(r"(?<!\w)'+|'+(?!\w)")


@dataclass(frozen=True, slots=True)
class Errors:
    """Errors of one clip.

    Args:
        word_errors, words: insertions, deletions and substitutions; words of the transcript.
        character_errors, characters: the same of characters.
    """

    word_errors: int
    words: int
    character_errors: int
    characters: int


def normalise(text: str) -> str:
    """Bring a transcript or a hypothesis to plain lower-case words; see the module.

    >>> normalise("It's Well-known -- 'Please', call Stella.")
    "it's well known please call stella"
    """
    plain = unicodedata.normalize("NFKC", text.translate(APOSTROPHES)).translate(APOSTROPHES)
    words = _OTHER.sub(" ", plain.lower())
    return " ".join(_LOOSE.sub(" ", words).split())


def count_errors(said: str, heard: str) -> Errors:
    """Count the errors of one clip.

    Args:
        said: the transcript, as it was written.
        heard: the hypothesis, "" for nothing.

    Raises:
        DataError: no word is left of the transcript, or jiwer is not installed.
    """
    jiwer = _jiwer()
    truth, guess = normalise(said), normalise(heard)
    if not truth:
        raise DataError(
            f"word error: the transcript {said!r} has no word; expected what is said; leave it "
            "empty only where it is not known"
        )
    words, characters = jiwer.process_words(truth, guess), jiwer.process_characters(truth, guess)
    return Errors(_sum(words), len(truth.split()), _sum(characters), len(truth))


def _sum(found: Any) -> int:
    return int(found.substitutions + found.deletions + found.insertions)


def _jiwer() -> Any:
    try:
        import jiwer
    except ImportError as error:
        raise DataError(
            f'word error needs jiwer, which is not installed ({error}); run: pip install "xfavot'
            '[metrics]"'
        ) from error
    return jiwer
