// Paint: where the points of a panel are drawn, what lies under a pointer, and the pixels, with one recipe for few
// points and one for many, like the PNG grids (docs/pictures.md).

const FEW = 5000;
const MIN_ALPHA = 100;
const NUMBERED = { most: 12, fewest: 3 };
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

function lightened(rgb) {
  while ((luminance(rgb) + 0.05) / 0.05 < 4) rgb = rgb.map((c) => c + (255 - c) * 0.02);
  return rgb.map(Math.round);
}

// A colour as given on white; on black, lightened until its contrast is at least 4 to 1.
function tint(hex) {
  return dark ? "#" + lightened(parts(hex)).map((c) => c.toString(16).padStart(2, "0")).join("") : hex;
}

function key(color, name, kind = "dot") {
  const mark = element("i", { class: kind, "aria-hidden": "true" });
  if (kind === "dot") mark.style.background = color;
  return element("span", { class: "key" }, mark, element("bdi", {}, name));
}

function dimColor() {
  return dark ? [58, 63, 71] : [214, 214, 214];
}

function table(coloring) {
  if (!tables.has(coloring)) tables.set(coloring, coloring.colors.map((_, place) => parts(coloring.color(place))));
  return tables.get(coloring);
}

// An image of points on no ground, whose colours are those of the theme.
function recolored(image, dataset) {
  const canvas = document.createElement("canvas");
  canvas.width = image.naturalWidth;
  canvas.height = image.naturalHeight;
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(image, 0, 0);
  if (!dark) return canvas;
  const pixels = context.getImageData(0, 0, canvas.width, canvas.height), { data } = pixels, known = new Map();
  for (let at = 0; at < data.length; at += 4) {
    if (!data[at + 3]) continue;
    const name = (data[at] << 16) | (data[at + 1] << 8) | data[at + 2];
    if (!known.has(name)) known.set(name, inDark([data[at], data[at + 1], data[at + 2]], dataset));
    data.set(known.get(name), at);
  }
  context.putImageData(pixels, 0, 0);
  return canvas;
}

