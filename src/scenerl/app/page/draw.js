// Boxes over the image and the graph as SVG. Text of a model is only ever set as text, never as markup.

const SVG = "http://www.w3.org/2000/svg";
const NUM_COLORS = 8;
const MOST = 200; // elements drawn
const WIDTH = 480, HEIGHT = 360, RADIUS = 14;

export function make(name, attributes = {}, text = null) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  if (text !== null) element.textContent = text;
  return element;
}

export function short(text, length = 24) {
  return [...text].length > length ? [...text].slice(0, length - 1).join("") + "…" : text;
}

// One colour per label, the same in every panel.
export class Colors {
  #places = new Map();
  of(label) {
    if (!this.#places.has(label)) this.#places.set(label, this.#places.size % NUM_COLORS);
    return `c${this.#places.get(label)}`;
  }
}

// objects: {number, label, box: [x1, y1, x2, y2] in pixels of the image}
export function drawScene(svg, image, objects, colors) {
  const { width, height } = image;
  const font = Math.max(width, height) / 36;
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  svg.setAttribute("aria-label", `The image with ${objects.length} boxes`);
  svg.replaceChildren(make("image", { href: image.url, width, height, preserveAspectRatio: "none" }));
  for (const { number, label, box } of objects.slice(0, MOST)) {
    const x = clamp(box[0], width), y = clamp(box[1], height);
    const size = { x, y, width: clamp(box[2], width) - x, height: clamp(box[3], height) - y };
    const tag = `${number} ${short(label)}`;
    const left = Math.max(0, Math.min(x + font * 0.2, width - tag.length * font * 0.55));
    const group = make("g", { class: `box ${colors.of(label)}`, "data-objects": number });
    group.append(
      make("rect", { class: "under", ...size }),
      make("rect", { class: "over", ...size }),
      make("text", { x: left, y: y > font * 1.3 ? y - font * 0.35 : y + font, "font-size": font }, tag),
    );
    svg.append(group);
  }
}

// Objects stand on an ellipse in their order; a relation is an arrow that bends, so that there and back are two.
// relations: {subject, object: numbers of objects, predicate}
export function drawGraph(svg, objects, relations) {
  svg.setAttribute("viewBox", `0 0 ${WIDTH} ${HEIGHT}`);
  svg.setAttribute("aria-label", `A graph of ${objects.length} objects and ${relations.length} relations`);
  const id = `arrow-${Math.random().toString(36).slice(2)}`;
  const marker = make("marker", { id, viewBox: "0 0 8 8", refX: 7, refY: 4, markerWidth: 7, markerHeight: 7, orient: "auto" });
  marker.append(make("path", { d: "M0 0L8 4 0 8Z" }));
  svg.replaceChildren(marker);
  const shown = objects.slice(0, MOST), at = new Map();
  shown.forEach(({ number }, place) => {
    const angle = (place / shown.length) * 2 * Math.PI - Math.PI / 2;
    at.set(number, [WIDTH / 2 + (WIDTH / 2 - 70) * Math.cos(angle), HEIGHT / 2 + (HEIGHT / 2 - 45) * Math.sin(angle)]);
  });
  const between = new Map();
  for (const { subject, predicate, object } of relations.slice(0, MOST)) {
    if (!at.has(subject) || !at.has(object)) continue;
    const pair = `${subject} ${object}`;
    between.set(pair, (between.get(pair) ?? 0) + 1);
    svg.append(edge(at.get(subject), at.get(object), predicate, `${subject} ${object}`, between.get(pair), id));
  }
  for (const { number, label } of shown) {
    const [x, y] = at.get(number);
    const group = make("g", { class: "node", "data-objects": number });
    group.append(
      make("circle", { cx: x, cy: y, r: RADIUS }),
      make("text", { class: "number", x, y }, number),
      make("text", { x, y: y + (y > HEIGHT / 2 ? 1 : -1) * (RADIUS + 11) }, short(label, 16)),
    );
    svg.append(group);
  }
}

function edge([x1, y1], [x2, y2], predicate, ends, repeat, marker) {
  const dx = x2 - x1, dy = y2 - y1, length = Math.hypot(dx, dy) || 1;
  const bend = 18 + 24 * (repeat - 1);
  const cx = (x1 + x2) / 2 - (dy / length) * bend * 2, cy = (y1 + y2) / 2 + (dx / length) * bend * 2;
  const [sx, sy] = towards([x1, y1], [cx, cy]), [ex, ey] = towards([x2, y2], [cx, cy]);
  const group = make("g", { class: "edge", "data-objects": ends });
  group.append(
    make("path", { d: `M${sx} ${sy}Q${cx} ${cy} ${ex} ${ey}`, "marker-end": `url(#${marker})` }),
    make("text", { x: (sx + 2 * cx + ex) / 4, y: (sy + 2 * cy + ey) / 4 }, short(predicate, 18)),
  );
  return group;
}

function towards([x, y], [tx, ty]) {
  const length = Math.hypot(tx - x, ty - y) || 1;
  return [x + ((tx - x) / length) * (RADIUS + 3), y + ((ty - y) / length) * (RADIUS + 3)];
}

function clamp(value, most) {
  return Math.min(Math.max(value, 0), most);
}
