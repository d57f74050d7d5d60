"""What the three small networks learn from: clips, changes made to them, batches, losses, measures.

Lineage of the F0 (JDC) and the content (CTC) network: dossier, section 7 (A28, A36, A37). How they
are trained and where they are kept is `pretrain.py`'s business.
"""

from __future__ import annotations

import itertools
import math
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from xfavot.audio.f0 import HIGHEST_HZ, LOWEST_HZ
from xfavot.audio.mel import MEL, Standardiser, log_mel
from xfavot.data.store import Item, Store
from xfavot.errors import import_optional
from xfavot.models.content import BLANK, STRIDE, SYMBOLS, ContentNetwork
from xfavot.models.f0 import F0Network, F0Output, class_of, track
from xfavot.models.pretrained import SpeechEncoder, similarities

Wave = NDArray[np.float32]
Speech = tuple[Tensor, Tensor]  # log10 mel (80, T) and F0 (T,) Hz, 0 where unvoiced

# Transcripts: what the content network can spell


CURLY_APOSTROPHE = "\N{RIGHT SINGLE QUOTATION MARK}"
LETTERS = str.maketrans(  # without a decomposition in Unicode
    {"\u00e6": "ae", "\u0153": "oe", "\u00f8": "o", "\u0142": "l", "\u0111": "d", "\u00f0": "d"}
    | {"\u00fe": "th", "\u0131": "i", CURLY_APOSTROPHE: "'"}
)
INDEX = {symbol: index for index, symbol in enumerate(SYMBOLS)}


def plain(transcript: str) -> str:
    """Write a transcript in small letters without accents, "ss" for a sharp s."""
    spelt = unicodedata.normalize("NFKD", transcript.casefold().translate(LETTERS))
    return "".join(sign for sign in spelt if not unicodedata.combining(sign))


def not_covered(transcript: str) -> str:
    """The letters of a transcript that are not in the alphabet, a to z: another script's.

    Such a transcript teaches and measures nothing, as it would be spelt with gaps.
    """
    signs = dict.fromkeys(plain(transcript))
    return "".join(sign for sign in signs if sign.isalpha() and sign not in INDEX)


def encode(transcript: str) -> list[int]:
    """Spell a transcript as indices into SYMBOLS; accents fall away, other signs part words.

    >>> encode("Bin  blue!")
    [3, 10, 15, 1, 3, 13, 22, 6]
    """
    kept = "".join(sign if sign in INDEX else " " for sign in plain(transcript))
    return [INDEX[sign] for sign in " ".join(kept.split())]


def spell(indices: Sequence[int]) -> str:
    """Write indices into SYMBOLS as text.

    >>> spell(encode("Bin  blue!"))
    'bin blue'
    """
    return "".join(SYMBOLS[index] for index in indices)


def decode(log_probabilities: Tensor) -> str:
    """Read the likeliest path of (T, V) CTC log-probabilities: merge repeats, drop blanks."""
    path = torch.unique_consecutive(log_probabilities.argmax(-1)).tolist()
    return spell([index for index in path if index != BLANK]).strip()


# Clips and their labels


LONGEST_FRAMES = 1280  # 16 s; longer clips are not used for recognition
HELD_OUT = ("val", "unseen")
HELD_OUT_CLIPS = 200  # measured at most, evenly spread over the split


class Clip(NamedTuple):
    """One clip with speech, and the store that holds it."""

    store: Store
    item: Item

    def f0(self) -> Tensor:
        """Return the label (T,) Hz, 0 where unvoiced."""
        return torch.from_numpy(self.store.f0_hz(self.item))

    def log_mel(self) -> Tensor:
        """Return the log10 mel-spectrogram (80, T)."""
        return self.store.log_mel(self.item)


