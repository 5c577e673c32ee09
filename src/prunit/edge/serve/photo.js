"use strict";
// A photo on the live page: sent to /v1/predict, and the answer drawn on it. Uses `byId`, `put` and `row` of page.js.
// Pictures are decoded here and drawn on a canvas, so the page's policy need not let images in from anywhere.

const LONGEST = 1600; // pixels of the canvas; the answer is for the whole photo
const TOLD_APART = ["#e69f00", "#56b4e9", "#009e73", "#f0e442", "#0072b2", "#d55e00", "#cc79a7"]; // Okabe and Ito, 2008
const IGNORED = 255; // of a mask's pixels that are of no class
const NAMED = 30; // more boxes than this would hide the photo behind their names
let newest = 0; // of several photos the last one is shown

const percent = (share) => `${(100 * share).toFixed(1)} %`;
const counted = (count, one) => `${count} ${one}${count === 1 ? "" : one.endsWith("x") ? "es" : "s"}`;

function element(name, className, text) {
  const found = document.createElement(name);
  found.className = className;
  if (text !== undefined) found.textContent = text;
  return found;
}

// Pascal VOC's colours, which the server's masks have: an index's bits, three by three, from the highest bits on.
function maskColour(index) {
  const parts = [0, 0, 0];
  for (let bit = 0; bit < 8; bit++) for (let c = 0; c < 3; c++) parts[c] |= ((index >> (3 * bit + c)) & 1) << (7 - bit);
  return parts;
}

// Black or white, whichever stands out more.
function inkOn(colour) {
  const parts = [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16) / 255)
    .map((part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4));
  return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2] > 0.179 ? "#000000" : "#ffffff";
}

function swatch(colour) {
  const found = element("span", "swatch");
  found.style.background = colour;
  return found;
}

function swatched(colour, text) {
  const found = element("span", "");
  found.append(swatch(colour), text);
  return found;
}

function bar(share) {
  const found = element("span", "bar");
  found.style.width = `${(100 * share).toFixed(1)}%`;
  return found;
}

function table(heads, rows) {
  const cells = heads.map((head) => {
    const th = element("th", head.number ? "number" : "", head.text ?? head);
    th.scope = "col";
    return th;
  });
  byId("answer-heads").replaceChildren(...cells);
  byId("answer-rows").replaceChildren(...rows);
}

// One function for each form of an answer: fills the table, may draw, and says it in a few words.

function showLabels(told) {
  table(["label", { text: "share", number: true }, ""],
    told.labels.map((each) => row([each.label, { text: percent(each.share), number: true }, bar(each.share)])));
  const best = told.labels[0];
  return best ? `${best.label}, ${percent(best.share)}` : "no label";
}

function showBoxes(told) {
  byId("least-label").hidden = false;
  const labels = [...new Set(told.boxes.map((each) => each.label))].sort();
  const colour = (label) => TOLD_APART[labels.indexOf(label) % TOLD_APART.length];
  const draw = () => {
    const least = Number(byId("least").value);
    const boxes = told.boxes.filter((each) => each.score >= least);
    drawBoxes(boxes, told.photo, colour);
    const kinds = labels.map((label) => [boxes.filter((each) => each.label === label).length, label]);
    const named = kinds.filter(([count]) => count).map(([count, label]) => `${count} ${label}`);
    return `${counted(boxes.length, "box")} from a score of ${(100 * least).toFixed(0)} %${named.length ? `: ${named.join(", ")}` : ""}`;
  };
  byId("least").oninput = () => put("told", draw());
  return draw();
}

function drawBoxes(boxes, { width, height }, colour) {
  const place = (each) => [each.x1, each.y1, each.x2, each.y2].map((value) => value.toFixed(0)).join(", ");
  table(["label", { text: "score", number: true }, { text: "x1, y1, x2, y2", number: true }],
    boxes.map((each) => row([swatched(colour(each.label), each.label), { text: percent(each.score), number: true },
      { text: place(each), number: true }])));
  byId("boxes").replaceChildren(...boxes.slice().reverse().map((each) => { // the surest lie on top
    const box = element("div", "box");
    box.style.left = `${(100 * each.x1) / width}%`;
    box.style.top = `${(100 * each.y1) / height}%`;
    box.style.width = `${(100 * (each.x2 - each.x1)) / width}%`;
    box.style.height = `${(100 * (each.y2 - each.y1)) / height}%`;
    box.style.borderColor = colour(each.label);
    if (boxes.length > NAMED) return box;
    const name = element("span", each.y1 < 0.06 * height ? "inside" : "", `${each.label} ${(100 * each.score).toFixed(0)}`);
    name.style.background = colour(each.label);
    name.style.color = inkOn(colour(each.label));
    box.append(name);
    return box;
  }));
}

