"""A trained network as one ONNX file (onnx.ai), so that a sampler in any language needs no PyTorch."""

import json
import logging
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..diffusion import PREDICTIONS, Images, Labels
from ..files import writable_folder, write_whole
from ..pipeline import DDPM
from ..schedules import require
from ..tools.jobs import needs

ABOUT = """x_0_hat (b, c, h, w): the clean image in [-1, 1] that the network sees in x_t, at times t in 1..T, of classes
y in 0..num_classes-1, or num_classes for none. Clip it to [-1, 1], after guidance if there is any. DDIM from t to s:
eps = (x_t - sqrt(alpha_bar[t]) x_0_hat) / sqrt(1 - alpha_bar[t]); x_s = sqrt(alpha_bar[s]) x_0_hat + sqrt(1 -
alpha_bar[s]) eps. A network with the input scale (b,), of guidance from 1 to 3, needs no second call for it, and one
of few steps draws x_0_hat at t = T in one. The metadata have T, alpha_bar of 0..T, image_shape, num_classes and the
most steps of such a network, each as JSON."""


class ExportedDenoiser(nn.Module):
    """A network, its schedule and what it predicts, as one module (x_t, t, y, scale) -> x_0_hat, not clipped."""

    def __init__(self, ddpm: DDPM):
        super().__init__()
        self.model, self.schedule, self.to_x_0 = ddpm.model, ddpm.schedule, PREDICTIONS[ddpm.predicts].to_x_0
        self.schedule.signal_noise(1)  # makes its tables: those made while the module is traced would be symbols

    def forward(self, x_t: Images, t: Labels, y: Labels | None = None, scale: Tensor | None = None) -> Images:
        more = [given for given in (y, scale) if given is not None]
        out = self.model(x_t, t, *more)
        return self.to_x_0(out[:, : x_t.shape[1]], x_t, t, self.schedule)


def onnx_bytes(ddpm: DDPM) -> bytes:
    """The network as an ONNX model: inputs x_t (b, c, h, w) float32 and t (b,) int64, y (b,) int64 for a network with
    labels and scale (b,) float32 for one that sees it; output x_0_hat (b, c, h, w), not clipped, for any b. Raises
    MissingExtra, a ValueError, without the packages of the extra "onnx", and ValueError for a network that fixes b, or
    brings a denoiser of its own for anything but the scale."""
    needs("onnx", "an export to ONNX", "onnx", "onnxscript")
    guided = getattr(ddpm.model, "sees_scale", False)
    own = hasattr(ddpm.model, "make_denoiser") and not guided  # which remembers, or takes two times
    wanted = "an export needs a network of x_t, t, y and the guidance scale alone"
    require(not own, wanted, f"a {type(ddpm.model).__name__}")
    c, h, w = ddpm.image_shape
    inputs: dict[str, Tensor] = {"x_t": torch.zeros(2, c, h, w, device=ddpm.device)}
    for name in ("t", "y") if ddpm.num_classes is not None else ("t",):
        inputs[name] = torch.ones(2, dtype=torch.long, device=ddpm.device)
    if guided:
        inputs["scale"] = torch.ones(2, device=ddpm.device)
    logging.getLogger("onnxscript").setLevel(logging.ERROR)  # it warns of what it leaves to the runtime
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter about itself
        batch = {name: {0: torch.export.Dim("b")} for name in inputs}
        module, names = ExportedDenoiser(ddpm).eval(), list(inputs)
        how: dict = {"input_names": names, "output_names": ["x_0_hat"], "dynamic_shapes": batch, "verbose": False}
        program: Any = torch.onnx.export(module, kwargs=inputs, dynamo=True, **how)
    proto = program.model_proto
    free = all(put.type.tensor_type.shape.dim[0].dim_param for put in proto.graph.input)
    found = "one that fixes it, as len(x) does: use x.shape[0]"
    require(free, "an export needs a network of any number of images", found)
    return described(proto, ddpm)


def described(proto, ddpm: DDPM) -> bytes:
    """The model with what a sampler needs to know, and without the paths of source files that the exporter notes."""
    graph = proto.graph
    for part in [graph, *graph.node, *graph.value_info, *graph.initializer, *graph.input, *graph.output]:
        part.ClearField("metadata_props")
    proto.doc_string = ABOUT
    facts = {"T": ddpm.schedule.T, "alpha_bar": ddpm.schedule.alpha_bar.tolist(), "image_shape": ddpm.image_shape}
    facts |= {"num_classes": ddpm.num_classes, "predicts": ddpm.predicts, "notes": ddpm.notes}
    facts |= {"steps": getattr(ddpm.model, "steps", None)}
    for name, value in facts.items():
        proto.metadata_props.add(key=name, value=json.dumps(value))
    return proto.SerializeToString()


def export_onnx(ddpm: DDPM, path: str | Path) -> None:
    """Writes onnx_bytes(ddpm) whole or not at all. Raises ValueError as it does, and for a read-only folder."""
    folder = writable_folder(Path(path).parent)
    write_whole(folder / Path(path).name, onnx_bytes(ddpm))
