// The page as a whole: its head, its four views, and what is said when something goes wrong.

import { colour, recolour } from "explore/canvas";
import { groupView } from "explore/group";
import { ladderView } from "explore/ladder";
import { networkView } from "explore/network";
import { neuronView } from "explore/neuron";
import { data, live } from "explore/source";

const { question, version } = data;
const NORMS = { linf: "L∞", l2: "L2", l1: "L1" };
const section = (name) => document.getElementById(`view-${name}`);
const tabs = [...document.querySelectorAll("[role=tab]")];
const nameOf = (tab) => tab.id.replace("tab-", "");

function fail(error) {
  const banner = document.querySelector(".failure");
  banner.hidden = false;
  const gone = "The server does not answer. Is krelax explore still running?";
  banner.textContent = error instanceof TypeError ? gone : error.message;
}

function head() {
  const right = question.predicted === question.label ? "" : ` (the network says ${question.predicted})`;
  const region = `within ${NORMS[question.norm]} distance ${question.eps}`;
  const words = `${question.name}, image ${question.index}: a ${question.label}${right}, ${region}`;
  document.querySelector(".about").textContent = words;
  document.querySelector(".origin").textContent = live
    ? `Numbers: krelax ${version}, computed in Python as you ask.`
    : `Numbers: krelax ${version}, computed in Python when this page was written. Where you move a slider, the page
       computes with the same formulas, which krelax's tests hold to the library within 10⁻⁶.`;
  if (question.pixels) picture(document.querySelector("header canvas"), question.pixels);
}

function picture(canvas, pixels) {
  Object.assign(canvas, { width: pixels[0].length, height: pixels.length, hidden: false });
  const context = canvas.getContext("2d");
  pixels.forEach((row, y) => row.forEach((value, x) => {
    context.fillStyle = Array.isArray(value) ? `rgb(${value.join(" ")})` : `rgb(${value} ${value} ${value})`;
    context.fillRect(x, y, 1, 1);
  }));
}

function open(name) {
  for (const tab of tabs) {
    const chosen = nameOf(tab) === name;
    tab.setAttribute("aria-selected", chosen);
    tab.tabIndex = chosen ? 0 : -1;
    section(nameOf(tab)).hidden = !chosen;
  }
  opened[name]?.();
}

function follow() {
  const name = location.hash.slice(1);
  open(tabs.some((tab) => nameOf(tab) === name) ? name : "group");
}

tabs.forEach((tab, i) => {
  tab.addEventListener("click", () => (location.hash = nameOf(tab)));
  tab.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    const next = tabs[(i + step + tabs.length) % tabs.length];
    next.focus();
    next.click();
  });
});

// Colours that the style sheet needs: those of the library, for light and dark.
function paint() {
  for (const name of ["triangle", "hull", "krelu3"]) document.documentElement.style.setProperty(`--${name}`, colour(name));
}

paint();
recolour(paint);
head();
neuronView(section("neuron"), fail);
const look = groupView(section("group"), fail);
networkView(section("network"), fail, (group) => {
  look(group);
  location.hash = "group";
  window.scrollTo(0, 0);
});
const opened = { ladder: ladderView(section("ladder"), fail) };
addEventListener("hashchange", follow);
follow();
document.documentElement.dataset.ready = "yes";
