"""Data: sources, contents, subsets and batches."""

import os
import pickle
import shutil
import struct
import sys
import time
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from on_disk import image_tree
from PIL import Image

from repro.config import Dataset
from repro.config.errors import ReproError
from repro.data import cache, folders, images, registry
from repro.data.batches import Batches, load


@pytest.fixture(scope="module")
def digits():
    return load(Dataset(name="digits"))


@pytest.fixture
def cifar(tmp_path):
    root = image_tree(tmp_path / "images")
    return Dataset(name="cifar10", root=str(root), cache=str(tmp_path / "cache"))


def test_digits_are_split_once_for_all(digits):
    assert digits.train_images.shape == (300, 8, 8, 1)
    assert digits.test_images.shape == (1497, 8, 8, 1)
    assert digits.train_images.dtype == torch.uint8
    assert digits.classes == len(digits.train_labels.unique()) == 10
    pixels = torch.cat([digits.train_images, digits.test_images]).float()
    from sklearn.datasets import load_digits

    assert pixels.mean().item() == pytest.approx(load_digits().images.mean())


def test_the_mean_image_is_subtracted_and_nothing_is_divided(digits):
    x = digits.network_input(digits.train_images)
    assert x.shape == (300, 1, 8, 8)
    torch.testing.assert_close(x.mean(0), torch.zeros(1, 8, 8), atol=1e-5, rtol=0)
    assert x.max() > 10


def test_neither_mean_image_nor_scaling_nor_size_need_be(digits):
    """A network's pixels may be multiplied, without the mean image, and too small an image is enlarged."""
    plain = load(Dataset(name="digits", mean_image=False, unit_pixels=True, min_resolution=16))
    assert plain.train_images.shape == (300, 16, 16, 1)
    assert torch.equal(plain.train_images[:, ::2, 1::2], digits.train_images)
    x = plain.network_input(plain.train_images)
    torch.testing.assert_close(
        x, plain.train_images.permute(0, 3, 1, 2) / 16
    )  # scikit-learn's have values up to 16
    for settings in ({"min_resolution": 8}, {"resolution": 4, "min_resolution": 8}):
        assert load(Dataset(name="digits", **settings)).train_images.shape == (300, 8, 8, 1)
    assert load(Dataset(name="digits", resolution=12, min_resolution=8)).train_images.shape == (300, 12, 12, 1)


def write_mnist(root: Path, train: int = 40, test: int = 20) -> dict[str, np.ndarray]:
    """Random images in MNIST's own files, as torchvision keeps them; returns the arrays."""
    rng, folder, arrays = np.random.default_rng(5), root / "MNIST/raw", {}
    folder.mkdir(parents=True)
    for split, prefix, count in (("train", "train", train), ("test", "t10k", test)):
        pixels, labels = rng.integers(0, 256, (count, 28, 28), np.uint8), np.arange(count, dtype=np.uint8) % 10
        arrays |= {f"{split}_images": pixels, f"{split}_labels": labels}
        for kind, values in (("images-idx3", pixels), ("labels-idx1", labels)):
            head = struct.pack(f">BBBB{values.ndim}I", 0, 0, 8, values.ndim, *values.shape)
            (folder / f"{prefix}-{kind}-ubyte").write_bytes(head + values.tobytes())
    return arrays


def test_mnist_is_grey_and_the_same_from_its_files_and_from_a_folder(tmp_path):
    arrays = write_mnist(tmp_path / "files")
    for split in ("train", "test"):
        for i, (pixels, label) in enumerate(
            zip(arrays[f"{split}_images"], arrays[f"{split}_labels"], strict=True)
        ):
            folder = tmp_path / "folder" / split / str(label)
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(folder / f"{i:04d}.png")
    files, folder = (load(Dataset(name="mnist", root=str(tmp_path / source), cache=str(tmp_path / "cache")))
                     for source in ("files", "folder"))  # fmt: skip
    assert files.train_images.shape == (40, 28, 28, 1)
    assert files.test_images.shape == (20, 28, 28, 1)
    assert files.train_labels.tolist() == [label for label in range(10) for _ in range(4)]
    for name in ("train_images", "train_labels", "test_images", "test_labels"):
        assert torch.equal(getattr(files, name), getattr(folder, name))


