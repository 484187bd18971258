"""What a run is: the typed configuration, its scale, its validation and its fingerprint.

``conf/`` composes a ``Config``; ``resolve`` applies the scale and checks every value, and what it returns is
what is trained, recorded and hashed. No torch here.
"""

import dataclasses
import hashlib
import json
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, cast

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from repro import schedules
from repro.errors import ReproError, one_line

PROTOCOL = 1  # raise it when the same configuration no longer trains the same run


class Update(Enum):
    """Where the learning rate enters the momentum update; see ``repro.training``."""

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
    blocks: int = 9  # residual blocks in each of the three groups; depth 6n + 2
    width: int = 16  # channels of the first group
    init: Filler = Filler.msra
    gpus: int = 1  # the author's, that share a batch
    bn_groups: int = 1  # the batch is normalised in that many groups: the GPUs, never synchronised
    bn_fraction: float = 0.9  # of the old running average that each iteration keeps
    bn_eps: float = 1e-5
    conv_bias_lr: float = 1.0  # multiples of the LR and the weight decay, for the biases
    conv_bias_decay: float = 1.0
    classifier_bias_lr: float = 2.0
    classifier_bias_decay: float = 0.0
    nesterov: bool = False
    options: dict[str, Any] = field(default_factory=dict)  # further arguments of the network's function


@dataclass
class Dataset:
    """A data set of ``repro.data``; null sizes mean all of it."""

    name: str = MISSING
    root: str = "data"  # torchvision's files, or train/<class>/*.png and test/<class>/*.png
    cache: str | None = None  # decoded images; null is the user's cache folder
    mirror: bool = True  # random horizontal mirror in training
    resolution: int | None = None  # pixels a side, by area averaging
    train_images: int | None = None
    test_images: int | None = None
    digest: str | None = None  # of the image set's contents; found out, or held against what is found


@dataclass
class Schedule:
    """A shape of ``repro.schedules`` and its settings, for the learning rate and for the momentum."""

    lr: dict[str, Any] = MISSING
    momentum: dict[str, Any] = MISSING


@dataclass
class Regularization:
    """What else holds the weights down."""

    weight_decay: float = 1e-4


@dataclass
class Scale:
    """The same experiment at another size: factors on the paper's numbers."""

    name: str = "paper"
    iterations: float = 1.0  # on iterations, step sizes, milestones and test_every
    batch: float = 1.0  # on batch_size
    tests: int | None = None  # tests a run, instead of test_every
    note: str = ""  # what it changes, as the figures print it


@dataclass
class Tracking:
    """Weights & Biases, the mirror of the record on disk."""

    mode: Mode = Mode.offline
    entity: str | None = None  # null: WANDB_ENTITY, or wandb's default
    project: str | None = None  # null: WANDB_PROJECT, or disciplined-repro
    base_url: str | None = None  # of a server of one's own; null: WANDB_BASE_URL, or wandb's
    patience: float = 60.0  # seconds that the end of a run waits for W&B


@dataclass
class Engine:
    """How an iteration is computed (``repro.engine``); null is the fastest way that leaves the numbers alone."""

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
    scale: Scale = field(default_factory=Scale)
    tracking: Tracking = field(default_factory=Tracking)
    engine: Engine = field(default_factory=Engine)
    seed: int = 0
    batch_size: int = MISSING  # images an iteration, over all the author's GPUs
    iterations: int = MISSING
    test_every: int = 100  # iterations
    test_at_start: bool = False  # also before the first update, as the author did for Figure 5
    update: Update = Update.caffe
    replicates: Replicates = Replicates.seeds
    output: str = "multirun_outputs"
    device: str = "auto"  # auto: the GPU where there is one; or cpu, cuda, cuda:1, mps
    threads: int | None = None  # of the CPU; null is all of its cores for a run alone, 1 a run in a sweep
    workers: int | None = None  # runs of a sweep at once; null is as many as cores or GPUs allow
    deterministic: bool = False  # on a GPU too the same bits every time, for some speed; a CPU always is
    checkpoint_seconds: float = 300.0  # between two checkpoints
    checkpoint_iterations: int | None = None  # the same in iterations; null is by time alone
    force: bool = False  # move a finished run of another configuration aside and train anew


# Where and how a run happens, not what it is: neither in its fingerprint nor in its folder's name.
CIRCUMSTANCES = [
    "curve",
    "output",
    "device",
    "threads",
    "workers",
    "deterministic",
    "checkpoint_seconds",
    "checkpoint_iterations",
    "force",
    "dataset.root",
    "dataset.cache",
    "engine.compile",
    "engine.cuda_graph",
    "scale.note",
    "tracking.mode",
    "tracking.entity",
    "tracking.project",
    "tracking.base_url",
    "tracking.patience",
]

# Keys that came later, with what every run before them was: at that value they leave its fingerprint alone.
LATER: dict[str, Any] = {"engine.precision": "float32", "model.options": {}}


