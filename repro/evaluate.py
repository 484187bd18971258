"""Test the final weights of a run again and compare with its record: ``python -m repro.evaluate RUN``."""

if __name__ == "__main__":  # before the imports, so that Ctrl-C during them is one line too
    from repro.command import run

    run("repro.evaluate")

import argparse
import io
import re
import sys
from pathlib import Path

from repro.config import Precision, from_dict
from repro.config.errors import ReproError
from repro.config.resolving import DEVICE
from repro.records import FINISHED, Info, Row, broken, read_history, read_info, read_weights

# The largest difference in loss (relative for losses above 1) and accuracy that rounding explains. One CPU repeats
# a test to 1e-15; testing a demo run in float32 instead of its bf16 changed its loss by 1.1 %.
TOLERANCE = {Precision.float32: 1e-3, Precision.tf32: 2e-2, Precision.bf16: 2e-2}


def evaluate(folder: Path, root: str | None = None, device: str = "auto") -> tuple[float, float]:
    """Mean loss and accuracy (a fraction) of a run's ``weights.pt`` on its full test set.

    ``root`` is the data set's folder, by default the one that the run recorded. Raises ReproError if the record or
    the weights are missing, broken or not what the run recorded, if the images are not the run's, and for a device
    that cannot be used.
    """
    info = _read_info(folder)
    weights = folder / "weights.pt"
    if not weights.exists():
        raise ReproError(f"{folder}: no weights.pt; the run's status is {info['status']}")
    content = read_weights(folder, info)
    try:
        config = from_dict(info["config"])
    except ReproError as error:
        raise ReproError(f"{folder / 'run.json'}: {error}") from None

    import torch

    from repro import models
    from repro.data import batches
    from repro.training import loop

    config.dataset.root = root or config.dataset.root
    if not re.fullmatch(DEVICE, device):
        raise ReproError(f"device={device}: choose auto, cpu, cuda, cuda:<number> or mps")
    device = loop.device(device)
    dataset = batches.load(config.dataset, device)
    network = models.from_config(config.model, dataset.classes, dataset.mean.shape, config.seed).to(device)
    models.require_size(network, config.model.name, dataset.mean.shape, dataset.classes)
    try:
        network.load_state_dict(torch.load(io.BytesIO(content), map_location=device, weights_only=True))
    except Exception as error:  # whatever unpacking a broken file raises
        problem = " ".join(str(error).split())[:200] or type(error).__name__
        raise ReproError(f"{weights}: not the weights of this run's network ({problem})") from None
    return loop.test(network, dataset, config.engine.precision)


def recorded(folder: Path) -> tuple[Info, Row]:
    """The record of a finished run and its last row. Raises ReproError if the record is unfinished or broken."""
    info, rows = _read_info(folder), read_history(folder)
    if info["status"] not in FINISHED:
        raise ReproError(f"{folder}: its status is {info['status']}; it has no final test to compare with")
    if problem := broken(info, rows) or (None if rows else "it has no rows"):
        raise ReproError(f"{folder / 'history.jsonl'}: {problem}; it cannot be compared with")
    return info, rows[-1]


def difference(info: Info, row: Row, loss: float, accuracy: float) -> str | None:
    """A description of how far a test differs from the recorded one; None if rounding explains the difference."""
    recorded_loss, recorded_accuracy = row["test_loss"], row["test_accuracy"]
    if recorded_loss is None or recorded_accuracy is None:
        return "the recorded test has no loss or no accuracy"
    tolerance = TOLERANCE[from_dict(info["config"]).engine.precision]
    loss_difference, accuracy_difference = loss - recorded_loss, accuracy - recorded_accuracy
    if abs(loss_difference) <= tolerance * max(1.0, recorded_loss) and abs(accuracy_difference) <= tolerance:
        return None
    return f"test loss by {loss_difference:+.6f}, accuracy by {100 * accuracy_difference:+.4f} points"


def _read_info(folder: Path) -> Info:
    if (info := read_info(folder)) is None:
        raise ReproError(f"{folder}: it has no run.json; give a run's folder, <scale>/<figure>/<curve>/seed<k>")
    return info


def _format(loss: float | None, accuracy: float | None) -> str:
    values = ("-" if loss is None else f"{loss:.6f}", "-" if accuracy is None else f"{accuracy:.4%}")
    return f"test loss {values[0]}  accuracy {values[1]}"


def main() -> None:
    """The console script ``repro-evaluate``; its exit code is 1 if the test and the record disagree."""
    parser = argparse.ArgumentParser(prog="repro-evaluate", description=__doc__)
    parser.add_argument("run", type=Path, metavar="RUN", help="a run's folder")
    parser.add_argument("--root", help="the data set's folder (default: the one that the run recorded)")
    parser.add_argument("--device", default="auto")
    arguments = parser.parse_args()
    loss, accuracy = evaluate(arguments.run, arguments.root, arguments.device)
    print(f"found     {_format(loss, accuracy)}")
    info, row = recorded(arguments.run)
    print(f"recorded  {_format(row['test_loss'], row['test_accuracy'])}")
    if mismatch := difference(info, row, loss, accuracy):
        sys.exit(f"error: {arguments.run}: the test differs from the record: {mismatch}")
    print("they agree")
