// Close-up: one enlarged panel, with zoom, pan, and a slider that morphs each layer into the next.

const closeup = (() => {
  const dialog = byId("closeup"), stage = byId("stage"), canvas = byId("closeup-canvas");
  const slider = byId("layer"), mark = byId("closeup-mark"), play = byId("play");
  const [ring, pin] = stage.querySelectorAll(".ring");
  const links = nearest.layer(stage, ring);
  const reducedMotion = matchMedia("(prefers-reduced-motion: reduce)");
  let row = null, panels = [], position = 0, zoom = 1, center = [0.5, 0.5], morph = null, drag = null;
  let frame = 0, motion = 0, buffers = null, arrangement = null;

  // The panel that is shown, or the nearer one between two.
  const where = () => (row ? { row, panel: panels[Math.round(position)] } : null);
  byId("closeup-legend").append(legendPlace(() => row?.dataset, where));

  function open(newRow, panel) {
    row = newRow;
    panels = row.panels.filter(Boolean);
    position = panels.indexOf(panel);
    drawLegends();
    buffers = [new Float32Array(row.dataset.size), new Float32Array(row.dataset.size)];
    slider.max = panels.length - 1;
    slider.disabled = play.disabled = panels.length < 2;
    resetView();
    dialog.showModal();
    dialog.append(tip);
    byId("selection-place").append(byId("nearest"), byId("selection"));
    tip.hidden = true;
    goTo(panels.indexOf(panel));
    stage.focus();
    row.load().then(draw);
  }

  // The square of the stage in which the panel is drawn, in CSS pixels.
  function view() {
    const { clientWidth: width, clientHeight: height } = stage, side = Math.min(width, height) * zoom;
    return { side, left: width / 2 - center[0] * side, top: height / 2 - center[1] * side };
  }

  function resetView() {
    zoom = 1;
    center = [0.5, 0.5];
    draw();
  }

  function goTo(wanted) {
    const before = Math.round(position);
    position = Math.min(Math.max(wanted, 0), panels.length - 1);
    if (row.dataset.coloring.varies && Math.round(position) !== before) drawLegends();
    slider.value = position;
    const { title } = panels[Math.round(position)];
    slider.setAttribute("aria-valuetext", title);
    byId("layer-name").value = title;
    const name = [row.dataset.info.name, row.title, title].filter(Boolean).join(" · ");
    byId("closeup-title").replaceChildren(element("bdi", {}, name));
    if (Number.isInteger(position)) nearest.look(row, panels[position]);
    draw();
  }

  function animateTo(target, speed = 3) {
    cancelAnimationFrame(motion);
    if (reducedMotion.matches) return goTo(target);
    let last = performance.now();
    const step = (now) => {
      const distance = target - position, stride = ((now - last) / 1000) * speed;
      last = now;
      if (Math.abs(distance) <= stride) {
        goTo(target);
        stop();
        return;
      }
      goTo(position + Math.sign(distance) * stride);
      motion = requestAnimationFrame(step);
    };
    motion = requestAnimationFrame(step);
  }

  function stop() {
    cancelAnimationFrame(motion);
    play.setAttribute("aria-pressed", "false");
    play.textContent = "Play";
  }

  // Between two layers, a point lies on the straight line between its places in the two.
  function coordinates() {
    const first = panels[Math.floor(position)], second = panels[Math.ceil(position)];
    const near = panels[Math.round(position)];
    if (near.degenerate) return null;
    const [ax, ay] = row.coordinates(first.degenerate ? near : first);
    const [bx, by] = row.coordinates(second.degenerate ? near : second);
    const share = position - Math.floor(position);
    if (share === 0 || first.degenerate || second.degenerate) return row.coordinates(near);
    const [xs, ys] = buffers;
    for (let i = 0; i < xs.length; i++) {
      const missing = ax[i] === MISSING || bx[i] === MISSING;
      xs[i] = missing ? MISSING : ax[i] + (bx[i] - ax[i]) * share;
      ys[i] = missing ? MISSING : ay[i] + (by[i] - ay[i]) * share;
    }
    return buffers;
  }

  function draw() {
    cancelAnimationFrame(frame);
    frame = requestAnimationFrame(drawNow);
  }

  function drawNow() {
    if (!dialog.open || !row.points) return;
    const ratio = devicePixelRatio, place = view();
    canvas.width = Math.max(1, Math.round(stage.clientWidth * ratio));
    canvas.height = Math.max(1, Math.round(stage.clientHeight * ratio));
    arrangement = null;
    morph = coordinates();
    mark.hidden = morph !== null;
    mark.textContent = "all states identical";
    if (morph) {
      const scaled = { side: place.side * ratio, left: place.left * ratio, top: place.top * ratio };
      const outside = position === Math.round(position) ? row.outsiders(panels[position]) : new Map();
      const whole = { ...scaled, width: canvas.width, height: canvas.height };
      arrangement = new Arrangement(row.dataset, ...morph, whole, zoom, outside, where());
      arrangement.isMoving = position !== Math.round(position);
      drawImage(scaled);
      arrangement.paint(canvas.getContext("2d"));
      drawLine();
    }
    placeRings();
  }

  // For a sampled dataset, the image of all sentences behind the sample, unless the slider is between layers.
  function drawImage(place) {
    const panel = panels[Math.round(position)], { dataset } = row;
    const image = position === Math.round(position) && dataset.sampled && !dataset.filtered && !state.toScale && row.image(panel);
    if (!image) return;
    const context = canvas.getContext("2d");
    context.globalAlpha = 0.6;
    context.drawImage(image, place.left, place.top, place.side, place.side);
    context.globalAlpha = 1;
  }

  // The line that is being drawn around sentences.
  let line = null, selecting = false;
  function drawLine() {
    if (!line) return;
    const context = canvas.getContext("2d");
    context.strokeStyle = dark ? "#ffffff" : "#111111";
    context.setLineDash([6, 4]);
    context.lineWidth = 1.5 * devicePixelRatio;
    context.beginPath();
    line.forEach(([x, y]) => context.lineTo(x, y));
    context.closePath();
    context.stroke();
    context.setLineDash([]);
  }

  function setSelecting(on) {
    selecting = on;
    line = null;
    byId("select").setAttribute("aria-pressed", on);
    stage.classList.toggle("selecting", on);
  }
  byId("select").addEventListener("click", () => setSelecting(!selecting));

  // A place of the stage in device pixels of its canvas.
  function onCanvas(event) {
    const box = stage.getBoundingClientRect(), ratio = canvas.width / stage.clientWidth;
    return [(event.clientX - box.left - stage.clientLeft) * ratio, (event.clientY - box.top - stage.clientTop) * ratio];
  }

  function endLine() {
    const chosen = line && line.length > 2 && arrangement ? arrangement.within(line) : [];
    line = null;
    selection.set(row.dataset, chosen, where());
  }

  function placeRings() {
    if (!dialog.open || !row) return;
    const { side, left, top } = view();
    for (const [node, chosen] of [[ring, state.hover], [pin, state.pin]]) {
      const place = morph && arrangement && chosen?.dataset === row.dataset ? arrangement.place(chosen.index) : null;
      node.hidden = !place;
      if (!place) continue;
      node.style.left = `${left + place[0] * side}px`;
      node.style.top = `${top + place[1] * side}px`;
    }
    const at = (index) => morph && arrangement?.place(index)?.map((part, axis) => `${[left, top][axis] + part * side}px`);
    nearest.connect(links, row, Number.isInteger(position) ? panels[position] : null, at, 9);
  }

  // The sentences under the pointer, the topmost first.
  function sentencesAt(event) {
    if (!morph || !arrangement) return [];
    return arrangement.hits(...onCanvas(event), (16 * canvas.width) / stage.clientWidth);
  }

  // Zoom around (x, y), in CSS pixels of the stage: the place under it does not move.
  function zoomBy(factor, x = stage.clientWidth / 2, y = stage.clientHeight / 2) {
    const before = view(), fixed = [(x - before.left) / before.side, (y - before.top) / before.side];
    zoom = Math.min(Math.max(zoom * factor, 0.5), 200);
    const after = view();
    center = [
      fixed[0] - (x - stage.clientWidth / 2) / after.side,
      fixed[1] - (y - stage.clientHeight / 2) / after.side,
    ];
    draw();
  }

  function panBy(x, y) {
    const { side } = view();
    center = [center[0] - x / side, center[1] - y / side];
    draw();
  }

  stage.addEventListener("wheel", (event) => {
    event.preventDefault();
    const box = stage.getBoundingClientRect();
    zoomBy(Math.exp(-event.deltaY / 400), event.clientX - box.left, event.clientY - box.top);
  }, { passive: false });
  // One pointer moves the panel, two zoom it around the middle between them.
  const pointers = new Map();
  const spread = () => {
    const [one, other] = [...pointers.values()];
    return { x: (one.x + other.x) / 2, y: (one.y + other.y) / 2, far: Math.hypot(one.x - other.x, one.y - other.y) };
  };
  stage.addEventListener("pointerdown", (event) => {
    pointers.set(event.pointerId, { x: event.clientX, y: event.clientY });
    drag = { x: event.clientX, y: event.clientY, moved: pointers.size > 1 ? Infinity : 0 };
    stage.setPointerCapture(event.pointerId);
    if (selecting && pointers.size === 1) line = [onCanvas(event)];
  });
  stage.addEventListener("pointermove", (event) => {
    if (!drag) {
      const [index, ...more] = sentencesAt(event);
      show({ hover: index === undefined ? null : { dataset: row.dataset, index, more, where: where() } }, event);
      return;
    }
    if (line && pointers.size === 1) {
      line.push(onCanvas(event));
      draw();
      return;
    }
    const before = pointers.size > 1 ? spread() : null;
    pointers.set(event.pointerId, { x: event.clientX, y: event.clientY });
    if (before) {
      const after = spread(), box = stage.getBoundingClientRect();
      panBy(after.x - before.x, after.y - before.y);
      zoomBy(after.far / Math.max(before.far, 1), after.x - box.left, after.y - box.top);
      return;
    }
    const x = event.clientX - drag.x, y = event.clientY - drag.y;
    drag = { x: event.clientX, y: event.clientY, moved: drag.moved + Math.abs(x) + Math.abs(y) };
    if (drag.moved > 4) {
      stage.classList.add("dragging");
      panBy(x, y);
    }
  });
  const release = (event) => {
    pointers.delete(event.pointerId);
    const [left] = pointers.values();
    drag = left ? { ...left, moved: Infinity } : null;
    if (!drag) stage.classList.remove("dragging");
  };
  stage.addEventListener("pointerup", (event) => {
    if (line) {
      endLine();
      release(event);
      return;
    }
    const [index, ...more] = drag && drag.moved <= 4 ? sentencesAt(event) : [];
    if (index !== undefined) show({ pin: { dataset: row.dataset, index, more, where: where() } });
    release(event);
  });
  stage.addEventListener("pointercancel", release);
  stage.addEventListener("pointerleave", () => show({ hover: null }));
  stage.addEventListener("keydown", (event) => {
    const step = 60;
    const moves = { ArrowLeft: [step, 0], ArrowRight: [-step, 0], ArrowUp: [0, step], ArrowDown: [0, -step] };
    if (moves[event.key]) panBy(...moves[event.key]);
    else if (event.key === "+" || event.key === "=") zoomBy(1.5);
    else if (event.key === "-") zoomBy(1 / 1.5);
    else if (event.key === "0") resetView();
    else return;
    event.preventDefault();
  });

  slider.addEventListener("input", () => {
    stop();
    goTo(Number(slider.value));
  });
  slider.addEventListener("change", () => animateTo(Math.round(position)));
  slider.addEventListener("keydown", (event) => {
    const at = Math.round(position), last = panels.length - 1;
    const targets = {
      ArrowLeft: at - 1, ArrowDown: at - 1, ArrowRight: at + 1, ArrowUp: at + 1,
      PageDown: at - 5, PageUp: at + 5, Home: 0, End: last,
    };
    if (!(event.key in targets)) return;
    event.preventDefault();
    stop();
    animateTo(Math.min(Math.max(targets[event.key], 0), last), 4);
  });
  play.addEventListener("click", () => {
    if (play.getAttribute("aria-pressed") === "true") {
      stop();
      return animateTo(Math.round(position));
    }
    if (position >= panels.length - 1) goTo(0);
    play.setAttribute("aria-pressed", "true");
    play.textContent = "Stop";
    animateTo(panels.length - 1, 1);
  });
  byId("zoom-in").addEventListener("click", () => zoomBy(1.5));
  byId("zoom-out").addEventListener("click", () => zoomBy(1 / 1.5));
  byId("zoom-reset").addEventListener("click", resetView);
  byId("closeup-save").addEventListener("click", () => {
    const copy = document.createElement("canvas");
    copy.width = canvas.width;
    copy.height = canvas.height;
    const context = copy.getContext("2d");
    context.fillStyle = dark ? "#000000" : "#ffffff";
    context.fillRect(0, 0, copy.width, copy.height);
    context.drawImage(canvas, 0, 0);
    const name = [row.dataset.info.name, row.title, panels[Math.round(position)].title].filter(Boolean).join(" ");
    copy.toBlob((blob) => save(`${name.replaceAll(/[^\w.~+=@-]+/g, "-")}.png`, blob, "image/png"));
  });
  byId("closeup-close").addEventListener("click", () => dialog.close());
  dialog.addEventListener("close", () => {
    stop();
    document.body.append(tip);
    document.body.append(byId("selection"));
    byId("foot").append(byId("nearest"));
    setSelecting(false);
    show({ hover: null });
  });
  new ResizeObserver(draw).observe(stage);

  return { open, place: placeRings, redraw: draw };
})();
