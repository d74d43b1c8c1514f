// Names and contours: what is written and drawn over the points of a panel, from the density of each colour's sentences.

const onMap = { names: true, contours: true };
// CSS pixels of a panel that has names; how many names at most; the longest in parts of the panel's side;
// the share of the sentences around a name that are its own.
const NAMED = { side: 300, most: 30, wide: 0.4, majority: 0.6 };
// Shares of the sentences that contour lines enclose; how many colours have lines of their own, and of how many sentences.
const CONTOURED = { shares: [0.9, 0.5, 0.25], colors: 8, fewest: 100 };

// The density of some points on a grid of cells: counts in each, blurred.
// box: left and upper edge, width and height of the grid, in device pixels.
function density(arrangement, list, box, cells) {
  const values = new Float32Array(cells * cells);
  for (const i of list) {
    const x = Math.floor(((arrangement.x[i] - box[0]) / box[2]) * cells), y = Math.floor(((arrangement.y[i] - box[1]) / box[3]) * cells);
    if (x >= 0 && y >= 0 && x < cells && y < cells) values[y * cells + x]++;
  }
  return blurred(blurred(values, cells, 1, cells), cells, cells, 1);
}

// By a Gaussian of a deviation of 1.5 cells, along one axis.
const WEIGHTS = [-4, -3, -2, -1, 0, 1, 2, 3, 4].map((step) => Math.exp(-(step ** 2) / 4.5));
function blurred(values, cells, along, across) {
  const found = new Float32Array(values.length), sum = WEIGHTS.reduce((a, b) => a + b);
  for (let line = 0; line < cells; line++) {
    for (let at = 0; at < cells; at++) {
      const value = values[line * across + at * along];
      if (!value) continue;
      for (let k = Math.max(-4, -at); k <= Math.min(4, cells - 1 - at); k++) {
        found[line * across + (at + k) * along] += (value * WEIGHTS[k + 4]) / sum;
      }
    }
  }
  return found;
}

// The sentences that are drawn in their colours, by the row of the palette; also those beyond the canvas.
function byPlace({ x, status, codes }) {
  const found = new Map();
  for (let i = 0; i < x.length; i++) {
    if (status[i] !== SHOWN || Number.isNaN(x[i])) continue;
    if (!found.has(codes[i])) found.set(codes[i], []);
    found.get(codes[i]).push(i);
  }
  return found;
}

// A colour that can be read as a line or a word: its contrast to the ground is at least 4.5 to 1.
function readable(rgb) {
  const ground = dark ? 0 : 1;
  const contrast = (light) => (Math.max(light, ground) + 0.05) / (Math.min(light, ground) + 0.05);
  while (contrast(luminance(rgb)) < 4.5) rgb = rgb.map((c) => c + ((dark ? 255 : 0) - c) * 0.04);
  return `rgb(${rgb.map(Math.round).join(" ")})`;
}

