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
import json
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache, cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from filelock import FileLock, Timeout
from torch.nn import functional

from xfavot import __version__
from xfavot.baselines.training import Model, converter_of, load_model
from xfavot.config import key_of
from xfavot.convert.converter import Converter, Task
from xfavot.data.store import Store
from xfavot.errors import DataError
from xfavot.evaluation import face_encoder, images, manifest, voices
from xfavot.evaluation.classifiers import Classifiers, People, classifiers_of
from xfavot.evaluation.conversions import SPLIT_OF, Study
from xfavot.evaluation.manifest import EVERYTHING, Faces, Group, Voices, attempt, reason_of
from xfavot.evaluation.matching import pair_rows
from xfavot.evaluation.rows import DEFINITIONS, Row, csv_text, markdown_table, write_tables, writing
from xfavot.evaluation.voice_networks import NISQA, NISQA_TTS
from xfavot.fetch import checksum_of
from xfavot.parameters import Evaluate
from xfavot.weights.fetched import describe

Log = Callable[[str], None]
Scorer = Callable[[Any], list[Row]]

NO_VERIFIER = "no verifier was given; expected a checkpoint, whose encoders say what fits; name one"
FACE_FAMILIES = ("fid", "lpips", "preservation", "face_identity")
NAMES: Mapping[str, Sequence[str]] = {  # of metrics that go missing where it is not the family's
    **{family: tuple(DEFINITIONS[family]) for family in FACE_FAMILIES},
    "nisqa": (NISQA, NISQA_TTS),
    "f0": (voices.VOICING, voices.VOICING + voices.SWIFT),
    "content": (voices.CHARACTERS,),
}
COLUMNS = (
    *("system", "task", "dataset", "metric", "value", "ci_low", "ci_high", "n", "seed"),
    *("direction", "sex", "guidance", "speakers", "n_real", "chance", "definition"),
)
MISSING = ("system", "task", "speakers", "metric", "reason", "samples")
SHOWN = ("system", "task", "speakers", "direction", "sex", "metric", *COLUMNS[4:8])
SCHEMA = 1  # of evaluation.json
SCORING = 4  # raise when scores that are kept would come out otherwise
PARTS = "parts"  # folder of scores that are kept
VOICES, LOCK = ".voices_", ".lock"  # begins the folder of converted voices, which one process has
IMAGE_SIZE = 128  # pixels, the paper's; to which pictures in files are brought
WEIGHTS = ("nisqa", "nisqa_tts", "distill_mos", "resemblyzer")  # sets with a published checksum


