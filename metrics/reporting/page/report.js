"use strict";
// Names come from files of others: they enter the page as text (textContent) only.
const { tasks, sizes } = JSON.parse(document.getElementById("data").textContent);
const at = (id) => document.getElementById(id);
const FEW = 100; // rows of the table before "Show all"
const FLICKER = 600; // milliseconds
const ZOOMS = [0.25, 0.5, 1, 2, 3, 4, 6, 8, 12, 16];

function make(tag, text, parent, attributes = {}) {
  const made = document.createElement(tag);
  made.textContent = text;
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  if (parent) parent.append(made);
  return made;
}

function number(value) {
  if (value === null) return "";
  const size = Math.abs(value);
  return value.toFixed(size >= 10 ? 2 : size >= 1 ? 3 : 4);
}

const every = tasks.flatMap((task, t) => task.pictures.map((picture, p) => ({ ...picture, task, t, p })));

// --- light and dark -------------------------------------------------------------------------------------------------
const theme = at("theme");
let dark = matchMedia("(prefers-color-scheme: dark)").matches;
theme.hidden = false;
theme.textContent = dark ? "Light" : "Dark";
theme.onclick = () => {
  dark = !dark;
  document.documentElement.style.colorScheme = dark ? "dark" : "light";
  theme.textContent = dark ? "Light" : "Dark";
};

// --- filter and table -----------------------------------------------------------------------------------------------
const form = at("filter");
let listed = []; // pictures that pass the filter, in the table's order
let order = { column: 0, down: false };
let all = false;

function passes(picture) {
  const { task, low, high } = form.elements;
  const kind = form.elements.class.value;
  if (task.value !== "" && picture.t !== Number(task.value)) return false;
  if (kind && !picture.classes.includes(kind)) return false;
  const share = picture.erased === null ? null : 100 * picture.erased;
  if (low.value !== "" && !(share !== null && share >= Number(low.value))) return false;
  return high.value === "" || (share !== null && share <= Number(high.value));
}

function valueOf(picture, method, metric) {
  const m = picture.task.methods.indexOf(method);
  const k = picture.task.metrics.findIndex((each) => each.name === metric);
  return m < 0 || k < 0 ? null : picture.values[k][m];
}

function columns() {
  const { kind, name } = JSON.parse(form.elements.columns.value);
  const methods = [...new Set(tasks.flatMap((task) => task.methods))];
  const metrics = [...new Set(tasks.flatMap((task) => task.metrics.map((each) => each.name)))];
  const numbers =
    kind === "metric"
      ? methods.map((method) => [method, (picture) => valueOf(picture, method, name)])
      : metrics.map((metric) => [metric, (picture) => valueOf(picture, name, metric)]);
  return [
    ["picture", (picture) => picture.name],
    ...(tasks.length > 1 ? [["task", (picture) => picture.task.name]] : []),
    ...(every.some((picture) => picture.erased !== null)
      ? [["erased, %", (picture) => (picture.erased === null ? null : 100 * picture.erased)]]
      : []),
    ...numbers,
  ];
}

function compare(a, b) {
  if (a === null || b === null) return a === b ? 0 : a === null ? 1 : -1; // what has no value stands below either way
  const found = typeof a === "string" ? a.localeCompare(b, undefined, { numeric: true }) : a - b;
  return order.down ? -found : found;
}

function fill() {
  const shown = columns();
  const [, key] = shown[Math.min(order.column, shown.length - 1)];
  listed = every.filter(passes).sort((a, b) => compare(key(a), key(b)));
  const head = at("each").tHead;
  head.replaceChildren();
  const row = make("tr", "", head);
  shown.forEach(([title], column) => {
    const cell = make("th", "", row, { scope: "col" });
    const chosen = column === order.column;
    if (chosen) cell.setAttribute("aria-sort", order.down ? "descending" : "ascending");
    const button = make("button", `${title}${chosen ? (order.down ? " ▾" : " ▴") : ""}`, cell, { type: "button" });
    button.onclick = () => {
      order = { column, down: chosen ? !order.down : false };
      fill();
      head.querySelectorAll("button")[column].focus();
    };
  });
  const body = at("each").tBodies[0];
  body.replaceChildren();
  for (const picture of all ? listed : listed.slice(0, FEW)) {
    const line = make("tr", "", body);
    shown.forEach(([, of], column) => {
      const value = of(picture);
      const cell = make("td", "", line);
      if (column === 0 && picture.shown.length) {
        make("button", value, cell, { type: "button" }).onclick = () => open(picture);
      } else cell.textContent = typeof value === "string" ? value : number(value);
    });
  }
  at("more").hidden = all || listed.length <= FEW;
  form.querySelector("output").textContent = `${listed.length} of ${every.length} pictures`;
  const kept = new Set(listed.map((picture) => `${picture.t},${picture.p}`));
  for (const part of document.querySelectorAll("[data-of]")) part.hidden = !kept.has(part.dataset.of);
  const task = form.elements.task.value;
  for (const part of document.querySelectorAll("[data-task]")) part.hidden = task !== "" && part.dataset.task !== task;
}

function startTable() {
  const { task, columns: choice } = form.elements;
  make("option", "all", task, { value: "" });
  tasks.forEach((each, t) => make("option", each.name, task, { value: t }));
  at("of-task").hidden = tasks.length < 2;
  const classes = [...new Set(every.flatMap((picture) => picture.classes))].sort();
  for (const name of classes) make("option", name, form.elements.class, { value: name });
  at("of-class").hidden = !classes.length;
  at("of-share").hidden = every.every((picture) => picture.erased === null);
  const methods = [...new Set(tasks.flatMap((each) => each.methods))];
  const metrics = [...new Set(tasks.flatMap((each) => each.metrics.map((metric) => metric.name)))];
  const entries = [
    ...(methods.length > 1 ? metrics.map((name) => ["metric", name]) : []),
    ...methods.map((name) => ["method", name]),
  ];
  for (const [kind, name] of entries) make("option", name, choice, { value: JSON.stringify({ kind, name }) });
  choice.parentElement.hidden = entries.length < 2;
  form.oninput = fill;
  form.onsubmit = (event) => event.preventDefault();
  at("more").onclick = () => ((all = true), fill());
  form.hidden = false;
  fill();
}

