"""Test the final weights of a run again, and hold that against its record: ``python -m repro.evaluate RUN``."""

if __name__ == "__main__":  # before the imports, so that Ctrl-C during them is one line too
    from repro.command import run

    run("repro.evaluate")

import argparse
import io
import sys
from pathlib import Path

from repro.config import Precision, from_dict
from repro.config.errors import ReproError
from repro.records import FINISHED, Info, Row, broken, read_history, read_info, read_weights

# The largest difference in loss (relative, above 1) and accuracy that rounding explains. One CPU repeats a test to
# 1e-15; float32 in place of the bf16 that a demo run was tested in changed its loss by 1.1 %.
TOLERANCE = {Precision.float32: 1e-3, Precision.tf32: 2e-2, Precision.bf16: 2e-2}


def evaluate(folder: Path, root: str | None = None, device: str = "auto") -> tuple[float, float]:
    """Mean loss and accuracy (a fraction) of a run's ``weights.pt`` on its full test set.

    ``root`` is the data set's folder, by default the run's own. Raises ReproError if record or weights are missing
    or broken or not what the run recorded, if the images are not those of the run, and for a device that cannot be
    used.
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
    """The record of a finished run and its last test. Raises ReproError where the record is not whole."""
    info, rows = _read_info(folder), read_history(folder)
    if info["status"] not in FINISHED:
        raise ReproError(f"{folder}: its status is {info['status']}; it recorded no end to hold this against")
    if problem := broken(info, rows) or (None if rows else "no row there"):
        raise ReproError(f"{folder / 'history.jsonl'}: {problem}; there is no whole record to hold this against")
    return info, rows[-1]


def difference(info: Info, row: Row, loss: float, accuracy: float) -> str | None:
    """In words, how far a test lies from the recorded one; None where rounding explains it."""
    then_loss, then_accuracy = row["test_loss"], row["test_accuracy"]
    if then_loss is None or then_accuracy is None:
        return "the recorded test has no loss or no accuracy"
    tolerance = TOLERANCE[from_dict(info["config"]).engine.precision]
    if abs(loss - then_loss) <= tolerance * max(1.0, then_loss) and abs(accuracy - then_accuracy) <= tolerance:
        return None
    return f"test loss by {loss - then_loss:+.6f}, accuracy by {100 * (accuracy - then_accuracy):+.4f} points"


def _read_info(folder: Path) -> Info:
    if (info := read_info(folder)) is None:
        raise ReproError(f"{folder}: no run.json there; give a run's folder, <scale>/<figure>/<curve>/seed<k>")
    return info


def _format(loss: float | None, accuracy: float | None) -> str:
    values = ("-" if loss is None else f"{loss:.6f}", "-" if accuracy is None else f"{accuracy:.4%}")
    return f"test loss {values[0]}  accuracy {values[1]}"


def main() -> None:
    """The console script ``repro-evaluate``; its exit code is 1 where the two do not agree."""
    parser = argparse.ArgumentParser(prog="repro-evaluate", description=__doc__)
    parser.add_argument("run", type=Path, metavar="RUN", help="a run's folder")
    parser.add_argument("--root", help="the data set's folder (default: the run's own)")
    parser.add_argument("--device", default="auto")
    arguments = parser.parse_args()
    loss, accuracy = evaluate(arguments.run, arguments.root, arguments.device)
    print(f"found     {_format(loss, accuracy)}")
    info, row = recorded(arguments.run)
    print(f"recorded  {_format(row['test_loss'], row['test_accuracy'])}")
    if differ := difference(info, row, loss, accuracy):
        sys.exit(f"error: {arguments.run}: what was found differs from what was recorded: {differ}")
    print("they agree")