@dataclass(eq=False, kw_only=True)
class Evaluation:
    """Groups, and their scores as they are measured.

    Args:
        cfg: what was asked for.
        groups: what is scored, in the order of the rows.
        folder: where the results belong.
        origin: what was measured, and how; written as JSON, and above the table.
        basis: all that the scores follow from, whatever the family.
        styles: a checkpoint: that which is measured, or which says what fits face to voice.
        classifiers: gives some, of which that of faces also stands for FID and LPIPS.
        on_log: receives lines on progress.
        scores: rows by family and group, as far as they are measured.
    """

    cfg: Evaluate
    groups: Sequence[Group]
    folder: Path
    origin: dict[str, Any]
    basis: Sequence[Any]
    styles: Converter | None
    classifiers: Callable[[], tuple[Classifiers, People]] | None = None
    on_log: Log = lambda line: None
    scores: dict[str, list[list[Row]]] = field(default_factory=dict)

    @cached_property
    def identifier(self) -> face_encoder.FaceEncoder:
        """The network that tells who is in a face."""
        return face_encoder.FaceEncoder()

    def measure(self, family: str) -> pd.DataFrame:
        """Score all groups by a family of metrics, once.

        Args:
            family: one of `parameters.METRICS`, or "unusable_outputs".

        Returns:
            Rows by `COLUMNS`, with "reason" and "samples" where a metric is missing; none for a
            family that was not asked for.
        """
        if family not in self.scores and family in (manifest.UNUSABLE, *self.cfg.chosen):
            kind: type[Group] = Faces if family in FACE_FAMILIES else Voices
            kind = Group if family in (manifest.UNUSABLE, "verification") else kind
            found = attempt(self._scorer, family)  # weights may be damaged
            score, basis = (found, reason_of(found)) if isinstance(found, Exception) else found
            self.scores[family] = [
                self._scored(family, group, score, basis) if isinstance(group, kind) else []
                for group in self.groups
            ]
        rows = [row for group in self.scores.get(family, []) for row in group]
        return pd.DataFrame(rows, columns=[*COLUMNS, "reason", "samples"], dtype=object)

    def _scored(
        self, family: str, group: Group, score: Scorer | Exception, basis: Any
    ) -> list[Row]:
        """Read the rows of a family and group if they are kept, or score and keep them."""
        known = [self.basis, family, basis, group.names]
        file = self.folder / PARTS / f"{key_of({'basis': known})}.json"
        with suppress(OSError, ValueError, KeyError, TypeError):  # none, or none to be trusted
            held = json.loads(file.read_text(encoding="utf-8"))
            if held["basis"] == known:
                return list(held["rows"])
        group.skipped = Counter(group.absent)
        if isinstance(group, Faces) and not group.directions:
            return [group.missing(EVERYTHING, "; ".join(group.absent), 0)]
        if isinstance(outputs := attempt(lambda: group.outputs), Exception):
            return [group.missing(EVERYTHING, outputs, 0)]
        names: Iterable[str] = NAMES.get(family, (family,))
        made = score if isinstance(score, Exception) else attempt(score, group)
        if isinstance(made, Exception):
            return [group.missing(name, made) for name in names]
        rows: list[Row] = made
        names = dict.fromkeys(row["metric"] for row in rows if "value" in row) or names
        for reason, count in group.skipped.items():
            rows += [group.missing(metric, reason, count) for metric in names if count]
        write_tables(file.parent, {file.name: json.dumps({"basis": known, "rows": rows})})
        self.on_log("{}, {system}, {task} {speakers}".format(family, **group.names).rstrip())
        return rows

    def _scorer(self, family: str) -> tuple[Scorer, Any]:
        """How a family scores a group, and what its scores follow from."""
        seed, chosen = self.cfg.seed, self.cfg.recogniser
        if family == manifest.UNUSABLE:
            return lambda group: group.usability(seed=seed), ""
        if family == "preservation":
            return partial(images.preservation, seed=seed), ""
        if family == "face_identity":
            return partial(face_encoder.identity, encoder=self.identifier, seed=seed), ""
        if family in FACE_FAMILIES:
            return self._scorer_of_faces(family)
        if family == "verification":
            embed = attempt(voices.embedder)
            reason = str(embed) if isinstance(embed, Exception) else ""
            return partial(self._verification, voice=embed), reason
        loaded = voices.measures(family, recogniser=chosen)
        unloaded = [str(one) for one in loaded.values() if isinstance(one, Exception)]
        score = partial(voices.score, loaded=loaded, recogniser=chosen, seed=seed)
        return score, [chosen, unloaded]

    def _scorer_of_faces(self, family: str) -> tuple[Scorer, Any]:
        maker = None if self.cfg.manifest else self.styles
        device = maker.device if maker else "cpu"
        size = maker.image_size if maker else IMAGE_SIZE
        tried = images.networks(family, image_size=size, device=device)
        if (given := self.classifiers) is not None:
            name = f"judge of the faces of {self.cfg.dataset}"
            tried[f"{'frechet' if family == 'fid' else 'diversity'}, {name}"] = attempt(
                lambda: images.of_classifier(family, given()[0].face, name, device=device)
            )
        absent = {metric: reason_of(x) for metric, x in tried.items() if isinstance(x, Exception)}
        networks = [network for metric, network in tried.items() if metric not in absent]

        def score(group: Faces) -> list[Row]:
            rows: list[Row] = getattr(images, family)(group, networks, seed=self.cfg.seed)
            return rows + [group.missing(name, reason) for name, reason in absent.items()]

        return score, [[one.fingerprint for one in networks], absent]

    def _verification(self, group: Group, voice: Callable[[Path], Any] | Exception) -> list[Row]:
        """Whether the right person is recognised: by voices, by styles, across face and voice."""
        if group.score is not None:
            return [{**group.names, **row} for row in group.score()]
        task, seed = group.names["task"], self.cfg.seed
        if task == Task.A2A.value:
            if isinstance(voice, Exception):
                return [group.missing("speaker verification", voice, len(group.usable))]
            text, embed = "the task, Resemblyzer's cosine", lambda file, *_: voice(file)
            return verification(group, embed, text, kind="speaker", seed=seed)
        if not self.cfg.manifest or task not in (Task.I2I.value, Task.A2I.value, Task.I2A.value):
            return []
        if task == Task.I2I.value:
            text, read = "the task, dlib's face network, cosine", self.identifier.read
            return verification(group, lambda file, *_: read(file), text, kind="face", seed=seed)
        if self.styles is None:
            return [group.missing("cross-modal verification", NO_VERIFIER)]
        text = f"a task, the style encoders of {self.styles.name}, cosine"
        style = cache(partial(style_of, self.styles))
        return verification(group, style, text, kind="cross-modal", seed=seed)

    def results(self) -> tuple[list[Row], list[Row]]:
        """Measure what was not measured yet, and return all rows and what is missing.

        Raises:
            DataError: nothing could be measured; the message says why.
        """
        order = [manifest.UNUSABLE, *self.cfg.chosen]
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
        if not any(row["metric"] != manifest.UNUSABLE for row in scores):
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
        name, columns, absent, origin = "evaluation", [*COLUMNS], [*MISSING], {**self.origin}
        if self.cfg.manifest:
            name, columns = "scores", [*COLUMNS[:9], "chance", "definition"]
            absent.remove("speakers")
            origin |= {"rows": len(scores), "missing": len(missing)}
        defined = dict.fromkeys(f"- {row['metric']}: {row['definition']}." for row in scores)
        said = ", ".join(f"{key} {value}" for key, value in origin.items() if str(value))
        text = [said, "", markdown_table(scores, SHOWN), "", *defined]
        text += ["", "Missing, or not for all:", "", markdown_table(missing, MISSING), ""]
        files = {
            f"{name}.csv": csv_text(scores, columns),
            "missing.csv": csv_text(missing, absent),
            f"{name}.json": json.dumps(origin, indent=2, sort_keys=True) + "\n",
            f"{name}.md": "\n".join(text),
        }
        write_tables(self.folder, files)
        self.on_log(f"{len(scores)} rows, {len(missing)} missing: {self.folder}")
        return self.folder / f"{name}.md"


