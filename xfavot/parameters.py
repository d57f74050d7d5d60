"""The parameters of every notebook: one frozen dataclass each, with default, help and check.

A notebook declares its parameters in a cell tagged `parameters` and passes all of them on:
``cfg = Train.resolve(dataset=dataset, ...)``. What papermill only warns about, a wrong name or a
value of another type, is refused there with a message.
"""

from __future__ import annotations

import ast
import dataclasses
import os
import sys
import typing
from pathlib import Path
from typing import Any, ClassVar

from xfavot import config, presets, weights
from xfavot.config import FROM_PRESET, NETWORKS, PRECISIONS, VOCODER, RunConfig, corpora_of, place
from xfavot.errors import ConfigError
from xfavot.presets import parse
from xfavot.strict import Settings, check_options, nearest, option, require, typed

if typing.TYPE_CHECKING:
    from typing import Self

INJECTED_HEAD = "# Parameters"  # first line of the cell that papermill injects
NO_MODEL = "none"  # given as checkpoint of a study: the ground truth alone
RECOGNISERS = ("espnet_librispeech", "pocketsphinx_grid", "whisper_base")
TRAINABLE = (*NETWORKS, VOCODER)
METRICS = (
    *("fid", "lpips", "preservation", "face_identity"),  # of faces; the others are of voices
    *("nisqa", "distill_mos", "speaker_similarity", "word_error", "f0", "content", "verification"),
)
BASELINES = ("adain_vc", "adain_cvc", "fragment_vc", "vclip", "sgsim")
FORMS = ("faces", "outputs")
ALL = "all"
VOICES = ("auto", "kokoro", "espeak")  # of mini
MINI = {"speakers": 16, "utterances": 24, "voices": "auto", "twins": 0}  # what it is if not asked
MINI_CONVERSIONS = 24  # voices a task, faces a direction; minutes, not hours
FOLDERS = ("data_root", "run_root", "out", "answers", "manifest", "study", "initial", "weights")
MODELS = ("checkpoint", "initial", "conversion")  # which may be the shipped one
SHIPPED = "shipped"  # a checkpoint, the model that comes with the package


class Parameters(Settings):
    """What all notebooks share; fields stand in the order of the notebook's cell."""

    dataset: str = option("mini", "mixture of corpora, see docs/training.md")
    data_root: str = option("data", "folder of prepared stores")
    seed: int = option(0, "seed of everything random", least=0)
    FIXED: ClassVar[dict[str, Any]] = {}  # of the run, whatever the parameters say

    def __post_init__(self) -> None:
        """Check every value alone."""
        check_options(self)
        corpora_of(self.dataset)
        config.require_device("device", getattr(self, "device", "auto"))

    @property
    def corpora(self) -> tuple[str, ...]:
        """The corpora that the dataset mixes."""
        return corpora_of(self.dataset)

    @property
    def run(self) -> RunConfig:
        """The run that these parameters define, where they define one."""
        return self._run()

    def _run(self, **further: Any) -> RunConfig:
        names = (*config.OF_RUN, *config.OF_TRAIN, "overrides")
        given = {name: getattr(self, name) for name in names if hasattr(self, name)}
        return config.resolve(**given | self.FIXED | further)

    @classmethod
    def resolve(cls, **given: Any) -> Self:
        """Check what a notebook passes; parameters left out take their default.

        `overrides` may also be the text of a mapping, in YAML. Relative folders are those of the
        repository, also in JupyterLab (:func:`config.place`).

        Raises:
            ConfigError: an unknown name (also one that only papermill saw), a wrong type or value.
        """
        declared, hints = [f.name for f in dataclasses.fields(cls)], typing.get_type_hints(cls)
        for name in (*injected(), *given):
            if name not in declared:
                raise ConfigError(f"{name} is not a parameter here; {nearest(name, declared)}")
        if isinstance(overrides := given.get("overrides"), str):
            given["overrides"] = parse(overrides, "overrides")
        made = cls(**{name: typed(value, hints[name], name) for name, value in given.items()})
        folders: Any = {
            n: place(getattr(made, n)) for n in (*FOLDERS, "conversion") if getattr(made, n, "")
        }
        for name in MODELS:
            if given.get(name) == SHIPPED and "run_root" in folders:
                folders[name] = str(Path(folders["run_root"], SHIPPED))
        return dataclasses.replace(made, **folders)