def test_mnist_as_caffe_feeds_it(resolved):
    dataset = resolved("experiment=table2-lenet/inv_85ep").dataset
    assert (dataset.mirror, dataset.mean_image, dataset.unit_pixels) == (False, False, True)
    assert (registry.get(dataset).train, registry.get(dataset).levels) == (60_000, 256)
    for scale, least in (("quick", 16), ("smoke", 16)):
        run = resolved("experiment=table2-lenet/inv_85ep", f"scale={scale}")
        assert run.dataset.min_resolution == run.model.min_resolution == least


def test_every_epoch_is_a_new_permutation_and_batches_span_its_end(digits):
    batches = Batches(digits, 125, mirror=False, seed=0)
    stream = torch.cat([batches(i)[0] for i in range(24)]).flatten(1)  # 3,000 images: ten epochs of 300
    epochs = stream.split(300)
    train_images = digits.network_input(digits.train_images).flatten(1)
    expected = sorted(map(tuple, train_images.tolist()))
    assert all(sorted(map(tuple, e.tolist())) == expected for e in epochs)
    assert not torch.equal(epochs[0], epochs[1])


def test_without_reshuffling_every_epoch_has_the_order_of_the_first(digits):
    fixed, anew = (Batches(digits, 100, mirror=True, reshuffle=value, seed=3) for value in (False, True))
    labels = torch.cat([fixed(i)[1] for i in range(9)]).split(300)  # three epochs
    assert torch.equal(labels[1], labels[0])
    assert torch.equal(labels[2], labels[0])
    assert torch.equal(labels[0], torch.cat([anew(i)[1] for i in range(3)]))
    assert not torch.equal(fixed(0)[0], fixed(3)[0])  # mirrored anew


def test_a_batch_is_a_function_of_seed_and_iteration(digits):
    def make(seed):
        return Batches(digits, 64, mirror=True, seed=seed)

    in_order = make(1)
    images = [in_order(i)[0] for i in range(20)]
    assert torch.equal(make(1)(17)[0], images[17])
    assert not torch.equal(make(2)(17)[0], images[17])


def test_order_and_mirroring_are_those_of_every_record_so_far(digits):
    """As PROTOCOL says: the same configuration trains the same run."""
    order, flip = Batches(digits, 100, mirror=True, seed=3)._draw_epoch(2)
    assert order[:6].tolist() == [242, 104, 224, 202, 137, 78]
    assert flip[:8].int().tolist() == [0, 1, 1, 0, 0, 0, 0, 0]
    rng = np.random.default_rng((3, 2))
    assert torch.equal(order, torch.from_numpy(rng.permutation(300)))
    assert torch.equal(flip, torch.from_numpy(rng.random(300) < 0.5))


def test_a_batch_may_be_larger_than_the_set(digits):
    images, labels = Batches(digits, 1000, mirror=False, seed=0)(1)
    assert images.shape[0] == labels.shape[0] == 1000


def test_half_the_images_are_mirrored(cifar):
    loaded = load(cifar)
    plain = Batches(loaded, 300, mirror=False, seed=4)
    mirrored = Batches(loaded, 300, mirror=True, seed=4)
    mean = loaded.mean.permute(2, 0, 1)
    x, y = plain(0)[0] + mean, mirrored(0)[0] + mean
    same = (x == y).all((1, 2, 3))
    flipped = (x.flip(3) == y).all((1, 2, 3))
    assert (same | flipped).all()
    assert 100 < flipped.sum() < 200


def test_an_image_folder_is_decoded_once(cifar, tmp_path, monkeypatch):
    first = load(cifar)
    assert first.train_images.shape == (30, 32, 32, 3)
    assert first.test_labels.tolist() == [label for label in range(10) for _ in range(2)]
    monkeypatch.setattr(folders, "decode", lambda *_: pytest.fail("decoded again"))
    again = load(cifar)
    assert torch.equal(first.train_images, again.train_images)
    assert list((tmp_path / "cache").rglob(".*")) == []  # nothing half-written left


def test_a_changed_folder_is_decoded_anew(cifar, tmp_path):
    load(cifar)
    (tmp_path / "images/train/class00/0002.png").unlink()
    assert len(load(cifar).train_labels) == 29


