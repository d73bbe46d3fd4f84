// The page. Names come from files of others: they enter it as text (textContent) only.
import { draw, mark, stroke } from "./canvas.js";
import { ask, changed, example, finished, open, packScene, send } from "./server.js";

const at = (id) => document.getElementById(id);
const MOST_KEPT = 300e6; // bytes of the states that Undo goes back to
const CURRENT = "\u0000current"; // the picture itself lends its styles
const FILE = "\u0000file";

let run; // what the server knows of the run
let now = null; // the scene as it is edited
let past = [];
let future = [];
let selected; // id of an instance
let lent = null; // the scene that lends a style
let first = null; // the picture as it was opened
let shown = null; // {key, pictures} of the last results
let queue = Promise.resolve(); // changes, one after the other

function make(tag, text, parent, attributes = {}) {
  const made = document.createElement(tag);
  made.textContent = text;
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  parent?.append(made);
  return made;
}

let silence;
function say(text, wrong = false) {
  const box = at("say");
  box.textContent = text;
  box.classList.toggle("wrong", wrong);
  box.hidden = !text;
  clearTimeout(silence);
  if (text) silence = setTimeout(() => say(""), wrong ? 12000 : 6000);
}

const guarded = (work) => async (...given) => {
  try {
    await work(...given);
  } catch (error) {
    say(error.message, true);
    refresh();
  }
};

// --- the scene and its history ---------------------------------------------------------------------------------------
const classOf = (id) => run.classes[now.label[now.inst.indexOf(id)]];
const chosen = () => Number(document.querySelector("#palette :checked")?.value ?? 0);
const tool = () => document.querySelector("#tools :checked").value;

function show(scene) {
  const stretched = !now || now.width !== scene.width || now.height !== scene.height;
  now = scene;
  if (!now.inst.includes(selected)) selected = undefined;
  if (stretched) cross = [Math.floor(now.width / 2), Math.floor(now.height / 2)];
  refresh();
}

function become(scene) {
  if (now) past.push(now);
  future = [];
  let size = 0; // states share the arrays that did not change, and count them fully here
  past = past.reverse().filter((old) => (size += 10 * old.label.length) < MOST_KEPT).reverse();
  show(scene);
}

function start(scene) {
  past = [];
  future = [];
  selected = undefined;
  first = scene;
  at("own").open = false;
  show(scene);
  fit();
  listLenders();
  say(scene.notes.join(" "));
}

function back(from, to) {
  if (!from.length) return;
  to.push(now);
  show(from.pop());
}

// Ask the server for a change of the scene as it is when its turn comes.
function change(wish, more) {
  queue = queue.then(guarded(async () => become({ ...(await changed(now, wish, more)), notes: [] })));
  return queue;
}

// --- drawing ---------------------------------------------------------------------------------------------------------
const palette = () => run.classes.map((each) => each.colour);

function redraw(part, preview = now) {
  const look = { palette: palette(), tint: at("tint").value / 100, mask: at("show-mask").checked };
  draw(at("view"), preview, look, part);
}

function refresh() {
  if (!now) return;
  at("hint").hidden = true;
  at("frame").hidden = false;
  redraw();
  remark();
  const things = at("things");
  things.replaceChildren(make("option", "nothing", null, { value: "" }));
  for (const { id, class: name, share } of now.objects) {
    make("option", `${name} ${id} (${(100 * share).toPrecision(2)} %)`, things, { value: id });
  }
  things.value = selected ?? "";
  const own = selected === undefined ? null : classOf(selected);
  const wanted = run.classes[chosen()].name;
  at("remove").disabled = !own;
  at("become").disabled = at("replace").disabled = !own || own.name === wanted;
  at("become").textContent = `Make it ${wanted}`;
  at("replace").textContent = at("replace").disabled ? "Replace all" : `All ${own.name} → ${wanted}`;
  at("undo").disabled = !past.length;
  at("redo").disabled = !future.length;
  const erased = now.mask.includes(1);
  at("clear").disabled = !erased;
  at("generate").disabled = !erased || working;
  at("generate").textContent = erased ? "Generate" : "Generate (nothing is erased yet)";
}

