"use strict";
// Shows the server's events on the page. All text from prompts, jobs and servers is written as text, never as markup.

const field = (id) => document.getElementById(id);
const formToken = document.querySelector("meta[name=form-token]").content;
const NEWEST = 24;

if (location.search) history.replaceState(null, "", location.pathname); // the token is in a cookie by now

function element(name, attributes, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes || {})) {
    if (typeof value === "function") made.addEventListener(key, value);
    else if (value !== null && value !== undefined && value !== false) made.setAttribute(key, value === true ? "" : value);
  }
  made.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return made;
}

const number = (value) => value.toLocaleString();
const clock = (seconds) => new Date(seconds * 1000).toLocaleTimeString(undefined, { hour: "2-digit", minute: "2-digit" });

function span(minutes) {
  if (minutes < 1) return "less than a minute";
  return minutes < 90 ? `about ${Math.round(minutes)} min` : `about ${(minutes / 60).toFixed(1)} h`;
}

function sum(values) {
  return values.reduce((all, one) => all + one, 0);
}

function showRun(state) {
  const run = field("run");
  const paused = state.providers.find((one) => one.paused_until);
  const missing = sum(state.jobs.map((job) => job.missing));
  const left = state.minutes_left === null ? "" : `, ${span(state.minutes_left)} left`;
  run.className = `run ${state.run ? (paused ? "paused" : "working") : ""}`;
  if (!state.run && missing) run.replaceChildren(element("span", {}, "No run is at work on this folder. To continue, type: ", element("code", {}, state.command)));
  else if (!state.run) run.textContent = "No run is at work on this folder, and nothing is queued.";
  else if (paused) run.textContent = `${paused.name} asks for a pause until ${clock(paused.paused_until)}.`;
  else run.textContent = `Working since ${clock(state.run.since)}${missing ? left : ""} (${state.run.who}).`;
  const facts = [
    ["images", number(sum(state.jobs.map((job) => job.images)))],
    ["to come", number(missing)],
    ...(state.run ? state.providers.map((one) => [`a minute at ${one.name}${one.limit_per_minute ? `, limit ${number(Math.round(one.limit_per_minute))}` : ""}`, number(Math.round(one.per_minute))]) : []),
    state.run && ["calls in flight", number(sum(state.providers.map((one) => one.in_flight)))],
    state.spent !== null && ["spent", state.spent],
  ].filter(Boolean);
  field("facts").replaceChildren(...(state.jobs.length ? facts : []).map(([name, value]) =>
    element("div", {}, element("dt", {}, name), element("dd", {}, value))));
}

const shown = new Map(); // job → its line, kept so that a focused button stays where it is

function showJobs(jobs) {
  const names = new Set(jobs.map((job) => job.name));
  for (const [name, line] of shown) if (!names.has(name)) { line.remove(); shown.delete(name); }
  if (!jobs.length) field("jobs").replaceChildren(element("li", { class: "quiet" }, "Nothing has been submitted yet."));
  else field("jobs").querySelector(".quiet:not(.counts)")?.remove();
  for (const job of jobs) {
    if (!shown.has(job.name)) {
      shown.set(job.name, line(job.name));
      field("jobs").append(shown.get(job.name));
    }
    fillLine(shown.get(job.name), job);
  }
}

function line(name) {
  const button = (action) => element("button", { type: "button", class: "button", "data-action": action, click: () => send(action, name) });
  return element("li", {}, element("h3", { dir: "auto" }, name, element("span")),
    element("div", { class: "bar", role: "progressbar", "aria-valuemin": 0, "aria-valuemax": 100, "aria-label": `Progress of ${name}` },
      element("i", { class: "good" }), element("i", { class: "bad" }), element("i", { class: "gone" })),
    element("p", { class: "counts" }),
    element("div", { class: "orders" }, button("resume"), button("cancel")));
}

