// Draws every result that the server puts on the page: boxes over the image, and the graph beside it.
const drawResult = (place) => {
  const bytes = Uint8Array.from(atob(place.dataset.result), (letter) => letter.charCodeAt(0));
  const { wh, picture, name, objects, relations } = JSON.parse(new TextDecoder().decode(bytes));
  const image = svg("image", { href: picture, width: wh[0], height: wh[1], preserveAspectRatio: "none" });
  const scene = drawScene(wh, image, objects, name, [Math.max(place.clientWidth, 260), 480]);
  const reel = html("div", { class: "reel", tabindex: 0 }, drawGraph(wh, objects, relations, name, Math.max(place.clientWidth - 20, 300)));
  place.replaceChildren(scene, ...(relations.length ? [reel] : []));
};
const drawResults = () => {
  for (const place of document.querySelectorAll(".scenerl-result:empty")) drawResult(place);
};
new MutationObserver(drawResults).observe(document.documentElement, { childList: true, subtree: true });
