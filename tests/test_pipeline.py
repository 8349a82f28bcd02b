import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from tinyddpm import DDPM, Schedule, UNet, data, load_pretrained, make_denoiser
from tinyddpm.files import read_checkpoint
from tinyddpm.pipeline import find_device
from tinyddpm.trainer.recipes import RECIPES


@pytest.fixture(scope="module")
def pretrained():
    return load_pretrained()


def test_sample_draws_what_the_readme_shows(pretrained):
    x = pretrained.sample(y=[3, 1, 4], steps=20, scale=1.5, seeds=[0, 1, 2])
    assert x.shape == (3, 1, 32, 32) and x.dtype == torch.float32
    assert -1 <= x.min() < -0.99 and 0.9 < x.max() <= 1


@pytest.mark.parametrize("sampler", ["ddim", "ddpm"])
def test_an_image_depends_on_its_seed_and_not_on_its_batch(small, sampler):
    together = small.sample(y=[3, 1, 4], steps=5, sampler=sampler, seeds=[7, 8, 9], scale=2)
    alone = small.sample(y=[1], steps=5, sampler=sampler, seeds=[8], scale=2)
    torch.testing.assert_close(together[1:2], alone, atol=1e-5, rtol=0)
    other = small.sample(y=[1], steps=5, sampler=sampler, seeds=[9], scale=2)
    assert (alone - other).abs().max() > 0.1


def test_eta_leads_from_ddim_to_ddpm(small):
    ask = dict(y=[3, 1], steps=5, seeds=[0, 1])
    images = [small.sample(**ask, eta=eta) for eta in (0.0, 0.5, 1.0)]
    assert torch.equal(images[0], small.sample(**ask))
    torch.testing.assert_close(images[2], small.sample(**ask, sampler="ddpm"), atol=1e-4, rtol=0)
    assert (images[1] - images[0]).abs().max() > 0.1 < (images[1] - images[2]).abs().max()


def test_seeds_are_drawn_where_none_are_given(small):
    a, b = small.sample(y=[1, 1], steps=2), small.sample(y=[1, 1], steps=2)
    assert not torch.equal(a[0], a[1]) and not torch.equal(a, b)
    torch.manual_seed(3)
    a = small.sample(y=[1], steps=2)
    torch.manual_seed(3)
    assert torch.equal(a, small.sample(y=[1], steps=2))


def test_scale_one_is_the_conditional_and_zero_the_unconditional_model(small):
    conditional = make_denoiser(small.model, small.schedule, "v", torch.tensor([5]))
    unconditional = make_denoiser(small.model, small.schedule, "v", torch.tensor([10]))
    x, t = torch.randn(1, 1, 32, 32), torch.tensor([40])
    with torch.no_grad():
        for scale, plain in [(1.0, conditional), (0.0, unconditional)]:
            assert torch.equal(small.denoiser(torch.tensor([5]), scale)(x, t), plain(x, t).clamp(-1, 1))


def test_sampling_without_labels_is_the_null_class(small):
    x = small.sample(n=2, steps=3, seeds=[0, 1])
    torch.testing.assert_close(x, small.sample(y=[4, 7], steps=3, scale=0, seeds=[0, 1]))


def test_the_callback_sees_every_step_and_the_generator_yields_them(small):
    seen = []
    x = small.sample(y=[2], steps=7, seeds=[0], callback=seen.append)
    steps = list(small.sample_steps(y=[2], steps=7, seeds=[0]))
    assert [step.t for step in seen] == [step.t for step in steps]
    assert len(steps) == 8 and steps[0].t == 50 and steps[-1].t == 0
    assert torch.equal(x, steps[-1].x_t) and torch.equal(seen[3].x_0_hat, steps[3].x_0_hat)


def test_one_label_may_come_bare(small):
    torch.testing.assert_close(small.sample(y=3, steps=2, seeds=[0]), small.sample(y=[3], steps=2, seeds=[0]))


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (dict(y=[0, 10]), r"labels must be in 0..9, got \[10\]"),
        (dict(y=[-1]), r"labels must be in 0..9, got \[-1\]"),
        (dict(y=[0.5]), "labels are one integer an image, got torch.float32"),
        (dict(y=[[1, 2]]), r"labels are one integer an image, got torch.int64 of shape \(1, 2\)"),
        (dict(y=[1, 2], seeds=[0]), "one seed an image: got 1 seeds for 2 images"),
        (dict(y=[1], n=2), r"y says already how many to draw: .* y=\[7\] \* 4"),
        (dict(y=["a"]), r"labels are one integer an image, got \['a'\]"),
        (dict(), "say what to draw"),
        (dict(y=[]), "the number of images must be at least 1, got 0"),
        (dict(n=0), "the number of images must be at least 1, got 0"),
        (dict(y=[1], steps=0), r"steps must be in 1..T = 1..50, got 0"),
        (dict(y=[1], steps=51), r"steps must be in 1..T = 1..50, got 51"),
        (dict(y=[1], sampler="euler"), "there is no sampler 'euler': choose one of ddim, ddpm"),
        (dict(y=[1], sampler="ddpm", eta=0.5), "how much noise ddim adds: ddpm has none, got eta = 0.5"),
        (dict(y=[1], eta=1.5), "eta goes from 0 .* got 1.5"),
        (dict(y=[1], eta=float("nan")), "eta goes from 0 .* got nan"),
    ],
)
def test_what_cannot_be_drawn_is_refused(small, ask, message):
    with pytest.raises(ValueError, match=message):
        small.sample(**ask)


