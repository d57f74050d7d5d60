"""An evaluation: groups of outputs, scored metric by metric, and its files.

Paper, Sec. 4.1, App. B; Tables 2 to 5. The groups are a checkpoint's conversions (`conversions.py`)
or the outputs that a CSV file lists (`manifest.py`). :meth:`Evaluation.measure` scores them by one
family of metrics; what cannot be had is a row with its reason, and a substitute is used only when
asked for. Scores of a group are on the disk as soon as they are there, by everything that they
follow from, so a second run with the same settings measures nothing anew and a run that was cut
off, however, goes on.
"""

from __future__ import annotations

import atexit
import hashlib
import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from os import PathLike
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pandas as pd
import torch

from xfavot import __version__
from xfavot.config import key_of
from xfavot.convert.converter import Converter, StyleMaker, Task
from xfavot.data.store import Store
from xfavot.errors import ConfigError, DataError
from xfavot.evaluation import images, manifest, preservation, voice_networks, voices
from xfavot.evaluation.classifiers import classifiers_of
from xfavot.evaluation.conversions import SPLIT_OF, Study
from xfavot.evaluation.manifest import EVERYTHING, UNUSABLE, Faces, Group, Voices, reason_of
from xfavot.evaluation.matching import pair_rows
from xfavot.evaluation.rows import Row, csv_text, markdown_table, write_tables
from xfavot.parameters import METRICS
from xfavot.training.checkpoint import LoadedModel, load_model
from xfavot.weights.fetched import describe

Log = Callable[[str], None]
Scorer = Callable[[Any], list[Row]]
Embed = Callable[[Path, str, str], "np.ndarray[Any, Any]"]

CROSS_MODAL = "cross-modal verification"
NO_VERIFIER = (
    "no verifier was given; expected a model whose encoders say what fits face to voice; pass a "
    "checkpoint"
)
NAMES = {  # of the metrics that go missing when a family cannot be measured
    UNUSABLE: (UNUSABLE,),
    "fid": tuple(images.FID_DEFINITIONS),
    "lpips": tuple(images.LPIPS_DEFINITIONS),
    "preservation": preservation.METRICS,
    "nisqa": (voice_networks.NISQA, voice_networks.NISQA_TTS),
    "speaker_similarity": (voices.SIMILARITY,),
    "word_error": (voices.WER,),
    "f0": (voices.VOICING,),
    "content": (voices.CHARACTERS,),
    "verification": ("verification",),
}
FACE_FAMILIES = ("fid", "lpips", "preservation")
COLUMNS = (
    *("system", "task", "dataset", "metric", "value", "ci_low", "ci_high", "n", "seed"),
    *("direction", "sex", "guidance", "speakers", "n_real", "chance", "definition"),
)
MISSING = ("system", "task", "speakers", "metric", "reason", "samples")
SHOWN = ("system", "task", "speakers", "direction", "sex", "metric", *COLUMNS[4:8])
SCHEMA = 1  # of evaluation.json
SCORING = 2  # raise when scores that are kept would come out otherwise
PARTS = "parts"  # folder of scores that are kept
IMAGE_SIZE = 128  # pixels, the paper's; to which pictures in files are brought
WEIGHTS = ("nisqa", "nisqa_tts", "resemblyzer")  # sets with a published checksum


