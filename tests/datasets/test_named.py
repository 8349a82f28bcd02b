"""Each data set in its own format, made here in small; FashionMNIST's own files where Debian put them."""

import gzip
import hashlib
import io
import pickle
import tarfile

import pytest
import torch
from filelock import FileLock, Timeout

from tinyddpm import data
from tinyddpm.datasets import DATASETS, as_data, load_data
from tinyddpm.datasets.named import cache_dir, torchvision_datasets

FOLDERS = {"fashion": "FashionMNIST", "kmnist": "KMNIST", "letters": "EMNIST"}


def idx(x):
    """IDX: two zeros, 8 for bytes, the number of axes, each axis as four bytes, then the bytes."""
    return bytes([0, 0, 8, x.ndim]) + b"".join(n.to_bytes(4, "big") for n in x.shape) + x.numpy().tobytes()


def write_idx(root, name, packed=False, n=6):
    raw = root / FOLDERS[name] / "raw"
    raw.mkdir(parents=True)
    generator = torch.Generator().manual_seed(0)
    for part in ("train", "t10k"):
        images = torch.randint(0, 256, (n, 28, 28), dtype=torch.uint8, generator=generator)
        labels = torch.arange(n, dtype=torch.uint8) + (name == "letters")
        prefix = f"emnist-letters-{part.replace('t10k', 'test')}" if name == "letters" else part
        for what, x in (("images-idx3", images), ("labels-idx1", labels)):
            path = raw / f"{prefix}-{what}-ubyte{'.gz' if packed else ''}"
            path.write_bytes(gzip.compress(idx(x)) if packed else idx(x))
        if part == "train":
            first = images
    return first


@pytest.fixture
def no_network(monkeypatch):
    """torchvision's sources are where nobody answers."""
    monkeypatch.setenv("no_proxy", "*")
    datasets = torchvision_datasets()
    for name in ("FashionMNIST", "KMNIST"):
        monkeypatch.setattr(getattr(datasets, name), "mirrors", ["http://127.0.0.1:9/"])
    monkeypatch.setattr(datasets.EMNIST, "url", "http://127.0.0.1:9/gzip.zip")
    monkeypatch.setattr(datasets.CIFAR10, "url", "http://127.0.0.1:9/cifar-10-python.tar.gz")


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("name", FOLDERS)
def test_files_put_there_by_hand_are_read_packed_or_not(tmp_path, name, packed, no_network):
    raw = write_idx(tmp_path, name, packed)
    found, test = load_data(name, tmp_path), load_data(name, tmp_path, train=False)
    upright = raw.transpose(1, 2) if name == "letters" else raw
    x = torch.stack([image for image, _ in found])
    assert torch.equal(data.to_uint8(data.crop_to(x[:, 0])), upright) and x.shape == (6, 1, 32, 32)
    assert [int(label) for _, label in found] == list(range(6))
    assert (found.name, found.channels, found.size) == (name, 1, 32)
    assert found.num_classes == (26 if name == "letters" else 10)
    assert len(test) == 6 and not torch.equal(test[0][0], found[0][0])


def test_letters_lie_in_their_files_and_stand_here(tmp_path):
    write_idx(tmp_path, "letters")
    bar = torch.zeros(6, 28, 28, dtype=torch.uint8)
    bar[:, 3] = 255  # a row, high up: a column, far left
    (tmp_path / "EMNIST" / "raw" / "emnist-letters-train-images-idx3-ubyte").write_bytes(idx(bar))
    x = load_data("letters", tmp_path, size=28)[0][0][0]
    assert (x[:, 3] == 1).all() and (x == 1).sum() == 28


