// The fields and the keys, and the start of the page.

function search() {
  const wanted = $("search").value.trim(), at = indices.indexOf(Number(wanted));
  $("search").setCustomValidity(wanted && at < 0 ? "no image of this index is on the page" : "");
  $("search").reportValidity();
  if (wanted && at >= 0) focusOn(at);
}

function step(by) {
  const now = current();
  if (!now.length) return;
  const at = now.indexOf(state.focus);
  focusOn(now[at < 0 ? (by > 0 ? 0 : now.length - 1) : (at + by + now.length) % now.length]);
}

function save() {
  const link = element("a", "", { href: URL.createObjectURL(new Blob([csvOf(current())], { type: "text/csv" })), download: "selection.csv" });
  link.click();
  URL.revokeObjectURL(link.href);
}

function clear() {
  for (const [id, value] of Object.entries({ errors: "all", first: "-1", second: "-1", low: 0, high: 180, search: "" })) $(id).value = value;
  state.selected = null;
  forget();
  filter();
}

function turn() {
  state.turning = !state.turning && state.view === "sphere";
  const from = performance.now();
  const frame = async (now) => {
    if (!state.turning || state.view !== "sphere") return void (state.turning = false);
    const angle = 0.8 + (now - from) / 4000;
    await Promise.all(panels.map(({ sphere }) => Plotly.relayout(sphere, { "scene.camera.eye": { x: 1.55 * Math.cos(angle), y: 1.55 * Math.sin(angle), z: 0.7 } })));
    requestAnimationFrame(frame);
  };
  if (state.turning) requestAnimationFrame(frame);
}

function next(id) {
  const list = $(id);
  list.selectedIndex = (list.selectedIndex + 1) % list.options.length;
  list.dispatchEvent(new Event("change"));
}

function theme(name) {
  document.documentElement.dataset.theme = name;
  drawTables();
  return redraw();
}

const flip = () => theme(isDark() ? "light" : "dark");
const KEYS = {
  ArrowRight: () => step(1), ArrowLeft: () => step(-1), v: () => next("view"), c: () => next("colour"), e: () => next("errors"),
  t: turn, "/": () => $("search").focus(), s: save, d: flip, Escape: clear,
};

function listen() {
  document.addEventListener("keydown", (event) => {
    const typing = /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName) && event.key !== "Escape";
    if (typing || event.ctrlKey || event.metaKey || event.altKey || !KEYS[event.key]) return;
    event.preventDefault();
    KEYS[event.key]();
  });
  for (const id of ["errors", "first", "second", "judge", "low", "high"]) $(id).addEventListener("change", filter);
  $("view").addEventListener("change", () => { state.view = $("view").value; redraw(); });
  $("colour").addEventListener("change", () => { state.colour = $("colour").value; redraw(); });
  $("search").addEventListener("change", search);
  $("controls").addEventListener("submit", (event) => { event.preventDefault(); search(); });
  for (const [id, work] of Object.entries({ turn, clear, save, theme: flip })) $(id).addEventListener("click", work);
}

async function start() {
  $("title").textContent = packed.title;
  fill("view", VIEWS.map((name) => [name, METHODS[name] ?? name]));
  $("view").value = state.view;
  fill("colour", [["class", "class"], ["correctness", "right or wrong"], ["angle", "θ to own"], ["norm", "|z|"], ...(two ? [["run", "run"]] : [])]);
  fill("errors", Object.entries(FILTERS).map(([name, [text]]) => [name, text]));
  fill("judge", runs.map((run, at) => [at, run.name]));
  document.querySelector(".two").hidden = !two;
  for (const id of ["first", "second"]) fill(id, [[-1, id === "first" ? "any" : "–"], ...classes.map((name, k) => [k, name])]);
  listen();
  listenToTables();
  await theme(matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
  document.documentElement.dataset.ready = performance.now().toFixed(0);
}

start();
