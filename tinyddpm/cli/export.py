"""The command export. Like `options`, it imports torch only when it runs."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Export:
    """Write the network as an ONNX file, for other languages and runtimes."""

    out: Path = Path("model.onnx")  # file to write
    weights: Path | None = None  # checkpoint file, or the name of shipped weights; None: mnist-tiny


def run_export(ask: Export) -> None:
    from ..extensions.onnx_export import export_onnx
    from .commands import file_of, load
    from .options import Drawing

    out = file_of(ask.out, ".onnx")
    export_onnx(load(Drawing(weights=ask.weights, steps=1)), out)
    print(f"the network is in {out}, {out.stat().st_size / 1e6:.1f} MB")
