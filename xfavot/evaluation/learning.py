"""Has a model learnt? Measures of a checkpoint on people's utterances and faces not trained on.

The protocol: every face and two crops of every utterance of the held-out split give a style each
(retrieval). Then 16 sources are converted after 32 references, spread over all speakers, with
styles from faces, from voices and from latent codes; judges trained on real samples read the
outputs. All of it with the averaged networks. Goals are this project's for the corpus `mini`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from xfavot.audio.mel import MEL
from xfavot.convert.converter import LOUDEST
from xfavot.convert.styles import find_device
from xfavot.data.manifest import Store
from xfavot.errors import DataError
from xfavot.evaluation.carried import Grid, Side, measures, random_difference
from xfavot.evaluation.content import kept
from xfavot.evaluation.judge_training import ensure_judges
from xfavot.evaluation.judges import AT_ONCE, Judges
from xfavot.evaluation.people import People, people_of, speakers_of
from xfavot.evaluation.protocol_results import results_folder
from xfavot.evaluation.retrieval import retrieval
from xfavot.evaluation.rows import AT_MOST, Row, markdown, row, save
from xfavot.training.checkpoint import LoadedModel, load_model

__all__ = ["evaluate_learning", "markdown", "measure_and_save", "results_folder", "save"]

SPLIT = "val"
SOURCES, REFERENCES = 16, 32
KINDS = {"face": "image", "voice": "audio"}
GUIDANCES = {"face": "i", "voice": "a", "latent code and sex": "z", "latent code and speaker": "z"}

Log = Callable[[str], None]


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Study:
    """A checkpoint, the held-out people and who was drawn."""

    model: LoadedModel
    judges: Judges
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
    place = find_device(device)
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
    names = speakers_of(stores, ("train", SPLIT))
    train, people = (
        people_of(stores, split, speakers=names, image_size=size) for split in ("train", SPLIT)
    )
    judges = ensure_judges(
        stores, train, people, frames=frames, folder=model.path.resolve().parents[2] / "auxiliary",
        device=device, on_log=say,
    )  # fmt: skip
    faces, voices = people.faces, people.voices(frames)
    sides = {
        "face": Side(faces.x.to(device), faces.speaker, faces.gender),
        "voice": Side(voices.log_mel.to(device), voices.speaker, voices.gender),
    }
    trained = model.config.train.modalities
    sides = {name: side for name, side in sides.items() if KINDS[name] in trained}
    rng = torch.Generator().manual_seed(seed)
    order = _women_and_men_in_turn(people.gender)
    sources = {name: draw(side.speaker, order, SOURCES, rng) for name, side in sides.items()}
    references = {name: draw(side.speaker, order, REFERENCES, rng) for name, side in sides.items()}
    say(f"evaluation: {len(names)} speakers, {len(faces.x)} faces, {len(voices.log_mel)} crops")
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
                Side(side.x[rows], side.speaker[rows].to(side.x.device),
                     side.gender[rows].to(side.x.device))
                for rows in (study.sources[kind], study.references[kind])
            )  # fmt: skip
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
