"use strict";
// The page: what is said of the training, and how it learns of what was written since.

const $ = (id) => document.getElementById(id);
let seen = JSON.parse($("numbers").textContent); // as `Watched` in page.py has it, with the version
let at = null; // the epoch that is pointed at
let chosen = false; // has anyone chosen how losses are drawn?

const SPIKE = 20; // times the median: a loss so large hides the others of its line

function element(kind, text, properties = {}) {
  const made = Object.assign(document.createElement(kind), properties);
  if (text !== undefined) made.textContent = text;
  return made;
}

const real = (value, exact) => (value !== 0 && (Math.abs(value) < 1e-3 || Math.abs(value) >= 1e5) ? value.toExponential(exact ? 2 : 0) : Number(value.toPrecision(exact ? 4 : 3)).toString());

// A share as it is printed: not all is never 100%, not none never 0%. At the axis without needless zeros.
function percent(value, exact) {
  const places = exact ? 2 : 1, text = (100 * value).toFixed(places), least = 10 ** -places;
  if (Number(text) === 100 && value < 1 - 1e-12) return `>${(100 - least).toFixed(places)}%`;
  if (Number(text) === 0 && value > 1e-12) return `<${least.toFixed(places)}%`;
  return `${exact ? text : Number(text)}%`;
}

function lasting(seconds) {
  if (seconds < 99.5) return seconds < 9.95 ? `${seconds.toFixed(1)} s` : `${seconds.toFixed(0)} s`;
  const minutes = Math.round(seconds / 60), hours = Math.floor(minutes / 60), days = Math.floor(hours / 24);
  return days ? `${days} d ${hours % 24} h` : hours ? `${hours} h ${minutes % 60} min` : `${minutes} min`;
}

// A moment, of today by its time alone.
function moment(seconds) {
  const then = new Date(seconds * 1000), today = then.toDateString() === new Date().toDateString();
  return today ? then.toLocaleTimeString() : then.toLocaleString();
}

// Does one loss hide the others of its line, on an axis that is not logarithmic?
function spiked() {
  return ["train", "val", "test"].some((split) => {
    const losses = seen.records.map((record) => record[`${split}_loss`]).filter((value) => typeof value === "number").sort((one, two) => one - two);
    return losses.length > 0 && losses.at(-1) > SPIKE * losses[losses.length >> 1];
  });
}

function charts() {
  const log = $("log").checked, splits = ["train", "val", "test"];
  const of = (what, names) => names.map((name) => ({ name, key: `${name}_${what}`, look: name })).filter((line) => seen.records.some((record) => record[line.key] !== undefined));
  const loss = { format: real, log }, others = of("loss", ["val", "test"]);
  const found = seen.loss
    ? [{ title: `training loss (${seen.loss})`, lines: of("loss", ["train"]), ...loss }, { title: "loss (cross-entropy)", lines: others, ...loss }]
    : [{ title: "loss", lines: of("loss", splits), ...loss }];
  const six = seen.records.every((record) => !("test_accuracy" in record) || record.views === 6);
  const views = seen.tta ? ` (val, test: ${six ? "six" : "several"} views of each image)` : "";
  found.push({ title: `accuracy${views}`, lines: of("accuracy", splits), format: percent, limits: [0, 1] });
  found.push({ title: "learning rate", lines: [{ name: "", key: "lr", look: "train" }], format: real, limits: [0, Infinity] });
  const gradients = [["first layer", "grad_norm_first", "train"], ["last layer", "grad_norm_last", "test"]].map(([name, key, look]) => ({ name, key, look }));
  if (seen.records.some((record) => "grad_norm_first" in record)) found.push({ title: "gradient norm", lines: gradients, format: real, log });
  found.push({ title: "training time of an epoch", lines: [{ name: "", key: "seconds", look: "train" }], format: lasting, limits: [0, Infinity], zero: true });
  return found.filter((chart) => chart.lines.length);
}

function drawCharts() {
  if (!seen.records.length) return $("charts").replaceChildren(element("p", "Nothing is measured yet.", { className: "faint" }));
  const record = seen.records.find((one) => one.epoch === at) ?? seen.records.at(-1);
  const kept = document.activeElement?.closest?.("figure")?.dataset.title;
  const figures = charts().map((chart) => {
    const figure = element("figure"), caption = element("figcaption");
    figure.dataset.title = chart.title;
    caption.append(element("h2", chart.title), element("span", `epoch ${record.epoch}`, { className: "faint" }));
    for (const line of chart.lines) {
      const text = element("span");
      text.append(sample(line.look), `${line.name} ${shown(chart, record[line.key])}`.trim());
      caption.append(text);
    }
    figure.append(caption);
    return { figure, chart };
  });
  $("charts").style.minHeight = `${$("charts").offsetHeight}px`; // or else the page is short for a moment, and scrolls up
  $("charts").replaceChildren(...figures.map(({ figure }) => figure));
  for (const { figure, chart } of figures) { // in the page they have a width
    const style = getComputedStyle(figure), width = Math.max(figure.clientWidth - parseFloat(style.paddingLeft) - parseFloat(style.paddingRight), 200);
    const picture = plot(chart, seen.records, width, innerWidth <= 560 ? 200 : 240, at === null ? null : record);
    figure.append(picture);
    if (figure.dataset.title === kept) picture.focus({ preventScroll: true });
  }
  $("charts").style.minHeight = "";
}

function point(epoch) {
  if (epoch === at) return;
  at = epoch;
  drawCharts();
}

