// What the pages do beyond links and forms: keys, choices that apply at once, finding a query, and waiting for an answer.
// Text from data is only ever set as text.
"use strict";

const POLL_MILLISECONDS = 80;

function rows() {
  return [...document.querySelectorAll("[data-row]")];
}

function moveRow(step) {
  const all = rows();
  if (!all.length) return;
  const at = all.indexOf(document.activeElement?.closest("[data-row]"));
  const next = all[Math.min(Math.max(at + step, 0), all.length - 1)];
  (next.hasAttribute("tabindex") ? next : next.querySelector("[data-open]")).focus();
}

function showKeys() {
  document.getElementById("keys").showModal();
}

const KEYS = {
  j: () => moveRow(1),
  k: () => moveRow(-1),
  "/": () => (document.querySelector("[data-search]") ?? document.querySelector("[data-find]"))?.focus(),
  x: () => document.activeElement?.closest("[data-row]")?.querySelector("input[type=checkbox]")?.click(),
  "?": showKeys,
  Enter: () => document.activeElement?.closest("[data-row]")?.querySelector("[data-open]")?.click(),
};

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
  const target = event.target;
  if (event.key === "Escape") target.blur();
  if (target.closest("input, textarea, select, dialog")) return;
  if (event.key === "Enter" && target.closest("a, button, summary")) return;
  const act = KEYS[event.key] ?? (/^[a-z]$/.test(event.key) ? linked(event.key) : null);
  if (!act) return;
  event.preventDefault();
  act();
});

function linked(key) {
  const link = document.querySelector(`[data-key="${key}"]`);
  return link ? () => link.click() : null;
}

for (const form of document.querySelectorAll("[data-submit-on-change]")) {
  form.addEventListener("change", (event) => {
    // Another query set has other queries, and only some methods have two rankings.
    for (const dropped of event.target.dataset.drops?.split(" ") ?? []) {
      for (const gone of form.querySelectorAll(`[name="${dropped}"]`)) gone.disabled = true;
    }
    form.requestSubmit();
  });
  // Addresses stay short: what says nothing is not sent.
  form.addEventListener("formdata", (event) => {
    for (const name of new Set(event.formData.keys())) {
      const chosen = event.formData.getAll(name).filter((value) => value !== "");
      event.formData.delete(name);
      for (const value of chosen) event.formData.append(name, value);
    }
    const fold = event.formData.getAll("fold");
    if (fold.includes("true")) event.formData.delete("fold");
  });
}

for (const find of document.querySelectorAll("[data-find]")) {
  find.addEventListener("input", () => {
    const wanted = find.value.toLowerCase();
    for (const entry of find.closest(".contents").querySelectorAll("li")) {
      entry.hidden = !entry.textContent.toLowerCase().includes(wanted);
    }
  });
}

for (const button of document.querySelectorAll("[data-help]")) {
  button.hidden = false;
  button.addEventListener("click", showKeys);
}

const contents = document.querySelector(".contents");
if (contents) {
  if (matchMedia("(max-width: 56rem)").matches) contents.open = false;
  const current = contents.querySelector("[aria-current]");
  if (current) contents.scrollTop = current.offsetTop - contents.clientHeight / 2;
}

// Longer ones are refused by web servers: they are sent another way, and a key stands for them in the address.
const LONGEST_ADDRESS = 30_000;

// Several completions are asked about as one field, which has all of them; the first stands in the form's own fields.
const MEMBER_FIELDS = ["prompt", "completion", "weight"];

function memberOf(place, named) {
  const [prompt, completion, weight] = MEMBER_FIELDS.map((name) => place.querySelector(named(name)).value);
  return { prompt, completion, weight: weight === "" ? 1 : Number(weight) };
}

for (const several of document.querySelectorAll("[data-several]")) {
  const form = several.closest("form");
  const members = several.querySelector("[data-members]");
  several.querySelector("[data-add]").addEventListener("click", () => {
    members.append(several.querySelector("template").content.cloneNode(true));
    members.lastElementChild.querySelector("textarea").focus();
  });
  members.addEventListener("click", (event) => event.target.closest("[data-drop]")?.closest("[data-member]").remove());
  form.addEventListener("formdata", (event) => {
    for (const name of ["weight", "other_prompt", "other_completion", "other_weight"]) event.formData.delete(name);
    const others = [...members.querySelectorAll("[data-member]")].map((place) => memberOf(place, (name) => `[name=other_${name}]`));
    const said = others.filter((member) => member.completion.trim());
    if (!said.length) return;
    for (const name of ["prompt", "completion", "against"]) event.formData.delete(name);
    event.formData.set("weighted", JSON.stringify([memberOf(form, (name) => `[name=${name}]`), ...said]));
  });
}

// A field that keeps its form from being sent says why, which nobody sees while it is folded away.
document.addEventListener(
  "invalid",
  (event) => {
    for (let folded = event.target.closest("details"); folded; folded = folded.parentElement.closest("details")) folded.open = true;
  },
  true,
);

