"""The correspondence study: made once, kept in a folder, read back when people have answered.

Paper: Sec. 4.3 and Fig. 5. `pages/` holds one page an evaluator, to be given away; `key.json` says
what the tokens in the pages mean and stays with the experimenter, as does everything else.
"""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import io
import json
import math
import os
import zlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib import resources
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from xfavot import config
from xfavot.audio.mel import MEL
from xfavot.convert import Converter, open_stores
from xfavot.data.store import Store
from xfavot.errors import ConfigError, DataError, import_optional
from xfavot.evaluation import cpr
from xfavot.evaluation.cpr import Judgement, Row, Sample, Triplet, is_face
from xfavot.files import write_whole
from xfavot.image.io import resize_image
from xfavot.parameters import Study as Asked
from xfavot.report.artifact import Markdown, Provenance, collect, machine, times
from xfavot.training.checkpoint import load_model

PAPER_TRIPLETS = 30
SCHEMA = 1
KEY, PAGES = "key.json", "pages"
ID_BYTES, TOKEN_BYTES = 5, 6
FACE_PIXELS = 256
JPEG_QUALITY = 90
LEVEL_DBFS = -24.0  # root mean square of every voice
PEAK = 0.9
SILENCE = 1e-5  # root mean square
LISTEN_MS = 1000  # of each voice, or its whole, before an answer counts
ANSWER_SECONDS = 7.0  # what an answer takes beyond listening, for the time stated at the start
MOST_BYTES = 40_000_000  # of a page; telephones open that
FORMAT, VERSION = "xfavot-cpr-answers", 1
ANSWER = ("item", "choice", "side", "ms", "plays", "heard_ms", "at")  # order of the checksum
NUMBERS = ("ms", "plays", "heard_ms")
LARGEST_BYTES = 5_000_000  # of a file of answers

Say = Callable[[str], None]


# The models of a study and where its questions come from


@dataclass(frozen=True, slots=True)
class System:
    """A model of a study, with the hash of its weights."""

    name: str
    converter: Converter
    sha256: str

    @property
    def cross_modal(self) -> bool:
        """Whether it converts between faces and voices."""
        return self.converter.has("face") and self.converter.has("voice")


def systems_of(cfg: Asked) -> tuple[System, ...]:
    """Load the models.

    Args:
        cfg: the task.

    Returns:
        One a checkpoint, named after its configuration; where several have the same name, after the
        step and, if need be, the place in the list.

    Raises:
        CheckpointError: a checkpoint cannot be used.
    """
    systems = []
    for checkpoint in cfg.checkpoints:
        model = load_model(Path(checkpoint))
        digest = hashlib.sha256()
        for part in ("model", "ema"):
            digest.update((model.path / f"{part}.safetensors").read_bytes())
        name = model.config.configuration
        converter = Converter(model, name=name, device=cfg.device, vocoder=cfg.vocoder)
        systems.append(System(name, converter, digest.hexdigest()))
    return short_names(systems)


def short_names(systems: Sequence[System]) -> tuple[System, ...]:
    """Name models by configuration, step and number, as far as they need it to differ."""
    names = [one.name for one in systems]
    steps = [f"step {one.converter.step}" for one in systems]
    for finer in (steps, range(1, len(names) + 1)):
        often = Counter(names)
        pairs = zip(names, finer, strict=True)
        names = [f"{name}, {part}" if often[name] > 1 else name for name, part in pairs]
    named = zip(systems, names, strict=True)
    return tuple(dataclasses.replace(one, name=name) for one, name in named)


def tier_of(cfg: Asked, presets: Sequence[str]) -> str:
    """Tier of a study: "paper" if every model is of that size and there are 30 triplets each."""
    if "smoke" in presets:
        return "smoke"
    full = set(presets) == {"paper"} and cfg.triplets >= PAPER_TRIPLETS
    return "paper" if full else "reduced"


def origin_of(
    cfg: Asked,
    systems: Sequence[System],
    stores: Sequence[Store],
    *,
    began: datetime,
    split: str,
    notebook: str,
) -> Provenance:
    """Where what models make comes from; the first one is that of the figures."""
    runs = [one.converter.config for one in systems]
    steps = [{"step": one.converter.step, "sha256": one.sha256} for one in systems]
    return collect(
        began,
        runs[0] if runs else config.resolve(dataset=cfg.dataset, seed=cfg.seed),
        tier=tier_of(cfg, [run.preset for run in runs]),
        stores=stores,
        split=split,
        seeds=(cfg.seed,),
        weights={f"model {one.name}": one.sha256 for one in systems},
        checkpoint=steps[0] if steps else None,
        notebook=notebook,
        dataset=cfg.dataset,  # not what the model was trained on
    )


