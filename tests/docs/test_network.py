"""docs/network.html: its forward pass and sampler in V8 against tinyddpm, the file, and the page in Chromium."""

import base64
import functools
import http.server
import importlib.util
import json
import re
import shutil
import threading
from pathlib import Path

import pytest
import torch
from browser import Browser, contrast, needs_chromium, pixels, pull, text
from py_mini_racer import JSEvalException, MiniRacer
from safetensors.torch import load_file
from torch.testing import assert_close

from tinyddpm import DDPM, UNet, ddim, inpaint, load_pretrained, make_denoiser, mnist, p_sample, q_sample
from tinyddpm.editing.inpainting import hide_half, resampling_grid
from tinyddpm.evaluation import classify, load_classifier
from tinyddpm.guidance import classifier_free_guidance, clip_x_0
from tinyddpm.nn import WeightStandardizedConv2d

ROOT = Path(__file__).parents[2]
HTML = (ROOT / "docs" / "network.html").read_text(encoding="utf-8")
KINDS = ["words", "simd", "fused"]
SHIMS = """
class TextDecoder { decode(bytes) { return String.fromCharCode(...bytes); } }
const list = (x) => JSON.stringify(Array.from(x)), N = network;
function bytes(text) {
  const code = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  const found = new Uint8Array(text.length * 3 / 4);
  const at = Object.fromEntries([...code].map((c, k) => [c, k]));
  for (let i = 0, k = 0; i < text.length; i += 4) {
    const all = (at[text[i]] << 18) | (at[text[i + 1]] << 12) | ((at[text[i + 2]] ?? 0) << 6) | (at[text[i + 3]] ?? 0);
    for (const shift of [16, 8, 0]) found[k++] = (all >> shift) & 255;
  }
  return found.buffer.slice(0, found.length - (text.match(/=/g)?.length ?? 0));
}
"""  # V8 alone has no TextDecoder and no atob


