import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from tinyddpm import DDPM, Schedule, UNet
from tinyddpm.classifier import load_classifier
from tinyddpm.cli import main
from tinyddpm.data import Images, mnist
from tinyddpm.draw import Draw
from tinyddpm.evaluate import Real, evaluate, samples
from tinyddpm.report import page

DRAW = Draw(n=130, steps=2, scale=1.0, sampler="ddim", seed=0)


@pytest.fixture(autouse=True)
def few_real_digits(monkeypatch):
    def few(train=True):
        digits = mnist(train)
        return Images(digits.images[:600], digits.labels[:600])

    monkeypatch.setattr("tinyddpm.evaluate.mnist", few)
    monkeypatch.setattr("tinyddpm.evaluate.STEPS", (1, 3))
    monkeypatch.setattr("tinyddpm.evaluate.SCALES", (1.0, 2.0))
    monkeypatch.setattr("tinyddpm.evaluate.SWEEP", 130)


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
    ddpm = DDPM(
        UNet((8, 16), 1, 10, image_size=28, attention=()), Schedule.named("cosine", 50), "v", (1, 28, 28)
    )
    found = evaluate(ddpm, tmp_path, DRAW, sweeps=False)
    assert found["bits_per_dim"][0] > 0 and 0 <= found["label_accuracy"] < 0.5


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
        patch.setattr("tinyddpm.evaluate.precision_recall", interrupt)
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
        patch.setattr("tinyddpm.evaluate.classify", interrupted)  # after sampling, before any figure
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


def test_two_checkpoints_at_once_and_seeds_below_zero_are_refused(small, tmp_path, capsys):
    assert main(["eval", "a.safetensors", "--weights", "b.safetensors"]) == 2
    assert (
        "one checkpoint at a time: got a.safetensors and --weights b.safetensors" in capsys.readouterr().err
    )
    with pytest.raises(ValueError, match="seeds count from 0, got -1"):
        evaluate(small, tmp_path, replace(DRAW, seed=-1))
