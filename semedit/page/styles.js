// Styles of what is made: drawn, chosen from thumbnails of the run's bank, or lent by another picture.
import { draw } from "./canvas.js";
import { at, guarded, make } from "./dom.js";
import { ask, example, finished, open, packScene, send } from "./server.js";

const CURRENT = "\u0000current"; // the picture itself lends its styles
const FILE = "\u0000file";

export class Styles {
  // `run`: what the server knows of it. `scenes`: now(), first(), selected(), classOf(id), change(wish), waiting(job).
  constructor(run, scenes) {
    this.run = run;
    this.scenes = scenes;
    this.codes = new Map(); // number of the chosen code by class
    this.shown = undefined; // the thing whose styles are shown; null: none is selected
    this.key = null; // of the job that makes thumbnails
    this.lent = null; // the scene that lends a style or a shape
    this.thing = undefined; // in it
    at("style").onchange = () => this.refresh();
    at("more-codes").onclick = guarded(() => this.show(at("thumbs").children.length));
    at("box-shape").onchange = () => this.refresh();
    at("lender").onchange = () => this.borrow();
    at("lender-file").querySelector("input").onchange = guarded(async (event) => {
      if (event.target.files[0]) this.lend(await open({ image: event.target.files[0] }, scenes.waiting));
    });
    at("style-class").onchange = () => this.showLent();
    at("lent").onclick = (event) => this.pick(event);
    this.listLenders();
  }

  // Show what the chosen kind of style needs, for the thing that is selected.
  refresh() {
    const style = at("style").value;
    const shape = at("box-shape").value === "thing";
    at("codes").hidden = style !== "codes";
    at("other").hidden = style !== "reference" && !shape;
    at("style-of").hidden = style !== "reference";
    at("shape-of").hidden = !shape;
    if (!at("other").hidden && !this.lent) this.borrow();
    else if (this.lent) this.showLent();
    if (style !== "codes") return;
    const id = this.scenes.selected();
    const shown = id === undefined ? null : `${id} ${this.scenes.classOf(id)?.name}`;
    if (shown === this.shown) return;
    this.shown = shown;
    this.stop();
    at("thumbs").replaceChildren();
    at("more-codes").hidden = true;
    this.listChosen();
    if (shown) guarded(() => this.show(0))();
    else at("codes-of").textContent = "Select a thing to see the styles of its class.";
  }

  // --- thumbnails ----------------------------------------------------------------------------------------------------
  stop() {
    if (this.key) ask(`jobs/${this.key}`, { method: "DELETE" }).catch(() => {});
    this.key = null;
  }

  async show(first) {
    const id = this.scenes.selected();
    const own = this.scenes.classOf(id);
    at("more-codes").hidden = true;
    if (!own.styled) {
      at("codes-of").textContent = `The run has no styles of ${own.name}.`;
      return;
    }
    at("codes-of").textContent = `Styles of ${own.name}, each shown on this thing:`;
    const { shown } = this;
    const { job } = await (await send("styles", packScene(this.scenes.now(), { id, first }))).json();
    if (shown !== this.shown) {
      ask(`jobs/${job}`, { method: "DELETE" }).catch(() => {});
      return;
    }
    this.key = job;
    const seen = new Set();
    const last = await finished(job, ({ files, facts }) => {
      if (this.key !== job) return;
      for (const name of files.filter((each) => !seen.has(each))) {
        seen.add(name);
        this.add(`api/jobs/${job}/${name}`, facts.label, Number(name.match(/\d+/)[0]));
      }
    });
    if (this.key !== job) return;
    this.key = null;
    at("more-codes").hidden = at("thumbs").children.length >= last.facts.total;
  }

  add(place, label, number) {
    const { name } = this.run.classes[label];
    const button = make("button", "", at("thumbs"), { title: `style ${number} of ${name}`, "data-code": number });
    make("img", "", button, { src: place, alt: `style ${number} of ${name}` });
    button.setAttribute("aria-pressed", this.codes.get(label) === number);
    button.onclick = guarded(() => this.choose(label, number));
  }

