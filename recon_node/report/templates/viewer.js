"use strict";
(() => {
  const $ = (id) => document.getElementById(id);
  const all = (selector) => [...document.querySelectorAll(selector)];
  const viewer = $("viewer");
  const data = JSON.parse($("data").textContent);
  let siblings = [];  // slices that have pages of their own
  const rest = matchMedia("(prefers-reduced-motion: reduce)");
  const HEAT = [[4, 4, 12], [52, 14, 96], [132, 32, 107], [207, 68, 70], [246, 137, 35], [250, 226, 120], [255, 255, 235]];
  const state = { slice: data.shown, frame: 0, playing: false, view: "images", x: 0.5, y: 0.5, before: 0, due: 0 };
  const loaded = new Map();

  // ---- data ----
  async function unpack(image) {
    if (!image) return null;
    const raw = Uint8Array.from(atob(image.packed), (sign) => sign.charCodeAt(0));
    const stream = new Blob([raw]).stream().pipeThrough(new DecompressionStream("deflate"));
    const bytes = new Uint8Array(await new Response(stream).arrayBuffer());
    const width = image.shape[2];
    for (let i = 0; i < bytes.length; i++) if (i % width) bytes[i] += bytes[i - 1];
    return { bytes, shape: image.shape };
  }

  async function load(number) {
    if (loaded.has(number)) return loaded.get(number);
    const one = data.slices[number];
    const panels = await Promise.all(one.panels.map(async (panel) => ({
      image: await unpack(panel.image), error: await unpack(panel.error) })));
    const layers = await Promise.all(one.layers.map(async (layer) => ({ ...layer, image: await unpack(layer.image) })));
    const kspace = await unpack(one.kspace);
    const mask = kspace && { shape: kspace.shape, bytes: kspace.bytes.map((value) => (value ? 255 : 0)) };
    const slice = { ...one, panels, layers, kspace, mask, count: panels[0].image.shape[0] };
    loaded.set(number, slice);
    return slice;
  }
  const current = () => loaded.get(state.slice);

  // ---- colours: 256 levels to pixels ----
  const pixel = (r, g, b, a = 255) => ((a << 24) | (b << 16) | (g << 8) | r) >>> 0;
  const heat = Uint32Array.from({ length: 256 }, (_, level) => {
    const at = (level / 255) * (HEAT.length - 1), low = Math.min(Math.floor(at), HEAT.length - 2), share = at - low;
    return pixel(...[0, 1, 2].map((i) => Math.round(HEAT[low][i] * (1 - share) + HEAT[low + 1][i] * share)));
  });
  const plain = Uint32Array.from({ length: 256 }, (_, level) => pixel(level, level, level));
  function grey(slice) {  // window and level in percent of what is white at first; levels are square roots
    const width = Number($("window").value) / 100, low = Number($("level").value) / 100 - width / 2;
    return Uint32Array.from({ length: 256 }, (_, level) => {
      const value = (level / 255) ** 2 / slice.white;
      const shown = Math.round(255 * Math.min(1, Math.max(0, (value - low) / width)));
      return pixel(shown, shown, shown);
    });
  }

  // ---- drawing ----
  const tile = document.createElement("canvas");
  function fill(image, colours, frame) {
    const [count, rows, columns] = image.shape, start = (frame % count) * rows * columns;
    tile.width = columns;
    tile.height = rows;
    const pixels = new ImageData(columns, rows), target = new Uint32Array(pixels.data.buffer);
    for (let i = 0; i < target.length; i++) target[i] = colours[image.bytes[start + i]];
    tile.getContext("2d").putImageData(pixels, 0, 0);
    return tile;
  }

  function motion(image, colours, row) {  // one row over two cycles, left to right
    const [count, rows, columns] = image.shape;
    tile.width = 2 * count;
    tile.height = columns;
    const pixels = new ImageData(2 * count, columns), target = new Uint32Array(pixels.data.buffer);
    for (let x = 0; x < columns; x++)
      for (let t = 0; t < 2 * count; t++)
        target[x * 2 * count + t] = colours[image.bytes[((t % count) * rows + row) * columns + x]];
    tile.getContext("2d").putImageData(pixels, 0, 0);
    return tile;
  }

  function part(slice) {  // the visible part of an image as shares: left, top, width, height
    const [top, left, height, width] = slice.boxes[$("box").value] || slice.boxes.whole;
    const zoom = Number($("zoom").value), w = width / zoom, h = height / zoom;
    const clamp = (middle, start, length, seen) => Math.min(Math.max(middle, start + seen / 2), start + length - seen / 2);
    state.x = clamp(state.x, left, width, w);
    state.y = clamp(state.y, top, height, h);
    return [state.x - w / 2, state.y - h / 2, w, h];
  }

  function put(canvas, source, [left, top, width, height], aspect, { alpha = 1, clear = true, smooth = true } = {}) {
    const sharp = Math.min(2, window.devicePixelRatio || 1);
    const columns = Math.max(16, Math.round((canvas.clientWidth || 256) * sharp)), rows = Math.max(16, Math.round(columns / aspect));
    if (canvas.width !== columns || canvas.height !== rows) { canvas.width = columns; canvas.height = rows; }
    const pen = canvas.getContext("2d");
    pen.globalAlpha = alpha;
    pen.imageSmoothingEnabled = smooth;
    pen.imageSmoothingQuality = "high";
    if (clear) pen.clearRect(0, 0, columns, rows);
    pen.drawImage(source, left * source.width, top * source.height, width * source.width, height * source.height, 0, 0, columns, rows);
  }

  function mapOf(slice, number) {  // what the chosen map shows of a panel
    const chosen = $("overlay").value;
    if (!chosen) return null;
    if (chosen === "error") return slice.panels[number].error;
    const layer = slice.layers[Number(chosen)];
    return layer.panel === number ? layer.image : null;
  }

  const figures = all("#panels [data-panel]");
  function draw() {
    const slice = current();
    if (!slice) return;
    const colours = grey(slice), box = part(slice), aspect = (slice.aspect * box[2]) / box[3];
    const moving = state.view === "motion", over = $("place").value === "over";
    const row = Math.floor(state.y * slice.panels[0].image.shape[1]);
    for (const [number, figure] of figures.entries()) {
      const panel = slice.panels[number], [canvas, below] = figure.querySelectorAll("canvas");
      if (figure.hidden) continue;
      const map = moving ? null : mapOf(slice, number);
      if (moving) put(canvas, motion(panel.image, colours, row), [0, box[0], 1, box[2]], 1);
      else put(canvas, fill(panel.image, colours, state.frame), box, aspect);
      if (map && over) put(canvas, fill(map, heat, state.frame), box, aspect, { alpha: Number($("opacity").value) / 100, clear: false });
      below.hidden = over || moving || !$("overlay").value;
      below.style.visibility = map ? "" : "hidden";
      if (!below.hidden) put(below, fill(map || panel.image, heat, state.frame), box, aspect);
    }
    if (state.view === "kspace")
      for (const figure of all("#panels [data-special]")) {
        const image = slice[figure.dataset.special];
        put(figure.querySelector("canvas"), fill(image, plain, state.frame), [0, 0, 1, 1], image.shape[2] / image.shape[1], { smooth: false });
      }
  }

  // ---- what the controls say ----
  function where() {
    const slice = current();
    const time = slice.times ? `, ${Math.round(slice.times[state.frame])} ms` : "";
    return `frame ${state.frame + 1} of ${slice.count}${time}`;
  }
  function tell(text) { $("live").textContent = text; }

  function labels() {
    const slice = current();
    $("frame").max = slice.count - 1;
    $("frame").value = state.frame;
    $("frame").setAttribute("aria-valuetext", where());
    $("where").textContent = where();
    for (const id of ["window", "level", "opacity"]) document.querySelector(`output[for=${id}]`).textContent = `${$(id).value} %`;
    document.querySelector("output[for=zoom]").textContent = `${Number($("zoom").value).toFixed(1)}x`;
    viewer.classList.toggle("moved", Number($("zoom").value) > 1);
  }

  function legend() {
    const slice = current(), chosen = $("overlay").value;
    const layer = chosen && chosen !== "error" ? slice.layers[Number(chosen)] : null;
    $("scale").hidden = !chosen;
    $("fading").hidden = !chosen || $("place").value !== "over";
    $("scale").lastElementChild.textContent = chosen === "error" ? "0 to 10 % of full brightness" : layer ? `0 to ${layer.top}` : "";
    $("said").textContent = layer ? layer.said : chosen ? "Distance of the magnitude from the truth, pixel by pixel." : "";
  }

  function refresh() { labels(); legend(); draw(); }

  function arrange() {  // which figures are seen
    const kspace = state.view === "kspace";
    for (const [number, figure] of figures.entries()) {
      const box = document.querySelector(`[data-toggle="${number}"]`);
      figure.hidden = kspace || (box && !box.checked);
    }
    for (const figure of all("#panels [data-special]")) figure.hidden = !kspace || !current().kspace;
    $("mapping").hidden = state.view !== "images" || $("overlay").options.length < 2;
    refresh();
  }

  // ---- acting ----
  function go(frame, { quiet = false } = {}) {
    const { count } = current();
    state.frame = ((frame % count) + count) % count;
    refresh();
    if (!quiet) tell(where());
  }

  function play(on) {
    state.playing = on && current().count > 1;
    $("play").textContent = state.playing ? "Pause" : "Play";
    state.before = 0;
    if (state.playing) requestAnimationFrame(tick);
  }

  function tick(now) {
    if (!state.playing) return;
    const wait = current().frameMs / Number($("speed").value);
    if (!state.before) { state.before = now; state.due = 0; }
    state.due += Math.min(now - state.before, 1000);
    state.before = now;
    const steps = Math.floor(state.due / wait);
    if (steps) { state.due -= steps * wait; go(state.frame + steps, { quiet: true }); }
    requestAnimationFrame(tick);
  }

  async function choose(number) {
    if (number < 0 || number >= data.slices.length) return;
    await load(number);
    state.slice = number;
    for (const one of all("[data-slice]")) one.hidden = Number(one.dataset.slice) !== number;
    const chosen = $("overlay").value, slice = current();
    const maps = slice.layers.map((layer, index) => new Option(layer.name, String(index)));
    if (slice.panels.some((panel) => panel.error)) maps.unshift(new Option("absolute error", "error"));
    $("overlay").replaceChildren(new Option("none", ""), ...maps);
    $("overlay").value = [...$("overlay").options].some((one) => one.value === chosen) ? chosen : "";
    for (const option of $("box").options) option.hidden = option.disabled = !slice.boxes[option.value];
    if (!slice.boxes[$("box").value]) $("box").value = "whole";
    state.frame %= slice.count;
    document.querySelector(".play").hidden = slice.count < 2;
    arrange();
  }

  function turn(step) {  // to the next slice, here or on its own page
    const list = $("slice"), to = list.selectedIndex + step;
    if (to < 0 || to >= list.options.length) return;
    list.selectedIndex = to;
    pick();
  }
  function pick() {
    const value = $("slice").value;
    if (siblings.length) { location.href = value; return; }
    choose(Number(value)).then(() => tell($("slice").selectedOptions[0].textContent));
  }

  function centre() {
    const [top, left, height, width] = current().boxes[$("box").value] || current().boxes.whole;
    state.x = left + width / 2;
    state.y = top + height / 2;
  }
  function reset() {
    Object.entries({ zoom: 1, window: 100, level: 50 }).forEach(([id, value]) => { $(id).value = value; });
    centre();
    refresh();
  }
  function nudge(id, step) {
    $(id).value = Number($(id).value) + step;
    refresh();
    tell(`${id} ${document.querySelector(`output[for=${id}]`).textContent}`);
  }
  function show(view) {
    const button = document.querySelector(`input[name=view][value=${view}]`);
    if (!button) return;
    button.checked = true;
    state.view = view;
    arrange();
  }

  const KEYS = {
    " ": () => play(!state.playing), ArrowLeft: () => { play(false); go(state.frame - 1); }, ArrowRight: () => { play(false); go(state.frame + 1); },
    ArrowUp: () => turn(-1), ArrowDown: () => turn(1), "+": () => nudge("zoom", 0.5), "=": () => nudge("zoom", 0.5), "-": () => nudge("zoom", -0.5),
    "[": () => nudge("window", -5), "]": () => nudge("window", 5), ",": () => nudge("level", -5), ".": () => nudge("level", 5),
    k: () => show(state.view === "kspace" ? "images" : "kspace"), 0: reset,
    m: () => { const list = $("overlay"); list.selectedIndex = (list.selectedIndex + 1) % list.options.length; refresh(); tell(`map: ${list.selectedOptions[0].text}`); },
  };
  function onKey(event) {
    const act = KEYS[event.key];
    const own = event.target.closest("input, select, summary, a, .scroll") || (event.key === " " && event.target.closest("button"));
    if (!act || own || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    act();
  }

  function drag(event) {  // moves an enlarged image; with Shift: window and level
    if (event.button || event.target.tagName !== "CANVAS") return;
    const canvas = event.target;
    let { clientX: x, clientY: y } = event;
    const move = (next) => {
      const right = next.clientX - x, down = next.clientY - y, box = part(current());
      [x, y] = [next.clientX, next.clientY];
      if (next.shiftKey) {
        $("window").value = Number($("window").value) + right / 2;
        $("level").value = Number($("level").value) + down / 2;
      } else {
        state.x -= (right / canvas.clientWidth) * box[2];
        state.y -= (down / canvas.clientHeight) * box[3];
      }
      refresh();
    };
    const end = () => { canvas.removeEventListener("pointermove", move); };
    if (Number($("zoom").value) === 1 && !event.shiftKey) return;
    canvas.setPointerCapture(event.pointerId);
    canvas.addEventListener("pointermove", move);
    canvas.addEventListener("pointerup", end, { once: true });
    canvas.addEventListener("pointercancel", end, { once: true });
  }

  // ---- downloads ----
  function save(blob, ending) {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(blob);
    link.download = `${document.title.replace(/[^\w-]+/g, "_").slice(0, 60)}.${ending}`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  }

  const sheet = document.createElement("canvas"), pen = sheet.getContext("2d", { willReadFrequently: true });
  function compose() {  // all that is seen side by side, named, on one canvas
    const seen = all("#panels figure").filter((figure) => !figure.hidden), gap = 6, head = 26;
    const shown = seen.map((figure) => [figure.querySelector("b").textContent, [...figure.querySelectorAll("canvas")].filter((one) => !one.hidden)]);
    const wide = shown.map(([, list]) => list[0].width), high = shown.map(([, list]) => list.reduce((sum, one) => sum + one.height + gap, 0));
    const even = (length) => length + (length & 1);  // as videos want it
    const width = even(wide.reduce((sum, one) => sum + one + gap, -gap)), height = even(head + Math.max(...high));
    if (sheet.width !== width || sheet.height !== height) { sheet.width = width; sheet.height = height; }
    pen.fillStyle = "#000";
    pen.fillRect(0, 0, width, height);
    pen.fillStyle = "#fff";
    pen.font = "15px system-ui, sans-serif";
    let left = 0;
    for (const [number, [name, list]] of shown.entries()) {
      pen.fillText(name, left + 6, 18, wide[number] - 8);
      let top = head;
      for (const one of list) { if (one.style.visibility !== "hidden") pen.drawImage(one, left, top); top += one.height + gap; }
      left += wide[number] + gap;
    }
    return sheet;
  }

  function lzw(levels) {  // GIF's own compression of 8-bit levels
    const out = [], known = new Map();
    let bits = 0, held = 0, size = 9, next = 258;
    const emit = (code) => { held |= code << bits; bits += size; while (bits >= 8) { out.push(held & 255); held >>>= 8; bits -= 8; } };
    emit(256);
    let word = levels[0];
    for (let i = 1; i < levels.length; i++) {
      const longer = (word << 8) | levels[i], code = known.get(longer);
      if (code !== undefined) { word = code; continue; }
      emit(word);
      if (next < 4096) { if (next === 1 << size) size++; known.set(longer, next++); }
      else { emit(256); known.clear(); size = 9; next = 258; }
      word = levels[i];
    }
    emit(word);
    if (next === 1 << size && size < 12) size++;
    emit(257);
    if (bits) out.push(held & 255);
    return out;
  }

  function gif() {  // one cycle of the images as they are seen, in grey; maps are drawn in grey as well
    const { count, frameMs } = current(), kept = state.frame, parts = [];
    const short = (value) => [value & 255, value >> 8];
    for (let frame = 0; frame < count; frame++) {
      state.frame = frame;
      draw();
      const { width, height } = compose(), rgba = pen.getImageData(0, 0, width, height).data;
      const levels = Uint8Array.from({ length: width * height }, (_, i) => Math.round(0.3 * rgba[4 * i] + 0.59 * rgba[4 * i + 1] + 0.11 * rgba[4 * i + 2]));
      if (!frame) {
        const table = Array.from({ length: 768 }, (_, i) => Math.floor(i / 3));
        parts.push([..."GIF89a"].map((sign) => sign.charCodeAt(0)), short(width), short(height), [0xf7, 0, 0], table,
          [0x21, 0xff, 11, ...[..."NETSCAPE2.0"].map((sign) => sign.charCodeAt(0)), 3, 1, 0, 0, 0]);
      }
      parts.push([0x21, 0xf9, 4, 0, ...short(Math.max(2, Math.round(frameMs / Number($("speed").value) / 10))), 0, 0], [0x2c, 0, 0, 0, 0], short(width), short(height), [0, 8]);
      const code = lzw(levels);
      for (let at = 0; at < code.length; at += 255) { const block = code.slice(at, at + 255); parts.push([block.length], block); }
      parts.push([0]);
    }
    state.frame = kept;
    draw();
    parts.push([0x3b]);
    return new Blob(parts.map((list) => new Uint8Array(list)), { type: "image/gif" });
  }

  const KIND = typeof MediaRecorder === "function" && ["video/mp4", "video/webm"].find((kind) => MediaRecorder.isTypeSupported(kind));
  function video() {  // records whole cycles in real time, two seconds at least
    const recorder = new MediaRecorder(compose().captureStream(30), { mimeType: KIND, videoBitsPerSecond: 8e6 });
    const parts = [], { count, frameMs } = current(), wait = frameMs / Number($("speed").value);
    recorder.ondataavailable = (event) => parts.push(event.data);
    const done = new Promise((resolve, fail) => {
      recorder.onstop = () => resolve(new Blob(parts, { type: KIND }));
      recorder.onerror = (event) => fail(event.error);
    });
    play(false);
    go(0, { quiet: true });
    const total = count * Math.max(1, Math.ceil(2000 / (count * wait)));
    let frame = 0;
    recorder.onstart = () => {
      const timer = setInterval(() => {
        compose();
        if (++frame > total) { clearInterval(timer); recorder.stop(); } else go(frame, { quiet: true });
      }, wait);
    };
    recorder.start();
    return done;
  }

  // ---- beginning ----
  function listen() {
    $("play").onclick = () => play(!state.playing);
    $("back").onclick = () => { play(false); go(state.frame - 1); };
    $("next").onclick = () => { play(false); go(state.frame + 1); };
    $("frame").oninput = () => { play(false); go(Number($("frame").value), { quiet: true }); };
    for (const id of ["zoom", "window", "level", "opacity", "overlay", "place"]) $(id).addEventListener("input", refresh);
    $("box").oninput = () => { $("zoom").value = 1; centre(); refresh(); };
    $("slice").onchange = pick;
    $("reset").onclick = reset;
    for (const one of all("input[name=view]")) one.oninput = () => show(one.value);
    for (const one of all("[data-toggle]")) one.oninput = arrange;
    $("png").onclick = () => compose().toBlob((blob) => save(blob, "png"));
    $("gif").onclick = () => save(gif(), "gif");
    $("video").onclick = () => video().then((blob) => save(blob, KIND.slice(6)), (error) => tell(`no video: ${error.message}`));
    $("video").hidden = !KIND || current().count < 2;
    $("gif").hidden = current().count < 2;
    viewer.addEventListener("keydown", onKey);
    viewer.addEventListener("pointerdown", drag);
    new ResizeObserver(() => draw()).observe($("panels"));
    rest.addEventListener("change", () => { if (rest.matches) play(false); });
  }

  function link() {
    siblings = JSON.parse($("siblings").textContent);
    if (siblings.length < 2) return;
    const here = decodeURIComponent(location.pathname.split("/").pop());
    $("slice").replaceChildren(...siblings.map((one) => new Option(one.label, one.page, false, one.page === here)));
    document.querySelector(".slices").hidden = false;
  }

  async function begin() {
    link();
    await load(data.shown);
    $("still").hidden = $("nojs").hidden = true;
    $("panels").hidden = false;
    await choose(data.shown);
    if (current().boxes.object) $("box").value = "object";
    if (current().panels.some((panel) => panel.error)) $("overlay").value = "error";
    centre();
    listen();
    refresh();
    play(!rest.matches);
    viewer.dataset.ready = "yes";
  }
  document.addEventListener("DOMContentLoaded", () => begin().catch((error) => {
    $("nojs").hidden = false;
    $("nojs").textContent = `The moving images need a newer browser (${error.message}).`;
  }));
})();
