"use strict";
// Shows the items that a person chooses, in their order and groups, and handles the keyboard.

const field = (id) => document.getElementById(id);
const STATUSES = Object.entries(data.counts).filter(([, many]) => many);
const CURRENT = STATUSES.filter(([status]) => status !== "superseded");
const WORDS = { superseded: "replaced or removed" };
const sum = (statuses) => statuses.reduce((all, [, many]) => all + many, 0);

function head() {
  const facts = [
    ["images", number(data.images)],
    data.superseded_images && ["images of replaced or removed requests", number(data.superseded_images)],
    ["requests", number(sum(CURRENT))],
    data.counts.failed && ["requests failed", number(data.counts.failed), "bad"],
    data.counts.partial && ["requests partial", number(data.counts.partial), "bad"],
    data.unfinished && ["requests still queued", number(data.unfinished)],
    ...data.spent,
  ].filter(Boolean);
  field("facts").append(...facts.map(([name, value, kind]) =>
    element("div", { class: kind }, element("dt", {}, name), element("dd", {}, value))));
  field("about").textContent = `Made by ${data.provider}. Written ${moment(data.written_at)}.`;
  if (data.batches) {
    field("queued").append(`${data.batches}; to collect them, type: `, command(data.commands.run));
    field("queued").hidden = false;
  } else if (data.unfinished) {
    field("queued").append(`${counted(data.unfinished, "request")} still queued; to continue, type: `, command(data.commands.run));
    field("queued").hidden = false;
  }
  if (data.left_out) {
    field("left-out").textContent = `${counted(data.left_out, "more request")} would make this page too large for a browser; the manifest has them all.`;
    field("left-out").hidden = false;
  }
}

function stops() {
  field("stops").hidden = !data.stops?.length;
  field("stop-list").replaceChildren(...(data.stops || []).map(stopItem));
}

function failures() {
  if (!data.causes.length) return;
  const { failed, partial } = data.counts;
  const said = [failed && `${counted(failed, "request")} failed`, partial && `${counted(partial, "request")} came back partial`];
  const typed = data.causes.some((cause) => cause.commands.length);
  field("failures").append(
    element("h2", { id: "failures-title" }, said.filter(Boolean).join(", ")),
    typed && data.commands.folder ? element("p", {}, "The commands are for the folder ", element("code", {}, data.commands.folder)) : "",
    element("ul", { class: "causes" }, data.causes.map(cause)));
  field("failures").hidden = false;
}

function cause({ title: name, count: many, message, advice, commands, requests }) {
  return element("li", {},
    element("h3", {}, element("b", {}, `${number(many)} × `), name),
    message && element("p", { dir: "auto" }, message),
    element("p", { class: "advice" }, advice),
    commands.map(command),
    element("details", {}, element("summary", {}, many === 1 ? "Which one" : "Which ones"),
      element("ul", {}, requests.slice(0, 500).map((place) => {
        const { id, prompt } = data.requests[place];
        return element("li", { dir: "auto" }, element("code", {}, id), prompt ? ` ${prompt}` : null);
      })),
      many > 500 ? element("p", {}, `and ${number(many - 500)} more`) : null));
}

const ORDERS = {
  job: ["Job order", () => 0],
  id: ["Id", (a, b) => a.request.id.localeCompare(b.request.id, undefined, { numeric: true })],
  cost: ["Cost, highest first", (a, b) => (b.request.cost_usd ?? -1) - (a.request.cost_usd ?? -1)],
  newest: ["Newest first", (a, b) => (b.request.finished_at ?? 0) - (a.request.finished_at ?? 0)],
  slowest: ["Slowest first", (a, b) => (b.request.seconds ?? -1) - (a.request.seconds ?? -1)],
  attempts: ["Most attempts first", (a, b) => b.request.attempts - a.request.attempts],
};

const TOUCH = matchMedia("(hover: none)"); // as in the style sheet
const MARKS = { "": "Any", accept: "Accepted", reject: "Rejected", none: "Not marked" };

const FLAGS = ["blank", "duplicate", "wrong_size", "wrong_format"];

