"""The package computes what it computed before it was rebuilt: see golden/record.py.

Other processors and other releases of torch round differently, so nothing here is compared bit for bit;
`python tests/golden/record.py --exact` does that, on one machine.
"""

import pytest
import torch
from golden.record import GROUPS, compute, load

STORED = load()
# Relative to each entry and to the largest of its tensor; 1e-5 where no other is given. In these groups
# rounding is carried through many calls of a network, or enlarged. Behind each: the largest difference on one
# processor with its vector instructions off, or without oneDNN.
TOLERANCES = {
    "samplers": 1e-4,  # 1.5e-5
    "guidance": 1e-4,  # 5.2e-6
    "gradient_guidance": 5e-4,  # 5.0e-5: the gradient is multiplied by (1 - alpha_bar) / sqrt(alpha_bar)
    "editing": 1e-4,  # 2.4e-6
    "pictures": 1e-4,  # 6.0e-6
    "measures": 1e-4,  # 3.7e-6: distances are small differences of large sums
    "twice_the_channels": 1e-4,  # 1.5e-5: x_0 from eps divides by sqrt(alpha_bar)
    "training_adam": 5e-5,  # 4.8e-6
    "training_progressive": 5e-5,  # likewise
    "log": 1e-3,  # of a run's table, which has five digits
}


@pytest.mark.parametrize("name", GROUPS)
def test_a_group_has_the_values_that_were_recorded(name):
    found, stored = compute(name), STORED[name]
    assert found.keys() == stored.keys()
    for key, value in stored.items():
        tolerance = TOLERANCES.get(key) or TOLERANCES.get(name, 1e-5)
        scale = float(value.abs().max())
        torch.testing.assert_close(
            found[key], value, rtol=tolerance, atol=tolerance * scale, msg=lambda text, key=key: f"{key}: {text}"
        )


def test_no_recorded_group_is_left_out():
    assert STORED.keys() == GROUPS.keys()
