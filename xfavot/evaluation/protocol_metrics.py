"""What a checkpoint is measured by: the families that were asked for, as far as they can be had."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from os import PathLike

from xfavot.convert.converter import Converter
from xfavot.data.manifest import Store
from xfavot.errors import DataError
from xfavot.evaluate_config import METRICS
from xfavot.evaluation import checkpoint_images, f0_agreement, face_preservation, nisqa
from xfavot.evaluation import speaker_similarity as speaker
from xfavot.evaluation.held_out import SPLITS, TRAIN
from xfavot.evaluation.image_protocol import Metrics, available_metrics
from xfavot.evaluation.judge_training import ensure_judges
from xfavot.evaluation.people import people_of, speakers_of
from xfavot.evaluation.protocol_results import results_folder
from xfavot.evaluation.voice_tools import CONTENT, VoiceTools
from xfavot.training.checkpoint import LoadedModel

OF_FACES = METRICS[:3]
PREFIXES = {  # of the names in the rows
    "fid": ("fid_", "frechet,"), "lpips": ("lpips_", "diversity,"),
    "preservation": face_preservation.METRICS, "nisqa": ("nisqa",),
    "speaker_similarity": ("speaker_similarity",), "word_error": ("word_error", "character_error"),
    "f0": ("f0_", "voicing_", "gender_agreement_f0"), "content": ("content_",),
    "verification": ("speaker verification", "verification", "R@"),
}  # fmt: skip
NOT_ASKED = "not asked for"


Log = Callable[[str], None]


def image_metrics(
    converter: Converter, model: LoadedModel, stores: Sequence[Store], asked: Sequence[str],
    *, substitute: str, dataset: str, cache: str | PathLike[str] | None, on_log: Log,
) -> Metrics:  # fmt: skip
    """Load the metrics of faces that were asked for, and the substitute."""
    if not set(asked) & set(OF_FACES):
        return Metrics(missing={})
    found = available_metrics(image_size=converter.image_size, cache=cache, device=converter.device)
    if substitute:
        label = f"{substitute} of the faces of {dataset}"
        try:
            names = speakers_of(stores, (TRAIN, SPLITS["seen"]))
            train, people = (
                people_of(stores, split, speakers=names, image_size=converter.image_size)
                for split in (TRAIN, SPLITS["seen"])
            )
            judges = ensure_judges(
                stores, train, people, frames=model.config.model.mel_frames,
                folder=results_folder(model).parents[1] / "auxiliary", device=converter.device,
                on_log=on_log,
            )  # fmt: skip
            found = checkpoint_images.with_judge(
                found, judges.face, name=label, device=converter.device
            )
        except DataError as error:
            missing = {**found.missing, f"frechet, {label}": str(error)}
            found = dataclasses.replace(found, missing=missing)
    wanted = beginnings([one for one in asked if one in OF_FACES])
    return Metrics(
        extractors=[one for one in found.extractors if one.metric.startswith(wanted)],
        distances=[one for one in found.distances if one.metric.startswith(wanted)],
        missing={name: why for name, why in found.missing.items() if name.startswith(wanted)},
        preserved=found.preserved and "preservation" in asked,
    )


def voice_tools(
    recogniser: str, asked: Sequence[str], cache: str | PathLike[str] | None
) -> VoiceTools:
    """Load what measures voices, and set aside what was not asked for."""
    tools = VoiceTools(recogniser, cache=cache)
    used = {
        "nisqa": (nisqa.NISQA, nisqa.NISQA_TTS), "speaker_similarity": (speaker.METRIC,),
        "word_error": (recogniser,), "content": (CONTENT,),
        "f0": (f0_agreement.VOICING, f0_agreement.GENDER),
    }  # fmt: skip
    for family, names in used.items():
        if family not in asked:
            tools.missing.update(dict.fromkeys(names, NOT_ASKED))
    return tools


def beginnings(metrics: Sequence[str]) -> tuple[str, ...]:
    """How the names of the metrics that were asked for begin."""
    return tuple(prefix for name in metrics for prefix in PREFIXES[name])
