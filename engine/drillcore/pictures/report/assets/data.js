// Data: the contents of this file, decoded when first needed.

const meta = JSON.parse(document.getElementById("meta").textContent);
const LARGEST = 65534;
const MISSING = 65535;
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

async function numbers(id) {
  const raw = await bytes(id), count = raw.length / 2;
  const values = new Uint16Array(count);
  for (let i = 0; i < count; i++) values[i] = raw[i] | (raw[count + i] << 8);
  return values;
}

async function texts(id) {
  return JSON.parse(new TextDecoder().decode(await bytes(id)));
}

function plural(count, word) {
  return `${count.toLocaleString("en")} ${word}${count === 1 ? "" : "s"}`;
}

class Dataset {
  constructor(info) {
    this.info = info;
    this.size = info.shown;
    this.hiddenCodes = new Set();
    this.matched = null;
    this.rows = info.rows.map((row) => new PanelRow(this, row));
    this.refresh();
  }

  get sampled() { return this.info.shown < this.info.count; }

  load() {
    this.loading ??= (async () => {
      const { info } = this;
      const parts = [texts(info.texts), texts(info.notes), numbers(info.codes), numbers(info.numbers)];
      [this.texts, this.notes, this.codes] = await Promise.all(parts);
      this.numbers = new Uint32Array((await parts[3]).buffer);
      this.refresh();
    })();
    return this.loading;
  }

  // Decide for each sentence whether it is hidden, drawn pale, or drawn in its colour.
  refresh() {
    const status = new Uint8Array(this.size).fill(SHOWN);
    for (let i = 0; i < this.size; i++) {
      if (this.matched && !this.matched[i]) status[i] = DIM;
      if (this.codes && this.hiddenCodes.has(this.codes[i])) status[i] = HIDDEN;
    }
    this.status = status;
    this.filtered = this.matched !== null || this.hiddenCodes.size > 0;
  }

  search(query) {
    this.lowered ??= this.texts.map((text) => text.toLowerCase());
    this.matched = query ? Uint8Array.from(this.lowered, (text) => text.includes(query)) : null;
    this.refresh();
    return this.matched;
  }

  // The label or value of a sentence, as text.
  label(index) {
    const { categories, colors, valueRange, valueName } = this.info, code = this.codes[index];
    if (valueRange) {
      const [low, high] = valueRange;
      if (code === colors.length - 1) return `${valueName}: none`;
      return `${valueName} ≈ ${Number((low + (code / (colors.length - 2)) * (high - low)).toPrecision(3))}`;
    }
    if (code === colors.length - 1) return "no label";
    return categories[code] ?? "";
  }

  // A node with a sentence, its label, its number and its note.
  card(index) {
    const about = element("span", { class: "about" });
    const label = this.label(index);
    if (label) about.append(key(tint(this.info.colors[this.codes[index]]), label));
    about.append(`sentence ${(this.numbers[index] + 1).toLocaleString("en")} of ${this.info.name}`);
    if (this.notes[index]) about.append(element("bdi", { dir: "auto" }, this.notes[index]));
    const words = element("bdi", { class: "words", dir: "auto" }, this.texts[index]);
    const node = document.createDocumentFragment();
    node.append(words, about);
    return node;
  }
}

class PanelRow {
  constructor(dataset, info) {
    this.dataset = dataset;
    this.title = info.title;
    this.info = info;
    let slot = 0;
    this.panels = info.panels.map((panel) => panel && { ...panel, slot: panel.degenerate ? -1 : slot++ });
  }

  load() {
    this.loading ??= (async () => {
      const [points] = await Promise.all([numbers(this.info.points), this.dataset.load()]);
      if (this.info.images) {
        this.images = JSON.parse(byId(this.info.images).textContent);
        byId(this.info.images).remove();
      }
      this.points = points;
    })();
    return this.loading;
  }

  // Coordinates of a panel's points, x and y, 0 to LARGEST; y upwards.
  coordinates(panel) {
    const { size } = this.dataset, start = panel.slot * 2 * size;
    return [this.points.subarray(start, start + size), this.points.subarray(start + size, start + 2 * size)];
  }
}

// The sentence whose point is nearest to a place (x to the right, y downwards, 0 to 1), or -1 if none is within reach.
function nearest(dataset, xs, ys, x, y, reach) {
  const px = x * LARGEST, py = (1 - y) * LARGEST, { status } = dataset;
  const wanted = dataset.matched && dataset.matched.includes(1) ? SHOWN : DIM;
  let smallest = (reach * LARGEST) ** 2, index = -1;
  for (let i = 0; i < xs.length; i++) {
    const distance = (xs[i] - px) ** 2 + (ys[i] - py) ** 2;
    if (distance < smallest && status[i] >= wanted && xs[i] !== MISSING) {
      smallest = distance;
      index = i;
    }
  }
  return index;
}
