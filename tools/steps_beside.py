"""What a training step costs beside the peers' own iterations, and beside a busy neighbour.

    python -m tools.steps_beside peers PEERS OUT      PEERS holds stargan-v2 and StarGANv2-VC
    python -m tools.steps_beside neighbour DATA OUT   a step of `mini`, alone and beside one process

Every system has a process of its own, on one thread, which says its CPU time and the peak of its
memory; the processes take turns, so that other work falls on all alike. Networks of the peers have
their published sizes, at 128 pixels and 192 frames, and random weights. After each round OUT is
written: rows of work, system, cpu_s, wall_s, peak_mib, tflop (a sample) and ratio.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import json
import multiprocessing
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
import yaml

from xfavot import config, training
from xfavot.evaluation import speed
from xfavot.training.processes import FreeCores

Call = Callable[[], object]
DOMAINS = 2  # women and men; StarGANv2-VC's published 20 cost the same
OPEN: list[Call] = []  # of a process that is timed
BESIDE_S = 2.0  # until a neighbour is busy
ALONE, ADAPTED = "alone", "started beside one busy process"


class Attributes(dict):  # type: ignore[type-arg]
    """A dictionary whose keys are attributes, as the peers expect of the package munch."""

    __getattr__ = dict.__getitem__
    __setattr__ = dict.__setitem__


def modules_of(folder: Path, names: str, absent: str = "") -> list[ModuleType]:
    """Import modules of a check-out, with stand-ins for packages that no iteration calls."""
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is missing; clone the peer there")
    sys.path.insert(0, str(folder))
    for name in ("munch", *absent.split()):
        stand_in = ModuleType(name)
        for of in ("Munch", "gaussian", "calculate_metrics", "InputFetcher", "build_transforms"):
            setattr(stand_in, of, Attributes if of == "Munch" else None)
        sys.modules[name] = stand_in
    return [importlib.import_module(name) for name in names.split()]


def average_into(mean: torch.nn.Module, model: torch.nn.Module) -> None:
    """Move the averages as the peers do, weight by weight."""
    with torch.no_grad():
        for own, new in zip(mean.parameters(), model.parameters(), strict=True):
            own.lerp_(new, 0.001)


def iteration(
    nets: Any, averages: Any, losses: ModuleType, optimisers: Any, given: Any, more: Any
) -> Call:
    """A call of an iteration of StarGAN v2 or StarGANv2-VC, in the order of their trainers.

    Args:
        nets, averages: by name.
        losses: has `compute_d_loss` and `compute_g_loss`.
        optimisers: one a trained network.
        given: `x`, `y`, `target`, `refs` (2) and `codes` (2).
        more: weights of the losses of either side, and their further arguments.
    """
    args_d, args_g, options = more

    def take() -> None:
        x, y, target = given["x"].clone(), given["y"], given["target"]
        latent = {"z_trg": given["codes"][0]}, {"z_trgs": given["codes"]}
        reference = {"x_ref": given["refs"][0]}, {"x_refs": given["refs"]}
        steps = [("d", latent[0]), ("d", reference[0]), ("g", latent[1]), ("g", reference[1])]
        for side, guidance in steps:
            compute = losses.compute_d_loss if side == "d" else losses.compute_g_loss
            args = args_d if side == "d" else args_g
            loss, _ = compute(nets, args, x, y, target, **guidance, **options)
            for optimiser in optimisers.values():
                optimiser.zero_grad()
            loss.backward()
            moved = ["discriminator"] if side == "d" else ["generator"]
            if "z_trgs" in guidance:
                moved += ["mapping_network", "style_encoder"]
            for name in moved:
                optimisers[name].step()
        for name, mean in averages.items():
            average_into(mean, nets[name])

    return take


def inputs(shape: tuple[int, ...]) -> dict[str, Any]:
    """Random samples of two domains, references and latent codes."""
    count = shape[0]
    y = torch.arange(count) % DOMAINS
    drawn = [torch.randn(shape) for _ in range(3)]
    codes = [torch.randn(count, 16) for _ in range(2)]
    return {"x": drawn[0], "y": y, "target": 1 - y, "refs": drawn[1:], "codes": codes}


def stargan_v2(root: Path, batch: int) -> Call:
    """An iteration of stargan-v2 at 128 pixels, without its face aligner (as for AFHQ)."""
    absent = "ffmpeg skimage skimage.filters metrics metrics.eval core.data_loader"
    model, solver = modules_of(root / "stargan-v2", "core.model core.solver", absent)
    sizes = {"img_size": 128, "style_dim": 64, "latent_dim": 16, "num_domains": DOMAINS, "w_hpf": 0}
    weights = {"lambda_reg": 1, "lambda_sty": 1, "lambda_ds": 1, "lambda_cyc": 1}
    args = Attributes(sizes | weights)
    nets, averages = model.build_model(args)
    names = ("generator", "mapping_network", "style_encoder", "discriminator")
    given = {"betas": (0.0, 0.99), "weight_decay": 1e-4}
    optimisers = {k: torch.optim.Adam(nets[k].parameters(), lr=1e-4, **given) for k in names}
    return iteration(
        nets, averages, solver, optimisers, inputs((batch, 3, 128, 128)), (args, args, {})
    )


def stargan_v2_vc(root: Path, batch: int) -> Call:
    """An iteration of StarGANv2-VC on 192 frames, its classifier on."""
    folder = root / "StarGANv2-VC"
    names = "models losses Utils.JDC.model Utils.ASR.models"
    models, losses, jdc, asr = modules_of(folder, names, "transforms")
    settings = yaml.safe_load((folder / "Configs" / "config.yml").read_text())
    sizes = yaml.safe_load((folder / "Utils" / "ASR" / "config.yml").read_text())["model_params"]
    pitch, words = jdc.JDCNet(num_class=1, seq_len=192), asr.ASRCNN(**sizes)
    for frozen in (pitch, words):
        frozen.requires_grad_(False).train()  # as their trainer leaves them
    args = Attributes(settings["model_params"] | {"num_domains": DOMAINS})
    nets, averages = models.build_model(args, pitch, words)
    trained = ("generator", "mapping_network", "style_encoder", "discriminator")
    given = {"betas": (0.0, 0.99), "weight_decay": 1e-4, "eps": 1e-9}
    optimisers = {k: torch.optim.AdamW(nets[k].parameters(), lr=1e-4, **given) for k in trained}
    weights = settings["loss_params"]
    more = weights["d_loss"], weights["g_loss"], {"use_adv_cls": True}
    return iteration(nets, averages, losses, optimisers, inputs((batch, 1, 80, 192)), more)


PEERS = {
    "image": ("stargan-v2", stargan_v2, "starganv2"),
    "audio": ("StarGANv2-VC", stargan_v2_vc, "starganv2vc_oneshot"),
}


# Processes that take turns


def opened(threads: int, make: Callable[[], Call]) -> float:
    """Make what a process is to time; returns the operations of a first call, 10^12."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    OPEN[:] = [make()]
    with speed.Operations() as counter:
        OPEN[0]()
    return counter.total / 1e12


