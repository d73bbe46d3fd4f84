"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const at = (id) => document.getElementById(id);
const order = data.trials.map((_, place) => place);
for (let last = order.length - 1; last > 0; last--) {
  const other = Math.floor(Math.random() * (last + 1));
  [order[last], order[other]] = [order[other], order[last]];
}
const bytes = crypto.getRandomValues(new Uint8Array(8));
const participant = [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
const votes = {};
let now = -1;
let saved = true;

const source = (place) => `data:image/png;base64,${data.pictures[place]}`;

function figure(title, place) {
  const box = document.createElement("figure");
  const picture = document.createElement("img");
  const caption = document.createElement("figcaption");
  picture.src = source(place);
  picture.alt = caption.textContent = title;
  box.append(picture, caption);
  return box;
}

function show() {
  const done = now >= order.length;
  at("start").hidden = now >= 0;
  at("trial").hidden = now < 0 || done;
  at("end").hidden = !done;
  if (now < 0 || done) return;
  const trial = data.trials[order[now]];
  at("shared").replaceChildren(...trial.shared.map(([title, place]) => figure(title, place)));
  ["left", "right"].forEach((side, k) => { at(side).querySelector("img").src = source(trial.sides[k]); });
  at("place").textContent = `${now + 1} of ${order.length}`;
  at("bar").value = now;
  at("back").disabled = now === 0;
}

function choose(side) {
  votes[order[now]] = side;
  saved = false;
  now++;
  show();
}

function save() {
  const text = JSON.stringify({ study: data.study, participant, votes });
  const link = document.createElement("a");
  link.href = `data:application/json,${encodeURIComponent(text)}`;
  link.download = `votes_${participant}.json`;
  link.click();
  saved = true;
}

at("begin").addEventListener("click", () => { now = 0; show(); });
at("back").addEventListener("click", () => { now--; show(); });
at("again").addEventListener("click", () => { now--; show(); });
at("save").addEventListener("click", save);
for (const side of ["left", "right"]) at(side).addEventListener("click", () => choose(side));
document.addEventListener("keydown", (event) => {
  if (at("trial").hidden || event.repeat) return;
  if (event.key === "ArrowLeft") choose("left");
  if (event.key === "ArrowRight") choose("right");
});
window.addEventListener("beforeunload", (event) => { if (!saved) event.preventDefault(); });
at("bar").max = order.length;
show();
