// Panels: the grids on the page, the sentences under the pointer, and the pinned ones.

const datasets = meta.datasets.map((info) => new Dataset(info));
const views = [];
const dirty = new Set();
const tip = byId("tip");
const LISTED = 50;

// Panels are painted when they come near the screen, a few in each frame, so that the page stays responsive.
const watcher = new IntersectionObserver(
  (entries) => {
    for (const entry of entries) entry.target.view.setVisible(entry.isIntersecting);
  },
  { rootMargin: "300px" },
);
let painting = false;

function repaint(some = views) {
  for (const view of some) {
    view.arranged = null;
    dirty.add(view);
  }
  if (!painting) requestAnimationFrame(paintSome);
  painting = true;
}

function paintSome() {
  const end = performance.now() + 12;
  for (const view of dirty) {
    if (!view.visible) continue;
    dirty.delete(view);
    view.paint();
    if (performance.now() > end) break;
  }
  painting = [...dirty].some((view) => view.visible);
  if (painting) requestAnimationFrame(paintSome);
}

class PanelView {
  constructor(row, panel) {
    this.row = row;
    this.panel = panel;
    this.where = { row, panel };
    this.visible = false;
    this.face = element("span", { class: panel.degenerate ? "face degenerate" : "face" });
    this.ring = element("span", { class: "ring", hidden: "" });
    this.pin = element("span", { class: "ring pin", hidden: "" });
    this.canvas = element("canvas", { "aria-hidden": "true" });
    const of = `${panel.title}, ${row.title || row.dataset.info.name}: `;
    const figure = panel.figure ? `; ${meta.figure} ${panel.figure}, ${panel.notable ? "above" : "not above"} the null` : "";
    const about = panel.degenerate ? "all states identical" : `${plural(row.dataset.info.count, "sentence")}${figure}; enlarge`;
    this.node = element("button", { type: "button", class: "panel", "aria-label": of + about });
    if (panel.degenerate) this.face.append(element("span", { class: "mark" }, "all states identical"));
    else this.face.append(this.canvas, this.pin, this.ring);
    this.links = nearest.layer(this.face, this.pin);
    const name = element("span", { class: "name" }, element("bdi", {}, panel.title));
    if (panel.figure) name.append(" ", element("span", { class: panel.notable ? "figure notable" : "figure" }, panel.figure));
    this.node.append(name, this.face);
    this.node.view = this;
    this.node.addEventListener("click", (event) => this.click(event));
    this.node.addEventListener("pointerenter", () => markLayer(row, panel.layer));
    this.node.addEventListener("pointerleave", () => markLayer(row, null));
    this.face.addEventListener("pointermove", (event) => this.point(event));
    this.face.addEventListener("pointerleave", () => show({ hover: null }));
    watcher.observe(this.node);
    views.push(this);
  }

  async setVisible(visible) {
    this.visible = visible;
    this.ring.hidden = this.pin.hidden = true;
    if (!visible) return;
    await this.row.load();
    this.place();
    if (!this.painted) repaint([this]);
    else repaint([]);
  }

  // Where this panel's points are drawn, in device pixels.
  get arrangement() {
    const side = Math.max(1, Math.round(this.face.clientWidth * devicePixelRatio));
    if (this.arranged?.view.side !== side) {
      const view = { side, left: 0, top: 0, width: side, height: side }, { row, panel } = this;
      this.arranged = new Arrangement(row.dataset, ...row.coordinates(panel), view, 1, row.outsiders(panel), this.where);
    }
    return this.arranged;
  }

  paint() {
    const { row, panel, canvas } = this, { dataset } = row;
    if (panel.degenerate || !row.points) return;
    this.painted = true;
    const arrangement = this.arrangement, { side } = arrangement.view, context = canvas.getContext("2d");
    canvas.width = canvas.height = side;
    // The image shows every sentence; the sample is drawn while a search or the legend selects some of them.
    const image = dataset.filtered || state.toScale ? null : row.image(panel);
    if (image) context.drawImage(image, 0, 0, side, side);
    else arrangement.paint(context);
    if (image) {
      arrangement.paintTriangles(context, dimColor(), arrangement.colorOf());
      paintContours(arrangement, context);
      arrangement.paintSelected(context);
      paintNames(arrangement, context);
    }
    canvas.dataset.image = image !== null;
    this.place();
  }

  // The sentences under the pointer, the topmost first.
  sentencesAt(event) {
    if (this.panel.degenerate || !this.row.points) return [];
    const box = this.face.getBoundingClientRect(), ratio = this.arrangement.view.side / this.face.clientWidth;
    const x = event.clientX - box.left - this.face.clientLeft, y = event.clientY - box.top - this.face.clientTop;
    return this.arrangement.hits(x * ratio, y * ratio, 14 * ratio);
  }

  point(event) {
    const [index, ...more] = this.sentencesAt(event);
    show({ hover: index === undefined ? null : { dataset: this.row.dataset, index, more, where: this.where } }, event);
  }