def write_cifar(root, monkeypatch, n=4):
    """CIFAR10's archive: pickled dicts whose rows are red, green, blue. torchvision knows their sums."""
    CIFAR10 = torchvision_datasets().CIFAR10
    x = torch.randint(0, 256, (n, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    batch = {"data": x.reshape(n, -1).numpy(), "labels": list(range(n))}
    files = {"data_batch_1": batch, "test_batch": batch, "batches.meta": {"label_names": list("abcd")}}
    files = {name: pickle.dumps(content) for name, content in files.items()}
    sums = {name: hashlib.md5(content).hexdigest() for name, content in files.items()}
    archive = root / CIFAR10.filename
    with tarfile.open(archive, "w:gz") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(f"{CIFAR10.base_folder}/{name}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    monkeypatch.setattr(CIFAR10, "train_list", [["data_batch_1", sums["data_batch_1"]]])
    monkeypatch.setattr(CIFAR10, "test_list", [["test_batch", sums["test_batch"]]])
    monkeypatch.setattr(CIFAR10, "meta", {**CIFAR10.meta, "md5": sums["batches.meta"]})
    monkeypatch.setattr(CIFAR10, "tgz_md5", hashlib.md5(archive.read_bytes()).hexdigest())
    return x


def test_cifar_comes_in_colours_from_its_archive(tmp_path, monkeypatch, no_network):
    wanted = write_cifar(tmp_path, monkeypatch)
    for found in (load_data("cifar10", tmp_path), load_data("cifar10", tmp_path, train=False)):
        assert torch.equal(data.to_uint8(torch.stack([x for x, _ in found])), wanted)
        assert (found.name, found.channels, found.size, found.num_classes) == ("cifar10", 3, 32, 10)
        assert [int(label) for _, label in found] == [0, 1, 2, 3]
    padded = load_data("cifar10", tmp_path, 64)[0][0]
    assert torch.equal(data.to_uint8(padded[:, 16:48, 16:48]), wanted[0]) and padded[0, 0, 0] == -1


def test_the_digits_in_the_box_come_by_name():
    found = load_data("mnist", train=False)
    assert (found.name, found.channels, found.size, found.num_classes) == ("mnist", 1, 32, 10)
    assert len(found) == 10_000 and load_data("mnist", size=64)[0][0].shape == (1, 64, 64)


FILES = {
    "fashion": ("FashionMNIST/raw", "train-images-idx3-ubyte.gz, .*t10k-labels-idx1-ubyte.gz"),
    "kmnist": ("KMNIST/raw", "train-images-idx3-ubyte.gz, .*t10k-labels-idx1-ubyte.gz"),
    "letters": ("EMNIST/raw", "emnist-letters-train-images-idx3-ubyte.gz, .*letters-test-labels.*"),
    "cifar10": ("", "cifar-10-python.tar.gz"),
}


KINDS = {**FOLDERS, "fashion": "FashionMNIST", "kmnist": "KMNIST", "cifar10": "CIFAR10"}


@pytest.mark.parametrize("name", FILES)
def test_a_download_that_fails_says_which_files_to_put_where(tmp_path, name, no_network):
    folder, files = FILES[name]
    wanted = rf"^{KINDS[name]} can be neither read nor downloaded .*Connection refused.*: put {files} into "
    wanted += f"{tmp_path / folder} by hand"
    with pytest.raises(ValueError, match=wanted) as caught:
        load_data(name, tmp_path)
    assert "\n" not in str(caught.value)


def test_a_damaged_file_says_so_too(tmp_path, no_network):
    write_idx(tmp_path, "fashion")
    path = tmp_path / "FashionMNIST" / "raw" / "train-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match="invalid for input .*by hand, replacing what is there"):
        load_data("fashion", tmp_path)
    (path.parent / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(b"x" * 100)[:-9])
    path.unlink()
    with pytest.raises(ValueError, match="Connection refused"):
        load_data("fashion", tmp_path)


def test_one_process_downloads_and_the_others_wait(tmp_path, monkeypatch):
    locks = []

    class Fashion:
        def __init__(self, root, train, download=False):
            if not download:
                raise RuntimeError("Dataset not found")
            with pytest.raises(Timeout):
                FileLock(root / "FashionMNIST" / "raw" / "download.lock").acquire(timeout=0)
            locks.append(train)
            self.data, self.targets = torch.zeros(2, 28, 28, dtype=torch.uint8), torch.tensor([0, 1])

    monkeypatch.setattr(torchvision_datasets(), "FashionMNIST", Fashion)
    assert len(load_data("fashion", tmp_path)) == 2 and locks == [True]


def test_a_folder_of_files_that_takes_none_is_enough(tmp_path):
    write_idx(tmp_path, "fashion")
    folders = [tmp_path, tmp_path / "FashionMNIST", tmp_path / "FashionMNIST" / "raw"]
    before = [sorted(folder.iterdir()) for folder in folders]
    load_data("fashion", tmp_path)
    assert [sorted(folder.iterdir()) for folder in folders] == before  # nothing was written


@pytest.mark.parametrize(
    ("name", "size", "message"),
    [
        ("cifar100", None, f"unknown data set 'cifar100': choose one of {', '.join(DATASETS)}"),
        ("fashion", 27, "fashion comes in sizes from 28 to 128, got 27"),
        ("cifar10", 28, "cifar10 comes in sizes from 32 to 128, got 28"),
        ("folder", 129, "folder comes in sizes from 8 to 128, got 129"),
        ("mnist", 0, "mnist comes in sizes from 28 to 128, got 0"),
    ],
)
def test_names_and_sizes_that_there_are_not_are_refused(name, size, message):
    with pytest.raises(ValueError, match=message):
        load_data(name, "nowhere", size)


def test_fashion_is_read_from_the_files_of_debian(debian, no_network):
    found, test = load_data("fashion", debian), load_data("fashion", debian, train=False)
    assert (len(found), len(test), found.num_classes) == (60_000, 10_000, 10)
    assert found.labels.bincount().tolist() == [6000] * 10
    assert found.images.double().mean() / 255 == pytest.approx(0.2860, abs=1e-4)  # published
    x, y = zip(*found.__getitems__(list(range(100))))
    x = torch.stack(x)
    assert x.shape == (100, 1, 32, 32) and x.min() == -1 and x.max() == 1
    assert found.images.dtype == torch.uint8


def test_any_data_of_torchvision_can_be_taken(debian):
    load_data("fashion", debian)  # unpacks
    plain = torchvision_datasets().FashionMNIST(debian, train=False)
    found, taken = load_data("fashion", debian, train=False), as_data(plain, size=32)
    assert torch.equal(taken[123][0], found[123][0]) and taken[123][1] == found[123][1]
    assert taken.num_classes == 10


def test_the_cache_folder_can_be_chosen(tmp_path, monkeypatch):
    monkeypatch.setenv("TINYDDPM_CACHE", str(tmp_path / "here"))
    assert cache_dir() == tmp_path / "here"
    monkeypatch.delenv("TINYDDPM_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert cache_dir() == tmp_path / "cache" / "tinyddpm"
