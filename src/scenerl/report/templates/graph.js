// A scene graph as a drawing: objects and predicates are boxes that never overlap, laid out by springs.
const drawGraph = (() => {
  const FONT = 12, HEIGHT = 20, PAD = 7, GAP_X = 12, GAP_Y = 9, STEPS = 260, UNTANGLED = 70, GOLDEN = 2.399963;
  const GLYPHS = { hit: "✓ ", repeat: "↻ ", false: "✕ ", miss: "○ " };
  const pen = document.createElement("canvas").getContext("2d");

  const widthOf = (text) => {
    pen.font = `600 ${FONT}px ${getComputedStyle(document.body).fontFamily}`;
    return Math.ceil(pen.measureText(text).width) + 2 * PAD;
  };

  // Objects start where they are in the image, predicates halfway between their ends; a small turn by number keeps
  // equal places apart. The result is the same at every call.
  const boxesOf = ([width, height], objects, relations) => {
    const used = new Set(relations.flatMap(([subject, , object]) => [subject, object]));
    const numbers = [...used].sort((a, b) => a - b);
    const nodes = numbers.map((number, n) => {
      const object = objects[number] || ["?", 0, 1];
      const [x, y] = object.length > 5 ? [object[5] + object[7] / 2, object[6] + object[8] / 2] : [width / 2, height / 2];
      const text = `${number + 1} ${object[0]}`;
      return { number, text, object, x: x / width + 0.03 * Math.cos(n * GOLDEN), y: y / height + 0.03 * Math.sin(n * GOLDEN), w: widthOf(text) };
    });
    const place = new Map(numbers.map((number, n) => [number, n]));
    const labels = relations.map(([subject, predicate, object, state], n) => {
      const a = nodes[place.get(subject)], b = nodes[place.get(object)];
      const text = (GLYPHS[state] || "") + predicate;
      return {
        text, state, from: place.get(subject), to: place.get(object), w: widthOf(text),
        x: (a.x + b.x) / 2 + 0.05 * Math.cos(n * GOLDEN), y: (a.y + b.y) / 2 + 0.05 * Math.sin(n * GOLDEN),
      };
    });
    return { nodes, labels, alone: objects.map((object, number) => ({ object, number })).filter(({ number }) => !used.has(number)) };
  };

  const spring = (boxes, links, width, height) => {
    const ideal = 0.62 * Math.sqrt((width * height) / boxes.length);
    for (let step = 0; step < STEPS; step++) {
      const limit = (width / 8) * (1 - step / STEPS) + 1;
      for (const box of boxes) { box.fx = 0; box.fy = 0; }
      for (let i = 0; i < boxes.length; i++) {
        for (let j = 0; j < i; j++) {
          const a = boxes[i], b = boxes[j];
          // Texts are wide: what lies side by side needs more room than what lies on top of each other.
          const dx = a.x - b.x, dy = 1.8 * (a.y - b.y), force = (ideal * ideal) / Math.max(dx * dx + dy * dy, 25);
          a.fx += dx * force; a.fy += dy * force; b.fx -= dx * force; b.fy -= dy * force;
        }
      }
      for (const [i, j] of links) {
        const a = boxes[i], b = boxes[j], dx = a.x - b.x, dy = a.y - b.y, force = Math.hypot(dx, dy) / ideal;
        a.fx -= dx * force; a.fy -= dy * force; b.fx += dx * force; b.fy += dy * force;
      }
      for (const box of boxes) {
        const size = Math.hypot(box.fx, box.fy) || 1, move = Math.min(size, limit) / size;
        box.x = Math.min(Math.max(box.x + box.fx * move, box.w / 2), width - box.w / 2);
        box.y = Math.min(Math.max(box.y + box.fy * move, HEIGHT / 2), height - HEIGHT / 2);
      }
    }
  };

  // Pushes boxes apart until none overlaps; whether that worked out in this space.
  const separate = (boxes, width, height) => {
    for (let pass = 0; pass < 300; pass++) {
      let moved = false;
      for (let i = 0; i < boxes.length; i++) {
        for (let j = 0; j < i; j++) {
          const a = boxes[i], b = boxes[j];
          const x = (a.w + b.w) / 2 + GAP_X - Math.abs(a.x - b.x), y = HEIGHT + GAP_Y - Math.abs(a.y - b.y);
          if (x <= 0.01 || y <= 0.01) continue;
          moved = true;
          const [axis, push] = x < y ? ["x", x] : ["y", y];
          const sign = a[axis] === b[axis] ? 1 : Math.sign(a[axis] - b[axis]);
          a[axis] += (sign * push) / 2; b[axis] -= (sign * push) / 2;
        }
      }
      for (const box of boxes) {
        box.x = Math.min(Math.max(box.x, box.w / 2), width - box.w / 2);
        box.y = Math.min(Math.max(box.y, HEIGHT / 2), height - HEIGHT / 2);
      }
      if (!moved) return true;
    }
    return false;
  };

  const overlaps = (a, b, gapX, gapY) => Math.abs(a.x - b.x) < (a.w + b.w) / 2 + gapX && Math.abs(a.y - b.y) < HEIGHT + gapY;

  // Whether the line between two points passes through a box, by clipping it to the box's two spans.
  const passes = (from, to, box) => {
    let low = 0, high = 1;
    for (const [axis, half] of [["x", box.w / 2 + 2], ["y", HEIGHT / 2 + 2]]) {
      const size = to[axis] - from[axis], start = box[axis] - half - from[axis], end = box[axis] + half - from[axis];
      if (Math.abs(size) < 1e-9) { if (start > 0 || end < 0) return false; continue; }
      low = Math.max(low, Math.min(start / size, end / size));
      high = Math.min(high, Math.max(start / size, end / size));
    }
    return low < high;
  };
  const side = (a, b, c) => Math.sign((b.x - a.x) * (c.y - a.y) - (b.y - a.y) * (c.x - a.x));
  const crosses = (a, b, c, d) => side(a, b, c) * side(a, b, d) < 0 && side(c, d, a) * side(c, d, b) < 0;

  // Moves single boxes while that takes lines from under boxes, or crossings away.
  const untangle = (boxes, links, width, height) => {
    const cost = (n) => {
      let sum = 0;
      for (const [i, j] of links) {
        if (i !== n && j !== n) { if (passes(boxes[i], boxes[j], boxes[n])) sum += 4; continue; }
        sum += Math.hypot(boxes[i].x - boxes[j].x, boxes[i].y - boxes[j].y) / 150;
        boxes.forEach((box, k) => { if (k !== i && k !== j && passes(boxes[i], boxes[j], box)) sum += 4; });
        for (const [k, l] of links) if (k !== i && k !== j && l !== i && l !== j && crosses(boxes[i], boxes[j], boxes[k], boxes[l])) sum += 1;
      }
      return sum;
    };
    for (let sweep = 0; sweep < 4; sweep++) {
      let better = false;
      boxes.forEach((box, n) => {
        let least = cost(n), best = [box.x, box.y];
        const [x, y] = best;
        for (const far of [18, 50, 120, 250]) {
          for (let turn = 0; turn < 8; turn++) {
            box.x = x + far * Math.cos((turn * Math.PI) / 4);
            box.y = y + far * Math.sin((turn * Math.PI) / 4);
            if (box.x < box.w / 2 || box.x > width - box.w / 2 || box.y < HEIGHT / 2 || box.y > height - HEIGHT / 2) continue;
            if (boxes.some((other) => other !== box && overlaps(box, other, GAP_X, GAP_Y))) continue;
            const now = cost(n);
            if (now < least - 0.05) { least = now; best = [box.x, box.y]; better = true; }
          }
        }
        [box.x, box.y] = best;
      });
      if (!better) return;
    }
  };

  const layOut = (boxes, links, room) => {
    const area = boxes.reduce((sum, box) => sum + (box.w + GAP_X) * (HEIGHT + GAP_Y), 0);
    const widest = Math.max(...boxes.map((box) => box.w));
    const width = Math.max(widest, Math.min(room, Math.sqrt(area * 7)));
    let height = Math.max(60, (area * 5) / width);
    for (const box of boxes) { box.x *= width; box.y *= height; }
    spring(boxes, links, width, height);
    while (!separate(boxes, width, height)) height *= 1.15;
    if (boxes.length <= UNTANGLED) untangle(boxes, links, width, height);
  };

  // Where the line from the middle of a box to a point leaves the box.
  const edgeOf = (box, x, y, gap) => {
    const dx = x - box.x, dy = y - box.y;
    const share = Math.min((box.w / 2 + gap) / Math.abs(dx || 1e-9), (HEIGHT / 2 + gap) / Math.abs(dy || 1e-9), 1);
    return [box.x + dx * share, box.y + dy * share];
  };
  const line = (points) => `M${points.map(([x, y]) => `${x.toFixed(1)} ${y.toFixed(1)}`).join("L")}`;

  const boxOf = (box, className, title) =>
    svg("g", { class: className, transform: `translate(${box.x.toFixed(1)} ${box.y.toFixed(1)})` }, svg("title", null, title),
      svg("rect", { x: -box.w / 2, y: -HEIGHT / 2, width: box.w, height: HEIGHT, rx: className.startsWith("node") ? 10 : 3 }),
      svg("text", { y: 4, "text-anchor": "middle" }, box.text));

  // Objects that no relation names stand in rows below.
  const addRows = (alone, width, top) => {
    let x = 0, y = top + HEIGHT / 2;
    return alone.map(({ object, number }) => {
      const box = { object, number, text: `${number + 1} ${object[0]}`, w: widthOf(`${number + 1} ${object[0]}`) };
      if (x && x + box.w > width) { x = 0; y += HEIGHT + GAP_Y; }
      box.x = x + box.w / 2; box.y = y;
      x += box.w + GAP_X;
      return box;
    });
  };

  // imageWh: width and height of the image. objects, relations: as in the page's data. name: what the drawing is of.
  // room: the width, in pixels, to stay within where the texts allow it.
  return (imageWh, objects, relations, name, room) => {
    const { nodes, labels, alone } = boxesOf(imageWh, objects, relations);
    const boxes = [...nodes, ...labels];
    const links = labels.flatMap((label, n) => [[label.from, nodes.length + n], [nodes.length + n, label.to]]);
    if (boxes.length) layOut(boxes, links, room - 8);
    const left = boxes.length ? Math.min(...boxes.map((box) => box.x - box.w / 2)) : 0;
    const right = Math.max(left + 320, ...boxes.map((box) => box.x + box.w / 2));
    const bottom = boxes.length ? Math.max(...boxes.map((box) => box.y + HEIGHT / 2)) : -2 * GAP_Y;
    const top = boxes.length ? Math.min(...boxes.map((box) => box.y - HEIGHT / 2)) : 0;
    const rest = addRows(alone, right - left, bottom + 2 * GAP_Y);
    for (const box of rest) box.x += left;
    const view = [left - 4, top - 4, Math.max(right, ...rest.map((box) => box.x + box.w / 2)) - left + 8, Math.max(bottom, HEIGHT, ...rest.map((box) => box.y + HEIGHT / 2)) - top + 8];
    const edges = labels.map((label) => {
      const a = nodes[label.from], b = nodes[label.to];
      const tip = edgeOf(b, label.x, label.y, 1), back = Math.atan2(label.y - tip[1], label.x - tip[0]);
      const wings = [0.42, -0.42].map((turn) => [tip[0] + 9 * Math.cos(back + turn), tip[1] + 9 * Math.sin(back + turn)]);
      return svg("g", { class: `edge ${label.state}`, "data-ends": `${a.number} ${b.number}` },
        svg("path", { class: "way", d: line([edgeOf(a, label.x, label.y, 0), [label.x, label.y], tip]) }),
        svg("path", { class: "tip", d: `${line([tip, ...wings])}Z` }));
    });
    const titleOf = (label) => `${nodes[label.from].text} ${label.text} ${nodes[label.to].text}`;
    return svg("svg", {
      class: "graph", role: "img", "aria-label": `Graph of ${name}: ${count(objects.length, "object")}, ${count(relations.length, "relation")}`,
      viewBox: view.map((value) => value.toFixed(1)).join(" "), width: Math.ceil(view[2]), height: Math.ceil(view[3]),
    }, edges, labels.map((label) => boxOf(label, `label ${label.state}`, titleOf(label))),
    [...nodes, ...rest].map((box) => boxOf(box, `node c${box.object[1]}${box.object[2] ? "" : " lost"}`, box.text)));
  };
})();