for (const form of document.querySelectorAll("form.own")) {
  form.addEventListener("submit", async (event) => {
    const given = new FormData(form);
    if (new URLSearchParams(given).toString().length <= LONGEST_ADDRESS) return;
    event.preventDefault();
    const question = {};
    for (const [name, value] of given) if (value !== "") question[name] = value.replaceAll("\r\n", "\n");
    try {
      const state = await api("/api/ask", asJson(question));
      location.assign(`/ask?${new URLSearchParams({ checkpoint: question.checkpoint, asked: state.key })}`);
    } catch (error) {
      alert(error.message);
    }
  });
}

// Of a list, each value is a parameter of its own, and an object is JSON.
function asAddress(question) {
  const plain = (one) => (typeof one === "object" ? JSON.stringify(one) : one);
  return new URLSearchParams(Object.entries(question).flatMap(([name, value]) => [value].flat().map((one) => [name, plain(one)])));
}

function asJson(question) {
  return { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(question) };
}

const NO_ANSWER = "The explorer does not answer: it was stopped, or cannot be reached. Start it again with `lorif explore`, then load this page again.";

async function api(path, options) {
  let response, found;
  try {
    response = await fetch(path, options);
    found = await response.json();
  } catch {
    // Nobody answers, or somebody else does.
    throw new Error(NO_ANSWER);
  }
  if (!response.ok) throw new Error(found.error.message);
  return found;
}

async function wait(section) {
  const question = JSON.parse(section.dataset.ask);
  const doing = section.querySelector("[data-doing]");
  const bar = section.querySelector("[data-bar]");
  const { asks = "ask", tells = "progress" } = section.dataset;
  try {
    let state = await api(`/api/${asks}`, asJson(question));
    while (state.stage === "waiting" || state.stage === "computing") {
      const counted = state.total ? `: ${state.done.toLocaleString()} of ${state.total.toLocaleString()} ${state.unit}` : "";
      doing.textContent = `${state.doing}${counted} (${state.seconds.toFixed(1)} s)`;
      if (state.total) {
        bar.max = state.total;
        bar.value = state.done;
      } else {
        bar.removeAttribute("value");
      }
      await new Promise((resolve) => setTimeout(resolve, POLL_MILLISECONDS));
      state = await api(`/api/${tells}?${asAddress(question)}`);
    }
    if (state.stage !== "ready") throw new Error(state.error ?? "the question was dropped; ask it again");
    if (section.dataset.then === location.pathname + location.search) location.reload();
    else location.replace(section.dataset.then);
  } catch (error) {
    doing.textContent = error.message;
    doing.className = "message lowers";
    bar.remove();
  }
}

for (const section of document.querySelectorAll("[data-ask]")) wait(section);

for (const button of document.querySelectorAll("[data-copy]")) {
  const text = button.parentElement.querySelector("pre");
  button.hidden = !navigator.clipboard;
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(text.textContent);
      button.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(text);
    }
  });
}

for (const form of document.querySelectorAll("[data-write]")) {
  const button = form.querySelector("button");
  const told = document.querySelector("[data-written]");
  button.disabled = false;
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (form.dataset.confirm && !confirm(form.dataset.confirm)) return;
    button.disabled = true;
    told.className = "message";
    told.textContent = "Writing …";
    try {
      const output = new FormData(form).get("output");
      const written = await api("/api/write_selection", asJson({ ...JSON.parse(form.dataset.write), output }));
      told.textContent = `${written.n_rows.toLocaleString()} rows are written: ${written.path}`;
    } catch (error) {
      told.className = "message lowers";
      told.textContent = error.message;
    }
    button.disabled = false;
  });
}

// A part of what was said, by its ends in characters (as Python counts them: a pair of surrogates is one).
function characters(text) {
  return [...text].length;
}

for (const said of document.querySelectorAll("[data-selectable] .said")) {
  const field = said.closest(".exchange").querySelector("[data-span]");
  document.addEventListener("selectionchange", () => {
    const selection = getSelection();
    if (!selection.rangeCount || selection.isCollapsed) return;
    const range = selection.getRangeAt(0);
    if (!said.contains(range.startContainer) || !said.contains(range.endContainer)) return;
    const chosen = range.toString();
    if (!chosen) return;
    if (said.parentElement.dataset.selectable === "text") {
      field.value = chosen;
      return;
    }
    const before = document.createRange();
    before.selectNodeContents(said);
    before.setEnd(range.startContainer, range.startOffset);
    const start = characters(before.toString());
    field.value = `${start}-${start + characters(chosen)}`;
  });
}

function choose(token) {
  for (const other of document.querySelectorAll("[data-token][aria-pressed=true]")) other.setAttribute("aria-pressed", "false");
  token.setAttribute("aria-pressed", "true");
  const part = token.dataset.part ? `, ${token.dataset.part} of the score` : "";
  document.querySelector("[data-chosen]").textContent = `“${token.textContent}”: ${token.dataset.share}${part}`;
}

for (const token of document.querySelectorAll("[data-token]")) {
  token.addEventListener("click", () => choose(token));
  token.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" && event.key !== " ") return;
    event.preventDefault();
    choose(token);
  });
}
