// Charts: a measure per layer with its interval and null, as SVG, and a table of the numbers.

const CHART = { width: 560, height: 280, left: 56, right: 12, top: 10, bottom: 40 };
const DASHES = ["7 4", "2 3", "8 3 2 3", "10 3 2 3 2 3"];

function svg(tag, attributes, ...children) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

function ticks(low, high, count) {
  const rough = (high - low) / count, power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((s) => s * power).find((s) => s >= rough * 0.999);
  const values = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i++) values.push(i * step);
  return values;
}

function extent(chart) {
  const layers = chart.series.flatMap((s) => s.places);
  const values = chart.series.flatMap((s) => [s.value, s.low, s.high, s.nullMean, s.nullHigh].flatMap((v) => v ?? []));
  const known = values.filter((v) => v !== null);
  let [low, high] = chart.range ?? [Math.min(...known), Math.max(...known)];
  if (!Number.isFinite(low) || !Number.isFinite(high)) [low, high] = [0, 1];
  if (high <= low) [low, high] = [low - 0.5, low + 0.5];
  const room = chart.range ? 0 : (high - low) * 0.06;
  const last = layers.length ? Math.max(...layers) : 1;
  const first = layers.length ? Math.min(...layers) : 0;
  const least = chart.relativeDepth ? 1e-9 : 1;
  return { first, last: Math.max(last, first + least), low: low - room, high: high + room };
}

class ChartView {
  constructor(chart) {
    this.chart = chart;
    // The place of each layer: its number or, for models of different depths, its relative depth.
    for (const s of chart.series) {
      const deepest = Math.max(...s.layers, 1);
      s.places = chart.relativeDepth ? s.layers.map((layer) => layer / deepest) : s.layers;
    }
    this.range = extent(chart);
    this.read = element("div", { class: "read", role: "status", hidden: "" });
    this.place = element("div");
    const label = `${chart.title}: ${chart.valueName} per layer. Arrow keys read the values of a layer.`;
    this.place.setAttribute("role", "application");
    this.place.setAttribute("tabindex", "0");
    this.place.setAttribute("aria-label", label);
    this.places = [...new Set(chart.series.flatMap((s) => s.places))].sort((a, b) => a - b);
    this.node = element("figure", { class: "chart" }, element("figcaption", {}, element("bdi", {}, chart.title)));
    this.node.append(this.place, this.read);
    if (chart.note) this.node.append(element("p", { class: "small" }, chart.note));
    this.node.append(this.numbers());
    this.place.addEventListener("pointermove", (event) => this.showValues(this.placeAt(event)));
    this.place.addEventListener("pointerleave", () => this.showValues(null));
    this.place.addEventListener("blur", () => this.showValues(null));
    this.place.addEventListener("click", (event) => this.open(event));
    this.place.addEventListener("keydown", (event) => this.key(event));
    this.draw();
  }

  x(layer) {
    const { first, last } = this.range;
    return CHART.left + ((layer - first) / (last - first)) * (CHART.width - CHART.left - CHART.right);
  }

  y(value) {
    const { low, high } = this.range;
    return CHART.height - CHART.bottom - ((value - low) / (high - low)) * (CHART.height - CHART.top - CHART.bottom);
  }

  // Path through the known values; after a gap it begins again.
  path(layers, values) {
    let pen = "M", path = "";
    values.forEach((value, i) => {
      if (value === null) {
        pen = "M";
        return;
      }
      path += `${pen}${this.x(layers[i]).toFixed(1)} ${this.y(value).toFixed(1)}`;
      pen = "L";
    });
    return path;
  }

  band(layers, low, high, color, opacity) {
    const known = layers.map((_, i) => i).filter((i) => low[i] !== null && high[i] !== null);
    const edge = (values, order) => order.map((i) => `${this.x(layers[i]).toFixed(1)} ${this.y(values[i]).toFixed(1)}`);
    const corners = [...edge(high, known), ...edge(low, known.slice().reverse())];
    return svg("path", { class: "band", d: corners.length ? `M${corners.join("L")}Z` : "", fill: color, "fill-opacity": opacity });
  }

