"""Scores of outputs that any system made, from a list of files (`foreign_manifest.py`).

Every metric that applies to a task, in the columns of the project's tables, and the reasons for
those that are missing. What fits face to voice is measured where a model's style encoders are given
as verifier; they judge that model's own outputs too kindly, so take another's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from xfavot.convert.styles import StyleMaker
from xfavot.errors import ConfigError, DataError
from xfavot.evaluation import foreign_images, foreign_voices, image_protocol, recognisers
from xfavot.evaluation.foreign_manifest import Output, groups_of, read
from xfavot.evaluation.ledger import Group, Ledger
from xfavot.evaluation.verification import pair_rows
from xfavot.evaluation.voice_tools import VoiceTools
from xfavot.training.checkpoint import load_model

IMAGE_SIZE = 128  # pixels, the paper's
VERIFICATION = "cross-modal verification"
NO_VERIFIER = (
    "no verifier was given; expected a model whose encoders say what fits face to voice; pass a "
    "checkpoint"
)

Vector = NDArray[np.float64]


class Verifier(Protocol):
    """Brings faces and voices to vectors of one space."""

    @property
    def name(self) -> str:
        """What it is, for the rows."""

    def embed(self, file: Path, kind: str, gender: str) -> Vector:
        """Vector (S,) of a "face" or a "voice" of a person of a gender ("" if not known).

        Raises:
            DataError: the file cannot be used.
        """


class StyleVerifier:
    """A model's style encoders as verifier.

    Args:
        converter: the model; it reads faces and voices.
        aligned: faces are square crops as in CelebA-HQ; no face is looked for.
    """

    def __init__(self, converter: StyleMaker, *, aligned: bool = False) -> None:
        """Keep the model; see the class."""
        self.name = f"the style encoders of {converter.name or 'a model'}"
        self._converter, self._aligned = converter, aligned

    def embed(self, file: Path, kind: str, gender: str) -> Vector:
        """See :class:`Verifier`; a face needs its gender."""
        try:
            style = (
                self._converter.style_of_face(file, gender=gender or None, aligned=self._aligned)
                if kind == "face"
                else self._converter.style_of_voice(file, gender=gender or None)
            )
        except ConfigError as error:
            raise DataError(f"{error}; or fill the column gender") from error
        return np.asarray(style.vector[0].cpu().double().numpy())


def verifier_of(checkpoint: str, *, device: str = "cpu") -> StyleVerifier | None:
    """Load a model as verifier, or none.

    Args:
        checkpoint: a run folder or checkpoint; "" for no verifier.
        device: where its encoders run.

    Raises:
        CheckpointError: it cannot be used.
    """
    if not checkpoint:
        return None
    model = load_model(Path(checkpoint))
    name = f"{model.config.name or model.config.configuration} at step {model.step}"
    return StyleVerifier(StyleMaker(model, name=name, device=device))


def score(
    manifest: str | PathLike[str],
    *,
    recogniser: str = recognisers.ESPNET,
    verifier: Verifier | None = None,
    cache: str | PathLike[str] | None = None,
    dataset: str = "",
    image_size: int = IMAGE_SIZE,
    seed: int = 0,
    on_log: Callable[[str], None] | None = None,
) -> Ledger:
    """Score every output of a manifest.

    Args:
        manifest: the CSV file.
        recogniser: one of `recognisers.NAMES`; never replaced by another.
        verifier: says what fits face to voice.
        cache: the folder of weights; see `weights.root`. Nothing is fetched.
        dataset: for the rows; default, the name of the CSV file.
        image_size: pixels a side to which faces are brought.
        seed: of the intervals.
        on_log: told what is done and what is missing.

    Returns:
        Rows by system and task, `ground truth` among them, and what is missing and why.

    Raises:
        DataError: the manifest cannot be used (see `foreign_manifest.read`), or no such recogniser.
    """
    say = on_log or (lambda line: None)
    outputs, ledger = read(manifest), Ledger(seed=seed)
    named = dataset or Path(manifest).stem
    say(f"{manifest}: {len(outputs)} outputs of {len({one.model for one in outputs})} systems")
    tools, metrics = None, None
    if any(one.task.output == "voice" for one in outputs):
        tools = VoiceTools(recogniser, cache=cache)
    if any(one.task.output == "face" for one in outputs):
        metrics = image_protocol.available_metrics(image_size=image_size, cache=cache)
    for (model, task), members in groups_of(outputs).items():
        group = Group(system=model, task=task.value, dataset=named)
        if task.output == "voice" and tools is not None:
            foreign_voices.score(group, members, outputs, tools, ledger)
        elif metrics is not None:
            foreign_images.score(group, members, outputs, metrics, ledger, size=image_size)
        if {task.guidance, task.output} == {"face", "voice"}:
            verify(group, members, verifier, ledger)
        say(f"{model}, {task.value}: {len(members)} outputs measured")
    if tools is not None:
        foreign_voices.score_sources(named, outputs, tools, ledger)
    for one in ledger.missing:
        say(f"{one.system}, {one.task}: {one.metric} missing for {one.samples}: {one.reason}")
    return ledger


def verify(
    group: Group, outputs: Sequence[Output], verifier: Verifier | None, ledger: Ledger
) -> None:
    """Tell the right person's references from other people's, across face and voice.

    Args:
        group: names for the rows.
        outputs: of one system and one task that crosses from voice to face or back.
        verifier: see `score`.
        ledger: receives rows and reasons.
    """
    if verifier is None:
        ledger.lacks(group, VERIFICATION, NO_VERIFIER, len(outputs))
        return
    kind, other = outputs[0].task.output, outputs[0].task.guidance
    made: list[tuple[str, Vector]] = []
    told: dict[Path, tuple[str, Vector]] = {}
    for one in outputs:
        try:
            if not one.speaker or one.reference is None:
                raise DataError("the reference's person is not known; fill the column speaker")
            if one.reference not in told:
                found = verifier.embed(one.reference, other, one.gender)
                told[one.reference] = (one.speaker, found)
            made.append((one.speaker, verifier.embed(one.output, kind, one.gender)))
        except DataError as error:
            ledger.lacks(group, VERIFICATION, error)
    people = [who for who, _ in told.values()]
    try:
        if len(set(people)) < 2 or not made:
            raise DataError(
                f"{len(made)} outputs and references of {len(set(people))} known people; expected "
                "two people at least; list more"
            )
        score = _unit([x for _, x in made]) @ _unit([x for _, x in told.values()]).T
        rows = pair_rows(score, [who for who, _ in made], people,
                         genders(outputs), seed=ledger.seed)  # fmt: skip
    except DataError as error:
        ledger.lacks(group, VERIFICATION, error, len(outputs))
        return
    for row in rows:
        ledger.add(group, {
            **row, "metric": f"cross-modal {row['metric']}",
            "definition": f"outputs against all references of the task, {verifier.name}, cosine",
        })  # fmt: skip


def genders(outputs: Sequence[Output]) -> Mapping[str, str]:
    """Gender of people by name, where it is known."""
    return {one.speaker: one.gender for one in outputs if one.speaker and one.gender}


def _unit(vectors: Sequence[Vector]) -> Vector:
    x = np.stack(vectors)
    return np.asarray(x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12))
