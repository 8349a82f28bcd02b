"""Several processes, mixed precision and batches in parts, through accelerate."""

import atexit
import contextlib
import gc
import importlib
import os
import warnings
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Generator, Tensor, nn

from ..diffusion import Images
from ..pipeline import find_device
from ..schedules import choose
from ..tools.jobs import needs
from ..training import Losses, Objective

if TYPE_CHECKING:
    from accelerate import Accelerator

PRECISIONS = dict.fromkeys(("auto", "no", "bf16", "fp16"))  # see train


def native_bf16(device: str) -> bool:
    """Whether a device of this type, "cpu", "cuda" or "mps", has instructions that multiply in bfloat16."""
    if device == "cpu":
        found = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
        return any(found.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))  # the last one on ARM
    return device == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)


def resolve_precision(precision: str, device: str) -> str:
    """ "no", "bf16" or "fp16" on a device of this type. Warns of an emulated bf16; raises ValueError for a name that is
    not in PRECISIONS, and for a precision that the device lacks."""
    choose(PRECISIONS, precision, "precision")
    native = native_bf16(device)
    if precision == "auto":
        return "bf16" if native else "no"
    there = {"cuda": PRECISIONS, "cpu": ("no", "bf16")}.get(device, ("no",))
    if precision not in there:
        raise ValueError(f"{device} does not train in {precision} here: choose precision auto or {' or '.join(there)}")
    if precision == "bf16" and not native:
        found = "one core with AVX2 alone trains `tiny` at 7.9 images/s in bf16 and at 148 in float32"
        warnings.warn(f"this {device} emulates bf16: {found}, which precision='auto' chooses", stacklevel=2)
    return precision


def make_accelerator(
    device: str | None = None, precision: str = "auto", compile: bool = False, tensorboard: Path | None = None
) -> "Accelerator":
    """accelerate's Accelerator, with a tracker that writes to the folder `tensorboard`. Raises ValueError for a device
    or a precision that is not there."""
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState
    from accelerate.utils import DistributedDataParallelKwargs

    if tensorboard is not None and not find_spec("tensorboard"):
        needs("tensorboard", "logging to TensorBoard", "tensorboardX")
    if "WORLD_SIZE" in os.environ:  # imported after the group began, it would keep the group's threads alive
        importlib.import_module("torch._dynamo")
    started = torch.distributed.is_initialized()  # by the caller, who also ends the group
    AcceleratorState._reset_state(reset_partial_state=not started)  # it remembers the first run of a process
    accelerator = Accelerator(
        mixed_precision=resolve_precision(precision, find_device(device).type),
        cpu=find_device(device).type == "cpu",
        dynamo_backend="inductor" if compile else "no",
        kwargs_handlers=[DistributedDataParallelKwargs(broadcast_buffers=False, gradient_as_bucket_view=True)],
        log_with=None if tensorboard is None else "tensorboard",
        project_dir=tensorboard,
    )
    if torch.distributed.is_initialized() and not started:
        atexit.register(end_processes)
    if device not in (None, found := accelerator.device.type):
        raise ValueError(f"training runs on {found} or cpu, got {device!r}: choose a GPU with CUDA_VISIBLE_DEVICES")
    if tensorboard is not None:
        accelerator.init_trackers("tensorboard")
    return accelerator


def end_processes() -> None:
    """Ends the group of processes and its threads: a thread that frees a tensor while Python exits aborts the process.
    It runs at exit, because a process that has ended its group cannot train again."""
    if torch.distributed.is_initialized():
        gc.collect()  # the wrapped network holds on to the group
        torch.distributed.destroy_process_group()


class Rows(nn.Module):
    """A network that computes only some rows of a batch, and returns zeros for the others. Its attributes are those of
    `model`, the network inside of what accelerate has wrapped it in."""

    def __init__(self, net: nn.Module, model: nn.Module, rows: slice):
        super().__init__()
        self.net, self.model, self.rows = net, model, rows

    def forward(self, x: Images, *others: Tensor | None, **named: Tensor | None) -> Images:
        def own(value: Tensor | None) -> Tensor | None:
            return None if value is None else value[self.rows]

        computed = self.net(x[self.rows], *map(own, others), **{name: own(value) for name, value in named.items()})
        out = computed.new_zeros(len(x), *computed.shape[1:])
        out[self.rows] = computed
        return out

    def __getattr__(self, name: str):
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("model"), name)


@dataclass(frozen=True)
class SharedObjective:
    """An objective of the batch of all processes, of which each computes its own images, in `parts` one after another.

    Every part of every process draws the times, noise and dropped labels of the whole batch, from the same state of the
    generator: the objective gets a batch of that size, in which other processes' images are stand-ins, and a network
    that computes only the rows of this part (Rows). So p processes take the steps of one with p times the batch, and
    parts those of an undivided batch, for any objective in which no image's loss depends on another image.

    Returned are the losses of this process's images. Only the last part's carry a gradient: the caller's backward of
    their mean adds it, and averages over the processes; those of the other parts are added here.
    """

    objective: Objective
    model: nn.Module  # without what accelerate wraps it in
    accelerator: "Accelerator"
    parts: int = 1

    def __call__(self, net: nn.Module, x_0: Images, y: Tensor | None, generator: Generator) -> Losses:
        n, processes = len(x_0), self.accelerator.num_processes
        first = n * self.accelerator.process_index
        ends = torch.arange(first, first + n).chunk(self.parts)
        x_0, y = x_0.repeat(processes, 1, 1, 1), None if y is None else torch.cat([y] * processes)
        state, losses = generator.get_state(), []
        for k, part in enumerate(ends, 1):
            generator.set_state(state)
            rows, last = slice(int(part[0]), int(part[-1]) + 1), k == len(ends)
            with contextlib.nullcontext() if last else self.accelerator.no_sync(net):
                found, t = self.objective(Rows(net, self.model, rows), x_0, y, generator)
                losses.append(found[rows] if last else found[rows].detach())
                if not last:
                    self.accelerator.backward(found[rows].sum() / n)
        return torch.cat(losses), t[first : first + n]
