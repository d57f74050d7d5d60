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
import re
import shlex
import time
import zlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from xfavot import config
from xfavot.audio.mel import MEL
from xfavot.convert import Converter, open_stores
from xfavot.data.store import Store
from xfavot.errors import ConfigError, DataError
from xfavot.evaluation import cpr
from xfavot.evaluation.cpr import (
    Judgement,
    Row,
    Sample,
    Triplet,
    corrected,
    cpr_rows,
    is_face,
    split_of,
)
from xfavot.image.io import resize_image
from xfavot.parameters import Study as Asked
from xfavot.report.artifact import Beginning, Checkpoint, Data, Provenance, collect, machine
from xfavot.report.artifact import Checkpoint as Weights
from xfavot.training.checkpoint import load_model

# The models of a study and where its questions come from


PAPER_TRIPLETS = 30
DEFAULTS = {
    "dataset": "mini",
    "seed": 0,
    "vocoder": "source_filter",
    "form": "faces",
    "triplets": 30,
    "evaluators": 5,
}


@dataclasses.dataclass(frozen=True, slots=True)
class System:
    """A model of a study, with the hash of its weights."""

    name: str
    converter: Converter
    sha256: str


def systems_of(cfg: Asked) -> list[System]:
    """Load the models.

    Args:
        cfg: the task.

    Returns:
        One a checkpoint, named after its configuration; where several have the same one, after the
        run and, if need be, the step.

    Raises:
        CheckpointError: a checkpoint cannot be used.
    """
    models = [load_model(Path(checkpoint)) for checkpoint in cfg.checkpoints]
    names = [model.config.configuration for model in models]
    for finer in (lambda m: m.config.name, lambda m: f"{m.config.name} at step {m.step}"):
        often = Counter(names)
        names = [finer(m) if often[n] > 1 else n for m, n in zip(models, names, strict=True)]
    return [
        System(
            name=name,
            sha256=_hash(model.path),
            converter=Converter(model, name=name, device=cfg.device, vocoder=cfg.vocoder),
        )
        for name, model in zip(names, models, strict=True)
    ]


def origin_of(
    cfg: Asked, began: Beginning, stores: Sequence[Store], systems: Sequence[System]
) -> Provenance:
    """Gather where the questions come from.

    Args:
        cfg: the task.
        began: when the work began.
        stores: prepared stores read.
        systems: of :func:`systems_of`; the first one stands for the checkpoint, all are named with
            the hash of their weights.
    """
    runs = [system.converter.config for system in systems]
    run = runs[0] if runs else config.resolve(dataset=cfg.dataset, seed=cfg.seed)
    checkpoints = [Checkpoint(step=s.converter.step, sha256=s.sha256) for s in systems]
    words = ["papermill", "notebooks/cpr_study.ipynb", "out.ipynb"]
    for name, value in DEFAULTS.items():
        given = getattr(cfg, name)
        if given != value and "/" not in str(given):  # no folder of the machine
            words += ["-p", name, str(given)]
    origin = collect(
        began,
        run,
        tier=tier_of(cfg, [r.preset for r in runs]),
        stores=stores,
        split=split_of(stores),
        seeds=(cfg.seed,),
        weights={f"model {system.name}": system.sha256 for system in systems},
        checkpoint=checkpoints[0] if checkpoints else None,
        notebook="cpr_study",
        command=shlex.join(words),
    )
    return dataclasses.replace(origin, dataset=cfg.dataset)  # not what the model was trained on


def tier_of(cfg: Asked, presets: Sequence[str]) -> str:
    """Tier of a study: "paper" if every model is of that size and there are 30 triplets each."""
    if "smoke" in presets:
        return "smoke"
    full = bool(presets) and set(presets) == {"paper"} and cfg.triplets >= PAPER_TRIPLETS
    return "paper" if full else "reduced"


def answered(origin: Provenance, began: Beginning) -> Provenance:
    """Return the provenance of a study's tables, written now."""
    return dataclasses.replace(
        origin,
        started_at=began.at,
        wall_s=round(time.monotonic() - began.clock, 3),
        device=machine("cpu"),
    )


