"use strict";
// The page of `allconv-resnet serve`: it sends images to the server it comes from, and shows the answers as bars.

const MOST_PIXELS = 2 ** 24; // larger images are made smaller before they are sent, since the server refuses them
const MOST_ANSWERS = 100; // older ones are removed, so that the page does not keep every image for ever
const element = (id) => document.getElementById(id);
const copy = (template) => element(template).content.cloneNode(true).firstElementChild;

let models = [];
let left = Promise.resolve(); // images are sent one after the other, so that each time is that of one image

const chosen = () => models[element("model").selectedIndex] ?? models[0];
const headers = () => (element("key").value ? { Authorization: `Bearer ${element("key").value}` } : {});

async function ask(address, options = {}) {
  const answer = await fetch(address, { ...options, headers: headers() });
  const content = await answer.json().catch(() => ({ error: `The server answered with the status ${answer.status}.` }));
  if (answer.status === 401 || answer.status === 403) element("key-entry").hidden = false;
  if (!answer.ok) {
    const error = new Error(content.error ?? `The server answered with the status ${answer.status}.`);
    throw Object.assign(error, { status: answer.status });
  }
  return content;
}

async function loadModels(name) {
  try {
    models = await ask("page/models.json");
  } catch (error) {
    return say(error.message, true);
  }
  element("model").replaceChildren(...models.map(({ name, version }) => new Option(`${name}, version ${version}`)));
  element("model-choice").hidden = models.length < 2;
  element("model").selectedIndex = Math.max(0, models.findIndex((model) => model.name === name));
  showModel();
}

function showModel() {
  const model = chosen();
  if (!model) return say("The server has no model.", true);
  say("");
  document.title = model.title;
  element("title").textContent = model.title;
  element("subtitle").textContent = `Version ${model.version} of the model ${model.name}`;
  element("card").hidden = !model.card;
  element("card-text").innerHTML = model.card; // the server has escaped all HTML that was in the card
}

function say(text, bad = false) {
  element("status").textContent = text;
  element("status").classList.toggle("failed", bad);
}

/** The file itself if it is a JPEG or PNG of a size that the server takes, and otherwise a PNG that shows the same. */
async function readable(file) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(file);
  } catch {
    throw new Error("This is not an image that the browser can read.");
  }
  const pixels = bitmap.width * bitmap.height;
  if (["image/jpeg", "image/png"].includes(file.type) && pixels <= MOST_PIXELS) return { sent: file, bitmap, note: "" };
  const scale = Math.min(1, Math.sqrt(MOST_PIXELS / pixels));
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.floor(bitmap.width * scale));
  canvas.height = Math.max(1, Math.floor(bitmap.height * scale));
  canvas.getContext("2d").drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  const type = scale < 1 ? "image/jpeg" : "image/png";
  const sent = await new Promise((resolve) => canvas.toBlob(resolve, type, 0.95));
  return { sent, bitmap, note: `, sent as ${canvas.width} x ${canvas.height} ${type === "image/png" ? "PNG" : "JPEG"}` };
}

function base64(blob) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result.slice(reader.result.indexOf(",") + 1));
    reader.onerror = () => reject(new Error("The file cannot be read."));
    reader.readAsDataURL(blob);
  });
}

function add(files) {
  const given = [...files];
  const articles = given.map((file) => [file, newAnswer(file)]);
  element("answers").prepend(...articles.map(([, article]) => article));
  element("clear").hidden = !element("answers").children.length;
  for (const [file, article] of articles) left = left.then(() => classify(file, article)).then(trim);
  left = left.then(() => {
    const count = (state) => articles.filter(([, article]) => article.dataset.state === state).length;
    const [right, bad] = [count("done"), count("failed")];
    const images = (count) => (count === 1 ? "1 image" : `${count} images`);
    const shown = given.length > MOST_ANSWERS ? ` The page shows ${MOST_ANSWERS} of them.` : "";
    if (given.length) say(`${images(right)} classified${bad ? `, ${images(bad)} not` : ""}.${shown}`, bad > 0);
  });
}

/** Removes the oldest answers if there are too many. Images that wait for their answer stay. */
function trim() {
  const answers = [...element("answers").children];
  answers.slice(MOST_ANSWERS).filter((article) => article.dataset.state !== "waiting").forEach(remove);
}

