// Colours of the page, and of images under a mode.

const GLYPHS = ["●", "■", "◆", "▼", "★", "✚", "✖", "▲", "⬟", "⬢"];
const RIGHT = "#3f90da", WRONG = "#e76300", BOTH = "#94a4a2", NEITHER = "#832db6";

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

// The range of the numbers of a mode, of all runs, so that their colours can be compared.
function rangeOf(mode) {
  let low = Infinity, high = -Infinity;
  for (const run of runs) for (const value of colouring(mode, run).values) { low = Math.min(low, value); high = Math.max(high, value); }
  return [low, high];
}
