// The third view: a network small enough to see through, and the real one.

import { affine, colour, label, number } from "explore/canvas";
import { make, show } from "explore/controls";
import { ask, asker, data } from "explore/source";

const SUBSCRIPTS = "₀₁₂₃₄₅₆₇₈₉";
export const subscript = (i) => String(i).replace(/\d/g, (d) => SUBSCRIPTS[d]);
const GROUPS_FIRST = 6;

export function networkView(root, fail, look) {
  const { weights, biases, exact } = data.textbook, layers = weights.slice(0, -1);
  const state = { chosen: layers.map(() => []), answer: null, alone: null };
  const request = asker("network", answered, fail);
  const drawing = root.querySelector(".small .drawing"), line = root.querySelector(".small .line");
  const columns = [weights[0][0].length, ...weights.map((w) => w.length)];
  const first = (layer) => layers.slice(0, layer).reduce((sum, w) => sum + w.length, 1);
  const names = columns.map((count, c) => Array.from({ length: count }, (_, i) =>
    c === 0 ? `x${subscript(i + 1)}` : c === columns.length - 1 ? "y" : `z${subscript(first(c - 1) + i)}`));

  root.querySelector(".formulas").append(...weights.flatMap((matrix, c) => matrix.map((row, i) =>
    make("li", {}, `${names[c + 1][i]} = ${affine(row, names[c].map((n) => n.replace("z", "a")), biases[c][i])}`))));
  root.querySelector(".clear").addEventListener("click", () => ((state.chosen = layers.map(() => [])), choose()));
  new ResizeObserver(draw).observe(drawing);

  function choose() {
    root.classList.add("waiting");
    request({ chosen: state.chosen.map((members) => (members.length > 1 ? [...members].sort() : [])) });
    draw();
  }

  function flip(layer, i) {
    const members = state.chosen[layer];
    state.chosen[layer] = members.includes(i) ? members.filter((m) => m !== i) : [...members, i];
    choose();
  }

  function answered(answer, { chosen }) {
    root.classList.remove("waiting");
    state.answer = answer;
    if (chosen.every((members) => members.length === 0)) state.alone = answer.bound;
    show(root.querySelector("[data-number=network]"), answer.bound);
    const [one] = state.chosen.filter((members) => members.length === 1), proven = answer.bound > 0;
    root.querySelector(".small .verdict").textContent = proven
      ? `Proven: whatever the input, the output is at least ${number(answer.bound, 3)}, so it is positive.`
      : one ? "One neuron alone is no group: choose another of the same layer."
      : `Not proven: the output may be as low as ${number(answer.bound, 3)}, for all these relaxations know. The truth is ${number(exact)}.`;
    root.querySelector(".small").classList.toggle("proven", proven);
    root.dataset.drawn = Number(root.dataset.drawn ?? 0) + 1;
    draw();
    scale();
  }

  function places() {
    const width = drawing.clientWidth, height = width < 480 ? 300 : 320;
    const x = (c) => 34 + ((width - 68) * c) / (columns.length - 1);
    const y = (c, i) => (height * (i + 0.5)) / columns[c] - 8;
    return { width, height, at: columns.map((count, c) => Array.from({ length: count }, (_, i) => [x(c), y(c, i)])) };
  }

  function draw() {
    const { width, height, at } = places();
    if (width === 0) return;
    const focused = document.activeElement?.dataset?.neuron;
    const svg = shape("svg", { width, height, viewBox: `0 0 ${width} ${height}` });
    weights.forEach((matrix, c) => matrix.forEach((row, i) => row.forEach((w, j) => {
      if (w) svg.append(shape("line", edge(at[c][j], at[c + 1][i], w)));
    })));
    state.chosen.forEach((members, layer) => {
      if (members.length > 1) svg.append(shape("path", { class: "bond", d: bond(at[layer + 1], [...members].sort()) }));
    });
    at.forEach((column, c) => column.forEach((place, i) => svg.append(neuron(c, i, place))));
    drawing.replaceChildren(svg);
    if (focused) drawing.querySelector(`[data-neuron="${focused}"]`)?.focus();
  }

  const edge = ([x1, y1], [x2, y2], w) => ({ x1, y1, x2, y2, class: w < 0 ? "edge negative" : "edge", "stroke-width": 0.8 + 0.7 * Math.abs(w) });

  function neuron(c, i, [x, y]) {
    const layer = c - 1, inner = c > 0 && c < columns.length - 1;
    const node = shape("g", { class: "node", transform: `translate(${x} ${y})` });
    node.append(shape("circle", { r: 20 }), word(names[c][i], 0, "name"));
    node.append(word(range(c, i), 35, "range"));
    if (!inner) return node;
    const on = state.chosen[layer].includes(i);
    const attributes = { role: "button", tabindex: 0, "aria-pressed": on, "data-neuron": `${layer}${i}`, "aria-label": `neuron ${names[c][i]}` };
    Object.entries(attributes).forEach(([key, value]) => node.setAttribute(key, value));
    node.addEventListener("click", () => flip(layer, i));
    node.addEventListener("keydown", (event) => {
      if (event.key === "Enter" || event.key === " ") (event.preventDefault(), flip(layer, i));
    });
    return node;
  }

  function range(c, i) {
    if (c === 0) return "[−1, 1]";
    if (!state.answer) return "";
    if (c === columns.length - 1) return `≥ ${number(state.answer.bound, 3)}`;
    const { lower, upper } = state.answer.layers[c - 1];
    return `[${number(lower[i], 3)}, ${number(upper[i], 3)}]`;
  }

  function scale() {
    const width = line.clientWidth, low = -2.6, high = 0.9, x = (v) => 14 + ((width - 28) * (v - low)) / (high - low);
    if (width === 0) return;
    const svg = shape("svg", { width, height: 104, viewBox: `0 0 ${width} 104` });
    const rule = (x1, x2, y, attributes) => shape("line", { x1, x2, y1: y, y2: y, ...attributes });
    svg.append(rule(x(low), x(high), 46, { class: "axis" }), shape("rect", { x: x(0), y: 38, width: x(high) - x(0), height: 16, class: "good" }));
    svg.append(shape("line", { x1: x(0), x2: x(0), y1: 32, y2: 60, class: "zero" }), word("0", 70, "range", x(0)));
    mark(svg, x(state.alone ?? state.answer.bound), 20, `alone ${number(state.alone ?? state.answer.bound, 3)}`, colour("triangle"));
    mark(svg, x(exact), 20, `truth ${number(exact)}`, colour("exact"));
    if (state.chosen.some((members) => members.length > 1)) mark(svg, x(state.answer.bound), 90, `with groups ${number(state.answer.bound, 3)}`, colour("hull"));
    line.replaceChildren(svg);
  }

  choose();
  realNetwork(root.querySelector(".real"), fail, look);
  return () => (draw(), state.answer && scale());
}

