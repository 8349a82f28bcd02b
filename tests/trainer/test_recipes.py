"""What a recipe makes of images of other sizes, channels and labels than MNIST's."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from tinyddpm.nn import Attention
from tinyddpm.trainer.recipes import RECIPES, Recipe

SIZES = {28: (28, 56, 112), 32: (32, 64, 128)}


@pytest.mark.parametrize("name", RECIPES)
def test_each_doubling_of_the_image_is_a_level_and_the_small_maps_stay(name):
    recipe = RECIPES[name]
    for doublings, size in enumerate(SIZES[recipe.image_size]):
        levels = recipe.levels(size)
        assert levels == recipe.dims + (recipe.dims[-1],) * doublings
        sides = [size // recipe.patch // 2**k for k in range(len(levels))]
        assert sides[-1] == recipe.image_size // recipe.patch // 2 ** (len(recipe.dims) - 1)
        assert set(recipe.attention) <= set(sides) and recipe.fits(size)


@pytest.mark.parametrize("size", [32, 64, 128])
@pytest.mark.parametrize("channels", [1, 3])
def test_networks_of_all_sizes_take_and_give_images(size, channels):
    net = replace(RECIPES["nano"], channels=channels).network((channels, size, size))
    seen = []
    for part in net.modules():
        if isinstance(part, Attention):
            part.register_forward_hook(lambda _, x, out: seen.append(out.shape[-1]))
    x = torch.randn(2, channels, size, size)
    assert net(x, torch.tensor([1, 9]), torch.tensor([0, 3])).shape == x.shape
    assert set(seen) == {4}
    assert net.arguments["dims"] == RECIPES["nano"].levels(size)


def test_a_recipe_has_a_size_and_channels_of_its_own():
    assert replace(Recipe(), channels=3, image_size=64).network().arguments["channels"] == 3
    assert replace(Recipe(), image_size=64).network().arguments["image_size"] == 64


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((1, 48, 48), r"at \[4\], but the maps are \[24, 12, 6\] .*: the nearest size that fits is 32 or 64"),
        ((1, 200, 200), "need an image_size that 32 divides, got 200: the nearest size that fits is 128$"),
        ((3, 32, 32), r"of 1 channels, but the data has 3: take replace\(recipe, channels=3\)"),
        ((2, 32, 32), "images of 1 or 3 channels, got 2"),
    ],
)
def test_images_that_do_not_fit_are_refused_with_what_does(shape, message):
    with pytest.raises(ValueError, match=message):
        Recipe().network(shape)


def test_a_recipe_that_fits_no_size_says_why():
    with pytest.raises(ValueError, match=r"was asked for at \[5\], but the maps are \[16, 8, 4\] on a side$"):
        Recipe(attention=(4, 5)).network()
    with pytest.raises(ValueError, match="patch is 1"):
        Recipe(patch=3).network()


def data(num_classes):
    return SimpleNamespace(channels=3, size=64, num_classes=num_classes)


def test_a_recipe_is_suited_to_data():
    suited = RECIPES["tiny"].suited(data(26))
    assert suited == replace(RECIPES["tiny"], channels=3, image_size=64, num_classes=26)
    assert RECIPES["tiny"].suited(data(None)).num_classes is None
    assert RECIPES["l1-1000"].suited(data(26)).num_classes is None  # it has no labels, and gets none


def test_labels_that_the_recipe_lacks_are_refused():
    for classes, has in ((26, r"labels 0..25: take replace\(recipe, num_classes=26"), (None, "no labels: take")):
        with pytest.raises(ValueError, match=f"recipe has labels 0..9, but the data has {has}"):
            Recipe().check_labels(data(classes))
    for recipe, fitting in ((Recipe(), 10), (Recipe(), 3), (Recipe(num_classes=None), 26)):
        recipe.check_labels(data(fitting))
    Recipe().check_labels(object())  # says nothing of its labels: they are looked at as they come
