"""Attacks: random damage to what a user can hand to the program. Each is seeded, and returns what was found wrong.

    python tests/attacks/attacks.py checkpoints --n 5000 --seed 1

Wrong is: another exception than the ValueError that a door raises, an attack that takes longer than SECONDS, more
memory than GIB, or a difference from the original that nothing reports though the file has a digest.
"""

import argparse
import contextlib
import errno
import faulthandler
import io
import json
import os
import random
import resource
import signal
import string
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from unittest import mock

import torch
from safetensors.torch import save

sys.path.insert(0, str(Path(__file__).parent.parent))
SECONDS, GIB = 60, 1.5
NASTY = [
    *(
        None,
        True,
        0,
        -1,
        1,
        2,
        3,
        7,
        28,
        2048,
        10**9,
        2**31,
        2**63,
        10**30,
        1.5,
        -0.0,
        1e300,
        float("nan"),
        float("inf"),
    ),
    *("", "x", "eps", "v", "x" * 1000, "\u2603", "../../x", "__class__", "UNet", "SelfConditioned"),
    *(
        [],
        [0],
        [-1],
        [2048, 2048, 2048],
        [[1]],
        [1, 32, 32],
        [1, 10**6, 10**6],
        [3, 0, 0],
        ["a"],
        {},
        {"a": 1},
        {"dims": [4]},
    ),
]


def small_ddpm():
    from tinyddpm import DDPM, Schedule, UNet

    torch.manual_seed(0)
    unet = UNet((8, 16), num_classes=10, attention=(8,), heads=1)
    return DDPM(unet, Schedule.named("cosine-shifted", 50), "v", notes={"seed": 0})


def damaged(content: bytes, chance: random.Random) -> bytes:
    """The content with a few bits flipped, a part cut out, repeated or overwritten, or its end missing."""
    content, kind = bytearray(content), chance.randrange(5)
    start = chance.choice([chance.randrange(len(content)), chance.randrange(min(2000, len(content)))])
    length = chance.choice([1, 8, 100, 5000])
    if kind == 0:
        for _ in range(chance.choice([1, 1, 3, 50])):
            content[chance.randrange(len(content)) if chance.random() < 0.5 else start] ^= 1 << chance.randrange(8)
    elif kind == 1:
        del content[start : start + length]
    elif kind == 2:
        content[start:start] = content[start : start + length]
    elif kind == 3:
        content[start : start + length] = chance.randbytes(length)
    else:
        del content[start:]
    return bytes(content)


def nested(value, chance: random.Random):
    """The value with one thing in it replaced by something nasty, or left out."""
    if isinstance(value, dict) and value and chance.random() < 0.8:
        key = chance.choice(list(value))
        if chance.random() < 0.15:
            return {k: v for k, v in value.items() if k != key}
        return {**value, key: nested(value[key], chance)}
    if isinstance(value, (list, tuple)) and value and chance.random() < 0.7:
        i = chance.randrange(len(value))
        return [*value[:i], nested(value[i], chance), *value[i + 1 :]]
    return chance.choice(NASTY)


def in_order(content: bytes) -> bytes:
    """A checkpoint with its header sorted: safetensors writes metadata in a random order, and a seed should harm the
    same bytes each time."""
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.dumps(json.loads(content[8:end]), sort_keys=True).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + content[end:]


def checkpoints(n: int, chance: random.Random, folder: Path) -> list[str]:
    """Damaged files, and whole ones with a right digest that ask for something else, given to DDPM.load."""
    from tinyddpm import DDPM, last
    from tinyddpm.files import DIGEST, digest, read_checkpoint

    path, wrong = folder / "x.safetensors", []
    ddpm = small_ddpm()
    ddpm.save(path)
    whole, wanted = in_order(path.read_bytes()), ddpm.model.state_dict()
    description, tensors = read_checkpoint(path, 2)

    def attack(i: int) -> str | None:
        harm = i % 2 == 0
        if harm:
            path.write_bytes(damaged(whole, chance))
        else:
            found, weights = description, dict(tensors)
            for _ in range(chance.choice([1, 1, 2, 5])):
                found = nested(found, chance) if chance.random() < 0.8 else found
                found = found if isinstance(found, dict) else {}
                if chance.random() < 0.3:
                    weights[chance.choice(list(weights))] = nasty_tensor(chance)
            written = {str(k): json.dumps(v) for k, v in found.items()} | {DIGEST: '""'}
            path.write_bytes(save(weights, written | {DIGEST: json.dumps(digest(written, weights))}))
        loaded = DDPM.load(path)
        if harm and any(not torch.equal(v, wanted[k]) for k, v in loaded.model.state_dict().items()):
            return "other weights were loaded in silence"
        huge = any(value.abs().max() > 1e20 for value in loaded.model.state_dict().values())  # these may overflow
        if not huge and not last(loaded.sample_steps(n=1, steps=1, seeds=[0])).x_t.isfinite().all():
            return "what is drawn is not finite"
        return None

    for i in range(n):
        wrong += tried(f"checkpoint {i}", lambda i=i: attack(i))
    return wrong