def answered(origin: Provenance, began: datetime) -> Provenance:
    """Return the provenance of a study's tables, written now."""
    return {**origin, **times(began), "device": machine("cpu")}


def ask(
    cfg: Asked, stores: Sequence[Store], systems: Sequence[System], *, on_log: Say
) -> tuple[list[Triplet], list[Row]]:
    """Draw the triplets of recordings and of every cross-modal model, and have them answered.

    Returns:
        The triplets, and the rows of the automatic CPR.
    """
    drawn: list[Triplet] = []
    how: dict[str, Any] = {"form": cfg.form, "count": cfg.triplets, "seed": cfg.seed}
    for task in cpr.TASKS:
        truth = cpr.ground_truth(stores, task=task, **how)
        drawn += truth
        on_log(f"{cpr.TRUTH}, {task}: {len(truth) or 'no'} triplets of clips with face and voice")
        for one in systems:
            if not one.cross_modal:
                on_log(f"{one.name}, {task}: left out, it has no faces or no voices")
                continue
            drawn += cpr.converted(one.converter, stores, system=one.name, task=task, **how)
            on_log(f"{one.name}, {task}: {cfg.triplets} triplets")
    judges = cpr.judges_of(stores, {one.name: one.converter for one in systems})
    rows = cpr.automatic_rows(drawn, judges, dataset=cfg.dataset, seed=cfg.seed)
    return drawn, cpr.corrected(rows)


# A study in its folder


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """A study in its folder.

    Args:
        folder: where it lies.
        key: the content of `key.json`: ``study`` (its id), ``form``, ``dataset``, ``seed``,
            ``questions`` (id to ``system``, ``task``, ``sexes``, ``people``, ``source``, ``tokens``
            and ``match``, the place of the right one in them), ``sheets`` (number to the pairs of
            question and token of candidate A, in order), ``automatic`` (rows of the automatic CPR),
            ``bytes`` of the largest page and ``provenance`` of the questions.
    """

    folder: Path
    key: dict[str, Any]

    def __repr__(self) -> str:
        """What to do next."""
        sheets, asked = len(self.key["sheets"]), len(self.key["questions"])
        return (
            f"study {self.key['study']}: {sheets} pages of {asked} questions, at most "
            f"{self.key['bytes'] / 1e6:.1f} MB each, in {self.folder / PAGES}; give one to each "
            f"evaluator and keep {KEY}, which holds the answers"
        )


def prepare(cfg: Asked, began: datetime, *, on_log: Say) -> Study:
    """Make the study, or open it where answers are to be read back.

    Args:
        cfg: the task.
        began: when the work began.
        on_log: receives a line for whatever happens.

    Raises:
        ConfigError: another study lies in the folder already.
        DataError: nothing to ask, or something cannot be read.
        CheckpointError: a model cannot be used.
    """
    if cfg.answers:
        return open_study(cfg.out)
    stores, systems = open_stores(cfg.data_root, cfg.corpora), systems_of(cfg)
    drawn, automatic = ask(cfg, stores, systems, on_log=on_log)
    if not drawn:
        raise DataError(
            f"study of {cfg.dataset}: nothing to ask; expected clips with a face and a voice, or a "
            "model; prepare an audio-visual corpus, or name a checkpoint"
        )
    example = cpr.ground_truth(stores, task="a2i", form="faces", count=1, seed=cfg.seed + 1)
    split = cpr.split_of(stores)
    origin = origin_of(cfg, systems, stores, began=began, split=split, notebook="cpr_study")
    return write_study(cfg, drawn, (example or drawn)[0], origin, automatic=automatic)


