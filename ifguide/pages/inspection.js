// The inspector: a list of documents, the open one, a search, a histogram. `head` holds besides what document.js
// says: names, documents, selected, threshold and histogram (both null without scores), phrases [[text, how often]].
const ROW = 62; // pixels, as in the style sheet
const scored = head.threshold !== null;
let listed = shown.map((_, place) => place); // places in `shown` that match the search
let open = -1; // place in `listed` of the open document
let wanted = ""; // what is searched for, in lower case

// The list: only the rows in sight exist.

function drawRows() {
  const rows = $("rows"), list = $("list");
  rows.style.height = `${listed.length * ROW}px`;
  const first = Math.max(0, Math.floor(list.scrollTop / ROW) - 4);
  const last = Math.min(listed.length, Math.ceil((list.scrollTop + list.clientHeight) / ROW) + 4);
  rows.replaceChildren();
  for (let place = first; place < last; place++) rows.append(row(place));
  if (open >= first && open < last) list.setAttribute("aria-activedescendant", `row-${open}`);
  else list.removeAttribute("aria-activedescendant");
}

function row(place) {
  const one = shown[listed[place]];
  const made = element("div", "row");
  made.id = `row-${place}`;
  made.role = "option";
  made.ariaSelected = String(place === open);
  made.ariaSetSize = listed.length;
  made.ariaPosInSet = place + 1;
  made.style.top = `${place * ROW}px`;
  const line = element("div"), bar = element("i");
  bar.style.setProperty("--share", Math.min(1, one.r));
  const share = `${number(one.k)} / ${number(one.n)}`;
  line.append(element("b", "", `#${one.i}`), bar, element("span", "", share));
  line.title = `${scored ? `R ${one.r}, ` : ""}${share} tokens selected`;
  made.append(line, snippet(one));
  made.addEventListener("click", () => show(place));
  return made;
}

// Where the selected run with the largest sum of scores (without scores: the longest) begins and ends in the text.
function strongestRun(one) {
  if (one.strongest !== undefined) return one.strongest;
  unpacked(one);
  let best = null, most = -Infinity;
  for (const [begin, end] of one.runs) {
    let weight = scored ? 0 : end - begin;
    if (scored) for (let at = begin; at < end; at++) weight += one.s[at];
    if (weight > most) [best, most] = [[begin, end], weight];
  }
  one.strongest = null;
  if (best) {
    let unit = 0, token = 0;
    const ends = { begin: 0, end: 0 };
    for (let place = 0; place < one.cut.length && token < best[1]; place++) {
      if (token <= best[0]) ends.begin = unit;
      unit += one.cut[place];
      token += one.many[place] ?? 1;
      ends.end = unit;
    }
    one.strongest = ends;
  }
  return one.strongest;
}

// One line of the document around its search hit, or its strongest run.
function snippet(one) {
  const made = element("p");
  let begin = 0, end = 0;
  const hit = wanted ? one.text.toLowerCase().indexOf(wanted) : -1;
  if (hit >= 0) [begin, end] = [hit, hit + wanted.length];
  else {
    const run = strongestRun(one);
    if (run) [begin, end] = [run.begin, Math.min(run.end, run.begin + 48)];
  }
  const flat = (from, to) => one.text.slice(from, to).replace(/\s+/g, " ");
  const from = Math.max(0, begin - 14);
  made.append((from ? "…" : "") + flat(from, begin), element("mark", "", flat(begin, end)), flat(end, end + 60));
  return made;
}

function keepInSight(place) {
  const list = $("list"), top = place * ROW;
  if (top < list.scrollTop) list.scrollTop = top;
  else if (top + ROW > list.scrollTop + list.clientHeight) list.scrollTop = top + ROW - list.clientHeight;
}

// The open document.

function show(place) {
  if (place < 0 || place >= listed.length) return;
  open = place;
  const one = shown[listed[place]];
  // what asks for sizes comes first: after the text has changed it would lay out everything once more
  keepInSight(place);
  drawRows();
  $("reader").scrollTop = 0;
  $("tip").hidden = true;
  $("title").textContent = `Document ${one.i}`;
  const facts = [`${number(one.k)} of ${plural(one.n, "token")} selected (${percent(one.k / Math.max(1, one.n))})`];
  if (scored) facts.unshift(`R ${one.r}`);
  facts.push(`number ${number(listed[place] + 1)} by toxicity`);
  if (one.shown < one.n)
    facts.push(`tokens ${number(one.f)} to ${number(one.f + one.shown - 1)} are shown`);
  $("facts").textContent = facts.join(" · ");
  drawText(one);
}

