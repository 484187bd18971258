"""Train one run, or with a sweep many: the Hydra app ``python -m repro.train``."""

import logging
import math
import os
import sys
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from repro import sweeper
from repro.config import CONF, Config, ReproError, resolve, run_app
from repro.records import Record, already_finished

log = logging.getLogger(__name__)
sweeper.register()


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="train")
def app(composed: DictConfig) -> None:
    """One run, in the folder that Hydra made for it."""
    try:
        run(resolve(composed), Path(HydraConfig.get().runtime.output_dir))
    except ReproError as error:
        if HydraConfig.get().mode is RunMode.MULTIRUN:
            raise  # the sweep reports it
        sys.exit(f"error: {error}")


def run(config: Config, folder: Path) -> None:
    """Train ``config`` and leave record, weights and W&B mirror in ``folder``; a finished equal run is kept.

    A run that diverges is a result, not an error. Raises what went wrong otherwise, after recording it.
    """
    if already_finished(folder, config):
        log.info("%s is finished already; force=true trains it again", folder)
        return

    import torch

    from repro import data, models, training
    from repro.tracking import mirror

    if config.threads is not None:
        torch.set_num_threads(config.threads)
    device = training.device(config.device)
    try:
        environment = training.environment(device)
        dataset = data.load(config.dataset, device)
    except (RuntimeError, AssertionError) as error:
        raise ReproError(f"device={config.device}: {str(error).splitlines()[0]}") from error
    network = models.from_config(config.model, dataset.classes, dataset.mean.shape[2], config.seed).to(device)
    log.info("%s: %d iterations of %d images", folder, config.iterations, config.batch_size)
    record = Record(folder, config, environment)
    try:
        with mirror(config, folder) as (mirror_row, mirror_summary):
            best = 0.0
            for row in training.train(config, dataset, network):
                record.append(row)
                mirror_row(row)
                best = max(best, float(row["test_accuracy"] or 0))
                log.info(_line(row, config.iterations))
            diverged = row["train_loss"] is not None and not math.isfinite(row["train_loss"])
            result = {
                "final_accuracy": row["test_accuracy"],
                "best_accuracy": best,
                "diverged": diverged,
                "last_iteration": row["iteration"],
            }
            mirror_summary(result)
        partial = folder / f".weights.{os.getpid()}"
        torch.save(network.state_dict(), partial)
        partial.replace(folder / "weights.pt")
        record.finish("diverged" if diverged else "finished", **result)
    except KeyboardInterrupt:
        record.finish("interrupted")
        raise
    except Exception as error:
        record.finish("failed", reason=f"{type(error).__name__}: {error}")
        raise
    if diverged:
        log.warning("diverged: the training loss is not finite at iteration %s", row["iteration"])


def _line(row: dict[str, float | int | None], iterations: int) -> str:
    text = f"iteration {row['iteration']:>{len(str(iterations))}}/{iterations}  lr {row['lr']:.4g}"
    if row["train_loss"] is not None:
        text += f"  train loss {row['train_loss']:.4f}"
    text += f"  test loss {row['test_loss']:.4f}  accuracy {row['test_accuracy']:.2%}"
    speed = row["images_per_second"]
    return text + (f"  {speed:,.0f} images/s" if speed else "")


def main() -> None:
    """The console script ``repro-train``."""
    run_app(app)


if __name__ == "__main__":
    main()