def _part(row: Row) -> tuple[str, str]:
    return row.get("direction") or "", row.get("sex") or ""


def of_checkpoint(
    cfg: Evaluate, model: Model, stores: Sequence[Store], *, on_log: Log = lambda line: None
) -> Evaluation:
    """Prepare the evaluation of a checkpoint, or of one of a compared system.

    It converts when something is measured.

    Args:
        cfg: the metrics, the counts, the recogniser, vocoder, device, seed and substitute.
        model: the checkpoint.
        stores: the mixture.
        on_log: receives lines on progress.

    Raises:
        ConfigError: no such device.
        DataError: the folder of results cannot be written.
        WeightsError: the vocoder's weights cannot be used.
    """
    folder, run = model.path.resolve().parents[1] / "evaluation", model.config
    converter = converter_of(model, device=cfg.device, vocoder=cfg.vocoder)
    with writing(folder):  # of voices, on the disk of the results; removed at the process's end
        folder.mkdir(parents=True, exist_ok=True)
        for left in folder.glob(f"{VOICES}*"):  # by a process that was killed
            with suppress(Timeout), FileLock(left / LOCK, timeout=0):
                shutil.rmtree(left, ignore_errors=True)
        place = tempfile.TemporaryDirectory(prefix=VOICES, dir=folder)
        lock = FileLock(Path(place.name, LOCK))  # gone with its process
        lock.acquire()
    atexit.register(place.cleanup)
    atexit.register(lock.release)
    groups: list[Group] = []
    for speakers in SPLIT_OF:
        groups += Study(converter, stores, cfg, speakers, Path(place.name, speakers)).groups()
    speaks = getattr(model, "conversion", None)  # of a system that has the method speak
    every = model.nets, getattr(model, "f0", None), speaks and speaks.nets
    networks = [network for network in every if network]
    basis = {
        "schema": SCHEMA,
        "version": __version__,
        "system": run.configuration,
        "dataset": cfg.dataset,
        "checkpoint": [model.step, *map(images.digest, networks)],
        "stores": [store.manifest_hash for store in stores],
        "seed": cfg.seed,
        "conversions": cfg.count,
        "vocoder": converter.vocoder.name,
    }
    asked = {"recogniser": cfg.recogniser, "run": run.name, "substitute": cfg.substitute}
    classifiers = partial(classifiers_of, model, stores, device=converter.device, on_log=on_log)
    judged = cfg.substitute and any(task.output == "face" for task in converter.tasks)
    return Evaluation(
        cfg=cfg,
        groups=groups,
        folder=folder,
        origin={**basis, **asked, "metrics": sorted(cfg.chosen), "step": model.step},
        basis=[SCORING, str(cfg.vocoder), basis],
        styles=converter,
        classifiers=cache(classifiers) if judged else None,
        on_log=on_log,
    )


