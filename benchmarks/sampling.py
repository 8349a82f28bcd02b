"""What makes sampling faster, measured in turns on one thread: the tables of benchmarks/sampling.md.

    python benchmarks/sampling.py [--rounds 5] [--only NAME ...] [--sizes 1 10 100] [--device cpu]

Ten steps of DDIM with the shipped weights, at guidance scales 1 and 2. Each way to sample is used once first: its
seconds are those of compilation. A ratio is the median over rounds of (as it is) / (that way), both of the same round.
How images differ is measured on the largest number of digits at scale 2, after rounding to 256 grey values. On a GPU,
times are of the clock, after it has finished.
"""

import argparse
import copy
import statistics
import time
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from tinyddpm import DDPM, load_pretrained, make_denoiser
from tinyddpm.data import to_uint8
from tinyddpm.extensions.onnx_export import onnx_bytes
from tinyddpm.nn import WeightStandardizedConv2d

Sampling = Callable[..., Tensor]
STEPS, SCALES = 10, (1.0, 2.0)


def plain(ddpm: DDPM) -> Sampling:
    return partial(torch.no_grad()(ddpm.sample), steps=STEPS)


def two_calls(ddpm: DDPM) -> Sampling:
    """Guidance by a call for each branch: what a network with a denoiser of its own gets."""
    ddpm.model.make_denoiser = partial(make_denoiser)
    return plain(ddpm)


def by_var_mean(ddpm: DDPM) -> Sampling:
    """The weights standardized by torch.var_mean, as until release 0.2."""

    class Slow(WeightStandardizedConv2d):
        def standardized_weight(self):
            var, mean = torch.var_mean(self.weight, dim=(1, 2, 3), keepdim=True, unbiased=False)
            return (self.weight - mean) * torch.rsqrt(var + self.eps)

    for conv in ddpm.model.modules():
        if isinstance(conv, WeightStandardizedConv2d):
            conv.__class__ = Slow
    return plain(ddpm)


def standardized_once(ddpm: DDPM) -> Sampling:
    """Plain convolutions, with the weights that the standardized ones apply."""
    for conv in ddpm.model.modules():
        if isinstance(conv, WeightStandardizedConv2d):
            conv.weight = nn.Parameter(conv.standardized_weight().detach())
            conv.__class__ = nn.Conv2d
    return plain(ddpm)


def channels_last(ddpm: DDPM) -> Sampling:
    ddpm.model.to(memory_format=torch.channels_last)
    return plain(ddpm)


def inference_mode(ddpm: DDPM) -> Sampling:
    return torch.inference_mode()(plain(ddpm))


def bf16(ddpm: DDPM) -> Sampling:
    return torch.autocast(ddpm.device.type, torch.bfloat16)(plain(ddpm))


def compiled(ddpm: DDPM) -> Sampling:
    ddpm.model.compile(dynamic=False)  # once for each number of images
    return plain(ddpm)


def compiled_bf16(ddpm: DDPM) -> Sampling:
    ddpm.model.compile(dynamic=False)
    return bf16(ddpm)


class OnnxNetwork(nn.Module):
    """The exported network, run by onnxruntime on one thread. It returns x_0_hat."""

    def __init__(self, ddpm: DDPM):
        import onnxruntime

        super().__init__()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(onnx_bytes(ddpm), options, providers=["CPUExecutionProvider"])
        self.num_classes, self.nothing = ddpm.num_classes, nn.Parameter(torch.zeros(1))

    def forward(self, x_t: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        y = torch.full_like(t, self.num_classes) if y is None else y
        return torch.from_numpy(self.session.run(None, {"x_t": x_t.numpy(), "t": t.numpy(), "y": y.numpy()})[0])


def onnx(ddpm: DDPM) -> Sampling:
    return plain(DDPM(OnnxNetwork(ddpm), ddpm.schedule, "x_0", ddpm.image_shape))


def one_call(ddpm: DDPM) -> Sampling:
    """One call of mnist-onestep in place of ten steps: other images."""
    return partial(torch.no_grad()(load_pretrained("mnist-onestep", ddpm.device).sample), steps=1)


WAYS: dict[str, Callable[[DDPM], Sampling]] = {
    "as it is": plain,
    "two calls for guidance": two_calls,
    "weights standardized by var_mean": by_var_mean,
    "weights standardized once": standardized_once,
    "channels_last": channels_last,
    "inference_mode": inference_mode,
    "torch.compile": compiled,
    "bf16": bf16,
    "bf16, torch.compile": compiled_bf16,
    "onnxruntime": onnx,
    "one call of mnist-onestep": one_call,
}


def timed(sample: Sampling, n: int, scale: float, device: str) -> tuple[float, Tensor]:
    """Seconds, of the processor where there is no other device, and the images."""
    clock = time.process_time if device == "cpu" else time.perf_counter
    started = clock()
    x = sample(y=torch.arange(n) % 10, scale=scale, seeds=range(n)).cpu()
    return clock() - started, x


def measure(names: list[str], sizes: list[int], rounds: int, device: str) -> None:
    ddpm = load_pretrained(device=device)
    ways, first = {}, {}
    for name in names:
        started = time.perf_counter()
        ways[name] = WAYS[name](DDPM(copy.deepcopy(ddpm.model), ddpm.schedule, ddpm.predicts, ddpm.image_shape))
        for n in sizes:
            for scale in SCALES:
                timed(ways[name], n, scale, device)
        first[name] = time.perf_counter() - started
    cases = [(n, scale) for scale in SCALES for n in sizes]
    seconds = {  # of each round, which is a turn of all ways
        case: [{name: timed(way, *case, device)[0] for name, way in ways.items()} for _ in range(rounds)]
        for case in cases
    }
    print("| ms (ratio) | " + " | ".join(f"{n} at scale {scale:g}" for n, scale in cases) + " |")
    print("|---" * (1 + len(cases)) + "|")
    for name in names:
        cells = [
            f"{1000 * statistics.median(turn[name] for turn in turns):.0f}"
            f" ({statistics.median(turn[names[0]] / turn[name] for turn in turns):.2f})"
            for turns in seconds.values()
        ]
        print(f"| {name} | {' | '.join(cells)} |")
    print("\n| | seconds of all first calls | largest difference | pixels that change | by more than 8 grey values |")
    print("|---|---|---|---|---|")
    images = {name: timed(way, max(sizes), 2.0, device)[1] for name, way in ways.items()}
    for name, x in images.items():
        grey = (to_uint8(x).int() - to_uint8(images[names[0]]).int()).abs()
        changed = [f"{(grey > least).float().mean():.3%}" for least in (0, 8)]
        largest = (x - images[names[0]]).abs().max()
        print(f"| {name} | {first[name]:.0f} | {largest:.1g} | {' | '.join(changed)} |")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", nargs="+", choices=list(WAYS), default=list(WAYS), help="beside it as it is")
    parser.add_argument("--sizes", nargs="+", type=int, default=[1, 10, 100], help="numbers of digits")
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    torch._dynamo.config.recompile_limit = 64  # after 8, its default, further sizes would run uncompiled
    torch.set_num_threads(1)
    names = list(dict.fromkeys(["as it is", *args.only]))
    if args.device != "cpu" and "onnxruntime" in names:
        names.remove("onnxruntime")  # the package for the processor
    measure(names, args.sizes, args.rounds, args.device)


if __name__ == "__main__":
    main()
