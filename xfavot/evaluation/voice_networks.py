"""The networks that voices are measured by: quality, speaker, words, content.

What is not installed or has no weights raises a `WeightsError` that says how to get it; nothing is
fetched or replaced.
"""

from __future__ import annotations

import contextlib
import io
import os
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from itertools import pairwise
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from xfavot import weights
from xfavot.audio.mel import MEL, Standardiser, log_mel
from xfavot.errors import DataError, WeightsError
from xfavot.evaluation import external
from xfavot.mini.speak import SLOTS
from xfavot.training.pretrain import load_network
from xfavot.training.speech import decode
from xfavot.weights import fetched

Cache = str | PathLike[str] | None

# NISQA (Mittag et al. 2021): how good a voice sounds, read from the sound alone


NISQA, NISQA_TTS = "nisqa", "nisqa_tts"
SHIFTS_MS = (0, 10, 20, 30)  # left out at the beginning, since a score depends on it
MEAN, SPREAD = "_over_shifts", "_spread_of_shifts"  # end the names of what says so
DIMENSIONS = ("noisiness", "discontinuity", "coloration", "loudness")  # in the network's order
NISQA_DEFINITIONS = {
    metric + ending: f"{file}, at {MEL.sample_rate} Hz without resampling{said}"
    for metric, file in (
        (NISQA, "NISQA v2.0 (nisqa.tar)"),
        (NISQA_TTS, "NISQA-TTS v1.0 (nisqa_tts.tar)"),
    )
    for ending, said in (
        ("", ""),
        (MEAN, "; mean over the clip without its first 0, 10, 20 and 30 ms"),
        (SPREAD, "; standard deviation over the clip without its first 0, 10, 20 and 30 ms"),
    )
}
KIND = {NISQA: "NISQA_DIM", NISQA_TTS: "NISQA"}  # of network, as the files say
SMALLEST_AMPLITUDE, RANGE_DB = 1e-4, 80.0
LOWEST_RATE_HZ, HIGHEST_RATE_HZ = 4000, 204_800  # above, a window of 20 ms exceeds the FFT
CHANNELS = (16, 32, 64, 64, 64, 64)  # of the TTS variant's convolutions
POOLED = (1, 2, 4)  # convolutions that a pooling follows
CODE, HIDDEN = 20, 128  # numbers a segment, units of the LSTM in one direction
AT_ONCE = 512  # segments

Wave = NDArray[np.float32]


_folder: dict[str, str] = {}


class Nisqa:
    """One network with its weights, loaded once for many files.

    torchmetrics has the network of v2.0 and reads its weights from a folder, one a process; the
    network of the TTS variant is :class:`Naturalness`.

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
        self.library = external.package("torchmetrics.functional.audio.nisqa")
        if metric == NISQA:
            folder = str(Path(path).parent)
            if _folder.setdefault(NISQA, folder) != folder:
                raise WeightsError(
                    f"weights {path}: torchmetrics has NISQA's from {_folder[NISQA]} already; "
                    "expected one folder of weights a process; restart it to take another"
                )
            self.library.NISQA_DIR = folder
        else:
            self.network = Naturalness(args)
            expected = self.network.state_dict()
            state = external.read_state(path, at=("model_state_dict",), expected=expected)
            self.network.load_state_dict(state)
            self.network.eval().requires_grad_(False)

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
        x = np.asarray(wave, dtype=np.float32)
        right = type(rate_hz) is int and LOWEST_RATE_HZ <= rate_hz <= HIGHEST_RATE_HZ
        if x.ndim != 1 or not x.size or not right or not np.isfinite(x).all():
            raise DataError(
                f"NISQA: got samples of shape {x.shape} at {rate_hz!r} Hz, "
                f"{int((~np.isfinite(x)).sum())} of them not finite; expected (N,) finite ones, "
                f"mono, at {LOWEST_RATE_HZ} to {HIGHEST_RATE_HZ} Hz (int); read the file with "
                "load_waveform"
            )
        frame = self.args["ms_hop_length"]
        length, hop = self.args["ms_seg_length"], self.args["ms_seg_hop_length"]
        frames = 1 + len(x) // int(rate_hz * frame)
        segments = -(-(frames - length + 1) // hop)
        if not 1 <= segments <= self.args["ms_max_segments"]:
            longest = self.args["ms_max_segments"] * hop * frame
            raise DataError(
                f"{self.metric}: a voice of {len(x) / rate_hz:.2f} s; expected "
                f"{length * frame:.2f} to {longest:.0f} s; cut it or leave it out"
            )
        with warnings.catch_warnings():  # of bands above half the rate, and of very short clips
            warnings.filterwarnings("ignore", message="Empty filters detected")
            warnings.filterwarnings("ignore", message="n_fft=.*is too large")
            if self.metric == NISQA_TTS:
                mel = nisqa_mel(x, rate_hz, self.args)  # (48, T)
                found = self.network(mel.unfold(1, length, hop).transpose(0, 1))
            else:
                rate = self.library.non_intrusive_speech_quality_assessment
                found = rate(torch.from_numpy(x), rate_hz)
        more = [f"{NISQA}_{one}" for one in DIMENSIONS] if self.metric == NISQA else []
        return dict(zip((self.metric, *more), map(float, found), strict=True))


def load_nisqa(metric: str = NISQA, *, cache: Cache = None) -> Nisqa:
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
    """
    librosa = external.package("librosa")
    mel = librosa.feature.melspectrogram(
        y=wave,
        sr=rate_hz,
        n_fft=args["ms_n_fft"],
        hop_length=int(rate_hz * args["ms_hop_length"]),
        win_length=int(rate_hz * args["ms_win_length"]),
        pad_mode="reflect",
        power=1.0,
        n_mels=args["ms_n_mels"],
        fmax=args["ms_fmax"],
    )
    level = librosa.amplitude_to_db(mel, ref=1.0, amin=SMALLEST_AMPLITUDE, top_db=RANGE_DB)
    return torch.from_numpy(np.asarray(level, dtype=np.float32))


