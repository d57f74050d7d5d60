"""The converter: a checkpoint, ready to convert faces and voices of any size and length.

Paper: Sec. 3.1, the tasks guided by a face or a voice, and the two guided by a latent code. Pauses
are left as they are and never reach the networks (A42), whose instance norm would let them set the
level of the words. Long speech is converted in windows of 12 s that are cross-faded, so that memory
does not grow with the length; its style is the mean over the windows, weighted by their length.
"""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from os import PathLike, fspath
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from xfavot import __version__
from xfavot.audio.io import save_waveform
from xfavot.audio.mel import LOUDEST, log_mel, require_contract
from xfavot.audio.vocoder import DEFAULT, Vocoder
from xfavot.audio.vocoder import vocoder as vocoder_of
from xfavot.convert import inputs
from xfavot.data.store import GENDERS
from xfavot.errors import ConfigError
from xfavot.image.io import save_image, to_bytes, to_float
from xfavot.models import device_of
from xfavot.models.f0 import F0Network, track
from xfavot.training.checkpoint import LoadedModel, load_model

# Speech of any length, in pieces of a length that the networks accept


SHORTEST_FRAMES = 80  # frames, 1 s: what the style encoder covers
FRAME_MULTIPLE = 4  # G_A halves the frames twice
WINDOW_FRAMES = 960  # 12 s
OVERLAP_FRAMES = 96  # 1.2 s shared by two windows
PAUSE_DB = 35.0  # a frame this far below the loudest within PAUSE_REACH, for PAUSE_FRAMES, pauses
PAUSE_FRAMES = 12  # 0.15 s
PAUSE_REACH = 480  # frames, 6 s
PAUSE_EDGE = 2  # frames of a pause beside speech that are converted with it
QUIETEST = -3.0  # deviations below a band's mean: quieter than what speech data holds


def speech_frames(log_mel: Tensor) -> Tensor:
    """Tell speech from pauses, digital silence and background noise alike (A42).

    A pause is at least 0.15 s of frames that lie 35 dB below the loudest within 6 s.

    Args:
        log_mel: (80, T) log10 magnitudes.

    Returns:
        (T,) bool, true where somebody may be speaking, at least somewhere.
    """
    power = (10.0 ** (2.0 * log_mel.double())).sum(dim=0)[None]  # (1, T)
    smooth = functional.avg_pool1d(power, 5, 1, 2)  # a click is no speech
    loudest = functional.max_pool1d(smooth, 2 * PAUSE_REACH + 1, 1, PAUSE_REACH)
    quiet = (power < loudest * 10.0 ** (-PAUSE_DB / 10.0)).double()
    edge, reach = PAUSE_FRAMES - 1, 2 * PAUSE_EDGE + 1
    starts = -functional.max_pool1d(-functional.pad(quiet, (edge, edge), value=1.0), edge + 1, 1)
    pauses = functional.pad(functional.max_pool1d(starts, edge + 1, 1), [PAUSE_EDGE] * 2, value=1.0)
    return functional.max_pool1d(1.0 - pauses, reach, 1)[0] > 0