async function showMask(told) {
  const bytes = Uint8Array.from(atob(told.mask), (character) => character.charCodeAt(0));
  const mask = await createImageBitmap(new Blob([bytes], { type: "image/png" }));
  const canvas = byId("shown");
  const layer = new OffscreenCanvas(canvas.width, canvas.height);
  const pencil = layer.getContext("2d");
  pencil.imageSmoothingEnabled = false; // between two classes there is no third
  pencil.drawImage(mask, 0, 0, layer.width, layer.height);
  const pixels = pencil.getImageData(0, 0, layer.width, layer.height);
  const clear = [maskColour(0), maskColour(IGNORED)]; // class 0 is mostly the background
  for (let at = 0; at < pixels.data.length; at += 4) {
    const same = (colour) => colour.every((part, c) => pixels.data[at + c] === part);
    pixels.data[at + 3] = clear.some(same) ? 0 : 140;
  }
  pencil.putImageData(pixels, 0, 0);
  canvas.getContext("2d").drawImage(layer, 0, 0);
  const colour = (index) => (index ? `rgb(${maskColour(index).join(" ")})` : "transparent");
  table(["class", { text: "share", number: true }, ""], told.classes.map((each) =>
    row([swatched(colour(each.index), each.label), { text: percent(each.share), number: true }, bar(each.share)])));
  return told.classes.map((each) => `${each.label} ${percent(each.share)}`).join(", ");
}

function showValues(told) {
  const values = Object.entries(told.values);
  table(["value", { text: "estimate", number: true }],
    values.map(([name, value]) => row([name, { text: `${Number(value.toPrecision(6))}`, number: true }])));
  return values.map(([name, value]) => `${name} ${Number(value.toPrecision(6))}`).join(", ");
}

function showOutputs(told) {
  const text = (value) => JSON.stringify(value).slice(0, 400);
  table(["output", "numbers"], Object.entries(told.outputs).map(([name, value]) => row([name, text(value)])));
  return told.note ?? counted(Object.keys(told.outputs).length, "output");
}

function drawPhoto(picture, { width, height }) {
  const canvas = byId("shown");
  const scale = Math.min(1, LONGEST / Math.max(width, height));
  [canvas.width, canvas.height] = [width, height].map((size) => Math.max(1, Math.round(scale * size)));
  byId("stage").style.maxWidth = `${Math.min(44, (34 * width) / height).toFixed(2)}rem`;
  byId("boxes").replaceChildren();
  byId("least-label").hidden = true;
  if (picture) canvas.getContext("2d").drawImage(picture, 0, 0, canvas.width, canvas.height);
}

async function predict(file) {
  const mine = ++newest;
  put("told", `${file.name} …`);
  const headers = byId("token").value ? { authorization: `Bearer ${byId("token").value}` } : {};
  try {
    // Of a file that this browser does not show (TIFF, say) the answer stands alone.
    const decoded = createImageBitmap(file).catch(() => null);
    const answer = await fetch("/v1/predict", { method: "POST", headers: { ...headers, accept: "application/json" }, body: file });
    const [told, picture] = [await answer.json(), await decoded];
    if (mine !== newest) return;
    if (!answer.ok) throw new Error(told.error);
    byId("result").hidden = false;
    drawPhoto(picture, told.photo);
    const show = told.boxes ? showBoxes : told.mask ? showMask : told.values ? showValues : told.labels ? showLabels : showOutputs;
    const words = await show(told);
    byId("shown").setAttribute("aria-label", `${file.name}: ${words}`);
    put("told", `${words} (${told.variant}, ${told.compute_ms.toFixed(1)} ms)`);
  } catch (error) {
    if (mine !== newest) return;
    byId("result").hidden = true;
    put("told", error instanceof TypeError ? "the server does not answer" : error.message);
  }
}

byId("file").addEventListener("change", (event) => {
  if (event.target.files.length) predict(event.target.files[0]);
});
byId("file").addEventListener("click", (event) => { event.target.value = ""; }); // the same file may be chosen again
for (const kind of ["dragenter", "dragover", "dragleave", "drop"]) {
  document.addEventListener(kind, (event) => { // beside the place too, where the browser would leave the page for the photo
    event.preventDefault();
    byId("drop").classList.toggle("over", kind === "dragenter" || kind === "dragover");
    if (kind === "drop" && event.dataTransfer.files.length) predict(event.dataTransfer.files[0]);
  });
}
