// Rows that a person marks, in selections with names: the browser keeps them, for each project by itself.
// Text from data is only ever set as text.
"use strict";

const MARKED_KEY = `lorif:marked:${document.body.dataset.project}`;
const FIRST_SELECTION = "marked";

function readMarked() {
  try {
    const kept = JSON.parse(localStorage.getItem(MARKED_KEY));
    if (kept.selections.some((one) => one.name === kept.current)) return kept;
  } catch {
    // What is not there, or cannot be read, begins anew.
  }
  return { current: FIRST_SELECTION, selections: [{ name: FIRST_SELECTION, rows: [] }] };
}

function changeMarked(change) {
  const kept = readMarked();
  change(kept);
  localStorage.setItem(MARKED_KEY, JSON.stringify(kept));
  showMarked();
}

function chosenSelection(kept) {
  return kept.selections.find((one) => one.name === kept.current);
}

function isSame(row, other) {
  return row.shard === other.shard && row.id === other.id;
}

function rowOf(box) {
  return { shard: box.dataset.shard, id: box.dataset.example, text: box.dataset.text };
}

function setMarked(row, wanted) {
  changeMarked((kept) => {
    const chosen = chosenSelection(kept);
    chosen.rows = chosen.rows.filter((other) => !isSame(row, other));
    if (wanted) chosen.rows.push(row);
  });
}

function showMarked() {
  const kept = readMarked();
  const marked = chosenSelection(kept).rows;
  for (const box of document.querySelectorAll("[data-mark]")) {
    box.checked = marked.some((row) => isSame(row, rowOf(box)));
    box.parentElement.hidden = false;
  }
  for (const link of document.querySelectorAll("[data-marked]")) {
    link.hidden = !marked.length && kept.selections.length === 1;
    link.querySelector("b").textContent = marked.length.toLocaleString();
    link.title = kept.current;
  }
  const page = document.querySelector("[data-marked-page]");
  if (page) showSelection(page, kept, marked);
}

function showSelection(page, kept, marked) {
  page.hidden = false;
  const choices = kept.selections.map(({ name, rows }) => {
    return new Option(`${name} (${rows.length.toLocaleString()})`, name, false, name === kept.current);
  });
  page.querySelector("select").replaceChildren(...choices);
  page.querySelector("[data-none]").hidden = marked.length > 0;
  page.querySelector("[data-some]").hidden = !marked.length;
  page.querySelector("[data-forget]").hidden = !marked.length && choices.length === 1;
  page.querySelector("[data-rows]").replaceChildren(...marked.map((row) => markedEntry(page, row)));
  const ids = marked.map((row) => `${row.shard}/${row.id}`);
  const address = `${page.dataset.markedPage}?${new URLSearchParams(ids.map((id) => ["ids", id]))}`;
  const withdrawal = `${address}&exclude=true`;
  const isShort = withdrawal.length <= LONGEST_ADDRESS;
  page.querySelector("[data-look]").href = address;
  page.querySelector("[data-withdraw]").href = withdrawal;
  for (const one of page.querySelectorAll(".sends, [data-short]")) one.hidden = !isShort;
  page.querySelector("[data-too-long]").hidden = isShort;
  const list = page.querySelector("[data-ids]");
  list.download = list.textContent = `${kept.current}.txt`;
  list.href = `data:text/plain;charset=utf-8,${encodeURIComponent(ids.map((id) => `${id}\n`).join(""))}`;
  const [file, output, others] = [`${kept.current}.txt`, kept.current, `without-${kept.current}`].map(shellWord);
  page.querySelector("[data-selecting] pre").textContent = `lorif select --ids ${file} --output ${output}`;
  page.querySelector("[data-withdrawing] pre").textContent = `lorif select --ids ${file} --exclude --output ${others}`;
}

function shellWord(word) {
  return /[^\w.+=-]/.test(word) ? `'${word}'` : word;
}

function markedEntry(page, row) {
  const entry = document.createElement("li");
  const box = Object.assign(document.createElement("input"), { type: "checkbox", checked: true });
  box.setAttribute("aria-label", `${row.id} is marked`);
  box.addEventListener("change", () => setMarked(row, false));
  const link = document.createElement("a");
  const origin = page.dataset.origin;
  link.href = `${origin}${origin.includes("?") ? "&" : "?"}${new URLSearchParams({ shard: row.shard, example: row.id })}`;
  link.textContent = row.text || row.id;
  link.dir = "auto";
  link.dataset.open = "";
  const where = document.createElement("small");
  where.textContent = `${row.id} in ${row.shard}`;
  entry.dataset.row = "";
  entry.tabIndex = -1;
  entry.append(box, link, where);
  return entry;
}

for (const box of document.querySelectorAll("[data-mark]")) {
  box.addEventListener("change", () => setMarked(rowOf(box), box.checked));
}

for (const form of document.querySelectorAll("[data-selections]")) {
  form.elements.selection.addEventListener("change", (event) => {
    changeMarked((kept) => (kept.current = event.target.value));
  });
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const name = form.elements.name.value.trim();
    if (!name) return;
    changeMarked((kept) => {
      if (!kept.selections.some((one) => one.name === name)) kept.selections.push({ name, rows: [] });
      kept.current = name;
    });
    form.elements.name.value = "";
  });
  form.querySelector("[data-forget]").addEventListener("click", () => {
    const { name, rows } = chosenSelection(readMarked());
    if (rows.length && !confirm(`Unmark the ${rows.length.toLocaleString()} rows of “${name}”?`)) return;
    changeMarked((kept) => {
      const left = kept.selections.filter((one) => one.name !== name);
      kept.selections = left.length ? left : [{ name: FIRST_SELECTION, rows: [] }];
      kept.current = kept.selections[0].name;
    });
  });
}

// Marked in another tab of the browser.
addEventListener("storage", (event) => {
  if (event.key === MARKED_KEY) showMarked();
});
addEventListener("pageshow", showMarked);
showMarked();
