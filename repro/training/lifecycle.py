"""One run from start to end, in its folder: resume, train, checkpoint, record, mirror."""

import logging
import os
import time
from pathlib import Path
from typing import Any

from repro.config import Config
from repro.config.errors import ReproError
from repro.data import images
from repro.records import Record, Row, already_finished, differences, lock, move_aside, read_info
from repro.records.files import write_whole
from repro.training import checkpoints, memory
from repro.training.interrupts import Interrupted, interruptible

log = logging.getLogger(__name__)


def run(config: Config, folder: Path) -> None:
    """Train ``config`` and leave record, weights and W&B mirror in ``folder``.

    A finished equal run is kept, an unfinished one goes on from its last checkpoint. A run that diverges is a
    result, not an error. SIGINT, SIGTERM and SIGUSR2 end it with a checkpoint, a second SIGINT at once. Raises
    what went wrong otherwise, after recording it.
    """
    with interruptible() as stop, lock.locked(folder):  # a second signal still leaves no lock behind
        images.identify(config.dataset)
        if already_finished(folder, config):
            log.info("%s is finished already; force=true trains it again", folder)
        else:
            if config.force:
                move_aside(folder)
            _train(config, folder, stop)


def _train(config: Config, folder: Path, stop: list[int]) -> None:
    import torch

    from repro import models
    from repro.data import batches
    from repro.tracking.mirror import Mirror
    from repro.training import loop, steps
    from repro.training.state import State

    memory.keep_freed_memory()
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    if config.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what cuBLAS asks for
    if config.deterministic != torch.are_deterministic_algorithms_enabled():
        torch.use_deterministic_algorithms(config.deterministic)  # imports torch's compiler: seconds
    device = loop.device(config.device)
    try:
        environment = loop.environment(device)
        dataset = batches.load(config.dataset, device)
        images.identify(config.dataset)
    except (RuntimeError, AssertionError) as error:
        raise ReproError(f"device={config.device}: {str(error).splitlines()[0]}") from error
    if steps.emulated(config.engine.precision, device):
        slow = "%s has no arithmetic for it; at the paper's size float32 (leave it out) is many times as fast"
        log.warning(f"engine.precision=%s: {slow}", config.engine.precision.value, device)
    network = models.from_config(config.model, dataset.classes, dataset.mean.shape[2], config.seed).to(device)
    state = State(config, network, device)
    saved = _checkpoint(folder, config, device)
    if saved is not None:
        state.load_state_dict(saved)
        log.info("%s: going on after iteration %d of %d", folder, state.iteration, config.iterations)
    else:
        log.info("%s: %d iterations of %d images", folder, config.iterations, config.batch_size)
    record = Record(folder, config, environment, state.iteration if saved else None)
    mirror = Mirror(record.info, folder)
    for earlier in record.rows:
        mirror.row(earlier)
    try:
        saved_at, saved_when = state.iteration, time.monotonic()
        every = config.checkpoint_iterations or config.iterations
        with checkpoints.writer(folder, record.sync) as save:
            for row in loop.train(config, dataset, state):
                if row is not None:
                    record.append(row)
                    mirror.row(record.rows[-1])
                    log.info(_line(row, config.iterations))
                if state.over(config):
                    break
                due = time.monotonic() - saved_when >= config.checkpoint_seconds
                if stop or due or state.iteration - saved_at >= every:
                    save(state.state_dict())
                    saved_at, saved_when = state.iteration, time.monotonic()
                if stop:
                    raise Interrupted(stop[0])
        last = record.rows[-1]
        write_whole(folder / "weights.pt", lambda file: torch.save(network.state_dict(), file))
        record.finish(
            "diverged" if state.diverged else "finished",
            final_accuracy=last["test_accuracy"],
            best_accuracy=max(row["test_accuracy"] or 0.0 for row in record.rows),
            diverged=state.diverged,
            last_iteration=last["iteration"],
        )
        checkpoints.clear(folder)
    except KeyboardInterrupt:
        record.finish("interrupted")
        raise
    except Exception as error:
        record.finish("failed", reason=f"{type(error).__name__}: {error}")
        if isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error):
            short = str(error).splitlines()[0] if str(error) else "no more"
            raise ReproError(
                f"out of memory on {device} ({short}); end what else uses it and launch again"
            ) from error
        raise
    finally:
        mirror.finish(record.info)
    if state.diverged:
        log.warning("diverged: the training loss is not finite at iteration %s", last["iteration"])
    if stop:
        raise Interrupted(stop[0])  # it came too late for this run, not for those after it


def _checkpoint(folder: Path, config: Config, device: str) -> dict[str, Any] | None:
    """The newest whole checkpoint of this very run, if it has one; those of another configuration go."""
    info = read_info(folder)
    if info is None or differences(info, config):
        checkpoints.clear(folder)
        return None
    return checkpoints.load(folder, device)


def _line(row: Row, iterations: int) -> str:
    text = f"iteration {row['iteration']:>{len(str(iterations))}}/{iterations}  lr {row['lr']:.4g}"
    if row["train_loss"] is not None:
        text += f"  train loss {row['train_loss']:.4f}"
    text += f"  test loss {row['test_loss']:.4f}  accuracy {row['test_accuracy']:.2%}"
    speed = row["images_per_second"]
    return text + (f"  {speed:,.0f} images/s" if speed else "")