def _hash(checkpoint: Path) -> str:
    found = hashlib.sha256()
    for name in ("model", "ema"):
        with (checkpoint / f"{name}.safetensors").open("rb") as stream:
            for block in iter(lambda: stream.read(1 << 20), b""):
                found.update(block)
    return found.hexdigest()


# One page of the correspondence study: a single HTML file that works offline, on any device


FACE_PIXELS = 256
JPEG_QUALITY = 90
LEVEL_DBFS = -24.0  # root mean square of every voice
PEAK = 0.9
LISTEN_MS = 1000  # of each voice, or its whole, before an answer counts
ANSWER_SECONDS = (
    7.0  # an answer is thought to take beyond listening, for the time told at the start
)
MOST_BYTES = 40_000_000  # of a page; telephones open that


@dataclass(frozen=True, slots=True, kw_only=True)
class Clip:
    """A sample as it lies in a page: "face" or "voice", the bytes of its file, its length."""

    kind: str
    data: bytes
    seconds: float = 0.0

    def text(self) -> str:
        """Base64."""
        return base64.b64encode(self.data).decode("ascii")


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A triplet with its samples as files.

    Args:
        prompt, match, other: the samples.
        triplet: where they come from.
    """

    prompt: Clip
    match: Clip
    other: Clip
    triplet: Triplet

    @property
    def seconds(self) -> float:
        """How long its voices last together."""
        return self.prompt.seconds + self.match.seconds + self.other.seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """A question on one sheet: its id, and token and sample of candidates A and B."""

    id: str
    prompt: Clip
    a: tuple[str, Clip]
    b: tuple[str, Clip]

    def plain(self) -> dict[str, Any]:
        """As the page's script reads it."""
        (token_a, a), (token_b, b) = self.a, self.b
        return {
            "id": self.id,
            "p": {"k": self.prompt.kind, "d": self.prompt.text()},
            "a": {"t": token_a, "k": a.kind, "d": a.text()},
            "b": {"t": token_b, "k": b.kind, "d": b.text()},
        }


def question(triplet: Triplet) -> Question:
    """Turn the samples of a triplet into files.

    Raises:
        DataError: a voice is silent or not finite, or an encoder is missing.
    """
    names = ("prompt", "match", "other")
    clips = {name: encode(getattr(triplet, name)) for name in names}
    return Question(triplet=triplet, **clips)


def encode(sample: Sample) -> Clip:
    """Turn a face into a JPEG of 256 pixels, a voice into an MP3 of -24 dBFS.

    Args:
        sample: (H, W, 3) uint8 or (N,) float32 at 24 kHz.

    Raises:
        DataError: see :func:`question`.
    """
    if is_face(sample):
        return Clip(kind="face", data=_jpeg(sample))
    return Clip(kind="voice", data=_mp3(sample), seconds=len(sample) / MEL.sample_rate)


def _jpeg(pixels: Sample) -> bytes:
    from PIL import Image

    stream = io.BytesIO()
    face = Image.fromarray(resize_image(pixels, FACE_PIXELS))
    face.save(stream, "JPEG", quality=JPEG_QUALITY, optimize=True)
    return stream.getvalue()


def _mp3(wave: Sample) -> bytes:
    try:
        import soundfile
    except ImportError as error:
        raise DataError(
            'the study needs soundfile, which is not installed; run: pip install "xfavot[data]"'
        ) from error
    wave = np.asarray(wave, dtype=np.float64)
    level = math.sqrt(float(np.square(wave).mean())) if len(wave) else 0.0
    if not math.isfinite(level) or level < 1e-5:
        raise DataError(
            f"study: a voice of {len(wave)} samples has the level {level:.2g}; expected speech, "
            "finite and above 0.00001; leave out the clip or the model that it comes from"
        )
    gain = min(10 ** (LEVEL_DBFS / 20) / level, PEAK / float(np.abs(wave).max()))
    stream = io.BytesIO()
    try:
        soundfile.write(
            stream, wave * gain, MEL.sample_rate, format="MP3", subtype="MPEG_LAYER_III"
        )
    except (soundfile.LibsndfileError, ValueError) as error:
        raise DataError(
            f"study: this libsndfile cannot write MP3 ({error}); expected 1.1 or later, which the "
            "wheels of soundfile 0.12 and later bring; run: pip install -U soundfile"
        ) from error
    return stream.getvalue()


