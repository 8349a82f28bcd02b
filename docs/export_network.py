"""Writes the shipped network for docs/network.html, weights in int8: python docs/export_network.py site"""

import json
import re
import shutil
import sys
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor

from tinyddpm import DDPM, load_pretrained
from tinyddpm.nn import UNet, WeightStandardizedConv2d

SMALL = 2048  # tensors of fewer numbers stay float32


def quantize(weight: Tensor) -> tuple[Tensor, Tensor]:
    """int8 and one float32 scale for each output channel: weight = int8 * scale, symmetric, rounded to nearest."""
    scale = weight.flatten(1).abs().amax(1) / 127
    int8 = (weight / scale.clamp(min=1e-30).reshape(-1, *[1] * (weight.ndim - 1))).round()
    return int8.to(torch.int8), scale


def export(ddpm: DDPM, path: Path) -> None:
    """One .safetensors file with the weights, the betas and what rebuilds the network. Raises ValueError for a network
    that docs/network.js cannot run."""
    network = ddpm.model
    wanted = {"channels": 1, "patch": 2, "linear_attention": False, "upsample": "depth_to_space", "image_size": 32}
    given = getattr(network, "arguments", {})
    if type(network) is not UNet or {k: given[k] for k in wanted} != wanted or given["out_channels"] not in (None, 1):
        raise ValueError(f"the page runs a U-Net with {wanted}, got {type(network).__name__} with {given}")
    weights = dict(network.state_dict())
    for name, module in network.named_modules():
        if isinstance(module, WeightStandardizedConv2d):
            weights[f"{name}.weight"] = module.standardized_weight()
    tensors = {"schedule.beta": ddpm.schedule.beta}
    for name, weight in weights.items():
        tensors[name] = weight.detach().contiguous()
        if weight.ndim > 1 and weight.numel() >= SMALL:
            tensors[name], tensors[f"{name}.scale"] = quantize(tensors[name])
    description = {"arguments": given, "predicts": ddpm.predicts}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(save(tensors, {"network": json.dumps(description)}))


def build(site: Path) -> None:
    """The folder that a static server needs: the pages, what they link to, the program and the network."""
    export(load_pretrained(), site / "network.safetensors")
    for name in ("network.html", "network.js", "index.html"):
        text = Path(__file__).with_name(name).read_text()
        for linked in re.findall(r'href="\.\./([^"]+)"', text):
            (site / linked).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(Path(__file__).parent.parent / linked, site / linked)
        (site / name).write_text(text.replace('href="../', 'href="'))


if __name__ == "__main__":
    build(Path(sys.argv[1] if len(sys.argv) > 1 else "site"))
