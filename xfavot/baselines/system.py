"""What a compared system is: networks with a loss, which convert when they are told a style.

A system that works on features of its own brings them (:class:`Features`); the others see the
package's mel-spectrogram. :class:`BaselineConverter` puts a trained one behind the interface of
:class:`xfavot.convert.Converter`: any length in windows, pauses left as they are, length kept.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from xfavot.audio import vocoder as vocoders
from xfavot.audio.io import Wave
from xfavot.audio.mel import Standardiser, log_mel
from xfavot.audio.source_filter import NAME, SourceFilterVocoder
from xfavot.config import RunConfig, TrainConfig
from xfavot.convert import converter as converting
from xfavot.convert.converter import ConvertedVoice, Converter, Style, Task, read_voice
from xfavot.data.batches import Batch, Batches
from xfavot.data.store import GENDERS, Store
from xfavot.errors import ConfigError
from xfavot.models import device_of
from xfavot.weights import shipped

Waveform = Callable[[int], Wave]  # of a row


class System(nn.Module, ABC):
    """A compared system; it is made of its settings and of a run, for sizes of faces and crops.

    Attributes:
        title: its name in tables.
        tasks: what it can do.
        settings_of: class of its settings.
        gradient_norm: at which gradients are clipped.
        judged_by: the term that is compared on the validation split.
        speaks: whether a model of the method makes its voices.
        features: None, or what it hears in place of the package's mel-spectrogram: a module as
            :class:`xfavot.baselines.adain_vc.PublishedMel` is one.
    """

    title: ClassVar[str]
    tasks: ClassVar[tuple[Task, ...]]
    settings_of: ClassVar[type[Any]]
    gradient_norm: ClassVar[float] = 5.0
    judged_by: ClassVar[str] = "rec"
    speaks: ClassVar[bool] = False

    def __init__(self, settings: Any, cfg: RunConfig) -> None:
        """Start without networks, and without features of its own."""
        super().__init__()
        self.settings, self.cfg, self.seed = settings, cfg, cfg.seed
        self.features: Any = None

    @staticmethod
    def usable(stores: Sequence[Store]) -> list[Store]:
        """The part of prepared stores that it learns from.

        Raises:
            DataError: there is none.
        """
        return list(stores)

    @abstractmethod
    def losses(self, batch: Batch, number: int, waveform: Waveform) -> dict[str, Tensor]:
        """Compute the terms of a step: "loss", which is minimised, the one it is judged by, others.

        Args:
            batch: on the device of the networks.
            number: of the step, from 1, for schedules and, with the run's seed, all that is random.
            waveform: gives the whole clip (N,) of a row of the batch.
        """

    @abstractmethod
    def embed(self, x: Tensor) -> Tensor:
        """Encode what guides, a voice (1, 1, M, T) or a face (1, 3, H, W), to a style (1, S)."""

    def whole(self, x: Tensor) -> Tensor:
        """Encode a voice (1, 1, M, T) of any length, window by window."""
        return converting.mean(x, self.embed)

    def convert(self, x: Tensor, style: Tensor) -> Tensor:
        """Convert features (1, 1, M, T), T at least 80, after a style (1, S)."""
        raise NotImplementedError(f"{self.title} converts by a converter of its own")

    def begin(self, batches: Batches, conversion: Converter | None, *, new: bool) -> None:
        """Look at the data before the first step; of a `new` run, measure what is kept.

        Args:
            batches: of training.
            conversion: the model of the method that speaks, where it has one.
            new: whether there is no checkpoint yet.
        """

    def settle(self, batches: Batches) -> None:
        """Bring what depends on the weights in order, before a checkpoint is written."""

    def schedule(self, optimizer: Optimizer, number: int) -> None:
        """Set the rates of a step, from 1; they stay as they are."""

    def optimizer(self, train: TrainConfig) -> Optimizer:
        """Make the optimiser."""
        how: dict[str, Any] = {"betas": (train.beta1, train.beta2), "amsgrad": True}
        how["weight_decay"] = train.weight_decay
        return torch.optim.Adam(self.parameters(), train.lr, **how)


class Trained(NamedTuple):
    """A checkpoint of a compared system, opened for conversion."""

    nets: System
    standardiser: Standardiser
    config: RunConfig
    step: int
    path: Path
    conversion: Any = None  # the model of the method that speaks

    @property
    def title(self) -> str:
        """What results call it: the run and the step."""
        return f"{self.config.name} at step {self.step}"


class BaselineConverter(Converter):
    """Converts voices with a compared system.

    Args:
        model: the checkpoint.
        name, device, vocoder: as for :class:`Converter`; a system with features of its own inverts
            these by Griffin-Lim's algorithm instead.
    """

    meets = False  # whether styles are places where faces and voices meet, so that both are encoded

    def __init__(self, model: Trained, *, name: str, device: str, vocoder: Any) -> None:
        """Move the networks to the device; see the class."""
        self.model: Any = model
        self.system, self.title, self.tasks = model.nets, model.nets.title, model.nets.tasks
        self.name, self.config, self.step = name, model.config, model.step
        self.device, self.speakers = device_of(device), ()
        self.system.to(self.device).eval()
        self.standardiser = model.standardiser.to(self.device)
        given = "griffin_lim" if self.system.features is not None else vocoder
        self.vocoder = given if isinstance(given, vocoders.Vocoder) else vocoders.vocoder(given)
        self.listener = SourceFilterVocoder.load(shipped(NAME), name=NAME)

    def has(self, kind: str) -> bool:
        """Whether the system takes or makes a "face" or "voice"."""
        return any(kind in (task.guidance, task.output) for task in self.tasks)

    def trained_genders(self, guidance: str) -> tuple[str, ...]:
        """Both genders, for no head depends on them, where "face" or "voice" guides the system."""
        return GENDERS if any(task.guidance == guidance for task in self.tasks) else ()

    def _require(self, kind: str, role: str = "output") -> None:
        either = self.meets and role == "guidance"
        if not either and not any(getattr(task, role) == kind for task in self.tasks):
            said = ", ".join(f"{task.guidance}-guided {task.output}s" for task in self.tasks)
            raise ConfigError(
                f"{self.title} ({self.name}) was asked for a {kind} as {role}; expected "
                f"{said}; take a checkpoint of XFaVoT for other tasks"
            )

    @torch.inference_mode()
    def style_of_voice(self, voice: Any, *, gender: str | None = None) -> Style:
        """Encode a reference voice; no head depends on a gender, which is only noted."""
        self._require("voice", "guidance")
        x = self._heard(read_voice(voice, name="reference voice"))
        return self._style("voice", voice, gender, self.system.whole(x))

    @torch.inference_mode()
    def style_of_face(
        self, face: Any, *, gender: str | None = None, aligned: bool = False
    ) -> Style:
        """Encode a reference face; no head depends on a gender, which is only noted."""
        self._require("face", "guidance")
        x = self._pixels(face, "reference face", aligned)
        return self._style("face", face, gender, self.system.embed(x))

    def _style(self, kind: str, given: Any, gender: str | None, vector: Tensor) -> Style:
        texts = {"reference": converting.described(given)}
        return Style(vector=vector, guidance=kind, gender=gender or "", provenance=texts)

    def _heard(self, wave: Wave) -> Tensor:
        """What the networks see of a voice: (1, 1, M, T)."""
        own = self.system.features
        if own is None:
            return self._mel(wave)[2]
        start, stop = own.trim(wave)
        return converting.pad_frames(own(wave[start:stop]))[None, None]

    @torch.inference_mode()
    def convert_voice(self, voice: Any, **guidance: Any) -> ConvertedVoice:
        """Convert a voice; see :meth:`Converter.convert_voice`.

        What features of a system's own trim at the ends is silent in the output.
        """
        own = self.system.features
        if own is None:
            return super().convert_voice(voice, **guidance)
        self._require("voice")
        style, wave = self.style(**guidance), read_voice(voice, name="source voice")
        start, stop = own.trim(wave)
        made = self.revoice(self._heard(wave), style.vector)[0, 0]
        sound = np.zeros_like(wave)
        sound[start:stop] = own.sound(made, stop - start)
        mel = log_mel(torch.from_numpy(sound))
        f0 = self.listener.find_f0(mel).numpy()
        texts = self._provenance(voice, style, "a") | {"vocoder": self.vocoder.name}
        return ConvertedVoice(waveform=sound, log_mel=mel.numpy(), f0=f0, provenance=texts)

    def revoice(self, x: Tensor, style: Tensor) -> Tensor:
        """Convert features (1, 1, M, T') to a style (1, S)."""
        return converting.joined(x, partial(self.system.convert, style=style))

    def _pitch(self, x: Tensor, speech: Tensor) -> Wave:
        """Track the pitch (T,) in Hz by the network of the vocoder that comes with the package."""
        frames = speech.cpu().numpy()
        hz = np.zeros(len(frames), dtype=np.float32)
        restored = self.standardiser.restore(x[0, 0, :, : int(frames.sum())])
        hz[frames] = self.listener.find_f0(restored.cpu()).numpy()
        return hz
