"""The judge of any generator's samples: what it accepts, what it measures, and what it refuses."""

import json
import math
import pickle
import sys
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image

from tinyddpm.cli.main import main
from tinyddpm.data import crop_to, from_uint8, pad_to, to_uint8
from tinyddpm.evaluation import JUDGES, METRICS, Reference, coverage, features, judge, precision_recall, read_samples
from tinyddpm.evaluation.judge import JUDGED, as_samples, compared, reference_of
from tinyddpm.evaluation.report import page

from .conftest import few

N, MODULE = 130, sys.modules["tinyddpm.evaluation.judge"]  # the package has a function of this name
CHEAP = {name: metric for name, metric in JUDGED.items() if name != "train_on_synthetic"}
QUICK = {name: JUDGED[name] for name in ("label_accuracy", "frechet_digit_distance", "coverage")}


@pytest.fixture(scope="module")
def digits():
    """Pixels (n, 28, 28) of training digits and their labels, as arrays."""
    data = few(True, N)
    return data.images[:, 0].numpy(), data.labels.numpy()


# --- coverage ----------------------------------------------------------------------------------------


def test_coverage_counts_the_real_points_that_have_a_sample_within_their_ball():
    real = torch.tensor([[0.0], [1.0], [3.0], [6.0]])  # first neighbours at 1, 1, 2, 3; second at 3, 2, 3, 5
    assert coverage(torch.tensor([[-1.5], [4.9], [20.0]]), real, k=1) == 0.5  # within 2 of 3 and 3 of 6
    assert coverage(torch.tensor([[-1.5], [40.0], [50.0]]), real, k=2) == 0.25  # within 3 of 0
    assert coverage(real, real, k=1) == 1 and coverage(real + 99, real, k=1) == 0


def test_coverage_of_one_distribution_is_the_closed_form():
    """The chance that the k nearest to a real point, among real ones and samples, are all real."""
    m, n, k = 400, 300, 5
    expected = 1 - math.prod((n - 1 - i) / (m + n - 1 - i) for i in range(k))
    draw = torch.Generator().manual_seed(0)
    found = [coverage(*(torch.randn(size, 3, generator=draw) for size in (m, n)), chunk=77) for _ in range(20)]
    assert sum(found) / len(found) == pytest.approx(expected, abs=0.006)


def test_coverage_refuses_what_it_cannot_measure():
    with pytest.raises(ValueError, match="the number of neighbours k must be at least 1, got 0"):
        coverage(torch.zeros(9, 2), torch.zeros(9, 2), k=0)
    with pytest.raises(ValueError, match="at least 6 images a side"):
        coverage(torch.zeros(9, 2), torch.zeros(5, 2))


# --- what is measured --------------------------------------------------------------------------------


def test_each_figure_is_that_of_the_public_metric_beside_its_floor(digits, reference):
    found = judge(*digits, reference, CHEAP)
    x, y = as_samples(*digits, reference)
    ours = features(reference.classifier, x)
    beside = reference.test[reference.test_order[:N]]
    assert found["precision_recall"] == precision_recall(ours, features(reference.classifier, beside))
    assert found["coverage"] == coverage(ours, features(reference.classifier, beside))
    floor = reference.floor(N)
    for name in ("label_accuracy", "frechet_digit_distance", "precision_recall", "coverage"):
        assert found[f"floor of {name}"] == floor.measure(JUDGED[name])
    assert found["memorisation"]["copied"] == 1.0  # they are training digits
    assert {name.removeprefix("floor of ") for name in found} == {"of", *CHEAP}
    assert found["of"]["samples"]["n"] == N and found["of"]["data"] == "mnist"


def test_noise_and_wrong_labels_are_told_from_digits(digits, reference):
    noise = np.random.default_rng(0).integers(0, 256, (N, 28, 28), dtype=np.uint8)
    real, bad = judge(*digits, reference, QUICK), judge(noise, digits[1], reference, QUICK)
    assert bad["frechet_digit_distance"] > 20 * real["frechet_digit_distance"] and bad["coverage"] < 0.1
    wrong = judge(digits[0], (digits[1] + 1) % 10, reference, QUICK)
    assert real["label_accuracy"] > 0.97 and wrong["label_accuracy"] < 0.05
    assert wrong["frechet_digit_distance"] == real["frechet_digit_distance"]


