// The second view: a group of two or three neurons, before and behind the activation.

import { affine, arrow, Canvas, colour, cross, dot as mark, fill, form, ink, label, number, plane, stroke } from "explore/canvas";
import { handle, make, show, slider, span, toggle } from "explore/controls";
import { activated, dot, octahedral, polygon, spanning } from "explore/geometry";
import { Scene } from "explore/scene";
import { asker, data } from "explore/source";

const SETS = { interval: false, zonotope: false, planar: false, triangle: true, hull: true };
const KINDS = ["", "Each neuron alone", "Two together", "Three together"];
const REACH = 64; // dots on the page for a weight of one

export function groupView(root, fail) {
  const find = (selector) => root.querySelector(selector);
  const state = { shown: { ...SETS }, answer: null, given: null };
  const request = asker("group", answered, fail);
  const before = { flat: new Canvas(find(".before .flat"), "Pre-activations", drawBefore), solid: new Scene(find(".before .solid"), "Pre-activations") };
  const roof = new Scene(find(".roof .solid"), "The objective over the pre-activations");
  const behind = { flat: new Canvas(find(".behind .flat"), "Post-activations", drawBehind), solid: new Scene(find(".behind .solid"), "Post-activations") };
  const tip = handle("Objective; arrow keys turn it", pulled);
  find(".behind").append(tip.element);
  const rows = {};
  for (const name of Object.keys(SETS)) {
    rows[name] = toggle(name, SETS[name], (on) => ((state.shown[name] = on), draw()));
    find(".sets").append(rows[name].element);
  }
  const choice = find("select");
  data.examples.forEach((example, i) => choice.append(make("option", { value: i }, example.name)));
  choice.addEventListener("change", () => load(data.examples[choice.value]));
  find(".forget").addEventListener("click", () => load({ ...state.example, bounds: alone(state.bounds) }, state.direction, false));
  find(".reset").addEventListener("click", () => load(state.example));

  // Begin with a group; `fresh` is false for a change of the group that is looked at.
  function load(example, direction = example.slopes.map(() => 1), fresh = true) {
    if (fresh) state.example = example;
    const { bounds, slopes, names } = example, k = slopes.length;
    Object.assign(state, { bounds: [...bounds], slopes, names, k, rows: octahedral(k), direction: [...direction] });
    state.posts = names.map((name, i) => (slopes[i] === 1 ? name : name.replace("z", "a")));
    root.dataset.size = k;
    find(".story").textContent = state.example.story;
    const place = data.examples.indexOf(state.example);
    choice.value = place < 0 ? "" : place;
    rows.hull.rename(label(k === 2 ? "hull" : "krelu3"));
    spans();
    weights();
    ask();
  }

  function spans() {
    const parts = KINDS.map(() => []);
    const reach = (size) => Math.ceil(10 * 1.5 * Math.max(...state.bounds.filter((_, i) => nonzeros(i) === size).map(Math.abs))) / 10;
    // the first member first, and sums before differences
    [...state.rows.keys()].reverse().forEach((i) => {
      const row = state.rows[i];
      if (row.find((c) => c) < 0) return;
      const opposite = state.rows.length - 1 - i, size = nonzeros(i);
      const changed = ([low, high]) => ((state.bounds[opposite] = -low), (state.bounds[i] = high), ask());
      const range = Math.max(reach(size), 1e-3), step = 10 ** Math.floor(Math.log10(range / 40));
      parts[size].push(span(form(row, state.names), -state.bounds[opposite], state.bounds[i], range, step, changed));
    });
    const open = (size) => state.k === 2 || size === 1;
    find(".spans").replaceChildren(
      ...parts.flatMap((own, size) =>
        own.length ? [make("details", { open: open(size) }, make("summary", {}, KINDS[size]), ...own)] : [],
      ),
    );
  }

  const nonzeros = (i) => state.rows[i].filter((c) => c).length;

  // The same with what the bounds of single members say of sums, and nothing else.
  function alone(bounds) {
    const unit = (i, sign) => bounds[state.rows.findIndex((row) => row[i] === sign && row.filter((c) => c).length === 1)];
    return state.rows.map((row) => row.reduce((sum, c, i) => sum + (c ? unit(i, c) : 0), 0));
  }

  function weights() {
    state.weights = state.direction.map((weight, i) =>
      slider(state.posts[i], -2, 2, 0.05, weight, (x) => ((state.direction[i] = x), ask())),
    );
    find(".weights").replaceChildren(...state.weights.map((w) => w.element));
  }

  function aim(direction) {
    const rounded = direction.map((x) => Math.max(-2, Math.min(2, Math.round(20 * x) / 20)));
    if (Math.hypot(...rounded) < 0.2) return;
    rounded.forEach((x, i) => state.weights[i].set((state.direction[i] = x)));
    ask();
  }

  function ask() {
    request({ bounds: [...state.bounds], slopes: state.slopes, direction: [...state.direction] });
  }

  function answered(answer, given) {
    if (given.direction.length !== state.k) return;
    Object.assign(state, { answer, given });
    root.classList.toggle("empty", answer.empty);
    if (!answer.empty) say(answer, given.direction);
    root.dataset.drawn = Number(root.dataset.drawn ?? 0) + 1;
    draw();
  }

  function say({ largest, phantom, real, facet }, direction) {
    const k = state.k, gap = Math.max(0, largest.triangle - largest.hull), goal = form(direction, state.posts);
    for (const name of Object.keys(SETS)) show(rows[name].value, largest[name]);
    const tops = { triangle: largest.triangle, hull: largest.hull, gap };
    for (const [name, value] of Object.entries(tops)) show(find(`[data-top=${name}]`), value);
    root.querySelectorAll(".goal").forEach((element) => (element.textContent = goal));
    root.classList.toggle("closed", gap < 1e-9);
    const points = [phantom.slice(0, k), phantom.slice(k), real].map((p) => `(${p.map((x) => number(x, 3)).join(", ")})`);
    const behindNames = `(${state.posts.join(", ")})`;
    find(".phantom").textContent = gap < 1e-9 ? "" :
      `At (${state.names.join(", ")}) = ${points[0]} the triangles allow ${behindNames} = ${points[1]}, but the network computes ${points[2]}. No input gets there: the point is a phantom.`;
    find(".facet").textContent = `${goal} ≤ ${affine(facet.slope, state.names, facet.offset)}`;
    show(find("[data-top=facet]"), facet.at);
    show(find("[data-top=wanted]"), largest.triangle);
    find(".cut").hidden = gap < 1e-9;
  }

  function shown() {
    const z = state.answer.points.map((p) => p.slice(0, state.k));
    return Object.keys(SETS).filter((name) => state.shown[name]).map((name) => [name, spanning(z, state.slopes, name)]);
  }

  const paint = (name) => (alpha) => colour(name === "hull" && state.k === 3 ? "krelu3" : name, alpha);

  function draw() {
    if (!state.answer || state.answer.empty) return;
    tip.element.hidden = false;
    if (state.k === 2) {
      before.flat.redraw();
      behind.flat.redraw();
      showRoof();
    } else {
      showBefore();
      showBehind();
    }
  }

  function drawBefore(context, width, height) {
    if (!state.answer || state.answer.empty || state.k !== 2) return;
    const { points, phantom } = state.answer;
    const ends = [0, 1].map((i) => points.map((p) => p[i])).map((v) => [Math.min(...v), Math.max(...v)]);
    const box = [[0, 0], [1, 0], [1, 1], [0, 1]].map(([i, j]) => [ends[0][i], ends[1][j]]);
    const { place } = plane(context, width, height, box, state.names);
    stroke(context, box.map(place), colour("interval"), 1.8, data.looks.interval.dash, true);
    const corners = polygon(points.map((p) => p.slice(0, 2))).map(place);
    fill(context, corners, ink(0.1));
    stroke(context, corners, ink(), 2.2, [], true);
    if (state.shown.triangle) cross(context, place(phantom), colour("triangle"));
  }

  function showBefore() {
    const points = state.answer.points.map((p) => p.slice(0, 3));
    const marks = state.shown.triangle ? [{ at: state.answer.phantom.slice(0, 3), style: colour("triangle"), crossed: true }] : [];
    before.solid.show({ names: state.names, solids: [{ points, style: ink, alpha: 0.1 }], marks, equal: true });
  }

  function showRoof() {
    const { phantom, real, facet, points, largest } = state.answer, direction = state.given.direction;
    const over = (p) => [p[0], p[1], dot(p.slice(2), direction)], z = phantom.slice(0, 2);
    const solids = shown().map(([name, all]) => ({ points: all.map(over), style: paint(name) }));
    const patches = [], segments = [], marks = [], open = largest.triangle - largest.hull > 1e-9;
    if (state.shown.hull && open) {
      const level = points.map(over).filter((p) => Math.abs(dot(facet.slope, p.slice(0, 2)) + facet.offset - p[2]) < 1e-6 * (1 + Math.abs(p[2])));
      const flat = polygon(level.map((p) => p.slice(0, 2))).map((p) => [...p, dot(facet.slope, p) + facet.offset]);
      if (flat.length > 2) patches.push({ points: flat, style: paint("hull")(0.4), edge: paint("hull")(1) });
    }
    if (state.shown.triangle && open) {
      const top = [...z, largest.triangle], foot = [...z, facet.at];
      segments.push({ ends: [top, foot], style: colour("triangle"), text: number(largest.triangle - facet.at, 3) });
      marks.push({ at: top, style: colour("triangle"), crossed: true }, { at: foot, style: paint("hull")(1) });
      marks.push({ at: [...z, dot(real, direction)], style: ink() });
    }
    if (!solids.length) solids.push({ points: points.map(over), style: ink, alpha: 0.05 });
    roof.show({ names: [...state.names, form(direction, state.posts)], solids, patches, segments, marks });
  }

  function drawBehind(context, width, height) {
    if (!state.answer || state.answer.empty || state.k !== 2) return;
    const { phantom, best, largest, points } = state.answer, direction = state.given.direction;
    const sets = shown().map(([name, all]) => [name, polygon(all.map((p) => p.slice(2)))]);
    const parts = pieces(points);
    const view = plane(context, width, height, [...sets.flatMap(([, corners]) => corners), ...parts.flat()], state.posts);
    for (const [name, corners] of sets) fill(context, corners.map(view.place), paint(name)(0.1));
    for (const part of parts) {
      fill(context, part.map(view.place), ink(0.12));
      stroke(context, part.map(view.place), ink(), 4.5, [], true);
    }
    for (const [name, corners] of sets) stroke(context, corners.map(view.place), paint(name)(1), 2.2, data.looks[name].dash, true);
    for (const name of ["triangle", "hull"]) if (state.shown[name]) supporting(context, view, direction, largest[name], paint(name)(0.75));
    if (state.shown.hull) mark(context, view.place(best.slice(2)), paint("hull")(1), 5);
    if (state.shown.triangle && largest.triangle - largest.hull > 1e-9) cross(context, view.place(phantom.slice(2)), colour("triangle"), 6.5);
    const from = view.place([0, 0]), to = from.map((x, i) => x + (i ? -REACH : REACH) * state.direction[i]);
    state.pull = ([x, y]) => [(x - from[0]) / REACH, (from[1] - y) / REACH];
    arrow(context, from, to, ink(), 2.4);
    tip.put(within(to, width, height, behind.flat.element));
  }

  function showBehind() {
    const { points, phantom, best, largest } = state.answer, scene = behind.solid;
    const solids = shown().map(([name, all]) => ({ points: all.map((p) => p.slice(3)), style: paint(name), alpha: name === "hull" ? 0.3 : 0.13 }));
    if (!solids.length) solids.push({ points: points.map((p) => p.slice(3)), style: ink, alpha: 0.05 });
    const marks = [];
    if (state.shown.triangle && largest.triangle - largest.hull > 1e-9) marks.push({ at: phantom.slice(3), style: colour("triangle"), crossed: true });
    if (state.shown.hull) marks.push({ at: best.slice(3), style: paint("hull")(1) });
    scene.show({ names: state.posts, solids, marks, equal: true, after });
    function after(context) {
      const from = scene.inside([0, 0, 0]), end = from.map((x, i) => x + 0.42 * state.direction[i]);
      arrow(context, scene.spot(from), scene.spot(end), ink(), 2.4);
      const near = scene.camera.view(end)[2], { clientWidth, clientHeight } = scene.canvas.element;
      tip.put(within(scene.spot(end), clientWidth, clientHeight, scene.canvas.element));
      state.pull = ([x, y]) => {
        const seen = [(x - scene.centre[0]) / scene.unit, (scene.centre[1] - y) / scene.unit, near];
        return scene.camera.back(seen).map((t, i) => (t - from[i]) / 0.42);
      };
    }
  }

  // The handle is placed in the figure, in which the canvas lies below the title.
  function within([x, y], width, height, canvas) {
    state.corner = [canvas.offsetLeft, canvas.offsetTop];
    return [Math.min(width - 8, Math.max(8, x)) + canvas.offsetLeft, Math.min(height - 8, Math.max(8, y)) + canvas.offsetTop];
  }

  function pulled(place) {
    if (state.pull) aim(state.pull(place.map((x, i) => x - state.corner[i])));
  }

  function pieces(points) {
    const sides = [[-1, -1], [-1, 1], [1, -1], [1, 1]];
    const own = (s) => points.filter((p) => p[0] * s[0] >= -1e-9 && p[1] * s[1] >= -1e-9);
    return sides.map((s) => polygon(own(s).map((p) => activated(p.slice(0, 2), state.slopes)))).filter((part) => part.length);
  }

  load(data.examples[0]);
  return load;
}

// The line where the objective has a value, across the panel.
function supporting(context, { place, low, high }, direction, value, style) {
  const size = dot(direction, direction), foot = direction.map((x) => (x * value) / size);
  const far = Math.hypot(high[0] - low[0], high[1] - low[1]) / Math.sqrt(size);
  const ends = [-far, far].map((t) => place([foot[0] - t * direction[1], foot[1] + t * direction[0]]));
  const corner = [place([low[0], high[1]]), place([high[0], low[1]])];
  context.save();
  context.beginPath();
  context.rect(corner[0][0], corner[0][1], corner[1][0] - corner[0][0], corner[1][1] - corner[0][1]);
  context.clip();
  stroke(context, ends, style, 1.4, [4, 3]);
  context.restore();
}
