"use strict";
// The data: {inputs: [{name, size, ...}], frames: [{number, seconds, images: [uri, ...]}], scenes, crops, curves, notes}
const data = JSON.parse(document.getElementById("data").textContent);
const $ = (id) => document.getElementById(id);
const COLORS = ["#2f7ed8", "#e07b39", "#3a9a5b", "#b05ac4", "#c9a227", "#7a7d85"];
const MODES = ["slider", "flip", "sides", "difference"];
const state = { frame: 0, left: 0, right: Math.min(1, data.inputs.length - 1), mode: "slider", split: 0.5,
                zoom: 1, x: 0, y: 0, flipped: false, timer: 0, drawn: 0 };
const stage = $("stage");
const keys = []; // of the curves: they show the value at the frame that is shown

function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}
const clamp = (value, low, high) => Math.min(high, Math.max(low, value));
const time = (s) => `${Math.floor(s / 60)}:${(s % 60).toFixed(2).padStart(5, "0")}`;

function draw() {
  const frame = data.frames[state.frame];
  const swap = state.mode === "flip" && state.flipped;
  const left = swap ? state.right : state.left, right = swap ? state.left : state.right;
  for (const [side, input] of [["left", left], ["right", right]]) {
    const image = $(`image-${side}`), uri = frame.images[input];
    if (image.getAttribute("src") !== uri) image.src = uri;
    image.alt = `${data.inputs[input].name}, frame ${frame.number}`;
    $(`tag-${side}`).textContent = data.inputs[input].name;
  }
  stage.className = `${state.mode}${$("pixels").checked ? " hard" : ""}`;
  for (const side of ["left", "right"])
    $(`image-${side}`).style.transform = `translate(${state.x}px, ${state.y}px) scale(${state.zoom})`;
  stage.style.touchAction = state.zoom > 1 ? "none" : "pan-y"; // unzoomed, a swipe up scrolls the page
  const at = state.split * 100;
  $("view-right").style.clipPath = state.mode === "slider" ? `inset(0 0 0 ${at}%)` : "";
  $("view-right").hidden = state.mode === "flip";
  $("tag-right").hidden = state.mode === "flip";
  $("handle").style.left = `${at}%`;
  $("handle").setAttribute("aria-valuenow", Math.round(at));
  $("seek").value = state.frame;
  $("where").textContent = `frame ${frame.number}, ${time(frame.seconds)}`;
  for (const button of document.querySelectorAll("[data-mode]"))
    button.setAttribute("aria-pressed", button.dataset.mode === state.mode);
  for (const line of document.querySelectorAll("svg line.now")) {
    line.setAttribute("x1", frame.number); line.setAttribute("x2", frame.number);
  }
  for (const key of keys) key.show(frame.number);
}

// One view: all of the stage, or half of it when the pictures stand side by side.
const viewWidth = () => stage.clientWidth / (state.mode === "sides" ? 2 : 1);

// Makes the stage as large as the pictures can be; what was zoomed to stays in sight.
function resize() {
  const [w, h] = data.inputs.reduce((a, b) => (b.size[0] > a[0] ? b.size : a), [0, 0]);
  const shape = (state.mode === "sides" ? 2 : 1) * w / h, room = stage.parentElement;
  const style = getComputedStyle(room);
  const most = room.clientWidth - parseFloat(style.paddingLeft) - parseFloat(style.paddingRight);
  const width = Math.min(most, window.innerHeight * 0.78 * shape);
  stage.style.width = `${width}px`;
  stage.style.height = `${width / shape}px`;
  const grown = state.drawn ? viewWidth() / state.drawn : 1;
  state.x *= grown; state.y *= grown; state.drawn = viewWidth();
  keepInside();
  draw();
}

function show(frame) {
  state.frame = clamp(frame, 0, data.frames.length - 1);
  draw();
}
const nearest = (number) => data.frames.reduce(
  (best, f, i) => Math.abs(f.number - number) < Math.abs(data.frames[best].number - number) ? i : best, 0);

function mode(name) { state.mode = name; state.flipped = false; resize(); }
function fit() { state.zoom = 1; state.x = state.y = 0; draw(); }

function zoomAt(factor, x, y) {
  const zoom = clamp(state.zoom * factor, 1, 40), real = zoom / state.zoom;
  state.x = x - (x - state.x) * real;
  state.y = y - (y - state.y) * real;
  state.zoom = zoom;
  keepInside();
  draw();
}
function keepInside() {
  state.x = clamp(state.x, viewWidth() * (1 - state.zoom), 0);
  state.y = clamp(state.y, stage.clientHeight * (1 - state.zoom), 0);
}
function play() {
  clearInterval(state.timer);
  const going = $("play").textContent === "Stop";
  $("play").textContent = going ? "Play" : "Stop";
  if (!going) state.timer = setInterval(() => show((state.frame + 1) % data.frames.length), 1000 / data.rate);
}
function theme() {
  const root = document.documentElement;
  const dark = getComputedStyle(root).colorScheme === "dark" ||
    (getComputedStyle(root).colorScheme !== "light" && matchMedia("(prefers-color-scheme: dark)").matches);
  root.style.colorScheme = dark ? "light" : "dark";
}

