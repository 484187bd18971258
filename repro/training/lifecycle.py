"""One run from start to end, in its folder: resume, train, checkpoint, record, mirror."""

import contextlib
import hashlib
import logging
import os
import re
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from repro import resources
from repro.config import Config, notes
from repro.config.errors import ReproError, describe, first_line, lacks_memory
from repro.config.terminal import plural
from repro.data import images
from repro.records import (
    FINISHED,
    Record,
    Row,
    already_finished,
    differences,
    edited,
    history,
    is_finished,
    lock,
    move_aside,
    read_info,
    starts,
)
from repro.records.files import write_whole
from repro.tracking.mirror import Mirror
from repro.tracking.mirror import require as require_tracking
from repro.training import checkpoints, devices, memory
from repro.training.interrupts import Interrupted, interruptible

if TYPE_CHECKING:
    from repro.data.batches import Data
    from repro.training.state import State

log = logging.getLogger(__name__)
LOG = "train.log"  # Hydra's, in a run's folder


def run(config: Config, folder: Path, changes: Sequence[str] = ()) -> None:
    """Train ``config`` and leave the record, weights and W&B mirror in ``folder``.

    ``changes`` are the run's overrides of its experiment, for the record (``records.naming.changes``).

    A finished run of the same configuration is kept; an unfinished one resumes from its last checkpoint.
    Divergence is a result, not an error. SIGINT, SIGTERM and SIGUSR2 end the run with a checkpoint and raise
    Interrupted; a second SIGINT ends it at once. Any other exception is recorded, in train.log too, and raised:
    ReproError for an unusable device, missing or broken data, or insufficient memory.
    """
    with interruptible() as signals, lock.locked(folder):  # in this order, a second signal leaves no lock behind
        try:
            images.identify(config.dataset, decode=is_finished(folder, config))
            starts.settle(config, changes)
            finished = already_finished(folder, config)
            if not finished:
                require_tracking(config.tracking)
        except ReproError as error:
            _record_failure(config, folder, changes, str(error))
            raise
        if finished:
            log.info("%s is already finished; force=true trains it again", folder)
            checkpoints.clear(folder)  # its process may have been killed before it did so
            if (info := read_info(folder)) and (edits := edited(info, config)):
                log.warning("%s: %s it was trained", folder, edits)
        else:
            if config.force:
                move_aside(folder)
            record = _begin(config, folder, changes)
            with contextlib.ExitStack() as at_end, _record_errors(record):
                _train(config, folder, signals, record, at_end)
            if signals:
                raise Interrupted(signals[0])  # too late for this run, but it ends the sweep


def refuse(config: Config, folder: Path, changes: Sequence[str], reason: str) -> None:
    """Record that a run cannot start, and why; a run that is finished, or trained by another process, is kept."""
    with contextlib.suppress(OSError, ReproError), lock.locked(folder):
        _record_failure(config, folder, changes, reason)


def _record_failure(config: Config, folder: Path, changes: Sequence[str], reason: str) -> None:
    info = read_info(folder)
    if info is None or info["status"] not in FINISHED:
        _end(_begin(config, folder, changes), "failed", reason)


def _begin(config: Config, folder: Path, changes: Sequence[str]) -> Record:
    """A new record; the unfinished run of another configuration, which it must not resume from, is deleted."""
    info = read_info(folder)
    changed = [] if info is None else differences(info, config)
    if info and not changed and checkpoints.find(folder) and (edits := edited(info, config)):
        log.warning("%s: %s it began; deleting the folder trains from the beginning", folder, edits)
    if info is None or changed:
        _clear(folder, changed)
        for path in starts.find(folder):
            path.unlink(missing_ok=True)
        (folder / "history.jsonl").unlink(missing_ok=True)
    return Record(folder, config, changes=changes)


def _end(record: Record, status: str, reason: str | None = None) -> None:
    """Record the end of a run that did not finish; disk errors are ignored."""
    if record.info["status"] in FINISHED:
        return
    try:
        record.finish(status, **({} if reason is None else {"reason": reason}))
    except ReproError:  # the folder is another run's by now
        return
    except OSError:
        pass
    if reason is not None:
        with contextlib.suppress(OSError), open(record.folder / LOG, "a", encoding="utf-8") as file:
            print(f"{status}: {reason}", file=file)