def nasty_tensor(chance: random.Random) -> torch.Tensor:
    shape = chance.choice([(0,), (1,), (3, 3), (51,), (8,), (), (8, 4, 3, 3), (1000, 1000)])
    tensor = torch.full(shape, chance.choice([0.0, 1.0, -1.0, 1e30, 1e-300, float("nan"), float("inf")]))
    return tensor.to(chance.choice([torch.float32, torch.float16, torch.float64, torch.int64, torch.bool]))


def tried(name: str, attack: Callable[[], str | None], allowed=(ValueError,)) -> list[str]:
    """What is wrong with the attack's outcome: nothing, or one line."""
    faulthandler.dump_traceback_later(SECONDS, exit=True)
    try:
        found = attack()
    except allowed:
        found = None
    except Exception as error:
        found = f"{type(error).__name__}: {str(error)[:200]}"
    finally:
        faulthandler.cancel_dump_traceback_later()
    return [f"{name}: {found}"] if found else []


def states(n: int, chance: random.Random, folder: Path) -> list[str]:
    """Damaged states of a run, and sealed ones with other contents: refused, or resumed."""
    from small_run import MINI, Fetched, crash

    from tinyddpm.trainer import train
    from tinyddpm.trainer.state import DIGEST, FILES, resume_command, sha256

    run, newest, wrong = folder / "run", folder / "run" / FILES[0], []
    quiet = {"device": "cpu", "precision": "no", "command": ["train"]}
    with contextlib.suppress(RuntimeError):
        train(MINI, run, Fetched(14, crash), save_every=-1.0, **quiet)
    kept = {path.name: path.read_bytes() for path in run.glob("run.state*")}
    content = torch.load(io.BytesIO(newest.read_bytes()[DIGEST:]), weights_only=True)

    def attack(i: int) -> None:
        for path in run.rglob("*"):
            if path.is_file() and path.name != "run.lock":
                path.unlink()
        for name, data in kept.items():
            (run / name).write_bytes(damaged(data, chance) if chance.random() < 0.7 else data)
        if i % 2:
            torch.save(nested(content, chance), data := io.BytesIO())
            newest.write_bytes(sha256(data.getvalue()) + data.getvalue())
        with contextlib.suppress(ValueError):
            resume_command(run)
        with contextlib.redirect_stdout(io.StringIO()):
            train(MINI, run, Fetched(), **quiet)

    for i in range(n):
        wrong += tried(f"state {i}", lambda i=i: attack(i))
    return wrong


WORDS = {
    "sample": "--digits --per-digit --out --steps --scale --seed --weights --sampler --grid --eta --device --show",
    "gif": "--digits --out --frames --steps --scale --seed --weights --sampler --grid --eta --device",
    "morph": "--digits --frames --out --wander --steps --scale --seed --weights --device",
    "inpaint": "--digits --hide --each --labelled --times --out --steps --scale --seed --device",
    "style": "--digits --hands --image --label --out --steps --scale --seed --device",
    "write": "--variety --out --steps --scale --seed --device",
    "eval": "--n --out --no-sweeps --no-bits --bits-n --steps --scale --seed --weights --sampler --grid --eta --device",
    "train": "--recipe --data --root --size --out --minutes --seed --device --precision --accumulate --epochs --T",
}
VALUES = [
    *(
        "",
        "0",
        "1",
        "2",
        "-1",
        "3",
        "7",
        "1.5",
        "nan",
        "inf",
        "-inf",
        "1e400",
        "2147483648",
        "9223372036854775808",
        "9" * 30,
    ),
    *(
        "x",
        "x.png",
        "x.gif",
        "x.npz",
        "x.txt",
        "folder.png",
        "folder",
        "missing/x.png",
        "/proc/x.png",
        "/dev/null",
        "\u2603.png",
    ),
    *(
        "~nosuchuser",
        "3,14",
        "2026",
        "0123456789",
        "1 2",
        "a",
        "None",
        "ddim",
        "heun",
        "cpu",
        "cuda",
        "mps",
        "tiny",
        "mnist",
    ),
    *(
        "fashion",
        "left",
        "-",
        "--",
        "--out",
        "x" * 300,
        "x\0y",
        "damaged.safetensors",
        "tall.png",
        "pipe.png",
        "uniform",
    ),
]