def write_study(
    cfg: Asked,
    drawn: Sequence[Triplet],
    example: Triplet,
    provenance: Provenance,
    *,
    automatic: Sequence[Row] = (),
    listen_ms: int = LISTEN_MS,
) -> Study:
    """Write the pages and the key.

    Args:
        cfg: the task: where to, how many pages, and the seed of order and sides.
        drawn: the triplets; every page asks all of them, each in an order of its own.
        example: asked first and not counted.
        provenance: where the triplets come from.
        automatic: rows of the automatic CPR.
        listen_ms: how much of each voice has to be heard before an answer counts.

    Raises:
        ConfigError: another study lies in the folder.
        DataError: a sample cannot be shown, or a page would be too large.
    """
    seed = cfg.seed
    clips: dict[str, list[Clip]] = {}
    questions: dict[str, dict[str, Any]] = {}
    rng = np.random.default_rng([seed, len(drawn)])
    for number, t in enumerate(drawn):
        made = [encode(sample) for sample in (t.prompt, t.match, t.other)]
        content = hashlib.sha256(b"".join(clip.data for clip in made)).hexdigest()
        one = _digest(ID_BYTES, seed, "question", number, content)
        clips[one] = made
        questions[one] = {
            "system": t.system,
            "task": t.task,
            "sexes": t.sexes,
            "people": list(t.people),
            "source": t.source,
            "tokens": [_digest(TOKEN_BYTES, seed, one, side) for side in range(2)],
            "match": int(rng.integers(2)),  # which of the two tokens is right
        }
    key: dict[str, Any] = {
        "schema": SCHEMA,
        "study": _digest(ID_BYTES, seed, "study", *questions),
        "form": cfg.form,
        "dataset": cfg.dataset,
        "seed": seed,
        "provenance": provenance,
        "questions": questions,
        "sheets": {},
        "automatic": list(automatic),
        "bytes": 0,
    }
    target, ids = Path(cfg.out), [*questions]
    if (target / KEY).exists() and (there := open_study(target).key["study"]) != key["study"]:
        raise ConfigError(
            f"out is {target}, where study {there} lies; this would be study {key['study']}; "
            "expected an empty folder or the same study, whose pages may be with people already; "
            "read its answers with -p answers <folder>, or give another folder with -p out"
        )
    seconds = sum(clip.seconds for made in clips.values() for clip in made)
    shown = [encode(sample) for sample in (example.prompt, example.match, example.other)]
    shared = {
        "study": key["study"],
        "listen_ms": listen_ms,
        "minutes": max(1, round((seconds + ANSWER_SECONDS * len(ids)) / 60)),
        "practice": _shown("example", shown, {"tokens": ["first", "second"], "match": 0}, False),
    }
    for number in range(1, cfg.evaluators + 1):
        draw = np.random.default_rng([seed, number, 7])
        order = [ids[i] for i in draw.permutation(len(ids))]
        turned = draw.permutation(len(ids)) % 2  # the first token is A as often as B
        pairs = zip(order, turned, strict=True)
        items = [_shown(one, clips[one], questions[one], bool(turn)) for one, turn in pairs]
        name = f"{number:0{max(2, len(str(cfg.evaluators)))}d}"
        key["sheets"][name] = [[one["id"], one["a"]["t"]] for one in items]
        page = _page({**shared, "sheet": name, "items": items})
        write_whole(target / PAGES / f"sheet_{name}.html", page)
        key["bytes"] = max(key["bytes"], len(page.encode("utf-8")))
    write_whole(target / KEY, json.dumps(key, indent=1, allow_nan=False) + "\n")
    return Study(folder=target, key=key)


def open_study(folder: str | os.PathLike[str]) -> Study:
    """Open a study that was made before.

    Args:
        folder: the parameter `out` of its making.

    Raises:
        DataError: there is none, or its key is damaged.
    """
    path = Path(folder, KEY)
    try:
        key = json.loads(path.read_text(encoding="utf-8"))
        if key["schema"] != SCHEMA:
            raise ValueError(f"schema {key['schema']}")
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise DataError(
            f"{path} is missing or damaged ({error!r}); expected the key of a study; give the "
            "folder in which it was made with -p out"
        ) from error
    return Study(folder=path.parent, key=key)


# A page: a single HTML file that works offline, on any device


class Clip(NamedTuple):
    """A sample as it lies in a page: "face" or "voice", the bytes of its file, its length."""

    kind: str
    data: bytes
    seconds: float = 0.0


