import { Colors, drawGraph, drawScene, short } from "/draw.js";

const at = (id) => document.getElementById(id);
const form = at("ask");
let info = null, image = null, colors = new Colors(), busy = false, uploads = 0;

async function call(path, body = undefined) {
  let response;
  try {
    response = await fetch(path, body === undefined ? {} : { method: "POST", body, headers: { "X-SceneRL": "app" } });
  } catch {
    throw new Error("the server does not answer; is it still running?");
  }
  const value = await response.json();
  if (!response.ok) throw new Error(value.error);
  return value;
}

function options(select, entries) {
  select.append(...entries.map(([value, text]) => new Option(text, value)));
}

function refresh() {
  const task = at("task").value, several = Number(at("samples").value) > 1;
  const shown = { det: task === "det", sgdet: task === "sgdet", own: task === "sgdet" && at("vocabulary").value === "own", several };
  for (const element of document.querySelectorAll("[data-if]")) {
    element.hidden = !shown[element.dataset.if];
    for (const control of element.querySelectorAll("input")) control.disabled = element.hidden;
  }
  at("labels").required = task === "det";
  at("go").disabled = busy || !image || !info;
}

async function take(file) {
  if (!file || !info) return;
  const mine = ++uploads;
  at("error").textContent = "";
  image = null;
  at("preview").hidden = true;
  at("hint").textContent = `Reading ${short(file.name, 60)} …`;
  refresh();
  try {
    if (file.size > info.max_bytes) throw new Error(`the file has ${file.size} bytes; allowed: ${info.max_bytes}`);
    const { id, width, height } = await call("/api/images", file);
    if (mine !== uploads) return; // another file was chosen meanwhile
    image = { id, width, height, url: `/api/images/${id}`, name: file.name.slice(0, 100) || "image" };
    colors = new Colors();
    at("preview").src = image.url;
    at("preview").alt = `The chosen image, ${width} by ${height} pixels`;
    at("preview").hidden = false;
    at("hint").textContent = `${short(file.name, 60)}, ${width} × ${height}`;
  } catch (error) {
    if (mine !== uploads) return;
    at("error").textContent = `${short(file.name, 60)}: ${error.message}`;
    at("hint").textContent = "Drop an image here, paste one, or choose a file";
  }
  refresh();
}

function question(model) {
  const list = (id) => at(id).value.split(/[,\n]/).map((label) => label.trim()).filter(Boolean);
  return {
    image: image.id,
    name: image.name,
    model,
    task: at("task").value,
    labels: list("labels"),
    vocabulary: at("vocabulary").value,
    objects: list("objects"),
    predicates: list("predicates"),
    constrain: at("constrain").checked,
    num_samples: Number(at("samples").value),
    temperature: Number(at("temperature").value),
    max_new_tokens: Number(at("tokens").value),
    seed: Number(at("seed").value),
  };
}

async function ask(event) {
  event.preventDefault();
  if (busy || !image) return;
  busy = true;
  refresh();
  const asked = image;
  const models = [...new Set([at("model").value, at("other").value].filter(Boolean))];
  const questions = models.map(question); // all now: image and form may change while the first model answers
  const panels = models.map(newPanel);
  at("panels").replaceChildren(...panels);
  at("panels").scrollIntoView({ block: "nearest" });
  at("error").textContent = "";
  for (const [place, model] of models.entries()) {
    const started = performance.now();
    const tick = () => { at("status").textContent = `${model} answers … ${((performance.now() - started) / 1000).toFixed(0)} s`; };
    const timer = setInterval(tick, 1000);
    tick();
    try {
      fill(panels[place], asked, await call("/api/answers", JSON.stringify(questions[place])));
    } catch (error) {
      panels[place].querySelector(".facts").textContent = "";
      panels[place].querySelector(".error").textContent = error.message;
    } finally {
      clearInterval(timer);
    }
  }
  at("status").textContent = "";
  busy = false;
  refresh();
}

function newPanel(model) {
  const panel = at("panel").content.firstElementChild.cloneNode(true);
  panel.querySelector("h2").textContent = model;
  panel.querySelector(".facts").textContent = "waiting";
  return panel;
}