def small(ddpm):
    """load_pretrained with a small network in place of the shipped one."""
    from tinyddpm import load_pretrained as real

    return lambda name, device="cpu": ddpm.to(device) if name == "mnist-tiny" else real(name, device)


def commands(n: int, chance: random.Random, folder: Path) -> list[str]:
    """Random command lines, run with a small network in place of the shipped one: 0, 2 and no traceback."""
    from tinyddpm.cli.main import main

    ddpm, wrong = small_ddpm(), []
    ddpm.image_shape, ddpm.notes = (1, 32, 32), {"data": "mnist"}
    (folder / "folder.png").mkdir()
    (folder / "folder").mkdir()
    (folder / "damaged.safetensors").write_bytes(b"{}" * 50)
    (folder / "tall.png").write_bytes(tall_picture())
    os.mkfifo(folder / "pipe.png")
    os.chdir(folder)

    def attack(argv: list[str]) -> str | None:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()) as said:
            status = main(argv)
        if status not in (0, 2) or status == 2 and not said.getvalue().strip():
            return f"exit status {status} after {argv}: {said.getvalue()[-200:]}"
        return None

    quick = [
        mock.patch("tinyddpm.cli.commands.load_pretrained", small(ddpm)),
        mock.patch("tinyddpm.cli.commands.evaluate", lambda ddpm, out, spec, **how: spec.arguments(ddpm.schedule)),
        mock.patch("tinyddpm.cli.commands.page", str),
        mock.patch("tinyddpm.cli.commands.train", lambda *a, **k: None),
        mock.patch("tinyddpm.datasets.named.Named.read", refuse),
    ]
    with contextlib.ExitStack() as stack:
        for patch in quick:
            stack.enter_context(patch)
        for i in range(n):
            command = chance.choice(list(WORDS))
            argv = [
                command,
                *({"write": ["31"], "style": ["--hands", "1"], "inpaint": ["--each", "1"]}.get(command, [])),
            ]
            if command not in ("train", "eval"):
                argv += ["--steps", "1"]
            argv += {"sample": ["--per-digit", "1"], "inpaint": ["--times", "1", "--digits", "3"]}.get(command, [])
            for _ in range(chance.randrange(4)):
                argv += [chance.choice(WORDS[command].split()), chance.choice(VALUES)][: chance.choice([1, 2, 2, 2, 2])]
            found = tried(f"command {i} {argv}"[:300], lambda argv=argv: attack(argv), ())
            wrong += found
    return wrong


def refuse(*_):
    raise ValueError("no network in an attack")


def tall_picture() -> bytes:
    from PIL import Image

    Image.new("L", (1, 1_000_000)).save(data := io.BytesIO(), "png")
    return data.getvalue()


def sessions(n: int, chance: random.Random, folder: Path) -> list[str]:
    """Random keys typed at the menu, whose commands are not run."""
    from prompt_toolkit.application import create_app_session
    from prompt_toolkit.input import create_pipe_input
    from prompt_toolkit.output import DummyOutput

    from tinyddpm.cli.menu import menu

    os.chdir(folder)
    (folder / "runs" / "nano").mkdir(parents=True)
    (folder / "runs" / "nano" / "run.state").write_bytes(b"damaged")
    answers = [
        *"dgwtrq0123",
        "",
        "back",
        "~nosuchuser",
        "x" * 300,
        "/root/x",
        "\x1b[A",
        "\x1b[B",
        "1 m",
        "5 epochs",
        "x.png",
    ]
    answers += ["no", "-1", "nan", "\u2603", "/dev/null", "".join(chance.choices(string.printable[:90], k=9))]
    wrong = []

    def attack() -> str | None:
        keys = "".join(chance.choice(answers) + "\r" for _ in range(chance.randrange(1, 15)))
        with create_pipe_input() as keyboard, create_app_session(input=keyboard, output=DummyOutput()):
            keyboard.send_text(keys + "\x03\x03")
            with contextlib.redirect_stdout(io.StringIO()):
                status = menu(lambda words: 0)
        return None if status == 0 else f"status {status}"

    for i in range(n):
        wrong += tried(f"session {i}", attack, ())
    return wrong