def injected() -> dict[str, Any]:
    """What papermill injected into the running notebook: parameter to value, {} outside of one.

    Papermill does not tell the kernel what it injected, but IPython keeps the source of every cell
    it ran. The last one that starts as papermill's is parsed; nothing is executed.
    """
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    history = shell.user_ns.get("In", []) if shell else []
    values: dict[str, Any] = {}
    for text in [one for one in history if one.startswith(INJECTED_HEAD)][-1:]:
        for node in ast.parse(text).body:
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                try:
                    value = ast.literal_eval(node.value)
                except ValueError:  # such as float("nan")
                    value = ast.unparse(node.value)
                values[node.targets[0].id] = value
    return values


def names_of(text: str) -> tuple[str, ...]:
    """Read different names separated by commas; empty ones do not count."""
    return tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))


class OnDevice(Parameters):
    """What the notebooks share that compute with networks."""

    device: str = option("auto", "auto, cpu, cuda, cuda:1 or mps")


class OnRuns(OnDevice):
    """What the notebooks share that read or write runs too."""

    run_root: str = option("runs", "folder of runs")


class Prepare(Parameters):
    """Of `prepare_data`: which originals become prepared stores."""

    source: str = option("", "folder of originals; not needed for mini")
    download: bool = option(False, "first fetch what the owners let anyone download")
    speakers: int = option(16, "people in mini", least=2)
    utterances: int = option(24, "sentences of each person in mini", least=1)
    voices: str = option("auto", "of mini: auto, kokoro or espeak", choices=VOICES)
    twins: int = option(0, "pictures of each person of mini in a pose that others share", least=0)
    workers: int = option(0, "processes; 0 means one a core", least=0)

    def __post_init__(self) -> None:
        """Check that real data have a source."""
        super().__post_init__()
        for name, usual in MINI.items():
            given = getattr(self, name)
            says = f"{usual} for {self.dataset}"
            require("mini" in self.corpora or given == usual, name, given, says, "of mini alone")
        needs = [corpus for corpus in self.corpora if corpus != "mini"]
        fine = bool(self.source or self.download or not needs)
        step = "give it with -p source <folder>, or -p download True to fetch what may be fetched"
        require(fine, "source", "", f"the folder of originals of {', '.join(needs)}", step)

    @property
    def originals(self) -> str:
        """Folder of originals: `source`, or where downloads go; mini alone needs none."""
        needs = not self.source and self.corpora != ("mini",)
        return str(Path(self.data_root) / "originals") if needs else self.source

    @property
    def processes(self) -> int:
        """Number of processes: `workers`, or one a core."""
        return self.workers or os.cpu_count() or 1


class Train(OnRuns):
    """Of `train`: one run, a row of the paper's tables at some size."""

    configuration: str = option("xfavot", "row of the paper's tables")
    preset: str = option("", "size; empty means mini for dataset mini, else paper")
    steps: int = option(FROM_PRESET, "training steps; -1: the preset's", least=1)
    batch_size: int = option(FROM_PRESET, "samples a step; -1: the preset's", least=1)
    precision: str = option("", "float32 or bf16; empty means the preset's", choices=PRECISIONS)
    processes: int = option(1, "that train together on this machine", least=1)
    initial: str = option("", "model to start from: shipped, a run or a checkpoint; empty: none")
    resume: str = option("", "run folder or checkpoint to go on from; empty means none")
    overrides: dict[str, Any] = option({}, "dotted settings, such as loss.xm, to values")


class Baseline(OnRuns):
    """Of `baseline`: one run of a compared system, or a checkpoint that its authors published."""

    system: str = option("adain_vc", f"compared system: {', '.join(BASELINES)}", choices=BASELINES)
    preset: str = option("", "size; empty means mini for dataset mini, else paper")
    steps: int = option(FROM_PRESET, "training steps; -1: the preset's", least=1)
    batch_size: int = option(FROM_PRESET, "samples a step; -1: the preset's", least=1)
    resume: str = option("", "run folder or checkpoint to go on from; empty means none")
    overrides: dict[str, Any] = option({}, "dotted settings, such as system.width, to values")
    weights: str = option("", "published checkpoint to take in place of training")
    conversion: str = option("", "of vclip: run of XFaVoT that speaks, or shipped")


