// Page: overview, navigation, search, theme, and the order in which everything is set up.

const chartViews = [];
function tableNode({ title, header, rows }) {
  const node = element("table", {}, element("caption", {}, title));
  if (header.length) {
    const cells = header.map((name) => element("th", { scope: "col" }, element("bdi", {}, name)));
    node.append(element("thead", {}, element("tr", {}, ...cells)));
  }
  const body = element("tbody");
  for (const row of rows) {
    const [first, ...rest] = row.map((text) => element("bdi", { dir: "auto" }, text));
    const head = first && element("th", { scope: "row" }, first);
    body.append(element("tr", {}, head ?? "", ...rest.map((cell) => element("td", {}, cell))));
  }
  node.append(body);
  const wide = rows.some((row) => row.length > 4);
  const box = { class: wide ? "table wide" : "table", role: "region", tabindex: "0", "aria-label": title };
  return element("div", box, node);
}

function link(section, name) {
  byId("nav").append(element("a", { href: `#${section.id}` }, element("bdi", {}, name)));
}

function build() {
  byId("title").textContent = meta.title;
  byId("subtitle").textContent = meta.subtitle;
  byId("footer").textContent = meta.footer;
  if (meta.charts.length) {
    const section = byId("curves");
    section.hidden = false;
    section.append(help("Each line is a measure of the hidden states, layer by layer. What lies above the grey line is more than chance; bands are 95 % intervals. Point to read the values, click to enlarge the panel of that layer."));
    section.append(element("div", { id: "series" }), element("div", { class: "charts" }));
    chartViews.push(...meta.charts.map((chart) => new ChartView(chart)));
    section.querySelector(".charts").append(...chartViews.map((view) => view.node));
    if (meta.chartsNote) section.append(element("p", { class: "small" }, meta.chartsNote));
  }
  if (meta.answer) buildAnswer();
  if (meta.charts.length) link(byId("curves"), "Curves");
  datasets.forEach((dataset, number) => {
    const section = datasetSection(dataset, number);
    byId("datasets").append(section);
    link(section, dataset.info.name);
  });
  if (meta.tables.length) {
    const section = byId("overview"), place = element("div", { class: "tables" });
    place.append(...meta.tables.map(tableNode));
    section.append(place);
    section.hidden = false;
    link(section, "The run");
  }
}

// The first screen: what was asked, where the labels separate best, that layer's curve and its panel.
function buildAnswer() {
  const { words, chart, panel: [name, title, layer] } = meta.answer, section = byId("answer");
  const row = datasets.filter(({ info }) => info.name === name).flatMap(({ rows }) => rows).find((each) => each.title === title);
  const panel = row?.panels.find((each) => each?.layer === layer);
  const [question, ...answers] = words;
  byId("answer-title").append(element("bdi", {}, question));
  section.append(...answers.map((text) => element("p", { class: "lead" }, text)));
  const both = element("div", { class: "both" });
  if (meta.charts[chart]) {
    const { series, ...rest } = meta.charts[chart], own = series.find((s) => s.shows?.[0] === name && s.shows[1] === title);
    const shown = series.filter((s) => s === own || (s.control && (!s.of || s.of === own?.name)));
    chartViews.push(new ChartView({ ...rest, series: shown }));
    both.append(chartViews[chartViews.length - 1].node);
  }
  if (panel) {
    const beside = element("div", { class: "beside" }, new PanelView(row, panel).node, legendPlace(() => row.dataset, () => ({ row, panel })));
    both.append(beside);
  }
  section.append(both);
  section.hidden = false;
  link(section, "Answer");
}

// Theme: that of the system, or the reader's choice, which some browsers cannot remember.
const THEMES = ["auto", "light", "dark"];
const systemDark = matchMedia("(prefers-color-scheme: dark)");
let theme = "auto";

function applyTheme() {
  dark = theme === "dark" || (theme === "auto" && systemDark.matches);
  document.documentElement.dataset.shade = dark ? "dark" : "light";
  byId("theme").textContent = `Theme: ${theme}`;
  tables.clear();
  sprites.clear();
  drawLegends();
  for (const view of chartViews) view.draw();
  if (chartViews.length) byId("series").replaceChildren(seriesKeys());
  if (state.pin) showPinned();
  selection.draw();
  repaint();
  closeup.redraw();
}

