// The second view: a group of two or three neurons, before and behind the activation.

import { affine, form, number } from "explore/canvas";
import { make, show, slider, span, toggle } from "explore/controls";
import { octahedral } from "explore/geometry";
import { Panels } from "explore/panels";
import { asker, data } from "explore/source";

const SETS = { interval: false, zonotope: false, planar: false, triangle: true, hull: true };
const KINDS = ["", "Each neuron alone", "Two together", "Three together"];
const HEAVIEST = 2; // weights of the objective, in steps of a twentieth

const nonzeros = (row) => row.filter((c) => c !== 0).length;

export function groupView(root, fail) {
  const find = (selector) => root.querySelector(selector);
  const state = { shown: { ...SETS }, answer: null };
  const request = asker("group", answered, fail);
  const panels = new Panels(root, aim);
  const rows = {}, choice = find("select");
  for (const name of Object.keys(SETS)) {
    rows[name] = toggle(name, SETS[name], (on) => ((state.shown[name] = on), draw()));
    find(".sets").append(rows[name].element);
  }
  data.examples.forEach((example, i) => choice.append(make("option", { value: i }, example.name)));
  choice.addEventListener("change", () => load(data.examples[choice.value]));
  find(".forget").addEventListener("click", forget);
  find(".reset").addEventListener("click", () => load(state.example));

  // Begin with a group {story, bounds, slopes, names}.
  function load(example) {
    const { bounds, slopes, names } = example, k = slopes.length, place = data.examples.indexOf(example);
    const posts = names.map((name, i) => (slopes[i] === 1 ? name : name.replace("z", "a")));
    const direction = slopes.map(() => 1);
    Object.assign(state, { example, k, bounds: [...bounds], slopes, names, posts, direction, answer: null });
    state.rows = octahedral(k);
    root.dataset.size = k;
    find(".story").textContent = example.story;
    choice.value = place < 0 ? "" : place;
    rows.hull.become(k === 2 ? "hull" : "krelu3");
    spans();
    weights();
    ask();
  }

  // What the bounds of single members say of sums, and nothing else.
  function forget() {
    const unit = (i, sign) => state.bounds[state.rows.findIndex((row) => row[i] === sign && nonzeros(row) === 1)];
    state.bounds = state.rows.map((row) => row.reduce((sum, c, i) => sum + (c ? unit(i, c) : 0), 0));
    spans();
    ask();
  }

  // A slider for each form; those of one member and of pairs are open.
  function spans() {
    const sizes = [...KINDS.keys()].filter((size) => size && size <= state.k);
    find(".spans").replaceChildren(...sizes.map((size) => {
      const open = state.k === 2 || size === 1;
      return make("details", { open }, make("summary", {}, KINDS[size]), ...spansOf(size));
    }));
  }

  function spansOf(size) {
    const largest = Math.max(...state.bounds.filter((_, i) => nonzeros(state.rows[i]) === size).map(Math.abs), 1e-6);
    const unit = 10 ** Math.floor(Math.log10(largest) - 1), reach = Math.ceil((1.5 * largest) / unit) * unit;
    // the first member first, and sums before differences
    const places = [...state.rows.keys()].reverse();
    return places.filter((i) => state.rows[i].find((c) => c) > 0 && nonzeros(state.rows[i]) === size).map((i) => {
      const opposite = state.rows.length - 1 - i;
      const changed = ([low, high]) => ((state.bounds[opposite] = -low), (state.bounds[i] = high), ask());
      const name = form(state.rows[i], state.names), step = unit > reach / 40 ? unit / 10 : unit;
      return span(name, -state.bounds[opposite], state.bounds[i], reach, step, changed);
    });
  }

  function weights() {
    state.weights = state.direction.map((weight, i) =>
      slider(state.posts[i], -HEAVIEST, HEAVIEST, 0.05, weight, (x) => ((state.direction[i] = x), ask())),
    );
    find(".weights").replaceChildren(...state.weights.map((w) => w.element));
  }

  function aim(direction) {
    const rounded = direction.map((x) => Math.max(-HEAVIEST, Math.min(HEAVIEST, Math.round(20 * x) / 20)));
    if (Math.hypot(...rounded) < 0.2) return;
    rounded.forEach((x, i) => state.weights[i].set((state.direction[i] = x)));
    ask();
  }

  function ask() {
    request({ bounds: [...state.bounds], slopes: state.slopes, direction: [...state.direction] });
  }

  function answered(answer, given) {
    if (given.direction.length !== state.k) return; // to a question about another group
    root.classList.toggle("empty", answer.empty);
    state.answer = answer.empty ? null : { answer, direction: given.direction };
    if (!answer.empty) say(answer, given.direction);
    root.dataset.drawn = Number(root.dataset.drawn ?? 0) + 1;
    draw();
  }

  function draw() {
    if (!state.answer) return;
    const { slopes, names, posts } = state, shown = Object.keys(SETS).filter((name) => state.shown[name]);
    panels.show({ ...state.answer, slopes, names, posts, shown });
  }

  function say(answer, direction) {
    const { largest, facet } = answer, gap = Math.max(0, largest.triangle - largest.hull);
    const goal = form(direction, state.posts), tops = { triangle: largest.triangle, hull: largest.hull, gap };
    for (const name of Object.keys(SETS)) show(rows[name].value, largest[name]);
    for (const [name, value] of Object.entries(tops)) show(find(`[data-top=${name}]`), value);
    root.querySelectorAll(".goal").forEach((element) => (element.textContent = goal));
    root.classList.toggle("closed", gap < 1e-9);
    find(".cut").hidden = gap < 1e-9;
    find(".phantom").textContent = story(answer);
    find(".facet").textContent = `${goal} ≤ ${affine(facet.slope, state.names, facet.offset)}`;
    show(find("[data-top=facet]"), facet.at);
    show(find("[data-top=wanted]"), largest.triangle);
  }

  function story({ phantom, real }) {
    const list = (values) => `(${values.join(", ")})`, point = (p) => list(p.map((x) => number(x, 3)));
    const [z, a] = [phantom.slice(0, state.k), phantom.slice(state.k)];
    return `At ${list(state.names)} = ${point(z)} the triangles allow ${list(state.posts)} = ${point(a)}, but the
      network computes ${point(real)}. No input gets there: the point is a phantom.`;
  }

  load(data.examples[0]);
  return load;
}
