// The tab in which a run edits scenes.
import { at, guarded, listClasses, make, say, watched } from "./dom.js";
import { Easel, History, shortcuts } from "./easel.js";
import { Results } from "./results.js";
import { ask, changed, example, open, packScene, send } from "./server.js";
import { Styles } from "./styles.js";

const MOST_KEPT = 300e6; // bytes of the states that Undo goes back to

let run; // what the server knows of the run
let easel; // the picture, and what is drawn on it
let styles;
let results;
let now = null; // the scene as it is edited
let first = null; // the picture as it was opened
let working = false;
let queue = Promise.resolve(); // changes, one after the other
const history = new History(MOST_KEPT);
const tried = (work) => guarded(work, () => refresh());

// --- the scene and its history ---------------------------------------------------------------------------------------
const classOf = (id) => run.classes[now.label[now.inst.indexOf(id)]];
const selected = () => easel.selected;

function show(scene) {
  now = scene;
  easel.show(scene);
  refresh();
}

function become(scene) {
  if (now) history.add(now);
  show(scene);
}

function start(scene) {
  history.clear();
  easel.selected = undefined;
  first = scene;
  at("own").open = false;
  show(scene);
  styles.opened();
  say(scene.notes.join(" "));
}

function back(forward) {
  const scene = now && history.step(now, forward);
  if (scene) show(scene);
}

// Ask the server for a change of the scene as it is when its turn comes.
function change(wish, more) {
  const reach = at("reach").value === "" ? null : at("reach").valueAsNumber;
  queue = queue.then(tried(async () => become({ ...(await changed(now, { ...wish, reach }, more)), notes: [] })));
  return queue;
}

function refresh() {
  if (!now) return;
  easel.redraw();
  easel.remark();
  const things = at("things");
  things.replaceChildren(make("option", "nothing", null, { value: "" }));
  for (const { id, class: name, share } of now.objects) {
    make("option", `${name} ${id} (${(100 * share).toPrecision(2)} %)`, things, { value: id });
  }
  things.value = selected() ?? "";
  const own = selected() === undefined ? null : classOf(selected());
  const wanted = run.classes[easel.chosen()].name;
  at("remove").disabled = at("renew").disabled = !own;
  at("become").disabled = at("replace").disabled = !own || own.name === wanted;
  at("become").textContent = `Make it ${wanted}`;
  at("replace").textContent = at("replace").disabled ? "Replace all" : `All ${own.name} → ${wanted}`;
  at("undo").disabled = !history.past.length;
  at("redo").disabled = !history.future.length;
  const erased = now.mask.includes(1);
  at("clear").disabled = !erased;
  at("generate").disabled = !erased || working;
  at("generate").textContent = erased ? "Generate" : "Generate (nothing is erased yet)";
  if (run.styles) styles.refresh();
}

// --- tools -----------------------------------------------------------------------------------------------------------
const tools = {
  select: () => refresh(),
  move: (ghost) => change({ kind: "move", ...ghost }),
  remove: (id) => change({ kind: "remove", id }),
  box: tried(async (box) => {
    const [shape, more] = styles.shape();
    await change({ kind: "box", class: easel.chosen(), box, ...shape }, more);
  }),
  mask: (shape, erased) => become({ ...now, mask: now.mask.map((old, i) => (shape[i] ? Number(erased) : old)) }),
  async paint(shape) {
    const painted = easel.chosen();
    const grows = selected() !== undefined && classOf(selected()) === run.classes[painted];
    const before = new Set(now.objects.map(({ id }) => id));
    await change({ kind: "paint", class: painted, id: grows ? selected() : null }, { shape });
    const made = now.objects.find(({ id }) => !before.has(id));
    if (made && run.classes[painted].thing) easel.select(made.id); // the next stroke goes on with it
  },
};

const extend = (wish) => now && change({ kind: "extend", ...wish, labels: at("extend-labels").value || null });
const buttons = {
  undo: () => back(false),
  redo: () => back(true),
  clear: () => become({ ...now, mask: new Uint8Array(now.mask.length) }),
  invert: () => now && become({ ...now, mask: now.mask.map((old) => 1 - old) }),
  remove: () => change({ kind: "remove", id: selected() }),
  renew: () => change({ kind: "renew", id: selected() }),
  become: () => change({ kind: "become", id: selected(), class: easel.chosen() }),
  replace: () => change({ kind: "replace", old: run.classes.indexOf(classOf(selected())), new: easel.chosen() }),
  widen: () => extend({ width: at("width").valueAsNumber }),
  generate: () => generate(),
};

// --- opening ---------------------------------------------------------------------------------------------------------
const waiting = (job) => say(job.state === "waiting" ? `waiting, ${job.ahead} before this one` : "looking for classes …");

function listen() {
  for (const [name, work] of Object.entries(buttons)) at(name).onclick = work;
  for (const button of document.querySelectorAll("[data-side]")) {
    button.onclick = () => extend({ side: button.dataset.side, pixels: at("pixels").valueAsNumber });
  }
  at("things").onchange = () => easel.select(at("things").value === "" ? undefined : Number(at("things").value));
  at("example").onchange = tried(async () => start(await example(at("example").value)));
  at("open").onsubmit = tried(async (event) => {
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
  at("stage").ondrop = tried(async (event) => {
    event.preventDefault();
    at("stage").classList.remove("over");
    const image = event.dataTransfer.files[0];
    if (image) start(await open({ image }, waiting));
  });
  shortcuts(at("panel-editing"), {
    undo: buttons.undo,
    redo: buttons.redo,
    go: () => !at("generate").disabled && generate(),
  });
}

// --- results ---------------------------------------------------------------------------------------------------------
const generate = tried(async () => {
  working = true;
  refresh();
  try {
    await queue; // changes that were asked for before
    styles.stop(); // thumbnails can wait
    const scene = now;
    const [wish, more] = styles.wish();
    const head = { count: at("count").valueAsNumber, seed: at("seed").valueAsNumber, between: at("between").checked };
    const { job: key } = await (await send("edits", packScene(scene, { ...head, ...wish }, more))).json();
    const job = await watched("", key);
    if (job) await results.show(key, job, scene);
  } finally {
    working = false;
    refresh();
  }
});

function goOn(scene, { image }) {
  become({ ...scene, image, mask: new Uint8Array(scene.mask.length) });
  at("work").scrollIntoView({ behavior: "smooth" });
}

export async function startScenes() {
  run = await (await ask("run")).json();
  const labels = run.segmenter ? `labels by ${run.segmenter}` : "no segmenter";
  const about = `${run.run}: ${run.model} at ${run.crop} pixels, ${run.classes.length} classes, ${labels}`;
  if (run.segmenter) at("labels-by").textContent = `optional; without it ${run.segmenter} makes one`;
  at("styles").hidden = !run.styles;
  listClasses("", run.classes, refresh);
  easel = new Easel("", run.classes, tools);
  styles = new Styles(run, { now: () => now, first: () => first, selected, classOf, change, waiting });
  results = new Results(run, goOn);
  listen();
  for (const name of run.examples) make("option", name, at("example"), { value: name });
  at("examples").hidden = !run.examples.length;
  at("own").open = !run.examples.length;
  if (run.examples.length) start(await example(run.examples[0]));
  return { about, fit: () => easel.fit() };
}
