// The page: a tab for each run that the server shows.
import { at, guarded, make } from "./dom.js";
import { startLayout } from "./layout.js";
import { startScenes } from "./scenes.js";
import { ask } from "./server.js";
import { startStylising } from "./stylise.js";

const KINDS = {
  editing: { start: startScenes, title: "Scenes" },
  analogy: { start: startLayout, title: "One picture" },
  stylising: { start: startStylising, title: "Style" },
};
const started = {}; // by kind, what a tab says about itself

function choose(kind, focus) {
  for (const button of at("tabs").children) {
    const chosen = button.dataset.kind === kind;
    button.setAttribute("aria-selected", chosen);
    button.tabIndex = chosen ? 0 : -1;
    if (chosen && focus) button.focus();
  }
  for (const name of Object.keys(KINDS)) at(`panel-${name}`).hidden = name !== kind;
  at("about").textContent = started[kind]?.about ?? "";
  started[kind]?.fit();
}

guarded(async () => {
  const tabs = await (await ask("tabs")).json();
  const kinds = tabs.map((tab) => tab.kind);
  for (const { kind, run } of tabs) {
    const button = make("button", KINDS[kind].title, at("tabs"), { role: "tab", "data-kind": kind, title: run });
    button.setAttribute("aria-controls", `panel-${kind}`);
    button.onclick = () => choose(kind);
  }
  at("tabs").onkeydown = (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!step) return;
    const place = kinds.indexOf(document.activeElement.dataset.kind) + step;
    choose(kinds[(place + kinds.length) % kinds.length], true);
    event.preventDefault();
  };
  at("tabs").hidden = tabs.length < 2;
  document.title = `${tabs.map((tab) => tab.run).join(", ")} · SemEdit`;
  choose(kinds[0]);
  for (const kind of kinds) {
    started[kind] = await guarded(KINDS[kind].start)();
    if (!at(`panel-${kind}`).hidden) choose(kind);
  }
})();
