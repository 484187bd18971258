"""Image sets as numpy arrays, decoded once: digits, CIFAR-10 and CIFAR-100. No torch here.

An image set comes from torchvision's files (downloaded at first use) or from a tree of image folders, is put
into an order that does not depend on where it came from, and is cached decoded: a run is the same from either.
"""

import hashlib
import importlib.util
import shutil
import tempfile
import zlib
from functools import lru_cache
from pathlib import Path

import numpy as np

from repro.config import Dataset
from repro.errors import ReproError
from repro.folders import cache_folder

SIZES = {  # train and test images, classes
    "digits": (300, 1497, 10),
    "cifar10": (50_000, 10_000, 10),
    "cifar100": (50_000, 10_000, 100),
}
TORCHVISION = {"cifar10": ("CIFAR10", "cifar-10-batches-py"), "cifar100": ("CIFAR100", "cifar-100-python")}
NAMES = ("train_images", "train_labels", "test_images", "test_labels")
Arrays = dict[str, np.ndarray]  # by NAMES; images uint8 (N, H, W, C), labels int64 (N,)


def load(dataset: Dataset) -> Arrays:
    """The whole image set that the configuration names. Raises ReproError where it is missing or incomplete."""
    if dataset.name not in SIZES:
        raise ReproError(f"dataset.name={dataset.name}: there are {', '.join(SIZES)}")
    return _digits() if dataset.name == "digits" else _cifar(dataset)


def digest(dataset: Dataset) -> str | None:
    """Sixteen hexadecimal digits of the image set's contents; None where it has not been decoded yet."""
    if dataset.name == "digits":
        return _digits_digest()
    entry = _entry(dataset) if dataset.name in TORCHVISION else None
    try:
        return (entry / "digest").read_text().strip() if entry else None
    except OSError:
        return None


def identify(dataset: Dataset) -> None:
    """Put the digest of the images into the configuration, where it is known.

    Raises ReproError where the configuration asks for another one.
    """
    found, asked = digest(dataset), dataset.digest
    if asked is not None and found is not None and asked != found:
        raise ReproError(f"dataset.digest={asked}: the images of {dataset.name} under {dataset.root} have {found}")
    dataset.digest = found or asked


@lru_cache(maxsize=1)
def _digits_digest() -> str:
    return _digest(_digits())


def _digest(arrays: Arrays) -> str:
    total = hashlib.sha256()
    for name in NAMES:
        total.update(f"{name} {arrays[name].shape}".encode())
        total.update(arrays[name].tobytes())
    return total.hexdigest()[:16]


def _digits() -> Arrays:
    """scikit-learn's 1,797 handwritten digits, 8x8, values 0 to 16: a fixed 300 to train on, the rest to test."""
    package = importlib.util.find_spec("sklearn")  # its file is read without importing it, which takes a second
    folders = package.submodule_search_locations if package else None
    if not folders:
        raise ReproError("dataset.name=digits: scikit-learn, which has them, is not installed; pip install it")
    table = np.loadtxt(Path(folders[0]) / "datasets/data/digits.csv.gz", delimiter=",", dtype=np.uint8)
    table = table[np.random.default_rng(0).permutation(len(table))]
    images, labels = table[:, :-1].reshape(-1, 8, 8, 1), table[:, -1].astype(np.int64)
    train = SIZES["digits"][0]
    return {
        "train_images": images[:train],
        "train_labels": labels[:train],
        "test_images": images[train:],
        "test_labels": labels[train:],
    }


def _cifar(dataset: Dataset) -> Arrays:
    root = Path(dataset.root).expanduser().resolve()
    try:
        entry = _entry(dataset)
        if entry is not None and (arrays := _cached(entry)) is not None:
            return arrays
        tree = _image_tree(root, dataset.name)
        arrays = _decode_tree(tree, dataset.name) if tree else _torchvision(root, dataset.name)
    except PermissionError as error:
        raise ReproError(f"dataset.root={root}: {error.filename} cannot be read: {error.strerror}") from None
    arrays = {**_sorted(arrays, "train"), **_sorted(arrays, "test")}
    if entry := _entry(dataset):
        try:
            _store(entry, arrays)
        except OSError as error:
            print(f"note: the decoded images are not cached in {entry} ({error}) and will be decoded again")
    return arrays


