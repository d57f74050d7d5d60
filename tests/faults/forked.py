"""Trainings in several processes, which one Python forks once everything is loaded.

python -m tests.faults.forked ROOT

Every training has a folder in ROOT, where each of its processes also writes how it ended. They
compute in float64, so that what differs between one process and two is their method and not their
rounding.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import accelerate  # noqa: F401
import torch
import torch._dynamo  # optimisers load it
import torch.utils.tensorboard

from tests.unit.training_factory import small_run
from xfavot import training
from xfavot.audio.mel import Standardiser
from xfavot.config import RunConfig
from xfavot.training import checkpoint, loop
from xfavot.training.passes import Networks

STEPS = 5  # the first one is the warm-up; R1 on every second one
SETTINGS = {
    **{"train.warmup_steps": 1, "train.warmup_batch_size": 4, "train.r1_every": 2},
    **{"train.keep_checkpoints": 9, "model.melody": True, "loss.level": 1.0},
    **{"model.ltas": True, "loss.ltas": 1.0},
    **{"train.warmup_muon": 0.02},
}
SEED = 7  # steps 2 to 5 are guided by face, code, voice, face; 3 and 4 by speaker
open_networks = loop.open_networks


def planned(root: Path, **changes: Any) -> RunConfig:
    """The run of all of them."""
    given: dict[str, Any] = {"steps": STEPS, "batch_size": 4, "seed": SEED}
    return small_run(root, **given | {"overrides": SETTINGS} | changes)


def in_float64(*given: Any) -> Networks:
    """Networks of a run as `open_networks` makes them, and what computes with them."""
    n = open_networks(*given)
    torch.set_default_dtype(torch.float64)
    torch.Tensor.float = torch.Tensor.double  # type: ignore[assignment, method-assign]
    for module in (n.nets, n.f0, n.content):
        module.double()
    known = n.standardiser
    return n._replace(standardiser=Standardiser(known.mean.double(), known.std.double()))


def is_validated(rank: int, session: training.Session) -> None:
    """All come by here after the second step, and one of them measures."""
    if session.step == 2:
        session.validate()


def dies(rank: int, session: training.Session) -> None:
    """The second process is killed after the third step."""
    if (rank, session.step) == (1, 3):
        os.kill(os.getpid(), signal.SIGKILL)


def is_stopped(rank: int, session: training.Session) -> None:
    """The second process alone is asked to stop after the fourth step."""
    if (rank, session.step) == (1, 4):
        signal.raise_signal(signal.SIGTERM)


def train(
    root: Path,
    count: int,
    after_step: Callable[[int, training.Session], None] = is_validated,
    changes: Callable[[int], dict[str, Any]] = lambda rank: {},
) -> None:
    """Train, or go on, in `count` processes, and wait for them.

    Args:
        root: of the data and the run.
        count: processes.
        after_step: what happens in a process after each step.
        changes: of the run, by rank.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    children = []
    for rank in range(count):
        child = os.fork()
        if child:
            children.append(child)
            continue
        names = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count}
        places = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        os.environ.update({name: str(value) for name, value in {**names, **places}.items()})
        ended = "done"
        try:
            with training.open_session(planned(root, **changes(rank)), resume="auto") as session:
                for number in session:
                    session.log(session.update(session.batch(number), number))
                    if session.due("checkpoint"):
                        session.save()
                    after_step(rank, session)
                session.finish()
        except Exception as error:
            ended = f"{type(error).__name__}: {error}"
        (root / f"ended_{rank}.txt").write_text(ended)
        os._exit(0)
    for child in children:
        os.waitpid(child, 0)


def main(root: Path) -> None:
    """Make all the trainings that the tests look at."""
    torch.set_num_threads(1)
    loop.open_networks = in_float64
    loop.VALIDATION_BATCHES = 1
    one, two, odd, other = (root / name for name in ("one", "two", "odd", "other"))
    planned(one)
    train(one, 1)
    for place in (two, odd, other):
        shutil.copytree(one / "data", place / "data")
        shutil.copytree(one / "runs" / "auxiliary", place / "runs" / "auxiliary")
    shutil.copytree(two, root / "killed")
    train(two, 2)
    train(root / "killed", 2, dies)
    shutil.copytree(root / "killed", root / "killed_then_one")
    train(root / "killed_then_one", 1)
    shutil.copytree(one, root / "one_then_two")
    for made in (root / "one_then_two").glob("runs/grid_*/checkpoints/*"):
        if made.name != checkpoint.folder_of(root, 2).name:
            shutil.rmtree(made)
    train(root / "one_then_two", 2, is_stopped)
    train(odd, 2, changes=lambda rank: {"batch_size": 3})
    train(other, 2, changes=lambda rank: {"steps": STEPS + rank})


if __name__ == "__main__":
    main(Path(sys.argv[1]))