function drawText(one) {
  const all = pieces(one);
  drawTokens($("text"), one, all, hitPieces(one, all));
}

function hitPieces(one, all) {
  const hits = new Set();
  if (!wanted) return hits;
  const text = one.text.toLowerCase();
  let place = 0;
  for (let at = text.indexOf(wanted); at >= 0; at = text.indexOf(wanted, at + wanted.length)) {
    while (all[place].unit + all[place].text.length <= at) place++;
    for (let next = place; next < all.length && all[next].unit < at + wanted.length; next++) hits.add(next);
  }
  return hits;
}

// The histogram of all scores: logarithmic, those above the threshold in red.

const WIDTH = 320, HEIGHT = 86, FLOOR = 70;
const across = (score) => (WIDTH * (score - head.histogram.low)) / (head.histogram.high - head.histogram.low);

function svg(tag, attributes, text) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  if (text) made.textContent = text;
  return made;
}

function drawHistogram() {
  if (!head.histogram) return;
  const { low, high, counts } = head.histogram, most = Math.log10(1 + Math.max(...counts));
  const picture = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": `Histogram of all scores from ${low.toPrecision(3)} to ${high.toPrecision(3)}, threshold ${head.threshold.toPrecision(3)}` });
  const paths = { below: "", above: "" };
  counts.forEach((count, bin) => {
    if (!count) return;
    const height = Math.max(1.5, (60 * Math.log10(1 + count)) / most), width = WIDTH / counts.length;
    const side = low + ((bin + 1) * (high - low)) / counts.length > head.threshold ? "above" : "below";
    paths[side] += `M${(bin * width).toFixed(2)} ${FLOOR}v${-height.toFixed(2)}h${(width - 0.6).toFixed(2)}V${FLOOR}z`;
  });
  for (const [side, d] of Object.entries(paths)) picture.append(svg("path", { class: side, d }));
  const tau = across(head.threshold), onLeft = tau > WIDTH / 2;
  picture.append(
    svg("path", { class: "axis", d: `M0 ${FLOOR}H${WIDTH}` }),
    svg("path", { class: "tau", d: `M${tau} 2V${FLOOR}` }),
    svg("text", { x: tau + (onLeft ? -4 : 4), y: 10, "text-anchor": onLeft ? "end" : "start" }, `τ ${head.threshold.toPrecision(3)}`),
    svg("text", { x: 0, y: HEIGHT - 4 }, low.toPrecision(3)),
    svg("text", { x: WIDTH, y: HEIGHT - 4, "text-anchor": "end" }, high.toPrecision(3)),
    svg("path", { class: "mark", id: "mark", d: "" }),
  );
  $("histogram").querySelector("figcaption").textContent = `scores of all ${number(head.tokens)} tokens (logarithmic)`;
  $("histogram").append(picture);
  $("histogram").hidden = false;
}

function markScore(score) {
  if (head.histogram) $("mark").setAttribute("d", score === null ? "" : `M${across(score)} 6V${FLOOR + 4}`);
}

// What the mask selects most; a click searches for it.

function drawPhrases() {
  if (!head.phrases.length) return;
  const box = $("phrases");
  for (const [text, count] of head.phrases) {
    const made = element("button", "", text.replace(/\n/g, "⏎"));
    made.type = "button";
    made.title = `selected ${number(count)} times; search for it`;
    made.append(element("small", "", number(count)));
    made.addEventListener("click", () => {
      $("search").value = text.trim();
      search();
      if (listed.length) show(0);
    });
    box.querySelector("div").append(made);
  }
  box.hidden = false;
  box.open = innerWidth > 736 && innerHeight > 700;
}

// Search, theme, keys.

function search() {
  const text = $("search").value.trim().toLowerCase();
  const exact = /^#\d+$/.test(text);
  wanted = exact ? "" : text;
  const before = open >= 0 ? listed[open] : -1;
  listed = [];
  shown.forEach((one, place) => {
    if (exact ? String(one.i) === text.slice(1) : !wanted || (one.lower ??= one.text.toLowerCase()).includes(wanted))
      listed.push(place);
  });
  $("found").textContent = text ? `${number(listed.length)} of ${plural(shown.length, "document")}` : shown.length === 1 ? `1 of ${plural(head.documents, "document")}` : `${number(shown.length)} most toxic of ${plural(head.documents, "document")}`;
  open = listed.indexOf(before);
  $("list").scrollTop = 0;
  if (open >= 0) keepInSight(open);
  drawRows();
  if (open >= 0) drawText(shown[listed[open]]);
}

