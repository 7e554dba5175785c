// The real network in the third view: its layers, its groups, and what each gained.

import { number } from "explore/canvas";
import { make, show } from "explore/controls";
import { ask, data } from "explore/source";

const SUBSCRIPTS = "₀₁₂₃₄₅₆₇₈₉";
const STATES = { u: "undecided", a: "always active", p: "never active" };
const FIRST = 6; // groups of a layer that are shown at once
const LEAST = 1e-3; // gains below this are not told apart

export const subscript = (i) => String(i).replace(/\d/g, (d) => SUBSCRIPTS[d]);

// look(group) opens a group in the second view.
export function realNetwork(root, fail, look) {
  const button = root.querySelector(".compute");
  button.addEventListener("click", start);
  if (data.answers) start();

  async function start() {
    button.disabled = true;
    button.textContent = "bounding all layers, with pairs …";
    try {
      fillIn(await ask("layers"));
    } catch (error) {
      fail(error);
    }
    button.hidden = true;
  }

  function fillIn({ layers, bounds, rival }) {
    ["alpha", "krelu"].forEach((name, i) => show(root.querySelector(`[data-number=${name}]`), bounds[i]));
    root.querySelector(".margin").textContent = `y${subscript(data.question.label)} − y${subscript(rival)}`;
    root.querySelector(".result").hidden = false;
    const most = Math.max(1e-12, ...layers.flatMap((layer) => layer.groups.map((group) => group.gain)));
    root.querySelector(".layers").replaceChildren(...layers.map((layer, i) => one(layer, i + 1, most)));
    root.dataset.drawn = 1;
  }

  function one({ neurons, undecided, states, groups, count, gained }, place, most) {
    const cells = [...states].map((s, i) => make("i", { class: s, title: `neuron ${i}: ${STATES[s]}` }));
    const rows = groups.map((group, i) => row(group, place, most, cells, i >= FIRST));
    const [before, after] = undecided, all = count > rows.length ? `the best ${rows.length}` : `all ${count} groups`;
    const more = make("button", { type: "button", class: "quiet" }, all);
    more.hidden = rows.length <= FIRST;
    more.addEventListener("click", () => {
      rows.forEach((r) => (r.hidden = false));
      more.remove();
    });
    return make("li", {},
      make("h4", {}, `Layer ${place}`),
      make("p", {}, `${neurons} neurons, ${after} undecided${before > after ? ` (${before} without groups)` : ""}`),
      make("div", { class: "cells" }, ...cells),
      make("p", {}, count ? `${count} groups, together ${number(gained, 3)}` : "no groups"),
      make("ol", { class: "groups" }, ...rows),
      more);
  }

  function row({ members, gain, bounds, slopes }, place, most, cells, hidden) {
    const { name, index } = data.question, names = members.map((m) => `z${subscript(m)}`);
    const story = `Neurons ${members.join(" and ")} of layer ${place} of ${name}, as bounded around image ${index}.`;
    const light = (on) => () => members.forEach((m) => cells[m]?.classList.toggle("lit", on));
    const button = make("button", {
      type: "button",
      title: "look at this group",
      onclick: () => look({ story, bounds, slopes, names }),
      onpointerenter: light(true),
      onpointerleave: light(false),
      onfocus: light(true),
      onblur: light(false),
    });
    const shown = gain < LEAST ? `< ${LEAST}` : number(gain, 3);
    button.append(
      make("span", {}, members.join(" · ")),
      make("span", { class: "bar", style: `--share: ${(100 * gain) / most}%` }),
      make("output", { "data-value": gain }, shown),
    );
    const element = make("li", {}, button);
    element.hidden = hidden;
    return element;
  }
}
