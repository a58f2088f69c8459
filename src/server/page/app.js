// The page: pictures on the left, a conversation about them on the right.
// Whatever a model says is put in as text (textContent), never as HTML.
import { ask, get } from "/page/stream.js";

const $ = (id) => document.getElementById(id);
const state = {
  pictures: [], // {url: data URL, shown: blob URL, name}
  turns: [], // {role, content: text}; pictures stand in the first turn of the user
  asking: null, // AbortController
};

// ---- Pictures --------------------------------------------------------------------------------------------------------

const read_data_url = (file) =>
  new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result);
    reader.onerror = () => reject(new Error(`${file.name} cannot be read`));
    reader.readAsDataURL(file);
  });

async function add_pictures(files) {
  const pictures = [...files].filter((file) => file.type.startsWith("image/"));
  if (files.length > 0 && pictures.length === 0) return say("that is not a picture", true);
  const again = state.turns.length > 0 && pictures.length > 0;
  if (again) forget(); // other pictures, another conversation
  for (const file of pictures) {
    try {
      const url = await read_data_url(file);
      state.pictures.push({ url, shown: URL.createObjectURL(file), name: file.name || "pasted picture" });
    } catch (error) {
      say(error.message, true);
    }
  }
  show_pictures();
  if (again) say("other pictures, so a new conversation");
  $("question").focus();
}

function show_pictures() {
  $("drop").firstElementChild.textContent = state.pictures.length > 0 ? "Add another picture" : "Drop a picture here";
  $("picture-list").replaceChildren(
    ...state.pictures.map((picture, i) => {
      const item = document.createElement("li");
      const figure = document.createElement("figure");
      const image = document.createElement("img");
      const caption = document.createElement("figcaption");
      const remove = document.createElement("button");
      image.src = picture.shown;
      image.alt = picture.name;
      caption.textContent = picture.name;
      image.onload = () => (caption.textContent = `${picture.name}, ${image.naturalWidth} × ${image.naturalHeight}`);
      remove.type = "button";
      remove.textContent = "×";
      remove.setAttribute("aria-label", `Remove ${picture.name}`);
      remove.onclick = () => {
        URL.revokeObjectURL(picture.shown);
        state.pictures.splice(i, 1);
        forget();
        show_pictures();
        $("question").focus();
      };
      figure.append(image, caption);
      item.append(figure, remove);
      return item;
    }),
  );
}

// ---- Conversation ----------------------------------------------------------------------------------------------------

function say(text, bad = false) {
  $("status").textContent = text;
  $("status").classList.toggle("bad", bad);
}

function forget() {
  state.asking?.abort();
  set_asking(false);
  state.turns = [];
  $("log").replaceChildren();
  say("");
}

function show_turn(who, kind, text) {
  const turn = document.createElement("div");
  turn.className = `turn ${kind}`;
  for (const [name, content] of [["who", who], ["text", text], ["facts", ""]]) {
    const part = document.createElement("div");
    part.className = name;
    part.textContent = content;
    turn.append(part);
  }
  $("log").append(turn);
  turn.scrollIntoView({ block: "end" });
  return turn;
}

// What is sent: the pictures stand before the first question, so a second one finds their prefix in the server's cache.
function messages() {
  const detail = $("detail").value;
  return state.turns.map((turn, i) => {
    if (i > 0) return turn;
    const pictures = state.pictures.map((picture) => ({ type: "image_url", image_url: { url: picture.url, detail } }));
    return { role: turn.role, content: [...pictures, { type: "text", text: turn.content }] };
  });
}

const time_of = (ms) => (ms < 1000 ? `${Math.round(ms)} ms` : `${(ms / 1000).toFixed(1)} s`);
const speed_of = (a_second) => `${a_second.toFixed(a_second < 10 ? 1 : 0)} tokens/s`;

function facts_of({ usage, timings }, reason) {
  const { image_tokens, cached_tokens } = usage.prompt_tokens_details;
  const parts = [];
  if (timings.tiles > 0) parts.push(`${timings.tiles} tiles (${image_tokens} tokens)`);
  parts.push(`prompt ${usage.prompt_tokens} tokens${cached_tokens > 0 ? ` (${cached_tokens} cached)` : ""}`);
  parts.push(`answer ${usage.completion_tokens} tokens`);
  if (timings.predicted_per_second > 0) parts.push(speed_of(timings.predicted_per_second));
  parts.push(`first after ${time_of(timings.ttft_ms)}`);
  if (reason === "length") parts.push("cut at the most tokens");
  return parts.join(" · ");
}

