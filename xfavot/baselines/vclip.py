"""Vclip: a voice for a face by retrieval, from what a frozen network of pictures sees in it.

Source: Shi et al., "Vclip: Face-based Speaker Generation by Face-voice Association Learning", 2026
(arXiv 2601.02753), of which no layers, losses or rates are published: those here are our own choice
(A86). An encoder of voices learns to meet what CLIP sees in the face of the same person. For a new
face the nearest people that it was trained on are retrieved; a mixture of Gaussians over how they
speak, one component a person, gives a new speaker, whose voice the method's own conversion makes
(in the place of the authors' synthesis of speech, whose feedback is left out). Where CLIP's weights
are not there, as on `mini`, dlib's network of faces stands in its place, and the settings say so.
"""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from xfavot.audio.mel import MEL
from xfavot.baselines.adain_cvc import audio_visual
from xfavot.baselines.adain_vc import SpeakerEncoder
from xfavot.baselines.system import BaselineConverter, System, Trained, Waveform
from xfavot.config import RunConfig, Section
from xfavot.convert.converter import ConvertedVoice, Converter, Task
from xfavot.data.batches import Batch, Batches
from xfavot.models.face_encoder import FaceEncoder
from xfavot.models.pretrained import pretrained
from xfavot.strict import option

SEEN_BY = ("clip", "dlib_face")  # what looks at faces
CLIP = "clip_vit_base_patch32"  # its folder among the fetched weights
CLIP_SIDE = 224
CLIP_MEAN, CLIP_STD = (0.481, 0.458, 0.408), (0.269, 0.261, 0.276)  # of RGB from 0 to 1
MOST_CANDIDATES, UTTERANCES = 500, 8  # people to be retrieved, clips of each
FITTED_ON = 8  # batches, by which what is seen is standardised
LEAST = 1e-6  # deviation
BANK = ("candidates", "voices", "deviations")  # buffers, as large as there are people


class SystemConfig(Section):
    """Sizes and numbers; all are our own choice (A86)."""

    seen_by: str = option("clip", choices=SEEN_BY)
    width: int = option(128, least=1)  # of the encoder of voices
    size: int = option(128, least=1)  # of the space in which both meet
    scale: float = option(14.3, above=0)  # of cosines at the beginning, 1 / 0.07; it is learnt
    retrieved: int = option(3, least=1)  # people behind a new speaker
    sharpness: float = option(10.0, least=0)  # weight of a person: exp(sharpness x cosine)
    spread: float = option(1.0, least=0)  # deviations of a component that are drawn; 0: its mean


@cache
def seeing(name: str) -> nn.Module:
    """Open the frozen network that looks at faces."""
    network = pretrained("CLIPVisionModelWithProjection", CLIP) if name == "clip" else FaceEncoder()
    return network.eval().requires_grad_(False)


@torch.no_grad()
def seen(name: str, faces: Tensor) -> Tensor:
    """Look at faces (B, 3, H, W) in [-1, 1]: (B, F)."""
    network = seeing(name).to(faces.device)
    if name == "dlib_face":
        found: Tensor = network(faces)
        return found
    x = functional.interpolate(faces, (CLIP_SIDE, CLIP_SIDE), mode="bicubic", antialias=True)
    mean, std = (torch.tensor(one, device=x.device)[:, None, None] for one in (CLIP_MEAN, CLIP_STD))
    found = network(pixel_values=((x.clamp(-1, 1) + 1) / 2 - mean) / std).image_embeds
    return found


def association(similarity: Tensor, speaker: Tensor) -> Tensor:
    """Contrast pairs of face and voice, the mean of both directions.

    Args:
        similarity: (B, B) scaled cosines, faces by voices.
        speaker: (B,) codes; everything of the same person counts as right.
    """
    same = speaker[:, None] == speaker
    right = similarity.masked_fill(~same, -torch.inf)
    lost = [
        s.logsumexp(1) - r.logsumexp(1) for s, r in ((similarity, right), (similarity.T, right.T))
    ]
    return torch.stack(lost).mean()


class VclipConverter(BaselineConverter):
    """A style is a place in the space of faces and voices; the method's conversion speaks."""

    meets = True

    def __init__(self, model: Trained, *, name: str, device: str, vocoder: Any) -> None:
        """Open both; see the class above."""
        super().__init__(model, name=name, device=device, vocoder=vocoder)
        how: dict[str, Any] = {"device": device, "vocoder": self.vocoder}
        self.speaks = Converter(model.conversion, name=model.conversion.title, **how)

    def convert_voice(self, voice: Any, **guidance: Any) -> ConvertedVoice:
        """Convert a voice to the speaker that a face retrieves; see :class:`Converter`."""
        self._require("voice")
        style = self.style(**guidance)
        system: Any = self.system
        with torch.inference_mode():
            speaker = replace(style, vector=system.speaker(style.vector))
        made = self.speaks.convert_voice(voice, style=speaker)
        texts = self._provenance(voice, style, "a") | {"vocoder": self.vocoder.name}
        return replace(made, provenance=texts | {"speaks": self.speaks.name})