def write_page(
    path: str | os.PathLike[str],
    *,
    study: str,
    sheet: str,
    questions: Sequence[Shown],
    practice: Shown,
    seconds: float,
    listen_ms: int = LISTEN_MS,
) -> int:
    """Write the page of one evaluator, whole or not at all.

    Args:
        path: the file.
        study: id of the study.
        sheet: number of the page, as text.
        questions: in the order in which they are asked.
        practice: an example that does not count.
        seconds: how long all voices last together.
        listen_ms: how much of each voice has to be heard before an answer counts.

    Returns:
        Bytes written.

    Raises:
        DataError: the page would be too large, or cannot be written.
    """
    data = {
        "study": study,
        "sheet": sheet,
        "listen_ms": listen_ms,
        "minutes": max(1, round((seconds + ANSWER_SECONDS * len(questions)) / 60)),
        "practice": practice.plain(),
        "items": [one.plain() for one in questions],
    }
    text = render(
        {
            "sheet": sheet,
            "style": _file("study.css"),
            "script": _file("study.js"),
            "data": json.dumps(data, separators=(",", ":")).replace("<", "\\u003c"),
        }
    )
    content, target = text.encode("utf-8"), Path(path)
    if len(content) > MOST_BYTES:
        raise DataError(
            f"study page of {len(questions)} questions has {len(content) / 1e6:.0f} MB; expected "
            f"at most {MOST_BYTES / 1e6:.0f}, which telephones open; ask for fewer triplets"
        )
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(content)
        os.replace(part, target)
    except OSError as error:
        with suppress(OSError):
            part.unlink()
        raise DataError(
            f"study page {target} cannot be written ({error}); expected a writable folder with "
            f"{len(content) / 1e6:.0f} MB of free space; free some, or choose another folder"
        ) from error
    return len(content)


def render(values: Mapping[str, str]) -> str:
    """Fill the template; what is filled in is not looked through again."""
    return re.sub(r"\{\{(\w+)\}\}", lambda found: values[found[1]], _file("study.html"))


def _file(name: str) -> str:
    return resources.files("xfavot.report").joinpath(name).read_text(encoding="utf-8").rstrip()


SCHEMA = 1
KEY = "key.json"
PAGES = "pages"
ID_BYTES, TOKEN_BYTES = 5, 6

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """A study in its folder.

    Args:
        folder: where it lies.
        key: the content of `key.json`: ``study`` (its id), ``form``, ``dataset``, ``seed``,
            ``questions`` (id to ``system``, ``task``, ``sexes``, ``people``, ``source``, ``tokens``
            and ``match``, the place of the right one in them), ``sheets`` (number to the pairs of
            question and token of candidate A, in order), ``automatic`` (rows), ``bytes`` of the
            largest page and ``provenance``.
    """

    folder: Path
    key: dict[str, Any]

    @property
    def automatic(self) -> list[Row]:
        """Rows of the automatic CPR."""
        rows: list[Row] = self.key["automatic"]
        return rows

    @property
    def provenance(self) -> Provenance:
        """Where the questions come from."""
        plain = dict(self.key["provenance"])
        data = tuple(Data(**part) for part in plain["data"])
        weights = Weights(**plain["checkpoint"]) if plain["checkpoint"] else None
        return Provenance(
            **(plain | {"data": data, "checkpoint": weights, "seeds": tuple(plain["seeds"])})
        )

    def __repr__(self) -> str:
        """What to do next."""
        sheets, asked = len(self.key["sheets"]), len(self.key["questions"])
        return (
            f"study {self.key['study']}: {sheets} pages of {asked} questions, at most "
            f"{self.key['bytes'] / 1e6:.1f} MB each, in {self.folder / PAGES}; give one to each "
            f"evaluator and keep {KEY}, which holds the answers"
        )