def script():
    spec = importlib.util.spec_from_file_location("export_network", ROOT / "docs" / "export_network.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def ddpm():
    return load_pretrained()


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    script().build(folder)
    return folder


def javascript():
    context = MiniRacer()
    context.eval((ROOT / "docs" / "network.js").read_text(encoding="utf-8") + SHIMS)
    return context


def read_in(context, path, name):
    context.eval(f"const {name} = N.readFile(bytes({json.dumps(base64.b64encode(path.read_bytes()).decode())}));")


@pytest.fixture(scope="module")
def js(site):
    """Runs code in V8, where N is the program, file the exported file, S its schedule, and net the network."""
    context = javascript()
    read_in(context, site / "network.safetensors", "file")
    context.eval("const S = N.schedule(file), net = N.unet(file);")
    yield lambda code: context.eval(code)
    context.close()


def array(x):
    return f"new Float32Array({json.dumps(x.flatten().tolist())})"


def images(text):
    return torch.tensor(json.loads(text)).reshape(-1, 1, 32, 32)


def labels(y):
    """For JavaScript: null is the null class."""
    return json.dumps([None if k == 10 else k for k in y])


@functools.cache
def digits():
    data = mnist(train=False)
    images, y = zip(*(data[k] for k in range(20)))
    return torch.stack(images), torch.stack(y)


def inputs(ddpm):
    """Two noisy digits and their labels at each of ten times, one label the null class."""
    x_0, y = digits()
    for k, t in enumerate((1, 20, 80, 200, 350, 480, 600, 750, 900, 1000)):
        eps = torch.randn(2, 1, 32, 32, generator=torch.Generator().manual_seed(k))
        yield q_sample(x_0[2 * k : 2 * k + 2], t, eps, ddpm.schedule), t, [int(y[2 * k]), 10]


@torch.no_grad()
def by_torch(model, x, t, y):
    return model.eval()(x, torch.full((len(x),), t), torch.tensor(y))


# The file


def test_the_file_is_small_and_its_weights_are_those_of_the_network(ddpm, site):
    path = site / "network.safetensors"
    assert path.stat().st_size <= 2_500_000
    tensors = load_file(path)
    assert torch.equal(tensors["schedule.beta"], ddpm.schedule.beta)
    standardized = {n: m for n, m in ddpm.model.named_modules() if isinstance(m, WeightStandardizedConv2d)}
    for name, weight in ddpm.model.state_dict().items():
        if name.removesuffix(".weight") in standardized:
            weight = standardized[name.removesuffix(".weight")].standardized_weight()
        found, scale = tensors[name], tensors.get(f"{name}.scale")
        assert (found.dtype == torch.int8) == (weight.ndim > 1 and weight.numel() >= 2048)
        if scale is not None:
            scale = scale.reshape(-1, *[1] * (weight.ndim - 1))
            assert ((found * scale - weight).abs() <= 0.501 * scale).all() and (
                found.flatten(1).abs().amax(1) == 127
            ).all()
        else:
            assert torch.equal(found, weight)


def test_a_network_that_the_page_cannot_run_is_refused(ddpm, tmp_path):
    for network in (
        UNet((8, 16), attention=(8,), linear_attention=True),
        UNet((8, 16), attention=(8,), upsample="nearest"),
    ):
        with pytest.raises(ValueError, match="the page runs a U-Net with"):
            script().export(DDPM(network, ddpm.schedule, "v"), tmp_path / "network.safetensors")


@pytest.mark.parametrize(
    "damage", [lambda b: b[:4], lambda b: b[:-9], lambda b: b[:8] + b"?" + b[9:], lambda b: b"<!doctype html>" * 9]
)
def test_a_damaged_file_is_refused_in_one_sentence(site, tmp_path, damage):
    path, context = tmp_path / "damaged", javascript()
    path.write_bytes(damage((site / "network.safetensors").read_bytes()))
    with pytest.raises(JSEvalException, match="The weights are not a network that docs/export_network.py wrote"):
        read_in(context, path, "file")
    context.close()


# The forward pass


@pytest.mark.parametrize("kind", KINDS)
def test_the_kernel_is_a_matrix_product(js, kind):
    g = torch.Generator().manual_seed(0)
    for runs, length, blocks, gap in ((1, 4, 1, 0), (3, 12, 2, 8), (3, 96, 4, 20), (1, 64, 3, 4)):
        pixel, stride = length // 3 if runs == 3 else length, length + gap
        a = torch.randn(4 * blocks * pixel + runs * stride + length, generator=g)
        w, bias = torch.randn(runs * length, 8, generator=g), torch.randn(8, generator=g)
        seen = torch.stack([
            torch.cat([a[p * pixel + r * stride :][:length] for r in range(runs)]) for p in range(4 * blocks)
        ])  # fmt: skip
        code = f"""(() => {{
            const memory = new WebAssembly.Memory({{ initial: 2 }}), f = new Float32Array(memory.buffer);
            f.set({array(a)}, 8); f.set({array(torch.cat([bias, w.flatten()]))}, 4096); f.fill(7, 16384);
            N.makeKernel(memory, f, "{kind}").kernel(8, 4096, 16384, {blocks}, {runs}, {length}, {stride}, {pixel}, 12);
            return list(f.subarray(16384, 16384 + {4 * blocks * 12 + 4})); }})()"""
        found = torch.tensor(json.loads(js(code)))
        assert_close(found[: 48 * blocks].reshape(-1, 12)[:, :8], seen @ w + bias, rtol=1e-4, atol=1e-4)
        assert (found[: 48 * blocks].reshape(-1, 12)[:, 8:] == 7).all() and (found[48 * blocks :] == 7).all()  # no more


@pytest.mark.parametrize("kind", KINDS)
def test_the_forward_pass_with_float_weights_is_that_of_torch(ddpm, tmp_path, monkeypatch, kind):
    torch.manual_seed(0)
    other = UNet((16, 24, 32), num_classes=10, blocks=2, attention=(8, 4), heads=2)
    with torch.no_grad():
        for weight in other.parameters():
            weight.add_(0.1 * torch.randn_like(weight))
    exporter, context = script(), javascript()
    monkeypatch.setattr(exporter, "SMALL", 10**9)
    for name, model in (("shipped", ddpm.model), ("other", other)):
        exporter.export(DDPM(model, ddpm.schedule, "v"), tmp_path / name)
        read_in(context, tmp_path / name, name)
        context.eval(f"const {name}Net = N.unet({name}, '{kind}');")
        for x, t, y in list(inputs(ddpm))[1::6]:
            found = images(context.eval(f"list({name}Net({array(x)}, {t}, {labels(y)}))"))
            assert_close(found, by_torch(model, x, t, y), rtol=0, atol=5e-5)
    x = torch.randn(3, 1, 32, 32)  # more than it takes at once, and an odd number
    found = images(context.eval(f"list(otherNet({array(x)}, 77, [1, 2, null]))"))
    assert_close(found, by_torch(other, x, 77, [1, 2, 10]), rtol=0, atol=5e-5)
    context.close()


def test_the_forward_pass_with_int8_weights_is_close_to_that_of_torch(ddpm, js):
    errors = []
    for x, t, y in inputs(ddpm):
        found = images(js(f"list(net({array(x)}, {t}, {labels(y)}))"))
        errors.append(float((found - by_torch(ddpm.model, x, t, y)).square().mean().sqrt()))
    assert max(errors) <= 1e-2, errors
    assert min(errors) > 1e-5  # it is the int8 file that was read


# Sampling


def test_the_schedule_the_steps_and_the_resampling_are_those_of_tinyddpm(ddpm, js):
    S = ddpm.schedule
    for name, table in (("signal", S.sqrt_alpha_bar), ("noise", S.sqrt_one_minus_alpha_bar)):
        assert_close(torch.tensor(json.loads(js(f"list(S.{name})")), dtype=torch.float64), table, rtol=0, atol=1e-7)
    for steps in (1, 2, 7, 12, 50, 1000):
        grid = [tuple(step) for step in json.loads(js(f"list(N.grid(S, {steps}))"))]
        assert grid == S.grid(steps)
        for jump, repeats in ((1, 3), (2, 4), (10, 2), (10, 1)):
            found = json.loads(js(f"list(N.resampling(N.grid(S, {steps}), {jump}, {repeats}))"))
            assert [tuple(step) for step in found] == resampling_grid(grid, jump, repeats)


@pytest.mark.parametrize("steps", ["0", "1001", "2.5", "NaN"])
def test_a_number_of_steps_beyond_T_is_refused(js, steps):
    with pytest.raises(JSEvalException, match=f"Steps are a whole number from 1 to T = 1000, got {steps}"):
        js(f"N.grid(S, {steps})")


@pytest.mark.parametrize("kind", ["ddim", "ddpm"])
def test_a_step_is_that_of_tinyddpm(ddpm, js, kind):
    S, z = ddpm.schedule, torch.randn(1, 1, 32, 32, generator=torch.Generator().manual_seed(5))
    for x_t, t, _ in inputs(ddpm):
        x_t, x_0_hat = x_t[:1], x_t[1:].clamp(-1, 1)
        for s in {t // 2, 0, min(t + 100, 1000)} - {t}:
            if s < t and kind == "ddim":
                expected = list(ddim(lambda x, t, guess=x_0_hat: guess, x_t, S, [(t, s)]))[-1].x_t
            else:
                expected = p_sample(x_t, x_0_hat, t, s, S, generator=torch.Generator().manual_seed(5))
            code = f"list(N.step('{kind}', S, {array(x_t)}, {array(x_0_hat)}, {t}, {s}, () => {array(z)}))"
            assert_close(images(js(code)), expected, rtol=0, atol=2e-5)


@pytest.mark.parametrize("predicts", ["eps", "x_0", "v", "flow"])
@pytest.mark.parametrize("scale", [0, 1, 2.5])
def test_the_denoiser_is_guidance_then_known_pixels_then_clipping(ddpm, js, predicts, scale):
    # a network in closed form: x / 2 + y / 10
    S, y, known, mask = ddpm.schedule, torch.tensor([3, 7]), torch.full((1, 1, 32, 32), 0.25), hide_half("left", 32, 32)

    def model(x, t, y=None):
        return x / 2 + (torch.full((len(x),), 10) if y is None else y).reshape(-1, 1, 1, 1) / 10

    pair = make_denoiser(model, S, predicts, y), make_denoiser(model, S, predicts)
    plain = classifier_free_guidance(*pair, scale)
    js(f"function closed(x, t, y) {{ return x.map((v, k) => v / 2 + (y[Math.floor(k / {32 * 32})] ?? 10) / 10); }}")
    for x_t, t, _ in list(inputs(ddpm))[:-1]:
        for name, expected in (
            ("null", plain),
            (f"{{x_0: {array(known)}, mask: {array(mask)}}}", inpaint(plain, known, mask)),
        ):
            code = f"list(N.denoiser(closed, S, '{predicts}', [3, 7], {scale}, {name})({array(x_t)}, {t}))"
            assert_close(images(js(code)), clip_x_0(expected)(x_t, torch.full((2,), t)), rtol=0, atol=5e-4)


def sampled(js, y, seed, steps, scale=2):
    denoiser = f"N.denoiser(net, S, file.predicts, {json.dumps(y)}, {scale})"
    code = f"[...N.film('ddim', S, {denoiser}, N.noises({seed}, {len(y)}), N.grid(S, {steps}))]"
    return images(js(f"list({code}.at(-1).x_t)"))


def test_twenty_samples_are_read_like_those_of_torch(ddpm, js):
    y, steps = [k % 10 for k in range(20)], 5
    x_T = images(js("list(N.noises(1, 20)())"))
    ours = list(ddim(ddpm.denoiser(y, 2.0), x_T, ddpm.schedule, ddpm.schedule.grid(steps)))[-1].x_t
    theirs, reader = sampled(js, y, 1, steps), load_classifier()
    read = classify(reader, theirs).argmax(1)
    assert int((read == classify(reader, ours).argmax(1)).sum()) >= 19
    assert int((read == torch.tensor(y)).sum()) >= 19
    assert_close(sampled(js, [5], 6, steps), theirs[5:6], rtol=0, atol=1e-5)  # an image is the one of its seed


def test_half_a_digit_is_kept_and_the_other_half_is_drawn(ddpm, js):
    known, mask = digits()[0][:1], hide_half("bottom", 32, 32)  # a 7
    js(f"const known = {{x_0: {array(known)}, mask: {array(mask)}}};")
    js("const walk = N.resampling(N.grid(S, 10), 1, 2), guide = N.denoiser(net, S, file.predicts, [7, 7], 1, known);")
    found = images(js("list([...N.film('ddpm', S, guide, N.noises(3, 2), walk)].at(-1).x_t)"))
    assert_close(found[:, :, :16], known[:, :, :16].expand(2, -1, -1, -1), rtol=0, atol=1e-6)
    assert (classify(load_classifier(), found).argmax(1) == 7).all()
    assert (found[0] - found[1]).abs().max() > 0.1


def test_the_seed_decides_normal_noise(js):
    js("const draw = (seed, n) => { const z = new Float32Array(n); N.normals(seed)(z); return list(z); };")
    z = torch.tensor(json.loads(js("draw(7, 100000)"))).double()
    places = (torch.arange(100_000).double() + 0.5) / 100_000
    assert float((torch.special.ndtr(z.sort()[0]) - places).abs().max()) < 1.63 / 100_000**0.5  # Kolmogorov, 1 %
    assert abs(float((z[1:] * z[:-1]).mean())) < 0.01
    firsts = torch.stack([torch.tensor(json.loads(js(f"draw({seed}, 1024)"))) for seed in (*range(30), 999_999)])
    assert float(torch.corrcoef(firsts).fill_diagonal_(0).abs().max()) < 0.16  # 5 standard deviations
    assert js("draw(7, 9)") == js("draw(7, 9)")


# The page


def test_the_page_loads_nothing_from_elsewhere():
    assert "http" not in HTML.replace("http.server", "").replace("http://localhost:8000/network.html", "")
    assert re.findall(r'src="([^"]*)"', HTML) == ["network.js"] and "@import" not in HTML and "url(" not in HTML
    words = re.sub(r"<[^>]*>", " ", re.search(r'<p class="explain">.*?</p>', HTML, re.DOTALL)[0]).split()
    assert 60 <= len(words) <= 100


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_stands_out_from_its_background(theme):
    # WCAG 2.2, 1.4.3
    block = re.findall(r":root[^{]*\{(.*?)\}", HTML, re.DOTALL)[theme == "dark"]
    colour = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", block))
    for a, b in map(
        str.split, ("ink page", "ink card", "soft page", "soft card", "on new", "new card", "new page", "wrong card")
    ):
        assert contrast(colour[a], colour[b]) >= 4.5, (a, b)


FINISHED = "document.documentElement.dataset.finished"
COMPLETED = "document.querySelector('#hint').textContent.startsWith('Finished four ways')"


class Blank:
    """An empty page where the browser expects a path."""

    def resolve(self):
        return self

    def as_uri(self):
        return "about:blank"


def visit(browser, address, *size, **how):
    """Opens an address; the page adds to it what it shows."""
    browser.open(Blank(), *size, **how)
    browser.send("Page.navigate", url=address)
    browser.wait(f"document.readyState === 'complete' && location.href.startsWith({json.dumps(address.split('#')[0])})")


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def served(site):
    """The address of the page on a static server, and of the same folder without its weights."""
    shutil.copytree(site, site / "bare", ignore=shutil.ignore_patterns("bare", "*.safetensors"))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=site))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield lambda path: f"http://127.0.0.1:{server.server_port}/{path}"
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    browser = Browser(tmp_path_factory.mktemp("chromium"))
    browser.send("Network.enable")
    browser.send("Network.setCacheDisabled", cacheDisabled=True)
    yield browser
    browser.close()


