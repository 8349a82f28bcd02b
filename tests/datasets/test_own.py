import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset, TensorDataset

from tinyddpm.data import from_uint8, mnist, pad_to
from tinyddpm.datasets import as_data


def noise(*shape):
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


class Items(Dataset):
    def __init__(self, *items):
        self.items = items

    def __len__(self):
        return len(self.items)

    def __getitem__(self, i):
        return self.items[i]


@pytest.mark.parametrize("shape", [(4, 16, 16), (4, 1, 16, 16), (4, 3, 16, 16)])
def test_pixels_and_their_floats_are_the_same_data(shape):
    x, y = noise(*shape), torch.tensor([0, 2, 1, 2])
    wanted = from_uint8(x).reshape(4, -1, 16, 16)
    for made in (
        as_data(x, y),
        as_data(from_uint8(x), y),
        as_data(from_uint8(x).double(), y.int()),
        as_data(TensorDataset(x, y)),
        as_data(Items(*zip(x, y.tolist()))),
        as_data(Items(*((from_uint8(image), np.int64(label)) for image, label in zip(x, y)))),
        as_data(x.numpy(), y.numpy()),
    ):
        assert (made.channels, made.size, made.num_classes) == (wanted.shape[1], 16, 3)
        ((images, labels),) = DataLoader(made, batch_size=4)
        assert torch.equal(images, wanted) and images.dtype == torch.float32
        assert torch.equal(labels, y) and labels.dtype == torch.int64


def test_pixels_stay_bytes_in_memory():
    x = noise(4, 3, 16, 16)
    assert as_data(x).images.data_ptr() == x.data_ptr()


def test_pictures_are_taken_as_they_are():
    grey, colour = noise(16, 16), noise(16, 16, 3)
    ((image, label),) = as_data(Items((Image.fromarray(grey.numpy()), 3)))
    assert torch.equal(image, from_uint8(grey)[None]) and label == 3
    made = as_data(Items((Image.fromarray(colour.numpy()), 0)))
    assert torch.equal(made[0][0], from_uint8(colour.permute(2, 0, 1))) and made.channels == 3


def test_without_labels_there_are_no_classes():
    made = as_data(noise(4, 16, 16))
    assert made.num_classes is None and [int(label) for _, label in made] == [0] * 4
    assert as_data(TensorDataset(noise(4, 16, 16))).num_classes is None


def test_a_size_pads_and_scales_nothing():
    x = noise(2, 3, 20, 28)
    for made in (as_data(x, size=32), as_data(Items(*((image, 0) for image in x)), size=32)):
        assert made.size == 32 and torch.equal(made[1][0], pad_to(from_uint8(x[1]), 32))


def test_every_item_is_converted_when_it_is_asked_for():
    class Growing(Items):
        def __getitem__(self, i):
            return self.items[i][0] // (self.asked + 1), self.items[i][1]

    x, data = noise(2, 1, 16, 16), Growing
    data.asked = 0
    made = as_data(Growing((x[0], 0), (x[1], 1)))
    data.asked = 1  # as a random augmentation would change it
    assert torch.equal(made[1][0], from_uint8(x[1] // 2))


def test_the_data_of_the_house_goes_through_unchanged():
    digits = mnist(train=False)
    digits.images, digits.labels = digits.images[:20], digits.labels[:20]
    made = as_data(digits)
    assert (made.channels, made.size, made.num_classes) == (digits.channels, digits.size, digits.num_classes)
    assert torch.equal(made[7][0], digits[7][0]) and made[7][1] == digits[7][1]


HALF = torch.rand(4, 1, 16, 16, generator=torch.Generator().manual_seed(0))  # in [0, 1]: trap 24
GOOD = 2 * HALF - 1
NAN = GOOD.clone()
NAN[3, 0, 5, 5] = float("nan")
BRIGHT = GOOD.clone()
BRIGHT[2, 0, 0, 0] = 1.5


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (HALF, r"black at -1, got .* with values from [0-9.e-]+: .* 2 \* images - 1 if they are in \[0, 1\]"),
        (BRIGHT, r"float in \[-1, 1\], got torch.float32 of shape .* with values in \[-0.9.*, 1.5\]: .*rescale"),
        (NAN, r"with values in \[nan, nan\]"),
        (GOOD[:, :, :12], r"expected square images .*, got \[\(1, 12, 16\)\] with .*: give size=16"),
        (GOOD.repeat(1, 2, 1, 1), r"with 1 or 3 channels c, .* of shape \((4, )?2, 16, 16\)"),
        (noise(4, 16, 16, 3), r"of shape \((4, )?16, 16, 3\): move the channels before the height"),
        (noise(4, 16, 16).long(), r"uint8 in \[0, 255\] or float .*, got torch.int64"),
        (GOOD[:0], "got no images"),
    ],
)
def test_images_of_another_shape_type_or_range_are_refused(images, message):
    with pytest.raises(ValueError, match=message):
        as_data(images, torch.zeros(len(images), dtype=torch.long))
    with pytest.raises(ValueError, match=message):
        as_data(Items(*((image, 0) for image in images)))


