"""Which judge measures which model, beside which images, and in which words."""

import runpy
from functools import partial
from pathlib import Path

import pytest
import torch

from tinyddpm import DDPM, Schedule
from tinyddpm.data import from_uint8, mnist, to_uint8
from tinyddpm.datasets import DATASETS, load_data, resize
from tinyddpm.evaluation import (
    JUDGES,
    METRICS,
    Judge,
    Reference,
    SampleSpec,
    classify,
    evaluate,
    label_accuracy,
    load_classifier,
    reference_for,
    score,
)
from tinyddpm.evaluation.bits import bound
from tinyddpm.evaluation.judges import reduce
from tinyddpm.files import asset

from .conftest import few

ROOT = Path(__file__).parent.parent.parent
QUICK = {name: METRICS[name] for name in ("confusion", "label_accuracy", "frechet_digit_distance", "precision_recall")}


class Shrink(torch.nn.Module):
    """The smallest network of images of any size."""

    def __init__(self, num_classes=10):
        super().__init__()
        self.num_classes, self.weight = num_classes, torch.nn.Parameter(torch.tensor(0.1))
        self.arguments = {"num_classes": num_classes}

    def forward(self, x, t, y=None):
        return self.weight * x if y is None else self.weight * x + y[:, None, None, None] / 20


def model_of(data, side=32, classes=10):
    return DDPM(Shrink(classes), Schedule.named("cosine", 20), "x_0", (1, side, side), {"data": data} if data else {})


@pytest.fixture(scope="module")
def garments():
    """Any images beside which a model of garments may be measured."""
    return Reference(few(True, 600), few(False, 1000), data="fashion")


@pytest.fixture(scope="module")
def large():
    """Digits of 64x64."""
    parts = [load_data("mnist-resized", size=64, train=train) for train in (True, False)]
    for part, n in zip(parts, (600, 1000)):
        part.images, part.labels = part.images[:n], part.labels[:n]
        part.data.images, part.data.labels = part.images, part.labels
    return Reference(*parts, data="mnist-resized", size=64)


# --- the judges ------------------------------------------------------------------------------------


def test_every_judge_is_there_and_judges_a_data_set_by_name():
    assert JUDGES.keys() <= DATASETS.keys() and {"mnist", "fashion"} <= JUDGES.keys()
    for judge in JUDGES.values():
        assert judge.load().noun == judge.noun and judge.load().head.out_features == 10
        assert asset(f"weights/{judge.file}.safetensors").stat().st_size <= 1_000_000
    for a, b in zip(JUDGES["mnist"].load().parameters(), load_classifier().parameters(), strict=True):
        assert torch.equal(a, b)


def test_garments_are_read(debian):
    x, y = load_data("fashion", debian, train=False)[:3000]
    assert label_accuracy(JUDGES["fashion"].load(), x, y) >= 0.93
    assert label_accuracy(load_classifier(), x, y) < 0.3  # the judge of digits knows nothing of them


def test_what_a_judge_cannot_read_is_called_by_its_name():
    with pytest.raises(ValueError, match="garments are float32 tensors"):
        classify(JUDGES["fashion"].load(), torch.zeros(2, 1, 28, 28))


def test_garments_are_moved_by_whole_pixels_and_mirrored_half_of_the_time():
    shift_or_mirror = runpy.run_path(str(ROOT / "benchmarks" / "classifier.py"))["shift_or_mirror"]
    x = mnist()[:1][0]
    moved = shift_or_mirror(x.expand(2000, -1, -1, -1), torch.Generator().manual_seed(0), pixels=1)
    ways = {}
    for flip in (False, True):
        for down in (-1, 0, 1):
            for right in (-1, 0, 1):
                way = (x.flip(3) if flip else x).roll((down, right), (2, 3))  # the border is empty
                ways[flip, down, right] = (moved == way).flatten(1).all(1)
    shares = {way: float(found.float().mean()) for way, found in ways.items()}
    assert all(share == pytest.approx(1 / 18, abs=0.02) for share in shares.values())
    assert sum(shares.values()) == pytest.approx(1)


# --- whose samples ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["fashion", "FashionMNIST"])
def test_a_model_of_garments_is_measured_beside_garments(name, tmp_path):
    from datasets.test_named import write_idx

    write_idx(tmp_path, "fashion", n=8)
    reference = reference_for(model_of(name), tmp_path)
    x, y = load_data("fashion", tmp_path, train=True).tensors()
    x_test, y_test = load_data("fashion", tmp_path, train=False).tensors()
    assert torch.equal(reference.train, x) and torch.equal(reference.labels, y[reference.order])
    assert torch.equal(reference.test, x_test) and torch.equal(reference.test_labels, y_test)
    assert reference.classifier.noun == "garment" and reference.floor(8).probabilities.shape == (8, 10)
    assert reference_for(model_of("FashionMNIST", 28), tmp_path) is reference  # read once


def test_models_that_do_not_say_are_measured_beside_digits(reference, monkeypatch):
    asked = []
    monkeypatch.setattr("tinyddpm.evaluation.judges.load_reference", lambda *key: asked.append(key))
    for data, side in ((None, 32), ("mnist", 28), ("MNIST", 32), ("kmnist", 32), ("mnist", 64)):
        reference_for(model_of(data, side))
    reference_for(model_of("mnist-resized", 64))
    assert asked == [("mnist", 32, None)] * 5 + [("mnist-resized", 64, None)]