@contextlib.contextmanager
def _record_errors(record: Record) -> Iterator[None]:
    """While entered, errors are recorded and raised; a lack of memory is raised as ReproError."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit):
        _end(record, "interrupted")
        raise
    except Exception as error:
        memory_error = _as_memory_error(error, record)
        _end(record, "failed", describe(memory_error or error) or f"{type(error).__name__}: {error}")
        if memory_error:
            raise memory_error from error
        raise


def _as_memory_error(error: Exception, record: Record) -> ReproError | None:
    """The one-line error for a lack of memory; None for any other error."""
    if not lacks_memory(error):
        return None
    reason = first_line(error)
    if tried := re.search(r"you tried to allocate (\d+) bytes", reason):  # torch's sentence, on a CPU
        reason = f"another {int(tried[1]) / 2**20:,.0f} MiB are not free"
    device = record.info["environment"].get("device", "this machine")  # not known before the network is built
    advice = "stop the other processes that use it, or choose a smaller batch_size or network, and launch again"
    return ReproError(f"out of memory on {device} ({reason}); {advice}")


def _train(config: Config, folder: Path, signals: list[int], record: Record, at_end: contextlib.ExitStack) -> None:
    os.environ.update(resources.waiting(os.environ))  # before torch is imported
    from repro import models
    from repro.training.state import State

    _set_up_torch(config)
    device, environment, dataset = _device_and_data(config)
    unusable_gpu = devices.unusable_gpu() if config.device == "auto" else None
    if unusable_gpu:
        log.warning("%s", unusable_gpu)
    network = models.from_config(config.model, dataset.classes, dataset.mean.shape, config.seed).to(device)
    models.require_size(network, config.model.name, dataset.mean.shape, dataset.classes)
    state = State(config, network, device)
    rows = _resume_or_begin(config, folder, state, device)
    record.start(environment, rows, state.iteration)
    mirror = Mirror(record.info, folder)
    at_end.callback(_finish_mirror, mirror, record)  # after the end is recorded
    for recorded in record.rows:
        mirror.row(recorded)
    _loop(config, folder, signals, record, mirror, dataset, state, unusable_gpu)
    last_row = record.rows[-1]
    content = checkpoints.packed(network.state_dict())
    write_whole(folder / "weights.pt", lambda file: file.write(content), durable=True)
    record.finish(
        "diverged" if state.diverged else "finished",
        final_accuracy=last_row["test_accuracy"],
        best_accuracy=max(row["test_accuracy"] or 0.0 for row in record.rows),
        diverged=state.diverged,
        last_iteration=last_row["iteration"],
        weights_sha256=hashlib.sha256(content).hexdigest(),
    )
    checkpoints.clear(folder)
    if state.diverged:
        loss = last_row["train_loss"]
        reason = (
            "training loss is not finite"
            if loss is None
            else f"test loss is over {config.divergence} times its lowest"
        )
        log.warning("diverged: the %s at iteration %s", reason, last_row["iteration"])


def _set_up_torch(config: Config) -> None:
    """Threads, memory and determinism of this process."""
    import torch

    memory.keep_freed_memory()
    torch.set_num_threads(config.threads or min(torch.get_num_threads(), resources.cores()))
    if config.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS requires it
    if config.deterministic != torch.are_deterministic_algorithms_enabled():
        torch.use_deterministic_algorithms(config.deterministic)  # imports torch's compiler, which takes seconds
        # By default this also fills every uninitialised tensor: twice the kernels, for the same bits.
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def _device_and_data(config: Config) -> tuple[str, dict[str, Any], "Data"]:
    """The device, the record's environment and the images on that device. Raises ReproError if one is unusable."""
    import torch

    from repro.data import batches
    from repro.training import loop, steps
    from repro.training.precision import emulated

    device = loop.device(config.device)
    try:
        environment = loop.environment(device)
        dataset = batches.load(config.dataset, device)
        config.dataset.digest = dataset.digest
    except (RuntimeError, AssertionError) as error:
        raise ReproError(f"device={config.device}: {first_line(error)}") from error
    steps.require_device(config.engine, torch.device(device))
    if emulated(config.engine.precision, device):
        advice = "%s only emulates it; at paper scale float32 (the default) is many times faster"
        log.warning(f"engine.precision=%s: {advice}", config.engine.precision.value, device)
    return device, environment, dataset


