import { enlarged, heat, inWords, strongest, tokenColour } from "./maps.js";

const $ = (id) => document.getElementById(id);
const ALL = "all";
const NONE = "none";
const EDGE = 1200; // pixels of the longer edge of the picture on the page

let about = { tokens: [] };
let picture = null; // the file, its pixels on a canvas
let answer = null; // the server's answer, with its maps enlarged
let chosen = ALL; // the shown maps: all, none, or the index of a token
let asking = null; // aborts the current request
let stream = null; // video of the camera
let newest = 0; // number of the newest choice of a picture or the camera

// ---------------------------------------------------------------- the model

async function start() {
  try {
    about = await (await fetch("page/about")).json();
  } catch {
    say("The server does not answer. Is it running?");
    return;
  }
  const [height, width, channels] = about.input_shape;
  const facts = [
    `${width} × ${height} pixels${channels === 1 ? ", grey" : ""}`,
    `${about.classes.toLocaleString("en")} classes`,
    about.tokens.length ? `${about.tokens.at(-1)} tokens` : "no maps",
    about.runtime,
  ];
  document.title = `${about.model} · keras_tokenlearner`;
  $("model").textContent = about.model;
  $("facts").textContent = facts.join(" · ");
  $("hint").textContent = about.hint;
  $("hint").hidden = !about.hint;
  $("budget").hidden = about.tokens.length < 2;
  $("tokens").max = Math.max(about.tokens.length - 1, 0);
  $("tokens").value = $("tokens").max;
  $("ticks").replaceChildren(...about.tokens.map((count) => element("span", `${count}`)));
  showCount();
}

function element(name, text = "", properties = {}) {
  const found = Object.assign(document.createElement(name), properties);
  found.textContent = text; // never as HTML: names of classes come from files
  return found;
}

function tokens() {
  return about.tokens[Number($("tokens").value)];
}

function showCount() {
  const count = tokens();
  $("count").textContent = count ?? "";
  $("tokens").setAttribute("aria-valuetext", `${count} ${count === 1 ? "token" : "tokens"}`);
}

// ---------------------------------------------------------------- a picture

async function show(file) {
  say("");
  const mine = ++newest;
  let bitmap;
  try {
    bitmap = await createImageBitmap(file);
  } catch {
    if (mine !== newest) return;
    say("The browser cannot read this file. Choose a JPEG, PNG, WebP, GIF or BMP file.");
    return;
  }
  if (mine !== newest) {
    bitmap.close(); // a newer picture or the camera was chosen meanwhile
    return;
  }
  stopCamera();
  const canvas = document.createElement("canvas");
  const scale = EDGE / Math.max(bitmap.width, bitmap.height);
  canvas.width = Math.max(1, Math.round(bitmap.width * scale));
  canvas.height = Math.max(1, Math.round(bitmap.height * scale));
  const context = canvas.getContext("2d");
  context.fillStyle = "white"; // the server lays transparent pixels on white too
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.imageSmoothingQuality = "high";
  context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  bitmap.close();
  picture = { file, canvas };
  answer = null;
  $("maps").hidden = true;
  draw();
  await ask();
}

async function ask() {
  if (!picture) return;
  asking?.abort();
  const mine = (asking = new AbortController());
  const count = tokens();
  document.body.classList.add("busy");
  const begin = performance.now();
  try {
    const response = await fetch(`page/answer${count ? `?tokens=${count}` : ""}`, {
      method: "POST",
      headers: { "Content-Type": picture.file.type || "application/octet-stream" },
      body: picture.file,
      signal: mine.signal,
    });
    const trip = performance.now() - begin;
    const found = await response.json().catch(() => ({}));
    if (!response.ok) throw new Error(found.error ?? `The server answers ${response.status}.`);
    say("");
    receive(found, trip);
  } catch (error) {
    if (mine.signal.aborted) return;
    clear();
    const lost = error instanceof TypeError;
    say(lost ? "The server does not answer. Is it running?" : error.message);
  } finally {
    if (asking === mine) document.body.classList.remove("busy");
  }
}