class Associate(OnRuns):
    """Of `associate`: which face goes with which voice, learnt by heads on frozen encoders."""

    folds: int = option(8, "parts of the people; each is judged by heads of the others", least=2)
    steps: int = option(300, "training steps of a fold", least=1)
    fewer: str = option("13,26,52", "people to learn from, for the curve, with commas")
    voices: str = option("resemblyzer", "encoders of voices, with commas; the first one speaks")
    checkpoint: str = option("", "run or shipped, whose encoders stand beside, and who speaks")
    conversions: int = option(0, "voices to make for faces by the checkpoint", least=0)
    out: str = option("runs/association", "folder of what is found")

    def __post_init__(self) -> None:
        """Check the curve, and that somebody speaks."""
        super().__post_init__()
        fine = all(one.isdecimal() and int(one) > 1 for one in names_of(self.fewer))
        require(fine, "fewer", self.fewer, "numbers of people, such as 13,26", "correct it")
        fine = bool(self.encoders) and all(Path(one).name == one for one in self.encoders)
        require(fine, "voices", self.voices, "resemblyzer, or folders of weights", "correct it")
        fine = bool(self.checkpoint) or not self.conversions
        require(fine, "conversions", self.conversions, "0 without a checkpoint", "name one")

    @property
    def curve(self) -> tuple[int, ...]:
        """Numbers of people to learn from, in rising order."""
        return tuple(sorted(map(int, names_of(self.fewer))))

    @property
    def encoders(self) -> tuple[str, ...]:
        """Encoders of voices: resemblyzer, or folders among the fetched weights."""
        return names_of(self.voices)


class Method(OnDevice):
    """Of `method`: the data of one batch and the size of the modules that it goes through.

    Its run is that whose first step after the warm-up is shown; nothing is written to its folder.
    """

    preset: str = option("mini", "size; the F0 and content networks of mini come with the package")
    FIXED: ClassVar[dict[str, Any]] = {"overrides": {"pretrain.source": "shipped"}}


class Pretrain(OnRuns):
    """Of `pretrain`: a network that stays frozen in the GAN, or a vocoder."""

    network: str = option("all", "f0, content, vocoder, or all: the first two", choices=TRAINABLE)
    preset: str = option("", "size; empty means mini for dataset mini, else paper")
    steps: int = option(FROM_PRESET, "training steps; -1: the preset's", least=1)
    overrides: dict[str, Any] = option({}, "dotted settings, such as loss.xm, to values")

    @property
    def networks(self) -> tuple[str, ...]:
        """The networks to train; "all" are the two that training needs."""
        return NETWORKS if self.network == "all" else (self.network,)

    @property
    def run(self) -> RunConfig:
        """The run that they are for; `steps` counts for each network, none that ships is taken."""
        run, names = self._run(steps=FROM_PRESET), self.networks
        lengths: dict[str, Any] = {f"{n}_steps": self.steps for n in names if self.steps > 0}
        pretrain = dataclasses.replace(run.pretrain, source="train", **lengths)
        return dataclasses.replace(run, pretrain=pretrain)


class Benchmark(OnDevice):
    """Of `benchmark`: what is measured at the paper's sizes, how often, and where it is written."""

    rounds: int = option(5, "times that each thing is timed", least=1)
    peers_root: str = option("", "folder with check-outs of stargan-v2 and StarGANv2-VC")
    checkpoint: str = option("", "run whose checkpoints are measured, for the time to quality")
    out: str = option("runs/benchmark", "folder of the tables and figures")
    FIXED: ClassVar[dict[str, Any]] = {"preset": "paper"}

    @property
    def tier(self) -> str:
        """Of what it writes; a median of less than five rounds is for tests."""
        return "smoke" if self.rounds < 5 else "reduced"


class Tables(Parameters):
    """Of `tables`: the tables of which dataset, from which runs; Tables 6 to 9 are the paper's."""

    run_root: str = option("runs", "folder of runs")
    out: str = option("runs/tables", "folder of the tables")
    FIXED: ClassVar[dict[str, Any]] = {"preset": "paper"}


class Page(Tables):
    """Of `paper`: the page that shows all tables and figures of a dataset, and what is missing."""

    out: str = option("runs/paper", "folder of figures/ and paper_tables/")


