"""Has a model learnt? Measures of a checkpoint on people's utterances and faces not trained on.

The protocol: every face and two crops of every utterance of the held-out split give a style each
(retrieval). Then 16 sources are converted after 32 references, spread over all speakers, with
styles from faces, from voices and from latent codes; classifiers of real samples read the
outputs. All of it with the averaged networks. Goals are this project's for the corpus `mini`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from xfavot.audio.mel import LOUDEST, MEL
from xfavot.convert.converter import pad_frames
from xfavot.data.store import GENDERS, Store
from xfavot.errors import DataError
from xfavot.evaluation.classifiers import (
    AT_ONCE,
    Classifiers,
    Labelled,
    People,
    Reading,
    classifiers_of,
    read,
    speakers_of,
)
from xfavot.evaluation.matching import StyleSpace, retrieval
from xfavot.evaluation.rows import AT_MOST, Row, row
from xfavot.evaluation.voices import agreement
from xfavot.models import device_of
from xfavot.training.checkpoint import LoadedModel
from xfavot.training.speech import decode, edit_distance, encode, spell

SPLIT = "val"
SOURCES, REFERENCES = 16, 32
KINDS = {"face": "image", "voice": "audio"}
BY_SEX, BY_SPEAKER = "latent code and sex", "latent code and speaker"
MOST_CLIPS = 16
CONTENT_REFERENCES = 4  # a clip
REAL = {"speaker": "speaker of real samples", "gender": "sex of real samples"}
REAL["pose"] = "error of pose"
GOAL_SEX = 0.95
GOAL_IDENTITY = {"voice": 0.50, "face": 0.40}
GOAL_POSE = 0.5  # of the difference between random faces
GOAL_DIVERSITY = 0.5  # of the difference between the references' own faces
GOAL_GRID = 1.1  # of the power of the frequencies beside

Log = Callable[[str], None]


class Grid(NamedTuple):
    """Conversions of S sources, each guided by R references.

    Args:
        guidance: what gave the styles: "face", "voice" or a latent code.
        output: "face" or "voice".
        x: (S, R, ...), faces or log10 mels.
        source, reference: who they are; ``reference.x`` holds real samples of the kind of the
            output, of the references' speakers.
    """

    guidance: str
    output: str
    x: Tensor
    source: Labelled
    reference: Labelled

    @property
    def task(self) -> str:
        """The task, such as "a2i"."""
        return f"{KINDS.get(self.guidance, 'z')[0]}2{KINDS[self.output][0]}"


def measures(grid: Grid, classifiers: Classifiers, *, random_pose: float) -> list[Row]:
    """Read all outputs of a grid with the classifiers.

    Args:
        grid: the conversions.
        classifiers: of faces and voices, on the grid's device.
        random_pose: mean difference of pose between random real faces, used where it is known.

    Returns:
        Rows for sex, identity, pose, diversity and detail of faces; goals for identity and
        diversity only where a face or a voice guides.
    """
    classifier = getattr(classifiers, grid.output)
    entry, source, reference = partial(row, grid.task, grid.guidance), grid.source, grid.reference
    own = {what: classifiers.accuracy.get(f"{grid.output}/{what}") for what in Reading._fields}
    flat = read(classifier, grid.x.flatten(0, 1))
    seen = Reading(*(part.view(*grid.x.shape[:2], -1) for part in flat))  # (S, R, ...)
    other = source.speaker[:, None] != reference.speaker
    crossed = source.gender[:, None] != reference.gender
    right, rows = seen.gender.argmax(2) == reference.gender, list[Row]()
    known: dict[str, Any]
    for name, chosen in (("all", other), ("cross-sex", crossed), ("same-sex", other & ~crossed)):
        if bool(chosen.any()):
            known = {"chance": 0.5, "judge": own["gender"], "goal": GOAL_SEX}
            metric = f"sex of the reference, {name} pairs"
            rows.append(entry(metric, *_mean(right[chosen]), **known))
    if grid.guidance != BY_SEX:  # the style came from one person
        right = seen.speaker.argmax(2) == reference.speaker
        goal = GOAL_IDENTITY[grid.output] if grid.guidance in KINDS else None
        known = {"chance": 1 / seen.speaker.shape[2], "judge": own["speaker"], "goal": goal}
        rows.append(entry("identity of the reference", *_mean(right[other]), **known))
    posed = other & source.pose.isfinite().all(1)[:, None]
    if own["pose"] is not None and bool(posed.any()):
        value, n = _mean((seen.pose - source.pose[:, None]).abs().mean(2)[posed])
        known = {"chance": random_pose, "judge": own["pose"]}
        rows.append(entry("error of the source's pose", value, n, **known))
        known = {"chance": 1.0, "judge": own["pose"] / random_pose, "goal": GOAL_POSE}
        metric = "error of pose over that of random faces"
        rows.append(entry(metric, value / random_pose, n, **known, sense=AT_MOST))
    apart = (reference.speaker[:, None] != reference.speaker).triu(1)  # (R, R)
    within = apart & (reference.gender[:, None] == reference.gender)
    spaces = {
        "L1": (grid.x.flatten(2), reference.x.flatten(1)),
        "judge's features": (seen.features, read(classifier, reference.x).features),
    }
    for space, (outputs, real) in spaces.items():
        for label, pairs in (("", apart), (" of one sex", within)):
            value, n = spread(outputs, pairs, source.speaker, reference.speaker)
            value /= float(torch.cdist(real, real, p=1.0)[pairs].mean()) / real.shape[1]
            asked = grid.output == "face" and grid.guidance in KINDS and space == "L1" and not label
            goal = GOAL_DIVERSITY if asked else None
            metric = f"diversity over the references{label}, {space}"
            rows.append(entry(metric, value, n, chance=0.0, goal=goal))
    if grid.output == "face":
        made, real = grid.x.flatten(0, 1), torch.cat([source.x, reference.x])
        sharp, lines, own_lines = detail(made, real)
        rows.append(entry("power of the highest octave over that of real faces", sharp, len(made)))
        known = {"judge": own_lines, "goal": GOAL_GRID, "sense": AT_MOST}
        rows.append(
            entry("power at the generator's grid over beside it", lines, len(made), **known)
        )
    return rows


def detail(x: Tensor, real: Tensor) -> tuple[float, float, float]:
    """How sharp faces are, and how much of the generator's grid is in them.

    Enlargement by two and by four leaves lines at half and a quarter of the sampling frequency.

    Args:
        x, real: (n, 3, H, H) outputs and real faces.

    Returns:
        The outputs' power in the highest octave of frequencies over that of real faces; the power
        at such lines over that of the frequencies beside, at most of both lines and axes, of the
        outputs and of real faces.
    """
    size = x.shape[-1]
    window = torch.hann_window(size, periodic=False, device=x.device)

    def power(faces: Tensor) -> Tensor:
        grey = faces.mean(1) - faces.mean((1, 2, 3))[:, None, None]
        spectrum: Tensor = torch.fft.fft2(grey * window[:, None] * window)
        return spectrum.abs().square().mean(0)

    def at_lines(spectrum: Tensor) -> float:
        axes = torch.stack([spectrum.mean(0), spectrum.mean(1)])
        places = torch.tensor([size // 4, size // 2])
        return float((2 * axes[:, places] / (axes[:, places - 1] + axes[:, places + 1])).max())

    outputs, originals = power(x), power(real)
    frequency = torch.fft.fftfreq(size, device=x.device)  # cycles a pixel
    radius = torch.hypot(frequency[:, None], frequency)
    top = (radius > 0.25) & (radius <= 0.5)
    sharp = float(outputs[top].sum() / originals[top].sum())
    return sharp, at_lines(outputs), at_lines(originals)


def _mean(values: Tensor) -> tuple[float, int]:
    return float(values.float().mean()), len(values)


def spread(x: Tensor, pairs: Tensor, source: Tensor, reference: Tensor) -> tuple[float, int]:
    """Mean L1 per element between outputs of one source under two references.

    Args:
        x: (S, R, D).
        pairs: (R, R) bool, which references are compared.
        source, reference: (S,), (R,) speaker codes; outputs where they are equal are left out.

    Returns:
        The mean, and the number of pairs behind it.
    """
    distance = torch.cdist(x, x, p=1.0) / x.shape[2]  # (S, R, R)
    other = source[:, None] != reference
    return _mean(distance[pairs & other[:, :, None] & other[:, None, :]])


def random_difference(pose: Tensor) -> float:
    """Mean absolute difference between the poses (n, 2) of two faces; NaN with less than two."""
    pose = pose[pose.isfinite().all(1)]
    return float(torch.pdist(pose, p=1.0).mean()) / pose.shape[1]


def kept(model: LoadedModel, grid: Grid, people: People, style: Tensor) -> list[Row]:
    """Measure what a converted voice keeps: words (character error) and melody (log pitch).

    Args:
        model: the checkpoint, whose own content and F0 network listen.
        grid: names the rows.
        people: whose whole clips are converted; those without a transcript do not count for the
            words.
        style: (R, S) of the references; each clip meets some of them in turn.

    Returns:
        Rows without goals.
    """
    errors: list[list[int]] = []  # characters said, errors in the source and in each output
    correlations: list[float] = []
    chosen = range(0, len(people.clips), -(-len(people.clips) // MOST_CLIPS))
    steps = torch.arange(CONTENT_REFERENCES) * len(style) // CONTENT_REFERENCES
    for number, index in enumerate(chosen):
        x = model.standardiser.standardise(people.clips[index].to(style.device))
        x = pad_frames(x)[None, None]  # (1, 1, 80, T)
        x = torch.cat([x, _heard(model, x, style[(steps + number) % len(style)])])
        if said := spell(encode(people.transcripts[index])):
            texts = map(decode, model.content(x).cpu())
            errors.append([len(said), *(edit_distance(said, text) for text in texts)])
        out = model.f0(x)
        source, *made = (out.pitch * (out.voicing > 0)).cpu().numpy()
        found = (agreement(source, one)[1] for one in made)
        correlations += [one for one in found if one is not None]
    entry, rows = partial(row, grid.task, grid.guidance), []
    if errors:
        characters, own, *others = np.sum(errors, axis=0).tolist()
        error, n = sum(others) / (characters * len(others)), len(chosen) * CONTENT_REFERENCES
        rows.append(entry("character error", error, n))
        rows.append(entry("character error of the sources", own / characters, len(chosen)))
    if correlations:
        mean = sum(correlations) / len(correlations)
        rows.append(entry("correlation of log pitch", mean, len(correlations), chance=0.0))
    return rows


def evaluate_learning(
    model: LoadedModel, stores: Sequence[Store], *, seed: int, device: str, on_log: Log
) -> list[Row]:
    """Measure what a checkpoint has learnt, on samples it was not trained on.

    Args:
        model: the checkpoint, whose networks are moved to the device.
        stores: the audio-visual prepared stores.
        seed: of the draws of sources, references, latent codes and pairs.
        device: where the networks run, as torch names it, or "auto".
        on_log: receives a line a part.

    Returns:
        Tidy rows, see :func:`xfavot.evaluation.rows.row`; each also says run, step, data, seed.
        None, with the reason in the log, where the stores have no women and men with both face and
        voice in both splits, which is no error of a mixture of faces or voices alone.

    Raises:
        ConfigError: there is no such device.
    """
    try:
        speakers_of(stores, ("train", SPLIT))
    except DataError as error:
        on_log(f"what was learnt is not measured: {error}")
        return []
    place = device_of(device)
    for module in (model.nets, model.f0, model.content):
        module.to(place)
    model = dataclasses.replace(model, standardiser=model.standardiser.to(place))
    classifiers, people = classifiers_of(model, stores, device=place, on_log=on_log)
    samples = {"face": people.faces, "voice": people.voices(model.config.model.mel_frames)}
    samples = {kind: samples[kind].to(place) for kind in model.trained_outputs()}
    rng = torch.Generator().manual_seed(seed)
    sources, references = (
        {k: v.take(draw(v.speaker, people.gender, count, rng)) for k, v in samples.items()}
        for count in (SOURCES, REFERENCES)
    )
    rows, chances = [], {"speaker": 1 / len(people.speakers), "gender": 0.5}
    for key, value in classifiers.accuracy.items():
        kind, what = key.split("/")
        if kind in samples:
            known = f"judge of {kind}s", "", REAL[what], value, len(samples[kind].x)
            rows.append(row(*known, chance=chances.get(what)))
    random_pose = random_difference(people.faces.pose)
    with torch.inference_mode():
        if len(samples) == len(KINDS):
            styles = [styles_of(model, kind, one) for kind, one in samples.items()]
            kinds = np.repeat([*samples], [*map(len, styles)])
            speaker = torch.cat([one.speaker for one in samples.values()]).cpu().numpy()
            names = people.speakers, [GENDERS[code] for code in people.gender]
            space = StyleSpace(torch.cat(styles).cpu().numpy(), kinds, speaker, *names)
            rows += retrieval(space, seed=seed)
        for guidance, style in _styles(model, people, references, seed):
            for kind, source in sources.items():
                x = torch.stack([converted(model, kind, one, style) for one in source.x])
                grid = Grid(guidance, kind, x, source, references[kind])
                rows += measures(grid, classifiers, random_pose=random_pose)
                if kind == "voice" and guidance in KINDS:
                    rows += kept(model, grid, people, style)
                on_log(f"{grid.task}, {guidance}: done")
    said = {
        "run": model.config.name,
        "step": model.step,
        "dataset": "+".join(s.corpus for s in stores),
        "manifest": "+".join(s.manifest_hash for s in stores),
        "split": SPLIT,
        "seed": seed,
        "judges": classifiers.key,
    }
    return [{**one, **said} for one in rows]


def draw(speaker: Tensor, gender: Tensor, count: int, rng: torch.Generator) -> Tensor:
    """Draw samples, women and men in turn while both last, then everybody again with new samples.

    Args:
        speaker: (n,) codes of the samples.
        gender: (K,) codes of the speakers.
        count: samples wanted.
        rng: source of randomness.

    Returns:
        (count,) rows of samples.
    """
    turn = torch.stack([(gender[:code] == one).sum() for code, one in enumerate(gender)])
    order = (2 * turn + gender).argsort().tolist()
    own = {code: (speaker.cpu() == code).nonzero().squeeze(1) for code in order}
    own = {code: rows[torch.randperm(len(rows), generator=rng)] for code, rows in own.items()}
    laps = [(order[n % len(order)], n // len(order)) for n in range(count)]
    return torch.stack([own[code][lap % len(own[code])] for code, lap in laps])


def styles_of(model: LoadedModel, kind: str, samples: Labelled) -> Tensor:
    """Styles (n, S) of "face" or "voice" samples, by the heads of their own genders."""
    x, encoder = samples.x, model.nets.get_submodule("E_I" if kind == "face" else "E_A")
    if kind == "voice":
        x = model.standardiser.standardise(x).unsqueeze(1)
    parts = zip(torch.split(x, AT_ONCE), torch.split(samples.gender, AT_ONCE), strict=True)
    return torch.cat([encoder(*part) for part in parts])


def _styles(
    model: LoadedModel, people: People, references: Mapping[str, Labelled], seed: int
) -> Iterator[tuple[str, Tensor]]:
    """Guidance and (R, S) styles; row r is of the r-th reference's speaker, or of the same sex."""
    for kind, reference in references.items():
        yield kind, styles_of(model, kind, reference)
    who = next(iter(references.values()))
    rng = torch.Generator().manual_seed(seed)
    z = torch.randn((len(who.x), model.config.model.latent_dim), generator=rng).to(who.x.device)
    yield BY_SEX, model.nets.M(z, who.gender)
    names = [people.speakers[code] for code in who.speaker]
    if model.config.train.dual_domain and set(names) <= set(model.speakers):
        heads = [model.nets.genders + model.speakers.index(name) for name in names]
        yield BY_SPEAKER, model.nets.M(z, torch.tensor(heads, device=z.device))


def converted(model: LoadedModel, kind: str, x: Tensor, style: Tensor) -> Tensor:
    """Convert a face (3, H, W) in [-1, 1] or a crop (80, T), log10, after styles (R, S)."""
    if kind == "face":
        made: Tensor = model.nets.G_I(x.expand(len(style), -1, -1, -1), style)
        return made.clamp(-1, 1)
    made = _heard(model, model.standardiser.standardise(x)[None, None], style).squeeze(1)
    return model.standardiser.restore(made).clamp(math.log10(MEL.floor), LOUDEST)


def _heard(model: LoadedModel, x: Tensor, style: Tensor) -> Tensor:
    """Convert a standardised mel (1, 1, 80, T) after styles (R, S): (R, 1, 80, T)."""
    many = x.expand(len(style), -1, -1, -1)
    heard = (one.expand(len(style), *one.shape[1:]) for one in model.nets.G_A.hear(model.f0, x))
    made: Tensor = model.nets.G_A(many, style, *heard)
    return made