def clips_of(stores: Sequence[Store], split: str, *, needs: str) -> list[Clip]:
    """List the clips with speech of a split that carry a label, in the order of the stores.

    Args:
        stores: prepared stores.
        split: "train", "val" or "unseen".
        needs: "f0": F0 was estimated; "transcript": one that can be spelt (:func:`not_covered`) and
            fits into half the frame rate; "": any clip with speech.
    """
    found = [
        Clip(store, item)
        for store in stores
        for item in store.items
        if item.split == split and item.frame_count > 0
    ]
    if needs == "f0":
        return [clip for clip in found if not np.isnan(clip.store.f0[clip.item.frame_start])]
    if needs == "transcript":
        return [
            clip
            for clip in found
            if 0 < 2 * len(encode(text := clip.item.transcript)) < clip.item.frame_count
            and clip.item.frame_count <= LONGEST_FRAMES
            and not not_covered(text)
        ]
    return found


def left_out(stores: Sequence[Store], split: str) -> str:
    """Say how many transcripts are in letters that the alphabet does not cover; "" if none is."""
    clips = clips_of(stores, split, needs="")
    lost = [letters for clip in clips if (letters := not_covered(clip.item.transcript))]
    if not lost:
        return ""
    most = "".join(letter for letter, _ in Counter("".join(lost)).most_common(5))
    return (
        f"{len(lost)} of {len(clips)} {split} clips have transcripts with letters other than a to "
        f"z ({most}), which the content network cannot spell; they count as having none"
    )


