"""The networks that voices are measured by: quality, speaker, words, melody, content.

What is not installed or has no weights raises a `WeightsError` that says how to get it; nothing is
fetched or replaced. What a network says is a function of the clip alone. Waves are (N,) in [-1, 1],
mono, at 24 kHz (A70).
"""

from __future__ import annotations

import contextlib
import io
import json
import re
import reprlib
import warnings
from collections.abc import Callable, Iterator, Mapping
from importlib.util import module_from_spec
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
from xfavot.audio.f0 import HIGHEST_HZ, LOWEST_HZ
from xfavot.audio.mel import MEL, Standardiser, log_mel
from xfavot.errors import DataError, WeightsError, refusing
from xfavot.mini.speak import SLOTS
from xfavot.training.pretrain import load_network
from xfavot.training.speech import decode
from xfavot.weights import external, fetched

Wave = NDArray[np.float32]

# NISQA (Mittag et al. 2021): how good a voice sounds, read from the sound alone


NISQA, NISQA_TTS = "nisqa", "nisqa_tts"
DIMENSIONS = ("noisiness", "discontinuity", "coloration", "loudness")  # in the network's order
KIND = {NISQA: "NISQA_DIM", NISQA_TTS: "NISQA"}  # of network, as the files say
SMALLEST_AMPLITUDE, RANGE_DB = 1e-4, 80.0
CHANNELS = (16, 32, 64, 64, 64, 64)  # of the TTS variant's convolutions
POOLED = (1, 2, 4)  # convolutions that a pooling follows
CODE, HIDDEN = 20, 128  # numbers a segment, units of the LSTM in one direction
AT_ONCE = 512  # segments


class Nisqa:
    """One network with its weights, loaded once for many files.

    torchmetrics has the network of v2.0 and reads its weights from one folder a module; a copy of
    the module of its own keeps several folders of one process apart. The network of the TTS variant
    is :class:`Naturalness`.

    Args:
        metric: `NISQA` or `NISQA_TTS`.
        path: its weights, as NISQA's authors publish them; by default those that were fetched.

    Raises:
        WeightsError: no such file, it holds something else, or torchmetrics or librosa is missing.
    """

    def __init__(self, metric: str, path: str | PathLike[str] | None = None) -> None:
        """Load the network; see the class."""
        path = fetched.path(metric) if path is None else path
        held = external.read(path)
        args = held.get("args") if isinstance(held, Mapping) else None
        if not isinstance(args, Mapping) or args.get("model") != KIND[metric]:
            raise WeightsError(
                f"weights {path}: their settings are {reprlib.repr(args)}; expected those of "
                f"{KIND[metric]}; run {fetched.COMMAND} {metric}"
            )
        self.metric = metric
        self.args: Mapping[str, Any] = args
        if metric == NISQA:
            spec = external.package("torchmetrics.functional.audio.nisqa").__spec__
            library: Any = module_from_spec(spec)
            spec.loader.exec_module(library)
            library.NISQA_DIR = str(Path(path).parent)
            self.library = library
        else:
            self.network = Naturalness(args)
            expected = self.network.state_dict()
            state = external.read_state(path, at=("model_state_dict",), expected=expected)
            self.network.load_state_dict(state)
            self.network.eval()

    @torch.inference_mode()
    def __call__(self, wave: Wave, rate_hz: int = MEL.sample_rate) -> dict[str, float]:
        """Rate a voice, from 1 (bad) to 5 (excellent).

        Args:
            wave: (N,).
            rate_hz: of the wave; scores of different rates are not comparable.

        Returns:
            Scores by name; overall quality first.

        Raises:
            DataError: too short, too long, not finite or of another shape.
        """
        x = np.asarray(wave, dtype=np.float32)
        hop, args = int(rate_hz * self.args["ms_hop_length"]), self.args
        spare = 1 + x.size // hop - args["ms_seg_length"]  # frames after the first segment
        most = args["ms_max_segments"] * args["ms_seg_hop_length"]
        if x.ndim != 1 or not 0 <= spare < most or not np.isfinite(x).all():
            raise DataError(
                f"{self.metric}: got samples of shape {x.shape}, {x.size / rate_hz:.2f} s, "
                f"{int((~np.isfinite(x)).sum())} of them not finite; expected (N,) finite ones of "
                f"{args['ms_seg_length'] * hop / rate_hz:.2f} to {most * hop / rate_hz:.0f} s; cut "
                "the voice or leave it out"
            )
        with warnings.catch_warnings():  # of bands above half the rate, and of very short clips
            warnings.filterwarnings("ignore", message="Empty filters detected")
            warnings.filterwarnings("ignore", message="n_fft=.*is too large")
            if self.metric == NISQA_TTS:
                mel = nisqa_mel(x, rate_hz, args)  # (48, T)
                segments = mel.unfold(1, args["ms_seg_length"], args["ms_seg_hop_length"])
                return {NISQA_TTS: float(self.network(segments.transpose(0, 1)))}
            rate = self.library.non_intrusive_speech_quality_assessment
            found = rate(torch.from_numpy(x), rate_hz).tolist()
        names = (NISQA, *(f"{NISQA}_{one}" for one in DIMENSIONS))
        return dict(zip(names, found, strict=True))