// The picture fills the stage's width, or as much of it as lets its height be seen.
function fit() {
  if (!now) return;
  const stage = at("stage");
  const width = Math.min(stage.clientWidth, (0.7 * innerHeight * now.width) / now.height) * at("zoom").value;
  at("frame").style.width = `${width}px`;
  at("frame").style.height = `${(width * now.height) / now.width}px`;
  remark();
}

let cross = [0, 0]; // where the keyboard is
let pointer = null; // where the pointer is, in pixels of the picture
let drag = null; // what is being drawn

function remark() {
  if (!now) return;
  const marks = { selected };
  const brushes = ["paint", "mask", "keep"].includes(tool());
  const marker = at("marks");
  const keys = document.activeElement === marker && !pointer;
  if (keys) marks.cross = cross;
  const where = pointer ?? (keys ? [cross[0] + 0.5, cross[1] + 0.5] : null);
  if (brushes && where) marks.brush = [...where, Number(at("brush").value)];
  if (drag?.from) marks.box = boxOf(drag.from, drag.to);
  if (drag?.ghost) marks.ghost = drag.ghost;
  mark(marker, now, marks);
}

function tell(x, y) {
  const i = y * now.width + x;
  const id = now.inst[i];
  const name = run.classes[now.label[i]]?.name ?? `class ${now.label[i]}`;
  const text = `${name} ${id === now.label[i] ? "" : id} at ${x}, ${y}${now.mask[i] ? ", will be generated" : ""}`;
  at("under").textContent = text;
  at("marks").title = name;
}

// --- tools -----------------------------------------------------------------------------------------------------------
const inside = ([x, y]) => [
  Math.min(now.width - 1, Math.max(0, Math.floor(x))),
  Math.min(now.height - 1, Math.max(0, Math.floor(y))),
];

function place(event) {
  const { left, top, width, height } = at("marks").getBoundingClientRect();
  return [((event.clientX - left) / width) * now.width, ((event.clientY - top) / height) * now.height];
}

const boxOf = ([ax, ay], [bx, by]) => [Math.min(ax, bx), Math.min(ay, by), Math.max(ax, bx) + 1, Math.max(ay, by) + 1];

function select(id) {
  selected = id;
  refresh();
}

function begin(where) {
  const name = tool();
  const [x, y] = inside(where);
  if (name === "select") {
    const id = now.inst[y * now.width + x];
    select(id === selected ? undefined : id);
  } else if (name === "box") {
    drag = { from: [x, y], to: [x, y] };
  } else if (name === "move") {
    const id = now.inst[y * now.width + x];
    if (selected === undefined) select(id);
    drag = { start: where, ghost: { id: selected, right: 0, down: 0 } };
  } else {
    const shape = new Uint8Array(now.label.length);
    const preview = { ...now, label: now.label.slice(), mask: now.mask.slice() };
    drag = { name, shape, preview, last: where };
    brush(where);
  }
  remark();
}

function brush(where) {
  const { name, shape, preview } = drag;
  const [x0, y0, x1, y1] = stroke(shape, now.width, now.height, drag.last, where, Number(at("brush").value));
  drag.last = where;
  for (let y = y0; y < y1; y++) {
    for (let i = y * now.width + x0; i < y * now.width + x1; i++) {
      if (!shape[i]) continue;
      preview.mask[i] = name === "keep" ? 0 : 1;
      if (name === "paint") preview.label[i] = chosen();
    }
  }
  redraw([Math.max(0, x0 - 1), Math.max(0, y0 - 1), Math.min(now.width, x1 + 1), Math.min(now.height, y1 + 1)], preview);
}

function follow(where) {
  if (drag?.from) drag.to = inside(where);
  else if (drag?.ghost) {
    drag.ghost.right = Math.round(where[0] - drag.start[0]);
    drag.ghost.down = Math.round(where[1] - drag.start[1]);
  } else if (drag) brush(where);
}

