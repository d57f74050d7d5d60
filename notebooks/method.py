# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#       jupytext_version: 1.19.6
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # The method, term by term
#
# One batch goes through XFaVoT (paper, Sec. 3): the eight modules, Table 1, every term of the
# objective beside its equation, the sums that are minimised, one update. Everything is computed
# with the functions that training uses, and checked against it.
#
# **In:** prepared stores under `data_root` (`mini` makes itself). **Out:** what is shown below;
# nothing is written. **Time:** under two minutes on two CPU cores. The modules have their initial
# weights, so that values are those of a first step and what is generated is still noise.
#
# The surviving text of the paper has lost the bodies of its equations. Each one below is marked:
# **STATED** in the paper's text, **CODE** of its ancestors ([StarGAN
# v2](https://github.com/clovaai/stargan-v2),
# [StarGANv2-VC](https://github.com/yl4579/StarGANv2-VC)), **INFERRED**, or **UNKNOWN**; ids such
# as A4 are explained in [ASSUMPTIONS.md](../ASSUMPTIONS.md).

# %% tags=["parameters"]
dataset: str = "mini"  # mixture of corpora, see docs/training.md
data_root: str = "data"  # folder of prepared stores
seed: int = 0  # seed of everything random
device: str = "auto"  # auto, cpu, cuda, cuda:1 or mps
preset: str = "mini"  # size; the F0 and content networks of mini come with the package

# %%
import matplotlib.pyplot as plt
import pandas as pd
import torch

from xfavot import config, training
from xfavot.data.batches import Batches, Samples, with_speakers
from xfavot.data.prepare import open_or_make_mini
from xfavot.image.io import to_bytes
from xfavot.losses import objective, terms
from xfavot.models import device_of
from xfavot.models.xfavot import shape_trace
from xfavot.parameters import Method
from xfavot.training import draws, passes, step
from xfavot.viz import progress


def show(**values: torch.Tensor) -> pd.DataFrame:
    """Lay scalars out as a table of one line."""
    return pd.DataFrame({name: [value.item()] for name, value in values.items()}, index=["value"])


def shapes(*tensors: torch.Tensor) -> str:
    """Write the shapes of some tensors."""
    return "  ".join(str(tuple(x.shape)) for x in tensors)


def who(samples: Samples) -> list[str]:
    """Name the speakers of some samples, "-" where they are unknown."""
    return [names[2 + k] if k >= 0 else "-" for k in samples.speaker]


# %%
cfg = Method.resolve(
    dataset=dataset, data_root=data_root, preset=preset, seed=seed, device=device
).run
progress.line(config.describe(cfg))

# %% [markdown]
# ## 1. A batch
#
# Source $x$, first and second reference $x^{ref}$, $x^{ref\,2}$ of both modalities: faces $x_I \in
# [-1, 1]^{3 \times H \times W}$ and log-mel-spectrograms $x_A \in \mathbb{R}^{80 \times T}$,
# standardised per band. Row by row the references have one gender $g$, and in some rows the first
# face and the first voice are one audio-visual speaker (`paired`). How a batch is spread over
# corpora and speakers is UNKNOWN (A27). Function: [`Batches.batch`](../xfavot/data/batches.py).

# %%
stores = open_or_make_mini(cfg.data_root, cfg.data.corpora, progress.line)
batches = Batches(cfg, stores)
cfg = with_speakers(cfg, batches)
batch = batches.batch(1).to(device_of(cfg.train.device))
names = ("f", "m", *(name.rpartition("/")[2] for name in batches.speakers))
pd.DataFrame(
    {
        role: {
            "shape": tuple(samples.x.shape),
            "genders": " ".join("fm"[g] for g in samples.gender),
            "speakers": " ".join(who(samples)),
        }
        for role, samples in batch.roles().items()
    }
).T

# %%
source, reference = batch.source_image, batch.ref_image
faces = [*to_bytes(source.x.permute(0, 2, 3, 1)), *to_bytes(reference.x.permute(0, 2, 3, 1))]
labels = [*who(source), *who(reference)]
figure, places = plt.subplots(2, len(source.x), figsize=(1.2 * len(source.x), 3))
for place, face, label in zip(places.flat, faces, labels, strict=True):
    place.imshow(face.cpu().numpy())
    place.set_title(label, fontsize=8)
    place.axis("off")
figure.suptitle("Sources (top) and first references", fontsize=10)
plt.show()

