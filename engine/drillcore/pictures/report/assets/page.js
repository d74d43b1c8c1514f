// Page: overview, navigation, search, theme, and the order in which everything is set up.

const chartViews = [];
const LISTED = 50;

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
  if (meta.tables.length) {
    const section = byId("overview"), tables = element("div", { class: "tables" });
    tables.append(...meta.tables.map(tableNode));
    section.append(tables);
    section.hidden = false;
    link(section, "Overview");
  }
  if (meta.charts.length) {
    const section = byId("curves");
    section.hidden = false;
    section.append(element("div", { id: "series" }), element("div", { class: "charts" }));
    chartViews.push(...meta.charts.map((chart) => new ChartView(chart)));
    section.querySelector(".charts").append(...chartViews.map((view) => view.node));
    if (meta.chartsNote) section.append(element("p", { class: "small" }, meta.chartsNote));
    link(section, "Curves");
  }
  datasets.forEach((dataset, number) => {
    const section = datasetSection(dataset, number);
    byId("datasets").append(section);
    link(section, dataset.info.name);
  });
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
  if (state.pin) byId("pinned").firstElementChild.replaceChildren(state.pin.dataset.card(state.pin.index));
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

function result(dataset, index) {
  const button = element("button", { type: "button", class: "sentence" });
  button.append(dataset.card(index));
  const point = () => show({ hover: { dataset, index } });
  button.addEventListener("focus", point);
  button.addEventListener("pointerenter", point);
  button.addEventListener("pointerleave", () => show({ hover: null }));
  button.addEventListener("click", () => {
    show({ pin: { dataset, index }, hover: null });
    byId("results-box").hidden = true;
  });
  return element("li", {}, button);
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

function fail(error) {
  byId("problem").hidden = false;
  byId("problem").textContent = `This report could not be shown: ${error.message ?? error}`;
  console.error(error);
}

addEventListener("unhandledrejection", (event) => fail(event.reason));
addEventListener("resize", () => repaint());
if (!("DecompressionStream" in window)) {
  fail(new Error("the browser is too old; Chrome 80, Firefox 113 and Safari 16.4 or newer show it"));
} else {
  build();
  setUpTheme();
  setUpSearch();
  document.documentElement.dataset.ready = "true";
}
