// Sliders and switches: plain form elements, so that keyboards and screen readers know them.

import { colour, label, number, recolour } from "explore/canvas";
import { data } from "explore/source";

export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== null && value !== false) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children);
  return element;
}

// A number shown, with all its digits for those who ask.
export function show(element, value, digits = 4) {
  element.textContent = number(value, digits);
  element.dataset.value = value;
  element.title = String(value);
}

function input(words, low, high, step, value, changed) {
  const slider = make("input", { type: "range", min: low, max: high, step, "aria-label": words });
  slider.value = value;
  slider.addEventListener("input", () => changed(Number(slider.value)));
  return slider;
}

// One number: its name, a slider, its value.
export function slider(name, low, high, step, value, changed) {
  const shown = make("output");
  const set = (x) => show(shown, x);
  const one = input(name, low, high, step, value, (x) => (set(x), changed(x)));
  set(value);
  const element = make("div", { class: "slider" }, make("span", { class: "name" }, name), one, shown);
  const limit = (least, most) => Object.assign(one, { min: least, max: most });
  return { element, limit, set: (x) => ((one.value = x), set(x)) };
}

// Two numbers, one below the other, on one track: the bounds of a form. They start exactly as given, wherever the
// steps of the slider lie.
export function span(name, low, high, reach, step, changed) {
  const ends = [low, high], outputs = [make("output"), make("output")], track = make("div", { class: "track" });
  const words = [`lower bound of ${name}`, `upper bound of ${name}`];
  const inputs = ends.map((end, i) =>
    input(words[i], -reach, reach, step, end, (x) => {
      ends[i] = i ? Math.max(x, ends[0]) : Math.min(x, ends[1]);
      inputs[i].value = ends[i];
      update();
      changed([...ends]);
    }),
  );
  const update = () => {
    outputs.forEach((output, i) => show(output, ends[i], 3));
    const share = ends.map((end) => Math.min(1, Math.max(0, (end + reach) / (2 * reach))));
    track.style.setProperty("--from", `${100 * share[0]}%`);
    track.style.setProperty("--to", `${100 * share[1]}%`);
  };
  update();
  track.append(...inputs);
  return make("div", { class: "span", role: "group", "aria-label": name }, outputs[0], track, outputs[1],
    make("span", { class: "name" }, name));
}

// A row of a legend that switches a set on and off and shows its number.
export function toggle(name, on, changed, text = label(name)) {
  const box = make("input", { type: "checkbox", name, onchange: () => changed(box.checked) });
  box.checked = on;
  const value = make("output", { "data-number": name });
  const element = make("label", { class: "toggle" }, box, swatch(name), make("span", { class: "name" }, text), value);
  const become = (other) => {
    element.querySelector("svg").replaceWith(swatch(other));
    element.querySelector(".name").textContent = label(other);
  };
  return { element, value, become, name: element.querySelector(".name") };
}

// A short line in the colour and dashes of a method.
export function swatch(name) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const line = document.createElementNS("http://www.w3.org/2000/svg", "line");
  const set = (element, values) => Object.entries(values).forEach(([key, value]) => element.setAttribute(key, value));
  set(svg, { width: 26, height: 10, "aria-hidden": "true" });
  set(line, { x1: 1, x2: 25, y1: 5, y2: 5, "stroke-width": 2.6 });
  line.setAttribute("stroke-dasharray", data.looks[name].dash.map((d) => 2.2 * d).join(" "));
  const paint = () => line.setAttribute("stroke", colour(name));
  paint();
  recolour(paint);
  svg.append(line);
  return svg;
}

// A round handle over a canvas that can be dragged and moved by arrow keys: moved(dx, dy, x, y) in dots of the page.
export function handle(words, moved) {
  const element = make("button", { type: "button", class: "handle", "aria-label": words });
  const steps = { ArrowLeft: [-8, 0], ArrowRight: [8, 0], ArrowUp: [0, -8], ArrowDown: [0, 8] };
  const centre = () => [parseFloat(element.style.left), parseFloat(element.style.top)];
  element.addEventListener("pointerdown", (event) => element.setPointerCapture(event.pointerId));
  element.addEventListener("pointermove", (event) => {
    if (!element.hasPointerCapture(event.pointerId)) return;
    const frame = element.parentElement.getBoundingClientRect();
    moved([event.clientX - frame.left, event.clientY - frame.top]);
  });
  element.addEventListener("keydown", (event) => {
    const step = steps[event.key];
    if (!step) return;
    event.preventDefault();
    moved(centre().map((x, i) => x + step[i]));
  });
  return { element, put: ([x, y]) => Object.assign(element.style, { left: `${x}px`, top: `${y}px` }) };
}
