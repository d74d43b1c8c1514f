// What moved: the sentences whose nearest ones changed most between two layers of a model, as a table.

class Moved {
  constructor(dataset) {
    this.dataset = dataset;
    this.rows = dataset.rows.filter((row) => row.info.nearest);
    this.sorting = { by: "kept", down: false };
    this.node = element("details", { class: "moved" }, element("summary", {}, "What moved between two layers"));
    this.body = element("div");
    this.node.append(this.body);
    this.node.addEventListener("toggle", () => {
      if (this.node.open && !this.row) this.choose(this.rows[0]).catch(fail);
    });
  }

  async choose(row) {
    this.row = row;
    this.layers = nearest.layers(row);
    const last = this.layers[this.layers.length - 1], answer = meta.answer?.panel;
    const best = answer?.[0] === this.dataset.info.name && answer[1] === row.title && this.layers.find(({ layer }) => layer === answer[2]);
    this.from = this.layers[0];
    this.to = best && best !== this.from ? best : last;
    await Promise.all([row.load(), nearest.load(row)]);
    this.medians = null;
    this.draw();
  }

  draw() {
    const { row, rows, layers } = this, { why, python } = row.info.nearest;
    const again = (change) => {
      Object.assign(this, change);
      this.draw();
    };
    const tools = element("div", { class: "tools" });
    if (rows.length > 1) tools.append(chooser("Model", rows, row, ({ title }) => title, (other) => this.choose(other).catch(fail)));
    const words = this.problem();
    if (why || words) {
      this.body.replaceChildren(tools, why ? notHere(why, python) : element("p", { class: "small" }, words));
      return;
    }
    tools.append(chooser("From", layers, this.from, ({ title }) => title, (from) => again({ from })));
    tools.append(chooser("To", layers, this.to, ({ title }) => title, (to) => again({ to })));
    const csv = element("button", { type: "button" }, "CSV");
    csv.addEventListener("click", () => this.save());
    tools.append(csv);
    this.kept = this.shares(this.from, this.to);
    this.words = element("p", { class: "moved-words", role: "status" }, this.inWords());
    const about = help("A sentence has moved where few of its ten nearest sentences at one layer are among its ten nearest at the other, both in the raw space. A sentence that shares its state exactly with many others, as at the embedding where texts end in the same token, has neighbours that no distance chose. Point at a row to ring its sentence, click to pin it.");
    const place = element("div", { class: "rows", role: "region", tabindex: "0", "aria-label": "Sentences that moved" });
    this.table = element("table", { class: "moved-rows" });
    place.append(this.table);
    this.drawTable();
    this.medians ??= this.chart();
    this.keepFocus(tools);
    this.body.replaceChildren(about, tools, this.words, place, ...this.medians);
    this.focused?.focus();
  }

  // The list that was changed keeps the keyboard's focus.
  keepFocus(tools) {
    const before = document.activeElement?.closest(".choice"), old = before && this.body.contains(before) ? before.parentNode : null;
    const at = old ? [...old.children].indexOf(before) : -1;
    this.focused = at < 0 ? null : tools.children[at].querySelector("select");
  }

  // Why nothing can have moved; empty where something can.
  problem() {
    const { dataset, layers, row } = this;
    if (row.info.nearest.why) return "";
    if (layers.length < 2) return "There are not two layers whose states differ.";
    if (dataset.size <= row.info.nearest.most + 1) return `With ${plural(dataset.size, "sentence")} all others are the nearest of each, at every layer.`;
    return "";
  }

  // Of each sentence, how many of its nearest ones two layers share.
  shares(from, to) {
    const { row, dataset } = this, { most } = row.info.nearest, kept = new Uint8Array(dataset.size);
    const [one, other] = [from, to].map(({ slot }) => row.nearest.subarray(slot * dataset.size * most, (slot + 1) * dataset.size * most));
    for (let start = 0, i = 0; i < dataset.size; i++, start += most) {
      for (let a = start; a < start + most; a++) {
        for (let b = start; b < start + most; b++) if (one[a] === other[b]) kept[i]++;
      }
    }
    return kept;
  }

