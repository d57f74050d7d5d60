"""Styles: from a face, a voice or a latent code to the vector that leads a conversion.

Paper: Sec. 3.1 (E_I, E_A, M) and 3.3 (which heads there are). The encoders have one head a gender;
for a voice of unknown gender C_A's gender group estimates it, for a face it must be given.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from xfavot.audio.mel import log_mel, require_contract
from xfavot.convert import inputs, windows
from xfavot.convert.results import Style, describe
from xfavot.errors import ConfigError
from xfavot.training.checkpoint import LoadedModel

GUIDANCE_ADVICE = (
    "give exactly one of face_reference=, voice_reference=, latent= (a seed) and style="
)


def find_device(name: str) -> torch.device:
    """Return the device of a name; "auto" is a GPU if there is one.

    Raises:
        ConfigError: no such device here; nothing else is taken silently.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        return torch.zeros(1, device=name).device
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(
            f"device is {name!r}, which cannot be used here ({str(error).splitlines()[0]}); "
            "expected auto, cpu, or a device that torch sees"
        ) from error


class StyleMaker:
    """The networks of a checkpoint and the styles that they make of references.

    Args:
        model: what :func:`xfavot.training.checkpoint.load_model` returns.
        name: name of the checkpoint, written into every result.
        device: where the networks run.

    Raises:
        DataError: the checkpoint was made for another mel-spectrogram.
    """

    def __init__(self, model: LoadedModel, *, name: str, device: str) -> None:
        """Move the networks to the device; see the class."""
        require_contract(model.contract, where=f"checkpoint {name}")
        self.name = name
        self.device = find_device(device)
        self.nets = model.nets.to(self.device).eval()
        self.f0_net = model.f0.to(self.device).eval()
        self.standardiser = model.standardiser.to(self.device)
        self.config = model.config
        self.speakers: tuple[str, ...] = tuple(model.speakers)
        self.step = model.step

    @property
    def image_size(self) -> int:
        """Pixels of a side of the faces that the networks see."""
        return self.config.model.image_size

    def has(self, kind: str) -> bool:
        """Whether the checkpoint was trained on "face" or "voice" (an image-only row has one)."""
        return {"face": "image", "voice": "audio"}[kind] in self.config.train.modalities

    def _require(self, kind: str) -> None:
        if not self.has(kind):
            raise ConfigError(
                f"checkpoint {self.name} was trained on {self.config.train.modalities}; expected "
                f"one trained on {kind}s too; use configuration xfavot"
            )

    def style_of_face(
        self, face: Any, *, gender: str | None = None, aligned: bool = False
    ) -> Style:
        """Encode the style of a reference face by E_I.

        Args:
            face: a path, a PIL image or uint8 pixels (H, W, 3).
            gender: "f" or "m", the encoder's head; needed, since no network of the paper reads it
                from a face.
            aligned: the picture is already a square crop as in CelebA-HQ.

        Raises:
            ConfigError: no gender.
            DataError: not an image, or no face in it.
        """
        self._require("face")
        code = inputs.gender_code(gender, name="gender")
        if code is None or gender is None:
            raise ConfigError(
                "gender is missing for a face reference; expected "
                '"f" or "m", because E_I has one head a gender and no network of the model reads '
                'the gender from a face; pass gender="f" or gender="m"'
            )
        pixels = inputs.read_face(
            face, name="reference face", size=self.image_size, aligned=aligned
        )
        with torch.inference_mode():
            x = inputs.face_to_tensor(pixels).to(self.device)
            vector = self.nets.E_I(x, self._codes(code))  # (1, S)
        return Style(
            vector=vector, guidance="face", gender=gender, gender_from="given",
            reference=describe(face),
        )  # fmt: skip

    def style_of_voice(self, voice: Any, *, gender: str | None = None) -> Style:
        """Encode the style of a reference voice by E_A, over the whole clip.

        Args:
            voice: a path of a sound or video file, or samples (N,) at 24 kHz.
            gender: "f" or "m", the encoder's head; left out, C_A's gender group estimates it.

        Raises:
            ConfigError: the gender is neither.
            DataError: not speech.
        """
        self._require("voice")
        given = inputs.gender_code(gender, name="gender")
        mel, _ = self._mel(inputs.read_voice(voice, name="reference voice"))
        with torch.inference_mode():
            code = self._estimate_gender(mel) if given is None else given
            vector = windows.mean(mel, lambda x: self.nets.E_A(x, self._codes(code)))  # (1, S)
        return Style(
            vector=vector, guidance="voice", gender=inputs.GENDERS[code],
            gender_from="given" if given is not None else "estimated by C_A",
            reference=describe(voice),
        )  # fmt: skip

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
        code = inputs.gender_code(gender, name="gender")
        if (code is None) == (not speaker):
            raise ConfigError(
                f"latent guidance got gender {gender!r} and speaker {speaker!r}; expected exactly "
                'one of them: gender="f", gender="m", or one of the speakers of the checkpoint'
            )
        if speaker:
            if speaker not in self.speakers:
                more = ", ..." if len(self.speakers) > 8 else ""
                known = ", ".join(self.speakers[:8]) + more
                raise ConfigError(
                    f"speaker is {speaker!r}; expected one of the {len(self.speakers)} speakers "
                    f"that the checkpoint was trained on: {known or 'none'}"
                )
            code = len(inputs.GENDERS) + self.speakers.index(speaker)
        rng = torch.Generator().manual_seed(seed)
        z = torch.randn((1, self.config.model.latent_dim), generator=rng)  # (1, L)
        with torch.inference_mode():
            vector = self.nets.M(z.to(self.device), self._codes(code or 0))  # (1, S)
        return Style(
            vector=vector, guidance="latent", gender=gender or "",
            gender_from="speaker" if speaker else "given",
            reference=f"latent code of seed {seed}", seed=seed, speaker=speaker or "",
        )  # fmt: skip

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
            raise ConfigError(f"{len(given)} guidances were given; expected one; {GUIDANCE_ADVICE}")
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

    def _mel(self, wave: NDArray[np.float32]) -> tuple[Tensor, int]:
        """Return the standardised, padded spectrogram (1, 1, 80, T') and its true length T."""
        mel = self.standardiser.standardise(log_mel(torch.from_numpy(wave)).to(self.device))
        return windows.pad_frames(mel)[None, None], mel.shape[1]

    def _estimate_gender(self, mel: Tensor) -> int:
        return int(windows.mean(mel, lambda x: self.nets.C_A(x)[0]).argmax())
