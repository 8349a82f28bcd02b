import json
import math
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from filelock import FileLock
from PIL import Image

from tinyddpm import DDPM, Schedule, UNet, ddim
from tinyddpm.data import ImageDataset, mnist, pad_to
from tinyddpm.evaluation import (
    METRICS,
    Reference,
    SampleSpec,
    classify,
    evaluate,
    features,
    frechet_digit_distance,
    kernel_distance,
    label_accuracy,
    load_classifier,
    memorisation,
    precision_recall,
    score,
    train_on_synthetic,
)
from tinyddpm.evaluation.bits import bound
from tinyddpm.evaluation.metrics import ImageBatch, confusion
from tinyddpm.evaluation.report import page, save_pictures
from tinyddpm.extensions.likelihood import bits_per_dim, denoising_error

SPEC = SampleSpec(n=130, steps=2, scale=1.0, sampler="ddim", seed=0)
QUICK = {name: METRICS[name] for name in ("label_accuracy", "frechet_digit_distance")}


@pytest.fixture
def quick(reference):
    """An evaluation of two metrics and no curves."""
    return partial(evaluate, sweeps=False, metrics=QUICK, reference=reference)


class Shrink(torch.nn.Module):
    """The smallest network that a user may bring, without `arguments`."""

    def __init__(self, num_classes=None):
        super().__init__()
        self.num_classes, self.weight = num_classes, torch.nn.Parameter(torch.tensor(0.1))

    def forward(self, x, t, y=None):
        return self.weight * x if y is None else self.weight * x + y[:, None, None, None] / 20


@pytest.fixture
def toy():
    """A model of labels that takes no time."""
    return DDPM(Shrink(10), Schedule.named("cosine", 20), "x_0")


class Interrupted(Exception):
    pass


class Refusing(DDPM):
    """A model that may not draw."""

    def sample(self, *_, **__):
        raise Interrupted


def interrupt(*_):
    raise Interrupted


# --- score -------------------------------------------------------------------------------------------


def test_a_score_is_that_of_the_public_metrics_beside_its_floors(small, reference):
    found = score(small, 130, steps=2, scale=2.0, seed=7, reference=reference)
    x, y, judge = found.samples.images, found.samples.labels, reference.classifier
    real, beside = reference.train[reference.order[:130]], reference.test[reference.test_order[:130]]
    assert found.accuracy == label_accuracy(judge, x, y)
    assert found.distance == pytest.approx(frechet_digit_distance(features(judge, x), features(judge, beside)))
    assert found.floor_accuracy == label_accuracy(judge, real, reference.labels[:130]) > 0.97
    expected = frechet_digit_distance(features(judge, real), features(judge, beside))
    assert found.floor_distance == pytest.approx(expected) and found.distance > 2 * found.floor_distance
    assert reference.floor(130) is reference.floor(130)  # measured once
    alone = pad_to(small.sample(y[2:3], steps=2, scale=2.0, seeds=[9]))  # of 256 grey values, as digits are
    assert (x[2] - alone[0]).abs().max() <= 1.01 / 127.5 and x.unique().numel() <= 256
    small_batches = score(small, 130, steps=2, scale=2.0, seed=7, batch_size=50, reference=reference)
    assert (small_batches.samples.images - x).abs().max() <= 1.01 / 127.5


def test_the_samples_have_the_labels_of_the_floors_digits(toy, reference):
    first, later = (score(toy, 130, 1, seed=seed, reference=reference).samples.labels for seed in (0, 601))
    assert torch.equal(first, reference.floor(130).labels)
    assert torch.equal(later[:128], first[1:129])  # seed 600 takes the first label again


def test_kept_samples_are_not_drawn_again_except_for_other_labels(small, reference, tmp_path):
    digits = mnist()
    other = Reference(ImageDataset(digits.images[:600], (digits.labels[:600] + 1) % 10), digits_of(reference))
    how = {"n": 130, "steps": 2, "folder": tmp_path}
    first, second = (score(small, reference=beside, **how).samples.images for beside in (reference, other))
    assert (first - second).abs().max() > 0.1 and len(list(tmp_path.glob("*.safetensors"))) == 2
    refusing = Refusing(small.model, small.schedule, "v")
    assert torch.equal(score(refusing, reference=reference, **how).samples.images, first)
    with pytest.raises(Interrupted):
        score(refusing, reference=reference, **how | {"folder": tmp_path / "elsewhere"})
    for kept in tmp_path.glob("*.safetensors"):  # damaged in any way, they are drawn again
        whole = kept.read_bytes()
        for damaged in (b"", whole[:70], whole[:-1], whole[:-1] + bytes([whole[-1] ^ 1])):
            kept.write_bytes(damaged)
            with pytest.raises(Interrupted):
                for beside in (reference, other):
                    score(refusing, reference=beside, **how)
    assert torch.equal(score(small, reference=reference, **how).samples.images, first)