def test_the_order_does_not_depend_on_the_source(cifar, tmp_path, monkeypatch):
    """torchvision's files and an image folder of the same images give the same set, in the same order."""
    from torchvision import datasets

    tree = folders.decode(tmp_path / "images", "cifar10", registry.get(cifar))
    shuffle = np.random.default_rng(3).permutation(30)

    class CIFAR10:
        def __init__(self, root, train, download):
            split = "train" if train else "test"
            order = shuffle if train else slice(None)
            self.data, self.targets = tree[f"{split}_images"][order], tree[f"{split}_labels"][order].tolist()

    monkeypatch.setattr(datasets, "CIFAR10", CIFAR10)
    (tmp_path / "other/cifar-10-batches-py").mkdir(parents=True)
    downloaded = load(Dataset(name="cifar10", root=str(tmp_path / "other"), cache=str(tmp_path / "cache")))
    decoded = load(cifar)
    assert torch.equal(downloaded.train_images, decoded.train_images)
    assert torch.equal(downloaded.train_labels, decoded.train_labels)


def test_a_digest_is_that_of_the_contents(cifar, tmp_path):
    assert images.digest(cifar) is None  # not decoded yet
    load(cifar)
    first = images.digest(cifar)
    assert first == load(cifar).digest == "f7e445be66b37f02"  # records hold it: the same in every version
    elsewhere = Dataset(name="cifar10", root=str(image_tree(tmp_path / "copy")), cache=cifar.cache)
    load(elsewhere)
    assert images.digest(elsewhere) == first
    (tmp_path / "copy/train/class00/0002.png").unlink()
    load(elsewhere)
    assert images.digest(elsewhere) != first
    images.identify(elsewhere)
    cifar.digest = elsewhere.digest
    for ask in (images.identify, load):
        with pytest.raises(
            ReproError, match=f"dataset.digest={elsewhere.digest}: the images of cifar10 under .* have {first}"
        ):
            ask(cifar)
    assert images.digest(Dataset(name="digits")) == "076fac8490b12eb3"


@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: path.write_bytes(path.read_bytes()[:1000]),
        lambda path: path.unlink(),
        lambda path: path.with_name("digest").write_text(""),
        lambda path: path.write_bytes(path.read_bytes()[:200] + bytes(path.stat().st_size - 200)),  # a torn write
    ],
)
def test_a_broken_cache_is_decoded_anew(cifar, tmp_path, capsys, spoil):
    first = load(cifar)
    (cached,) = (tmp_path / "cache").rglob("train_images.npy")
    spoil(cached)
    assert torch.equal(load(cifar).train_images, first.train_images)
    assert "is broken" in capsys.readouterr().out
    assert len(np.load(cached)) == 30


def test_what_a_killed_process_left_in_the_cache_is_deleted_a_day_later(cifar, tmp_path):
    for name, age in ((".cifar10-old", 2 * 86_400), (".cifar10-new", 0)):
        (tmp_path / "cache" / name).mkdir(parents=True)
        os.utime(tmp_path / "cache" / name, (time.time() - age,) * 2)
    load(cifar)
    [entry] = (tmp_path / "cache").rglob("digest")
    for name in (".cifar10-old", ".cifar10-new"):
        (tmp_path / "cache" / name).rename(entry.parent.parent / name)
    shutil.rmtree(entry.parent)
    load(cifar)
    assert {path.name for path in entry.parent.parent.glob(".*")} == {".cifar10-new"}


