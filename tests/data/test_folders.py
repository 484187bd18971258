"""Trees of image folders: what is in them is inspected whole, decoded as it is, or named."""

import io
import os

import numpy as np
import pytest
from on_disk import image_tree
from PIL import Image

from repro.config import Dataset
from repro.config.errors import ReproError
from repro.data import folders, images, registry

CIFAR = registry.data_sets()["cifar10"]
GREY = registry.ImageSet(train=1, test=1, classes=1, size=2, channels=1, read=lambda root: {})
COLOUR = registry.ImageSet(train=1, test=1, classes=1, size=2, channels=3, read=lambda root: {})


@pytest.fixture
def tree(tmp_path):
    return image_tree(tmp_path / "images")


def loaded(tree):
    return images.load(Dataset(name="cifar10", root=str(tree), cache=str(tree.parent / "cache")))


def digest(tree):
    return images.digest(Dataset(name="cifar10", root=str(tree), cache=str(tree.parent / "cache")))


def save(path, image=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    (image or Image.new("RGB", (32, 32))).save(path)


def only_jpg(tree):
    for png in (tree / "train/class03").iterdir():
        png.rename(png.with_suffix(".jpg"))


def nested(tree):
    (tree / "gone").mkdir()
    for split in ("train", "test"):
        (tree / split / "class03").rename(tree / "gone" / split)
        (tree / split / "class03").mkdir()
        (tree / "gone" / split).rename(tree / split / "class03/images")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda tree: (tree / "test").rename(tree / "val"), "{tree} has no folder test/"),
        (
            lambda tree: (tree / "test/class03").rename(tree / "test/Class03"),
            "class03 of {tree}/train is not in {tree}/test, which has Class03; a class needs the same name in both",
        ),
        (
            lambda tree: (tree / "train/class09").rename(tree / "gone"),
            "class09 of {tree}/test is not in {tree}/train; a class needs the same name in both",
        ),
        (lambda tree: save(tree / "train/__MACOSX/0.png"), "__MACOSX of {tree}/train is not in {tree}/test"),
        (
            lambda tree: [save(tree / split / "class10/0.png") for split in ("train", "test")],
            "{tree}/train holds 11 class folders (class00, class01, class02 and 8 more), cifar10 has 10",
        ),
        (
            lambda tree: [
                (tree / split / "class09").rename(tree / split / "Class08") for split in ("train", "test")
            ],
            "Class08 and class08 in {tree}/train differ only in case",
        ),
        (
            only_jpg,
            "no .png in {tree}/train/class03, but class03/0000.jpg, class03/0001.jpg, class03/0002.jpg; put the "
            "class's images there",
        ),
        (nested, "no .png in {tree}/train/class03, but class03/images"),
        (
            lambda tree: [file.unlink() for file in (tree / "test/class00").iterdir()],
            "no .png in {tree}/test/class00; put the class",
        ),
        (
            lambda tree: save(tree / "train/class00/0000.PNG"),
            "0000.PNG and 0000.png in {tree}/train/class00 differ only in case",
        ),
    ],
)
def test_a_tree_whose_labels_would_be_wrong_is_refused_before_it_is_decoded(tree, monkeypatch, spoil, message):
    monkeypatch.setattr(folders, "_decode_file", lambda *_: pytest.fail("decoded"))
    spoil(tree)
    with pytest.raises(ReproError) as error:
        loaded(tree)
    assert str(error.value).startswith(f"dataset.root: {message.format(tree=tree)}")


def test_hidden_files_are_not_looked_at_and_others_are_named(tree, capsys):
    _, before = loaded(tree)
    capsys.readouterr()
    (tree / "train/.ipynb_checkpoints").mkdir()
    (tree / "train/class00/._0000.png").write_bytes(b"of macOS")
    assert loaded(tree)[1] == before
    assert capsys.readouterr().out == ""  # from the cache
    (tree / "train/class00/Thumbs.db").write_bytes(b"of Windows")
    (tree / "train/notes.txt").write_text("")
    (tree / "train/class01/more").mkdir()
    assert loaded(tree)[1] == before
    note = (
        f"note: {tree}/train: ignored, as they are not <class>/*.png: class00/Thumbs.db, class01/more, notes.txt"
    )
    assert note in capsys.readouterr().out.splitlines()