def fill(browser, css, value):
    browser.run(f"""(() => {{ const e = document.querySelector("{css}"); e.value = "{value}";
        e.dispatchEvent(new Event("input", {{ bubbles: true }})); }})()""")


@needs_chromium
def test_the_first_digits_are_finished_within_two_seconds(browser, served):
    times = []
    while len(times) < 3 and min(times, default=9) > 2:  # other tests may take half of the machine
        visit(browser, served(f"network.html?{len(times)}"), 1400)
        browser.wait(FINISHED)
        times.append(browser.run("performance.now()") / 1000)
    assert min(times) <= 2, times
    assert browser.messages == []


@needs_chromium
@pytest.mark.parametrize("finger", [False, True], ids=["mouse at 1400", "finger at 390"])
def test_the_page_answers_to_mouse_and_finger(browser, served, finger):
    visit(
        browser, served(f"network.html?{finger}"), *((390, 844) if finger else (1400, 900)), dark=finger, touch=finger
    )
    browser.wait(f"{FINISHED} === '2026'")
    browser.wait(COMPLETED)  # an example
    assert browser.run("document.documentElement.scrollWidth") == (390 if finger else 1400)
    assert (
        torch.equal(pixels(browser, "#guess"), pixels(browser, "#noisy")) and text(browser, "#guesstext") == "finished"
    )
    last = pixels(browser, "#guess")
    pull(browser, "#time", 0, finger)
    assert text(browser, "#noisytext") == "100 % noise" and text(browser, "#guesstext") == "step 1 of 12"
    pull(browser, "#time", 1, finger)
    assert text(browser, "#guesstext") == "finished" and torch.equal(pixels(browser, "#guess"), last)
    browser.click("#another")
    browser.wait(f"{FINISHED} && document.querySelector('#seed').value === '15'")
    assert not torch.equal(pixels(browser, "#guess"), last)

    browser.click("#clear")
    browser.click("#finish")
    assert text(browser, "#hint") == "The pad is empty: draw half a digit first, or take the example."
    x, y, w, h = browser.box("#pad")
    stroke = [(0.3, 0.25), (0.4, 0.22), (0.5, 0.21), (0.62, 0.25), (0.66, 0.32), (0.62, 0.42), (0.52, 0.48)]
    (browser.touch if finger else browser.mouse)(*[(x + a * w, y + b * h) for a, b in stroke])
    browser.wait(COMPLETED)
    kept, made = pixels(browser, "#pad"), [pixels(browser, f"#four li:nth-child({k}) canvas") for k in range(1, 5)]
    assert all(torch.equal(kept[:16], one[:16]) for one in made)  # what was drawn is kept
    inked = [int(((one[16:] - kept[31, 31]).abs().amax(-1) > 100).sum()) for one in made]
    assert min(inked) > 8, inked
    assert not any(torch.equal(made[0], one) for one in made[1:])
    assert browser.messages == []


