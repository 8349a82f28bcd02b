"""What a recipe makes of a data set, and the tables that its names choose from."""

import inspect
import re
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from tinyddpm import DDPM, Schedule
from tinyddpm.diffusion import PREDICTIONS
from tinyddpm.nn import Attention
from tinyddpm.trainer.objectives import TABLES, TIMES
from tinyddpm.trainer.optim import OPTIMIZERS
from tinyddpm.trainer.recipes import RECIPES, Recipe, UNetConfig, get_recipe

SIZES = {28: (28, 56, 112), 32: (32, 64, 128)}
PARAMETERS = {  # in millions
    "tiny": 2.13,
    "nano": 0.58,
    "dit": 1.56,
    "dit-cross": 1.89,
    "learned-variance": 0.58,
    "self-conditioned": 0.58,
    "unconditional-300": 2.13,
    "conditional-500": 1.43,
    "unconditional-1000": 2.13,
    "l1-1000": 2.13,
    "large-1000": 47.24,
    "bits": 1.54,
}
LEFT = {"unconditional-300": "21.9%", "conditional-500": "8.0%"}  # of the amplitude, at T, where it is much


@pytest.mark.parametrize("name", RECIPES)
def test_each_recipe_has_the_network_that_it_is_known_for(name):
    recipe = get_recipe(name)
    shape = 1, recipe.image_size, recipe.image_size
    net = recipe.build(shape)
    assert sum(p.numel() for p in net.parameters()) / 1e6 == pytest.approx(PARAMETERS[name], abs=0.005)
    assert net.num_classes == recipe.num_classes
    x = torch.zeros(1, *shape)
    channels = {"learned-variance": 2, "bound": 256}.get(recipe.objective, 1)
    with torch.no_grad():
        assert net(x, torch.ones(1, dtype=torch.long)).shape == (1, channels, *shape[1:])
    if name in LEFT:
        with pytest.warns(UserWarning, match=f"leaves {LEFT[name]}"):
            Schedule.named(recipe.schedule, recipe.T)


@pytest.mark.parametrize("name", [name for name in RECIPES if isinstance(RECIPES[name].network, UNetConfig)])
def test_each_doubling_of_the_image_is_a_level_and_the_small_maps_stay(name):
    recipe, config = RECIPES[name], RECIPES[name].network
    for doublings, size in enumerate(SIZES[recipe.image_size]):
        levels = config.levels(size)
        assert levels == config.dims + (config.dims[-1],) * doublings
        sides = [size // config.patch // 2**k for k in range(len(levels))]
        assert sides[-1] == recipe.image_size // config.patch // 2 ** (len(config.dims) - 1)
        assert set(config.attention) <= set(sides) and config.fits(size)


@pytest.mark.parametrize(("channels", "size"), [(1, 32), (3, 64)])
def test_networks_of_all_sizes_take_and_give_images(size, channels):
    net = RECIPES["nano"].build((channels, size, size))
    seen = []
    for part in net.modules():
        if isinstance(part, Attention):
            part.register_forward_hook(lambda _, x, out: seen.append(out.shape[-1]))
    x = torch.randn(2, channels, size, size)
    assert net(x, torch.tensor([1, 9]), torch.tensor([0, 3])).shape == x.shape
    assert set(seen) == {4}
    assert net.arguments["dims"] == RECIPES["nano"].network.levels(size)


@pytest.mark.parametrize("name", ["dit", "dit-cross"])
def test_a_transformer_takes_every_size_that_its_patches_divide(name):
    config = RECIPES[name].network
    assert [n for n in range(28, 65) if config.fits(n)] == list(range(28, 65, 4))
    net = config.build((3, 64, 64), 10, out_channels=6)
    for h, w in [(28, 28), (64, 64), (32, 16)]:
        assert net(torch.zeros(1, 3, h, w), torch.tensor([1]), torch.tensor([3])).shape == (1, 6, h, w)
    assert not replace(config, patch=0).fits(32)
    with pytest.raises(ValueError, match="got 1x32x32: pad to 33x33, or build it with a patch in 1, 2, 4, 8, 16, 32"):
        DDPM(replace(config, patch=3).build((1, 32, 32)), Schedule.named("cosine", 10), "x_0")


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((1, 48, 48), r"at \[4\], but the maps have the sides \[24, 12, 6\]: the nearest size that fits is 32 or 64"),
        ((1, 200, 200), "need an image_size that 32 divides, got 200: the nearest size that fits is 128$"),
        ((1, 32, 16), "square images, got 32x16: pad them"),
    ],
)
def test_images_that_do_not_fit_are_refused_with_what_does(shape, message):
    with pytest.raises(ValueError, match=message):
        Recipe().build(shape)


