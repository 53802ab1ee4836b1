// The sphere, drawn by plotly, which is read when it is first asked for.

const SPACE_SYMBOLS = ["circle", "square", "diamond"], SPACE_GLYPHS = ["●", "■", "◆"]; // the others are letters of a font that may lack them
const QUIET = { displayModeBar: false, responsive: true, scrollZoom: true };

// The library lies at the end of the page as text; its hash is among those that may run.
async function plotly() {
  if (document.readyState === "loading") await new Promise((done) => document.addEventListener("DOMContentLoaded", done, { once: true }));
  if (!window.Plotly) document.head.append(Object.assign(document.createElement("script"), { textContent: document.getElementById("library").textContent }));
  return window.Plotly;
}

function markers(mode, run, shown, size, symbols) {
  const kind = kinds(mode, run), last = Math.max(1, kind.colours.length - 1);
  const scale = kind.colours.length > 1 ? kind.colours.map((colour, k) => [k / last, colour]) : [[0, kind.colours[0]], [1, kind.colours[0]]];
  const of = shown.map(kind.of);
  return { size, color: of, colorscale: scale, cmin: 0, cmax: last, showscale: false, line: kind.rim ? { color: kind.rim, width: 1 } : { width: 0 }, symbol: kind.marked ? of.map((k) => symbols[k % symbols.length]) : "circle" };
}

// Circles of latitude and longitude.
function wires() {
  const x = [], y = [], z = [], steps = [...Array(49).keys()].map((k) => (k * Math.PI) / 24);
  const line = (f) => { for (const t of steps) { const p = f(t); x.push(p[0]); y.push(p[1]); z.push(p[2]); } x.push(null); y.push(null); z.push(null); };
  for (const a of [-60, -30, 0, 30, 60].map((d) => (d * Math.PI) / 180)) line((t) => [Math.cos(a) * Math.cos(t), Math.cos(a) * Math.sin(t), Math.sin(a)]);
  for (const b of [0, 45, 90, 135].map((d) => (d * Math.PI) / 180)) line((t) => [Math.cos(t) * Math.cos(b), Math.cos(t) * Math.sin(b), Math.sin(t)]);
  return { type: "scatter3d", mode: "lines", x, y, z, hoverinfo: "skip", line: { color: ink("--line"), width: 1 } };
}

async function drawSphere(target, run, state, shown, selected) {
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
  const layout = { scene, paper_bgcolor: ink("--back"), margin: { l: 4, r: 4, t: 4, b: 4 }, showlegend: false, hovermode: "closest", uirevision: "sphere" };
  return (await plotly()).react(target, [trace, wires(), arrows, focus], layout, QUIET);
}

