// The pictures of the second view: pre-activations, post-activations, and the objective over the pre-activations.
// Pairs are drawn in the plane, three neurons in space.

import { arrow, Canvas, colour, cross, dot as mark, fill, form, ink, number, plane, stroke } from "explore/canvas";
import { handle } from "explore/controls";
import { activated, dot, polygon, spanning } from "explore/geometry";
import { Scene } from "explore/scene";
import { data } from "explore/source";

const REACH = 64; // dots on the page for a weight of one
const FAR = 0.42; // the same in space, where the cube has half a width of one
const LEAST_GAP = 1e-9;

export class Panels {
  // aim(direction) is told where the arrow is pulled.
  constructor(root, aim) {
    const place = (selector) => root.querySelector(selector);
    this.before = {
      flat: new Canvas(place(".before .flat"), "Pre-activations", (...on) => this.drawBefore(...on)),
      solid: new Scene(place(".before .solid"), "Pre-activations"),
    };
    this.behind = {
      flat: new Canvas(place(".behind .flat"), "Post-activations", (...on) => this.drawBehind(...on)),
      solid: new Scene(place(".behind .solid"), "Post-activations"),
    };
    this.roof = new Scene(place(".roof .solid"), "The objective over the pre-activations");
    this.tip = handle("Objective; arrow keys turn it", (at) => {
      if (this.pull) aim(this.pull(at.map((x, i) => x - this.corner[i])));
    });
    place(".behind").append(this.tip.element);
  }

  // Show an answer {points, largest, phantom, real, best, facet} for a direction, with the chosen sets `shown`.
  show(group) {
    this.group = group;
    const { answer, direction, shown, slopes } = group, k = direction.length;
    const z = answer.points.map((p) => p.slice(0, k));
    this.sets = shown.map((name) => ({ name, points: spanning(z, slopes, name), style: paint(name, k) }));
    this.hull = paint("hull", k);
    this.open = answer.largest.triangle - answer.largest.hull > LEAST_GAP;
    if (k === 2) {
      this.before.flat.redraw();
      this.behind.flat.redraw();
      this.showRoof();
    } else {
      this.showBefore();
      this.showBehind();
    }
  }

  has(name) {
    return this.group.shown.includes(name);
  }

  get flat() {
    return this.group?.direction.length === 2;
  }

  drawBefore(context, width, height) {
    if (!this.flat) return;
    const { answer, names } = this.group, corners = polygon(answer.points.map((p) => p.slice(0, 2)));
    const [x, y] = [0, 1].map((i) => corners.map((p) => p[i])).map((v) => [Math.min(...v), Math.max(...v)]);
    const box = [[x[0], y[0]], [x[1], y[0]], [x[1], y[1]], [x[0], y[1]]];
    const { place } = plane(context, width, height, box, names);
    stroke(context, box.map(place), colour("interval"), 1.8, data.looks.interval.dash, true);
    fill(context, corners.map(place), ink(0.1));
    stroke(context, corners.map(place), ink(), 2.2, [], true);
    if (this.has("triangle")) cross(context, place(answer.phantom), colour("triangle"));
  }

  showBefore() {
    const { answer, names } = this.group, points = answer.points.map((p) => p.slice(0, 3));
    const solids = [{ points, style: ink, alpha: 0.1 }];
    const marks = this.has("triangle") ? [this.phantom(answer.phantom.slice(0, 3))] : [];
    this.before.solid.show({ names, solids, marks, equal: true });
  }

  phantom(at) {
    return { at, style: colour("triangle"), crossed: true };
  }

  // Two roofs above one floor, the facet below the phantom, and how far it is from there to the phantom.
  showRoof() {
    const { answer, direction, names, posts } = this.group, { phantom, real, facet, largest, points } = answer;
    const over = (p) => [p[0], p[1], dot(p.slice(2), direction)], z = phantom.slice(0, 2);
    const solids = this.sets.map((set) => ({ ...set, points: set.points.map(over) }));
    const patches = [], segments = [], marks = [];
    if (this.has("hull") && this.open) {
      const corners = onPlane(points.map(over), facet);
      if (corners.length > 2) patches.push({ points: corners, style: this.hull(0.4), edge: this.hull(1) });
    }
    if (this.has("triangle") && this.open) {
      const top = [...z, largest.triangle], foot = [...z, facet.at];
      const text = number(largest.triangle - facet.at, 3);
      segments.push({ ends: [top, foot], style: colour("triangle"), text });
      const reached = { at: [...z, dot(real, direction)], style: ink() };
      marks.push(this.phantom(top), { at: foot, style: this.hull(1) }, reached);
    }
    if (!solids.length) solids.push({ points: points.map(over), style: ink, alpha: 0.05 });
    this.roof.show({ names: [...names, form(direction, posts)], solids, patches, segments, marks });
  }

