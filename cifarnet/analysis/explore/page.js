// The page: what is chosen, and what follows from it.

const VIEWS = [...packed.methods.filter((name) => runs.some((run) => run.maps[name])), "sphere"];
const state = { view: VIEWS[0], colour: "class", focus: null, selected: null, because: "", turning: false };
const $ = (id) => document.getElementById(id);
const two = runs.length > 1;
const judge = () => runs[Number($("judge").value)];
const HINT = $("card").firstElementChild;
let shown = everything;

function element(kind, text, properties = {}) {
  const made = Object.assign(document.createElement(kind), properties);
  if (text !== undefined) made.textContent = text;
  return made;
}

// What stands for an element where it is not seen.
function describe(target, role, label) {
  target.setAttribute("role", role);
  target.setAttribute("aria-label", label);
}

function fill(id, options) {
  for (const [value, text] of options) $(id).append(element("option", text, { value }));
}

const FILTERS = {
  all: ["all images", () => true],
  wrong: ["errors", (i) => judge().wrong[i]],
  right: ["right ones", (i) => !judge().wrong[i]],
};
if (two) {
  FILTERS.differ = ["the runs disagree", (i) => runs[0].predictions[i] !== runs[1].predictions[i]];
  FILTERS.both = ["both wrong", (i) => runs[0].wrong[i] && runs[1].wrong[i]];
  FILTERS.one = [`only ${runs[0].name} wrong`, (i) => runs[0].wrong[i] && !runs[1].wrong[i]];
  FILTERS.other = [`only ${runs[1].name} wrong`, (i) => !runs[0].wrong[i] && runs[1].wrong[i]];
}

// A panel a run: its map or sphere with the ring that marks an image, and its confusion matrix.
const panels = runs.map((run, at) => {
  const panel = element("section", undefined, { className: "panel" });
  const plot = element("div", undefined, { className: "plot" });
  const map = element("div", undefined, { id: `map-${at}` }), sphere = element("div", undefined, { id: `sphere-${at}` });
  const none = element("p", undefined, { className: "none", hidden: true }), ring = element("div", undefined, { className: "ring", hidden: true });
  const table = element("div", undefined, { className: "confusion", id: `confusion-${at}` }), cell = element("p", undefined, { className: "cell" });
  const grid = table.appendChild(element("canvas")), wrong = run.wrong.reduce((sum, one) => sum + one, 0);
  const lacking = Object.entries(run.missing).map(([name, why]) => `no ${METHODS[name]}: ${why}`).join("; ");
  const note = element("p");
  describe(grid, "img", `confusion matrix of ${run.name}: ${wrong} of ${count} images are taken for another class`);
  describe(sphere, "img", `directions of the features of ${run.name} on a sphere`);
  describe(table, "application", `cells of the confusion matrix of ${run.name}: the arrow keys go from one to the next, Enter selects`);
  table.tabIndex = 0;
  cell.setAttribute("aria-live", "polite");
  plot.append(map, sphere, none, ring);
  panel.append(element("h2", run.name), note, element("p", lacking, { className: "lacking", hidden: !lacking }), plot, table, cell);
  $("panels").append(panel);
  map.addEventListener("over", ({ detail }) => hover(detail));
  map.addEventListener("pick", ({ detail }) => tapped(plot, detail));
  map.addEventListener("loop", ({ detail }) => detail.length && select(detail, "drawn on the map"));
  map.addEventListener("moved", () => ringAt(state.over ?? state.focus));
  return { at, run, map, sphere, none, ring, table, cell, note };
});

function hover(i) {
  state.over = i;
  if (i !== null) show(i);
  else if (state.focus !== null) show(state.focus);
}

