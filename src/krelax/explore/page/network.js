// The third view: a network small enough to see through, and the real one.

import { affine, colour, number } from "explore/canvas";
import { make, show } from "explore/controls";
import { realNetwork, subscript } from "explore/real";
import { asker, data } from "explore/source";

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
    root.querySelector(".small .verdict").textContent = verdict(answer.bound);
    root.querySelector(".small").classList.toggle("proven", answer.bound > 0);
    root.dataset.drawn = Number(root.dataset.drawn ?? 0) + 1;
    draw();
    scale();
  }

  function verdict(bound) {
    const least = number(bound, 3);
    if (bound > 0) return `Proven: whatever the input, the output is at least ${least}, so it is positive.`;
    if (state.chosen.some((members) => members.length === 1))
      return "One neuron alone is no group: choose another of the same layer.";
    return `Not proven: for all that is known, the output may be as low as ${least}. The truth is ${number(exact)}.`;
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

  const edge = ([x1, y1], [x2, y2], w) => ({
    x1, y1, x2, y2, class: w < 0 ? "edge negative" : "edge", "stroke-width": 0.8 + 0.7 * Math.abs(w),
  });

  function neuron(c, i, [x, y]) {
    const layer = c - 1, inner = c > 0 && c < columns.length - 1;
    const node = shape("g", { class: "node", transform: `translate(${x} ${y})` });
    node.append(shape("circle", { r: 20 }), word(names[c][i], 0, "name"));
    node.append(word(range(c, i), 35, "range"));
    if (!inner) return node;
    const attributes = {
      role: "button", tabindex: 0, "aria-label": `neuron ${names[c][i]}`,
      "aria-pressed": state.chosen[layer].includes(i), "data-neuron": `${layer}${i}`,
    };
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

  // The output's line: what is proven with each neuron alone, with the groups, and the truth.
  function scale() {
    const width = line.clientWidth, low = -2.6, high = 0.9, alone = state.alone ?? state.answer.bound;
    const x = (v) => 14 + ((width - 28) * (v - low)) / (high - low);
    if (width === 0) return;
    const svg = shape("svg", { width, height: 104, viewBox: `0 0 ${width} 104` });
    svg.append(
      shape("line", { x1: x(low), x2: x(high), y1: 46, y2: 46, class: "axis" }),
      shape("rect", { x: x(0), y: 38, width: x(high) - x(0), height: 16, class: "good" }),
      shape("line", { x1: x(0), x2: x(0), y1: 32, y2: 60, class: "zero" }),
      word("0", 70, "range", x(0)),
    );
    mark(svg, x(alone), 20, `alone ${number(alone, 3)}`, colour("triangle"));
    mark(svg, x(exact), 20, `truth ${number(exact)}`, colour("exact"));
    if (state.chosen.some((members) => members.length > 1))
      mark(svg, x(state.answer.bound), 90, `with groups ${number(state.answer.bound, 3)}`, colour("hull"));
    line.replaceChildren(svg);
  }

  choose();
  realNetwork(root.querySelector(".real"), fail, look);
  new ResizeObserver(() => state.answer && scale()).observe(line);
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
