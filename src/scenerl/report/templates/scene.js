// Where the label of a box stands: at the first of its corners where it hides no label in `taken`, else where it hides least.
const labelPlace = ([x, y, w, h], tagWidth, tagHeight, [width, height], taken) => {
  let best = null, least = Infinity;
  for (const [cornerX, cornerY] of [[x, y - tagHeight], [x, y], [x + w - tagWidth, y - tagHeight], [x, y + h - tagHeight], [x, y + h], [x + w, y], [x + w - tagWidth, y + h]]) {
    const left = Math.max(0, Math.min(cornerX, width - tagWidth)), top = Math.max(0, Math.min(cornerY, height - tagHeight));
    const hidden = taken.reduce((sum, [otherX, otherY, otherWidth]) =>
      sum + Math.max(0, Math.min(left + tagWidth, otherX + otherWidth) - Math.max(left, otherX)) * Math.max(0, tagHeight - Math.abs(top - otherY)), 0);
    if (hidden < least) [best, least] = [[left, top, tagWidth], hidden];
    if (!hidden) break;
  }
  taken.push(best);
  return best;
};

// Boxes with numbered labels over an image.
// imageWh: width and height in pixels. picture: an SVG element in those pixels, or null for a blank one. objects: rows of
// [label, colour, matched, score, votes, x, y, width, height], without the last four where no box is to be drawn.
// shownWh: about the size of the image on the page, to which texts are scaled.
const drawScene = ([width, height], picture, objects, name, shownWh) => {
  const few = objects.length <= shownWh[0] / 20; // whose names have room beside one another
  const font = (few ? 11 : 8.25) / Math.min(shownWh[0] / width, shownWh[1] / height);
  const boxes = [], tags = [], taken = [];
  objects.forEach(([label, color, matched, score, , x, y, w, h], n) => {
    if (w === undefined) return;
    const place = { x, y, width: w, height: h };
    const title = `${n + 1} ${label}${score === null ? "" : `, score ${score.toFixed(2)}`}${matched ? "" : " (matches no target)"}`;
    boxes.push(svg("g", { class: `box c${color}${matched ? "" : " lost"}`, "data-box": n }, svg("title", null, title),
      svg("rect", { class: "under", ...place }), svg("rect", { class: "over", ...place })));
    const text = few ? `${n + 1} ${label.length > 14 ? `${label.slice(0, 13)}…` : label}` : `${n + 1}`;
    const tagWidth = (0.64 * text.length + 0.6) * font;
    const [left, top] = labelPlace([x, y, w, h], tagWidth, 1.35 * font, [width, height], taken);
    tags.push(svg("g", { class: `tag c${color}`, "data-box": n, "font-size": font },
      svg("rect", { x: left, y: top, width: tagWidth, height: 1.35 * font, rx: 0.25 * font }),
      svg("text", { x: left + 0.3 * font, y: top + 1.02 * font }, text)));
  });
  return svg("svg", { class: "scene", viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `${name}: ${count(objects.length, "object")}` },
    picture || svg("rect", { class: "blank", width, height }), boxes, tags);
};