function setUpTheme() {
  try {
    theme = THEMES.includes(localStorage.getItem("drillcore-theme")) ? localStorage.getItem("drillcore-theme") : "auto";
  } catch { /* some browsers have no storage for pages opened from disk */ }
  byId("theme").addEventListener("click", () => {
    theme = THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length];
    try {
      localStorage.setItem("drillcore-theme", theme);
    } catch { /* as above */ }
    applyTheme();
  });
  systemDark.addEventListener("change", applyTheme);
  applyTheme();
}

async function search(query) {
  const wanted = query.trim().toLowerCase(), items = [];
  let matches = 0, total = 0;
  for (const dataset of datasets) {
    await dataset.load();
    const matched = dataset.search(wanted);
    total += dataset.size;
    for (let i = 0; wanted && i < dataset.size; i++) {
      if (!matched[i]) continue;
      matches++;
      if (items.length < LISTED) items.push(result(dataset, i));
    }
  }
  const listed = matches > items.length ? `; the first ${LISTED} are listed` : "";
  byId("found").textContent = wanted ? `${matches.toLocaleString("en")} of ${plural(total, "sentence")}${listed}` : "";
  byId("results").replaceChildren(...items);
  byId("results-box").hidden = !wanted;
  repaint();
  closeup.redraw();
}

function setUpSearch() {
  const field = byId("search"), box = byId("results-box");
  let waiting = 0;
  field.addEventListener("input", () => {
    clearTimeout(waiting);
    waiting = setTimeout(() => search(field.value).catch(fail), 120);
  });
  field.addEventListener("focus", () => (box.hidden = !field.value.trim()));
  document.querySelector(".search").addEventListener("keydown", (event) => {
    const buttons = [...byId("results").querySelectorAll("button")], at = buttons.indexOf(document.activeElement);
    if (event.key === "ArrowDown") (buttons[at + 1] ?? buttons[0])?.focus();
    else if (event.key === "ArrowUp") (buttons[at - 1] ?? field).focus();
    else if (event.key === "Escape" && !box.hidden) box.hidden = true;
    else return;
    event.preventDefault();
  });
  document.addEventListener("pointerdown", (event) => {
    if (!event.target.closest(".search")) box.hidden = true;
  });
  byId("unpin").addEventListener("click", () => show({ pin: null }));
}

// Panels far away from all others: a switch shows every panel to scale.
function setUpScale() {
  const button = byId("scale");
  const has = datasets.some((dataset) => dataset.rows.some((row) => row.panels.some((panel) => panel?.outside.size)));
  button.hidden = !has;
  button.addEventListener("click", () => {
    state.toScale = !state.toScale;
    button.setAttribute("aria-pressed", state.toScale);
    repaint();
    closeup.redraw();
  });
}

function setUpHelp() {
  const button = byId("explain");
  button.addEventListener("click", () => {
    const open = button.getAttribute("aria-pressed") !== "true";
    button.setAttribute("aria-pressed", open);
    for (const node of document.querySelectorAll("details.help")) node.open = open;
  });
}

// Paper: all panels, in the light theme. What a panel needs is loaded when the browser has nothing else to do, since
// nothing can be waited for once printing has begun.
function setUpPrint() {
  const rows = datasets.flatMap((dataset) => dataset.rows);
  const idle = window.requestIdleCallback ?? ((work) => setTimeout(work, 50));
  const next = async () => {
    const row = rows.shift();
    if (!row) return void (document.documentElement.dataset.loaded = "true");
    await row.load();
    idle(next);
  };
  idle(next);
  let before = null;
  addEventListener("beforeprint", () => {
    before = theme;
    theme = "light";
    applyTheme();
    for (const view of views) view.paint();
  });
  addEventListener("afterprint", () => {
    theme = before ?? theme;
    applyTheme();
  });
}

function fail(error) {
  byId("problem").hidden = false;
  byId("problem").textContent = `This report could not be shown: ${error.message ?? error}`;
  console.error(error);
}

addEventListener("unhandledrejection", (event) => fail(event.reason));
addEventListener("resize", () => repaint());
if (!("DecompressionStream" in window)) {
  fail(new Error("the browser is too old; Chrome 92, Firefox 113 and Safari 16.4 or newer show it"));
} else {
  build();
  setUpTheme();
  setUpSearch();
  setUpScale();
  setUpHelp();
  setUpColoring();
  setUpMap();
  setUpPrint();
  document.documentElement.dataset.ready = "true";
}
