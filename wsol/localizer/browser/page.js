"use strict";
const find = (id) => document.getElementById(id);
const about = JSON.parse(find("about").textContent); // class_names, image_size, threshold, colours, predicted
const side = about.image_size;
const state = { photo: null, heat: null, bytes: null, peak: 0, box: null, threshold: about.threshold };

/** The content of a data block: gzip in base64. */
async function unpack(id) {
  const text = atob(find(id).textContent);
  const bytes = new Uint8Array(text.length);
  for (let n = 0; n < text.length; n++) bytes[n] = text.charCodeAt(n);
  find(id).remove();
  const plain = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(plain).arrayBuffer();
}

async function load() {
  const module = new Blob([await unpack("runtime")], { type: "text/javascript" });
  const ort = await import(URL.createObjectURL(module));
  ort.env.wasm.numThreads = 1; // more need headers of a server
  ort.env.wasm.wasmBinary = await unpack("wasm");
  return { ort, session: await ort.InferenceSession.create(await unpack("program")) };
}

// ---- the network's input, resized as OpenCV does: docs/run_onnx.py

/** For each of `side` pixels of a line: the first of `length` source pixels, and their weights. */
function weights(length, shrinks, enlarges) {
  const scale = length / side;
  return Array.from({ length: side }, (_, place) => {
    if (shrinks && !enlarges) { // area: the part of each source pixel that the new pixel covers
      const [from, to] = [place * scale, Math.min((place + 1) * scale, length)];
      const first = Math.floor(from + 1e-3);
      const count = Math.max(1, Math.ceil(to - 1e-3) - first);
      const parts = Array.from({ length: count }, (_, n) =>
        Math.min(to, first + n + 1) - Math.max(from, first + n));
      const sum = parts.reduce((a, b) => a + b);
      return [first, parts.map((part) => part / sum)];
    }
    let first, part;
    if (shrinks) { // one side shrinks and the other grows: OpenCV's variant of bilinear
      first = Math.floor(place * scale);
      part = place + 1 - (first + 1) / scale;
      part = part <= 0 ? 0 : part - Math.floor(part);
    } else { // bilinear
      const centre = Math.max(0, (place + 0.5) * scale - 0.5);
      first = Math.floor(centre);
      part = centre - first;
    }
    if (first >= length - 1) [first, part] = [length - 1, 0];
    const last = Math.round(2048 * part); // whole numbers, with which OpenCV's bilinear counts
    return last ? [first, [2048 - last, last]] : [first, [2048]];
  });
}

/** RGBA bytes of a photo -> float32 (3,side,side) in [0,1]. */
function networkInput({ data, width, height }) {
  const [shrinks, enlarges] = [Math.max(width, height) > side, Math.min(width, height) < side];
  const area = shrinks && !enlarges;
  const columns = weights(width, shrinks, enlarges);
  const rows = weights(height, shrinks, enlarges);
  const narrow = new Float32Array(height * side * 3);
  for (let y = 0; y < height; y++)
    columns.forEach(([first, parts], x) => {
      for (let c = 0; c < 3; c++) {
        let sum = 0;
        for (let n = 0; n < parts.length; n++) sum += parts[n] * data[4 * (y * width + first + n) + c];
        narrow[3 * (y * side + x) + c] = sum;
      }
    });
  const input = new Float32Array(3 * side * side);
  rows.forEach(([first, parts], y) => {
    for (let x = 0; x < side; x++)
      for (let c = 0; c < 3; c++) {
        let sum = 0;
        parts.forEach((part, n) => {
          const value = narrow[3 * ((first + n) * side + x) + c];
          sum += area ? part * value : (part * (value >> 4)) >> 16;
        });
        input[(c * side + y) * side + x] = (area ? Math.round(sum) : (sum + 2) >> 2) / 255;
      }
  });
  return input;
}

// ---- the box of the largest contour: wsol/boxes/component_tree.py says why this equals OpenCV's

/** Half-open [x0, y0, x1, y1] in the heatmap's pixels; null if no byte is above the cut. */
function largestBox(bytes, cut) {
  const width = side + 2; // a frame of background around the map
  const label = new Int32Array(width * width); // 0 inside, -1 outside; later the component's number
  const above = (place) => {
    const [x, y] = [(place % width) - 1, Math.floor(place / width) - 1];
    return x >= 0 && y >= 0 && x < side && y < side && bytes[y * side + x] > cut;
  };
  const flood = (start, value, steps, fits) => {
    const found = [start];
    label[start] = value;
    for (let n = 0; n < found.length; n++)
      for (const step of steps) {
        const near = found[n] + step;
        if (near < 0 || near >= label.length || label[near] !== 0 || !fits(near)) continue;
        label[near] = value;
        found.push(near);
      }
    return found;
  };
  const straight = [-1, 1, -width, width];
  flood(0, -1, straight, (place) => !above(place)); // what it does not reach is filled
  const diagonal = [-width - 1, -width + 1, width - 1, width + 1];
  const boxes = [];
  for (let place = 0; place < label.length; place++) {
    if (label[place] !== 0) continue;
    const places = flood(place, boxes.length + 1, [...straight, ...diagonal], () => true);
    const [x, y] = [places.map((each) => each % width), places.map((each) => Math.floor(each / width))];
    const ends = (values) => values.reduce(([a, b], v) => [Math.min(a, v), Math.max(b, v)], [width, 0]);
    const [[x0, x1], [y0, y1]] = [ends(x), ends(y)];
    boxes.push({ area: 0, box: [x0 - 1, y0 - 1, x1, y1] });
  }
  for (let place = 0; place < label.length - width - 1; place++) { // squares between four pixel centres
    const square = [0, 1, width, width + 1].map((step) => label[place + step]).filter((value) => value > 0);
    if (square.length >= 3) boxes[square[0] - 1].area += square.length === 4 ? 1 : 0.5;
  }
  return boxes.reduce((best, each) => (best && each.area < best.area ? best : each), null)?.box ?? null;
}