class Vclip(System):
    """The association, and the people that may be retrieved.

    Buffers: `candidates` (K, E), where the voices of people are; `voices` and `deviations` (K, S),
    mean and deviation of the styles of their utterances; `average`, `deviation` (F,) of what the
    frozen network sees.
    """

    title, tasks, settings_of = "Vclip", (Task.I2A,), SystemConfig
    judged_by, speaks, converter = "loss", True, VclipConverter
    usable = staticmethod(audio_visual)

    candidates: Tensor
    voices: Tensor
    deviations: Tensor
    average: Tensor
    deviation: Tensor

    def __init__(self, settings: SystemConfig, cfg: RunConfig) -> None:
        """Make the networks."""
        super().__init__(settings, cfg)
        self.rows: list[list[int]] = []  # clips of the people
        features = int(seen(settings.seen_by, torch.zeros(1, 3, 32, 32)).shape[1])
        voice = SpeakerEncoder(MEL.n_mels, settings.width), nn.Linear(settings.width, settings.size)
        self.net = nn.ModuleDict(
            {"face": nn.Linear(features, settings.size), "voice": nn.Sequential(*voice)}
        )
        self.log_scale = nn.Parameter(torch.tensor(math.log(settings.scale)))
        self.register_buffer("average", torch.zeros(features))
        self.register_buffer("deviation", torch.ones(features))
        for name in BANK:
            self.register_buffer(name, torch.zeros(0, 0))

    def _load_from_state_dict(self, state: Any, prefix: str, *rest: Any) -> None:
        for name in BANK:  # they are as large as the people were many
            if prefix + name in state:
                setattr(self, name, torch.empty_like(state[prefix + name]))
        super()._load_from_state_dict(state, prefix, *rest)

    def begin(self, batches: Batches, conversion: Converter | None, *, new: bool) -> None:
        """Find the people; of a new run, also what is seen of faces and how people speak."""
        rows: dict[str, list[int]] = {}
        for row in batches.drawn(self.seed):
            who = batches.items[row].speaker
            if who and (who in rows or len(rows) < MOST_CANDIDATES):
                rows.setdefault(who, []).append(row)
        self.rows = [own[:UTTERANCES] for _, own in sorted(rows.items())]
        if not new or conversion is None:
            return
        drawn = (batches.batch(n).ref_image for n in range(FITTED_ON))
        faces = [seen(self.settings.seen_by, one.to("cpu").x) for one in drawn if one is not None]
        deviation, average = torch.std_mean(torch.cat(faces), dim=0)
        self.average.copy_(average)
        self.deviation.copy_(deviation.clamp(min=LEAST))
        found = []
        for own in self.rows:
            gender = batches.items[own[0]].gender
            voices = map(batches.waveform, own)
            styles = [conversion.style_of_voice(one, gender=gender).vector for one in voices]
            found.append(torch.std_mean(torch.cat(styles), dim=0, correction=0))
        self.deviations, self.voices = map(torch.stack, zip(*found, strict=True))

    @torch.no_grad()
    def settle(self, batches: Batches) -> None:
        """Place the people by their voices, as the encoder is now."""
        device = self.log_scale.device
        places = [self.embed(batches.crops(own).to(device)).mean(0) for own in self.rows]
        self.candidates = functional.normalize(torch.stack(places), dim=1)

    def losses(self, batch: Batch, number: int, waveform: Waveform) -> dict[str, Tensor]:
        """Contrast the faces of a batch with the voices, of which the right one is near."""
        shown, heard = (batch.roles()[name] for name in ("ref_image", "ref_audio"))
        cosine, speaker = self.embed(shown.x) @ self.embed(heard.x).T, heard.person
        found = speaker[cosine.argmax(1)] == speaker
        loss = association(self.log_scale.exp() * cosine, speaker)
        return {"loss": loss, "found": found.float().mean()}

    def embed(self, x: Tensor) -> Tensor:
        """Encode voices (B, 1, M, T) or faces (B, 3, H, W): (B, E), of length 1."""
        if x.shape[1] == 1:
            return functional.normalize(self.net["voice"](x), dim=1)
        faces = (seen(self.settings.seen_by, x) - self.average) / self.deviation
        return functional.normalize(self.net["face"](faces), dim=1)

    def speaker(self, place: Tensor) -> Tensor:
        """Generate how somebody at a place (1, E) speaks: a style (1, S) of the conversion.

        The draw is that of the run's seed, so that a face always gives the same voice.
        """
        given: SystemConfig = self.settings
        rng = torch.Generator().manual_seed(self.seed)
        near = (self.candidates @ place[0]).topk(min(given.retrieved, len(self.candidates)))
        weights = (given.sharpness * near.values).softmax(0).cpu()
        one = int(near.indices[int(torch.multinomial(weights, 1, generator=rng))])
        noise = torch.randn(self.voices.shape[1], generator=rng).to(place.device)
        return (self.voices[one] + given.spread * self.deviations[one] * noise)[None]
