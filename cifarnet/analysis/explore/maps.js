// Maps on a canvas: point at an image, click it, draw around several, shift-drag to move, wheel to zoom, double click to see all.

const REACH = 12; // pixels within which a point is under the pointer
const GAP = 0.05; // of the range, around all points
const LEVELS = 32; // of a scale of numbers
const CIVIDIS = ["#00224e", "#123570", "#3b496c", "#575d6d", "#707173", "#8a8678", "#a59c74", "#c3b369", "#e1cc55", "#fee838"];

// Corners of the marks, in the order of GLYPHS, around 0 at distance 1; a circle has none.
const corners = (count, turn = 0, inner = 1) => Array.from({ length: count }, (_, k) => {
  const angle = turn + (2 * Math.PI * k) / count, far = k % 2 ? inner : 1;
  return [far * Math.sin(angle), -far * Math.cos(angle)];
});
const PLUS = [[-0.35, -1], [0.35, -1], [0.35, -0.35], [1, -0.35], [1, 0.35], [0.35, 0.35], [0.35, 1], [-0.35, 1], [-0.35, 0.35], [-1, 0.35], [-1, -0.35], [-0.35, -0.35]];
const DIAGONAL = PLUS.map(([x, y]) => [(x - y) * Math.SQRT1_2, (x + y) * Math.SQRT1_2]);
const MARKS = [null, corners(4, Math.PI / 4, 1), corners(4), corners(3, Math.PI), corners(10, 0, 0.42), PLUS, DIAGONAL, corners(3), corners(5), corners(6)];

// A small picture of a mark, drawn once and stamped at each of its points.
const stamps = new Map();
function stamp(colour, mark, radius, ratio) {
  const key = `${colour} ${MARKS.indexOf(mark)} ${radius} ${ratio}`;
  if (!stamps.has(key)) stamps.set(key, drawStamp(colour, mark, radius, ratio));
  return stamps.get(key);
}

function drawStamp(colour, mark, radius, ratio) {
  const canvas = document.createElement("canvas"), side = 2 * radius + 2;
  canvas.width = canvas.height = Math.ceil(side * ratio);
  const draw = canvas.getContext("2d");
  draw.scale(ratio, ratio);
  draw.translate(side / 2, side / 2);
  draw.fillStyle = colour;
  draw.beginPath();
  if (mark) for (const [x, y] of mark) draw.lineTo(1.15 * radius * x, 1.15 * radius * y);
  else draw.arc(0, 0, radius, 0, 2 * Math.PI);
  draw.fill();
  return canvas;
}

// The colour of a level of the scale of numbers.
function level(k) {
  const place = (k / (LEVELS - 1)) * (CIVIDIS.length - 1), low = Math.min(Math.floor(place), CIVIDIS.length - 2), part = place - low;
  const mixed = [1, 3, 5].map((at) => Math.round((1 - part) * parseInt(CIVIDIS[low].slice(at, at + 2), 16) + part * parseInt(CIVIDIS[low + 1].slice(at, at + 2), 16)));
  return `rgb(${mixed.join(",")})`;
}

// The kind of each image under a mode, and the colour of each kind; `marked`: do kinds differ in shape too?
function kinds(mode, run) {
  const found = colouring(mode, run);
  if (!found.values) return { of: found.of, colours: found.colours, marked: true };
  const [low, high] = rangeOf(mode);
  const of = (i) => Math.min(LEVELS - 1, Math.floor((LEVELS * (found.values[i] - low)) / (high - low || 1)));
  return { of, colours: Array.from({ length: LEVELS }, (_, k) => level(k)), marked: false };
}

// The range of finite numbers, with room around.
function span(values) {
  let low = Infinity, high = -Infinity;
  for (const value of values) { if (value < low) low = value; if (value > high && value < Infinity) high = value; }
  const room = GAP * (high - low) || 1;
  return low <= high ? [low - room, high + room] : [0, 1];
}

function drawMap(target, run, state, shown, selected) {
  const chart = (target.chart ??= begin(target));
  const points = run.maps[state.view];
  if (chart.view !== state.view) Object.assign(chart, { view: state.view, x: span(points.x), y: span(points.y) });
  Object.assign(chart, { points, shown, selected, kind: kinds(state.colour, run) });
  paint(target);
}

// The place of image `i` on a drawn map, pixels from its upper left corner; null where it lies outside.
function placeOn(target, run, view, i) {
  const { chart } = target, points = run.maps[view];
  if (!chart || !points) return null;
  const [x, y] = places(target)(i, points);
  return x >= 0 && y >= 0 && x <= target.clientWidth && y <= target.clientHeight ? [x, y] : null;
}

// Where images are on a map: a function of an image, pixels from the upper left corner.
function places({ chart, clientWidth, clientHeight }) {
  const [left, right] = chart.x, [bottom, top] = chart.y, across = clientWidth / (right - left), down = clientHeight / (top - bottom);
  return (i, points = chart.points) => [across * (points.x[i] - left), down * (top - points.y[i])];
}

