"use strict";
// Makes the items of the page from the job's data: one for each image, and one for each request without any. Images in
// whose place others were made are items, too, and shown only where they are asked for.

const data = JSON.parse(document.getElementById("data").textContent);

const items = data.requests.flatMap((request, place) => {
  const words = [request.id, request.prompt, ...Object.values(request.variables), ...request.images.map((one) => one.revised_prompt)];
  const text = words.filter((word) => word !== null && word !== undefined).join("\n").toLowerCase();
  const current = (request.images.length ? request.images : [null]).map((image) => ({ request, place, image, text, replaced: false }));
  return [...current, ...request.replaced.map((image) => ({ request, place, image, text, replaced: true }))];
});
items.forEach((item, index) => { item.index = index; });

/** A path of the ledger, such as images/a.png → an address that can only lie below the page's folder. */
function address(file) {
  return file.split("/").filter((part) => part !== ".." && part !== ".").map(encodeURIComponent).join("/");
}

/** The address of an image itself; of what stands in for it if it is in an object store that nobody may read. */
function largeAddress(image) {
  return image.address?.includes("://") ? image.address : address(image.address || image.file);
}

function smallAddress(image) {
  return image.format === "svg" ? largeAddress(image) : `thumbnails/${encodeURIComponent(image.sha256)}.webp`;
}

function title(item) {
  return item.request.prompt || item.request.id;
}

/** A flag of an image as people read it. */
function flagWord(flag) {
  return flag.replace("_", " ");
}

function shown(value) {
  return typeof value === "string" ? value : JSON.stringify(value);
}

/** An amount of money as `reports/facts.py` writes it. */
function money(usd) {
  return `$${usd > 0 && usd < 1 ? usd.toFixed(4).replace(/0{1,2}$/, "") : usd.toFixed(2)}`;
}

/** How many images and how many requests without one these items are: what every count of the page is written with. */
function contents(some) {
  const images = some.filter((item) => item.image).length;
  const without = some.length - images;
  return [(images || !without) && counted(images, "image"), without && `${counted(without, "request")} without an image`].filter(Boolean).join(", ");
}

function duration(seconds) {
  return seconds < 90 ? `${seconds.toFixed(1)} s` : `${(seconds / 60).toFixed(1)} min`;
}

function say(sentence) {
  document.getElementById("said").textContent = sentence;
}

/** What requests can be grouped by: [name, what gives a request's value], in the order of the data. */
const axes = (() => {
  const values = new Map();
  const count = (kind, name, value) => {
    const key = `${kind}:${name}`;
    if (!values.has(key)) values.set(key, { kind, name, key, distinct: new Set(), requests: 0 });
    values.get(key).distinct.add(shown(value));
    values.get(key).requests += 1;
  };
  for (const request of data.requests) {
    for (const [name, value] of Object.entries(request.variables)) count("variables", name, value);
    for (const [name, value] of Object.entries(request.params)) count("params", name, value);
    count("request", "operation", request.operation);
    count("request", "status", request.status);
  }
  return [...values.values()].filter((axis) => axis.kind === "variables" || axis.distinct.size > 1);
})();

function valueOf(axis, request) {
  const values = axis.kind === "request" ? request : request[axis.kind];
  return Object.hasOwn(values, axis.name) ? values[axis.name] : undefined; // a variable may be called `constructor`
}
