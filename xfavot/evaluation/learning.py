"""Has a model learnt? Measures of a checkpoint on people's utterances and faces not trained on.

The protocol: every face and two crops of every utterance of the held-out split give a style each
(retrieval). Then 16 sources are converted after 32 references, spread over all speakers, with
styles from faces, from voices and from latent codes; classifiers of real samples read the
outputs. All of it with the averaged networks. Goals are this project's for the corpus `mini`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from xfavot.audio.mel import LOUDEST, MEL
from xfavot.convert.converter import pad_frames
from xfavot.data.store import Store
from xfavot.errors import DataError
from xfavot.evaluation.classifiers import (
    AT_ONCE,
    Classifiers,
    People,
    classifiers_of,
    read,
    speakers_of,
)
from xfavot.evaluation.matching import retrieval
from xfavot.evaluation.protocol import results_folder
from xfavot.evaluation.rows import AT_MOST, Row, row, save
from xfavot.models import device_of
from xfavot.models.content import SYMBOLS
from xfavot.training.checkpoint import LoadedModel, load_model
from xfavot.training.speech import decode, edit_distance, encode

SPLIT = "val"
SOURCES, REFERENCES = 16, 32
KINDS = {"face": "image", "voice": "audio"}
GUIDANCES = {"face": "i", "voice": "a", "latent code and sex": "z", "latent code and speaker": "z"}
MOST_CLIPS = 16
CONTENT_REFERENCES = 4  # a clip
LEAST_VOICED = 10  # frames voiced in source and output
GOAL_SEX = 0.95
GOAL_IDENTITY = {"voice": 0.50, "face": 0.40}
GOAL_POSE = 0.5  # of the difference between random faces
GOAL_DIVERSITY = 0.5  # of the difference between the references' own faces

Log = Callable[[str], None]


@dataclass(frozen=True, slots=True, eq=False)
class Side:
    """Samples in one role: x (n, ...) and codes (n,)."""

    x: Tensor
    speaker: Tensor
    gender: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Grid:
    """Conversions of S sources, each guided by R references.

    Args:
        task: "a2i" and so on.
        guidance: what gave the styles.
        output: "face" or "voice".
        x: (S, R, ...), faces or log10 mels.
        source, reference: who they are; ``reference.x`` holds real samples of the kind of the
            output, of the references' speakers.
        named: the style came from one person, not from a latent code and a sex alone.
        sought: the goals for identity and diversity apply.
    """

    task: str
    guidance: str
    output: str
    x: Tensor
    source: Side
    reference: Side
    named: bool
    sought: bool


def measures(grid: Grid, judges: Classifiers, *, pose: Tensor, random_pose: float) -> list[Row]:
    """Read all outputs of a grid with the classifiers.

    Args:
        grid: the conversions.
        judges: of faces and voices, on the grid's device.
        pose: (S, 2) true pose of source faces; NaN where unknown; (S, 0) for voices.
        random_pose: mean difference of pose between random real faces, used where it is known.

    Returns:
        Rows for sex, identity, pose and diversity.
    """
    judge = judges.face if grid.output == "face" else judges.voice
    entry = partial(row, grid.task, grid.guidance)
    shape = grid.x.shape[:2]
    seen = read(judge, grid.x.flatten(0, 1))
    other = grid.source.speaker[:, None] != grid.reference.speaker[None]  # (S, R)
    crossed = grid.source.gender[:, None] != grid.reference.gender[None]
    right = seen.gender.argmax(1).view(shape) == grid.reference.gender[None]
    own = judges.accuracy[f"{grid.output}/gender"]
    rows = []
    for name, chosen in (("all", other), ("cross-sex", crossed), ("same-sex", other & ~crossed)):
        if bool(chosen.any()):
            value, n = float(right[chosen].float().mean()), int(chosen.sum())
            metric = f"sex of the reference, {name} pairs"
            rows.append(entry(metric, value, n, chance=0.5, judge=own, goal=GOAL_SEX))
    if grid.named:
        right = seen.speaker.argmax(1).view(shape) == grid.reference.speaker[None]
        value, n = float(right[other].float().mean()), int(other.sum())
        goal = GOAL_IDENTITY[grid.output] if grid.sought else None
        chance, own = 1 / seen.speaker.shape[1], judges.accuracy[f"{grid.output}/speaker"]
        identity = "identity of the reference"
        rows.append(entry(identity, value, n, chance=chance, judge=own, goal=goal))
    posed = other & pose.isfinite().all(1)[:, None] if pose.shape[1] else other & False
    if bool(posed.any()):
        wrong = (seen.pose.view(*shape, 2) - pose[:, None]).abs().mean(2)[posed]
        value, n, own = float(wrong.mean()), len(wrong), judges.accuracy["face/pose"]
        rows.append(entry("error of the source's pose", value, n, chance=random_pose, judge=own))
        share = {"chance": 1.0, "judge": own / random_pose, "goal": GOAL_POSE}
        metric = "error of pose over that of random faces"
        rows.append(entry(metric, value / random_pose, n, **share, sense=AT_MOST))
    features = seen.features.view(*shape, -1)
    return rows + _diversity_rows(grid, features, read(judge, grid.reference.x).features)


def _diversity_rows(grid: Grid, features: Tensor, reference_features: Tensor) -> list[Row]:
    """Differences between outputs of one source over those between real reference samples."""
    speaker, gender = grid.reference.speaker, grid.reference.gender
    apart = (speaker[:, None] != speaker[None]).triu(1)  # (R, R)
    within = apart & (gender[:, None] == gender[None])
    spaces = (
        ("L1", grid.x.flatten(2), grid.reference.x.flatten(1)),
        ("judge's features", features, reference_features),
    )
    rows = []
    for space, outputs, own in spaces:
        for label, pairs in (("", apart), (" of one sex", within)):
            value, n = spread(outputs, pairs, grid.source.speaker, speaker)
            real = float(torch.cdist(own, own, p=1.0)[pairs].mean()) / own.shape[1]
            asked = grid.sought and grid.output == "face" and space == "L1" and not label
            goal = GOAL_DIVERSITY if asked else None
            metric = f"diversity over the references{label}, {space}"
            rows.append(
                row(grid.task, grid.guidance, metric, value / real, n, chance=0.0, goal=goal)
            )
    return rows


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
    other = source[:, None] != reference[None]
    chosen = pairs[None] & other[:, :, None] & other[:, None, :]
    return float(distance[chosen].mean()), int(chosen.sum())


def random_difference(pose: Tensor) -> float:
    """Mean absolute difference between the poses (n, 2) of two faces; NaN with less than two."""
    pose = pose[pose.isfinite().all(1)]
    if len(pose) < 2:
        return float("nan")
    distance = torch.cdist(pose, pose, p=1.0) / pose.shape[1]
    return float(distance.sum() / (len(pose) * (len(pose) - 1)))


def kept(
    model: LoadedModel,
    task: str,
    guidance: str,
    clips: Sequence[Tensor],
    transcripts: Sequence[str],
    style: Tensor,
) -> list[Row]:
    """Measure what a converted voice keeps: words (character error) and melody (log pitch).

    Args:
        model: the checkpoint, whose own content and F0 network listen.
        task, guidance: names for the rows.
        clips: whole source clips (80, T), log10.
        transcripts: of the clips; those without one do not count for the words.
        style: (R, S) of the references; each clip meets some of them in turn.

    Returns:
        Rows without goals.
    """
    edits, source_edits, characters, source_characters, count = 0, 0, 0, 0, 0
    correlations: list[float] = []
    chosen = range(0, len(clips), -(-len(clips) // MOST_CLIPS))
    steps = torch.arange(CONTENT_REFERENCES) * len(style) // CONTENT_REFERENCES
    for number, index in enumerate(chosen):
        s = style[(steps + number) % len(style)]
        x = model.standardiser.standardise(clips[index].to(style.device))
        x = pad_frames(x)[None, None]  # (1, 1, 80, T)
        features = model.f0.features(x).expand(len(s), -1, -1, -1)
        outputs = model.nets.G_A(x.expand(len(s), -1, -1, -1), s, features)
        count += len(s)
        said = "".join(SYMBOLS[code] for code in encode(transcripts[index]))
        if said:
            source_edits += edit_distance(said, decode(model.content(x)[0].cpu()))
            source_characters += len(said)
            heard = [decode(probabilities) for probabilities in model.content(outputs).cpu()]
            edits += sum(edit_distance(said, text) for text in heard)
            characters += len(said) * len(heard)
        source, made = model.f0(x), model.f0(outputs)
        for voicing, pitch in zip(made.voicing, made.pitch, strict=True):
            both = (voicing > 0) & (source.voicing[0] > 0)
            pair = torch.stack([pitch[both], source.pitch[0][both]]).log2()
            if int(both.sum()) >= LEAST_VOICED and bool((pair.std(1) > 0).all()):
                correlations.append(float(torch.corrcoef(pair)[0, 1]))
    entry, rows = partial(row, task, guidance), []
    if characters:
        rows.append(entry("character error", edits / characters, count))
        error = source_edits / source_characters
        rows.append(entry("character error of the sources", error, len(chosen)))
    if correlations:
        mean, n = sum(correlations) / len(correlations), len(correlations)
        rows.append(entry("correlation of log pitch", mean, n, chance=0.0))
    return rows


@dataclass(frozen=True, slots=True, eq=False)
class Study:
    """A checkpoint, the held-out people and who was drawn."""

    model: LoadedModel
    judges: Classifiers
    people: People
    sides: dict[str, Side]  # "face", "voice": every sample
    sources: dict[str, Tensor]  # rows of the sides
    references: dict[str, Tensor]
    seed: int


def evaluate_learning(
    checkpoint: Path | str | LoadedModel,
    store: Store | Path | str | Sequence[Store],
    *,
    seed: int = 0,
    device: str = "cpu",
    on_log: Log | None = None,
) -> list[Row]:
    """Measure what a checkpoint has learnt, on samples it was not trained on.

    Args:
        checkpoint: a checkpoint's or a run's folder (its newest is taken), or a loaded one, whose
            networks are moved to the device.
        store: the audio-visual prepared store, or several.
        seed: of the draws of sources, references, latent codes and pairs.
        device: where the networks run, as torch names it, or "auto".
        on_log: receives a line a part.

    Returns:
        Tidy rows, see :func:`xfavot.evaluation.rows.row`; each also says run, step, data, seed.

    Raises:
        CheckpointError: there is none, or it cannot be used.
        DataError: the store has not two sexes of speakers with faces and speech in both splits.
        ConfigError: there is no such device.
    """
    say = on_log or (lambda _: None)
    place = device_of(device)
    model = checkpoint if isinstance(checkpoint, LoadedModel) else load_model(checkpoint)
    for module in (model.nets, model.f0, model.content):
        module.to(place)
    model = dataclasses.replace(model, standardiser=model.standardiser.to(place))
    study, stores = _prepare(model, store, seed=seed, device=place, say=say)
    with torch.inference_mode():
        rows = _judge_rows(study)
        if len(study.sides) == len(KINDS):
            rows += _retrieval_rows(study)
            say("retrieval: done")
        random_pose = random_difference(study.people.faces.pose)
        for grid, style in _grids(study):
            rows += _grid_rows(study, grid, style, random_pose)
            say(f"{grid.task}, {grid.guidance}: done")
    said = {
        "run": model.config.name,
        "step": model.step,
        "dataset": "+".join(s.corpus for s in stores),
        "manifest": "+".join(s.manifest_hash for s in stores),
        "split": SPLIT,
        "seed": seed,
        "judges": study.judges.key,
    }
    return [{**one, **said} for one in rows]


def measure_and_save(
    model: LoadedModel,
    stores: Sequence[Store],
    *,
    seed: int = 0,
    device: str = "cpu",
    on_log: Log | None = None,
) -> Path | None:
    """Measure what a checkpoint has learnt and write it to its run's folder `evaluation`.

    Returns:
        The table in Markdown; ``None``, with the reason in the log, where the stores have no
        women and men with both face and voice, which is no error of a mixture of faces or voices
        alone.

    Raises:
        See :func:`evaluate_learning`.
    """
    say = on_log or (lambda _: None)
    try:
        speakers_of(stores, ("train", SPLIT))
    except DataError as error:
        say(f"what was learnt is not measured: {error}")
        return None
    rows = evaluate_learning(model, stores, seed=seed, device=device, on_log=on_log)
    table = save(rows, results_folder(model))
    say(f"written: {table} and {table.stem}.csv beside it")
    return table


def _prepare(
    model: LoadedModel,
    store: Store | Path | str | Sequence[Store],
    *,
    seed: int,
    device: torch.device,
    say: Log,
) -> tuple[Study, list[Store]]:
    """Read the people, train or load the judges, draw sources and references."""
    if isinstance(store, Path | str):
        store = Store.open(store)
    stores = [store] if isinstance(store, Store) else list(store)
    size, frames = model.config.model.image_size, model.config.model.mel_frames
    judges, people = classifiers_of(
        stores,
        image_size=size,
        frames=frames,
        folder=model.path.resolve().parents[2] / "auxiliary",
        device=device,
        on_log=say,
    )
    faces, voices = people.faces, people.voices(frames)
    sides = {
        "face": Side(faces.x.to(device), faces.speaker, faces.gender),
        "voice": Side(voices.x.to(device), voices.speaker, voices.gender),
    }
    trained = model.config.train.modalities
    sides = {name: side for name, side in sides.items() if KINDS[name] in trained}
    rng = torch.Generator().manual_seed(seed)
    order = _women_and_men_in_turn(people.gender)
    sources = {name: draw(side.speaker, order, SOURCES, rng) for name, side in sides.items()}
    references = {name: draw(side.speaker, order, REFERENCES, rng) for name, side in sides.items()}
    say(f"evaluation: {len(people.speakers)} speakers, {len(faces.x)} faces, {len(voices.x)} crops")
    return Study(model, judges, people, sides, sources, references, seed), stores


def _women_and_men_in_turn(gender: Tensor) -> Tensor:
    """(K,) speaker codes, the sexes in turn while both last."""
    within = torch.empty_like(gender)
    for code in (0, 1):
        rows = (gender == code).nonzero().squeeze(1)
        within[rows] = torch.arange(len(rows))
    return (2 * within + gender).argsort()


def draw(speaker: Tensor, order: Tensor, count: int, rng: torch.Generator) -> Tensor:
    """(count,) rows of samples with codes (n,): speakers in order, lap by lap, new samples."""
    shuffled = {int(code): _shuffled((speaker == code).nonzero().squeeze(1), rng) for code in order}
    codes = [(int(order[n % len(order)]), n // len(order)) for n in range(count)]
    return torch.stack([shuffled[code][lap % len(shuffled[code])] for code, lap in codes])


def _shuffled(rows: Tensor, rng: torch.Generator) -> Tensor:
    return rows[torch.randperm(len(rows), generator=rng)]


def _encode(study: Study, kind: str, rows: Tensor | None = None) -> Tensor:
    """(n, S) styles of samples under the heads of their own genders."""
    side, nets = study.sides[kind], study.model.nets
    chosen = torch.arange(len(side.x)) if rows is None else rows
    parts = []
    for part in torch.split(chosen, AT_ONCE):
        x, gender = side.x[part], side.gender[part].to(side.x.device)
        if kind == "face":
            parts.append(nets.E_I(x, gender))
        else:
            parts.append(nets.E_A(study.model.standardiser.standardise(x).unsqueeze(1), gender))
    return torch.cat(parts)


def _styles(study: Study) -> Iterator[tuple[str, Tensor]]:
    """Guidance and (R, S) styles; row r is of the r-th reference's speaker, or of the same sex."""
    model, device = study.model, next(study.model.nets.parameters()).device
    for kind in study.sides:
        yield kind, _encode(study, kind, study.references[kind])
    first = next(iter(study.sides))
    who = study.sides[first].speaker[study.references[first]]
    rng = torch.Generator().manual_seed(study.seed)
    z = torch.randn((len(who), model.config.model.latent_dim), generator=rng).to(device)
    by_sex, by_speaker = list(GUIDANCES)[2:]
    yield by_sex, model.nets.M(z, study.people.gender[who].to(device))
    names = [study.people.speakers[code] for code in who]
    if model.config.train.dual_domain and set(names) <= set(model.speakers):
        heads = [model.nets.genders + model.speakers.index(name) for name in names]
        yield by_speaker, model.nets.M(z, torch.tensor(heads, device=device))