function receive(found, trip) {
  answer = found;
  for (const layer of answer.maps) layer.large = layer.tokens.map(enlarged);
  showClasses(found.classes);
  $("ms-model").textContent = rounded(found.milliseconds.model);
  $("ms-decoding").textContent = rounded(found.milliseconds.decoding);
  $("ms-trip").textContent = rounded(trip);
  showLayers();
  showChoices();
  draw();
  const best = found.classes[0];
  $("status").textContent =
    `${nameOf(best)}, ${percent(best)}. The model took ${rounded(found.milliseconds.model)} ms.`;
}

function clear() {
  answer = null;
  $("maps").hidden = true;
  $("classes").replaceChildren(element("li", "Nothing yet", { className: "quiet" }));
  for (const id of ["ms-model", "ms-decoding", "ms-trip"]) $(id).textContent = "–";
  draw();
}

const rounded = (number) => number.toFixed(number < 99.95 ? 1 : 0);
const nameOf = (row) => row.class_name ?? `class ${row.class}`;
const percent = (row) => `${(100 * row.probability).toFixed(1)}%`;

function showClasses(rows) {
  $("classes").replaceChildren(
    ...rows.map((row) => {
      const item = element("li");
      const bar = element("span", "", { className: "bar" });
      bar.style.setProperty("--share", row.probability);
      bar.setAttribute("aria-hidden", "true");
      const name = element("span", nameOf(row), { className: "name" });
      item.append(name, element("span", percent(row), { className: "share" }), bar);
      return item;
    }),
  );
}

function say(text) {
  $("error").textContent = text;
}

// ---------------------------------------------------------------- the maps

function layer() {
  return answer?.maps[Math.max($("layer").selectedIndex, 0)];
}

function showLayers() {
  const names = answer.maps.map((found) => found.layer);
  const old = $("layer").value;
  $("layer").replaceChildren(...names.map((name) => element("option", name)));
  if (names.includes(old)) $("layer").value = old;
  $("layer-choice").hidden = names.length < 2;
}

function showChoices() {
  $("maps").hidden = !layer();
  if (!layer()) return;
  const count = layer().tokens.length;
  if (typeof chosen === "number" && chosen >= count) chosen = ALL;
  const values = [ALL, ...Array(count).keys(), NONE];
  const hadFocus = $("choices").contains(document.activeElement);
  $("choices").replaceChildren(...values.map((value) => choice(value, count)));
  if (hadFocus) $("choices").querySelector(":checked").focus();
}

function choice(value, count) {
  const label = element("label");
  const input = element("input", "", { type: "radio", name: "map", checked: value === chosen });
  input.addEventListener("change", () => {
    chosen = value;
    draw();
    $("status").textContent = $("caption").textContent;
  });
  const thumbnail = element("canvas");
  thumbnail.setAttribute("aria-hidden", "true");
  const ratio = picture.canvas.width / picture.canvas.height;
  const edge = 120 * Math.min(window.devicePixelRatio || 1, 2);
  thumbnail.width = Math.round(ratio >= 1 ? edge : edge * ratio);
  thumbnail.height = Math.round(ratio >= 1 ? edge / ratio : edge);
  paint(thumbnail, value);
  const text = element("span", { all: "All tokens", none: "Picture" }[value] ?? `Token ${value + 1}`);
  if (typeof value === "number") {
    const dot = element("i");
    dot.style.setProperty("--dot", `rgb(${tokenColour(value, count).join(" ")})`);
    text.prepend(dot);
  }
  label.append(input, thumbnail, text);
  return label;
}

function caption() {
  if (!answer) return "Your picture";
  const best = nameOf(answer.classes[0]);
  if (!layer() || chosen === NONE) return `Your picture: ${best}`;
  if (chosen === ALL) return "The colour of the token that weighs each position most";
  return `Token ${chosen + 1}: ${inWords(layer().tokens[chosen])}`;
}

function draw() {
  const view = $("view");
  $("drop").classList.toggle("empty", !picture && !stream);
  $("invitation").hidden = Boolean(picture || stream);
  view.hidden = !picture || Boolean(stream);
  $("caption").hidden = view.hidden;
  if (view.hidden) return;
  view.width = picture.canvas.width;
  view.height = picture.canvas.height;
  paint(view, chosen);
  $("caption").textContent = caption();
}

