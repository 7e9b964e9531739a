"use strict";
// Compares two to four images side by side: one zoom and one place for all of them.

const comparison = (() => {
  const MOST = 4;
  const LARGEST = 32; // times the size at which an image fits
  const chosen = new Set();
  const dialog = document.getElementById("comparison");
  const panes = document.getElementById("panes");
  let shown = []; // { item, pane, image }
  let zoom = 1; // 1: each image is as large as its pane
  let at = { x: 0.5, y: 0.5 }; // which point of every image is in the middle of its pane, from 0 to 1
  let dragged = null;

  /** Choose an image to compare, or no longer. */
  function toggle(item) {
    if (!item.image) return;
    if (chosen.has(item)) chosen.delete(item);
    else if (chosen.size === MOST) {
      say(`${MOST} images are compared at most`);
      return;
    } else chosen.add(item);
    say(`${counted(chosen.size, "image")} to compare`);
    document.dispatchEvent(new CustomEvent("marked", { detail: item }));
  }

  function open() {
    if (chosen.size < 2 || dialog.open) return;
    zoom = 1;
    at = { x: 0.5, y: 0.5 };
    shown = [...chosen].map(make);
    panes.replaceChildren(...shown.map(({ pane }) => pane));
    panes.dataset.many = shown.length;
    dialog.showModal();
    place();
  }

  function make(item) {
    const image = element("img", { alt: title(item), src: largeAddress(item.image), draggable: "false" });
    const seen = element("div", { class: "seen", tabindex: 0, "aria-label": `${title(item)}: ${item.image.file}` }, image);
    image.onload = place;
    image.onerror = () => image.replaceWith(element("span", { class: "word missing" }, "the file is missing"));
    const caption = element("figcaption", { dir: "auto" }, element("span", {}, captionOf(item)), marks(item));
    const pane = element("figure", { class: "pane" }, seen, caption);
    pane.item = item;
    return { item, pane, seen, image };
  }

  function captionOf(item) {
    return [item.image.file.replace(/^images\//, ""), item.replaced && "replaced", ...item.image.flags.map(flagWord)].filter(Boolean).join(" · ");
  }

  function marks(item) {
    if (item.replaced) return null;
    return ["accept", "reject"].map((mark) => element("button", { type: "button", class: `button ${mark}`, "data-mark": mark,
      "aria-pressed": String(picks.of(item) === mark), click: () => picks.mark(item, mark) }, mark === "accept" ? "Accept" : "Reject"));
  }

  /** Put the same point of every image into the middle of its pane, at the same zoom. */
  function place() {
    for (const { item, seen, image } of shown) {
      const [width, height] = [image.naturalWidth || item.image.width || 1, image.naturalHeight || item.image.height || 1];
      const scale = Math.min(seen.clientWidth / width, seen.clientHeight / height) * zoom;
      image.style.width = `${width * scale}px`;
      image.style.height = `${height * scale}px`;
      image.style.transform = `translate(${seen.clientWidth / 2 - at.x * width * scale}px, ${seen.clientHeight / 2 - at.y * height * scale}px)`;
    }
    document.getElementById("zoom").textContent = `${Math.round(zoom * 100)} %`;
  }

  /** Zoom, so that the point of the images that is `from` the middle of a pane, in pixels, stays where it is. */
  function zoomBy(factor, image, from = { x: 0, y: 0 }) {
    const next = Math.min(LARGEST, Math.max(1, zoom * factor));
    const { width, height } = (image || shown[0].image).getBoundingClientRect();
    const grown = next / zoom;
    if (width && height) moveTo(at.x + (from.x / width) * (1 - 1 / grown), at.y + (from.y / height) * (1 - 1 / grown));
    zoom = next;
    if (zoom === 1) at = { x: 0.5, y: 0.5 };
    place();
  }

  function moveTo(x, y) {
    at = { x: Math.min(1, Math.max(0, x)), y: Math.min(1, Math.max(0, y)) };
  }

  function paneOf(event) {
    return shown.find(({ seen }) => seen.contains(event.target));
  }

  panes.addEventListener("wheel", (event) => {
    const pane = paneOf(event);
    if (!pane) return;
    event.preventDefault();
    const box = pane.seen.getBoundingClientRect();
    const from = { x: event.clientX - box.left - box.width / 2, y: event.clientY - box.top - box.height / 2 };
    zoomBy(Math.exp(-event.deltaY / 300), pane.image, from);
  }, { passive: false });
  panes.addEventListener("pointerdown", (event) => {
    const pane = paneOf(event);
    if (!pane || event.button !== 0) return;
    dragged = { x: event.clientX, y: event.clientY, image: pane.image, at };
    pane.seen.setPointerCapture(event.pointerId);
  });
  panes.addEventListener("pointermove", (event) => {
    if (!dragged) return;
    const { width, height } = dragged.image.getBoundingClientRect();
    if (!width || !height) return;
    moveTo(dragged.at.x - (event.clientX - dragged.x) / width, dragged.at.y - (event.clientY - dragged.y) / height);
    place();
  });
  for (const end of ["pointerup", "pointercancel"]) panes.addEventListener(end, () => { dragged = null; });
  dialog.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const step = 0.1 / zoom;
    const does = { "+": () => zoomBy(1.5), "=": () => zoomBy(1.5), "-": () => zoomBy(1 / 1.5), 0: () => zoomBy(0),
      ArrowLeft: () => moveTo(at.x - step, at.y), ArrowRight: () => moveTo(at.x + step, at.y),
      ArrowUp: () => moveTo(at.x, at.y - step), ArrowDown: () => moveTo(at.x, at.y + step) }[event.key];
    const mark = { a: "accept", x: "reject" }[event.key.toLowerCase()];
    const pane = document.activeElement?.closest(".pane");
    if (does) {
      does();
      place();
    } else if (mark && pane && !pane.item.replaced) picks.mark(pane.item, mark);
    else return;
    event.preventDefault();
  });
  dialog.addEventListener("close", () => {
    shown = [];
    panes.replaceChildren();
  });
  for (const [id, does] of [["zoom-in", () => zoomBy(1.5)], ["zoom-out", () => zoomBy(1 / 1.5)], ["zoom-fit", () => zoomBy(0)],
    ["compare-close", () => dialog.close()]]) document.getElementById(id).addEventListener("click", does);
  new ResizeObserver(place).observe(panes);
  document.addEventListener("marked", (event) => {
    const pane = shown.find(({ item }) => item === event.detail)?.pane;
    for (const button of pane ? pane.querySelectorAll("[data-mark]") : []) {
      button.setAttribute("aria-pressed", String(picks.of(event.detail) === button.dataset.mark));
    }
  });

  return { toggle, open, has: (item) => chosen.has(item), clear: () => [...chosen].forEach(toggle),
    get many() { return chosen.size; }, get isOpen() { return dialog.open; } };
})();