def _grids(study: Study) -> Iterator[tuple[Grid, Tensor]]:
    """Every task: sources of a kind converted after all references of a guidance."""
    for guidance, style in _styles(study):
        for kind, side in study.sides.items():
            source, reference = (
                Side(
                    side.x[rows],
                    side.speaker[rows].to(side.x.device),
                    side.gender[rows].to(side.x.device),
                )
                for rows in (study.sources[kind], study.references[kind])
            )
            make = _faces if kind == "face" else _voices
            yield (
                Grid(
                    task=f"{GUIDANCES[guidance]}2{KINDS[kind][0]}",
                    guidance=guidance,
                    output=kind,
                    x=torch.stack([make(study.model, x, style) for x in source.x]),
                    source=source,
                    reference=reference,
                    named=guidance != "latent code and sex",
                    sought=guidance in KINDS,
                ),
                style,
            )


def _faces(model: LoadedModel, x: Tensor, style: Tensor) -> Tensor:
    """Convert a face (3, H, W) after styles (R, S), into pixels (R, 3, H, W) in [-1, 1]."""
    made: Tensor = model.nets.G_I(x.expand(len(style), -1, -1, -1), style)
    return made.clamp(-1, 1)


def _voices(model: LoadedModel, log_mel: Tensor, style: Tensor) -> Tensor:
    """Convert a crop (80, T), log10, after styles (R, S), into (R, 80, T), log10."""
    x, count = model.standardiser.standardise(log_mel)[None, None], len(style)
    features = model.f0.features(x).expand(count, -1, -1, -1)
    made = model.nets.G_A(x.expand(count, -1, -1, -1), style, features).squeeze(1)
    lowest = float(torch.tensor(MEL.floor).log10())
    return model.standardiser.restore(made).clamp(lowest, LOUDEST)