// Write the name of each label at the densest of the places where most sentences are of that label; returns the boxes.
// Where there is no room, the less frequent have none.
function paintNames(arrangement, context) {
  const { view, dataset } = arrangement, { coloring } = dataset, { canvas } = context, { categories } = coloring.info, taken = [];
  delete canvas.dataset.names;
  if (!onMap.names || !categories.length || view.side < NAMED.side * devicePixelRatio) return taken;
  const box = [Math.max(0, view.left), Math.max(0, view.top)];
  box.push(Math.min(view.width, view.left + view.side) - box[0], Math.min(view.height, view.top + view.side) - box[1]);
  if (box[2] < 1 || box[3] < 1) return taken;
  const inside = (i) => arrangement.x[i] >= box[0] && arrangement.x[i] <= box[0] + box[2] && arrangement.y[i] >= box[1] && arrangement.y[i] <= box[1] + box[3];
  const visible = [...byPlace(arrangement)].map(([place, list]) => [place, list.filter(inside)]);
  const cells = 64, all = density(arrangement, visible.flatMap(([, list]) => list), box, cells);
  const named = visible.filter(([place, list]) => place < categories.length && list.length).sort((a, b) => b[1].length - a[1].length || a[0] - b[0]);
  const size = 13 * devicePixelRatio, pad = 2 * devicePixelRatio, written = [];
  context.save();
  context.font = `600 ${size}px system-ui, sans-serif`;
  context.textBaseline = "middle";
  context.textAlign = "left";
  context.lineJoin = "round";
  context.lineWidth = 4.5 * devicePixelRatio;
  context.strokeStyle = dark ? "#000000" : "#ffffff";
  for (const [place, list] of named.slice(0, NAMED.most)) {
    const text = shortened(context, categories[place], NAMED.wide * view.side), own = density(arrangement, list, box, cells);
    const wide = context.measureText(text).width + 2 * pad, high = size + 2 * pad;
    if (wide > box[2] || high > box[3]) continue;
    // Discs are not hidden: the name stands above or below the place.
    const away = arrangement.few ? high / 2 + arrangement.radius : 0;
    const found = freePlace(own, all, cells, box, [wide, high], away ? [-away, away] : [0], taken);
    if (!found) continue;
    const [x, y, anchor] = found;
    taken.push([x, y, x + wide, y + high]);
    written.push({ place, text, box: taken[taken.length - 1], anchor });
    context.direction = /^\P{L}*[\u0590-\u08ff\ufb1d-\ufefc]/u.test(text) ? "rtl" : "ltr";
    context.strokeText(text, x + pad, y + high / 2);
    context.fillStyle = readable(table(coloring)[place]);
    context.fillText(text, x + pad, y + high / 2);
  }
  context.restore();
  canvas.dataset.names = JSON.stringify(written);
  return taken;
}

// The place of a box of a size at the densest cell where it fits, and the middle of that cell; null where it fits nowhere.
// shifts: how far below the cell the middle of the box may be, in the order of preference.
function freePlace(own, all, cells, box, [wide, high], shifts, taken) {
  const most = own.reduce((a, b) => Math.max(a, b)), kept = [];
  own.forEach((value, cell) => {
    if (value >= 0.4 * most && value > NAMED.majority * all[cell]) kept.push(cell);
  });
  kept.sort((a, b) => own[b] - own[a]);
  for (const cell of kept) {
    const anchor = [box[0] + (((cell % cells) + 0.5) / cells) * box[2], box[1] + ((Math.floor(cell / cells) + 0.5) / cells) * box[3]];
    const x = Math.min(Math.max(anchor[0] - wide / 2, box[0]), box[0] + box[2] - wide);
    for (const shift of shifts) {
      const y = anchor[1] + shift - high / 2, fits = y >= box[1] && y + high <= box[1] + box[3];
      if (fits && !taken.some((other) => x < other[2] && other[0] < x + wide && y < other[3] && other[1] < y + high)) return [x, y, anchor];
    }
  }
  return null;
}

// A text, or as much of its beginning as a width has room for, with an ellipsis; what is one character to a reader stays whole.
function shortened(context, text, width) {
  const plain = text.replaceAll(/\s+/g, " ");
  if (context.measureText(plain).width <= width) return plain;
  const whole = "Segmenter" in Intl ? Array.from(new Intl.Segmenter().segment(plain.slice(0, 200)), ({ segment }) => segment) : [...plain.slice(0, 200)];
  while (whole.length > 1 && context.measureText(`${whole.join("")}…`).width > width) whole.pop();
  return `${whole.join("")}…`;
}