async function send(question) {
  state.turns.push({ role: "user", content: question });
  show_turn("you", "user", question);
  const turn = show_turn("model", "assistant writing", "");
  const text = turn.querySelector(".text");
  const facts = turn.querySelector(".facts");
  const asking = (state.asking = new AbortController());
  set_asking(true);
  let answer = "";
  let reason = null;
  let locked = false;
  const on_chunk = (chunk) => {
    if (chunk.progress) say(`${chunk.progress.tiles_done} of ${chunk.progress.tiles} tiles seen`);
    const choice = chunk.choices[0];
    if (choice?.delta?.content) {
      const log = $("log");
      const at_end = log.scrollHeight - log.scrollTop - log.clientHeight < 40;
      answer += choice.delta.content;
      text.textContent = answer.trimStart();
      if (at_end) log.scrollTop = log.scrollHeight;
    }
    if (choice?.finish_reason) reason = choice.finish_reason;
    if (chunk.usage) facts.textContent = facts_of(chunk, reason);
  };
  const body = {
    messages: messages(),
    stream: true,
    stream_options: { include_usage: true, include_progress: true },
    max_tokens: Number($("max-tokens").value) || 512,
    temperature: Number($("temperature").value) || 0,
  };
  if ($("special").checked) body.skip_special_tokens = false;
  say("waiting");
  try {
    await ask(body, { key: $("key").value, signal: asking.signal, on_chunk });
    say("");
  } catch (error) {
    if (error.name === "AbortError") {
      facts.textContent = "stopped";
      say("");
    } else {
      turn.classList.add("bad");
      if (!answer) turn.querySelector(".who").textContent = "error";
      text.textContent = answer + (answer ? "\n" : "") + error.message;
      say("");
      locked = error.status === 401;
    }
  }
  turn.classList.remove("writing");
  if (state.asking !== asking) return; // forgotten meanwhile
  turn.scrollIntoView({ block: "end" });
  if (answer) state.turns.push({ role: "assistant", content: answer.trim() });
  else state.turns.pop();
  set_asking(false);
  if (locked) want_key();
}

function set_asking(on) {
  if (!on) state.asking = null;
  $("ask").hidden = on;
  $("stop").hidden = !on;
  if (!on) $("question").focus();
}

// ---- What people do --------------------------------------------------------------------------------------------------

$("form").onsubmit = (event) => {
  event.preventDefault();
  const question = $("question").value.trim();
  if (!question || state.asking) return;
  $("question").value = "";
  send(question);
};
$("question").onkeydown = (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  $("form").requestSubmit();
};
// Escape: out of the settings, or else out of the answer.
function leave() {
  if (!$("settings").open) return state.asking?.abort();
  $("settings").open = false;
  $("settings").firstElementChild.focus();
}

$("stop").onclick = () => state.asking?.abort();
$("new").onclick = () => {
  for (const picture of state.pictures) URL.revokeObjectURL(picture.shown);
  state.pictures = [];
  forget();
  show_pictures();
};
$("file").onchange = (event) => {
  add_pictures(event.target.files);
  event.target.value = "";
};
$("drop").onkeydown = (event) => {
  if (event.key !== "Enter" && event.key !== " ") return;
  event.preventDefault();
  $("file").click();
};
document.onkeydown = (event) => {
  if (event.key === "Escape") leave();
  if (event.altKey && event.key.toLowerCase() === "n") $("new").click();
};
document.onclick = (event) => {
  if (!$("settings").contains(event.target)) $("settings").open = false;
};
document.onpaste = (event) => {
  if (event.clipboardData.files.length > 0) add_pictures(event.clipboardData.files);
};
document.ondragover = (event) => {
  event.preventDefault();
  document.body.classList.add("dragging");
};
document.ondragleave = (event) => {
  if (!event.relatedTarget) document.body.classList.remove("dragging");
};
document.ondrop = (event) => {
  event.preventDefault();
  document.body.classList.remove("dragging");
  add_pictures(event.dataTransfer.files);
};
$("key").onchange = async () => {
  if (!(await greet())) return;
  $("settings").open = false;
  $("question").focus();
};

function want_key() {
  $("settings").open = true;
  $("key").focus();
}

// Says which model answers; whether the server let us ask.
async function greet() {
  try {
    const models = await get("/v1/models", $("key").value);
    const model = models.data[0];
    $("model").textContent = model.max_model_len ? `${model.id}, ${model.max_model_len} tokens` : `${model.id} is loading…`;
    $("model").classList.remove("bad");
    if (!model.max_model_len) setTimeout(greet, 1000);
    return true;
  } catch (error) {
    const locked = error.status === 401;
    $("model").textContent = locked ? "This server wants an API key (Settings)" : error.message;
    $("model").classList.add("bad");
    if (locked) want_key();
    return false;
  }
}
$("question").focus();
greet();
