"use strict";
// Maps, spheres and confusion matrices, drawn by plotly.

const SYMBOLS = ["circle", "square", "diamond", "triangle-down", "star", "cross", "x", "triangle-up", "pentagon", "hexagon"];
const GLYPHS = ["●", "■", "◆", "▼", "★", "✚", "✖", "▲", "⬟", "⬢"];
const SPACE_SYMBOLS = ["circle", "square", "diamond"], SPACE_GLYPHS = ["●", "■", "◆"]; // the others are letters of a font that may lack them
const RIGHT = "#3f90da", WRONG = "#e76300", BOTH = "#94a4a2", NEITHER = "#832db6";
const QUIET = { displayModeBar: false, responsive: true, scrollZoom: true, doubleClick: "autosize" };
// So many points are drawn as SVG; more by WebGL, where the browser has it, whose contexts take their time to begin.
const FEW = 2000;
const KIND = count > FEW && document.createElement("canvas").getContext("webgl") ? "scattergl" : "scatter";

const plain = (text) => text.replaceAll("&", "&amp;").replaceAll("<", "&lt;"); // plotly reads tags in its labels
const ink = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

const isDark = () => document.documentElement.dataset.theme === "dark";

// A colour of the palette, lighter on the dark page where it is deep.
function tone(hex) {
  const parts = [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));
  const deep = 0.3 * parts[0] + 0.6 * parts[1] + 0.1 * parts[2] < 110;
  const lifted = isDark() && deep ? parts.map((part) => Math.round(part + 0.4 * (255 - part))) : parts;
  return "#" + lifted.map((part) => part.toString(16).padStart(2, "0")).join("");
}

// The colour of each image under a mode: words and their colours, or numbers on a scale.
function colouring(mode, run) {
  if (mode === "class") return { of: (i) => labels[i], colours: packed.colours.map(tone), names: classes };
  if (mode === "correctness") return { of: (i) => run.wrong[i], colours: [RIGHT, WRONG].map(tone), names: ["right", "wrong"] };
  if (mode === "run") {
    const [one, two] = runs;
    return {
      of: (i) => one.wrong[i] * 2 + two.wrong[i],
      colours: [BOTH, RIGHT, WRONG, NEITHER].map(tone),
      names: ["both right", `only ${one.name} right`, `only ${two.name} right`, "both wrong"],
    };
  }
  return { values: mode === "norm" ? run.norms : run.own, title: mode === "norm" ? "|z|" : "θ" };
}

function markers(mode, run, shown, size, symbols) {
  const found = colouring(mode, run);
  if (found.values) {
    const bar = { title: { text: found.title }, thickness: 10, outlinewidth: 0, tickfont: { color: ink("--ink") }, len: 0.6 };
    let low = Infinity, high = -Infinity; // one scale for all runs, so that colours can be compared
    for (const one of runs) for (const value of colouring(mode, one).values) { low = Math.min(low, value); high = Math.max(high, value); }
    return { size, color: shown.map((i) => found.values[i]), colorscale: "Cividis", cmin: low, cmax: high, showscale: true, colorbar: bar };
  }
  const last = Math.max(1, found.colours.length - 1);
  const scale = found.colours.length > 1 ? found.colours.map((colour, k) => [k / last, colour]) : [[0, found.colours[0]], [1, found.colours[0]]];
  const kinds = shown.map(found.of);
  return { size, color: kinds, colorscale: scale, cmin: 0, cmax: last, showscale: false, symbol: kinds.map((k) => symbols[k % symbols.length]) };
}

const bare = { showgrid: false, zeroline: false, showticklabels: false, ticks: "", title: "" };

function layoutOf(extra) {
  const font = { color: ink("--ink"), size: 12, family: "system-ui, sans-serif" };
  return { paper_bgcolor: ink("--back"), plot_bgcolor: ink("--back"), font, margin: { l: 4, r: 4, t: 4, b: 4 }, showlegend: false, hovermode: "closest", ...extra };
}

function drawMap(target, run, state, shown, selected) {
  const points = run.maps[state.view];
  const trace = {
    type: KIND, mode: "markers", hoverinfo: "none", customdata: shown,
    x: shown.map((i) => points.x[i]), y: shown.map((i) => points.y[i]),
    marker: { ...markers(state.colour, run, shown, shown.length > 3000 ? 5 : 7, SYMBOLS), opacity: 0.85 },
    selected: { marker: { opacity: 1 } }, unselected: { marker: { opacity: shown.length > 3000 ? 0.06 : 0.15 } },
    selectedpoints: selected ? shown.flatMap((i, at) => (selected.has(i) ? [at] : [])) : null,
  };
  const layout = layoutOf({ dragmode: "lasso", xaxis: { ...bare }, yaxis: { ...bare }, uirevision: state.view, selectionrevision: state.cleared });
  return Plotly.react(target, [trace], layout, QUIET);
}

