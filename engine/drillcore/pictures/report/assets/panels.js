// Panels: the grids on the page, the sentence under the pointer, and the pinned sentence.

const datasets = meta.datasets.map((info) => new Dataset(info));
const views = [];
const dirty = new Set();
const state = { hover: null, pin: null };
const tip = byId("tip");

// Panels are painted when they come near the screen, a few in each frame, so that the page stays responsive.
const watcher = new IntersectionObserver(
  (entries) => {
    for (const entry of entries) entry.target.view.setVisible(entry.isIntersecting);
  },
  { rootMargin: "300px" },
);
let painting = false;

function repaint(some = views) {
  for (const view of some) dirty.add(view);
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
    this.visible = false;
    this.face = element("span", { class: panel.degenerate ? "face degenerate" : "face" });
    this.ring = element("span", { class: "ring", hidden: "" });
    this.pin = element("span", { class: "ring pin", hidden: "" });
    this.canvas = element("canvas", { "aria-hidden": "true" });
    const label = `${panel.title}, ${row.title || row.dataset.info.name}: `;
    const about = panel.degenerate ? "all states identical" : `${plural(row.dataset.info.count, "sentence")}; enlarge`;
    this.node = element("button", { type: "button", class: "panel", "aria-label": label + about });
    if (panel.degenerate) this.face.append(element("span", { class: "mark" }, "all states identical"));
    else this.face.append(this.canvas, this.pin, this.ring);
    this.node.append(element("bdi", { class: "name" }, panel.title), this.face);
    this.node.view = this;
    this.node.addEventListener("click", () => closeup.open(row, panel));
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

  paint() {
    const { row, panel, canvas } = this, { dataset } = row;
    if (panel.degenerate || !row.points) return;
    this.painted = true;
    const side = Math.max(1, Math.round(this.face.clientWidth * devicePixelRatio));
    if (dataset.sampled) this.paintImage();
    if (dataset.sampled && !dataset.filtered) {
      canvas.width = 1;
      return;
    }
    if (canvas.width !== side || canvas.height !== side) canvas.width = canvas.height = side;
    const [xs, ys] = row.coordinates(panel);
    paint(canvas, dataset, xs, ys, { side, left: 0, top: 0 });
  }

  // The image shows every sentence; it is hidden while a search or the legend selects some of them.
  paintImage() {
    if (!this.image) {
      this.image = element("img", { alt: "", src: `data:image/png;base64,${this.row.images[this.panel.slot]}` });
      this.face.prepend(this.image);
    }
    this.image.hidden = this.row.dataset.filtered;
  }

  point(event) {
    const { row, panel } = this;
    if (panel.degenerate || !row.points) return;
    const box = this.face.getBoundingClientRect();
    const [xs, ys] = row.coordinates(panel);
    const x = (event.clientX - box.left) / box.width, y = (event.clientY - box.top) / box.height;
    const index = nearest(row.dataset, xs, ys, x, y, 14 / box.width);
    show({ hover: index < 0 ? null : { dataset: row.dataset, index } }, event);
  }

  place() {
    if (this.panel.degenerate || !this.row.points) return;
    const [xs, ys] = this.row.coordinates(this.panel);
    for (const [ring, chosen] of [[this.ring, state.hover], [this.pin, state.pin]]) {
      const inside = chosen?.dataset === this.row.dataset && xs[chosen.index] !== MISSING;
      ring.hidden = !inside;
      if (!inside) continue;
      ring.style.left = `${(100 * xs[chosen.index]) / LARGEST}%`;
      ring.style.top = `${100 - (100 * ys[chosen.index]) / LARGEST}%`;
    }
  }
}

// Change the sentence under the pointer or the pinned one; update their rings in every panel of the dataset.
function show(change, event = null) {
  const before = state.hover, pinned = state.pin;
  Object.assign(state, change);
  if (event && state.hover) moveTip(event.clientX, event.clientY);
  const same = before?.dataset === state.hover?.dataset && before?.index === state.hover?.index;
  if (same && pinned === state.pin) return;
  tip.hidden = !state.hover || !event;
  if (!tip.hidden) {
    tip.replaceChildren(state.hover.dataset.card(state.hover.index));
    moveTip(event.clientX, event.clientY);
  }
  if (pinned !== state.pin) {
    byId("pinned").hidden = !state.pin;
    if (state.pin) byId("pinned").firstElementChild.replaceChildren(state.pin.dataset.card(state.pin.index));
  }
  for (const view of views) if (view.visible) view.place();
  closeup.place();
}