// Pointers: the line moves the split, and so does all of an unzoomed picture, where there is nothing to
// pan; else one finger or the mouse pans. Two fingers zoom.
const pointers = new Map();
let dragging = false;
const inStage = (event) => {
  const box = stage.getBoundingClientRect();
  return [event.clientX - box.left, event.clientY - box.top];
};
const inView = (x, y) => [x % viewWidth(), y];
function splitTo(event) {
  state.split = clamp(inStage(event)[0] / stage.clientWidth, 0, 1);
  draw();
}
stage.addEventListener("pointerdown", (event) => {
  pointers.set(event.pointerId, inStage(event));
  dragging = pointers.size === 1 && state.mode === "slider" && (event.target === $("handle") || state.zoom === 1);
  stage.setPointerCapture(event.pointerId);
});
stage.addEventListener("pointermove", (event) => {
  if (!pointers.has(event.pointerId)) return;
  if (dragging) return splitTo(event);
  const [x, y] = inStage(event), [oldX, oldY] = pointers.get(event.pointerId);
  if (pointers.size === 2) {
    const other = [...pointers].find(([id]) => id !== event.pointerId)[1];
    const before = Math.hypot(oldX - other[0], oldY - other[1]), after = Math.hypot(x - other[0], y - other[1]);
    if (before > 0) zoomAt(after / before, ...inView((x + other[0]) / 2, (y + other[1]) / 2));
  } else {
    state.x += x - oldX;
    state.y += y - oldY;
    keepInside();
    draw();
  }
  pointers.set(event.pointerId, [x, y]);
});
for (const name of ["pointerup", "pointercancel"])
  stage.addEventListener(name, (event) => {
    pointers.delete(event.pointerId);
    dragging = false;
    stage.focus({ preventScroll: true }); // or the arrows would go on moving the line, not the frame
  });
stage.addEventListener("wheel", (event) => {
  event.preventDefault();
  zoomAt(Math.exp(-event.deltaY * 0.0015), ...inView(...inStage(event)));
}, { passive: false });
stage.addEventListener("dblclick", (event) => (state.zoom > 1 ? fit() : zoomAt(4, ...inView(...inStage(event)))));

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.tagName === "SELECT") return;
  const onHandle = event.target === $("handle") && event.key.startsWith("Arrow");
  const half = [viewWidth() / 2, stage.clientHeight / 2];
  const actions = {
    ArrowRight: () => show(state.frame + 1), ArrowLeft: () => show(state.frame - 1),
    Home: () => show(0), End: () => show(data.frames.length - 1),
    " ": () => { if (state.mode !== "flip") mode("flip"); state.flipped = !state.flipped; draw(); },
    "+": () => zoomAt(1.5, ...half), "=": () => zoomAt(1.5, ...half), "-": () => zoomAt(1 / 1.5, ...half),
    0: fit, p: play, t: theme,
  };
  MODES.forEach((name, i) => { actions[i + 1] = () => mode(name); });
  if (onHandle) {
    state.split = clamp(state.split + (event.key === "ArrowRight" ? 0.02 : -0.02), 0, 1);
    draw();
  } else if (actions[event.key] ?? actions[event.key.toLowerCase()]) {
    if (event.target.tagName === "BUTTON" && event.key === " ") event.target.blur();
    (actions[event.key] ?? actions[event.key.toLowerCase()])();
  } else return;
  event.preventDefault();
});

for (const side of ["left", "right"]) {
  data.inputs.forEach((input, i) => $(side).append(element("option", { value: i }, input.name)));
  $(side).value = state[side];
  $(side).addEventListener("change", (event) => { state[side] = Number(event.target.value); crops(); draw(); });
}
for (const button of document.querySelectorAll("[data-mode]"))
  button.addEventListener("click", () => mode(button.dataset.mode));
$("fit").addEventListener("click", fit);
$("pixels").addEventListener("change", draw);
$("back").addEventListener("click", () => show(state.frame - 1));
$("next").addEventListener("click", () => show(state.frame + 1));
$("play").addEventListener("click", play);
$("theme").addEventListener("click", theme);
$("seek").max = data.frames.length - 1;
$("seek").addEventListener("input", (event) => show(Number(event.target.value)));
window.addEventListener("resize", resize);