def test_labels_for_a_model_without_them_are_refused(small):
    unet = UNet((8, 16), attention=())
    with pytest.raises(ValueError, match="trained without labels"):
        DDPM(unet, small.schedule, "v").sample(y=[1])


def test_what_is_saved_is_loaded(small, tmp_path):
    small.save(tmp_path / "model.safetensors")
    loaded = DDPM.load(tmp_path / "model.safetensors")
    assert (loaded.predicts, loaded.image_shape, loaded.notes) == ("v", (1, 32, 32), {"seed": 0})
    assert loaded.model.arguments == small.model.arguments
    assert torch.equal(loaded.schedule.beta, small.schedule.beta)
    x = [ddpm.sample(y=[1, 2], steps=3, scale=2, seeds=[0, 1]) for ddpm in (small, loaded)]
    assert torch.equal(*x)


def test_an_unwritable_folder_and_damaged_metadata_are_named(small, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ValueError, match="cannot write to the folder"):
        small.save(tmp_path / "file" / "model.safetensors")
    path = tmp_path / "model.safetensors"
    save_file({"weight": torch.zeros(1)}, path, {"format": '"tinyddpm"', "predicts": "{"})
    with pytest.raises(ValueError, match="metadata of .* is damaged.*make it again"):
        DDPM.load(path)
    save_file({"weight": torch.zeros(1)}, path, {"format": '"tinyddpm"'})
    with pytest.raises(ValueError, match="format version None"):
        DDPM.load(path)


def test_a_model_stays_what_it_predicts(small, tmp_path):
    for predicts in ("eps", "x_0", "v"):
        DDPM(small.model, small.schedule, predicts).save(tmp_path / "model.safetensors")
        assert DDPM.load(tmp_path / "model.safetensors").predicts == predicts


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ValueError, match="there is no checkpoint .*nothing.safetensors"):
        DDPM.load(tmp_path / "nothing.safetensors")


def test_a_file_cut_anywhere_is_refused(small, tmp_path):
    small.save(tmp_path / "whole.safetensors")
    content = (tmp_path / "whole.safetensors").read_bytes()
    for length in (0, 4, 8, 100, len(content) // 2, len(content) - 1):
        (tmp_path / "cut.safetensors").write_bytes(content[:length])
        with pytest.raises(ValueError, match="not a whole .safetensors file.*make it again"):
            DDPM.load(tmp_path / "cut.safetensors")


def test_other_formats_are_refused_and_never_unpickled(small, tmp_path):
    class Bomb:
        def __reduce__(self):
            return pytest.fail, ("it was unpickled",)

    torch.save(Bomb(), tmp_path / "model.pt")
    with pytest.raises(ValueError, match="of another format"):
        DDPM.load(tmp_path / "model.pt")
    save_file({"weight": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="not one that tinyddpm's DDPM.save wrote"):
        DDPM.load(tmp_path / "other.safetensors")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(data_range=[0, 1]), r"its images lie in \[0, 1\], not in \[-1, 1\]"),
        (dict(unet=[8]), "describes another network than the one it holds"),
        (dict(format_version=2), "format version 2 and this tinyddpm reads version 1: use the tinyddpm"),
        (dict(unet={"dims": [8]}), "describes another network than the one it holds"),
        (dict(unet={"depth": 8}), "describes another network than the one it holds"),
        (dict(predicts="noise"), "a network predicts one of eps, x_0, v, flow, got 'noise'"),
    ],
)
def test_a_file_that_contradicts_itself_is_refused(small, tmp_path, change, message):
    path = tmp_path / "model.safetensors"
    small.save(path)
    metadata, _ = read_checkpoint(path)
    metadata = {key: json.dumps(value) for key, value in {**metadata, **change}.items()}
    save_file(load_file(path), path, metadata)
    with pytest.raises(ValueError, match=message):
        DDPM.load(path)


def test_unknown_names_are_answered_with_those_there_are():
    with pytest.raises(ValueError, match="no weights 'huge': choose one of mnist-tiny"):
        load_pretrained("huge")


def test_missing_weights_say_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr("tinyddpm.pipeline.asset", lambda name: tmp_path)
    with pytest.raises(ValueError, match="holds none, install tinyddpm again"):
        load_pretrained()
    with pytest.raises(ValueError, match="no device 'tpu' here: choose one of cpu"):
        find_device("tpu")
    with pytest.raises(ValueError, match="predicts one of eps, x_0, v"):
        DDPM(None, Schedule.named("cosine"), "score")


def test_the_shipped_weights_say_how_they_were_made(pretrained):
    path = data.asset("weights/mnist-tiny.safetensors")
    assert path.stat().st_size <= 10_000_000
    assert pretrained.model.arguments == RECIPES["tiny"].network().arguments
    assert pretrained.predicts == RECIPES["tiny"].predicts
    assert {"seed", "steps", "minutes"} <= pretrained.notes.keys()


@pytest.mark.parametrize("seeds", [[0.5], [1, 2.5]])
def test_seeds_that_are_no_integers_are_refused(small, seeds):
    with pytest.raises(ValueError, match="seeds are integers"):
        small.sample([1] * len(seeds), steps=1, seeds=seeds)


def test_a_denoiser_takes_a_list_of_labels_and_refuses_what_it_lacks(small):
    x_t, t = torch.randn(2, 1, 32, 32), torch.tensor([5, 5])
    assert torch.equal(small.denoiser([1, 2])(x_t, t), small.denoiser(torch.tensor([1, 2]))(x_t, t))
    with pytest.raises(ValueError, match="labels must be in 0..9"):
        small.denoiser(torch.tensor([1, 10]))