@needs_chromium
def test_the_page_says_in_one_sentence_what_is_wrong(browser, served, site):
    visit(browser, served("network.html#digits=7&steps=3000"), 1400)
    assert text(browser, "#mistake").startswith("Steps are a whole number from 1 to 1000")
    for css, bad, good, sentence in (
        ("#steps", "1001", "2", "Steps are a whole number from 1 to 1000, the number of times that the network knows."),
        ("#steps", "", "2", "Steps are a whole number from 1 to 1000, the number of times that the network knows."),
        ("#digits", "", "7", "Type one to six digits, such as 2026."),
        ("#digits", "-3", "7", "Type one to six digits, such as 2026."),
        ("#seed", "1.5", "1", "A seed is a whole number from 0 to 999999."),
    ):
        fill(browser, css, bad)
        assert text(browser, "#mistake") == sentence
        assert browser.run(f"document.querySelector('{css}').getAttribute('aria-invalid')") == "true"
        fill(browser, css, good)
        assert text(browser, "#mistake") == ""
    browser.wait(f"{FINISHED} === '7'")
    assert browser.messages == []
    browser.open(site / "network.html", 1400)
    assert "run make page, then python -m http.server -d site, and open" in text(browser, "#wrong")
    assert browser.messages == []
    visit(browser, served("bare/network.html"), 1400)
    browser.wait(
        "document.querySelector('#wrong').textContent.startsWith('The weights are missing: make page writes them')"
    )