def pad_frames(x: Tensor) -> Tensor:
    """Reflect a spectrogram at its end until the networks accept its length.

    Args:
        x: (..., T), T >= 1.

    Returns:
        (..., T') with T' at least 80 and a multiple of 4; the first T frames are those of `x`.
    """
    frames = x.shape[-1]
    length = max(SHORTEST_FRAMES, -(-frames // FRAME_MULTIPLE) * FRAME_MULTIPLE)
    at = torch.arange(length, device=x.device)
    if frames > 1:  # 0 1 2 1 0 1 2 ...: reflected again and again where the clip is very short
        at = at % (2 * (frames - 1))
        at = torch.where(at < frames, at, 2 * (frames - 1) - at)
    else:
        at = torch.zeros_like(at)
    return x[..., at]


def spans(frames: int) -> Iterator[tuple[int, int]]:
    """Yield the frames [start, stop) of every window of a padded clip.

    A clip of up to 12 s is one window. The windows of a longer one have 12 s each and share at
    least 1.2 s with the next.

    Args:
        frames: a multiple of 4.
    """
    start = 0
    while frames - start > WINDOW_FRAMES:
        yield start, start + WINDOW_FRAMES
        start += WINDOW_FRAMES - OVERLAP_FRAMES
    yield max(0, min(start, frames - WINDOW_FRAMES)), frames


def mean(mel: Tensor, fn: Callable[[Tensor], Tensor]) -> Tensor:
    """Average a vector over the windows of a clip, weighted by their length.

    Args:
        mel: (1, 1, 80, T), padded.
        fn: maps a window (1, 1, 80, t) to (1, S).

    Returns:
        (1, S).
    """
    parts = [(stop - start, fn(mel[..., start:stop])) for start, stop in spans(mel.shape[-1])]
    weights = torch.tensor([float(n) for n, _ in parts], device=mel.device)
    stacked = torch.stack([value for _, value in parts])  # (windows, 1, S)
    return (stacked * weights[:, None, None]).sum(dim=0) / weights.sum()


def joined(mel: Tensor, fn: Callable[[Tensor], Tensor]) -> Tensor:
    """Map a clip window by window, cross-fading what two windows share.

    Args:
        mel: (1, 1, 80, T), padded.
        fn: maps a window (1, 1, 80, t) to its own shape.

    Returns:
        (1, 1, 80, T).
    """
    out = torch.zeros_like(mel)
    done = 0
    for start, stop in spans(mel.shape[-1]):
        part, shared = fn(mel[..., start:stop]), done - start
        if shared > 0:
            fade = torch.linspace(0.0, 1.0, shared, device=mel.device)
            out[..., start:done] = out[..., start:done] * (1.0 - fade) + part[..., :shared] * fade
        out[..., done:stop] = part[..., shared:]
        done = stop
    return out


def pitch(network: F0Network, mel: Tensor) -> NDArray[np.float32]:
    """Track the pitch of a clip.

    Args:
        network: the F0 network, in evaluation mode.
        mel: (1, 1, 80, T), standardised and padded.

    Returns:
        (T,) float32, Hz, 0 where the network says unvoiced.
    """
    parts, done = [], 0
    for start, stop in spans(mel.shape[-1]):
        parts.append(track(network(mel[..., start:stop]))[0, done - start :])
        done = stop
    return np.asarray(torch.cat(parts).cpu().numpy(), dtype=np.float32)


# What a conversion gives: the task, the style that guided it, the converted face or voice


class Task(Enum):
    """A conversion, named guidance to output: A voice (audio), I face (image), Z latent code."""

    I2I = "i2i"
    A2I = "a2i"
    Z2I = "z2i"
    A2A = "a2a"
    I2A = "i2a"
    Z2A = "z2a"

    @property
    def guidance(self) -> str:
        """What guides the conversion: "voice", "face" or "latent"."""
        return {"a": "voice", "i": "face", "z": "latent"}[self.value[0]]

    @property
    def output(self) -> str:
        """What is converted: "voice" or "face"."""
        return {"a": "voice", "i": "face"}[self.value[2]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Style:
    """A style vector and where it came from.

    Args:
        vector: (1, S), unitless.
        guidance: "face", "voice" or "latent".
        gender: "f", "m", or "" where a speaker's head of the mapping network gave the style.
        gender_from: "given", "estimated by C_A" or "speaker".
        reference: file or description of the reference.
        seed: seed of the latent code; ``None`` for a face or a voice.
        speaker: speaker whose head was used, or "".
    """

    vector: Tensor
    guidance: str
    gender: str
    gender_from: str
    reference: str
    seed: int | None = None
    speaker: str = ""

    def task(self, output: str) -> Task:
        """Return the task of this style for an output ("face" or "voice")."""
        first = {"voice": "a", "face": "i", "latent": "z"}[self.guidance]
        return Task(f"{first}2{'a' if output == 'voice' else 'i'}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvertedFace:
    """A converted face.

    Args:
        task: the task done.
        image: (H, W, 3) uint8.
        source: (H, W, 3) uint8, the source as the networks saw it.
        style: the style that guided the conversion.
        provenance: texts written into the file.
    """

    task: Task
    image: NDArray[np.uint8]
    source: NDArray[np.uint8]
    style: Style
    provenance: Mapping[str, str] = field(default_factory=dict)

    def save(self, path: str | PathLike[str]) -> Path:
        """Write a PNG whose text chunks hold the provenance.

        Args:
            path: a name that ends in ``.png``.

        Returns:
            The path written.

        Raises:
            ConfigError: another ending.
        """
        target = _with_suffix(path, ".png")
        save_image(target, self.image, metadata=dict(self.provenance))
        return target


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvertedVoice:
    """A converted voice.

    Args:
        task: the task done.
        waveform: (N,) float32 at 24 kHz, N as the source's.
        log_mel: (80, T) float32, log10 magnitude, T = N // 300 + 1.
        f0: (T,) float32, Hz, by the checkpoint's own F0 network, 0 where unvoiced.
        source_log_mel, source_f0: the same of the source.
        style: the style that guided the conversion.
        provenance: texts written into the file.
    """

    task: Task
    waveform: NDArray[np.float32]
    log_mel: NDArray[np.float32]
    f0: NDArray[np.float32]
    source_log_mel: NDArray[np.float32]
    source_f0: NDArray[np.float32]
    style: Style
    provenance: Mapping[str, str] = field(default_factory=dict)

    def save(self, path: str | PathLike[str]) -> Path:
        """Write a 16-bit WAV whose comment holds the provenance.

        Args:
            path: a name that ends in ``.wav``.

        Returns:
            The path written.

        Raises:
            ConfigError: another ending.
        """
        target = _with_suffix(path, ".wav")
        save_waveform(target, self.waveform, metadata=dict(self.provenance))
        return target


def _with_suffix(path: str | PathLike[str], suffix: str) -> Path:
    target = Path(fspath(path))
    if target.suffix.lower() != suffix:
        raise ConfigError(
            f"the file to write is {target.name!r}; expected a name that ends in {suffix}"
        )
    return target


def _described(given: Any) -> str:
    """Say what a source or a reference was: the name of a file, or the type and size of data."""
    if isinstance(given, str | PathLike):
        return Path(fspath(given)).name
    shape: Any = getattr(given, "shape", getattr(given, "size", ()))
    return f"{type(given).__name__} of {' x '.join(str(n) for n in shape)}"


# Styles: from a face, a voice or a latent code to the vector that guides a conversion


class StyleMaker:
    """The networks of a checkpoint and the styles that they make of references.

    Args:
        model: what :func:`xfavot.training.checkpoint.load_model` returns.
        name: name of the checkpoint, written into every result.
        device: where the networks run.
    """

    def __init__(self, model: LoadedModel, *, name: str, device: str) -> None:
        """Move the networks to the device; see the class."""
        self.model, self.name = model, name
        self.device = device_of(device)
        self.nets = model.nets.to(self.device).eval()
        self.f0_net = model.f0.to(self.device).eval()
        self.standardiser = model.standardiser.to(self.device)
        self.config = model.config
        self.speakers = model.trained_speakers()
        self.step = model.step

    @property
    def image_size(self) -> int:
        """Pixels of a side of the faces that the networks see."""
        return self.config.model.image_size

    def has(self, kind: str) -> bool:
        """Whether the checkpoint was trained on "face" or "voice" (an image-only row has one)."""
        return kind in self.model.trained_outputs()

    def trained_genders(self, guidance: str) -> tuple[str, ...]:
        """The genders that guidance by "face", "voice" or "latent" has learnt, of "f" and "m"."""
        return self.model.trained_genders(guidance)

    def _require(self, kind: str) -> None:
        if not self.has(kind):
            raise ConfigError(
                f"checkpoint {self.name} was trained on {self.model.trained_outputs()}; expected "
                f"one trained on {kind}s too; use configuration xfavot and data with {kind}s"
            )

    def _gender(self, guidance: str, given: str | None) -> str:
        """Check a gender that was given; left out it is "", or the only one that was trained."""
        known = self.trained_genders(guidance)
        if given and given not in GENDERS:
            raise ConfigError(f'gender is {given!r}; expected "f", "m", or None')
        if not known or (given and given not in known):
            learnt = f"only {known[0]!r}" if known else "none"
            raise ConfigError(
                f"gender is {given!r}, but checkpoint {self.name} has learnt {learnt} for guidance "
                f"by a {guidance}: no other gender was in its training so far; train it on data "
                "of both genders, or longer"
            )
        return given or (known[0] if len(known) == 1 else "")

    def style_of_face(
        self, face: Any, *, gender: str | None = None, aligned: bool = False
    ) -> Style:
        """Encode the style of a reference face by E_I.

        Args:
            face: a path, a PIL image or uint8 pixels (H, W, 3).
            gender: "f" or "m", the encoder's head; needed where both were trained, since no
                network of the paper reads it from a face.
            aligned: the picture is already a square crop as in CelebA-HQ.

        Raises:
            ConfigError: no gender.
            DataError: not an image, or no face in it.
        """
        self._require("face")
        head = self._gender("face", gender)
        if not head:
            raise ConfigError(
                'gender is missing for a face reference; expected "f" or "m", because E_I has one '
                "head a gender and no network of the model reads the gender from a face; pass "
                'gender="f" or gender="m"'
            )
        size = self.image_size
        pixels = inputs.read_face(face, name="reference face", size=size, aligned=aligned)
        with torch.inference_mode():
            x = _batch(pixels, self.device)
            vector = self.nets.E_I(x, self._codes(GENDERS.index(head)))  # (1, S)
        return Style(
            vector=vector,
            guidance="face",
            gender=head,
            gender_from="given" if gender else "the only one trained",
            reference=_described(face),
        )

    def style_of_voice(self, voice: Any, *, gender: str | None = None) -> Style:
        """Encode the style of a reference voice by E_A, over the whole clip.

        Args:
            voice: a path of a sound or video file, or samples (N,) at 24 kHz.
            gender: "f" or "m", the encoder's head; left out, C_A's gender group estimates it
                where both were trained.

        Raises:
            ConfigError: the gender is neither, was not trained, or cannot be estimated.
            DataError: not speech.
        """
        self._require("voice")
        head = self._gender("voice", gender)
        if not head and not self.model.estimates_gender():
            raise ConfigError(
                f"gender is missing for a voice reference; C_A of checkpoint {self.name} has not "
                'learnt to tell genders yet; pass gender="f" or gender="m"'
            )
        origin = "given" if gender else "the only one trained" if head else "estimated by C_A"
        *_, mel = self._mel(inputs.read_voice(voice, name="reference voice"))
        with torch.inference_mode():
            head = head or GENDERS[int(mean(mel, lambda x: self.nets.C_A(x)[0]).argmax())]
            code = self._codes(GENDERS.index(head))
            vector = mean(mel, lambda x: self.nets.E_A(x, code))  # (1, S)
        return Style(
            vector=vector,
            guidance="voice",
            gender=head,
            gender_from=origin,
            reference=_described(voice),
        )

    def style_of_latent(
        self, seed: int, *, gender: str | None = None, speaker: str | None = None
    ) -> Style:
        """Draw a style by M from the latent code of a seed.

        Args:
            seed: seed of the code z, drawn on the CPU, so that every device gives the same.
            gender: "f" or "m", the head of M; or
            speaker: one of :attr:`speakers`, whose head is taken instead.

        Raises:
            ConfigError: neither or both of gender and speaker, an unknown speaker, or no seed.
        """
        if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
            raise ConfigError(f"latent is {seed!r}; expected a whole number, 0 or more, as seed")
        if bool(gender) == bool(speaker):
            raise ConfigError(
                f"latent guidance got gender {gender!r} and speaker {speaker!r}; expected exactly "
                'one of them: gender="f", gender="m", or one of the speakers of the checkpoint'
            )
        if speaker:
            if speaker not in self.speakers:
                known = reprlib.repr(list(self.speakers))
                raise ConfigError(
                    f"speaker is {speaker!r}; expected one of the {len(self.speakers)} speakers "
                    f"whose heads of M have been trained: {known}"
                )
            code = len(GENDERS) + self.model.speakers.index(speaker)
        else:
            code = GENDERS.index(self._gender("latent", gender))
        rng = torch.Generator().manual_seed(seed)
        z = torch.randn((1, self.config.model.latent_dim), generator=rng)  # (1, L)
        with torch.inference_mode():
            vector = self.nets.M(z.to(self.device), self._codes(code))  # (1, S)
        return Style(
            vector=vector,
            guidance="latent",
            gender=gender or "",
            gender_from="speaker" if speaker else "given",
            reference=f"latent code of seed {seed}",
            seed=seed,
            speaker=speaker or "",
        )

    def style(
        self,
        *,
        face_reference: Any = None,
        voice_reference: Any = None,
        latent: int | None = None,
        style: Style | None = None,
        gender: str | None = None,
        speaker: str | None = None,
        reference_aligned: bool = False,
    ) -> Style:
        """Return the style of whichever guidance is given; see :meth:`convert_face`."""
        given = [g for g in (face_reference, voice_reference, latent, style) if g is not None]
        if len(given) != 1:
            raise ConfigError(
                f"{len(given)} guidances were given; expected exactly one of face_reference=, "
                "voice_reference=, latent= (a seed) and style=; name one"
            )
        if speaker and latent is None:
            raise ConfigError(
                f"speaker is {speaker!r} without a latent code; expected it with latent= only, "
                "since the encoders have heads of genders alone"
            )
        if style is not None:
            return style
        if face_reference is not None:
            return self.style_of_face(face_reference, gender=gender, aligned=reference_aligned)
        if voice_reference is not None:
            return self.style_of_voice(voice_reference, gender=gender)
        assert latent is not None
        return self.style_of_latent(latent, gender=gender, speaker=speaker)

    def _codes(self, code: int) -> Tensor:
        return torch.tensor([code], device=self.device)

    def _mel(self, wave: NDArray[np.float32]) -> tuple[Tensor, Tensor, Tensor]:
        """Return the log10 mel (80, T), its speech frames (T,), and what the networks see of them.

        The last is standardised, without pauses, padded: (1, 1, 80, T').
        """
        mel = log_mel(torch.from_numpy(wave)).to(self.device)
        speech = speech_frames(mel)
        x = self.standardiser.standardise(mel[:, speech]).clamp(min=QUIETEST)
        return mel, speech, pad_frames(x)[None, None]


def _batch(pixels: NDArray[np.uint8], device: torch.device) -> Tensor:
    """Turn (H, W, 3) uint8 into (1, 3, H, W) in [-1, 1]."""
    return to_float(torch.from_numpy(np.array(pixels)).permute(2, 0, 1)[None]).to(device)


class Converter(StyleMaker):
    """Converts faces and voices with the EMA networks of one checkpoint.

    Args:
        model: what :func:`xfavot.training.checkpoint.load_model` returns.
        name: name of the checkpoint, written into every result.
        device: where the networks run.
        vocoder: turns converted spectrograms into sound: a vocoder, or what
            :func:`xfavot.audio.vocoder.vocoder` makes one of, on the CPU.

    Raises:
        ConfigError: no vocoder has this name.
        WeightsError: the vocoder's weights are missing or damaged.
        DataError: the vocoder or the checkpoint was made for another mel-spectrogram.
    """

    def __init__(
        self,
        model: LoadedModel,
        *,
        name: str = "",
        device: str = "cpu",
        vocoder: str | PathLike[str] | Vocoder = DEFAULT,
    ) -> None:
        """Move the networks to the device; see the class."""
        super().__init__(model, name=name, device=device)
        if isinstance(vocoder, str | PathLike):
            vocoder = vocoder_of(vocoder)
        self.vocoder: Vocoder = vocoder
        require_contract(self.vocoder.contract, where=f"vocoder {self.vocoder.name}")

    @classmethod
    def load(
        cls,
        checkpoint: str | PathLike[str],
        *,
        device: str = "cpu",
        vocoder: str | PathLike[str] | Vocoder = DEFAULT,
    ) -> Converter:
        """Load the networks of a checkpoint.

        Args:
            checkpoint: the folder of a checkpoint; of a run, whose newest is taken; or of runs,
                whose newest is taken.
            device: where the networks run, as torch names it; "auto" is a GPU if there is one.
            vocoder: as in the class: "source_filter", "griffin_lim", another name, or weights.

        Raises:
            CheckpointError: there is no checkpoint, or it cannot be used.
            ConfigError: there is no such device or vocoder.
            WeightsError: the vocoder's weights are missing or damaged.
        """
        model = load_model(Path(checkpoint))
        return cls(model, name=model.title, device=device, vocoder=vocoder)

    def convert_face(self, face: Any, *, aligned: bool = False, **guidance: Any) -> ConvertedFace:
        """Convert a face: pose and expression stay, the identity follows the guidance.

        Args:
            face: a path, a PIL image or uint8 pixels (H, W, 3), of any size.
            aligned: the face is a square crop as in CelebA-HQ already; else it is found first.
            guidance: exactly one of `face_reference`, `voice_reference`, `latent` (a seed) and
                `style`; with `gender` ("f" or "m", the reference's), `speaker` (for `latent`) and
                `reference_aligned` (for `face_reference`).

        Raises:
            ConfigError: not exactly one guidance, or one that cannot be used.
            DataError: a picture or a clip cannot be used.
        """
        self._require("face")
        style = self.style(**guidance)
        source = inputs.read_face(face, name="source face", size=self.image_size, aligned=aligned)
        with torch.inference_mode():
            made = to_bytes(self.nets.G_I(_batch(source, self.device), style.vector)[0].cpu())
        task = style.task("face")
        return ConvertedFace(
            task=task,
            image=np.ascontiguousarray(made.permute(1, 2, 0).numpy()),
            source=source,
            style=style,
            provenance=self._provenance(face, style, task),
        )

    def convert_voice(self, voice: Any, **guidance: Any) -> ConvertedVoice:
        """Convert a voice: the words and their melody stay, the speaker follows the guidance.

        Args:
            voice: a path of a sound or video file, or samples (N,) at 24 kHz, of 0.1 s or more.
            guidance: as for :meth:`convert_face`.

        Returns:
            A voice of exactly as many samples as the source has.

        Raises:
            ConfigError: not exactly one guidance, or one that cannot be used.
            DataError: a picture or a clip cannot be used.
        """
        self._require("voice")
        style = self.style(**guidance)
        wave = inputs.read_voice(voice, name="source voice")
        source, speech, x = self._mel(wave)
        with torch.inference_mode():
            made = joined(
                x, lambda part: self.nets.G_A(part, style.vector, self.f0_net.features(part))
            )
            f0, source_f0 = (self._pitch(one, speech) for one in (made, x))
            result = source.clone()
            result[:, speech] = self._restore(made, int(speech.sum()))
        task = style.task("voice")
        provenance = self._provenance(voice, style, task)
        return ConvertedVoice(
            task=task,
            waveform=self.vocoder(result.cpu(), length=len(wave)),
            style=style,
            log_mel=result.cpu().numpy(),
            f0=f0,
            source_log_mel=source.cpu().numpy(),
            source_f0=source_f0,
            provenance=provenance | {"vocoder": self.vocoder.name},
        )

    def analyse_voice(self, voice: Any) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return the log10 mel (80, T) of a voice and its pitch (T,) in Hz, 0 where unvoiced.

        Raises:
            DataError: not speech.
        """
        mel, speech, x = self._mel(inputs.read_voice(voice, name="voice"))
        with torch.inference_mode():
            return mel.cpu().numpy(), self._pitch(x, speech)

    def _restore(self, x: Tensor, frames: int) -> Tensor:
        """Return (80, T) log10 magnitudes, from the contract's floor up to the loudest there is."""
        floor = float(np.log10(self.vocoder.contract.floor))
        return self.standardiser.restore(x[0, 0, :, :frames]).clamp(floor, LOUDEST)

    def _pitch(self, x: Tensor, speech: Tensor) -> NDArray[np.float32]:
        """Track the pitch (T,) of speech without its pauses, where it is 0."""
        hz = np.zeros(len(speech), dtype=np.float32)
        hz[speech.cpu().numpy()] = pitch(self.f0_net, x)[: int(speech.sum())]
        return hz

    def _provenance(self, source: Any, style: Style, task: Task) -> dict[str, str]:
        """Texts that a converted file carries; empty ones are left out."""
        texts = {
            "software": f"xfavot {__version__}",
            "synthetic": "yes: converted by XFaVoT (arXiv 2302.13838), not a recording",
            "task": f"{task.value} (guidance to output)",
            "checkpoint": self.name,
            "step": str(self.step),
            "source": _described(source),
            "reference": style.reference,
            "gender": f"{style.gender} ({style.gender_from})" if style.gender else "",
            "speaker": style.speaker,
            "seed": "" if style.seed is None else str(style.seed),
        }
        return {key: text for key, text in texts.items() if text}