@dataclass(eq=False, kw_only=True)
class Evaluation:
    """Groups, and their scores as they are measured.

    Args:
        groups: what is scored, in the order of the rows.
        families: the metrics asked for, some of `parameters.METRICS`.
        folder: where the results belong.
        name: of their files: "evaluation", or "scores" for a manifest's.
        origin: what was measured, and how; written as JSON.
        heading: the same in a sentence.
        basis: all that the scores follow from, whatever the family.
        recogniser: of words.
        seed: of all draws.
        image_size: pixels a side of faces.
        weights: the folder of weights; nothing is fetched.
        device: of the networks that measure faces.
        moments: folder in which statistics of real faces are kept; ``None`` keeps none.
        classifier: gives a classifier of faces, whose features also stand for FID and LPIPS.
        classifier_name: for the rows.
        embed: brings a "face" or "voice" in a file, of a person of a gender, to a vector (S,).
        embed_name: says by what.
        on_log: receives lines on progress.
        scores: rows by family and group, as far as they are measured.
    """

    groups: Sequence[Group]
    families: Sequence[str] = METRICS
    folder: Path
    name: str = "evaluation"
    origin: dict[str, Any]
    heading: str = ""
    basis: Mapping[str, Any]
    recogniser: str = voice_networks.ESPNET
    seed: int = 0
    image_size: int = IMAGE_SIZE
    weights: str | PathLike[str] | None = None
    device: torch.device | str = "cpu"
    moments: Path | None = None
    classifier: Callable[[], Any] | None = None
    classifier_name: str = ""
    embed: Embed | None = None
    embed_name: str = ""
    on_log: Log = lambda line: None
    scores: dict[str, list[list[Row]]] = field(default_factory=dict)

    def measure(self, family: str) -> pd.DataFrame:
        """Score all groups by a family of metrics, once.

        Args:
            family: one of `parameters.METRICS`, or "unusable_outputs".

        Returns:
            Rows by `COLUMNS`, with "reason" and "samples" where a metric is missing; none for a
            family that was not asked for.
        """
        if family not in self.scores and family in (UNUSABLE, *self.families):
            kind: type[Group] = Faces if family in FACE_FAMILIES else Voices
            kind = Group if family in (UNUSABLE, "verification") else kind
            try:
                score, basis = self._scorer(family)
            except Exception as error:  # such as weights that are damaged
                score, basis = partial(_refuse, error=error), ""
            self.scores[family] = [
                self._scored(family, group, score, basis) if isinstance(group, kind) else []
                for group in self.groups
            ]
        rows = [row for group in self.scores.get(family, []) for row in group]
        return pd.DataFrame(rows, columns=[*COLUMNS, "reason", "samples"], dtype=object)

    def _scored(self, family: str, group: Group, score: Scorer, basis: Any) -> list[Row]:
        """Read the rows of a family and group if they are kept, or score and keep them."""
        part = [group.system, group.task, group.speakers]
        known = {**self.basis, "by": [family, basis], "part": part}
        file = self.folder / PARTS / f"{key_of(known)}.json"
        try:
            held = json.loads(file.read_text(encoding="utf-8"))
            if held["basis"] == known:
                return list(held["rows"])
        except (OSError, ValueError, KeyError, TypeError):
            pass  # there is none, or none that can be trusted
        group.skipped.clear()
        try:
            group.check()
        except Exception as error:
            return [group.missing(EVERYTHING, error, 0)]
        try:
            rows = score(group)
        except Exception as error:
            return [group.missing(name, error) for name in NAMES[family]]
        measured = dict.fromkeys(row["metric"] for row in rows if "value" in row) or NAMES[family]
        for reason, count in group.skipped.items():
            rows += [group.missing(metric, reason, count) for metric in measured if count]
        write_tables(file.parent, {file.name: json.dumps({"basis": known, "rows": rows})})
        self.on_log(f"{family}, {group.system}, {group.task} {group.speakers}".rstrip())
        return rows

    def _scorer(self, family: str) -> tuple[Scorer, Any]:
        """How a family scores a group, and what its scores follow from."""
        seed = self.seed
        if family == UNUSABLE:
            return lambda group: group.usability(seed=seed), ""
        if family == "preservation":
            return partial(preservation.preservation, seed=seed), ""
        if family in FACE_FAMILIES:
            return self._scorer_of_faces(family)
        if family == "verification":
            try:
                embed: Any = voices.embedder(self.weights)
            except Exception as error:
                embed = error
            absent = str(embed) if isinstance(embed, Exception) else ""
            return partial(self._verification, voice=embed), absent
        loaded = voices.measures(family, recogniser=self.recogniser, weights_folder=self.weights)
        score = partial(voices.score, loaded=loaded, recogniser=self.recogniser, seed=seed)
        unloaded = {name: str(one) for name, one in loaded.items() if isinstance(one, Exception)}
        return score, [self.recogniser, unloaded]

    def _scorer_of_faces(self, family: str) -> tuple[Scorer, Any]:
        networks, absent = images.networks(
            family, image_size=self.image_size, cache=self.weights, device=self.device
        )
        if self.classifier is not None:
            name = self.classifier_name
            try:
                network = self.classifier()
                networks.append(images.of_classifier(family, network, name, device=self.device))
            except Exception as error:
                kind = "frechet" if family == "fid" else "diversity"
                absent[f"{kind}, {name}"] = reason_of(error)
        known = [getattr(one, "fingerprint", "") or images.digest(one) for one in networks]

        def score(group: Faces) -> list[Row]:
            if family == "fid":
                rows = images.fid(group, networks, seed=self.seed, folder=self.moments)
            else:
                rows = images.lpips(group, networks, seed=self.seed)
            return rows + [group.missing(name, reason) for name, reason in absent.items()]

        return score, [known, absent]

    def _verification(self, group: Group, voice: Callable[[Path], Any] | Exception) -> list[Row]:
        """Whether the right person is recognised: by voices, by styles, across face and voice."""
        if group.score is not None:
            return [{**group.names, **row} for row in group.score()]
        if group.task == Task.A2A.value:
            if isinstance(voice, Exception):
                return [group.missing("speaker verification", voice, len(group.usable))]
            embed, text = (lambda file, *_: voice(file)), "the task, Resemblyzer's cosine"
            return verification(group, embed, text, kind="speaker", seed=self.seed)
        if self.name == "evaluation" or group.task not in (Task.A2I.value, Task.I2A.value):
            return []
        if self.embed is None:
            return [group.missing(CROSS_MODAL, NO_VERIFIER)]
        text = f"a task, {self.embed_name}, cosine"
        return verification(group, self.embed, text, kind="cross-modal", seed=self.seed)

    def results(self) -> tuple[list[Row], list[Row]]:
        """Measure what was not measured yet, and return all rows and what is missing.

        Raises:
            DataError: nothing could be measured; the message says why.
        """
        order = [UNUSABLE, *(name for name in METRICS if name in self.families)]
        rows: list[Row] = []
        for family in order:
            self.measure(family)
        for number, group in enumerate(self.groups):
            own = [row for family in order for row in self.scores[family][number]]
            if isinstance(group, Voices):  # all together, then every direction, then every sex
                parts = list(dict.fromkeys(map(_part, own)))
                own.sort(key=lambda row: parts.index(_part(row)))
            rows += own
        scores = [row for row in rows if "value" in row]
        missing = {tuple(row[name] for name in MISSING): row for row in rows if "reason" in row}
        if not any(row["metric"] != UNUSABLE for row in scores):
            reasons = "; ".join(dict.fromkeys(row["reason"] for row in missing.values()))
            raise DataError(f"evaluation: nothing could be measured; {reasons or 'no reason'}")
        return scores, list(missing.values())

    def save(self) -> Path:
        """Write all rows (CSV), what is missing (CSV), the origin (JSON) and a table (Markdown).

        Returns:
            The table.

        Raises:
            DataError: nothing could be measured, or the files cannot be written.
        """
        scores, missing = self.results()
        columns, absent, origin = [*COLUMNS], [*MISSING], {**self.origin}
        if self.name == "scores":
            columns = [*COLUMNS[:9], "chance", "definition"]
            absent.remove("speakers")
            origin |= {"rows": len(scores), "missing": len(missing)}
        defined = dict.fromkeys(f"- {row['metric']}: {row['definition']}." for row in scores)
        text = [self.heading, "", markdown_table(scores, SHOWN), "", *defined]
        text += ["", "Missing, or not for all:", "", markdown_table(missing, MISSING), ""]
        write_tables(
            self.folder,
            {
                f"{self.name}.csv": csv_text(scores, columns),
                "missing.csv": csv_text(missing, absent),
                f"{self.name}.json": json.dumps(origin, indent=2, sort_keys=True) + "\n",
                f"{self.name}.md": "\n".join(text),
            },
        )
        self.on_log(f"{len(scores)} rows, {len(missing)} missing: {self.folder}")
        return self.folder / f"{self.name}.md"


