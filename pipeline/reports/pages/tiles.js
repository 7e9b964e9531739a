"use strict";
// Groups of items → a grid in chunks: the height of each is known at once, and it is filled when it comes near.

const tiles = (() => {
  const CHUNK = 60; // tiles, about: filled at once, and left out of layout while far away
  const SIZES = { // rem of a tile's side, and columns, at least
    small: { text: "Small", rem: 8, columns: 3 },
    medium: { text: "Medium", rem: 13, columns: 2 },
    large: { text: "Large", rem: 20, columns: 1 },
  };
  const KEPT = "image-batch-pipeline tiles"; // the browser's store: one size for every report
  const gallery = document.getElementById("gallery");
  const made = new Map(); // item → its tile
  let order = []; // the items as they are shown
  let places = new Map(); // item → { chunk, group }
  let waiting = new Set(); // chunks that are not filled yet
  let current = null; // the item that Tab reaches
  let columns = 0;
  let groups = [];
  let size = "medium";
  try {
    size = Object.hasOwn(SIZES, localStorage.getItem(KEPT)) ? localStorage.getItem(KEPT) : size;
  } catch { /* a browser that keeps nothing for pages from the disk */ }
  const watcher = new IntersectionObserver(
    (seen) => seen.forEach((one) => one.isIntersecting && fill(one.target)), { rootMargin: "1500px" });

  function measure() {
    const rem = parseFloat(getComputedStyle(document.documentElement).fontSize);
    const width = gallery.clientWidth;
    const gap = (width < 30 * rem ? 0.75 : 1.25) * rem;
    const fits = Math.max(SIZES[size].columns, Math.floor((width + gap) / (SIZES[size].rem * rem + gap)));
    const side = (width - (fits - 1) * gap) / fits;
    gallery.style.setProperty("--columns", fits);
    gallery.style.setProperty("--gap", `${gap}px`);
    gallery.style.setProperty("--side", `${side}px`);
    gallery.style.setProperty("--row", `${Math.ceil(side + 4.5 * rem)}px`);
    return fits;
  }

  function show(wanted) {
    groups = wanted;
    columns = measure();
    order = groups.flatMap((group) => group.items);
    places = new Map();
    waiting = new Set();
    watcher.disconnect();
    gallery.replaceChildren(...groups.map(section));
    waiting.forEach((chunk) => watcher.observe(chunk));
    if (!places.has(current)) reach(order[0]);
    fillFirst();
    fillIdly();
  }

  function section(group) {
    const name = group.title === null ? null : element("h2", {}, element("span", { class: "name", dir: "auto" }, group.title),
      element("span", { class: "many" }, contents(group.items)));
    const many = columns * Math.ceil(CHUNK / columns);
    const chunks = [];
    for (let first = 0; first < group.items.length; first += many) {
      const part = group.items.slice(first, first + many);
      const chunk = element("div", { class: "chunk", role: "list" });
      chunk.style.setProperty("--rows", Math.ceil(part.length / columns));
      part.forEach((item, offset) => places.set(item, { chunk, group, at: first + offset }));
      chunk.items = part;
      waiting.add(chunk);
      chunks.push(chunk);
    }
    return element("section", { class: "group" }, name, chunks);
  }

  function fill(chunk) {
    if (!waiting.delete(chunk)) return;
    watcher.unobserve(chunk);
    chunk.append(...chunk.items.map((item) => made.get(item) || make(item)));
  }

  /** What is seen first stands there before the page is drawn. */
  function fillFirst() {
    let filled = 0;
    for (const chunk of [...waiting]) {
      if (filled >= CHUNK) return;
      fill(chunk);
      filled += chunk.items.length;
    }
  }

  function fillIdly() {
    const these = waiting;
    (window.requestIdleCallback || setTimeout)(() => {
      const [next] = these;
      if (next === undefined || these !== waiting) return; // all are filled, or others are shown by now
      fill(next);
      fillIdly();
    });
  }

  function make(item) {
    const open = element("button", { type: "button", class: "open", tabindex: item === current ? 0 : -1, "aria-label": label(item) },
      item.image ? small(item) : word(item));
    const tile = element("div", { class: "tile", role: "listitem" }, open,
      item.image && badges(item).length > 0 && element("div", { class: "badges", "aria-hidden": "true" }, badges(item).map((text) => element("span", {}, text))),
      item.image && element("div", { class: "marks" }, !item.replaced && [markButton(item, "accept"), markButton(item, "reject")].flat(),
        element("button", { type: "button", class: "mark compare", tabindex: -1, "aria-label": `Compare ${title(item)}`, title: "Compare (c)" }, "◫")),
      element("div", { class: "caption", dir: "auto", "aria-hidden": "true" }, title(item)));
    tile.item = item;
    made.set(item, tile);
    draw(item);
    return tile;
  }

  function small(item) {
    const image = element("img", { alt: title(item), loading: "lazy", decoding: "async", src: smallAddress(item.image) });
    image.onerror = () => { // no thumbnail: show the image itself; if that is missing too, say so
      image.onerror = () => image.replaceWith(element("span", { class: "word missing" }, "the file is missing"));
      image.src = largeAddress(item.image);
    };
    return image;
  }

  function word(item) {
    return element("span", { class: `word ${item.request.status}` }, item.request.status);
  }

  function markButton(item, mark) {
    const does = mark === "accept" ? "Accept" : "Reject";
    return element("button", { type: "button", class: `mark ${mark}`, tabindex: -1, "aria-label": `${does} ${title(item)}`,
      title: `${does} (${mark === "accept" ? "a" : "x"})` }, mark === "accept" ? "✓" : "✕");
  }

  function badges(item) {
    return [item.replaced && "replaced", ...item.image.flags.map(flagWord)].filter(Boolean);
  }

  function label(item) {
    const mark = picks.of(item);
    const words = item.image ? badges(item) : [item.request.status];
    return [title(item), ...words, mark && `${mark}ed`, comparison.has(item) && "to compare"].filter(Boolean).join(", ");
  }

  function draw(item) {
    const tile = made.get(item);
    if (!tile) return;
    const mark = picks.of(item);
    if (mark) tile.dataset.mark = mark;
    else delete tile.dataset.mark;
    tile.toggleAttribute("data-compared", comparison.has(item));
    for (const button of tile.querySelectorAll(".mark")) {
      button.setAttribute("aria-pressed", String(button.matches(".compare") ? comparison.has(item) : button.classList.contains(mark)));
    }
    tile.querySelector(".open").setAttribute("aria-label", label(item));
  }

  /** Make an item the one that Tab reaches. */
  function reach(item) {
    made.get(current)?.querySelector(".open").setAttribute("tabindex", -1);
    current = item;
    made.get(current)?.querySelector(".open").setAttribute("tabindex", 0);
  }

  /** Reach an item, and bring it into view. */
  function focus(item) {
    if (!item || !places.has(item)) return;
    fill(places.get(item).chunk);
    reach(item);
    made.get(item).querySelector(".open").focus({ preventScroll: true });
    made.get(item).scrollIntoView({ block: "nearest" });
  }

  /** The item a row above or below, in the same column as far as there is one; groups are crossed. */
  function vertical(item, down) {
    const { group, at } = places.get(item);
    const inside = group.items[at + (down ? columns : -columns)];
    if (inside) return inside;
    const rows = Math.floor((group.items.length - 1) / columns);
    if (down && Math.floor(at / columns) < rows) return group.items.at(-1);
    const other = groups[groups.indexOf(group) + (down ? 1 : -1)];
    if (!other) return null;
    const start = down ? 0 : Math.floor((other.items.length - 1) / columns) * columns;
    return other.items[Math.min(start + (at % columns), other.items.length - 1)];
  }

  function resize(name) {
    size = name;
    try {
      localStorage.setItem(KEPT, name);
    } catch { /* as above */ }
    show(groups);
  }

  /** Bring a group to the top of what is seen, and make its first item the one that Tab reaches. */
  function jump(place) {
    const [first] = groups[place].items;
    fill(places.get(first).chunk);
    reach(first);
    made.get(first).querySelector(".open").focus({ preventScroll: true });
    gallery.children[place].scrollIntoView({ block: "start" });
  }

  function step(item, by) {
    return order[order.indexOf(item) + by] || null;
  }

  document.addEventListener("marked", (event) => draw(event.detail));
  new ResizeObserver(() => {
    if (measure() !== columns && groups.length) show(groups);
  }).observe(gallery);

  return { SIZES, show, focus, vertical, step, resize, jump, gallery, get size() { return size; }, get order() { return order; }, get current() { return current; } };
})();