// ---- the page

function say(text, wrong = false) {
  find("status").textContent = text;
  find("status").className = wrong ? "wrong" : "";
}

async function localize(file) {
  try {
    say("The network is being loaded.");
    const { ort, session } = await loaded;
    say("The photo is being read.");
    const options = { imageOrientation: "from-image", colorSpaceConversion: "none" };
    const photo = await createImageBitmap(file, options);
    const canvas = new OffscreenCanvas(photo.width, photo.height);
    const context = canvas.getContext("2d", { willReadFrequently: true });
    context.drawImage(photo, 0, 0);
    const input = networkInput(context.getImageData(0, 0, photo.width, photo.height));
    const started = performance.now();
    const images = new ort.Tensor("float32", input, [1, 3, side, side]);
    const { logits, heatmap } = await session.run({ images });
    show(photo, logits.data, heatmap.data);
    say(`The network took ${((performance.now() - started) / 1000).toFixed(2)} s.`);
  } catch (error) {
    find("result").hidden = true;
    say(`${file.name} cannot be localized: ${error.message}`, true);
  }
}

function show(photo, logits, heatmap) {
  const best = logits.indexOf(Math.max(...logits));
  const sum = logits.reduce((total, each) => total + Math.exp(each - logits[best]), 0);
  state.photo = photo;
  state.bytes = heatmap.map((value) => Math.trunc(value * 255));
  state.peak = Math.max(...state.bytes);
  state.heat = new OffscreenCanvas(side, side);
  const layer = new ImageData(side, side);
  heatmap.forEach((value, n) => layer.data.set(about.colours[Math.round(255 * value)], 4 * n));
  state.heat.getContext("2d").putImageData(layer, 0, 0);
  find("class").textContent = `${about.class_names[best]}, ${(100 / sum).toFixed(0)} %`;
  find("result").hidden = false;
  choose(about.threshold);
}

/** Shows the box and everything that depends on the threshold. */
function choose(threshold) {
  const { photo } = state;
  const found = largestBox(state.bytes, Math.floor(threshold * state.peak));
  state.threshold = threshold;
  state.box = found?.map((end, n) => end * (n % 2 ? photo.height : photo.width) / side);
  const canvas = find("picture");
  const scale = Math.min(1600 / Math.max(photo.width, photo.height), Math.max(1, 640 / photo.width));
  [canvas.width, canvas.height] = [photo.width, photo.height].map((length) => Math.round(scale * length));
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.drawImage(photo, 0, 0, canvas.width, canvas.height);
  if (find("heat").checked) context.drawImage(state.heat, 0, 0, canvas.width, canvas.height);
  if (state.box) {
    const [x0, y0, x1, y1] = state.box.map((end) => end * scale);
    const line = Math.max(2, canvas.width / 160);
    for (const [width, colour] of [[line + 2, "#000b"], [line, about.predicted]]) {
      [context.lineWidth, context.strokeStyle] = [width, colour];
      context.strokeRect(x0, y0, x1 - x0, y1 - y0);
    }
  }
  const said = state.box ? `box ${state.box.map((end) => end.toFixed(0)).join(", ")}` : "no box";
  find("facts").textContent = `${said} of ${photo.width} × ${photo.height} pixels`;
  canvas.setAttribute("aria-label", `${find("class").textContent}, ${find("facts").textContent}`);
  find("value").textContent = threshold.toFixed(3);
  find("threshold").value = threshold;
  find("reset").textContent = `back to ${about.threshold.toFixed(3)}`;
  find("reset").disabled = threshold === about.threshold;
}

const loaded = load();
loaded.then(
  () => say("Ready."),
  (error) => say(`The network cannot be loaded: ${error.message}`, true),
);
find("file").addEventListener("change", () => {
  const [file] = find("file").files;
  if (file) localize(file);
  find("file").value = ""; // so that the same photo may be chosen again
});
find("threshold").addEventListener("input", () => choose(Number(find("threshold").value)));
find("reset").addEventListener("click", () => choose(about.threshold));
find("heat").addEventListener("change", () => choose(state.threshold));
for (const [kind, over] of [["dragover", true], ["dragleave", false], ["drop", false]])
  document.addEventListener(kind, (event) => {
    event.preventDefault(); // a file that misses the frame must not replace the page
    find("drop").classList.toggle("over", over);
    if (kind === "drop" && event.dataTransfer.files[0]) localize(event.dataTransfer.files[0]);
  });