def prepare(cfg: Asked, began: Beginning, *, on_log: Say) -> Study:
    """Make the study, or open it where answers are to be read back.

    Args:
        cfg: the task.
        began: when the work began.
        on_log: told what happens.

    Raises:
        ConfigError: another study lies in the folder already.
        DataError: nothing to ask, or something cannot be read or written.
        CheckpointError: a model cannot be used.
    """
    if cfg.answers:
        study = open_study(cfg.out)
        on_log(f"opened: study {study.key['study']}")
        return study
    stores = open_stores(cfg.data_root, cfg.corpora)
    systems = systems_of(cfg)
    drawn = _draw(cfg, stores, systems, on_log)
    judges = cpr.judges_of(stores, {s.name: s.converter for s in systems})
    rows = cpr.automatic_rows(drawn, judges, dataset=cfg.dataset, seed=cfg.seed)
    origin = origin_of(cfg, began, stores, systems)
    example = (
        cpr.ground_truth(stores, task="a2i", form="faces", count=1, seed=cfg.seed + 1) or drawn[:1]
    )
    return write_study(
        drawn,
        example[0],
        folder=cfg.out,
        sheets=cfg.evaluators,
        seed=cfg.seed,
        form=cfg.form,
        dataset=cfg.dataset,
        provenance=origin,
        automatic=corrected(rows),
        on_log=on_log,
    )


def _draw(
    cfg: Asked, stores: Sequence[Store], systems: Sequence[System], say: Say
) -> list[cpr.Triplet]:
    drawn: list[cpr.Triplet] = []
    how: dict[str, Any] = {"form": cfg.form, "count": cfg.triplets, "seed": cfg.seed}
    for task in cpr.TASKS:
        truth = cpr.ground_truth(stores, task=task, **how)
        drawn += truth
        found = f"{len(truth)} triplets" if truth else "none: no clips with a face and a voice"
        say(f"{cpr.TRUTH}, {task}: {found}")
        for one in systems:
            if not all(one.converter.has(kind) for kind in ("face", "voice")):
                say(f"{one.name}, {task}: left out, it has no faces or no voices")
                continue
            drawn += cpr.converted(one.converter, stores, system=one.name, task=task, **how)
            say(f"{one.name}, {task}: {cfg.triplets} triplets")
    if not drawn:
        raise DataError(
            f"study of {cfg.dataset}: nothing to ask; expected clips with a face and a voice, or a "
            "model; prepare an audio-visual corpus, or name a checkpoint"
        )
    return drawn


