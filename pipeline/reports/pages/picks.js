"use strict";
// Marks of a person, kept by the browser for this page → picks.jsonl.

const picks = (() => {
  const place = `image-batch-pipeline picks ${location.pathname}`; // pages of one disk share the browser's store
  const marks = new Map();
  const name = (item) => `${item.image.file} ${item.image.sha256}`; // an image that was generated again must be marked again
  try {
    for (const [key, mark] of Object.entries(JSON.parse(localStorage.getItem(place)) || {})) marks.set(key, mark);
  } catch { /* a browser that keeps nothing for pages from the disk: marks last as long as the page is open */ }

  function mark(item, wanted) {
    if (!item.image || item.replaced) return;
    if (marks.get(name(item)) === wanted) marks.delete(name(item));
    else marks.set(name(item), wanted);
    try {
      localStorage.setItem(place, JSON.stringify(Object.fromEntries(marks)));
    } catch { /* as above */ }
    const now = of(item);
    say(now ? `${now === "accept" ? "Accepted" : "Rejected"}: ${title(item)}` : `No mark: ${title(item)}`);
    document.dispatchEvent(new CustomEvent("marked", { detail: item }));
  }

  function of(item) {
    return item.image && !item.replaced ? marks.get(name(item)) || null : null;
  }

  function lines() {
    return items.filter(of).map((item) => `${JSON.stringify({
      id: item.request.id, file: item.image.file, sha256: item.image.sha256, mark: of(item),
    })}\n`);
  }

  function save() {
    const url = URL.createObjectURL(new Blob(lines(), { type: "application/jsonl" }));
    element("a", { href: url, download: "picks.jsonl" }).click();
    setTimeout(() => URL.revokeObjectURL(url), 60000);
  }

  return { mark, of, lines, save };
})();
