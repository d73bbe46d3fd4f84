// Results of an edit, side by side or on a slider, over which labels and the outline of the mask can be laid.
import { draw } from "./canvas.js";
import { at, make, showCommand } from "./dom.js";
import { ask } from "./server.js";

export class Results {
  // `goOn(scene, picture)`: a result becomes the picture that is edited.
  constructor(run, goOn) {
    this.run = run;
    this.goOn = goOn;
    this.palette = run.classes.map((each) => each.colour);
    at("result-tint").onchange = at("result-mask").onchange = at("slide").oninput = () => this.draw();
  }

  async show(key, job, scene) {
    const { between, titles, drawn, note } = job.facts;
    const names = job.files.filter((name) => name.endsWith(".png"));
    const bytes = await Promise.all(
      names.map(async (name) => new Uint8Array(await (await ask(`jobs/${key}/${name.replace(/png$/, "rgb")}`)).arrayBuffer())),
    );
    this.scene = scene;
    this.between = between;
    this.pictures = names.map((name, k) => ({ name, image: bytes[k], title: titles[k] }));
    const grid = at("grid");
    grid.replaceChildren();
    grid.classList.toggle("one", between || names.length === 1);
    for (const picture of this.pictures) {
      const figure = make("figure", "", grid);
      picture.figure = figure;
      picture.canvas = make("canvas", "", figure, { role: "img", "aria-label": `result, ${picture.title}` });
      const caption = make("figcaption", "", figure);
      make("b", picture.title, caption);
      make("button", "Go on from this", caption).onclick = () => this.goOn(scene, picture);
      make("a", "Download", caption, { href: `api/jobs/${key}/${picture.name}`, download: picture.name, class: "button" });
    }
    const counts = Object.entries(drawn).map(([name, count]) => `${name} (${count})`);
    const told = `Styles used: ${counts.join(", ") || "none, nothing that has a style is fully erased"}. `;
    at("drawn").textContent = (this.run.styles ? told : "") + (note ? `Note: ${note}.` : "");
    const slider = at("slide").querySelector("input");
    at("slide").hidden = !between;
    slider.max = this.pictures.length - 1;
    slider.value = 0;
    showCommand("", key, job);
    this.draw();
    at("results").scrollIntoView({ behavior: "smooth", block: "nearest" });
  }

  draw() {
    const shown = Number(at("slide").querySelector("input").value);
    this.pictures.forEach(({ image, canvas, figure }, k) => {
      figure.hidden = this.between && k !== shown;
      const tint = at("result-tint").checked ? 0.45 : 0;
      draw(canvas, this.scene, { palette: this.palette, tint, outline: at("result-mask").checked, image });
    });
  }
}
