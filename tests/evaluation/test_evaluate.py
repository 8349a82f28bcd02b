import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from tinyddpm import DDPM, Schedule, UNet
from tinyddpm.cli.main import main
from tinyddpm.data import ImageDataset, mnist
from tinyddpm.evaluation.classifier import classify, features, load_classifier
from tinyddpm.evaluation.draw import Draw
from tinyddpm.evaluation.evaluate import Real, bits, confusion, evaluate, figures_of, samples, sweep
from tinyddpm.evaluation.metrics import label_accuracy
from tinyddpm.evaluation.report import BITS, page, save_pictures

DRAW = Draw(n=130, steps=2, scale=1.0, sampler="ddim", seed=0)


@pytest.fixture(autouse=True)
def few_real_digits(monkeypatch):
    def few(train=True):
        digits, n = mnist(train), 600 if train else 1000
        return ImageDataset(digits.images[:n], digits.labels[:n])

    monkeypatch.setattr("tinyddpm.evaluation.evaluate.mnist", few)
    monkeypatch.setattr("tinyddpm.evaluation.evaluate.STEPS", (1, 3))
    monkeypatch.setattr("tinyddpm.evaluation.evaluate.SCALES", (1.0, 2.0))
    monkeypatch.setattr("tinyddpm.evaluation.evaluate.SWEEP", 130)


def test_a_report_holds_every_figure_with_its_floor_and_every_picture(small, tmp_path):
    found = evaluate(small, tmp_path, DRAW)
    assert json.loads((tmp_path / "report.json").read_text()) == json.loads(json.dumps(found))
    for name in (
        "label_accuracy",
        "frechet_digit_distance",
        "kernel_distance",
        "inception_score",
        "precision_recall",
        "train_on_synthetic",
    ):
        assert name in found and f"floor of {name}" in found
    assert found["floor of label_accuracy"] > 0.97 > found["label_accuracy"]  # an untrained model draws blots
    assert found["frechet_digit_distance"] > 2 * found["floor of frechet_digit_distance"]
    assert sum(map(sum, found["confusion"])) == 130
    assert found["bits_per_dim"][0] > 0
    assert {"scale 1", "scale 2", "steps 1", "steps 3"} <= found.keys()
    for name in ("samples.png", "worst.png", "nearest.png", "scale.png", "steps.png"):
        assert Image.open(tmp_path / name).size[0] > 300
    text = (tmp_path / "report.md").read_text()
    assert "130 samples, 2 steps of ddim, guidance scale 1" in text and "130 real training digits" in text
    assert page(found) == text


def test_the_samples_are_those_of_their_seeds_and_labels(small, tmp_path):
    draw = Draw(n=130, steps=2, scale=2.0, sampler="ddim", seed=7)
    y = draw.labels(torch.arange(10, 0, -1))
    assert y[:5].tolist() == [3, 2, 1, 10, 9]  # seed 7 draws label 7 of the pool, seed 10 label 0
    x = draw.images(small, y % 10, tmp_path)
    alone = small.sample(y=[1], steps=2, scale=2.0, seeds=[9])
    assert (x[2] - alone[0]).abs().max() <= 1.01 / 127.5
    assert len(x) == 130 and x.unique().numel() <= 256


def test_digits_without_padding_are_measured_as_well(tmp_path):
    torch.manual_seed(0)
    ddpm = DDPM(UNet((8, 16), 1, 10, image_size=28, attention=()), Schedule.named("cosine", 50), "v", (1, 28, 28))
    found = evaluate(ddpm, tmp_path, DRAW, sweeps=False)
    assert found["bits_per_dim"][0] > 0 and 0 <= found["label_accuracy"] < 0.5
    assert found["of"]["data"] == "unknown" and "does not say what it was trained on" in page(found)
    found["of"]["data"] = "mnist"
    assert "does not say" not in page(found)


def test_samples_of_other_labels_are_other_samples(small, tmp_path):
    y = torch.arange(130) % 10
    first, other = (DRAW.images(small, labels, tmp_path) for labels in (y, (y + 1) % 10))
    assert (first - other).abs().max() > 0.1
    assert torch.equal(DRAW.images(small, y, tmp_path), first) and len(list(tmp_path.rglob("*.npy"))) == 2


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
def test_what_cannot_be_drawn_leaves_the_folder_as_it_was(small, tmp_path, wrong):
    with pytest.raises(ValueError) as refused:
        evaluate(small, tmp_path, replace(DRAW, **wrong))
    assert "something else" not in str(refused.value) and not list(tmp_path.iterdir())


