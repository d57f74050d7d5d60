"""What others have printed, as data: the only place where published numbers stand.

Paper: Tables 2 to 5, Fig. 5. Of the surviving text Tables 3, 4 and 5 are whole; Table 2 and the
bars of Fig. 5 are lost, and nothing is put in their place: a cell without a value says why. That
Tables 4 and 5 were measured on GRID is inferred (0.8): the last row of Table 5 repeats Table 3's
GRID columns. Page numbers are not known. Nothing here was measured by this project.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from xfavot.evaluation.fid import STARGAN_V2 as FID
from xfavot.evaluation.lpips_distance import STARGAN_V2 as LPIPS
from xfavot.evaluation.nisqa import NISQA
from xfavot.evaluation.speaker_similarity import METRIC as SPKSIM
from xfavot.evaluation.word_error import WER

GROUND_TRUTH = "ground truth"
SYSTEMS = {  # configuration or baseline: its name in the tables
    "xfavot": "XFaVoT",
    "joint": "joint training",
    "joint_xm": "joint training, L_xm",
    "dual_no_xm": "XFaVoT without L_xm",
    "starganv2": "StarGANv2",
    "starganv2vc_oneshot": "StarGANv2-VC, one-shot",
    "sgsim": "SGSIM",
    "adain_vc": "AdaIN-VC",
    "fragment_vc": "Fragment-VC",
    "adain_cvc": "AdaIN-CVC",
    "ground_truth": GROUND_TRUTH,
}
BASELINES = ("sgsim", "adain_vc", "fragment_vc", "adain_cvc")
ABLATIONS = ("joint", "joint_xm", "dual_no_xm", "starganv2vc_oneshot")
PAPER = "arXiv 2302.13838"
STATED = "STATED"
ON_GRID = "STATED; that it is on GRID is INFERRED (0.8)"
FROM_TABLE_4 = "INFERRED (0.8): Table 4 is taken to repeat Table 2's column GRID"
LOST = "UNKNOWN: the body of Table 2 is lost"
BARS = "UNKNOWN: Fig. 5 prints bars without numbers, and they are lost"
NOT_PRINTED = "not printed in the paper"


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """A number in print, or a cell whose number is lost.

    Args:
        table: where the paper has it, such as "table3".
        system: a key of :data:`SYSTEMS`, or the name of other work.
        task: guidance to output, such as "a2i"; "" for recordings and for faces and voices.
        dataset: name of the mixture, as in `xfavot/presets/datasets/`.
        metric: as evaluation names it.
        value: the number, ``None`` if it is lost.
        status: STATED, INFERRED or UNKNOWN, with the reason.
        source: the work.
    """

    table: str
    system: str
    task: str
    dataset: str
    metric: str
    value: float | None
    status: str
    source: str = PAPER


def key_of(system: str) -> str:
    """Bring a system's name to its key in :data:`SYSTEMS`; an unknown one stays as it is."""
    plain = _plain(system)
    return next((k for k, name in SYSTEMS.items() if plain in (_plain(k), _plain(name))), system)


def of(table: str) -> list[Published]:
    """The cells of a table, in the paper's order; none for a table without numbers."""
    return [cell for cell in PUBLISHED if cell.table == table]


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


IMAGES, VOICES = (FID, LPIPS), (NISQA, SPKSIM, WER)
Values = tuple[float | None, ...]
LOST_IMAGES: Values = (None, None)

TABLE_2: tuple[tuple[str, str, str, Values, str], ...] = (
    *(("starganv2", "i2i", data, LOST_IMAGES, LOST) for data in ("celebahq_vctk", "lrs3_lip2wav")),
    ("starganv2", "i2i", "grid", (54.9, 0.200), FROM_TABLE_4),
    *(("sgsim", "a2i", data, LOST_IMAGES, LOST)
      for data in ("celebahq_vctk", "lrs3_lip2wav", "grid")),
    *(("xfavot", task, data, LOST_IMAGES, LOST)
      for task in ("i2i", "a2i") for data in ("celebahq_vctk", "lrs3_lip2wav")),
    ("xfavot", "i2i", "grid", (34.4, 0.175), FROM_TABLE_4),
    ("xfavot", "a2i", "grid", (33.3, 0.156), FROM_TABLE_4),
)  # fmt: skip
"""Table 2: FID and LPIPS. StarGAN v2 is the ancestor of i2i, SGSIM the baseline of a2i."""