def timed() -> dict[str, float]:
    """CPU and wall seconds of a call, and the largest memory that the process has had."""
    cpu, wall = time.process_time(), time.perf_counter()
    OPEN[0]()
    spent = {"cpu_s": time.process_time() - cpu, "wall_s": time.perf_counter() - wall}
    return spent | {"peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def take_turns(
    calls: Mapping[tuple[str, str], tuple[int, Callable[[], Call]]], rounds: int, out: Path
) -> list[dict[str, Any]]:
    """Time systems of works in turns; the first system of each work is what the others are held to.

    Args:
        calls: by work and system, the samples of a batch and what makes the call.
        rounds: how often.
        out: the rows so far are written here after each round.
    """
    context, found = multiprocessing.get_context("spawn"), dict[tuple[str, str], Any]()
    rows: list[dict[str, Any]] = []
    with ExitStack() as stack:
        pools = {
            what: stack.enter_context(ProcessPoolExecutor(1, mp_context=context)) for what in calls
        }
        tflop = {
            what: pool.submit(opened, 1, calls[what][1]).result() for what, pool in pools.items()
        }
        for _ in range(rounds):
            for what, pool in pools.items():
                found.setdefault(what, []).append(pool.submit(timed).result())
            rows = []
            for (work, system), taken in found.items():
                middle = {k: float(np.median([t[k] for t in taken])) for k in taken[0]}
                row = {"work": work, "system": system, **middle}
                row["tflop"] = tflop[work, system] / calls[work, system][0]
                base = next(r for r in [*rows, row] if r["work"] == work)
                rows.append(row | {"ratio": row["cpu_s"] / base["cpu_s"], "n": len(taken)})
            out.write_text(json.dumps(rows, indent=1))
    return rows