  draw() {
    const { width, height, left, right, bottom } = CHART, { chart, range } = this;
    const root = svg("svg", { viewBox: `0 0 ${width} ${height}`, "aria-hidden": "true" });
    for (const value of ticks(range.low, range.high, 5)) {
      root.append(svg("line", { class: "axis", x1: left, x2: width - right, y1: this.y(value), y2: this.y(value) }));
      const place = { x: left - 6, y: this.y(value) + 4, "text-anchor": "end" };
      root.append(svg("text", place, String(Number(value.toPrecision(6)))));
    }
    const whole = (place) => chart.relativeDepth || Number.isInteger(place);
    for (const place of ticks(range.first, range.last, 8).filter(whole)) {
      const name = String(Number(place.toPrecision(6)));
      root.append(svg("text", { x: this.x(place), y: height - bottom + 16, "text-anchor": "middle" }, name));
    }
    const middle = (left + width - right) / 2;
    const axis = chart.relativeDepth ? "depth (0 = embed, 1 = final norm)" : "layer (0 = embed, last = final norm)";
    root.append(svg("text", { x: middle, y: height - 6, "text-anchor": "middle" }, axis));
    const turned = `translate(13 ${(height - bottom) / 2}) rotate(-90)`;
    const name = chart.valueName.length > 36 ? `${chart.valueName.slice(0, 35)}…` : chart.valueName;
    root.append(svg("text", { transform: turned, "text-anchor": "middle" }, name));
    const nulls = chart.series.filter((s) => s.nullMean);
    const faint = 1 - (1 - 0.18) ** (1 / Math.max(nulls.length, 1));
    for (const s of nulls) root.append(this.band(s.places, s.nullMean, s.nullHigh, nullColor(), faint));
    for (const s of chart.series) if (s.low) root.append(this.band(s.places, s.low, s.high, seriesColor(s), 0.2));
    for (const s of nulls) {
      const line = { class: "null", d: this.path(s.places, s.nullHigh), fill: "none", stroke: nullColor(), "stroke-width": 1.8 };
      root.append(svg("path", line));
    }
    for (const s of chart.series) {
      const line = { d: this.path(s.places, s.value), fill: "none", stroke: seriesColor(s), "stroke-width": s.control ? 1.5 : 2.2 };
      if (s.control) line["stroke-dasharray"] = dashes(s);
      root.append(svg("path", line));
      if (!s.control && s.layers.length < 40) this.dots(root, s);
    }
    this.cursor = svg("line", { y1: CHART.top, y2: height - bottom, stroke: "currentColor", "stroke-dasharray": "3 3" });
    this.cursor.setAttribute("visibility", "hidden");
    root.append(this.cursor);
    this.place.replaceChildren(root);
  }

  dots(root, s) {
    s.value.forEach((value, i) => {
      if (value === null) return;
      root.append(svg("circle", { cx: this.x(s.places[i]), cy: this.y(value), r: 2.8, fill: seriesColor(s) }));
    });
  }

  placeAt(event) {
    const box = this.place.getBoundingClientRect();
    const x = ((event.clientX - box.left) / box.width) * CHART.width;
    return this.places.reduce((a, b) => (Math.abs(this.x(b) - x) < Math.abs(this.x(a) - x) ? b : a), this.places[0]);
  }

  showValues(place) {
    this.shown = place ?? null;
    this.cursor.setAttribute("visibility", this.shown === null ? "hidden" : "visible");
    this.read.hidden = this.shown === null;
    this.read.replaceChildren();
    if (this.shown === null) return;
    for (const end of ["x1", "x2"]) this.cursor.setAttribute(end, this.x(place));
    // Over the chart, on the side where the cursor is not: nothing on the page moves.
    this.read.classList.toggle("left", this.x(place) > CHART.width / 2);
    const { relativeDepth, series } = this.chart;
    this.read.append(relativeDepth ? `depth ${round(place)}` : `layer ${place}`);
    for (const s of series) {
      const i = relativeDepth ? closest(s.places, place) : s.places.indexOf(place);
      if (i < 0 || s.value[i] === null) continue;
      const layer = relativeDepth && !s.control ? `, layer ${s.layers[i]}` : "";
      this.read.append(lineKey(s, `${seriesName(s)}${layer}: ${inWords(s, i)}`));
    }
  }

  // Show at which layer a panel is, on the line of its model and dataset.
  mark(row, layer) {
    const s = this.chart.series.find((line) => !line.control && isOf(line, row));
    if (!s) return;
    const i = s.layers.indexOf(layer);
    this.showValues(i < 0 ? null : s.places[i]);
  }

  // A click on the chart enlarges the panel of the layer and of the line that is nearest.
  open(event) {
    const place = this.placeAt(event), box = this.place.getBoundingClientRect();
    const height = ((event.clientY - box.top) / box.height) * CHART.height;
    let reached = null, smallest = Infinity;
    for (const s of this.chart.series) {
      const i = this.chart.relativeDepth ? reached(s.places, place) : s.places.indexOf(place);
      if (s.control || i < 0 || s.value[i] === null) continue;
      const distance = Math.abs(this.y(s.value[i]) - height), row = rowOf(s);
      const panel = row?.panels.find((each) => each?.layer === s.layers[i]);
      if (panel && distance < smallest) [reached, smallest] = [{ row, panel }, distance];
    }
    if (reached) closeup.open(reached.row, reached.panel);
  }

