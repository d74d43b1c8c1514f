// Neighbours: the nearest sentences of the pinned one in the raw space of a layer, linked in its panel, and listed.

const nearest = (() => {
  const box = byId("nearest");
  const words = element("span", { id: "nearest-words", role: "status" }), summary = element("summary", {}, words);
  const place = element("div", { class: "nearest-rows", role: "region", tabindex: "0", "aria-label": "Nearest sentences" });
  const chosen = element("div", { class: "tools" });
  const about = help("The sentences whose states are nearest to that of the pinned one at this layer, by Euclidean distance in the raw space; not those that lie near it in the picture. Sentences of exactly the same state are nearest of all, those that come first in the dataset before the others; of more than ten the first ten are listed. Point at a row to ring its sentence in every panel; click it to go on from there.");
  box.append(summary, element("div", { class: "nearest-head" }, chosen, about), place);

  // The panels whose layer has neighbours: at the others all states are the same.
  function layers(row) {
    return row.panels.filter((panel) => panel && !panel.degenerate);
  }

  // Those of a row, one after the other: all sentences of a layer, the nearest of each. Null where the page has none.
  function load(row) {
    const { nearest: held } = row.info;
    if (!held?.blob) return Promise.resolve(null);
    row.nearing ??= nearestNumbers(held.blob, row.dataset.info.count, held.most).then((values) => (row.nearest = values));
    return row.nearing;
  }

  // The nearest sentences of one, as far as they are loaded.
  function of(row, panel, index) {
    if (!row.nearest || !panel || panel.degenerate) return null;
    const { most } = row.info.nearest, start = (panel.slot * row.dataset.size + index) * most;
    return [...row.nearest.subarray(start, start + most)].filter((other) => other >= 0);
  }

  // The row and panel whose neighbours are listed: where the sentence was pinned, or what was chosen since.
  function current() {
    const { pin, near } = state;
    if (near?.row.dataset === pin.dataset && near.panel && !near.panel.degenerate) return near;
    const row = pin.dataset.rows.find((each) => each.info.nearest?.blob) ?? pin.dataset.rows.find((each) => each.info.nearest);
    const panel = row && [...layers(row)].pop();
    return panel ? { row, panel } : null;
  }

  function draw() {
    const at = state.pin && current(), { row, panel } = at ?? {};
    box.hidden = !row?.info.nearest;
    if (box.hidden) return;
    const { why, python, tied } = row.info.nearest, { dataset, index } = state.pin;
    about.hidden = Boolean(why);
    if (why) {
      words.textContent = "Nearest sentences";
      chosen.replaceChildren();
      place.replaceChildren(notHere(why, python));
      return;
    }
    drawChoices(row, panel);
    load(row).then(() => {
      if (state.pin?.dataset !== dataset || state.pin.index !== index || current()?.panel !== panel) return;
      const others = of(row, panel, index), number = (dataset.numbers[index] + 1).toLocaleString("en");
      const name = [row.title, panel.title].filter(Boolean).join(" · ");
      words.textContent = `${others.length} nearest to sentence ${number} of ${dataset.info.name} in the raw space of ${name}`;
      const same = tied[panel.slot] ? [element("p", { class: "small" }, sameStates(row, panel))] : [];
      const hadFocus = place.contains(document.activeElement);
      const items = others.map((other) => result(dataset, other));
      items.forEach((item, i) => {
        item.firstChild.setAttribute("title", dataset.texts[others[i]]);
        item.firstChild.dataset.sentence = others[i];
        // One line each: its label, or else its number; the sentence itself tells the rest once it is pinned.
        const [, ...rest] = item.querySelector(".about").childNodes;
        for (const node of rest) node.remove();
      });
      place.replaceChildren(...same, element("ol", {}, ...items));
      if (hadFocus) place.focus();
      placeAll();
    }).catch(fail);
  }

  function sameStates(row, panel) {
    const { tied, most } = row.info.nearest;
    return `${plural(tied[panel.slot], "sentence")} of ${panel.title} share their state with more than ${most} others: which ${most} are listed says nothing.`;
  }

  // Model and layer, to be chosen where there are several.
  function drawChoices(row, panel) {
    const rows = row.dataset.rows.filter((each) => each.info.nearest && layers(each).length);
    const focused = chosen.contains(document.activeElement) ? [...chosen.children].indexOf(document.activeElement.parentNode) : -1;
    const choices = [chooser("Layer", layers(row), panel, (each) => each.title, (other) => look(row, other))];
    const sameLayer = (other) => layers(other).find((each) => each.layer === panel.layer) ?? [...layers(other)].pop();
    if (rows.length > 1) choices.unshift(chooser("Model", rows, row, (each) => each.title, (other) => look(other, sameLayer(other))));
    chosen.replaceChildren(...choices);
    if (focused >= 0) chosen.children[focused]?.querySelector("select").focus();
  }

  // From now on the neighbours of this layer are meant.
  function look(row, panel) {
    state.near = { row, panel };
    if (!state.pin) return;
    draw();
    placeAll();
  }

  function placeAll() {
    for (const view of views) if (view.visible) view.place();
    closeup.place();
  }

  // The place of the links of a panel, below one of its nodes.
  function layer(parent, before) {
    const node = svg("svg", { class: "links", "aria-hidden": "true" });
    if (before.parentNode === parent) parent.insertBefore(node, before);
    return node;
  }

  // The sentence whose neighbours a panel shows: that under the pointer in it, else the pinned one.
  function subject(row, panel) {
    const { hover, pin } = state;
    if (!panel) return null;
    if (hover?.where?.row === row && hover.where.panel === panel) return hover.index;
    const at = pin && current();
    return at?.row === row && at.panel === panel ? pin.index : null;
  }

  // Draw lines from a sentence to its nearest ones, and a ring at each. placeOf: where one is, as CSS lengths, or null.
  function connect(node, row, panel, placeOf, radius = 6) {
    const index = row?.info.nearest?.blob ? subject(row, panel) : null;
    if (index !== null && !row.nearest) load(row).then(placeAll).catch(fail);
    const others = index === null ? null : of(row, panel, index), from = others && placeOf(index);
    if (!from) {
      if (node.firstChild) node.replaceChildren();
      return;
    }
    const ends = others.map((other) => [other, placeOf(other)]).filter(([, to]) => to);
    node.replaceChildren(
      ...ends.map(([, [x2, y2]]) => svg("line", { x1: from[0], y1: from[1], x2, y2 })),
      ...ends.map(([other, [cx, cy]]) => svg("circle", { cx, cy, r: radius, "data-sentence": other })),
    );
  }

  byId("unpin").addEventListener("click", () => (state.near = null));

  return { connect, draw, layer, load, layers, look, of, sameStates };
})();

// A line that says why something is not in the page, and how to read it in Python.
function notHere(why, python) {
  return element("p", { class: "small" }, `${why} In Python: `, element("code", {}, python));
}

// A labelled list of things to choose one of.
function chooser(title, items, current, nameOf, choose) {
  const list = element("select", {}, ...items.map((item, i) => element("option", { value: i }, nameOf(item) || "–")));
  list.value = items.indexOf(current);
  list.addEventListener("change", () => choose(items[Number(list.value)]));
  return element("label", { class: "choice" }, `${title} `, list);
}
