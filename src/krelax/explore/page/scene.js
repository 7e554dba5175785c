// Solids in space on a canvas: turned by dragging and by arrow keys.

import { Canvas, cross, dot, fill, ink, number, stroke, ticks, words } from "explore/canvas";
import { Camera, faces } from "explore/solid";

const LIGHT = [0.35, 0.8, 0.5];

export class Scene {
  constructor(parent, title, ratio = 0.86) {
    this.camera = new Camera();
    this.canvas = new Canvas(parent, `${title}; arrow keys turn it`, (...on) => this.draw(...on), ratio);
    const element = this.canvas.element;
    element.tabIndex = 0;
    element.className = "turns";
    const turn = (right, up) => (this.camera.turn(right, up), this.canvas.redraw());
    element.addEventListener("pointerdown", (event) => element.setPointerCapture(event.pointerId));
    element.addEventListener("pointermove", (event) => {
      if (element.hasPointerCapture(event.pointerId)) turn(event.movementX * 0.011, event.movementY * 0.009);
    });
    element.addEventListener("dblclick", () => (this.camera.reset(), this.canvas.redraw()));
    const steps = { ArrowLeft: [-0.12, 0], ArrowRight: [0.12, 0], ArrowUp: [0, -0.09], ArrowDown: [0, 0.09] };
    element.addEventListener("keydown", (event) => {
      if (event.key === "Home") this.camera.reset();
      else if (!steps[event.key]) return;
      event.preventDefault();
      turn(...(steps[event.key] ?? [0, 0]));
    });
  }

  // What is seen: axes with names, solids {points, style, alpha} from the outermost, patches {points, style}, segments
  // {ends, style}, marks {at, style, cross}, and what is drawn last, after(context). `equal` is for one scale.
  show({ names, solids, patches = [], segments = [], marks = [], equal = false, after = () => {} }) {
    const all = solids.flatMap((solid) => solid.points);
    this.low = [0, 1, 2].map((i) => Math.min(...all.map((p) => p[i]), equal ? 0 : Infinity));
    this.high = [0, 1, 2].map((i) => Math.max(...all.map((p) => p[i])));
    const sizes = this.low.map((low, i) => this.high[i] - low || 1), most = Math.max(...sizes);
    this.size = sizes.map((s, i) => (equal ? most / 1.7 : s / (i === 2 ? 1.5 : 2)));
    this.middle = this.low.map((low, i) => (low + this.high[i]) / 2);
    const solid = (s) => ({ ...s, faces: faces(s.points.map((p) => this.inside(p))) });
    Object.assign(this, { names, solids: solids.map(solid), patches, segments, marks, after });
    this.canvas.redraw();
  }

  inside(p) {
    return p.map((x, i) => (x - this.middle[i]) / this.size[i]);
  }

  // The place on the canvas of a point of the cube.
  spot(p) {
    const [right, up] = this.camera.view(p);
    return [this.centre[0] + right * this.unit, this.centre[1] - up * this.unit];
  }

  draw(context, width, height) {
    if (!this.solids) return;
    this.unit = Math.min((width - 70) / 2.7, (height - 60) / 2.2); // turned any way, with its numbers, it fits
    this.centre = [width / 2 + 10, height / 2];
    this.axes(context);
    for (const solid of this.solids) this.side(context, solid, -1);
    for (const solid of [...this.solids].reverse()) this.side(context, solid, 1);
    const spot = (p) => this.spot(this.inside(p));
    for (const { points, style, edge } of this.patches) {
      fill(context, points.map(spot), style);
      stroke(context, points.map(spot), edge, 3, [], true);
    }
    for (const { ends, style, text } of this.segments) {
      const places = ends.map(spot);
      stroke(context, places, style, 2, [1.5, 1.5]);
      const beside = [places[0][0] + 9, (places[0][1] + places[1][1]) / 2];
      if (text) words(context, text, beside, { align: "left", style, bold: true });
    }
    for (const { at, style, crossed } of this.marks) (crossed ? cross : dot)(context, spot(at), style);
    this.after(context);
  }

  side(context, { faces: all, style, alpha = 0.2, width = 1.4 }, sign) {
    for (const { corners, normal } of all) {
      const near = this.camera.view(normal);
      if (sign * near[2] <= 0 && all.length > 1) continue;
      const light = 0.75 + 0.5 * Math.max(0, near[0] * LIGHT[0] + near[1] * LIGHT[1] + near[2] * LIGHT[2]);
      const places = corners.map((p) => this.spot(p));
      fill(context, places, style(alpha * light));
      stroke(context, places, style(sign > 0 ? 1 : 0.35), sign > 0 ? width : 1, [], true);
    }
  }

  // The floor, and an axis along each of the three edges of the box that lie most to the front.
  axes(context) {
    const ends = [this.low, this.high].map((p) => this.inside(p)), [a, b] = ends;
    const floor = [[0, 0], [1, 0], [1, 1], [0, 1]].map(([i, j]) => [ends[i][0], ends[j][1], a[2]]);
    fill(context, floor.map((p) => this.spot(p)), ink(0.035));
    const lower = (one, two) => (this.spot(one)[1] > this.spot(two)[1] ? one : two);
    const left = floor.reduce((p, q) => (this.spot(q)[0] < this.spot(p)[0] ? q : p));
    const starts = [lower(floor[0], floor[3]), lower(floor[0], floor[1]), left];
    const corner = this.spot([starts[1][0], starts[0][1], a[2]]);
    starts.forEach((start, i) => this.axis(context, i, start.with(i, a[i]), start.with(i, b[i]), corner));
  }

  axis(context, i, from, to, corner) {
    const middle = this.spot([0, 0, 0]), places = [this.spot(from), this.spot(to)];
    stroke(context, places, ink(0.35), 1);
    const centre = places[0].map((x, j) => (x + places[1][j]) / 2);
    const away = i === 2 ? [-1, 0] : outward(places, middle);
    const long = Math.hypot(places[1][0] - places[0][0], places[1][1] - places[0][1]);
    if (long < 30) return;
    for (const t of ticks(this.low[i], this.high[i], 3)) {
      const at = this.spot(from.with(i, (t - this.middle[i]) / this.size[i]));
      if (Math.hypot(at[0] - corner[0], at[1] - corner[1]) < 18) continue; // two axes meet there
      const align = i === 2 ? "right" : "center";
      words(context, number(t, 3), at.map((x, j) => x + 13 * away[j]), { size: 11, align });
    }
    const top = [places[1][0], places[1][1] - 18], aside = centre.map((x, j) => x + 30 * away[j]);
    words(context, this.names[i], i === 2 ? top : aside, { style: ink(), size: 13 });
  }
}

function outward([p, q], middle) {
  const across = [q[1] - p[1], p[0] - q[0]], size = Math.hypot(...across) || 1;
  const side = across[0] * (p[0] - middle[0]) + across[1] * (p[1] - middle[1]) > 0 ? 1 : -1;
  return across.map((x) => (side * x) / size);
}
