from functools import partial

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from tinyddpm import DDPM, ddim, interval, load_pretrained, make_denoiser, mnist
from tinyddpm.files import asset, read_checkpoint, write_checkpoint
from tinyddpm.guidance import branches
from tinyddpm.nn import NETWORKS
from tinyddpm.pipeline import find_device
from tinyddpm.trainer.recipes import RECIPES


@pytest.fixture(scope="module")
def pretrained():
    return load_pretrained()


def test_sample_draws_what_the_readme_shows(pretrained):
    x = pretrained.sample(y=[3, 1, 4], steps=20, scale=1.5, seeds=[0, 1, 2])
    assert x.shape == (3, 1, 32, 32) and x.dtype == torch.float32
    assert -1 <= x.min() < -0.99 and 0.9 < x.max() <= 1


def test_a_model_says_what_it_is(pretrained, small):
    assert repr(pretrained) == (
        "DDPM(UNet of 2,128,484 parameters, predicts x_0, schedule cosine-shifted, T = 1000, images (1, 32, 32), "
        "10 classes, data mnist)"
    )
    assert repr(small).endswith("predicts v, schedule unknown, T = 50, images (1, 32, 32), 10 classes, data unknown)")


def test_a_checkpoint_may_name_a_class_by_where_it_is(small, tmp_path, monkeypatch):
    small.save(tmp_path / "small.safetensors")
    expected = small.sample(y=[3], steps=2, seeds=[0])
    monkeypatch.setitem(NETWORKS, "UNet", "tinyddpm.nn.unet:UNet")
    assert torch.equal(DDPM.load(tmp_path / "small.safetensors").sample(y=[3], steps=2, seeds=[0]), expected)
    monkeypatch.setitem(NETWORKS, "UNet", "tinyddpm.nn.unet:Net")
    with pytest.raises(ValueError, match="has no attribute 'Net'"):
        DDPM.load(tmp_path / "small.safetensors")


@pytest.mark.parametrize("sampler", ["ddim", "ddpm"])
def test_an_image_depends_on_its_seed_and_not_on_its_batch(small, sampler):
    together = small.sample(y=[3, 1, 4], steps=5, sampler=sampler, seeds=[7, 8, 9], scale=2)
    alone = small.sample(y=[1], steps=5, sampler=sampler, seeds=[8], scale=2)
    torch.testing.assert_close(together[1:2], alone, atol=1e-5, rtol=0)
    other = small.sample(y=[1], steps=5, sampler=sampler, seeds=[9], scale=2)
    assert (alone - other).abs().max() > 0.1


def test_eta_leads_from_ddim_to_ddpm(small):
    ask = dict(y=[3, 1], steps=5, seeds=[0, 1])
    images = [small.sample(**ask, sampler=partial(ddim, eta=eta)) for eta in (0.0, 0.5, 1.0)]
    assert torch.equal(images[0], small.sample(**ask))
    torch.testing.assert_close(images[2], small.sample(**ask, sampler="ddpm"), atol=1e-4, rtol=0)
    assert (images[1] - images[0]).abs().max() > 0.1 < (images[1] - images[2]).abs().max()


def test_batches_of_any_size_draw_the_same_images(small):
    ask = dict(y=[3, 1, 4, 1, 5], steps=3, seeds=range(5), scale=2.0)
    for batch_size in (1, 2, 5):
        torch.testing.assert_close(small.sample(**ask, batch_size=batch_size), small.sample(**ask), atol=1e-5, rtol=0)
    assert small.sample(n=3, steps=2, batch_size=2).shape == (3, 1, 32, 32)


def test_guidance_calls_the_network_once_a_step_with_both_branches(small):
    calls = []
    small.model.register_forward_pre_hook(lambda _, inputs: calls.append(len(inputs[0])))
    with torch.no_grad():
        x_t, t, y = torch.randn(2, 1, 32, 32), torch.tensor([40, 40]), torch.tensor([5, 6])
        joined = small.denoiser(y, 2.0)(x_t, t)
        assert calls == [4]
        alone = [make_denoiser(small.model, small.schedule, "v", labels)(x_t, t) for labels in (y, None)]
    torch.testing.assert_close(joined, (2 * alone[0] - alone[1]).clamp(-1, 1), atol=1e-5, rtol=0)
    for scale, expected in ((1.0, 2), (0.0, 2), (interval(3.0, 10, 30), 2)):  # no guidance at t = 40
        calls.clear()
        small.denoiser(y, scale)(x_t, t)
        assert calls == [expected]