// Lines that enclose shares of the sentences of each colour, where there are more than a few sentences; none between layers.
function paintContours(arrangement, context) {
  const { view, dataset } = arrangement, lists = byPlace(arrangement), all = [...lists.values()].flat();
  context.canvas.dataset.contours = 0;
  if (!onMap.contours || arrangement.isMoving || all.length <= FEW) return;
  const { coloring } = dataset, { categories } = coloring.info;
  const ofEach = categories.length > 0 && categories.length <= CONTOURED.colors;
  const planes = ofEach ? [...lists].filter(([place, list]) => place < categories.length && list.length >= CONTOURED.fewest) : [[-1, all]];
  // Wider than the panel, so that lines close.
  const cells = 96, edge = 0.06 * view.side, side = view.side + 2 * edge, box = [view.left - edge, view.top - edge, side, side];
  context.save();
  const thin = (view.side < NAMED.side * devicePixelRatio ? 0.8 : 1.1) * devicePixelRatio;
  for (const [place, list] of planes) {
    const values = density(arrangement, list, box, cells);
    const color = place < 0 ? (dark ? "#e6e9ed" : "#1f2328") : readable(table(coloring)[place]);
    for (const level of levels(values, CONTOURED.shares)) {
      context.beginPath();
      contour(values, cells, level, (from, to) => {
        context.moveTo(...onBox(from, box, cells));
        context.lineTo(...onBox(to, box, cells));
      });
      // On the ground's colour, so that a line is seen among points of its own.
      for (const [style, width] of [[dark ? "#000000" : "#ffffff", 2.6 * thin], [color, thin]]) {
        Object.assign(context, { strokeStyle: style, lineWidth: width });
        context.stroke();
      }
      context.canvas.dataset.contours++;
    }
  }
  context.restore();
}

// A place among the middles of cells, in device pixels.
function onBox([x, y], box, cells) {
  return [box[0] + ((x + 0.5) / cells) * box[2], box[1] + ((y + 0.5) / cells) * box[3]];
}

// The densities above which the densest cells hold given shares of everything, the largest share first.
function levels(values, shares) {
  const sorted = values.filter((value) => value > 0).sort().reverse(), total = sorted.reduce((a, b) => a + b, 0), found = [];
  let held = 0, at = 0;
  for (const share of [...shares].reverse()) {
    while (at < sorted.length - 1 && held + sorted[at] < share * total) held += sorted[at++];
    found.unshift(sorted[at]);
  }
  return found;
}

// Marching squares: the line on which the values have a level, in pieces between places among the middles of cells.
function contour(values, cells, level, piece) {
  for (let y = 0; y < cells - 1; y++) {
    for (let x = 0; x < cells - 1; x++) {
      const at = y * cells + x, corners = [[x, y, values[at]], [x + 1, y, values[at + 1]], [x + 1, y + 1, values[at + cells + 1]], [x, y + 1, values[at + cells]]];
      const above = corners.map(([, , value]) => value >= level), first = above[0];
      if (above.every((each) => each === first)) continue;
      const crossings = [];
      corners.forEach(([ax, ay, a], i) => {
        const [bx, by, b] = corners[(i + 1) % 4], share = (level - a) / (b - a);
        if (above[i] !== above[(i + 1) % 4]) crossings.push([ax + share * (bx - ax), ay + share * (by - ay)]);
      });
      if (crossings.length === 2) piece(...crossings);
      else {
        const [p, q, r, s] = crossings, middle = corners.reduce((sum, [, , value]) => sum + value, 0) / 4 >= level;
        for (const pair of middle === first ? [[p, q], [r, s]] : [[s, p], [q, r]]) piece(...pair);
      }
    }
  }
}

// Switches of what stands on the map, in the bar and in the close-up.
function setUpMap() {
  const buttons = [...document.querySelectorAll("button[data-switch]")];
  const isThere = {
    names: datasets.some(({ colorings }) => colorings.some(({ info }) => info.categories.length)),
    contours: datasets.some(({ size }) => size > FEW),
  };
  for (const button of buttons) {
    const name = button.dataset.switch;
    button.hidden = !isThere[name];
    button.addEventListener("click", () => {
      onMap[name] = !onMap[name];
      for (const other of buttons) if (other.dataset.switch === name) other.setAttribute("aria-pressed", onMap[name]);
      repaint();
      closeup.redraw();
    });
  }
}
