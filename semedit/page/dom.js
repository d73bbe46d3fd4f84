// What all tabs of the page share. Names come from files of others: they enter it as text (textContent) only.
import { ask, finished } from "./server.js";

export const at = (id) => document.getElementById(id);

export function make(tag, text, parent, attributes = {}) {
  const made = document.createElement(tag);
  made.textContent = text;
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  parent?.append(made);
  return made;
}

let silence;
export function say(text, wrong = false) {
  const box = at("say");
  box.textContent = text;
  box.classList.toggle("wrong", wrong);
  box.hidden = !text;
  clearTimeout(silence);
  if (text) silence = setTimeout(() => say(""), wrong ? 12000 : 6000);
}

// Work whose faults are told in a sentence; `after` tidies up then.
export const guarded = (work, after) => async (...given) => {
  try {
    return await work(...given);
  } catch (error) {
    say(error.message, true);
    after?.();
  }
};

// The classes that can be painted, as radio buttons in `${prefix}palette`; those of many can be searched.
export function listClasses(prefix, classes, chosen) {
  const palette = at(`${prefix}palette`);
  classes.forEach(({ name, colour }, number) => {
    const label = make("label", "", palette, { title: name });
    const input = make("input", "", label, { type: "radio", name: `${prefix}class`, value: number });
    input.checked = number === 0;
    make("i", "", label).style.background = `rgb(${colour})`;
    make("span", name, label);
  });
  palette.onchange = chosen;
  const find = at(`${prefix}find`);
  if (!find) return;
  find.hidden = classes.length < 25;
  find.oninput = () => {
    const wanted = find.value.toLowerCase();
    for (const label of palette.children) label.hidden = !label.title.toLowerCase().includes(wanted);
  };
}

// Wait for a job, with a bar in `${prefix}progress` that can cancel it; undefined if it was.
export async function watched(prefix, key) {
  const bar = at(`${prefix}progress`);
  bar.hidden = false;
  bar.querySelector("button").onclick = guarded(() => ask(`jobs/${key}`, { method: "DELETE" }));
  try {
    const job = await finished(key, ({ state, ahead, done, total }) => {
      const shown = bar.querySelector("progress");
      if (state === "running" && total === 1) shown.removeAttribute("value");
      else shown.value = done / total;
      bar.querySelector("span").textContent = state === "waiting" ? `waiting, ${ahead} before it` : `${done} of ${total}`;
    });
    return job.state === "done" ? job : undefined;
  } finally {
    bar.hidden = true;
  }
}

// The link to everything that a job made, and the command that makes it again.
export function showCommand(prefix, key, job) {
  at(`${prefix}all`).href = `api/jobs/${key}/${job.files.find((name) => name.endsWith(".zip"))}`;
  at(`${prefix}command`).textContent = job.facts.command;
  at(`${prefix}copy`).onclick = guarded(async () => {
    await navigator.clipboard.writeText(job.facts.command);
    say("copied");
  });
  at(`${prefix}results`).hidden = false;
}

// Results as pictures, each with a link to its file.
export function showPictures(prefix, key, job) {
  const grid = at(`${prefix}grid`);
  grid.replaceChildren();
  const names = job.files.filter((name) => name.endsWith(".png"));
  grid.classList.toggle("one", names.length === 1);
  names.forEach((name, k) => {
    const figure = make("figure", "", grid);
    make("img", "", figure, { src: `api/jobs/${key}/${name}`, alt: `result, ${job.facts.titles[k]}` });
    const caption = make("figcaption", "", figure);
    make("b", job.facts.titles[k], caption);
    make("a", "Download", caption, { href: `api/jobs/${key}/${name}`, download: name, class: "button" });
  });
  showCommand(prefix, key, job);
  at(`${prefix}results`).scrollIntoView({ behavior: "smooth", block: "nearest" });
}
