// The documents are drawn when they are asked for; arrow keys walk through the tokens of the focused one.
const boxes = [...document.querySelectorAll(".tokens")];

boxes[0]?.closest("details").addEventListener("toggle", () => {
  point(null);
  for (const [place, box] of boxes.entries()) if (!box.one) drawTokens(box, shown[place]);
});

for (const box of boxes) {
  follow(box);
  box.addEventListener("blur", () => point(null));
  box.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (step) moveToken(box, step, event.shiftKey);
    else if (event.key === "Escape") point(null);
    else return;
    event.preventDefault();
  });
}
addEventListener("wheel", () => $("tip").hidden || point(null), { passive: true }); // it would stay where the token was
