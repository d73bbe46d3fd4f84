// The picture on its canvas, with the tools that are used on it by mouse, finger or keyboard.
import { draw, mark, stroke } from "./canvas.js";
import { at } from "./dom.js";

const TOOLS = { v: "select", p: "paint", b: "box", d: "move", m: "mask", k: "keep" };
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
const boxOf = ([ax, ay], [bx, by]) => [Math.min(ax, bx), Math.min(ay, by), Math.max(ax, bx) + 1, Math.max(ay, by) + 1];

export class Easel {
  // `prefix`: of the elements' ids. `classes`: {name, colour} each. `on`: what is done with a finished stroke, each
  // with what the tool drew: select(id), box(box), move({id, right, down}), paint(shape), mask(shape, erased), remove(id).
  constructor(prefix, classes, on) {
    this.prefix = prefix;
    this.classes = classes;
    this.palette = classes.map((each) => each.colour);
    this.on = on;
    this.scene = null;
    this.selected = undefined; // id of an instance
    this.cross = [0, 0]; // where the keyboard is
    this.pointer = null; // where the pointer is, in pixels of the picture
    this.drag = null; // what is being drawn
    this.marker = this.at("marks");
    this.listen();
  }

  at(name) {
    return at(this.prefix + name);
  }

  chosen() {
    return Number(this.at("palette").querySelector(":checked")?.value ?? 0);
  }

  tool() {
    return this.at("tools").querySelector(":checked").value;
  }

  // --- showing -------------------------------------------------------------------------------------------------------
  show(scene) {
    const stretched = this.scene?.width !== scene.width || this.scene?.height !== scene.height;
    this.scene = scene;
    if (!scene.inst.includes(this.selected)) this.selected = undefined;
    if (stretched) this.cross = [Math.floor(scene.width / 2), Math.floor(scene.height / 2)];
    this.at("hint").hidden = true;
    this.at("frame").hidden = false;
    this.redraw();
    if (stretched) this.fit();
    else this.remark();
  }

  redraw(part, preview = this.scene) {
    if (!preview) return;
    const look = { palette: this.palette, tint: this.at("tint").value / 100, mask: this.at("show-mask").checked };
    draw(this.at("view"), preview, look, part);
  }

  // The picture fills the stage's width, or as much of it as lets its height be seen.
  fit() {
    if (!this.scene) return;
    const { width, height } = this.scene;
    const wide = Math.min(this.at("stage").clientWidth, (0.7 * innerHeight * width) / height) * this.at("zoom").value;
    this.at("frame").style.width = `${wide}px`;
    this.at("frame").style.height = `${(wide * height) / width}px`;
    this.remark();
  }

  remark() {
    if (!this.scene) return;
    const marks = { selected: this.selected };
    const { pointer, cross, drag, marker } = this;
    const keys = document.activeElement === marker && !pointer;
    if (keys) marks.cross = cross;
    const where = pointer ?? (keys ? [cross[0] + 0.5, cross[1] + 0.5] : null);
    const brushes = ["paint", "mask", "keep"].includes(this.tool());
    if (brushes && where) marks.brush = [...where, Number(this.at("brush").value)];
    if (drag?.from) marks.box = boxOf(drag.from, drag.to);
    if (drag?.ghost) marks.ghost = drag.ghost;
    mark(marker, this.scene, marks);
  }

  tell(x, y) {
    const { inst, label, mask, width } = this.scene;
    const i = y * width + x;
    const name = this.classes[label[i]]?.name ?? `class ${label[i]}`;
    const id = inst[i] === label[i] ? "" : inst[i];
    this.at("under").textContent = `${name} ${id} at ${x}, ${y}${mask[i] ? ", will be generated" : ""}`;
    this.marker.title = name;
  }

  select(id) {
    this.selected = id;
    this.on.select(id);
  }

  // --- tools ---------------------------------------------------------------------------------------------------------
  inside([x, y]) {
    const { width, height } = this.scene;
    return [Math.min(width - 1, Math.max(0, Math.floor(x))), Math.min(height - 1, Math.max(0, Math.floor(y)))];
  }

  place(event) {
    const { left, top, width, height } = this.marker.getBoundingClientRect();
    return [((event.clientX - left) / width) * this.scene.width, ((event.clientY - top) / height) * this.scene.height];
  }

  begin(where) {
    const name = this.tool();
    const [x, y] = this.inside(where);
    const id = this.scene.inst[y * this.scene.width + x];
    if (name === "select") {
      this.select(id === this.selected ? undefined : id);
    } else if (name === "box") {
      this.drag = { from: [x, y], to: [x, y] };
    } else if (name === "move") {
      if (this.selected === undefined) this.select(id);
      this.drag = { start: where, ghost: { id: this.selected, right: 0, down: 0 } };
    } else {
      const { label, mask } = this.scene;
      const preview = { ...this.scene, label: label.slice(), mask: mask.slice() };
      this.drag = { name, shape: new Uint8Array(label.length), preview, last: where };
      this.brush(where);
    }
    this.remark();
  }

