"""The converter: a checkpoint, ready to convert faces and voices of any size and length.

Paper: Sec. 3.1, the four guided tasks, and the two led by a latent code. Long speech is converted
in windows of 12 s that are cross-faded, so that memory does not grow with the length; its style is
the mean over the windows, weighted by their length.
"""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from xfavot.audio.mel import require_contract
from xfavot.audio.vocoder import DEFAULT, Vocoder
from xfavot.audio.vocoder import vocoder as vocoder_of
from xfavot.convert import inputs, windows
from xfavot.convert.results import ConvertedFace, ConvertedVoice, Style, Task, provenance
from xfavot.convert.styles import StyleMaker
from xfavot.training.checkpoint import LoadedModel, load_model

LOUDEST = 1.75  # log10; no waveform in [-1, 1] has a larger mel under the contract


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
        name = f"{model.config.name or model.config.configuration} at step {model.step}"
        return cls(model, name=name, device=device, vocoder=vocoder)

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
            x = inputs.face_to_tensor(source).to(self.device)
            image = inputs.tensor_to_face(self.nets.G_I(x, style.vector))
        task = style.task("face")
        return ConvertedFace(
            task=task, image=image, source=source, style=style,
            provenance=self._provenance(face, style, task),
        )  # fmt: skip

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
        mel, frames = self._mel(wave)  # (1, 1, 80, T')
        with torch.inference_mode():
            converted = windows.joined(
                mel, lambda x: self.nets.G_A(x, style.vector, self.f0_net.features(x))
            )
            f0, source_f0 = (windows.pitch(self.f0_net, x)[:frames] for x in (converted, mel))
            result, source = (self._restore(x, frames) for x in (converted, mel))
        task = style.task("voice")
        provenance = self._provenance(voice, style, task)
        return ConvertedVoice(
            task=task, waveform=self.vocoder(result, length=len(wave)), style=style,
            log_mel=result.numpy(), f0=f0, source_log_mel=source.numpy(), source_f0=source_f0,
            provenance=provenance | {"vocoder": self.vocoder.name},
        )  # fmt: skip

    def analyse_voice(self, voice: Any) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return the log10 mel (80, T) of a voice and its pitch (T,) in Hz, 0 where unvoiced.

        Raises:
            DataError: not speech.
        """
        mel, frames = self._mel(inputs.read_voice(voice, name="voice"))
        with torch.inference_mode():
            return self._restore(mel, frames).numpy(), windows.pitch(self.f0_net, mel)[:frames]

    def _restore(self, x: Tensor, frames: int) -> Tensor:
        """Return (80, T) log10 magnitudes, from the contract's floor up to the loudest there is."""
        floor = float(np.log10(self.vocoder.contract.floor))
        return self.standardiser.restore(x[0, 0, :, :frames]).clamp(floor, LOUDEST).cpu()

    def _provenance(self, source: Any, style: Style, task: Task) -> dict[str, str]:
        return provenance(task, style, source=source, checkpoint=self.name, step=self.step)