async function finish() {
  const done = drag;
  drag = null;
  if (done?.from) {
    const box = boxOf(done.from, done.to);
    if (box[2] - box[0] > 1 && box[3] - box[1] > 1) {
      await change({ kind: "box", class: chosen(), box, shape: run.classes[chosen()].thing ? "ellipse" : "rectangle" });
    }
  } else if (done?.ghost) {
    await moveBy(done.ghost);
  } else if (done?.name === "paint") {
    const grows = selected !== undefined && classOf(selected) === run.classes[chosen()];
    const before = new Set(now.objects.map(({ id }) => id));
    await change({ kind: "paint", class: chosen(), id: grows ? selected : null }, { shape: done.shape });
    const made = now.objects.find(({ id }) => !before.has(id));
    if (made && run.classes[chosen()].thing) select(made.id); // the next stroke goes on with it
  } else if (done?.shape.length === now.mask.length) {
    const erased = Number(done.name === "mask");
    become({ ...now, mask: now.mask.map((old, i) => (done.shape[i] ? erased : old)) });
  }
  remark();
}

async function moveBy({ id, right, down }) {
  if (right || down) await change({ kind: "move", id, right, down });
}

const marker = at("marks");
marker.onpointerdown = (event) => {
  if (!now || event.button) return;
  marker.setPointerCapture(event.pointerId);
  pointer = place(event);
  begin(pointer);
};
marker.onpointermove = (event) => {
  if (!now) return;
  pointer = place(event);
  tell(...inside(pointer));
  follow(pointer);
  remark();
};
marker.onpointerup = () => finish();
marker.onpointercancel = () => {
  drag = null;
  refresh();
};
marker.onpointerleave = () => {
  pointer = null;
  remark();
};
marker.onfocus = marker.onblur = () => remark();

const TOOLS = { v: "select", p: "paint", b: "box", d: "move", m: "mask", k: "keep" };
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

marker.onkeydown = (event) => {
  if (!now || event.ctrlKey || event.metaKey || event.altKey) return;
  const way = ARROWS[event.key]?.map((step) => step * (event.shiftKey ? 8 : 1));
  const centre = () => [cross[0] + 0.5, cross[1] + 0.5];
  if (way) {
    pointer = null;
    if (tool() === "move" && selected !== undefined) {
      drag ??= { ghost: { id: selected, right: 0, down: 0 } };
      drag.ghost.right += way[0];
      drag.ghost.down += way[1];
    } else {
      cross = inside([cross[0] + way[0], cross[1] + way[1]]);
      tell(...cross);
      if (drag) follow(centre());
    }
  } else if (event.key === " " || event.key === "Enter") {
    if (drag) finish();
    else begin(centre());
    if (drag?.name) finish(); // a brush makes a dot
  } else if (event.key === "Delete" && selected !== undefined) change({ kind: "remove", id: selected });
  else if (event.key === "Escape") {
    if (!drag) select(undefined);
    drag = null;
    refresh();
  } else if (TOOLS[event.key.toLowerCase()]) choose(TOOLS[event.key.toLowerCase()]);
  else return;
  event.preventDefault();
  remark();
};

function choose(name) {
  document.querySelector(`#tools [value=${name}]`).checked = true;
  remark();
}

document.addEventListener("keydown", (event) => {
  if (!(event.ctrlKey || event.metaKey) || !now) return;
  const key = event.key.toLowerCase();
  if (key === "enter" && !at("generate").disabled) generate();
  else if (event.target.matches("input[type=number], input[type=search]")) return;
  else if (key === "z" && !event.shiftKey) back(past, future);
  else if (key === "y" || key === "z") back(future, past);
  else return;
  event.preventDefault();
});

// --- panels ----------------------------------------------------------------------------------------------------------
at("undo").onclick = () => back(past, future);
at("redo").onclick = () => back(future, past);
at("clear").onclick = () => become({ ...now, mask: new Uint8Array(now.mask.length) });
at("remove").onclick = () => change({ kind: "remove", id: selected });
at("become").onclick = () => change({ kind: "become", id: selected, class: chosen() });
at("replace").onclick = () => change({ kind: "replace", old: run.classes.indexOf(classOf(selected)), new: chosen() });
at("things").onchange = () => select(at("things").value === "" ? undefined : Number(at("things").value));
for (const button of document.querySelectorAll("[data-side]")) {
  button.onclick = async () => {
    if (now) await change({ kind: "extend", side: button.dataset.side, pixels: at("pixels").valueAsNumber });
    fit();
  };
}
at("tint").oninput = at("show-mask").onchange = () => now && redraw();
at("brush").oninput = () => {
  at("brush-size").textContent = `${at("brush").value} px`;
  remark();
};
at("zoom").oninput = fit;
addEventListener("resize", fit);
at("tools").onchange = remark;

