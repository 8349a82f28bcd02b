"""What the tabs compute is what the library gives for the same seeds."""

from pathlib import Path
from types import SimpleNamespace

import imageio.v3 as iio
import pytest
import torch

from tinyddpm import DDPM, Schedule, UNet, dataset_oracle, last, load_pretrained, mnist, write
from tinyddpm.apps import tabs
from tinyddpm.apps.tabs import SOURCES, compare, draw, edit, gif, network, png
from tinyddpm.cli.art import real_digits
from tinyddpm.data import crop_to, pad_to
from tinyddpm.editing.handwriting import handwriting
from tinyddpm.editing.inpainting import complete, hide_half
from tinyddpm.viz import as_array, image_grid


@pytest.fixture(scope="module")
def ddpm():
    return load_pretrained()


def test_draw_gives_what_sample_gives(ddpm):
    film = list(draw(ddpm, "25", "dpm_solver_pp", 3, "log-snr", 1.5, 7))
    grid = ddpm.schedule.grid(3, "log-snr")
    x = ddpm.sample([2, 5], sampler="dpm_solver_pp", scale=1.5, grid=grid, seeds=[7, 8])
    assert torch.equal(film[-1].x_t, x) and len(film) == 4


def test_a_network_without_labels_draws_as_many_images(ddpm, small):
    small.model.num_classes = small.num_classes = None
    x = last(draw(small, "25", steps=2)).x_t
    assert torch.equal(x, small.sample(n=2, steps=2, seeds=[0, 1]))


def test_the_files_hold_the_film(ddpm):
    film = list(draw(ddpm, "25", steps=3))
    assert (iio.imread(png(film[-1].x_t, ddpm)) == as_array(image_grid(crop_to(film[-1].x_t), 2, 4))).all()
    frames = iio.imread(gif(film, ddpm), extension=".gif")
    assert frames.shape[1:3] == (112, 224) and 1 < len(frames) <= 4


def test_the_exact_oracle_copies_and_the_others_do_not(ddpm):
    rows = compare(ddpm, "3", known=100, steps=10, seed=4, n=4)
    exact, blinkered, ours, real = rows.values()
    data = mnist()
    threes = data[(data.labels == 3).nonzero()[:, 0]][0]
    oracle = dataset_oracle(threes[:100], ddpm.schedule)
    assert torch.equal(exact.images, ddpm.sample([3] * 4, steps=10, seeds=range(4, 8), guide=lambda _: oracle))
    assert torch.equal(ours.images, ddpm.sample([3] * 4, steps=10, seeds=range(4, 8)))
    assert exact.distance.max() < 0.5 < 2 < min(blinkered.distance.min(), ours.distance.min(), real.distance.min())
    for images, nearest, distance in rows.values():
        assert torch.allclose((images - nearest).flatten(1).norm(dim=1), distance)
        assert torch.allclose(torch.cdist(images.flatten(1), threes.flatten(1)).min(1).values, distance, atol=0.05)


def test_edit_gives_what_the_library_gives(small):
    image, half = {"label": "4", "seed": 2, "files": []}, {"hidden": "top", "told": True}
    strip = {"text": "20 26", "seed": 1, "variety": 0.5}
    assert torch.equal(edit(small, "Strip", image, half, strip), write("20 26", small, 30, seed=1, variety=0.5))
    y, x_0 = torch.tensor([4]), real_digits(torch.tensor([4]), 2)
    written = handwriting(small, x_0.expand(10, -1, -1, -1), y.repeat(10), torch.arange(10))
    assert torch.equal(edit(small, "Style", image, half, strip), torch.cat([x_0, written]))
    found, mask = edit(small, "Half hidden", image, half, strip), hide_half("top", 32, 32)
    assert torch.equal(found[2:], complete(small, x_0, mask, 8, y, steps=20, repeats=3)) and torch.equal(found[:1], x_0)
    assert (found[1:, :, 16:] == x_0[:, :, 16:]).all() and (found[1, :, :16] == 0).all()


def test_an_image_of_your_own_is_edited(small):
    x_0 = real_digits(torch.tensor([7]), 0)
    pixels = as_array(image_grid(crop_to(x_0)[:1], columns=1))
    dropped = SimpleNamespace(name="seven.png", contents=iio.imwrite("<bytes>", pixels, extension=".png"))
    found = edit(small, "Style", {"label": "7", "seed": 0, "files": [dropped]}, {}, {})
    assert torch.allclose(found[:1], x_0, atol=1e-2)


def test_a_dropped_file_is_the_network(small, tmp_path):
    small.save(tmp_path / "small.safetensors")
    dropped = SimpleNamespace(name="small.safetensors", contents=(tmp_path / "small.safetensors").read_bytes())
    there = network(SOURCES[0], [dropped], "runs/app")
    assert torch.equal(there.sample([1], steps=2, seeds=0), small.sample([1], steps=2, seeds=0))
    assert network(SOURCES[0], [], "runs/app").notes == load_pretrained().notes
    place = tabs.dropped([SimpleNamespace(name="../../x", contents=b"")], lambda path: path.resolve())
    assert place.parent.parent.samefile(tabs.UPLOADS.name) and place.name == "x" and not place.exists()


def test_two_files_of_one_name_do_not_meet(tmp_path):
    one, two = (SimpleNamespace(name="x.png", contents=contents) for contents in (b"one", b"two"))
    read = tabs.dropped([one], lambda path: (tabs.dropped([two], Path.read_bytes), path.read_bytes()))
    assert read == (b"two", b"one")


@pytest.mark.parametrize("size", [28, 36])
def test_a_network_of_another_size_is_compared_and_edits(size):
    torch.manual_seed(0)
    ddpm = DDPM(
        UNet((8, 16), image_size=size, num_classes=10, attention=()),
        Schedule.named("cosine-shifted", 50),
        "v",
        (1, size, size),
    )
    rows = compare(ddpm, "3", known=10, steps=2, n=2)
    data = mnist(size=size)
    threes = data[(data.labels == 3).nonzero()[:, 0]][0]
    assert {row.images.shape for row in rows.values()} == {(2, 1, size, size)}
    exact = rows["The exact oracle copies"]
    distance = torch.cdist(exact.images.flatten(1), threes.flatten(1)).min(1).values
    assert torch.allclose(exact.distance, distance, atol=0.05)
    image, half = {"label": "4", "seed": 2, "files": []}, {"hidden": "top", "told": True}
    x_0 = pad_to(crop_to(real_digits(torch.tensor([4]), 2)), size)
    for way in ("Half hidden", "Style"):
        assert torch.equal(edit(ddpm, way, image, half, {})[:1], x_0)
