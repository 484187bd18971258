"""The handwritten digits that scikit-learn ships. Does not import torch."""

import importlib.util
from pathlib import Path

import numpy as np

from repro.config.errors import ReproError
from repro.data.registry import Arrays, ImageSet


def read(root: Path) -> Arrays:
    """scikit-learn's 1,797 handwritten digits, 8x8, values 0 to 16: a fixed 300 for training, the rest for tests.

    ``root`` is not used. Raises ReproError if scikit-learn is not installed.
    """
    package = importlib.util.find_spec("sklearn")  # importing it would take a second
    folders = package.submodule_search_locations if package else None
    if not folders:
        raise ReproError(
            "dataset.name=digits: scikit-learn, which ships them, is not installed; pip install scikit-learn"
        )
    table = np.loadtxt(Path(folders[0]) / "datasets/data/digits.csv.gz", delimiter=",", dtype=np.uint8)
    table = table[np.random.default_rng(0).permutation(len(table))]
    images, labels = table[:, :-1].reshape(-1, 8, 8, 1), table[:, -1].astype(np.int64)
    train = DATA_SETS["digits"].train
    return {
        "train_images": images[:train],
        "train_labels": labels[:train],
        "test_images": images[train:],
        "test_labels": labels[train:],
    }


DATA_SETS = {"digits": ImageSet(train=300, test=1497, classes=10, size=8, channels=1, read=read, levels=16)}
