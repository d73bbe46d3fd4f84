// Messages to and from the server: a JSON head and named parts (semedit/page/parts.py).
const PLANES = { image: Uint8Array, label: Uint16Array, inst: Int32Array, mask: Uint8Array, shape: Uint8Array };
const bytesOf = (part) => (part instanceof Uint8Array ? part : new Uint8Array(part.buffer, part.byteOffset, part.byteLength));

export function pack(head, parts) {
  const all = Object.entries(parts).map(([name, part]) => [name, bytesOf(part)]);
  const text = new TextEncoder().encode(JSON.stringify({ ...head, parts: all.map(([name, part]) => [name, part.length]) }));
  const message = new Uint8Array(4 + text.length + all.reduce((sum, [, part]) => sum + part.length, 0));
  new DataView(message.buffer).setUint32(0, text.length, true);
  message.set(text, 4);
  let place = 4 + text.length;
  for (const [, part] of all) {
    message.set(part, place);
    place += part.length;
  }
  return message;
}

// A scene: {name, width, height, image (RGB), label, inst, mask, objects, notes}
function sceneOf(buffer) {
  const length = new DataView(buffer).getUint32(0, true);
  const head = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, length)));
  const scene = { ...head, width: head.size[0], height: head.size[1] };
  let place = 4 + length;
  for (const [name, size] of head.parts) {
    scene[name] = new PLANES[name](buffer.slice(place, place + size));
    place += size;
  }
  return scene;
}

export const packScene = ({ name, width, height, image, label, inst, mask }, head = {}, more = {}) =>
  pack({ name, size: [width, height], ...head }, { image, label, inst, mask, ...more });

export async function ask(path, options) {
  let answer;
  try {
    answer = await fetch(`api/${path}`, options);
  } catch {
    throw new Error("The server does not answer; is it still running?");
  }
  if (answer.ok) return answer;
  const told = await answer.json().catch(() => ({}));
  throw new Error(told.error ?? `The server answered with status ${answer.status}.`);
}

export const send = (path, body) =>
  ask(path, { method: "POST", body, headers: { "Content-Type": "application/octet-stream" } });

// Wait for a job; `tell` hears how far it is. Returns its last state.
export async function finished(key, tell) {
  for (let pause = 100; ; pause = Math.min(1000, pause * 1.3)) {
    const job = await (await ask(`jobs/${key}`)).json();
    tell(job);
    if (job.state === "done" || job.state === "cancelled") return job;
    if (job.state === "failed") throw new Error(job.error);
    await new Promise((done) => setTimeout(done, pause));
  }
}

export const opened = async (path) => sceneOf(await (await ask(path)).arrayBuffer());
export const example = (name) => opened(`examples/${encodeURIComponent(name)}`);

export const changed = async (scene, change, more) =>
  sceneOf(await (await send("changes", packScene(scene, { change }, more))).arrayBuffer());

// Open files {image, label, inst}; without a label map a segmenter makes one, which takes a while.
export async function open(files, tell) {
  const parts = {};
  const names = {};
  for (const [kind, file] of Object.entries(files)) {
    parts[kind] = new Uint8Array(await file.arrayBuffer());
    names[kind] = file.name;
  }
  const answer = await send("open", pack({ names }, parts));
  if (answer.status !== 202) return sceneOf(await answer.arrayBuffer());
  const { job } = await answer.json();
  await finished(job, tell);
  return opened(`jobs/${job}/scene`);
}
