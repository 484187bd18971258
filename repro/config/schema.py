"""What a run is, as types: the configuration that ``conf/`` composes. No torch here."""

from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING

POSITIVE = "(0, inf)"
NOT_NEGATIVE = "[0, inf)"


def number(default: Any, interval: str) -> Any:
    """A field for a number of an interval, which ``resolve`` checks; "(" leaves out the end, "[" does not."""
    return field(default=default, metadata={"interval": interval})


class Update(Enum):
    """Where the learning rate enters the momentum update; see ``repro.training.loop``."""

    caffe = "caffe"
    torch = "torch"


class Filler(Enum):
    """Initialisation of the convolutions, by Caffe's names."""

    msra = "msra"
    xavier = "xavier"
    own = "own"  # as the network itself begins


class Replicates(Enum):
    """What differs between the four runs of a curve."""

    seeds = "seeds"  # the seed alone
    author = "author"  # per-GPU batch and initialisation too, as the author's four did


class Precision(Enum):
    """What convolutions and matrix products compute in; weights, statistics, loss and update are float32."""

    float32 = "float32"
    tf32 = "tf32"  # float32 of a GPU's tensor cores: ten bits of mantissa
    bf16 = "bf16"  # bfloat16 by torch's autocast: seven bits


class Mode(Enum):
    """What Weights & Biases does; disabled does not even import it."""

    online = "online"
    offline = "offline"
    disabled = "disabled"


@dataclass
class Model:
    """A network of ``repro.models`` and the author's rules that go with it."""

    name: str = MISSING
    blocks: int = number(9, POSITIVE)  # residual blocks in each of the three groups; depth 6n + 2
    width: int = number(16, POSITIVE)  # channels of the first group
    init: Filler = Filler.msra
    classifier_init: Filler | None = Filler.xavier  # of linear layers; null: as the convolutions
    gpus: int = number(1, POSITIVE)  # the author's, that share a batch
    bn_groups: int = number(1, POSITIVE)  # groups that a batch is normalised in: the GPUs, never synchronised
    bn_fraction: float = number(0.9, "[0, 1)")  # of the old running average that each iteration keeps
    bn_eps: float = number(1e-5, POSITIVE)
    conv_bias_lr: float = number(1.0, NOT_NEGATIVE)  # multiples of the LR and the weight decay, for the biases
    conv_bias_decay: float = number(1.0, NOT_NEGATIVE)
    classifier_bias_lr: float = number(2.0, NOT_NEGATIVE)
    classifier_bias_decay: float = number(0.0, NOT_NEGATIVE)
    nesterov: bool = False
    min_resolution: int | None = number(None, POSITIVE)  # pixels a side that it needs; for dataset.min_resolution
    options: dict[str, Any] | None = field(default_factory=dict)  # further arguments of the network's function
    factory: str | None = None  # one's own function, package.module:function; ``resolve`` makes it the name


@dataclass
class Dataset:
    """A data set of ``repro.data``; null sizes mean all of it."""

    name: str = MISSING
    root: str = "data"  # torchvision's files, or train/<class>/*.png and test/<class>/*.png
    cache: str | None = None  # decoded images; null is the user's cache folder
    mirror: bool = True  # random horizontal mirror in training
    reshuffle: bool = True  # the images anew for every epoch; false: one order for all, as in a Caffe database
    resolution: int | None = number(None, POSITIVE)  # pixels a side, by area averaging
    min_resolution: int | None = number(None, POSITIVE)  # images that would be smaller are enlarged to it
    mean_image: bool = True  # subtract that of the training images
    unit_pixels: bool = False  # and divide the pixels by their number of levels (256), to values below 1
    train_images: int | None = number(None, POSITIVE)
    test_images: int | None = number(None, POSITIVE)
    channels: int | None = number(None, POSITIVE)  # of a folder of pictures: 3 or 1
    test_fraction: float = number(0.2, "(0, 1)")  # of each class of such a folder, where it is not split
    split_seed: int = number(0, "[0, 9e18]")
    digest: str | None = None  # of the image set's contents; null: whatever is there; otherwise required


@dataclass
class Schedule:
    """A shape of ``repro.schedules`` and its settings, for the learning rate and for the momentum."""

    lr: dict[str, Any] = MISSING
    momentum: dict[str, Any] = MISSING


@dataclass
class Regularization:
    """What else holds the weights down."""

    weight_decay: float = number(1e-4, NOT_NEGATIVE)


