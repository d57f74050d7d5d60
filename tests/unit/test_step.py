"""One training step: which modules each pass moves, Table 1 on a batch, the update rules."""

from __future__ import annotations

import dataclasses
import math
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from tests.unit.training_factory import small_run
from xfavot import training
from xfavot.config import RunConfig
from xfavot.models.xfavot import OF_ONE, XFaVoT, part_of
from xfavot.training import Session, checkpoint, loop, step

GENERATORS, ENCODERS, DISCRIMINATORS = {"G_I", "G_A"}, {"E_I", "E_A"}, {"D_I", "D_A", "C_A"}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("step")


def opened(cfg: RunConfig) -> AbstractContextManager[Session]:
    return training.open_session(cfg, resume="auto")


def moved(session: Session, number: int) -> set[str]:
    """The modules whose parameters a step changed."""
    before = {k: [p.clone() for p in m.parameters()] for k, m in modules(session)}
    session.update(session.batch(number), number)
    return {
        k
        for k, m in modules(session)
        if any(not torch.equal(p, q) for p, q in zip(m.parameters(), before[k], strict=True))
    }


def modules(session: Session) -> list[tuple[str, nn.Module]]:
    n = session.updater.n
    return [*n.nets.named_children(), ("f0", n.f0), ("content", n.content)]


OWN = GENERATORS | DISCRIMINATORS
LATENT = OWN | ENCODERS | {"M"}  # the latent pass alone trains encoders and M
PASSES: list[tuple[str, dict[str, object], set[str]]] = [
    *(("z", {"train.update_rule": rule}, LATENT) for rule in ("alternate", "fused")),
    *(("i", {"train.update_rule": rule}, OWN) for rule in ("alternate", "fused")),
    *(("a", {"train.update_rule": rule}, OWN) for rule in ("alternate", "fused")),
    ("i", {"loss.xm": 1.0}, OWN | ENCODERS),
    ("i", {"loss.rec": 1.0, "train.warmup_steps": 2}, GENERATORS | ENCODERS),
]


@pytest.mark.parametrize(("guidance", "overrides", "expected"), PASSES)
def test_a_pass_moves(
    guidance: str, overrides: dict[str, object], expected: set[str], root: Path
) -> None:
    cfg = small_run(root, steps=8, overrides={"loss.xm": 0.0, "loss.rec": 0.0} | overrides)
    with opened(cfg) as session:
        session.updater.guidances = (guidance,)
        assert moved(session, 1) == expected


@pytest.mark.parametrize("modality", ["image", "audio"])
def test_one_modality_trains_its_own_passes(root: Path, modality: str) -> None:
    overrides = {"train.modalities": [modality], "loss.xm": 0.0, "loss.rec": 0.0}
    with opened(small_run(root, overrides={**overrides, "train.sources": "all"})) as session:
        terms = session.update(session.batch(1), 1)
        passes = {"image": {"z2i", "i2i"}, "audio": {"z2a", "a2a"}}[modality]
        assert {k.split("/")[1] for k in terms if k.startswith("g/")} == passes
        updater, own = session.updater, {*OF_ONE[modality], "M"}
        assert {k for k, _ in updater.n.nets.named_children()} == updater.optimizers.keys() == own
        assert set(updater.ema) == own - DISCRIMINATORS
        assert bool([*updater.n.f0.parameters()]) == (modality == "audio")


def test_one_modality_is_trained_as_if_the_other_were_there(root: Path) -> None:
    """The weights are drawn alike, and heads of speakers that nothing trains are left out."""
    cfg = small_run(root, configuration="starganv2", overrides={"model.speakers": 3})
    torch.manual_seed(5)
    nets = XFaVoT.of_run(cfg)
    torch.manual_seed(5)
    whole = part_of(XFaVoT(cfg.model).state_dict(), nets)
    assert nets.M.domains == 2
    assert all(torch.equal(v, whole[k]) for k, v in nets.state_dict().items())