def test_a_file_sorted_by_label_is_judged_in_a_random_order(digits, reference):
    order = digits[1].argsort()
    x, y = as_samples(digits[0][order], digits[1][order], reference)
    assert len(y[: N // 10].unique()) > 4 and sorted(y.tolist()) == sorted(digits[1])
    of = {image.tobytes(): label for image, label in zip(*digits)}
    assert all(of[crop_to(to_uint8(image)).numpy().tobytes()] == label for image, label in zip(x[:, 0], y))
    some, _ = as_samples(np.tile(digits[0], (2, 1, 1)), None, reference, n=N + 5)
    assert len(some) == N + 5


def test_samples_without_labels_are_measured_by_what_needs_none(digits, reference):
    found = judge(digits[0], None, reference, QUICK | {"confusion": METRICS["confusion"]})
    assert found.keys() == {"of"} | {
        f"{p}{m}" for p in ("", "floor of ") for m in ("frechet_digit_distance", "coverage")
    }
    assert "130 digits of samples, without labels.\nBeside them: 130 real training digits." in page(found)
    assert "| coverage of test digits |" in page(found) and "asked for" not in page(found)


def test_a_classifier_is_trained_on_the_samples_and_one_on_as_many_real_ones(digits, reference, monkeypatch):
    trained, row = [], JUDGED["train_on_synthetic"]
    took = {"train_on_synthetic": (lambda x, y, *test: trained.append((len(x), len(y), *test)), *row[1:])}
    judge(*digits, reference, took)
    assert [(a, b) for a, b, *_ in trained] == [(N, N)] * 2
    assert all(x is reference.test and y is reference.test_labels for _, _, x, y in trained)
    names = [name for name, _ in compared(reference.floor(N), reference.floor(N), JUDGED)]
    assert {"train_on_synthetic", "floor of train_on_synthetic"} <= set(names)


def test_garments_are_called_so_and_larger_digits_are_measured(digits, monkeypatch):
    garments = Reference(few(True, 600), few(False, 1000), data="fashion")
    text = page(judge(*digits, garments, QUICK))
    assert "130 garments of samples, with labels." in text and "digit" not in text
    asked = []
    monkeypatch.setattr(MODULE, "load_reference", lambda *key: asked.append(key))
    for side, data in ((28, "mnist"), (64, "mnist"), (64, "mnist-resized"), (28, "fashion")):
        reference_of(np.zeros((3, 1, side, side)), data)
    assert asked == [(*pair, None) for pair in (("mnist", 32), ("mnist", 32), ("mnist-resized", 64), ("fashion", 32))]
    with pytest.raises(ValueError, match="unknown data set with a judge 'letters'"):
        reference_of(np.zeros((3, 28, 28)), "letters")


# --- what is accepted --------------------------------------------------------------------------------


def test_every_accepted_form_is_the_same_images(digits, reference):
    pixels, padded = digits[0], to_uint8(pad_to(from_uint8(torch.from_numpy(digits[0])))).numpy()
    expected, y = as_samples(pixels, digits[1], reference)
    assert expected.shape == (N, 1, 32, 32) and expected.min() == -1 and y.dtype == torch.int64
    forms = [pixels[:, None], pixels[..., None], np.repeat(pixels[:, None], 3, 1), np.repeat(pixels[..., None], 3, 3)]
    forms += [padded, padded[:, None], torch.from_numpy(padded)]
    for whole in (pixels, padded):
        forms += [whole / 255, (whole / 255).astype(np.float32), whole / 127.5 - 1, (whole / 127.5 - 1).astype(">f4")]
    assert all(torch.equal(as_samples(form, digits[1], reference)[0], expected) for form in forms)
    for kind in ("u1", "u2", "i4", ">i8"):
        assert torch.equal(as_samples(pixels, digits[1].astype(kind), reference)[1], y)


@pytest.mark.parametrize("names", [("images", "labels"), ("x", "y"), ("arr_0", "arr_1"), ("images", None)])
def test_an_archive_is_read_by_its_names(digits, tmp_path, names):
    np.savez_compressed(tmp_path / "a.npz", **{name: part for name, part in zip(names, digits) if name}, other=[1])
    images, labels = read_samples(tmp_path / "a.npz")
    assert np.array_equal(images, digits[0])
    assert labels is None if names[1] is None else np.array_equal(labels, digits[1])


def write_folder(root, digits, name):
    for i, (image, label) in enumerate(zip(*digits)):
        path = root / name.format(i=i, label=label)
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).convert("RGB" if i % 2 else "L").save(path)


@pytest.mark.parametrize("name", ["{label}/{i}.png", "{label}_digit/{i}.png", "{label}_{i:04}.png", "{label}-{i}.png"])
def test_a_folder_has_the_labels_of_its_names(digits, tmp_path, name):
    some = [part[digits[1] > 3][:20] for part in digits]  # the place of a folder among folders is not its label
    write_folder(tmp_path, some, name)
    images, labels = read_samples(tmp_path)
    assert images.shape[2:] == (28, 28) and images.dtype == np.uint8
    found = sorted((label, image[0].tobytes()) for image, label in zip(images, labels))
    assert found == sorted((label, image.tobytes()) for image, label in zip(*some))  # not resized


@pytest.mark.parametrize("name", ["{i}.png", "{i:05}.png", "sample_{label}_{i}.png", "all/{i}.png"])
def test_a_folder_that_only_counts_has_no_labels(digits, tmp_path, name):
    write_folder(tmp_path, (digits[0][:12], digits[1][:12]), name)
    images, labels = read_samples(tmp_path)
    assert len(images) == 12 and labels is None


# --- what is refused ---------------------------------------------------------------------------------


def spoilt(x, value):
    x = x.copy()
    x[3, 4, 5] = value
    return x


BAD = [
    (lambda x, y: (x[:, :27], y), r"h = w in \(28, 32\), got shape \(130, 27, 28\)"),
    (lambda x, y: (x[:, 2:, 2:], y), r"got shape \(130, 26, 26\)"),
    (lambda x, y: (x[0], y), r"got shape \(28, 28\)"),
    (lambda x, y: (x[:0], y[:0]), r"got shape \(0, 28, 28\)"),
    (lambda x, y: (np.stack([x, x], 1), y), r"1 or 3 channels c and .* got shape \(130, 2, 28, 28\)"),
    (lambda x, y: (np.stack([x, x, x // 2], 1), y), "digits are grey, got channels that differ"),
    (lambda x, y: (x.astype(np.int64), y), "digits are uint8 or floats, got int64"),
    (lambda x, y: (x.astype("U"), y), "digits are uint8 or floats, got <U"),
    (lambda x, y: (x.astype(float), y), r"black at the lowest value, got torch.float32 in \[0, 255\]: scale them"),
    (lambda x, y: (x / 255 - 0.5, y), r"in \[-0.5, 0.5\]: scale them"),
    (lambda x, y: (spoilt(x / 255, -0.01), y), r"in \[-0.01, 1\]: scale them, or clip what lies outside"),
    (lambda x, y: (spoilt(x / 127.5 - 1, 1.2), y), r"in \[-1, 1.2\]"),
    (lambda x, y: ((x > 99).astype(np.uint8), y), r"torch.uint8 in \[0, 1\]"),
    (lambda x, y: (255 - x, y), "digits are light on black, got a background of 255 of 255: invert them"),
    (lambda x, y: (spoilt(x / 255, np.nan), y), "digits are finite, got 1 of 130 with NaN or infinite values"),
    (lambda x, y: (spoilt(x / 255, -np.inf), y), "1 of 130 with NaN or infinite"),
    (lambda x, y: (x[:128], y[:128]), r"a judge takes 129\.\.1000 images, .* got 128 of 128: judge more"),
    (lambda x, y: (np.tile(x, (8, 1, 1)), None), r"got 1040 of 1040: judge some of them, with n=1000 \(--n 1000\)"),
    (
        lambda x, y: (x, y[:-1]),
        r"an integer label in 0\.\.9 for each of 130 images, got int64 of shape \(129,\) from 0 to",
    ),
    (lambda x, y: (x, y[:, None]), r"for each of 130 images, got int64 of shape \(130, 1\)"),
    (lambda x, y: (x, y[:0]), r"for each of 130 images, got int64 of shape \(0,\)"),
    (lambda x, y: (x, y + 1), "from 1 to 10"),
    (lambda x, y: (x, y - 1), "from -1 to 8"),
    (lambda x, y: (x, y / 2), r"got float64 of shape \(130,\)"),
    (lambda x, y: (x, y > 4), r"got bool of shape \(130,\)"),
    (lambda x, y: (x, np.array(["seven"] * N)), r"got <U5 of shape \(130,\)"),
]


@pytest.mark.parametrize(("change", "message"), BAD, ids=[message for _, message in BAD])
def test_samples_that_cannot_be_judged_are_refused_in_a_sentence(change, message, digits, reference):
    with pytest.raises(ValueError, match=message) as refused:
        judge(*change(*digits), reference, QUICK)
    assert "\n" not in str(refused.value)


def test_more_images_than_there_are_cannot_be_judged(digits, reference):
    with pytest.raises(ValueError, match="got 500 of 130: judge more"):
        judge(*digits, reference, QUICK, n=500)
    with pytest.raises(ValueError, match="got 5 of 130: judge more"):
        judge(*digits, reference, QUICK, n=5)


class Trap:
    """Unpickled, it leaves a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_files_that_are_no_samples_are_refused_and_nothing_is_unpickled(digits, tmp_path):
    sprung = tmp_path / "sprung"
    (tmp_path / "text.npz").write_text("no archive")
    (tmp_path / "empty.npz").write_bytes(b"")
    (tmp_path / "pickle.npz").write_bytes(pickle.dumps(Trap(sprung)))
    np.save(tmp_path / "array.npy", digits[0])
    np.savez(tmp_path / "objects.npz", images=np.array([Trap(sprung)] * N, dtype=object))
    np.savez(tmp_path / "nameless.npz", pictures=digits[0])
    np.savez(tmp_path / "whole.npz", images=digits[0])
    with zipfile.ZipFile(tmp_path / "other.npz", "w") as file:
        file.writestr("images.npy", b"\x93NUMPY no array")
    whole = (tmp_path / "whole.npz").read_bytes()
    (tmp_path / "damaged.npz").write_bytes(whole[:500] + bytes([whole[500] ^ 1]) + whole[501:])
    for name, message in {
        "none.npz": "expected an .npz archive or a folder of images, got .*none.npz, which does not exist",
        "text.npz": "text.npz, which is no archive", "empty.npz": "which is no archive",
        "pickle.npz": "which is no archive", "array.npy": "which is no archive",
        "objects.npz": "objects.npz cannot be read as samples: Object arrays cannot be loaded when allow_pickle=False",
        "nameless.npz": r"cannot be read as samples: expected images under one of images, x, arr_0, got \['pictures'\]",
        "other.npz": "other.npz cannot be read as samples: ", "damaged.npz": "damaged.npz cannot be read as samples: ",
    }.items():  # fmt: skip
        with pytest.raises(ValueError, match=message):
            read_samples(tmp_path / name)
    assert not sprung.exists()


def test_folders_that_are_no_samples_are_refused(digits, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="expected a folder .* of images"):
        read_samples(tmp_path / "empty")
    write_folder(tmp_path / "mixed", (digits[0][:2], digits[1][:2]), "{i}.png")
    Image.fromarray(digits[0][0]).resize((30, 30)).save(tmp_path / "mixed" / "large.png")
    with pytest.raises(ValueError, match="mixed are square and of one size, got .*30, 30"):
        read_samples(tmp_path / "mixed")
    (tmp_path / "mixed" / "large.png").write_text("no picture")
    with pytest.raises(ValueError, match="large.png cannot be read as an image"):
        read_samples(tmp_path / "mixed")
    assert len(read_samples(tmp_path / "mixed", skip_broken=True)[0]) == 2


# --- the command -------------------------------------------------------------------------------------


def test_the_command_prints_and_writes_what_it_finds(digits, reference, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(MODULE, "load_reference", lambda *key: reference)
    monkeypatch.chdir(tmp_path)
    np.savez("a.npz", x=digits[0], y=digits[1])
    assert main(["judge", "a.npz", "--no-train", "--out", "judged.md"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("130 digits of a.npz, with labels.\nBeside them: 130 real training digits.")
    assert said == (tmp_path / "judged.md").read_text() + "this is in judged.md\n"
    for row in ("read as the digit", "Frechet digit distance", "precision, recall", "coverage of", "nearer to a"):
        assert f"| {row}" in said
    assert "a classifier trained on them" not in said
    assert main(["judge", "a.npz", "--no-train", "--n", "129", "--out", "judged.json"]) == 0
    found = json.loads((tmp_path / "judged.json").read_text())
    assert found["of"]["samples"]["n"] == 129 and found["coverage"] > 0.8
    capsys.readouterr()
    for words, message in (
        ("none.npz", "does not exist"),
        ("a.npz --out x.png", ".md or .json"),
        ("a.npz --n 9", "9 of"),
    ):
        assert main(["judge", *words.split(), "--no-train"]) == 2
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1


def test_the_choices_are_the_judges():
    from typing import get_args

    from tinyddpm.cli.judge import JudgedName

    assert list(get_args(JudgedName)) == list(JUDGES)
