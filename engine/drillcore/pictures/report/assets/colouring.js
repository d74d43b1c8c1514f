// Colouring: what the colours of a dataset's points stand for, and the control that switches it for the whole page.

const NO_CODE = 65535;

// One thing that the points of a dataset can be coloured by: its labels, or a choice beside them. Codes name values;
// each value has a place in the palette, whose last one is that of no value.
class Coloring {
  constructor(dataset, info) {
    const { colors, darkColors } = info.colors ? info : meta.ramp;
    Object.assign(this, { dataset, info, colors, darkColors, hidden: new Set(), painted: new Map(), statuses: new Map() });
    this.none = colors.length - 1;
    this.isOwn = info.words === undefined;
    this.varies = !this.isOwn && (info.codes.length > 1 || info.counts[0].length > 1);
  }

  load() {
    this.loading ??= (async () => {
      const { info } = this;
      this.codes = await Promise.all(info.codes.map(numbers));
      if (this.isOwn) return;
      [this.words, this.places] = await Promise.all([texts(info.words), numbers(info.places)]);
    })();
    return this.loading;
  }

  // The panel whose colours are meant, as a name; null where panels differ and none is named. where: a row and a panel.
  panel(where) {
    return !this.varies ? "" : where ? `${where.row.number} ${where.panel.at}` : null;
  }

  codesAt(where) {
    if (this.panel(where) === null) return null;
    const { size } = this.dataset, codes = this.codes[this.codes.length > 1 ? where.row.number : 0];
    return codes.length > size ? codes.subarray(where.panel.at * size, (where.panel.at + 1) * size) : codes;
  }

  // The row of the palette of each sentence; null where panels differ and none is named.
  paint(where) {
    const name = this.panel(where), codes = this.codesAt(where);
    if (!codes || this.isOwn) return codes;
    if (!this.painted.has(name)) this.painted.set(name, codes.map((code) => (code === NO_CODE ? this.none : this.places[code])));
    return this.painted.get(name);
  }

  // Whether each sentence is hidden, drawn pale, or drawn in its colour.
  status(where) {
    const name = this.panel(where), { matched } = this.dataset;
    if (!this.statuses.has(name)) {
      const of = (place, i) => (this.hidden.has(place) ? HIDDEN : matched && !matched[i] ? DIM : SHOWN);
      this.statuses.set(name, Uint8Array.from(this.paint(where), of));
    }
    return this.statuses.get(name);
  }

  // The colour of a row of the palette, in the page's theme.
  color(place) {
    return dark && this.darkColors ? this.darkColors[place] : tint(this.colors[place]);
  }

  // How many sentences of the dataset have each category, and none at the end; null where panels differ and none is named.
  counts(where) {
    const { info } = this;
    if (this.isOwn) return [...info.counts, info.unlabelled];
    if (this.panel(where) === null) return null;
    const ofRow = info.counts[info.counts.length > 1 ? where.row.number : 0];
    return ofRow[ofRow.length > 1 ? where.panel.at : 0];
  }

  // The value of a sentence in a panel, as text; empty where panels differ and none is named.
  word(index, where) {
    const { info } = this, code = this.codesAt(where)?.[index];
    if (code === undefined) return "";
    if (this.isOwn && !info.valueRange) return code === this.none ? "no label" : info.categories[code] ?? "";
    if (code === (this.isOwn ? this.none : NO_CODE)) return this.isOwn ? "none" : info.missing;
    if (this.words?.length) return this.words[code];
    const [low, high] = info.valueRange, share = (this.isOwn ? code : this.places[code]) / (this.none - 1);
    return `≈ ${Number((low + share * (high - low)).toPrecision(3))}`;
  }

  // The same with the name of what it is, where it is no label.
  value(index, where) {
    const word = this.word(index, where), { info } = this;
    if (!word || (this.isOwn && !info.valueRange)) return word;
    return `${this.isOwn ? info.valueName : info.name}${word.startsWith("≈") ? "" : ":"} ${word}`;
  }
}

// The control stands in the bar and in the close-up, which shuts the bar out.
const coloringControls = [];
let colored = "";

function coloringChoices() {
  const names = new Map([["", meta.coloredBy]]);
  for (const { info } of datasets) for (const choice of info.choices) if (!names.has(choice.key)) names.set(choice.key, choice.name);
  return names;
}

async function colorBy(name) {
  colored = name;
  for (const control of coloringControls) control.value = name;
  const chosen = datasets.map(({ colorings }) => colorings.find(({ info }) => info.key === name) ?? colorings[0]);
  await Promise.all(chosen.map((coloring) => coloring.load()));
  if (colored !== name) return;
  datasets.forEach((dataset, i) => {
    dataset.coloring = chosen[i];
    dataset.refresh();
    const { info, coloring, colorings } = dataset, own = `colour: ${meta.coloredBy}`;
    dataset.states.textContent = coloring === colorings[0] ? info.subtitle : info.subtitle.replace(own, () => `colour: ${coloring.info.name}`);
  });
  drawLegends();
  if (state.pin) showPinned();
  selection.draw();
  repaint();
  closeup.redraw();
  document.documentElement.dataset.coloured = name;
}

function setUpColoring() {
  const choices = coloringChoices();
  for (const place of document.querySelectorAll(".colour-by")) {
    place.hidden = choices.size < 2;
    const control = place.querySelector("select");
    control.append(...[...choices].map(([name, shown]) => element("option", { value: name }, shown)));
    control.addEventListener("change", () => colorBy(control.value).catch(fail));
    coloringControls.push(control);
  }
}

// What is to be known of a dataset's colours, below their legend; empty where they are as its images have them.
function aboutColoring({ coloring, colorings, info, sampled }) {
  if (!colored) return "";
  if (coloring === colorings[0]) return `No ${coloringChoices().get(colored)} here: colours are those of the ${meta.coloredBy}.`;
  return sampled ? `Images cannot be coloured anew: the ${plural(info.shown, "sentence")} that can be pointed at are drawn.` : "";
}
