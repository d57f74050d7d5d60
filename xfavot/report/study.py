"""The correspondence study: made once, kept in a folder, read back when people have answered.

Paper: Sec. 4.3 and Fig. 5. `pages/` holds one page an evaluator, to be given away; `key.json` says
what the tokens in the pages mean and stays with the experimenter, as does everything else.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from xfavot.convert import open_stores
from xfavot.data.manifest import Store
from xfavot.errors import ConfigError, DataError
from xfavot.evaluation import automatic_cpr, triplets
from xfavot.evaluation.cpr import Row, corrected
from xfavot.report.provenance import Beginning, Data, Provenance
from xfavot.report.provenance import Checkpoint as Weights
from xfavot.report.study_origin import System, origin_of, systems_of
from xfavot.report.study_page import LISTEN_MS, Clip, Question, Shown, question, write_page
from xfavot.study_config import StudyConfig

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


def prepare(cfg: StudyConfig, began: Beginning, *, on_log: Say) -> Study:
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
    judges = automatic_cpr.judges_of(stores, {s.name: s.converter for s in systems})
    rows = automatic_cpr.automatic_rows(drawn, judges, dataset=cfg.dataset, seed=cfg.seed)
    origin = origin_of(cfg, began, stores, systems)
    example = triplets.ground_truth(
        stores, task="a2i", form="faces", count=1, seed=cfg.seed + 1
    ) or drawn[:1]  # fmt: skip
    return write_study(
        drawn, example[0], folder=cfg.out, sheets=cfg.evaluators, seed=cfg.seed, form=cfg.form,
        dataset=cfg.dataset, provenance=origin, automatic=corrected(rows), on_log=on_log,
    )  # fmt: skip


def _draw(
    cfg: StudyConfig, stores: Sequence[Store], systems: Sequence[System], say: Say
) -> list[triplets.Triplet]:
    drawn: list[triplets.Triplet] = []
    how: dict[str, Any] = {"form": cfg.form, "count": cfg.triplets, "seed": cfg.seed}
    for task in triplets.TASKS:
        truth = triplets.ground_truth(stores, task=task, **how)
        drawn += truth
        found = f"{len(truth)} triplets" if truth else "none: no clips with a face and a voice"
        say(f"{triplets.TRUTH}, {task}: {found}")
        for one in systems:
            if not all(one.converter.has(kind) for kind in ("face", "voice")):
                say(f"{one.name}, {task}: left out, it has no faces or no voices")
                continue
            drawn += triplets.converted(one.converter, stores, system=one.name, task=task, **how)
            say(f"{one.name}, {task}: {cfg.triplets} triplets")
    if not drawn:
        raise DataError(
            f"study of {cfg.dataset}: nothing to ask; expected clips with a face and a voice, or a "
            "model; prepare an audio-visual corpus, or name a checkpoint"
        )
    return drawn


def write_study(
    drawn: Sequence[triplets.Triplet],
    example: triplets.Triplet,
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
        "schema": SCHEMA, "study": _digest(ID_BYTES, seed, "study", *ids), "form": form,
        "dataset": dataset, "seed": seed, "provenance": provenance.record(),
        "questions": {
            one: {"system": t.system, "task": t.task, "sexes": t.sexes, "people": list(t.people),
                  "source": t.source, "tokens": list(tokens[one]), "match": match[one]}
            for one, t in zip(ids, drawn, strict=True)
        },
        "sheets": {}, "automatic": list(automatic), "bytes": 0,
    }  # fmt: skip
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
        shown = [_shown(one, by_id[one], tokens[one], match[one], bool(turn))
                 for one, turn in zip(order, turned, strict=True)]  # fmt: skip
        name = f"{number:0{width}d}"
        key["sheets"][name] = [[one.id, one.a[0]] for one in shown]
        size = write_page(
            target / PAGES / f"sheet_{name}.html", study=key["study"], sheet=name,
            questions=shown, practice=practice, seconds=seconds, listen_ms=listen_ms,
        )  # fmt: skip
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
