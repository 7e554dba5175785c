// The fourth view: what every method says of this image, and how long it takes.

import { colour, label, number, recolour } from "explore/canvas";
import { make, show } from "explore/controls";
import { ask, live } from "explore/source";

const PAUSE = 400;
const squeeze = Math.asinh; // far below zero, powers of ten are as far apart as they deserve

export function ladderView(root, fail) {
  const list = root.querySelector("tbody"), note = root.querySelector(".state");
  let begun = false, last = null;
  recolour(() => last && showAll(last));

  async function begin() {
    if (begun) return;
    begun = true;
    try {
      do {
        last = await ask("ladder");
        showAll(last);
        if (!last.done) await new Promise((wake) => setTimeout(wake, PAUSE));
      } while (!last.done);
    } catch (error) {
      fail(error);
    }
  }

  function showAll({ rows, done, attack }) {
    const values = [...rows.map((r) => r.bound), attack ?? 0, 0];
    const low = squeeze(Math.min(...values)), high = squeeze(Math.max(...values) + 0.2);
    const share = (v) => (100 * (squeeze(v) - low)) / (high - low);
    root.style.setProperty("--zero", `${share(0)}%`);
    list.replaceChildren(...rows.map((r) => row(r, share)), ...(attack === null ? [] : [found(attack, share)]));
    note.textContent = done ? "" : "Computing … the strongest methods take longest.";
    root.dataset.done = done;
  }

  if (!live) begin();
  return begin;
}

function row({ method, bound, seconds, undecided }, share) {
  const value = make("output", { "data-number": method });
  show(value, bound);
  return make("tr", { class: bound > 0 ? "holds" : "" },
    make("th", { scope: "row" }, label(method)),
    make("td", { class: "chart" }, bar(share(0), share(bound), colour(method))),
    make("td", {}, value),
    make("td", {}, bound > 0 ? "holds" : "–"),
    make("td", {}, String(undecided)),
    make("td", {}, seconds < 0.1 ? seconds.toFixed(3) : seconds.toFixed(2)));
}

function found(attack, share) {
  const value = make("output", { "data-number": "attack" });
  show(value, attack);
  return make("tr", { class: "attack" },
    make("th", { scope: "row" }, "lowest found"),
    make("td", { class: "chart" }, bar(share(attack), share(attack), colour("exact"))),
    make("td", {}, value),
    make("td", { colspan: 3 }, "by an attack: no bound is above it"));
}

function bar(from, to, style) {
  const [a, b] = [Math.min(from, to), Math.max(from, to)];
  const length = make("span", { class: "length", style: `left: ${a}%; width: ${b - a}%; background: ${style}` });
  const end = make("span", { class: "end", style: `left: ${to}%; background: ${style}` });
  return make("div", { class: "scale" }, length, end);
}
