"""The correspondence study: made once, kept in a folder, read back when people have answered.

Paper: Sec. 4.3 and Fig. 5. `pages/` holds one page an evaluator, to be given away; `key.json` says
what the tokens in the pages mean and stays with the experimenter, as does everything else.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import math
import os
import re
import zlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
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
from xfavot.errors import ConfigError, DataError
from xfavot.evaluation import cpr
from xfavot.evaluation.cpr import Judgement, Row, Sample, Triplet, is_face
from xfavot.files import write_whole
from xfavot.image.io import resize_image
from xfavot.parameters import Study as Asked
from xfavot.report.artifact import Beginning, Provenance, collect, machine
from xfavot.training.checkpoint import load_model

PAPER_TRIPLETS = 30
SCHEMA = 1
KEY, PAGES = "key.json", "pages"
KEY_FIELDS = {
    *("schema", "study", "form", "dataset", "seed", "provenance"),
    *("questions", "sheets", "automatic", "bytes"),
}
ID_BYTES, TOKEN_BYTES = 5, 6
FACE_PIXELS = 256
JPEG_QUALITY = 90
LEVEL_DBFS = -24.0  # root mean square of every voice
PEAK = 0.9
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
    systems = []
    for name, model in zip(names, models, strict=True):
        digest = hashlib.sha256()
        for part in ("model", "ema"):
            with (model.path / f"{part}.safetensors").open("rb") as stream:
                for block in iter(lambda: stream.read(1 << 20), b""):
                    digest.update(block)
        converter = Converter(model, name=name, device=cfg.device, vocoder=cfg.vocoder)
        systems.append(System(name=name, converter=converter, sha256=digest.hexdigest()))
    return systems


def tier_of(cfg: Asked, presets: Sequence[str]) -> str:
    """Tier of a study: "paper" if every model is of that size and there are 30 triplets each."""
    if "smoke" in presets:
        return "smoke"
    full = bool(presets) and set(presets) == {"paper"} and cfg.triplets >= PAPER_TRIPLETS
    return "paper" if full else "reduced"


def answered(origin: Provenance, began: Beginning) -> Provenance:
    """Return the provenance of a study's tables, written now."""
    return {**origin, **began.now(), "device": machine("cpu")}


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

    @property
    def provenance(self) -> Provenance:
        """Where the questions come from."""
        origin: Provenance = self.key["provenance"]
        return origin

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
        on_log: receives a line for whatever happens.

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
    runs = [system.converter.config for system in systems]
    steps = [{"step": s.converter.step, "sha256": s.sha256} for s in systems]
    origin = collect(
        began,
        runs[0] if runs else config.resolve(dataset=cfg.dataset, seed=cfg.seed),
        tier=tier_of(cfg, [run.preset for run in runs]),
        stores=stores,
        split=cpr.split_of(stores),
        seeds=(cfg.seed,),
        weights={f"model {system.name}": system.sha256 for system in systems},
        checkpoint=steps[0] if steps else None,
        notebook="cpr_study",
        dataset=cfg.dataset,  # not what the model was trained on
    )
    example = cpr.ground_truth(stores, task="a2i", form="faces", count=1, seed=cfg.seed + 1)
    return write_study(
        drawn,
        (example or drawn)[0],
        folder=cfg.out,
        sheets=cfg.evaluators,
        seed=cfg.seed,
        form=cfg.form,
        dataset=cfg.dataset,
        provenance=origin,
        automatic=cpr.corrected(rows),
        on_log=on_log,
    )