def digits_of(reference):
    return ImageDataset(reference.test, reference.test_labels)


def test_test_digits_are_in_a_random_order_and_as_many_as_samples(reference):
    order = reference.test_order.tolist()
    assert sorted(order) == list(range(1000)) and order[:9] != list(range(9))
    expected = features(load_classifier(), reference.test[reference.test_order])
    for n in (130, 400):
        assert torch.equal(reference.floor(n).test_features, expected[:n])


@pytest.mark.parametrize("n", [128, 1001])
def test_too_few_and_too_many_samples_are_refused_with_the_number_needed(toy, reference, tmp_path, n):
    for ask in (partial(score, toy, n), partial(evaluate, toy, tmp_path, replace(SPEC, n=n))):
        with pytest.raises(ValueError, match=rf"take n in 129\.\.1000 and a seed from 0, got {n} and 0"):
            ask(reference=reference)
    with pytest.raises(ValueError, match="a seed from 0, got 130 and -1"):
        score(toy, 130, seed=-1, reference=reference)


def test_models_of_other_data_are_refused(toy, reference):
    other = DDPM(UNet((8, 16), 3, attention=()), toy.schedule, "x_0", (3, 32, 32))
    with pytest.raises(ValueError, match=r"this one draws images \(3, 32, 32\) of None classes"):
        score(other, 130, reference=reference)
    toy.notes["data"] = "MNIST"  # in any case
    score(toy, 130, 1, reference=reference)
    toy.notes["data"] = "FashionMNIST"
    with pytest.raises(ValueError, match="was trained on FashionMNIST"):
        score(toy, 130, reference=reference)


def test_samples_that_are_nan_are_named_and_not_kept(small, reference, tmp_path):
    with torch.no_grad():
        small.model.out[0].weight.fill_(torch.nan)
    with pytest.raises(ValueError, match=r"130 of the samples of seeds 0\.\.129 hold NaN"):
        score(small, 130, 2, reference=reference, folder=tmp_path)
    assert not list(tmp_path.iterdir())


def test_any_network_of_digits_of_28_or_32_pixels_is_measured_without_the_metrics_that_need_labels(quick, tmp_path):
    spec = replace(SPEC, sampler="predictor_corrector")
    for side in (28, 32):
        ddpm = DDPM(Shrink(), Schedule.named("cosine", 20), "x_0", (1, side, side))
        found = quick(ddpm, tmp_path / str(side), spec, sweeps={"scale": (1.0, 2.0), "steps": (1, 30)})
        assert found["frechet_digit_distance"] > 0 and found["bits_per_dim"][0] > 0
        assert found["steps 1"].keys() == {"frechet_digit_distance"} and "steps 30" not in found  # T is 20
        assert "label_accuracy" not in found and "scale 1" not in found and "read as" not in page(found)
        assert found["of"]["data"] == "unknown" and "does not say what it was trained on" in page(found)
    assert "does not say" not in page({**found, "of": {**found["of"], "data": "mnist"}})


# --- the report --------------------------------------------------------------------------------------


def test_a_report_holds_every_metric_with_its_floor_and_every_picture(toy, reference, tmp_path):
    one_epoch = (partial(train_on_synthetic, epochs=1), *METRICS["train_on_synthetic"][1:])
    metrics = {**METRICS, "train_on_synthetic": one_epoch, "mine": (torch.Tensor.numel, "images")}
    found = evaluate(toy, tmp_path, SPEC, {"scale": (1.0, 2.0), "steps": (1, 2)}, metrics, reference)
    assert json.loads((tmp_path / "report.json").read_text()) == json.loads(json.dumps(found))
    for name in metrics.keys() - {"confusion", "memorisation"}:
        assert name in found and f"floor of {name}" in found
    assert found["memorisation"].keys() == {"median", "floor_median", "smallest", "floor_smallest", "copied"}
    assert found["floor of label_accuracy"] > 0.97 > found["label_accuracy"]  # an untrained model draws blots
    assert sum(map(sum, found["confusion"])) == 130 and found["bits_per_dim"][0] > 0
    for name in ("samples.png", "worst.png", "nearest.png", "scale.png", "steps.png"):
        assert Image.open(tmp_path / name).size[0] > 300
    text = (tmp_path / "report.md").read_text()
    assert "130 samples, 2 steps of ddim, guidance scale 1" in text and "130 real training digits" in text
    assert text == f"![samples, ten of each digit](samples.png)\n\n{page(found)}"
    assert "| precision, recall |" in text and "| mine | 133120 | 133120 |" in text
    for axis, value in (("scale", 2.0), ("steps", 1)):
        alone = score(toy, **replace(SPEC, **{axis: value}).arguments(toy.schedule), reference=reference)
        assert found[f"{axis} {value:g}"] == {
            "label_accuracy": alone.accuracy,
            "frechet_digit_distance": alone.distance,
        }


