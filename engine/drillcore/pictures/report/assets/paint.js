// Paint: points to pixels, with one recipe for few points and one for many, like the PNG grids (docs/pictures.md).

const FEW = 5000;
const MIN_ALPHA = 100;
let dark = false;
let scratch = { size: 0 };
const sprites = new Map();
const tables = new Map();

function parts(hex) {
  return [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16));
}

function luminance(rgb) {
  const [r, g, b] = rgb.map((c) => (c / 255 <= 0.04045 ? c / 255 / 12.92 : ((c / 255 + 0.055) / 1.055) ** 2.4));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}

// A colour as given on white; on black, lightened until its contrast is at least 4 to 1.
function tint(hex) {
  if (!dark) return hex;
  let rgb = parts(hex);
  while ((luminance(rgb) + 0.05) / 0.05 < 4) rgb = rgb.map((c) => c + (255 - c) * 0.1);
  return "#" + rgb.map((c) => Math.round(c).toString(16).padStart(2, "0")).join("");
}

function key(color, name, kind = "dot") {
  const mark = element("i", { class: kind, "aria-hidden": "true" });
  if (kind === "dot") mark.style.background = color;
  return element("span", { class: "key" }, mark, element("bdi", {}, name));
}

function dimColor() {
  return dark ? [58, 63, 71] : [214, 214, 214];
}

function table(dataset) {
  if (!tables.has(dataset)) tables.set(dataset, dataset.info.colors.map((hex) => parts(tint(hex))));
  return tables.get(dataset);
}

function sprite(rgb, radius) {
  const name = `${rgb} ${radius}`;
  if (!sprites.has(name)) {
    const canvas = document.createElement("canvas");
    canvas.width = canvas.height = Math.ceil(radius * 2) + 2;
    const context = canvas.getContext("2d"), middle = canvas.width / 2;
    context.fillStyle = `rgb(${rgb.join(" ")})`;
    context.arc(middle, middle, radius, 0, 2 * Math.PI);
    context.fill();
    sprites.set(name, canvas);
  }
  return sprites.get(name);
}

// `view` is the place of the panel in the canvas: its side, left and upper edge, in device pixels.
function paint(canvas, dataset, xs, ys, view, zoom = 1) {
  const context = canvas.getContext("2d");
  context.clearRect(0, 0, canvas.width, canvas.height);
  if (xs.length <= FEW) paintFew(context, dataset, xs, ys, view, zoom);
  else paintMany(context, dataset, xs, ys, view);
}

function paintFew(context, dataset, xs, ys, view, zoom) {
  const { status, codes } = dataset, colors = table(dataset), pale = dimColor();
  const crowding = Math.min(1.5, (200 / xs.length) ** 0.3);
  const wanted = Math.max(((view.side / zoom) * crowding) / 100, 1.2 * devicePixelRatio) * zoom ** 0.3;
  const radius = Math.round(Math.min(wanted, 9 * devicePixelRatio) * 4) / 4;
  const spots = labelsOfSpots(dataset, xs, ys);
  for (const pass of [DIM, SHOWN]) {
    for (let i = 0; i < xs.length; i++) {
      if (status[i] !== pass || xs[i] === MISSING) continue;
      const stamp = sprite(pass === DIM ? pale : colors[codes[i]], radius), half = stamp.width / 2;
      let x = view.left + (xs[i] / LARGEST) * view.side, y = view.top + (1 - ys[i] / LARGEST) * view.side;
      const labels = spots.get(xs[i] * 65536 + ys[i]);
      if (labels.size > 1) {
        const turn = (2 * Math.PI * [...labels].sort((one, other) => one - other).indexOf(codes[i])) / labels.size;
        x += 0.6 * radius * Math.cos(turn);
        y -= 0.6 * radius * Math.sin(turn);
      }
      context.drawImage(stamp, x - half, y - half);
    }
  }
}

// Points of several labels on one spot are drawn side by side, so that no label hides another.
function labelsOfSpots({ status, codes }, xs, ys) {
  const spots = new Map();
  for (let i = 0; i < xs.length; i++) {
    if (status[i] === HIDDEN || xs[i] === MISSING) continue;
    const spot = xs[i] * 65536 + ys[i];
    if (spots.has(spot)) spots.get(spot).add(codes[i]);
    else spots.set(spot, new Set([codes[i]]));
  }
  return spots;
}

function paintMany(context, dataset, xs, ys, view) {
  const { width, height } = context.canvas, size = width * height;
  const { status, codes } = dataset, colors = table(dataset), pale = dimColor();
  if (scratch.size < size) {
    scratch = { size, count: new Uint32Array(size), dim: new Uint8Array(size) };
    for (const c of ["r", "g", "b"]) scratch[c] = new Float32Array(size);
  }
  for (const plane of ["count", "dim", "r", "g", "b"]) scratch[plane].fill(0, 0, size);
  const { count, dim, r, g, b } = scratch;
  // Sparse points are drawn as squares of several pixels; single pixels would be too small to see.
  const dot = Math.max(1, Math.round(Math.sqrt((0.12 * view.side ** 2) / xs.length)));
  const square = Math.min(dot, Math.round(4 * devicePixelRatio));
  for (let i = 0; i < xs.length; i++) {
    const kind = status[i];
    if (kind === HIDDEN || xs[i] === MISSING) continue;
    const left = Math.floor(view.left + (xs[i] / LARGEST) * view.side);
    const top = Math.floor(view.top + (1 - ys[i] / LARGEST) * view.side);
    if (left < 0 || top < 0 || left + square > width || top + square > height) continue;
    const color = colors[codes[i]];
    for (let y = top; y < top + square; y++) {
      for (let at = y * width + left, end = at + square; at < end; at++) {
        if (kind === DIM) { dim[at] = 1; continue; }
        count[at]++;
        r[at] += color[0];
        g[at] += color[1];
        b[at] += color[2];
      }
    }
  }
  const image = context.createImageData(width, height), { data } = image;
  const alpha = equalised(count, size);
  for (let at = 0; at < size; at++) {
    const n = count[at];
    if (n) data.set([r[at] / n, g[at] / n, b[at] / n, alpha[n]], at * 4);
    else if (dim[at]) data.set([pale[0], pale[1], pale[2], 255], at * 4);
  }
  context.putImageData(image, 0, 0);
}

// Opacity for each count, by histogram equalisation over the pixels with points.
function equalised(count, size) {
  let most = 0;
  for (let at = 0; at < size; at++) most = Math.max(most, count[at]);
  const alpha = new Float64Array(most + 1);
  for (let at = 0; at < size; at++) if (count[at]) alpha[count[at]]++;
  let before = 0;
  for (let n = 1; n <= most; n++) {
    const pixels = alpha[n];
    alpha[n] = before;
    before += pixels;
  }
  const last = alpha[most] || 1;
  for (let n = 1; n <= most; n++) alpha[n] = most === 1 ? 255 : MIN_ALPHA + (255 - MIN_ALPHA) * (alpha[n] / last);
  return alpha;
}
