// Maps on a canvas: where images are, and their marks.

const REACH = 12; // pixels within which a point is under the pointer
const GAP = 0.05; // of the range, around all points
const RIM = 1.2; // pixels: the width of the rim of a mark
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

// A small picture of a mark, drawn once and stamped at each of its points; `rim`: the colour of a line around it, if there is one.
const stamps = new Map();
function stamp(colour, rim, mark, radius, ratio) {
  const key = `${colour} ${rim} ${MARKS.indexOf(mark)} ${radius} ${ratio}`;
  if (!stamps.has(key)) stamps.set(key, drawStamp(colour, rim, mark, radius, ratio));
  return stamps.get(key);
}

function drawStamp(colour, rim, mark, radius, ratio) {
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
  if (!rim) return canvas;
  draw.strokeStyle = rim;
  draw.lineWidth = RIM;
  draw.stroke();
  return canvas;
}

// The colour of a level of the scale of numbers.
function level(k) {
  const place = (k / (LEVELS - 1)) * (CIVIDIS.length - 1), low = Math.min(Math.floor(place), CIVIDIS.length - 2), part = place - low;
  const mixed = [1, 3, 5].map((at) => Math.round((1 - part) * parseInt(CIVIDIS[low].slice(at, at + 2), 16) + part * parseInt(CIVIDIS[low + 1].slice(at, at + 2), 16)));
  return `rgb(${mixed.join(",")})`;
}

// The kind of each image under a mode, and the colour of each kind; `marked`: do kinds differ in shape too? Else a rim shows those
// whose colour is that of the page, at either end of the scale.
function kinds(mode, run) {
  const found = colouring(mode, run);
  if (!found.values) return { of: found.of, colours: found.colours, marked: true, rim: "" };
  const [low, high] = rangeOf(mode);
  const of = (i) => Math.min(LEVELS - 1, Math.floor((LEVELS * (found.values[i] - low)) / (high - low || 1)));
  return { of, colours: Array.from({ length: LEVELS }, (_, k) => level(k)), marked: false, rim: ink("--faint") };
}

// The least and the largest of finite numbers.
function ends(values) {
  let low = Infinity, high = -Infinity;
  for (const value of values) { if (value < low) low = value; if (value > high && value < Infinity) high = value; }
  return low <= high ? [low, high] : [0, 0];
}

// What holds all points, with room around: its middle and half its sides, x and y.
function whole(points) {
  const sides = [ends(points.x), ends(points.y)], half = sides.map(([low, high]) => (0.5 + GAP) * (high - low));
  return { middle: sides.map(([low, high]) => (low + high) / 2), half: half[0] || half[1] ? half : [1, 1] };
}

function drawMap(target, run, state, shown, selected) {
  const chart = (target.chart ??= begin(target)), points = run.maps[state.view];
  if (chart.view !== state.view) Object.assign(chart, { view: state.view, ...whole(points) });
  Object.assign(chart, { points, shown, selected, kind: kinds(state.colour, run) });
  chart.canvas.setAttribute("aria-label", `${METHODS[state.view]} of ${run.name}: ${shown.length} images; the arrow keys go through them`);
  paint(target);
}

// The place of image `i` on a drawn map, pixels from its upper left corner; null where it lies outside.
function placeOn(target, run, view, i) {
  const { chart } = target, points = run.maps[view];
  if (!chart || !points) return null;
  const [x, y] = places(target)(i, points);
  return x >= 0 && y >= 0 && x <= target.clientWidth && y <= target.clientHeight ? [x, y] : null;
}

// Pixels of a unit, the same across and down: distances on a map mean the same in every direction.
const unitOf = ({ chart, clientWidth, clientHeight }) => Math.min(clientWidth / (2 * chart.half[0]), clientHeight / (2 * chart.half[1]));

// Where images are on a map: a function of an image, pixels from the upper left corner.
function places(target) {
  const unit = unitOf(target), { middle } = target.chart, across = target.clientWidth / 2, down = target.clientHeight / 2;
  return (i, points = target.chart.points) => [across + unit * (points.x[i] - middle[0]), down - unit * (points.y[i] - middle[1])];
}

function paint(target) {
  const { canvas, shown, selected, kind } = target.chart, ratio = devicePixelRatio || 1;
  if (!shown) return;
  canvas.width = target.clientWidth * ratio;
  canvas.height = target.clientHeight * ratio;
  const draw = canvas.getContext("2d"), many = shown.length > 3000, radius = many ? 2.5 : 3.5, side = 2 * radius + 2;
  const place = places(target);
  draw.scale(ratio, ratio);
  const own = [], stampOf = (k) => (own[k] ??= stamp(kind.colours[k], kind.rim, kind.marked ? MARKS[k % MARKS.length] : null, radius, ratio));
  for (const chosen of selected ? [false, true] : [true]) {
    draw.globalAlpha = !chosen ? (many ? 0.06 : 0.15) : selected ? 1 : 0.85;
    for (const i of shown) {
      if (selected && selected.has(i) !== chosen) continue;
      const [x, y] = place(i);
      draw.drawImage(stampOf(kind.of(i)), x - side / 2, y - side / 2, side, side);
    }
  }
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