  brush(where) {
    const { name, shape, preview, last } = this.drag;
    const { width, height } = this.scene;
    const [x0, y0, x1, y1] = stroke(shape, width, height, last, where, Number(this.at("brush").value));
    this.drag.last = where;
    for (let y = y0; y < y1; y++) {
      for (let i = y * width + x0; i < y * width + x1; i++) {
        if (!shape[i]) continue;
        preview.mask[i] = name === "keep" ? 0 : 1;
        if (name === "paint") preview.label[i] = this.chosen();
      }
    }
    this.redraw([Math.max(0, x0 - 1), Math.max(0, y0 - 1), Math.min(width, x1 + 1), Math.min(height, y1 + 1)], preview);
  }

  follow(where) {
    const { drag } = this;
    if (drag?.from) drag.to = this.inside(where);
    else if (drag?.ghost) {
      drag.ghost.right = Math.round(where[0] - drag.start[0]);
      drag.ghost.down = Math.round(where[1] - drag.start[1]);
    } else if (drag) this.brush(where);
  }

  async finish() {
    const done = this.drag;
    this.drag = null;
    if (done?.from) {
      const box = boxOf(done.from, done.to);
      if (box[2] - box[0] > 1 && box[3] - box[1] > 1) await this.on.box(box);
    } else if (done?.ghost) {
      if (done.ghost.right || done.ghost.down) await this.on.move(done.ghost);
    } else if (done?.name === "paint") {
      await this.on.paint(done.shape);
    } else if (done?.shape.length === this.scene.mask.length) {
      this.on.mask(done.shape, done.name === "mask");
    }
    this.remark();
  }

  cancel() {
    this.drag = null;
    this.redraw();
    this.remark();
  }

  // --- events --------------------------------------------------------------------------------------------------------
  listen() {
    const { marker } = this;
    marker.onpointerdown = (event) => {
      if (!this.scene || event.button) return;
      marker.setPointerCapture(event.pointerId);
      this.pointer = this.place(event);
      this.begin(this.pointer);
    };
    marker.onpointermove = (event) => {
      if (!this.scene) return;
      this.pointer = this.place(event);
      this.tell(...this.inside(this.pointer));
      this.follow(this.pointer);
      this.remark();
    };
    marker.onpointerup = () => this.finish();
    marker.onpointercancel = () => this.cancel();
    marker.onpointerleave = () => {
      this.pointer = null;
      this.remark();
    };
    marker.onfocus = marker.onblur = () => this.remark();
    marker.onkeydown = (event) => this.key(event);
    this.at("tint").oninput = this.at("show-mask").onchange = () => this.redraw();
    this.at("brush").oninput = () => {
      this.at("brush-size").textContent = `${this.at("brush").value} px`;
      this.remark();
    };
    this.at("brush").oninput();
    this.at("zoom").oninput = () => this.fit();
    this.at("tools").onchange = () => this.remark();
    addEventListener("resize", () => this.fit());
  }

  key(event) {
    if (!this.scene || event.ctrlKey || event.metaKey || event.altKey) return;
    const way = ARROWS[event.key]?.map((step) => step * (event.shiftKey ? 8 : 1));
    const centre = () => [this.cross[0] + 0.5, this.cross[1] + 0.5];
    const tool = this.at("tools").querySelector(`[value=${TOOLS[event.key.toLowerCase()]}]`);
    if (way) {
      this.pointer = null;
      if (this.tool() === "move" && this.selected !== undefined) {
        this.drag ??= { ghost: { id: this.selected, right: 0, down: 0 } };
        this.drag.ghost.right += way[0];
        this.drag.ghost.down += way[1];
      } else {
        this.cross = this.inside([this.cross[0] + way[0], this.cross[1] + way[1]]);
        this.tell(...this.cross);
        if (this.drag) this.follow(centre());
      }
    } else if (event.key === " " || event.key === "Enter") {
      if (this.drag) this.finish();
      else this.begin(centre());
      if (this.drag?.name) this.finish(); // a brush makes a dot
    } else if (event.key === "Delete" && this.selected !== undefined) this.on.remove(this.selected);
    else if (event.key === "Escape") {
      if (!this.drag && this.selected !== undefined) this.select(undefined);
      this.cancel();
    } else if (tool) tool.checked = true;
    else return;
    event.preventDefault();
    this.remark();
  }
}

// States of a scene that can be gone back to.
export class History {
  constructor(most) {
    this.most = most; // bytes
    this.clear();
  }

  clear() {
    this.past = [];
    this.future = [];
  }

  add(state) {
    this.past.push(state);
    this.future = [];
    let size = 0; // states share the arrays that did not change, and count them fully here
    this.past = this.past.reverse().filter((old) => (size += 10 * old.label.length) < this.most).reverse();
  }

  // The state before (or, of a step that was taken back, after) `now`; undefined if there is none.
  step(now, forward) {
    const [from, to] = forward ? [this.future, this.past] : [this.past, this.future];
    if (from.length) to.push(now);
    return from.pop();
  }
}

// Ctrl+Z, Ctrl+Shift+Z and Ctrl+Enter while a panel is shown.
export function shortcuts(panel, { undo, redo, go }) {
  document.addEventListener("keydown", (event) => {
    if (!(event.ctrlKey || event.metaKey) || panel.hidden) return;
    const key = event.key.toLowerCase();
    if (key === "enter") go();
    else if (event.target.matches("input[type=number], input[type=search]")) return;
    else if (key === "z" && !event.shiftKey) undo();
    else if (key === "y" || key === "z") redo();
    else return;
    event.preventDefault();
  });
}