def _resume_or_begin(config: Config, folder: Path, state: "State", device: str) -> list[Row] | None:
    """Load the newest checkpoint into ``state`` and return its rows.

    Without one, start from the configured snapshot or from the beginning, and return None.
    """
    from repro.training import snapshots

    loaded = _load_checkpoint(folder, config, device)
    if loaded is not None:
        try:
            state.load_state_dict(loaded[0])
        except ValueError as error:
            raise ReproError(
                f"{folder}: its checkpoint is of another network than model.name={config.model.name} is now "
                f"({error}); undo the change of the code, or delete the folder to train from the beginning"
            ) from error
        log.info("%s: resuming after iteration %d of %d", folder, state.iteration, config.iterations)
        return loaded[1]
    if config.start.curve is not None:
        snapshots.load(config, state, device)
        log.info("%s: starting after iteration %d of %s", folder, state.iteration, config.start.folder)
    iterations, batch = plural(config.iterations, "iteration"), plural(config.batch_size, "image")
    log.info("%s: %s of %s", folder, iterations, batch)
    for note in notes(config):
        log.warning(note)
    return None


def _loop(
    config: Config,
    folder: Path,
    signals: list[int],
    record: Record,
    mirror: Mirror,
    dataset: "Data",
    state: "State",
    unusable_gpu: str | None,
) -> None:
    """Train to the end: record and mirror each row, write checkpoints and snapshots.

    After a signal it writes a checkpoint and raises Interrupted.
    """
    from repro.training import loop, snapshots

    saved_iteration, saved_seconds = state.iteration, time.monotonic()
    interval = config.checkpoint_iterations or config.iterations
    with checkpoints.write_in_background(folder, record.sync, str(dataset.mean.device)) as save:
        for row in loop.train(config, dataset, state):
            if state.step and "step" not in record.info:
                fallback = "; ".join(filter(None, (unusable_gpu, state.fallback)))
                record.add(step=state.step, **({"fallback": fallback} if fallback else {}))
            if row is not None:
                record.append(row)
                mirror.row(record.rows[-1])
                if mirror.outcome and mirror.outcome != record.info.get("wandb"):
                    record.add(wandb=mirror.outcome)
                log.info(_format_row(row, config.iterations))
            if state.iteration in config.snapshots:
                snapshots.save(folder, config, state)
            if state.is_over(config):
                break
            is_due = time.monotonic() - saved_seconds >= config.checkpoint_seconds
            has_begun = state.iteration > (config.start.iteration or 0)  # beyond a test at the start
            if has_begun and (signals or is_due or state.iteration - saved_iteration >= interval):
                save({**state.state_dict(), "history": history.count(record.rows)})
                saved_iteration, saved_seconds = state.iteration, time.monotonic()
            if signals:
                raise Interrupted(signals[0])


def _finish_mirror(mirror: Mirror, record: Record) -> None:
    mirror.finish(record.info)
    if mirror.outcome:
        with contextlib.suppress(OSError, ReproError):
            record.add(wandb=mirror.outcome)


def _load_checkpoint(folder: Path, config: Config, device: str) -> tuple[dict[str, Any], list[Row]] | None:
    """The newest intact checkpoint of this configuration and its rows; other configurations' are deleted."""
    info = read_info(folder)
    changed = [] if info is None else differences(info, config)
    if info is None or changed:
        _clear(folder, changed)
        return None
    return checkpoints.load(folder, device)


def _clear(folder: Path, changed: Sequence[str]) -> None:
    """Delete the checkpoints in ``folder``, with a warning if ``changed`` says how their configuration differs."""
    if changed and checkpoints.find(folder):
        log.warning("%s: deleting the checkpoints of another configuration (%s)", folder, "; ".join(changed))
    checkpoints.clear(folder)


def _format_row(row: Row, iterations: int) -> str:
    text = f"iteration {row['iteration']:>{len(str(iterations))}}/{iterations}  lr {row['lr']:.4g}"
    if row["train_loss"] is not None:
        text += f"  train loss {row['train_loss']:.4f}"
    text += f"  test loss {row['test_loss']:.4f}  accuracy {row['test_accuracy']:.2%}"
    speed = row["images_per_second"]
    return text + (f"  {speed:,.0f} images/s" if speed else "")
