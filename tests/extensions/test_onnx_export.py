"""The exported file, run by onnxruntime alone, beside the network in torch."""

import importlib.util
import json
import os
from functools import partial

import numpy as np
import pytest
import torch
from filelock import FileLock

from tinyddpm import DDPM, Schedule, UNet, load_pretrained
from tinyddpm.cli.main import main
from tinyddpm.extensions.onnx_export import export_onnx, onnx_bytes
from tinyddpm.extensions.self_conditioning import SelfConditioned
from tinyddpm.tools.jobs import MissingExtra

onnxruntime = pytest.importorskip("onnxruntime")


def run(file, x_t, t, y=None):
    """x_0_hat of an exported network."""
    given = {"x_t": x_t, "t": t} | ({} if y is None else {"y": y})
    (out,) = file.run(["x_0_hat"], {name: np.asarray(value) for name, value in given.items()})
    return torch.from_numpy(out)


def opened(content):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


@pytest.fixture(scope="session")
def shipped(tmp_path_factory):
    """The shipped weights as the command exports them, once for all processes, in a folder that does not exist yet."""
    root = tmp_path_factory.getbasetemp().parent / f"onnx-{os.environ.get('PYTEST_XDIST_TESTRUNUID', os.getpid())}"
    path = root / "new" / "model.onnx"
    with FileLock(f"{root}.lock"):
        if not path.exists():
            assert main(["export", "--out", str(path)]) == 0
    assert [file.name for file in path.parent.iterdir()] == ["model.onnx"]  # one file, and nothing half written
    return path.read_bytes()


def test_the_shipped_network_is_the_same_for_any_batch_time_and_label(shipped):
    file, ddpm = opened(shipped), load_pretrained()
    exact = ddpm.model.eval()  # predicts x_0
    for b in (1, 3, 8):
        x_t, y = torch.randn(b, 1, 32, 32), torch.randint(0, 11, (b,))  # 10: the null class
        for t in (torch.full((b,), 1), torch.full((b,), 1000), torch.randint(1, 1001, (b,))):
            with torch.no_grad():
                torch.testing.assert_close(run(file, x_t, t, y), exact(x_t, t, y), rtol=0, atol=1e-4)
    x_t, t = torch.randn(1, 1, 32, 32), torch.tensor([300])
    three, none = (run(file, x_t, t, torch.tensor([label])) for label in (3, 10))
    assert (three - none).abs().max() > 0.01  # labels matter
    assert (run(file, x_t, t + 500, torch.tensor([3])) - three).abs().max() > 0.01  # and so do times