async function drawPanel(panel) {
  const { run, map, sphere, none, note } = panel, space = state.view === "sphere", there = space || run.maps[state.view];
  map.hidden = space || !there;
  sphere.hidden = !space;
  none.hidden = Boolean(there);
  none.textContent = `no ${METHODS[state.view]} of this run`;
  note.textContent = space && run.lost > 0 ? `${run.title} · three directions of the last layer: ${percent(run.lost, 0)} of |W|² left out` : run.title;
  note.title = note.textContent;
  if (!space) { if (there) drawMap(map, run, state, shown, state.selected); return; }
  const first = !sphere.on;
  await drawSphere(sphere, run, state, shown, state.selected);
  if (!first) return;
  sphere.on("plotly_hover", (event) => { const i = event.points[0].customdata; if (i !== undefined) hover(i); });
  sphere.on("plotly_unhover", () => hover(null));
  sphere.on("plotly_click", (event) => { const i = event.points[0].customdata; if (i !== undefined) tapped(sphere.parentNode, i); });
}

function ringAt(i) {
  for (const { run, map, ring } of panels) {
    const place = i === null || state.view === "sphere" ? null : placeOn(map, run, state.view, i);
    ring.hidden = !place;
    if (place) { ring.style.left = `${place[0]}px`; ring.style.top = `${place[1]}px`; }
  }
}

// The card of an image: its picture, and what each run makes of it.
function show(i) {
  const card = $("card"), table = element("table");
  const row = (name, ...cells) => { const line = element("tr"); line.append(element("th", name), ...cells.map((text) => (text instanceof Node ? text : element("td", text)))); table.append(line); };
  if (two) row("", ...runs.map((run) => run.name));
  row("prediction", ...runs.map((run) => element("td", classes[run.predictions[i]], { className: run.wrong[i] ? "wrong" : "" })));
  row("probability", ...runs.map((run) => percent(run.probabilities[i], 1)));
  row("θ own", ...runs.map((run) => `${run.own[i].toFixed(1)}°`));
  row("θ nearest other", ...runs.map((run) => `${run.other[i].toFixed(1)}° ${classes[run.rival[i]]}`));
  row("|z|", ...runs.map((run) => run.norms[i].toPrecision(3)));
  const close = element("button", "×", { type: "button", className: "close", title: "close", onclick: forget });
  card.replaceChildren(close, thumbnail(i, "large"), element("h2", `${indices[i]}: ${classes[labels[i]]}`), table);
  for (const run of runs) {
    const near = element("div", undefined, { className: "near" });
    for (let k = 0; k < run.near; k++) near.append(button(run.neighbors[i * run.near + k], run));
    card.append(element("p", two ? `nearest in ${run.name}` : "nearest images", { className: "faint" }), near);
  }
  ringAt(i);
}

function button(i, run) {
  const made = element("button", undefined, { type: "button", title: `${indices[i]}: ${classes[labels[i]]}, taken for ${classes[run.predictions[i]]}` });
  if (run.wrong[i]) made.classList.add("off");
  made.append(thumbnail(i));
  made.addEventListener("click", () => focusOn(i));
  return made;
}

function focusOn(i) {
  state.focus = i;
  state.over = null;
  show(i);
  if (state.view === "sphere") for (const panel of panels) drawPanel(panel);
}

// On a narrow page the card lies over its lower part: the map goes above it.
function tapped(plot, i) {
  focusOn(i);
  if (getComputedStyle($("card")).position === "sticky") plot.scrollIntoView({ block: "nearest" });
}

function forget() {
  Object.assign(state, { focus: null, over: null });
  $("card").replaceChildren(HINT);
  ringAt(null);
  if (state.view === "sphere") for (const panel of panels) drawPanel(panel);
}

function select(chosen, because) {
  state.selected = chosen === null ? null : new Set(chosen);
  state.because = because;
  redraw();
}

// The images that the CSV and the arrow keys go by: what is selected of those shown.
const current = () => (state.selected ? shown.filter((i) => state.selected.has(i)) : shown);