  // A thing of which something is kept keeps its look, so that it is erased to take the style.
  async choose(label, number) {
    if (this.codes.get(label) === number) this.codes.delete(label);
    else this.codes.set(label, number);
    this.listChosen();
    const id = this.scenes.selected();
    const { inst, mask } = this.scenes.now();
    if (this.codes.has(label) && inst.some((each, i) => each === id && !mask[i])) {
      await this.scenes.change({ kind: "renew", id });
    }
  }

  listChosen() {
    const list = at("chosen");
    list.replaceChildren();
    for (const [label, number] of this.codes) {
      const text = `${this.run.classes[label].name}: style ${number} ×`;
      make("button", text, list, { title: "draw it at random again" }).onclick = () => {
        this.codes.delete(label);
        this.listChosen();
      };
    }
    const id = this.scenes.selected();
    const label = id === undefined ? -1 : this.run.classes.indexOf(this.scenes.classOf(id));
    for (const button of at("thumbs").children) {
      button.setAttribute("aria-pressed", this.codes.get(label) === Number(button.dataset.code));
    }
  }

  // --- another picture -----------------------------------------------------------------------------------------------
  listLenders() {
    const lender = at("lender");
    make("option", "this picture, as it was opened", lender, { value: CURRENT });
    for (const name of this.run.examples) make("option", name, lender, { value: name });
    if (this.run.segmenter) make("option", "a file …", lender, { value: FILE });
  }

  // Another picture is edited now.
  opened() {
    this.shown = undefined;
    if (at("lender").value === CURRENT) this.lend(null);
    this.refresh();
  }

  borrow = guarded(async () => {
    const name = at("lender").value;
    at("lender-file").hidden = name !== FILE;
    if (name === FILE) this.lend(null);
    else this.lend(name === CURRENT ? this.scenes.first() : await example(name));
  });

  lend(scene) {
    this.lent = scene;
    this.thing = undefined;
    at("lent").hidden = !scene;
    const select = at("style-class");
    select.replaceChildren();
    if (!scene) return;
    for (const name of new Set(scene.objects.map((each) => each.class))) {
      const number = this.run.classes.findIndex((each) => each.name === name);
      if (this.run.classes[number]?.styled) make("option", `its ${name}`, select, { value: number });
    }
    this.showLent();
  }

  showLent() {
    const { label, inst } = this.lent;
    const number = Number(at("style-class").value);
    const shape = at("box-shape").value === "thing";
    const mask = shape ? inst.map((id) => Number(id === this.thing)) : label.map((each) => Number(each === number));
    draw(at("lent"), { ...this.lent, mask }, { palette: [], tint: 0, outline: true });
    const found = this.lent.objects.find(({ id }) => id === this.thing);
    at("shape-of").textContent = found
      ? `The next box takes the shape of its ${found.class} ${found.id}.`
      : "Click the thing whose shape a box is to take.";
  }

  pick({ offsetX, offsetY, target }) {
    const { width, height, inst, label } = this.lent;
    const x = Math.min(width - 1, Math.floor((offsetX / target.clientWidth) * width));
    const y = Math.min(height - 1, Math.floor((offsetY / target.clientHeight) * height));
    this.thing = inst[y * width + x];
    const number = label[y * width + x];
    if (this.run.classes[number]?.styled) at("style-class").value = number;
    this.showLent();
  }

  // The shape of a box, and what it needs of another picture, as parts of a change.
  shape() {
    const kind = at("box-shape").value;
    if (kind !== "thing") return [{ shape: kind }, {}];
    if (!this.lent || this.thing === undefined) throw new Error("Click the thing in the other picture whose shape is wanted.");
    return [{ shape: kind, of: this.thing }, { reference: packScene(this.lent) }];
  }

  // What is asked for, as parts of a message.
  wish() {
    const style = this.run.styles ? at("style").value : "bank";
    if (style === "codes") return this.codes.size ? [{ style, codes: Object.fromEntries(this.codes) }, {}] : [{ style: "bank" }, {}];
    if (style !== "reference") return [{ style }, {}];
    if (!this.lent) throw new Error("Choose the picture that lends its style.");
    return [{ style, style_class: Number(at("style-class").value) }, { reference: packScene(this.lent) }];
  }
}