// The place of image `i` on a drawn map, pixels from its upper left corner; null where it lies outside.
function placeOn(target, run, view, i) {
  const { xaxis, yaxis } = target._fullLayout, points = run.maps[view];
  const x = xaxis.l2p(points.x[i]), y = yaxis.l2p(points.y[i]);
  return x < 0 || y < 0 || x > xaxis._length || y > yaxis._length ? null : [x + xaxis._offset, y + yaxis._offset];
}

// Circles of latitude and longitude.
function wires() {
  const x = [], y = [], z = [], steps = [...Array(49).keys()].map((k) => (k * Math.PI) / 24);
  const line = (f) => { for (const t of steps) { const p = f(t); x.push(p[0]); y.push(p[1]); z.push(p[2]); } x.push(null); y.push(null); z.push(null); };
  for (const a of [-60, -30, 0, 30, 60].map((d) => (d * Math.PI) / 180)) line((t) => [Math.cos(a) * Math.cos(t), Math.cos(a) * Math.sin(t), Math.sin(a)]);
  for (const b of [0, 45, 90, 135].map((d) => (d * Math.PI) / 180)) line((t) => [Math.cos(t) * Math.cos(b), Math.cos(t) * Math.sin(b), Math.sin(t)]);
  return { type: "scatter3d", mode: "lines", x, y, z, hoverinfo: "skip", line: { color: ink("--line"), width: 1 } };
}

function drawSphere(target, run, state, shown, selected) {
  const strong = selected ? shown.filter((i) => selected.has(i)) : shown, points = run.directions, at = run.prototypes;
  const trace = {
    type: "scatter3d", mode: "markers", hoverinfo: "none", customdata: strong,
    x: strong.map((i) => points.x[i]), y: strong.map((i) => points.y[i]), z: strong.map((i) => points.z[i]),
    marker: markers(state.colour, run, strong, 3, SPACE_SYMBOLS),
  };
  const arrows = { type: "scatter3d", mode: "lines+markers", hoverinfo: "skip", x: [], y: [], z: [], line: { width: 4, color: [] }, marker: { size: [], color: [], symbol: "diamond" } };
  classes.forEach((_, k) => {
    for (const name of ["x", "y", "z"]) arrows[name].push(0, 1.12 * at[name][k], null);
    const colour = tone(packed.colours[k]);
    arrows.line.color.push(colour, colour, colour);
    arrows.marker.color.push(colour, colour, colour);
    arrows.marker.size.push(0, 6, 0);
  });
  const focus = { type: "scatter3d", mode: "markers", hoverinfo: "skip", x: [], y: [], z: [], marker: { size: 12, color: ink("--ink"), symbol: "circle-open" } };
  if (state.focus !== null) for (const name of ["x", "y", "z"]) focus[name].push(1.02 * points[name][state.focus]);
  const axis = { visible: false, range: [-1.15, 1.15] };
  const scene = { xaxis: axis, yaxis: axis, zaxis: axis, aspectmode: "cube", dragmode: "orbit", bgcolor: ink("--back"), camera: { eye: { x: 1.1, y: 1.1, z: 0.7 } } };
  return Plotly.react(target, [trace, wires(), arrows, focus], layoutOf({ scene, uirevision: "sphere" }), QUIET);
}

// The most errors in a cell of any run: their matrices have one scale.
const MOST = runs.flatMap((run) => confusion(run).flatMap((row, i) => row.filter((_, j) => i !== j))).reduce((most, value) => Math.max(most, value), 1);

function drawConfusion(target, run) {
  const counts = confusion(run), names = classes.map(plain), few = classes.length <= 12, k = classes.map((_, i) => i);
  const z = counts.map((row, i) => row.map((value, j) => (i === j ? null : value)));
  const trace = {
    type: "heatmap", x: k, y: k, z, colorscale: [[0, ink("--soft")], [1, ink("--much")]], xgap: 1, ygap: 1, hoverinfo: "none",
    hoverongaps: true, zmin: 0, zmax: MOST, colorbar: { thickness: 10, outlinewidth: 0, title: { text: "errors", side: "right" } },
  };
  const top = MOST / 2;
  const text = few ? counts.flatMap((row, i) => row.map((value, j) => ({
    x: j, y: i, text: String(value), showarrow: false,
    font: { size: 11, color: i !== j && value > top ? ink("--back") : ink("--ink") },
  }))) : [];
  const axis = { tickvals: few ? k : [], ticktext: few ? names : [], showgrid: false, zeroline: false, automargin: true };
  const layout = layoutOf({ annotations: text, dragmode: false, xaxis: { ...axis, title: { text: "taken for", standoff: 8 }, constrain: "domain" }, yaxis: { ...axis, autorange: "reversed", title: { text: "is", standoff: 12 } } });
  return Plotly.react(target, [trace], layout, { ...QUIET, scrollZoom: false });
}