def write_study(
    drawn: Sequence[cpr.Triplet],
    example: cpr.Triplet,
    *,
    folder: str | os.PathLike[str],
    sheets: int,
    seed: int,
    form: str,
    dataset: str,
    provenance: Provenance,
    automatic: Sequence[Row] = (),
    listen_ms: int = LISTEN_MS,
    on_log: Say = lambda _: None,
) -> Study:
    """Write the pages and the key.

    Args:
        drawn: the triplets; every page asks all of them, each in an order of its own.
        example: asked first and not counted.
        folder: of the study.
        sheets: how many pages.
        seed: of order and sides.
        form, dataset: for the key.
        provenance: where the triplets come from.
        automatic: rows of the automatic CPR.
        listen_ms: see :func:`xfavot.report.study_page.write_page`.
        on_log: told what was written.

    Raises:
        ConfigError: another study lies in the folder.
        DataError: a sample cannot be shown, or a file cannot be written.
    """
    questions = [question(triplet) for triplet in drawn]
    rng = np.random.default_rng([seed, len(questions)])
    ids = [_digest(ID_BYTES, seed, "question", n, _bytes(q)) for n, q in enumerate(questions)]
    tokens = {one: tuple(_digest(TOKEN_BYTES, seed, one, side) for side in range(2)) for one in ids}
    match = {one: int(rng.integers(2)) for one in ids}  # which of the two tokens is right
    key: dict[str, Any] = {
        "schema": SCHEMA,
        "study": _digest(ID_BYTES, seed, "study", *ids),
        "form": form,
        "dataset": dataset,
        "seed": seed,
        "provenance": provenance.record(),
        "questions": {
            one: {
                "system": t.system,
                "task": t.task,
                "sexes": t.sexes,
                "people": list(t.people),
                "source": t.source,
                "tokens": list(tokens[one]),
                "match": match[one],
            }
            for one, t in zip(ids, drawn, strict=True)
        },
        "sheets": {},
        "automatic": list(automatic),
        "bytes": 0,
    }
    target = Path(folder)
    _refuse_another(target, key["study"])
    by_id = dict(zip(ids, questions, strict=True))
    seconds = sum(one.seconds for one in questions)
    practice = _shown("example", question(example), ("first", "second"), 0, False)
    width = max(2, len(str(sheets)))
    for number in range(1, sheets + 1):
        draw = np.random.default_rng([seed, number, 7])
        order = [ids[i] for i in draw.permutation(len(ids))]
        turned = draw.permutation(len(ids)) % 2  # the first token is A as often as B
        shown = [
            _shown(one, by_id[one], tokens[one], match[one], bool(turn))
            for one, turn in zip(order, turned, strict=True)
        ]
        name = f"{number:0{width}d}"
        key["sheets"][name] = [[one.id, one.a[0]] for one in shown]
        size = write_page(
            target / PAGES / f"sheet_{name}.html",
            study=key["study"],
            sheet=name,
            questions=shown,
            practice=practice,
            seconds=seconds,
            listen_ms=listen_ms,
        )
        key["bytes"] = max(key["bytes"], size)
    _write_key(target, key)
    study = Study(folder=target, key=key)
    on_log(repr(study))
    return study


def _shown(name: str, asked: Question, tokens: Sequence[str], match: int, turned: bool) -> Shown:
    """Bring a question into the order of one page."""
    clips = [asked.match, asked.other] if match == 0 else [asked.other, asked.match]
    pairs: list[tuple[str, Clip]] = list(zip(tokens, clips, strict=True))
    a, b = reversed(pairs) if turned else pairs
    return Shown(id=name, prompt=asked.prompt, a=a, b=b)


def _digest(size: int, *parts: object) -> str:
    text = json.dumps([str(part) for part in parts]).encode("utf-8")
    return hashlib.blake2b(text, digest_size=size).hexdigest()


def _bytes(asked: Question) -> str:
    """Hash of the files of a question, so that other samples make another study."""
    clips = (asked.prompt, asked.match, asked.other)
    return hashlib.sha256(b"".join(clip.data for clip in clips)).hexdigest()


def _refuse_another(folder: Path, study: str) -> None:
    if (folder / KEY).exists():
        there = open_study(folder).key["study"]
        if there != study:
            raise ConfigError(
                f"out is {folder}, where study {there} lies; this would be study {study}; expected "
                "an empty folder or the same study, whose pages may be with people already; read "
                "its answers with -p answers <folder>, or give another folder with -p out"
            )


def _write_key(folder: Path, key: dict[str, Any]) -> None:
    part = folder / f".{KEY}.{os.getpid()}.part"
    try:
        part.write_text(json.dumps(key, indent=1, allow_nan=False) + "\n", encoding="utf-8")
        os.replace(part, folder / KEY)
    except OSError as error:
        with suppress(OSError):
            part.unlink()
        raise DataError(
            f"{folder / KEY} cannot be written ({error}); expected a writable folder with free "
            "space; without it no answer can be read back: free some and make the study again"
        ) from error


def open_study(folder: str | os.PathLike[str]) -> Study:
    """Open a study that was made before.

    Args:
        folder: the parameter `out` of its making.

    Raises:
        DataError: there is none, or its key is damaged.
    """
    path = Path(folder, KEY)
    fields = ("study", "form", "dataset", "seed", "questions", "sheets", "automatic", "provenance")
    try:
        key = json.loads(path.read_text(encoding="utf-8"))
        missing = [name for name in (*fields, "bytes") if name not in key]
        if missing or key["schema"] != SCHEMA:
            raise ValueError(f"schema {key.get('schema')}, without {missing}")
        study = Study(folder=path.parent, key=key)
        dataclasses.asdict(study.provenance)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{path} is missing or damaged ({error!r}); expected the key of a study; give the "
            "folder in which it was made with -p out"
        ) from error
    return study


