"""What a record holds, as types: a row of ``history.jsonl``, and ``run.json``. No torch here."""

from typing import Any, TypedDict


class Row(TypedDict):
    """One test: the state after ``iteration`` updates. What is not finite, or not known, is None."""

    iteration: int
    lr: float | None  # the schedule's at that iteration
    momentum: float | None
    train_loss: float | None  # mean over the iterations since the test before; None before the first update
    test_loss: float | None  # mean over the test images
    test_accuracy: float | None  # a fraction
    images_per_second: float | None  # of training alone


class _Begun(TypedDict):
    curve: str  # <figure>/<curve>
    seed: int
    variant: str  # what the folder's name says beyond scale, curve and seed
    overrides: list[str]  # what that stands for: what the run changes in its experiment; earlier records lack it
    fingerprint: str  # repro.config.fingerprint
    protocol: int  # repro.config.PROTOCOL
    status: str  # "running"; at the end "finished", "diverged", "failed" or "interrupted"
    attempt: int  # from 1
    started: str  # UTC, ISO 8601
    host: str
    pid: int
    commit: str | None  # git describe, of the suite
    environment: dict[str, Any]  # python, torch, device, threads
    versions: dict[str, str | None]
    config: dict[str, Any]  # repro.config.to_dict
    command: str  # that trains this run; earlier records lack it
    earlier: list[str]  # the record_id of each attempt before this one; earlier records lack it


class Info(_Begun, total=False):
    """``run.json``: the first keys are there from the start, these from the first iteration or the end on."""

    step: str  # how an iteration was computed, by repro.training.steps; records from before it lack it
    fallback: str  # why that is slower than what this machine should do; absent where it is not
    wall_seconds: float  # over all attempts
    rows: int  # of history.jsonl, at the end
    digest: str  # of those rows
    weights_sha256: str  # of weights.pt, in hexadecimal digits; earlier records lack it
    reason: str  # of a failure
    final_accuracy: float | None  # fractions
    best_accuracy: float | None
    diverged: bool
    last_iteration: int
    wandb: dict[str, Any]  # what became of its mirror (repro.tracking.mirror); W&B itself is not sent it


FINISHED = ("finished", "diverged")  # statuses of a run that has nothing left to do
ENDING = tuple(  # what is known by the end
    sorted({"status", *Info.__annotations__} - ({*_Begun.__annotations__, "wandb"} - {"status"}))
)