$("charts").addEventListener("pointermove", (event) => {
  const picture = event.target.closest("figure > svg");
  if (!picture || !seen.records.length) return;
  const box = picture.getBoundingClientRect(), x = epochScale(seen.records, box.width), here = event.clientX - box.x;
  const near = (record) => Math.abs(x.place(record.epoch) - here);
  point(seen.records.reduce((best, record) => (near(record) < near(best) ? record : best)).epoch);
});
$("charts").addEventListener("pointerleave", () => point(null));
$("charts").addEventListener("keydown", (event) => {
  const way = { ArrowLeft: -1, ArrowRight: 1 }[event.key], last = seen.records.length - 1;
  if (event.key === "Escape") point(null);
  if (!way || last < 0) return;
  const here = at === null ? last : seen.records.findIndex((record) => record.epoch === at);
  point(seen.records[Math.min(Math.max(here + way, 0), last)].epoch);
  event.preventDefault();
});

const STATES = { running: "▶ running", finished: "✓ finished", interrupted: "■ interrupted", diverged: "✗ diverged", failed: "✗ failed", stale: "? no news" };

// What changes with the clock: is the training still heard of?
function tell() {
  const silent = Date.now() / 1000 - seen.written;
  const state = seen.state === "running" && silent > seen.patience ? "stale" : seen.state;
  $("state").dataset.state = state;
  $("state").textContent = STATES[state] + (state === "stale" ? ` since ${moment(seen.written)}` : "");
  $("written").textContent = `cifarnet ${seen.version} · written ${moment(seen.written)}${state === "running" && silent > 1 ? `, ${lasting(silent)} ago` : ""}`;
  document.title = `${STATES[state][0]} ${seen.name} · ${seen.title}`;
  const done = seen.records.length, part = seen.steps ? seen.step / seen.steps : 0;
  $("done").value = Math.min((done + part) / Math.max(seen.epochs, 1), 1);
  const words = [`epoch ${Math.min(done + (part > 0 ? 1 : 0), seen.epochs)} of ${seen.epochs}`];
  if (part > 0) words[0] += `, step ${seen.step} of ${seen.steps}`;
  if (done) words.push(`${lasting(seen.records.reduce((sum, record) => sum + record.seconds, 0) / done)} an epoch`);
  if (state === "running" && seen.left !== null) words.push(`about ${lasting(Math.max(seen.left - silent, 1))} left, the end at ${moment(seen.written + seen.left)}`);
  if (seen.started) words.push(`begun ${moment(Date.parse(seen.started) / 1000)}`);
  $("now").textContent = words.join(" · ");
  $("why").hidden = !seen.why && state !== "stale";
  $("why").textContent = state === "stale" ? "Nothing was written for longer than before: training hangs, or was killed." : seen.why;
}

function table(id, rows, heads) {
  const lines = rows.map((row) => {
    const line = element("tr");
    line.append(...row.map((text, i) => element(i ? "td" : "th", text)));
    return line;
  });
  if (heads) {
    const head = element("tr");
    head.append(...heads.map((text) => element("th", text)));
    lines.unshift(head);
  }
  $(id).querySelector("table").replaceChildren(...lines);
}

function fillTables() {
  if ($("options").open) table("options", seen.options);
  if (!$("numbers-of-epochs").open) return;
  const names = [...new Set(seen.records.flatMap(Object.keys))];
  table("numbers-of-epochs", seen.records.map((record) => names.map((name) => (record[name] === null ? "not finite" : String(record[name] ?? "")))), names);
}

function show() {
  $("name").textContent = seen.name;
  $("facts").replaceChildren(...seen.facts.flatMap(([name, text]) => [element("dt", name), element("dd", text)]));
  if (!chosen) $("log").checked = spiked();
  tell();
  drawCharts();
  fillTables();
}

// News. From the disk a browser lets no page read a file, not even its own; but it may show its own file in a frame, and a
// frame may send its numbers up. So nothing is loaded anew here: scroll, choices and open tables stay. Tried from file://
// in Chromium and in Firefox.
function ask() {
  document.querySelector("iframe")?.remove();
  const frame = element("iframe", undefined, { hidden: true, src: `${location.pathname}?at=${Date.now()}` });
  document.body.append(frame);
}

function hear(event) {
  if (event.source !== document.querySelector("iframe")?.contentWindow || typeof event.data !== "string") return;
  const news = JSON.parse(event.data);
  if (news.version !== seen.version) return location.reload(); // a page of another make
  if (JSON.stringify(news) === JSON.stringify(seen)) return;
  seen = news;
  show();
}

function watch() {
  let asked = Date.now();
  setInterval(() => {
    tell();
    if (document.hidden || Date.now() - asked < (seen.state === "running" ? 2000 : 10000)) return;
    asked = Date.now();
    ask();
  }, 1000);
  document.addEventListener("visibilitychange", () => { asked = 0; });
  addEventListener("message", hear);
  addEventListener("resize", drawCharts);
  $("log").addEventListener("change", () => { chosen = true; drawCharts(); });
  for (const id of ["options", "numbers-of-epochs"]) $(id).addEventListener("toggle", fillTables);
  const root = document.documentElement.dataset;
  root.theme = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
  $("theme").addEventListener("click", () => { root.theme = root.theme === "dark" ? "light" : "dark"; });
  show();
}

if (window.parent === window) watch();
else window.parent.postMessage($("numbers").textContent, location.protocol === "file:" ? "*" : location.origin);