/** What the filter of images shows: those that count, those with a flag, or those made again beside the old ones. */
function isShown(item) {
  const flag = field("flag").value;
  if (flag === "replaced") return item.request.replaced.length > 0;
  return !item.replaced && (!flag || Boolean(item.image?.flags.includes(flag)));
}

function flagChoices() {
  const found = FLAGS.map((flag) => [flag, flagWord(flag), items.filter((item) => !item.replaced && item.image?.flags.includes(flag)).length]);
  found.push(["replaced", "made again, and the old ones", items.filter((item) => item.request.replaced.length).length]);
  const options = found.filter(([, , many]) => many).map(([value, text, many]) => new Option(`${text} (${number(many)})`, value));
  field("flag").append(new Option("all", ""), ...options);
  field("flag-label").hidden = !options.length;
}

function choices() {
  flagChoices();
  field("status").append(new Option(`all (${number(sum(CURRENT))})`, ""),
    ...STATUSES.map(([status, many]) => new Option(`${WORDS[status] || status} (${number(many)})`, status)));
  field("marked").append(...Object.entries(MARKS).map(([value, text]) => new Option(text, value)));
  field("sort").append(...Object.entries(ORDERS).map(([value, [text]]) => new Option(text, value)));
  field("size").append(...Object.entries(tiles.SIZES).map(([value, { text }]) => new Option(text, value)));
  field("size").value = tiles.size;
  field("group").append(new Option("Nothing", ""));
  for (const [kind, text] of [["variables", "Variables"], ["params", "Parameters"], ["request", "Request"]]) {
    const found = axes.filter((axis) => axis.kind === kind);
    if (found.length) field("group").append(element("optgroup", { label: text }, found.map((axis) => new Option(axis.name, axis.key))));
  }
  const likely = axes.find((axis) => axis.kind === "variables" && axis.distinct.size > 1 && axis.distinct.size <= 40
    && axis.distinct.size < axis.requests && axis.requests * 2 > data.requests.length); // most have it, and share its values
  field("group").value = likely ? likely.key : "";
}

/** The items of the chosen requests, before words and marks are asked for. */
function candidates() {
  const status = field("status").value;
  return items.filter((item) => (status ? item.request.status === status : item.request.status !== "superseded") && isShown(item));
}

function wanted(some) {
  const words = field("search").value.toLowerCase().split(/\s+/).filter(Boolean);
  const marked = field("marked").value;
  return some.filter((item) => (!marked || (item.image && (picks.of(item) || "none") === marked))
    && words.every((word) => item.text.includes(word)));
}

function grouped(found) {
  const axis = axes.find((one) => one.key === field("group").value);
  if (!axis) return found.length ? [{ title: null, items: found }] : [];
  const groups = new Map([...axis.distinct].map((value) => [value, []])); // in the order of the job, however sorted
  const without = [];
  for (const item of found) {
    const value = valueOf(axis, item.request);
    (value === undefined ? without : groups.get(shown(value))).push(item);
  }
  const all = [...groups].map(([value, members]) => ({ title: value || "(empty)", items: members }));
  if (without.length) all.push({ title: `without ${axis.name}`, items: without });
  return all.filter((group) => group.items.length);
}

function apply() {
  const all = candidates();
  const found = wanted(all).sort(ORDERS[field("sort").value][1]);
  const groups = grouped(found);
  tiles.show(groups);
  field("count").textContent = found.length === all.length ? contents(all) : `${contents(found)}, of ${contents(all)}`;
  field("none").hidden = found.length > 0;
  field("jump-label").hidden = groups.length < 2;
  field("jump").replaceChildren(new Option("choose …", ""), ...groups.map((group, place) => new Option(`${group.title} (${number(group.items.length)})`, place)));
}

