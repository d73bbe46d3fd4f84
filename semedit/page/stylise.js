// The tab of a run that holds a style: a photograph is painted in it.
import { at, guarded, showPictures, watched } from "./dom.js";
import { ask, pack, send } from "./server.js";

const NUMBERS = ["style_guidance", "steps", "guidance", "size", "seed", "num_samples"];
let content = null; // the file that is stylised
let working = false;

function refresh() {
  at("stylise").disabled = working || !content;
  at("stylise").textContent = content ? "Paint it in this style" : "Choose a picture first";
}

function take(file) {
  content = file;
  const shown = at("content-shown");
  URL.revokeObjectURL(shown.src);
  shown.src = URL.createObjectURL(file);
  shown.hidden = false;
  at("content-hint").hidden = true;
  refresh();
}

const paint = guarded(async () => {
  working = true;
  refresh();
  try {
    const numbers = Object.fromEntries(NUMBERS.map((name) => [name, at(`style-${name}`).valueAsNumber]));
    const parts = { image: new Uint8Array(await content.arrayBuffer()) };
    const { job: key } = await (await send("stylise", pack({ names: { image: content.name }, ...numbers }, parts))).json();
    const job = await watched("style-", key);
    if (job) showPictures("style-", key, job);
  } finally {
    working = false;
    refresh();
  }
});

export async function startStylising() {
  const { run, model, usual, limits } = await (await ask("style")).json();
  for (const name of NUMBERS) {
    const input = at(`style-${name}`);
    [input.min, input.max] = limits[name];
    input.value = usual[name];
  }
  const told = () => (at("style-strength").textContent = at("style-style_guidance").value);
  at("style-style_guidance").oninput = told;
  told();
  at("style-picture").src = "api/style.png";
  at("content").onchange = () => at("content").files[0] && take(at("content").files[0]);
  at("content-example").onclick = guarded(async () => {
    take(new File([await (await ask("style/example.png")).blob()], "example.png"));
  });
  const stage = at("content-stage");
  stage.ondragover = (event) => {
    event.preventDefault();
    stage.classList.add("over");
  };
  stage.ondragleave = () => stage.classList.remove("over");
  stage.ondrop = (event) => {
    event.preventDefault();
    stage.classList.remove("over");
    if (event.dataTransfer.files[0]) take(event.dataTransfer.files[0]);
  };
  at("stylise").onclick = paint;
  refresh();
  return { about: `${run}: the style of one picture, by ${model}`, fit: () => {} };
}