def nisqa_mel(wave: Wave, rate_hz: int, args: Mapping[str, Any]) -> Tensor:
    """Return the mel-spectrogram (48, T) in dB that the networks see.

    Args:
        wave: (N,).
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
        layers: dict[str, nn.Module] = {"fc_out": nn.Linear(CHANNELS[-1] * rows * columns, CODE)}
        for number, (inputs, outputs) in enumerate(pairwise((1, *CHANNELS)), 1):
            layers[f"conv{number}"] = nn.Conv2d(inputs, outputs, 3, padding=1)
            layers[f"bn{number}"] = nn.BatchNorm2d(outputs)
        lstm = nn.LSTM(CODE, HIDDEN, batch_first=True, bidirectional=True)
        self.cnn, self.time_dependency, self.pool = (
            nn.ModuleDict({"model": nn.ModuleDict(one)})
            for one in (layers, {"lstm": lstm}, {"linear": nn.Linear(2 * HIDDEN, 1)})
        )

    def forward(self, segments: Tensor) -> Tensor:
        """Rate the segments (n, 48, 15) of one voice: (1,)."""
        codes = torch.cat([self._encode(x) for x in torch.split(segments[:, None], AT_ONCE)])
        steps = self.get_submodule("time_dependency.model.lstm")(codes[None])[0][0]  # (n, 256)
        ends = torch.cat([steps[-1, :HIDDEN], steps[0, HIDDEN:]])  # forward, then backward
        rating: Tensor = self.get_submodule("pool.model.linear")(ends)
        return rating

    def _encode(self, x: Tensor) -> Tensor:
        layers: Any = self.cnn["model"]
        for number in range(1, len(CHANNELS) + 1):  # x: (n, 1, 48, 15) at first
            x = functional.relu(layers[f"bn{number}"](layers[f"conv{number}"](x)))
            if number in POOLED:
                x = functional.max_pool2d(x, 2, padding=(0, int(number == 1)))
        code: Tensor = layers["fc_out"](x.flatten(1))  # (n, 64, 6, 2) before
        return code


# Another rater of quality, free for any use, whose weights come with its package


DISTILL_MOS = "distill_mos"


class DistillMos:
    """Distill-MOS (Stahl and Gamper 2025): mean opinion of a voice, from 1 (bad) to 5.

    Raises:
        WeightsError: the package is not installed, or its weights are others than published.
    """

    def __init__(self) -> None:
        """Load the network; see the class."""
        path = fetched.path(DISTILL_MOS)
        network = external.package("distillmos.sqa").ConvTransformerSQAModel(load_weights=False)
        expected = network.state_dict()
        network.load_state_dict(external.read_state(path, at=("model",), expected=expected))
        self._network: Any = network.eval()

    @torch.inference_mode()
    def __call__(self, wave: Wave) -> dict[str, float]:
        """Rate a voice (N,) of any length."""
        return {DISTILL_MOS: float(self._network(torch.from_numpy(at_16_khz(wave))[None]))}


# Speech recognisers for word error rates; each has its own name in the tables


RATE_HZ = 16_000  # of all
ESPNET, SPHINX_GRID, WHISPER = "espnet_librispeech", "pocketsphinx_grid", "whisper_base"
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

    def hear(self, wave: Wave) -> str:
        """Return the words of one utterance (N,); "" if none was heard."""
        pcm = np.round(at_16_khz(wave) * 32767).astype("<i2").tobytes()
        self._decoder.reinit_feat()  # else the mean of the clips before stays in the front end
        self._decoder.start_utt()
        self._decoder.process_raw(pcm, full_utt=True)
        self._decoder.end_utt()
        found = self._decoder.hyp()
        return found.hypstr.replace(".", "").strip() if found is not None else ""


class Espnet:
    """A published model of ESPnet: its recogniser with its language model, joint CTC and attention.

    Args:
        folder: what its archive unpacks to, with `meta.yaml`; by default that which was fetched.

    Raises:
        WeightsError: ESPnet is not installed, or the folder is not such a model; a checkpoint that
            holds more than tensors is refused before ESPnet sees it.
    """

    name = ESPNET

    def __init__(self, folder: str | PathLike[str] | None = None) -> None:
        """Load the networks; see the class."""
        folder = Path(fetched.path(ESPNET) if folder is None else folder).resolve()
        files = espnet_files(folder)
        for file in files.values():
            if file.suffix not in {".yaml", ".yml"}:
                external.read(file)
        with _quiet(), contextlib.chdir(folder):  # which paths in its settings start from
            inference = external.package("espnet2.bin.asr_inference", extra="asr")
            self._network: Any = inference.Speech2Text(
                **{key: str(file) for key, file in files.items()},
                device="cpu",
                beam_size=BEAM,
                ctc_weight=CTC_WEIGHT,
                lm_weight=LM_WEIGHT if "lm_file" in files else 0.0,
            )

    def hear(self, wave: Wave) -> str:
        """Return the words of one utterance (N,); "" if none was heard."""
        x = at_16_khz(wave)
        with _quiet():
            best = self._network(np.pad(x, (0, max(0, SHORTEST_SAMPLES - len(x)))))
        return str(best[0][0] or "") if best else ""


class Whisper:
    """Whisper base (Radford et al. 2023), told that the speech is English; any words.

    Half precision becomes 8 bits on the CPU, the search keeps five hypotheses, and digits are
    spelled, as transcripts spell them. Of more than thirty seconds each half minute is heard alone.

    Raises:
        WeightsError: its weights are not here, or CTranslate2 is not installed.
    """

    name = WHISPER
    SAMPLES, N_FFT, HOP, MELS, BEAMS = 30 * RATE_HZ, 400, 160, 80, 5
    PROMPT = ("<|startoftranscript|>", "<|en|>", "<|transcribe|>", "<|notimestamps|>")
    SILENT = (220, 50257)  # a blank and the end: nothing begins with them
    DIGITS = "zero one two three four five six seven eight nine"

    def __init__(self) -> None:
        """Load the network; see the class."""
        model, vocabulary = fetched.path(WHISPER), fetched.path("whisper_vocabulary")
        library = external.package("ctranslate2", extra="whisper")
        self._pieces: list[str] = json.loads(vocabulary.read_text(encoding="utf-8"))
        files = {"model.bin": model.read_bytes(), "vocabulary.json": vocabulary.read_bytes()}
        settings = {"suppress_ids": [], "suppress_ids_begin": self.SILENT}
        files["config.json"] = json.dumps(settings).encode()
        quiet = {"compute_type": "int8", "inter_threads": 1, "intra_threads": 1}
        self._network: Any = library.models.Whisper("whisper", files=files, **quiet)
        self._array: Any = library.StorageView.from_array
        librosa = external.package("librosa")
        self._bands = librosa.filters.mel(sr=RATE_HZ, n_fft=self.N_FFT, n_mels=self.MELS)
        printable = [
            *range(33, 127),
            *range(161, 173),
            *range(174, 256),
        ]  # GPT-2's way to show bytes
        others = [byte for byte in range(256) if byte not in printable]
        shown = [*map(chr, printable), *(chr(256 + n) for n in range(len(others)))]
        self._bytes = dict(zip(shown, [*printable, *others], strict=True))

    def features(self, x: Wave) -> Wave:
        """Log mel (80, 3000) of half a minute at most, at 16 kHz, as Whisper was trained."""
        x = np.pad(x, (0, self.SAMPLES - len(x)))
        window = torch.hann_window(self.N_FFT)
        spectrum = torch.stft(
            torch.from_numpy(x), self.N_FFT, self.HOP, window=window, return_complex=True
        )
        power = spectrum[:, :-1].abs().square().numpy()
        level = np.log10(np.maximum(self._bands @ power, 1e-10))
        return np.asarray((np.maximum(level, level.max() - 8) + 4) / 4, dtype=np.float32)

    def hear(self, wave: Wave) -> str:
        """Return the words of one utterance (N,); "" if none was heard."""
        x, heard = at_16_khz(wave), []
        for start in range(0, len(x), self.SAMPLES):
            mel = self._array(
                np.ascontiguousarray(self.features(x[start : start + self.SAMPLES])[None])
            )
            (found,) = self._network.generate(mel, [list(self.PROMPT)], beam_size=self.BEAMS)
            pieces = (self._pieces[n] for n in found.sequences_ids[0])
            words = "".join(piece for piece in pieces if not re.fullmatch(r"<\|.*\|>", piece))
            raw = bytes(self._bytes[c] for c in words)
            heard.append(raw.decode("utf-8", errors="replace"))
        digits = self.DIGITS.split()
        return re.sub(r"[0-9]", lambda m: f" {digits[int(m[0])]} ", " ".join(heard)).strip()


Recogniser = PocketsphinxGrid | Espnet | Whisper
RECOGNISERS: dict[str, type[Recogniser]] = {
    one.name: one for one in (Espnet, PocketsphinxGrid, Whisper)
}


def grid_grammar() -> str:
    """Write GRID's grammar in JSGF; the dictionary spells letters with a full stop."""
    spelt = [[f"{word}." if len(word) == 1 else word for word in slot] for slot in SLOTS]
    body = " ".join(f"({' | '.join(words)})" for words in spelt)
    return f"#JSGF V1.0;\ngrammar grid;\npublic <sentence> = {body};\n"


