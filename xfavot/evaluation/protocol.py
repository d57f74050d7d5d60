"""A checkpoint by the paper's whole protocol: faces and voices, seen and unseen speakers.

Paper, Sec. 4.1, App. B; Tables 2 to 5. The parts are the tasks among the speakers of one split, and
the ground truth of each split; `checkpoint_images.py` and `checkpoint_voices.py` say how a part is
measured. A finished part is kept under a hash of everything that it follows from, so a second run
with the same settings measures nothing anew and a run that was cut off goes on. A metric that
cannot be had is listed with its reason; a substitute is used only when asked for.
"""

from __future__ import annotations

import dataclasses
import json
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache, partial
from os import PathLike
from pathlib import Path
from typing import Any

from xfavot import __version__
from xfavot.convert.converter import Converter
from xfavot.convert.results import Task
from xfavot.data.manifest import Store
from xfavot.errors import ConfigError, DataError, ShapeError
from xfavot.evaluate_config import METRICS, SUBSTITUTES
from xfavot.evaluation import checkpoint_images, checkpoint_verification, checkpoint_voices, fid
from xfavot.evaluation.checkpoint_voices import VoiceStudy
from xfavot.evaluation.foreign_voices import GROUND_TRUTH
from xfavot.evaluation.held_out import SPLITS, require_held_out
from xfavot.evaluation.image_protocol import Metrics
from xfavot.evaluation.ledger import Group
from xfavot.evaluation.protocol_metrics import (
    NOT_ASKED,
    OF_FACES,
    beginnings,
    image_metrics,
    voice_tools,
)
from xfavot.evaluation.protocol_results import (
    PARTS,
    Evaluation,
    Part,
    Row,
    keep,
    kept,
    results_folder,
    save,
)
from xfavot.evaluation.voice_tools import VoiceTools
from xfavot.identity import key_of
from xfavot.training.checkpoint import LoadedModel

__all__ = ["Evaluation", "evaluate", "save"]

FACES, VOICES = checkpoint_images.TRUTH, "voices"  # the parts of real ones
VERIFICATION = checkpoint_verification.TASK
SEEN = (*(task.value for task in checkpoint_images.TASKS), FACES)
SCHEMA = 1  # raise when a part would come out otherwise
Log = Callable[[str], None]