// A colour of an image in the dark theme: on a colour bar, the same step of the dark one.
function inDark(rgb, { info }) {
  if (!info.darkColors) return lightened(rgb);
  const far = info.colors.map((hex) => parts(hex).reduce((sum, c, i) => sum + (c - rgb[i]) ** 2, 0));
  return parts(info.darkColors[far.indexOf(Math.min(...far))]);
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

// Where the points of a panel are in a canvas, in device pixels. `view` is the place of the panel in it: its side, left
// and upper edge; and the width and height of the canvas. `outside` are the places of points beyond the panel's edges.
// `where` is the panel, with its row, whose colours they have.
class Arrangement {
  constructor(dataset, xs, ys, view, zoom, outside, where) {
    Object.assign(this, { dataset, view, x: new Float32Array(xs.length), y: new Float32Array(xs.length) });
    this.codes = dataset.coloring.paint(where);
    this.status = dataset.coloring.status(where);
    this.x.fill(NaN);
    this.shown = [];
    this.dim = [];
    this.triangles = [];
    const crowding = Math.min(1.5, (200 / xs.length) ** 0.3);
    const wanted = Math.max(((view.side / zoom) * crowding) / 100, 1.2 * devicePixelRatio) * zoom ** 0.3;
    const least = dataset.matched ? 2.2 * devicePixelRatio : 0;
    this.radius = Math.round(Math.max(Math.min(wanted, 9 * devicePixelRatio), least) * 4) / 4;
    const { status } = this, around = 2 * this.radius + 2;
    for (let i = 0; i < xs.length; i++) {
      if (status[i] === HIDDEN || xs[i] === MISSING) continue;
      if (outside.has(i)) {
        this.triangles.push(this.triangle(i, outside.get(i)));
        continue;
      }
      const x = view.left + (xs[i] / LARGEST) * view.side, y = view.top + (1 - ys[i] / LARGEST) * view.side;
      this.x[i] = x;
      this.y[i] = y;
      if (x < -around || y < -around || x > view.width + around || y > view.height + around) continue;
      (status[i] === DIM ? this.dim : this.shown).push(i);
    }
    // Sparse points of many are drawn as squares of several pixels; single pixels would be too small to see.
    const dot = Math.max(1, Math.round(Math.sqrt((0.12 * view.side ** 2) / xs.length)));
    this.dot = Math.min(dot, Math.round(4 * devicePixelRatio));
    this.few = this.shown.length <= FEW;
    this.piles = [];
    if (this.few) this.spread(xs, ys);
  }

  // Points of several labels on one spot stand side by side, so that no label hides another.
  spread(xs, ys) {
    const spots = new Map(), { codes } = this;
    for (const i of this.shown) {
      const name = xs[i] * 65536 + ys[i], spot = spots.get(name);
      if (spot) {
        spot.codes.add(codes[i]);
        spot.members.push(i);
      } else spots.set(name, { x: this.x[i], y: this.y[i], codes: new Set([codes[i]]), members: [i] });
    }
    for (const spot of spots.values()) {
      if (spot.members.length > 1) this.piles.push({ x: spot.x, y: spot.y, size: spot.members.length });
      if (spot.codes.size < 2) continue;
      const order = [...spot.codes].sort((one, other) => one - other);
      for (const i of spot.members) {
        const turn = (2 * Math.PI * order.indexOf(codes[i])) / order.length;
        this.x[i] += 0.6 * this.radius * Math.cos(turn);
        this.y[i] -= 0.6 * this.radius * Math.sin(turn);
      }
    }
  }

  // A triangle at the panel's edge, on the line from its middle to the point. x, y: its tip.
  triangle(index, [ux, uy]) {
    const across = ux - 0.5, down = 0.5 - uy, far = 2 * Math.max(Math.abs(across), Math.abs(down));
    const { side, left, top } = this.view, size = Math.max(5 * devicePixelRatio, side / 26);
    const inset = 2 * devicePixelRatio, room = side - 2 * inset;
    const x = left + inset + (across / far + 0.5) * room, y = top + inset + (down / far + 0.5) * room;
    const out = Math.abs(across) >= Math.abs(down) ? [Math.sign(across), 0] : [0, Math.sign(down)];
    this.x[index] = x - (size / 2) * out[0];
    this.y[index] = y - (size / 2) * out[1];
    return { index, x, y, out, size };
  }

  // The sentences drawn at a place, the topmost first; else the nearest one within reach, in device pixels.
  hits(x, y, reach) {
    const { status } = this, found = [];
    const isOnly = this.dataset.matched?.includes(1) ? SHOWN : DIM;
    for (const { index, size } of this.triangles) {
      const near = Math.hypot(this.x[index] - x, this.y[index] - y) <= 0.6 * size;
      if (near && status[index] >= isOnly) found.unshift(index);
    }
    const most = this.few ? this.radius + 0.5 : this.dot / 2 + 1;
    let within = -1, smallest = reach ** 2;
    for (const list of [this.shown, this.dim]) {
      for (let at = list.length - 1; at >= 0; at--) {
        const i = list[at], distance = (this.x[i] - x) ** 2 + (this.y[i] - y) ** 2;
        if (status[i] < isOnly) continue;
        if (distance <= most ** 2) found.push(i);
        else if (distance < smallest) [within, smallest] = [i, distance];
      }
    }
    if (!this.few) found.sort((i, j) => Math.hypot(this.x[i] - x, this.y[i] - y) - Math.hypot(this.x[j] - x, this.y[j] - y));
    return found.length || within < 0 ? found : [within];
  }

  // Where a sentence is drawn, in parts of the panel's side; null where it is not.
  place(index) {
    const { side, left, top } = this.view, x = (this.x[index] - left) / side;
    return Number.isNaN(x) ? null : [x, (this.y[index] - top) / side];
  }

  paint(context) {
    const { dataset } = this, pale = dimColor(), own = this.colorOf();
    if (this.dim.length > FEW) this.paintDensity(context, this.dim, () => pale, true);
    else this.paintDiscs(context, this.dim, () => pale);
    if (this.few) this.paintDiscs(context, this.shown, own);
    else this.paintDensity(context, this.shown, own, dataset.filtered);
    this.paintTriangles(context, pale, own);
    this.paintMarks(context);
  }

  // What is drawn over the points.
  paintMarks(context) {
    paintContours(this, context);
    this.paintSelected(context);
    this.paintNumbers(context, paintNames(this, context));
  }

  // Gives the colour of a sentence.
  colorOf() {
    const colors = table(this.dataset.coloring), { codes } = this;
    return (i) => colors[codes[i]];
  }

  // Selected sentences have a ring each.
  paintSelected(context) {
    if (state.selected?.dataset !== this.dataset) return;
    context.strokeStyle = dark ? "#ffffff" : "#111111";
    context.lineWidth = 1.2 * devicePixelRatio;
    for (const list of [this.shown, this.triangles.map(({ index }) => index)]) {
      for (const i of list) {
        if (!state.selected.members.has(i)) continue;
        context.beginPath();
        context.arc(this.x[i], this.y[i], this.radius + 1.5 * devicePixelRatio, 0, 2 * Math.PI);
        context.stroke();
      }
    }
  }

  // The sentences whose points are inside of a closed line of places in device pixels.
  within(line) {
    const drawn = [...this.shown, ...this.triangles.map(({ index }) => index)];
    return drawn.filter((i) => isInside(this.x[i], this.y[i], line));
  }

  paintDiscs(context, list, colorOf) {
    for (const i of list) {
      const stamp = sprite(colorOf(i), this.radius), half = stamp.width / 2;
      context.drawImage(stamp, this.x[i] - half, this.y[i] - half);
    }
  }

  paintTriangles(context, pale, colorOf) {
    for (const { index, x, y, out, size } of this.triangles) {
      const [back, turn] = [[x - size * out[0], y - size * out[1]], [0.6 * size * out[1], 0.6 * size * out[0]]];
      context.fillStyle = `rgb(${(this.status[index] === DIM ? pale : colorOf(index)).join(" ")})`;
      context.beginPath();
      context.moveTo(x, y);
      context.lineTo(back[0] + turn[0], back[1] + turn[1]);
      context.lineTo(back[0] - turn[0], back[1] - turn[1]);
      context.fill();
    }
  }

  // The sizes of the largest piles, and the number of points outside, where there is room. taken: boxes of names.
  paintNumbers(context, taken) {
    const { side, left, top } = this.view, size = Math.max(10 * devicePixelRatio, Math.min(side / 18, 15 * devicePixelRatio));
    const { width } = context.canvas;
    context.font = `${size}px system-ui, sans-serif`;
    context.textBaseline = "middle";
    context.lineWidth = 3 * devicePixelRatio;
    context.lineJoin = "round";
    context.strokeStyle = dark ? "#000000" : "#ffffff";
    context.fillStyle = dark ? "#e6e9ed" : "#1f2328";
    const write = (text, x, y) => {
      context.strokeText(text, x, y);
      context.fillText(text, x, y);
    };
    const named = this.piles.filter((pile) => pile.size >= NUMBERED.fewest).sort((a, b) => b.size - a.size);
    for (const pile of named.slice(0, NUMBERED.most)) {
      const text = pile.size.toLocaleString("en"), wide = context.measureText(text).width, reach = 1.6 * this.radius + 2;
      const x = pile.x + reach + wide > width ? pile.x - reach - wide : pile.x + reach;
      const box = [x, pile.y - size / 2, x + wide, pile.y + size / 2];
      if (x < 0 || taken.some((other) => box[0] < other[2] && other[0] < box[2] && box[1] < other[3] && other[1] < box[3])) continue;
      taken.push(box);
      write(text, x, pile.y);
    }
    if (!this.triangles.length) return;
    write(`${this.triangles.length.toLocaleString("en")} outside`, left + size, top + side - 1.6 * size);
  }

  // Many points: counted per pixel; opacity by histogram equalisation, colour the mean. opaque: no pixel is faint.
  paintDensity(context, list, colorOf, opaque) {
    const { width, height } = context.canvas, size = width * height, square = this.dot;
    if (scratch.size < size) {
      scratch = { size, count: new Uint32Array(size) };
      for (const c of ["r", "g", "b"]) scratch[c] = new Float32Array(size);
    }
    for (const plane of ["count", "r", "g", "b"]) scratch[plane].fill(0, 0, size);
    const { count, r, g, b } = scratch;
    for (const i of list) {
      const left = Math.floor(this.x[i]), top = Math.floor(this.y[i]);
      if (left < 0 || top < 0 || left + square > width || top + square > height) continue;
      const color = colorOf(i);
      for (let y = top; y < top + square; y++) {
        for (let at = y * width + left, end = at + square; at < end; at++) {
          count[at]++;
          r[at] += color[0];
          g[at] += color[1];
          b[at] += color[2];
        }
      }
    }
    const image = context.createImageData(width, height), { data } = image;
    const alpha = opaque ? null : equalised(count, size);
    for (let at = 0; at < size; at++) {
      const n = count[at];
      if (n) data.set([r[at] / n, g[at] / n, b[at] / n, alpha ? alpha[n] : 255], at * 4);
    }
    const layer = document.createElement("canvas");
    layer.width = width;
    layer.height = height;
    layer.getContext("2d").putImageData(image, 0, 0);
    context.drawImage(layer, 0, 0);
  }
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