def of_manifest(cfg: Evaluate, *, on_log: Log = lambda line: None) -> Evaluation:
    """Prepare the evaluation of outputs of any system, listed in a CSV file.

    Args:
        cfg: the file, see :func:`xfavot.evaluation.manifest.read`; the metrics, the recogniser,
            which is never replaced by another, the seed and the folder of the results. A checkpoint
            that is named says by its styles what fits face to voice.
        on_log: receives lines on progress.

    Raises:
        DataError: the manifest cannot be used.
        CheckpointError: the checkpoint cannot be used.
    """
    outputs, listed = manifest.read(cfg.manifest), Path(cfg.manifest)
    styles, networks = None, ""
    if cfg.checkpoint:
        model = load_model(Path(cfg.checkpoint))
        networks = images.digest(model.nets)
        styles = converter_of(model, device=cfg.device)
    origin = {
        "schema": "xfavot external scores 1",
        "version": __version__,
        "manifest": listed.name,
        "manifest_sha256": _sha256(listed),
        "seed": cfg.seed,
        "weights": {name: describe(name).checksum for name in WEIGHTS},
    }
    files = {file for one in outputs for file in (one.source, one.reference, one.output) if file}
    return Evaluation(
        cfg=cfg,
        groups=manifest.groups_of(outputs, dataset=listed.stem, size=IMAGE_SIZE),
        folder=Path(cfg.out),
        origin=origin,
        basis=[SCORING, origin, networks, *map(_sha256, sorted(files))],
        styles=styles,
        on_log=on_log,
    )


def _sha256(file: Path) -> str:
    """Checksum of a file; none of one that cannot be read, which its row will tell."""
    with suppress(OSError):
        return checksum_of(file).removeprefix("sha256:")
    return ""


def style_of(maker: Converter, file: Path, kind: str, gender: str) -> Any:
    """Bring a "face" or "voice" in a file, of a gender, to a checkpoint's style (S,)."""
    style = maker.style_of_face if kind == "face" else maker.style_of_voice
    return style(file, gender=gender or None).vector[0].cpu().double().numpy()


def verification(
    group: Group, embed: Callable[[Path, str, str], Any], name: str, *, kind: str, seed: int
) -> list[Row]:
    """Tell the right person's references from other people's.

    Args:
        group: of a task with references, in files.
        embed: brings a "face" or "voice" in a file, of a person of a gender, to a vector (S,).
        name: of what and by what, for the definition.
        kind: of verification, the start of the metrics' names.
        seed: of the bootstrap over people.
    """
    metric, task, rows = f"{kind} verification", Task(group.names["task"]), []
    made: list[tuple[str, Any]] = []
    references: dict[Path, tuple[str, Any]] = {}
    for one in group.usable:
        try:
            if not one.speaker or one.reference is None:
                raise DataError("the reference's person is not known; fill the column speaker")
            of_reference = embed(one.reference, task.guidance, one.gender)
            references.setdefault(one.reference, (one.speaker, of_reference))
            made.append((one.speaker, embed(one.output, task.output, one.gender)))
        except Exception as error:
            rows.append(group.missing(metric, error, 1))
    people = [who for who, _ in references.values()]
    try:
        if len(set(people)) < 2 or not made:
            raise DataError(
                f"{len(made)} outputs and references of {len(set(people))} known people; expected "
                "two people at least; list more and fill the column speaker"
            )
        own, others = (
            functional.normalize(torch.from_numpy(np.stack([x for _, x in side])), dim=1).numpy()
            for side in (made, references.values())
        )
        genders = {one.speaker: one.gender for one in group.outputs if one.speaker and one.gender}
        score = own @ others.T
        measured = pair_rows(score, [who for who, _ in made], people, genders, seed=seed)
    except DataError as error:
        return [*rows, group.missing(metric, error, len(group.usable))]
    named = {**group.names, "definition": f"outputs against all references of {name}"}
    return rows + [{**row, **named, "metric": f"{kind} {row['metric']}"} for row in measured]