  key(event) {
    if (event.key === "Escape") this.showValues(null);
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!step || !this.places.length) return;
    event.preventDefault();
    const last = this.places.length - 1;
    const at = this.shown === null ? (step > 0 ? -1 : last + 1) : this.places.indexOf(this.shown);
    this.showValues(this.places[Math.min(Math.max(at + step, 0), last)]);
  }

  // The same numbers for readers who cannot see the chart; created when opened.
  numbers() {
    const details = element("details", { class: "small" }, element("summary", {}, "Numbers"));
    details.addEventListener("toggle", () => {
      if (details.open && details.children.length === 1) {
        const layers = [...new Set(this.chart.series.flatMap((s) => s.layers))].sort((a, b) => a - b);
        const names = [["value", ""], ["low", "from"], ["high", "to"], ["nullHigh", "null to"], ["p", "p"]];
        const columns = this.chart.series.flatMap((s) => names.filter(([name]) => s[name]).map(([name, title]) => {
          const of = (layer) => s[name][s.layers.indexOf(layer)] ?? null;
          return { title: `${seriesName(s)} ${title}`.trim(), of, name };
        }));
        const shown = ({ of, name }, layer) => (of(layer) === null ? "" : name === "p" ? pInWords(of(layer)) : round(of(layer)));
        const rows = layers.map((layer) => [String(layer), ...columns.map((column) => shown(column, layer))]);
        const header = ["layer", ...columns.map(({ title }) => title)];
        const exact = layers.map((layer) => [layer, ...columns.map(({ of }) => of(layer) ?? "")]);
        const button = element("button", { type: "button" }, "CSV");
        button.addEventListener("click", () => save(`${this.chart.title}.csv`, csvOf([header, ...exact]), "text/csv"));
        details.append(button);
        details.append(tableNode({ title: this.chart.title, header, rows }));
      }
    });
    return details;
  }
}

function closest(places, wanted) {
  return places.reduce((best, place, i) => (Math.abs(place - wanted) < Math.abs(places[best] - wanted) ? i : best), 0);
}

function round(value) {
  return String(Number(value.toPrecision(3)));
}

function pInWords(p) {
  return p < 0.001 ? "< 0.001" : p.toFixed(3);
}

// A value of a line with its interval, null and p.
function inWords(s, i) {
  const known = (values) => values && values[i] !== null;
  const between = known(s.low) ? ` (${round(s.low[i])} to ${round(s.high[i])})` : "";
  const reach = known(s.nullHigh) ? `; null to ${round(s.nullHigh[i])}` : "";
  const p = known(s.p) ? `; p ${s.p[i] < 0.001 ? "" : "= "}${pInWords(s.p[i])}` : "";
  return `${round(s.value[i])}${between}${reach}${p}`;
}

function isOf(s, row) {
  return s.shows !== null && s.shows[0] === row.dataset.info.name && s.shows[1] === row.title;
}

// The row of panels that shows the states of a line.
function rowOf(s) {
  return s.shows && datasets.flatMap((dataset) => dataset.rows).find((row) => isOf(s, row));
}

// Show a panel's layer on the curves that are of it.
function markLayer(row, layer) {
  for (const view of chartViews) view.mark(row, layer);
}

function nullColor() {
  return dark ? "#b8c0c8" : "#444444";
}

function seriesColor(s) {
  return tint(meta.seriesColors[s.of] ?? meta.seriesColors[s.name]);
}

function seriesName(s) {
  return s.of ? `${s.name} · ${s.of}` : s.name;
}

const controls = [...new Set(meta.charts.flatMap((chart) => chart.series).filter((s) => s.control).map((s) => s.name))];

function dashes(s) {
  return DASHES[controls.indexOf(s.name) % DASHES.length];
}

function lineKey(s, name) {
  const line = svg("line", { x1: 0, x2: 30, y1: 5, y2: 5, stroke: seriesColor(s), "stroke-width": s.control ? 2 : 3 });
  if (s.control) line.setAttribute("stroke-dasharray", dashes(s));
  const sample = svg("svg", { viewBox: "0 0 30 10", "aria-hidden": "true" }, line);
  return element("span", { class: "key" }, sample, element("bdi", {}, name));
}

function seriesKeys() {
  const series = new Map(meta.charts.flatMap((chart) => chart.series).map((s) => [s.name, s]));
  // One entry for each kind of control, whichever series it belongs to.
  const kinds = [...series.values()].map((s) => (s.control ? { ...s, of: "" } : s));
  const keys = element("div", { class: "keys" }, ...kinds.map((s) => lineKey(s, s.name)));
  if ([...series.values()].some((s) => s.low)) keys.append(key("", "in a line's colour: its 95 % interval", "band"));
  if ([...series.values()].some((s) => s.nullMean)) {
    const line = svg("line", { x1: 0, x2: 30, y1: 5, y2: 5, stroke: nullColor(), "stroke-width": 3 });
    const sample = svg("svg", { viewBox: "0 0 30 10", "aria-hidden": "true" }, line);
    keys.append(element("span", { class: "key" }, sample, "null (permuted labels): its limit over all layers"));
    keys.append(key("", "null: from its mean to its limit", "band null"));
  }
  return keys;
}