def test_a_full_disk_costs_the_cache_not_the_run(cifar, monkeypatch, capsys):
    def full_disk(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(images.np, "save", full_disk)
    assert len(load(cifar).train_labels) == 30
    assert "are not cached" in capsys.readouterr().out


def test_a_folder_that_may_not_be_read_is_named(cifar, monkeypatch):
    def deny(*args):
        raise PermissionError(13, "Permission denied", "images/train")

    monkeypatch.setattr(folders.os, "scandir", deny)
    assert images.digest(cifar) is None
    with pytest.raises(ReproError, match="images/train cannot be read: Permission denied"):
        load(cifar)


def test_subsets_and_resolution(cifar):
    cifar.resolution, cifar.train_images, cifar.test_images = 16, 20, 5
    small = load(cifar)
    assert small.train_images.shape == (20, 16, 16, 3)
    assert len(small.test_labels) == 5
    cifar.resolution = None
    full = load(cifar)
    block = full.train_images[0, :2, :2].float().mean((0, 1))
    torch.testing.assert_close(small.train_images[0, 0, 0].float(), block.round())
    assert torch.equal(small.train_labels, full.train_labels)


def test_a_subset_is_drawn_from_all_classes(cifar):
    """The images are sorted by their labels: the first of them are of one class."""
    full = load(cifar)
    cifar.train_images, cifar.test_images = 10, 10
    small = load(cifar)
    for split, count in (("train", 30), ("test", 20)):
        drawn = np.random.default_rng(0).permutation(count)[:10]
        assert torch.equal(getattr(small, f"{split}_images"), getattr(full, f"{split}_images")[drawn])
        assert getattr(small, f"{split}_labels").tolist() == getattr(full, f"{split}_labels")[drawn].tolist()
        assert len(set(getattr(small, f"{split}_labels").tolist())) > 4


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_subset_larger_than_its_set_is_refused(cifar, split):
    there = {"train": 30, "test": 20}[split]  # of the tree; CIFAR-10 itself has more
    setattr(cifar, f"{split}_images", there)
    assert len(getattr(load(cifar), f"{split}_labels")) == there
    setattr(cifar, f"{split}_images", there + 1)
    message = f"dataset.{split}_images={there + 1}: cifar10 has only {there}; dataset.{split}_images=null uses"
    with pytest.raises(ReproError, match=message):
        load(cifar)
    setattr(cifar, f"{split}_images", 999_999)
    with pytest.raises(ReproError, match=f"dataset.{split}_images=999999: cifar10 has"):
        registry.get(cifar)


def test_missing_data_says_where_it_looked_and_what_to_do(tmp_path, monkeypatch):
    from torchvision.datasets import utils

    def offline(*args, **kwargs):
        raise OSError("no route to host")

    monkeypatch.setattr(utils, "_urlretrieve", offline)
    with pytest.raises(ReproError) as error:
        load(Dataset(name="cifar10", root=str(tmp_path / "nothing"), cache=str(tmp_path)))
    message = str(error.value)
    assert "\n" not in message
    for part in (
        str(tmp_path / "nothing"),
        "could not be downloaded",
        "train/<class>/*.png",
        "Provide one of them, or set another root",
    ):
        assert part in message
    assert not (tmp_path / "nothing").exists()  # torchvision makes it before it fails


def torchvision_files(root: Path) -> Path:
    """CIFAR-10 as torchvision has it, of one image a batch."""
    folder = root / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    names = [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]
    for label, name in enumerate(names):
        batch = {"data": np.full((1, 3072), label, np.uint8), "labels": [label]}
        (folder / name).write_bytes(pickle.dumps(batch))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": [f"class{i}" for i in range(10)]}))
    return folder


@pytest.mark.parametrize(
    "spoil",
    [
        lambda folder: (folder / "data_batch_3").write_bytes(b""),
        lambda folder: (folder / "data_batch_3").write_bytes((folder / "data_batch_3").read_bytes()[:100]),
        lambda folder: (folder / "data_batch_3").write_bytes(pickle.dumps({"labels": [1]})),
        lambda folder: (folder / "test_batch").write_bytes(pickle.dumps([])),
        lambda folder: (folder / "batches.meta").write_bytes(b"garbage"),
        lambda folder: (folder / "test_batch").unlink(),
    ],
)
def test_a_broken_file_of_torchvision_is_one_line(tmp_path, monkeypatch, spoil):
    from torchvision import datasets

    dataset = Dataset(name="cifar10", root=str(tmp_path), cache=str(tmp_path / "cache"))
    folder = torchvision_files(tmp_path)
    monkeypatch.setattr(datasets.CIFAR10, "_check_integrity", lambda self: True)
    monkeypatch.setattr(datasets.cifar, "check_integrity", lambda *arguments: True)
    assert load(dataset).train_labels.tolist() == [0, 1, 2, 3, 4]
    spoil(folder)
    with pytest.raises(ReproError, match="cifar10 is incomplete") as error:
        load(dataset)  # not from the cache
    assert "\n" not in str(error.value)


def test_a_torchvision_file_of_other_contents_is_incomplete(tmp_path):
    torchvision_files(tmp_path)
    with pytest.raises(ReproError, match="cifar10 is incomplete"):
        load(Dataset(name="cifar10", root=str(tmp_path), cache=str(tmp_path / "cache")))


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"train_images": np.zeros((4, 6, 6, 1))}, "train images are float64 .4, 6, 6, 1., not uint8"),
        (
            {"test_images": np.zeros((2, 6, 6, 3), np.uint8)},
            "test images are uint8 .2, 6, 6, 3., not uint8 .N, H, W, 1",
        ),
        ({"train_labels": np.array([0, 1, 2])}, "train images number 4, their labels 3"),
        ({"train_labels": np.array([0, 1, 2, 3])}, "labels 0 to 3, and there are 3 classes"),
        ({"test_images": np.zeros((2, 6, 8, 1), np.uint8)}, "train images have 6x6 pixels, its test images 8x6"),
    ],
)
def test_an_image_set_of_ones_own_that_cannot_be_trained_on_is_named(monkeypatch, arrays, message):
    whole = {
        "train_images": np.zeros((4, 6, 6, 1), np.uint8),
        "train_labels": np.array([0, 1, 2, 0]),
        "test_images": np.zeros((2, 6, 6, 1), np.uint8),
        "test_labels": np.array([0, 1]),
    }
    own = registry.ImageSet(4, 2, classes=3, size=6, channels=1, read=lambda root: {**whole, **arrays})
    monkeypatch.setattr(registry, "data_sets", lambda: {"own": own})
    with pytest.raises(ReproError, match=f"dataset.name=own: its .*{message}"):
        load(Dataset(name="own"))


