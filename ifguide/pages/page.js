// Arrow keys walk through the tokens of a focused document; the readout tells the score.
"use strict";
const readout = document.querySelector(".readout");

function show(tokens, token) {
  tokens.querySelector(".at")?.classList.remove("at");
  token.classList.add("at");
  token.scrollIntoView({ block: "nearest" });
  const notes = [["sel", "selected"], ["pl", "planted"]].filter(([name]) => token.classList.contains(name));
  readout.textContent = [JSON.stringify(token.textContent), `score ${token.title}`, ...notes.map((note) => note[1])].join(" · ");
  readout.hidden = false;
}

for (const tokens of document.querySelectorAll(".tokens")) {
  tokens.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    event.preventDefault();
    let place = [...tokens.children].indexOf(tokens.querySelector(".at"));
    if (place < 0 && step < 0) place = tokens.children.length;
    do place += step;
    while (event.shiftKey && tokens.children[place] && !tokens.children[place].classList.contains("sel"));
    if (tokens.children[place]) show(tokens, tokens.children[place]);
  });
  tokens.addEventListener("click", (event) => {
    if (event.target.parentElement === tokens) show(tokens, event.target);
  });
}
