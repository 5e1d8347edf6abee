// The gallery: a card is drawn when it comes near the window, so that hundreds of images open as fast as one.
const gallery = (() => {
  const GLYPHS = { hit: "✓", repeat: "↻", false: "✕", miss: "○" };
  const WORDS = { hit: "hit", repeat: "repeated", false: "false", miss: "missed" };
  const data = JSON.parse(document.getElementById("gallery-data").textContent);
  const marks = document.querySelectorAll(".stages .mark");
  const shown = new Set(data.stages.keys()); // places in a card's stages
  const f1Of = (stage) => stage.f1[data.ofRelations ? 0 : 1];
  const nameOf = (place) => data.names[data.stages[place]];

  const mark = (place, className) => {
    const copy = marks[data.stages[place]].cloneNode(true);
    if (className) copy.classList.add(className);
    return copy;
  };
  const glyph = (state) => html("span", { class: "glyph", "aria-hidden": "true" }, GLYPHS[state]);
  const unseen = (text) => html("span", { class: "unseen" }, text);
  const note = (text) => html("p", { class: "note" }, text);
  const folded = (summary, ...children) => html("details", null, html("summary", null, summary), children);
  const confidence = (score, votes, answers) => {
    const texts = [score === null ? "" : score.toFixed(2), votes === null ? "" : `${votes}${answers ? ` of ${answers}` : ""} votes`];
    const text = texts.filter(Boolean).join(", ");
    return text && html("span", { class: "score" }, " ", text);
  };

  const pictureOf = (card, number) => (card.problem ? null : svg("use", { href: `#image-${number}` }));

  // A click draws the scene across the whole card, and back.
  const zoomable = (card, number, objects, name, large = false) => {
    const scene = drawScene(card.wh, pictureOf(card, number), objects, name, large ? [1000, 700] : [260, 340]);
    scene.addEventListener("click", () => {
      scene.closest(".panel").classList.toggle("large", !large);
      scene.replaceWith(zoomable(card, number, objects, name, !large));
    });
    return scene;
  };

  const lineOf = (objects, [subject, predicate, object], state, ...more) => {
    const end = (place) => [html("bdi", null, (objects[place] || ["?"])[0]), html("sub", null, place + 1)];
    return html("li", { class: state || "target", "data-ends": `${subject} ${object}` },
      state && [glyph(state), unseen(`${WORDS[state]}: `)],
      html("span", { class: "words" }, end(subject), " ", html("em", null, html("bdi", null, predicate)), " ", end(object), more));
  };
  const list = (lines, total, label) => lines.length > 0 && [
    html("ul", { class: "relations", tabindex: 0, "aria-label": label }, lines),
    total > lines.length && note(`and ${(total - lines.length).toLocaleString("en")} more`),
  ];
  const objectList = (objects, total, isTarget, answers) => objects.length > 0 && folded(count(total, "object"),
    html("ul", { class: "objects" }, objects.map(([label, , found, score, votes], n) => html("li", null,
      isTarget ? "" : [glyph(found ? "hit" : "false"), unseen(found ? "matches: " : "matches no target: ")],
      html("bdi", null, label), html("sub", null, n + 1), confidence(score, votes, answers)))),
    total > objects.length && note(`and ${(total - objects.length).toLocaleString("en")} more`));

  const targetPanel = (card, number) => {
    const { objects, relations, n } = card.target;
    const lines = relations.map((relation) => {
      const line = lineOf(objects, relation, "", relation[4].map((other) => [" ", html("span", { class: "lacking" }, "not in ", html("bdi", null, data.others[other]))]));
      line.append(html("span", { class: "by" }, [...shown].map((place) => {
        const text = `${nameOf(place)}: ${relation[3][place] ? "found" : "missed"}`;
        return html("span", { title: text }, mark(place, relation[3][place] ? "" : "hollow"), unseen(` ${text}`));
      })));
      return line;
    });
    return html("section", { class: "panel target" }, html("h4", null, "Ground truth"), zoomable(card, number, objects, "Ground truth"),
      html("p", { class: "sums" }, [count(n[0], "object"), data.hasRelations && count(n[1], "relation")].filter(Boolean).join(", ")),
      list(lines, n[1], "Relations of the ground truth"), objectList(objects, n[0], true),
      card.query.length > 0 && note(`Labels to look for: ${card.query.join(", ")}`));
  };

  const statusOf = (stage) => {
    if (stage.status === "missing") return html("span", { class: "status bad" }, "no prediction");
    if (stage.status !== "ok") return html("span", { class: "status bad" }, `failed: ${stage.status.replaceAll("_", " ")}`);
    return stage.truncated && html("span", { class: "status" }, "cut at the token limit");
  };
  const sumsOf = (card, stage) => {
    if (stage.status === "missing") return "There is no answer for this image.";
    if (stage.status !== "ok") return stage.error || "This answer failed to parse.";
    const f1 = html("span", null, `F1 ${f1Of(stage).toFixed(2)}`);
    const { hit, repeat, false: wrong, miss } = stage.counts;
    if (!data.ofRelations) return [f1, ` ${stage.found} of ${stage.n[0]} boxes right, ${card.target.n[0] - stage.found} missed`];
    const part = (state, text) => html("span", { class: state }, glyph(state), ` ${text}`);
    return [f1, part("hit", count(hit, "hit")), repeat > 0 && part("repeat", `${repeat} repeated`), part("false", `${wrong} false`), part("miss", `${miss} missed`)];
  };

  const stagePanel = (card, number, place) => {
    const stage = card.stages[place], name = nameOf(place), { objects, relations } = card.target;
    const lines = stage.relations.map((relation) => lineOf(stage.objects, relation, relation[3], confidence(relation[4], relation[5], stage.answers)));
    const missed = relations.filter((relation) => !relation[3][place]).map((relation) => lineOf(objects, relation, "miss"));
    return html("section", { class: "panel", "data-stage": place, "data-status": stage.status },
      html("h4", null, mark(place), html("bdi", null, name), statusOf(stage)), zoomable(card, number, stage.objects, name),
      html("p", { class: "sums" }, sumsOf(card, stage)),
      list(lines, stage.n[1], `Relations that ${name} predicts`),
      missed.length > 0 && folded(`${stage.counts.miss} missed`, list(missed, stage.counts.miss, "Relations that are missed")),
      objectList(stage.objects, stage.n[0], false, stage.answers),
      stage.numIssues > 0 && folded(count(stage.numIssues, "dropped element"),
        html("ul", { class: "issues" }, stage.issues.map(([kind, where, detail, meaning]) => html("li", null,
          html("strong", { title: meaning }, kind.replaceAll("_", " ")), " ", html("span", null, where), detail && [" ", html("code", null, html("bdi", null, detail))]))),
        stage.numIssues > stage.issues.length && note(`and ${(stage.numIssues - stage.issues.length).toLocaleString("en")} more`)),
      stage.answer !== undefined && folded(["Raw answer", stage.tokens !== null && html("span", { class: "unit" }, ` ${count(stage.tokens, "token")}`)],
        stage.note && note(stage.note), stage.answer ? html("pre", { dir: "ltr", tabindex: 0 }, stage.answer) : note("an empty text")));
  };

  const graphs = (card) => {
    const row = html("div", { class: "graph-row" });
    const node = html("details", { class: "graphs" }, html("summary", null, "Graphs"), row);
    node.addEventListener("toggle", () => {
      if (!node.open || row.childElementCount) return;
      // As many columns as the style makes of this width; a reel has 1 rem less than its column.
      const columns = Math.max(1, Math.floor((row.clientWidth + 16) / (512 + 16)));
      const room = Math.max(512, (row.clientWidth + 16) / columns - 16) - 16;
      const figure = (caption, name, objects, relations, total) => html("figure", null, html("figcaption", null, caption),
        html("div", { class: "reel", tabindex: 0, role: "group", "aria-label": `Graph of ${name}` }, drawGraph(card.wh, objects, relations, name, room)),
        total > relations.length && note(`${(total - relations.length).toLocaleString("en")} more relations are not drawn`));
      // A relation of the ground truth that no answer holds is drawn as missed.
      const target = card.target.relations.map(([subject, predicate, object, by]) => [subject, predicate, object, shown.size && ![...shown].some((place) => by[place]) ? "miss" : "target"]);
      row.append(figure("Ground truth", "the ground truth", card.target.objects, target, card.target.n[1]));
      for (const place of shown) {
        const stage = card.stages[place];
        if (stage.status === "ok") row.append(figure([mark(place), html("bdi", null, nameOf(place))], nameOf(place), stage.objects, stage.relations, stage.n[1]));
      }
    });
    return node;
  };

  const root = document.getElementById("cards");
  const articles = data.cards.map((card, number) => html("article", { class: "card", id: `card-${number}`, tabindex: 0, "aria-label": `Image ${card.id}` },
    html("header", null, html("h3", null, html("bdi", null, card.id)), html("span", { class: "unit" }, `${card.wh[0]} × ${card.wh[1]}`),
      card.problem && html("span", { class: "status bad" }, card.problem), html("span", { class: "apart" }))));
  const fill = (article) => {
    if (article.childElementCount > 1) return;
    const number = articles.indexOf(article), card = data.cards[number];
    const picture = document.getElementById(`picture-${number}`);
    if (picture) {
      const image = svg("image", { id: `image-${number}`, width: card.wh[0], height: card.wh[1], preserveAspectRatio: "none", href: `data:image/webp;base64,${picture.textContent}` });
      article.append(svg("svg", { class: "store", width: 0, height: 0, "aria-hidden": "true" }, svg("defs", null, image)));
    }
    article.append(html("div", { class: "panels", tabindex: 0, role: "group", "aria-label": `Ground truth and answers for ${card.id}` },
      targetPanel(card, number), [...shown].map((place) => stagePanel(card, number, place))), data.hasRelations ? graphs(card) : "");
  };
  const watcher = new IntersectionObserver((entries) => {
    for (const { target, isIntersecting } of entries) {
      if (!isIntersecting) continue;
      watcher.unobserve(target);
      fill(target);
    }
  }, { rootMargin: "900px 0px" });

  // Shows the cards with these numbers, in this order, and the stages in `shown`.
  const show = (numbers) => {
    root.replaceChildren(...numbers.map((number) => articles[number]));
    for (const article of articles) watcher.unobserve(article);
    for (const number of numbers) watcher.observe(articles[number]);
  };
  const redraw = () => {
    for (const article of articles) while (article.childElementCount > 1) article.lastElementChild.remove();
  };

  const pick = (lines, line) => {
    // A missed relation stands in an answer's panel, but its boxes are those of the ground truth.
    const home = line && line.classList.contains("miss") ? lines.closest(".card").querySelector(".target") : lines.closest(".panel");
    for (const other of lines.children) other.classList.toggle("on", other === line);
    for (const scene of lines.closest(".card").querySelectorAll(".scene")) scene.classList.remove("picking");
    if (!line) return;
    const ends = line.dataset.ends.split(" "), scene = home.querySelector(".scene");
    scene.classList.add("picking");
    for (const box of scene.querySelectorAll("[data-box]")) box.classList.toggle("on", ends.includes(box.dataset.box));
  };
  const listOf = (event) => event.target.closest(".relations");
  root.addEventListener("pointerover", (event) => {
    for (const lines of root.querySelectorAll(".relations:has(.on)")) if (lines !== listOf(event)) pick(lines, null);
    if (listOf(event)) pick(listOf(event), event.target.closest("li"));
  });
  root.addEventListener("focusin", (event) => fill(event.target.closest(".card")));
  root.addEventListener("focusout", (event) => listOf(event) && pick(listOf(event), null));

  const go = (step) => {
    const cards = [...root.children], card = document.activeElement.closest(".card");
    const top = cards.findIndex((other) => other.getBoundingClientRect().bottom > 8);
    const at = card ? cards.indexOf(card) + step : step > 0 ? top : Math.max(0, top - 1);
    const next = cards[Math.min(Math.max(at, 0), cards.length - 1)];
    if (!next) return;
    fill(next);
    next.focus({ preventScroll: true });
    next.scrollIntoView({ block: "start" });
  };
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, select, textarea")) return;
    const lines = listOf(event), up = { ArrowUp: -1, ArrowDown: 1 }[event.key];
    if (lines && up) {
      const all = [...lines.children], now = all.findIndex((line) => line.classList.contains("on"));
      const line = all[now < 0 ? (up > 0 ? 0 : all.length - 1) : Math.min(Math.max(now + up, 0), all.length - 1)];
      pick(lines, line);
      line.scrollIntoView({ block: "nearest" });
    } else if (event.key === "g" && event.target.closest(".card")) {
      const node = event.target.closest(".card").querySelector(".graphs");
      if (node) node.open = !node.open;
    } else if (event.key === "z" && event.target.closest(".card")) {
      for (const scene of event.target.closest(".card").querySelectorAll(".scene")) scene.dispatchEvent(new Event("click"));
    } else {
      const onCard = event.target.classList.contains("card");
      const step = { j: 1, k: -1, ...(onCard ? { ArrowRight: 1, ArrowLeft: -1 } : {}) }[event.key];
      if (!step) return;
      go(step);
    }
    event.preventDefault();
  });
  addEventListener("beforeprint", () => [...root.children].forEach(fill));

  return { data, shown, f1Of, nameOf, mark, show, redraw, articles };
})();