# Answers of the correspondence study, read back: every file is checked before anything counts


FORMAT, VERSION = "xfavot-cpr-answers", 1
ANSWER = ("item", "choice", "side", "ms", "plays", "heard_ms", "at")  # order of the checksum
NUMBERS = ("ms", "plays", "heard_ms")
LARGEST_BYTES = 5_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Sheet:
    """What one evaluator answered.

    Args:
        sheet: number of the page.
        file: name of the file.
        asked: how many questions the page has.
        judgements: the answers.
        seconds: median time of an answer.
        plays: mean number of times that voices were played for an answer.
        side_a: share of answers that chose candidate A, one half if sides do not matter.
    """

    sheet: str
    file: str
    asked: int
    judgements: tuple[Judgement, ...]
    seconds: float
    plays: float
    side_a: float

    @property
    def complete(self) -> bool:
        """Whether every question was answered."""
        return len(self.judgements) == self.asked


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """All that came back; a notebook shows who answered how much."""

    sheets: tuple[Sheet, ...]
    pages: int

    @property
    def judgements(self) -> list[Judgement]:
        """Every answer."""
        return [answer for sheet in self.sheets for answer in sheet.judgements]

    def markdown(self) -> str:
        """A line an evaluator, and how many are complete."""
        whole = sum(sheet.complete for sheet in self.sheets)
        lines = [
            f"{len(self.sheets)} of {self.pages} pages came back, {whole} of them complete; "
            "every answer of the others counts.",
            "",
            "| sheet | answered | complete | median time (s) | plays an answer | chose A |",
            "|---|---:|---|---:|---:|---:|",
        ]
        for one in self.sheets:
            lines.append(
                f"| {one.sheet} | {len(one.judgements)} of {one.asked} | "
                f"{'yes' if one.complete else '**no**'} | {one.seconds:.1f} | {one.plays:.1f} | "
                f"{one.side_a:.2f} |"
            )
        return "\n".join(lines if self.sheets else ["No answers were read."]) + "\n"

    def __repr__(self) -> str:
        """The Markdown, which logs show as well."""
        return self.markdown()

    def _repr_markdown_(self) -> str:
        return self.markdown()


def read_answers(study: Study, folder: str | os.PathLike[str]) -> Answers:
    """Read the answers to a study.

    Args:
        study: of :func:`xfavot.report.study.open_study`.
        folder: where the files lie, `*.json`; "" reads none.

    Raises:
        DataError: the folder is missing or empty, or files of it cannot be used; each with its
            reason.
    """
    pages = len(study.key["sheets"])
    if not str(folder):
        return Answers(sheets=(), pages=pages)
    files = sorted(Path(folder).glob("*.json")) if Path(folder).is_dir() else []
    if not files:
        raise DataError(
            f"answers {folder}: no *.json file there; expected the files that the pages of study "
            f"{study.key['study']} saved; put them into one folder and name it with -p answers"
        )
    sheets, wrong = [], []
    for file in files:
        try:
            sheets.append(_sheet(study, file))
        except _Refused as error:
            wrong.append(f"{file.name}: {error}")
    for number in sorted({sheet.sheet for sheet in sheets}):
        same = [sheet for sheet in sheets if sheet.sheet == number]
        if len(same) > 1:
            told = " and ".join(f"{s.file} ({len(s.judgements)} answers)" for s in same)
            wrong.append(f"sheet {number} was answered twice: {told}; keep one of them")
    if wrong:
        raise DataError(
            f"answers {folder}: {len(wrong)} of {len(files)} files cannot be used as they are; "
            "expected one unchanged file a page; correct or take away what is named:\n- "
            + "\n- ".join(wrong)
        )
    return Answers(sheets=tuple(sheets), pages=pages)


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
    rows = cpr_rows(given, dataset=dataset, seed=seed) if given else []
    if not rows and not study.automatic:
        raise DataError(
            f"study {study.key['study']}: no answers yet, and no automatic CPR on {dataset} "
            "without a model; expected either; read answers with -p answers <folder>"
        )
    return [*rows, *study.automatic]