function fillLine(made, job) {
  const counts = job.counts;
  const all = sum(Object.entries(counts).filter(([status]) => status !== "superseded").map(([, many]) => many)) || 1;
  const bad = counts.failed + counts.partial;
  const share = (part, many) => made.querySelector(`.bar .${part}`).style.setProperty("--share", `${(100 * many) / all}%`);
  share("good", counts.succeeded);
  share("bad", bad);
  share("gone", counts.cancelled);
  const done = Math.floor((100 * (all - counts.pending - counts.running)) / all);
  made.querySelector(".bar").setAttribute("aria-valuenow", done);
  made.querySelector("h3 span").textContent = job.provider + (job.rehearsal ? ", a rehearsal" : "");
  const parts = [
    `${number(counts.succeeded)} of ${number(all)} done`,
    ...job.facts.map(([value, label]) => (label === "failed" || label === "partial" ? element("b", {}, `${value} ${label}`) : `${value} ${label}`)),
  ];
  made.querySelector(".counts").replaceChildren(...parts.flatMap((part, at) => (at ? [" · ", part] : [part])));
  offer(made, "resume", job.can_resume, `Resume ${number(job.can_resume)}`, job.name);
  offer(made, "cancel", job.can_cancel, `Cancel ${number(job.can_cancel)}`, job.name);
}

function offer(made, action, many, text, name) {
  const button = made.querySelector(`[data-action=${action}]`);
  if (!many && document.activeElement === button) field("said").focus(); // not lost with the button
  button.hidden = !many;
  button.textContent = text;
  button.setAttribute("aria-label", `${text} of ${name}`);
}

function showFailures(jobs) {
  const causes = jobs.flatMap((job) => job.causes.map((cause) => ({ ...cause, job: job.name })));
  field("failures").hidden = !causes.length;
  field("causes").replaceChildren(...causes.map((cause) => element("li", {},
    element("h3", { dir: "auto" }, element("b", {}, `${number(cause.count)} × `), `${cause.title} in ${cause.job}`),
    cause.message && element("p", { dir: "auto" }, cause.message),
    element("p", { class: "example", dir: "auto" }, `Example: ${cause.example}`),
    element("p", { class: "advice" }, cause.advice))));
}

function showImages(images) {
  const list = field("newest");
  for (const one of images) {
    if (list.querySelector(`[data-pk="${one.pk}"]`)) continue; // sent again after a reconnect
    const words = one.prompt || one.id;
    const image = element("img", { alt: words, src: `thumbnails/${one.pk}`, loading: "lazy", decoding: "async" });
    image.onerror = () => { image.onerror = null; image.src = `images/${one.pk}`; };
    list.prepend(element("li", { class: "new", "data-pk": one.pk },
      element("a", { href: `images/${one.pk}`, target: "_blank", rel: "noopener", "aria-label": words }, image,
        element("span", { class: "caption", dir: "auto", "aria-hidden": "true" }, words))));
  }
  while (list.children.length > NEWEST) list.lastElementChild.remove();
  field("no-images").hidden = list.children.length > 0;
}

async function send(action, job) {
  let said = ["The server does not respond."];
  try {
    const response = await fetch("actions", { method: "POST", body: new URLSearchParams({ form_token: formToken, action, job }) });
    const { said: sentence, command } = response.ok ? await response.json() : { said: await response.text() };
    said = command ? [`${sentence}: `, element("code", {}, command)] : [sentence];
  } catch { /* the sentence says so */ }
  field("said").replaceChildren(...said);
  field("said").hidden = false;
}

const source = new EventSource("events");
source.addEventListener("state", (event) => {
  const state = JSON.parse(event.data);
  field("trouble").textContent = state.trouble || "";
  field("trouble").hidden = !state.trouble;
  showRun(state);
  showFailures(state.jobs);
  showJobs(state.jobs);
});
source.addEventListener("images", (event) => showImages(JSON.parse(event.data)));
source.addEventListener("error", () => {
  field("run").className = "run lost";
  field("run").textContent = "The connection to `pipeline serve` is lost; reconnecting.";
});