  // A click on a sentence pins it; elsewhere, and by keyboard, it enlarges the panel.
  click(event) {
    const onFace = event.detail > 0 && this.face.contains(event.target);
    const [index, ...more] = onFace ? this.sentencesAt(event) : [];
    if (index === undefined) closeup.open(this.row, this.panel);
    else show({ pin: { dataset: this.row.dataset, index, more, where: this.where }, near: this.where });
  }

  place() {
    if (this.panel.degenerate || !this.row.points) return;
    for (const [ring, chosen] of [[this.ring, state.hover], [this.pin, state.pin]]) {
      const place = chosen?.dataset === this.row.dataset ? this.arrangement.place(chosen.index) : null;
      ring.hidden = !place;
      if (!place) continue;
      ring.style.left = `${100 * place[0]}%`;
      ring.style.top = `${100 * place[1]}%`;
    }
    nearest.connect(this.links, this.row, this.panel, (index) => this.arrangement.place(index)?.map((part) => `${100 * part}%`));
  }
}

// Change the sentence under the pointer or the pinned one; update their rings in every panel of the dataset.
function show(change, event = null) {
  const before = state.hover, pinned = state.pin;
  Object.assign(state, change);
  if (event && state.hover) moveTip(event.clientX, event.clientY);
  const same = before?.dataset === state.hover?.dataset && before?.index === state.hover?.index
    && before?.more?.length === state.hover?.more?.length && before?.where?.panel === state.hover?.where?.panel;
  if (same && pinned === state.pin) return;
  tip.hidden = !state.hover || !event;
  if (!tip.hidden) {
    const { dataset, index, more, where } = state.hover;
    tip.replaceChildren(dataset.card(index, where), ...alsoHere(dataset, more, where));
    moveTip(event.clientX, event.clientY);
  }
  if (pinned !== state.pin) showPinned();
  for (const view of views) if (view.visible) view.place();
  closeup.place();
}

function showPinned() {
  byId("pinned").hidden = !state.pin;
  nearest.draw();
  if (!state.pin) return;
  const { dataset, index, more, where } = state.pin, place = byId("pinned").firstElementChild;
  place.replaceChildren(dataset.card(index, where));
  if (!more?.length) return;
  const list = element("ul", {}, ...more.slice(0, LISTED).map((other) => result(dataset, other, where)));
  const listed = more.length > LISTED ? ` (the first ${LISTED} are listed)` : "";
  const words = `${plural(more.length, "other sentence")} on this spot${listed}`;
  place.append(element("details", { class: "pile" }, element("summary", {}, words), list));
}

// How many sentences are below the topmost one, and of which labels or other values.
function alsoHere(dataset, more, where) {
  if (!more?.length) return [];
  const counts = new Map();
  for (const index of more) {
    const value = dataset.coloring.value(index, where);
    counts.set(value, (counts.get(value) ?? 0) + 1);
  }
  const named = [...counts].sort((a, b) => b[1] - a[1]).slice(0, 4).map(([name, count]) => `${name || "sentences"} ${count.toLocaleString("en")}`);
  return [element("span", { class: "also" }, `and ${plural(more.length, "other")} on this spot: ${named.join(", ")}; click to list them`)];
}

// A sentence in a list: pointing at it rings it, a click pins it.
function result(dataset, index, where = null) {
  const button = element("button", { type: "button", class: "sentence" });
  button.append(dataset.card(index, where));
  const point = () => show({ hover: { dataset, index } });
  button.addEventListener("focus", point);
  button.addEventListener("pointerenter", point);
  button.addEventListener("pointerleave", () => show({ hover: null }));
  button.addEventListener("click", () => {
    show({ pin: { dataset, index, where }, hover: null });
    byId("results-box").hidden = true;
  });
  return element("li", {}, button);
}

function moveTip(x, y) {
  const { offsetWidth: width, offsetHeight: height } = tip;
  const left = x + 18 + width > innerWidth ? x - 18 - width : x + 18;
  const top = y + 18 + height > innerHeight ? y - 18 - height : y + 18;
  tip.style.transform = `translate(${Math.max(4, left)}px, ${Math.max(4, top)}px)`;
}