@pytest.mark.parametrize(
    "wrong",
    [
        {"steps": 2000},
        {"steps": 0},
        {"sampler": "typo"},
        {"sampler": "ddpm", "eta": 0.5},
        {"eta": -1.0},
        {"scale": math.inf},
        {"scale": math.nan},
        {"spacing": "even"},
    ],
)
def test_what_cannot_be_drawn_leaves_the_folder_as_it_was(toy, quick, tmp_path, wrong):
    with pytest.raises(ValueError) as refused:
        quick(toy, tmp_path, replace(SPEC, **wrong))
    assert "something else" not in str(refused.value) and not list(tmp_path.iterdir())


def test_a_spec_names_what_score_takes(small, reference):
    spec = SampleSpec(130, 3, 2.0, "ddim", 4, eta=0.5, spacing="log-snr")
    found = score(small, **spec.arguments(small.schedule), reference=reference).samples
    how = {"sampler": partial(ddim, eta=0.5), "scale": 2.0, "grid": small.schedule.grid(3, "log-snr")}
    alone = small.sample(found.labels[:1], seeds=[4], **how)
    assert (found.images[0] - alone[0]).abs().max() <= 1.01 / 127.5
    with pytest.raises(ValueError, match="sampler with eta 'heun': choose one of ddim"):
        replace(spec, sampler="heun").arguments(small.schedule)


def test_an_interrupted_evaluation_resumes_where_it_was(toy, quick, tmp_path):
    with pytest.raises(Interrupted):
        quick(toy, tmp_path, SPEC, metrics={**QUICK, "last": (interrupt, "images")})
    kept = json.loads((tmp_path / "report.json").read_text())
    assert "frechet_digit_distance" in kept and "last" not in kept
    kept["label_accuracy"] = 0.123  # a known result is not found again
    (tmp_path / "report.json").write_text(json.dumps(kept))
    refusing = Refusing(toy.model, toy.schedule, "x_0", notes=toy.notes)  # nor drawn again
    found = quick(refusing, tmp_path, SPEC, metrics={**QUICK, "last": (torch.Tensor.numel, "images")})
    assert found["label_accuracy"] == 0.123 and found["last"] == 130 * 1024


def test_another_model_or_other_samples_need_another_folder(toy, quick, tmp_path):
    with pytest.raises(Interrupted):
        quick(toy, tmp_path, SPEC, metrics={"first": (interrupt, "images")})
    assert list((tmp_path / "samples").rglob("*.safetensors"))
    as_eps = Refusing(toy.model, toy.schedule, "eps")
    for model, spec in ((as_eps, SPEC), (toy, replace(SPEC, scale=1.0000001)), (toy, replace(SPEC, eta=0.5))):
        with pytest.raises(ValueError, match="reports on something else .*choose another folder"):
            quick(model, tmp_path, spec)
    (tmp_path / "report.json").unlink()  # even then the samples of one model are never another's
    for model, spec in ((as_eps, SPEC), (Refusing(toy.model, toy.schedule, "x_0"), replace(SPEC, eta=0.5))):
        with pytest.raises(Interrupted):
            quick(model, tmp_path, spec)


def test_one_report_is_written_by_one_evaluation_at_a_time(toy, quick, tmp_path):
    with FileLock(tmp_path / "run.lock"):
        with pytest.raises(ValueError, match="another run is active in .*: wait for it, or write to another one"):
            quick(Refusing(toy.model, toy.schedule, "x_0"), tmp_path, SPEC)
    assert not (tmp_path / "report.json").exists()
    assert quick(toy, tmp_path, SPEC)["label_accuracy"] >= 0


def test_bits_are_of_as_many_digits_as_asked_for_or_of_none(toy, quick, reference, tmp_path):
    assert "bits_per_dim" not in quick(toy, tmp_path, SPEC, bits=0)
    assert "bits per dimension" not in (tmp_path / "report.md").read_text()
    for n in (2, 3):
        assert tuple(quick(toy, tmp_path, SPEC, bits=n)["bits_per_dim"]) == bound(toy, reference, n)
        assert f"({n} digits) |" in (tmp_path / "report.md").read_text()
    assert quick(toy, tmp_path, SPEC, bits=0)["bits_per_dim"][2] == 3  # what is known stays
    for wrong in (1, -1):
        with pytest.raises(ValueError, match=f"the number of digits whose bits are bounded must be .*, got {wrong}"):
            quick(toy, tmp_path, SPEC, bits=wrong)