function count() {
  const many = picks.lines().length;
  field("save").disabled = many === 0;
  field("save").textContent = many ? `Save picks.jsonl (${number(many)})` : "Save picks.jsonl";
  field("compare").disabled = comparison.many < 2;
  field("compare").textContent = comparison.many ? `Compare (${number(comparison.many)})` : "Compare";
  const rejected = items.filter((item) => picks.of(item) === "reject").length;
  field("redo").hidden = !rejected;
  field("redo").replaceChildren(`To make ${counted(rejected, "rejected image")} again, save picks.jsonl and type, where it is:`, command(data.commands.redo));
  field("marks-made").textContent = many ? `${counted(many, "image")} marked` : TOUCH.matches ? "mark images first" : "mark images with a or x first";
}

function toTop() {
  scrollTo(0, 0);
  field("search").focus({ preventScroll: true });
}

function pressed(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const typing = event.target instanceof Element && event.target.matches("input, select, textarea");
  const mark = { a: "accept", x: "reject" }[event.key.toLowerCase()];
  if (comparison.isOpen) return;
  if (large.item) {
    if (mark) picks.mark(large.item, mark);
    else if (event.key === "c") comparison.toggle(large.item);
    return;
  }
  if (event.key === "Escape" && event.target === field("search") && field("search").value) {
    field("search").value = "";
    apply();
    return;
  }
  if (typing) return;
  const item = event.target instanceof Element && event.target.closest(".tile") ? event.target.closest(".tile").item : null;
  const next = item && { ArrowLeft: () => tiles.step(item, -1), ArrowRight: () => tiles.step(item, 1), Home: () => tiles.order[0],
    End: () => tiles.order.at(-1), ArrowUp: () => tiles.vertical(item, false), ArrowDown: () => tiles.vertical(item, true) }[event.key];
  if (next) tiles.focus(next());
  else if (event.key === "/") field("search").focus();
  else if (event.key === "t") toTop();
  else if (mark && item) picks.mark(item, mark);
  else if (event.key === "c" && item) comparison.toggle(item);
  else if (event.key.startsWith("Arrow") && document.activeElement === document.body) tiles.focus(tiles.current);
  else return;
  event.preventDefault();
}

head();
stops();
failures();
choices();
count();
apply();

let typed = 0;
field("tools").addEventListener("submit", (event) => event.preventDefault());
field("search").addEventListener("input", () => { clearTimeout(typed); typed = setTimeout(apply, 120); });
for (const id of ["status", "marked", "flag", "group", "sort"]) field(id).addEventListener("change", apply);
field("jump").addEventListener("change", () => {
  if (field("jump").value) tiles.jump(Number(field("jump").value));
  field("jump").value = ""; // so that the same group can be chosen again
});
field("size").addEventListener("change", () => tiles.resize(field("size").value));
field("top").addEventListener("click", toTop);
new IntersectionObserver(([seen]) => { field("top").hidden = seen.isIntersecting; }).observe(document.querySelector(".head"));
new ResizeObserver(() => { // what is scrolled to must not lie under the tools
  const covers = getComputedStyle(field("tools")).position === "sticky" ? field("tools").offsetHeight : 0;
  document.documentElement.style.scrollPaddingTop = `${covers + 16}px`;
}).observe(field("tools"));
field("clear").addEventListener("click", () => {
  for (const id of ["search", "status", "marked", "flag"]) field(id).value = "";
  apply();
  field("search").focus();
});
field("save").addEventListener("click", picks.save);
field("compare").addEventListener("click", comparison.open);
tiles.gallery.addEventListener("click", (event) => {
  const tile = event.target.closest(".tile");
  if (!tile) return;
  const button = event.target.closest(".mark");
  if (button?.matches(".compare")) comparison.toggle(tile.item);
  else if (button) picks.mark(tile.item, button.classList.contains("accept") ? "accept" : "reject");
  else if (event.target.closest(".open")) large.open(tile.item);
});
document.addEventListener("marked", count);
document.addEventListener("copied", () => say("Copied"));
document.addEventListener("keydown", pressed);

const linked = new URLSearchParams(`file=${location.hash.slice(1)}`).get("file"); // an image that the live page links to
const opened = linked && tiles.order.find((item) => item.image?.file === linked);
if (opened) large.open(opened);
