"""One training step: which modules each pass moves, update rules, terms and their weights."""

from __future__ import annotations

import dataclasses
import gc
import itertools
import math
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional

from tests.conftest import Patch, refuses
from tests.unit.store_factory import make_store
from tests.unit.training_factory import small_run
from tools import average_modules, fit_layers
from xfavot import training
from xfavot.audio.mel import band_centres, log_mel
from xfavot.config import LossConfig, RunConfig, TrainConfig, resolve
from xfavot.errors import ConfigError, ShapeError
from xfavot.losses import objective, terms
from xfavot.models.blocks import FACTORS, ResampledConv, up
from xfavot.models.f0 import F0Output, level_of, ltas_of, melody_of
from xfavot.models.generators import USUAL_LEVEL, Excitation
from xfavot.models.mapping import MappingNetwork
from xfavot.models.xfavot import OF_ONE, XFaVoT, part_of
from xfavot.training import Session, checkpoint, draws, loop, passes, step
from xfavot.training.muon import Muon, orthogonalised
from xfavot.training.step import CODE_SLACK

GENERATORS, ENCODERS, DISCRIMINATORS = {"G_I", "G_A"}, {"E_I", "E_A"}, {"D_I", "D_A", "C_A"}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("step")


def opened(cfg: RunConfig) -> AbstractContextManager[Session]:
    return training.open_session(cfg, resume="auto")


def moved(session: Session, number: int) -> set[str]:
    """The modules whose parameters a step changed."""
    before = weights(session)
    session.update(session.batch(number), number)
    return {k for k, w in weights(session).items() if not torch.equal(w, before[k])}


def weights(session: Session) -> dict[str, torch.Tensor]:
    """All parameters of each module, flat."""
    n = session.updater.n
    named = [*n.nets.named_children(), ("f0", n.f0), ("content", n.content)]
    return {k: torch.cat([p.detach().flatten() for p in m.parameters()]) for k, m in named}


@pytest.mark.parametrize("rule", ["fused", "alternate"])
def test_nothing_of_a_step_is_kept(rule: str, tmp_path: Path) -> None:
    given = {"train.update_rule": rule, "train.sources": "all", "train.warmup_steps": 0}
    kept = []
    with opened(small_run(tmp_path, overrides=given)) as session:
        for number in range(1, 5):
            session.update(session.batch(number), number)
            gc.collect()
            alive = [one for one in gc.get_objects() if issubclass(type(one), torch.Tensor)]
            kept.append(sum(one.numel() for one in alive if one.ndim == 4))
    assert kept[2] == kept[3]


EVERY = {"train.voices_every": 1, "loss.advcls": 0.5}
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
def test_a_pass_moves(guidance: str, overrides: Any, expected: set[str], root: Path) -> None:
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


@pytest.mark.parametrize("warmup", [0, 9])
@pytest.mark.parametrize("rule", ["fused", "alternate"])
def test_voices_rest_in_some_steps(tmp_path: Path, warmup: int, rule: str) -> None:
    rest = {"train.voices_every": 2, "train.warmup_steps": warmup, "train.update_rule": rule}
    given = {"train.sources": "all", "loss.rec": 1.0, **rest}
    cfg = small_run(tmp_path, steps=40, configuration="companion", overrides=given)
    with opened(cfg) as session:
        hearing = {"G_A", *(set() if warmup else {"D_A", "C_A"})}
        trained = session.updater.trained
        assert trained is not None
        assert not moved(session, 1) & hearing
        assert trained["G_A"].sum() == 0 < trained["E_A"].sum()
        assert moved(session, 2) >= {*hearing, "E_A", "E_I", "G_I", "M"}
        assert trained["G_A"].sum() > 0


def test_one_modality_is_trained_as_if_the_other_were_there(root: Path) -> None:
    """The weights are drawn alike, and heads of speakers that nothing trains are left out."""
    cfg = small_run(root, configuration="starganv2", overrides={"model.speakers": 3})
    torch.manual_seed(5)
    nets = XFaVoT.of_run(cfg)
    torch.manual_seed(5)
    whole = part_of(XFaVoT(cfg.model).state_dict(), nets)
    assert nets.M.domains == 2
    assert all(torch.equal(v, whole[k]) for k, v in nets.state_dict().items())


def test_an_older_checkpoint_of_all_modules_goes_on(tmp_path: Path, monkeypatch: Patch) -> None:
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
def test_recomputed_blocks_give_equal_gradients(root: Path, rule: str, monkeypatch: Patch) -> None:
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