def register_schema() -> None:
    """Make ``Config`` known to Hydra as ``schema``, which ``conf/train.yaml`` begins with: before it composes."""
    store = ConfigStore.instance()
    if "schema.yaml" not in store.repo:  # storing takes ten milliseconds
        store.store(name="schema", node=Config)


def resolve(composed: Any) -> Config:
    """The run that a composed configuration describes: scale applied, every value checked.

    Raises ReproError, one line that names the key, for a value that cannot be trained.
    """
    try:
        config = cast(Config, OmegaConf.to_object(composed))
    except OmegaConfBaseException as error:
        raise ReproError(one_line(error)) from None
    scale = config.scale
    for key in ("iterations", "batch"):
        factor = getattr(scale, key)
        _require(0 < factor <= 1, f"scale.{key}", factor, "is not a factor above 0, 1 at most")
    if config.replicates is Replicates.author:
        _as_author(config)
    _check(config)
    config.iterations = _scaled(config.iterations, scale.iterations)
    config.batch_size = _scaled(config.batch_size, scale.batch)
    config.test_every = _scaled(config.test_every, scale.iterations)
    if scale.tests is not None:
        _require(scale.tests > 0, "scale.tests", scale.tests, "is not positive")
        config.test_every = max(1, round(config.iterations / scale.tests))
    schedule, factor = config.schedule, scale.iterations
    schedule.lr = schedules.scaled(schedule.lr, lambda count: _scaled(count, factor))
    schedule.momentum = schedules.scaled(schedule.momentum, lambda count: _scaled(count, factor))
    _check(config)
    return config


def to_dict(config: Config) -> dict[str, Any]:
    """Plain nested values, as ``run.json`` holds them."""
    return cast(dict[str, Any], OmegaConf.to_container(OmegaConf.structured(config), enum_to_str=True))


def from_dict(values: dict[str, Any]) -> Config:
    """The resolved configuration that ``to_dict`` wrote."""
    return cast(Config, OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Config), values)))


def flat(config: Config) -> dict[str, Any]:
    """Dotted key -> value, of the keys that say what the run is (all but CIRCUMSTANCES)."""
    pairs: dict[str, Any] = {}
    for key, value in to_dict(config).items():
        nested = value if dataclasses.is_dataclass(getattr(config, key)) else {"": value}
        pairs |= {f"{key}.{k}" if k else key: v for k, v in nested.items()}
    return {k: v for k, v in pairs.items() if k not in CIRCUMSTANCES}


def fingerprint(config: Config) -> str:
    """Twelve hexadecimal digits that two runs share exactly when their science is the same."""
    told = {k: v for k, v in flat(config).items() if v != LATER.get(k, MISSING)}
    text = json.dumps({"protocol": PROTOCOL, **told}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _as_author(config: Config) -> None:
    """Replicate k, the seed: k images more a GPU, xavier for odd k, the iterations of the nominal batch."""
    if config.model.gpus != 4:
        raise ReproError(
            f"replicates=author: only known on 4 GPUs, and {config.model.name} had {config.model.gpus}; "
            "use replicates=seeds"
        )
    config.batch_size += config.model.gpus * config.seed
    config.model.init = Filler.xavier if config.seed % 2 else Filler.msra


def _check(config: Config) -> None:
    positive = {
        "batch_size": config.batch_size,
        "iterations": config.iterations,
        "test_every": config.test_every,
        "model.blocks": config.model.blocks,
        "model.width": config.model.width,
        "model.bn_groups": config.model.bn_groups,
        "model.bn_eps": config.model.bn_eps,
        "dataset.resolution": config.dataset.resolution,
        "dataset.train_images": config.dataset.train_images,
        "dataset.test_images": config.dataset.test_images,
        "threads": config.threads,
        "workers": config.workers,
        "checkpoint_seconds": config.checkpoint_seconds,
        "checkpoint_iterations": config.checkpoint_iterations,
        "tracking.patience": config.tracking.patience,
    }
    for key, value in positive.items():
        _require(value is None or value > 0, key, value, "is not positive")
    decay, fraction = config.regularization.weight_decay, config.model.bn_fraction
    _require(config.seed >= 0, "seed", config.seed, "is negative")
    _require(decay >= 0, "regularization.weight_decay", decay, "is negative")
    _require(0 <= fraction < 1, "model.bn_fraction", fraction, "is not in [0, 1)")
    resolution, groups = config.dataset.resolution, config.model.bn_groups
    _require(
        not (resolution or 0) % 4,
        "dataset.resolution",
        resolution,
        "is not a multiple of 4: it is halved twice",
    )
    _require(
        config.batch_size % groups == 0,
        "model.bn_groups",
        groups,
        f"does not divide the batch of {config.batch_size} images",
    )
    try:
        schedules.build(config.schedule.lr, config.schedule.momentum)
    except ValueError as error:
        raise ReproError(str(error)) from None


def _require(holds: bool, key: str, value: Any, problem: str) -> None:
    if not holds:
        raise ReproError(f"{key}={value} {problem}")


def _scaled(value: int, factor: float) -> int:
    return max(1, round(value * factor))