def _judge_rows(study: Study) -> list[Row]:
    """How well the judges read real held-out samples."""
    names = {"speaker": "speaker of real samples", "gender": "sex of real samples"}
    rows = []
    for key, value in study.judges.accuracy.items():
        kind, _, what = key.partition("/")
        n = len(study.sides[kind].x) if kind in study.sides else 0
        if what in names and n:
            chance = 0.5 if what == "gender" else 1 / len(study.people.speakers)
            rows.append(row(f"judge of {kind}s", "", names[what], value, n, chance=chance))
        elif n:
            rows.append(row(f"judge of {kind}s", "", "error of pose", value, n, sense=AT_MOST))
    return rows


def _retrieval_rows(study: Study) -> list[Row]:
    styles = {kind: _encode(study, kind) for kind in KINDS}
    speakers = {kind: study.sides[kind].speaker for kind in KINDS}
    return retrieval(styles, speakers, study.people.gender, seed=study.seed)


def _grid_rows(study: Study, grid: Grid, style: Tensor, random_pose: float) -> list[Row]:
    """All measures of one task."""
    people = study.people
    if grid.output == "face":
        pose = people.faces.pose[study.sources["face"]].to(grid.x.device)
        return measures(grid, study.judges, pose=pose, random_pose=random_pose)
    pose = torch.empty(len(grid.x), 0)
    rows = measures(grid, study.judges, pose=pose, random_pose=random_pose)
    if grid.sought:
        rows += kept(study.model, grid.task, grid.guidance, people.clips, people.transcripts, style)
    return rows