OWN = """
import numpy as np
from repro.data.registry import ImageSet


def arrays(height=6, width=6, n=4, seed=0):
    rng = np.random.default_rng(seed)
    images = {f"{k}_images": rng.integers(0, 256, (m, height, width, 1), np.uint8) for k, m in (("train", n), ("test", 2))}
    return {**images, "train_labels": np.arange(n) % 3, "test_labels": np.array([0, 1])}


def changed(**changes):
    return lambda root: {**arrays(), **changes}


def read_file(root):
    return arrays(seed=int((root / "seed").read_text()))


def missing(root):
    found = arrays()
    del found["test_labels"]
    return found


def fails(root):
    return arrays()["validation"]


def image_set(read, size=6, **settings):
    return ImageSet(**{"train": 4, "test": 2, "classes": 3, "size": size, "channels": 1, "read": read, **settings})


GOOD = image_set(lambda root: arrays())
FILE = image_set(read_file)
CACHED = image_set(read_file, folder="files")
OBLONG = image_set(lambda root: arrays(6, 8))
RANDOM = image_set(lambda root: arrays(seed=None))
COLUMN = image_set(changed(train_labels=np.zeros((4, 1), int)))
FLOATS = image_set(changed(train_labels=np.zeros(4)))
LISTS = image_set(changed(train_labels=[0, 1, 2, 0]))
MISSING = image_set(missing)
FAILS = image_set(fails)
TUPLE = image_set(lambda root: tuple(arrays().values()))
WITHOUT = image_set(lambda: arrays())
EXITS = image_set(lambda root: __import__("sys").exit(2))
MORE = image_set(lambda root: arrays(n=5))
SMALL = image_set(lambda root: arrays(), size=8)
CLASSES = image_set(lambda root: arrays(), classes=4)
TEXT = image_set(lambda root: arrays(), train="4")
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A function: name -> the data set of that name in a module of the user's own; its root has a tree of images."""
    monkeypatch.setattr(images, "_SHAPES", {})
    module = types.ModuleType("own_data")
    module.__file__ = str(tmp_path / "own_data.py")
    Path(module.__file__).write_text(OWN)
    exec(compile(OWN, module.__file__, "exec"), module.__dict__)
    monkeypatch.setitem(sys.modules, "own_data", module)
    root = tmp_path / "root"
    for folder in ("files", "train/a"):
        (root / folder).mkdir(parents=True)
    (root / "seed").write_text("1")
    (root / "files/one").write_text("x")
    cache = str(tmp_path / "cache")
    return lambda name, **settings: Dataset(name=f"own_data:{name}", root=str(root), cache=cache, **settings)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("COLUMN", r"its train labels are int64 \(4, 1\), not integers \(N,\)"),
        ("FLOATS", r"its train labels are float64 \(4,\), not integers"),
        ("LISTS", "its train_labels are a list, not a numpy array"),
        ("MISSING", "its read returns no test_labels; add it to the dictionary"),
        ("FAILS", r"its read fails: KeyError: 'validation' \(.*own_data.py, line \d+\)"),
        ("TUPLE", "its read returns a tuple, not a dictionary with train_images, train_labels"),
        ("WITHOUT", r"its read cannot be called \(too many positional arguments\); it is called with the folder"),
        ("EXITS", "its read fails: it calls sys.exit"),
        ("MORE", "its read returns 5 train images, and its ImageSet declares train=4"),
        ("SMALL", "its read returns images of 6x6 pixels, and its ImageSet declares size=8"),
        ("CLASSES", "its read returns labels up to 2, and its ImageSet declares classes=4"),
        ("TEXT", "its train='4' is not a positive integer"),
    ],
)
def test_what_is_wrong_with_a_reader_of_ones_own_is_one_line(own, name, message):
    with pytest.raises(ReproError, match=f"^dataset.name=own_data:{name}: [^\n]*{message}[^\n]*$"):
        images.load(own(name))