function moveTip(x, y) {
  const { offsetWidth: width, offsetHeight: height } = tip;
  const left = x + 18 + width > innerWidth ? x - 18 - width : x + 18;
  const top = y + 18 + height > innerHeight ? y - 18 - height : y + 18;
  tip.style.transform = `translate(${Math.max(4, left)}px, ${Math.max(4, top)}px)`;
}

// The labels as switches, or the colour bar; empty where points have neither.
function legend(dataset) {
  const { info } = dataset, keys = element("div", { class: "keys", role: "group", "aria-label": "Labels" });
  if (info.valueRange) keys.append(colorBar(info));
  if (info.valueRange && info.unlabelled) {
    const count = info.unlabelled.toLocaleString("en");
    keys.append(element("span", { class: "key" }, ...key(tint(info.colors.at(-1)), `no value (${count})`).childNodes));
  }
  const names = info.categories.length && info.unlabelled ? [...info.categories, `no label (${info.unlabelled.toLocaleString("en")})`] : info.categories;
  names.forEach((name, code) => {
    const on = !dataset.hiddenCodes.has(code);
    const button = element("button", { type: "button", class: "key", "aria-pressed": on, title: "Show or hide" });
    button.append(...key(tint(info.colors[code]), name).childNodes);
    button.addEventListener("click", () => {
      if (!dataset.hiddenCodes.delete(code)) dataset.hiddenCodes.add(code);
      dataset.refresh();
      drawLegends(button);
      repaint();
      closeup.redraw();
    });
    keys.append(button);
  });
  return keys;
}

function colorBar(info) {
  const ramp = element("canvas", { class: "ramp", width: "256", height: "1", "aria-hidden": "true" });
  const context = ramp.getContext("2d");
  info.colors.slice(0, -1).forEach((color, i) => {
    context.fillStyle = tint(color);
    context.fillRect(i, 0, 1, 1);
  });
  const [low, high] = info.valueRange.map((value) => String(Number(value.toPrecision(4))));
  return element("span", { class: "key" }, element("bdi", {}, info.valueName), low, ramp, high);
}

// The page and the close-up have legends that show the same state; the keyboard focus stays where it was.
const legendPlaces = [];

function drawLegends(pressed = null) {
  const keys = pressed && [...pressed.parentNode.children], at = keys?.indexOf(pressed), place = pressed?.closest(".legend");
  for (const [node, datasetOf] of legendPlaces) {
    const dataset = datasetOf();
    node.replaceChildren(...(dataset ? [legend(dataset)] : []));
  }
  place?.querySelectorAll("button")[at].focus();
}

function legendPlace(datasetOf) {
  const node = element("div", { class: "legend" });
  legendPlaces.push([node, datasetOf]);
  return node;
}

function datasetSection(dataset, number) {
  const { info } = dataset, title = `dataset-${number}`;
  const section = element("section", { id: `${title}-section`, "aria-labelledby": title });
  section.append(element("h2", { id: title }, element("bdi", {}, info.title || info.name)));
  const facts = [info.subtitle, plural(info.count, "sentence")];
  if (dataset.sampled) facts.push(`images show all of them; ${info.shown.toLocaleString("en")}, drawn at random, can be pointed at`);
  if (info.cut) facts.push(`texts are cut at ${info.cut} characters`);
  section.append(element("p", { class: "subtitle" }, facts.filter(Boolean).join(" · ")));
  section.append(legendPlace(() => dataset));
  for (const row of dataset.rows) {
    if (row.title) section.append(element("h3", {}, element("bdi", {}, row.title)));
    const panels = element("div", { class: "panels" });
    for (const panel of row.panels) panels.append(panel ? new PanelView(row, panel).node : element("span", { class: "gap" }));
    section.append(panels);
  }
  if (info.footer) section.append(element("p", { class: "small" }, info.footer));
  return section;
}
