// Where numbers come from: the library, through the server of the page, or what was written into the page.

import * as geometry from "explore/geometry";

export const data = JSON.parse(document.getElementById("data").textContent);
export const live = data.answers === null;

export async function ask(name, given = {}) {
  if (!live) return kept(name, given);
  const answer = await fetch(name, { method: "POST", body: JSON.stringify(given) });
  const found = await answer.json();
  if (!answer.ok) throw new Error(found.error);
  return found;
}

function kept(name, given) {
  if (name === "neuron") return geometry.neuron({ ...given, curve: data.curves[given.activation] });
  if (name === "group") return geometry.group(given);
  if (name === "network") return data.answers.network[given.chosen.map((members) => members.join("")).join("|")];
  return data.answers[name];
}

// Asks again and again, one request at a time, and shows the answer to the newest; what came between is skipped.
export function asker(name, show, fail) {
  let next = null, busy = false;
  return async function (given) {
    next = given;
    if (busy) return;
    busy = true;
    while (next) {
      const now = next;
      next = null;
      try {
        show(await ask(name, now), now);
      } catch (error) {
        fail(error);
      }
    }
    busy = false;
  };
}
