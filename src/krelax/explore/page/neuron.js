// The first view: one neuron, and what each relaxation knows of it.

import { affine, Canvas, colour, fill, ink, number, plane, stroke } from "explore/canvas";
import { make, show, slider, toggle } from "explore/controls";
import { asker, data } from "explore/source";

const SETS = { interval: false, zonotope: false, planar: false, alpha: false, triangle: true };
const WORDS = {
  interval: "a box: forgets z altogether (IBP)",
  zonotope: "a band: one slope for both sides (DeepZ)",
  planar: "two lines, the lower one by area (CROWN, DeepPoly)",
  alpha: "two lines, the slope of the lower one is yours (α-CROWN)",
  triangle: "the convex hull: the best for one neuron",
};

export function neuronView(root, fail) {
  const state = { lower: -1, upper: 2, slope: 0.4, shown: { ...SETS }, answer: null };
  const canvas = new Canvas(root.querySelector(".picture"), "Pre-activation against post-activation", draw, 0.72);
  const request = asker("neuron", answered, fail);
  const ask = () => request({ lower: state.lower, upper: state.upper, slope: state.slope });

  const change = (name) => (x) => {
    state[name] = x;
    if (state.lower >= state.upper) {
      state.lower = Math.min(state.lower, 2.9);
      state.upper = Math.max(state.upper, -2.9);
      if (name === "lower") upper.set((state.upper = Math.max(state.upper, x + 0.1)));
      else lower.set((state.lower = Math.min(state.lower, x - 0.1)));
    }
    ask();
  };
  const lower = slider("lower l", -3, 2.9, 0.05, state.lower, change("lower"));
  const upper = slider("upper u", -2.9, 3, 0.05, state.upper, change("upper"));
  const slope = slider("slope α", 0, 1, 0.01, state.slope, change("slope"));
  root.querySelector(".sliders").append(lower.element, upper.element, slope.element);

  const rows = {};
  for (const name of Object.keys(SETS)) {
    const words = make("small", {}, WORDS[name]), formula = make("small", { class: "formula" });
    rows[name] = toggle(name, state.shown[name], (on) => ((state.shown[name] = on), canvas.redraw()));
    rows[name].formula = formula;
    root.querySelector(".sets").append(make("li", {}, rows[name].element, words, formula));
  }

  function answered(answer) {
    state.answer = answer;
    for (const [name, row] of Object.entries(rows)) {
      const found = answer.sets[name];
      show(row.value, Math.max(0, found.area));
      row.formula.textContent = found.upper ? `${line(found.lower)} ≤ a ≤ ${line(found.upper)}` : "";
    }
    root.querySelector(".verdict").textContent = verdict();
    root.dataset.drawn = Number(root.dataset.drawn ?? 0) + 1;
    canvas.redraw();
  }

  function verdict() {
    if (state.lower >= 0) return "Always active: a = z. Every relaxation but the box is exact, and costs nothing.";
    if (state.upper <= 0) return "Always inactive: a = 0. Every relaxation is exact.";
    const triangle = number(Math.max(0, state.answer.sets.triangle.area), 3);
    return `Undecided: z may have either sign. Even the best convex set leaves an area of ${triangle} to invent a in.`;
  }

  function draw(context, width, height) {
    if (!state.answer) return;
    const shown = Object.keys(SETS).filter((name) => state.shown[name]), sets = state.answer.sets;
    const kink = Math.min(Math.max(0, state.lower), state.upper);
    const graph = [state.lower, kink, state.upper].map((z) => [z, Math.max(z, 0)]);
    const lowest = Math.min(0, ...shown.flatMap((name) => sets[name].corners.map((p) => p[1])));
    const frame = [[-3, 0], [3, 3], [0, lowest]];
    const { place } = plane(context, width, height, frame, ["z", "a"], false);
    for (const name of shown) {
      const corners = sets[name].corners.map(place);
      fill(context, corners, colour(name, 0.17));
      stroke(context, corners, colour(name), 2, data.looks[name].dash, true);
    }
    stroke(context, [[-3, 0], [0, 0], [3, 3]].map(place), ink(0.22), 1.5);
    stroke(context, graph.map(place), ink(), 3.4);
  }

  ask();
}

const line = ([slope, intercept]) => affine([slope], ["z"], intercept);