def test_the_suffix_is_png_in_either_case(tree):
    _, before = loaded(tree)
    for file in (tree / "train/class03").iterdir():
        file.rename(file.with_suffix(".PNG"))
    assert loaded(tree)[1] == before


def test_a_class_may_be_a_link(tree):
    _, before = loaded(tree)
    (tree / "train/class03").rename(tree.parent / "elsewhere")
    (tree / "train/class03").symlink_to(tree.parent / "elsewhere")
    assert loaded(tree)[1] == before
    (tree.parent / "elsewhere").rename(tree.parent / "gone")
    with pytest.raises(ReproError, match="class03 of .*test is not in .*train"):
        loaded(tree)


@pytest.mark.parametrize("same", ["size", "time"])
def test_a_picture_replaced_in_place_is_noticed(tree, same):
    arrays, before = loaded(tree)
    file = tree / "train/class03/0001.png"
    status, content = file.stat(), file.read_bytes()
    other = io.BytesIO()
    Image.new("RGB", (32, 32), "red").save(other, "png")
    if same == "size":
        content = other.getvalue().ljust(len(content), b"\0")  # what follows the end of a PNG is not read
        file.write_bytes(content)
    else:
        file.write_bytes(other.getvalue())
        os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert digest(tree) is None
    again, after = loaded(tree)
    assert after != before
    assert (again["train_images"] != arrays["train_images"]).any()
    assert digest(tree) == after


def test_every_image_has_one_size(tree):
    save(tree / "train/class03/0001.png", Image.new("RGB", (32, 30)))
    with pytest.raises(ReproError, match="train/class03/0001.png is 32x30 pixels, the images before it are 32x32"):
        loaded(tree)
    save(tree / "train/class03/0001.png")
    for file in tree.glob("test/*/*.png"):
        save(file, Image.new("RGB", (28, 28)))
    with pytest.raises(ReproError, match=r"test/class00/0000.png is 28x28 .*; 19 more in .*test cannot be used"):
        loaded(tree)
    for file in tree.glob("train/*/*.png"):
        save(file, Image.new("RGB", (28, 28)))
    assert loaded(tree)[0]["train_images"].shape == (30, 28, 28, 3)


def test_another_size_than_the_image_sets_is_noted(tmp_path, capsys):
    tree = image_tree(tmp_path, 1, 1)
    for file in tree.glob("*/*/*.png"):
        save(file, Image.new("RGB", (16, 20)))
    folders.decode(tree, "cifar10", CIFAR)
    assert f"note: the images under {tree} are 16x20 pixels; cifar10 has 32x32" in capsys.readouterr().out


def test_every_broken_png_is_named(tmp_path):
    """Cut at, or with a changed byte at, every place: Pillow raises OSError, SyntaxError, ValueError and others."""
    whole = io.BytesIO()
    Image.fromarray(np.arange(48, dtype=np.uint8).reshape(4, 4, 3)).save(whole, "png")
    whole = whole.getvalue()
    broken = [whole[:cut] for cut in range(len(whole) - 12)]
    broken += [whole[:i] + bytes([whole[i] ^ 0xFF]) + whole[i + 1 :] for i in range(len(whole))]
    messages = []
    for content in broken:
        (tmp_path / "0.png").write_bytes(content)
        try:
            folders._decode_file(str(tmp_path / "0.png"), 3)  # a changed pixel or comment is not noticed
        except ReproError as error:
            messages.append(str(error))
    assert len(messages) > 100
    assert {message.partition(" (")[0] for message in messages} == {f"{tmp_path}/0.png is not a readable image"}
    assert not any("\n" in message for message in messages)


