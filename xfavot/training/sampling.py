"""Looks into a run at intervals: validation terms, a sheet of faces, converted voices.

All with the averaged networks, on the validation split where there is one. Rows of the sheet: the
sources, then one row for each of the first references as a face, as a voice, and as a latent code.
Labelled figures are made from checkpoints by :mod:`xfavot.viz`; training never plots.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from xfavot.audio import vocoder as vocoders
from xfavot.errors import DataError
from xfavot.models.xfavot import XFaVoT
from xfavot.training import step as steps
from xfavot.training import targets
from xfavot.training.step import Networks
from xfavot.training.updates import Updater

if TYPE_CHECKING:
    from xfavot.training.setup import Session

VALIDATION_BATCHES = 4
ROWS, COLUMNS, VOICES = 3, 6, 2


def averaged(updater: Updater) -> XFaVoT:
    """The eight modules with G, E and M replaced by their averages; nothing is copied."""
    nets = copy.copy(updater.n.nets)
    nets._modules = {**updater.n.nets._modules, **dict(updater.ema.modules.items())}
    return nets


@torch.no_grad()
def validate(s: Session) -> dict[str, float]:
    """Mean generator terms on fixed validation batches; ``val/total`` adds style, cycle and xm.

    Returns:
        Values by log key; empty where there is no validation split.
    """
    if s.validation is None:
        return {}
    u = s.updater
    n = Networks(averaged(u), u.n.f0, u.n.content, u.n.standardiser)
    sums: dict[str, list[Tensor]] = {}
    for number in range(VALIDATION_BATCHES):
        batch = s.validation.batch(number).to(s.device)
        d = targets.draw(s.cfg, number, batch.paired.shape[0], u.guidances)
        voices = steps.analyse_voices(n, batch.source_audio) if batch.source_audio else None
        for guidance in u.guidances:
            t = targets.make_target(n.nets, batch, guidance, d)
            if "i" in u.outputs:
                terms = steps.generator_image_terms(n, batch, t)[0]
                for k, v in terms.items():
                    sums.setdefault(f"val/{guidance}2i/{k}", []).append(v)
            if "a" in u.outputs and voices is not None:
                terms = steps.generator_audio_terms(n, batch, t, voices, d.speaker_family)[0]
                for k, v in terms.items():
                    sums.setdefault(f"val/{guidance}2a/{k}", []).append(v)
        if batch.ref_image is not None and batch.ref_audio is not None:
            xm = steps.pair_terms(n, batch, d, s.cfg, rec=False)["xm"]
            sums.setdefault("val/xm", []).append(xm)
    means = {k: float(torch.stack(v).mean()) for k, v in sums.items()}
    means["val/total"] = sum(
        v for k, v in means.items() if k.rsplit("/", 1)[-1] in ("sty", "cyc", "xm")
    )
    return means


@torch.no_grad()
def write(s: Session, step: int, *, vocoder: str = vocoders.DEFAULT) -> None:
    """Write ``samples/step_*.png`` and a few WAVs of the present averages.

    Args:
        s: the running training.
        step: for the names of the files.
        vocoder: a name for :func:`xfavot.audio.vocoder.vocoder`.
    """
    batches = s.validation or s.batches
    batch = batches.batch(0).to(s.device)
    u = s.updater
    nets, folder = averaged(u), s.path / "samples"
    folder.mkdir(exist_ok=True)
    d = targets.draw(s.cfg, 0, batch.paired.shape[0], u.guidances)
    aims = [targets.make_target(nets, batch, g, d) for g in u.guidances]
    if batch.source_image is not None and "i" in u.outputs:
        x = batch.source_image.x[:COLUMNS]
        blank = torch.ones_like(x[:1])
        sheet = [torch.cat([blank, x])]
        for t in aims:
            for row in range(min(ROWS, t.s1.shape[0])):
                face = blank
                if t.guidance != "z" and batch.ref_image is not None:
                    face = batch.ref_image.x[row : row + 1]
                fakes = nets.G_I(x, t.s1[row : row + 1].expand(len(x), -1))
                sheet.append(torch.cat([face, fakes]))
        _save_sheet(s, torch.stack(sheet), step)
    if batch.source_audio is not None and "a" in u.outputs:
        x = batch.source_audio.x[:1]
        features, made = u.n.f0.features(x), vocoders.vocoder(vocoder)
        _save_voice(s, x, made, f"step_{step:08d}_source.wav")
        for t in aims:
            for row in range(min(VOICES, t.s1.shape[0])):
                fake = nets.G_A(x, t.s1[row : row + 1], features)
                _save_voice(s, fake, made, f"step_{step:08d}_{t.guidance}2a_{row}.wav")


def _save_sheet(s: Session, rows: Tensor, step: int) -> None:
    """(R, C, 3, H, W) in [-1, 1] as one PNG."""
    from xfavot.image.io import save_image

    r, c, _, h, w = rows.shape
    pixels = rows.clamp(-1, 1).add(1).mul(127.5).round().byte()
    sheet = pixels.permute(0, 3, 1, 4, 2).reshape(r * h, c * w, 3)  # (R H, C W, 3)
    try:
        save_image(s.path / "samples" / f"step_{step:08d}.png", sheet.cpu().numpy())
    except DataError as error:  # a bare machine without Pillow trains all the same
        s.say(f"no sample sheet: {error}")


def _save_voice(s: Session, x: Tensor, vocoder: vocoders.Vocoder, name: str) -> None:
    """(1, 1, 80, T) standardised as a WAV through a vocoder."""
    from xfavot.audio.io import save_waveform

    log_mel = s.updater.n.standardiser.restore(x.float())[0, 0].cpu()
    save_waveform(s.path / "samples" / name, vocoder(log_mel))