// Draw the picture, with a map over the model's crop. The rest of the picture is dark.
function paint(canvas, value) {
  const context = canvas.getContext("2d");
  const { width, height } = canvas;
  context.imageSmoothingQuality = "high";
  context.drawImage(picture.canvas, 0, 0, width, height);
  if (!layer() || value === NONE) return;
  const [left, top, wide, high] = answer.box;
  const box = [left * width, top * height, wide * width, high * height];
  context.fillStyle = "rgb(16 18 24 / 65%)";
  context.beginPath();
  context.rect(0, 0, width, height);
  context.rect(...box);
  context.fill("evenodd");
  context.save();
  context.beginPath();
  context.rect(...box);
  context.clip();
  const over = (how, what) => {
    context.globalCompositeOperation = how;
    if (typeof what === "string") {
      context.fillStyle = what;
      context.fillRect(0, 0, width, height);
    } else {
      context.drawImage(what, ...box);
    }
  };
  over("saturation", "gray");
  if (value === ALL) {
    over("source-over", "rgb(255 255 255 / 25%)");
    over("multiply", strongest(layer().large));
  } else {
    over("source-over", "rgb(0 0 0 / 55%)");
    over("lighter", heat(layer().large[value]));
  }
  context.restore();
}

// ---------------------------------------------------------------- the camera

async function startCamera() {
  say("");
  if (!navigator.mediaDevices) {
    say("Browsers allow the camera only over HTTPS or for pages of this machine.");
    return;
  }
  const mine = ++newest;
  let found;
  try {
    found = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
  } catch (error) {
    if (mine === newest) say(`The camera cannot be used: ${error.message || error.name}.`);
    return;
  }
  if (mine !== newest) {
    for (const track of found.getTracks()) track.stop(); // it would stay on
    return;
  }
  stopCamera(); // an earlier click may have turned it on
  stream = found;
  $("video").srcObject = stream;
  try {
    await $("video").play();
  } catch (error) {
    if (stream !== found) return; // stopped or replaced meanwhile
    stopCamera();
    say(`The video of the camera cannot be shown: ${error.message || error.name}.`);
    return;
  }
  showCamera();
  $("take").focus();
}

function leaveCamera() {
  newest += 1; // also stops a camera that has not started yet
  stopCamera();
}

function stopCamera() {
  if (!stream) return;
  const hadFocus = [$("take"), $("stop")].includes(document.activeElement);
  for (const track of stream.getTracks()) track.stop();
  stream = null;
  $("video").srcObject = null;
  showCamera();
  if (hadFocus) $("camera").focus();
}

function showCamera() {
  $("video").hidden = !stream;
  $("take").hidden = !stream;
  $("stop").hidden = !stream;
  $("camera").hidden = Boolean(stream);
  draw();
}

function take() {
  const video = $("video");
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [video.videoWidth, video.videoHeight];
  canvas.getContext("2d").drawImage(video, 0, 0);
  canvas.toBlob(show, "image/jpeg", 0.92);
}

// ---------------------------------------------------------------- events

$("file").addEventListener("change", () => {
  const [file] = $("file").files;
  if (file) show(file);
  $("file").value = ""; // the same file may be chosen again
});
$("camera").addEventListener("click", startCamera);
$("take").addEventListener("click", take);
$("stop").addEventListener("click", leaveCamera);
$("tokens").addEventListener("input", showCount);
$("tokens").addEventListener("input", ask);
$("layer").addEventListener("change", () => {
  showChoices();
  draw();
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") leaveCamera();
});
document.addEventListener("paste", (event) => {
  const file = [...event.clipboardData.files].find((found) => found.type.startsWith("image/"));
  if (file) show(file);
});
document.addEventListener("dragover", (event) => {
  event.preventDefault();
  document.body.classList.add("over");
});
document.addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) document.body.classList.remove("over");
});
document.addEventListener("drop", (event) => {
  event.preventDefault();
  document.body.classList.remove("over");
  const [file] = event.dataTransfer.files;
  if (file) show(file);
});

start();
