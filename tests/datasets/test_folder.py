from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tinyddpm import data
from tinyddpm.datasets import image_folder, load_data
from tinyddpm.datasets.own import read_picture, torchvision_datasets


def picture(path, *shape, mode=None, seed=0, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    array = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    Image.fromarray(array, mode).save(path, **options)
    return torch.from_numpy(array)


@pytest.fixture
def classes(tmp_path):
    root = tmp_path / "shapes"
    for k, name in enumerate(["round", "angular", "open"]):
        for i in range(2):
            picture(root / name / ("deep" if i else "") / f"{i}.PNG", 40, 50, 3, seed=10 * k + i)
    (root / "angular" / "notes.txt").write_text("no image")
    (root / ".hidden").mkdir()
    return root


def names(found):
    return [Path(found.data[i][0]).name for i in found.indices]


def test_classes_are_those_that_torchvision_finds(classes):
    (classes / ".hidden").rmdir()  # torchvision takes it for a class
    found, wanted = image_folder(classes), torchvision_datasets().ImageFolder(str(classes))
    assert found.data == wanted.samples and found.num_classes == len(wanted.classes) == 3
    assert (found.channels, found.size, found.name) == (3, 32, "folder shapes")
    assert len(found) == 6 and [label for _, label in found] == [0, 0, 1, 1, 2, 2]


def test_images_without_folders_have_no_classes(tmp_path):
    picture(tmp_path / "b.png", 32, 32)
    picture(tmp_path / "a.jpg", 32, 32)
    picture(tmp_path / ".c.jpg", 32, 32)
    (tmp_path / "empty").mkdir()
    found = load_data("folder", tmp_path)
    assert names(found) == ["a.jpg", "b.png"]
    assert found.num_classes is None and [label for _, label in found] == [0, 0] and found.channels == 1


def test_an_image_of_the_right_size_keeps_its_pixels(tmp_path):
    x = picture(tmp_path / "x.png", 32, 32, 3)
    assert torch.equal(image_folder(tmp_path)[0][0], data.from_uint8(x.permute(2, 0, 1)))


def test_the_middle_is_cut_out_after_the_shorter_side_is_scaled(tmp_path):
    x = picture(tmp_path / "x.png", 32, 40)
    assert torch.equal(image_folder(tmp_path)[0][0][0], data.from_uint8(x[:, 4:36]))
    sides = np.zeros((64, 128), np.uint8)
    sides[:, 28:96] = 255
    Image.fromarray(sides).save(tmp_path / "x.png")
    x = image_folder(tmp_path)[0][0][0]  # 64x128 became 32x64, of which 16..48 is seen
    assert (x[:, 2:28] == 1).all()


def test_what_shrinks_is_smoothed(tmp_path):
    board = np.indices((256, 256)).sum(0) % 2 * 255
    Image.fromarray(board.astype(np.uint8)).save(tmp_path / "x.png")
    assert image_folder(tmp_path)[0][0].abs().max() < 0.05  # one pixel of each field would be -1 or 1


@pytest.mark.parametrize("size", [8, 64, 128])
def test_all_sizes_come_out_in_the_range(classes, size):
    found = load_data("folder", classes, size)
    x, y = zip(*(found[i] for i in (0, 3, 5)))
    x = torch.stack(x)
    assert x.shape == (3, 3, size, size) and x.dtype == torch.float32 and y == (0, 1, 2)
    assert -1 <= x.min() < -0.2 and 0.2 < x.max() <= 1


def test_one_colour_image_makes_the_folder_one_of_colours(tmp_path):
    grey = picture(tmp_path / "a.png", 32, 32)
    picture(tmp_path / "b.png", 32, 32, 3)
    picture(tmp_path / "c.png", 32, 32)
    found = image_folder(tmp_path)
    assert found.channels == 3 and torch.equal(data.to_uint8(found[0][0]), grey.expand(3, 32, 32))


@pytest.mark.parametrize("size", [32, 64])
def test_what_is_transparent_is_black(tmp_path, size):
    white = np.full((size, size, 4), 255, np.uint8)
    white[:, : size // 2, 3] = 0
    Image.fromarray(white).save(tmp_path / "x.png")
    x = image_folder(tmp_path)[0][0]
    assert (x[..., :14] == -1).all() and (x[..., 18:] == 1).all()


def test_photos_stand_upright(tmp_path):
    x = picture(tmp_path / "x.png", 32, 32)
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: show it a quarter to the right
    Image.fromarray(x.numpy()).save(tmp_path / "x.png", exif=exif)
    assert torch.equal(data.to_uint8(image_folder(tmp_path)[0][0][0]), x.rot90(-1))


def cut(path):
    path.write_bytes(path.read_bytes()[:-700])


def text(path):
    path.write_text("no image")


def deep(path):
    Image.fromarray(np.full((32, 32), 40_000, np.uint16)).save(path)


@pytest.mark.parametrize("harm", [cut, text, deep])
@pytest.mark.parametrize("ending", ["png", "tif"])
def test_a_broken_image_is_named_and_left_out_only_when_asked(tmp_path, harm, ending, capsys):
    for name in "abc":
        picture(tmp_path / "class" / f"{name}.{ending}", 32, 32, seed=ord(name))
    harm(tmp_path / "class" / f"b.{ending}")
    with pytest.raises(ValueError, match=rf"class/b.{ending}.*; repair it, .* \(--skip-broken\)"):
        load_data("folder", tmp_path)
    found = load_data("folder", tmp_path, skip_broken=True)
    assert names(found) == [f"a.{ending}", f"c.{ending}"] and len(found) == 2
    assert f"left out item 1: {tmp_path}/class/b.{ending} cannot be read as an image: " in capsys.readouterr().out
    assert torch.equal(found[1][0], image_folder(tmp_path, skip_broken=True)[1][0])


def test_an_image_that_breaks_later_is_named(classes):
    found = image_folder(classes)
    path = found.data[3][0]
    text(Path(path))
    with pytest.raises(ValueError, match=f"{path} cannot be read as an image: cannot identify image file"):
        found[3]


def test_a_class_whose_images_are_all_broken_keeps_its_label(classes):
    for path in (classes / "open").rglob("*.PNG"):
        text(path)
    assert load_data("folder", classes, skip_broken=True).num_classes == 3


def test_folders_without_images_or_with_two_kinds_are_refused(classes, tmp_path):
    for root, message in (
        (None, "expected a folder .*--root.*, got None with 0 images .* and the folders none"),
        (tmp_path / "nothing", f"got {tmp_path}/nothing with 0 images .* and the folders none"),
        (classes / "open" / "0.PNG", "0.PNG with 0 images"),
        (classes / "open" / ".." / ".hidden", "with 0 images"),
    ):
        with pytest.raises(ValueError, match=message):
            load_data("folder", root)
    (classes / "empty").mkdir()
    with pytest.raises(ValueError, match="the folders {'angular': 2, 'empty': 0, 'open': 2, 'round': 2}"):
        load_data("folder", classes)
    picture(classes / "x.png", 32, 32)
    with pytest.raises(ValueError, match="of images, or of one folder of images for each class, got .* with 1 images"):
        load_data("folder", classes)


def test_one_picture_is_read_in_grey_if_asked(tmp_path):
    x = picture(tmp_path / "x.png", 56, 60, 3)
    found = read_picture(tmp_path / "x.png", 28, "L")
    assert found.shape == (1, 28, 28) and found.dtype == torch.uint8
    luma = (x.double() @ torch.tensor([0.299, 0.587, 0.114], dtype=torch.double))[:, 2:58]
    assert abs(found.double().mean() - luma.mean()) < 3
    with pytest.raises(ValueError, match="x.txt cannot be read as an image: .*No such file"):
        read_picture(tmp_path / "x.txt", 28)