class Naturalness(nn.Module):
    """The TTS variant's network; its layers bear the names of its file of weights.

    Args:
        args: settings of its file of weights.
    """

    def __init__(self, args: Mapping[str, Any]) -> None:
        """Build it with random weights."""
        super().__init__()
        rows, columns = args["ms_n_mels"] // 8, (args["ms_seg_length"] + 1) // 8
        layers = nn.ModuleDict({"fc_out": nn.Linear(CHANNELS[-1] * rows * columns, CODE)})
        for number, (inputs, outputs) in enumerate(pairwise((1, *CHANNELS)), 1):
            layers[f"conv{number}"] = nn.Conv2d(inputs, outputs, 3, padding=1)
            layers[f"bn{number}"] = nn.BatchNorm2d(outputs)
        lstm = nn.LSTM(CODE, HIDDEN, batch_first=True, bidirectional=True)
        self.cnn = nn.ModuleDict({"model": layers})
        self.time_dependency = nn.ModuleDict({"model": nn.ModuleDict({"lstm": lstm})})
        rating = nn.ModuleDict({"linear": nn.Linear(2 * HIDDEN, 1)})
        self.pool = nn.ModuleDict({"model": rating})

    def forward(self, segments: Tensor) -> Tensor:
        """Rate the segments (n, 48, 15) of one voice: (1,)."""
        layers = self.get_submodule("cnn.model")
        codes = torch.cat([self._encode(layers, x) for x in torch.split(segments, AT_ONCE)])
        steps = self.get_submodule("time_dependency.model.lstm")(codes[None])[0][0]  # (n, 256)
        ends = torch.cat([steps[-1, :HIDDEN], steps[0, HIDDEN:]])  # forward, then backward
        rating: Tensor = self.get_submodule("pool.model.linear")(ends)
        return rating

    def _encode(self, layers: nn.Module, segments: Tensor) -> Tensor:
        x = segments[:, None]  # (n, 1, 48, 15)
        for number in range(1, len(CHANNELS) + 1):
            convolved = layers.get_submodule(f"conv{number}")(x)
            x = functional.relu(layers.get_submodule(f"bn{number}")(convolved))
            if number in POOLED:
                x = functional.max_pool2d(x, 2, padding=(0, int(number == 1)))
        code: Tensor = layers.get_submodule("fc_out")(x.flatten(1))  # (n, 64, 6, 2) before
        return code


# Speech recognisers for word error rates; each has its own name in the tables


