// The tab of a run of one picture: its layout is painted anew, and the picture rendered for it.
import { at, guarded, listClasses, showPictures, watched } from "./dom.js";
import { Easel, History, shortcuts } from "./easel.js";
import { opened, pack, send } from "./server.js";

const history = new History(300e6);
let easel;
let first; // the picture with its own layout
let now;
let working = false;

function show(scene) {
  now = scene;
  easel.show(scene);
  refresh();
}

function become(scene) {
  history.add(now);
  show(scene);
}

function refresh() {
  at("layout-undo").disabled = !history.past.length;
  at("layout-redo").disabled = !history.future.length;
  const painted = now.mask.includes(1);
  at("layout-clear").disabled = !painted;
  at("layout-render").disabled = working || (at("layout-part").checked && !painted);
}

// Give pixels the chosen class.
function paint(inside) {
  const label = now.label.slice();
  const mask = now.mask.slice();
  for (let i = 0; i < label.length; i++) {
    if (!inside(i)) continue;
    label[i] = easel.chosen();
    mask[i] = 1;
  }
  become({ ...now, label, inst: Int32Array.from(label), mask });
}

const tools = {
  select: () => {},
  paint: (shape) => paint((i) => shape[i]),
  box: ([x0, y0, x1, y1]) =>
    paint((i) => {
      const x = i % now.width;
      const y = Math.floor(i / now.width);
      return x >= x0 && x < x1 && y >= y0 && y < y1;
    }),
  mask: (shape, erased) => become({ ...now, mask: now.mask.map((old, i) => (shape[i] ? Number(erased) : old)) }),
};

function back(forward) {
  const scene = history.step(now, forward);
  if (scene) show(scene);
}

const render = guarded(
  async () => {
    working = true;
    refresh();
    try {
      const mask = at("layout-part").checked ? now.mask : new Uint8Array(now.mask.length).fill(1);
      const message = pack({ size: [now.width, now.height] }, { label: now.label, mask });
      const { job: key } = await (await send("layouts", message)).json();
      const job = await watched("layout-", key);
      if (job) showPictures("layout-", key, job);
    } finally {
      working = false;
      refresh();
    }
  },
);

export async function startLayout() {
  first = await opened("layout");
  listClasses("layout-", first.classes, () => {});
  easel = new Easel("layout-", first.classes, tools);
  at("layout-undo").onclick = () => back(false);
  at("layout-redo").onclick = () => back(true);
  at("layout-clear").onclick = () => become(first);
  at("layout-part").onchange = refresh;
  at("layout-render").onclick = render;
  shortcuts(at("panel-analogy"), {
    undo: () => back(false),
    redo: () => back(true),
    go: () => !at("layout-render").disabled && render(),
  });
  show(first);
  const { run, model, width, height, classes } = first;
  return { about: `${run}: ${model} of one picture, ${width} × ${height} pixels, ${classes.length} classes`, fit: () => easel.fit() };
}
