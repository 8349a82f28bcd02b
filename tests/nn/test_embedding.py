"""Time and label as vectors, against the table of diffusers."""

import pytest
import torch
from torch.testing import assert_close

from tinyddpm.nn import LabelEmbedding, SinusoidalEmbedding


@pytest.mark.parametrize("dim", [4, 6, 32, 128])
@pytest.mark.parametrize("max_period", [10_000.0, 100.0])
def test_time_embedding_is_that_of_diffusers(dim, max_period):  # trap 32: half - 1, sines first
    embeddings = pytest.importorskip("diffusers.models.embeddings")
    t = torch.arange(0, 1001)
    reference = embeddings.get_timestep_embedding(
        t, dim, flip_sin_to_cos=False, downscale_freq_shift=1, max_period=max_period
    )
    # a float32 angle of 1000 rad carries an error of 1e-4, and each library rounds its own frequencies
    assert_close(SinusoidalEmbedding(dim, max_period)(t), reference, rtol=0, atol=2e-4)


def test_time_embedding_follows_its_formula():  # the same without diffusers, and tighter: small angles
    t = torch.tensor([0, 1, 3])
    n = 4
    w = torch.tensor([10_000.0 ** (-i / (n - 1)) for i in range(n)])
    expected = torch.stack([torch.cat([(w * s).sin(), (w * s).cos()]) for s in t])
    assert_close(SinusoidalEmbedding(2 * n)(t), expected)


def test_no_two_times_of_a_thousand_share_an_embedding():
    table = SinusoidalEmbedding(32)(torch.arange(1, 1001))
    assert torch.pdist(table).min() > 0.1


def test_integer_and_float_times_embed_alike_in_float32():
    embed = SinusoidalEmbedding(16)
    t = torch.tensor([1, 500, 1000])
    assert embed(t).dtype == torch.float32
    assert torch.equal(embed(t), embed(t.float()))
    halfway = embed(torch.tensor([1.5]))  # a continuous time is not rounded to a step
    assert not torch.allclose(halfway, embed(torch.tensor([1]))) and halfway.abs().max() <= 1


@pytest.mark.parametrize("dim, mend", [(0, 4), (2, 4), (3, 4), (5, 6), (33, 34)])
def test_odd_and_too_small_dims_are_refused_with_one_that_works(dim, mend):  # trap 32: dim 2 divides by 0
    with pytest.raises(ValueError, match=f"even dim of at least 4.*got {dim}: use {mend}$"):
        SinusoidalEmbedding(dim)
    assert SinusoidalEmbedding(mend)(torch.tensor([7])).isfinite().all()


def test_frequencies_are_recomputed_not_saved():
    assert not SinusoidalEmbedding(8).state_dict()


def test_null_class_is_the_last_row():
    label = LabelEmbedding(10, 8)
    assert label.null_class == 10 and label.weight.shape == (11, 8)
    assert torch.equal(label(torch.tensor([10, 0])), label.weight[[-1, 0]])


def test_only_the_rows_used_get_a_gradient_and_the_null_row_is_one_of_them():  # trap 18
    label = LabelEmbedding(4, 8)
    label(torch.tensor([1, label.null_class])).square().sum().backward()
    assert label.weight.grad.abs().sum(dim=1).ne(0).tolist() == [False, True, False, False, True]