def test_a_kept_branch_is_never_that_of_another_image(small):
    conditional, unconditional = branches(small.model, small.schedule, "v", torch.tensor([5]), 10)
    a, b, t = torch.randn(1, 1, 32, 32), torch.randn(1, 1, 32, 32), torch.tensor([40])
    with torch.no_grad():
        unconditional(a, t)
        fresh = make_denoiser(small.model, small.schedule, "v", torch.tensor([5]))
        assert torch.equal(conditional(b, t), fresh(b, t))
        unconditional(a, t)
        assert torch.equal(conditional(a.clone(), t), fresh(a, t))


def test_files_of_format_1_are_read_as_unets(pretrained, small, tmp_path):
    with safe_open(data_path := asset("weights/mnist-tiny.safetensors"), "pt") as file:
        assert file.metadata()["format_version"] == "1" and "unet" in file.metadata()
    assert DDPM.load(data_path).model.arguments["dims"] == (32, 64, 128)
    small.save(tmp_path / "new.safetensors")
    with safe_open(tmp_path / "new.safetensors", "pt") as file:
        assert file.metadata()["format_version"] == "2" and file.metadata()["network"] == '"UNet"'


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


def test_one_label_may_come_bare(small):
    torch.testing.assert_close(small.sample(y=3, steps=2, seeds=[0]), small.sample(y=[3], steps=2, seeds=[0]))


def test_what_is_saved_is_loaded(small, tmp_path):
    small.save(tmp_path / "model.safetensors")
    loaded = DDPM.load(tmp_path / "model.safetensors")
    assert (loaded.predicts, loaded.image_shape, loaded.notes) == ("v", (1, 32, 32), {"seed": 0})
    assert loaded.model.arguments == small.model.arguments
    assert torch.equal(loaded.schedule.beta, small.schedule.beta)
    x = [ddpm.sample(y=[1, 2], steps=3, scale=2, seeds=[0, 1]) for ddpm in (small, loaded)]
    assert torch.equal(*x)


def test_a_model_stays_what_it_predicts(small, tmp_path):
    for predicts in ("eps", "x_0", "v"):
        DDPM(small.model, small.schedule, predicts).save(tmp_path / "model.safetensors")
        assert DDPM.load(tmp_path / "model.safetensors").predicts == predicts


def test_the_shipped_weights_say_how_they_were_made(pretrained):
    path = asset("weights/mnist-tiny.safetensors")
    assert path.stat().st_size <= 10_000_000
    assert pretrained.model.arguments == RECIPES["tiny"].network.build((1, 32, 32), 10).arguments
    assert pretrained.predicts == RECIPES["tiny"].predicts
    assert {"seed", "steps", "minutes"} <= pretrained.notes.keys()


def test_a_denoiser_takes_a_list_of_labels_and_refuses_what_it_lacks(small):
    x_t, t = torch.randn(2, 1, 32, 32), torch.tensor([5, 5])
    assert torch.equal(small.denoiser([1, 2])(x_t, t), small.denoiser(torch.tensor([1, 2]))(x_t, t))
    with pytest.raises(ValueError, match="labels are integers in 0..9"):
        small.denoiser(torch.tensor([1, 10]))


def test_an_unwritable_folder_and_damaged_metadata_are_named(small, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ValueError, match="cannot write to the folder"):
        small.save(tmp_path / "file" / "model.safetensors")
    path = tmp_path / "model.safetensors"
    save_file({"weight": torch.zeros(1)}, path, {"format": '"tinyddpm"', "predicts": "{"})
    with pytest.raises(ValueError, match="is cut off, damaged or of another format .*: get or train it again"):
        DDPM.load(path)
    save_file({"weight": torch.zeros(1)}, path, {"format": '"tinyddpm"'})
    with pytest.raises(ValueError, match="has format tinyddpm None"):
        DDPM.load(path)