def encode(sample: Sample) -> Clip:
    """Turn a face into a JPEG of 256 pixels, a voice into an MP3 of -24 dBFS.

    Args:
        sample: (H, W, 3) uint8 or (N,) float32 at 24 kHz.

    Raises:
        DataError: a voice is silent or not finite, or an encoder is missing.
    """
    stream, what = io.BytesIO(), {"extra": "data", "purpose": "the study"}
    if is_face(sample):
        image = import_optional("PIL.Image", **what).fromarray(resize_image(sample, FACE_PIXELS))
        image.save(stream, "JPEG", quality=JPEG_QUALITY, optimize=True)
        return Clip("face", stream.getvalue())
    wave = np.asarray(sample, dtype=np.float64)
    level = math.sqrt(float(np.square(wave).mean())) if len(wave) else 0.0
    if not math.isfinite(level) or level < SILENCE:
        raise DataError(
            f"study: a voice of {len(wave)} samples has the level {level:.2g}; expected speech, "
            f"finite and above {SILENCE:g}; leave out the clip or the model that it comes from"
        )
    gain = min(10 ** (LEVEL_DBFS / 20) / level, PEAK / float(np.abs(wave).max()))
    mp3 = {"format": "MP3", "subtype": "MPEG_LAYER_III"}
    import_optional("soundfile", **what).write(stream, wave * gain, MEL.sample_rate, **mp3)
    return Clip("voice", stream.getvalue(), len(sample) / MEL.sample_rate)


def _shown(
    name: str, clips: Sequence[Clip], question: Mapping[str, Any], turned: bool
) -> dict[str, Any]:
    """A question in the order of one page, as the page's script reads it."""
    prompt, *candidates = (
        {"k": clip.kind, "d": base64.b64encode(clip.data).decode("ascii")} for clip in clips
    )
    if question["match"] == 1:
        candidates.reverse()
    pairs = [{"t": t, **c} for t, c in zip(question["tokens"], candidates, strict=True)]
    a, b = reversed(pairs) if turned else pairs
    return {"id": name, "p": prompt, "a": a, "b": b}


def _page(data: Mapping[str, Any]) -> str:
    """The page of one evaluator; `data` is what its script reads."""
    template = import_optional("jinja2", extra="data", purpose="the study").Template
    html, style, script = map(_file, ("study.html", "study.css", "study.js"))
    content = json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")
    page: str = template(html).render(sheet=data["sheet"], style=style, script=script, data=content)
    if len(page) > MOST_BYTES:
        raise DataError(
            f"study page of {len(data['items'])} questions has {len(page) / 1e6:.0f} MB; expected "
            f"at most {MOST_BYTES / 1e6:.0f}, which telephones open; ask for fewer triplets"
        )
    return page


def _file(name: str) -> str:
    return resources.files("xfavot.report").joinpath(name).read_text(encoding="utf-8").rstrip()


def _digest(size: int, *parts: object) -> str:
    text = json.dumps([str(part) for part in parts]).encode("utf-8")
    return hashlib.blake2b(text, digest_size=size).hexdigest()


# Answers, read back: every file is checked before anything counts


class Answers(NamedTuple):
    """All that came back: every answer, and who answered how much, as Markdown."""

    judgements: list[Judgement]
    summary: Markdown