def ours(configuration: str, preset: str, batch: int, precision: str, rule: str) -> Call:
    """A call of our step on random inputs."""
    given = {"train.update_rule": rule, "model.speakers": 16}
    run = config.resolve(
        configuration=configuration,
        preset=preset,
        batch_size=batch,
        precision=precision,
        device="cpu",
        overrides=given,
    )
    return speed.full_step(run)


def beside_peers(root: Path, out: Path, *, rounds: int, batch: int, work: str, preset: str) -> None:
    """Time one modality's step beside the peer's."""
    peer, make, configuration = PEERS[work]
    name = f"{work} iteration, batch {batch}"
    calls: dict[Any, Any] = {(name, peer): (batch, partial(make, root, batch))}
    for rule in ("alternate", "fused"):
        for precision in speed.precisions("cpu"):
            what = name, f"{configuration}, {rule}, {precision}"
            calls[what] = batch, partial(ours, configuration, preset, batch, precision, rule)
    take_turns(calls, rounds, out)


# Beside a busy neighbour


def spin() -> None:
    """Be busy for ever."""
    while True:
        pass


def beside_neighbour(data: Path, out: Path, *, rounds: int, threads: int = 2) -> None:
    """Time steps of `mini` on two threads, alone and beside one busy process, in turns.

    Beside it also on as many threads as a training takes that starts then. Torch is loaded first
    here, so threads spin as the environment says (`GOMP_SPINCOUNT`), or for long.
    """
    context, spent = multiprocessing.get_context("spawn"), dict[str, list[dict[str, float]]]()
    with tempfile.TemporaryDirectory() as place:
        cfg = config.resolve(configuration="companion", data_root=str(data), run_root=place)
        cfg = dataclasses.replace(cfg, train=dataclasses.replace(cfg.train, warmup_steps=0))
        with training.open_session(cfg) as session:

            def take() -> None:
                number = session.step + 1
                session.update(session.batch(number), number)

            OPEN[:] = [take]
            timed()
            for _ in range(rounds):
                for name in (ALONE, "beside one busy process", ADAPTED):
                    torch.set_num_threads(threads)
                    process = context.Process(target=spin, daemon=True)
                    if name != ALONE:
                        process.start()
                        time.sleep(BESIDE_S)
                    if name == ADAPTED:
                        FreeCores()
                    try:
                        spent.setdefault(name, []).extend(timed() for _ in range(3))
                    finally:
                        if name != ALONE:
                            process.kill()
                            process.join()
    rows: list[dict[str, Any]] = []
    for name, taken in spent.items():
        middle = {k: float(np.median([t[k] for t in taken])) for k in taken[0]}
        first = rows[0] if rows else middle
        ratios = {f"{k}_ratio": middle[k] / first[k] for k in ("cpu_s", "wall_s")}
        rows.append({"work": "step of mini, 2 threads", "system": name, **middle, **ratios})
    out.write_text(json.dumps(rows, indent=1))


def main() -> None:
    """Run one of the commands."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("command", choices=("peers", "neighbour"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch", type=int, default=2, help="StarGANv2-VC wants two at least")
    parser.add_argument("--work", choices=tuple(PEERS), default="image")
    parser.add_argument("--preset", default="paper")
    given = vars(parser.parse_args())
    command, folder, out = (given.pop(name) for name in ("command", "folder", "out"))
    out.parent.mkdir(parents=True, exist_ok=True)
    if command == "peers":
        beside_peers(folder, out, **given)
    else:
        beside_neighbour(folder, out, rounds=given["rounds"])


if __name__ == "__main__":
    main()
