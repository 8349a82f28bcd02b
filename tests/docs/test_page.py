"""docs/index.html: its mathematics in V8 against tinyddpm, what is in the file, and the page in Chromium."""

import ast
import importlib.util
import json
import math
import re
from pathlib import Path

import pytest
import torch
from browser import Browser, contrast, needs_chromium, pixels, pull, text
from py_mini_racer import JSEvalException, MiniRacer
from torch.testing import assert_close

from tinyddpm import Schedule, classifier_free_guidance, clip_x_0, ddim, inpaint, mnist, p_sample, q_sample
from tinyddpm.data import from_uint8
from tinyddpm.oracle import dataset_oracle, local_oracle, shrinking

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "index.html"
HTML = PAGE.read_text(encoding="utf-8")
MATHEMATICS = re.search(r'<script id="mathematics">\n(.*?)</script>', HTML, re.DOTALL)[1]
DIGITS = re.search(r'<script type="text/plain" id="digits">\n(.*?)\n</script>', HTML, re.DOTALL)[1]
S = Schedule.named("cosine", 1000)
TIMES = [1, 20, 80, 200, 350, 480, 600, 750, 900, 1000]


def builder():
    spec = importlib.util.spec_from_file_location("build_page", ROOT / "docs" / "build.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def digits():
    """Float64 (300, 1, 16, 16) and labels, straight from MNIST."""
    images, labels = builder().digits()
    return (images[:, None].double() / 127.5 - 1), labels


DATA, LABELS = digits()


@pytest.fixture(scope="module")
def js():
    """Runs code in V8, where the page's mathematics M, its digits d and its schedule S are known."""
    context = MiniRacer()
    context.eval(f"{MATHEMATICS}; const M = mathematics, d = M.decode({json.dumps(DIGITS)}), S = M.cosineSchedule();")
    context.eval("const list = (x) => JSON.stringify(Array.from(x));")
    yield lambda code: context.eval(code)
    context.close()


def image(text):
    return torch.tensor(json.loads(text), dtype=torch.float64).reshape(1, 1, 16, 16)


def inputs():
    """Ten noisy pictures, one at each of TIMES: real digits, under noise."""
    g = torch.Generator().manual_seed(0)
    for k, t in enumerate(TIMES):
        eps = torch.randn(1, 1, 16, 16, generator=g, dtype=torch.float64)
        yield q_sample(DATA[29 * k : 29 * k + 1], t, eps, S), t


def flat(x):
    return json.dumps(x.flatten().tolist())


def hat(js, x_t, t, options="{}"):
    return image(js(f"list(M.oracle(d, S, {options})({flat(x_t)}, {t}))"))


def windows(js, window):
    radii = json.loads(js(f"list(M.WINDOWS[{window}])"))
    return lambda log_snr: next(r for b, r in zip((-3.5, -2, -1, 0, 1, float("inf")), radii) if log_snr < b)


def close(got, expected):
    assert_close(got, expected, rtol=0, atol=1e-4)


# The mathematics


def test_the_schedule_and_the_times_are_those_of_tinyddpm(js):
    for name, table in (("signal", S.sqrt_alpha_bar), ("noise", S.sqrt_one_minus_alpha_bar)):
        assert_close(torch.tensor(json.loads(js(f"list(S.{name})"))).double(), table, rtol=0, atol=1e-7)
    for steps, start in ((1, 1000), (7, 1000), (20, 1000), (50, 650), (1000, 1000), (3, 3)):
        assert [tuple(step) for step in json.loads(js(f"list(M.grid(S, {steps}, {start}))"))] == S.grid(
            steps, start=start
        )


@pytest.mark.parametrize("steps", [0, 1001])
def test_a_number_of_steps_beyond_T_is_refused_in_the_same_words(js, steps):
    with pytest.raises(ValueError) as ours:
        S.grid(steps)
    with pytest.raises(JSEvalException, match=re.escape(str(ours.value))):
        js(f"M.grid(S, {steps})")


def test_the_oracle_of_the_whole_picture_is_dataset_oracle(js):
    denoiser, three = dataset_oracle(DATA, S), dataset_oracle(DATA[LABELS == 3], S)
    for x_t, t in inputs():
        close(hat(js, x_t, t), denoiser(x_t, torch.tensor([t])))
        close(hat(js, x_t, t, "{label: 3}"), three(x_t, torch.tensor([t])))


@pytest.mark.parametrize("window", range(7))
def test_the_oracle_of_a_window_is_local_oracle(js, window):
    radius = windows(js, window)
    everything, sevens = local_oracle(DATA, S, radius=radius), local_oracle(DATA[LABELS == 7], S, radius=radius)
    for x_t, t in inputs():
        options = f"radius: (l) => M.radiusAt({window}, l)"
        close(hat(js, x_t, t, f"{{{options}}}"), everything(x_t, torch.tensor([t])))
        close(hat(js, x_t, t, f"{{label: 7, {options}}}"), sevens(x_t, torch.tensor([t])))


def guided(radius, label, scale):
    conditional = local_oracle(DATA[LABELS == label], S, radius=radius)
    return clip_x_0(classifier_free_guidance(conditional, local_oracle(DATA, S, radius=radius), scale))


@pytest.mark.parametrize("scale", [0, 0.5, 2, 5])
def test_guidance_is_classifier_free_guidance_clipped(js, scale):
    denoiser = guided(windows(js, 2), 4, scale)
    for x_t, t in inputs():
        options = f"{{label: 4, scale: {scale}, radius: (l) => M.radiusAt(2, l)}}"
        close(hat(js, x_t, t, options), denoiser(x_t, torch.tensor([t])))


def test_known_pixels_are_those_of_inpaint_where_they_are_as_noisy_as_the_others(js):
    # their noise is never more than the spread: below it, the picture's
    mask, known = (torch.arange(256) < 128).double().reshape(16, 16), DATA[77:78]
    for x_t, t in list(inputs())[:6]:
        x_t = torch.where(mask.bool(), float(S.sqrt_alpha_bar[t]) * known, x_t)
        js(f"const known{t} = {{x_0: {flat(known)}, mask: {flat(mask)}, spread: 1e6}};")
        got = hat(js, x_t, t, f"{{known: known{t}, radius: (l) => M.radiusAt(2, l)}}")
        close(got, inpaint(local_oracle(DATA, S, radius=windows(js, 2)), known, mask)(x_t, torch.tensor([t])))


def test_known_pixels_with_less_noise_are_bayes_rule_by_brute_force(js):
    mask, known, spread = (torch.arange(256) % 16 < 8).reshape(16, 16), DATA[123:124] * 0.7, 1.5
    for x_t, t in inputs():
        signal, noise = S.signal_noise(t)
        tolerance = min(noise / signal, spread)
        logs = -((known - DATA) ** 2)[..., mask].sum(-1) / (2 * tolerance**2)
        logs -= ((x_t - signal * DATA) ** 2)[..., ~mask].sum(-1) / (2 * noise**2)
        expected = (logs.flatten().softmax(0)[:, None, None, None] * DATA).sum(0, keepdim=True)
        options = f"{{known: {{x_0: {flat(known)}, mask: {flat(mask.int())}, spread: {spread}}}}}"
        close(hat(js, x_t, t, options), torch.where(mask, known, expected))


@pytest.mark.parametrize("kind", ["ddim", "ddpm", "forgotten"])
def test_a_step_is_that_of_tinyddpm(js, kind):
    z = torch.randn(1, 1, 16, 16, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    for k, (x_t, t) in enumerate(inputs()):
        s, x_0_hat = t // 2, DATA[k : k + 1]
        if kind == "ddim":
            expected = list(ddim(lambda *_, x=x_0_hat: x, x_t, S, [(t, s)]))[-1].x_t
        else:
            g = torch.Generator().manual_seed(5)
            variance = "posterior" if kind == "ddpm" else lambda t, s: 0.0
            expected = p_sample(x_t, x_0_hat, t, s, S, variance, g)
        close(image(js(f"list(M.step('{kind}', S, {flat(x_t)}, {flat(x_0_hat)}, {t}, {s}, {flat(z)}))")), expected)


@pytest.mark.parametrize(
    ("window", "label", "scale", "seed"), [(6, 3, 1, 1), (2, 3, 2, 2), (3, 8, 1, 3), (1, 0, 1.5, 4)]
)
def test_a_film_of_ten_steps_is_that_of_ddim(js, window, label, scale, seed):
    x_T = image(js(f"list(M.normals({seed})())"))
    options = f"{{label: {label}, scale: {scale}, radius: (l) => M.radiusAt({window}, l)}}"
    film = f"[...M.film('ddim', S, M.oracle(d, S, {options}), M.normals({seed})(), M.grid(S, 10))]"
    got = json.loads(js(f"JSON.stringify({film}.map((f) => [f.t, Array.from(f.x_t), Array.from(f.x_0_hat)]))"))
    expected = list(ddim(guided(windows(js, window), label, scale), x_T, S, S.grid(10)))
    assert [t for t, *_ in got] == [step.t for step in expected]
    for (_, x_t, x_0_hat), step in zip(got, expected):
        close(torch.tensor(x_t).double().reshape(1, 1, 16, 16), step.x_t)
        close(torch.tensor(x_0_hat).double().reshape(1, 1, 16, 16), step.x_0_hat)


def test_the_whole_picture_copies_and_a_window_invents(js):
    js("""function drawn(label, window, seed) {
        const denoiser = M.oracle(d, S, {label, radius: (l) => M.radiusAt(window, l)});
        return [...M.film("ddim", S, denoiser, M.normals(seed)(), M.grid(S, 20))].pop().x_t; }""")
    distance = {6: [], 2: []}
    for window in distance:
        for k in range(10):
            distance[window].append(js(f"M.nearest(d, drawn({k}, {window}, {k + 1})).distance"))
    assert max(distance[6]) < 0.1
    assert min(distance[2]) > 2 and sorted(distance[2])[5] > 5


def test_a_digit_is_new_where_unseen_real_digits_are(js):
    # the numbers that the page calls a copy and new by: 5 and 95 of 100 unseen digits of MNIST
    unseen = from_uint8(builder().reduce(mnist(train=False).images[:, 0])).double()
    nearest = torch.cdist(unseen.flatten(1), DATA.flatten(1)).min(1)[0]
    copy, low, high = map(float, re.search(r"COPY = (\S+), NEW = \[(\S+), (\S+)\]", HTML).groups())
    assert nearest.quantile(torch.tensor([0.05, 0.95]).double()).tolist() == pytest.approx([low, high], abs=0.06)
    assert float((nearest < copy).double().mean()) < 0.01
    for k in (0, 17, 4000):
        assert js(f"M.nearest(d, {flat(unseen[k])}).distance") == pytest.approx(float(nearest[k]))


def test_the_seed_decides_normal_noise(js):
    z = torch.tensor(json.loads(js("list(M.normals(7)(100000))"))).double()
    places = (torch.arange(100_000).double() + 0.5) / 100_000
    assert float((torch.special.ndtr(z.sort()[0]) - places).abs().max()) < 1.63 / 100_000**0.5  # Kolmogorov, 1 %
    assert abs(float((z[1:] * z[:-1]).mean())) < 0.01
    assert js("list(M.normals(7)())") == js("list(M.normals(7)())")
    firsts = [torch.tensor(json.loads(js(f"list(M.normals({seed})())"))) for seed in range(1, 30)]
    correlation = torch.corrcoef(torch.stack(firsts)).fill_diagonal_(0).abs()
    assert float(correlation.max()) < 0.3  # 4.8 standard deviations


def test_the_oracle_of_300_digits_takes_less_than_8_ms(js):
    js("""function timed(options, t) {
        const f = M.oracle(d, S, options), x = M.mix(S, d.x_0.slice(0, 256), M.normals(1)(), t), times = [];
        for (let k = 0; k < 40; k++) {
            const start = Date.now();
            f(x, t); f(x, t);
            times.push((Date.now() - start) / 2);
        }
        return Math.min(...times); }""")
    for t in (100, 500, 900):
        assert js(f"timed({{label: 3, scale: 2, radius: (l) => M.radiusAt(2, l)}}, {t})") < 8


def test_the_windows_shrink_where_those_of_local_oracle_do(js):
    bounds, rows = [-3.5, -2, -1, 0, 1], json.loads(js("JSON.stringify(M.WINDOWS)"))
    for log_snr in (-9.0, *(b + e for b in bounds for e in (-0.01, 0.01)), 9.0):
        k = sum(log_snr >= bound for bound in bounds)
        ours = [js(f"M.radiusAt({window}, {log_snr})") for window in range(len(rows))]
        assert ours == [row[k] for row in rows] == sorted(ours)  # each window is at least as wide as the one before
        # the page begins with the third, of pixels that are twice as wide as those of MNIST
        assert shrinking(log_snr) / 2 <= ours[2] + 0.5 and ours[2] <= shrinking(log_snr)
    assert all(row == sorted(row, reverse=True) for row in rows)
    assert re.search(r'id="window"[^>]* value="2"', HTML)


def test_the_windows_of_chapter_00_are_those_of_local_oracle():
    source = (ROOT / "chapters/source/00_diffusion_on_one_page.py").read_text(encoding="utf-8")
    table = ast.literal_eval(re.search(r"^WINDOWS = (\{.*?\})", source, re.M)[1])  # noise / signal is above, to radius
    bounds = [math.exp(-log_snr / 2) for log_snr in (-3.5, -2, -1, 0, 1)]
    assert list(table) == [*(round(bound, 1) for bound in bounds), 0]
    assert list(table.values()) == [shrinking(log_snr) for log_snr in (-4.0, -3.0, -1.5, -0.5, 0.5, 2.0)]


# The file


def test_the_page_is_one_small_file_that_loads_nothing():
    assert len(HTML.encode()) <= 400_000
    assert "http" not in HTML and "//www" not in HTML and "@import" not in HTML and "fetch(" not in HTML
    assert not re.findall(r"\bsrc\s*=|url\(|XMLHttpRequest|WebSocket|import\(", HTML)
    links = re.findall(r'href="([^"]*)"', HTML)
    assert links[0] == "data:,"  # no icon, and no request for one
    assert all((PAGE.parent / link).resolve().is_relative_to(ROOT) for link in links[1:])
    assert "../chapters/00_diffusion_on_one_page.ipynb" in links
    assert all((PAGE.parent / link).exists() for link in links[1:] if "chapters/" not in link)


def test_the_digits_in_the_page_are_those_that_the_script_makes(js):
    assert DIGITS == builder().packed()
    assert_close(torch.tensor(json.loads(js("list(d.x_0)"))).double().reshape(300, 1, 16, 16), DATA, rtol=0, atol=1e-6)
    assert LABELS.tolist() == [k for k in range(10) for _ in range(30)]


def test_the_licence_of_mnist_stands_in_the_page():
    footer = re.search(r"<footer.*?</footer>", HTML, re.DOTALL)[0]
    assert all(
        words in footer for words in ("MNIST", "Yann LeCun", "CC BY-SA 3.0", "../assets/mnist/README.md", "16 × 16")
    )


def test_it_explains_itself_in_a_hundred_words():
    paragraphs = re.findall(r'<p\b.*?</p>|<div id="hint".*?</div>', HTML, re.DOTALL)
    words = re.sub(r"<[^>]*>", " ", " ".join(paragraphs)).split()
    assert 60 <= len(words) <= 100


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_stands_out_from_its_background(theme):
    # WCAG 2.2, 1.4.3: 4.5 for text, 3 for large text
    block = re.findall(r":root[^{]*\{(.*?)\}", HTML, re.DOTALL)[theme == "dark"]
    colour = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", block))
    pairs = [("ink", "page", 7), ("ink", "card", 7), ("soft", "page", 4.5), ("soft", "card", 4.5), ("on", "new", 4.5)]
    pairs += [("new", "card", 4.5), ("new", "page", 4.5), ("near", "card", 3), ("copy", "card", 3)]
    for a, b, least in pairs:
        assert contrast(colour[a], colour[b]) >= least, (a, b)


# The page in a browser

DONE = """document.querySelector('#announce').textContent.startsWith('Finished')
    && document.querySelectorAll('#ten button[data-kind]').length === 10"""


SHIFT = """new Promise((done) => {
    const sum = (list) => done(list.getEntries().reduce((sum, entry) => sum + entry.value, 0));
    new PerformanceObserver(sum).observe({type: "layout-shift", buffered: true});
    setTimeout(done, 200, 0); })"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    browser = Browser(tmp_path_factory.mktemp("chromium"))
    yield browser
    browser.close()


def scribble(browser, points, finger):
    """Draws on the pad through points that are parts of its side."""
    x, y, w, h = browser.box("#pad")
    (browser.touch if finger else browser.mouse)(*[(x + a * w, y + b * h) for a, b in points])


def grey(browser, css):
    """The pixels of a canvas, (16, 16) in [0, 255]."""
    return pixels(browser, css)[..., 0]


@needs_chromium
@pytest.mark.parametrize("finger", [False, True], ids=["mouse at 1400", "finger at 390"])
def test_the_page_answers_to_mouse_and_finger(browser, finger):
    browser.open(PAGE, *((390, 844) if finger else (1400, 900)), dark=finger, touch=finger, still=not finger)
    browser.wait(DONE)  # where things may move, the film has played
    assert browser.run(SHIFT) < 0.01  # and nothing has moved out from under a hand meanwhile
    assert browser.run("document.documentElement.scrollWidth") == (390 if finger else 1400)
    assert text(browser, "#word") == "New"
    pull(browser, "#window", 1, finger)
    browser.wait("document.querySelector('#count').textContent === '0 of 10 are new'")
    assert text(browser, "#word") == "A copy" and text(browser, "#windowtext") == "the whole picture"
    assert torch.equal(grey(browser, "#guess"), grey(browser, "#nearest"))
    pull(browser, "#window", 2 / 6, finger)
    browser.wait("parseInt(document.querySelector('#count').textContent) >= 8")
    assert text(browser, "#windowtext") == "5 × 5 pixels"
    pull(browser, "#time", 0, finger)
    assert text(browser, "#noisytext") == "100 % noise" and text(browser, "#word") == "Not decided yet"
    pull(browser, "#time", 1, finger)
    assert text(browser, "#noisytext") == "0 % noise" and text(browser, "#word") == "New"
    before = browser.run("document.querySelector('#guess').toDataURL()")
    browser.click("#another")
    if finger:
        browser.wait("document.querySelector('#word').textContent === 'Not decided yet'")
    browser.wait("document.querySelector('#word').textContent !== 'Not decided yet'")
    browser.wait(f"document.querySelector('#guess').toDataURL() !== {json.dumps(before)}")
    assert browser.messages == []


@needs_chromium
@pytest.mark.parametrize("finger", [False, True], ids=["mouse at 1400", "finger at 390"])
def test_half_a_digit_is_finished(browser, finger):
    browser.open(PAGE, *((390, 844) if finger else (1400, 900)), touch=finger, still=True)
    browser.click("#finish")
    assert "empty" in text(browser, "#hint")
    scribble(browser, [(0.25, 0.25), (0.4, 0.15), (0.6, 0.15), (0.7, 0.27), (0.6, 0.42), (0.45, 0.45)], finger)
    assert browser.run("document.querySelector('[name=part]:checked').value") == "lower"
    assert browser.run("document.querySelector('[name=label]:checked').value") == "any"
    browser.click("#finish")
    browser.wait("document.querySelector('#announce').textContent.startsWith('Your drawing')")
    kept, made = grey(browser, "#pad"), grey(browser, "#guess")
    assert int((kept[:8] - made[:8]).abs().max()) <= 1  # what was drawn is kept
    assert int((kept[8:] < 128).sum()) == 0 and int((made[8:] < 128).sum()) > 8
    browser.click("#clear")
    assert int((grey(browser, "#pad") < 128).sum()) == 0
    assert browser.messages == []


@needs_chromium
def test_every_control_is_reached_by_keyboard_and_shows_it(browser):
    browser.open(PAGE, 1400, still=True)
    browser.wait(DONE)
    assert browser.run(
        "document.querySelector('#time').value === document.querySelector('#time').max"
    )  # it stands still
    seen = []
    for _ in range(32):
        browser.press("Tab")
        seen.append(browser.run("""(() => { const e = document.activeElement, shown = e.nextElementSibling;
            const mark = e.type === "radio" ? shown : e, style = getComputedStyle(mark);
            return [e.id || e.name || e.tagName, style.outlineStyle === "solid" && parseFloat(style.outlineWidth) >= 2];
            })()"""))  # fmt: skip
    names = {name for name, _ in seen}
    wanted = {"theme", "time", "play", "another", "label", "window", "guidance", "steps", "kind", "pad", "finish"}
    assert wanted | {"example", "clear", "part", "freedom", "BUTTON"} <= names
    assert all(shown for name, shown in seen if name != "BODY"), seen
    browser.run("document.querySelector('#window').focus()")
    browser.press("End")
    browser.wait("document.querySelector('#word').textContent === 'A copy'")
    browser.wait("document.querySelector('#announce').textContent.includes('A copy')")
    browser.run("document.querySelector('#time').focus()")
    browser.press("ArrowLeft")
    assert text(browser, "#guesstext") == "step 20 of 20"
    browser.run("document.querySelector('#pad').focus()")
    browser.press("Space", "ArrowUp", "Space")
    assert int((grey(browser, "#pad") < 128).sum()) == 2
    browser.press("Delete")
    assert int((grey(browser, "#pad") < 128).sum()) == 0
    browser.run("document.querySelector('#theme').focus()")
    browser.press("Enter")
    assert browser.run("getComputedStyle(document.body).backgroundColor") == "rgb(19, 20, 23)"
    browser.press("Enter")
    assert browser.run("getComputedStyle(document.body).backgroundColor") == "rgb(246, 243, 236)"
    assert browser.messages == []


@needs_chromium
def test_whatever_can_be_used_or_seen_has_a_name(browser):
    browser.open(PAGE, 1400, still=True)
    browser.wait(DONE)
    nodes = [n for n in browser.send("Accessibility.getFullAXTree")["nodes"] if not n["ignored"]]
    roles = ("slider", "button", "radio", "image", "link", "application", "form", "region", "group", "radiogroup")
    found = {role: [n["name"]["value"] for n in nodes if n["role"]["value"] == role] for role in roles}
    assert len(found["slider"]) == 5 and len(found["radio"]) == 19 and len(found["image"]) == 3
    assert len(found["button"]) >= 16 and len(found["application"]) == 1
    nameless = [role for role in roles if role not in ("group",) and not all(found[role])]
    assert not nameless
    assert any("from a real" in name for name in found["button"])


@needs_chromium
def test_it_moves_at_sixty_frames_a_second(browser):
    # a busy machine drops frames: the best of twelve short looks counts, each at all seven windows
    browser.open(PAGE, 1400, still=True)
    browser.wait(DONE)
    code = """new Promise((done) => {
        const times = [], window = document.querySelector("#window");
        document.querySelector("#play").click();
        requestAnimationFrame(function next(now) {
            times.push(now);
            if (times.length % 6 === 0) {
                window.value = times.length / 6 % 7;
                window.dispatchEvent(new Event("input", {bubbles: true}));
            }
            if (times.length < 45) requestAnimationFrame(next);
            else done(1000 * (times.length - 1) / (now - times[0]));
        }); })"""
    rates = []
    while len(rates) < 12 and max(rates, default=0) < 55:
        rates.append(browser.run(code))
    assert max(rates) >= 55, rates
    assert browser.messages == []
