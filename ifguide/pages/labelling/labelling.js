// Labels spans of text. `spans` are [id, before, text, after]; nothing here knows which mask selects what.
// The browser keeps every label that was given, in order, under the audit's key: undo and a later visit go on from it.
const $ = (id) => document.getElementById(id);
const { key, spans } = JSON.parse($("data").textContent);
const STORE = `ifguide-audit-${key}`, LABELS = ["abuse", "not", "unsure"];
const NAMES = { abuse: "abuse", not: "not abuse", unsure: "unsure" };
const place = new Map(spans.map(([id], at) => [id, at]));
let given = []; // [id, label], the last of an id counts
let at = 0; // place of the passage that is shown; spans.length: all are done
let isKept = true;

const labels = () => new Map(given);

function load() {
  try {
    const kept = JSON.parse(localStorage.getItem(STORE) ?? "[]");
    given = kept.filter(([id, label]) => place.has(id) && LABELS.includes(label));
  } catch {
    isKept = false;
  }
}

function save() {
  try {
    localStorage.setItem(STORE, JSON.stringify(given));
  } catch {
    isKept = false;
  }
}

// The first passage from `from` on that has no label, then those before it; spans.length where all have one.
function unlabelled(from) {
  const known = labels();
  for (let step = 0; step < spans.length; step++) {
    const next = (from + step) % spans.length;
    if (!known.has(spans[next][0])) return next;
  }
  return spans.length;
}

function show(next) {
  at = next;
  const known = labels(), isEnd = at === spans.length;
  const [id, before, text, after] = isEnd ? ["", "", "", ""] : spans[at];
  $("before").textContent = before;
  $("span").textContent = text;
  $("after").textContent = after;
  $("passage").hidden = isEnd;
  $("passage").scrollTop = 0;
  if (!isEnd) $("span").scrollIntoView({ block: "nearest" });
  $("question").hidden = isEnd;
  const unsure = [...known.values()].filter((label) => label === "unsure").length;
  $("count").textContent = `${known.size} of ${spans.length} labelled${unsure ? `, ${unsure} unsure` : ""}${isEnd ? "" : ` · passage ${at + 1}`}`;
  $("done").max = spans.length;
  $("done").value = known.size;
  $("undo").disabled = !given.length;
  for (const button of document.querySelectorAll("[data-label]")) {
    button.disabled = isEnd;
    button.ariaPressed = String(known.get(id) === button.dataset.label);
  }
  const said = [];
  if (isEnd) said.push("Every passage has a label. Export them, and give the file to ifguide audit-mask --labels.");
  else if (known.has(id)) said.push(`Labelled: ${NAMES[known.get(id)]}.`);
  if (!isKept) said.push("This browser keeps nothing: export before you close the page.");
  $("state").textContent = said.join(" ");
}

function label(value) {
  if (at === spans.length) return;
  given.push([spans[at][0], value]);
  save();
  show(unlabelled(at + 1));
}

function undo() {
  const last = given.pop();
  if (!last) return;
  save();
  show(place.get(last[0]));
}

function move(step) {
  show(Math.min(spans.length - 1, Math.max(0, at + step)));
}

function exported() {
  return [...labels()].map(([id, value]) => JSON.stringify({ id, label: value }) + "\n").join("");
}

function download() {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([exported()], { type: "application/jsonl" }));
  link.download = `labels-${key}.jsonl`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

function onKey(event) {
  if ($("desk").hidden || event.ctrlKey || event.metaKey || event.altKey || event.repeat || $("help").open) return;
  const action = {
    a: () => label("abuse"),
    n: () => label("not"),
    u: () => label("unsure"),
    z: undo,
    ArrowRight: () => move(1),
    ArrowLeft: () => move(-1),
    e: download,
    "?": () => $("help").showModal(),
  }[event.key];
  if (!action) return;
  event.preventDefault();
  action();
}

function enter() {
  $("gate").hidden = true;
  $("desk").hidden = false;
  show(unlabelled(0));
  $("passage").focus();
}

function start() {
  load();
  const done = labels().size;
  $("about").textContent = `${spans.length} passages${done ? `, ${done} of them labelled already` : ""}. What you say stays in this browser until you export it.`;
  if (done) $("enter").textContent = "Go on";
  $("enter").addEventListener("click", enter);
  $("enter").focus();
  for (const button of document.querySelectorAll("[data-label]"))
    button.addEventListener("click", () => label(button.dataset.label));
  $("undo").addEventListener("click", undo);
  $("export").addEventListener("click", download);
  $("help-button").addEventListener("click", () => $("help").showModal());
  addEventListener("keydown", onKey);
}

start();
