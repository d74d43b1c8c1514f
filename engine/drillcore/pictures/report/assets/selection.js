// Selection: sentences enclosed by a line drawn in the close-up, ringed in every panel, and listed as a table.

const selection = (() => {
  const box = byId("selection"), body = byId("selected-rows"), filter = byId("selected-filter"), words = byId("selected-words");
  const ROWS = 500;
  let sorting = { by: "number", down: false };

  const columns = {
    number: { title: "number", of: (dataset, i) => dataset.numbers[i] + 1 },
    label: { title: "label", of: (dataset, i) => dataset.label(i) },
    value: { title: "value", of: (dataset, i) => dataset.coloring.word(i, state.selected.where) },
    text: { title: "text", of: (dataset, i) => dataset.texts[i] },
    note: { title: "note", of: (dataset, i) => dataset.notes[i] ?? "" },
  };

  function shownColumns(dataset) {
    const isThere = { note: dataset.notes.length > 0, value: !dataset.coloring.isOwn };
    return Object.entries(columns).filter(([name]) => isThere[name] ?? true);
  }

  // What a column is called: that of values as what they are, with the layer where layers differ.
  function titleOf(name, dataset) {
    const { where } = state.selected, { info, varies } = dataset.coloring;
    if (name !== "value") return columns[name].title;
    const taken = info.name in columns ? `value: ${info.name}` : info.name;
    return varies && where ? `${taken} (${[where.row.title, where.panel.title].filter(Boolean).join(", ")})` : taken;
  }

  // where: the row and panel in which they were enclosed.
  function set(dataset, indexes, where = null) {
    state.selected = indexes.length ? { dataset, members: new Set(indexes), where } : null;
    filter.value = "";
    draw();
    repaint();
    closeup.redraw();
  }

  // The selected sentences that the filter leaves, in the order of the table.
  function listed() {
    if (sorting.by === "value" && state.selected.dataset.coloring.isOwn) sorting = { by: "number", down: false };
    const { dataset, members, where } = state.selected, wanted = filter.value.trim().toLowerCase(), { of } = columns[sorting.by];
    const told = (i) => [dataset.texts[i], dataset.label(i), dataset.coloring.value(i, where)].some((text) => text.toLowerCase().includes(wanted));
    const order = (a, b) => (typeof of(dataset, a) === "number" ? of(dataset, a) - of(dataset, b) : of(dataset, a).localeCompare(of(dataset, b)));
    const rows = [...members].filter((i) => !wanted || told(i));
    return rows.sort((a, b) => (sorting.down ? order(b, a) : order(a, b)));
  }

  function draw() {
    box.hidden = !state.selected;
    if (!state.selected) return;
    const { dataset, members, where } = state.selected, rows = listed();
    const counts = new Map();
    for (const i of members) {
      const value = dataset.coloring.value(i, where);
      counts.set(value, (counts.get(value) ?? 0) + 1);
    }
    const named = [...counts].sort((a, b) => b[1] - a[1]).slice(0, 5).filter(([name]) => name).map(([name, count]) => `${name} ${count.toLocaleString("en")}`);
    const cut = rows.length > ROWS ? `; the first ${ROWS} are listed, the file has all` : "";
    words.textContent = `${plural(members.size, "sentence")} of ${dataset.info.name} selected${named.length ? `: ${named.join(", ")}` : ""}${cut}`;
    const head = element("tr", {}, ...shownColumns(dataset).map(([name]) => {
      const title = titleOf(name, dataset);
      const direction = sorting.by !== name ? "none" : sorting.down ? "descending" : "ascending";
      const button = element("button", { type: "button" }, `${title}${{ none: "", descending: " ▼", ascending: " ▲" }[direction]}`);
      button.addEventListener("click", () => {
        sorting = { by: name, down: sorting.by === name && !sorting.down };
        draw();
      });
      return element("th", { scope: "col", "aria-sort": direction }, button);
    }));
    const lines = rows.slice(0, ROWS).map((i) => {
      const line = element("tr", { tabindex: "0" }, ...shownColumns(dataset).map(([, { of }]) => element("td", {}, element("bdi", { dir: "auto" }, String(of(dataset, i))))));
      const point = () => show({ hover: { dataset, index: i, where } });
      line.addEventListener("pointerenter", point);
      line.addEventListener("focus", point);
      line.addEventListener("pointerleave", () => show({ hover: null }));
      line.addEventListener("click", () => show({ pin: { dataset, index: i, where } }));
      return line;
    });
    body.replaceChildren(element("thead", {}, head), element("tbody", {}, ...lines));
  }

  // As CSV: every selected sentence that the filter leaves, in the order of the table.
  function csv() {
    const { dataset } = state.selected, shown = shownColumns(dataset);
    return csvOf([shown.map(([name]) => (name === "value" ? titleOf(name, dataset) : name)), ...listed().map((i) => shown.map(([, { of }]) => of(dataset, i)))]);
  }

  byId("selected-save").addEventListener("click", () => save(`${state.selected.dataset.info.name}.csv`, csv(), "text/csv"));
  byId("selected-copy").addEventListener("click", async () => {
    await navigator.clipboard.writeText(csv());
    words.textContent = `${words.textContent}; copied`;
  });
  byId("selected-clear").addEventListener("click", () => set(null, []));
  filter.addEventListener("input", draw);

  return { set, draw };
})();

// Rows of values as CSV (RFC 4180).
function csvOf(rows) {
  const quoted = (value) => (/[",\r\n]/.test(String(value)) ? `"${String(value).replaceAll('"', '""')}"` : String(value));
  return rows.map((row) => `${row.map(quoted).join(",")}\r\n`).join("");
}

// Offer a file for download; nothing leaves the page.
function save(name, content, type) {
  const anchor = element("a", { download: name, href: URL.createObjectURL(new Blob([content], { type })) });
  document.body.append(anchor);
  anchor.click();
  anchor.remove();
  setTimeout(() => URL.revokeObjectURL(anchor.href), 10_000);
}

// Whether a point is inside of a closed line, by the number of times that a ray to the right crosses it.
function isInside(x, y, line) {
  let inside = false;
  line.forEach(([ax, ay], i) => {
    const [bx, by] = line[(i + 1) % line.length];
    if ((ay > y) !== (by > y) && x < ax + ((y - ay) / (by - ay)) * (bx - ax)) inside = !inside;
  });
  return inside;
}