def test_a_file_cut_anywhere_is_refused(small, tmp_path):
    small.save(tmp_path / "whole.safetensors")
    content = (tmp_path / "whole.safetensors").read_bytes()
    for length in (0, 4, 8, 100, len(content) // 2, len(content) - 1):
        (tmp_path / "cut.safetensors").write_bytes(content[:length])
        with pytest.raises(ValueError, match="is cut off, damaged or of another format .*: get or train it again"):
            DDPM.load(tmp_path / "cut.safetensors")


def test_a_file_whose_digest_lost_its_name_is_refused(small, tmp_path):
    small.save(tmp_path / "model.safetensors")
    content = bytearray((tmp_path / "model.safetensors").read_bytes())
    content[content.index(b'"sha256"') + 1] ^= 1  # the file seems to have no digest ...
    content[-2000] ^= 4  # ... and another weight
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(ValueError, match="its sha256 differs or is missing"):
        DDPM.load(tmp_path / "model.safetensors")


def test_other_formats_are_refused_and_never_unpickled(small, tmp_path):
    class Bomb:
        def __reduce__(self):
            return pytest.fail, ("it was unpickled",)

    torch.save(Bomb(), tmp_path / "model.pt")
    with pytest.raises(ValueError, match="of another format"):
        DDPM.load(tmp_path / "model.pt")
    save_file({"weight": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="has format None None, and this tinyddpm reads tinyddpm 1 to 2"):
        DDPM.load(tmp_path / "other.safetensors")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(arguments=[8]), "describes another network than the one it holds"),
        (dict(format_version=3), "has format tinyddpm 3, and this tinyddpm reads tinyddpm 1 to 2: use the tinyddpm"),
        (dict(arguments={"dims": [8]}), "describes another network than the one it holds"),
        (dict(arguments={"depth": 8}), "describes another network than the one it holds"),
        (dict(predicts="noise"), "unknown prediction 'noise': choose one of eps, x_0, v, flow"),
    ],
)
def test_a_file_that_contradicts_itself_is_refused(small, tmp_path, change, message):
    path = tmp_path / "model.safetensors"
    small.save(path)
    metadata, tensors = read_checkpoint(path, 2)
    write_checkpoint(path, 2, {**metadata, **change}, tensors)
    with pytest.raises(ValueError, match=message):
        DDPM.load(path)


@pytest.mark.parametrize(("cuda", "mps", "wanted"), [(0, False, "cpu"), (2, False, "cuda:0"), (0, True, "mps")])
def test_the_default_device_is_the_fastest(cuda, mps, wanted, monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: cuda)
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: mps)
    assert str(find_device()) == wanted


def test_a_default_dtype_of_float64_gives_the_same_images_in_float64():
    wanted = load_pretrained().sample([3, 7], steps=3, seeds=[0, 1])
    torch.set_default_dtype(torch.float64)
    try:
        found = load_pretrained().sample([3, 7], steps=3, seeds=[0, 1])
        assert mnist(train=False)[:2][0].dtype == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)
    assert found.dtype == torch.float64 and found.shape == wanted.shape  # of other noise: torch draws it in that dtype


def test_a_model_in_half_precision_is_refused_with_what_to_do():
    ddpm = load_pretrained()
    ddpm.model.half()
    with pytest.raises(ValueError, match="all in float32 .torch.float32, weights torch.float16"):
        ddpm.sample([3], steps=2)


def test_what_ships_is_found_by_name_and_is_no_classifier(small, tmp_path, monkeypatch):
    for name in ("mnist-tiny", "fashion-tiny", "garment-classifier"):
        small.notes["name"] = name
        small.save(tmp_path / f"{name}.safetensors")
    (tmp_path / "notes.md").write_text("no weights")
    monkeypatch.setattr("tinyddpm.pipeline.asset", {"weights": tmp_path}.__getitem__)
    for name in ("mnist-tiny", "fashion-tiny"):
        assert load_pretrained(name).notes["name"] == name
    with pytest.raises(ValueError, match="'garment-classifier': choose one of mnist-tiny, fashion-tiny$"):
        load_pretrained("garment-classifier")