TABLE_3: tuple[tuple[str, str, str, Values, str], ...] = (
    ("ground_truth", "", "grid", (4.61, 0.82, 0.30), STATED),
    ("ground_truth", "", "celebahq_vctk", (4.29, 0.93, 0.08), STATED),
    ("adain_vc", "a2a", "grid", (3.75, 0.75, 0.65), STATED),
    ("adain_vc", "a2a", "celebahq_vctk", (2.99, 0.78, 0.31), STATED),
    ("fragment_vc", "a2a", "grid", (3.49, 0.70, 0.66), STATED),
    ("fragment_vc", "a2a", "celebahq_vctk", (3.00, 0.71, 0.27), STATED),
    ("xfavot", "a2a", "grid", (4.65, 0.75, 0.46), STATED),
    ("xfavot", "a2a", "celebahq_vctk", (4.56, 0.83, 0.16), STATED),
    ("adain_cvc", "i2a", "grid", (3.45, 0.61, 0.54), STATED),
    ("adain_cvc", "i2a", "celebahq_vctk", (2.63, None, 0.21), STATED),
    ("xfavot", "i2a", "grid", (4.58, 0.66, 0.48), STATED),
    ("xfavot", "i2a", "celebahq_vctk", (4.51, None, 0.19), STATED),
)
"""Table 3: NISQA, SpkSim, WER. SpkSim of i2a is the mean over ten utterances of the face's speaker;
its column VCTK has faces of CelebA-HQ, whose people have no voice there."""

TABLE_4: tuple[tuple[str, str, str, Values, str], ...] = tuple(
    (system, task, "grid", values, ON_GRID)
    for system, *both in (
        ("starganv2", (54.9, 0.200)),
        ("joint", (52.8, 0.056), (107.2, 0.097)),
        ("joint_xm", (49.3, 0.048), (53.7, 0.049)),
        ("xfavot", (34.4, 0.175), (33.3, 0.156)),
        ("dual_no_xm", (47.0, 0.057), (38.5, 0.036)),
    )
    for task, values in zip(("i2i", "a2i"), both, strict=False)
)
"""Table 4: FID and LPIPS of the ablations, image-guided and then audio-guided."""

TABLE_5: tuple[tuple[str, str, str, Values, str], ...] = tuple(
    (system, task, "grid", values, ON_GRID)
    for system, *both in (
        ("starganv2vc_oneshot", (4.62, 0.64, 0.448)),
        ("joint", (4.61, 0.64, 0.428), (4.64, 0.58, 0.44)),
        ("joint_xm", (4.62, 0.64, 0.430), (4.69, 0.58, 0.44)),
        ("xfavot", (4.65, 0.75, 0.455), (4.58, 0.66, 0.48)),
    )
    for task, values in zip(("a2a", "i2a"), both, strict=False)
)
"""Table 5: NISQA, SpkSim, WER of the ablations, audio-guided and then image-guided."""


def _cells() -> Iterator[Published]:
    for table, metrics, lines in (
        ("table2", IMAGES, TABLE_2), ("table3", VOICES, TABLE_3),
        ("table4", IMAGES, TABLE_4), ("table5", VOICES, TABLE_5),
    ):  # fmt: skip
        for system, task, dataset, values, status in lines:
            for metric, value in zip(metrics, values, strict=True):
                said = status if value is not None or status == LOST else NOT_PRINTED
                yield Published(table=table, system=system, task=task, dataset=dataset,
                                metric=metric, value=value, status=said)  # fmt: skip
    for dataset in ("grid", "celebahq_vctk"):
        truth = [("ground_truth", "")] if dataset == "grid" else []  # no pairs in the other
        for system, task in (("sgsim", "a2i"), ("xfavot", "a2i"), ("adain_cvc", "i2a"),
                             ("xfavot", "i2a"), *truth):  # fmt: skip
            yield Published(table="correspondence", system=system, task=task, dataset=dataset,
                            metric="CPR", value=None, status=BARS)  # fmt: skip
    shape = "arXiv 2103.07293, the authors' repository KID-7391/seeking-the-shape-of-sound"
    for system, metric, value, source in (
        ("Vclip", "verification AUC, all pairs", 0.8963, "arXiv 2601.02753, abstract"),
        ("Wen et al., voice to face", "verification AUC, all pairs", 0.872, shape),
        ("Wen et al., face to voice", "verification AUC, all pairs", 0.870, shape),
        ("Wen et al., voice to face", "verification AUC, pairs of one sex", 0.775, shape),
        ("Wen et al., face to voice", "verification AUC, pairs of one sex", 0.761, shape),
    ):
        yield Published(table="verification", system=system, task="", dataset="voxceleb",
                        metric=metric, value=value, status=STATED, source=source)  # fmt: skip


PUBLISHED = tuple(_cells())