def in_grid_grammar(transcript: str) -> bool:
    """Whether a transcript is one of GRID's sentences: six words, each of its place."""
    words = transcript.lower().split()
    return len(words) == len(SLOTS) and all(w in slot for w, slot in zip(words, SLOTS, strict=True))


def at_16_khz(wave: Wave) -> Wave:
    """Resample (N,) to 16 kHz; what overshoots full scale is cut."""
    from scipy.signal import resample_poly

    common = int(np.gcd(MEL.sample_rate, RATE_HZ))
    made = resample_poly(wave, RATE_HZ // common, MEL.sample_rate // common)
    return np.asarray(np.clip(made, -1.0, 1.0), dtype=np.float32)


def espnet_files(folder: Path) -> dict[str, Path]:
    """Read from `meta.yaml` which files ESPnet's `Speech2Text` is to be given, by argument.

    Raises:
        WeightsError: it is missing or not as ESPnet writes it, a file is missing or lies elsewhere.
    """
    meta = folder / "meta.yaml"
    advice = (
        "expected yaml_files and files as ESPnet writes them, asr_train_config and asr_model_file "
        f"among them, and what it names beside it; run {fetched.COMMAND} {ESPNET}"
    )
    faults = (OSError, ValueError, KeyError, TypeError, yaml.YAMLError)
    with refusing(faults, WeightsError, f"{meta} cannot be used", advice):
        held = yaml.safe_load(meta.read_text(encoding="utf-8"))
        named = {**held["yaml_files"], **held["files"]}
        files = {str(key): Path(folder, value).resolve() for key, value in named.items()}
        odd = [str(f) for f in files.values() if not f.is_file() or not f.is_relative_to(folder)]
        odd += sorted({"asr_train_config", "asr_model_file"} - files.keys())
        if odd:
            raise ValueError(f"{', '.join(odd)} missing or elsewhere")
    return files


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep ESPnet's own messages (missing nltk data, deprecations) out of a notebook."""
    nowhere, quiet = io.StringIO(), warnings.catch_warnings(action="ignore")
    with quiet, contextlib.redirect_stderr(nowhere), contextlib.redirect_stdout(nowhere):
        yield


# The speaker encoder of SpkSim


Vector = NDArray[np.float64]
SPEAKER_DBFS = -30.0  # Resemblyzer raises what is quieter and leaves what is louder; it hears level


class SpeakerEncoder:
    """Resemblyzer with its checked weights, which the package brings; on the CPU.

    Raises:
        WeightsError: the package is not installed, or its weights are others than published.
    """

    size = 256  # values of an embedding

    def __init__(self) -> None:
        """Load the network; see the class."""
        path = fetched.path("resemblyzer")
        with warnings.catch_warnings(action="ignore"):  # of its own imports
            library = external.package("resemblyzer")
        self._prepare: Any = library.preprocess_wav
        self._network: Any = library.VoiceEncoder("cpu", verbose=False, weights_fpath=path)

    def embed(self, wave: Wave) -> Vector:
        """Embed one utterance (N,): (256,) of unit length.

        Raises:
            DataError: not finite or of another shape, or no voice is left once silence is cut.
        """
        voice = self._prepare(_at_speaker_level(wave), source_sr=MEL.sample_rate)  # no pauses
        embedded = self._network.embed_utterance(_at_speaker_level(voice))
        return np.asarray(embedded, dtype=np.float64)


def _at_speaker_level(wave: Wave) -> Wave:
    """Bring a voice (N,) to :data:`SPEAKER_DBFS`, so that no speaker embedding depends on level."""
    level = float(np.sqrt(np.mean(np.square(wave, dtype=np.float64)))) if np.size(wave) else 0.0
    if np.ndim(wave) != 1 or not 0 < level < np.inf:
        raise DataError(
            f"speaker similarity: no voice in samples of shape {np.shape(wave)}, level {level:g}; "
            "expected speech, (N,) finite samples; listen to the file"
        )
    return np.asarray(wave * (10.0 ** (SPEAKER_DBFS / 20.0) / level), dtype=np.float32)


# A second opinion on melody, beside WORLD's


SWIFT = "swift_f0"
SURE = 0.5  # from which on a frame is voiced
PEAK, SILENT_PEAK = 0.5, 1e-3  # at which it hears a voice; below which it knows no silence


class SwiftF0:
    """swift-f0 (Nieradzik 2025): F0 by a small network on spectrograms, on one thread.

    It is sensitive to level: every voice is brought to the same peak.

    Raises:
        WeightsError: its weights are not here, or onnxruntime is not installed.
    """

    HOP = 256  # samples a frame, at 16 kHz

    def __init__(self) -> None:
        """Load the network; see the class."""
        path = fetched.path(SWIFT)
        runtime = external.package("onnxruntime", extra="voices")
        options = runtime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        cpu = ["CPUExecutionProvider"]
        self._session: Any = runtime.InferenceSession(str(path), options, providers=cpu)

    def __call__(self, wave: Wave) -> Wave:
        """Track a voice as :func:`xfavot.audio.f0.world_f0` does, between the same limits.

        Args:
            wave: (N,).

        Returns:
            (N // 300 + 1,) Hz, 0 where the nearest frame of the network is unvoiced.
        """
        x = np.pad(at_16_khz(wave), (0, self.HOP))  # one frame at least
        x *= PEAK / max(float(np.abs(x).max()), 1e-9)
        given = {"fmin": np.array(LOWEST_HZ, np.float32), "fmax": np.array(HIGHEST_HZ, np.float32)}
        hz, sure = self._session.run(["pitch", "confidence"], {"audio": x[None], **given})
        heard = np.abs(x[: sure.size * self.HOP].reshape(-1, self.HOP)).max(1) >= SILENT_PEAK
        voiced = (sure[0] >= SURE) & heard
        known = np.flatnonzero(voiced)
        if not known.size:
            return np.zeros(len(wave) // MEL.hop + 1, dtype=np.float32)
        step = MEL.hop * RATE_HZ / MEL.sample_rate / self.HOP
        places = np.arange(len(wave) // MEL.hop + 1) * step  # in frames of the network
        between = np.exp(np.interp(places, known, np.log(hz[0, known])))
        nearest = np.rint(places).astype(int).clip(0, len(voiced) - 1)
        return np.where(voiced[nearest], between, 0).astype(np.float32)


# The content network that ships


def content_reader() -> Callable[[Wave], tuple[str, Tensor]]:
    """Load the content network that comes with the package, on the CPU.

    Returns:
        What hears an utterance (N,): its characters, and the features (C, T / 2).

    Raises:
        WeightsError: none comes with this installation.
    """
    kept = load_network(weights.shipped("content"))
    network: Any = kept.network
    said = kept.record["standardiser"]
    standardiser = Standardiser(*(torch.tensor(said[name]) for name in ("mean", "std")))

    @torch.inference_mode()
    def read(wave: Wave) -> tuple[str, Tensor]:
        mel = log_mel(torch.from_numpy(np.ascontiguousarray(wave, dtype=np.float32)))
        x = standardiser.standardise(mel)[None, None]  # (1, 1, 80, T)
        return decode(network(x)[0]), network.features(x)[0]

    return read
