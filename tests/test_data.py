import hashlib
import subprocess
import sys

import pytest
import torch

from tinyddpm import data


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return data.unpack_mnist(tmp_path_factory.mktemp("mnist"))


def raw(root, name="t10k-labels-idx1-ubyte"):
    return root / "MNIST" / "raw" / name


def test_all_of_mnist_ships_in_at_most_ten_megabytes(root):
    train, test = data.mnist(True, root), data.mnist(False, root)
    assert (len(train), len(test)) == (60_000, 10_000)
    assert train.labels[:5].tolist() == [5, 0, 4, 1, 9]
    assert test.labels[:5].tolist() == [7, 2, 1, 0, 4]
    packed = [data.asset(f"mnist/{name}.xz").stat().st_size for name in data.MNIST_SHA256]
    assert sum(packed) <= 10_000_000


def test_unpacked_files_have_the_published_sums(root):
    for name, sha256 in data.MNIST_SHA256.items():
        assert hashlib.sha256(raw(root, name).read_bytes()).hexdigest() == sha256


def test_images_are_padded_to_32_and_fill_the_range(root):
    digits = data.mnist(False, root)
    x, y = zip(*(digits[i] for i in range(50)))
    x = torch.stack(x)
    assert x.shape == (50, 1, 32, 32) and x.dtype == torch.float32
    assert x.min() == -1 and x.max() == 1  # trap 24
    assert torch.equal(data.to_uint8(data.crop_to(x[:, 0])), digits.images[:50, 0])
    border = x.clone()
    border[:, :, 2:30, 2:30] = -1
    assert (border == -1).all()


def test_digits_are_not_flipped(root):  # trap 25
    digits = data.mnist(False, root)
    x, _ = digits[0]
    assert torch.equal(data.to_uint8(data.crop_to(x[0])), digits.images[0, 0])
    assert not torch.equal(digits.images[0, 0], digits.images[0, 0].flip(1))


def test_every_grey_level_survives_the_round_trip():
    levels = torch.arange(256, dtype=torch.uint8)[None]
    x = data.from_uint8(levels)
    assert x.min() == -1 and x.max() == 1
    assert torch.equal(data.to_uint8(x), levels)
    assert data.to_uint8(torch.tensor([-7.0, 7.0])).tolist() == [0, 255]


def test_from_uint8_refuses_floats():
    with pytest.raises(ValueError, match=r"uint8 pixels in \[0, 255\], got torch.float32"):
        data.from_uint8(torch.zeros(1, 2, 2))


def test_images_too_large_or_too_small_are_refused():
    with pytest.raises(ValueError, match="28x40 does not fit 32x32"):
        data.pad_to(torch.zeros(28, 40))
    with pytest.raises(ValueError, match="20x28 holds no 28x28"):
        data.crop_to(torch.zeros(20, 28))


def test_images_and_labels_must_be_as_many():
    with pytest.raises(ValueError, match="3 images and 2 labels"):
        data.Images(torch.zeros(3, 1, 28, 28, dtype=torch.uint8), torch.zeros(2))


@pytest.mark.parametrize("damage", ["cut", "flipped", "missing", "empty"])
def test_a_damaged_cache_is_made_again(tmp_path, damage):
    path = raw(data.unpack_mnist(tmp_path))
    whole = path.read_bytes()
    if damage == "missing":
        path.unlink()
    else:
        flipped = whole[:100] + bytes([whole[100] ^ 1]) + whole[101:]
        path.write_bytes({"cut": whole[:-1], "flipped": flipped, "empty": b""}[damage])
    data.unpack_mnist(tmp_path)
    assert path.read_bytes() == whole


def test_a_whole_cache_is_left_alone(root):
    before = raw(root).stat().st_mtime_ns
    data.unpack_mnist(root)
    assert raw(root).stat().st_mtime_ns == before


def test_processes_at_once_do_not_break_each_other(tmp_path):
    code = f"from tinyddpm import data; print(len(data.mnist(False, {str(tmp_path)!r})))"
    started = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(3)]
    assert [process.communicate()[0].strip() for process in started] == ["10000"] * 3
    assert sorted(path.name for path in raw(tmp_path).parent.iterdir()) == sorted(data.MNIST_SHA256)


def test_a_damaged_package_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(data.MNIST_SHA256, "t10k-labels-idx1-ubyte", "0" * 64)
    with pytest.raises(ValueError, match="t10k-labels-idx1-ubyte.xz is damaged.*install tinyddpm again"):
        data.unpack_mnist(tmp_path)
    assert not raw(tmp_path).exists()


def test_the_cache_folder_can_be_chosen(tmp_path, monkeypatch):
    monkeypatch.setenv("TINYDDPM_CACHE", str(tmp_path / "here"))
    assert data.cache_dir() == tmp_path / "here"
    monkeypatch.delenv("TINYDDPM_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert data.cache_dir() == tmp_path / "cache" / "tinyddpm"


def test_nothing_is_left_of_a_write_that_fails(tmp_path, monkeypatch):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    monkeypatch.setattr(data.os, "fsync", lambda _: (_ for _ in ()).throw(OSError("No space left on device")))
    with pytest.raises(OSError, match="No space left"):
        data.write_whole(path, b"new")
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_a_folder_that_takes_no_files_is_refused(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ValueError, match="cannot write to the folder .*choose another"):
        data.writable_folder(tmp_path / "file" / "folder")


def test_torchvision_reads_the_same_cache(root):
    MNIST = data.torchvision_datasets().MNIST
    image, label = MNIST(root, train=False)[0]
    assert label == 7 and image.size == (28, 28)


def test_an_asset_that_is_not_there_is_named():
    with pytest.raises(FileNotFoundError, match="nothing.xz should ship with tinyddpm"):
        data.asset("mnist/nothing.xz")


def test_items_come_together_as_they_come_one_by_one():
    digits = data.mnist(train=False)
    chosen = [5, 0, 9999]
    for together, alone in zip(digits.__getitems__(chosen), (digits[i] for i in chosen), strict=True):
        assert torch.equal(together[0], alone[0]) and together[1] == alone[1]