@pytest.mark.parametrize("shape", [(8, 30), (30, 8), (16, 16)])
def test_muon_steps_alike_in_all_directions_and_leaves_the_rest(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    gradient = torch.randn(shape) * torch.logspace(0, -1, shape[1])
    left, _, right = torch.linalg.svd(gradient, full_matrices=False)
    singular = torch.linalg.svdvals(orthogonalised(gradient))
    assert 0.4 < singular.min() <= singular.max() < 1.3
    matrix, bias = torch.nn.Parameter(torch.zeros(shape)), torch.nn.Parameter(torch.zeros(9))
    matrix.grad, bias.grad = gradient.clone(), torch.ones(9)
    Muon([matrix, bias], lr=0.5).step()
    tall = max(1.0, shape[0] / shape[1]) ** 0.5
    assert (matrix.grad, bias.grad is None) == (None, False)
    along = torch.einsum("ik,ij,kj->k", left, -matrix.detach(), right) / (0.5 * tall)
    assert torch.allclose(along.sort()[0], singular.sort()[0], atol=1e-4)


@pytest.mark.parametrize("teach", [False, True])
@pytest.mark.parametrize("guidances", [("z", "i", "a"), ("a",)])
def test_what_passes_share_leaves_gradients_as_they_are(
    root: Path, guidances: tuple[str, ...], teach: bool
) -> None:
    """Term by term and parameter by parameter, against passes that compute everything anew."""
    with opened(small_run(root, configuration="companion", overrides=EVERY)) as session:
        u, batch = session.updater, session.batch(1)
        d = draws.draw(session.cfg, 1, 2, "zia")
        d = dataclasses.replace(d, guidances=guidances, by_speaker=True)
        n, nets, voices = u.n, u.n.nets, passes.analyse_voices(u.n, batch)
        with torch.no_grad():  # one discriminator is sure of itself: nothing may be lost of a fake
            nets.D_I.heads.bias -= 99
        told = passes.References(None, ())
        logged, made = u._generators(batch, guidances, d, voices, told, teach=teach)
        shared = {k: p.grad.clone() for k, p in nets.named_parameters() if p.grad is not None}
        nets.zero_grad()
        weight = objective.weights(session.cfg, 1)
        for guidance, output in itertools.product(guidances, "ia"):
            held = [*DISCRIMINATORS, *(ENCODERS | {"M"} if guidance != "z" else ())]
            with step.frozen(*(getattr(nets, name) for name in held)):
                t = passes.make_target(nets, batch, guidance, d)
                ts, fake = passes.generator_terms(n, batch, t, output, voices, d.by_speaker)
                objective.total(ts, weight[f"G_{output.upper()}"]).backward()
            found = logged[f"g/{guidance}2{output}"]
            torch.testing.assert_close({k: found[k] for k in ts}, ts)
            torch.testing.assert_close(made[output][guidances.index(guidance)][1], fake.detach())
        trained = GENERATORS | (ENCODERS | {"M"} if "z" in guidances else set())
        for output, fakes in made.items() if teach else ():
            ts = passes.fake_terms(n, batch, output, fakes, d.by_speaker)
            objective.total(ts, weight[f"D_{output.upper()}"]).backward()
            for name, value in ts.items():
                terms_of = [logged[f"g/{guidance}2{output}"][name] for guidance in guidances]
                torch.testing.assert_close(torch.stack(terms_of).mean(), value)
            trained = trained | DISCRIMINATORS
        plain = {k: p.grad for k, p in nets.named_parameters() if p.grad is not None}
        assert {k.split(".")[0] for k in plain} == trained
        assert shared.keys() == plain.keys()
        largest: dict[str, float] = {}
        for name, gradient in plain.items():
            module = name.split(".")[0]
            largest[module] = max(largest.get(module, 0.0), float(gradient.abs().max()))
        assert largest["G_I"] > 1e-3
        for name, gradient in plain.items():  # of biases before a norm nothing is left but rounding
            atol = 2e-5 * largest[name.split(".")[0]] + 1e-12
            torch.testing.assert_close(shared[name], gradient, rtol=1e-4, atol=atol)


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
        d = dataclasses.replace(draws.draw(session.cfg, 1, 2, ("i",)), by_speaker=True)
        target = passes.make_target(session.updater.n.nets, unpaired, "i", d)
        assert target.speaker.tolist() == [-1, -1]
        assert torch.equal(passes.audio_domain(target, True, 2), target.gender)
        paired = passes.make_target(session.updater.n.nets, batch, "i", d)
        assert (passes.audio_domain(paired, True, 2) >= 2).all()


def test_further_pairs_count_as_the_pairs_of_the_batch_do(root: Path) -> None:
    with opened(small_run(root, overrides={"train.pairs": 4})) as session:
        n, w, batch = session.updater.n, session.cfg.loss, session.batch(1)
        d = draws.draw(session.cfg, 1, len(batch.paired), ("i",))
        found = passes.pair_terms(n, batch, d, w, None, rec=False)["xm"]
        i, a, who = [], [], []
        for face, voice in (
            (batch.ref_image, batch.ref_audio),
            (batch.pair_image, batch.pair_audio),
        ):
            i.append(n.nets.E_I(face.x, face.gender))
            a.append(n.nets.E_A(voice.x, voice.gender))
            who.append(face.person)
        i, a, who = map(torch.cat, (i, a, who))
        expected = terms.cross_modality_style_consistency(i, a, who, tau=w.tau, form=w.xm_form)
        torch.testing.assert_close(found, expected)
        session.update(batch, 1)
        assert session.updater.trained["E_I"].tolist() == [3, 3]


def test_twins_need_their_number_and_their_weight(tmp_path: Path) -> None:
    for given in ({"train.twins": 4}, {"loss.twins": 1.0}):
        refuses(ConfigError, "train.twins.*set both", small_run, tmp_path, overrides=given)


def test_twins_teach_the_faces_alone(tmp_path: Path) -> None:
    make_store(tmp_path / "data", corpus="grid", twins=2, image_size=128)
    given = {"train.twins": 4, "loss.twins": 2.0, "loss.perceptual": 0.5}
    with opened(small_run(tmp_path, overrides=given)) as session:
        n, batch = session.updater.n, session.batch(1)
        d = draws.draw(session.cfg, 1, len(batch.paired), ("i",))
        found = passes.pair_terms(n, batch, d, session.cfg.loss, None, rec=False)
        style = n.nets.E_I(batch.twin_ref.x, batch.twin_ref.gender)
        made = n.nets.G_I(batch.twin_source.x, style)
        torch.testing.assert_close(found["twins"], (made - batch.twin_target.x).abs().mean())
        assert found["twins_perceptual"] > 0
        weights = objective.weights(session.cfg, 1)["pairs"]
        assert (weights["twins"], weights["twins_perceptual"]) == (2.0, 1.0)
        found["twins"].backward()
        led = {name: module.parameters() for name, module in n.nets.named_children()}
        assert {k for k, ps in led.items() if any(p.grad is not None for p in ps)} == {"G_I", "E_I"}
        session.update(batch, 1)
        assert session.updater.trained["G_I"].tolist() == [4 + 4]  # and those of the batch


def test_no_speaker_is_drawn_without_dual_domain(root: Path) -> None:
    cfg = small_run(root)
    gender_only = dataclasses.replace(cfg, train=dataclasses.replace(cfg.train, dual_domain=False))
    assert not any(draws.draw(gender_only, n, 2, ("z",)).by_speaker for n in range(20))


def test_heads_count_the_samples_that_train_them(root: Path) -> None:
    """Step 1 is guided by a voice and step 2 by a latent code; both draw gender heads."""
    with opened(small_run(root)) as session:
        counts = session.updater.trained
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


# The terms, against hand-computed values


def test_adversarial_terms_are_binary_cross_entropies() -> None:
    logits = torch.tensor([0.0, 2.0])
    real = (math.log(2) + math.log(1 + math.exp(-2))) / 2
    fake = (math.log(2) + math.log(1 + math.exp(2))) / 2
    for name, value in (("real", real), ("fake", fake), ("generator", real)):
        term = getattr(terms, f"adversarial_{name}")
        assert term(logits).item() == pytest.approx(value, rel=1e-6)


def test_r1_of_a_linear_discriminator_is_half_its_squared_norm() -> None:
    weight = torch.tensor([1.0, -2.0, 3.0], requires_grad=True)
    x = torch.randn(5, 3, requires_grad=True)
    penalty = terms.r1(x @ weight, x)
    assert penalty.item() == pytest.approx(7.0, rel=1e-6)
    penalty.backward()
    torch.testing.assert_close(weight.grad, weight.detach())


L1 = "style_reconstruction style_diversification cycle_consistency speech_consistency"


@pytest.mark.parametrize("name", [*L1.split(), "norm_consistency", "self_reconstruction"])
def test_l1_terms(name: str) -> None:
    term = getattr(terms, name)
    a, b = torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([[1.0, 0.0], [0.0, 5.0]])
    assert term(a, b).item() == pytest.approx(1.5)
    assert term(a, a).item() == 0
    refuses(ShapeError, "got a tensor of shape", term, a, b[:1])


def test_f0_consistency_ignores_the_register_and_survives_silence() -> None:
    source = torch.tensor([[100.0, 200.0, 300.0]])
    assert terms.f0_consistency(source, 2 * source).item() == pytest.approx(0, abs=1e-7)
    flat = torch.full((1, 3), 150.0)
    assert terms.f0_consistency(source, flat).item() == pytest.approx(1 / 3, rel=1e-6)
    silent = torch.zeros(1, 3, requires_grad=True)
    value = terms.f0_consistency(source, silent)
    (slope,) = torch.autograd.grad(value, silent)
    assert torch.isfinite(torch.cat([value.view(1), slope[0]])).all()


def test_frame_energy_is_the_log_norm_over_the_bands() -> None:
    amplitude = torch.tensor([[3.0, 4.0], [1e-10, 1e-10]]).T  # two bands, two frames
    energy = terms.frame_energy(amplitude.log10()[None, None])
    assert energy[0, 0].item() == pytest.approx(math.log10(5.0), abs=1e-6)
    assert energy[0, 1].item() == pytest.approx(-10 + math.log10(math.sqrt(2)), abs=1e-5)


def test_classification_guards_the_empty_mask() -> None:
    logits = torch.tensor([[0.0, 0.0], [5.0, 0.0]], requires_grad=True)
    target = torch.tensor([1, -1])
    only_first = terms.classification(logits, target, torch.tensor([True, False]))
    assert only_first.item() == pytest.approx(math.log(2), rel=1e-6)
    none = terms.classification(logits, target, torch.tensor([False, False]))
    (slope,) = torch.autograd.grad(none, logits)
    assert (none.item(), slope.abs().sum().item()) == (0, 0)
    with pytest.raises(ShapeError, match="do not fit"):
        terms.classification(logits, target[:1], torch.tensor([True]))


def xm(face: torch.Tensor, voice: torch.Tensor, speaker: torch.Tensor, form: str) -> torch.Tensor:
    return terms.cross_modality_style_consistency(face, voice, speaker, tau=0.5, form=form)


def test_codes_match_where_they_are_distributed_as_the_styles() -> None:
    first, second, style = (torch.tensor([x]) for x in ([3.0, 4.0], [0.0, 0.0], [0.0, 0.0]))
    assert terms.code_match(first, second, style).item() == pytest.approx(0.0, abs=1e-6)
    assert terms.code_match(first, first, style).item() == pytest.approx(5 / math.sqrt(2))
    a, b, real = torch.randn(3, 20_000, 8, generator=torch.Generator().manual_seed(0))
    right, narrow, wide, off = (
        terms.code_match(spread * a + shift, spread * b + shift, real).item()
        for spread, shift in ((1.0, 0.0), (0.6, 0.0), (1.6, 0.0), (1.0, 0.5))
    )
    assert right + 0.01 < min(narrow, wide, off)


def test_xm_of_two_orthogonal_pairs() -> None:
    face, voice = torch.tensor([[[1.0, 0.0], [0.0, 3.0]], [[2.0, 0.0], [0.0, 1.0]]])
    one_way = math.log(math.exp(2) + 1) - 2
    mmv = math.log(math.exp(2) + 2) - 2
    for form, value in (("one_way", one_way), ("mmv", mmv), ("symmetric", one_way)):
        assert xm(face, voice, torch.tensor([4, 7]), form).item() == pytest.approx(value, rel=1e-5)


def test_xm_of_one_speaker_or_of_fewer_than_two_pairs_is_zero() -> None:
    face = torch.randn(3, 4, requires_grad=True)
    assert xm(face, face, torch.tensor([1, 1, 1]), "mmv").item() == pytest.approx(0, abs=1e-6)
    for n in (0, 1):
        value = xm(face[:n], torch.randn(n, 4), torch.arange(n), "symmetric")
        value.backward()  # it has a gradient all the same
        assert value.item() == 0


def test_objectives_carry_the_signs_and_weights() -> None:
    image, audio = {"ds_image": 3, "cyc_image": 7}, {"ds_audio": 5, "cyc_audio": 11, "sc": 13}
    loss = LossConfig(**image, **audio, sty=2, f0=17, norm=19, rec=2, xm=0.5)
    cfg = RunConfig(loss=loss, train=TrainConfig(r1_every=4, warmup_steps=3, steps=100))
    totals = {
        name: objective.total({k: torch.ones(()) for k in weight}, weight).item()
        for name, weight in objective.weights(cfg, 50).items()
    }
    assert totals["G_I"] == pytest.approx(1 + 2 - 3 + 7)
    assert totals["G_A"] == pytest.approx(1 + 2 - 5 + 11 + 13 + 17 + 19 + loss.advcls)
    assert totals["D_I"] == pytest.approx(2 + 4 * loss.r1_image)
    assert totals["D_A"] == pytest.approx(2 + loss.cls + 4 * loss.r1_audio)
    assert totals["pairs"] == pytest.approx(0.5 + 2 + 2)
    warmup = objective.weights(cfg, 3)["pairs"]
    assert objective.total({"rec_image": torch.tensor(3.0)}, warmup).item() == 3.0


def test_companion_lets_c_a_learn_and_g_a_ignore_it() -> None:
    """A97; the converter asks C_A for the gender of a voice."""
    weights = objective.weights(resolve(configuration="companion"), 50)
    assert weights["G_A"]["advcls"] == 0 < weights["D_A"]["cls"]
    assert objective.weights(resolve(configuration="xfavot"), 50)["G_A"]["advcls"] > 0


def test_a_term_of_weight_0_is_left_out_and_a_step_needs_none(root: Path) -> None:
    found = {"adv": torch.ones(()), "sty": torch.tensor(torch.inf)}
    assert objective.total(found, {"adv": 1.0, "sty": 0.0}) == 1
    assert objective.total({"sty": torch.ones((), requires_grad=True)}, {"sty": 0.0}) == 0
    names = ("cyc_image", "cyc_audio", "sty", "advcls", "sc", "f0", "norm", "ds_image", "ds_audio")
    off = {f"loss.{name}": 0.0 for name in names} | {"train.voices_every": 1}
    with opened(small_run(root, configuration="companion", overrides=off)) as session:
        before = {k: v.clone() for k, v in session.updater.n.nets.G_A.state_dict().items()}
        session.update(session.batch(1), 1)
        after = session.updater.n.nets.G_A.state_dict()
        assert any(not torch.equal(v, after[k]) for k, v in before.items())


def test_diversity_weight_decays_linearly_to_zero_or_not_at_all() -> None:
    assert objective.ds_weight(2.0, 500, 0) == 2.0
    assert objective.ds_weight(2.0, 25, 100) == pytest.approx(1.5)
    assert objective.ds_weight(2.0, 200, 100) == 0.0


def test_table_1_keeps_speaker_heads_from_image_only_faces() -> None:
    assert objective.may_use_speaker_head("E_I", "audio-visual face")
    assert objective.may_use_speaker_head("E_A", "audio-only voice")
    assert not objective.may_use_speaker_head("E_I", "image-only face")
    assert [row.xm for row in objective.TABLE_1] == [True, True, False, False, False, False]
    with pytest.raises(KeyError):
        objective.may_use_speaker_head("E_I", "audio-only voice")


# Explicit melody and linear enlargement (A79, A80): what `companion` adds


def heard(pitch: list[float], voicing: list[float]) -> F0Output:
    hz, logits = torch.tensor([pitch]), torch.tensor([voicing])
    return F0Output(hz, logits, torch.zeros(1), hz, torch.zeros(1))


def test_a_melody_is_in_octaves_about_the_mean_of_the_voiced_frames() -> None:
    out = heard([100.0, 400.0, 880.0], [20.0, 20.0, -20.0])
    assert level_of(out).tolist() == pytest.approx([math.log2(200)], abs=1e-6)
    octaves, voiced = melody_of(out)[0]
    assert octaves.tolist() == pytest.approx([-1, 1, math.log2(4.4)], abs=1e-5)
    assert voiced.tolist() == pytest.approx([1, 1, 0], abs=1e-6)
    assert melody_of(out, torch.tensor([math.log2(100)]))[0, 0, 0] == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("hz", [110.0, 220.0])
def test_the_ripples_lie_where_harmonics_of_the_pitch_lie(hz: float) -> None:
    n = np.arange(24_000)
    tone = sum(np.cos(2 * np.pi * k * hz * n / 24_000) / 40 for k in range(1, 30))
    mel = log_mel(torch.from_numpy(np.float32(tone)))[:, 40]
    centres, _ = band_centres()
    low = centres < 5.5 * hz
    excitation = Excitation(1)
    with torch.no_grad():
        excitation.mix.weight.zero_()
        excitation.mix.bias.zero_()
        excitation.mix.weight[0, 1, 1, 1] = 1  # the ripples alone
        heights = torch.tensor([[[0.0] * 3, [1.0] * 3]]), torch.tensor([math.log2(hz)])
        drawn = excitation(torch.zeros(1, 1, 80, 3), *heights)
    ripples = drawn[0, 0, :, 1]
    assert torch.corrcoef(torch.stack((ripples[low], mel[low])))[0, 1] > 0.8
    assert ripples[centres > 30 * hz].abs().max() < 0.1  # no single harmonic is seen there


@pytest.mark.parametrize("resample", ["half", "timepreserve"])
@pytest.mark.parametrize("linear", [False, True])
def test_one_convolution_enlarges_and_filters(resample: str, linear: bool) -> None:
    torch.manual_seed(0)
    conv = ResampledConv(3, 2, resample, upwards=True, linear=linear)  # type: ignore[arg-type]
    x = torch.randn(2, 3, 6, 8)
    apart = functional.conv2d(up(x, resample, linear=linear), conv.weight, conv.bias, padding=1)  # type: ignore[arg-type]
    got = conv(x)
    size = (n * f for n, f in zip((6, 8), FACTORS[resample], strict=True))  # type: ignore[index]
    assert got.shape == apart.shape == (2, 2, *size)
    inside = (..., slice(2, -2), slice(2, -2)) if linear else (...,)  # the border reads zeros
    torch.testing.assert_close(got[inside], apart[inside], rtol=1e-4, atol=1e-5)


def test_the_level_costs_nothing_within_the_slack() -> None:
    predicted, level = torch.tensor([7.0, 7.5]), torch.tensor([7.1, 7.0])
    assert terms.pitch_level(predicted, level).item() == pytest.approx(0.3)
    assert terms.pitch_level(predicted, level, slack=CODE_SLACK).item() == pytest.approx(0.15)
    refuses(ShapeError, "level of the pitch", terms.pitch_level, predicted, level[:1])


def test_faces_resemble_in_regions() -> None:
    """A hair line that moves within a region costs nothing, one in another region does."""
    maps = torch.zeros(2, 1, 8, 8)
    maps[0, 0, 0, 0] = maps[1, 0, 7, 7] = 4.0
    moved = maps.roll(1, -1)
    moved[1] = maps[1]
    use = torch.tensor([True, True])
    assert terms.resemblance([moved], [maps], use) == 0
    other = maps.flip(0)
    # two of sixteen regions differ by 1; a region of the wanted ones varies by 0.5 in two of them
    assert terms.resemblance([other], [maps], use) == pytest.approx((2 / 16) / (2 * 0.5 / 16))
    assert terms.resemblance([torch.stack([maps[0], maps[0]])], [maps], ~use) == 0
    assert terms.perceptual([maps, moved], [maps, maps]) == pytest.approx(0.5)


def test_who_is_left_open_is_scored_by_energy() -> None:
    """Two people: always giving the mean costs more than giving one of them at random."""
    wanted, use = torch.tensor([[0.0], [2.0]]), torch.tensor([True, True])
    mean = torch.ones(2, 1)
    costs = [
        terms.resemblance([one], [wanted], use, [other])
        for one in (torch.zeros(2, 1), torch.full((2, 1), 2.0))
        for other in (torch.zeros(2, 1), torch.full((2, 1), 2.0))
    ]
    assert torch.stack(costs).mean() < terms.resemblance([mean], [wanted], use, [mean])


def test_timbre_does_not_hear_when_something_is_said() -> None:
    mel = torch.randn(2, 1, 5, 12)
    assert terms.timbre(mel).shape == (2, 10)
    torch.testing.assert_close(terms.timbre(mel.flip(-1)), terms.timbre(mel))
    torch.testing.assert_close(terms.timbre(mel)[:, :5], mel[:, 0].mean(-1))


def test_the_average_spectrum_is_that_of_the_voiced_frames() -> None:
    mel, voiced = torch.randn(2, 1, 5, 12), torch.zeros(2, 12)
    voiced[0, 3:6] = 1.0
    found = ltas_of(mel, voiced)
    torch.testing.assert_close(found[0], mel[0, 0, :, 3:6].mean(-1), atol=0.1, rtol=0)
    torch.testing.assert_close(found[1], mel[1, 0].mean(-1))  # all, where nobody speaks
    refuses(ShapeError, "average spectrum", terms.average_spectrum, found, found[:1])


def test_a_voice_has_the_average_spectrum_of_its_style(tmp_path: Path) -> None:
    """Whatever is said, and whatever G_A has learnt."""
    every = {"train.voices_every": 1, "train.warmup_steps": 0}
    with opened(small_run(tmp_path, configuration="companion", overrides=every)) as session:
        g, f0, size = session.updater.n.nets.G_A, session.updater.n.f0, session.cfg.model.style_dim
        nn.init.normal_(g.ltas.weight)
        x, s = torch.randn(2, 1, 80, 96), torch.randn(2, size)
        with torch.no_grad():
            heard = f0(x)
            made = g(x, s, *g.takes(heard))
            torch.testing.assert_close(
                ltas_of(made, torch.sigmoid(heard.voicing)), g.ltas_of(s), atol=1e-4, rtol=1e-4
            )
        found = session.update(session.batch(1), 1)
        assert found["g/ltas"] > 0
        before = g.ltas.weight.detach().clone()
        session.update(session.batch(2), 2)
        assert not torch.equal(g.ltas.weight, before)
    with opened(small_run(tmp_path / "plain")) as session:
        plain = session.updater.n.nets.G_A
        refuses(ShapeError, "model.ltas", plain.ltas_of, torch.zeros(1, size))


def test_the_average_spectrum_needs_the_melody(tmp_path: Path) -> None:
    refuses(ConfigError, "model.ltas", small_run, tmp_path, overrides={"model.ltas": True})


def test_a_run_starts_from_a_model_without_average_spectra(tmp_path: Path) -> None:
    without = {"model.ltas": False, "loss.ltas": 0.0}
    older = small_run(tmp_path / "older", configuration="companion", overrides=without)
    with opened(older) as session:
        session.update(session.batch(1), 1)
        start = session.save()
        known = session.updater.ema["G_A"].stem.weight.clone()
    newer = small_run(tmp_path / "newer", configuration="companion", initial=str(start))
    with opened(newer) as session:
        g = session.updater.n.nets.G_A
        assert g.ltas.weight.abs().sum() == 0
        assert torch.equal(g.stem.weight, known)


def test_a_fitted_layer_reads_what_styles_tell() -> None:
    styles, layer, shift = torch.randn(400, 6).double(), torch.randn(5, 6).double(), torch.ones(5)
    spectra = styles @ layer.T + shift
    spectra[200:] = 99.0
    weight = torch.ones(400).double()
    weight[200:] = 0.0  # rows that do not count
    found, bias = fit_layers.ridge(styles, spectra, weight, damping=0.01)
    torch.testing.assert_close(found, layer, atol=0.1, rtol=0)
    torch.testing.assert_close(bias, shift.double(), atol=0.1, rtol=0)


def test_fitted_heads_tell_the_mean_face_of_a_voice() -> None:
    """Styles of voices are a turned copy of their people's mean face, each sex by its own turn."""
    torch.manual_seed(0)
    people, size = 60, 4
    faces = torch.randn(people, size).double()
    speaker = torch.arange(people).repeat(3)
    seen = (
        faces[speaker] + torch.tensor([-0.5, 0.0, 0.5]).double().repeat_interleave(people)[:, None]
    )
    gender = (torch.arange(people) % 2)[speaker]
    turns = torch.linalg.qr(torch.randn(2, size, size).double())[0]
    trunk = torch.stack([turns[g] @ faces[n] for g, n in zip(gender, speaker, strict=True)])
    weight, bias = torch.eye(size).repeat(2, 1), torch.zeros(2 * size)
    own = fit_layers.Encoded(trunk, gender, speaker, seen, gender, speaker, trunk)
    heads, shift = fit_layers.fit_heads(own, weight, bias)
    found = (
        heads.view(2, size, size)[gender] @ trunk[:, :, None]
        + shift.view(2, size)[gender][:, :, None]
    )
    torch.testing.assert_close(found[:, :, 0], faces[speaker], atol=0.5, rtol=0)
    assert (found[:, :, 0] - faces[speaker]).abs().mean() < 0.12  # damped by a tenth


def test_fitted_codes_are_spread_as_the_faces_of_their_sex(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = MappingNetwork(small_run(tmp_path).model)
    gender = torch.arange(600) % 2
    seen = torch.randn(600, 1).double() + 2 * gender[:, None]
    seen = seen * torch.linspace(-1, 1, net.heads[-1].bias.shape[1])  # all along one line
    own = fit_layers.Encoded(seen, gender, gender, seen, gender, gender, seen)
    before = [part.clone() for part in net.heads.parameters()]
    z, found = torch.randn(600, net.latent_dim), list[float]()
    for steps in (0, 300):
        fitted = fit_layers.fit_codes(own, net, steps=steps)
        with torch.no_grad():
            for part, new in zip(net.heads.parameters(), fitted, strict=True):
                part.copy_(new)
            made = net(z, gender)
        sexes = [torch.stack([x[gender == sex] for sex in (0, 1)]).float() for x in (made, seen)]
        found.append(float(fit_layers.energy_distance(*sexes)))
    assert found[1] < 0.25 * found[0]
    for old, new in zip(before, net.heads.parameters(), strict=True):
        assert old[2:].equal(new[2:])  # the speakers' own
        assert not old[:2].equal(new[:2])


def test_an_averaged_module_is_the_weighted_mean(tmp_path: Path, monkeypatch: Patch) -> None:
    make_store(tmp_path / "data", corpus="grid", image_size=128)
    folders = list[Path]()
    for seed in range(3):
        with opened(small_run(tmp_path, seed=seed)) as session:
            folders.append(session.save())
    parts = {str(folders[1]): 0.25, str(folders[2]): 0.75}
    asked = [str(folders[0]), str(tmp_path / "out"), "G_A"]
    for weights, code in ((parts.values(), None), ((0.5, 0.4), "expected a sum of 1")):
        given = [f"{path}={weight}" for path, weight in zip(parts, weights, strict=True)]
        monkeypatch.setattr("sys.argv", ["average_modules", *asked, *given])
        if code:
            refuses(SystemExit, code, average_modules.main)
        else:
            average_modules.main()
    first, one, other = (checkpoint.load_model(folder).nets for folder in folders)
    mean = checkpoint.load_model(tmp_path / "out").nets
    for name, found in mean.named_parameters():
        parts_of = [nets.get_parameter(name) for nets in (one, other)]
        wanted = 0.25 * parts_of[0] + 0.75 * parts_of[1]
        if not name.startswith("G_A."):
            wanted = first.get_parameter(name)
        torch.testing.assert_close(found, wanted, atol=2e-3, rtol=2e-3)  # half precision


BOTH = ("G_I", "G_A")  # nothing is generated; the encoders still learn from pairs


@pytest.mark.parametrize("stay", [("E_I", "G_I"), ("G_A", "M"), ("E_A", "E_I", "M"), BOTH])
@pytest.mark.parametrize("rule", ["fused", "alternate"])
def test_frozen_modules_stay_and_the_others_learn(
    tmp_path: Path, rule: str, stay: tuple[str, ...]
) -> None:
    given = {"train.frozen": list(stay), "train.sources": "all", "train.voices_every": 1}
    given |= {"train.update_rule": rule, "train.warmup_steps": 0}
    with opened(small_run(tmp_path, configuration="companion", overrides=given)) as session:
        rest = {k[-1] for k in stay if k.startswith("G")}
        expected = OWN | ENCODERS | {"M"}
        expected -= {*stay, *(f"D_{side}" for side in rest), *({"C_A"} if "A" in rest else ())}
        assert moved(session, 1) == expected
        assert not set(stay) & session.updater.optimizers.keys()
        counts = session.updater.trained
        assert counts is not None
        assert not any(counts[k].any() for k in stay)


def test_what_only_frozen_modules_would_learn_is_not_computed(tmp_path: Path) -> None:
    make_store(tmp_path / "data", corpus="grid", twins=2, image_size=128)
    given = {"train.twins": 4, "loss.twins": 1.0, "train.sources": "all", "train.voices_every": 1}
    given |= {"train.warmup_steps": 0, "train.pairs": 4}
    of_faces, of_voices = {"rec_image", "twins"}, {"rec_audio", "level", "ltas"}
    expected = {
        (): of_faces | of_voices | {"xm", "codes"},
        ("E_I", "G_I", "E_A"): of_voices | {"codes"},
        ("E_I", "G_A", "E_A"): of_faces | {"codes"},
        ("E_I", "E_A", "M"): of_faces | of_voices,
        ("G_I", "G_A"): of_faces | of_voices | {"xm", "codes"},  # the encoders learn through them
    }
    for stay, terms_of in expected.items():
        changed = given | {"train.frozen": list(stay)}
        with opened(small_run(tmp_path, configuration="companion", overrides=changed)) as session:
            n, batch = session.updater.n, session.batch(1)
            d = draws.draw(session.cfg, 1, len(batch.paired), session.updater.guidances)
            wanted = [n, batch, d, session.cfg.loss, passes.hear_references(n, batch)]
            found = passes.pair_terms(*wanted, rec=True)
            other = {"perceptual", "twins_perceptual"}  # of a network that needs G_I to learn
            assert found.keys() - other == terms_of
            with torch.no_grad():  # nobody learns, so nothing is left out
                assert passes.pair_terms(*wanted, rec=True).keys() - other == expected[()]


def test_what_cannot_be_frozen_is_refused(tmp_path: Path) -> None:
    for stay in (["D_I"], ["G_I", "G_A", "E_I", "E_A", "M"]):
        overrides = {"train.frozen": stay}
        refuses(ConfigError, "train.frozen", small_run, tmp_path, overrides=overrides)


FOR_REFERENCES = ("i", "resemblance"), ("a", "timbre")


def test_companion_compares_faces_with_their_references(tmp_path: Path) -> None:
    warm = {"train.sources": "all", "train.warmup_steps": 1, "train.voices_every": 1}
    with opened(small_run(tmp_path, configuration="companion", overrides=warm)) as session:
        first = session.update(session.batch(1), 1)
        assert {"w/perceptual", "w/resemblance"} <= first.keys()
        batch = session.batch(2)
        found = session.update(batch, 2)
        compared = {f"g/{g}2{o}/{k}" for o, k in FOR_REFERENCES for g in "zia"}
        assert compared | {"g/perceptual"} <= found.keys()
        assert "g/resemblance" not in found  # of the warm-up alone
        batch.paired[:] = False  # nobody knows how the voices' people look
        found = session.update(batch, 3)
        assert (found["g/a2i/resemblance"], found["g/i2i/resemblance"] > 0) == (0, True)


def test_companion_trains_the_level_of_styles_and_codes(tmp_path: Path) -> None:
    cfg = small_run(
        tmp_path,
        configuration="companion",
        overrides={"train.sources": "all", "train.voices_every": 1},
    )
    with training.open_session(cfg) as session:
        g = session.updater.n.nets.G_A
        levels = g.level_of(torch.randn(3, cfg.model.style_dim)).tolist()
        assert levels == pytest.approx([USUAL_LEVEL] * 3)
        found = session.update(session.batch(1), 1)
        assert {"g/level", "g/z2a/level"} <= found.keys()
        assert "g/i2a/level" not in found
        assert g.level.weight.abs().sum() > 0
        session.updater.guidances = ("i",)
        assert "M" in moved(session, 2)  # it learns from every batch
        assert session.updater.trained is not None
        assert session.updater.trained["M"].sum() > 0
        x = torch.zeros(1, 1, 80, 96)
        with pytest.raises(ShapeError, match="G_A melody"):
            g(x, torch.zeros(1, cfg.model.style_dim), session.updater.n.f0.features(x))
        session.validate()
        assert session.sample()