def read_answers(study: Study, folder: str | os.PathLike[str]) -> Answers:
    """Read the answers to a study.

    Args:
        study: of :func:`open_study`.
        folder: where the files lie, `*.json`; "" reads none.

    Returns:
        The answers. Their summary has a line an evaluator: number of the page, how much of it was
        answered, the median time of an answer, how often voices were played for one, and the share
        of candidate A, one half if sides do not matter.

    Raises:
        DataError: the folder is missing or empty, or files of it cannot be used; each with its
            reason.
    """
    if not str(folder):
        return Answers([], Markdown("No answers were read.\n"))
    read: dict[str, tuple[str, list[Row]]] = {}
    files, wrong = sorted(Path(folder).glob("*.json")), []
    for file in files:
        try:
            sheet, answers = _sheet(study, file)
            if sheet in read:
                raise DataError(f"sheet {sheet} is in {read[sheet][0]}, too; keep one of them")
            read[sheet] = file.name, answers
        except DataError as error:
            wrong.append(f"{file.name}: {error}")
    if wrong or not files:
        raise DataError(
            f"answers {folder}: {len(wrong)} of {len(files)} files cannot be used; expected one "
            f"unchanged *.json file for each page of study {study.key['study']} that came back; "
            "correct or take away what is named here:" + "".join(f"\n- {one}" for one in wrong)
        )
    judgements, lines = [], []
    for sheet, (_, answers) in read.items():
        for one in answers:
            asked = study.key["questions"][one["item"]]
            place = asked["tokens"].index(one["choice"])
            named = {name: asked[name] for name in ("system", "task", "sexes")}
            choice = {"right": place == asked["match"], "first": place == 0}
            judgements.append(Judgement(evaluator=sheet, triplet=one["item"], **named, **choice))
        count, asked = len(answers), len(study.key["sheets"][sheet])
        lines.append(
            {
                "sheet": sheet,
                "answered": f"{count} of {asked}",
                "complete": "yes" if count == asked else "**no**",
                "median time (s)": f"{median(one['ms'] for one in answers) / 1000:.1f}",
                "plays an answer": f"{sum(one['plays'] for one in answers) / count:.1f}",
                "chose A": f"{sum(one['side'] == 'A' for one in answers) / count:.2f}",
            }
        )
    whole = sum(line["complete"] == "yes" for line in lines)
    summary = (
        f"{len(lines)} of {len(study.key['sheets'])} pages came back, {whole} of them complete; "
        "every answer of the others counts.\n\n"
        f"{pd.DataFrame(lines).to_markdown(index=False, disable_numparse=True)}\n"
    )
    return Answers(judgements, Markdown(summary))


def result_rows(study: Study, answers: Answers) -> list[Row]:
    """Rows of the CPR by people, if there are answers, and then of the automatic one.

    Args:
        study: the study.
        answers: of :func:`read_answers`.

    Raises:
        DataError: there is neither.
    """
    order = {item: place for place, item in enumerate(study.key["questions"])}
    given = sorted(answers.judgements, key=lambda answer: order[answer.triplet])
    dataset, seed = study.key["dataset"], study.key["seed"]
    rows = cpr.cpr_rows(given, dataset=dataset, seed=seed) if given else []
    if not rows and not study.key["automatic"]:
        raise DataError(
            f"study {study.key['study']}: no answers yet, and no automatic CPR on {dataset} "
            "without a model; expected either; read answers with -p answers <folder>"
        )
    return [*rows, *study.key["automatic"]]


def _sheet(study: Study, file: Path) -> tuple[str, list[Row]]:
    """The number of a page and its answers, unchanged and fitting the page."""
    key = study.key
    try:
        if (size := file.stat().st_size) > LARGEST_BYTES:
            raise ValueError(f"it has {size} bytes; expected at most {LARGEST_BYTES}")
        content = json.loads(file.read_text(encoding="utf-8"))
        kind = (content["format"], content["version"])
        name, sheet, answers = (content[part] for part in ("study", "sheet", "answers"))
        if kind != (FORMAT, VERSION) or not answers:
            raise ValueError("it holds no answers of a study page")
        if name != key["study"] or sheet not in key["sheets"]:
            raise ValueError(f"it belongs to study {name!r}, sheet {sheet!r}")
        if checksum(name, sheet, answers) != content["check"]:
            raise ValueError("it was changed after the page saved it (the checksum differs)")
        asked = key["sheets"][sheet][: len(answers)]
        for (item, token_a), one in zip(asked, answers, strict=True):
            side = "A" if one["choice"] == token_a else "B"
            fits = (one["item"], one["side"]) == (item, side)
            fits = fits and one["choice"] in key["questions"][item]["tokens"]
            if not fits or min(one[number] for number in NUMBERS) < 0:
                raise ValueError(f"its answer to question {item!r} does not fit the page")
    except (OSError, ValueError) as error:
        raise DataError(str(error)) from error
    except (KeyError, TypeError) as error:
        raise DataError(f"it is damaged or no file of answers ({error!r})") from error
    return sheet, answers


def checksum(study: str, sheet: str, answers: Sequence[Mapping[str, Any]]) -> str:
    """CRC-32 over the answers as the page computes it; it finds changes, it proves nothing."""
    lines = ["|".join(str(one[name]) for name in ANSWER) for one in answers]
    return f"{zlib.crc32(chr(10).join([study, sheet, *lines]).encode('utf-8')):08x}"
