import gzip
import hashlib
import lzma
import os
import subprocess
import sys

import pytest
import torch

from tinyddpm import data, files
from tinyddpm.datasets.named import torchvision_datasets

PUBLISHED = {  # sha256 of the four files of MNIST
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}


def test_all_of_mnist_ships_in_at_most_ten_megabytes():
    train, test = data.mnist(), data.mnist(train=False)
    assert (len(train), len(test)) == (60_000, 10_000)
    assert train.labels[:5].tolist() == [5, 0, 4, 1, 9]
    assert test.labels[:5].tolist() == [7, 2, 1, 0, 4]
    assert sum(files.asset(f"mnist/{name}.xz").stat().st_size for name in PUBLISHED) <= 10_000_000


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_published_files_are_read_as_torchvision_reads_them(name, tmp_path):
    content = lzma.decompress(files.asset(f"mnist/{name}.xz").read_bytes())
    assert hashlib.sha256(content).hexdigest() == PUBLISHED[name]
    (tmp_path / name).write_bytes(content)
    wanted = torchvision_datasets().mnist.read_sn3_pascalvincent_tensor(str(tmp_path / name))
    digits = data.mnist("train" in name)
    found = digits.images[:, 0] if "images" in name else digits.labels
    assert torch.equal(found, wanted.to(found.dtype)) and found.dtype == (
        torch.uint8 if found.ndim == 3 else torch.int64
    )


def test_mnist_needs_no_torchvision_and_writes_nothing(tmp_path):
    code = (
        "import sys, time; from tinyddpm.data import mnist; start = time.process_time(); n = len(mnist())"
        "; print(n, 'torchvision' in sys.modules, time.process_time() - start < 5)"
    )
    environment = os.environ | {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path), "TINYDDPM_CACHE": str(tmp_path)}
    run = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["60000", "False", "True"]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "other"])
def test_a_damaged_file_is_named(tmp_path, damage, monkeypatch):
    whole = files.asset("mnist/t10k-labels-idx1-ubyte.xz").read_bytes()
    flipped = whole[:1000] + bytes([whole[1000] ^ 1]) + whole[1001:]
    damaged = {"cut": whole[:-1], "flipped": flipped, "empty": b"", "other": gzip.compress(whole)}[damage]
    (tmp_path / "labels.xz").write_bytes(damaged)
    monkeypatch.setattr(data, "asset", lambda name: tmp_path / name.removeprefix("mnist/"))
    with pytest.raises(ValueError, match="labels.xz is damaged .*: reinstall tinyddpm"):
        data.read_idx("labels")


def test_images_are_padded_to_32_and_fill_the_range():
    digits = data.mnist(train=False)
    x, _ = digits[:50]
    assert x.shape == (50, 1, 32, 32) and x.dtype == torch.float32
    assert x.min() == -1 and x.max() == 1  # trap 24
    assert torch.equal(data.to_uint8(data.crop_to(x)), digits.images[:50])
    border = x.clone()
    border[:, :, 2:30, 2:30] = -1
    assert (border == -1).all()
    assert data.mnist(train=False, size=64)[0][0].shape == (1, 64, 64)


def test_digits_are_upright_and_not_mirrored():  # trap 25
    x, y = data.mnist(train=False).tensors()
    one, six = ((x[y == digit].mean(0)[0] + 1) / 2 for digit in (1, 6))
    assert six[16:].sum() > 1.3 * six[:16].sum()  # its loop is at the bottom
    assert one[:16, 16:].sum() > 3 * one[:16, :16].sum()  # it leans to the right


def test_every_grey_level_survives_the_round_trip():
    levels = torch.arange(256, dtype=torch.uint8)[None]
    x = data.from_uint8(levels)
    assert x.min() == -1 and x.max() == 1
    assert torch.equal(data.to_uint8(x), levels)
    assert data.to_uint8(torch.tensor([-7.0, 7.0])).tolist() == [0, 255]


def test_padding_centres_and_cropping_inverts_it():
    x = torch.rand(2, 1, 28, 27)
    padded = data.pad_to(x, 32)
    assert padded.shape == (2, 1, 32, 32) and (padded[..., :2, :] == -1).all() and (padded[..., 29:] == -1).all()
    assert torch.equal(data.crop_to(data.pad_to(x, 40), 28)[..., :27], x)


def test_labels_are_optional_and_count_the_classes():
    x = torch.zeros(3, 1, 28, 28, dtype=torch.uint8)
    assert data.ImageDataset(x, torch.tensor([0, 4, 2])).num_classes == 5
    assert data.ImageDataset(x, torch.tensor([0, 4, 2]), num_classes=7).num_classes == 7
    without = data.ImageDataset(x, None)
    assert without.num_classes is None and without.tensors()[1].tolist() == [0, 0, 0]


def test_items_come_together_as_they_come_one_by_one():
    digits = data.mnist(train=False)
    chosen = [5, 0, 9999]
    for together, alone in zip(digits.__getitems__(chosen), (digits[i] for i in chosen), strict=True):
        assert torch.equal(together[0], alone[0]) and together[1] == alone[1]


# --- files.py --------------------------------------------------------------------------------------


def test_nothing_is_left_of_a_write_that_fails(tmp_path, monkeypatch):
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def full(_):
        raise OSError("No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        files.write_whole(path, b"new")
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_a_written_file_can_be_read_by_others(tmp_path):
    files.write_whole(tmp_path / "file", b"new")
    (tmp_path / "plain").write_bytes(b"")
    assert (tmp_path / "file").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_missing_asset_is_named():
    with pytest.raises(FileNotFoundError, match="nothing.xz should ship with tinyddpm"):
        files.asset("mnist/nothing.xz")
