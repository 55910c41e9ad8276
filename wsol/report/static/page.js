"use strict";
// The gallery. The page contains the boxes at every cut, so none is computed here.

const data = JSON.parse(document.getElementById("data").textContent);
const find = (id) => document.getElementById(id);
const state = {
  map: 0,
  image: null, // one of data.images
  shown: [], // images that pass the filters, in order
  thresholds: data.maps.map((map) => map.threshold),
};

// ---- boxes

/** The row [first cut, x0, y0, x1, y1, kind] of a view at a threshold, by the cut of wsol.boxes.heatmap_boxes.cuts. */
function rowAt(view, threshold) {
  const cut = Math.floor(threshold * view.peak);
  return view.boxes.findLast((row) => row[0] <= cut);
}

/** Half-open box in the image file's pixels. */
function boxOf(image, view, row) {
  return [1, 2, 3, 4].map((n) => row[n] * (image.size[(n - 1) % 2] / view.frame[(n - 1) % 2]));
}

function area(box) {
  return (box[2] - box[0]) * (box[3] - box[1]);
}

function iou(a, b) {
  const width = Math.max(0, Math.min(a[2], b[2]) - Math.max(a[0], b[0]));
  const height = Math.max(0, Math.min(a[3], b[3]) - Math.max(a[1], b[1]));
  const union = area(a) + area(b) - width * height;
  return union > 0 ? (width * height) / union : 0;
}

/** The box, IoU and error type of an image by a map at a threshold. */
function reading(image, map, threshold = state.thresholds[map]) {
  return readRow(image, image.views[map], rowAt(image.views[map], threshold));
}

function readRow(image, view, row) {
  const box = boxOf(image, view, row);
  const overlap = Math.max(...image.truths.map((truth) => iou(box, truth)));
  return { box, overlap, hit: overlap >= data.hit, kind: data.kinds[row[5]] };
}

const shownIou = (iou) => (Math.floor(100 * iou) / 100).toFixed(2); // rounded down: a miss must not look like a hit
const mapTitle = (map) => (oneRun ? map.heatmap : `${map.run}: ${map.heatmap}`);
const oneRun = new Set(data.maps.map((map) => map.run)).size === 1;

// ---- pictures

function svg(tag, attributes) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
}

function frame(box) {
  return { x: box[0], y: box[1], width: box[2] - box[0], height: box[3] - box[1] };
}

/** An image with its heatmap, true boxes, and a predicted box for `place` to move. */
function picture(image, map) {
  const [width, height] = image.size;
  const root = svg("svg", { viewBox: `0 0 ${width} ${height}`, class: "picture", role: "img" });
  root.append(
    svg("image", { href: image.photo, width, height, preserveAspectRatio: "none" }),
    svg("image", {
      href: image.views[map].heatmap, width, height, preserveAspectRatio: "none",
      class: "heatmap",
    }),
    ...image.truths.flatMap((truth) =>
      ["halo", "true"].map((kind) => svg("rect", { class: kind, ...frame(truth) }))),
    svg("rect", { class: "halo moving" }),
    svg("rect", { class: "predicted moving" }),
  );
  return root;
}

function place(root, image, found) {
  for (const rect of root.querySelectorAll(".moving"))
    for (const [name, value] of Object.entries(frame(found.box))) rect.setAttribute(name, value);
  const verdict = found.hit ? "hit" : "miss";
  root.setAttribute("aria-label", `${image.class}, IoU ${shownIou(found.overlap)}, ${verdict}`);
}

function caption(element, found) {
  element.textContent = `${found.hit ? "✓" : "✗"} ${shownIou(found.overlap)}`;
  element.className = found.hit ? "hit" : "miss";
}

// ---- the large picture and its text

function showImage(image) {
  state.image = image;
  find("stage").replaceChildren(picture(image, state.map));
  find("name").textContent = image.class;
  find("file").textContent = image.name;
  find("others").replaceChildren(...data.maps.map((map, number) => {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "other";
    button.setAttribute("aria-pressed", number === state.map);
    button.append(...["div", "span", "span"].map((tag) => document.createElement(tag)));
    button.children[0].append(picture(image, number));
    button.children[1].textContent = mapTitle(map);
    button.addEventListener("click", () => {
      find("map").value = number;
      showMap();
      find("others").children[number].focus();
    });
    return button;
  }));
  for (const option of find("thumbs").children) {
    const selected = option.image === image;
    option.setAttribute("aria-selected", selected);
    option.tabIndex = selected ? 0 : -1;
  }
  drawProfile();
  showThreshold();
}

function facts(pairs) {
  find("facts").replaceChildren(...Object.entries(pairs).flatMap(([name, value]) => {
    const [term, text] = ["dt", "dd"].map((tag) => document.createElement(tag));
    term.textContent = name;
    text.textContent = value;
    return [term, text];
  }));
}

/** The curve of IoU over thresholds, in steps: a row applies from its cut to the next row's cut. */
function drawProfile() {
  const { image, map } = state;
  const view = image.views[map];
  let steps = "";
  view.boxes.forEach((row, number) => {
    const next = view.boxes[number + 1];
    const [from, to] = [row[0], next ? next[0] : view.peak].map((cut) => 1000 * cut / (view.peak || 1));
    steps += `L${from} ${100 * (1 - readRow(image, view, row).overlap)}H${next ? to : 1000}`;
  });
  find("profile").replaceChildren(
    svg("path", { class: "area", d: `M0 100${steps}V100Z` }),
    svg("path", { class: "curve", d: steps.replace("L", "M") }),
    svg("path", { class: "half", d: `M0 ${100 * (1 - data.hit)}H1000` }),
    svg("path", { class: "now" }),
  );
}