def _draw(
    cfg: Asked, stores: Sequence[Store], systems: Sequence[System], say: Say
) -> list[Triplet]:
    drawn: list[Triplet] = []
    how: dict[str, Any] = {"form": cfg.form, "count": cfg.triplets, "seed": cfg.seed}
    for task in cpr.TASKS:
        truth = cpr.ground_truth(stores, task=task, **how)
        drawn += truth
        count = f"{len(truth)} triplets" if truth else "none: no clips with a face and a voice"
        say(f"{cpr.TRUTH}, {task}: {count}")
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
    drawn: Sequence[Triplet],
    example: Triplet,
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
        listen_ms: how much of each voice has to be heard before an answer counts.
        on_log: receives what was written.

    Raises:
        ConfigError: another study lies in the folder.
        DataError: a sample cannot be shown, a page would be too large, or a file cannot be written.
    """
    clips = [_clips(triplet) for triplet in drawn]
    rng = np.random.default_rng([seed, len(clips)])
    ids = [
        _digest(
            ID_BYTES, seed, "question", n, hashlib.sha256(b"".join(c.data for c in q)).hexdigest()
        )
        for n, q in enumerate(clips)
    ]
    by_id = dict(zip(ids, clips, strict=True))
    questions = {
        one: {
            "system": t.system,
            "task": t.task,
            "sexes": t.sexes,
            "people": list(t.people),
            "source": t.source,
            "tokens": [_digest(TOKEN_BYTES, seed, one, side) for side in range(2)],
            "match": int(rng.integers(2)),  # which of the two tokens is right
        }
        for one, t in zip(ids, drawn, strict=True)
    }
    key: dict[str, Any] = {
        "schema": SCHEMA,
        "study": _digest(ID_BYTES, seed, "study", *ids),
        "form": form,
        "dataset": dataset,
        "seed": seed,
        "provenance": provenance,
        "questions": questions,
        "sheets": {},
        "automatic": list(automatic),
        "bytes": 0,
    }
    target = Path(folder)
    if (target / KEY).exists() and (there := open_study(target).key["study"]) != key["study"]:
        raise ConfigError(
            f"out is {target}, where study {there} lies; this would be study {key['study']}; "
            "expected an empty folder or the same study, whose pages may be with people already; "
            "read its answers with -p answers <folder>, or give another folder with -p out"
        )
    seconds = sum(clip.seconds for question in clips for clip in question)
    minutes = max(1, round((seconds + ANSWER_SECONDS * len(clips)) / 60))
    shared = {"study": key["study"], "listen_ms": listen_ms, "minutes": minutes}
    practice = {"tokens": ["first", "second"], "match": 0}
    shared["practice"] = _shown("example", _clips(example), practice, False)
    for number in range(1, sheets + 1):
        draw = np.random.default_rng([seed, number, 7])
        order = [ids[i] for i in draw.permutation(len(ids))]
        turned = draw.permutation(len(ids)) % 2  # the first token is A as often as B
        items = [
            _shown(one, by_id[one], questions[one], bool(turn))
            for one, turn in zip(order, turned, strict=True)
        ]
        name = f"{number:0{max(2, len(str(sheets)))}d}"
        key["sheets"][name] = [[one["id"], one["a"]["t"]] for one in items]
        page = _page({**shared, "sheet": name, "items": items})
        _write(target / PAGES / f"sheet_{name}.html", page)
        key["bytes"] = max(key["bytes"], len(page.encode("utf-8")))
    _write(target / KEY, json.dumps(key, indent=1, allow_nan=False) + "\n")
    study = Study(folder=target, key=key)
    on_log(repr(study))
    return study


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
        if KEY_FIELDS - set(key) or key["schema"] != SCHEMA:
            raise ValueError(f"schema {key.get('schema')}, without {KEY_FIELDS - set(key)}")
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise DataError(
            f"{path} is missing or damaged ({error!r}); expected the key of a study; give the "
            "folder in which it was made with -p out"
        ) from error
    return Study(folder=path.parent, key=key)


def _write(path: Path, text: str) -> None:
    try:
        write_whole(path, text)
    except OSError as error:
        raise DataError(
            f"{path} of the study cannot be written ({error}); expected a writable folder with "
            "free space; free some, or choose another folder, and make the study again"
        ) from error


# A page: a single HTML file that works offline, on any device


class Clip(NamedTuple):
    """A sample as it lies in a page: "face" or "voice", the bytes of its file, its length."""

    kind: str
    data: bytes
    seconds: float = 0.0


def _clips(triplet: Triplet) -> tuple[Clip, Clip, Clip]:
    """The prompt, the match and the other one of a triplet as files."""
    return encode(triplet.prompt), encode(triplet.match), encode(triplet.other)


def encode(sample: Sample) -> Clip:
    """Turn a face into a JPEG of 256 pixels, a voice into an MP3 of -24 dBFS.

    Args:
        sample: (H, W, 3) uint8 or (N,) float32 at 24 kHz.

    Raises:
        DataError: a voice is silent or not finite, or an encoder is missing.
    """
    stream = io.BytesIO()
    if is_face(sample):
        from PIL import Image

        face = Image.fromarray(resize_image(sample, FACE_PIXELS))
        face.save(stream, "JPEG", quality=JPEG_QUALITY, optimize=True)
        return Clip("face", stream.getvalue())
    try:
        import soundfile
    except ImportError as error:
        raise DataError(
            'the study needs soundfile, which is not installed; run: pip install "xfavot[data]"'
        ) from error
    wave = np.asarray(sample, dtype=np.float64)
    level = math.sqrt(float(np.square(wave).mean())) if len(wave) else 0.0
    if not math.isfinite(level) or level < 1e-5:
        raise DataError(
            f"study: a voice of {len(wave)} samples has the level {level:.2g}; expected speech, "
            "finite and above 0.00001; leave out the clip or the model that it comes from"
        )
    gain = min(10 ** (LEVEL_DBFS / 20) / level, PEAK / float(np.abs(wave).max()))
    mp3 = {"format": "MP3", "subtype": "MPEG_LAYER_III"}
    try:
        soundfile.write(stream, wave * gain, MEL.sample_rate, **mp3)
    except (soundfile.LibsndfileError, ValueError) as error:
        raise DataError(
            f"study: this libsndfile cannot write MP3 ({error}); expected 1.1 or later, which the "
            "wheels of soundfile 0.12 and later bring; run: pip install -U soundfile"
        ) from error
    return Clip("voice", stream.getvalue(), len(sample) / MEL.sample_rate)


def _shown(
    name: str, clips: tuple[Clip, Clip, Clip], question: Mapping[str, Any], turned: bool
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
    text = render(
        {
            "sheet": data["sheet"],
            "style": _file("study.css"),
            "script": _file("study.js"),
            "data": json.dumps(data, separators=(",", ":")).replace("<", "\\u003c"),
        }
    )
    if len(text) > MOST_BYTES:
        raise DataError(
            f"study page of {len(data['items'])} questions has {len(text) / 1e6:.0f} MB; expected "
            f"at most {MOST_BYTES / 1e6:.0f}, which telephones open; ask for fewer triplets"
        )
    return text


def render(values: Mapping[str, str]) -> str:
    """Fill the template; what is filled in is not looked through again."""
    return re.sub(r"\{\{(\w+)\}\}", lambda found: values[found[1]], _file("study.html"))


def _file(name: str) -> str:
    return resources.files("xfavot.report").joinpath(name).read_text(encoding="utf-8").rstrip()


def _digest(size: int, *parts: object) -> str:
    text = json.dumps([str(part) for part in parts]).encode("utf-8")
    return hashlib.blake2b(text, digest_size=size).hexdigest()


# Answers, read back: every file is checked before anything counts


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Answers:
    """All that came back; a notebook shows who answered how much.

    Args:
        judgements: every answer.
        sheets: a line an evaluator: number of the page, how much of it was answered, the median
            time of an answer, how often voices were played for one, and the share of candidate A,
            one half if sides do not matter.
        pages: how many were made.
    """

    judgements: list[Judgement]
    sheets: pd.DataFrame
    pages: int

    def __repr__(self) -> str:
        """A line an evaluator, and how many are complete, as Markdown."""
        if not len(self.sheets):
            return "No answers were read.\n"
        whole = int((self.sheets["complete"] == "yes").sum())
        return (
            f"{len(self.sheets)} of {self.pages} pages came back, {whole} of them complete; "
            "every answer of the others counts.\n\n"
            f"{self.sheets.to_markdown(index=False, disable_numparse=True)}\n"
        )

    def _repr_markdown_(self) -> str:
        return repr(self)


def read_answers(study: Study, folder: str | os.PathLike[str]) -> Answers:
    """Read the answers to a study.

    Args:
        study: of :func:`open_study`.
        folder: where the files lie, `*.json`; "" reads none.

    Raises:
        DataError: the folder is missing or empty, or files of it cannot be used; each with its
            reason.
    """
    pages = len(study.key["sheets"])
    if not str(folder):
        return Answers(judgements=[], sheets=pd.DataFrame(), pages=pages)
    files = sorted(Path(folder).glob("*.json")) if Path(folder).is_dir() else []
    if not files:
        raise DataError(
            f"answers {folder}: no *.json file there; expected the files that the pages of study "
            f"{study.key['study']} saved; put them into one folder and name it with -p answers"
        )
    read: dict[str, list[tuple[Path, list[Row]]]] = {}
    wrong = []
    for file in files:
        try:
            sheet, answers = _sheet(study, file)
            read.setdefault(sheet, []).append((file, answers))
        except _Refused as error:
            wrong.append(f"{file.name}: {error}")
    for sheet, same in sorted(read.items()):
        if len(same) > 1:
            twice = " and ".join(f"{file.name} ({len(given)} answers)" for file, given in same)
            wrong.append(f"sheet {sheet} was answered twice: {twice}; keep one of them")
    if wrong:
        raise DataError(
            f"answers {folder}: {len(wrong)} of {len(files)} files cannot be used as they are; "
            "expected one unchanged file a page; correct or take away what is named:\n- "
            + "\n- ".join(wrong)
        )
    judgements, lines = [], []
    for sheet, [(_, answers)] in read.items():
        judgements += [_judgement(study.key["questions"], sheet, one) for one in answers]
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
    return Answers(judgements=judgements, sheets=pd.DataFrame(lines), pages=pages)


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


class _Refused(Exception):
    """Why a file does not count."""


def _require(fine: bool, reason: str) -> None:
    if not fine:
        raise _Refused(reason)


def _sheet(study: Study, file: Path) -> tuple[str, list[Row]]:
    """The number of a page and its answers, unchanged and of the right types."""
    try:
        size = file.stat().st_size
        _require(size <= LARGEST_BYTES, f"has {size} bytes; expected at most {LARGEST_BYTES}")
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _Refused(f"cannot be read ({error}); it is cut off or no JSON") from error
    ours = isinstance(content, dict) and content.get("format") == FORMAT
    _require(ours, "holds no answers of a study page")
    own, sheets = study.key["study"], study.key["sheets"]
    version, name, sheet = (content.get(key) for key in ("version", "study", "sheet"))
    _require(version == VERSION, f"has version {version!r} of the format; expected {VERSION}")
    _require(name == own, f"belongs to study {name!r}, not {own!r}")
    known = isinstance(sheet, str) and sheet in sheets
    _require(known, f"sheet {sheet!r} is none of the {len(sheets)} of this study")
    answers = content.get("answers")
    _require(isinstance(answers, list) and bool(answers), "holds no answer")
    for number, one in enumerate(answers, 1):
        whole = isinstance(one, dict) and set(one) == set(ANSWER)
        typed = whole and all(type(one[n]) is (int if n in NUMBERS else str) for n in ANSWER)
        _require(typed, f"answer {number} is damaged; expected {', '.join(ANSWER)}")
        sense = all(one[n] >= 0 for n in NUMBERS) and re.match(r"\d{4}-\d\d-\d\dT", one["at"])
        _require(bool(sense), f"answer {number} has a time or a count that makes no sense")
    sealed = checksum(name, sheet, answers) == content.get("check")
    _require(sealed, "was changed after the page saved it (the checksum differs)")
    shown = dict(sheets[sheet])  # question to the token of candidate A
    seen: set[str] = set()
    for number, one in enumerate(answers, 1):
        item, choice = one["item"], one["choice"]
        _require(item in shown, f"answer {number} is to question {item!r}, which is unknown")
        _require(item not in seen, f"question {item!r} was answered twice")
        seen.add(item)
        tokens = study.key["questions"][item]["tokens"]
        _require(choice in tokens, f"answer {number} chose {choice!r}, which is unknown")
        side = "A" if choice == shown[item] else "B"
        _require(one["side"] == side, f"answer {number} chose {choice!r} on the wrong side")
    return sheet, answers


def checksum(study: str, sheet: str, answers: Sequence[Mapping[str, Any]]) -> str:
    """CRC-32 over the answers as the page computes it; it finds changes, it proves nothing."""
    lines = ["|".join(str(one[name]) for name in ANSWER) for one in answers]
    return f"{zlib.crc32(chr(10).join([study, sheet, *lines]).encode('utf-8')):08x}"


def _judgement(questions: Mapping[str, Any], sheet: str, answer: Mapping[str, Any]) -> Judgement:
    asked = questions[answer["item"]]
    place = asked["tokens"].index(answer["choice"])
    return Judgement(
        evaluator=sheet,
        triplet=answer["item"],
        system=asked["system"],
        task=asked["task"],
        sexes=asked["sexes"],
        right=place == asked["match"],
        first=place == 0,
    )
