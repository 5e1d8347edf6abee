// Which cards the gallery shows, and in which order.
(() => {
  const { data, shown, f1Of, nameOf, mark, show, redraw, articles } = gallery;
  const { cards, stages } = data;
  const places = [...stages.keys()];
  const STATES = { "": "anywhere", target: "in the ground truth", hit: "hit", miss: "missed", false: "false", repeat: "repeated" };

  const countsOf = (lists) => {
    const found = new Map();
    for (const items of lists) for (const item of new Set(items)) found.set(item, (found.get(item) || 0) + 1);
    return [...found].sort(([a, m], [b, n]) => n - m || (a < b ? -1 : 1));
  };
  const statuses = countsOf(cards.map((card) => card.stages.map((stage) => stage.status))).filter(([status]) => status !== "ok");
  const predicates = countsOf(cards.map((card) => [card.target, ...card.stages].flatMap((side) => side.relations.map((relation) => relation[1]))));
  const runs = (first) => [...first, ...places.map((place) => [place, nameOf(place)])];
  const select = (options, value) => {
    const node = html("select", null, options.map(([key, text]) => html("option", { value: key }, text)));
    if (value !== undefined) node.value = value;
    return node;
  };
  const images = (number) => `(${count(number, "image")})`;

  const answers = select([["", "all"], ["ok", "all parsed"], ["failed", "failed, for any reason"],
    ...statuses.map(([status, number]) => [`=${status}`, `${status === "missing" ? "no prediction" : `failed: ${status.replaceAll("_", " ")}`} ${images(number)}`])]);
  const predicate = select([["", "any"], ...predicates.map(([name, number]) => [`=${name}`, `${name} ${images(number)}`])]);
  const state = select(Object.entries(STATES));
  const run = select(runs([["", "any run"]]));
  const differences = [["either", "largest difference"], ["worse", "second worse than first"], ["better", "second better than first"]];
  const order = select([["", "as in the data"], ["lowest", stages.length > 1 ? "lowest F1 of second" : "lowest F1"], ...(stages.length > 1 ? differences : [])]);
  const first = select(runs([]), 0), second = select(runs([]), stages.length - 1);

  const found = (card, sides, name, wanted) => {
    const fits = (relation) => !name || relation[1] === name;
    const among = (kind) => sides.some((place) => card.stages[place].relations.some((relation) => fits(relation) && (!kind || relation[3] === kind)));
    if (wanted === "target") return card.target.relations.some(fits);
    if (wanted === "miss") return card.target.relations.some((relation) => fits(relation) && sides.some((place) => !relation[3][place]));
    if (wanted) return among(wanted);
    return !name || card.target.relations.some(fits) || among("");
  };
  const keeps = (card) => {
    const sides = run.value === "" ? places.filter((place) => shown.has(place)) : [Number(run.value)];
    const failed = sides.map((place) => card.stages[place].status).filter((status) => status !== "ok");
    if (answers.value === "ok" && failed.length) return false;
    if (answers.value === "failed" && !failed.length) return false;
    if (answers.value.startsWith("=") && !failed.includes(answers.value.slice(1))) return false;
    return found(card, sides, predicate.value.slice(1), state.value);
  };
  const gap = (card) => f1Of(card.stages[Number(second.value)]) - f1Of(card.stages[Number(first.value)]);
  const ORDERS = {
    lowest: (card) => f1Of(card.stages[Number(second.value)]),
    either: (card) => -Math.abs(gap(card)),
    worse: gap,
    better: (card) => -gap(card),
  };

  const summary = html("p", { id: "summary", role: "status" });
  const clear = html("button", { type: "button" }, "Show all");
  const apply = () => {
    const rank = ORDERS[order.value], apart = ["either", "worse", "better"].includes(order.value);
    let numbers = [...cards.keys()].filter((number) => keeps(cards[number]));
    // An order by difference leaves out where there is none in that direction.
    if (apart) numbers = numbers.filter((number) => rank(cards[number]) < 0);
    if (rank) numbers.sort((a, b) => rank(cards[a]) - rank(cards[b]) || a - b);
    for (const number of numbers) {
      const [a, b] = [first, second].map((side) => f1Of(cards[number].stages[Number(side.value)] || { f1: [0, 0] }).toFixed(2));
      articles[number].querySelector(".apart").textContent = apart ? `F1 ${nameOf(first.value)} ${a} → ${nameOf(second.value)} ${b}` : "";
    }
    show(numbers);
    summary.textContent = `${numbers.length.toLocaleString("en")} of ${count(cards.length, "image")}${numbers.length ? "" : ": none fits these filters"}`;
    clear.hidden = numbers.length === cards.length && !rank;
  };

  const labelled = (text, node) => {
    node.setAttribute("aria-label", text);
    return html("label", null, html("span", null, text), node);
  };
  const chooser = html("fieldset", null, html("legend", null, "Runs shown"), places.map((place) => {
    const box = html("input", { type: "checkbox", checked: true });
    box.addEventListener("change", () => {
      if (box.checked) shown.add(place); else shown.delete(place);
      const kept = places.filter((other) => shown.has(other));
      shown.clear();
      for (const other of kept) shown.add(other);
      redraw();
      apply();
    });
    return html("label", null, box, mark(place), html("bdi", null, nameOf(place)));
  }));
  const controls = [answers, predicate, state, run, order, first, second];
  for (const control of controls) control.addEventListener("change", apply);
  clear.addEventListener("click", () => {
    for (const control of [answers, predicate, state, run, order]) control.value = "";
    apply();
    answers.focus();
  });
  const when = (condition, ...nodes) => (condition ? nodes : []);
  document.getElementById("filters").append(
    labelled("Answers", answers), ...when(predicates.length > 0, labelled("Predicate", predicate), labelled("that is", state)),
    ...when(stages.length > 1, labelled("of", run)), ...when(stages.length > 0, labelled("Order", order)),
    ...when(stages.length > 1, labelled("first", first), labelled("second", second), chooser), summary, clear);
  apply();
})();