def evaluate(
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
    on_log: Log | None = None,
) -> Evaluation:
    """Measure a checkpoint.

    Args:
        model: the checkpoint.
        stores: the mixture.
        dataset: its name.
        vocoder: as :class:`xfavot.convert.Converter` takes it.
        recogniser: of words, one of `recognisers.NAMES`.
        metrics: some of `evaluate_config.METRICS`.
        conversions: voices a task, and source faces a direction; 0 for the paper's: 140 and 180
            voices, all faces.
        substitute: "judge" also measures faces by the project's own judge, under its own name.
        seed: of all draws.
        device: where the checkpoint's networks run.
        weights: the folder of weights; see `weights.root`. Nothing is fetched.
        on_log: told what is done and what is missing.

    Returns:
        Rows and what is missing.

    Raises:
        DataError: nothing can be measured; the reasons are told.
        ConfigError: no such metric, substitute or device.
        WeightsError: the vocoder's weights cannot be used.
    """
    _require_known("metrics", metrics, METRICS)
    _require_known("substitute", [substitute], SUBSTITUTES)
    say = on_log or (lambda _: None)
    folder = results_folder(model)
    system, name = model.config.configuration, f"{model.config.name} at step {model.step}"
    converter = Converter(model, name=name, device=device, vocoder=vocoder)
    faces = image_metrics(
        converter, model, stores, metrics, substitute=substitute, dataset=dataset, cache=weights,
        on_log=say,
    )  # fmt: skip
    tools = voice_tools(recogniser, metrics, weights)
    basis = {
        "schema": SCHEMA, "version": __version__, "system": system, "dataset": dataset,
        "checkpoint": [model.step, fid.digest(model.nets), fid.digest(model.f0)],
        "stores": [store.manifest_hash for store in stores], "seed": seed,
        "conversions": conversions, "metrics": sorted(metrics),
    }  # fmt: skip
    seen = {**basis, "extractors": [one.fingerprint for one in faces.extractors],
            "distances": [fid.digest(one) for one in faces.distances],
            "missing": dict(faces.missing), "preserved": faces.preserved}  # fmt: skip
    heard = {**basis, "vocoder": [str(getattr(vocoder, "name", vocoder)), converter.vocoder.name],
             "recogniser": recogniser, "missing": dict(tools.missing)}  # fmt: skip
    parts: list[Part] = []
    with _workshop(folder) as workshop:
        for speakers, split in SPLITS.items():
            try:
                require_held_out(stores, speakers)
            except DataError as error:
                parts.append(Part.nothing(system, "", speakers, str(error)))
                say(str(error))
                continue
            study = VoiceStudy(
                stores=stores, speakers=speakers, folder=Path(workshop, split), seed=seed,
                count=conversions,
            )  # fmt: skip
            plan = [
                *_face_parts(converter, stores, speakers, faces, system, dataset, seed,
                             conversions, folder, metrics, say),
                *_voice_parts(converter, study, tools, system, dataset, metrics),
                *_verification_part(converter, stores, speakers, system, dataset, seed, metrics),
            ]  # fmt: skip
            for task, measure in plan:
                who = GROUND_TRUTH if task in (FACES, VOICES) else system
                by = basis if task == VERIFICATION else seen if task in SEEN else heard
                own = {**by, "part": [task, speakers]}
                parts.append(_part(own, folder / PARTS, who, task, speakers, measure, say))
    origin = {
        **basis, "run": model.config.name, "step": model.step, "recogniser": recogniser,
        "vocoder": converter.vocoder.name, "substitute": substitute,
    }  # fmt: skip
    found = Evaluation.of(
        parts, wanted=beginnings(metrics), unasked=NOT_ASKED, folder=folder, origin=origin
    )
    say(f"evaluation: {len(found.rows)} rows, {len(found.missing)} missing")
    return found


def _part(
    basis: Mapping[str, Any], folder: Path, system: str, task: str, speakers: str,
    measure: Callable[[], Part], say: Log,
) -> Part:  # fmt: skip
    """Read a part that is finished, or measure it and keep it."""
    text = json.dumps(basis, sort_keys=True)
    file = folder / f"{key_of(basis)}.json"
    found = kept(file, text)
    if found is not None:
        say(f"{task}, {speakers} speakers: {len(found.rows)} rows read from {file.name}")
        return found
    try:
        found = measure()
    except (DataError, ShapeError) as error:
        found = Part.nothing(system, task, speakers, str(error))
    else:
        found = Part(
            rows=[{**row, "speakers": speakers} for row in found.rows],
            missing=[{**one, "speakers": speakers} for one in found.missing],
        )
        keep(file, text, found)
    say(f"{task}, {speakers} speakers: {len(found.rows)} rows, {len(found.missing)} missing")
    return found