// The labels, or other values, as switches with their numbers of sentences, or the colour bar; empty where points have
// neither. Where panels differ, numbers are those of the one that is shown.
function legend(dataset, where) {
  const { coloring } = dataset, { info, hidden, none } = coloring, counts = coloring.counts(where);
  const keys = element("div", { class: "keys", role: "group", "aria-label": coloring.isOwn ? "Labels" : info.name });
  const withCount = (name, count) => (count === undefined ? name : `${name} (${count.toLocaleString("en")})`);
  const missing = counts?.at(-1), places = info.categories.map((_, place) => place);
  if (info.valueRange) {
    keys.append(colorBar(coloring));
    if (missing) keys.append(element("span", { class: "key" }, ...key(coloring.color(none), withCount("no value", missing)).childNodes));
  } else if (!coloring.isOwn) keys.append(element("bdi", { class: "key" }, info.name));
  const named = info.categories.map((name, place) => withCount(name, counts?.[place]));
  if (info.categories.length && missing !== 0) {
    places.push(none);
    named.push(withCount(coloring.isOwn ? "no label" : info.missing, missing));
  }
  const change = (pressed) => {
    dataset.refresh();
    drawLegends(pressed);
    repaint();
    closeup.redraw();
  };
  named.forEach((name, at) => {
    const place = places[at], on = !hidden.has(place);
    const button = element("button", { type: "button", class: "key", "aria-pressed": on, title: "Show or hide; with Shift: this one alone" });
    button.append(...key(coloring.color(place), name).childNodes);
    // What no value is called, so that a value that reads the same is another one.
    if (place === none || (info.hasOthers && place === info.categories.length - 1)) button.classList.add("made");
    button.addEventListener("click", (event) => {
      if (event.shiftKey) coloring.hidden = new Set(places.filter((other) => other !== place));
      else if (!hidden.delete(place)) hidden.add(place);
      change(button);
    });
    keys.append(button);
  });
  if (hidden.size) {
    const all = element("button", { type: "button", class: "all" }, "Show all");
    all.addEventListener("click", () => {
      hidden.clear();
      change(null);
    });
    keys.append(all);
  }
  const about = aboutColoring(dataset);
  return about ? [keys, element("p", { class: "small" }, about)] : [keys];
}

function colorBar(coloring) {
  const { info, colors } = coloring;
  const ramp = element("canvas", { class: "ramp", width: "256", height: "1", "aria-hidden": "true" });
  const context = ramp.getContext("2d");
  colors.slice(0, -1).forEach((_, i) => {
    context.fillStyle = coloring.color(i);
    context.fillRect(i, 0, 1, 1);
  });
  const [low, high] = info.valueRange.map((value) => String(Number(value.toPrecision(4))));
  return element("span", { class: "key" }, element("bdi", {}, info.valueName), low, ramp, high);
}

// The page and the close-up have legends that show the same state; the keyboard focus stays where it was.
const legendPlaces = [];

function drawLegends(pressed = null) {
  const keys = pressed && [...pressed.parentNode.children], at = keys?.indexOf(pressed), place = pressed?.closest(".legend");
  for (const [node, datasetOf, whereOf] of legendPlaces) {
    const dataset = datasetOf();
    node.replaceChildren(...(dataset ? legend(dataset, whereOf()) : []));
  }
  place?.querySelectorAll("button")[at].focus();
}

function legendPlace(datasetOf, whereOf = () => null) {
  const node = element("div", { class: "legend" });
  legendPlaces.push([node, datasetOf, whereOf]);
  return node;
}

function datasetSection(dataset, number) {
  const { info } = dataset, title = `dataset-${number}`;
  const section = element("section", { id: `${title}-section`, class: "dataset", "aria-labelledby": title });
  section.append(element("h2", { id: title }, element("bdi", {}, info.title || info.name)));
  const facts = [plural(info.count, "sentence")];
  if (dataset.sampled) facts.push(`images show all of them; ${info.shown.toLocaleString("en")}, drawn at random, can be pointed at`);
  if (info.cut) facts.push(`texts are cut at ${info.cut} characters`);
  if (info.choicesLeft.length) facts.push(`too many sentences to be coloured by ${info.choicesLeft.join(", ")}`);
  const states = element("span", { class: "states" }, info.subtitle);
  dataset.states = states;
  section.append(element("p", { class: "subtitle" }, states, (info.subtitle ? " · " : "") + facts.join(" · ")));
  section.append(help("Each panel is a layer, each dot a sentence in its label's colour. UMAP keeps who is near whom; distances between clusters, their sizes and the axes mean nothing. Click a dot to pin its sentence in every panel, a panel's name to enlarge it, a label to hide it.",
    "Colour by, in the bar: dots take the colours of another column, of their number of tokens, of their last token, or of what the probe of each layer decided about a sentence that it had not seen. Names stand in large panels where most sentences are of that label and densest; the rarer go where there is no room. Contours, above 5,000 sentences, enclose the densest places with a quarter, half and nine tenths of each label's sentences."));
  section.append(legendPlace(() => dataset));
  for (const row of dataset.rows) {
    if (row.title) section.append(element("h3", {}, element("bdi", {}, row.title)));
    const panels = element("div", { class: "panels" });
    for (const panel of row.panels) panels.append(panel ? new PanelView(row, panel).node : element("span", { class: "gap" }));
    section.append(panels);
  }
  if (dataset.rows.some((row) => row.info.nearest)) section.append(new Moved(dataset).node);
  if (info.footer) section.append(element("p", { class: "small" }, info.footer));
  return section;
}

// A line of explanation, open when asked for; the button in the bar opens all.
function help(...paragraphs) {
  const words = paragraphs.map((text) => element("p", {}, text));
  return element("details", { class: "help" }, element("summary", { "aria-label": "What is this?" }, "?"), ...words);
}