  drawBehind(context, width, height) {
    if (!this.flat) return;
    const { answer, direction, posts, slopes } = this.group, { phantom, best, largest } = answer;
    const sets = this.sets.map((set) => ({ ...set, corners: polygon(set.points.map((p) => p.slice(2))) }));
    const exact = parts(answer.points, slopes);
    const everything = [...sets.flatMap((set) => set.corners), ...exact.flat()];
    const view = plane(context, width, height, everything, posts);
    for (const { corners, style } of sets) fill(context, corners.map(view.place), style(0.1));
    for (const part of exact) {
      fill(context, part.map(view.place), ink(0.12));
      stroke(context, part.map(view.place), ink(), 4.5, [], true);
    }
    for (const { name, corners, style } of sets) {
      stroke(context, corners.map(view.place), style(1), 2.2, data.looks[name].dash, true);
      if (name === "triangle" || name === "hull") supporting(context, view, direction, largest[name], style(0.75));
    }
    if (this.has("hull")) mark(context, view.place(best.slice(2)), this.hull(1), 5);
    if (this.has("triangle") && this.open) cross(context, view.place(phantom.slice(2)), colour("triangle"), 6.5);
    const from = view.place([0, 0]), to = [from[0] + REACH * direction[0], from[1] - REACH * direction[1]];
    arrow(context, from, to, ink());
    this.put(to, this.behind.flat, ([x, y]) => [(x - from[0]) / REACH, (from[1] - y) / REACH]);
  }

  showBehind() {
    const { answer, posts, direction } = this.group, scene = this.behind.solid;
    const behind = (p) => p.slice(3);
    const solids = this.sets.map((set) => ({
      ...set,
      points: set.points.map(behind),
      alpha: set.name === "hull" ? 0.3 : 0.13,
    }));
    if (!solids.length) solids.push({ points: answer.points.map(behind), style: ink, alpha: 0.05 });
    const marks = [];
    if (this.has("triangle") && this.open) marks.push(this.phantom(behind(answer.phantom)));
    if (this.has("hull")) marks.push({ at: behind(answer.best), style: this.hull(1) });
    const after = (context) => this.arrowInSpace(context, scene, direction);
    scene.show({ names: posts, solids, marks, equal: true, after });
  }

  // Pulled, the tip stays as near to the eye as it is.
  arrowInSpace(context, scene, direction) {
    const from = scene.inside([0, 0, 0]), to = from.map((x, i) => x + FAR * direction[i]);
    const near = scene.camera.view(to)[2];
    arrow(context, scene.spot(from), scene.spot(to), ink());
    this.put(scene.spot(to), scene.canvas, ([x, y]) => {
      const seen = [(x - scene.centre[0]) / scene.unit, (scene.centre[1] - y) / scene.unit, near];
      return scene.camera.back(seen).map((t, i) => (t - from[i]) / FAR);
    });
  }

  // The handle at a place of a canvas, which lies in the figure below its title; pull(place) is the direction there.
  put([x, y], { element }, pull) {
    const inside = (t, size) => Math.min(size - 8, Math.max(8, t));
    this.corner = [element.offsetLeft, element.offsetTop];
    this.pull = pull;
    this.tip.put([inside(x, element.clientWidth) + this.corner[0], inside(y, element.clientHeight) + this.corner[1]]);
  }
}

const paint = (name, k) => (alpha) => colour(name === "hull" && k === 3 ? "krelu3" : name, alpha);

// The corners of a face of a roof: points on the plane of a facet.
function onPlane(points, { slope, offset }) {
  const height = (p) => dot(slope, p.slice(0, 2)) + offset;
  const level = points.filter((p) => Math.abs(height(p) - p[2]) < 1e-6 * (1 + Math.abs(p[2])));
  return polygon(level.map((p) => p.slice(0, 2))).map((p) => [...p, height(p)]);
}

// The exact post-activations, sign pattern by sign pattern.
function parts(points, slopes) {
  const signs = [[-1, -1], [-1, 1], [1, -1], [1, 1]];
  const own = (s) => points.filter((p) => p[0] * s[0] >= -1e-9 && p[1] * s[1] >= -1e-9);
  const found = signs.map((s) => polygon(own(s).map((p) => activated(p.slice(0, 2), slopes))));
  return found.filter((part) => part.length);
}

// The line where the objective has a value, across the panel.
function supporting(context, { place, low, high }, direction, value, style) {
  const size = dot(direction, direction), foot = direction.map((x) => (x * value) / size);
  const far = Math.hypot(high[0] - low[0], high[1] - low[1]) / Math.sqrt(size);
  const ends = [-far, far].map((t) => place([foot[0] - t * direction[1], foot[1] + t * direction[0]]));
  const [left, top] = place([low[0], high[1]]), [right, bottom] = place([high[0], low[1]]);
  context.save();
  context.beginPath();
  context.rect(left, top, right - left, bottom - top);
  context.clip();
  stroke(context, ends, style, 1.4, [4, 3]);
  context.restore();
}
