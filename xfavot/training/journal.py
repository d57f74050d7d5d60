"""The records of a run: ``metrics.jsonl``, its cut on resume, and TensorBoard events."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from xfavot.errors import CheckpointError, TrainingError


def read(path: Path) -> list[dict[str, float]]:
    """All records of a file of JSON lines; an unfinished last line is left out.

    Raises:
        CheckpointError: the file is missing, or a line before the last is damaged.
    """
    if not path.exists():
        raise CheckpointError(f"{path} is missing; expected the records of a run; name its folder")
    lines = path.read_text().split("\n")
    records = []
    for number, line in enumerate(lines[:-1], 1):
        try:
            records.append(json.loads(line))
        except ValueError as error:
            raise CheckpointError(f"{path}, line {number} is damaged ({error})") from error
    return records


def cut(path: Path, last_step: int) -> None:
    """Drop the records after a step, as the resumed run will write them again."""
    if not path.exists():
        return
    kept = [r for r in read(path) if r["step"] <= last_step]
    draft = path.with_suffix(".draft")
    draft.write_text("".join(json.dumps(r) + "\n" for r in kept))
    os.replace(draft, path)


class Journal:
    """Appends records to JSON lines and to TensorBoard's event files.

    Args:
        run: the run's folder.
        step: finished steps; later records and events are dropped.
    """

    def __init__(self, run: Path, *, step: int) -> None:
        """Cut both files back and open the events."""
        from torch.utils.tensorboard import SummaryWriter

        self.path, self.timing = run / "metrics.jsonl", run / "timing.jsonl"
        cut(self.path, step)
        cut(self.timing, step)
        self.events = SummaryWriter(str(run / "events"), purge_step=step + 1 if step else None)

    def write(self, record: Mapping[str, Any]) -> None:
        """Append a record with its ``step``.

        Raises:
            TrainingError: the disk is full or the folder is gone.
        """
        self._append(self.path, record)
        for name, value in record.items():
            if name != "step":
                self.events.add_scalar(name, value, record["step"])

    def write_timing(self, record: Mapping[str, Any]) -> None:
        """Append a record to ``timing.jsonl``."""
        self._append(self.timing, record)

    def close(self) -> None:
        """Close the event file."""
        self.events.close()

    def _append(self, path: Path, record: Mapping[str, Any]) -> None:
        try:
            with path.open("a") as file:
                file.write(json.dumps(record) + "\n")
        except OSError as error:
            raise TrainingError(
                f"{path} could not be written ({error}); free some space and go on with "
                "-p resume auto"
            ) from error
