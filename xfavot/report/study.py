"""The correspondence study: made once, kept in a folder, read back when people have answered.

Paper: Sec. 4.3 and Fig. 5. `pages/` holds one page an evaluator, to be given away; `key.json` says
what the tokens in the pages mean and stays with the experimenter, as does everything else.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import io
import json
import math
import os
import zlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from xfavot import config
from xfavot.audio.mel import MEL
from xfavot.baselines.training import converter_of, load_model
from xfavot.convert import Converter, Task
from xfavot.data.store import Store
from xfavot.errors import ConfigError, DataError, import_optional, refusing
from xfavot.evaluation import cpr
from xfavot.evaluation.cpr import Row, Sample, Triplet, is_face
from xfavot.files import write_whole
from xfavot.image.io import resize_image
from xfavot.parameters import Study as Asked
from xfavot.report import Provenance, collect, machine, read_json, times

PAPER_TRIPLETS = 30
SCHEMA = 1
KEY, PAGES = "key.json", "pages"
PARTS = ("study", "form", "dataset", "seed", "questions", "sheets", "automatic", "provenance")
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
ABOUT = ("system", "task", "sexes", "people", "source")  # of a triplet, kept in the key
NUMBERS = ("ms", "plays", "heard_ms")
LARGEST_BYTES = 5_000_000  # of a file of answers

Say = Callable[[str], None]
Systems = Mapping[str, Converter]  # models by their short names
Key = dict[str, Any]  # see below


# The models of a study and where its questions come from


def systems_of(cfg: Asked) -> dict[str, Converter]:
    """Load the models.

    Args:
        cfg: the task.

    Returns:
        One a checkpoint, named after its configuration; where several have the same name, after the
        step and, if need be, the place in the list.

    Raises:
        CheckpointError: a checkpoint cannot be used.
    """
    models = [load_model(Path(checkpoint)) for checkpoint in cfg.checkpoints]
    names = [model.config.configuration for model in models]
    for finer in ([f"step {model.step}" for model in models], range(1, len(models) + 1)):
        often, pairs = Counter(names), zip(names, finer, strict=True)
        names = [f"{name}, {part}" if often[name] > 1 else name for name, part in pairs]
    how: dict[str, Any] = {"device": cfg.device, "vocoder": cfg.vocoder}
    named = zip(names, models, strict=True)
    return {name: converter_of(model, name=name, **how) for name, model in named}


@functools.cache
def weights_digest(checkpoint: Path) -> str:
    """SHA-256 of the trained weights and their averages."""
    digest = hashlib.sha256()
    for file in (checkpoint / "model.safetensors", checkpoint / "ema.safetensors"):
        digest.update(file.read_bytes() if file.exists() else b"")  # one without averages
    return digest.hexdigest()


def tier_of(cfg: Asked, presets: Sequence[str]) -> str:
    """Tier of a study: "paper" if every model is of that size and there are 30 triplets each."""
    if "smoke" in presets:
        return "smoke"
    full = set(presets) == {"paper"} and cfg.triplets >= PAPER_TRIPLETS
    return "paper" if full else "reduced"


def origin_of(
    cfg: Asked, systems: Systems, stores: Sequence[Store], began: datetime, **place: str
) -> Provenance:
    """Where what models make comes from; the first one is that of the figures.

    Args:
        cfg, systems, stores: the study, its models and its data.
        began, place: the beginning, split and notebook; see :func:`xfavot.report.collect`.
    """
    digests = {f"model {name}": weights_digest(one.model.path) for name, one in systems.items()}
    first = next(iter(systems.values()), None)
    run = first.config if first else config.resolve(dataset=cfg.dataset, seed=cfg.seed)
    trained = {"step": first.step, "sha256": next(iter(digests.values()))} if first else None
    tier = tier_of(cfg, [one.config.preset for one in systems.values()])
    about = collect(began, run, tier=tier, stores=stores, **place)
    asked = {"seeds": [cfg.seed], "dataset": cfg.dataset}  # not what the model was trained with
    return {**about, **asked, "weights": digests, "checkpoint": trained}


def answered(origin: Provenance, began: datetime) -> Provenance:
    """Return the provenance of a study's tables, written now."""
    return {**origin, **times(began), "device": machine("cpu")}