# %% [markdown]
# ## 2. The eight modules and what passes through them
#
# A style is a vector $s \in \mathbb{R}^{64}$. It comes from a face, $s = E_I(x_I, g)$, from a
# voice, $s = E_A(x_A, g)$, or from noise, $s = M(z, g)$ or $M(z, k)$ with $z \sim \mathcal N(0,
# I)$, gender $g$ and speaker $k$. The generators redraw a source in a style, $G_I(x_I, s)$ and
# $G_A(x_A, s)$; the latter also takes features of the source's F0. $D_I$ and $D_A$ judge, one head
# a gender (and in $D_A$ a speaker); $C_A$ tells whose voice it hears. STATED in Sec. 3.1 and
# appendix G, layers in Tables 6 to 9; the F0 and the content network are frozen (A28). Modules:
# [`XFaVoT`](../xfavot/models/xfavot.py).

# %%
n = training.open_networks(cfg, stores, batches, "ia", progress.line)
nets, x_I, x_A = n.nets, batch.source_image, batch.source_audio
g = batch.ref_audio.gender
z = torch.randn(len(g), cfg.model.latent_dim, device=g.device)
with torch.no_grad():
    features = n.f0.features(x_A.x)
    takes = {
        "E_I": (batch.ref_image.x, batch.ref_image.gender),
        "E_A": (batch.ref_audio.x, g),
        "M": (z, g),
        "G_I": (x_I.x, nets.M(z, g)),
        "G_A": (x_A.x, nets.M(z, g), features),
        "D_I": (x_I.x, x_I.gender),
        "D_A": (x_A.x, x_A.gender),
        "C_A": (x_A.x,),
    }
    gives = {name: getattr(nets, name)(*inputs) for name, inputs in takes.items()}

# %%
counts = dict(nets.parameter_table())
pd.DataFrame(
    [
        {
            "module": name,
            "takes": shapes(*inputs),
            "gives": shapes(*out) if isinstance(out, tuple) else shapes(out),
            "parameters": counts[name],
        }
        for (name, inputs), out in zip(takes.items(), gives.values(), strict=True)
    ]
).set_index("module")

# %% [markdown]
# The layers of $G_A$ in the order they run, as Table 7 lists them: channels, mel bins, frames.

# %%
pd.DataFrame(shape_trace(nets.G_A, *takes["G_A"]))

# %% [markdown]
# ## 3. Table 1: which style feeds which pass
#
# A step trains on several sources of styles: latent codes, faces and voices of the references.
# Which data may train which heads is Table 1 of the paper (A11): the cross-modality loss needs
# audio-visual pairs, and a face without a voice says nothing about the speaker, so that it may use
# the gender heads only (STATED, Sec. 3.3). Data: [`TABLE_1`](../xfavot/losses/objective.py).

# %%
pd.DataFrame(
    [
        {
            "style from": row.encoder,
            "computed from": row.data,
            "L_xm": "yes" if row.xm else "no",
            "heads trained": ", ".join(row.heads),
            "needs a speaker label": "yes" if row.needs_speaker else "no",
        }
        for row in objective.TABLE_1
    ]
)

# %% [markdown]
# Applied to the batch. Each step draws at random whether gender or speaker heads of $D_A$, $M$ and
# $C_A$ are used (STATED; once a step, with probability 0.5: A2). Below is the first step after the
# warm-up that uses speaker heads; a pass is named guidance-2-output. In `i2a`, a voice that is
# guided by a face, rows without a pair fall back to the gender. All of `mini` is audio-visual, so
# that the rule is shown by taking the second half of its faces for image-only ones. Functions:
# [`draw`](../xfavot/training/draws.py),
# [`make_target`, `audio_domain`](../xfavot/training/passes.py).

