// Data: the contents of this file, decoded when first needed.

const meta = JSON.parse(document.getElementById("meta").textContent);
const LARGEST = 65534;
const MISSING = 65535;
const state = { hover: null, pin: null, near: null, toScale: false, selected: null };
const HIDDEN = 0, DIM = 1, SHOWN = 2;
const byId = (id) => document.getElementById(id);

// All text enters the page as text nodes or attribute values, never as markup.
function element(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

async function bytes(id) {
  const node = byId(id);
  const binary = atob(node.textContent);
  node.remove();
  const packed = new Uint8Array(binary.length);
  for (let i = 0; i < packed.length; i++) packed[i] = binary.charCodeAt(i);
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

// Datasets that show the same in other colours share what an element holds.
const decoded = new Map();

function once(id, decode) {
  if (!decoded.has(id)) decoded.set(id, bytes(id).then(decode));
  return decoded.get(id);
}

function numbers(id) {
  return once(id, (raw) => {
    const count = raw.length / 2, values = new Uint16Array(count);
    for (let i = 0; i < count; i++) values[i] = raw[i] | (raw[count + i] << 8);
    return values;
  });
}

function texts(id) {
  return once(id, (raw) => JSON.parse(new TextDecoder().decode(raw)));
}

function plural(count, word) {
  return `${count.toLocaleString("en")} ${word}${count === 1 ? "" : "s"}`;
}

// The nearest sentences of all sentences, layer after layer, `most` of each; -1 where there are no more.
function nearestNumbers(id, count, most) {
  if (count < 256) return once(id, (raw) => unranked(raw, count, most));
  if (count < 65536) return numbers(id).then((values) => Int32Array.from(values, (value) => (value === 65535 ? -1 : value)));
  return numbers(id).then((values) => new Int32Array(values.buffer));
}

// Each sentence has a list of all: a rank is a place in it after those that the layer has named, which moves up to them.
function unranked(raw, count, most) {
  const found = new Int32Array(raw.length).fill(-1);
  for (let i = 0; i < count; i++) {
    const order = Array.from({ length: count }, (_, other) => other);
    for (let start = i * most; start < raw.length; start += count * most) {
      for (let j = 0; j < most && raw[start + j] !== 255; j++) {
        const [other] = order.splice(raw[start + j] + j, 1);
        order.splice(j, 0, other);
        found[start + j] = other;
      }
    }
  }
  return found;
}

class Dataset {
  constructor(info) {
    this.info = info;
    this.size = info.shown;
    this.matched = null;
    this.rows = info.rows.map((row, number) => new PanelRow(this, row, number));
    this.colorings = [{ ...info, key: "", codes: [info.codes] }, ...info.choices].map((each) => new Coloring(this, each));
    this.coloring = this.colorings[0];
    this.refresh();
  }

  get sampled() { return this.info.shown < this.info.count; }

  load() {
    this.loading ??= (async () => {
      const { info } = this;
      const blobs = [texts(info.texts), texts(info.notes), this.colorings[0].load(), numbers(info.numbers)];
      [this.texts, this.notes] = await Promise.all(blobs);
      this.numbers = new Uint32Array((await blobs[3]).buffer);
      this.refresh();
    })();
    return this.loading;
  }

  // Decide anew for each sentence whether it is hidden, drawn pale, or drawn in its colour.
  refresh() {
    const { coloring, colorings } = this;
    for (const each of colorings) each.statuses.clear();
    this.filtered = this.matched !== null || coloring.hidden.size > 0 || coloring !== colorings[0];
  }

  search(query) {
    this.lowered ??= this.texts.map((text) => text.toLowerCase());
    this.matched = query ? Uint8Array.from(this.lowered, (text) => text.includes(query)) : null;
    this.refresh();
    return this.matched;
  }

  // The label of a sentence, or its number, as text.
  label(index) {
    return this.colorings[0].value(index, null);
  }

  // A node with a sentence, what its colour stands for in a panel, its label, its number and its note.
  card(index, where = null) {
    const about = element("span", { class: "about" }), { coloring } = this;
    const label = this.label(index), value = coloring.value(index, where);
    if (value) about.append(key(coloring.color(coloring.paint(where)[index]), value));
    const { valueRange, valueName } = this.info, named = valueRange ? label : `${valueName || meta.coloredBy}: ${label}`;
    if (label && !coloring.isOwn) about.append(element("bdi", {}, named));
    about.append(`sentence ${(this.numbers[index] + 1).toLocaleString("en")} of ${this.info.name}`);
    if (this.notes[index]) about.append(element("bdi", { dir: "auto" }, this.notes[index]));
    const words = element("bdi", { class: "words", dir: "auto" }, this.texts[index]);
    const node = document.createDocumentFragment();
    node.append(words, about);
    return node;
  }
}

class PanelRow {
  constructor(dataset, info, number) {
    this.dataset = dataset;
    this.number = number;
    this.title = info.title;
    this.info = info;
    this.themed = new Map();
    let slot = 0, at = 0;
    this.panels = info.panels.map((panel) => panel && {
      ...panel,
      at: at++,
      slot: panel.degenerate ? -1 : slot++,
      outside: new Map((panel.outside ?? []).map(([index, x, y]) => [index, [x, y]])),
    });
  }

  load() {
    this.loading ??= (async () => {
      const [points] = await Promise.all([numbers(this.info.points), this.dataset.load()]);
      if (this.info.images) {
        const sources = JSON.parse(byId(this.info.images).textContent);
        byId(this.info.images).remove();
        this.images = await Promise.all(sources.map(async (source) => {
          const image = new Image();
          image.src = `data:image/png;base64,${source}`;
          await image.decode();
          return image;
        }));
      }
      this.points = points;
    })();
    return this.loading;
  }

  // Coordinates of a panel's points, x and y, 0 to LARGEST; y upwards. Points outside of the frame are at its edge or,
  // where all are to be shown to scale, in a frame that is large enough for them.
  coordinates(panel) {
    const { size } = this.dataset, start = panel.slot * 2 * size;
    const xs = this.points.subarray(start, start + size), ys = this.points.subarray(start + size, start + 2 * size);
    if (!state.toScale || !panel.outside.size) return [xs, ys];
    panel.scaled ??= toScale(xs, ys, panel.outside);
    return panel.scaled;
  }

  // The panel's points that are drawn as triangles at its edge.
  outsiders(panel) {
    return state.toScale ? new Map() : panel.outside;
  }

  // The image of all sentences of a sampled dataset, in the colours of the theme.
  image(panel) {
    const image = this.images?.[panel.slot];
    if (!image) return null;
    const name = `${panel.slot} ${dark}`;
    if (!this.themed.has(name)) this.themed.set(name, recolored(image, this.dataset));
    return this.themed.get(name);
  }
}

function toScale(xs, ys, outside) {
  const wide = [[], []];
  for (const place of outside.values()) place.forEach((value, axis) => wide[axis].push(value));
  const ends = wide.map((values) => [Math.min(0, ...values), Math.max(1, ...values)]);
  const side = Math.max(...ends.map(([low, high]) => high - low)) * 1.1;
  const from = ends.map(([low, high]) => (low + high - side) / 2);
  return [xs, ys].map((values, axis) => Float32Array.from(values, (value, i) => {
    if (value === MISSING) return MISSING;
    const unit = outside.has(i) ? outside.get(i)[axis] : value / LARGEST;
    return ((unit - from[axis]) / side) * LARGEST;
  }));
}