class Explore(OnRuns):
    """Of `explore`: a checkpoint, and samples to convert."""

    checkpoint: str = option("", "run folder or checkpoint; empty: the newest, or else shipped")
    vocoder: str = option("source_filter", "a vocoder's name, or its weights on disk")

    @property
    def model(self) -> str:
        """The checkpoint, or the folder of runs; without a run, the model of the package."""
        ships = weights.MODEL.exists() and not any(Path(self.run_root).glob("*/checkpoints"))
        return self.checkpoint or str(Path(self.run_root, SHIPPED if ships else ""))


class Demo(Explore):
    """Of `demo`: a model, and a short training that starts from it on a few new people."""

    run_root: str = option("runs/demo", "folder of runs")
    checkpoint: str = option(SHIPPED, "model to show and to start from: shipped, or a run")
    people: int = option(4, "new people to learn, women and men", least=2)
    steps: int = option(100, "training steps", least=1)

    def learning(self, data_root: str, model: RunConfig) -> RunConfig:
        """The run that goes on from the model, whose configuration this is, on other data.

        Its networks have the model's sizes, also where a preset has others by now.
        """
        kind = {"configuration": model.configuration, "preset": model.preset}
        usual = dataclasses.asdict(self._run(**kind).model)
        sizes = {
            f"model.{k}": v for k, v in dataclasses.asdict(model.model).items() if v != usual[k]
        }
        sizes.pop("model.speakers", None)  # those of the data are added
        short = {"train.ema_decay": 0.95, "train.sample_every": self.steps}
        rare = {"train.voices_every": 4}  # half of a step's time is the voices'
        return self._run(
            **kind, data_root=data_root, initial=self.model, overrides={**short, **rare, **sizes}
        )


class Evaluate(Explore):
    """Of `evaluate`: a checkpoint by the paper's protocol, or external outputs."""

    manifest: str = option("", "CSV file of external outputs; empty means the checkpoint")
    recogniser: str = option(
        RECOGNISERS[0], "or pocketsphinx_grid, for GRID, or whisper_base", choices=RECOGNISERS
    )
    out: str = option("runs/external", "folder of the scores of a manifest")
    metrics: str = option(ALL, "or some, with commas: fid, lpips, nisqa, word_error, ...")
    conversions: int = option(FROM_PRESET, "of each task; 0: the paper's; -1: few on mini", least=0)
    substitute: str = option("", "judge: also a classifier of faces", choices=("judge",))

    def __post_init__(self) -> None:
        """Check the metrics."""
        super().__post_init__()
        for name in names_of(self.metrics):
            if name not in (ALL, *METRICS):
                raise ConfigError(f"metrics is {name!r}; {nearest(name, (ALL, *METRICS))}")

    @property
    def chosen(self) -> tuple[str, ...]:
        """The metrics, in the order of :data:`METRICS`."""
        names = names_of(self.metrics)
        return METRICS if ALL in names else tuple(name for name in METRICS if name in names)

    @property
    def count(self) -> int:
        """Conversions: voices a task and source faces a direction; 0 for the paper's counts."""
        few = MINI_CONVERSIONS if self.dataset == "mini" else 0
        return few if self.conversions == FROM_PRESET else self.conversions


class Study(Explore):
    """Of `cpr_study`: what is asked, of which models, and where its pages lie.

    `form`: "faces" asks with a voice and two faces, as the paper does; "outputs" with two voices
    too (:mod:`xfavot.evaluation.cpr`).
    """

    checkpoint: str = option("", "runs or checkpoints with commas; empty: newest, none: none")
    form: str = option("faces", "a voice, two faces; outputs: also two voices", choices=FORMS)
    triplets: int = option(30, "questions a model and task", least=1)
    evaluators: int = option(5, "pages to make", least=1)
    answers: str = option("", "folder of answers to read back; empty means make the pages")
    out: str = option("runs/cpr_study", "folder of the study")

    @property
    def checkpoints(self) -> tuple[str, ...]:
        """Run folders or checkpoints; () for the ground truth alone."""
        listed = names_of(self.model)
        return () if self.checkpoint == NO_MODEL else listed