def test_samples_of_another_eta_are_other_samples(small, tmp_path):
    y = torch.arange(130) % 10
    still, stirred = (replace(DRAW, eta=eta).images(small, y, tmp_path) for eta in (0.0, 0.5))
    alone = small.sample(y=[3], steps=2, seeds=[3], eta=0.5)
    assert (stirred[3] - alone[0]).abs().max() <= 1.01 / 127.5
    assert (stirred - still).abs().max() > 0.1


def test_the_samples_have_the_labels_of_the_floors_digits(small, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(Draw, "images", lambda self, ddpm, y, folder: asked.append(y) or torch.zeros(130))
    data = Real(load_classifier(), 130)
    assert torch.equal(samples(small, DRAW, data, tmp_path)[1], data.y_real)
    samples(small, replace(DRAW, seed=601), data, tmp_path)
    assert torch.equal(asked[1][:128], data.y_real[1:129])


def test_an_interrupted_evaluation_goes_on_where_it_was(small, tmp_path, monkeypatch):
    class Interrupted(Exception):
        pass

    def interrupt(*_):
        raise Interrupted

    with monkeypatch.context() as patch:
        patch.setattr("tinyddpm.evaluation.evaluate.precision_recall", interrupt)
        with pytest.raises(Interrupted):
            evaluate(small, tmp_path, DRAW, sweeps=False)
    kept = json.loads((tmp_path / "report.json").read_text())
    assert "inception_score" in kept and "precision_recall" not in kept
    kept["inception_score"] = 123.0  # what is there is not found again
    (tmp_path / "report.json").write_text(json.dumps(kept))
    monkeypatch.setattr(DDPM, "sample", interrupt)  # nor drawn again
    found = evaluate(small, tmp_path, DRAW, sweeps=False)
    assert found["inception_score"] == 123.0 and "precision_recall" in found


def test_a_model_without_labels_has_the_figures_that_need_none(tmp_path):
    torch.manual_seed(0)
    ddpm = DDPM(UNet((8, 16), attention=()), Schedule.named("cosine", 20), "v")
    found = evaluate(ddpm, tmp_path, DRAW)
    assert "frechet_digit_distance" in found and "steps 3" in found
    assert "label_accuracy" not in found and "confusion" not in found and "scale 1" not in found
    assert "read as" not in page(found)


def interrupted(*_, **__):
    raise KeyboardInterrupt


def test_another_model_or_other_samples_need_another_folder(small, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("tinyddpm.evaluation.evaluate.classify", interrupted)  # after sampling, before any figure
        with pytest.raises(KeyboardInterrupt):
            evaluate(small, tmp_path, DRAW, sweeps=False)
    assert list((tmp_path / "samples").rglob("*.npy"))
    as_eps = DDPM(small.model, small.schedule, "eps")
    for model, draw in ((as_eps, DRAW), (small, replace(DRAW, scale=1.0000001))):
        with pytest.raises(ValueError, match="reports on something else .*choose another folder"):
            evaluate(model, tmp_path, draw, sweeps=False)
    (tmp_path / "report.json").unlink()  # even then the samples of one model are never another's
    monkeypatch.setattr(DDPM, "sample", interrupted)
    with pytest.raises(KeyboardInterrupt):
        evaluate(as_eps, tmp_path, DRAW, sweeps=False)


@pytest.mark.parametrize("content", ["{}", "[1]", '{"of": '])
def test_a_damaged_report_is_named(small, tmp_path, content):
    (tmp_path / "report.json").write_text(content)
    with pytest.raises(ValueError, match="report.json is no report that can be gone on with"):
        evaluate(small, tmp_path, DRAW)


@pytest.mark.parametrize("n", [128, 10_001])
def test_too_few_and_too_many_samples_are_refused_with_the_number_needed(small, tmp_path, n):
    with pytest.raises(ValueError, match=rf"take n in 129\.\.10000, got {n}"):
        evaluate(small, tmp_path, Draw(n, 2, 1.0, "ddim", 0))


def test_models_of_other_data_are_refused(small, tmp_path):
    other = DDPM(UNet((8, 16), 3, attention=()), small.schedule, "v", (3, 32, 32))
    with pytest.raises(ValueError, match=r"this one draws images \(3, 32, 32\) of None classes"):
        evaluate(other, tmp_path, DRAW)
    small.notes["data"] = "MNIST"  # however it is written
    evaluate(small, tmp_path / "mnist", DRAW, sweeps=False)
    small.notes["data"] = "FashionMNIST"
    with pytest.raises(ValueError, match="this one was trained on FashionMNIST"):
        evaluate(small, tmp_path, DRAW)


def test_samples_that_are_nan_are_named_and_not_kept(small, tmp_path):
    with torch.no_grad():
        small.model.out[0].weight.fill_(torch.nan)
    with pytest.raises(ValueError, match=r"130 of the samples of seeds 0\.\.129 hold NaN"):
        evaluate(small, tmp_path, DRAW)
    assert not list((tmp_path / "samples").rglob("*.npy"))


def test_the_command_prints_the_report(small, tmp_path, capsys):
    small.save(tmp_path / "small.safetensors")
    ask = ["eval", str(tmp_path / "small.safetensors"), "--n", "130", "--steps", "2", "--no-sweeps"]
    assert main([*ask, "--out", str(tmp_path / "report")]) == 0
    assert "| precision, recall |" in capsys.readouterr().out
    assert np.load(next((tmp_path / "report" / "samples").rglob("*.npy"))).dtype == np.uint8
    assert main([*ask, "--steps", "3", "--out", str(tmp_path / "report")]) == 2
    assert "choose another folder" in capsys.readouterr().err


def test_the_command_says_that_an_interruption_lost_nothing(small, tmp_path, monkeypatch, capsys):
    small.save(tmp_path / "small.safetensors")
    ask = ["eval", str(tmp_path / "small.safetensors"), "--n", "130", "--steps", "2", "--no-sweeps"]
    with monkeypatch.context() as patch:
        patch.setattr("tinyddpm.evaluation.evaluate.bits", interrupted)
        assert main([*ask, "--out", str(tmp_path / "report")]) == 130
    assert f"what was found is kept in {tmp_path / 'report'}" in capsys.readouterr().err
    assert "precision_recall" in json.loads((tmp_path / "report" / "report.json").read_text())


def test_two_checkpoints_at_once_and_seeds_below_zero_are_refused(small, tmp_path, capsys):
    assert main(["eval", "a.safetensors", "--weights", "b.safetensors"]) == 2
    assert "one checkpoint at a time: got a.safetensors and --weights b.safetensors" in capsys.readouterr().err
    with pytest.raises(ValueError, match="seeds count from 0, got -1"):
        evaluate(small, tmp_path, replace(DRAW, seed=-1))


def flat(values):
    """Images of one grey each."""
    return values[:, None, None, None].expand(-1, 1, 32, 32)


def test_the_pictures_show_what_their_names_say(tmp_path, monkeypatch):
    shown = {}
    monkeypatch.setattr("tinyddpm.evaluation.report.image_grid", lambda x, **_: x[:, 0, 0, 0])
    monkeypatch.setattr(
        "tinyddpm.evaluation.report.save_picture", lambda x, path: shown.update({path.name: x.tolist()})
    )
    generator = torch.Generator().manual_seed(0)
    grey, y = torch.rand(120, generator=generator), torch.arange(120) % 10
    train, probabilities = torch.rand(30, generator=generator), torch.rand(120, 10, generator=generator)
    save_pictures(tmp_path, flat(grey), y, probabilities, flat(train))
    assert shown["samples.png"] == [grey[10 * i + digit].item() for digit in range(10) for i in range(10)]
    sure = [probabilities[i, i % 10].item() for i in range(120)]
    assert shown["worst.png"] == [grey[i].item() for i in sorted(range(120), key=sure.__getitem__)[:50]]
    near = [min((abs(a - b).item(), b.item()) for b in train) for a in grey]
    closest = sorted(range(120), key=near.__getitem__)[:20]
    assert shown["nearest.png"] == [grey[i].item() for i in closest] + [near[i][1] for i in closest]
    save_pictures(tmp_path, flat(grey), None, probabilities, flat(train))
    most = probabilities.max(1).values.tolist()
    assert shown["worst.png"] == [grey[i].item() for i in sorted(range(120), key=most.__getitem__)[:50]]


def test_confusion_has_what_was_asked_for_in_its_rows():
    read = torch.eye(3)[[1, 1, 2, 0, 2]]
    assert confusion(read, torch.tensor([0, 0, 0, 1, 2])) == [[0, 2, 1], [1, 0, 0], [0, 0, 1]]


def test_the_bound_is_of_test_digits_with_their_labels_and_the_error_on_training_digits(small, monkeypatch):
    data, asked = Real(load_classifier(), 130), {}
    monkeypatch.setattr(DDPM, "denoiser", lambda self, y: y)

    def error(y, x, schedule, generator):
        asked["error"] = y, x
        return "the error"

    def bound(y, x, schedule, grid, error, generator):
        assert schedule is small.schedule and grid is None and error == "the error"
        asked["bound"] = y, x
        return torch.arange(BITS).double()

    monkeypatch.setattr("tinyddpm.evaluation.evaluate.denoising_error", error)
    monkeypatch.setattr("tinyddpm.evaluation.evaluate.bits_per_dim", bound)
    assert bits(small, data) == (49.5, pytest.approx(2.901, abs=1e-3))  # 29.01 / 100^0.5
    y, x = asked["error"]
    assert torch.equal(y, data.y_real[:BITS]) and torch.equal(x, data.real[:BITS])
    y, x = asked["bound"]
    mine = data.order[:BITS]
    assert torch.equal(y, data.y_test[mine]) and torch.equal(x, data.test[mine])


def test_each_point_of_a_plot_is_drawn_as_it_says_beside_as_many_training_digits(small, tmp_path, monkeypatch):
    data, draws, measured, plots = Real(load_classifier(), 200), [], [], {}

    def point(ddpm, draw, *_):
        draws.append(draw)
        return {"label_accuracy": draw.scale, "frechet_digit_distance": draw.steps}

    def figures(classifier, x, y, of):
        measured.append((x, y))
        return {"label_accuracy": lambda: 0.75, "frechet_digit_distance": lambda: 0.25}

    monkeypatch.setattr("tinyddpm.evaluation.evaluate.point", point)
    monkeypatch.setattr("tinyddpm.evaluation.evaluate.figures_of", figures)
    monkeypatch.setattr(
        "tinyddpm.evaluation.evaluate.save_curves", lambda x, *rest: plots.update({rest[-1].name: (x, *rest[:-1])})
    )
    sweep(small, replace(DRAW, n=200), load_classifier(), data, Once(), tmp_path)
    assert [(draw.n, draw.scale, draw.steps) for draw in draws] == [
        (130, 1.0, 2),
        (130, 2.0, 2),
        (130, 1.0, 1),
        (130, 1.0, 3),
    ]
    floors = {"label_accuracy": 0.75, "frechet_digit_distance": 0.25}
    curves = {"label_accuracy": [1.0, 2.0], "frechet_digit_distance": [2, 2]}
    assert plots["scale.png"] == ([1.0, 2.0], curves, floors, "scale (n = 130)")
    curves = {"label_accuracy": [1.0, 1.0], "frechet_digit_distance": [1, 3]}
    assert plots["steps.png"] == ([1, 3], curves, floors, "steps (n = 130)")
    assert all(torch.equal(x, data.real[:130]) and torch.equal(y, data.y_real[:130]) for x, y in measured)


class Once(dict):
    def once(self, name, find):
        return find()


def test_figures_are_beside_as_many_test_digits_in_no_order(monkeypatch):
    data, beside = Real(load_classifier(), 600), []
    assert sorted(data.order.tolist()) == list(range(1000)) and data.order[:9].tolist() != list(range(9))
    monkeypatch.setattr("tinyddpm.evaluation.evaluate.frechet_digit_distance", lambda f, g: beside.append(g))
    for n in (130, 400):
        figures_of(load_classifier(), data.real[:n], data.y_real[:n], data)["frechet_digit_distance"]()
        assert torch.equal(beside[-1], features(load_classifier(), data.test[data.order])[:n])


def test_each_figure_is_handed_the_samples_first_and_the_test_set_beside_them(monkeypatch):
    classifier = load_classifier()
    data, asked = Real(classifier, 600), {}
    x, y = data.real[300:430], data.y_real[300:430]
    distances = ["frechet_digit_distance", "kernel_distance", "precision_recall"]
    for name in (*distances, "inception_score", "memorisation", "train_on_synthetic"):
        monkeypatch.setattr(
            f"tinyddpm.evaluation.evaluate.{name}", lambda *given, name=name: asked.update({name: given})
        )
    figures = figures_of(classifier, x, y, data)
    assert figures.pop("label_accuracy")() == label_accuracy(classifier, x, y)
    for find in figures.values():
        find()
    f, g, p = features(classifier, x), data.features[:130], classify(classifier, x)
    expected = dict.fromkeys(distances, (f, g))
    expected |= {"inception_score": (p,), "memorisation": (x, data.train, data.test)}
    expected |= {"train_on_synthetic": (x, y, data.test, data.y_test)}
    assert asked.keys() == expected.keys() == figures.keys()
    for name, given in asked.items():
        assert len(given) == len(expected[name]), name
        assert all(map(torch.equal, given, expected[name])), name