function fill(panel, asked, answer) {
  const find = (selector) => panel.querySelector(selector);
  const { result, answers, seconds } = answer;
  const numbers = new Map((result.graph?.objects ?? []).map((item, place) => [item.id, place + 1]));
  const objects = (result.graph?.objects ?? []).map((item) => ({
    number: numbers.get(item.id), label: item.id.replace(/\.\d+$/, ""), box: item.bbox, score: item.score, votes: item.votes,
  }));
  const relations = (result.graph?.relationships ?? []).map((item) => ({
    ...item, subject: numbers.get(item.subject), object: numbers.get(item.object),
  }));
  const failed = answers.filter(({ status }) => status !== "ok").length;
  const issues = answers.reduce((sum, { issues }) => sum + issues.length, 0);
  find(".facts").textContent = [
    answers.length === 1 ? (failed ? `failed: ${result.status}` : "read") : `${answers.length} answers, ${failed} failed`,
    count(objects.length, "object"),
    count(relations.length, "relation"),
    count(issues, "issue"),
    count(answers.reduce((sum, { num_tokens }) => sum + num_tokens, 0), "token"),
    `${seconds.answering.toFixed(1)} s` + (seconds.loading > 0.05 ? ` + ${seconds.loading.toFixed(1)} s loading` : ""),
  ].join(" · ");
  const slider = find(".threshold input");
  const draw = () => {
    const least = Number(slider.value), kept = objects.filter(({ score }) => (score ?? 1) >= least);
    const known = new Set(kept.map(({ number }) => number));
    const lines = relations.filter((item) => (item.score ?? 1) >= least && known.has(item.subject) && known.has(item.object));
    find("output").textContent = least.toFixed(2);
    drawScene(find(".scene"), asked, kept, colors);
    drawGraph(find(".graph"), kept, lines);
    find(".objects").replaceChildren(...byScore(kept).map((item) => line(panel, [item], item, [item.label], answers.length)));
    const object = (number) => objects[number - 1];
    find(".relations").replaceChildren(...byScore(lines).map((item) => {
      const ends = [object(item.subject), object(item.object)];
      return line(panel, ends, item, [ends[0].label, item.predicate, ends[1].label], answers.length);
    }));
  };
  slider.addEventListener("input", draw);
  draw();
  for (const element of [find(".graph"), find(".of-relations"), find(".relations")]) element.toggleAttribute("hidden", relations.length === 0);
  find(".raw summary").textContent = answers.length === 1 ? "Raw answer" : "Raw answers";
  for (const item of answers) {
    const notes = item.issues.map(({ kind, where }) => `${kind} at ${where}`).join(", ");
    const title = document.createElement("p");
    title.className = "facts";
    title.textContent = [item.status, count(item.num_tokens, "token"), item.finish_reason === "length" ? "cut off" : "", notes].filter(Boolean).join(" · ");
    const text = document.createElement("pre");
    text.textContent = item.answer;
    find(".raw").append(title, text);
  }
  find(".raw").open = failed === answers.length;
  find(".prompt pre").textContent = answer.prompt;
  const link = find(".download");
  link.href = URL.createObjectURL(new Blob([JSON.stringify(answer, null, 1)], { type: "application/json" }));
  link.download = `${asked.name.replace(/\.[^.]*$/, "")}.${answer.model.replaceAll("/", "-")}.json`;
  find(".body").hidden = false;
}

function count(number, noun) {
  return `${number} ${noun}${number === 1 ? "" : "s"}`;
}

function byScore(items) {
  return [...items].sort((a, b) => (b.score ?? 1) - (a.score ?? 1));
}

// A row of a list: an object or a relation, whose boxes and nodes stand out while it is pointed at or focused.
function line(panel, ends, item, words, numAnswers) {
  const row = document.createElement("li"), what = document.createElement("span"), score = document.createElement("span");
  row.tabIndex = 0;
  what.className = "what";
  words.forEach((word, place) => {
    const part = document.createElement("span");
    part.textContent = word;
    if (place === 1) part.className = "predicate";
    what.append(place ? " " : "", part);
    if (place !== 1) {
      const number = document.createElement("span");
      number.className = "number";
      number.textContent = ` ${ends[place ? 1 : 0].number}`;
      what.append(number);
    }
  });
  score.className = "score";
  score.textContent = (item.score ?? 1).toFixed(2) + (item.votes === undefined ? "" : `, ${item.votes} of ${numAnswers}`);
  row.append(what, score);
  const wanted = new Set(ends.map(({ number }) => String(number)));
  const pick = () => {
    for (const svg of panel.querySelectorAll("svg")) {
      svg.classList.add("picking");
      for (const element of svg.querySelectorAll("[data-objects]"))
        element.classList.toggle("on", element.dataset.objects.split(" ").every((number) => wanted.has(number)));
    }
  };
  const drop = () => panel.querySelectorAll("svg").forEach((svg) => svg.classList.remove("picking"));
  for (const name of ["pointerenter", "focus"]) row.addEventListener(name, pick);
  for (const name of ["pointerleave", "blur"]) row.addEventListener(name, drop);
  return row;
}

function listen() {
  form.addEventListener("submit", ask);
  form.addEventListener("input", refresh);
  form.addEventListener("invalid", (event) => event.target.closest("details")?.setAttribute("open", ""), true);
  at("model").addEventListener("change", () => {
    at("task").value = info.models.find(({ name }) => name === at("model").value).task;
    refresh();
  });
  at("file").addEventListener("change", () => take(at("file").files[0]));
  document.addEventListener("paste", (event) => take(event.clipboardData.files[0]));
  document.addEventListener("dragover", (event) => { event.preventDefault(); at("drop").classList.add("over"); });
  document.addEventListener("dragleave", () => at("drop").classList.remove("over"));
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    at("drop").classList.remove("over");
    take(event.dataTransfer.files[0]);
  });
}

async function start() {
  info = await call("/api/info");
  options(at("model"), info.models.map(({ name }) => [name, name]));
  options(at("other"), info.models.map(({ name }) => [name, name]));
  const names = { trained: "as trained", open: "any label", own: "own lists" };
  options(at("vocabulary"), info.vocabularies.map((name) => [name, names[name] ?? name]));
  at("samples").max = info.num_samples;
  at("tokens").max = info.max_new_tokens;
  at("tokens").value = Math.min(512, info.max_new_tokens);
  at("task").value = info.models[0].task;
  listen();
  refresh();
  take(at("file").files[0]); // a browser may keep the choice when the page is loaded again
}

start().catch((error) => { at("error").textContent = error.message; });
