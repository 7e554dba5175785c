"use strict";
{
  const table = document.getElementById("images");
  const controls = document.getElementById("controls");
  const all = document.getElementById("all");
  const rows = [...table.tBodies];
  const numbers = new Set(["index", "label", "predicted", "margin", "seconds"]);
  document.documentElement.classList.add("js");

  function open(body, yes) {
    body.querySelector(".detail").classList.toggle("open", yes);
    body.querySelector("button").setAttribute("aria-expanded", yes);
  }

  function isOpen(body) {
    return body.querySelector(".detail").classList.contains("open");
  }

  function sort(key, down) {
    const value = (body) => {
      const text = body.dataset[key];
      return text === undefined || !numbers.has(key) ? text : Number(text);
    };
    const order = (a, b) => {
      const [x, y] = [value(a), value(b)];
      if (x === y) return a.dataset.index - b.dataset.index;
      if (x === undefined || y === undefined) return x === undefined ? 1 : -1; // what is missing is last either way
      return (x < y ? -1 : 1) * (down ? -1 : 1);
    };
    table.append(...rows.sort(order));
    for (const head of table.tHead.rows[0].cells) {
      if (head.firstChild.dataset.key === key) head.setAttribute("aria-sort", down ? "descending" : "ascending");
      else head.removeAttribute("aria-sort");
    }
  }

  function filter() {
    const asked = new FormData(controls);
    const verdicts = asked.getAll("verdict");
    let count = 0;
    for (const body of rows) {
      const { verdict, reason, label } = body.dataset;
      const fits = (name, value) => !asked.get(name) || asked.get(name) === value;
      body.hidden = !(verdicts.includes(verdict) && fits("reason", reason) && fits("label", label));
      count += !body.hidden;
    }
    document.getElementById("shown").value = count === rows.length ? `${count} images` : `${count} of ${rows.length} images`;
  }

  table.tHead.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (!button) return;
    sort(button.dataset.key, button.parentElement.getAttribute("aria-sort") === "ascending");
  });
  table.addEventListener("click", (event) => {
    const row = event.target.closest("tr.image");
    if (row && !getSelection().toString()) open(row.parentElement, !isOpen(row.parentElement));
  });
  all.addEventListener("click", () => {
    const yes = !rows.every((body) => body.hidden || isOpen(body));
    for (const body of rows) if (!body.hidden) open(body, yes);
  });
  controls.addEventListener("submit", (event) => event.preventDefault());
  controls.addEventListener("change", filter);
  if (rows.length) sort("index", false);
  filter(); // a reloaded page keeps its controls
  const linked = document.getElementById(location.hash.slice(1));
  if (rows.includes(linked)) {
    open(linked, true);
    linked.scrollIntoView();
  }
}