def _entry(dataset: Dataset) -> Path | None:
    """The cache folder of an image set, which need not exist; None where there are no images to begin with."""
    root = Path(dataset.root).expanduser().resolve()
    source = _image_tree(root, dataset.name) or root / TORCHVISION[dataset.name][1]
    if not source.is_dir():
        return None
    return cache_folder(dataset.cache) / f"{dataset.name}-{_key(source)}"


def _cached(entry: Path) -> Arrays | None:
    """What ``_store`` left, if it is whole."""
    if not entry.exists():
        return None
    try:
        return {name: np.load(entry / f"{name}.npy") for name in NAMES}
    except (OSError, ValueError, EOFError) as error:
        print(f"note: the cache {entry} is broken ({error}); the images are decoded again")
        shutil.rmtree(entry, ignore_errors=True)
        return None


def _image_tree(root: Path, name: str) -> Path | None:
    return next((tree for tree in (root, root / name) if (tree / "train").is_dir()), None)


def _key(folder: Path) -> str:
    """Changes with the place and with any file added to or removed from its folders."""
    folders = sorted(p for p in [folder, *folder.glob("*"), *folder.glob("*/*")] if p.is_dir())
    text = "".join(f"{path}:{path.stat().st_mtime_ns};" for path in folders)
    return f"{zlib.crc32(text.encode()):08x}"


def _decode_tree(tree: Path, name: str) -> Arrays:
    from rich.progress import track

    arrays: Arrays = {}
    expected = dict(zip(("train", "test"), SIZES[name][:2], strict=True))
    for split, count in expected.items():
        classes = sorted(p.name for p in (tree / split).glob("*") if p.is_dir())
        if len(classes) != SIZES[name][2]:
            raise ReproError(
                f"dataset.root: {tree / split} holds {len(classes)} class folders, {name} has {SIZES[name][2]}"
            )
        files = [(p, label) for label, c in enumerate(classes) for p in sorted((tree / split / c).glob("*.png"))]
        if not files:
            raise ReproError(f"dataset.root: no <class>/*.png under {tree / split}")
        if len(files) != count:
            print(f"note: {tree / split} holds {len(files)} images; {name} has {count}")
        images = []
        for path, _ in track(files, f"decoding {name} {split}", transient=True):
            images.append(_decode(path))
        shapes = {image.shape for image in images}
        if len(shapes) > 1:
            raise ReproError(f"dataset.root: the images under {tree / split} differ in size: {sorted(shapes)[:3]}")
        arrays[f"{split}_images"] = np.stack(images)
        arrays[f"{split}_labels"] = np.array([label for _, label in files], dtype=np.int64)
    return arrays


def _decode(path: Path) -> np.ndarray:
    from PIL import Image

    try:
        with Image.open(path) as image:
            return np.asarray(image.convert("RGB"))
    except PermissionError:
        raise
    except OSError as error:
        raise ReproError(f"dataset.root: {path} is not a readable image ({error}); restore it") from None


def _torchvision(root: Path, name: str) -> Arrays:
    from torchvision import datasets

    kind, folder = TORCHVISION[name]
    present = (root / folder).is_dir()
    arrays: Arrays = {}
    for split in ("train", "test"):
        try:
            source = getattr(datasets, kind)(root, train=split == "train", download=not present)
        except (OSError, RuntimeError) as error:
            if isinstance(error, PermissionError):
                raise
            what = "is incomplete" if present else "could not be downloaded"
            raise ReproError(
                f"dataset.root={root}: {name} {what} ({str(error).splitlines()[0]}); looked there for {folder}/, "
                f"train/<class>/*.png and {name}/train/<class>/*.png. Bring one of them, or name another root"
            ) from None
        arrays[f"{split}_images"] = np.asarray(source.data)
        arrays[f"{split}_labels"] = np.asarray(source.targets, dtype=np.int64)
    return arrays


def _sorted(arrays: Arrays, split: str) -> Arrays:
    """By label, then by pixels: the same order whatever order the source had."""
    images, labels = arrays[f"{split}_images"], arrays[f"{split}_labels"]
    order = sorted(range(len(labels)), key=lambda i: (labels[i], images[i].tobytes()))
    return {f"{split}_images": images[order], f"{split}_labels": labels[order]}


def _store(entry: Path, arrays: Arrays) -> None:
    """All of it or nothing: written beside its place, then renamed."""
    entry.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{entry.name}-", dir=entry.parent))
    try:
        for name, array in arrays.items():
            np.save(partial / f"{name}.npy", array)
        (partial / "digest").write_text(_digest(arrays) + "\n")
        if not entry.exists():
            partial.rename(entry)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