def held_out(stores: Sequence[Store], split: str, *, needs: str) -> list[Clip]:
    """List at most 200 clips of a split that carry a label, evenly spread over it."""
    found = clips_of(stores, split, needs=needs)
    return found[:: -(-len(found) // HELD_OUT_CLIPS)] if found else []


def generator_of(seed: int, step: int) -> torch.Generator:
    """Return the random source of one step; steps and seeds do not share streams."""
    words = np.random.SeedSequence((seed, step)).generate_state(2, np.uint32)
    return torch.Generator().manual_seed(int(words[0]) << 31 ^ int(words[1]))


# Other voices, rooms and recordings made from the clips that the F0 network learns from (A36)


VERSIONS = 5  # of a clip: as it is, resampled and synthesised twice each
AS_IT_IS = 0.4  # share of the draws
CHANGED_CLIPS = 600  # of a corpus at most, evenly spread; a large one is varied enough
RESAMPLED = (0.75, 1.35)  # factor on every frequency
SHIFT_OCTAVES = 0.7  # of the synthesised pitch, up or down at most
INTONATION = (0.6, 1.6)  # exponent on the pitch about its median

CURVES = 4  # cosines over the bands that make up an equaliser
CURVE_LOG10 = 0.2  # standard deviation of each; 4 dB
BAND_SHARE = 0.3  # of the crops lose one or both ends of the band
LOW_BANDS, HIGH_BANDS = (0.0, 8.0), (52.0, 80.0)  # where the ends lie, of 80 bands
SLOPE_LOG10 = 0.5  # a band; 10 dB
ROOM_SECONDS = (0.1, 0.5)  # reverberation time
ROOM_LOG10 = (-2.5, -1.0)  # power of the first echo against the sound
ROOM_FRAMES = 40

GAIN_DB = (-10.0, 6.0)  # random gain; a constant on the log10 magnitude mel
NOISE_LOG10 = (-3.0, -1.0)  # random noise floor against the loudest frame of the crop
NOISE_SHARE = 0.5  # of the samples get noise
FLOOR_LOG10 = -10.0  # log10 of the mel contract's floor
DB_PER_LOG10 = 20.0  # of a magnitude


class Versions:
    """Versions of clips, made when they are first asked for and kept.

    Every corpus is drawn equally often, and every second of its speech alike. What is drawn is a
    function of the generator, a version one of seed, clip and number.

    Args:
        clips: with F0.
        seed: of the changes.
    """

    def __init__(self, clips: Sequence[Clip], *, seed: int) -> None:
        """Sort the clips by corpus; nothing is computed yet."""
        self.clips, self.seed = clips, seed
        rows: dict[str, list[int]] = defaultdict(list)
        for row, clip in enumerate(clips):
            rows[clip.store.corpus].append(row)
        lengths = torch.tensor([float(clip.item.frame_count) for clip in clips])
        self.corpora = [(some, lengths[some]) for some in rows.values()]
        self._made: dict[tuple[int, int], Speech] = {}

    def draw(self, count: int, generator: torch.Generator) -> list[Speech]:
        """Draw versions of clips: log10 mel (80, T) and F0 (T,) each."""
        drawn = []
        for corpus in torch.randint(len(self.corpora), (count,), generator=generator).tolist():
            rows, frames = self.corpora[corpus]
            place = int(torch.multinomial(frames, 1, generator=generator))
            version = int(torch.randint(1, VERSIONS, (), generator=generator))
            keep = float(torch.rand((), generator=generator)) < AS_IT_IS
            keep |= place % -(-len(rows) // CHANGED_CLIPS) > 0
            drawn.append(self.version(rows[place], 0 if keep else version))
        return drawn

    def version(self, row: int, number: int) -> Speech:
        """Return a version of a clip; 0 is the clip itself, odd numbers are resampled."""
        clip = self.clips[row]
        if number == 0:
            return clip.log_mel(), clip.f0()
        if (row, number) not in self._made:
            draws = np.random.default_rng((self.seed, row, number))
            change = resampled if number % 2 else synthesised
            wave, f0 = change(clip.store.waveform(clip.item), clip.f0().numpy(), draws)
            mel = log_mel(torch.from_numpy(wave))[:, : len(f0)]
            self._made[row, number] = mel.half(), torch.from_numpy(f0)
        mel, label = self._made[row, number]
        return mel.float(), label


def resampled(waveform: Wave, f0: Wave, draws: np.random.Generator) -> tuple[Wave, Wave]:
    """Raise or lower every frequency by one random factor; the tempo follows.

    Args:
        waveform: (N,) at 24 kHz.
        f0: (N // 300 + 1,) Hz, 0 where unvoiced.
        draws: source of randomness.

    Returns:
        Both, of another length.
    """
    low, high = np.log2(RESAMPLED)
    samples = round(len(waveform) / 2.0 ** draws.uniform(low, high))
    spectrum = np.fft.rfft(waveform)
    kept = spectrum[: samples // 2 + 1]
    new = np.fft.irfft(kept, n=samples) * (samples / len(waveform))
    factor = len(waveform) / samples
    place = np.minimum(np.arange(samples // MEL.hop + 1) * factor, len(f0) - 1)
    before = np.floor(place).astype(int)
    after = np.minimum(before + 1, len(f0) - 1)
    near = f0[np.rint(place).astype(int)]
    between = f0[before] + (place - before) * (f0[after] - f0[before])
    label = np.where((f0[before] > 0) & (f0[after] > 0), between, near) * factor
    return new.astype(np.float32), label.astype(np.float32)


def synthesised(waveform: Wave, f0: Wave, draws: np.random.Generator) -> tuple[Wave, Wave]:
    """Analyse with WORLD and synthesise with another pitch and a livelier or flatter intonation.

    Args:
        waveform, f0, draws: as in :func:`resampled`.

    Returns:
        Both; as long as the label, at most a frame of samples longer than before.

    Raises:
        DataError: pyworld is not installed.
    """
    world = import_optional("pyworld", extra="data", purpose="training the F0 network")
    signal, pitch = waveform.astype(np.float64), f0.astype(np.float64)
    times = np.arange(len(pitch)) * (MEL.hop / MEL.sample_rate)
    rate = MEL.sample_rate
    # by itself CheapTrick takes what lies below 70.5 Hz for unvoiced
    envelope = world.cheaptrick(signal, pitch, times, rate, f0_floor=LOWEST_HZ)
    noise = world.d4c(signal, pitch, times, rate, fft_size=2 * (envelope.shape[1] - 1))
    voiced = pitch > 0
    middle = np.median(pitch[voiced]) if voiced.any() else LOWEST_HZ
    shift = 2.0 ** draws.uniform(-SHIFT_OCTAVES, SHIFT_OCTAVES)
    height = np.where(voiced, pitch, middle) / middle
    other = middle * shift * height ** draws.uniform(*INTONATION)
    label = np.where(voiced, other.clip(LOWEST_HZ, HIGHEST_HZ), 0.0)
    period = 1000.0 * MEL.hop / MEL.sample_rate  # ms
    new = world.synthesize(label, envelope, noise, rate, period)
    return new.astype(np.float32), label.astype(np.float32)


def another_recording(log_mel: Tensor, generator: torch.Generator, *, rooms: float) -> Tensor:
    """Let some reverberate, filter all, and take an end of the band from some.

    Args:
        log_mel: (B, M, T) log10 mel-spectrograms, not standardised.
        generator: source of randomness.
        rooms: share of the spectrograms that reverberate: decaying echoes are added in power.

    Returns:
        (B, M, T), new.
    """
    batch, bands, _ = log_mel.shape
    band = torch.arange(bands)
    order = torch.arange(1, CURVES + 1).view(-1, 1)
    cosines = torch.cos(math.pi * order * ((band + 0.5) / bands))  # (curves, M)
    curve = CURVE_LOG10 * torch.randn(batch, CURVES, generator=generator) @ cosines  # (B, M)
    low, high = torch.rand(2, batch, 1, generator=generator)
    low, high = _between(LOW_BANDS, low), _between(HIGH_BANDS, high)
    outside = (low - band).clamp(min=0) + (band - high).clamp(min=0)  # (B, M)
    limited = torch.rand(batch, 1, generator=generator) < BAND_SHARE
    curve = curve - SLOPE_LOG10 * outside * limited
    seconds, first, chosen = torch.rand(3, batch, 1, generator=generator)
    delay = torch.arange(ROOM_FRAMES) * (MEL.hop / MEL.sample_rate)
    echoes = 10.0 ** _between(ROOM_LOG10, first)
    echoes = echoes * 10.0 ** (-6.0 * delay / _between(ROOM_SECONDS, seconds)) * (chosen < rooms)
    echoes[:, 0] = 1.0  # (B, K)
    power = torch.pow(100.0, log_mel).transpose(0, 1)  # (M, B, T)
    padded = functional.pad(power, (ROOM_FRAMES - 1, 0))
    heard = functional.conv1d(padded, echoes.flip(1).unsqueeze(1), groups=batch)
    heard = 0.5 * heard.clamp(min=MEL.floor**2).log10().transpose(0, 1)
    return heard + curve.unsqueeze(2)


def _between(bounds: tuple[float, float], share: Tensor) -> Tensor:
    return bounds[0] + (bounds[1] - bounds[0]) * share


def _uniform(bounds: tuple[float, float], count: int, generator: torch.Generator) -> Tensor:
    return _between(bounds, torch.rand(count, generator=generator)).view(-1, 1, 1)


def augment(log_mel: Tensor, generator: torch.Generator) -> Tensor:
    """Change the level of each sample, and add noise to some.

    A gain is exact on a log10 magnitude mel: it adds a constant above the floor. Noise adds in
    power with a random level and random tilt over the bands.

    Args:
        log_mel: (B, M, T) log10 mel-spectrograms, not standardised.
        generator: source of randomness.

    Returns:
        (B, M, T), new.
    """
    batch, bands, _ = log_mel.shape
    loudest = log_mel.mean(1, keepdim=True).amax(2, keepdim=True)  # (B, 1, 1)
    level = loudest + _uniform(NOISE_LOG10, batch, generator)
    tilt = torch.linspace(-0.5, 0.5, bands).view(1, -1, 1) * _uniform((-2, 2), batch, generator)
    noise = level + tilt + 0.25 * torch.randn(log_mel.shape, generator=generator)
    noisy = 0.5 * torch.logaddexp(2 * noise * np.log(10.0), 2 * log_mel * np.log(10.0))
    chosen = torch.rand(batch, 1, 1, generator=generator) < NOISE_SHARE
    log_mel = torch.where(chosen, noisy / np.log(10.0), log_mel)
    gain = _uniform(GAIN_DB, batch, generator) / DB_PER_LOG10
    return (log_mel + gain).clamp(min=FLOOR_LOG10)


# Batches


TEMPO = (0.85, 1.15)  # random factor on the rate of speech
VOCAL_TRACT = (0.92, 1.08)  # random factor on the bands, as a longer or shorter vocal tract
F0_ROOMS, CONTENT_ROOMS = 0.1, 0.3  # share of the samples; few, for WORLD's tails are voiced


def f0_batch(
    speech: Versions, *, batch_size: int, frames: int, seed: int, step: int
) -> tuple[Tensor, Tensor]:
    """Draw augmented crops; a clip shorter than a crop is continued by its mirror image.

    Returns:
        Log10 mel (B, 80, frames) and F0 (B, frames) Hz, 0 where unvoiced.
    """
    generator = generator_of(seed, step)
    mels, labels = [], []
    for mel, f0 in speech.draw(batch_size, generator):
        count = len(f0)
        first = int(torch.randint(max(count - frames, 0) + 1, (), generator=generator))
        places = (first + torch.arange(frames)) % (2 * count)
        places = torch.minimum(places, 2 * count - 1 - places)
        mels.append(mel[:, places])
        labels.append(f0[places])
    heard = another_recording(torch.stack(mels), generator, rooms=F0_ROOMS)
    return augment(heard, generator), torch.stack(labels)


def _stretch(x: Tensor, places: Tensor) -> Tensor:
    """Read the last axis of x at fractional places, linearly interpolated and held at the ends."""
    places = places.clamp(0, x.shape[-1] - 1)
    low = places.long().clamp(max=max(x.shape[-1] - 2, 0))
    high = (low + 1).clamp(max=x.shape[-1] - 1)
    return torch.lerp(x[..., low], x[..., high], places - low)


def content_batch(
    clips: Sequence[Clip],
    *,
    batch_size: int,
    seed: int,
    step: int,
    teacher: SpeechEncoder | None = None,
) -> tuple[Any, ...]:
    """Draw whole clips; vary rate of speech, vocal tract and recording at random.

    Returns:
        Log10 mel (B, 80, T), the last frame of a clip repeated as padding; mel frames (B,) of each
        clip; the characters of all as indices into SYMBOLS, and how many (B,) each clip has; with a
        teacher also what it hears in each clip as it was recorded, (T', F) at the times of the
        content network's own frames.
    """
    generator = generator_of(seed, step)
    rows = torch.randint(len(clips), (batch_size,), generator=generator)
    drawn = [clips[row] for row in rows.tolist()]
    tempi = _uniform(TEMPO, batch_size, generator).flatten().tolist()
    tracts = _uniform(VOCAL_TRACT, batch_size, generator).flatten().tolist()
    mels = []
    for clip, tempo, tract in zip(drawn, tempi, tracts, strict=True):
        mel = clip.log_mel()
        mel = _stretch(mel, torch.arange(int(mel.shape[1] / tempo)) * tempo)
        mels.append(_stretch(mel.T, torch.arange(mel.shape[0]) * tract).T)
    frames = torch.tensor([mel.shape[1] for mel in mels])
    places = torch.arange(int(frames.max()))
    padded = torch.stack([m[:, places.clamp(max=m.shape[1] - 1)] for m in mels])
    targets = [torch.tensor(encode(clip.item.transcript)) for clip in drawn]
    lengths = torch.tensor([len(target) for target in targets])
    heard = augment(another_recording(padded, generator, rooms=CONTENT_ROOMS), generator)
    if teacher is None:
        return heard, frames, torch.cat(targets), lengths
    wanted = []
    for clip, tempo, count in zip(drawn, tempi, (frames + 1) // 2, strict=True):
        told = teacher(clip.store.waveform(clip.item))
        apart = STRIDE * MEL.hop / MEL.sample_rate * tempo / teacher.hop_s  # of its frames
        wanted.append(_stretch(told.T, torch.arange(int(count)) * apart).T)
    return heard, frames, torch.cat(targets), lengths, wanted


# How the F0 and the content network learn, and how well they do on clips not trained on (A36, A37)


CLASS_BLUR = 1.0  # standard deviation, in classes, of the pitch asked for
LEAP = 0.15  # change of F0 between two frames that is taken for a mistake of WORLD's
VOICING_WEIGHT = 2.0  # beside the cross-entropy of the pitch
TAUGHT_WEIGHT = 10.0  # of the squared difference of cosines, beside CTC
GROSS_ERROR = 0.2  # relative pitch error that counts as gross


def hear(network: nn.Module, log_mel: Tensor, standardiser: Standardiser) -> Any:
    """Run the F0 or the content network on log10 mels (B, 80, T), on its own device."""
    device = next(network.parameters()).device
    return network(standardiser.standardise(log_mel).unsqueeze(1).to(device))


def pitch_losses(
    classes: Tensor, voicing: Tensor, place: Tensor, f0: Tensor, counted: Tensor
) -> dict[str, Tensor]:
    """Cross-entropy of the pitch over the frames that count, and of voicing over all.

    Args:
        classes: (B, T, K) logits of the classes of pitch.
        voicing: (B, T) logits of being voiced.
        place: (B, T) where on the scale of the classes F0 lies.
        f0: (B, T) Hz, 0 where unvoiced.
        counted: (B, T) bool.

    Returns:
        loss, pitch, voicing: scalars.
    """
    off = (torch.arange(classes.shape[-1], device=f0.device) - place.unsqueeze(-1)) / CLASS_BLUR
    wanted = (-0.5 * off.square()).softmax(-1)  # (B, T, K)
    cross = -(wanted * classes.log_softmax(-1)).sum(-1)
    pitch = (cross * counted).sum() / counted.sum().clamp(min=1)
    voiced = functional.binary_cross_entropy_with_logits(voicing, (f0 > 0).to(f0.dtype))
    return {"loss": pitch + VOICING_WEIGHT * voiced, "pitch": pitch, "voicing": voiced}


def f0_loss(network: F0Network, on: Standardiser, log_mel: Tensor, f0: Tensor) -> dict[str, Tensor]:
    """The losses of the F0 network on a batch of :func:`f0_batch`; see :func:`pitch_losses`.

    Frames whose F0 leaps do not count for the pitch: there WORLD itself is in doubt.
    """
    out: F0Output = hear(network, log_mel, on)
    f0 = f0.to(out.voicing.device)
    voiced = f0 > 0
    leap = (f0[:, 1:] - f0[:, :-1]).abs() > LEAP * f0[:, 1:].minimum(f0[:, :-1])
    leap &= voiced[:, 1:] & voiced[:, :-1]
    sure = voiced & ~(functional.pad(leap, (1, 0)) | functional.pad(leap, (0, 1)))
    return pitch_losses(out.classes, out.voicing, class_of(f0), f0, sure)


def content_loss(
    network: ContentNetwork,
    on: Standardiser,
    log_mel: Tensor,
    frames: Tensor,
    targets: Tensor,
    lengths: Tensor,
    wanted: Sequence[Tensor] = (),
) -> dict[str, Tensor]:
    """The CTC loss of a batch of :func:`content_batch`.

    With a teacher, the moments of a clip shall be alike in the features that L_sc compares where
    they are alike to the teacher (Tung and Mori 2019; A89).
    """
    mel = on.standardise(log_mel).unsqueeze(1).to(next(network.parameters()).device)
    features = network.features(mel)
    said = network.said(features).transpose(0, 1)  # (T', B, V)
    sizes = (frames + 1) // 2, lengths
    loss = functional.ctc_loss(said, targets, *sizes, blank=BLANK, zero_infinity=True)
    if not wanted:
        return {"loss": loss}
    off = [
        (similarities(own[:, : len(told)].T) - similarities(told.to(own.device))).square().mean()
        for own, told in zip(features, wanted, strict=True)
    ]
    taught = torch.stack(off).mean()
    return {"loss": loss + TAUGHT_WEIGHT * taught, "ctc": loss, "taught": taught}


def pitch_measures(tracks: Sequence[tuple[Tensor, Tensor]]) -> dict[str, float]:
    """Compare pitch with labels, clip by clip (T,) Hz each, 0 where unvoiced; at least one clip.

    Returns:
        Share of frames with wrong voicing; of frames voiced in both, if there are any, the share
        that is more than 20 % off, and the correlation in Hz where it is defined.
    """
    f0, pitch = (torch.cat(one) for one in zip(*tracks, strict=True))
    both = (f0 > 0) & (pitch > 0)
    found = {"voicing_error": float(((f0 > 0) != (pitch > 0)).double().mean())}
    pair = torch.stack((f0[both], pitch[both])).double()
    if pair.shape[1]:
        wrong = (pair[1] - pair[0]).abs() > GROSS_ERROR * pair[0]
        found["gross_pitch_error"] = float(wrong.double().mean())
    if pair.shape[1] > 1 and bool((pair.std(dim=1) > 0).all()):
        found["f0_correlation"] = float(torch.corrcoef(pair)[0, 1])
    return found


def edit_distance(one: Sequence[str], other: Sequence[str]) -> int:
    """Fewest insertions, deletions and substitutions, of characters or of words."""
    from rapidfuzz.distance import Levenshtein

    return Levenshtein.distance(one, other)


def character_error(pairs: Sequence[tuple[str, str]]) -> dict[str, float]:
    """Edits per character of the transcripts, given what was said and what was heard."""
    edits = sum(edit_distance(*pair) for pair in pairs)
    return {"character_error": edits / sum(len(said) for said, _ in pairs)}


@torch.no_grad()
def measures(
    name: str, network: Any, stores: Sequence[Store], standardiser: Standardiser
) -> dict[str, float]:
    """Measure the "f0" or the "content" network on clips not trained on, whole clips one by one.

    Returns:
        For each held-out split that has clips with a label: :func:`pitch_measures` against WORLD,
        or :func:`character_error` (greedy CTC), and the number of clips: `val/voicing_error`,
        `val/clips`; of F0 also per sex, `val/f/voicing_error`; with several stores also per corpus,
        `val/vctk/...` and `val/vctk/f/...`.
    """
    pairs: dict[str, list[Any]] = defaultdict(list)
    needs = "f0" if name == "f0" else "transcript"
    for split, store in itertools.product(HELD_OUT, stores):
        groups = [split, f"{split}/{store.corpus}"] if len(stores) > 1 else [split]
        for clip in held_out([store], split, needs=needs):
            if name == "f0":
                pair: Any = clip.f0(), track_of(network, clip, standardiser)
                sex = [f"{group}/{clip.item.gender}" for group in groups if clip.item.gender]
            else:
                said = spell(encode(clip.item.transcript))
                pair, sex = (said, heard_of(network, clip, standardiser)), []
            for group in groups + sex:
                pairs[group].append(pair)
    found: dict[str, float] = {}
    for group, some in pairs.items():
        one = pitch_measures(some) if name == "f0" else character_error(some)
        one["clips"] = float(len(some))
        found |= {f"{group}/{key}": value for key, value in one.items()}
    return found


def track_of(network: F0Network, clip: Clip, standardiser: Standardiser) -> Tensor:
    """Return the pitch (T,) Hz of a clip as the network finds it, 0 where unvoiced."""
    return track(hear(network, clip.log_mel()[None], standardiser))[0].cpu()


def heard_of(network: ContentNetwork, clip: Clip, standardiser: Standardiser) -> str:
    """Return what the network hears in a clip."""
    return decode(hear(network, clip.log_mel()[None], standardiser)[0].cpu())
