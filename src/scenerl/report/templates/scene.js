// Boxes with numbered labels over an image.
// imageWh: width and height in pixels. picture: an SVG element in those pixels, or null for a blank one. objects: rows of
// [label, colour, matched, score, votes, x, y, width, height], without the last four where no box is to be drawn.
// shownWh: about the size of the image on the page, to which texts are scaled.
const drawScene = ([width, height], picture, objects, name, shownWh) => {
  const few = objects.length <= shownWh[0] / 30; // whose labels do not hide one another
  const font = (few ? 11 : 8.25) / Math.min(shownWh[0] / width, shownWh[1] / height);
  const boxes = [], tags = [];
  objects.forEach(([label, color, matched, score, , x, y, w, h], n) => {
    if (w === undefined) return;
    const place = { x, y, width: w, height: h };
    const title = `${n + 1} ${label}${score === null ? "" : `, score ${score.toFixed(2)}`}${matched ? "" : " (matches no target)"}`;
    boxes.push(svg("g", { class: `box c${color}${matched ? "" : " lost"}`, "data-box": n }, svg("title", null, title),
      svg("rect", { class: "under", ...place }), svg("rect", { class: "over", ...place })));
    const text = few ? `${n + 1} ${label.length > 14 ? `${label.slice(0, 13)}…` : label}` : `${n + 1}`;
    const tagWidth = (0.64 * text.length + 0.6) * font, above = y - 1.35 * font;
    const left = Math.max(Math.min(x, width - tagWidth), 0), top = above >= 0 ? above : y;
    tags.push(svg("g", { class: `tag c${color}`, "data-box": n, "font-size": font },
      svg("rect", { x: left, y: top, width: tagWidth, height: 1.35 * font, rx: 0.25 * font }),
      svg("text", { x: left + 0.3 * font, y: top + 1.02 * font }, text)));
  });
  return svg("svg", { class: "scene", viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `${name}: ${count(objects.length, "object")}` },
    picture || svg("rect", { class: "blank", width, height }), boxes, tags);
};