def test_a_set_of_ones_own_reads_from_the_root_and_never_a_tree(own, tmp_path):
    first = images.load(own("FILE"))
    assert images.digest(own("FILE")) == first[1]
    other = tmp_path / "other"
    other.mkdir()
    (other / "seed").write_text("2")
    moved = own("FILE")
    moved.root = str(other)
    assert images.digest(moved) == images.load(moved)[1] != first[1]
    (other / "seed").unlink()
    with pytest.raises(ReproError, match=r"dataset.root=.*other: .*seed cannot be read: No such file"):
        images.load(moved)


def test_an_edited_reader_decodes_anew(own, monkeypatch):
    dataset = own("CACHED")
    _, digest = images.load(dataset)
    (Path(dataset.root) / "seed").write_text("2")  # not in its folder, so that the cache does not see it
    assert images.load(dataset)[1] == images.digest(dataset) == digest
    file = Path(sys.modules["own_data"].__file__)
    file.write_text(file.read_text() + "\n")
    assert images.digest(dataset) == digest  # this process has imported the former text
    cache._modules_key.cache_clear()
    assert images.digest(dataset) is None
    assert images.load(dataset)[1] != digest
    (Path(dataset.root) / "files/a/b/c").mkdir(parents=True)
    assert images.digest(dataset) is not None
    (Path(dataset.root) / "files/a/b/c/deep").write_text("x")
    assert images.digest(dataset) is None


def test_a_reader_that_is_not_deterministic_is_named(own):
    dataset = own("RANDOM")
    images.identify(dataset)
    with pytest.raises(ReproError, match="own_data:RANDOM: its read returns other images every time .digests"):
        images.load(dataset)
    with pytest.raises(ReproError, match="dataset.digest=another: the images of own_data:GOOD under"):
        images.load(own("GOOD", digest="another"))


def test_oblong_images_are_squashed_with_a_note(own, capsys):
    assert load(own("OBLONG")).train_images.shape == (4, 6, 8, 1)
    assert capsys.readouterr().out == ""
    assert load(own("OBLONG", resolution=4)).train_images.shape == (4, 4, 4, 1)
    note = "note: own_data:OBLONG: the images of 8x6 pixels are squashed, not cropped, to 4x4\n"
    assert capsys.readouterr().out == note
    assert images.shape(own("OBLONG")) == (6, 8, 1)
    assert images.shape(own("GOOD")) is None


def test_the_shape_of_cached_images_is_known_without_decoding(own, monkeypatch):
    dataset = own("CACHED")
    assert images.digest(dataset) is None
    images.load(dataset)
    monkeypatch.setattr(images, "_SHAPES", {})
    images.identify(dataset)
    assert images.shape(dataset) == (6, 6, 1)


def test_an_unknown_data_set_is_named():
    with pytest.raises(ReproError, match="dataset.name=imagenet: choose from digits, cifar10, cifar100, mnist"):
        load(Dataset(name="imagenet"))