def disks(n: int, chance: random.Random, folder: Path) -> list[str]:
    """Each kind of output, over one that is there, on a disk that is full: what was there stays."""
    from small_run import run as train_small

    from tinyddpm.cli.main import main

    os.chdir(folder)
    ddpm, wrong = small_ddpm(), []
    ddpm.notes = {"data": "mnist"}
    one = ["--digits", "3", "--steps", "1"]
    outputs: dict[str, Callable[[], object]] = {
        "x.png": lambda: main(["sample", *one, "--per-digit", "1", "--out", "x.png"]),
        "x.npz": lambda: main(["sample", *one, "--per-digit", "1", "--out", "x.npz"]),
        "gifs/digit_3.gif": lambda: main(["gif", *one, "--out", "gifs"]),
        "morph.gif": lambda: main(["morph", "--digits", "31", "--steps", "1", "--frames", "2", "--out", "morph.gif"]),
        "strip.gif": lambda: main(["write", "3", "--steps", "1", "--out", "strip.gif"]),
        "inpaint.png": lambda: main(["inpaint", *one, "--each", "1", "--times", "1", "--out", "inpaint.png"]),
        "style.png": lambda: main(["style", *one, "--hands", "1", "--out", "style.png"]),
        "x.safetensors": lambda: ddpm.save("x.safetensors"),
        "run/model.safetensors": lambda: train_small(Path("run"), fresh=True),
        "run/log.png": lambda: train_small(Path("run"), fresh=True),
    }

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def attack(name: str, write: Callable[[], object]) -> str | None:
        path = Path(name)
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(before := chance.randbytes(1000))
        said = io.StringIO()
        with mock.patch("tinyddpm.files.os.fsync", full), contextlib.redirect_stderr(said):
            try:
                status = write()
            except (OSError, ValueError) as error:
                status = 2
                said.write(str(error))
        left = [found.name for found in path.parent.glob(".tinyddpm-*")]
        lost = not path.exists() or path.read_bytes() != before
        if status != 2 or lost or left or "No space left" not in said.getvalue():
            return f"{name}: status {status}, lost {lost}, left {left}, said {said.getvalue()[-200:]}"
        return None

    with mock.patch("tinyddpm.cli.commands.load_pretrained", small(ddpm)), contextlib.redirect_stdout(io.StringIO()):
        for i in range(n):
            name = list(outputs)[i % len(outputs)]
            wrong += tried(f"disk {i}", lambda name=name: attack(name, outputs[name]), ())
    return wrong


def writers(n: int, chance: random.Random, folder: Path) -> list[str]:
    """Processes that write one file over and over, killed at any moment: it always is one of the two contents."""
    code = """
import sys
from tinyddpm.files import write_whole
print("ready", flush=True)
while True:
    for letter in b"ab":
        write_whole(sys.argv[1], bytes([letter]) * 3_000_000)
"""
    path, wrong = folder / "x", []
    heard = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # which a job in the background inherits as ignored
    path.write_bytes(b"a" * 3_000_000)
    for i in range(n):
        process = subprocess.Popen(
            [sys.executable, "-c", code, path], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, preexec_fn=heard
        )
        process.stdout.readline()
        time.sleep(chance.uniform(0, 0.2))
        process.send_signal(chance.choice([signal.SIGKILL, signal.SIGTERM, signal.SIGINT]))
        process.wait()
        content = path.read_bytes()
        if len(content) != 3_000_000 or len(set(content)) != 1:
            wrong.append(f"writer {i} left {len(content)} bytes of {set(content)}")
    return wrong