def _part(row: Row) -> tuple[str, str]:
    return row.get("direction") or "", row.get("sex") or ""


def _refuse(group: Group, error: Exception) -> NoReturn:
    raise error


def results_folder(model: LoadedModel) -> Path:
    """Where the results of a checkpoint belong: the folder `evaluation` of its run."""
    return model.path.resolve().parents[1] / "evaluation"


def of_checkpoint(
    model: LoadedModel,
    stores: Sequence[Store],
    *,
    dataset: str,
    vocoder: Any,
    recogniser: str,
    metrics: Sequence[str] = METRICS,
    conversions: int = 0,
    substitute: str = "",
    seed: int = 0,
    device: str = "cpu",
    weights: str | PathLike[str] | None = None,
    on_log: Log = lambda line: None,
) -> Evaluation:
    """Prepare the evaluation of a checkpoint; it converts when something is measured.

    Args:
        model: the checkpoint.
        stores: the mixture.
        dataset: its name.
        vocoder: as :class:`xfavot.convert.Converter` takes it.
        recogniser: of words, one of `voice_networks.NAMES`.
        metrics: some of `parameters.METRICS`.
        conversions: voices a task, and source faces a direction; 0 for the paper's: 140 and 180
            voices, all faces.
        substitute: "judge" also measures faces by the project's own classifier, under its own name.
        seed: of all draws.
        device: where the checkpoint's networks run.
        weights: the folder of weights; see `fetched.root`. Nothing is fetched.
        on_log: receives lines on progress.

    Raises:
        ConfigError: no such device.
        DataError: the folder of results cannot be written.
        WeightsError: the vocoder's weights cannot be used.
    """
    folder, config = results_folder(model), model.config
    auxiliary = folder.parents[1] / "auxiliary"
    name = f"{config.name} at step {model.step}"
    converter = Converter(model, name=name, device=device, vocoder=vocoder)
    place = _temporary(folder)
    studies = [
        Study(
            converter=converter,
            stores=stores,
            dataset=dataset,
            speakers=speakers,
            seed=seed,
            count=conversions,
            folder=place / split,
        )
        for speakers, split in SPLIT_OF.items()
    ]
    basis = {
        "schema": SCHEMA,
        "version": __version__,
        "system": config.configuration,
        "dataset": dataset,
        "checkpoint": [model.step, images.digest(model.nets), images.digest(model.f0)],
        "stores": [store.manifest_hash for store in stores],
        "seed": seed,
        "conversions": conversions,
    }
    origin = {
        "metrics": sorted(metrics),
        "run": config.name,
        "step": model.step,
        "recogniser": recogniser,
        "vocoder": converter.vocoder.name,
        "substitute": substitute,
    }
    counts = (
        f"Reduced: {conversions} voices a task, {conversions} source faces a direction"
        if conversions
        else "The paper's counts: 140 and 180 voices, all faces"
    )

    @cache
    def classifier() -> Any:
        (face, *_), _ = classifiers_of(
            stores,
            image_size=converter.image_size,
            frames=config.model.mel_frames,
            folder=auxiliary,
            device=converter.device,
            on_log=on_log,
        )
        return face

    return Evaluation(
        groups=[group for study in studies for group in study.groups()],
        families=metrics,
        folder=folder,
        origin={**basis, **origin},
        heading=f"{config.name}, step {model.step}; dataset {dataset}, seed {seed}; vocoder "
        f"{converter.vocoder.name}, recogniser {recogniser}. {counts}, ten outputs of each.\n\n"
        "Frechet distances fall with the number of images: compare those of equal n alone. The "
        "speakers are those of the validation split (seen) and those left out (unseen).",
        basis={
            **basis,
            "scored": SCORING,
            "vocoder": [str(getattr(vocoder, "name", vocoder)), converter.vocoder.name],
        },
        recogniser=recogniser,
        seed=seed,
        image_size=converter.image_size,
        weights=weights,
        device=converter.device,
        moments=auxiliary / "moments",
        classifier=classifier if substitute else None,
        classifier_name=f"{substitute} of the faces of {dataset}",
        on_log=on_log,
    )