def test_a_network_that_fits_no_size_says_why():
    with pytest.raises(ValueError, match=r"at \[5\], but the maps have the sides \[16, 8, 4\]$"):
        UNetConfig(attention=(4, 5)).build((1, 32, 32))


def test_a_recipe_is_suited_to_data():
    def data(num_classes):
        return SimpleNamespace(channels=3, size=64, num_classes=num_classes)

    assert RECIPES["tiny"].suited(data(26)) == replace(RECIPES["tiny"], image_size=64, num_classes=26)
    assert RECIPES["tiny"].suited(data(None)).num_classes is None
    assert RECIPES["l1-1000"].suited(data(26)).num_classes is None  # it has no labels, and gets none


@pytest.mark.parametrize(
    ("field", "known"), [("objective", "denoising"), ("times", "uniform"), ("optimizer", "muon"), ("decay", "cosine")]
)
def test_a_name_that_is_in_no_table_is_refused_with_those_there_are(field, known):
    with pytest.raises(ValueError, match=f"unknown {field} 'best': choose one of .*{known}"):
        Recipe(**{field: "best"})


@pytest.mark.parametrize("name", RECIPES)
def test_the_shipped_recipes_name_rows_of_the_tables(name):
    """They are made before the tables are imported, and so do not look themselves up."""
    assert replace(RECIPES[name]) == RECIPES[name]
    for setting, table in TABLES.items():
        assert getattr(RECIPES[name], setting) in table


def test_the_learning_rate_rises_and_falls_to_zero():
    recipe = Recipe(learning_rate=2.0, warmup=10)
    assert recipe.rate(5, 0) == pytest.approx(1.0)
    assert recipe.rate(10, 0) == pytest.approx(2.0)
    assert recipe.rate(99, 0.5) == pytest.approx(1.0)
    assert recipe.rate(99, 1) == recipe.rate(99, 1.2) == pytest.approx(0.0)
    assert replace(recipe, decay="linear").rate(99, 0.75) == pytest.approx(0.5)
    assert replace(recipe, decay="none").rate(99, 1) == 2.0


def test_the_published_recipes_take_steps_of_one_size():
    recipe = RECIPES["conditional-500"]
    assert recipe.rate(1, 0) == recipe.rate(10**6, 0.9) == 1e-4
    optimizer = OPTIMIZERS[recipe.optimizer](torch.nn.Linear(2, 2), recipe.weight_decay, False)
    assert [group["muon"] for group in optimizer.param_groups] == [False]
    assert optimizer.param_groups[0]["weight_decay"] == 1e-5 and recipe.ema_decay == 0


# --- times


def drawn(name, n, T, progress=0.0):
    return TIMES[name](n, T, torch.Generator().manual_seed(0), progress)


@pytest.mark.parametrize("name", TIMES)
def test_the_times_of_training_are_the_times_of_sampling(name):  # trap 4
    assert set(drawn(name, 20_000, 20, 1.0).tolist()) == {t for t, _ in Schedule.named("cosine", 20).grid()}


@pytest.mark.parametrize(("name", "uniform"), [("uniform", 1.0), ("logit-normal", 0.0), ("half-logit-normal", 0.5)])
def test_times_are_drawn_as_their_distribution_says(name, uniform):
    t = drawn(name, 40_000, 20)
    found = torch.bincount(t, minlength=21)[1:].double() / len(t)
    edges = torch.arange(21).double() / 20
    ends = uniform * edges + (1 - uniform) * torch.special.ndtr(edges.logit())  # z below logit(t / T)
    torch.testing.assert_close(found, ends.diff(), rtol=0, atol=4 * (0.25 / 4 / len(t)) ** 0.5)
    assert len(found) == 20 and found.sum() == 1


def test_progressive_training_begins_with_few_times_and_ends_with_all():
    seen = [set(drawn("progressive", 20_000, 1000, p).tolist()) for p in (0, 0.33, 0.34, 0.66, 0.67, 1)]
    few, some, every = (set(range(1000 // n, 1001, 1000 // n)) for n in (10, 100, 1000))
    assert seen == [few, few, some, some, every, every]
    assert set(drawn("progressive", 2000, 25).tolist()) == {3, 5, 8, 10, 13, 15, 18, 20, 23, 25}


@pytest.mark.parametrize(("name", "table"), [*TABLES.items(), ("predicts", PREDICTIONS)])
def test_the_comment_beside_a_setting_names_all_that_it_can_be(name, table):
    (comment,) = re.findall(rf"^    {name}: .*?  # (.*)$", inspect.getsource(Recipe), re.M)
    assert set(table) <= set(re.findall(r"[\w-]+", comment))
