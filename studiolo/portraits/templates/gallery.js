/* The pages are complete without this: it adds a larger view of a picture and a filter over people. */
"use strict";
(() => {
  const box = document.querySelector("dialog.lightbox");
  const caption = box.querySelector("figcaption");
  const image = document.createElement("img");
  let group = [];
  let place = 0;

  const show = (index) => {
    place = (index + group.length) % group.length;
    const link = group[place];
    image.src = link.href;
    image.alt = link.querySelector("img").alt;
    caption.before(image);
    caption.textContent = link.dataset.caption;
  };

  document.addEventListener("click", (event) => {
    const link = event.target.closest("a.zoom");
    if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    group = [...document.querySelectorAll("a.zoom")].filter((item) => item.dataset.group === link.dataset.group);
    box.querySelector(".turn").hidden = group.length < 2;
    show(group.indexOf(link));
    box.showModal();
  });
  box.querySelector(".previous").addEventListener("click", () => show(place - 1));
  box.querySelector(".next").addEventListener("click", () => show(place + 1));
  box.addEventListener("keydown", (event) => {
    if (event.key === "ArrowLeft") show(place - 1);
    if (event.key === "ArrowRight") show(place + 1);
  });
  box.addEventListener("click", (event) => {
    if (event.target === box || event.target.tagName === "FIGURE") box.close();
  });
  box.addEventListener("close", () => group[place].focus());

  const filter = document.querySelector("#filter");
  if (filter) {
    filter.closest("p").hidden = false;
    const list = document.querySelector(".cards");
    const cards = [...list.children];
    filter.addEventListener("input", () => {
      const wanted = filter.value.trim().toLowerCase();
      // Out of the layout while cards change: hiding 10,000 one by one took a browser 20 seconds.
      list.hidden = true;
      list.getBoundingClientRect();
      for (const card of cards) card.hidden = !card.querySelector(".name").textContent.toLowerCase().includes(wanted);
      list.hidden = false;
    });
  }
})();