def test_images_larger_than_the_size_are_refused():
    with pytest.raises(ValueError, match="a size to pad them to, .*: give size=16"):
        as_data(GOOD, size=12)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (torch.zeros(4), "labels are integers from 0, one for each image, got torch.float32"),
        (torch.zeros(4, 1, dtype=torch.long), r"of shape \(4, 1\)"),
        (torch.tensor([0, -1, 2, 3]), "integers from 0"),
        (torch.zeros(3, dtype=torch.long), "4 images and 3 labels"),
    ],
)
def test_labels_that_are_no_integers_from_0_are_refused(labels, message):
    with pytest.raises(ValueError, match=message):
        as_data(GOOD, labels)


class Broken(Items):
    def __getitem__(self, i):
        return self.items[i] if i == 0 else 1 / 0


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (Items((GOOD[0], 0), (GOOD[0], 1.0)), "labels are integers from 0, .*, got torch.float32"),
        (Items((GOOD[0], 0), (GOOD[0], -1)), "labels are integers from 0"),
        (Items((GOOD[0], 0), GOOD[0]), "not enough values"),
        (Items((GOOD[0], 0), (BRIGHT[2], 0)), r"float in \[-1, 1\], got .*, 1.5\]"),
        (Broken((GOOD[0], 0), None), "division by zero"),
    ],
)
def test_an_item_that_cannot_be_used_is_named_and_left_out_when_asked(data, message, capsys):
    with pytest.raises(ValueError, match=f"item 1 cannot be used: .*{message}.*; repair it"):
        as_data(data)
    made = as_data(data, skip_broken=True)
    assert len(made) == 1 and torch.equal(made[0][0], GOOD[0])
    assert "left out item 1: " in capsys.readouterr().out


def test_images_of_several_sizes_need_one_to_pad_them_to():
    data = Items((GOOD[0], 0), (GOOD[0, :, 4:], 1))
    with pytest.raises(ValueError, match=r"got \[\(1, 12, 16\), \(1, 16, 16\)\] with .*: give size=16"):
        as_data(data)
    assert torch.equal(as_data(data, size=20)[1][0], pad_to(GOOD[0, :, 4:], 20))


def test_grey_images_among_coloured_ones_become_coloured():
    made = as_data(Items((GOOD[0], 0), (GOOD[0].expand(3, -1, -1), 0)))
    assert made.channels == 3 and torch.equal(made[0][0], made[1][0])


def test_labels_come_with_the_items_of_a_data_set():
    with pytest.raises(ValueError, match="and no other labels, got Items and labels Tensor"):
        as_data(Items((GOOD[0], 0)), torch.zeros(1))
    with pytest.raises(ValueError, match="expected a tensor of images .*, got str and labels NoneType"):
        as_data("images")


def test_bright_images_among_dark_ones_are_accepted():
    assert len(as_data(Items((GOOD[0], 0), (HALF[0], 0)))) == len(as_data(torch.cat([GOOD, HALF]))) - 6
