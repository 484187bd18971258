"""The types of a run's configuration, which ``conf/`` composes. Does not import torch."""

from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING

POSITIVE = "(0, inf)"
NOT_NEGATIVE = "[0, inf)"
SIDE = "[1, 4096]"  # pixels a side


def number(default: Any, interval: str) -> Any:
    """A field for a number in an interval that ``check_numbers`` checks; "(" excludes the end, "[" includes it."""
    return field(default=default, metadata={"interval": interval})


class Update(Enum):
    """Where the learning rate enters the momentum update; see ``repro.training.loop``."""

    caffe = "caffe"
    torch = "torch"


class Filler(Enum):
    """Initialisation of the convolutions, by Caffe's names."""

    msra = "msra"
    xavier = "xavier"
    own = "own"  # the network's own initialisation


class Replicates(Enum):
    """What differs between the four runs of a curve."""

    seeds = "seeds"  # the seed alone
    author = "author"  # per-GPU batch and initialisation too, as the author's four did


class Precision(Enum):
    """The number format of convolutions and matrix products; weights, statistics, loss and update are float32."""

    float32 = "float32"
    tf32 = "tf32"  # TensorFloat-32 of a GPU's tensor cores: ten bits of mantissa
    bf16 = "bf16"  # bfloat16 by torch's autocast: seven bits of mantissa


class Mode(Enum):
    """The mode of Weights & Biases; disabled does not import it."""

    online = "online"
    offline = "offline"
    disabled = "disabled"


@dataclass
class Model:
    """A network of ``repro.models`` and the author's rules that go with it."""

    name: str = MISSING
    blocks: int = number(9, "[1, 1000]")  # residual blocks in each of the three groups; depth 6n + 2
    width: int = number(16, "[1, 65536]")  # channels of the first group
    init: Filler = Filler.msra
    classifier_init: Filler | None = Filler.xavier  # of linear layers; null: as the convolutions
    gpus: int = number(1, POSITIVE)  # how many of the author's GPUs shared a batch
    bn_groups: int = number(1, POSITIVE)  # groups of a batch, each normalised alone, as on unsynchronised GPUs
    bn_fraction: float = number(0.9, "[0, 1)")  # of the old running average that each iteration keeps
    bn_eps: float = number(1e-5, POSITIVE)
    conv_bias_lr: float = number(1.0, NOT_NEGATIVE)  # multiples of the LR and the weight decay, for the biases
    conv_bias_decay: float = number(1.0, NOT_NEGATIVE)
    classifier_bias_lr: float = number(2.0, NOT_NEGATIVE)
    classifier_bias_decay: float = number(0.0, NOT_NEGATIVE)
    nesterov: bool = False
    min_resolution: int | None = number(None, SIDE)  # smallest accepted pixels a side; see Dataset
    options: dict[str, Any] | None = field(default_factory=dict)  # further arguments of the network's function
    factory: str | None = None  # the user's function, package.module:function; ``resolve`` makes it the name


@dataclass
class Dataset:
    """A data set of ``repro.data``; null sizes mean all of it."""

    name: str = MISSING
    root: str = "data"  # torchvision's files, or train/<class>/*.png and test/<class>/*.png
    cache: str | None = None  # decoded images; null is the user's cache folder
    mirror: bool = True  # random horizontal mirror in training
    reshuffle: bool = True  # the images before every epoch; false: one fixed order, as in a Caffe database
    resolution: int | None = number(None, SIDE)  # pixels a side, by area averaging
    min_resolution: int | None = number(None, SIDE)  # smaller images are enlarged to this
    mean_image: bool = True  # subtract the mean of the training images
    unit_pixels: bool = False  # then divide the pixels by their number of levels (256), to values below 1
    train_images: int | None = number(None, POSITIVE)
    test_images: int | None = number(None, POSITIVE)
    channels: int | None = number(None, POSITIVE)  # of a folder of pictures: 3 or 1
    test_fraction: float = number(0.2, "(0, 1)")  # of each class of such a folder, unless it is split already
    split_seed: int = number(0, "[0, 9e18]")
    digest: str | None = None  # the required digest of the image set's contents; null: any


@dataclass
class Schedule:
    """A shape of ``repro.schedules`` and its settings, for the learning rate and for the momentum."""

    lr: dict[str, Any] = MISSING
    momentum: dict[str, Any] = MISSING


@dataclass
class Regularization:
    """Regularization other than the schedule."""

    weight_decay: float = number(1e-4, NOT_NEGATIVE)