# %%
sources, rows = ("z", "i", "a"), len(batch.paired)
if batch.paired.all():
    batch.paired[rows // 2 :] = False
after = range(cfg.train.warmup + 1, cfg.train.warmup + 99)
number = next(k for k in after if draws.draw(cfg, k, rows, sources).by_speaker)
d = draws.draw(cfg, number, rows, sources)
targets = {source: passes.make_target(nets, batch, source, d) for source in sources}
heads = {
    source: passes.audio_domain(t, d.by_speaker, nets.genders) for source, t in targets.items()
}
pd.DataFrame(
    {
        "face of": who(batch.ref_image),
        "voice of": who(batch.ref_audio),
        "pair": ["yes" if pair else "no" for pair in batch.paired],
        "D_I in all passes": [names[k] for k in targets["a"].gender],
        **{f"D_A in {s}2a": [names[k] for k in head] for s, head in heads.items()},
    }
)

# %% [markdown]
# ## 4. The terms of the generators
#
# Two passes are followed: a face guided by a voice (`a2i`, style $s_I$) and a voice guided by a
# face (`i2a`, style $s_A$). Each has a second style $\tilde s$ of the same gender, for diversity
# (A26).

# %%
t_I, t_A = targets["a"], targets["i"]
voices = passes.analyse_voices(n, batch)
fake_I = nets.G_I(x_I.x, t_I.s1)
fake_A = nets.G_A(x_A.x, t_A.s1, voices.f0.features)
with torch.no_grad():
    other_I = nets.G_I(x_I.x, t_I.s2)
    other_A = nets.G_A(x_A.x, t_A.s2, voices.f0.features)

# %% [markdown]
# ### Adversarial loss
#
# $$\mathcal L_{adv} = \mathbb E\big[\log D^{c_{src}}(x)\big]
# + \mathbb E\big[\log\big(1 - D^{c_{ref}}(G(x, s))\big)\big]$$
#
# for both modalities, $c$ a gender, or in audio also a speaker. Existence and codes STATED, form
# CODE: cross-entropy of logits, and the generators minimise $-\log D^{c_{ref}}(G(x, s))$ (A1).
# Functions: [`adversarial_generator`, `adversarial_real`,
# `adversarial_fake`](../xfavot/losses/terms.py).

# %%
adv_I = terms.adversarial_generator(nets.D_I(fake_I, t_I.gender))
adv_A = terms.adversarial_generator(nets.D_A(fake_A, heads["i"]))
show(adv_I=adv_I, adv_A=adv_A)

# %% [markdown]
# ### Style reconstruction
#
# $$\mathcal L_{sty} = \mathbb E\,\lVert s_I - E_I(G_I(x_I, s_I), g_{ref}) \rVert_1
# + \mathbb E\,\lVert s_A - E_A(G_A(x_A, s_A), g_{ref}) \rVert_1$$
#
# Words STATED, form CODE (mean absolute error). With a style of the other modality this term alone
# pulls both encoders into one space. Function:
# [`style_reconstruction`](../xfavot/losses/terms.py).

# %%
sty_I = terms.style_reconstruction(nets.E_I(fake_I, t_I.gender), t_I.s1)
sty_A = terms.style_reconstruction(nets.E_A(fake_A, t_A.gender), t_A.s1)
show(sty_I=sty_I, sty_A=sty_A)

# %% [markdown]
# ### Style diversification
#
# $$\mathcal L_{ds} = \mathbb E\,\lVert G_I(x_I, s) - G_I(x_I, \tilde s) \rVert_1
# + \mathbb E\,\lVert G_A(x_A, s) - G_A(x_A, \tilde s) \rVert_1$$
#
# is maximised. STATED; the second output carries no gradient (CODE); whether its weight decays is
# UNKNOWN (A6). Function: [`style_diversification`](../xfavot/losses/terms.py).

# %%
ds_I = terms.style_diversification(fake_I, other_I)
ds_A = terms.style_diversification(fake_A, other_A)
show(ds_I=ds_I, ds_A=ds_A)

# %% [markdown]
# ### Cycle consistency
#
# $$\mathcal L_{cyc} = \mathbb E\,\lVert x_I - G_I(G_I(x_I, s), E_I(x_I, g_{src})) \rVert_1
# + \mathbb E\,\lVert x_A - G_A(G_A(x_A, s), E_A(x_A, g_{src})) \rVert_1$$
#
# Words STATED, form CODE; on the way back $G_A$ takes the F0 features of the fake (CODE).
# Function: [`cycle_consistency`](../xfavot/losses/terms.py).

# %%
f0_fake = n.f0(fake_A)
back_I = nets.G_I(fake_I, nets.E_I(x_I.x, x_I.gender))
back_A = nets.G_A(fake_A, nets.E_A(x_A.x, x_A.gender), f0_fake.features)
cyc_I = terms.cycle_consistency(x_I.x, back_I)
cyc_A = terms.cycle_consistency(x_A.x, back_A)
show(cyc_I=cyc_I, cyc_A=cyc_A)

# %% [markdown]
# ### Speech consistency, F0 consistency, norm consistency (audio)
#
# $$\mathcal L_{sc} = \mathbb E\,\lVert h(x_A) - h(G_A(x_A, s)) \rVert_1 \qquad
# \mathcal L_{f0} = \mathbb E\,\lVert \hat F(x_A) - \hat F(G_A(x_A, s)) \rVert_1 \qquad
# \mathcal L_{norm} = \mathbb E\,\frac{1}{T} \sum_t \lvert e_t(x_A) - e_t(G_A(x_A, s)) \rvert$$
#
# $h$: features of the frozen content network, $\hat F = F / \bar F$: F0 over its mean in time,
# $e_t$: energy of frame $t$. Taken "as suggested in StarGANv2-VC": STATED; $L^1$ of features (A8)
# and normalised F0 (A31) STATED, the form of the energy CODE (A9). Functions:
# [`speech_consistency`, `f0_consistency`, `frame_energy`,
# `norm_consistency`](../xfavot/losses/terms.py).

# %%
energy = terms.frame_energy(n.standardiser.restore(fake_A))
sc = terms.speech_consistency(voices.content, n.content.features(fake_A))
f0 = terms.f0_consistency(voices.f0.f0, f0_fake.f0)
norm = terms.norm_consistency(voices.energy, energy)
show(sc=sc, f0=f0, norm=norm)

# %% [markdown]
# ### Adversarial source classification (audio)
#
# $$\mathcal L_{advcls} = \mathbb E\,\mathrm{CE}\big(C_A(G_A(x_A, s)), y_{ref}\big)$$
#
# $G_A$ wants its voices taken for the reference's. Words STATED; that $y$ is of the group that the
# step drew INFERRED (A10); rows whose two labels are equal are left out (CODE). Function:
# [`classification`](../xfavot/losses/terms.py).

# %%
y_src, y_ref, differ = passes.class_rows(batch, t_A, d.by_speaker)
advcls = terms.classification(nets.C_A(fake_A)[d.by_speaker], y_ref, differ)
show(advcls=advcls)

# %% [markdown]
# ### Cross-modality style consistency
#
# $$\mathcal L_{xm} = -\frac{1}{N} \sum_{i=1}^{N} \log
# \frac{\exp(\cos(s_I^i, s_A^i) / \tau)}{\sum_j \exp(\cos(s_I^i, s_A^j) / \tau)}$$
#
# over the $N$ audio-visual pairs, $s_I^i = E_I(x_I^i, g_i)$, $s_A^i = E_A(x_A^i, g_i)$. InfoNCE,
# cosine similarity, temperature and mean over pairs STATED; the denominator is UNKNOWN (the
# default also adds the other direction and takes the mean of both, A5), as is $\tau$ (A14). The
# matrix holds the cosines: the diagonal has to stand out. Function:
# [`cross_modality_style_consistency`](../xfavot/losses/terms.py).

# %%
pairs = batch.paired.nonzero().squeeze(1)
face, voice = batch.ref_image, batch.ref_audio
s_face, s_voice = nets.E_I(face.x, face.gender)[pairs], nets.E_A(voice.x, voice.gender)[pairs]
xm = terms.cross_modality_style_consistency(
    s_face, s_voice, voice.speaker[pairs], tau=cfg.loss.tau, form=cfg.loss.xm_form
)
cosines = torch.cosine_similarity(s_face[:, None], s_voice[None], dim=2).detach().cpu()
people = [who(voice)[k] for k in pairs]
progress.line(f"L_xm = {xm.item():.4f}, {len(pairs)} pairs")
pd.DataFrame(cosines.numpy(), index=people, columns=people).round(3)

# %% [markdown]
# ## 5. What the generators' side minimises
#
# $$\mathcal L_G = \mathcal L_{adv} + \lambda_{sty} \mathcal L_{sty} - \lambda_{ds} \mathcal L_{ds}
# + \lambda_{cyc} \mathcal L_{cyc} + \lambda_{sc} \mathcal L_{sc} + \lambda_{f0} \mathcal L_{f0}
# + \lambda_{norm} \mathcal L_{norm} + \lambda_{advcls} \mathcal L_{advcls}
# + \lambda_{xm} \mathcal L_{xm}$$
#
# over $G_I$, $G_A$, $E_I$, $E_A$ and $M$. The sum is STATED, the weights are lost: those of preset
# `paper` are INFERRED from an unofficial implementation (A4), those of `mini` are this project's.
# Functions: [`weights`, `total`](../xfavot/losses/objective.py).

# %%
w = cfg.loss
ds_weight_I = objective.ds_weight(w.ds_image, number, w.ds_decay_steps)
ds_weight_A = objective.ds_weight(w.ds_audio, number, w.ds_decay_steps)
total_I = adv_I + w.sty * sty_I - ds_weight_I * ds_I + w.cyc_image * cyc_I
total_A = adv_A + w.sty * sty_A - ds_weight_A * ds_A + w.cyc_audio * cyc_A
total_A = total_A + w.sc * sc + w.f0 * f0 + w.norm * norm + w.advcls * advcls
show(total_I=total_I, total_A=total_A, xm_weighted=w.xm * xm)

# %% [markdown]
# The same from [`generator_terms`](../xfavot/training/passes.py), which a training step calls, term
# by term with its weight:

# %%
weights = objective.weights(cfg, number)
by_step = {
    "G_I": passes.generator_terms(n, batch, t_I, "i", voices, d.by_speaker)[0],
    "G_A": passes.generator_terms(n, batch, t_A, "a", voices, d.by_speaker)[0],
}
for name, by_hand in (("G_I", total_I), ("G_A", total_A)):
    torch.testing.assert_close(objective.total(by_step[name], weights[name]), by_hand)
pd.DataFrame(
    [
        {"objective": name, "term": k, "weight": weights[name][k], "value": v.item()}
        for name, found in by_step.items()
        for k, v in found.items()
    ]
).assign(weighted=lambda table: table.weight * table.value)

# %% [markdown]
# ## 6. What the discriminators and the classifier minimise
#
# $$\mathcal L_D = -\mathcal L_{adv} + \lambda_{cls}\, \mathbb E\,
# \mathrm{CE}\big(C_A(G_A(x_A, s)), y_{src}\big)
# + \frac{\lambda_{reg}}{2}\, \mathbb E\,\lVert \nabla_x D^{c_{src}}(x) \rVert_2^2$$
#
# $C_A$ has to hear the source behind the conversion: STATED in words. The penalty $R_1$ is not in
# the paper, but in both ancestors (A3). Fakes carry no gradient here. Functions: [`r1`,
# `classification`](../xfavot/losses/terms.py),
# [`real_terms`, `fake_terms`](../xfavot/training/passes.py).

# %%
own = passes.audio_domain(x_A, d.by_speaker, nets.genders)
real = x_A.x.clone().requires_grad_()
logits = nets.D_A(real, own)
still = fake_A.detach()
adv_real, r1 = terms.adversarial_real(logits), terms.r1(logits, real)
adv_fake = terms.adversarial_fake(nets.D_A(still, heads["i"]))
cls = terms.classification(nets.C_A(still)[d.by_speaker], y_src, differ)
total_D = adv_real + adv_fake + w.cls * cls + cfg.train.r1_every * w.r1_audio * r1

fakes = [(t_A, still)]
by_step["D_A"] = passes.fake_terms(n, batch, "a", fakes, d.by_speaker)
by_step["D_A"] |= passes.real_terms(n, batch, "a", d.by_speaker, r1_due=True)
torch.testing.assert_close(objective.total(by_step["D_A"], weights["D_A"]), total_D)
show(adv_real=adv_real, adv_fake=adv_fake, cls=cls, r1=r1, total=total_D)

# %% [markdown]
# ## 7. One update by hand
#
# StarGAN v2's order (CODE, A12): the discriminators with latent styles and with those of
# references; then generators, encoders and $M$ with latent styles and from the pairs; then with
# styles of references **the generators alone**. Adam for the image modules and $M$, AdamW for the
# audio modules (STATED), $\beta_1 = 0$ and $\beta_2 = 0.99$ (A15). Here the pass `a2i`: gradients
# reach $E_I$ and $D_I$ too, but only $G_I$ moves.

# %%
nets.zero_grad()
total_I.backward()
optimizer = torch.optim.Adam(
    nets.G_I.parameters(), lr=cfg.train.lr, betas=(cfg.train.beta1, cfg.train.beta2)
)
norms = {
    name: sum(float(p.grad.square().sum()) for p in module.parameters() if p.grad is not None)
    for name, module in nets.named_children()
}
optimizer.step()
with torch.no_grad():
    after_step, _ = passes.generator_terms(n, batch, t_I, "i", voices, d.by_speaker)
after = objective.total(after_step, weights["G_I"])
assert after < total_I
show(before=total_I, after=after)

# %% [markdown]
# Norm of the gradient in each module:

# %%
pd.DataFrame({name: [value**0.5] for name, value in norms.items()}, index=["gradient"])

# %% [markdown]
# ## 8. A whole step
#
# [`Updater`](../xfavot/training/step.py) does all of this for every source of styles of the step;
# one column a pass, `g` generators and `d` discriminators, `g` alone the pairs. Preset `mini`
# draws one source a step (A13), and adds self-reconstruction (`rec`, A20), which is not the
# paper's. From here on, `train.ipynb` goes on for thousands of steps.

# %%
nets.zero_grad(set_to_none=True)
updater = step.Updater(n, cfg, guidances=sources, outputs="ia")
logged = updater(batch, number)
table = pd.DataFrame(
    [(*key.rsplit("/", 1), value.item()) for key, value in logged.items()],
    columns=["pass", "term", "value"],
)
table.pivot(index="term", columns="pass", values="value").map("{:.4f}".format).replace("nan", "")