def ask(
    cfg: Asked, stores: Sequence[Store], systems: Systems, *, on_log: Say
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
        for name, converter in systems.items():
            kinds = converter.has("face") and converter.has("voice")
            if not kinds or Task(task) not in converter.tasks:
                on_log(f"{name}, {task}: left out, it does not make this")
                continue
            drawn += cpr.converted(converter, stores, system=name, task=task, **how)
            on_log(f"{name}, {task}: {cfg.triplets} triplets")
    raters = cpr.raters_of(stores, systems)
    return drawn, cpr.automatic_rows(drawn, raters, dataset=cfg.dataset, seed=cfg.seed)


# A study in its folder; `Key` is the content of `key.json`: ``study`` (its id), ``form``,
# ``dataset``, ``seed``, ``questions`` (id to ``system``, ``task``, ``sexes``, ``people``,
# ``source``, ``tokens`` and ``match``, the place of the right one in them), ``sheets`` (number to
# the pairs of question and token of candidate A, in order), ``automatic`` (rows of the automatic
# CPR), ``bytes`` of the largest page and ``provenance`` of the questions.


def write_study(
    cfg: Asked,
    drawn: Sequence[Triplet],
    example: Triplet,
    provenance: Provenance,
    *,
    automatic: Sequence[Row] = (),
    listen_ms: int = LISTEN_MS,
) -> Key:
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
    seed, target, rng = cfg.seed, Path(cfg.out), np.random.default_rng([cfg.seed, len(drawn)])
    questions: dict[str, dict[str, Any]] = {}
    shown: dict[str, dict[str, Any]] = {}
    for number, t in enumerate(drawn):
        samples = [encode(sample) for sample in t.samples]
        content = hashlib.sha256(b"".join(samples)).hexdigest()
        one = _digest(ID_BYTES, seed, "question", number, content)
        questions[one] = {
            **{name: getattr(t, name) for name in ABOUT},
            "tokens": [_digest(TOKEN_BYTES, seed, one, side) for side in range(2)],
            "match": int(rng.integers(2)),  # which of the two tokens is right
        }
        shown[one] = _shown(one, t, samples, questions[one])
    key: Key = {
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
    if (target / KEY).exists() and (there := open_study(target)["study"]) != key["study"]:
        raise ConfigError(
            f"out is {target}, where study {there} lies; this would be study {key['study']}; "
            "expected an empty folder or the same study, whose pages may be with people already; "
            "read its answers with -p answers <folder>, or give another folder with -p out"
        )
    voices = [sample for t in drawn for sample in t.samples if not is_face(sample)]
    seconds = sum(map(len, voices)) / MEL.sample_rate + ANSWER_SECONDS * len(drawn)
    first: Any = {"tokens": ["first", "second"], "match": 0}
    shared = {
        "study": key["study"],
        "listen_ms": listen_ms,
        "minutes": max(1, round(seconds / 60)),
        "practice": _shown("example", example, [encode(s) for s in example.samples], first),
    }
    asked = list(shown.values())
    for number in range(1, cfg.evaluators + 1):
        draw = np.random.default_rng([seed, number, 7])
        items = [asked[i] for i in draw.permutation(len(shown))]
        turned = draw.permutation(len(shown)) % 2  # the first token is A as often as B
        items = [
            {**item, "a": item["b"], "b": item["a"]} if turn else item
            for item, turn in zip(items, turned, strict=True)
        ]
        name = f"{number:0{max(2, len(str(cfg.evaluators)))}d}"
        key["sheets"][name] = [[item["id"], item["a"]["t"]] for item in items]
        page = _page({**shared, "sheet": name, "items": items})
        write_whole(target / PAGES / f"sheet_{name}.html", page)
        key["bytes"] = max(key["bytes"], len(page.encode("utf-8")))
    write_whole(target / KEY, json.dumps(key, indent=1, allow_nan=False) + "\n")
    return open_study(target)


def open_study(folder: str | os.PathLike[str]) -> Key:
    """Open a study that was made before.

    Args:
        folder: the parameter `out` of its making.

    Raises:
        DataError: there is none, or its key is damaged.
    """
    expected = "the key of a study; give the folder in which it was made with -p out"
    key = read_json(Path(folder, KEY), expected, schema=[SCHEMA])
    with refusing(KeyError, DataError, f"{Path(folder, KEY)} is damaged", f"expected {expected}"):
        return {name: key[name] for name in PARTS} | key


# A page: a single HTML file that works offline, on any device


def encode(sample: Sample) -> bytes:
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
        return stream.getvalue()
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
    return stream.getvalue()


def _shown(
    name: str, triplet: Triplet, samples: Sequence[bytes], question: Mapping[str, Any]
) -> dict[str, Any]:
    """A question as the page's script reads it, the candidate of the first token as A."""
    prompt, *pair = (
        {"k": "face" if is_face(raw) else "voice", "d": base64.b64encode(data).decode("ascii")}
        for raw, data in zip(triplet.samples, samples, strict=True)
    )
    ordered = pair[::-1] if question["match"] == 1 else pair
    a, b = ({"t": t, **one} for t, one in zip(question["tokens"], ordered, strict=True))
    return {"id": name, "p": prompt, "a": a, "b": b}


def _page(data: Mapping[str, Any]) -> str:
    """The page of one evaluator; `data` is what its script reads."""
    template = import_optional("jinja2", extra="data", purpose="the study").Template
    folder = resources.files("xfavot.report")
    html, style, script = (
        (folder / f"study.{kind}").read_text(encoding="utf-8").rstrip()
        for kind in ("html", "css", "js")
    )
    content = json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")
    page: str = template(html).render(sheet=data["sheet"], style=style, script=script, data=content)
    if len(page) > MOST_BYTES:
        raise DataError(
            f"study page of {len(data['items'])} questions has {len(page) / 1e6:.0f} MB; expected "
            f"at most {MOST_BYTES / 1e6:.0f}, which telephones open; ask for fewer triplets"
        )
    return page


def _digest(size: int, *parts: object) -> str:
    text = json.dumps([str(part) for part in parts]).encode("utf-8")
    return hashlib.blake2b(text, digest_size=size).hexdigest()


# Answers, read back: every file is checked before anything counts


def read_answers(key: Key, folder: str | os.PathLike[str]) -> list[Row]:
    """Read the answers to a study.

    Args:
        key: of :func:`open_study`.
        folder: where the files lie, `*.json`; "" reads none.

    Returns:
        The answers, for :func:`result_rows`.

    Raises:
        DataError: the folder is missing or empty, or files of it cannot be used; each with its
            reason.
    """
    if not str(folder):
        return []
    rows: list[Row] = []
    read: dict[str, str] = {}  # sheet to file
    files, wrong = sorted(Path(folder).glob("*.json")), []
    for file in files:
        try:
            sheet, answers = _sheet(key, file)
            if sheet in read:
                raise ValueError(f"sheet {sheet} is in {read[sheet]}, too; keep one of them")
            read[sheet], rows = file.name, rows + answers
        except (OSError, ValueError) as error:
            wrong.append(f"{file.name}: {error}")
        except (KeyError, TypeError) as error:
            wrong.append(f"{file.name}: it is damaged or no file of answers ({error!r})")
    if wrong or not files:
        raise DataError(
            f"answers {folder}: {len(wrong)} of {len(files)} files cannot be used; expected one "
            f"unchanged *.json file for each page of study {key['study']} that came back; "
            "correct or take away what is named here:" + "".join(f"\n- {one}" for one in wrong)
        )
    return rows


def result_rows(key: Key, answers: Sequence[Row]) -> list[Row]:
    """Rows of the CPR by people, if there are answers, and then of the automatic one.

    Args:
        key: of the study.
        answers: of :func:`read_answers`.

    Raises:
        DataError: there is neither, or the key is damaged.
    """
    if not answers and not key.get("automatic"):
        raise DataError(
            f"study {key['study']}: no answers yet, and no automatic CPR on {key['dataset']} "
            "without a model; expected either; read answers with -p answers <folder>"
        )
    advice = "restore it: without it nobody can say what was asked"
    with refusing((ValueError, LookupError, TypeError), DataError, f"{KEY} is damaged", advice):
        order = {item: place for place, item in enumerate(key["questions"])}
        given = sorted(answers, key=lambda row: order[row["triplet"]])
        rows = cpr.cpr_rows(given, dataset=key["dataset"], seed=key["seed"]) if given else []
        return [*rows, *key["automatic"]]


def _sheet(key: Key, file: Path) -> tuple[str, list[Row]]:
    """The number of a page and its answers.

    Raises:
        OSError, ValueError, KeyError, TypeError: they are not as the page saved them.
    """
    rows = []
    if (size := file.stat().st_size) > LARGEST_BYTES:
        raise ValueError(f"it has {size} bytes; expected at most {LARGEST_BYTES}")
    content = json.loads(file.read_text(encoding="utf-8"))
    name, sheet, answers = (content[part] for part in ("study", "sheet", "answers"))
    if (content["format"], content["version"]) != (FORMAT, VERSION) or not answers:
        raise ValueError("it holds no answers of a study page")
    if name != key["study"] or sheet not in key["sheets"]:
        raise ValueError(f"it belongs to study {name!r}, sheet {sheet!r}")
    if checksum(name, sheet, answers) != content["check"]:
        raise ValueError("it was changed after the page saved it (the checksum differs)")
    shown = key["sheets"][sheet][: len(answers)]
    for (item, token_a), one in zip(shown, answers, strict=True):
        asked, choice = key["questions"][item], one["choice"]
        side = "A" if choice == token_a else "B"
        fits = (one["item"], one["side"]) == (item, side) and choice in asked["tokens"]
        if not fits or min(one[number] for number in NUMBERS) < 0:
            raise ValueError(f"its answer to question {item!r} does not fit the page")
        place = asked["tokens"].index(choice)
        named = {part: asked[part] for part in ("system", "task", "sexes")}
        chosen = {"right": place == asked["match"], "first": place == 0}
        rows.append({**one, **named, **chosen, "evaluator": sheet, "triplet": item})
    return sheet, rows


def checksum(study: str, sheet: str, answers: Sequence[Mapping[str, Any]]) -> str:
    """CRC-32 over the answers as the page computes it; it finds changes, it proves nothing."""
    lines = ["|".join(str(one[name]) for name in ANSWER) for one in answers]
    return f"{zlib.crc32(chr(10).join([study, sheet, *lines]).encode('utf-8')):08x}"
