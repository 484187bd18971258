"""The arrays of an image set, checked before anything is trained on them."""

from collections.abc import Mapping

import numpy as np

from repro.config import Dataset
from repro.config.errors import ReproError
from repro.data import folders
from repro.data.registry import ARRAY_NAMES, Arrays, ImageSet


def require_valid(arrays: Arrays, dataset: Dataset, image_set: ImageSet) -> None:
    """Raise ReproError for arrays that cannot be trained on."""
    if not isinstance(arrays, Mapping):
        kind = type(arrays).__name__
        expected = f"a dictionary with {', '.join(ARRAY_NAMES)}"
        raise ReproError(f"dataset.name={dataset.name}: its read returns a {kind}, not {expected}")
    for name in ARRAY_NAMES:
        if name not in arrays:
            raise ReproError(f"dataset.name={dataset.name}: its read returns no {name}; add it to the dictionary")
        if not isinstance(arrays[name], np.ndarray):
            kind = type(arrays[name]).__name__
            raise ReproError(f"dataset.name={dataset.name}: its {name} are a {kind}, not a numpy array")
    for split in folders.SPLITS:
        images, labels = arrays[f"{split}_images"], arrays[f"{split}_labels"]
        subject = f"dataset.name={dataset.name}: its {split} images"
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != image_set.channels:
            problem = f"{images.dtype} {images.shape}, not uint8 (N, H, W, {image_set.channels})"
            raise ReproError(f"{subject} are {problem}")
        if labels.ndim != 1 or labels.dtype.kind not in "iu":
            problem = f"{labels.dtype} {labels.shape}, not integers (N,)"
            raise ReproError(f"dataset.name={dataset.name}: its {split} labels are {problem}")
        if not 0 < len(images) == len(labels):
            raise ReproError(f"{subject} number {len(images)}, their labels {len(labels)}")
        if not 0 <= labels.min() <= labels.max() < image_set.classes:
            found = f"{labels.min()} to {labels.max()}"
            raise ReproError(f"{subject} have labels {found}, and there are {image_set.classes} classes")
    train, test = (f"{a.shape[2]}x{a.shape[1]}" for a in (arrays["train_images"], arrays["test_images"]))
    if train != test:
        raise ReproError(
            f"dataset.name={dataset.name}: its train images have {train} pixels, its test images {test}"
        )


def require_declared(arrays: Arrays, dataset: Dataset, image_set: ImageSet) -> None:
    """Raise ReproError if the arrays are not as the user's ImageSet declares: plans and costs rely on it."""
    height, width = arrays["train_images"].shape[1:3]
    highest = max(int(arrays[f"{split}_labels"].max()) for split in folders.SPLITS)
    found: list[tuple[bool, str, str]] = [
        *(
            (
                len(arrays[f"{split}_labels"]) == count,
                f"{len(arrays[f'{split}_labels'])} {split} images",
                f"{split}={count}",
            )
            for split, count in (("train", image_set.train), ("test", image_set.test))
        ),
        (image_set.size in (height, width), f"images of {width}x{height} pixels", f"size={image_set.size}"),
        (highest + 1 == image_set.classes, f"labels up to {highest}", f"classes={image_set.classes}"),
    ]
    for agrees, returned, declared in found:
        if not agrees:
            raise ReproError(
                f"dataset.name={dataset.name}: its read returns {returned}, and its ImageSet declares {declared}; "
                "correct one of them"
            )