RATE_HZ = 16_000  # of both
ESPNET, SPHINX_GRID = "espnet_librispeech", "pocketsphinx_grid"
NAMES = (ESPNET, SPHINX_GRID)
SHORTEST_SAMPLES = 8_000  # half a second; ESPnet refuses clips of a few frames
BEAM, CTC_WEIGHT, LM_WEIGHT = 10, 0.5, 0.6  # of ESPnet's search; the paper tells none


class PocketsphinxGrid:
    """pocketsphinx, US English, default settings, told GRID's grammar.

    Raises:
        WeightsError: it is not installed; it brings its model.
    """

    name = SPHINX_GRID

    def __init__(self) -> None:
        """Load the model."""
        pocketsphinx = external.package("pocketsphinx")
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
        """Return the words of one utterance (N,) in [-1, 1]; "" if none was heard."""
        pcm = np.round(at_16_khz(wave, rate_hz) * 32767).astype("<i2").tobytes()
        self._decoder.reinit_feat()  # else the mean of the clips before stays in the front end
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
            inference = external.package("espnet2.bin.asr_inference", extra="asr")
            with tempfile.TemporaryDirectory() as place:
                given = {
                    key: _located(path, Path(folder), Path(place)) for key, path in files.items()
                }
                self._network: Any = inference.Speech2Text(
                    **given,
                    device="cpu",
                    beam_size=BEAM,
                    ctc_weight=CTC_WEIGHT,
                    lm_weight=LM_WEIGHT if "lm_file" in given else 0.0,
                )

    def hear(self, wave: Wave, rate_hz: int) -> str:
        """Return the words of one utterance (N,) in [-1, 1]; "" if none was heard."""
        x = at_16_khz(wave, rate_hz)
        with _quiet():
            best = self._network(np.pad(x, (0, max(0, SHORTEST_SAMPLES - len(x)))))
        return str(best[0][0] or "") if best else ""


Recogniser = PocketsphinxGrid | Espnet


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
    spelt = [[f"{word}." if len(word) == 1 else word for word in slot] for slot in SLOTS]
    body = " ".join(f"({' | '.join(words)})" for words in spelt)
    return f"#JSGF V1.0;\ngrammar grid;\npublic <sentence> = {body};\n"


def in_grid_grammar(transcript: str) -> bool:
    """Whether a transcript is one of GRID's sentences: six words, each of its place."""
    words = transcript.lower().split()
    return len(words) == len(SLOTS) and all(
        word in set(slot) for word, slot in zip(words, SLOTS, strict=True)
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
def _quiet() -> Iterator[None]:
    """Keep ESPnet's own messages (missing nltk data, deprecations) out of a notebook."""
    with (
        contextlib.redirect_stderr(io.StringIO()),
        contextlib.redirect_stdout(io.StringIO()),
        warnings.catch_warnings(action="ignore"),
    ):
        yield


# The speaker encoder of SpkSim


Vector = NDArray[np.float64]
SPEAKER_DBFS = -30.0  # Resemblyzer raises what is quieter and leaves what is louder; it hears level


def at_speaker_level(wave: Wave) -> Wave:
    """Bring a voice (N,) to :data:`SPEAKER_DBFS`, so that no speaker embedding depends on level."""
    level = float(np.sqrt(np.mean(np.square(wave, dtype=np.float64))))
    return np.asarray(wave * (10.0 ** (SPEAKER_DBFS / 20.0) / level), dtype=np.float32)


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
        with warnings.catch_warnings(action="ignore"):  # of its own imports
            library = external.package("resemblyzer")
        self._prepare: Any = library.preprocess_wav
        self._network: Any = library.VoiceEncoder("cpu", verbose=False, weights_fpath=path)

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
        voice = self._prepare(at_speaker_level(x), source_sr=rate_hz)  # and without its pauses
        if not np.abs(voice).max(initial=0.0) > 0:
            raise DataError(
                f"speaker similarity: Resemblyzer finds no voice in {len(x) / rate_hz:.2f} s of "
                "sound; expected speech; listen to the file"
            )
        embedded = self._network.embed_utterance(at_speaker_level(voice))
        return np.asarray(embedded, dtype=np.float64)


# The content network that ships


class ContentReader:
    """The content network that comes with the package, on the CPU.

    Raises:
        WeightsError: none comes with this installation.
    """

    def __init__(self) -> None:
        """Load the network; see the class."""
        path = weights.shipped("content")
        kept = load_network(path)
        self._network: Any = kept.network
        said = kept.record["standardiser"]
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