function tell() {
  const now = current(), run = judge(), wrong = now.reduce((sum, i) => sum + run.wrong[i], 0);
  $("count").textContent = `${now.length.toLocaleString("en")} of ${count.toLocaleString("en")} images, ${wrong.toLocaleString("en")} error${wrong === 1 ? "" : "s"}${two ? ` of ${run.name}` : ""}`;
  $("chosen").textContent = state.selected ? `selection: ${state.because}` : "no selection";
  $("strip").replaceChildren(...(state.selected ? now.slice(0, 42).map((i) => button(i, run)) : []));
}

function legend() {
  const mode = colouring(state.colour, judge());
  if (mode.values) return $("legend").replaceChildren(...scale(mode.title));
  $("legend").replaceChildren(...mode.names.map((name, k) => {
    const made = element("button", undefined, { type: "button", title: "select these" });
    const glyphs = state.view === "sphere" ? SPACE_GLYPHS : GLYPHS, mark = element("i", glyphs[k % glyphs.length]);
    mark.style.color = mode.colours[k];
    made.append(mark, name);
    made.addEventListener("click", () => select(everything.filter((i) => colouring(state.colour, judge()).of(i) === k), name));
    return made;
  }));
}

// The scale of numbers: its ends and its colours.
function scale(title) {
  const [low, high] = rangeOf(state.colour).map((value) => value.toPrecision(3)), unit = state.colour === "angle" ? "°" : "";
  const bar = element("span", undefined, { className: "bar" });
  bar.style.background = `linear-gradient(to right, ${CIVIDIS.join(",")})`;
  return [element("span", `${title} ${low}${unit}`), bar, element("span", `${high}${unit}`)];
}

async function redraw() {
  $("turn").hidden = state.view !== "sphere";
  legend();
  tell();
  await Promise.all(panels.map(drawPanel));
  ringAt(state.over ?? state.focus);
}

function filter() {
  const [first, second] = [Number($("first").value), Number($("second").value)], run = judge();
  const wanted = [first, second].filter((k) => k >= 0), low = Number($("low").value || 0), high = Number($("high").value || 180);
  const test = FILTERS[$("errors").value][1];
  shown = everything.filter((i) => test(i) && (!wanted.length || wanted.includes(labels[i])) && run.own[i] >= low && run.own[i] <= high);
  return redraw();
}

const SHADES = MOST ? `errors: from 0 to ${MOST.toLocaleString("en")} in a cell; point at one to read it` : "no errors";
const WALK = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };

function drawTables() {
  for (const { at, table } of panels) { table.picture = undefined; drawConfusion(table, at); }
}

function listenToTables() {
  for (const { at, run, table, cell } of panels) {
    let over = null;
    const point = (next) => {
      if (String(next) === String(over)) return;
      over = next;
      table.style.cursor = over ? "pointer" : "";
      cell.textContent = over ? told(at, over) : SHADES;
      drawConfusion(table, at, over);
    };
    cell.textContent = SHADES;
    table.addEventListener("pointermove", (event) => point(cellUnder(table, event)));
    for (const name of ["pointerleave", "blur"]) table.addEventListener(name, () => point(null));
    table.addEventListener("click", (event) => { const found = cellUnder(table, event); if (found) pick(run, ...found); });
    table.addEventListener("keydown", (event) => {
      const way = WALK[event.key];
      if (event.key === "Enter" && over) pick(run, ...over);
      if (!way) return;
      event.preventDefault();
      event.stopPropagation(); // the arrows go through the images elsewhere
      point(over ? over.map((k, axis) => Math.min(Math.max(k + way[axis], 0), classes.length - 1)) : [0, 0]);
    });
    new ResizeObserver(() => drawConfusion(table, at, over)).observe(table);
  }
}

function pick(run, row, col) {
  const named = `${classes[row]} taken for ${classes[col]}${two ? ` by ${run.name}` : ""}`;
  select(everything.filter((i) => labels[i] === row && run.predictions[i] === col), named);
}
