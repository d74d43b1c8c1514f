// Close-up: one enlarged panel, with zoom, pan, and a slider that morphs each layer into the next.

const closeup = (() => {
  const dialog = byId("closeup"), stage = byId("stage"), canvas = byId("closeup-canvas");
  const slider = byId("layer"), mark = byId("closeup-mark"), play = byId("play");
  const [ring, pin] = stage.querySelectorAll(".ring");
  const reducedMotion = matchMedia("(prefers-reduced-motion: reduce)");
  let row = null, panels = [], position = 0, zoom = 1, center = [0.5, 0.5], morph = null, drag = null;
  let frame = 0, motion = 0, buffers = null, image = null;

  byId("closeup-legend").append(legendPlace(() => row?.dataset));

  function open(newRow, panel) {
    row = newRow;
    drawLegends();
    panels = row.panels.filter(Boolean);
    buffers = [new Float32Array(row.dataset.size), new Float32Array(row.dataset.size)];
    slider.max = panels.length - 1;
    slider.disabled = play.disabled = panels.length < 2;
    resetView();
    dialog.showModal();
    dialog.append(tip);
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

  function goTo(where) {
    position = Math.min(Math.max(where, 0), panels.length - 1);
    slider.value = position;
    const { title } = panels[Math.round(position)];
    slider.setAttribute("aria-valuetext", title);
    byId("layer-name").value = title;
    const name = [row.dataset.info.name, row.title, title].filter(Boolean).join(" · ");
    byId("closeup-title").replaceChildren(element("bdi", {}, name));
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
    morph = coordinates();
    mark.hidden = morph !== null;
    mark.textContent = "all states identical";
    if (morph) {
      const scaled = { side: place.side * ratio, left: place.left * ratio, top: place.top * ratio };
      paint(canvas, row.dataset, ...morph, scaled, zoom);
      drawImage(scaled);
    }
    placeRings();
  }

  // For a sampled dataset, draw the image of all sentences behind the sample, unless the slider is between layers.
  function drawImage(place) {
    const panel = panels[position];
    if (!panel || !row.images || row.dataset.filtered) return;
    const source = `data:image/png;base64,${row.images[panel.slot]}`;
    if (image?.src !== source) {
      image = new Image();
      image.onload = draw;
      image.src = source;
    }
    if (!image.complete || !image.naturalWidth) return;
    const context = canvas.getContext("2d");
    context.save();
    context.globalCompositeOperation = "destination-over";
    context.globalAlpha = 0.6;
    context.filter = dark ? "invert(1) hue-rotate(180deg)" : "none";
    context.drawImage(image, place.left, place.top, place.side, place.side);
    context.restore();
  }

  function placeRings() {
    if (!dialog.open) return;
    const place = view();
    for (const [node, chosen] of [[ring, state.hover], [pin, state.pin]]) {
      const inside = morph && chosen?.dataset === row.dataset && morph[0][chosen.index] !== MISSING;
      node.hidden = !inside;
      if (!inside) continue;
      node.style.left = `${place.left + (morph[0][chosen.index] / LARGEST) * place.side}px`;
      node.style.top = `${place.top + (1 - morph[1][chosen.index] / LARGEST) * place.side}px`;
    }
  }

  function sentenceAt(event) {
    if (!morph) return -1;
    const box = stage.getBoundingClientRect(), place = view();
    const x = (event.clientX - box.left - stage.clientLeft - place.left) / place.side;
    const y = (event.clientY - box.top - stage.clientTop - place.top) / place.side;
    return nearest(row.dataset, ...morph, x, y, 16 / place.side);
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
  stage.addEventListener("pointerdown", (event) => {
    drag = { x: event.clientX, y: event.clientY, moved: 0 };
    stage.setPointerCapture(event.pointerId);
  });
  stage.addEventListener("pointermove", (event) => {
    if (!drag) {
      const index = sentenceAt(event);
      show({ hover: index < 0 ? null : { dataset: row.dataset, index } }, event);
      return;
    }
    const x = event.clientX - drag.x, y = event.clientY - drag.y;
    drag = { x: event.clientX, y: event.clientY, moved: drag.moved + Math.abs(x) + Math.abs(y) };
    if (drag.moved > 4) {
      stage.classList.add("dragging");
      panBy(x, y);
    }
  });
  stage.addEventListener("pointerup", (event) => {
    const index = drag && drag.moved <= 4 ? sentenceAt(event) : -1;
    if (index >= 0) show({ pin: { dataset: row.dataset, index } });
    drag = null;
    stage.classList.remove("dragging");
  });
  stage.addEventListener("pointercancel", () => (drag = null));
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
  byId("closeup-close").addEventListener("click", () => dialog.close());
  dialog.addEventListener("close", () => {
    stop();
    document.body.append(tip);
    show({ hover: null });
  });
  new ResizeObserver(draw).observe(stage);

  return { open, place: placeRings, redraw: draw };
})();