@dataclass
class Start:
    """The run that this one starts from, with its weights and velocities, in place of the beginning."""

    curve: str | None = None  # its experiment, at this scale and seed; null: none
    iteration: int | None = number(None, POSITIVE)  # of its snapshot; the schedule goes on from there
    changes: list[str] | None = None  # in its experiment; null: what this run changes too (records.starts)
    fingerprint: str | None = None  # this and the rest are filled in: that of its run, on whatever images
    folder: str | None = None  # where it is
    command: str | None = None  # what trains it


@dataclass
class Scale:
    """The same experiment at another size: factors on the paper's numbers."""

    name: str = "paper"
    iterations: float = number(1.0, "(0, 1]")  # on iterations, step sizes, milestones and test_every
    batch: float = number(1.0, "(0, 1]")  # on batch_size
    tests: int | None = number(None, POSITIVE)  # tests a run, instead of test_every
    note: str = ""  # what it changes, as the figures print it


@dataclass
class Tracking:
    """Weights & Biases, the mirror of the record on disk."""

    mode: Mode = Mode.offline
    entity: str | None = None  # null: WANDB_ENTITY, or wandb's default
    project: str | None = None  # null: WANDB_PROJECT, or disciplined-repro
    base_url: str | None = None  # of your own server; null: WANDB_BASE_URL, or wandb's
    patience: float = number(60.0, POSITIVE)  # seconds that the end of a run waits for W&B
    tags: list[str] = field(default_factory=list)  # further ones
    notes: str = ""
    system_metrics: bool = False  # CPU, GPU and memory over time
    code: bool = False  # what git has changed, the packages, the script


@dataclass
class Engine:
    """How an iteration is computed (``training.steps``); null is the fastest way that leaves the numbers alone."""

    precision: Precision = Precision.float32  # part of what a run is
    compile: bool | None = None  # torch.compile; null: on a GPU
    cuda_graph: bool | None = None  # the whole iteration as one launch; null: on a GPU


@dataclass
class Config:
    """One run. The numbers are those of the paper's scale; ``resolve`` applies ``scale`` to them."""

    curve: str = MISSING  # <figure>/<curve>: whose runs these are
    model: Model = field(default_factory=Model)
    dataset: Dataset = field(default_factory=Dataset)
    schedule: Schedule = field(default_factory=Schedule)
    regularization: Regularization = field(default_factory=Regularization)
    start: Start = field(default_factory=Start)
    scale: Scale = field(default_factory=Scale)
    tracking: Tracking = field(default_factory=Tracking)
    engine: Engine = field(default_factory=Engine)
    seed: int = number(0, "[0, 9e18]")
    batch_size: int = number(MISSING, POSITIVE)  # images an iteration, over all the author's GPUs
    iterations: int = number(MISSING, POSITIVE)
    test_every: int = number(100, POSITIVE)  # iterations
    divergence: float | None = number(
        None, "(1, inf)"
    )  # times the smallest test loss so far: two tests in a row above
    # it, and above the first test's over it, end the run as diverged; null: only a loss that is not finite does
    test_at_start: bool = False  # also before the first update, as the author did for Figure 5
    update: Update = Update.caffe
    replicates: Replicates = Replicates.seeds
    output: str = "multirun_outputs"
    device: str = "auto"  # auto: the GPU where there is one; or cpu, cuda, cuda:1, mps
    threads: int | None = number(None, POSITIVE)  # of the CPU; null: all cores for a run alone, 1 a run in a sweep
    workers: int | None = number(None, POSITIVE)  # runs of a sweep at once; null is as many as cores or GPUs allow
    deterministic: bool = False  # on a GPU too the same bits every time, for some speed; a CPU always is
    checkpoint_seconds: float = number(300.0, POSITIVE)  # between two checkpoints
    checkpoint_iterations: int | None = number(None, POSITIVE)  # the same in iterations; null is by time alone
    snapshots: list[int] = field(default_factory=list)  # iterations whose state is kept, for others to start from
    force: bool = False  # move a finished run of another configuration aside and train anew


def register_schema() -> None:
    """Make ``Config`` known to Hydra as ``schema``, which ``conf/train.yaml`` begins with: before it composes."""
    store = ConfigStore.instance()
    if "schema.yaml" not in store.repo:  # storing takes ten milliseconds
        store.store(name="schema", node=Config)