def test_ten_steps_of_ddim_need_the_file_alone(shipped):
    """numpy and the file's metadata draw the images of DDPM.sample, with guidance."""
    file = opened(shipped)
    facts = {name: json.loads(value) for name, value in file.get_modelmeta().custom_metadata_map.items()}
    T, abar, null = facts["T"], np.array(facts["alpha_bar"]), facts["num_classes"]
    y, scale, times = np.array([3, 1, 4]), 2.0, [T * k // 10 for k in range(10, -1, -1)]
    noise = [torch.randn(1, *facts["image_shape"], generator=torch.Generator().manual_seed(k)) for k in range(3)]
    x = torch.cat(noise).numpy()
    for t, s in zip(times, times[1:]):
        labels = np.concatenate([y, np.full(3, null)])
        with_y, without = np.split(run(file, np.concatenate([x, x]), np.full(6, t), labels).numpy(), 2)
        x_0_hat = (without + scale * (with_y - without)).clip(-1, 1)
        eps = (x - abar[t] ** 0.5 * x_0_hat) / (1 - abar[t]) ** 0.5
        x = (abar[s] ** 0.5 * x_0_hat + (1 - abar[s]) ** 0.5 * eps).astype(np.float32)
    ours = load_pretrained().sample(y=[3, 1, 4], steps=10, scale=2.0, seeds=range(3))
    torch.testing.assert_close(torch.from_numpy(x), ours, rtol=0, atol=1e-4)


def test_the_file_says_what_a_sampler_needs_and_nothing_of_this_machine(shipped):
    file, ddpm = opened(shipped), load_pretrained()
    facts = {name: json.loads(value) for name, value in file.get_modelmeta().custom_metadata_map.items()}
    assert (facts["T"], facts["num_classes"], facts["predicts"]) == (1000, 10, "x_0")
    assert facts["image_shape"] == [1, 32, 32] and facts["notes"] == json.loads(json.dumps(ddpm.notes))
    assert facts["alpha_bar"] == ddpm.schedule.alpha_bar.tolist()  # float64, exactly
    shapes = {put.name: (put.shape, put.type) for put in [*file.get_inputs(), *file.get_outputs()]}
    image = (["b", 1, 32, 32], "tensor(float)")
    assert shapes == {"x_t": image, "x_0_hat": image} | dict.fromkeys("ty", (["b"], "tensor(int64)"))
    assert "alpha_bar[s]" in file.get_modelmeta().description
    assert not [words for words in (b"site-packages", b"/tinyddpm/", b".py", b"pkg.torch") if words in shipped]


@pytest.mark.parametrize(
    ("predicts", "network"), [("eps", dict(out_channels=2, channels=1)), ("v", dict(num_classes=4, channels=3))]
)
def test_other_networks_and_predictions(predicts, network):
    torch.manual_seed(0)
    unet = UNet((8,), attention=(), **network)  # without labels, and with twice the channels; in colour
    with torch.no_grad():
        for weight in unet.parameters():
            weight.add_(0.1 * torch.randn_like(weight))
    ddpm = DDPM(unet, Schedule.named("cosine", 20), predicts, (network["channels"], 16, 16))
    file = opened(onnx_bytes(ddpm))
    x_t, t = torch.randn(5, network["channels"], 16, 16), torch.tensor([1, 5, 10, 15, 7])
    y = torch.tensor([0, 1, 2, 3, 4]) if ddpm.num_classes else None
    with torch.no_grad():
        exact = unet(x_t, t, y)[:, : x_t.shape[1]].double()
    signal, noise = (
        table[t].reshape(-1, 1, 1, 1)
        for table in (ddpm.schedule.sqrt_alpha_bar, ddpm.schedule.sqrt_one_minus_alpha_bar)
    )
    x_0_hat = signal * x_t - noise * exact if predicts == "v" else (x_t - noise * exact) / signal
    torch.testing.assert_close(run(file, x_t, t, y).double(), x_0_hat, rtol=1e-4, atol=1e-4)
    assert torch.is_tensor(ddpm.sample(n=1, steps=2))  # tracing leaves the schedule as it was


def test_a_network_that_sees_the_scale_takes_it_as_an_input():
    """The shipped network of one step: its image of a seed, at two scales in one batch."""
    ddpm = load_pretrained("mnist-onestep")
    file, T = opened(onnx_bytes(ddpm)), ddpm.schedule.T
    facts = {name: json.loads(value) for name, value in file.get_modelmeta().custom_metadata_map.items()}
    assert facts["steps"] == ddpm.model.steps
    x_T = torch.cat([torch.randn(1, 1, 32, 32, generator=torch.Generator().manual_seed(k)) for k in (0, 1)])
    given = {"x_t": x_T, "t": torch.full((2,), T), "y": torch.tensor([4, 2]), "scale": torch.tensor([1.0, 2.0])}
    (out,) = file.run(["x_0_hat"], {name: value.numpy() for name, value in given.items()})
    ours = torch.cat([ddpm.sample(y=[y], steps=1, scale=s, seeds=[k]) for k, y, s in ((0, 4, 1.0), (1, 2, 2.0))])
    torch.testing.assert_close(torch.from_numpy(out).clamp(-1, 1), ours, rtol=0, atol=1e-4)


# --- bad input


def hide(monkeypatch, *packages):
    real = importlib.util.find_spec
    monkeypatch.setattr("tinyddpm.tools.jobs.find_spec", lambda name: None if name in packages else real(name))


@pytest.mark.parametrize("missing", [("onnx",), ("onnxscript",), ("onnx", "onnxscript")])
def test_without_its_packages_it_says_what_to_install(missing, small, tmp_path, monkeypatch, capsys):
    hide(monkeypatch, *missing)
    message = f"an export to ONNX needs {' and '.join(missing)}: pip install 'tinyddpm[onnx]'"
    assert main(["export", "--out", str(tmp_path / "x.onnx")]) == 2
    assert capsys.readouterr().err == f"tinyddpm: {message}\n" and not list(tmp_path.iterdir())
    with pytest.raises(MissingExtra) as error:
        export_onnx(small, tmp_path / "x.onnx")
    assert str(error.value) == message


def test_a_network_with_a_denoiser_of_its_own_is_refused(tmp_path):
    network = SelfConditioned(UNet((8,), channels=2, out_channels=1, attention=()))
    with pytest.raises(ValueError, match="x_t, t, y and the guidance scale alone, got a SelfConditioned"):
        onnx_bytes(DDPM(network, Schedule.named("cosine", 20), "v"))


class OfTwo(torch.nn.Module):
    """A network whose graph is of as many images as it was traced with."""

    num_classes = None

    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv2d(1, 1, 1)

    def forward(self, x, t, y=None):
        return self.conv(x) + t.expand(len(x)).reshape(-1, 1, 1, 1)


def test_a_network_of_a_fixed_number_of_images_is_refused():
    with pytest.raises(ValueError, match="a network of any number of images, got one that fixes it, as len"):
        onnx_bytes(DDPM(OfTwo(), Schedule.named("cosine", 20), "x_0", (1, 8, 8)))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--out model.png", "expected a .onnx file, got 'model.png'"),
        ("--out folder.onnx", "expected a .onnx file, got 'folder.onnx'"),
        ("--out file/model.onnx", "cannot write to the folder file"),
        ("--weights nothing.safetensors", "there is no checkpoint nothing.safetensors"),
        ("--weights file", "file is cut off, damaged or of another format"),
    ],
)
def test_a_bad_path_ends_in_one_line_before_the_work(words, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch.onnx, "export", partial(pytest.fail, "the work had begun"))
    (tmp_path / "folder.onnx").mkdir()
    (tmp_path / "file").write_bytes(b"no checkpoint")
    assert main(["export", *words.split()]) == 2
    error = capsys.readouterr().err
    assert message in error and len(error.splitlines()) == 1 and not (tmp_path / "model.onnx").exists()


def test_what_was_there_stays_when_the_export_fails(small, tmp_path, monkeypatch):
    path = tmp_path / "model.onnx"
    path.write_bytes(b"before")
    monkeypatch.setattr("tinyddpm.extensions.onnx_export.onnx_bytes", lambda _: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        export_onnx(small, path)
    assert path.read_bytes() == b"before" and list(tmp_path.iterdir()) == [path]
