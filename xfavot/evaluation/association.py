"""Which face goes with which voice, learnt from few people: two heads on frozen encoders.

dlib's network of faces and Resemblyzer's of voices, or an encoder of speech that has local weights,
know real people far better than anything that some hundred of them could teach. Only the way from
one to the other is learnt: a linear head each, by the paper's own L_xm (Sec. 3.2), with nearly all
of the input dropped in every step, so that no head can learn its people by heart. What is reported
comes from people whom the heads have not met: people are dealt into folds, and everybody is judged
by the heads that the other folds trained.

The encoders run once. What they see and hear is kept in one array beside the results, row by row,
so that an interrupted reading goes on where it was, and a million clips need 0.9 GB.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.lib.format import open_memmap
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from xfavot.audio.io import save_waveform
from xfavot.convert.converter import Converter, Style
from xfavot.data.store import GENDERS, Item, Store, table_of
from xfavot.errors import DataError, refusing
from xfavot.evaluation import manifest
from xfavot.evaluation.face_encoder import FaceEncoder
from xfavot.evaluation.matching import KINDS, StyleSpace, cross_modal_rows, means
from xfavot.evaluation.rows import Row, csv_text, write_tables, writing
from xfavot.evaluation.voice_networks import SpeakerEncoder
from xfavot.files import whole
from xfavot.image.io import save_image, to_float
from xfavot.losses.terms import cross_modality_style_consistency
from xfavot.models.pretrained import SpeechEncoder
from xfavot.weights import recorded

FACE = 128  # values that dlib's network tells
RESEMBLYZER = "resemblyzer"
FRAMES = 4  # of a clip that are looked at, evenly spaced
UNUSABLE = np.inf  # first number of a row whose clip has no voice or face
LOG_EVERY = 1000  # clips
SPACE, TAU, RATE, DROPPED = 128, 0.1, 1e-3, 0.8  # size, temperature, step size, share of the input
MOST_PEOPLE = 512  # a step
FITTED_ON = 1 << 14  # clips, by which what the encoders tell is standardised
JUDGED, JUDGED_BY = 256, 6  # people at most, clips of each; intervals draw their pairs anew
PEOPLE, HEARD = 5, 3  # whose voices are mixed for a face, clips of each
LEAST = 1e-6  # deviation

Array = NDArray[Any]
Log = Callable[[str], None]


class Pairs(NamedTuple):
    """What the frozen encoders tell of clips with a face and a voice.

    Args:
        stores: where the clips lie.
        features: (n, 128 + V) float16, face before voice.
        place: (n, 2) number of the store, row in it.
        speaker: (n,) codes.
        speakers: their names, sorted.
        genders: "f", "m" or "" of each.
    """

    stores: Sequence[Store]
    features: Array
    place: Array
    speaker: Array
    speakers: Sequence[str]
    genders: Sequence[str]

    def of(self, kind: str, rows: Array) -> Tensor:
        """Vectors (n, F) of faces or voices."""
        own = slice(0, FACE) if kind == "face" else slice(FACE, None)
        return torch.from_numpy(np.asarray(self.features[rows, own], dtype=np.float32))

    def clip(self, row: int) -> tuple[Store, Item]:
        """The clip of a row."""
        number, place = self.place[row]
        return self.stores[number], self.stores[number].items[int(place)]


def read_pairs(
    stores: Sequence[Store], folder: Path, log: Log, *, voices: str = RESEMBLYZER
) -> Pairs:
    """Let the encoders read every clip with faces and speech of a known speaker.

    Args:
        stores: prepared stores, all splits of which are read.
        folder: where what they tell is kept, by store; it is gone on with.
        log: takes a line now and then.
        voices: their encoder: resemblyzer, or the folder of an encoder of speech among the weights
            (:class:`xfavot.models.pretrained.SpeechEncoder`).

    Raises:
        DataError: fewer than four people, or the folder cannot be written.
        WeightsError: an encoder's weights are missing, or do not fit.
    """
    parts, places, names, sexes = [], [], [], []
    for number, store in enumerate(stores):
        table = table_of(store.items)
        known = np.asarray(table["speakers"]) != ""
        wanted = (table["face_count"] > 0) & (table["frame_count"] > 0) & known[table["speaker"]]
        rows = np.flatnonzero(wanted)
        if not len(rows):
            continue
        own = "" if voices == RESEMBLYZER else f"_{voices}"
        file = folder / f"{store.corpus}_{store.manifest_hash}{own}.npy"
        features = _features(store, rows, file, voices, log)
        usable = np.isfinite(features[:, 0])
        parts.append(features if usable.all() else features[usable])
        rows = rows[usable]
        places.append(np.stack([np.full_like(rows, number), rows], axis=1))
        names.append(np.asarray(table["speakers"])[table["speaker"][rows]])
        sexes.append(np.array([*GENDERS, ""])[table["gender"][rows]])
    every, sex = np.concatenate([[], *names]).astype(str), np.concatenate([[], *sexes]).astype(str)
    speakers, first, code = np.unique(every, return_index=True, return_inverse=True)
    if len(speakers) < 4:
        raise DataError(
            f"association: {len(speakers)} people with faces and speech; expected four at least, "
            "better a hundred; prepare a corpus such as voxceleb"
        )
    features = parts[0] if len(parts) == 1 else np.concatenate(parts)
    place = np.concatenate(places)
    return Pairs(stores, features, place, code, speakers.tolist(), sex[first].tolist())


def _features(store: Store, rows: Array, file: Path, voices: str, log: Log) -> Array:
    """(n, 128 + V) of some clips of a store: what was kept, and what was missing."""
    other = None if voices == RESEMBLYZER else SpeechEncoder(voices)
    shape = len(rows), FACE + (other or SpeakerEncoder).size
    advice = "expected a writable folder with room; or remove it, so that it is made again"
    with refusing((OSError, ValueError), DataError, f"{file} cannot be used", advice):
        if not file.exists():
            with whole(file) as draft:
                open_memmap(draft, "w+", np.float16, shape)[:] = np.nan
        kept = open_memmap(file, "r+")
        if kept.shape != shape or kept.dtype != np.float16:
            raise ValueError(f"{kept.shape} {kept.dtype}; expected {shape} float16")
    missing = np.flatnonzero(np.isnan(kept[:, 0]))
    if not len(missing):
        return kept
    face, voice = FaceEncoder(), other or SpeakerEncoder()
    for done, n in enumerate(missing, 1):
        item = store.items[int(rows[n])]
        try:
            told = np.concatenate([_face(face, store, item), voice.embed(store.waveform(item))])
            kept[n, 1:] = told[1:]
            kept[n, 0] = told[0]  # last: now the row is whole
        except DataError as error:
            kept[n, 0] = UNUSABLE
            log(f"left out: {item.id}: {error}")
        if done % LOG_EVERY == 0 or done == len(missing):
            log(f"{store.corpus}: {done} of {len(missing)} clips were read")
    kept.flush()
    return kept


@torch.no_grad()
def _face(encoder: FaceEncoder, store: Store, item: Item) -> Array:
    """(128,) mean of some faces of a clip, of length 1."""
    chosen = np.linspace(0, item.face_count - 1, min(FRAMES, item.face_count)).round().astype(int)
    pixels = np.stack([store.face(item, int(i)) for i in chosen])
    told = encoder(to_float(torch.from_numpy(pixels).permute(0, 3, 1, 2))).mean(0)
    return functional.normalize(told, dim=0).double().numpy()


class Heads(nn.Module):
    """Two linear maps into a space in which a person's face and voice meet; unit vectors.

    Args:
        voice: values that the encoder of voices tells.
        size: of that space.
    """

    def __init__(self, *, voice: int = 256, size: int = SPACE) -> None:
        """Make them; vectors of the encoders are standardised first."""
        super().__init__()
        self.voice, widths = voice, {"face": FACE, "voice": voice}
        self.net = nn.ModuleDict({kind: nn.Linear(width, size) for kind, width in widths.items()})
        for kind, width in widths.items():
            self.register_buffer(f"{kind}_mean", torch.zeros(width))
            self.register_buffer(f"{kind}_deviation", torch.ones(width))

    def fit_scale(self, kind: str, x: Tensor) -> None:
        """Take mean and deviation of vectors (n, F)."""
        deviation, mean = torch.std_mean(x, dim=0, correction=0)
        self.get_buffer(f"{kind}_mean").copy_(mean)
        self.get_buffer(f"{kind}_deviation").copy_(deviation.clamp(min=LEAST))

    def forward(self, kind: str, x: Tensor, *, dropped: float = 0.0) -> Tensor:
        """Map vectors (n, F) of faces or voices to (n, E)."""
        x = (x - self.get_buffer(f"{kind}_mean")) / self.get_buffer(f"{kind}_deviation")
        return functional.normalize(self.net[kind](functional.dropout(x, dropped)), dim=1)


def fit(pairs: Pairs, people: Array, *, steps: int, seed: int) -> Heads:
    """Train heads by L_xm on some people: in each step a face and a voice of everybody.

    Args:
        pairs: what the encoders tell.
        people: codes of those who may be learnt from; more than 512 take turns.
        steps: of Adam.
        seed: of weights, draws and what is dropped.
    """
    rng = np.random.default_rng(seed)
    order = np.flatnonzero(np.isin(pairs.speaker, people))
    order = order[np.argsort(pairs.speaker[order], kind="stable")]
    codes, first, count = np.unique(
        pairs.speaker[order], return_index=True, return_counts=True
    )  # everybody's rows lie together
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        heads = Heads(voice=pairs.features.shape[1] - FACE)
        some = np.sort(rng.permutation(order)[:FITTED_ON])
        for kind in KINDS:
            heads.fit_scale(kind, pairs.of(kind, some))
        optimiser = torch.optim.AdamW(heads.parameters(), RATE)
        for _ in range(steps):
            here = rng.permutation(len(codes))[:MOST_PEOPLE]
            drawn = (first[here] + rng.integers(count[here]) for _ in KINDS)
            face, voice = (
                heads(kind, pairs.of(kind, order[rows]), dropped=DROPPED)
                for kind, rows in zip(KINDS, drawn, strict=True)
            )
            speaker = torch.from_numpy(codes[here])
            loss = cross_modality_style_consistency(face, voice, speaker, tau=TAU, form="symmetric")
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
    return heads.eval()


def deal(genders: Sequence[str], folds: int, seed: int) -> Array:
    """(K,) fold of everybody; each has as many women, and men, as any other, or one more.

    Of more than 256 people, those beyond have -1: they are learnt from and not judged.
    """
    rng, fold = np.random.default_rng(seed), np.full(len(genders), -1)
    people = rng.permutation(len(genders))[:JUDGED]
    order = people[np.argsort(np.array(genders)[people], kind="stable")]
    fold[order] = np.arange(len(order)) % folds
    return fold


class Judged(NamedTuple):
    """How well heads match people that they were not trained on.

    Args:
        rows: as :func:`xfavot.evaluation.matching.cross_modal_rows` gives them.
        heads: one of each fold, trained on the others.
        learnt: people that everybody was judged by, at most.
    """

    rows: list[Row]
    heads: list[Heads]
    learnt: int


def judged(pairs: Pairs, fold: Array, *, people: int = 0, steps: int, seed: int) -> Judged:
    """Measure how well heads match people that they were not trained on.

    Args:
        pairs: what the encoders tell.
        fold: (K,) of everybody (:func:`deal`); people of one fold are compared with each other.
        people: to learn from, a fold; 0: all of the other folds.
        steps: of the training.
        seed: of draws and weights.
    """
    rng, learnt, trained = np.random.default_rng(seed), 0, list[Heads]()
    styles, rows = list[Tensor](), list[Array]()
    for number in range(int(fold.max()) + 1):
        others = rng.permutation(np.flatnonzero(fold != number))[: people or None]
        learnt = max(learnt, len(others))
        trained.append(heads := fit(pairs, others, steps=steps, seed=seed))
        rows.append(own := _drawn(pairs, np.flatnonzero(fold == number), rng))
        with torch.no_grad():
            styles.append(torch.stack([heads(kind, pairs.of(kind, own)) for kind in KINDS]))
    made = torch.cat(styles, dim=1)
    return Judged(_compared(pairs, fold, made, np.concatenate(rows), seed=seed), trained, learnt)


def _drawn(pairs: Pairs, people: Array, rng: np.random.Generator) -> Array:
    """Rows of some clips of everybody."""
    own = (np.flatnonzero(pairs.speaker == person) for person in people)
    return np.concatenate([rng.permutation(rows)[:JUDGED_BY] for rows in own])


def judged_styles(converter: Converter, pairs: Pairs, fold: Array, *, seed: int) -> list[Row]:
    """Measure a model's own styles as :func:`judged` measures heads, on the same people."""
    styles = list[Tensor]()
    rows = _drawn(pairs, np.flatnonzero(fold >= 0), np.random.default_rng(seed))
    for row in rows:
        (store, item), gender = pairs.clip(row), pairs.genders[pairs.speaker[row]] or None
        face = store.face(item, item.face_count // 2)
        seen = converter.style_of_face(face, gender=gender, aligned=True)
        heard = converter.style_of_voice(store.waveform(item), gender=gender)
        styles.append(torch.stack([seen.vector, heard.vector]))
    return _compared(pairs, fold, torch.cat(styles, dim=1).cpu(), rows, seed=seed)


def _compared(pairs: Pairs, fold: Array, styles: Tensor, rows: Array, *, seed: int) -> list[Row]:
    """Compare faces and voices (2, n, S) of some clips within the folds of their people."""
    unit = functional.normalize(styles.double(), dim=2).flatten(0, 1).numpy()
    who, kinds = np.tile(pairs.speaker[rows], len(KINDS)), np.repeat(KINDS, len(rows))
    people, code = np.unique(who, return_inverse=True)
    named = ([side[one] for one in people] for side in (pairs.speakers, pairs.genders))
    space = StyleSpace(unit, kinds, code, *named)
    return cross_modal_rows(space, seed=seed, groups=fold[people].tolist())


def voices_of(heads: Heads, pairs: Pairs, people: Array) -> tuple[Array, Tensor]:
    """Where people's voices are: their codes, sorted, and unit means (K, E)."""
    rows = np.flatnonzero(np.isin(pairs.speaker, people))
    codes, code = np.unique(pairs.speaker[rows], return_inverse=True)
    with torch.no_grad():
        voices = heads("voice", pairs.of("voice", rows))
    return codes, means(voices, torch.from_numpy(code), len(codes))


def nearest(heads: Heads, pairs: Pairs, row: int, voices: tuple[Array, Tensor]) -> Array:
    """Order people by how well their voices (:func:`voices_of`) go with the face of a clip."""
    with torch.no_grad():
        face = heads("face", pairs.of("face", np.array([row])))[0]
    codes, places = voices
    return np.asarray(codes[(places @ face).argsort().numpy()[::-1]])


def style_of(converter: Converter, pairs: Pairs, people: Array) -> Style:
    """Encode how some people speak on average, with the first one's gender."""
    gender, styles = pairs.genders[int(people[0])] or None, list[Style]()
    for code in people:
        for row in np.flatnonzero(pairs.speaker == code)[:HEARD]:
            store, item = pairs.clip(int(row))
            styles.append(converter.style_of_voice(store.waveform(item), gender=gender))
    return replace(styles[0], vector=torch.cat([one.vector for one in styles]).mean(0, True))


def speak(
    converter: Converter,
    pairs: Pairs,
    fold: Array,
    heads: Sequence[Heads],
    folder: Path,
    *,
    conversions: int,
    seed: int,
) -> Path:
    """Give faces a voice: that of the five people whose voices go best with them, by a converter.

    Heads and voices are the other folds', so that neither knows whom the face shows. Beside it: the
    source as it is, and its conversion after the true voice.

    Args:
        converter: of voices.
        pairs: what the encoders tell.
        fold: (K,) of everybody (:func:`deal`).
        heads: one of each fold (:func:`judged`).
        folder: of the sounds, the pictures and the list.
        conversions: at most; each of another face, from the voice of somebody else of its fold.
        seed: of all draws.

    Returns:
        The manifest, which `evaluate.ipynb` scores.

    Raises:
        DataError: the folder cannot be written.
    """
    rng, rows = np.random.default_rng(seed), list[dict[str, Any]]()
    chosen = rng.permutation(np.flatnonzero(fold >= 0))[:conversions]
    for number in np.unique(fold[chosen]):
        voices = voices_of(heads[number], pairs, np.flatnonzero(fold != number))
        for code in chosen[fold[chosen] == number]:
            name = f"{code:03}"
            row = int(np.flatnonzero(pairs.speaker == code)[0])
            here = np.flatnonzero((fold[pairs.speaker] == number) & (pairs.speaker != code))
            (store, item), (other, said) = pairs.clip(row), pairs.clip(int(rng.choice(here)))
            with writing(folder):
                save_image(folder / f"{name}_face.png", store.face(item, item.face_count // 2))
                save_waveform(folder / f"{name}_voice.wav", store.waveform(item))
                save_waveform(folder / f"{name}_source.wav", other.waveform(said))
            near = nearest(heads[number], pairs, row, voices)[:PEOPLE]
            for style, made in (
                (style_of(converter, pairs, near), "association"),
                (style_of(converter, pairs, np.array([code])), "true"),
            ):
                voice = converter.convert_voice(other.waveform(said), style=style)
                voice.save(folder / f"{name}_{made}.wav")
            known = {
                "speaker": pairs.speakers[code],
                "gender": pairs.genders[code],
                "transcript": said.transcript,
            }
            for model, task, reference, output in (
                ("association", "i2a", "face.png", "association"),
                ("after the true voice", "a2a", "voice.wav", "true"),
                ("unconverted", "i2a", "face.png", "source"),
            ):
                files = {"reference": reference, "source": "source.wav", "output": f"{output}.wav"}
                named = {role: f"{name}_{file}" for role, file in files.items()}
                rows.append({"task": task, "model": model, **named, **known})
    columns = (*manifest.REQUIRED, *manifest.OPTIONAL)
    write_tables(folder, {"manifest.csv": csv_text(rows, columns)})
    return folder / "manifest.csv"


def save(heads: Heads, file: Path, **known: Any) -> None:
    """Write heads with what is known of them; :func:`load` reads them.

    Raises:
        TrainingError: the file cannot be written.
    """
    record = {"network": "association", "contract": {"face": FACE}, **known}
    record["arguments"] = {"voice": heads.voice}
    recorded.write(file, heads, record)


def load(file: Path | str) -> Heads:
    """Read heads that :func:`save` wrote.

    Raises:
        WeightsError: the file is missing, damaged or something else.
    """
    network, _ = recorded.load(file, {"association": Heads})
    assert isinstance(network, Heads)
    return network
