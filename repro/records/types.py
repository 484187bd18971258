"""The types of a record: a row of ``history.jsonl``, and ``run.json``. Does not import torch."""

from typing import Any, TypedDict


class Row(TypedDict):
    """One test: the state after ``iteration`` updates. A value that is not finite, or not known, is None."""

    iteration: int
    lr: float | None  # the schedule's at that iteration
    momentum: float | None
    train_loss: float | None  # mean over the iterations since the previous test; None before the first update
    test_loss: float | None  # mean over the test images
    test_accuracy: float | None  # a fraction
    images_per_second: float | None  # excludes testing


class _Begun(TypedDict):
    curve: str  # <figure>/<curve>
    seed: int
    variant: str  # the folder between curve and seed, "" for none
    overrides: list[str]  # of its experiment, which the variant abbreviates; earlier records lack it
    fingerprint: str  # repro.config.fingerprint
    protocol: int  # repro.config.PROTOCOL
    status: str  # "running"; at the end "finished", "diverged", "failed" or "interrupted"
    attempt: int  # from 1
    started: str  # UTC, ISO 8601
    host: str
    pid: int
    commit: str | None  # of the suite, with "-dirty" if changed
    environment: dict[str, Any]  # python, torch, device, threads
    versions: dict[str, str | None]
    config: dict[str, Any]  # repro.config.to_dict
    command: str  # trains this run; earlier records lack it
    code: list[str]  # the user's own functions with digests (``existing.code_of``); earlier records lack it
    earlier: list[str]  # the record_id of each attempt before this one; earlier records lack it
    resumed: list[dict[str, Any]]  # which attempts made it "until" which iteration; earlier records lack it


class Info(_Begun, total=False):
    """``run.json``: the inherited keys exist from the start, these from the first iteration or the end."""

    step: str  # how an iteration was computed, by repro.training.steps; earlier records lack it
    fallback: str  # why the step is slower than the default for this machine; absent if it is not
    wall_seconds: float  # over all attempts
    rows: int  # of history.jsonl, at the end
    digest: str  # of those rows
    weights_sha256: str  # of weights.pt, in hexadecimal digits; earlier records lack it
    reason: str  # of a failure
    final_accuracy: float | None  # a fraction
    best_accuracy: float | None  # a fraction
    diverged: bool
    last_iteration: int
    wandb: dict[str, Any]  # the outcome of its mirror (repro.tracking.mirror); not sent to W&B


FINISHED = ("finished", "diverged")  # statuses of a run that needs no more training
ENDING = tuple(  # keys that are final only at the end
    sorted({"status", *Info.__annotations__} - ({*_Begun.__annotations__, "wandb"} - {"status"}))
)
