"""The converter: a checkpoint, ready to convert faces and voices of any size and length.

Paper: Sec. 3.1, the tasks guided by a face or a voice, and the two guided by a latent code. Pauses
are left as they are and never reach the networks (A42), whose instance norm would let them set the
level of the words. Long speech is converted in windows of 12 s that are cross-faded, so that memory
does not grow with the length; its style is the mean over the windows, weighted by their length.
"""

from __future__ import annotations

import math
import reprlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from xfavot import __version__
from xfavot.audio.io import load_waveform, save_waveform
from xfavot.audio.mel import LOUDEST, MEL, log_mel, require_contract
from xfavot.audio.vocoder import DEFAULT, Vocoder
from xfavot.audio.vocoder import vocoder as vocoder_of
from xfavot.data.store import GENDERS
from xfavot.errors import ConfigError, DataError
from xfavot.image.align import align_face, detect
from xfavot.image.io import load_image, save_image, to_bytes, to_float
from xfavot.models import device_of
from xfavot.models.f0 import level_of, track
from xfavot.parameters import SHIPPED
from xfavot.training.checkpoint import LoadedModel, load_model, pretrained, publish

# Whatever people hand in, brought into the form that the networks see: a face goes through
# detection and CelebA-HQ's alignment unless it is said to be aligned, a voice is mono at 24 kHz


ALIGNED_PIXELS = 128  # the size at which prepared stores hold faces
SMALLEST_FACE_PIXELS = 32
SHORTEST_SECONDS = 0.1


def read_face(face: Any, *, name: str, size: int, aligned: bool) -> NDArray[np.uint8]:
    """Read a face and bring it to the size of the model.

    Args:
        face: a file or its bytes, a PIL image, or pixels, as :func:`load_image` takes them.
        name: what the face is, for messages.
        size: pixels of a side of the result.
        aligned: the picture is already a square crop as in CelebA-HQ; no face is looked for.

    Returns:
        (size, size, 3) uint8.

    Raises:
        DataError: not an image, too small, not square although `aligned`, or no face in it.
    """
    pixels = load_image(face)
    height, width = pixels.shape[:2]
    shown = f"{name}: the image is {width}x{height} pixels"
    if min(height, width) < SMALLEST_FACE_PIXELS:
        raise DataError(f"{shown}; expected at least {SMALLEST_FACE_PIXELS} on each side")
    if aligned and height != width:
        raise DataError(
            f"{shown}, yet said to be aligned; expected a square crop as in CelebA-HQ; leave "
            "aligned=False to have the face found"
        )
    if not aligned:
        (landmarks,) = detect([pixels])
        if landmarks is None:
            raise DataError(
                f"{shown} and no face was found in it; expected one frontal face; crop closer to "
                "it, or pass aligned=True for an aligned crop"
            )
        pixels = align_face(pixels, landmarks, max(ALIGNED_PIXELS, size))
    return resize_face(pixels, size)


