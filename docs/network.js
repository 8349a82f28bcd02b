// The shipped network, run by hand: a U-Net as in tinyddpm/nn/unet.py, its sampler, and the worker that runs both.
// tests/docs/test_network.py holds all of it to tinyddpm.
//
// Maps are float32 of n images, (n, h, w, c): the channels of a pixel lie side by side, so that a convolution reads
// each row of its 3x3 window as one run of 3 c numbers. All numbers live in the memory of one small WebAssembly
// function, `kernel`, which does nearly all of the arithmetic; the rest is plain JavaScript.
const network = (() => {
  "use strict";
  const SIDE = 32, PIXELS = SIDE * SIDE, WIDE = 8, TALL = 4, EPS = 1e-5, HEAD = 32, MOST = 2;

  // The file

  // A .safetensors file: the length of a JSON header, the header, the numbers
  function readFile(buffer) {
    const wrong = (why) => new Error(`The weights are not a network that docs/export_network.py wrote: ${why}. Run make page again.`);
    if (buffer.byteLength < 8) throw wrong(`${buffer.byteLength} bytes`);
    const length = Number(new DataView(buffer).getBigUint64(0, true)), types = { I8: Int8Array, F32: Float32Array, F64: Float64Array };
    let header;
    try {
      header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 8, length)));
    } catch {
      throw wrong("its header is damaged");
    }
    const tensors = {};
    const description = header.__metadata__?.network;
    if (!description) throw wrong("it names no network");
    delete header.__metadata__;
    for (const [name, { dtype, shape, data_offsets: [from, to] }] of Object.entries(header)) {
      if (8 + length + to > buffer.byteLength) throw wrong("it is cut short");
      tensors[name] = { shape, data: new types[dtype](buffer.slice(8 + length + from, 8 + length + to)) };
    }
    return { tensors, ...JSON.parse(description) };
  }

  // int8 weights with one scale for each output channel, as floats
  function floats({ tensors }, name) {
    const { data, shape } = tensors[name], scale = tensors[`${name}.scale`]?.data, each = data.length / shape[0];
    if (!scale) return data;
    const out = new Float32Array(data.length);
    for (let o = 0, k = 0; o < scale.length; o++) for (let i = 0; i < each; i++, k++) out[k] = data[k] * scale[o];
    return out;
  }

  // The kernel: out = bias + sum_k a[k] w[k] for TALL pixels and WIDE channels at once, `blocks` times along a row.
  // The a of one pixel are `runs` runs of `length` numbers, `stride` apart; the next pixel's begin `pixel` further on.
  // w is a panel: WIDE biases, then WIDE weights for each k. The next pixel of `out` is `far` further on. In floats.

  const kernelInWords = (f) => (a, w, out, blocks, runs, length, stride, pixel, far) => {
    for (let p = 0; p < TALL * blocks; p++)
      for (let c = 0; c < WIDE; c++) {
        let sum = f[w + c], k = w + WIDE + c;
        for (let r = 0; r < runs; r++)
          for (let i = 0; i < length; i++, k += WIDE) sum += f[a + p * pixel + r * stride + i] * f[k];
        f[out + p * far + c] = sum;
      }
  };

  // The same as WebAssembly, 128 bits at a time. `fused` multiplies and adds in one instruction, which not every browser
  // has. Addresses are in bytes in here, hence the shifts by 2. `length` is a multiple of TALL.
  function kernelBytes(fused) {
    const leb = (n) => (n < 128 ? [n] : [(n & 127) | 128, ...leb(n >>> 7)]);
    const vector = (items) => [...leb(items.length), ...items.flat()], section = (id, body) => [id, ...leb(body.length), ...body];
    const I32 = 0x7f, V128 = 0x7b, A = 0, W = 1, OUT = 2, BLOCKS = 3, RUNS = 4, LENGTH = 5, STRIDE = 6, PIXEL = 7, FAR = 8;
    const row = 9, run = 10, end = 11, at = [12, 13, 14, 15], k = 16, sums = 17, w0 = 25, w1 = 26, x = 27;
    const get = (v) => [0x20, ...leb(v)], set = (v) => [0x21, ...leb(v)], number = (n) => [0x41, n];
    const plus = 0x6a, minus = 0x6b, shift = 0x74, below = 0x49;
    const change = (v, by) => [...get(v), ...by, plus, ...set(v)];
    const simd = (code, ...rest) => [0xfd, ...leb(code), ...rest], align = 2;
    const load = (offset) => simd(0x00, align, ...leb(offset)), splat = (offset) => simd(0x09, align, ...leb(offset));
    const store = (offset) => simd(0x0b, align, ...leb(offset)), add = simd(0xe4), times = simd(0xe6), timesAdd = simd(0x105);
    const again = (body, left) => [0x03, 0x40, ...body, ...left, 0x0d, 0, 0x0b]; // a loop, while `left` is not 0
    const down = (v) => [...get(v), ...number(1), minus, 0x22, ...leb(v)];
    const each = (n, body) => Array.from({ length: n }, (_, i) => body(i)).flat();
    const accumulate = (sum, w) => fused
      ? [...get(x), ...get(w), ...get(sum), ...timesAdd, ...set(sum)]
      : [...get(sum), ...get(x), ...get(w), ...times, ...add, ...set(sum)];
    const inner = [ // TALL numbers of each pixel
      ...each(TALL, (i) => [
        ...get(k), ...load(32 * i), ...set(w0), ...get(k), ...load(32 * i + 16), ...set(w1),
        ...each(TALL, (p) => [...get(at[p]), ...splat(4 * i), ...set(x), ...accumulate(sums + 2 * p, w0), ...accumulate(sums + 2 * p + 1, w1)]),
      ]),
      ...each(TALL, (p) => change(at[p], number(16))), ...get(k), 0x41, 0x80, 1, plus, ...set(k), // 128 bytes
    ];
    const block = [
      ...each(2 * TALL, (s) => [...get(W), ...load(16 * (s % 2)), ...set(sums + s)]),
      ...get(W), ...number(32), plus, ...set(k), ...get(A), ...set(row), ...get(RUNS), ...set(run),
      ...again([
        ...get(row), ...set(at[0]), ...each(TALL - 1, (p) => [...get(at[p]), ...get(PIXEL), plus, ...set(at[p + 1])]),
        ...get(row), ...get(LENGTH), plus, ...set(end),
        ...again(inner, [...get(at[0]), ...get(end), below]),
        ...change(row, get(STRIDE)),
      ], down(run)),
      ...each(TALL, (p) => [
        ...get(OUT), ...get(sums + 2 * p), ...store(0), ...get(OUT), ...get(sums + 2 * p + 1), ...store(16), ...change(OUT, get(FAR)),
      ]),
      ...get(A), ...get(PIXEL), ...number(2), shift, plus, ...set(A), // TALL pixels on
    ];
    const bytes = [A, W, OUT, LENGTH, STRIDE, PIXEL, FAR].map((v) => [...get(v), ...number(2), shift, ...set(v)]).flat();
    const body = [2, 8, I32, 11, V128, ...bytes, ...again(block, down(BLOCKS)), 0x0b], text = (s) => vector([...s].map((c) => c.charCodeAt(0)));
    return new Uint8Array([
      0, 0x61, 0x73, 0x6d, 1, 0, 0, 0,
      ...section(1, vector([[0x60, ...vector(Array(9).fill(I32)), 0]])),
      ...section(2, vector([[...text("e"), ...text("m"), 2, 0, 1]])),
      ...section(3, vector([0])),
      ...section(7, vector([[...text("kernel"), 0, 0]])),
      ...section(10, vector([[...leb(body.length), ...body]])),
    ]);
  }

  // The fastest kernel that this browser has: "fused", "simd" or "words"
  function makeKernel(memory, f, kind = null) {
    kind ??= ["fused", "simd"].find((name) => WebAssembly.validate(kernelBytes(name === "fused"))) ?? "words";
    if (kind === "words") return { kind, kernel: kernelInWords(f) };
    const module = new WebAssembly.Module(kernelBytes(kind === "fused"));
    return { kind, kernel: new WebAssembly.Instance(module, { e: { m: memory } }).exports.kernel };
  }

  // The network: (x, t, y) -> its output, n images at one time t with labels y; null is the null class

  function unet(file, kind = null) {
    const { dims, blocks, attention, heads, groups, num_classes: none } = file.arguments, sides = dims.map((_, k) => (SIDE / 2) >> k);
    let size = 64 + 1.1 * Object.values(file.tensors).reduce((sum, { data }) => sum + data.length, 0);
    size += MOST * 24 * (blocks + 2) * dims[0] * PIXELS; // more than all maps of a call together
    const memory = new WebAssembly.Memory({ initial: Math.ceil(size / 16384) }), f = new Float32Array(memory.buffer);
    const { kind: found, kernel } = makeKernel(memory, f, kind);
    let top = 0;
    const make = (n, h, w, c) => {
      const map = { n, h, w, c, at: top, size: n * h * w * c };
      top += map.size;
      return map;
    };

    // Weights as panels of WIDE output channels
    const panels = {};
    for (const name of Object.keys(file.tensors).filter((name) => name.endsWith(".weight") && file.tensors[name].shape.length > 1)) {
      const [c_out, c, side = 1] = file.tensors[name].shape, taps = side * side, weight = floats(file, name);
      const bias = file.tensors[name.replace(/weight$/, "bias")]?.data, count = Math.ceil(c_out / WIDE);
      const panel = { ...make(1, 1, count, WIDE * (1 + taps * c)), count, taps, c_in: c, c_out: count * WIDE };
      for (let o = 0; o < c_out; o++) {
        const at = panel.at + Math.floor(o / WIDE) * panel.c + (o % WIDE);
        f[at] = bias ? bias[o] : 0;
        for (let i = 0, k = o * c * taps; i < c; i++)
          for (let tap = 0; tap < taps; tap++, k++) f[at + WIDE * (1 + tap * c + i)] = weight[k];
      }
      panels[name.replace(/\.weight$/, "")] = panel;
    }
    const floor = top, numbers = (name) => file.tensors[name].data, labels = floats(file, "label.weight");

    // A convolution of 3x3 (padded with 0) or 1x1; a linear map is one of 1x1
    function conv(x, name) {
      const { at, count, taps, c: each, c_out } = panels[name], out = make(x.n, x.h, x.w, c_out);
      if (taps === 1) {
        const tall = Math.ceil((x.n * x.h * x.w) / TALL);
        top += (tall * TALL - x.n * x.h * x.w) * c_out; // a last block that is not full
        for (let j = 0; j < count; j++) kernel(x.at, at + j * each, out.at + j * WIDE, tall, 1, x.c, 0, x.c, c_out);
        return out;
      }
      const padded = make(x.n, x.h + 2, x.w + 2, x.c), row = padded.w * x.c;
      f.fill(0, padded.at, padded.at + padded.size);
      const start = (i, y) => padded.at + (i * padded.h + y) * row, image = x.h * x.w;
      for (let i = 0; i < x.n; i++)
        for (let y = 0, from = x.at + i * image * x.c; y < x.h; y++, from += x.w * x.c)
          f.copyWithin(start(i, y + 1) + x.c, from, from + x.w * x.c);
      for (let j = 0; j < count; j++)
        for (let i = 0; i < x.n; i++)
          for (let y = 0; y < x.h; y++)
            kernel(start(i, y), at + j * each, out.at + (i * image + y * x.w) * c_out + j * WIDE, x.w / TALL, 3, 3 * x.c, row, x.c, c_out);
      return out;
    }

    const silu = (v) => v / (1 + Math.exp(-v));
    function each(x, change) {
      const out = make(x.n, x.h, x.w, x.c);
      for (let k = 0; k < x.size; k++) f[out.at + k] = change(f[x.at + k]);
      return out;
    }

    // Group norm in place; with the modulation, (1 + scale) and shift of each channel; then SiLU
    const scale = new Float64Array(Math.max(...dims)), shift = new Float64Array(Math.max(...dims));
    function norm(x, name, groups, modulation = null, activate = true) {
      const gamma = numbers(`${name}.weight`), beta = numbers(`${name}.bias`), wide = x.c / groups, image = x.h * x.w * x.c;
      for (let i = 0; i < x.n; i++) {
        const from = x.at + i * image, to = from + image;
        for (let g = 0; g < groups; g++) {
          let sum = 0, squares = 0;
          for (let p = from + g * wide; p < to; p += x.c)
            for (let k = p; k < p + wide; k++) (sum += f[k]), (squares += f[k] * f[k]);
          const count = x.h * x.w * wide, mean = sum / count, over = 1 / Math.sqrt(squares / count - mean * mean + EPS);
          for (let c = g * wide; c < (g + 1) * wide; c++) {
            scale[c] = gamma[c] * over;
            shift[c] = beta[c] - mean * scale[c];
            if (modulation === null) continue;
            const more = 1 + f[modulation.at + i * modulation.c + c];
            scale[c] *= more;
            shift[c] = shift[c] * more + f[modulation.at + i * modulation.c + x.c + c];
          }
        }
        for (let p = from; p < to; p += x.c)
          for (let c = 0; c < x.c; c++) {
            const v = f[p + c] * scale[c] + shift[c];
            f[p + c] = activate ? v / (1 + Math.exp(-v)) : v;
          }
      }
      return x;
    }

    function add(x, y) {
      for (let k = 0; k < x.size; k++) f[x.at + k] += f[y.at + k];
      return x;
    }

    function join(x, y) {
      const out = make(x.n, x.h, x.w, x.c + y.c);
      for (let p = 0; p < x.n * x.h * x.w; p++) {
        f.copyWithin(out.at + p * out.c, x.at + p * x.c, x.at + (p + 1) * x.c);
        f.copyWithin(out.at + p * out.c + x.c, y.at + p * y.c, y.at + (p + 1) * y.c);
      }
      return out;
    }

    // 2x2 pixels to channels, (c 2 2), and back
    function fold(x, unfold, c = x.c) {
      const h = unfold ? x.h : x.h / 2, w = unfold ? x.w : x.w / 2, out = unfold ? make(x.n, 2 * h, 2 * w, c / 4) : make(x.n, h, w, 4 * c);
      const [fine, coarse] = unfold ? [out, x] : [x, out];
      for (let i = 0; i < x.n; i++)
        for (let y = 0; y < fine.h; y++)
          for (let at = 0; at < fine.w; at++) {
            const one = fine.at + ((i * fine.h + y) * fine.w + at) * fine.c, corner = 2 * (y % 2) + (at % 2);
            const four = coarse.at + ((i * h + (y >> 1)) * w + (at >> 1)) * coarse.c + corner;
            for (let k = 0; k < fine.c; k++)
              if (unfold) f[one + k] = f[four + 4 * k];
              else f[four + 4 * k] = f[one + k];
          }
      return out;
    }

    function resnet(x, name, cond) {
      const modulation = conv(cond, `${name}.modulation`);
      const h = norm(conv(x, `${name}.block1.conv`), `${name}.block1.norm`, groups, modulation);
      const out = norm(conv(h, `${name}.block2.conv`), `${name}.block2.norm`, groups);
      return add(out, panels[`${name}.shortcut`] ? conv(x, `${name}.shortcut`) : x);
    }

    // x + project(softmax(q k^T / sqrt(d)) v)
    function attend(x, name) {
      const copy = make(x.n, x.h, x.w, x.c);
      f.copyWithin(copy.at, x.at, x.at + x.size);
      const qkv = conv(norm(copy, `${name}.norm`, 1, null, false), `${name}.to_qkv`), n = x.h * x.w, c = heads * HEAD;
      const out = make(x.n, x.h, x.w, c), share = new Float64Array(n);
      for (let i = 0; i < x.n; i++)
        for (let m = 0; m < heads; m++)
          for (let p = 0; p < n; p++) {
            const q = qkv.at + (i * n + p) * 3 * c + m * HEAD, o = out.at + (i * n + p) * c + m * HEAD;
            let most = -Infinity, total = 0;
            for (let r = 0; r < n; r++) {
              const k = qkv.at + (i * n + r) * 3 * c + c + m * HEAD;
              let score = 0;
              for (let d = 0; d < HEAD; d++) score += f[q + d] * f[k + d];
              most = Math.max(most, (share[r] = score / Math.sqrt(HEAD)));
            }
            for (let r = 0; r < n; r++) total += share[r] = Math.exp(share[r] - most);
            for (let d = 0; d < HEAD; d++) {
              let sum = 0;
              for (let r = 0; r < n; r++) sum += share[r] * f[qkv.at + (i * n + r) * 3 * c + 2 * c + m * HEAD + d];
              f[o + d] = sum / total;
            }
          }
      return add(conv(out, `${name}.project`), x);
    }

    // SiLU of the embedded time plus the embedded label, (n, 1, 1, cond_dim)
    function condition(t, y) {
      const n = dims[0] / 2, time = make(1, 1, 1, dims[0]);
      for (let i = 0; i < n; i++) {
        const angle = Math.fround(t * Math.fround(Math.exp((-Math.log(10000) * i) / (n - 1))));
        f[time.at + i] = Math.sin(angle);
        f[time.at + n + i] = Math.cos(angle);
      }
      top += 3 * dims[0]; // the kernel reads TALL pixels
      const hidden = each(conv(time, "time.1"), silu);
      top += 3 * hidden.c;
      const embedded = conv(hidden, "time.3"), out = make(y.length, 1, 1, embedded.c);
      top += 3 * out.c;
      y.forEach((label, i) => {
        for (let k = 0; k < out.c; k++)
          f[out.at + i * out.c + k] = silu(f[embedded.at + k] + labels[(label ?? none) * out.c + k]);
      });
      return out;
    }

    function some(x, t, y) {
      top = floor;
      const image = make(y.length, SIDE, SIDE, 1), cond = condition(t, y), skips = [];
      f.set(x, image.at);
      const stem = conv(fold(image, false), "stem.1");
      let h = stem;
      dims.forEach((_, level) => {
        for (let k = 0; k < blocks; k++) skips.push((h = resnet(h, `down.${level}.0.${k}`, cond)));
        if (attention.includes(sides[level])) skips[skips.length - 1] = h = attend(h, `down.${level}.1`);
        if (level + 1 < dims.length) h = conv(fold(h, false), `down.${level}.2.1`);
      });
      h = resnet(h, "middle1", cond);
      if (attention.includes(sides.at(-1))) h = attend(h, "middle_attend");
      h = resnet(h, "middle2", cond);
      dims.forEach((_, level) => {
        if (level > 0) h = fold(conv(h, `up.${level}.0.0`), true);
        for (let k = 0; k < blocks; k++) h = resnet(join(h, skips.pop()), `up.${level}.1.${k}`, cond);
        if (attention.includes(sides.at(-1 - level))) h = attend(h, `up.${level}.2`);
      });
      const out = conv(resnet(join(h, stem), "last", cond), "out.0");
      const pixels = fold(out, true, 4); // the kernel's other channels are empty
      return f.slice(pixels.at, pixels.at + pixels.size);
    }

    // MOST images at once: more would be no faster
    function forward(x, t, y) {
      const out = new Float32Array(x.length);
      for (let i = 0; i < y.length; i += MOST)
        out.set(some(x.subarray(i * PIXELS, (i + MOST) * PIXELS), t, y.slice(i, i + MOST)), i * PIXELS);
      return out;
    }
    return Object.assign(forward, { kind: found, bytes: size * 4 });
  }

  // The mathematics of sampling

  // x_t = signal x_0 + noise eps, for t in 0..T
  function schedule({ tensors }) {
    const beta = tensors["schedule.beta"].data, alphaBar = new Float64Array(beta.length);
    beta.forEach((b, t) => (alphaBar[t] = t ? alphaBar[t - 1] * (1 - b) : 1));
    return { T: beta.length - 1, alphaBar, signal: alphaBar.map(Math.sqrt), noise: alphaBar.map((a) => Math.sqrt(1 - a)) };
  }

  // The steps (t, s) from T to 0, uniform in t
  function grid({ T }, steps) {
    if (!(Number.isInteger(steps) && 1 <= steps && steps <= T)) throw new RangeError(`Steps are a whole number from 1 to T = ${T}, got ${steps}.`);
    const at = (i) => Math.floor((T * i + Math.floor(steps / 2)) / steps);
    return Array.from({ length: steps }, (_, k) => [at(steps - k), k + 1 < steps ? at(steps - k - 1) : 0]);
  }

  // Every `jump` steps walked `repeats` times: down, up in one step of noise, and down (Lugmayr et al. 2022, "RePaint",
  // algorithm 1); the step to 0 once
  function resampling(grid, jump, repeats) {
    const walk = [];
    for (let k = 0; k < grid.length; k += jump) {
      const down = grid.slice(k, k + jump), again = down.filter(([, s]) => s > 0);
      if (again.length) for (let r = 1; r < repeats; r++) walk.push(...again, [again.at(-1)[1], again[0][0]]);
      walk.push(...down);
    }
    return walk;
  }

  // Standard normal numbers that a seed decides: Mulberry32 and Box-Muller
  function normals(seed) {
    let state = (Math.imul(seed, 0x9e3779b1) + 0x85ebca6b) | 0;
    const uniform = () => {
      state = (state + 0x6d2b79f5) | 0;
      let z = Math.imul(state ^ (state >>> 15), state | 1);
      z ^= z + Math.imul(z ^ (z >>> 7), z | 61);
      return (((z ^ (z >>> 14)) >>> 0) + 0.5) / 4294967296;
    };
    return (out) => {
      for (let i = 0; i < out.length; i += 2) {
        const radius = Math.sqrt(-2 * Math.log(uniform())), angle = 2 * Math.PI * uniform();
        out[i] = radius * Math.cos(angle);
        if (i + 1 < out.length) out[i + 1] = radius * Math.sin(angle);
      }
    };
  }

  // The noise of n images; image k is the one that seed + k gives alone
  function noises(seed, n) {
    const each = Array.from({ length: n }, (_, k) => normals(seed + k));
    return () => {
      const z = new Float32Array(n * PIXELS);
      each.forEach((normal, k) => normal(z.subarray(k * PIXELS, (k + 1) * PIXELS)));
      return z;
    };
  }

  const TO_X_0 = { // output, x_t, signal, noise
    eps: (out, x, signal, noise) => (x - noise * out) / signal,
    x_0: (out) => out,
    v: (out, x, signal, noise) => signal * x - noise * out,
    flow: (out, x, signal, noise) => (x - noise * out) / (signal + noise),
  };

  // (x_t, t) -> x_0_hat for images with these labels (null: none): classifier-free guidance, then the known pixels
  // {x_0, mask} of one picture, then clipping
  function denoiser(forward, schedule, predicts, labels, scale = 1, known = null) {
    const n = labels.length, guided = scale !== 1 && labels.some((y) => y !== null), toX0 = TO_X_0[predicts];
    return (x_t, t) => {
      const both = new Float32Array(2 * x_t.length), signal = schedule.signal[t], noise = schedule.noise[t];
      if (guided)
        for (let i = 0; i < n; i++)
          for (const half of [0, 1]) both.set(x_t.subarray(i * PIXELS, (i + 1) * PIXELS), (2 * i + half) * PIXELS);
      const out = guided ? forward(both, t, labels.flatMap((y) => [y, null])) : forward(x_t, t, labels);
      return x_t.map((x, k) => {
        const p = k % PIXELS, at = guided ? k + PIXELS * Math.floor(k / PIXELS) : k;
        if (known?.mask[p]) return Math.min(1, Math.max(-1, known.x_0[p]));
        let x_0 = toX0(out[at], x, signal, noise);
        if (guided) {
          const without = toX0(out[at + PIXELS], x, signal, noise);
          x_0 = without + scale * (x_0 - without);
        }
        return Math.min(1, Math.max(-1, x_0));
      });
    };
  }

  // From x_t to x_s: "ddim" without fresh noise (Song et al. 2021, eq. 12), "ddpm" with it (Ho et al. 2020, algorithm 2);
  // with s > t, up into more noise
  function step(kind, { alphaBar, signal, noise }, x_t, x_0_hat, t, s, fresh) {
    const a = s > t ? alphaBar[s] / alphaBar[t] : alphaBar[t] / alphaBar[s];
    if (s > t) {
      const z = fresh();
      return x_t.map((x, p) => Math.sqrt(a) * x + Math.sqrt(1 - a) * z[p]);
    }
    const ddpm = kind === "ddpm", z = ddpm && s > 0 ? fresh() : null, left = (1 - alphaBar[s]) / (1 - alphaBar[t]);
    const keep = ddpm ? Math.sqrt(a) * left : noise[s] / noise[t], spread = Math.sqrt(left * (1 - a));
    const pull = ddpm ? (signal[s] * (1 - a)) / (1 - alphaBar[t]) : signal[s] - keep * signal[t];
    return x_t.map((x, p) => keep * x + pull * x_0_hat[p] + (z ? spread * z[p] : 0));
  }

  // The film {t, x_t, x_0_hat} along the steps; the last picture is the finished one, at t = 0
  function* film(kind, schedule, denoiser, fresh, steps) {
    let x_t = fresh(), x_0_hat;
    for (const [t, s] of steps) {
      if (s < t) x_0_hat = denoiser(x_t, t);
      yield { t, x_t, x_0_hat };
      x_t = step(kind, schedule, x_t, x_0_hat, t, s, fresh);
    }
    yield { t: 0, x_t, x_0_hat: x_t };
  }

  return {
    SIDE, PIXELS, readFile, kernelBytes, kernelInWords, makeKernel, unet, schedule, grid, resampling, normals, noises, denoiser, step, film,
  };
})();

