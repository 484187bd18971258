"""Test the final weights of a run again: ``python -m repro.evaluate RUN``."""

if __name__ == "__main__":  # before the imports, so that Ctrl-C during them is one line too
    from repro.command import run

    run("repro.evaluate")

import argparse
import pickle
from pathlib import Path

from repro.config import from_dict
from repro.config.errors import ReproError
from repro.records import read_history, read_info


def evaluate(folder: Path, root: str | None = None, device: str = "auto") -> tuple[float, float]:
    """Mean loss and accuracy (a fraction) of a run's ``weights.pt`` on its full test set.

    ``root`` is the data set's folder, by default the run's own. Raises ReproError if record or weights are missing
    or broken.
    """
    info = read_info(folder)
    if info is None:
        raise ReproError(f"{folder}: no run.json there; give a run's folder, <scale>/<figure>/<curve>/seed<k>")
    if not (folder / "weights.pt").exists():
        raise ReproError(f"{folder}: no weights.pt; the run's status is {info['status']}")

    import torch

    from repro import models
    from repro.data import batches
    from repro.training import loop

    config = from_dict(info["config"])
    config.dataset.root = root or config.dataset.root
    device = loop.device(device)
    dataset = batches.load(config.dataset, device)
    network = models.from_config(config.model, dataset.classes, dataset.mean.shape[2], config.seed).to(device)
    try:
        network.load_state_dict(torch.load(folder / "weights.pt", map_location=device, weights_only=True))
    except (RuntimeError, pickle.UnpicklingError, EOFError) as error:
        raise ReproError(f"{folder / 'weights.pt'}: {str(error).splitlines()[0]}") from None
    return loop.test(network, dataset, config.engine.precision)


def main() -> None:
    """Print the test beside what was recorded."""
    parser = argparse.ArgumentParser(prog="repro-evaluate", description=__doc__)
    parser.add_argument("run", type=Path, metavar="RUN", help="a run's folder")
    parser.add_argument("--root", help="the data set's folder (default: the run's own)")
    parser.add_argument("--device", default="auto")
    arguments = parser.parse_args()
    loss, accuracy = evaluate(arguments.run, arguments.root, arguments.device)
    recorded = read_history(arguments.run)[-1]
    print(f"test loss {loss:.6f}  accuracy {accuracy:.4%}")
    print(f"recorded  {recorded['test_loss']:.6f}           {recorded['test_accuracy']:.4%}")
