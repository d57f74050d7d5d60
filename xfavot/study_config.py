"""What `notebooks/cpr_study.ipynb` is asked to do."""

from __future__ import annotations

from dataclasses import dataclass

FORMS = ("faces", "outputs")
NO_MODEL = "none"  # given as checkpoint: the ground truth alone


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyConfig:
    """The correspondence study: what is asked, of which models, and where its pages lie.

    Args:
        checkpoints: run folders or checkpoints; () for the ground truth alone.
        dataset: the mixture; `corpora` are its members.
        data_root: folder of prepared stores.
        seed: of the draw, the sides and the order on every page.
        device: where the models run.
        vocoder: a vocoder's name or weights.
        form: "faces" or "outputs", see :mod:`xfavot.evaluation.triplets`.
        triplets: of every model and task.
        evaluators: pages.
        answers: folder of answers to read back, "" to make the pages.
        out: folder of the study.
    """

    checkpoints: tuple[str, ...]
    dataset: str
    corpora: tuple[str, ...]
    data_root: str
    seed: int
    device: str
    vocoder: str
    form: str
    triplets: int
    evaluators: int
    answers: str
    out: str