/** Shows everything that depends on the slider. */
function showThreshold() {
  const { image, map } = state;
  const threshold = state.thresholds[map];
  const chosen = data.maps[map];
  const found = reading(image, map);
  place(find("stage").firstChild, image, found);
  const verdict = `IoU ${shownIou(found.overlap)}, ${found.hit ? "a hit" : "a miss"}`;
  find("verdict").textContent = verdict;
  find("verdict").className = `verdict ${found.hit ? "hit" : "miss"}`;
  find("value").textContent = threshold.toFixed(3);
  find("threshold").value = threshold;
  find("threshold").setAttribute("aria-valuetext", `${threshold.toFixed(3)}: ${verdict}`);
  find("profile").lastChild.setAttribute("d", `M${1000 * threshold} 0V100`);
  find("reset").textContent = `back to ${chosen.policy} (${chosen.threshold.toFixed(3)})`;
  find("reset").disabled = threshold === chosen.threshold;
  facts({
    "error type": found.kind,
    "predicted class": image.views[map].prediction,
    "true class": image.class,
    "box": found.box.map((end) => end.toFixed(0)).join(", "),
    "image": `${image.size[0]} × ${image.size[1]} pixels`,
  });
  [...find("others").children].forEach((button, number) => {
    const other = reading(image, number);
    place(button.querySelector("svg"), image, other);
    caption(button.children[2], other);
  });
  let hits = 0;
  for (const option of find("thumbs").children) {
    const each = reading(option.image, map);
    place(option.querySelector("svg"), option.image, each);
    caption(option.children[1], each);
    hits += each.hit;
  }
  find("hits").textContent = state.shown.length
    ? `, ${hits} ${hits === 1 ? "hit" : "hits"} at this threshold` : "";
}

// ---- filters

/** Filters and sorts by the policy's threshold, so that images stay while the slider moves. */
function filter() {
  const { map } = state;
  const score = (image) => reading(image, map, data.maps[map].threshold);
  state.shown = data.images.filter((image) =>
    (!find("class").value || image.class === find("class").value) &&
    (!find("kind").value || score(image).kind === find("kind").value));
  const sign = { best: -1, worst: 1, split: 0 }[find("order").value];
  state.shown.sort((a, b) => sign * (score(a).overlap - score(b).overlap));
  find("thumbs").replaceChildren(...state.shown.map((image) => {
    const option = document.createElement("div");
    option.className = "thumb";
    option.setAttribute("role", "option");
    option.image = image;
    option.append(document.createElement("div"), document.createElement("span"));
    option.firstChild.append(picture(image, map));
    option.addEventListener("click", () => showImage(image));
    return option;
  }));
  find("count").textContent = state.shown.length
    ? `${state.shown.length} of ${data.images.length} images`
    : "No image here has this class and error type.";
  showImage(state.shown.includes(state.image) ? state.image : state.shown[0] ?? state.image);
}

function options(select, all, names) {
  select.replaceChildren(...(all ? [new Option(all, "")] : []), ...names.map((name) => new Option(name)));
}

/** Shows another map with its error types and threshold. */
function showMap() {
  state.map = Number(find("map").value);
  const threshold = data.maps[state.map].threshold;
  const there = new Set(data.images.map((image) => reading(image, state.map, threshold).kind));
  const kind = find("kind").value;
  options(find("kind"), "all", data.kinds.filter((each) => there.has(each)));
  if (there.has(kind)) find("kind").value = kind;
  filter();
}

/** Moves through the grid with arrow keys. The number of columns depends on the window. */
function move(event) {
  const all = [...find("thumbs").children];
  const here = all.findIndex((option) => option.image === state.image);
  const columns = all.filter((option) => option.offsetTop === all[0].offsetTop).length;
  const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns }[event.key];
  const to = step ? here + step : { Home: 0, End: all.length - 1 }[event.key];
  if (to === undefined || event.ctrlKey || event.metaKey || event.altKey) return;
  event.preventDefault();
  if (!all[to]) return;
  showImage(all[to].image);
  all[to].focus();
}

function start() {
  find("map").replaceChildren(...data.maps.map((map, number) => new Option(mapTitle(map), number)));
  options(find("class"), "all", [...new Set(data.images.map((image) => image.class))].sort());
  find("map").addEventListener("change", showMap);
  for (const id of ["class", "kind", "order"]) find(id).addEventListener("change", filter);
  find("thumbs").addEventListener("keydown", move);
  find("threshold").addEventListener("input", () => {
    state.thresholds[state.map] = Number(find("threshold").value);
    showThreshold();
  });
  find("reset").addEventListener("click", () => {
    state.thresholds[state.map] = data.maps[state.map].threshold;
    showThreshold();
    find("threshold").focus();
  });
  find("heat").addEventListener("change", () =>
    document.body.classList.toggle("bare", !find("heat").checked));
  showMap();
}

if (data.maps.length) start();
else find("gallery").hidden = true;