def decoded(tmp_path, image, image_set=COLOUR, **options):
    """The one training image of a tree of one class."""
    for split in ("train", "test"):
        file = tmp_path / split / "class/0.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        image.save(file, options.get("format", "png"), **{k: v for k, v in options.items() if k != "format"})
    return folders.decode(tmp_path, "own", image_set)["train_images"][0]


PIXELS = np.array([[[0, 10, 20], [200, 210, 255]], [[1, 2, 3], [4, 5, 6]]], np.uint8)
LEVELS = np.array([[0, 1], [128, 255]], np.uint8)


def palette():
    image = Image.new("P", (2, 2))
    image.putpalette(PIXELS.tobytes())
    image.putdata([0, 1, 2, 3])
    return image


@pytest.mark.parametrize(
    "image",
    [
        Image.fromarray(PIXELS),
        palette(),
        Image.fromarray(np.dstack([PIXELS, np.full((2, 2), 255, np.uint8)])),
    ],
    ids=["RGB", "P", "RGBA"],
)
def test_colours_are_decoded_as_they_are(tmp_path, image):
    assert (decoded(tmp_path, image) == PIXELS).all()


def test_an_opaque_palette_with_transparency_is_decoded_as_it_is(tmp_path):
    assert (decoded(tmp_path, palette(), transparency=b"\xff" * 4) == PIXELS).all()


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (Image.fromarray(LEVELS), LEVELS),
        (Image.fromarray(np.dstack([LEVELS] * 3)), LEVELS),
        (Image.merge("LA", [Image.fromarray(LEVELS), Image.new("L", (2, 2), 255)]), LEVELS),
        (Image.fromarray(LEVELS > 100), [[0, 0], [255, 255]]),
        (Image.fromarray(LEVELS.astype(np.uint16) * 257), LEVELS),
        (Image.fromarray(LEVELS.astype(np.uint16) * 256), LEVELS),
    ],
    ids=["L", "RGB", "LA", "1", "16 bits", "16 bits, shifted"],
)
def test_grey_is_decoded_as_it_is_and_scaled_from_16_bits(tmp_path, image, expected):
    assert decoded(tmp_path / "grey", image, GREY)[..., 0].tolist() == np.array(expected).tolist()
    colour = decoded(tmp_path / "colour", image, COLOUR)
    assert (colour == np.array(expected)[..., None]).all()


def rotated():
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


@pytest.mark.parametrize(
    ("image", "options", "problem"),
    [
        (Image.new("RGBA", (2, 2), (1, 2, 3, 254)), {}, "has transparent pixels"),
        (Image.new("LA", (2, 2), (1, 0)), {}, "has transparent pixels"),
        (palette(), {"transparency": 2}, "has transparent pixels"),
        (palette(), {"transparency": b"\xff\x80"}, "has transparent pixels"),
        (Image.fromarray(PIXELS), {"transparency": (1, 2, 3)}, "has transparent pixels"),
        (Image.new("CMYK", (2, 2)), {"format": "jpeg"}, "has colours of mode CMYK"),
        (Image.new("F", (2, 2)), {"format": "tiff"}, "has colours of mode F"),
        (Image.new("I", (2, 2), 70000), {"format": "tiff"}, "has colours of mode I"),
        (Image.fromarray(PIXELS), {"exif": rotated()}, r"is rotated by its metadata \(EXIF orientation 6\)"),
        (
            Image.new("RGB", (2, 2)),
            {"save_all": True, "append_images": [Image.new("RGB", (2, 2), "red")]},
            r"is animated \(2 frames\)",
        ),
    ],
    ids=["RGBA", "LA", "P", "P by alpha", "RGB by key", "CMYK", "F", "I", "EXIF", "animated"],
)
def test_a_picture_that_decoding_would_change_is_named(tmp_path, image, options, problem):
    with pytest.raises(ReproError, match=f"dataset.root: {tmp_path}/train/class/0.png {problem}"):
        decoded(tmp_path, image, **options)


def test_a_grey_image_set_takes_no_colours(tmp_path):
    with pytest.raises(ReproError, match="0.png is in colour, and the image set is grey"):
        decoded(tmp_path, Image.fromarray(PIXELS), GREY)