def _temporary(folder: Path) -> Path:
    """Make a folder for voices on the disk of the results; the process removes it at its end."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        place = tempfile.TemporaryDirectory(prefix=".voices_", dir=folder)
    except OSError as error:
        raise DataError(
            f"{folder} cannot be written ({error}); expected a writable folder with room for the "
            "converted voices; free some space"
        ) from error
    atexit.register(place.cleanup)
    return Path(place.name)


def of_manifest(
    path: str | PathLike[str],
    *,
    recogniser: str = voice_networks.ESPNET,
    checkpoint: str = "",
    metrics: Sequence[str] = METRICS,
    folder: str | PathLike[str] = "",
    dataset: str = "",
    image_size: int = IMAGE_SIZE,
    seed: int = 0,
    device: str = "cpu",
    weights: str | PathLike[str] | None = None,
    on_log: Log = lambda line: None,
) -> Evaluation:
    """Prepare the evaluation of outputs of any system, listed in a CSV file.

    Args:
        path: the file; see :func:`xfavot.evaluation.manifest.read`.
        recogniser: one of `voice_networks.NAMES`; never replaced by another.
        checkpoint: a run folder or checkpoint, whose styles say what fits face to voice; "" for
            none.
        metrics: some of `parameters.METRICS`.
        folder: of the results.
        dataset: for the rows; default, the name of the CSV file.
        image_size: pixels a side to which faces are brought.
        seed: of the intervals.
        device: of the checkpoint's networks.
        weights: the folder of weights; see `fetched.root`. Nothing is fetched.
        on_log: receives lines on progress.

    Raises:
        DataError: the manifest cannot be used, or no such recogniser.
        CheckpointError: the checkpoint cannot be used.
    """
    outputs = manifest.read(path)
    if recogniser not in voice_networks.NAMES:
        voice_networks.load_recogniser(recogniser)
    listed, embed, name, networks = Path(path), None, "", ""
    if checkpoint:
        model = load_model(Path(checkpoint))
        name = f"{model.config.name or model.config.configuration} at step {model.step}"
        networks = images.digest(model.nets)
        embed = style_embedder(StyleMaker(model, name=name, device=device))
    dataset = dataset or listed.stem
    origin = {
        "schema": "xfavot external scores 1",
        "version": __version__,
        "manifest": listed.name,
        "manifest_sha256": _sha256(listed),
        "seed": seed,
        "weights": {name: describe(name).checksum for name in WEIGHTS},
    }
    files = {file for one in outputs for file in (one.source, one.reference, one.output) if file}
    basis = {"files": [_sha256(file) for file in sorted(files)], "checkpoint": networks}
    return Evaluation(
        groups=manifest.groups_of(outputs, dataset=dataset, size=image_size),
        families=metrics,
        folder=Path(folder),
        name="scores",
        heading=f"{len(outputs)} outputs listed in {listed.name}; seed {seed}.",
        origin=origin,
        basis={**origin, **basis, "scored": [SCORING, dataset, image_size]},
        recogniser=recogniser,
        seed=seed,
        image_size=image_size,
        weights=weights,
        embed=embed,
        embed_name=f"the style encoders of {name}",
        on_log=on_log,
    )


def _sha256(file: Path) -> str:
    """Checksum of a file; none of one that cannot be read, which its row will tell."""
    try:
        return hashlib.sha256(file.read_bytes()).hexdigest()
    except OSError:
        return ""


def style_embedder(maker: StyleMaker, *, aligned: bool = False) -> Embed:
    """Bring faces and voices in files to a checkpoint's styles; a face needs its gender.

    Args:
        maker: the checkpoint.
        aligned: faces are square crops as in CelebA-HQ; no face is looked for.
    """

    def embed(file: Path, kind: str, gender: str) -> np.ndarray[Any, Any]:
        try:
            if kind == "face":
                style = maker.style_of_face(file, gender=gender or None, aligned=aligned)
            else:
                style = maker.style_of_voice(file, gender=gender or None)
        except ConfigError as error:
            raise DataError(f"{error}; or fill the column gender") from error
        return np.asarray(style.vector[0].cpu().double().numpy())

    return embed


def verification(group: Group, embed: Embed, name: str, *, kind: str, seed: int) -> list[Row]:
    """Tell the right person's references from other people's.

    Args:
        group: of a task with references, in files.
        embed: brings a file to a vector; see :class:`Evaluation`.
        name: of what and by what, for the definition.
        kind: of verification, the start of the metrics' names.
        seed: of the bootstrap over people.
    """
    task, rows = Task(group.task), []
    made: list[tuple[str, Any]] = []
    references: dict[Path, tuple[str, Any]] = {}
    for one in group.usable:
        try:
            if not one.speaker or one.reference is None:
                raise DataError("the reference's person is not known; fill the column speaker")
            if one.reference not in references:
                vector = embed(one.reference, task.guidance, one.gender)
                references[one.reference] = (one.speaker, vector)
            made.append((one.speaker, embed(one.output, task.output, one.gender)))
        except Exception as error:
            rows.append(group.missing(f"{kind} verification", error, 1))
    people = [who for who, _ in references.values()]
    try:
        if len(set(people)) < 2 or not made:
            raise DataError(
                f"{len(made)} outputs and references of {len(set(people))} known people; expected "
                "two people at least; list more and fill the column speaker"
            )
        ours, theirs = (np.stack([x for _, x in side]) for side in (made, references.values()))
        genders = {one.speaker: one.gender for one in group.outputs if one.speaker and one.gender}
        score = _unit(ours) @ _unit(theirs).T
        measured = pair_rows(score, [who for who, _ in made], people, genders, seed=seed)
    except DataError as error:
        return [*rows, group.missing(f"{kind} verification", error, len(group.usable))]
    named = {**group.names, "definition": f"outputs against all references of {name}"}
    return rows + [{**row, **named, "metric": f"{kind} {row['metric']}"} for row in measured]


def _unit(x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return np.asarray(x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12))
