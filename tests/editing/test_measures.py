"""Brightness, slant and stroke width, on images whose answers are known by how they are drawn."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from tinyddpm.data import mnist
from tinyddpm.editing.handwriting import brightness, slant, stroke_width

MEASURES = [brightness, slant, stroke_width]
ANGLES = [0, 90, 20, -20, 45, -45, 70, -70]  # of a bar against the vertical, in degrees to the right


def uniform(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def plane(size, shift=(0.0, 0.0)):
    """Row and column of each pixel, from the middle of the image moved by shift."""
    at = torch.arange(size, dtype=torch.float64) - (size - 1) / 2
    return torch.meshgrid(at - shift[0], at - shift[1], indexing="ij")


def bar(width, angle=0.0, shear=0.0, soft=0.0, length=44, size=64, shift=(0.25, 0.1)):
    """(1, 1, size, size) in [-1, 1]: a straight stroke, turned or sheared to the right, its edge a ramp of so
    many pixels (hard where 0)."""
    y, x = plane(size, shift)
    cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    across, along = x * cos + y * sin + shear * y, y * cos - x * sin

    def inside(distance):
        return (distance > 0).double() if soft == 0 else (distance / soft + 0.5).clamp(0, 1)

    ink = inside(width / 2 - across.abs()) * inside(length / 2 - along.abs())
    return (2 * ink - 1)[None, None]


def blob(shear, spread=(5.0, 1.5), shift=(0.0, 0.0), size=64):
    """A Gaussian spot, sheared: its second moments are known to all digits."""
    y, x = plane(size, shift)
    ink = torch.exp(-(((x + shear * y) / spread[1]) ** 2) / 2 - (y / spread[0]) ** 2 / 2)
    return (2 * ink - 1)[None, None]


def spread_digits(n=3, size=64):
    """Any ink at all, in the middle of a wide black frame."""
    x = torch.full((n, 1, size, size), -1.0, dtype=torch.float64)
    x[:, :, 24:40, 24:40] = 2 * uniform(n, 1, 16, 16) ** 3 - 1
    return x


@pytest.fixture(scope="module")
def digits():
    return mnist(train=False)[:300][0]


# Brightness


@pytest.mark.parametrize("grey, expected", [(-1.0, 0.0), (1.0, 1.0), (0.0, 0.5), (-0.5, 0.25)])
def test_a_grey_image_is_as_bright_as_its_grey(grey, expected):
    assert brightness(torch.full((2, 1, 5, 7), grey)).tolist() == [expected] * 2


def test_brightness_is_the_share_of_white_pixels_where_none_is_grey():
    x = torch.full((2, 1, 4, 8), -1.0)
    x[0, :, :, :2] = 1
    x[1, :, 3, 5] = 1
    assert brightness(x).tolist() == [0.25, 1 / 32]


# Slant


@pytest.mark.parametrize("shear", [0.0, 0.25, 0.5, -0.25, -0.5])
@pytest.mark.parametrize("width", [2, 4])
@pytest.mark.parametrize("soft", [0.0, 1.0, 2.0])
def test_a_sheared_bar_leans_by_its_shear(shear, width, soft):
    assert float(slant(bar(width, shear=shear, soft=soft))) == pytest.approx(shear, abs=0.01)


def test_a_stroke_to_the_right_leans_right():
    # the top row is the first one: / has a positive slant
    x = -torch.ones(1, 1, 30, 30)
    for k in range(30):
        x[..., k, 29 - k] = 1
    assert float(slant(x)) == pytest.approx(1) and float(slant(x.flip(-1))) == pytest.approx(-1)


@pytest.mark.parametrize("k", [-1, 1, 2])
def test_each_column_by_which_a_row_moves_against_the_next_adds_one(k):
    # whatever the ink: dx becomes dx - k dy
    x = spread_digits()
    rows = [row.roll(-k * i, -1) for i, row in enumerate(x.roll(32 * k, -1).unbind(2))]
    assert_close(slant(torch.stack(rows, 2)), slant(x) + k, rtol=1e-9, atol=1e-9)


def sheared(x, shear):
    """Each image leans by so much more."""
    zero, one = torch.zeros(len(x)), torch.ones(len(x))
    theta = torch.stack([one, shear + zero, zero, zero, one, zero], 1).reshape(-1, 2, 3)
    grid = F.affine_grid(theta, x.shape, align_corners=False)
    return F.grid_sample(x + 1, grid, align_corners=False) - 1


def test_slant_does_not_see_where_the_digit_is():
    x = spread_digits()
    for move in ((5, 0), (0, -7), (-3, 11)):
        assert_close(slant(x.roll(move, (2, 3))), slant(x), rtol=1e-10, atol=1e-10)
    for shift in ((0.5, 0.0), (3.3, -6.7)):
        assert float(slant(blob(0.4, shift=shift))) == pytest.approx(0.4, abs=1e-6)


def test_slant_does_not_see_how_bright_the_ink_is():
    x = spread_digits()
    faint = (x + 1) / 4 - 1
    assert_close(slant(faint), slant(x), rtol=1e-9, atol=1e-9)


def test_a_mirrored_digit_leans_the_other_way(digits):
    assert_close(slant(digits.flip(-1)), -slant(digits), rtol=1e-3, atol=1e-4)
    assert_close(slant(digits.flip(-2)), -slant(digits), rtol=1e-3, atol=1e-4)


def test_slant_is_the_shear_back_that_makes_a_digit_s_columns_narrowest(digits):
    shears = torch.linspace(-1, 1, 81)
    profiles = torch.stack([(sheared(digits, -k) + 1).sum((1, 2)) for k in shears])  # (shears, n, columns)
    profiles = profiles / profiles.sum(2, keepdim=True)
    column = torch.arange(profiles.shape[2])
    mean = (profiles * column).sum(2, keepdim=True)
    best = shears[(profiles * (column - mean) ** 2).sum(2).argmin(0)]
    assert correlation(slant(digits), best) > 0.98 and (slant(digits) - best).abs().mean() < 0.03


def correlation(a, b):
    return float(torch.corrcoef(torch.stack([a.double(), b.double()]))[0, 1])


# Stroke width


def expected_width(x, length):
    """Of a bar of so much ink and this length: w l / (l + w), since the two ends are edges, too."""
    area = float(brightness(x)) * x.shape[-1] ** 2
    return 2 * area / (2 * length + 2 * area / length)


# (soft, width, how near): a hard edge at an angle is a staircase, and of a stroke that is not much wider than
# its soft edges few pixels are all white
BARS = [(0.0, 2, 0.1), (0.0, 3, 0.1), (0.0, 4, 0.1), (0.0, 6, 0.1)]
BARS += [(1.0, 2, 0.13), (1.0, 3, 0.03), (1.0, 4, 0.03), (1.0, 6, 0.03), (2.0, 3, 0.1), (2.0, 4, 0.04), (2.0, 6, 0.04)]


@pytest.mark.parametrize("soft, width, within", BARS)
@pytest.mark.parametrize("angle", ANGLES)
def test_a_bar_is_as_wide_as_it_is_drawn_whichever_way_it_lies(angle, soft, width, within):
    for shift in ((0.25, 0.1), (0.0, 0.0), (0.5, 0.5)):
        x = bar(width, angle, soft=soft, shift=shift)
        assert float(stroke_width(x)) == pytest.approx(expected_width(x, 44), rel=within)


@pytest.mark.parametrize("soft, within", [(0.0, 0.1), (1.0, 0.03), (2.0, 0.07)])
@pytest.mark.parametrize("width", [3, 4, 6])
@pytest.mark.parametrize("shear", [0.25, 0.5, -0.25, -0.5])
def test_a_slanted_bar_is_as_wide_as_across_it(shear, width, soft, within):
    # a shear stretches the sides and keeps the ends: the stroke gets longer, and narrower across
    x, stretch = bar(width, shear=shear, soft=soft), math.sqrt(1 + shear**2)
    area = float(brightness(x)) * 64**2
    expected = 2 * area / (2 * 44 * stretch + 2 * area / 44)
    assert float(stroke_width(x)) == pytest.approx(expected, rel=within)


def test_at_the_border_there_is_an_edge_as_anywhere():
    x = torch.full((1, 1, 32, 32), -1.0, dtype=torch.float64)
    x[..., 8:24, 10:14] = 1
    for move in ((-8, 0), (8, 0), (0, -10), (0, 18), (8, 18)):
        assert_close(stroke_width(x.roll(move, (2, 3))), stroke_width(x), rtol=1e-3, atol=1e-3)
    full = torch.ones(1, 1, 32, 32)
    assert float(stroke_width(full)) == pytest.approx(16, rel=0.03)  # 2 n^2 / 4 n


def test_stroke_width_does_not_see_how_bright_the_ink_is(digits):
    faint = (digits + 1) / 4 - 1
    assert_close(stroke_width(faint), stroke_width(digits), rtol=0.02, atol=0)


TURNS = {
    "left-right": lambda x: x.flip(-1),
    "up-down": lambda x: x.flip(-2),
    "quarter": lambda x: x.rot90(1, (2, 3)),
    "diagonal": lambda x: x.mT,
}


@pytest.mark.parametrize("turn", TURNS.values(), ids=TURNS)
def test_a_mirrored_or_turned_digit_has_the_same_stroke_width(turn, digits):
    # a measure that sees which way a stroke leans would steer that, too
    assert_close(stroke_width(turn(digits)), stroke_width(digits), rtol=1e-4, atol=1e-4)


def test_a_thicker_pen_is_measured_as_one(digits):
    thicker, thinner = F.max_pool2d(digits, 3, 1, 1), -F.max_pool2d(-digits, (1, 2), 1, (0, 1))[..., :32]
    assert (stroke_width(thicker) > stroke_width(digits) + 0.5).all()
    assert (stroke_width(thinner) < stroke_width(digits)).double().mean() > 0.95


# All three


@pytest.mark.parametrize("measure", MEASURES)
def test_gradients_are_those_of_finite_differences(measure):
    x = (1.6 * uniform(2, 2, 5, 6) - 0.8).requires_grad_()
    assert torch.autograd.gradcheck(measure, (x,), eps=1e-6, atol=1e-6)


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gradients_are_finite_of_any_image(measure, dtype, digits):
    dot = torch.full((1, 1, 32, 32), -1.0)
    dot[..., 7, 9] = 1
    flat = [torch.full((1, 1, 32, 32), grey) for grey in (-1.0, -0.999, 0.0, 1.0, 1.5, -1.5)]
    for x in (*flat, dot, digits[:20]):
        x = x.to(dtype).requires_grad_()
        found = measure(x)
        (slope,) = torch.autograd.grad(found.sum(), x)
        assert found.isfinite().all() and slope.isfinite().all() and slope.dtype == dtype


@pytest.mark.parametrize("measure", MEASURES)
def test_next_to_no_ink_neither_measures_nor_pulls_without_bound(measure):
    # noise around black, whose sum is near 0 and may be below: an energy would follow such a pull
    noise = 0.02 * torch.randn(20, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    for x in (noise - 1, torch.full((1, 1, 32, 32), -1.0)):
        x = x.clone().requires_grad_()
        found = measure(x)
        (slope,) = torch.autograd.grad(found.sum(), x)
        assert found.abs().max() < 1000 and slope.abs().max() < 1e4


@pytest.mark.parametrize("measure", [slant, stroke_width])
def test_darker_than_black_is_black(measure, digits):
    # x_0_hat may leave the range; a hole in the paper would weigh against the ink
    below = torch.where(digits > -1, digits, -1 - uniform(*digits.shape).float())
    assert_close(measure(below), measure(digits), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("measure", MEASURES)
def test_a_black_image_measures_nothing(measure):
    assert measure(torch.full((2, 1, 32, 32), -1.0)).tolist() == [0, 0]


@pytest.mark.parametrize("measure", MEASURES)
def test_a_measure_is_one_number_an_image_and_images_do_not_mix(measure, digits):
    x = digits[:5].double()
    together = measure(x)
    assert together.shape == (5,) and together.dtype == torch.float64
    assert measure(x.float()).dtype == torch.float32
    for k in range(5):
        assert_close(measure(x[k : k + 1]), together[k : k + 1], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("measure", MEASURES)
def test_the_same_ink_in_each_channel_is_measured_as_in_one(measure, digits):
    x = digits[:5].double()
    assert_close(measure(x.expand(5, 3, 32, 32)), measure(x), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("measure", MEASURES)
def test_images_need_not_be_square(measure):
    x = spread_digits()[..., 20:44, :]
    wide = F.pad(x, (0, 9, 0, 0), value=-1.0)
    scale = 64 / 73 if measure is brightness else 1
    assert_close(measure(wide), scale * measure(x), rtol=1e-2, atol=1e-9)


def test_real_digits_are_measured_where_hands_write(digits):
    for measure, mean, deviation in ((brightness, 0.09, 0.03), (slant, 0.0, 0.24), (stroke_width, 2.4, 0.58)):
        found = measure(digits)
        assert float(found.mean()) == pytest.approx(mean, abs=deviation / 2)
        assert float(found.std()) == pytest.approx(deviation, rel=0.2)
