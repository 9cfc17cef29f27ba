"use strict";
(() => {
  const find = document.getElementById("find");
  if (!find) return;
  const cards = [...document.querySelectorAll(".cards > li")];
  const boxes = [...document.querySelectorAll("[data-filter]")];
  const show = () => {
    const word = find.value.toLowerCase();
    const kinds = new Set(boxes.filter((box) => box.checked).map((box) => box.dataset.filter));
    let count = 0;
    for (const card of cards) {
      card.hidden = !kinds.has(card.dataset.trust) || !card.textContent.toLowerCase().includes(word);
      count += !card.hidden;
    }
    document.getElementById("found").textContent = count === cards.length ? "" : `${count} of ${cards.length}`;
  };
  for (const one of [find, ...boxes]) one.addEventListener("input", show);
  show();
})();