@dataclass
class Start:
    """The source run whose snapshot (weights and velocities) this run starts from."""

    curve: str | None = None  # the source's experiment, at this scale and seed; null: start from the beginning
    iteration: int | None = number(None, POSITIVE)  # of the snapshot; the schedule continues from there
    changes: list[str] | None = None  # the source's overrides; null: inherited from this run (records.starts)
    fingerprint: str | None = None  # of the source, without its images; this and the rest are filled in
    folder: str | None = None  # of the source
    command: str | None = None  # that trains the source


@dataclass
class Scale:
    """The same experiment at another size: factors on the paper's numbers."""

    name: str = "paper"
    iterations: float = number(1.0, "(0, 1]")  # multiplies iterations, step sizes, milestones and test_every
    batch: float = number(1.0, "(0, 1]")  # multiplies batch_size
    tests: int | None = number(None, POSITIVE)  # tests per run, in place of test_every
    note: str = ""  # what the scale changes, as the figures print it


@dataclass
class Tracking:
    """Weights & Biases, which mirrors the record on disk."""

    mode: Mode = Mode.offline
    entity: str | None = None  # null: WANDB_ENTITY, or wandb's default
    project: str | None = None  # null: WANDB_PROJECT, or disciplined-repro
    base_url: str | None = None  # of your own server; null: WANDB_BASE_URL, or wandb's
    patience: float = number(60.0, POSITIVE)  # seconds that the end of a run waits for W&B
    tags: list[str] = field(default_factory=list)  # in addition to the suite's
    notes: str = ""
    system_metrics: bool = False  # CPU, GPU and memory over time
    code: bool = False  # the git diff, the installed packages, the script


@dataclass
class Engine:
    """How an iteration is computed (``training.steps``); null: the fastest way that keeps the results."""

    precision: Precision = Precision.float32  # the only one of these in the fingerprint
    compile: bool | None = None  # torch.compile; null: on a GPU
    cuda_graph: bool | None = None  # the whole iteration as one launch; null: on a GPU


@dataclass
class Config:
    """One run. The numbers are at paper scale; ``resolve`` applies ``scale`` to them."""

    curve: str = MISSING  # <figure>/<curve>
    model: Model = field(default_factory=Model)
    dataset: Dataset = field(default_factory=Dataset)
    schedule: Schedule = field(default_factory=Schedule)
    regularization: Regularization = field(default_factory=Regularization)
    start: Start = field(default_factory=Start)
    scale: Scale = field(default_factory=Scale)
    tracking: Tracking = field(default_factory=Tracking)
    engine: Engine = field(default_factory=Engine)
    seed: int = number(0, "[0, 9e18]")
    batch_size: int = number(MISSING, POSITIVE)  # images per iteration, over all the author's GPUs
    iterations: int = number(MISSING, POSITIVE)
    test_every: int = number(100, POSITIVE)  # iterations
    # A run diverges when two tests in a row have a loss above ``divergence`` times the lowest test loss so far and
    # above the first test's loss divided by ``divergence``; null: only when the training loss is not finite.
    divergence: float | None = number(None, "(1, inf)")
    test_at_start: bool = False  # also test before the first update, as the author did for Figure 5
    update: Update = Update.caffe
    replicates: Replicates = Replicates.seeds
    output: str = "multirun_outputs"
    device: str = "auto"  # auto: a GPU if there is one, else the CPU; or cpu, cuda, cuda:1, mps, xpu
    threads: int | None = number(None, "[1, 4096]")  # CPU threads; null: all cores for a single run, 1 in a sweep
    workers: int | None = number(None, POSITIVE)  # concurrent runs of a sweep; null: as the cores or GPUs allow
    deterministic: bool = False  # bitwise reproducible on a GPU too, at some cost in speed; a CPU always is
    checkpoint_seconds: float = number(300.0, POSITIVE)  # between two checkpoints
    checkpoint_iterations: int | None = number(None, POSITIVE)  # the same in iterations; null: by time alone
    snapshots: list[int] = field(default_factory=list)  # iterations whose state is kept, to start other runs from
    force: bool = False  # move a finished run aside and train it again


def register_schema() -> None:
    """Register ``Config`` with Hydra as ``schema``, which ``conf/train.yaml`` extends; call before composing."""
    store = ConfigStore.instance()
    if "schema.yaml" not in store.repo:  # storing takes ten milliseconds
        store.store(name="schema", node=Config)