function setTheme(dark) {
  const { documentElement: root, styleSheets: [sheet] } = document;
  root.dataset.theme = root.style.colorScheme = dark ? "dark" : "light";
  const inTheDark = [...sheet.cssRules].find((rule) => rule instanceof CSSMediaRule); // the first rule of its kind
  inTheDark.media.mediaText = dark ? "all" : "not all";
  $("theme").textContent = dark ? "☀" : "☾";
  $("theme").ariaLabel = dark ? "Switch to light" : "Switch to dark";
}

function howSelected() {
  const { threshold, window, span, method } = head.rule;
  if (span) return `: whole ${span.startsWith("window") ? `spans (${span})` : `${span}s`}, or tokens within them`;
  if (threshold === null) return method ? ` (method: ${method})` : "";
  const near = window === 0 ? "" : window === 1 ? ", and one neighbour on each side" : `, and ${window} neighbours on each side`;
  return `: those above τ ${threshold.toPrecision(3)}${near}, until the budget is used`;
}

// A file's name says its role often enough: "mask mask" would say it twice.
function called(role, name) {
  return name.toLowerCase().includes(role) ? name : `${role} ${name}`;
}

function toggleTheme() {
  setTheme(document.documentElement.dataset.theme !== "dark");
}

function onKey(event) {
  if ($("app").hidden || event.ctrlKey || event.metaKey || event.altKey || $("help").open) return;
  if (event.target === $("search")) {
    if (event.key === "Enter" && listed.length) {
      show(0);
      $("list").focus();
    } else if (event.key === "Escape") {
      $("search").value = "";
      search();
      $("list").focus();
    } else if (event.key === "ArrowDown") {
      $("list").focus();
      if (open < 0) show(0);
    } else return;
    event.preventDefault();
    return;
  }
  const inText = $("text").contains(event.target);
  const actions = {
    j: () => show(open + 1),
    k: () => show(open - 1),
    n: () => open >= 0 && moveToken($("text"), 1, true),
    p: () => open >= 0 && moveToken($("text"), -1, true),
    ArrowRight: () => open >= 0 && moveToken($("text"), 1, false),
    ArrowLeft: () => open >= 0 && moveToken($("text"), -1, false),
    "/": () => $("search").select(),
    t: toggleTheme,
    "?": () => $("help").showModal(),
    Escape: () => point(null),
  };
  if (!inText) {
    actions.ArrowDown = actions.j; // in the text the arrows scroll
    actions.ArrowUp = actions.k;
    actions.Home = () => show(0);
    actions.End = () => show(listed.length - 1);
  }
  if (event.target === $("list")) actions.Enter = () => $("text").focus();
  const action = actions[event.key];
  if (!action) return;
  event.preventDefault();
  action();
}

function enter() {
  $("gate").hidden = true;
  $("app").hidden = false;
  drawHistogram();
  drawPhrases();
  search();
  show(0);
  $("list").focus();
}

function start() {
  const dark = matchMedia("(prefers-color-scheme: dark)");
  setTheme(dark.matches);
  dark.addEventListener("change", () => setTheme(dark.matches));
  $("about").textContent = `${number(shown.length)} of ${plural(head.documents, "document")}; ${number(head.selected)} of ${plural(head.tokens, "token")} ${head.selected === 1 ? "is" : "are"} selected (${percent(head.selected / head.tokens)}).`;
  $("names").textContent = Object.entries(head.names).map(([role, name]) => called(role, name.split("/").pop())).join("  ·  ");
  $("names").title = Object.values(head.names).join("\n");
  const legend = $("legend");
  if (scored) legend.append("Learning a token ", element("span", "p6", "red"), " raises toxicity, ", element("span", "n6", "blue"), ` lowers it; full colour at ±${head.full.toPrecision(3)}. `);
  legend.append(element("span", "sel first last", "Outlined"), ` tokens are selected by the mask${howSelected()}.`);
  $("enter").addEventListener("click", enter);
  $("enter").focus();
  $("theme").addEventListener("click", toggleTheme);
  $("help-button").addEventListener("click", () => $("help").showModal());
  $("search").addEventListener("input", search);
  $("list").addEventListener("scroll", drawRows);
  addEventListener("resize", drawRows);
  addEventListener("keydown", onKey);
  follow($("text"));
  addEventListener("pointed", (event) => markScore(event.detail));
}

start();