def calls(n: int, chance: random.Random, folder: Path) -> list[str]:
    """Calls of public functions in which one argument has the right type and a nasty value: anything but a ValueError,
    the TypeError of a float that should be an integer, or the OSError of a file's name is wrong."""
    import tinyddpm
    from tinyddpm import DDPM, Schedule, UNet, viz
    from tinyddpm.data import crop_to, from_uint8, mnist, pad_to
    from tinyddpm.datasets.own import as_data

    os.chdir(folder)
    ddpm = small_ddpm()
    schedule, x = ddpm.schedule, torch.zeros(2, 1, 32, 32)
    denoiser, grid = tinyddpm.gaussian_oracle(0.0, 0.5, schedule), [(50, 20), (20, 0)]
    one = {"schedule": schedule, "grid": grid}
    table: list[tuple[Callable, dict]] = [
        (ddpm.sample, {"y": [1, 2], "steps": 2, "scale": 1.5, "seeds": [1, 2], "sampler": "ddim", "batch_size": 2}),
        (ddpm.sample, {"n": 2, "steps": 2, "seeds": 3, "grid": grid}),
        (ddpm.check_labels, {"y": [1, 2]}),
        (DDPM, {"model": ddpm.model, "schedule": schedule, "predicts": "v", "image_shape": (1, 32, 32)}),
        (Schedule, {"beta": schedule.beta}),
        (Schedule.named, {"name": "cosine", "T": 50}),
        (schedule.grid, {"steps": 5, "spacing": "uniform", "start": 20}),
        (UNet, {"dims": (8, 16), "channels": 1, "patch": 2, "blocks": 1, "attention": (8,), "heads": 1, "groups": 4}),
        (tinyddpm.linear_betas, {"T": 10}),
        (tinyddpm.cosine_betas, {"T": 10, "offset": 0.008, "shift": 1.0}),
        (tinyddpm.zero_terminal_snr, {"beta": schedule.beta}),
        (tinyddpm.ddim, {"denoiser": denoiser, "x_T": x, **one, "eta": 0.5}),
        (tinyddpm.p_sample_loop, {"denoiser": denoiser, "x_T": x, **one, "variance": "beta"}),
        (tinyddpm.heun, {"denoiser": denoiser, "x_T": x, **one}),
        (tinyddpm.dpm_solver_pp, {"denoiser": denoiser, "x_T": x, **one}),
        (tinyddpm.euler_maruyama, {"denoiser": denoiser, "x_T": x, **one}),
        (tinyddpm.predictor_corrector, {"denoiser": denoiser, "x_T": x, **one, "snr": 0.1}),
        (tinyddpm.clip_x_0, {"denoiser": denoiser, "low": -1.0, "high": 1.0}),
        (tinyddpm.interval, {"scale": 2.0, "low": 3, "high": 9}),
        (tinyddpm.blend, {"a": denoiser, "b": denoiser, "weight": 0.5}),
        (tinyddpm.dynamic_threshold, {"denoiser": denoiser, "quantile": 0.9}),
        (tinyddpm.inpaint, {"denoiser": denoiser, "known": x, "mask": torch.ones(32, 32)}),
        (tinyddpm.resampling_grid, {"grid": grid, "jump": 2, "repeats": 2}),
        (tinyddpm.hide_half, {"half": "left", "height": 32, "width": 32}),
        (tinyddpm.sdedit, {"denoiser": denoiser, "x_0": x, "schedule": schedule, "grid": grid}),
        (tinyddpm.invert, {"denoiser": denoiser, "x_0": x, **one, "iterations": 1}),
        (tinyddpm.slerp, {"a": x, "b": x, "weight": 0.5}),
        (tinyddpm.morph, {"ddpm": ddpm, "y": [1, 2], "frames": 2, "steps": 2, "scale": 2.0, "seed": 0}),
        (tinyddpm.write, {"text": "1 2", "ddpm": ddpm, "steps": 2, "scale": 1.0, "seed": 0, "variety": 0.2}),
        (tinyddpm.bits_per_dim, {"denoiser": denoiser, "x_0": x, "schedule": schedule}),
        (viz.image_grid, {"x": x, "columns": 2, "enlarge": 1, "levels": 16}),
        (viz.save_gif, {"frames": [viz.image_grid(x)], "path": "x.gif", "fps": 10.0, "hold": 1.0}),
        (viz.save_picture, {"picture": viz.image_grid(x), "path": "x.png"}),
        (mnist, {"train": False, "size": 32}),
        (pad_to, {"x": x, "size": 40}),
        (crop_to, {"x": x, "size": 28}),
        (from_uint8, {"images": x.byte()}),
        (as_data, {"images": x, "labels": torch.tensor([0, 1]), "size": 32}),
        (tinyddpm.load_pretrained, {"name": "mnist-tiny", "device": "cpu"}),
        (DDPM.load, {"path": "x.safetensors", "device": "cpu"}),
    ]
    tensors = [torch.zeros(0), torch.zeros(2, 2), torch.full((2, 1, 32, 32), float("nan")), torch.zeros(0, 1, 32, 32)]
    tensors += [torch.zeros(2, 1, 28, 28), torch.zeros(2, 1, 32, 32, dtype=torch.int64), torch.tensor([0, 11])]
    small = [value for value in NASTY if not ("2048" in repr(value) or isinstance(value, int) and value > 64)] + tensors
    plain = (ValueError, TypeError, OSError)
    kinds, flat = ((torch.Tensor,), (int, float), (str,), (list, tuple)), (torch.Tensor, int, float, str, list, tuple)
    wrong = []

    def attack(function: Callable, arguments: dict) -> None:
        found = function(**arguments)
        if hasattr(found, "__next__"):
            tinyddpm.last(found)

    def alike(value, given) -> bool:
        """Whether the items of two sequences are of one type."""
        lists = isinstance(given, (list, tuple)) and value
        return not lists or isinstance(value[0], type(given[0]))

    for i in range(n):
        function, arguments = chance.choice(table)
        name = chance.choice([name for name, given in arguments.items() if isinstance(given, flat)])
        kind = next(kind for kind in kinds if isinstance(arguments[name], kind))
        value = chance.choice([value for value in small if isinstance(value, kind) and alike(value, arguments[name])])
        label = f"call {i} {getattr(function, '__name__', function)}({name}={value!r:.80})"
        wrong += tried(label, lambda f=function, a={**arguments, name: value}: attack(f, a), plain)
    return wrong