// --- viewer ---------------------------------------------------------------------------------------------------------
const viewer = at("viewer");
const stage = at("stage");
const against = at("against");
const view = { picture: null, chosen: 0, zoom: 1, flipped: false, timer: 0 };

function draw() {
  const { picture, chosen, flipped, zoom } = view;
  const [title, rule] = picture.shown[flipped ? Number(against.value) : chosen];
  const [width, height] = sizes[rule];
  const span = stage.firstElementChild;
  span.className = `t ${rule}`;
  span.setAttribute("aria-label", `${title} of ${picture.name}`);
  span.style.width = `${width * zoom}px`;
  span.style.height = `${height * zoom}px`;
  at("zoom").textContent = `${Math.round(100 * zoom)} %`;
  [...at("tabs").children].forEach((tab, k) => {
    tab.setAttribute("aria-pressed", String(picture.shown[k][0] === title));
  });
}

function choose(chosen) {
  view.chosen = chosen;
  view.flipped = false;
  draw();
}

function flick() {
  view.flipped = !view.flipped;
  draw();
}

function flicker(on = !view.timer) {
  clearInterval(view.timer);
  view.timer = on ? setInterval(flick, FLICKER) : 0;
  at("flicker").setAttribute("aria-pressed", String(on));
  if (!on) choose(view.chosen);
}

function zoomBy(step) {
  const known = ZOOMS.filter((zoom) => (step > 0 ? zoom > view.zoom : zoom < view.zoom));
  if (known.length) view.zoom = step > 0 ? known[0] : known[known.length - 1];
  draw();
}

function tell(picture) {
  const { methods, metrics } = picture.task;
  const table = at("numbers");
  table.replaceChildren();
  if (!metrics.length) return;
  const head = make("tr", "", table);
  for (const title of ["", ...metrics.map(({ name, lower }) => `${name} ${lower ? "↓" : "↑"}`)]) make("th", title, head);
  methods.forEach((method, m) => {
    const row = make("tr", "", table);
    make("th", method, row, { scope: "row" });
    metrics.forEach((_, k) => make("td", number(picture.values[k][m]), row));
  });
}

// title: what is shown first; without it the first method's result.
function open(picture, title = picture.task.views[0]) {
  const titles = picture.shown.map(([each]) => each);
  view.picture = picture;
  const share = picture.erased === null ? "" : `, ${(100 * picture.erased).toFixed(0)} % erased`;
  at("viewed").textContent = `${picture.name}${share}${tasks.length > 1 ? ` (${picture.task.name})` : ""}`;
  at("tabs").replaceChildren();
  against.replaceChildren();
  titles.forEach((each, k) => {
    make("button", each, at("tabs"), { title: `key ${k + 1}` }).onclick = () => choose(k);
    make("option", each, against, { value: k });
  });
  against.value = String(titles.includes("real") ? titles.indexOf("real") : titles.length - 1);
  view.chosen = Math.max(0, titles.indexOf(title));
  view.flipped = false;
  tell(picture);
  if (!viewer.open) {
    viewer.showModal();
    const [width, height] = sizes[picture.shown[0][1]];
    const fits = ZOOMS.filter((zoom) => width * zoom <= stage.clientWidth && height * zoom <= stage.clientHeight);
    view.zoom = fits.length ? fits[fits.length - 1] : ZOOMS[0];
    stage.focus();
  }
  draw();
}

function move(step) {
  const known = listed.filter((picture) => picture.shown.length);
  const here = known.findIndex((picture) => picture.t === view.picture.t && picture.p === view.picture.p);
  const next = known[(here + step + known.length) % known.length];
  if (next) open(next, view.picture.shown[view.chosen][0]);
}

const KEYS = {
  ArrowLeft: () => move(-1),
  ArrowRight: () => move(1),
  t: flick,
  T: flick,
  f: () => flicker(),
  F: () => flicker(),
  "+": () => zoomBy(1),
  "=": () => zoomBy(1),
  "-": () => zoomBy(-1),
};

viewer.onkeydown = (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target === against) return;
  const pans = event.target === stage && event.key.startsWith("Arrow") && stage.scrollWidth > stage.clientWidth;
  const place = Number(event.key) - 1;
  const act = view.picture.shown[place] ? () => choose(place) : KEYS[event.key];
  if (!act || pans) return;
  event.preventDefault();
  act();
};
viewer.onclose = () => flicker(false);
at("previous").onclick = () => move(-1);
at("next").onclick = () => move(1);
at("close").onclick = () => viewer.close();
at("flick").onclick = flick;
at("flicker").onclick = () => flicker();
at("smaller").onclick = () => zoomBy(-1);
at("larger").onclick = () => zoomBy(1);
against.onchange = () => choose(view.chosen);

for (const button of document.querySelectorAll("[data-open]")) {
  const [t, p, what] = button.dataset.open.split(",");
  const picture = every.find((each) => each.t === Number(t) && each.p === Number(p));
  const shown = picture.shown.find(([, rule]) => rule === what); // of the overview, else a method
  button.onclick = () => open(picture, shown ? shown[0] : picture.task.views[Number(what)]);
}
if (form) startTable();