@needs_chromium
def test_every_control_is_reached_by_keyboard_and_has_a_name(browser, served):
    visit(browser, served("network.html?keys#digits=4&steps=2"), 1400, still=True)
    browser.wait(f"{FINISHED} === '4'")
    seen = []
    for _ in range(18):
        browser.press("Tab")
        seen.append(
            browser.run("""(() => { const e = document.activeElement;
                const style = getComputedStyle(e.type === "radio" ? e.nextElementSibling : e);
                return [e.id || e.name || e.tagName,
                    style.outlineStyle === "solid" && parseFloat(style.outlineWidth) >= 2]; })()""")
        )
    wanted = {
        "theme",
        "time",
        "play",
        "another",
        "save",
        "digits",
        "scale",
        "steps",
        "seed",
        "pad",
        "finish",
        "example",
    }
    assert wanted | {"clear", "part", "label"} <= {name for name, _ in seen}
    assert all(shown for name, shown in seen if name != "BODY"), seen
    browser.run("document.querySelector('#time').focus()")
    browser.press("Home")
    assert text(browser, "#guesstext") == "step 1 of 2"
    browser.run("document.querySelector('#clear').click(), document.querySelector('#pad').focus()")
    blank = pixels(browser, "#pad")
    browser.press("Space", "ArrowUp", "Space")
    assert not torch.equal(pixels(browser, "#pad"), blank)
    browser.press("Delete")
    assert torch.equal(pixels(browser, "#pad"), blank)
    browser.run("document.querySelector('#theme').focus()")
    browser.press("Enter")
    assert browser.run("getComputedStyle(document.body).backgroundColor") == "rgb(19, 20, 23)"
    browser.press("Enter")
    nodes = [n for n in browser.send("Accessibility.getFullAXTree")["nodes"] if not n["ignored"]]
    roles = ("slider", "button", "radio", "image", "link", "application", "form", "textbox", "spinbutton")
    found = {role: [n["name"]["value"] for n in nodes if n["role"]["value"] == role] for role in roles}
    counts = {"slider": 2, "button": 7, "radio": 15, "image": 6, "link": 1, "application": 1, "form": 1}
    counts |= {"textbox": 1, "spinbutton": 2}
    assert {role: len(names) for role, names in found.items()} == counts
    assert all(all(names) for names in found.values())
    assert browser.messages == []