function shape(tag, attributes) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  Object.entries(attributes).forEach(([name, value]) => element.setAttribute(name, value));
  return element;
}

function word(text, y, kind, x = 0) {
  const element = shape("text", { x, y, class: kind, "text-anchor": "middle", "dominant-baseline": "central" });
  element.textContent = text;
  return element;
}

// A point on the line with its name above or below, moved inwards where it would not fit.
function mark(svg, x, y, text, style) {
  svg.append(shape("circle", { cx: x, cy: 46, r: 6.5, fill: style }));
  const half = 3.5 * text.length + 4, width = Number(svg.getAttribute("width"));
  const name = word(text, y, "range", Math.min(Math.max(x, half), width - half));
  name.style.fill = style;
  svg.append(name);
}

// A thick line through neighbours, and around those between that do not belong.
function bond(column, members) {
  return members.slice(1).reduce((d, m, i) => {
    const [x, y] = column[m], before = column[members[i]];
    return d + (m - members[i] === 1 ? ` L ${x} ${y}` : ` Q ${x + 62} ${(y + before[1]) / 2} ${x} ${y}`);
  }, `M ${column[members[0]].join(" ")}`);
}

async function realNetwork(root, fail, look) {
  const button = root.querySelector(".compute"), list = root.querySelector(".layers");
  const start = async () => {
    button.disabled = true;
    button.textContent = "bounding all layers, with pairs …";
    try {
      fillIn(await ask("layers"));
    } catch (error) {
      fail(error);
    }
    button.hidden = true;
  };
  button.addEventListener("click", start);
  if (data.answers) start();

  function fillIn({ layers, bounds, rival }) {
    const margin = `y${subscript(data.question.label)} − y${subscript(rival)}`;
    show(root.querySelector("[data-number=alpha]"), bounds[0]);
    show(root.querySelector("[data-number=krelu]"), bounds[1]);
    root.querySelector(".margin").textContent = margin;
    root.querySelector(".result").hidden = false;
    const most = Math.max(1e-12, ...layers.flatMap((l) => l.groups.map((g) => g.gain)));
    list.replaceChildren(...layers.map((layer, i) => one(layer, i, most)));
    root.dataset.drawn = 1;
  }

  function one(layer, number_, most) {
    const cells = [...layer.states].map((s, i) => make("i", { class: s, title: `neuron ${i}: ${STATES[s]}` }));
    const total = layer.groups.reduce((sum, g) => sum + g.gain, 0);
    const rows = layer.groups.map((group, i) => row(group, number_, most, cells, i >= GROUPS_FIRST));
    const [before, after] = layer.undecided;
    const words = `${layer.neurons} neurons, ${after} undecided${before > after ? ` (${before} without groups)` : ""}`;
    const more = rows.length > GROUPS_FIRST && make("button", { type: "button", class: "quiet", onclick: (event) => {
      rows.forEach((r) => (r.hidden = false));
      event.target.remove();
    } }, `all ${rows.length} groups`);
    const heading = total > 0 ? `${layer.groups.length} groups, together ${number(total, 3)}` : "no groups";
    return make("li", {}, make("h4", {}, `Layer ${number_ + 1}`), make("p", {}, words), make("div", { class: "cells" }, ...cells),
      make("p", { class: "gained" }, heading), make("ol", { class: "groups" }, ...rows), ...(more ? [more] : []));
  }

  function row({ members, gain, bounds, slopes }, layer, most, cells, hidden) {
    const light = (on) => () => members.forEach((m) => cells[m]?.classList.toggle("lit", on));
    const names = members.map((m) => `z${subscript(m)}`);
    const story = `Neurons ${members.join(" and ")} of layer ${layer + 1} of ${data.question.name}, as krelax bounds them around image ${data.question.index}.`;
    const open = () => look({ name: "real", story, bounds, slopes, names });
    const bar = make("span", { class: "bar", style: `--share: ${(100 * gain) / most}%` });
    const button = make("button", { type: "button", title: "look at this group", onclick: open, onpointerenter: light(true), onpointerleave: light(false), onfocus: light(true), onblur: light(false) },
      make("span", { class: "who" }, members.join(" · ")), bar, make("output", { "data-value": gain }, gain < 1e-3 ? "< 0.001" : number(gain, 3)));
    const element = make("li", {}, button);
    element.hidden = hidden;
    return element;
  }
}

const STATES = { u: "undecided", a: "always active", p: "never active" };