function listClasses() {
  run.classes.forEach(({ name, colour }, number) => {
    const label = make("label", "", at("palette"), { title: name });
    const input = make("input", "", label, { type: "radio", name: "class", value: number });
    input.checked = number === 0;
    make("i", "", label).style.background = `rgb(${colour})`;
    make("span", name, label);
  });
  at("find").hidden = run.classes.length < 25;
  at("find").oninput = () => {
    const wanted = at("find").value.toLowerCase();
    for (const label of at("palette").children) label.hidden = !label.title.toLowerCase().includes(wanted);
  };
  at("palette").onchange = refresh;
}

// --- opening ---------------------------------------------------------------------------------------------------------
const waiting = (job) => say(job.state === "waiting" ? `waiting, ${job.ahead} before this one` : "looking for classes …");

at("example").onchange = guarded(async () => start(await example(at("example").value)));
at("open").onsubmit = guarded(async (event) => {
  event.preventDefault();
  const files = {};
  for (const input of at("open").querySelectorAll("input")) if (input.files[0]) files[input.name] = input.files[0];
  start(await open(files, waiting));
});
at("stage").ondragover = (event) => {
  event.preventDefault();
  at("stage").classList.add("over");
};
at("stage").ondragleave = () => at("stage").classList.remove("over");
at("stage").ondrop = guarded(async (event) => {
  event.preventDefault();
  at("stage").classList.remove("over");
  const image = event.dataTransfer.files[0];
  if (image) start(await open({ image }, waiting));
});

// --- styles ----------------------------------------------------------------------------------------------------------
function listLenders() {
  const lender = at("lender");
  const before = lender.value;
  lender.replaceChildren(make("option", "this picture, as it was opened", null, { value: CURRENT }));
  for (const name of run.examples) make("option", name, lender, { value: name });
  if (run.segmenter) make("option", "a file …", lender, { value: FILE });
  lender.value = before || CURRENT;
  if (!lender.value) lender.value = CURRENT;
  if (at("style").value === "reference") borrow();
}

const borrow = guarded(async () => {
  const name = at("lender").value;
  at("lender-file").hidden = name !== FILE;
  if (name === FILE) lend(null);
  else lend(name === CURRENT ? first : await example(name));
});

function lend(scene) {
  lent = scene;
  at("lent").hidden = !scene;
  const select = at("style-class");
  select.replaceChildren();
  if (!scene) return;
  for (const name of new Set(scene.objects.map((each) => each.class))) {
    const number = run.classes.findIndex((each) => each.name === name);
    if (run.classes[number]?.styled) make("option", `its ${name}`, select, { value: number });
  }
  showLent();
}

function showLent() {
  const number = Number(at("style-class").value);
  const of = lent.label.map((label) => Number(label === number));
  draw(at("lent"), { ...lent, mask: of }, { palette: palette(), tint: 0, outline: true });
}

at("style").onchange = () => {
  at("reference").hidden = at("style").value !== "reference";
  if (at("style").value === "reference") borrow();
};
at("lender").onchange = borrow;
at("lender-file").querySelector("input").onchange = guarded(async (event) => {
  if (event.target.files[0]) lend(await open({ image: event.target.files[0] }, waiting));
});
at("style-class").onchange = showLent;
at("lent").onclick = ({ offsetX, offsetY, target }) => {
  const x = Math.floor((offsetX / target.clientWidth) * lent.width);
  const y = Math.floor((offsetY / target.clientHeight) * lent.height);
  const number = lent.label[Math.min(y, lent.height - 1) * lent.width + Math.min(x, lent.width - 1)];
  if (run.classes[number]?.styled) at("style-class").value = number;
  showLent();
};

// --- results ---------------------------------------------------------------------------------------------------------
let working = false;

// What is asked for, and the scene that lends its style, as parts of a message.
function wish() {
  const style = at("style").value;
  const head = { count: at("count").valueAsNumber, seed: at("seed").valueAsNumber, style, between: at("between").checked };
  if (style !== "reference") return [head, {}];
  if (!lent) throw new Error("Choose the picture that lends its style.");
  return [{ ...head, style_class: Number(at("style-class").value) }, { reference: packScene(lent) }];
}

