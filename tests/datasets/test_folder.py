import numpy as np
import pytest
import torch
from PIL import Image

from tinyddpm import data
from tinyddpm.datasets.folder import Folder
from tinyddpm.datasets.named import load_data


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


def test_classes_are_those_that_torchvision_finds(classes):
    (classes / ".hidden").rmdir()  # torchvision takes it for a class
    found, wanted = Folder(classes), data.torchvision_datasets().ImageFolder(str(classes))
    assert [(str(path), label) for path, label in zip(found.files, found.labels)] == wanted.samples
    assert found.classes == wanted.classes == ["angular", "open", "round"]
    assert (found.num_classes, found.channels, found.size, found.name) == (3, 3, 32, "folder shapes")
    assert len(found) == 6 and found[5][1] == 2


def test_images_without_folders_have_no_classes(tmp_path):
    picture(tmp_path / "b.png", 32, 32)
    picture(tmp_path / "a.jpg", 32, 32)
    found = load_data("folder", tmp_path)
    assert [path.name for path in found.files] == ["a.jpg", "b.png"]
    assert found.num_classes is None and [label for _, label in found] == [0, 0] and found.channels == 1


def test_an_image_of_the_right_size_keeps_its_pixels(tmp_path):
    x = picture(tmp_path / "x.png", 32, 32, 3)
    assert torch.equal(Folder(tmp_path)[0][0], data.from_uint8(x.permute(2, 0, 1)))


def test_the_middle_is_cut_out_after_the_shorter_side_is_scaled(tmp_path):
    x = picture(tmp_path / "x.png", 32, 40)
    assert torch.equal(Folder(tmp_path)[0][0][0], data.from_uint8(x[:, 4:36]))
    sides = np.zeros((64, 128), np.uint8)
    sides[:, 28:96] = 255
    Image.fromarray(sides).save(tmp_path / "x.png")
    x = Folder(tmp_path)[0][0][0]  # 64x128 became 32x64, of which 16..48 is seen
    assert (x[:, 2:28] == 1).all()


def test_what_shrinks_is_smoothed(tmp_path):
    board = np.indices((256, 256)).sum(0) % 2 * 255
    Image.fromarray(board.astype(np.uint8)).save(tmp_path / "x.png")
    assert Folder(tmp_path)[0][0].abs().max() < 0.05  # one pixel of each field would be -1 or 1


@pytest.mark.parametrize("size", [8, 64, 128])
def test_all_sizes_come_out_in_the_range(classes, size):
    found = load_data("folder", classes, size)
    x, y = zip(*found.__getitems__([0, 3, 5]))
    x = torch.stack(x)
    assert x.shape == (3, 3, size, size) and x.dtype == torch.float32 and y == (0, 1, 2)
    assert -1 <= x.min() < -0.2 and 0.2 < x.max() <= 1


def test_one_colour_image_makes_the_folder_one_of_colours(tmp_path):
    grey = picture(tmp_path / "a.png", 32, 32)
    picture(tmp_path / "b.png", 32, 32, 3)
    picture(tmp_path / "c.png", 32, 32)
    found = Folder(tmp_path)
    assert found.channels == 3 and torch.equal(data.to_uint8(found[0][0]), grey.expand(3, 32, 32))


@pytest.mark.parametrize("size", [32, 64])
def test_what_is_transparent_is_black(tmp_path, size):
    white = np.full((size, size, 4), 255, np.uint8)
    white[:, : size // 2, 3] = 0
    Image.fromarray(white).save(tmp_path / "x.png")
    x = Folder(tmp_path)[0][0]
    assert (x[..., :14] == -1).all() and (x[..., 18:] == 1).all()


def test_photos_stand_upright(tmp_path):
    x = picture(tmp_path / "x.png", 32, 32)
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: show it a quarter to the right
    Image.fromarray(x.numpy()).save(tmp_path / "x.png", exif=exif)
    assert torch.equal(data.to_uint8(Folder(tmp_path)[0][0][0]), x.rot90(-1))


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
    with pytest.raises(ValueError, match=rf"class/b.{ending} cannot be read .*: mend .* \(--skip-broken\)"):
        load_data("folder", tmp_path)
    found = load_data("folder", tmp_path, skip_broken=True)
    assert [path.name for path in found.files] == [f"a.{ending}", f"c.{ending}"] and len(found) == 2
    assert f"left out 1 images that cannot be read: {tmp_path}/class/b.{ending}" in capsys.readouterr().out


def test_an_image_that_breaks_later_is_named(classes):
    found = Folder(classes)
    text(found.files[3])
    with pytest.raises(ValueError, match=f"{found.files[3]} cannot be read"):
        found[3]


def test_folders_that_cannot_be_meant_are_refused(classes, tmp_path):
    with pytest.raises(ValueError, match="there is no folder .*nothing"):
        load_data("folder", tmp_path / "nothing")
    with pytest.raises(ValueError, match=r"which folder of images\? give it as root \(--root DIR\)"):
        load_data("folder")
    (classes / "empty").mkdir()
    with pytest.raises(ValueError, match="no images .* are in empty$"):
        load_data("folder", classes)
    with pytest.raises(ValueError, match=f"no images .* are in {classes / 'empty'}$"):
        load_data("folder", classes / "empty")
    picture(classes / "x.png", 32, 32)
    with pytest.raises(ValueError, match=r"beside folders of images \(angular, empty, open, round\)"):
        load_data("folder", classes)
