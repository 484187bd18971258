"""One's own folder of pictures: any size and format, split or not, or the one line that says what is wrong."""

import numpy as np
import pytest
from PIL import Image

from repro.config import Dataset
from repro.config.errors import ReproError
from repro.data import images, registry


def picture(path, color=(200, 30, 30), size=(20, 12), mode="RGB", **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, color).save(path, **options)


@pytest.fixture
def root(tmp_path):
    for i in range(5):
        picture(tmp_path / "pets/cat" / f"{i}.jpg", color=(250, 10 * i, 0), size=(20 + i, 12))
        picture(tmp_path / "pets/dog" / f"{i}.png", color=(0, 10 * i, 250), size=(9, 30))
    return tmp_path / "pets"


def folder(root, **more):
    options = {"resolution": 8, "channels": 3, "cache": str(root.parent / "cache"), **more}
    return Dataset(name="folder", root=str(root), **options)


def load(root, **more):
    return images.load(folder(root, **more))


def test_pictures_of_any_size_and_format_become_one_array(root):
    picture(root / "cat/grey.bmp", color=77, mode="L")
    picture(root / "cat/palette.gif", mode="P", color=1)
    picture(root / "dog/clear.png", color=(0, 0, 0, 0), mode="RGBA")
    picture(root / "dog/print.tif", color=(0, 0, 0, 0), mode="CMYK")
    Image.fromarray(np.full((12, 20), 200 << 8, np.uint16)).save(root / "dog/deep.png")
    arrays, digest = load(root)
    assert arrays["train_images"].shape[1:] == (8, 8, 3)
    assert len(arrays["train_images"]) + len(arrays["test_images"]) == 15
    everything = np.concatenate([arrays["train_images"], arrays["test_images"]]).reshape(15, -1)
    assert sum((image == 255).all() for image in everything) == 2  # transparent and unprinted are white
    assert sum((image == 200).all() for image in everything) == 1  # of sixteen bits the upper eight
    assert (images.digest(folder(root)), load(root)[1]) == (digest, digest)


def test_what_is_no_picture_of_a_class_is_named(root, capsys):
    picture(root / "cat/more/6.png")
    (root / "labels.csv").touch()
    load(root)
    assert "ignored, as they are not <class>/<picture>: labels.csv, cat/more" in capsys.readouterr().out


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_a_picture_of_32_bits_is_refused_and_not_made_black(root, dtype):
    Image.fromarray(np.full((12, 20), 200, dtype)).save(root / "dog/deep.tif")
    with pytest.raises(ReproError, match=r"deep.tif has values of 32 bits; save it as 8-bit$"):
        load(root)


def test_the_middle_square_is_averaged_and_a_photo_is_turned_upright(tmp_path):
    wide = np.zeros((4, 12, 3), np.uint8)
    wide[:, 4:8] = (0, 100, 0)
    wide[:2, 4:8, 0] = 200  # the upper half of the middle
    for label in ("a", "b"):
        for i in range(2):
            (tmp_path / "p" / label).mkdir(parents=True, exist_ok=True)
            Image.fromarray(wide).save(tmp_path / "p" / label / f"{i}.png")
    arrays, _ = load(tmp_path / "p", resolution=2, cache=str(tmp_path / "c"))
    assert arrays["train_images"][0].tolist() == [[[200, 100, 0]] * 2, [[0, 100, 0]] * 2]
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    for path in (tmp_path / "p").glob("*/*.png"):
        Image.fromarray(wide).save(path, exif=exif)
    arrays, _ = load(tmp_path / "p", resolution=2, cache=str(tmp_path / "c"))
    assert arrays["train_images"][0].tolist() == [[[0, 100, 0]] * 2, [[200, 100, 0]] * 2]


def test_a_folder_is_split_by_its_seed_class_by_class(root):
    image_set = registry.get(folder(root, test_fraction=0.4))
    assert (image_set.train, image_set.test, image_set.classes) == (6, 4, 2)
    digests = {load(root, test_fraction=0.4, split_seed=seed)[1] for seed in (0, 0, 1, 2)}
    assert len(digests) > 1
    assert load(root, test_fraction=0.4)[1] == load(root, test_fraction=0.4)[1]
    labels = load(root, test_fraction=0.01)[0]["test_labels"]
    assert labels.tolist() == [0, 1]  # one of each class at least


def test_train_and_test_folders_stay_what_they_are(root, tmp_path):
    (root / "cat").rename(tmp_path / "cat")
    (root / "dog").rename(tmp_path / "dog")
    for split in ("train", "test"):
        (root / split).mkdir()
    for label in ("cat", "dog"):
        (root / "train" / label).mkdir()
        for name in sorted(path.name for path in (tmp_path / label).iterdir())[:3]:
            (tmp_path / label / name).rename(root / "train" / label / name)
        (tmp_path / label).rename(root / "test" / label)
    arrays, _ = load(root, channels=1)
    assert arrays["train_images"].shape == (6, 8, 8, 1)
    assert arrays["test_labels"].tolist() == [0, 0, 1, 1]
    (root / "test/dog").rename(root / "test/wolf")
    with pytest.raises(
        ReproError, match=r"dog is a class in train/ and not in test/; a class needs the same name in both"
    ):
        load(root)


def test_what_changes_in_the_folder_is_decoded_again(root):
    before = load(root)[1]
    picture(root / "cat/new.png", color=(1, 2, 3))
    assert load(root)[1] != before


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (
            lambda root: (root / "cat/2.jpg").write_bytes(b"no picture"),
            r"cat/2.jpg is not a readable picture",
        ),
        (
            lambda root: (root / "dog").rename(root.parent / "dog"),
            r"pets holds only the class cat; it needs one folder",
        ),
        (lambda root: (root / "wolf").mkdir(), r"pets/wolf holds no picture"),
        (lambda root: picture(root / "wolf/1.png"), r"class wolf has one picture; it needs at least two"),
        (lambda root: (root / "train").mkdir(), r"it has train/ but no test/; provide both"),
        (
            lambda root: root.rename(root.parent / "moved"),
            r"pets: no such folder; give the folder that holds one folder per class",
        ),
    ],
)
def test_what_cannot_be_trained_on_is_named(root, spoil, message):
    spoil(root)
    with pytest.raises(ReproError, match=message):
        load(root)


def test_uneven_classes_are_worth_a_word(root, capsys):
    for i in range(25):
        picture(root / "dog" / f"more{i}.png")
    load(root)
    assert "24 training pictures of dog, 4 of cat" in capsys.readouterr().out


def test_a_folder_needs_a_size(root):
    with pytest.raises(ReproError, match=r"dataset.resolution=null: a folder of pictures needs one"):
        registry.get(folder(root, resolution=None))
    with pytest.raises(ReproError, match=r"dataset.channels=4: use 3 \(RGB\) or 1 \(grey\)"):
        registry.get(folder(root, channels=4))
