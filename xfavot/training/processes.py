"""Several processes that train one model, on one machine or on many.

`torchrun` or `accelerate launch` starts them. Each computes its part of the rows of every batch;
gradients are averaged before every move of an optimiser, so that all hold the same weights. What is
no mean over equally many rows (L_xm, the level of the pitch, classification, counts) is computed
from the rows of all processes. Process 0, the main one, alone writes.
"""

from __future__ import annotations

import atexit
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed

from xfavot.errors import TrainingError, import_optional, refusing
from xfavot.models import device_of
from xfavot.strict import require

# others wait so long for the main process, which may train the frozen networks first; that a
# process has died is noticed at once, because its connections close
LONGEST_WAIT = timedelta(days=7)
LISTENS_S = 0.25  # to the other programs of the machine, before the first step
LOOKS_S = 10.0  # later, what they leave free is counted over as long
TIMES = Path("/proc/stat")  # of every core since the machine started, by what it did; Linux
IDLE = slice(4, 6)  # its columns of doing nothing, and of waiting for a disk


@dataclass(frozen=True, slots=True)
class Processes:
    """The processes of a training: which one this is, and what they tell each other.

    Of one process alone, nothing is copied and nothing is sent.
    """

    rank: int = 0
    count: int = 1
    device: str = "cpu"  # of the messages

    @property
    def main(self) -> bool:
        """Whether this is the one that writes."""
        return self.rank == 0

    def together(self, rows: Tensor) -> Tensor:
        """Join the rows (B, ...) of all processes to (count * B, ...), in the batch's order.

        Gradients flow into the own rows; see :meth:`average`.
        """
        return rows if self.count == 1 else _Together.apply(rows, self)  # type: ignore[no-untyped-call]

    def average(self, values: Sequence[Tensor]) -> None:
        """Replace tensors by their means over all processes, in one message.

        What every process computes from joined rows counts once: its gradients are multiplied by
        the number of processes on their way back, and divided here.
        """
        if self.count > 1 and values:
            flat = torch.cat([value.flatten() for value in values]) / self.count
            with self.connected():
                distributed.all_reduce(flat)
            sizes = [value.numel() for value in values]
            for value, mean in zip(values, torch.split(flat, sizes), strict=True):
                value.copy_(mean.view_as(value))

    def every(self, number: int) -> list[int]:
        """A number of each process; all wait here for each other."""
        numbers: list[int] = self.together(torch.tensor([number], device=self.device)).tolist()
        return numbers

    @contextmanager
    def connected(self) -> Iterator[None]:
        """Raise a TrainingError where another process cannot be reached any more."""
        wrong = f"process {self.rank} of {self.count} has lost the others"
        step = "one of them died and says why; go on by -p resume auto in any number of processes"
        with refusing((RuntimeError, ValueError), TrainingError, wrong, step):
            yield


class _Together(torch.autograd.Function):
    """See :meth:`Processes.together`."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, processes: Processes) -> Tensor:
        ctx.processes = processes
        parts = [torch.empty_like(rows.contiguous()) for _ in range(processes.count)]
        with processes.connected():
            distributed.all_gather(parts, rows.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        own: Tensor = gradient.chunk(ctx.processes.count)[ctx.processes.rank]
        return own * ctx.processes.count, None


@contextmanager
def joined(device: str) -> Iterator[Processes]:
    """Find the other processes of a launch, if there are any, and leave them if a block fails.

    Args:
        device: `train.device`; each process takes the GPU of its place on the machine.

    Raises:
        ConfigError: a device by its number, or one that is not here.
        DataError: the extra `distributed` is not installed.
        TrainingError: the others cannot be reached.
    """
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count < 2:
        yield Processes()
        return
    step = "each process takes the GPU of its own place; choose by CUDA_VISIBLE_DEVICES"
    require(device in ("auto", "cpu", "cuda"), "device", device, "auto, cpu or cuda", step)
    on_cpu = device_of(device).type == "cpu"
    accelerate = import_optional("accelerate", extra="distributed", purpose="several processes")
    with Processes(int(os.environ["RANK"]), count).connected():
        state = accelerate.PartialState(cpu=on_cpu, timeout=LONGEST_WAIT)
    atexit.register(state.destroy_process_group)
    try:
        yield Processes(state.process_index, count, state.device.type)
    except BaseException:
        state.destroy_process_group()  # the others notice
        raise


class FreeCores:
    """As many threads as cores are free, unless `OMP_NUM_THREADS` says how many.

    Threads wait for each other, so two of them on two cores are slower beside a busy program than
    one alone. Linux tells what every core does; elsewhere all threads stay.
    """

    def __init__(self) -> None:
        """Listen to the other programs for a moment and leave them their cores."""
        self.most, self.threads = torch.get_num_threads(), torch.get_num_threads()
        self.watched = "OMP_NUM_THREADS" not in os.environ and TIMES.exists()
        if self.watched:
            self.spare, self.since = _spare_s(), time.monotonic()
            time.sleep(LISTENS_S)
            self.look(0)

    def look(self, every_s: float = LOOKS_S) -> bool:
        """Count the free cores anew, once the last look is `every_s` ago; whether they changed."""
        now, before = time.monotonic(), self.threads
        if self.watched and now - self.since >= every_s:
            spare = _spare_s()
            free = round((spare - self.spare) / (now - self.since))
            self.threads, self.spare, self.since = max(1, min(self.most, free)), spare, now
            torch.set_num_threads(self.threads)
        return self.threads != before


def _spare_s() -> float:
    """Seconds that the cores of this process have been idle or its own, all together."""
    own = {f"cpu{core}" for core in os.sched_getaffinity(0)}
    rows = [line.split() for line in TIMES.read_text().splitlines()]
    ticks = sum(sum(map(int, row[IDLE])) for row in rows if row[0] in own)
    return ticks / os.sysconf("SC_CLK_TCK") + time.process_time()