def _face_parts(
    converter: Converter, stores: Sequence[Store], speakers: str, metrics: Metrics, system: str,
    dataset: str, seed: int, count: int, folder: Path, asked: Sequence[str], say: Log,
) -> Iterator[tuple[str, Callable[[], Part]]]:  # fmt: skip
    """Name and measurement of every task that makes faces, and of the ground truth."""

    @cache
    def real() -> checkpoint_images.Real:
        return checkpoint_images.real_statistics(
            stores, metrics, size=converter.image_size, on_log=say,
            folder=folder.parents[1] / "auxiliary" / "moments",
        )  # fmt: skip

    def part(rows: Sequence[Row], system: str, task: str, guidance: str) -> Part:
        missing = [
            {"system": system, "task": task, "metric": name, "reason": why, "samples": 0}
            for name, why in metrics.missing.items()
        ]
        return Part(rows=[{**row, "guidance": guidance} for row in rows], missing=missing)

    def measure(task: Task) -> Part:
        _require_trained(converter, task)
        rows = checkpoint_images.score(
            task, speakers, converter, stores, metrics, real(), system=system, dataset=dataset,
            seed=seed, sources=count,
        ) if metrics.any else []  # fmt: skip
        return part(rows, system, task.value, task.guidance)

    def truth() -> Part:
        rows = checkpoint_images.score_ground_truth(
            speakers, stores, metrics, real(), system=GROUND_TRUTH, dataset=dataset,
            size=converter.image_size, seed=seed, sources=count,
        ) if metrics.any else []  # fmt: skip
        return part(rows, GROUND_TRUTH, FACES, "")

    if not set(asked) & set(OF_FACES):
        return
    for task in checkpoint_images.TASKS:
        yield task.value, partial(measure, task)
    if converter.has("face"):
        yield FACES, truth


def _voice_parts(
    converter: Converter, study: VoiceStudy, tools: VoiceTools, system: str, dataset: str,
    asked: Sequence[str],
) -> Iterator[tuple[str, Callable[[], Part]]]:  # fmt: skip
    """Name and measurement of every task that makes voices, and of the ground truth."""

    def measure(task: Task) -> Part:
        _require_trained(converter, task)
        group = Group(system=system, task=task.value, dataset=dataset)
        ledger = checkpoint_voices.score(task, converter, study, tools, group)
        rows = [{**row, "guidance": task.guidance} for row in ledger.rows]
        return Part(rows=rows, missing=[dataclasses.asdict(one) for one in ledger.missing])

    def truth() -> Part:
        ledger = checkpoint_voices.score_ground_truth(study, tools, dataset)
        rows = [{**row, "guidance": ""} for row in ledger.rows]
        return Part(rows=rows, missing=[dataclasses.asdict(one) for one in ledger.missing])

    if not set(asked) - set(OF_FACES):
        return
    for task in checkpoint_voices.TASKS:
        yield task.value, partial(measure, task)
    if converter.has("voice"):
        yield VOICES, truth


def _verification_part(
    converter: Converter, stores: Sequence[Store], speakers: str, system: str, dataset: str,
    seed: int, asked: Sequence[str],
) -> Iterator[tuple[str, Callable[[], Part]]]:  # fmt: skip
    """Name and measurement of what the styles tell of face and voice."""

    def measure() -> Part:
        _require_trained(converter, Task.A2I)
        rows = checkpoint_verification.score(
            converter, stores, speakers, system=system, dataset=dataset, seed=seed
        )
        return Part(rows=rows, missing=[])

    if VERIFICATION in asked:
        yield VERIFICATION, measure


def _require_trained(converter: Converter, task: Task) -> None:
    """Refuse a task of a modality that a checkpoint was not trained on."""
    lacking = [kind for kind in ("face", "voice") if kind in (task.guidance, task.output)
               and not converter.has(kind)]  # fmt: skip
    if lacking:
        raise DataError(
            f"{task.value}: checkpoint {converter.name} was trained without {lacking[0]}s, on "
            f"{', '.join(converter.config.train.modalities)}; expected both; train configuration "
            "xfavot"
        )


def _require_known(name: str, given: Sequence[str], known: Sequence[str]) -> None:
    odd = [one for one in given if one not in known]
    if odd or not given:
        listed = ", ".join(filter(None, known))
        raise ConfigError(f"{name} is {odd[0] if odd else ''!r}; expected of: {listed}")


def _workshop(folder: Path) -> tempfile.TemporaryDirectory[str]:
    """Make a folder for voices, removed at the end, on the disk of the results."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return tempfile.TemporaryDirectory(prefix=".voices_", dir=folder)
    except OSError as error:
        raise DataError(
            f"{folder} cannot be written ({error}); expected a writable folder with room for the "
            "converted voices; free some space"
        ) from error