// In a worker: reads the weights, then answers each task {kind, id, ...} with its frames. A new task of a kind replaces
// the one before; tasks of two kinds take turns.
if (typeof WorkerGlobalScope !== "undefined" && self instanceof WorkerGlobalScope) {
  const N = network, tasks = new Map(), turn = new MessageChannel();
  let next;
  turn.port1.onmessage = () => next();
  const breathe = () => new Promise((done) => ((next = done), turn.port2.postMessage(null))); // lets messages in

  async function load() {
    const answer = await fetch("network.safetensors").catch(() => null);
    if (!answer?.ok) throw new Error("The weights are missing: make page writes them to site/network.safetensors, beside this page.");
    const file = N.readFile(await answer.arrayBuffer()), forward = N.unet(file), schedule = N.schedule(file);
    return { forward, schedule, predicts: file.predicts };
  }

  function start({ kind, labels, scale, seed, steps, known, repeats = 1 }, { forward, schedule, predicts }) {
    let grid = N.grid(schedule, steps);
    if (repeats > 1) grid = N.resampling(grid, Math.max(1, Math.floor(steps / 10)), repeats);
    const denoiser = N.denoiser(forward, schedule, predicts, labels, scale, known);
    return { of: grid.length, frames: N.film(known ? "ddpm" : "ddim", schedule, denoiser, N.noises(seed, labels.length), grid) };
  }

  async function work() {
    while (tasks.size)
      for (const [kind, task] of [...tasks]) {
        await breathe();
        if (tasks.get(kind) !== task) continue;
        const began = performance.now(), { value, done } = task.frames.next();
        if (done) tasks.delete(kind);
        else postMessage({ kind, id: task.id, of: task.of, k: task.k++, milliseconds: performance.now() - began, ...value });
      }
  }

  const ready = load();
  ready.catch(() => {}); // told to whoever asks
  let greeted = false;
  self.onmessage = async ({ data }) => {
    try {
      const model = await ready, { T, noise } = model.schedule, idle = tasks.size === 0;
      if (!greeted) postMessage({ kind: "ready", T, kernel: model.forward.kind, shares: noise.map((n) => n ** 2) });
      greeted = true;
      if (data.kind === "stop") tasks.delete("own");
      else tasks.set(data.kind, { id: data.id, k: 0, ...start(data, model) });
      if (idle) work();
    } catch (error) {
      postMessage({ kind: "error", text: error.message });
    }
  };
}
