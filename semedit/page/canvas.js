// Pictures with labels and mask on a canvas. Ids stay numbers in arrays: nothing here is read back from pixels.

// Compose part of a scene into a canvas of its size. `look`: {palette, tint, mask, outline, image}.
export function draw(canvas, scene, look, part) {
  const { width, height, label, mask } = scene;
  if (canvas.width !== width || canvas.height !== height) {
    canvas.width = width;
    canvas.height = height;
    part = undefined;
  }
  const [x0, y0, x1, y1] = part ?? [0, 0, width, height];
  if (x0 >= x1 || y0 >= y1) return;
  const image = look.image ?? scene.image;
  const pixels = new ImageData(x1 - x0, y1 - y0);
  const stripe = Math.max(2, Math.round(Math.min(width, height) / 48));
  const edge = (i, x, y) =>
    (x > 0 && !mask[i - 1]) || (x < width - 1 && !mask[i + 1]) ||
    (y > 0 && !mask[i - width]) || (y < height - 1 && !mask[i + width]);
  for (let y = y0, to = 0; y < y1; y++) {
    for (let x = x0; x < x1; x++, to += 4) {
      const i = y * width + x;
      const colour = look.palette[label[i]] ?? [128, 128, 128];
      const erased = look.mask && mask[i];
      const share = erased ? 0.7 : look.tint;
      const light = erased && Math.floor((x + y) / stripe) % 2 ? 255 : 0;
      const outlined = look.outline && mask[i] && edge(i, x, y);
      for (let c = 0; c < 3; c++) {
        const under = erased ? light : image[3 * i + c];
        pixels.data[to + c] = outlined ? (Math.floor((x + y) / 2) % 2 ? 255 : 0) : under + share * (colour[c] - under);
      }
      pixels.data[to + 3] = 255;
    }
  }
  canvas.getContext("2d").putImageData(pixels, x0, y0);
}

// Mark the pixels of a disc that moves from one place to another; returns the box that holds them.
export function stroke(shape, width, height, [ax, ay], [bx, by], diameter) {
  const radius = Math.max(0.5, diameter / 2);
  const steps = Math.max(1, Math.ceil(Math.hypot(bx - ax, by - ay) / Math.max(0.5, radius / 2)));
  const box = [width, height, 0, 0];
  for (let step = 0; step <= steps; step++) {
    const cx = ax + ((bx - ax) * step) / steps;
    const cy = ay + ((by - ay) * step) / steps;
    const left = Math.max(0, Math.floor(cx - radius));
    const right = Math.min(width - 1, Math.ceil(cx + radius));
    const bottom = Math.min(height - 1, Math.ceil(cy + radius));
    for (let y = Math.max(0, Math.floor(cy - radius)); y <= bottom; y++) {
      for (let x = left; x <= right; x++) {
        const within = (x + 0.5 - cx) ** 2 + (y + 0.5 - cy) ** 2 <= radius ** 2;
        if (!within && !(x === Math.floor(cx) && y === Math.floor(cy))) continue;
        shape[y * width + x] = 1;
        box[0] = Math.min(box[0], x);
        box[1] = Math.min(box[1], y);
        box[2] = Math.max(box[2], x + 1);
        box[3] = Math.max(box[3], y + 1);
      }
    }
  }
  return box;
}

// The outline of an instance in pixels of the picture, along their edges; the last one is kept.
let known = {};
function outline({ inst, width, height }, id) {
  if (known.inst === inst && known.id === id) return known.path;
  const path = new Path2D();
  const line = (ax, ay, bx, by) => {
    path.moveTo(ax, ay);
    path.lineTo(bx, by);
  };
  for (let y = 0, i = 0; y < height; y++) {
    for (let x = 0; x < width; x++, i++) {
      if (inst[i] !== id) continue;
      if (x === 0 || inst[i - 1] !== id) line(x, y, x, y + 1);
      if (x === width - 1 || inst[i + 1] !== id) line(x + 1, y, x + 1, y + 1);
      if (y === 0 || inst[i - width] !== id) line(x, y, x + 1, y);
      if (y === height - 1 || inst[i + width] !== id) line(x, y + 1, x + 1, y + 1);
    }
  }
  known = { inst, id, path };
  return path;
}

// What is drawn over the picture while a tool is used, in the screen's own resolution.
export function mark(canvas, scene, marks) {
  const ratio = window.devicePixelRatio || 1;
  const { clientWidth, clientHeight } = canvas;
  canvas.width = clientWidth * ratio;
  canvas.height = clientHeight * ratio;
  const pen = canvas.getContext("2d");
  const scale = canvas.width / scene.width;
  const line = (path) => {
    for (const [style, width] of [["#000", 4], ["#fff", 1.75]]) {
      pen.strokeStyle = style;
      pen.lineWidth = width * ratio;
      pen.stroke(path);
    }
  };
  const path = new Path2D();
  const place = (right, down) => new DOMMatrix([scale, 0, 0, scale, right * scale, down * scale]);
  if (marks.selected !== undefined) path.addPath(outline(scene, marks.selected), place(0, 0));
  if (marks.ghost) path.addPath(outline(scene, marks.ghost.id), place(marks.ghost.right, marks.ghost.down));
  if (marks.box) {
    const [x0, y0, x1, y1] = marks.box;
    path.rect(x0 * scale, y0 * scale, (x1 - x0) * scale, (y1 - y0) * scale);
  }
  if (marks.brush) {
    const [x, y, diameter] = marks.brush;
    path.arc(x * scale, y * scale, Math.max(0.5, diameter / 2) * scale, 0, 2 * Math.PI);
  }
  if (marks.cross) {
    const [x, y] = marks.cross.map((value) => (value + 0.5) * scale);
    const arm = 9 * ratio;
    path.moveTo(x - arm, y);
    path.lineTo(x + arm, y);
    path.moveTo(x, y - arm);
    path.lineTo(x, y + arm);
  }
  line(path);
}
