// Confusion matrices on a canvas: a row a true class, a column a predicted one; errors shaded, the diagonal plain.

const FEW_CLASSES = 12; // so many are named, and their cells hold their numbers
const LETTERS = "11px system-ui, sans-serif", LONGEST = 90; // pixels of a name
const TURN = -0.7; // of the names below, radians

const matrices = runs.map(confusion);
// The most errors in a cell of any run: their matrices have one scale.
const MOST = matrices.reduce((most, rows) => rows.reduce((least, row, i) => row.reduce((top, value, j) => (i !== j && value > top ? value : top), least), most), 1);

const mixed = (from, to, part) => [1, 3, 5].map((at) => Math.round((1 - part) * parseInt(from.slice(at, at + 2), 16) + part * parseInt(to.slice(at, at + 2), 16)));

// A pixel a cell; a matrix of any size is one picture, scaled.
function picture(counts) {
  const canvas = document.createElement("canvas"), size = counts.length;
  canvas.width = canvas.height = size;
  const draw = canvas.getContext("2d"), image = draw.createImageData(size, size), shades = new Map(), [soft, much, back] = ["--soft", "--much", "--back"].map(ink);
  const shade = (value) => shades.get(value) ?? shades.set(value, [...mixed(soft, much, value / MOST), 255]).get(value);
  counts.forEach((row, i) => row.forEach((value, j) => image.data.set(i === j ? [...mixed(back, back, 0), 255] : shade(value), 4 * (i * size + j))));
  draw.putImageData(image, 0, 0);
  return canvas;
}

const pen = document.createElement("canvas").getContext("2d");
pen.font = LETTERS;
const ROOM = classes.length > FEW_CLASSES ? 0 : classes.reduce((most, name) => Math.min(LONGEST, Math.max(most, pen.measureText(name).width)), 0);

function cut(draw, name) {
  if (draw.measureText(name).width <= LONGEST) return name;
  let end = name.length;
  while (end && draw.measureText(name.slice(0, end) + "…").width > LONGEST) end--;
  return name.slice(0, end) + "…";
}

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
  const canvas = target.querySelector("canvas") ?? target.appendChild(document.createElement("canvas"));
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
    const [x, y] = cellAt(target, i, i), name = cut(draw, classes[i]);
    draw.fillStyle = ink("--ink");
    write(name, left - 6, y, "right");
    write(name, x, top + side + 8, "right", TURN);
    for (let j = 0; j < classes.length; j++) {
      const [across] = cellAt(target, i, j);
      draw.fillStyle = i !== j && counts[i][j] > MOST / 2 ? ink("--back") : ink("--ink");
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
  const rate = all ? `, ${((100 * hits) / all).toFixed(1)}%` : "";
  return `true ${classes[row]}, predicted ${classes[col]}: ${hits.toLocaleString("en")} of ${all.toLocaleString("en")}${rate}`;
}