def crowds(n: int, chance: random.Random, folder: Path) -> list[str]:
    """n threads that load and sample at once, as each would alone; and n processes that write one file at once."""
    from tinyddpm import DDPM

    path, wrong = folder / "x.safetensors", []
    ddpm = small_ddpm()
    ddpm.save(path)

    def draw(seed: int, own: bool) -> torch.Tensor:
        return (DDPM.load(path) if own else ddpm).sample(y=[seed % 10], steps=3, scale=2.0, seeds=[seed])

    alone = [draw(seed, False) for seed in range(n)]
    with ThreadPoolExecutor(n) as pool:
        for own in (True, False):
            together = list(pool.map(draw, range(n), [own] * n))
            wrong += [f"thread {i} drew another image" for i in range(n) if not torch.equal(alone[i], together[i])]

    code = (
        "import sys; from tinyddpm.files import write_whole; write_whole(sys.argv[1], sys.argv[2].encode() * 500_000)"
    )
    words = [[sys.executable, "-c", code, folder / "y", chr(97 + i % 26)] for i in range(n)]
    crowd = [subprocess.Popen(one) for one in words]
    wrong += [f"writer {i} failed" for i, process in enumerate(crowd) if process.wait()]
    content = (folder / "y").read_bytes()
    if len(content) != 500_000 or len(set(content)) != 1 or list(folder.glob(".tinyddpm-*")):
        wrong.append(f"{n} writers left {len(content)} bytes of {set(content)} and {list(folder.iterdir())}")
    return wrong


ATTACKS = {
    attack.__name__: attack for attack in (checkpoints, states, commands, sessions, calls, disks, writers, crowds)
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("attack", choices=ATTACKS, nargs="?", help="by default all of them, one after another")
    parser.add_argument("--n", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    failed = False
    for attack in [args.attack] if args.attack else ATTACKS:
        with tempfile.TemporaryDirectory() as folder:
            wrong = ATTACKS[attack](args.n, random.Random(args.seed), Path(folder))
            os.chdir("/")
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(*wrong[:20], f"{args.n} {attack}: {len(wrong)} wrong, peak {peak:.2f} GiB", sep="\n", flush=True)
        failed |= len(wrong) > (args.n // 100 if attack == "calls" else 0) or peak > GIB
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
