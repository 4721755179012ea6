"use strict";
// Without this script the tables stand whole; with it they can be searched.
const search = document.getElementById("search");
const pick = document.getElementById("pick");

function holds(row, name, wanted) {
  return !wanted || (row.dataset[name] || "").split("\n").includes(wanted);
}

function searchRuns() {
  const form = new FormData(search);
  const words = form.get("words").toLowerCase().split(/\s+/).filter(Boolean);
  const rows = [...document.querySelectorAll(".runs tbody tr")];
  for (const row of rows) {
    const text = row.textContent.toLowerCase();
    const from = form.get("from"), until = form.get("until"), date = row.dataset.date;
    row.hidden = !(words.every((word) => text.includes(word))
      && ["host", "platform", "workload"].every((name) => holds(row, name, form.get(name)))
      && (!from || (date && date >= from)) && (!until || (date && date <= until)));
  }
  const left = rows.filter((row) => !row.hidden).length;
  document.getElementById("count").textContent =
    left === rows.length ? `${left} run${left === 1 ? "" : "s"}`
      : `${left || "None"} of ${rows.length} runs`;
}

function showPicked() {
  const form = new FormData(pick), place = document.getElementById("picked");
  const one = form.get("1"), other = form.get("2");
  const rows = [...document.querySelectorAll(".pairs tr[data-pair]")];
  const row = rows.find((each) => [`${one}--${other}`, `${other}--${one}`]
    .includes(each.dataset.pair));
  place.textContent = "";
  if (one === other) {
    place.textContent = "That is one and the same run.";
  } else if (!row) {
    place.textContent = `This pair is not prepared: python -m harness compare ${one} ${other}`;
  } else if ("refused" in row.dataset) {
    place.textContent = `Not comparable: ${row.dataset.refused}.`;
  } else {
    const link = document.createElement("a");
    link.href = `compare/${row.dataset.pair}.html`;
    link.textContent = `The comparison: ${row.dataset.verdict}`;
    place.append(link);
  }
}

if (search) {
  search.hidden = false;
  search.addEventListener("input", searchRuns);
  search.addEventListener("submit", (event) => event.preventDefault());
  search.addEventListener("reset", () => setTimeout(searchRuns));
  searchRuns();
}
// A report leads here with its run's name: that run is chosen, beside one it can be held against.
function pickNamed(name) {
  const rows = [...document.querySelectorAll(".pairs tr[data-pair]")];
  const own = rows.filter((row) => row.dataset.pair.split("--").includes(name));
  const row = own.find((each) => !("refused" in each.dataset)) || own[0];
  row?.dataset.pair.split("--").forEach((run, place) => {
    pick.elements.namedItem(`${place + 1}`).value = run;
  });
}

if (pick) {
  pick.hidden = false;
  pickNamed(decodeURIComponent(location.hash.slice(1)));
  pick.addEventListener("input", showPicked);
  pick.addEventListener("submit", (event) => event.preventDefault());
  showPicked();
}