const generate = guarded(async () => {
  const bar = at("progress");
  working = true;
  refresh();
  try {
    await queue; // changes that were asked for before
    const scene = now;
    const { job: key } = await (await send("edits", packScene(scene, ...wish()))).json();
    bar.hidden = false;
    at("cancel").onclick = guarded(() => ask(`jobs/${key}`, { method: "DELETE" }));
    const job = await finished(key, ({ state, ahead, done, total }) => {
      bar.querySelector("progress").value = done / total;
      bar.querySelector("span").textContent = state === "waiting" ? `waiting, ${ahead} before it` : `${done} of ${total}`;
    });
    if (job.state === "done") await list(key, job, scene);
  } finally {
    working = false;
    bar.hidden = true;
    refresh();
  }
});
at("generate").onclick = generate;

async function list(key, job, scene) {
  const { between } = job.facts;
  const names = job.files.filter((name) => name.endsWith(".png"));
  const bytes = await Promise.all(
    names.map(async (name) => new Uint8Array(await (await ask(`jobs/${key}/${name.replace(/png$/, "rgb")}`)).arrayBuffer())),
  );
  shown = { scene, between, pictures: names.map((name, k) => ({ name, image: bytes[k], title: job.facts.titles[k] })) };
  const grid = at("grid");
  grid.replaceChildren();
  grid.classList.toggle("one", between);
  for (const picture of shown.pictures) {
    const figure = make("figure", "", grid);
    picture.figure = figure;
    picture.canvas = make("canvas", "", figure, { role: "img", "aria-label": `result, ${picture.title}` });
    const caption = make("figcaption", "", figure);
    make("b", picture.title, caption);
    make("button", "Go on from this", caption).onclick = () => goOn(scene, picture);
    make("a", "Download", caption, { href: `api/jobs/${key}/${picture.name}`, download: picture.name, class: "button" });
  }
  const drawn = Object.entries(job.facts.drawn).map(([name, count]) => `${name} (${count})`);
  const styles = run.styles ? `Styles drawn: ${drawn.join(", ") || "none, nothing that has a style is fully erased"}. ` : "";
  at("drawn").textContent = styles + (job.facts.note ? `Note: ${job.facts.note}.` : "");
  at("all").href = `api/jobs/${key}/${scene.name}.zip`;
  at("command").textContent = job.facts.command;
  const slider = at("slide").querySelector("input");
  at("slide").hidden = !between;
  slider.max = shown.pictures.length - 1;
  slider.value = 0;
  at("results").hidden = false;
  drawResults();
  at("results").scrollIntoView({ behavior: "smooth", block: "nearest" });
}

function drawResults() {
  const { scene, pictures, between } = shown;
  pictures.forEach(({ image, canvas, figure }, k) => {
    figure.hidden = between && k !== Number(at("slide").querySelector("input").value);
    const tint = at("result-tint").checked ? 0.45 : 0;
    draw(canvas, scene, { palette: palette(), tint, outline: at("result-mask").checked, image });
  });
}
at("result-tint").onchange = at("result-mask").onchange = drawResults;
at("slide").oninput = drawResults;

function goOn(scene, { image }) {
  become({ ...scene, image, mask: new Uint8Array(scene.mask.length) });
  fit();
  at("work").scrollIntoView({ behavior: "smooth" });
}

at("copy").onclick = guarded(async () => {
  await navigator.clipboard.writeText(at("command").textContent);
  say("copied");
});

// --- start -----------------------------------------------------------------------------------------------------------
guarded(async () => {
  run = await (await ask("run")).json();
  document.title = `${run.run} · SemEdit`;
  const labels = run.segmenter ? `labels by ${run.segmenter}` : "no segmenter";
  at("about").textContent = `${run.run}: ${run.model} at ${run.crop} pixels, ${run.classes.length} classes, ${labels}`;
  if (run.segmenter) at("labels-by").textContent = `optional; without it ${run.segmenter} makes one`;
  at("styles").hidden = !run.styles;
  at("brush").oninput();
  listClasses();
  for (const name of run.examples) make("option", name, at("example"), { value: name });
  at("examples").hidden = !run.examples.length;
  at("own").open = !run.examples.length;
  if (run.examples.length) start(await example(run.examples[0]));
})();
