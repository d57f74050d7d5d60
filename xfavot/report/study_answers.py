"""Answers of the correspondence study, read back: every file is checked before anything counts.

A file is what a page saved. It is refused as a whole when it belongs to another study or sheet than
it should, was changed by hand, holds what the page never asked, or when a sheet was answered twice;
all that is wrong in a folder is told at once. A file with only some of the answers is fine and
counts as what it is.
"""

from __future__ import annotations

import json
import os
import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from xfavot.errors import DataError
from xfavot.evaluation.cpr import Judgement, Row, cpr_rows
from xfavot.report.study import Study

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
        sheet=name, file=file.name, asked=len(study.key["sheets"][name]),
        judgements=tuple(_judgement(study.key["questions"], name, one) for one in answers),
        seconds=median(one["ms"] for one in answers) / 1000,
        plays=sum(one["plays"] for one in answers) / count,
        side_a=sum(one["side"] == "A" for one in answers) / count,
    )  # fmt: skip


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
        evaluator=name, triplet=answer["item"], system=asked["system"], task=asked["task"],
        sexes=asked["sexes"], right=place == asked["match"], first=place == 0,
    )  # fmt: skip
