"use strict";
// Plots, and the table's filter and order. Without this script the tables are still whole.

const data = (id) => JSON.parse(document.getElementById(id).textContent);
const all = (selector) => Array.from(document.querySelectorAll(selector));
const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

// ---- plots

function themed(plot) {
  const axis = {
    gridcolor: color("--line"), linecolor: color("--line"), tickcolor: color("--line"),
    ticks: "outside", automargin: true, zeroline: false,
  };
  const layout = {
    ...plot.layout,
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    font: { color: color("--text"), family: getComputedStyle(document.body).fontFamily, size: 13 },
    margin: { l: 10, r: 14, t: 10, b: 10 },
    hovermode: "closest",
    hoverlabel: { bgcolor: color("--surface"), font: { color: color("--text") } },
    showlegend: plot.data.length > 1,
    modebar: { bgcolor: color("--surface"), color: color("--muted"), activecolor: color("--accent") },
    legend: { orientation: "h", x: 0, y: 1, xanchor: "left", yanchor: "bottom" },
  };
  for (const key of Object.keys(layout).filter((name) => /^[xy]axis\d*$/.test(name))) {
    layout[key] = { ...axis, ...layout[key] };
    layout[key].title = { ...layout[key].title, font: { size: 13 } };
  }
  return layout;
}

const config = {
  responsive: true,
  displaylogo: false,
  displayModeBar: "hover",
  modeBarButtons: [["toImage", "resetScale2d"]],
};
const shown = new Map();

function draw(place, plot) {
  shown.set(place, plot);
  place.style.height = `${plot.layout.height}px`;
  Plotly.react(place, plot.data, themed(plot), config);
}

function drawAll() {
  for (const [place, plot] of shown) draw(place, plot);
}

for (const [id, plot] of Object.entries(data("plot-data"))) {
  draw(document.getElementById(id), plot);
}

for (const select of all("select[data-plots]")) {
  const plots = data(select.dataset.plots);
  const place = document.getElementById(select.dataset.place);
  const choose = () => {
    const plot = plots[select.selectedIndex];
    place.setAttribute("aria-label", plot.alt);
    place.previousElementSibling.textContent = select.value;
    draw(place, plot);
  };
  select.addEventListener("change", choose);
  choose();
}

window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);

// ---- filter: the address holds the statuses, so that a link can show what it is about

const rows = all("#verdict-table tbody tr");
const buttons = all("button[data-status]");
const search = document.getElementById("search");
const count = document.getElementById("count");

function chosen() {
  const found = new URLSearchParams(location.hash.slice(1)).get("status");
  return new Set(found ? found.split(",") : []);
}

function filter() {
  const statuses = chosen();
  const wanted = search.value.trim().toLowerCase();
  for (const row of rows) {
    const fits = statuses.size === 0 || statuses.has(row.dataset.status);
    row.hidden = !fits || !row.dataset.name.toLowerCase().includes(wanted);
  }
  for (const button of buttons) {
    button.setAttribute("aria-pressed", String(statuses.has(button.dataset.status)));
  }
  count.textContent = `${rows.filter((row) => !row.hidden).length} of ${rows.length} shown`;
}

for (const button of buttons) {
  button.addEventListener("click", () => {
    const statuses = chosen();
    if (!statuses.delete(button.dataset.status)) statuses.add(button.dataset.status);
    const hash = statuses.size ? `#status=${[...statuses].join(",")}` : "#";
    history.replaceState(null, "", hash);
    filter();
  });
}

if (rows.length) {
  window.addEventListener("hashchange", filter);
  search.addEventListener("input", filter);
  document.getElementById("controls").hidden = false;
  filter();
}

// ---- order

function sortBy(header) {
  const table = header.closest("table");
  const column = Array.from(header.parentNode.children).indexOf(header);
  const descending = header.getAttribute("aria-sort") === "ascending";
  const key = (row) => row.children[column].dataset.value ?? row.children[column].textContent;
  const body = table.tBodies[0];
  const compare = (a, b) => key(a).localeCompare(key(b), "en", { numeric: false });
  const numbers = (a, b) => Number(key(a)) - Number(key(b));
  const isNumber = header.classList.contains("number");
  const sorted = Array.from(body.rows).sort(isNumber ? numbers : compare);
  body.append(...(descending ? sorted.reverse() : sorted));
  for (const other of header.parentNode.children) other.removeAttribute("aria-sort");
  header.setAttribute("aria-sort", descending ? "descending" : "ascending");
}

for (const header of all("th[data-sortable]")) {
  const button = document.createElement("button");
  button.type = "button";
  button.append(...header.childNodes);
  button.addEventListener("click", () => sortBy(header));
  header.append(button);
}

document.documentElement.dataset.ready = "true";