// A part of a picture as a CSS background: nothing is embedded twice.
function part(className, uri, [x, y, w, h]) {
  const box = element("span", { class: className });
  box.style.backgroundImage = `url("${uri}")`;
  box.style.backgroundSize = `${100 / w}% ${100 / h}%`;
  box.style.backgroundPosition = `${w < 1 ? 100 * x / (1 - w) : 0}% ${h < 1 ? 100 * y / (1 - h) : 0}%`;
  return box;
}
function scenes() {
  $("scenes-box").hidden = data.scenes.length < 2;
  for (const number of data.scenes) {
    const index = nearest(number), frame = data.frames[index];
    const picture = part("shot", frame.images[state.right], [0, 0, 1, 1]);
    const [w, h] = data.inputs[0].size;
    picture.style.height = `${160 * h / w}px`;
    const button = element("button", {}, picture, element("small", {}, `frame ${number}, ${time(frame.seconds)}`));
    button.addEventListener("click", () => show(index));
    $("scenes").append(button);
  }
}
function crops() {
  $("crops-box").hidden = data.crops.length === 0;
  $("crops").replaceChildren();
  for (const crop of data.crops) {
    const index = nearest(crop.frame), frame = data.frames[index];
    const pair = element("span", { class: "pair" },
      part("crop", frame.images[state.left], crop.box), part("crop", frame.images[state.right], crop.box));
    const button = element("button", { title: "Go there" }, pair,
      element("small", {}, `frame ${crop.frame}, differs by ${crop.difference.toFixed(1)} of 255`));
    button.addEventListener("click", () => {
      const [x, y, w, h] = crop.box;
      state.zoom = clamp(0.5 / Math.max(w, h), 1, 40);
      state.x = viewWidth() * (0.5 - (x + w / 2) * state.zoom);
      state.y = stage.clientHeight * (0.5 - (y + h / 2) * state.zoom);
      keepInside();
      show(index);
      stage.scrollIntoView({ block: "nearest" });
    });
    $("crops").append(button);
  }
}
const number = (value) => (value === null ? "none" : value.toPrecision(4));
const mean = (values) => {
  const real = values.filter((v) => v !== null);
  return real.length ? real.reduce((a, b) => a + b, 0) / real.length : null;
};
function path(values, place) {
  let d = "", pen = "M";
  values.forEach((v, i) => {
    if (v === null) { pen = "M"; return; }
    d += `${pen}${i} ${place(v).toFixed(2)}`;
    pen = "L";
  });
  return d;
}
function curves() {
  $("curves-box").hidden = data.curves.length === 0;
  for (const curve of data.curves) {
    const all = curve.lines.flatMap((line) => line.values).filter((v) => v !== null);
    if (!all.length) continue;
    const low = Math.min(...all), high = Math.max(...all), span = high - low || 1, last = data.total - 1 || 1;
    const caption = element("figcaption", {}, element("b", {}, curve.name), element("span", {}, curve.about));
    const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    svg.setAttribute("viewBox", `0 0 ${last} 100`);
    svg.setAttribute("preserveAspectRatio", "none");
    const legend = element("p", { class: "legend" });
    for (const line of curve.lines) {
      const color = COLORS[line.input % COLORS.length], key = element("i");
      key.style.setProperty("--c", color);
      const about = `${data.inputs[line.input].name}: mean ${number(mean(line.values))}, here `;
      keys.push({ show: (frame) => { key.textContent = about + number(line.values[frame]); } });
      legend.append(key);
      const drawn = document.createElementNS(svg.namespaceURI, "path");
      drawn.setAttribute("d", path(line.values, (v) => 96 - 92 * (v - low) / span));
      drawn.setAttribute("stroke", color);
      svg.append(drawn);
    }
    const now = document.createElementNS(svg.namespaceURI, "line");
    now.setAttribute("class", "now"); now.setAttribute("y1", 0); now.setAttribute("y2", 100);
    svg.append(now);
    svg.addEventListener("click", (event) => {
      const box = svg.getBoundingClientRect();
      show(nearest((event.clientX - box.left) / box.width * last));
    });
    const plot = element("div", { class: "plot" }, svg,
      element("small", { class: "high" }, number(high)), element("small", { class: "low" }, number(low)));
    $("curves").append(element("figure", {}, caption, plot, legend));
  }
}
function inputs() {
  const columns = Object.keys(data.inputs[0].facts);
  $("inputs").append(element("tr", {}, element("th", {}, "name"), ...columns.map((c) => element("th", {}, c))));
  for (const input of data.inputs)
    $("inputs").append(element("tr", {}, element("td", {}, input.name),
      ...columns.map((c) => element("td", {}, String(input.facts[c] ?? "")))));
  $("notes").textContent = data.notes.join(" ");
}
scenes(); crops(); curves(); inputs(); resize();