function paint(target) {
  const { canvas, shown, selected, kind } = target.chart, ratio = devicePixelRatio || 1;
  if (!shown) return;
  canvas.width = target.clientWidth * ratio;
  canvas.height = target.clientHeight * ratio;
  const draw = canvas.getContext("2d"), many = shown.length > 3000, radius = many ? 2.5 : 3.5, side = 2 * radius + 2;
  const place = places(target);
  draw.scale(ratio, ratio);
  const own = [], stampOf = (k) => (own[k] ??= stamp(kind.colours[k], kind.marked ? MARKS[k % MARKS.length] : null, radius, ratio));
  for (const chosen of selected ? [false, true] : [true]) {
    draw.globalAlpha = !chosen ? (many ? 0.06 : 0.15) : selected ? 1 : 0.85;
    for (const i of shown) {
      if (selected && selected.has(i) !== chosen) continue;
      const [x, y] = place(i);
      draw.drawImage(stampOf(kind.of(i)), x - side / 2, y - side / 2, side, side);
    }
  }
}

// The line that is drawn around images, on a canvas above the map.
function paintLoop(target, path) {
  const { above } = target.chart, ratio = devicePixelRatio || 1, draw = above.getContext("2d");
  above.width = target.clientWidth * ratio;
  above.height = target.clientHeight * ratio;
  if (!path) return;
  draw.scale(ratio, ratio);
  draw.strokeStyle = ink("--ink");
  draw.setLineDash([4, 3]);
  draw.stroke(path);
}

// The canvas of a map and what is done on it; says what was done by the events over, pick, loop and moved.
function begin(target) {
  const canvas = document.createElement("canvas"), above = document.createElement("canvas"), chart = { canvas, above };
  above.className = "above";
  target.append(canvas, above);
  const say = (name, detail) => target.dispatchEvent(new CustomEvent(name, { detail }));
  let from = null, over = null, loop = null;
  const at = (event) => { const box = target.getBoundingClientRect(); return [event.clientX - box.x, event.clientY - box.y]; };
  const change = (work) => { work(); paint(target); say("moved"); };
  const move = (axis, pixels, size) => { const by = (pixels / size) * (chart[axis][1] - chart[axis][0]); chart[axis] = chart[axis].map((value) => value + by); };
  const point = (i) => { if (i !== over) say("over", (over = i)); };
  canvas.addEventListener("pointerdown", (event) => {
    if (event.button) return;
    canvas.setPointerCapture(event.pointerId);
    from = { start: at(event), last: at(event), pan: event.shiftKey, corners: [at(event)] };
  });
  canvas.addEventListener("pointermove", (event) => {
    const [x, y] = at(event);
    if (!from) return point(under(target, x, y));
    if (from.pan) change(() => { move("x", from.last[0] - x, target.clientWidth); move("y", y - from.last[1], target.clientHeight); });
    else {
      from.corners.push([x, y]);
      loop = new Path2D(`M${from.corners.map((corner) => corner.join(" ")).join("L")}Z`);
      paintLoop(target, loop);
    }
    from.last = [x, y];
  });
  canvas.addEventListener("pointerup", (event) => {
    const [x, y] = at(event), begun = from, drawn = loop;
    from = loop = null;
    paintLoop(target, null);
    if (!begun || begun.pan) return;
    const far = Math.max(...begun.corners.map((corner) => Math.hypot(corner[0] - begun.start[0], corner[1] - begun.start[1])));
    if (far < 4) { const i = under(target, x, y); if (i !== null) say("pick", i); }
    else say("loop", within(target, drawn));
  });
  canvas.addEventListener("pointercancel", () => { from = loop = null; paintLoop(target, null); });
  canvas.addEventListener("pointerleave", () => { if (!from) point(null); });
  canvas.addEventListener("dblclick", () => change(() => { chart.x = span(chart.points.x); chart.y = span(chart.points.y); }));
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    const [x, y] = at(event), by = Math.exp(0.0015 * event.deltaY);
    const zoom = ([low, high], part) => { const centre = low + part * (high - low); return [centre + by * (low - centre), centre + by * (high - centre)]; };
    change(() => { chart.x = zoom(chart.x, x / target.clientWidth); chart.y = zoom(chart.y, 1 - y / target.clientHeight); });
  }, { passive: false });
  new ResizeObserver(() => { paint(target); say("moved"); }).observe(target);
  return chart;
}

// The image nearest to a place, if it is near enough; null: there is none.
function under(target, x, y) {
  const place = places(target);
  let best = null, least = REACH;
  for (const i of target.chart.shown) {
    const [left, top] = place(i), far = Math.hypot(left - x, top - y);
    if (far < least) { best = i; least = far; }
  }
  return best;
}

// The images inside a closed path.
function within(target, path) {
  const { canvas, shown } = target.chart, draw = canvas.getContext("2d"), place = places(target);
  draw.setTransform(1, 0, 0, 1, 0, 0);
  return shown.filter((i) => draw.isPointInPath(path, ...place(i)));
}