  inWords() {
    const { row, from, to, dataset, kept } = this, { most, tied } = row.info.nearest;
    const cut = dataset.size > Moved.LISTED ? `; the first ${Moved.LISTED} are listed, the file has all` : "";
    const lines = [`From ${from.title} to ${to.title} a sentence keeps ${median(kept)} of its ${most} nearest (median)${cut}.`];
    for (const panel of new Set([from, to])) if (tied[panel.slot]) lines.push(nearest.sameStates(row, panel));
    return lines.join(" ");
  }

  get columns() {
    const { dataset, kept, row } = this;
    return {
      kept: { title: "kept", of: (i) => kept[i], shown: (i) => `${kept[i]} of ${row.info.nearest.most}` },
      number: { title: "number", of: (i) => dataset.numbers[i] + 1 },
      label: { title: "label", of: (i) => dataset.label(i) },
      text: { title: "text", of: (i) => dataset.texts[i] },
    };
  }

  // All sentences in the order of the table.
  sorted() {
    const { of } = this.columns[this.sorting.by], sign = this.sorting.down ? -1 : 1;
    const order = (a, b) => (typeof of(a) === "number" ? of(a) - of(b) : of(a).localeCompare(of(b)));
    return Array.from(this.kept, (_, i) => i).sort((a, b) => sign * order(a, b) || a - b);
  }

  drawTable() {
    const { dataset, row, to, sorting } = this, columns = Object.entries(this.columns);
    const head = columns.map(([name, { title }]) => {
      const direction = sorting.by !== name ? "none" : sorting.down ? "descending" : "ascending";
      const button = element("button", { type: "button" }, `${title}${{ none: "", descending: " ▼", ascending: " ▲" }[direction]}`);
      button.addEventListener("click", () => {
        this.sorting = { by: name, down: sorting.by === name && !sorting.down };
        this.drawTable();
        this.table.querySelectorAll("th button")[columns.findIndex(([each]) => each === name)].focus();
      });
      return element("th", { scope: "col", "aria-sort": direction }, button);
    });
    const lines = this.sorted().slice(0, Moved.LISTED).map((i) => {
      const cells = columns.map(([, { of, shown = of }]) => element("td", {}, element("bdi", { dir: "auto" }, String(shown(i)))));
      const line = element("tr", { tabindex: "0" }, ...cells);
      const point = () => show({ hover: { dataset, index: i } });
      const pin = () => show({ pin: { dataset, index: i }, near: { row, panel: to } });
      line.addEventListener("pointerenter", point);
      line.addEventListener("focus", point);
      line.addEventListener("pointerleave", () => show({ hover: null }));
      line.addEventListener("click", pin);
      line.addEventListener("keydown", (event) => event.key === "Enter" && pin());
      return line;
    });
    this.table.replaceChildren(element("thead", {}, element("tr", {}, ...head)), element("tbody", {}, ...lines));
  }

  save() {
    const { dataset, row, from, to, kept } = this, { most } = row.info.nearest;
    const header = ["number", "label", "text", "kept", "of", "from", "to"];
    const rows = this.sorted().map((i) => [dataset.numbers[i] + 1, dataset.label(i), dataset.texts[i], kept[i], most, from.title, to.title]);
    save(`${[dataset.info.name, row.title, from.title, to.title].filter(Boolean).join(" ")}.csv`, csvOf([header, ...rows]), "text/csv");
  }

  // What a sentence keeps from each layer to the next, as a table.
  chart() {
    const { layers, row } = this, { most } = row.info.nearest;
    const rows = layers.slice(1).map((to, k) => [`${layers[k].title} to ${to.title}`, `${median(this.shares(layers[k], to))} of ${most}`]);
    const title = "Kept from each layer to the next (median)";
    return [element("details", { class: "small" }, element("summary", {}, title), tableNode({ title, header: ["layers", "kept"], rows }))];
  }
}
Moved.LISTED = 100;

// The middle of some counts; of two in the middle, their mean.
function median(counts) {
  const sorted = Uint8Array.from(counts).sort(), half = sorted.length >> 1;
  return sorted.length % 2 ? sorted[half] : (sorted[half - 1] + sorted[half]) / 2;
}