def test_an_older_checkpoint_of_all_modules_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = {"configuration": "starganv2", "overrides": {"loss.rec": 0.0}}
    with monkeypatch.context() as older:
        older.setattr(XFaVoT, "of_run", lambda run: XFaVoT(run.model))
        half = training.fit(small_run(tmp_path, steps=2, **given))
    assert load_file(half.checkpoint / "model.safetensors").keys() > {"G_A.stem.weight"}
    model = checkpoint.load_model(half.checkpoint)
    assert (model.trained_outputs(), model.trained_speakers()) == (("face",), ())
    assert model.trained_genders("voice") == ()
    resumed = training.fit(small_run(tmp_path, steps=4, **given), resume=str(half.checkpoint))
    whole = training.fit(small_run(tmp_path, steps=4, **given | {"seed": 0}))
    assert loop.read(resumed.path / loop.METRICS)[-1] == loop.read(whole.path / loop.METRICS)[-1]
    assert not any(k.startswith("G_A") for k in load_file(resumed.checkpoint / "ema.safetensors"))


@pytest.mark.parametrize("rule", ["alternate", "fused"])
def test_blocks_computed_again_give_the_same_gradients(
    root: Path, rule: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[bool, list[torch.Tensor]] = {False: [], True: []}
    move = step.Updater._move

    def note(updater: step.Updater, *names: str) -> None:
        for name in names:
            for p in getattr(updater.n.nets, name).parameters():
                seen[updater.cfg.train.checkpointing] += [] if p.grad is None else [p.grad.clone()]
        move(updater, *names)

    monkeypatch.setattr(step.Updater, "_move", note)
    for checkpointing in seen:
        extra = {"train.sources": "all", "train.update_rule": rule, "train.r1_every": 1}
        extra |= {"train.checkpointing": checkpointing, "train.speaker_head_probability": 1.0}
        with opened(small_run(root, overrides=extra)) as session:
            session.update(session.batch(1), 1)
    assert len(seen[True]) == len(seen[False]) > 100
    for again, plain in zip(seen[True], seen[False], strict=True):
        torch.testing.assert_close(again, plain, rtol=1e-6, atol=1e-6)


def test_all_sources_log_every_term_of_every_pass(root: Path) -> None:
    with opened(small_run(root, overrides={"train.sources": "all"})) as session:
        terms = session.update(session.batch(1), 1)
        image = {"adv", "sty", "ds", "cyc"}
        audio = image | {"sc", "f0", "norm", "advcls"}
        passes = {f"g/{s}2i/{k}" for s in "zia" for k in image}
        passes |= {f"g/{s}2a/{k}" for s in "zia" for k in audio}
        assert {k for k in terms if k.startswith("g/") and k.count("/") == 2} == passes
        assert "g/xm" in terms
        assert all(map(math.isfinite, terms.values()))


def test_image_only_references_never_reach_the_speaker_heads(root: Path) -> None:
    with opened(small_run(root)) as session:
        batch = session.batch(3)
        unpaired = dataclasses.replace(batch, paired=torch.zeros_like(batch.paired))
        d = dataclasses.replace(step.draw(session.cfg, 1, 2, ("i",)), by_speaker=True)
        target = step.make_target(session.updater.n.nets, unpaired, "i", d)
        assert target.speaker.tolist() == [-1, -1]
        domain = step.audio_domain(target, True, 2)
        assert torch.equal(domain, target.gender)
        paired = step.make_target(session.updater.n.nets, batch, "i", d)
        assert (step.audio_domain(paired, True, 2) >= 2).all()


def test_no_speaker_is_drawn_without_dual_domain(root: Path) -> None:
    cfg = small_run(root)
    gender_only = dataclasses.replace(cfg, train=dataclasses.replace(cfg.train, dual_domain=False))
    assert not any(step.draw(gender_only, n, 2, ("z",)).by_speaker for n in range(20))


def test_heads_count_the_samples_that_train_them(root: Path) -> None:
    """Step 1 is guided by a voice and step 2 by a latent code; both draw gender heads."""
    with opened(small_run(root)) as session:
        counts = session.updater.trained
        assert counts is not None
        assert not any(map(torch.any, counts.values()))
        session.update(session.batch(1), 1)
        assert {k: v.tolist() for k, v in counts.items() if k in ("E_I", "M")} == {
            "E_I": [1, 1],  # of the reference pairs alone
            "M": [0] * len(counts["M"]),
        }
        session.update(session.batch(2), 2)
        assert counts["E_A"].tolist() == [3, 3]
        assert counts["M"][:2].tolist() == [1, 1]
        assert counts["G_I"].tolist() == counts["G_A"].tolist() == [8]
        assert not counts["M"][2:].any()
        assert not counts["C_A"][2:].any()