function newAnswer(file) {
  const article = copy("answer");
  article.dataset.state = "waiting";
  article.querySelector("h2").textContent = file.name || "Pasted image";
  article.querySelector("img").src = URL.createObjectURL(file);
  article.querySelector("img").alt = file.name || "Pasted image";
  article.querySelector(".note").textContent = "Waiting";
  article.querySelector(".remove").setAttribute("aria-label", `Remove ${file.name || "pasted image"}`);
  article.querySelector(".remove").onclick = () => {
    remove(article);
    element("choose").focus();
  };
  return article;
}

function remove(article) {
  URL.revokeObjectURL(article.querySelector("img").src);
  article.remove();
  element("clear").hidden = !element("answers").children.length;
}

async function classify(file, article) {
  if (!article.isConnected) return;
  const note = article.querySelector(".note");
  let model = chosen();
  try {
    if (!model?.signature) throw new Error("The server has no model that takes image files.");
    const { sent, bitmap, note: changed } = await readable(file);
    article.querySelector("img").classList.toggle("small", Math.max(bitmap.width, bitmap.height) < 128);
    const body = JSON.stringify({ signature_name: model.signature, instances: [{ b64: await base64(sent) }] });
    note.textContent = "Computing";
    const began = performance.now();
    const predict = () => ask(`v1/models/${model.name}/versions/${model.version}:predict`, { method: "POST", body });
    const { predictions } = await predict().catch(async (error) => {
      if (error.status !== 404) throw error;
      await loadModels(model.name); // the server has a newer version
      model = chosen();
      return predict();
    });
    const took = performance.now() - began;
    note.textContent = `${bitmap.width} x ${bitmap.height} pixels${changed}, ${took.toFixed(took < 10 ? 1 : 0)} ms`;
    article.querySelector(".classes").replaceChildren(...bars(predictions[0]));
    article.dataset.state = "done";
  } catch (error) {
    note.textContent = error.message;
    note.classList.add("failed");
    article.dataset.state = "failed";
    article.querySelector("img").hidden = !article.querySelector("img").naturalWidth;
  }
}

function bars({ labels, probabilities }) {
  return labels.map((label, i) => {
    const line = copy("class");
    line.querySelector(".label").textContent = label;
    line.querySelector(".probability").textContent = `${(100 * probabilities[i]).toFixed(1)} %`;
    line.querySelector(".bar div").style.width = `${100 * probabilities[i]}%`;
    return line;
  });
}

async function photograph() {
  const phone = matchMedia("(pointer: coarse)").matches;
  if (phone || !navigator.mediaDevices) return element("capture").click(); // a phone has its own camera program
  try {
    element("video").srcObject = await navigator.mediaDevices.getUserMedia({ video: true });
  } catch (error) {
    return say(`There is no camera that this page may use (${error.name}).`, true);
  }
  element("camera").showModal();
}

function shoot() {
  const video = element("video");
  const canvas = document.createElement("canvas");
  canvas.width = video.videoWidth;
  canvas.height = video.videoHeight;
  canvas.getContext("2d").drawImage(video, 0, 0);
  element("camera").close();
  canvas.toBlob((blob) => add([new File([blob], "Photograph", { type: "image/png" })]), "image/png");
}

element("choose").onclick = () => element("files").click();
element("photograph").onclick = photograph;
element("shoot").onclick = shoot;
element("cancel").onclick = () => element("camera").close();
element("camera").onclose = () => element("video").srcObject?.getTracks().forEach((track) => track.stop());
element("clear").onclick = () => {
  [...element("answers").children].forEach(remove);
  say("");
  element("choose").focus();
};
element("model").onchange = showModel;
element("key").onchange = () => loadModels();
for (const input of [element("files"), element("capture")]) {
  input.onchange = () => {
    add(input.files);
    input.value = ""; // the same file may be chosen again
  };
}

document.onpaste = (event) => {
  const files = [...event.clipboardData.files];
  if (files.length) add(files.map((file) => (file.name === "image.png" ? new File([file], "", { type: file.type }) : file)));
  else if (event.target.id !== "key") say("There is no image in the clipboard.", true);
};
document.ondragover = (event) => {
  event.preventDefault();
  element("drop").classList.add("over");
};
document.ondragleave = (event) => {
  if (!event.relatedTarget) element("drop").classList.remove("over");
};
document.ondrop = (event) => {
  event.preventDefault();
  element("drop").classList.remove("over");
  if (event.dataTransfer.files.length) add(event.dataTransfer.files);
  else say("What was dropped has no files.", true);
};

loadModels();
