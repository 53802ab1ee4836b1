// Confusion matrices on a canvas: a row a true class, a column a predicted one; errors shaded, the diagonal plain.

const FEW_CLASSES = 12; // so many are named, and their cells hold their numbers
const LETTERS = "11px system-ui, sans-serif", LONGEST = 90; // pixels of a name
const TURN = -0.7; // of the names below, radians

const matrices = runs.map(confusion);
// The most errors in a cell of any run: their matrices have one scale. 0: there is no error.
const MOST = matrices.reduce((most, rows) => rows.reduce((least, row, i) => row.reduce((top, value, j) => (i !== j && value > top ? value : top), least), most), 0);

const mixed = (from, to, part) => [1, 3, 5].map((at) => Math.round((1 - part) * parseInt(from.slice(at, at + 2), 16) + part * parseInt(to.slice(at, at + 2), 16)));

// The colour of a cell by its errors, [red, green, blue].
function shades() {
  const known = new Map(), [soft, much] = ["--soft", "--much"].map(ink);
  return (value) => known.get(value) ?? known.set(value, mixed(soft, much, value / (MOST || 1))).get(value);
}

const LIGHT = [0.2126, 0.7152, 0.0722]; // of red, green and blue, by WCAG 2
const luminance = (colour) => colour.reduce((sum, part, k) => sum + LIGHT[k] * (part <= 10 ? part / 3294.6 : ((part / 255 + 0.055) / 1.055) ** 2.4), 0);

// Black or white, whichever has the larger contrast with a colour: 4.58 or more with any.
const inkOn = (colour) => ((luminance(colour) + 0.05) ** 2 > 1.05 * 0.05 ? "#000000" : "#ffffff");

// A pixel a cell; a matrix of any size is one picture, scaled.
function picture(counts) {
  const canvas = document.createElement("canvas"), size = counts.length;
  canvas.width = canvas.height = size;
  const draw = canvas.getContext("2d"), image = draw.createImageData(size, size), shade = shades(), plain = mixed(ink("--back"), ink("--back"), 0);
  counts.forEach((row, i) => row.forEach((value, j) => image.data.set([...(i === j ? plain : shade(value)), 255], 4 * (i * size + j))));
  draw.putImageData(image, 0, 0);
  return canvas;
}

const pen = document.createElement("canvas").getContext("2d");
pen.font = LETTERS;
const widthOf = (text) => pen.measureText(text).width;

// Two ways to leave letters out: at the end, and in the middle.
const WAYS = [
  (letters, kept) => letters.slice(0, kept).join("") + "…",
  (letters, kept) => letters.slice(0, Math.ceil(kept / 2)).join("") + "…" + letters.slice(letters.length - Math.floor(kept / 2)).join(""),
];

function cut(name, way) {
  if (widthOf(name) <= LONGEST) return name;
  const letters = [...name];
  let kept = letters.length;
  while (kept && widthOf(way(letters, kept)) > LONGEST) kept--;
  return way(letters, kept);
}

// Names in the room that there is, all different: the first way that leaves them so, else with their numbers.
function short(names) {
  const ways = WAYS.map((way) => names.map((name) => cut(name, way)));
  return ways.find((found) => new Set(found).size === names.length) ?? names.map((name, k) => cut(`${k} ${name}`, WAYS[0]));
}

const NAMES = classes.length > FEW_CLASSES ? [] : short(classes);
const ROOM = NAMES.reduce((most, name) => Math.max(most, widthOf(name)), 0);

// Where the cells are: left and top of the first, and the side of one, in pixels of the page.
function frameOf(target) {
  const left = 28 + ROOM, top = 4, below = 30 + ROOM * Math.sin(-TURN);
  const side = Math.max(60, Math.min(target.clientWidth - left - 8, target.clientHeight - top - below));
  return { few: classes.length <= FEW_CLASSES, left, top, side, each: side / classes.length };
}

// The middle of a cell, pixels from the upper left corner of the matrix.
function cellAt(target, row, col) {
  const { left, top, each } = frameOf(target);
  return [left + (col + 0.5) * each, top + (row + 0.5) * each];
}

function drawConfusion(target, at, over = null) {
  const { few, left, top, side, each } = frameOf(target), counts = matrices[at], ratio = devicePixelRatio || 1;
  const canvas = target.querySelector("canvas"), shade = shades();
  canvas.width = target.clientWidth * ratio;
  canvas.height = target.clientHeight * ratio;
  const draw = canvas.getContext("2d");
  draw.scale(ratio, ratio);
  draw.font = LETTERS;
  draw.textBaseline = "middle";
  draw.imageSmoothingEnabled = false;
  draw.drawImage((target.picture ??= picture(counts)), left, top, side, side);
  draw.strokeStyle = ink("--back");
  draw.beginPath();
  for (let k = 1; few && k < classes.length; k++) { draw.moveTo(left + k * each, top); draw.lineTo(left + k * each, top + side); draw.moveTo(left, top + k * each); draw.lineTo(left + side, top + k * each); }
  draw.stroke();
  draw.strokeStyle = ink("--line");
  draw.strokeRect(left, top, side, side);
  const write = (text, x, y, align, turned = 0) => { draw.save(); draw.translate(x, y); draw.rotate(turned); draw.textAlign = align; draw.fillText(text, 0, 0); draw.restore(); };
  draw.fillStyle = ink("--ink");
  write("is", 10, top + side / 2, "center", -Math.PI / 2);
  write("taken for", left + side / 2, top + side + 20 + ROOM * Math.sin(-TURN), "center");
  for (let i = 0; few && i < classes.length; i++) {
    const [x, y] = cellAt(target, i, i), name = NAMES[i];
    draw.fillStyle = ink("--ink");
    write(name, left - 6, y, "right");
    write(name, x, top + side + 8, "right", TURN);
    for (let j = 0; j < classes.length; j++) {
      const [across] = cellAt(target, i, j);
      draw.fillStyle = i === j ? ink("--ink") : inkOn(shade(counts[i][j]));
      write(String(counts[i][j]), across, y, "center");
    }
  }
  if (!over) return;
  draw.strokeStyle = ink("--ink");
  draw.lineWidth = 2;
  draw.strokeRect(left + over[1] * each, top + over[0] * each, each, each);
}

// The cell under an event: [row, column]; null beside the matrix.
function cellUnder(target, event) {
  const { left, top, each } = frameOf(target), box = target.getBoundingClientRect();
  const cell = [Math.floor((event.clientY - box.top - top) / each), Math.floor((event.clientX - box.left - left) / each)];
  return cell.every((k) => k >= 0 && k < classes.length) ? cell : null;
}

// What a cell holds, in words.
function told(at, [row, col]) {
  const hits = matrices[at][row][col], all = matrices[at][row].reduce((sum, value) => sum + value, 0);
  const rate = all ? `, ${percent(hits / all, 1)}` : "";
  return `true ${classes[row]}, predicted ${classes[col]}: ${hits.toLocaleString("en")} of ${all.toLocaleString("en")}${rate}`;
}
