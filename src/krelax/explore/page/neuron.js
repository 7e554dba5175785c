// The first view: one neuron, and what each relaxation knows of it.

import { affine, Canvas, colour, fill, ink, label, number, plane, stroke } from "explore/canvas";
import { make, show, slider, toggle } from "explore/controls";
import { sampled } from "explore/geometry";
import { asker, data } from "explore/source";

const SETS = { interval: false, zonotope: false, planar: false, alpha: false, triangle: true };
const WORDS = {
  interval: "a box: forgets z altogether (IBP)",
  zonotope: "a band: one slope for both sides (DeepZ)",
  planar: "two lines, the lower one by area (CROWN, DeepPoly)",
  alpha: "two lines, the slope of the lower one is yours (α-CROWN)",
  triangle: "the convex hull: the best for one neuron",
};
// What is said of curves, which have no kink.
const OF_CURVES = { planar: "two lines, the best ones in the middle or through an end (CROWN)" };

export function neuronView(root, fail) {
  const state = { lower: -1, upper: 2, slope: 0.4, activation: "ReLU", shown: { ...SETS }, answer: null };
  const canvas = new Canvas(root.querySelector(".picture"), "Pre-activation against post-activation", draw, 0.72);
  const request = asker("neuron", answered, fail);
  const ask = () => {
    const { lower, upper, slope, activation } = state;
    request({ lower, upper, slope, activation });
  };

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
    Object.assign(rows[name], { formula, words });
    root.querySelector(".sets").append(make("li", {}, rows[name].element, words, formula));
  }

  const choice = root.querySelector("select");
  for (const name of Object.keys(data.curves)) choice.append(make("option", { value: name }, name));
  choice.addEventListener("change", () => choose(choice.value));

  function choose(activation) {
    state.activation = activation;
    const { formula, slopes } = data.curves[activation], kinked = activation === "ReLU";
    root.querySelector(".activation").textContent = formula;
    slope.limit(...slopes);
    state.slope = Math.min(Math.max(state.slope, slopes[0]), slopes[1]);
    slope.set(state.slope);
    rows.triangle.name.textContent = kinked ? label("triangle") : "convex hull";
    for (const [name, row] of Object.entries(rows))
      row.words.textContent = (!kinked && OF_CURVES[name]) || WORDS[name];
    ask();
  }

  function answered(answer, asked) {
    if (asked.activation !== state.activation) return;
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
    const hull = Math.max(0, state.answer.sets.triangle.area);
    if (state.activation !== "ReLU")
      return hull < 5e-4 ? "Nearly straight here: every set but the box is nearly the graph itself."
        : `Bent here: even the best convex set leaves an area of ${number(hull, 3)} to invent a in.`;
    if (state.lower >= 0) return "Always active: a = z. Every relaxation but the box is exact, and costs nothing.";
    if (state.upper <= 0) return "Always inactive: a = 0. Every relaxation is exact.";
    return `Undecided: z may have either sign. Even the best convex set leaves an area of ${number(hull, 3)} to invent a in.`;
  }

  function draw(context, width, height) {
    if (!state.answer) return;
    const shown = Object.keys(SETS).filter((name) => state.shown[name]), sets = state.answer.sets;
    const values = data.curves[state.activation].values, graph = sampled(values, state.lower, state.upper);
    const seen = [...graph, ...shown.flatMap((name) => sets[name].corners)].map((p) => p[1]);
    const [low, high] = [Math.min(0, ...seen), Math.max(state.activation === "ReLU" ? 3 : 0.5, ...seen)];
    const frame = [[-3, low], [3, high]];
    const { place } = plane(context, width, height, frame, ["z", "a"], false);
    for (const name of shown) {
      const corners = sets[name].corners.map(place);
      fill(context, corners, colour(name, 0.17));
      stroke(context, corners, colour(name), 2, data.looks[name].dash, true);
    }
    const room = 0.06 * (high - low), inside = ([, a]) => a >= low - room && a <= high + room;
    stroke(context, sampled(values, -3, 3).filter(inside).map(place), ink(0.22), 1.5);
    stroke(context, graph.map(place), ink(), 3.4);
  }

  ask();
}

const line = ([slope, intercept]) => affine([slope], ["z"], intercept);
