// Documents as coloured tokens. `head` is about the whole dataset: tokens, full [the score of the full colour],
// graded [whether strengths differ], rule [how the mask was made, where that is known], and what the page's own script reads. Each of `shown` is a document:
//   i number, r what it was chosen by, n tokens, k selected tokens, f first token shown, shown tokens shown,
//   text, cut [UTF-16 units of each piece], many {piece: tokens, where not 1},
//   runs [[begin, end, strength] of selected tokens], s [score of each token], rank [its place among all scores],
//   planted [[begin, end, 1] of planted abuse]; s, rank and planted only where they are known.
// Long arrays are base64 of little-endian numbers and unpacked when their document is first needed.
const $ = (id) => document.getElementById(id);
const { head, shown } = JSON.parse($("data").textContent);
const SHADES = 10;

const number = (value) => value.toLocaleString("en-US");
const percent = (share) => (100 * share).toPrecision(2).replace(/\.0$/, "") + " %";
const plural = (count, word) => `${number(count)} ${word}${count === 1 ? "" : "s"}`;

function element(tag, classes = "", text = "") {
  const made = document.createElement(tag);
  if (classes) made.className = classes;
  if (text) made.textContent = text;
  return made;
}

// The numbers in base64 text, as a typed array.
function unpack(text, Type) {
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  return new Type(bytes.buffer);
}

function unpacked(one) {
  if (typeof one.cut !== "string") return one;
  one.cut = unpack(one.cut, Uint16Array);
  if (one.s) one.s = unpack(one.s, Float32Array);
  if (one.rank) one.rank = unpack(one.rank, head.tokens < 2 ** 32 ? Uint32Array : Float64Array);
  return one;
}

// A question for pieces in their order: does one of `runs` reach into the tokens from `begin` to `end`?
function reaches(runs) {
  let run = 0;
  return (begin, end) => {
    while (run < runs.length && runs[run][1] <= begin) run++;
    return run < runs.length && runs[run][0] < end;
  };
}

// Pieces of a document: text, where its tokens begin and end, the token farthest from zero, what it is marked as.
function pieces(one) {
  unpacked(one);
  const found = [], selected = reaches(one.runs), planted = reaches(one.planted ?? []);
  let unit = 0, token = 0;
  for (let place = 0; place < one.cut.length; place++) {
    const end = token + (one.many[place] ?? 1);
    let worst = token;
    if (one.s) {
      for (let at = token + 1; at < end; at++) if (Math.abs(one.s[at]) > Math.abs(one.s[worst])) worst = at;
    }
    found.push({
      text: one.text.slice(unit, unit + one.cut[place]), unit, begin: token, end, worst,
      selected: selected(token, end), planted: planted(token, end),
    });
    unit += one.cut[place];
    token = end;
  }
  return found;
}

const within = (runs, token) => runs.find(([begin, end]) => begin <= token && token < end)?.[2] ?? 0;

// Puts a document into `box`, a piece a span; `box.one` and `box.pieces` say what stands there.
// `hits` are pieces to underline.
function drawTokens(box, one, all = pieces(one), hits = new Set()) {
  box.one = one;
  box.pieces = all;
  const spans = all.map((piece, place) => {
    const made = document.createElement("span");
    const names = [];
    if (one.s) {
      const score = one.s[piece.worst];
      const shade = head.full ? Math.round(SHADES * Math.min(1, Math.abs(score) / head.full)) : 0;
      if (shade) names.push(`${score > 0 ? "p" : "n"}${shade}`);
    }
    if (piece.selected) {
      names.push("sel");
      if (!all[place - 1]?.selected) names.push("first");
      if (!all[place + 1]?.selected) names.push("last");
    }
    if (piece.planted) names.push("pl");
    if (piece.text.includes("\n")) names.push("nl");
    if (hits.has(place)) names.push("hit");
    if (names.length) made.className = names.join(" ");
    made.textContent = piece.text;
    made.place = place;
    return made;
  });
  box.replaceChildren(...spans);
}

// Where a score stands among all: of the upper half the share that is as high, of the lower the share that is lower.
function standing(rank) {
  const share = rank / head.tokens;
  return share <= 0.5 ? `top ${percent(share)}` : `higher than ${percent(1 - share)} of tokens`;
}

// Why the mask selects a token: for its own score, as a neighbour of such a one, or with its span. "" where the record
// of the mask does not say it.
function reason(one, at) {
  const rule = head.rule;
  if (!rule) return "";
  if (rule.span) return `in a selected ${rule.span.startsWith("window") ? `span (${rule.span})` : rule.span}`;
  if (rule.threshold === null || !one.s) return rule.method ? `by ${rule.method}` : "";
  if (one.s[at] > rule.threshold) return "above τ";
  for (let step = 1; step <= rule.window; step++)
    for (const near of [at - step, at + step])
      if (one.s[near] > rule.threshold && within(one.runs, near))
        return `neighbour: ${step === 1 ? "next to a token" : `${step} tokens from one`} above τ`;
  return "";
}

// What is known of one token, beside it; the event `pointed` carries its score to whoever else shows it.
function point(span) {
  const tip = $("tip"), tell = (detail) => dispatchEvent(new CustomEvent("pointed", { detail }));
  if (!span) {
    tip.hidden = true;
    tell(null);
    return;
  }
  const { one, pieces: all } = span.parentElement, piece = all[span.place];
  tip.replaceChildren(element("b", "", JSON.stringify(piece.text).slice(0, 80)));
  for (let at = piece.begin; at < piece.end; at++) {
    const facts = [];
    if (one.s) facts.push(`score ${one.s[at].toPrecision(4)}`);
    if (one.rank) facts.push(`rank ${number(one.rank[at])} of ${number(head.tokens)} (${standing(one.rank[at])})`);
    const strength = within(one.runs, at);
    const why = strength ? reason(one, at) : "";
    if (strength) facts.push(`selected${head.graded ? `, strength ${(strength / 255).toFixed(2)}` : ""}${why ? ` (${why})` : ""}`);
    else facts.push("not selected");
    if (one.planted && within(one.planted, at)) facts.push("planted");
    tip.append(element("div", "", facts.join(" · ")));
  }
  tip.hidden = false;
  const place = span.getClientRects()[0] ?? span.getBoundingClientRect();
  // below: what stands above a document's first line, such as the legend, stays in sight
  const above = place.top - tip.offsetHeight - 8, below = place.bottom + 8;
  tip.style.top = `${below + tip.offsetHeight <= innerHeight - 4 || above < 4 ? below : above}px`;
  tip.style.left = `${Math.max(8, Math.min(place.left, innerWidth - tip.offsetWidth - 12))}px`;
  tell(one.s ? one.s[piece.worst] : null);
}

function pick(box, span) {
  box.querySelector(".at")?.classList.remove("at");
  span.classList.add("at");
  span.scrollIntoView({ block: "nearest" });
  point(span);
}

// To the next token (`step` 1) or the one before it (-1).
function moveToken(box, step, onlySelected) {
  const spans = box.children, now = box.querySelector(".at");
  let place = now ? now.place : step > 0 ? -1 : spans.length;
  do place += step;
  while (onlySelected && spans[place] && !spans[place].classList.contains("sel"));
  if (spans[place]) pick(box, spans[place]);
}

// The tokens in `box` answer to the pointer.
function follow(box) {
  const token = (event) => (event.target.parentElement === box ? event.target : null);
  box.addEventListener("pointerover", (event) => point(token(event)));
  box.addEventListener("pointerleave", () => point(null));
  box.addEventListener("click", (event) => token(event) && pick(box, token(event)));
}