@pytest.mark.parametrize(
    ("data", "side", "classes"), [("kmnist", 32, 10), ("folder cats", 32, None), ("letters", 32, 26), ("mnist", 64, 10)]
)
def test_models_without_a_judge_are_refused_with_what_can_be_measured(data, side, classes, reference, tmp_path):
    ddpm = model_of(data, side, classes)
    for ask in (partial(score, ddpm, 130), partial(evaluate, ddpm, tmp_path, SampleSpec(130))):
        with pytest.raises(ValueError) as refused:
            ask(reference=reference)
        assert str(refused.value) == (
            "beside mnist only models of it can be measured, in grey and 28 or 32 pixels wide, and there are judges of "
            f"mnist, mnist-resized, fashion, got this one draws images (1, {side}, {side}) of {classes} classes and "
            f"was trained on {data}"
        )


def test_digits_are_not_measured_beside_garments_nor_garments_beside_digits(reference, garments, large):
    for data, beside in (("mnist", garments), ("FashionMNIST", reference), ("mnist", large), ("fashion", large)):
        with pytest.raises(ValueError, match=f"beside {beside.name} only models of it .* was trained on {data}"):
            score(model_of(data), 130, 1, reference=beside)
    assert score(model_of(None), 130, 1, reference=garments).distance > 0  # what is unknown may be either


def test_a_judge_of_one_s_own_is_a_row(tmp_path, monkeypatch):
    monkeypatch.setitem(JUDGES, "kmnist", Judge(Path(asset("weights/digit-classifier.safetensors")), "character"))
    beside = Reference(few(True, 600), few(False, 1000), data="kmnist")
    assert score(model_of("KMNIST"), 130, 1, reference=beside).floor_accuracy > 0.97
    with pytest.raises(ValueError, match="unknown data set with a judge 'letters': choose one of mnist, "):
        Reference(data="letters")


# --- in which words --------------------------------------------------------------------------------


def test_a_report_on_garments_speaks_of_garments(garments, tmp_path, capsys):
    spec, ddpm = SampleSpec(n=130, steps=2), model_of("FashionMNIST")
    metrics = {**QUICK, "digits_of_mine": (torch.Tensor.numel, "images")}
    found = evaluate(ddpm, tmp_path, spec, {"steps": (1,)}, metrics, garments, bits=2)
    assert found["of"]["beside"] == "fashion" and found["of"]["data"] == "FashionMNIST"
    text, said = (tmp_path / "report.md").read_text(), capsys.readouterr().err
    assert "digits_of_mine" in text and "digit" not in text.replace("digits_of_mine", "")
    assert "digit" not in said.replace("digits of mine", "") or "garments of mine" in said
    for words in (
        "![samples, ten of each garment](samples.png)", "| metric | samples | real garments |",
        "130 real training garments", "| read as the garment asked for |", "| Frechet garment distance |",
        "| bits per dimension of test garments, at most |", "(2 garments)",
    ):  # fmt: skip
        assert words in text, words
    assert "evaluating: frechet garment distance" in said
    with pytest.raises(ValueError, match="the number of garments whose bits are bounded"):
        evaluate(ddpm, tmp_path, spec, False, QUICK, garments, bits=1)
    with pytest.raises(ValueError, match=r"as many test garments as samples: take n in 129\.\.1000"):
        score(ddpm, 1001, reference=garments)


def test_a_report_on_digits_is_what_it_was(reference, tmp_path):
    found = evaluate(model_of("mnist"), tmp_path, SampleSpec(n=130, steps=1), False, QUICK, reference, bits=0)
    assert found["of"].keys() == {"weights", "data", "samples", "classifier"}
    assert "garment" not in (tmp_path / "report.md").read_text()


# --- larger digits ---------------------------------------------------------------------------------


def test_larger_digits_are_measured_as_the_classifier_knows_them(large):
    ddpm = model_of("mnist-resized", 64)
    found = score(ddpm, 130, 2, seed=3, reference=large)
    alone = ddpm.sample(found.samples.labels, steps=2, seeds=range(3, 133))
    assert alone.shape == (130, 1, 64, 64) and torch.equal(found.samples.images, reduce(alone))
    real = mnist(size=28)[:600][0]
    assert torch.equal(large.train, reduce(resize(real, 64))) and found.floor_accuracy > 0.97
    assert float(bound(ddpm, large, 2)[0]) > 0  # of digits of 64x64, not of their reductions


def test_real_digits_that_were_resized_and_reduced_are_read_as_before(large, reference):
    n, judge = 600, load_classifier()
    assert torch.equal(large.labels, reference.labels) and large.train.shape == reference.train.shape
    before, after = (label_accuracy(judge, found.train, mnist().labels[:n]) for found in (reference, large))
    assert after >= before - 0.005
    ours, floor = large.floor(n).measure(METRICS["frechet_digit_distance"]), reference.floor(n)
    assert ours < 1.5 * floor.measure(METRICS["frechet_digit_distance"])
    assert torch.equal(large.train, from_uint8(to_uint8(large.train)))


def test_smaller_and_larger_models_of_resized_digits_are_refused(large):
    for side in (28, 160):
        with pytest.raises(ValueError, match="32 to 128 pixels wide"):
            score(model_of("mnist-resized", side), 130, 1, reference=large)
