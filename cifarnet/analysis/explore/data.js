"use strict";
// The numbers of the page: arrays packed as base64 become typed arrays; nothing of them becomes markup.

const packed = JSON.parse(document.getElementById("numbers").textContent);

function unpack(text, Kind) {
  const raw = atob(text), bytes = new Uint8Array(raw.length);
  for (let i = 0; i < raw.length; i++) bytes[i] = raw.charCodeAt(i);
  return new Kind(bytes.buffer);
}

// Column `part` of rows of `width` numbers.
function column(values, width, part) {
  return Float32Array.from({ length: values.length / width }, (_, i) => values[i * width + part]);
}

const classes = packed.classes;
const labels = unpack(packed.labels, Int32Array);
const indices = unpack(packed.indices, Int32Array);
const count = labels.length;
const everything = Array.from(labels.keys());
const METHODS = { umap: "UMAP", tsne: "t-SNE", pca: "PCA" };

const runs = packed.runs.map((run) => {
  const found = { name: run.name, title: run.title, lost: run.lost, missing: run.missing, maps: {} };
  for (const name of ["predictions", "rival", "neighbors"]) found[name] = unpack(run[name], Int32Array);
  for (const name of ["own", "other", "norms"]) found[name] = unpack(run[name], Float32Array);
  found.probabilities = unpack(run.probabilities, Float64Array);
  for (const [method, points] of Object.entries(run.maps)) {
    const plane = unpack(points, Float32Array);
    found.maps[method] = { x: column(plane, 2, 0), y: column(plane, 2, 1) };
  }
  for (const name of ["directions", "prototypes"]) {
    const space = unpack(run[name], Float32Array);
    found[name] = { x: column(space, 3, 0), y: column(space, 3, 1), z: column(space, 3, 2) };
  }
  found.wrong = Uint8Array.from(labels, (label, i) => (label === found.predictions[i] ? 0 : 1));
  found.near = found.neighbors.length / count;
  return found;
});

// How many images of class `row` are taken for class `column`: [row][column].
function confusion(run) {
  const counts = classes.map(() => new Array(classes.length).fill(0));
  for (let i = 0; i < count; i++) counts[labels[i]][run.predictions[i]] += 1;
  return counts;
}

const sprite = new Image();
sprite.src = packed.sprite.url;

// The thumbnail of image `i` as a canvas.
function thumbnail(i, name) {
  const { side, columns } = packed.sprite, canvas = document.createElement("canvas");
  canvas.width = canvas.height = side;
  if (name) canvas.className = name;
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", `image ${indices[i]}, ${classes[labels[i]]}`);
  const x = (i % columns) * side, y = Math.floor(i / columns) * side;
  const draw = () => canvas.getContext("2d").drawImage(sprite, x, y, side, side, 0, 0, side, side);
  sprite.complete ? draw() : sprite.addEventListener("load", draw, { once: true });
  return canvas;
}

// A cell of a CSV file; one that a spreadsheet would compute gets an apostrophe, as in the files of `cifarnet eval`.
function cell(value) {
  if (typeof value === "number") return String(value);
  const text = /^[=+\-@\t\r\n＝＋－＠]/.test(value) ? "'" + value : value;
  return /[",\r\n]/.test(text) ? '"' + text.replaceAll('"', '""') + '"' : text;
}

function csvOf(chosen) {
  const header = ["index", "label"];
  for (const run of runs) {
    const end = runs.length > 1 ? ` (${run.name})` : "";
    for (const name of ["prediction", "probability", "own_angle", "nearest_other_angle", "nearest_other", "norm"]) header.push(name + end);
  }
  const rows = chosen.map((i) => [
    indices[i], classes[labels[i]],
    ...runs.flatMap((run) => [classes[run.predictions[i]], run.probabilities[i], run.own[i], run.other[i], classes[run.rival[i]], run.norms[i]]),
  ]);
  return [header, ...rows].map((row) => row.map(cell).join(",")).join("\r\n") + "\r\n";
}

// A share as it is printed: not all is never 100%, not none never 0%.
function percent(value, places) {
  const text = (100 * value).toFixed(places), least = 10 ** -places;
  if (Number(text) === 100 && value < 1 - 1e-12) return `>${(100 - least).toFixed(places)}%`;
  return Number(text) === 0 && value > 1e-12 ? `<${least.toFixed(places)}%` : `${text}%`;
}
