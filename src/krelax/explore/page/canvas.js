// Drawing: canvases that follow the size of the page and its colours, axes, words and numbers.

import { data } from "explore/source";

const dark = matchMedia("(prefers-color-scheme: dark)");
const canvases = new Set();
dark.addEventListener("change", () => canvases.forEach((canvas) => canvas.redraw()));

// The colour of a method or a set; on dark paper nearer to white, so that it can be seen.
export function colour(name, alpha = 1) {
  const hex = data.looks[name].colour, part = dark.matches ? 0.42 : 0;
  const parts = [1, 3, 5].map((i) => Math.round(parseInt(hex.slice(i, i + 2), 16) * (1 - part) + 255 * part));
  return name === "exact" ? ink(alpha) : `rgb(${parts.join(" ")} / ${alpha})`;
}

export const ink = (alpha = 1) => (dark.matches ? `rgb(236 238 242 / ${alpha})` : `rgb(22 26 34 / ${alpha})`);
export const paper = () => (dark.matches ? "#1b1f27" : "#ffffff");
export const label = (name) => data.looks[name].label;
export const recolour = (show) => dark.addEventListener("change", show);

// A canvas that fills the width of its parent and draws itself: draw(context, width, height).
export class Canvas {
  constructor(parent, words, draw, ratio = 0.86) {
    this.element = document.createElement("canvas");
    this.element.setAttribute("role", "img");
    this.element.setAttribute("aria-label", words);
    this.draw = draw;
    this.ratio = ratio;
    parent.append(this.element);
    new ResizeObserver(() => this.redraw()).observe(parent);
    canvases.add(this);
  }
  redraw() {
    this.asked ??= requestAnimationFrame(() => {
      this.asked = null;
      const width = this.element.parentElement.clientWidth, height = Math.round(width * this.ratio);
      if (width === 0) return;
      const dots = window.devicePixelRatio || 1;
      Object.assign(this.element, { width: Math.round(width * dots), height: Math.round(height * dots) });
      this.element.style.height = `${height}px`;
      const context = this.element.getContext("2d");
      context.scale(dots, dots);
      context.lineJoin = context.lineCap = "round";
      this.draw(context, width, height);
    });
  }
}

export function path(context, points, closed = true) {
  context.beginPath();
  points.forEach(([x, y], i) => (i ? context.lineTo(x, y) : context.moveTo(x, y)));
  if (closed) context.closePath();
}

export function stroke(context, points, style, width = 1.6, dash = [], closed = false) {
  path(context, points, closed);
  context.setLineDash(dash.map((d) => d * width));
  context.lineCap = dash.length ? "butt" : "round";
  context.lineWidth = width;
  context.strokeStyle = style;
  context.stroke();
  context.setLineDash([]);
}

export function fill(context, points, style) {
  path(context, points);
  context.fillStyle = style;
  context.fill();
}

export function dot(context, [x, y], style, size = 4) {
  context.beginPath();
  context.arc(x, y, size, 0, 7);
  context.fillStyle = style;
  context.fill();
}

export function cross(context, [x, y], style, size = 5.5) {
  for (const s of [1, -1]) stroke(context, [[x - size, y - s * size], [x + size, y + s * size]], style, 2.6);
}

// Words with a rim of paper around them, so that lines do not cross them.
export function words(context, text, [x, y], { align = "center", style = ink(0.75), size = 12, bold = false } = {}) {
  context.font = `${bold ? 600 : 400} ${size}px system-ui, sans-serif`;
  context.textAlign = align;
  context.textBaseline = "middle";
  context.lineWidth = 3.5;
  context.lineJoin = "round";
  context.strokeStyle = paper();
  context.strokeText(text, x, y);
  context.fillStyle = style;
  context.fillText(text, x, y);
}

export function arrow(context, from, to, style, width = 2.4) {
  const angle = Math.atan2(to[1] - from[1], to[0] - from[0]);
  const wing = (turn) => [to[0] - 10 * Math.cos(angle + turn), to[1] - 10 * Math.sin(angle + turn)];
  stroke(context, [from, to], style, width);
  fill(context, [to, wing(0.42), wing(-0.42)], style);
}

// A few round numbers between two others.
export function ticks(low, high, count = 4) {
  const rough = (high - low) / count, power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 2.5, 5, 10].find((s) => s * power >= rough);
  const found = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + 1e-9 * step; i++) found.push(i * step);
  return found;
}

// Axes through the least corner of a panel and pale lines through zero; what maps coordinates to places. With `equal`
// both have the same scale.
export function plane(context, width, height, points, names, equal = true) {
  const margin = { left: 40, right: 16, top: 16, bottom: 38 };
  const room = [width - margin.left - margin.right, height - margin.top - margin.bottom];
  const ends = [0, 1].map((i) => points.map((p) => p[i])).map((v) => [Math.min(...v, 0), Math.max(...v, 0)]);
  let scale = ends.map(([low, high], i) => room[i] / ((high - low || 1) * 1.12));
  if (equal) scale = scale.map(() => Math.min(...scale));
  const middle = ends.map(([low, high]) => (low + high) / 2);
  const place = ([x, y]) => [
    margin.left + room[0] / 2 + (x - middle[0]) * scale[0],
    margin.top + room[1] / 2 - (y - middle[1]) * scale[1],
  ];
  const value = ([px, py]) => [
    middle[0] + (px - margin.left - room[0] / 2) / scale[0],
    middle[1] - (py - margin.top - room[1] / 2) / scale[1],
  ];
  const [left, bottom] = [margin.left, margin.top + room[1]], [x0, y0] = place([0, 0]);
  stroke(context, [[x0, margin.top], [x0, bottom]], ink(0.16), 1);
  stroke(context, [[left, y0], [left + room[0], y0]], ink(0.16), 1);
  const low = value([left, bottom]), high = value([left + room[0], margin.top]);
  for (const t of ticks(low[0], high[0])) words(context, number(t, 3), [place([t, 0])[0], bottom + 11], { size: 11 });
  for (const t of ticks(low[1], high[1]))
    words(context, number(t, 3), [left - 7, place([0, t])[1]], { size: 11, align: "right" });
  words(context, names[0], [left + room[0] - 4, bottom + 27], { align: "right", style: ink(), size: 13 });
  words(context, names[1], [left - 7, margin.top - 5], { align: "right", style: ink(), size: 13 });
  return { place, value, scale, low, high };
}

// So many digits at most, with a real minus sign and without the noise of rounding.
export function number(x, digits = 4) {
  if (Math.abs(x) < 1e-9) return "0";
  const text = String(Number(x.toPrecision(digits)));
  return text.replace("-", "−");
}

// A linear form in words: "z₁ − 2 z₂".
export function form(coefficients, names) {
  let text = "";
  coefficients.forEach((c, i) => {
    if (Math.abs(c) < 1e-9) return;
    const size = Math.abs(Math.abs(c) - 1) < 1e-9 ? "" : `${number(Math.abs(c), 3)} `;
    text += text ? (c < 0 ? " − " : " + ") : c < 0 ? "−" : "";
    text += size + names[i];
  });
  return text || "0";
}

// The same with a constant: "0.5 z₁ + 1".
export function affine(coefficients, names, constant) {
  const sloped = form(coefficients, names);
  if (Math.abs(constant) < 1e-9) return sloped;
  if (sloped === "0") return number(constant, 3);
  return `${sloped} ${constant < 0 ? "−" : "+"} ${number(Math.abs(constant), 3)}`;
}