class _Refused(Exception):
    """Why a file does not count."""


def _sheet(study: Study, file: Path) -> Sheet:
    try:
        if file.stat().st_size > LARGEST_BYTES:
            raise _Refused(f"has {file.stat().st_size} bytes; expected less than {LARGEST_BYTES}")
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _Refused(f"cannot be read ({error}); it is cut off or no JSON") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise _Refused("holds no answers of a study page")
    if content.get("version") != VERSION:
        raise _Refused(f"has version {content.get('version')!r} of the format; expected {VERSION}")
    if content.get("study") != study.key["study"]:
        raise _Refused(f"belongs to study {content.get('study')!r}, not {study.key['study']!r}")
    name = content.get("sheet")
    if not isinstance(name, str) or name not in study.key["sheets"]:
        raise _Refused(f"sheet {name!r} is none of the {len(study.key['sheets'])} of this study")
    answers = _answers(content)
    _require_asked(study, name, answers)
    count = len(answers)
    return Sheet(
        sheet=name,
        file=file.name,
        asked=len(study.key["sheets"][name]),
        judgements=tuple(_judgement(study.key["questions"], name, one) for one in answers),
        seconds=median(one["ms"] for one in answers) / 1000,
        plays=sum(one["plays"] for one in answers) / count,
        side_a=sum(one["side"] == "A" for one in answers) / count,
    )


def _answers(content: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The answers of a file, of the right types and unchanged."""
    answers = content.get("answers")
    if not isinstance(answers, list) or not answers:
        raise _Refused("holds no answer")
    for number, one in enumerate(answers, 1):
        whole = isinstance(one, dict) and set(one) == set(ANSWER)
        if not whole or any(type(one[n]) is not (int if n in NUMBERS else str) for n in ANSWER):
            raise _Refused(f"answer {number} is damaged; expected {', '.join(ANSWER)}")
        if any(one[n] < 0 for n in NUMBERS) or not re.match(r"\d{4}-\d\d-\d\dT", one["at"]):
            raise _Refused(f"answer {number} has a time or a count that makes no sense")
    if checksum(content["study"], content["sheet"], answers) != content.get("check"):
        raise _Refused("was changed after the page saved it (the checksum differs)")
    return answers


def _require_asked(study: Study, name: str, answers: Sequence[Mapping[str, Any]]) -> None:
    """Refuse answers that the page cannot have given."""
    shown = dict(study.key["sheets"][name])  # question to the token of candidate A
    seen: set[str] = set()
    for number, one in enumerate(answers, 1):
        known = study.key["questions"].get(one["item"])
        if known is None or one["item"] not in shown:
            raise _Refused(f"answer {number} is to question {one['item']!r}, which is unknown")
        if one["item"] in seen:
            raise _Refused(f"question {one['item']!r} was answered twice")
        seen.add(one["item"])
        if one["choice"] not in known["tokens"]:
            raise _Refused(f"answer {number} chose {one['choice']!r}, which is unknown")
        if one["side"] != ("A" if one["choice"] == shown[one["item"]] else "B"):
            raise _Refused(f"answer {number} chose {one['choice']!r} on the wrong side")


def checksum(study: str, sheet: str, answers: Sequence[Mapping[str, Any]]) -> str:
    """CRC-32 over the answers as the page computes it; it finds changes, it proves nothing."""
    lines = ["|".join(str(one[name]) for name in ANSWER) for one in answers]
    return f"{zlib.crc32(chr(10).join([study, sheet, *lines]).encode('utf-8')):08x}"


def _judgement(questions: Mapping[str, Any], name: str, answer: Mapping[str, Any]) -> Judgement:
    asked = questions[answer["item"]]
    place = asked["tokens"].index(answer["choice"])
    return Judgement(
        evaluator=name,
        triplet=answer["item"],
        system=asked["system"],
        task=asked["task"],
        sexes=asked["sexes"],
        right=place == asked["match"],
        first=place == 0,
    )