def resize_face(pixels: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """Resize a square picture: by area where the factor is whole, as batches do, else smoothly.

    Args:
        pixels: (H, H, 3) uint8.
        size: pixels of a side of the result.

    Returns:
        (size, size, 3) uint8.
    """
    side = pixels.shape[0]
    if side == size:
        return pixels
    x = torch.from_numpy(np.array(pixels)).permute(2, 0, 1)[None].float()  # (1, 3, H, H)
    if side % size == 0:
        x = functional.avg_pool2d(x, side // size)
    else:
        x = functional.interpolate(x, size=(size, size), mode="bilinear", antialias=True)
    x = x.round().clamp(0, 255).to(torch.uint8)
    return np.asarray(x[0].permute(1, 2, 0).contiguous().numpy())


def read_voice(voice: Any, *, name: str) -> NDArray[np.float32]:
    """Read speech as mono at 24 kHz.

    Args:
        voice: a sound or a film, its bytes, or samples (N,) at 24 kHz, as
            :func:`load_waveform` takes them.
        name: what the voice is, for messages.

    Returns:
        (N,) float32, N at least a tenth of a second.

    Raises:
        DataError: not a sound, shorter than 0.1 s, silent, not finite, or far too loud.
    """
    wave = load_waveform(voice)
    seconds = len(wave) / MEL.sample_rate
    if seconds < SHORTEST_SECONDS:
        raise DataError(
            f"{name}: the clip lasts {seconds:.3f} s; expected at least {SHORTEST_SECONDS} s"
        )
    return wave


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
    """Reflect a spectrogram at its end, often if it is short, until the networks accept its length.

    Args:
        x: (..., T), T >= 1.

    Returns:
        (..., T') with T' at least 80 and a multiple of 4; the first T frames are those of `x`.
    """
    frames = x.shape[-1]
    length = max(SHORTEST_FRAMES, -(-frames // FRAME_MULTIPLE) * FRAME_MULTIPLE)
    return x[..., np.pad(np.arange(frames), (0, length - frames), mode="reflect")]


def spans(frames: int) -> list[tuple[int, int]]:
    """Return the frames [start, stop) of every window of a padded clip.

    A clip of up to 12 s is one window. The windows of a longer one have 12 s each and share at
    least 1.2 s with the next.

    Args:
        frames: a multiple of 4.
    """
    last = max(0, frames - WINDOW_FRAMES)
    starts = [*range(0, last, WINDOW_FRAMES - OVERLAP_FRAMES), last]
    return [(start, min(start + WINDOW_FRAMES, frames)) for start in starts]


def mean(mel: Tensor, fn: Callable[[Tensor], Tensor]) -> Tensor:
    """Average a vector over the windows of a clip, weighted by their length.

    Args:
        mel: (1, 1, 80, T), padded.
        fn: maps a window (1, 1, 80, t) to (1, S).

    Returns:
        (1, S).
    """
    windows = spans(mel.shape[-1])
    weights = torch.tensor([float(stop - start) for start, stop in windows], device=mel.device)
    stacked = torch.stack([fn(mel[..., start:stop]) for start, stop in windows])  # (windows, 1, S)
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
        fade = torch.linspace(0.0, 1.0, max(0, shared), device=mel.device)
        out[..., start:done] = out[..., start:done] * (1.0 - fade) + part[..., :shared] * fade
        out[..., done:stop] = part[..., shared:]
        done = stop
    return out


# What a conversion gives: the task, the style that guided it, the converted face or voice


KINDS = {"a": "voice", "i": "face", "z": "latent"}


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
        return KINDS[self.value[0]]

    @property
    def output(self) -> str:
        """What is converted: "voice" or "face"."""
        return KINDS[self.value[2]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Style:
    """A style vector and where it came from.

    Args:
        vector: (1, S), unitless.
        guidance: "face", "voice" or "latent".
        gender: "f", "m", or "" where a speaker's head of the mapping network gave the style.
        provenance: texts for the files that it guides: `reference`, and where it applies `gender`
            with where that is from, `speaker` (whose head was used), `seed` (of the latent code).
    """

    vector: Tensor
    guidance: str
    gender: str
    provenance: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvertedFace:
    """A converted face.

    Args:
        image: (H, W, 3) uint8.
        provenance: texts written into the file.
    """

    image: NDArray[np.uint8]
    provenance: Mapping[str, str]

    def save(self, path: str | PathLike[str]) -> Path:
        """Write a PNG whose text chunks hold the provenance, and return its path.

        Raises:
            ConfigError: the path does not end in ``.png``.
        """
        target = _ending_in(".png", path)
        save_image(target, self.image, metadata=self.provenance)
        return target


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvertedVoice:
    """A converted voice.

    Args:
        waveform: (N,) float32 at 24 kHz, N as the source's.
        log_mel: (80, T) float32, log10 magnitude, T = N // 300 + 1.
        f0: (T,) float32, Hz, by the checkpoint's own F0 network, 0 where unvoiced.
        provenance: texts written into the file.
    """

    waveform: NDArray[np.float32]
    log_mel: NDArray[np.float32]
    f0: NDArray[np.float32]
    provenance: Mapping[str, str]

    def save(self, path: str | PathLike[str]) -> Path:
        """Write a 16-bit WAV whose comment holds the provenance, and return its path.

        Raises:
            ConfigError: the path does not end in ``.wav``.
        """
        target = _ending_in(".wav", path)
        save_waveform(target, self.waveform, metadata=self.provenance)
        return target


def _ending_in(suffix: str, path: str | PathLike[str]) -> Path:
    target = Path(path)
    if target.suffix.lower() != suffix:
        raise ConfigError(f"path is {target.name!r}; expected a name that ends in {suffix}")
    return target


def described(given: Any) -> str:
    """Say what a source or a reference was: the name of a file, or the type and size of data."""
    if isinstance(given, str | PathLike):
        return Path(given).name
    shape: Any = getattr(given, "shape", getattr(given, "size", ()))
    return f"{type(given).__name__} of {' x '.join(str(n) for n in shape)}"


class Converter:
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

    title = "XFaVoT (arXiv 2302.13838)"
    tasks: tuple[Task, ...] = tuple(Task)  # that the method has

    def __init__(
        self,
        model: LoadedModel,
        *,
        name: str = "",
        device: str = "cpu",
        vocoder: str | PathLike[str] | Vocoder = DEFAULT,
    ) -> None:
        """Move the networks to the device; see the class."""
        self.model, self.name, self.config, self.step = model, name, model.config, model.step
        self.device = device_of(device)
        self.nets = model.nets.to(self.device).eval()
        self.f0_net = model.f0.to(self.device).eval()
        self.standardiser = model.standardiser.to(self.device)
        self.speakers = model.trained_speakers()
        self.vocoder = vocoder if isinstance(vocoder, Vocoder) else vocoder_of(vocoder)
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
                whose newest is taken; or "shipped", the model that comes with the package.
            device: where the networks run, as torch names it; "auto" is a GPU if there is one.
            vocoder: as in the class: "source_filter", "griffin_lim", another name, or weights.

        Raises:
            CheckpointError: there is no checkpoint, or it cannot be used.
            ConfigError: there is no such device or vocoder.
            WeightsError: the vocoder's weights are missing or damaged.
        """
        path = pretrained() if str(checkpoint) == SHIPPED else Path(checkpoint)
        model = load_model(path)
        return cls(model, name=model.title, device=device, vocoder=vocoder)

    @classmethod
    def from_pretrained(
        cls, name: str | PathLike[str] = SHIPPED, *, revision: str = "", **how: Any
    ) -> Converter:
        """Load the model that ships, a folder, or "owner/name" of the Hugging Face hub.

        `name`, `revision` and errors are those of :func:`xfavot.training.checkpoint.pretrained`,
        `how` is as in :meth:`load`.
        """
        return cls.load(pretrained(Path(name), revision=revision), **how)

    def push_to_hub(self, repository: str, *, licence: str = "other", private: bool = True) -> str:
        """Send this model and a card to the hub; see :func:`xfavot.training.checkpoint.publish`."""
        return publish(self.model.path, repository, licence=licence, private=private)

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

    # Styles: from a face, a voice or a latent code to the vector that guides a conversion

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
        head, origin = self._head("face", gender)
        if not head:
            raise ConfigError(
                "gender is missing for a face reference, which E_I has a head for and no network "
                'of the model reads from a face; give it, "f" or "m"'
            )
        x = self._pixels(face, "reference face", aligned)
        with torch.inference_mode():
            vector = self.nets.E_I(x, self._code(GENDERS.index(head)))  # (1, S)
        texts = {"reference": described(face), "gender": f"{head} ({origin})"}
        return Style(vector=vector, guidance="face", gender=head, provenance=texts)

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
        head, origin = self._head("voice", gender)
        if not head and not self.model.estimates_gender():
            raise ConfigError(
                f"gender is missing for a voice reference; C_A of checkpoint {self.name} has not "
                'learnt to tell genders yet; give it, "f" or "m"'
            )
        *_, mel = self._mel(read_voice(voice, name="reference voice"))
        with torch.inference_mode():
            head = head or GENDERS[int(mean(mel, lambda x: self.nets.C_A(x)[0]).argmax())]
            code = self._code(GENDERS.index(head))
            vector = mean(mel, lambda x: self.nets.E_A(x, code))  # (1, S)
        texts = {"reference": described(voice), "gender": f"{head} ({origin})"}
        return Style(vector=vector, guidance="voice", gender=head, provenance=texts)

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
        texts = {"reference": f"latent code of seed {seed}", "seed": str(seed)}
        if not speaker:
            code = GENDERS.index(self._head("latent", gender)[0])
            texts["gender"] = f"{gender} (given)"
        elif speaker in self.speakers:
            code = len(GENDERS) + self.model.speakers.index(speaker)
            texts["speaker"] = speaker
        else:
            raise ConfigError(
                f"speaker is {speaker!r}; expected one of the {len(self.speakers)} speakers "
                f"whose heads of M have been trained: {reprlib.repr(list(self.speakers))}"
            )
        rng = torch.Generator().manual_seed(seed)
        z = torch.randn((1, self.config.model.latent_dim), generator=rng)  # (1, L)
        with torch.inference_mode():
            vector = self.nets.M(z.to(self.device), self._code(code))  # (1, S)
        return Style(vector=vector, guidance="latent", gender=gender or "", provenance=texts)

    def style(self, **guidance: Any) -> Style:
        """Return the style of whichever guidance is given; see :meth:`convert_face`."""
        given = {name: value for name, value in guidance.items() if value is not None}
        makers: dict[str, Callable[..., Style]] = {
            "face_reference": self.style_of_face,
            "voice_reference": self.style_of_voice,
            "latent": self.style_of_latent,
            "style": lambda style: style,
        }
        named = [name for name in makers if name in given]
        if len(named) != 1:
            raise ConfigError(
                f"{len(named)} guidances were given; expected exactly one of face_reference=, "
                "voice_reference=, latent= (a seed) and style=; name one"
            )
        if "reference_aligned" in given:
            given["aligned"] = given.pop("reference_aligned")
        return makers[named[0]](given.pop(named[0]), **given)

    def _head(self, guidance: str, given: str | None) -> tuple[str, str]:
        """Check a gender that was given; left out it is "", or the only one that was trained.

        Returns:
            The gender, and where it is from.
        """
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
        if given:
            return given, "given"
        return (known[0], "the only one trained") if len(known) == 1 else ("", "estimated by C_A")

    def _code(self, code: int) -> Tensor:
        return torch.tensor([code], device=self.device)

    def _pixels(self, face: Any, name: str, aligned: bool) -> Tensor:
        """Read a face as (1, 3, H, W) in [-1, 1]."""
        pixels = read_face(face, name=name, size=self.image_size, aligned=aligned)
        return to_float(torch.from_numpy(np.array(pixels)).permute(2, 0, 1)[None]).to(self.device)

    def _mel(self, wave: NDArray[np.float32]) -> tuple[Tensor, Tensor, Tensor]:
        """Return the log10 mel (80, T), its speech frames (T,), and what the networks see of them.

        The last is standardised, without pauses, padded: (1, 1, 80, T').
        """
        mel = log_mel(torch.from_numpy(wave)).to(self.device)
        speech = speech_frames(mel)
        x = self.standardiser.standardise(mel[:, speech]).clamp(min=QUIETEST)
        return mel, speech, pad_frames(x)[None, None]

    def _pitch(self, x: Tensor, speech: Tensor) -> NDArray[np.float32]:
        """Track the pitch (T,) in Hz of speech (1, 1, 80, T') without its pauses, where it is 0."""
        parts, done = [], 0
        for start, stop in spans(x.shape[-1]):
            parts.append(track(self.f0_net(x[..., start:stop]))[0, done - start :])
            done = stop
        hz = np.zeros(len(speech), dtype=np.float32)
        hz[speech.cpu().numpy()] = torch.cat(parts)[: int(speech.sum())].cpu().numpy()
        return hz

    # Conversions

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
        x = self._pixels(face, "source face", aligned)
        with torch.inference_mode():
            made = to_bytes(self.nets.G_I(x, style.vector)[0].cpu())
        return ConvertedFace(
            image=np.ascontiguousarray(made.permute(1, 2, 0).numpy()),
            provenance=self._provenance(face, style, "i"),
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
        wave = read_voice(voice, name="source voice")
        mel, speech, x = self._mel(wave)
        with torch.inference_mode():
            made = self.revoice(x, style.vector)
            f0 = self._pitch(made, speech)
            restored = self.standardiser.restore(made[0, 0, :, : int(speech.sum())])
            mel[:, speech] = restored.clamp(math.log10(MEL.floor), LOUDEST)
        return ConvertedVoice(
            waveform=self.vocoder(mel.cpu(), length=len(wave)),
            log_mel=mel.cpu().numpy(),
            f0=f0,
            provenance=self._provenance(voice, style, "a") | {"vocoder": self.vocoder.name},
        )

    def revoice(self, x: Tensor, style: Tensor) -> Tensor:
        """Convert a standardised mel without pauses (1, 1, 80, T') to a style (1, S)."""
        g, f0 = self.nets.G_A, self.f0_net
        whole = mean(x, lambda part: level_of(f0(part))[:, None])[0] if g.melody else None
        return joined(x, lambda part: g(part, style, *g.hear(f0, part, whole)))

    def analyse_voice(self, voice: Any) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return the log10 mel (80, T) of a voice and its pitch (T,) in Hz, 0 where unvoiced.

        Raises:
            DataError: not speech.
        """
        mel, speech, x = self._mel(read_voice(voice, name="voice"))
        with torch.inference_mode():
            return mel.cpu().numpy(), self._pitch(x, speech)

    def _provenance(self, source: Any, style: Style, output: str) -> dict[str, str]:
        """Texts that a converted file carries; `output`: "i" or "a" as in :class:`Task`."""
        (first,) = [letter for letter, kind in KINDS.items() if kind == style.guidance]
        return {
            "software": f"xfavot {__version__}",
            "synthetic": f"yes: converted by {self.title}, not a recording",
            "task": f"{first}2{output} (guidance to output)",
            "checkpoint": self.name,
            "step": str(self.step),
            "source": described(source),
            **style.provenance,
        }