class Figures(Explore):
    """Of `figures`: one checkpoint, others to compare, a study."""

    others: str = option("", "runs or checkpoints to compare with, with commas")
    study: str = option("", "folder of a correspondence study; empty means an automatic one")
    answers: str = option("", "folder of answers to that study; empty means none")
    triplets: int = option(30, "of the automatic study, a model and task", least=1)
    out: str = option("runs/figures", "folder of the figures and voices")

    def __post_init__(self) -> None:
        """Check that answers come with their study."""
        super().__post_init__()
        alone = bool(self.answers) and not self.study
        require(not alone, "study", self.study, "the study that was answered", "name its folder")

    @property
    def compared(self) -> tuple[str, ...]:
        """Run folders or checkpoints that Fig. 3 and 5 compare with."""
        return names_of(self.others)

    @property
    def asked(self) -> Study:
        """The study behind Fig. 5, of all checkpoints; the first one is that of the figures."""
        names = [*(entry.name for entry in dataclasses.fields(OnRuns)), "vocoder", "answers"]
        shared = {name: getattr(self, name) for name in names}
        checkpoint = ",".join((self.model, *self.compared))
        return Study(checkpoint=checkpoint, triplets=self.triplets, evaluators=1, **shared)


class Paper(OnRuns):
    """Of the workflow: all tables and figures of which dataset and rows, on one budget.

    The rows and the budget stand in `workflow/config.yaml`.
    """

    rows: str = option("", "with commas; all: those listed; empty: xfavot, or a checkpoint alone")
    listed: dict[str, Any] = option({}, "rows of all, each with the seeds that it is trained with")
    steps: int = option(FROM_PRESET, "training steps of each; -1: its preset's", least=1)
    batch_size: int = option(FROM_PRESET, "samples a step; -1: the preset's", least=1)
    preset: str = option("", "size; empty means mini for dataset mini, else paper")
    checkpoint: str = option("", "runs or checkpoints, with commas; the first is in the figures")
    present: bool = option(False, "only what follows from that which is there already")
    source: str = option("", "folder of originals; not needed for mini")
    vocoder: str = option("source_filter", "a vocoder's name, or its weights on disk")
    recogniser: str = option("", "of words; empty means pocketsphinx_grid on mini, or ESPnet")
    metrics: str = option(ALL, "as in evaluate")
    conversions: int = option(FROM_PRESET, "as in evaluate", least=0)
    substitute: str = option("judge", "as in evaluate; empty means none", choices=("",))
    triplets: int = option(30, "of the study, a model and task", least=1)
    study: str = option("", "folder of a study that was answered; empty makes one")
    answers: str = option("", "folder of people's answers to that study; empty means none")
    out: str = option("runs/paper", "folder of figures/ and paper_tables/")

    def __post_init__(self) -> None:
        """Refuse what no notebook takes, and what contradicts itself."""
        super().__post_init__()
        both = bool(self.study) == bool(self.answers)
        require(both, "study", self.study, "a study and its answers", "give study= and answers=")
        known = (*presets.names("configurations"), *BASELINES)
        for name, seeds in (("", ()), *self.wanted):
            if name and name not in known:
                raise ConfigError(f"rows has {name!r}; {nearest(name, known)}")
            whole = isinstance(seeds, list | tuple)
            whole = whole and all(type(seed) is int and seed >= 0 for seed in seeds)
            require(whole, f"listed.{name}", seeds, "a list of seeds, such as [0, 1]", "correct it")
        some = bool(self.wanted) or not self.rows
        require(some, "rows", self.rows, "one at least", "name it")

    def absolute(self, name: str) -> str:
        """Return a folder for notebooks that are started elsewhere, or "" where none is given."""
        folder = getattr(self, name)
        return str(Path(folder).resolve()) if folder else ""

    @property
    def checkpoints(self) -> tuple[str, ...]:
        """Run folders or checkpoints; the first one is that of the figures."""
        return tuple(str(Path(place(one)).resolve()) for one in names_of(self.checkpoint))

    @property
    def wanted(self) -> tuple[tuple[str, list[Any]], ...]:
        """Rows to train, each with its seeds."""
        listed = self.listed.items() if self.rows == ALL else ()
        names = names_of(self.rows or ("" if self.checkpoint else Train.configuration))
        return tuple(listed or [(name, [self.seed]) for name in names if name != ALL])

    @property
    def evaluation(self) -> dict[str, Any]:
        """Further parameters of `evaluate`."""
        usual = RECOGNISERS[1 if self.dataset == "mini" else 0]
        given = {"metrics": self.metrics, "conversions": self.conversions}
        return {"recogniser": self.recogniser or usual, **given, "substitute": self.substitute}
