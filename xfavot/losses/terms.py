"""Every term of the objective, in the paper's order (Sec. 3.2). Pure functions of tensors.

No weight, sign, schedule or clamp in here: :mod:`xfavot.losses.objective` alone adds them.
Symbols follow the paper; B batch, S style, M mel bins, T frames, N speakers. Status words: STATED
(in the paper), CODE (in StarGAN v2 or StarGANv2-VC), INFERRED.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from xfavot.errors import ShapeError, require_shape

REGIONS = 4  # along each side of a face


def _l1(name: str, a: Tensor, b: Tensor) -> Tensor:
    """Mean absolute difference of two tensors of one shape."""
    require_shape(name, b, a.shape)
    return (a - b).abs().mean()


def adversarial_real(logits: Tensor) -> Tensor:
    """Discriminator loss on real samples, ``-log D(x)``.

    Paper: L_adv, Sec. 3.2. Status: existence STATED, form CODE (StarGAN v2). Assumption: A1.

    Args:
        logits: (B,) of the heads of the sources' domains.

    Returns:
        Scalar, mean over B.
    """
    return F.softplus(-logits).mean()


def adversarial_fake(logits: Tensor) -> Tensor:
    """Discriminator loss on generated samples, ``-log(1 - D(G(x, s)))``.

    Paper: L_adv, Sec. 3.2. Status: existence STATED, form CODE (StarGAN v2). Assumption: A1.

    Args:
        logits: (B,) of the heads of the references' domains.

    Returns:
        Scalar, mean over B.
    """
    return F.softplus(logits).mean()


def adversarial_generator(logits: Tensor) -> Tensor:
    """Generator loss, non-saturating: ``-log D(G(x, s))``.

    Paper: L_adv, Sec. 3.2. Status: existence STATED, form CODE (StarGAN v2). Assumption: A1.

    Args:
        logits: (B,) of the heads of the references' domains.

    Returns:
        Scalar, mean over B.
    """
    return F.softplus(-logits).mean()


def r1(logits: Tensor, x: Tensor) -> Tensor:
    """Gradient penalty on real samples, ``0.5 E ||grad_x D(x)||^2``.

    Paper: not mentioned. Status: CODE (StarGAN v2, r1_reg). Assumption: A3.

    Args:
        logits: (B,) computed from ``x``, which requires a gradient.
        x: (B, ...) the real samples.

    Returns:
        Scalar, mean over B, differentiable.
    """
    (gradient,) = torch.autograd.grad(logits.sum(), x, create_graph=True)
    return 0.5 * gradient.square().flatten(1).sum(1).mean()


def style_reconstruction(predicted: Tensor, target: Tensor) -> Tensor:
    """L1 between the style re-encoded from an output and the style asked for.

    Paper: L_sty, Sec. 3.2. Status: words STATED, form CODE (StarGAN v2).

    Args:
        predicted, target: (B, S), unitless.

    Returns:
        Scalar, mean over B and S.

    Raises:
        ShapeError: shapes differ.
    """
    return _l1("style", predicted, target)


def style_diversification(first: Tensor, second: Tensor) -> Tensor:
    """L1 between two outputs of one source under two styles of one domain; maximised.

    Paper: L_ds, Sec. 3.2. Status: STATED, sign and weight in the objective.

    Args:
        first, second: (B, ...) outputs; the second carries no gradient (CODE).

    Returns:
        Scalar, mean over all axes.

    Raises:
        ShapeError: shapes differ.
    """
    return _l1("diversification", first, second)


def cycle_consistency(source: Tensor, reconstruction: Tensor) -> Tensor:
    """L1 between a source and its way there and back, ``G(G(x, s), s_src)``.

    Paper: L_cyc, Sec. 3.2. Status: words STATED, form CODE (StarGAN v2).

    Args:
        source, reconstruction: (B, ...).

    Returns:
        Scalar, mean over all axes.

    Raises:
        ShapeError: shapes differ.
    """
    return _l1("cycle", source, reconstruction)


def speech_consistency(source: Tensor, converted: Tensor) -> Tensor:
    """L1 between the content features of the source and of the converted voice.

    Paper: L_sc, Sec. 3.2. Status: STATED (StarGANv2-VC's code uses a smooth L1). Assumption: A8.

    Args:
        source, converted: (B, C, T') features of the frozen content network.

    Returns:
        Scalar, mean over all axes.

    Raises:
        ShapeError: shapes differ.
    """
    return _l1("speech consistency", source, converted)


def f0_consistency(source: Tensor, converted: Tensor) -> Tensor:
    """L1 between the F0 curves, each divided by its own mean over time.

    Paper: L_f0, Sec. 3.2. Status: normalised F0 STATED, F / mean(F) CODE (StarGANv2-VC).

    Args:
        source, converted: (B, T) in Hz, not negative.

    Returns:
        Scalar, mean over B and T. A curve whose mean is under 1 Hz is divided by 1 Hz.

    Raises:
        ShapeError: shapes differ.
    """
    require_shape("F0", converted, source.shape)
    floor_hz = 1.0
    source_hat = source / source.mean(-1, keepdim=True).clamp_min(floor_hz)
    converted_hat = converted / converted.mean(-1, keepdim=True).clamp_min(floor_hz)
    return (source_hat - converted_hat).abs().mean()


def perceptual(made: Sequence[Tensor], real: Sequence[Tensor]) -> Tensor:
    """L1 between what a frozen network sees in two pictures, place by place.

    Paper: not in it. Status: OURS. Assumption: A85.

    Args:
        made, real: maps (B, C, H, W) of the same depths.

    Returns:
        Scalar, mean over the depths; 1 is the mean size of the real ones.
    """
    pairs = zip(made, real, strict=True)
    return torch.stack([(a - b).abs().mean() / b.abs().mean() for a, b in pairs]).mean()


def timbre(mel: Tensor) -> Tensor:
    """What a voice sounds like whatever it says: mean and deviation of every band over time.

    Paper: not in it. Status: OURS. Assumption: A92.

    Args:
        mel: (B, 1, M, T), standardised.

    Returns:
        (B, 2 M), the means first.
    """
    return torch.cat([mel.mean(-1), mel.std(-1)], -1).flatten(1)


def resemblance(
    made: Sequence[Tensor], wanted: Sequence[Tensor], use: Tensor, others: Sequence[Tensor] = ()
) -> Tensor:
    """L1 between what is read from samples made and from those that they are to resemble.

    Of maps of faces the means of sixteen regions count, so that hair, eyes, mouth and clothes count
    apart, and a turn of the head little. A style that leaves open who is meant shall give all whom
    it may mean, not their mean: then the distance to what a second style of the same domain gives
    is taken off, which makes an energy score.

    Paper: not in it. Status: OURS. Assumptions: A85, A92, A93.

    Args:
        made, wanted: maps (B, C, H, W) or values (B, N), of any number of depths.
        use: (B,) bool, the rows that count.
        others: of samples of second styles, without gradient; empty: nothing is taken off.

    Returns:
        Scalar, mean over the depths and the rows that count; 1 is how much the wanted ones differ.
        0 (with a gradient of 0) where no row counts.
    """
    found = []
    for depth in zip(made, wanted, *[others] * bool(others), strict=True):
        a, b, *rest = (F.adaptive_avg_pool2d(m, REGIONS) if m.dim() == 4 else m for m in depth)
        spread = b.std(0, correction=0).mean().clamp_min(1e-3)
        apart = (a - b).abs()
        for c in rest:
            apart = apart - (a - c).abs()
        apart = apart.flatten(1).mean(1) / spread
        found.append((apart * use).sum() / use.sum().clamp_min(1))
    return torch.stack(found).mean()


def frame_energy(log_mel: Tensor) -> Tensor:
    """Level of every frame, ``log10`` of the Euclidean norm over the mel bands.

    Paper: e_t of L_norm, Sec. 3.2. Status: frame-wise energy STATED, form CODE. Assumption: A9.

    Args:
        log_mel: (B, 1, M, T), log10 magnitude (not standardised).

    Returns:
        (B, T), in decades.
    """
    # ||10^x||_2 = sqrt(sum 10^(2x)); logsumexp keeps it finite for any level
    ln10 = 2.302585092994046
    return torch.logsumexp(2 * ln10 * log_mel.squeeze(1), dim=1) / (2 * ln10)  # (B, T)


def norm_consistency(source: Tensor, converted: Tensor) -> Tensor:
    """L1 between the frame energies of the source and of the converted voice.

    Paper: L_norm, Sec. 3.2. Status: STATED. Assumption: A9.

    Args:
        source, converted: (B, T) of :func:`frame_energy`.

    Returns:
        Scalar, mean over B and T.

    Raises:
        ShapeError: shapes differ.
    """
    return _l1("frame energy", source, converted)


def classification(logits: Tensor, target: Tensor, use: Tensor) -> Tensor:
    """Cross entropy of the audio classifier on converted voices.

    Paper: L_cls with the source's label (for C_A) and L_advcls with the reference's label (for
    G_A), Sec. 3.2. Status: words STATED; rows with equal labels left out CODE (StarGANv2-VC).
    Assumption: A10.

    Args:
        logits: (B, K).
        target: (B,) class index.
        use: (B,) bool, the rows that count.

    Returns:
        Scalar, mean over the rows that count; 0 (with a gradient of 0) where none does.
    """
    if logits.shape[0] != target.shape[0] or target.shape != use.shape:
        raise ShapeError(
            f"classification: logits {tuple(logits.shape)}, target {tuple(target.shape)} and rows "
            f"{tuple(use.shape)} do not fit; expected (B, K), (B,) and (B,)"
        )
    losses = F.cross_entropy(logits, target.clamp_min(0), reduction="none")  # (B,)
    return torch.where(use, losses, losses * 0.0).sum() / use.sum().clamp_min(1)


def cross_modality_style_consistency(
    face: Tensor, voice: Tensor, speaker: Tensor, *, tau: float, form: str
) -> Tensor:
    """InfoNCE between the face styles and the voice styles of N audio-visual pairs.

    Paper: L_xm, Sec. 3.2, after MMV. Status: cosine similarity, temperature, mean over the pairs
    STATED; which denominator UNKNOWN. Assumption: A5.

    Args:
        face, voice: (N, S), row i of both is one speaker.
        speaker: (N,) speaker index; other pairs of the same speaker are no negatives.
        tau: temperature, over 0.
        form: "one_way" (voices as negatives of a face), "mmv" (both directions' negatives in one
            denominator) or "symmetric" (mean of both one-way losses).

    Returns:
        Scalar, mean over the N pairs; 0 (with a gradient of 0) for fewer than two pairs.

    Raises:
        ShapeError: shapes differ.
    """
    require_shape("cross-modality style", voice, face.shape)
    if face.shape[0] < 2:
        return (face.sum() + voice.sum()) * 0.0
    logits = F.normalize(face, dim=1) @ F.normalize(voice, dim=1).T / tau  # (N, N)
    positive = logits.diagonal()
    own = speaker[:, None] == speaker[None, :]
    negatives = logits.masked_fill(own, float("-inf"))

    def one_way(negative: Tensor) -> Tensor:
        return torch.logsumexp(torch.cat([positive[:, None], negative], 1), 1) - positive

    if form == "one_way":
        return one_way(negatives).mean()
    if form == "mmv":
        return one_way(torch.cat([negatives, negatives.T], 1)).mean()
    return 0.5 * (one_way(negatives).mean() + one_way(negatives.T).mean())


def self_reconstruction(source: Tensor, regenerated: Tensor) -> Tensor:
    """L1 between a sample and its regeneration from a style of the same person.

    Paper: not in it. Warm-up of preset `mini`. Assumption: A20.

    Args:
        source, regenerated: (B, ...).

    Returns:
        Scalar, mean over all axes.

    Raises:
        ShapeError: shapes differ.
    """
    return _l1("self-reconstruction", source, regenerated)


def pitch_level(predicted: Tensor, level: Tensor, *, slack: float = 0.0) -> Tensor:
    """How far the level of the pitch that styles stand for is from that of the voices (A79).

    Paper: not in it. OURS.

    Args:
        predicted, level: (B,) log2 Hz.
        slack: octaves either way that cost nothing.

    Returns:
        Scalar, mean over B, octaves.

    Raises:
        ShapeError: shapes differ.
    """
    require_shape("level of the pitch", predicted, tuple(level.shape))
    return ((predicted - level).abs() - slack).clamp(min=0).mean()


def average_spectrum(predicted: Tensor, spectrum: Tensor) -> Tensor:
    """How far the average spectra that styles stand for are from those of the voices (A95).

    Paper: not in it. OURS.

    Args:
        predicted, spectrum: (B, M), standardised.

    Returns:
        Scalar, mean over B and the bands.

    Raises:
        ShapeError: shapes differ.
    """
    require_shape("average spectrum", predicted, tuple(spectrum.shape))
    return F.l1_loss(predicted, spectrum)


def code_match(first: Tensor, second: Tensor, style: Tensor) -> Tensor:
    """How far styles of latent codes are from being distributed as those of references (A82).

    The energy score of two draws against a sample, a proper scoring rule: in expectation it is
    least where the draws have the sample's distribution (Gneiting and Raftery 2007, Sec. 4.3).

    Paper: not in it. OURS.

    Args:
        first, second: (B, S), styles of two codes of the domain of each row.
        style: (B, S), of a reference of that domain.

    Returns:
        Scalar, mean over B, in root mean squares over S.

    Raises:
        ShapeError: shapes differ.
    """
    for drawn in (first, second):
        require_shape("styles of codes", drawn, tuple(style.shape))
    away = torch.stack([first - style, second - style]).norm(dim=2).mean(0)  # (B,)
    apart = (first - second).norm(dim=1)
    score: Tensor = (away - apart / 2).mean() / math.sqrt(style.shape[1])
    return score
