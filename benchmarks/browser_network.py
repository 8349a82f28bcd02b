"""Times the network's forward pass in Chromium, by hand and by onnxruntime-web: python benchmarks/browser_network.py

One call with guidance, two images, one thread. onnxruntime-web takes part where onnx and onnxscript are installed and
`npm install onnxruntime-web` was run in the folder given by --npm. The table in docs/network.md is made of its output.
"""

import argparse
import functools
import http.server
import importlib.util
import json
import shutil
import sys
import tempfile
import threading
from pathlib import Path

import torch
from torch import Tensor, nn

from tinyddpm import load_pretrained
from tinyddpm.nn import WeightStandardizedConv2d

ROOT = Path(__file__).parents[1]

PAGE = """<!doctype html><link rel="icon" href="data:,"><script src="network.js"></script><script>
const x = new Float32Array(2048).map((_, k) => Math.sin(k * k));
async function timed(call, n) {
  const times = [];
  for (let k = 0; k < n; k++) {
    const began = performance.now();
    await call();
    times.push(performance.now() - began);
  }
  times.sort((a, b) => a - b);
  return { fastest: times[0], median: times[n >> 1] };
}
async function onnx(name) {
  ort.env.wasm.numThreads = 1;
  ort.env.wasm.wasmPaths = location.href.replace(/[^/]*$/, "");
  const session = await ort.InferenceSession.create(name, { executionProviders: ["wasm"] });
  const whole = (values) => new ort.Tensor("int64", BigInt64Array.from(values), [2]);
  const inputs = { x: new ort.Tensor("float32", x, [2, 1, 32, 32]), t: whole([500n, 500n]), y: whole([3n, 10n]) };
  return () => session.run(inputs);
}
async function measure(names, rounds, n) {
  const file = network.readFile(await (await fetch("network.safetensors")).arrayBuffer()), calls = {}, found = [];
  for (const kind of ["fused", "simd"]) {
    const forward = network.unet(file, kind);
    calls[kind] = () => forward(x, 500, [3, null]);
  }
  for (const name of names) calls[name] = await onnx(name);
  for (let round = 0; round < rounds; round++)
    for (const [name, call] of Object.entries(calls)) found.push([name, await timed(call, n)]);
  const words = network.unet(file, "words");
  return [...found, ["words", await timed(() => words(x, 500, [3, null]), 8)]];
}
</script>"""


def quantized(graph):
    """The ONNX graph with its matrices in int8, dequantized when it is loaded."""
    import numpy as np
    from onnx import helper, numpy_helper

    weights, first = [], []
    for weight in graph.graph.initializer:
        array = numpy_helper.to_array(weight)
        if array.dtype != np.float32 or array.ndim < 2 or array.size < 2048:
            weights.append(weight)
            continue
        scale = np.abs(array.reshape(len(array), -1)).max(1) / 127
        int8 = np.round(array / scale.reshape(-1, *[1] * (array.ndim - 1))).astype(np.int8)
        names = [f"{weight.name}.int8", f"{weight.name}.scale"]
        weights += [numpy_helper.from_array(int8, names[0]), numpy_helper.from_array(scale, names[1])]
        first.append(helper.make_node("DequantizeLinear", names, [weight.name], axis=0))
    rest = list(graph.graph.node)
    del graph.graph.initializer[:], graph.graph.node[:]
    graph.graph.initializer.extend(weights)
    graph.graph.node.extend(first + rest)
    return graph


def standardized(model: nn.Module) -> nn.Module:
    """The same network with plain convolutions."""
    for name, module in list(model.named_modules()):
        if isinstance(module, WeightStandardizedConv2d):
            conv = nn.Conv2d(module.in_channels, module.out_channels, 3, padding=1)
            conv.weight, conv.bias = nn.Parameter(module.standardized_weight().detach()), module.bias
            parent, _, last = name.rpartition(".")
            setattr(model.get_submodule(parent), last, conv)
    return model.eval()


def write_onnx(folder: Path) -> list[str]:
    import onnx

    inputs: tuple[Tensor, ...] = (torch.randn(2, 1, 32, 32), torch.tensor([500, 500]), torch.tensor([3, 10]))
    batch = [{0: torch.export.Dim("b")}] * 3
    names = {"input_names": ["x", "t", "y"], "output_names": ["out"]}
    model, path = standardized(load_pretrained().model), folder / "float.onnx"
    torch.onnx.export(model, inputs, path, dynamo=True, external_data=False, dynamic_shapes=batch, **names)
    onnx.save(quantized(onnx.load(path)), folder / "int8.onnx")
    return ["int8.onnx", "float.onnx"]


def main() -> None:
    sys.path.insert(0, str(ROOT / "tests"))
    from browser import Browser

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--npm", type=Path, help="the folder where onnxruntime-web was installed")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--calls", type=int, default=60)
    chosen = parser.parse_args()
    folder = Path(tempfile.mkdtemp())
    spec = importlib.util.spec_from_file_location("export_network", ROOT / "docs" / "export_network.py")
    exporter = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(exporter)
    exporter.build(folder)
    page, names = PAGE, []
    if chosen.npm:
        for name in ("ort.wasm.min.js", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm"):
            shutil.copy(chosen.npm / "node_modules" / "onnxruntime-web" / "dist" / name, folder)
        page, names = (
            PAGE.replace("<script src", '<script src="ort.wasm.min.js"></script><script src', 1),
            write_onnx(folder),
        )
    (folder / "time.html").write_text(page)
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=folder)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    browser = Browser(Path(tempfile.mkdtemp()))
    browser.socket.settimeout(300)
    try:
        browser.send("Page.navigate", url=f"http://127.0.0.1:{server.server_port}/time.html")
        browser.wait("typeof measure === 'function' && document.readyState === 'complete'")
        for name, times in browser.run(f"measure({json.dumps(names)}, {chosen.rounds}, {chosen.calls})"):
            print(f"{name:12} fastest {times['fastest']:7.1f} ms   median {times['median']:7.1f} ms")
    finally:
        browser.close()
        server.shutdown()


if __name__ == "__main__":
    main()