def test_an_evaluation_says_what_it_is_doing_once(toy, quick, tmp_path, capsys):
    quick(toy, tmp_path, SPEC, sweeps={"scale": (2.0,)}, bits=2)
    said = ["130 samples in 2 steps", "label accuracy", "floor of label accuracy", "frechet digit distance"]
    said += ["floor of frechet digit distance", "scale 2", "bits per dim"]
    assert capsys.readouterr().err.splitlines() == [f"evaluating: {what}" for what in said]
    quick(toy, tmp_path, SPEC, sweeps={"scale": (2.0,)}, bits=2)
    assert capsys.readouterr().err.splitlines() == ["evaluating: 130 samples in 2 steps"]


@pytest.mark.parametrize("content", ["{}", "[1]", '{"of": '])
def test_a_damaged_report_is_named(toy, quick, tmp_path, content):
    (tmp_path / "report.json").write_text(content)
    with pytest.raises(ValueError, match="report.json reports on something else .*choose another folder"):
        quick(toy, tmp_path, SPEC)


def flat(values):
    """Images of one grey each."""
    return values[:, None, None, None].expand(-1, 1, 32, 32)


def greys(path, columns):
    """The grey of each image of a grid, in [-1, 1]."""
    picture = torch.from_numpy(np.array(Image.open(path)))[32::64, 32::64]
    assert picture.shape[1] == columns
    return (picture.flatten() / 127.5 - 1).tolist()


def test_the_pictures_show_what_their_names_say(tmp_path):
    generator = torch.Generator().manual_seed(0)
    grey, train = ((torch.randperm(256, generator=generator)[:n] / 127.5 - 1) for n in (120, 30))
    y, p = torch.arange(120) % 10, torch.rand(120, 10, generator=generator)
    batch = ImageBatch(flat(grey), y, None, p, None, flat(train), None, None)
    save_pictures(tmp_path, batch)
    close = partial(pytest.approx, abs=1e-3)
    assert greys(tmp_path / "samples.png", 10) == close([grey[10 * i + d].item() for d in range(10) for i in range(10)])
    sure = [p[i, i % 10].item() for i in range(120)]
    assert greys(tmp_path / "worst.png", 10) == close([grey[i].item() for i in np.argsort(sure)[:50]])
    near = [min((abs(a - b).item(), b.item()) for b in train) for a in grey]
    shown = greys(tmp_path / "nearest.png", 20)
    assert [abs(a - b) for a, b in zip(shown[:20], shown[20:])] == close(sorted(d for d, _ in near)[:20])
    of = {round(a.item(), 3): b for a, (_, b) in zip(grey, near)}
    assert shown[20:] == close([of[round(a, 3)] for a in shown[:20]])
    save_pictures(tmp_path, replace(batch, labels=None))
    most = p.max(1).values.argsort()[:50]
    assert greys(tmp_path / "worst.png", 10) == close(grey[most].tolist())


def test_confusion_has_the_labels_asked_for_in_its_rows():
    read = torch.eye(3)[[1, 1, 2, 0, 2]]
    assert confusion(read, torch.tensor([0, 0, 0, 1, 2])) == [[0, 2, 1], [1, 0, 0], [0, 0, 1]]


def test_the_bound_is_of_test_digits_with_their_labels_and_the_error_on_training_digits(small, reference):
    generator, train, test = torch.Generator().manual_seed(0), reference.order[:3], reference.test_order[:3]
    y, y_test = mnist().labels[:600][train], reference.test_labels[test]
    error = denoising_error(small.denoiser(y), reference.train[train], small.schedule, None, generator)
    expected = bits_per_dim(small.denoiser(y_test), reference.test[test], small.schedule, None, error, generator)
    assert bound(small, reference, 3) == pytest.approx((float(expected.mean()), float(expected.std() / 3**0.5), 3))


def test_each_metric_is_given_the_samples_first_and_the_test_set_beside_them(reference):
    x, y = reference.train[300:430], reference.labels[:130]
    batch, judge = reference.batch(x, y), reference.classifier
    f, g, p = features(judge, x), reference.test_features[:130], classify(judge, x)
    assert torch.equal(batch.features, f) and torch.equal(batch.probabilities, p)
    expected = {
        "label_accuracy": label_accuracy(judge, x, y),
        "frechet_digit_distance": frechet_digit_distance(f, g),
        "kernel_distance": kernel_distance(f, g),
        "precision_recall": precision_recall(f, g),
        "memorisation": memorisation(x, reference.train, reference.test),
    }
    assert {name: batch.measure(METRICS[name]) for name in expected} == expected
    assert METRICS["train_on_synthetic"][1:] == ("images", "labels", "test", "test_labels")
    assert batch.test is reference.test and batch.test_labels is reference.test_labels
