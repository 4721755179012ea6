"use strict";
/* Tables can be sorted by their heads and filtered by their words. Without this, nothing is missing.
   Everything is in the page already: no request, no storage, no dependency. */
(() => {
  const UNITS = {
    "µs": 1e-6, ms: 1e-3, s: 1, min: 60, h: 3600,
    B: 1, KiB: 2 ** 10, MiB: 2 ** 20, GiB: 2 ** 30, TiB: 2 ** 40,
    "B/s": 1, "KiB/s": 2 ** 10, "MiB/s": 2 ** 20, "GiB/s": 2 ** 30,
    "/s": 1, "k/s": 1e3, "M/s": 1e6,
  };
  const FILTERED_FROM = 8;

  /* A figure as a number in its base unit; a word as it is; what is missing comes last. */
  const readKey = (cell) => {
    const text = (cell.firstChild ? cell.cloneNode(true) : cell);
    text.querySelectorAll?.("small").forEach((note) => note.remove());
    const words = text.textContent.trim();
    if (words === "–" || words === "") return null;
    const found = words.match(/^(?:<\s*)?(-?\d+(?:\.\d+)?(?:e-?\d+)?)\s*([^\s(]*)/);
    return found ? Number(found[1]) * (UNITS[found[2]] ?? 1) : words.toLowerCase();
  };

  const compare = (one, other, sign) => {
    if (one === null || other === null) return (one === null) - (other === null);
    if (typeof one !== typeof other) return typeof one === "number" ? -1 : 1;
    return sign * (typeof one === "number" ? one - other : one.localeCompare(other));
  };

  /* Rows that belong to the one above them move with it. */
  const readGroups = (body) => {
    const groups = [];
    for (const row of body.rows) {
      if (row.classList.contains("on") && groups.length) groups.at(-1).push(row);
      else groups.push([row]);
    }
    return groups;
  };

  const makeSortable = (table, groups) => {
    const heads = [...table.tHead.rows[0].cells];
    const body = table.tBodies[0];
    heads.forEach((head, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.className = "sort";
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        const now = head.getAttribute("aria-sort");
        const next = now === null ? "ascending" : now === "ascending" ? "descending" : null;
        heads.forEach((each) => each.removeAttribute("aria-sort"));
        const sorted = [...groups];
        if (next) {
          head.setAttribute("aria-sort", next);
          const sign = next === "ascending" ? 1 : -1;
          sorted.sort((one, other) =>
            compare(readKey(one[0].cells[column]), readKey(other[0].cells[column]), sign));
        }
        body.append(...sorted.flat());
      });
    });
  };

  const makeFilter = (table, groups) => {
    const label = document.createElement("label");
    const field = document.createElement("input");
    const count = document.createElement("span");
    label.className = "filter";
    field.type = "search";
    count.setAttribute("role", "status");
    label.append("Only rows with ", field, " ", count);
    field.addEventListener("input", () => {
      const words = field.value.toLowerCase().split(/\s+/).filter(Boolean);
      let shown = 0;
      for (const group of groups) {
        const text = group.map((row) => row.textContent).join(" ").toLowerCase();
        const fits = words.every((word) => text.includes(word));
        group.forEach((row) => { row.hidden = !fits; });
        shown += fits ? 1 : 0;
      }
      count.textContent = words.length ? `${shown} of ${groups.length}` : "";
    });
    table.closest(".scroll").before(label);
  };

  for (const table of document.querySelectorAll("main table")) {
    const groups = readGroups(table.tBodies[0]);
    if (groups.length > 1) makeSortable(table, groups);
    if (groups.length >= FILTERED_FROM) makeFilter(table, groups);
  }
})();
