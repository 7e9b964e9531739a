"use strict";
// Shows the server's events on the page, with the elements of the report's `elements.js`. All text from prompts, jobs and servers is written as text, never as markup.

const field = (id) => document.getElementById(id);
const formToken = document.querySelector("meta[name=form-token]").content;
const NEWEST = 24;
const TITLE = document.title;

if (location.search) history.replaceState(null, "", location.pathname); // the token is in a cookie by now

const clock = (seconds) => new Date(seconds * 1000).toLocaleTimeString(undefined, { hour: "2-digit", minute: "2-digit", hourCycle: "h23" });

function span(minutes) {
  if (minutes < 1) return "less than a minute";
  return minutes < 90 ? `about ${Math.round(minutes)} min` : `about ${(minutes / 60).toFixed(1)} h`;
}

function sum(values) {
  return values.reduce((all, one) => all + one, 0);
}

function showRun(state) {
  const run = field("run");
  const missing = sum(state.jobs.map((job) => job.missing));
  const left = state.minutes_left === null ? "" : `, ${span(state.minutes_left)} left`;
  const [made, lines] = inBatches(state.jobs);
  const paused = state.providers.some((one) => one.paused_until || one.down_since) || state.controls?.providers.some((one) => one.paused || !one.open);
  run.className = `run ${state.run ? (paused ? "paused" : "working") : ""}`;
  if (state.run) run.textContent = `Working since ${clock(state.run.since)}${missing ? left : ""} (${state.run.who}).`;
  else if (missing) run.replaceChildren(element("span", {}, "No run is at work on this folder. To continue, type: ", element("code", {}, state.command)));
  else run.textContent = "No run is at work on this folder, and nothing is queued.";
  const facts = [
    ["images", number(sum(state.jobs.map((job) => job.images)))],
    ["to come", number(missing)],
    ...(state.run ? state.providers.map((one) => [`a minute at ${one.name}${one.limit_per_minute ? `, limit ${number(Math.round(one.limit_per_minute))}` : ""}`, number(Math.round(one.per_minute))]) : []),
    state.run && ["calls in flight", number(sum(state.providers.map((one) => one.in_flight)))],
    lines && ["in batch", `${number(made)} of ${number(lines)}`],
    state.spent !== null && ["spent", state.spent],
  ].filter(Boolean);
  field("facts").replaceChildren(...(state.jobs.length ? facts : []).map(([name, value]) =>
    element("div", {}, element("dt", {}, name), element("dd", {}, value))));
}

/** How many lines of the batches that are out are made, and how many there are. */
function inBatches(jobs) {
  return [0, 1].map((at) => sum(jobs.map((job) => job.in_batch[at])));
}

/** The progress of the jobs that are not finished, for somebody who looks at another tab. Batches go on without a run. */
function showTitle({ run, jobs }) {
  const [made, lines] = inBatches(jobs);
  const open = jobs.filter((job) => job.unfinished);
  const all = sum(open.map(requestsOf));
  const done = Math.floor((100 * (all - sum(open.map((job) => job.unfinished)))) / all);
  const batches = lines ? `, in batch ${number(made)}/${number(lines)}` : "";
  document.title = open.length ? `${run || lines ? "" : "stopped at "}${done} %${batches} · ${TITLE}` : TITLE;
}

function requestsOf({ counts }) {
  return sum(Object.entries(counts).map(([status, many]) => (status === "superseded" ? 0 : many)));
}

const drawn = new Map(); // the id of a list → what it shows, so that a button in it keeps its focus until that changes

function fillList(id, values, make) {
  const text = JSON.stringify(values);
  if (drawn.get(id) === text) return;
  drawn.set(id, text);
  field(id).replaceChildren(...values.map(make));
}

function showStops({ stops = [], providers }) {
  const pauses = providers.filter((one) => one.paused_until).map(({ name, paused_until: until }) => ({ name, until }));
  field("stops").hidden = !stops.length && !pauses.length;
  fillList("stop-list", [...stops, ...pauses], (one) => (one.until
    ? element("li", {}, element("h3", { dir: "auto" }, `${one.name} asks for a pause until ${clock(one.until)}`))
    : stopItem(one)));
}

/** What people have set, and a pause and a limit for each provider that has work. */
function showControls({ controls = { lines: [], providers: [] } }) {
  field("controls").hidden = !controls.providers.length;
  fillList("control-lines", controls.lines, (one) => element("li", { dir: "auto" }, one));
  fillList("control-buttons", controls.providers.map(({ name, paused, limit }) => ({ name, paused, limit: Boolean(limit) })),
    ({ name, paused, limit }) => element("li", { class: "orders" }, element("span", { dir: "auto" }, name),
      controlButton(paused ? "unpause" : "pause", paused ? "Unpause" : "Pause", name),
      limit ? controlButton("throttle", "Limit", name) : null));
}

function controlButton(action, text, provider) {
  return element("button", { type: "button", class: "button", "data-action": action, "aria-label": `${text} ${provider}`,
    click: () => ask(action, { provider }) }, text);
}

const shown = new Map(); // job → its line, kept so that a focused button stays where it is

/** Jobs with something queued, or else the newest job, stand on top; the others are folded at the end. */
function showJobs(jobs) {
  const names = new Set(jobs.map((job) => job.name));
  for (const name of [...shown.keys()]) if (!names.has(name)) shown.delete(name);
  for (const job of jobs) {
    if (!shown.has(job.name)) shown.set(job.name, line(job.name));
    fillLine(shown.get(job.name), job);
  }
  const open = jobs.some((job) => job.unfinished) ? jobs.filter((job) => job.unfinished) : jobs.slice(-1);
  const finished = jobs.filter((job) => !open.includes(job));
  const nothing = element("li", { class: "quiet" }, "Nothing has been submitted yet.");
  place(field("jobs"), open.length ? open.map((job) => shown.get(job.name)) : [nothing]);
  place(field("finished-jobs"), finished.map((job) => shown.get(job.name)));
  const bad = sum(finished.map((job) => job.unsuccessful));
  field("finished").hidden = !finished.length;
  field("finished-title").replaceChildren(counted(finished.length, "finished job"),
    ...(bad ? [", ", element("b", {}, `${counted(bad, "request")} without all images`)] : []));
  showFailures(open, finished);
}

function place(list, lines) {
  if (lines.length === list.children.length && lines.every((one, at) => list.children[at] === one)) return;
  const focused = document.activeElement;
  list.replaceChildren(...lines);
  if (focused?.isConnected && focused !== document.body) focused.focus();
}

function line(name) {
  const button = (action) => element("button", { type: "button", class: "button", "data-action": action, click: () => ask(action, { job: name }) });
  return element("li", {}, element("h3", { dir: "auto" }, name, element("span")),
    element("div", { class: "bar", role: "progressbar", "aria-valuemin": 0, "aria-valuemax": 100, "aria-label": `Progress of ${name}` },
      element("i", { class: "good" }), element("i", { class: "bad" }), element("i", { class: "gone" })),
    element("p", { class: "counts" }), element("p", { class: "counts batches" }),
    element("div", { class: "orders" }, button("resume"), button("cancel"), button("priority"),
      element("a", { class: "button", href: `jobs/${encodeURIComponent(name)}/report.html`, target: "_blank", rel: "noopener",
        "aria-label": `Report of ${name}` }, "Report")));
}

function fillLine(made, job) {
  const counts = job.counts;
  const all = requestsOf(job) || 1;
  const bad = counts.failed + counts.partial;
  const share = (part, many) => {
    const piece = made.querySelector(`.bar .${part}`);
    piece.hidden = !many; // else the gap beside it stays
    piece.style.setProperty("--share", `${(100 * many) / all}%`);
  };
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
  made.querySelector(".counts").replaceChildren(...parts.flatMap((part, at) => (at ? ["\u00a0· ", part] : [part])));
  made.querySelector(".batches").textContent = job.batches;
  made.querySelector(".batches").hidden = !job.batches;
  offer(made, "resume", job.can_resume, `Resume ${number(job.can_resume)}`, job.name);
  offer(made, "cancel", job.can_cancel, `Cancel ${number(job.can_cancel)}`, job.name);
  offer(made, "priority", job.unfinished, job.priority ? `Priority ${job.priority}` : "Priority", job.name);
}

function offer(made, action, many, text, name) {
  const button = made.querySelector(`[data-action=${action}]`);
  if (!many && document.activeElement === button) field("said").focus(); // not lost with the button
  button.hidden = !many;
  button.textContent = text;
  button.setAttribute("aria-label", `${text} of ${name}`);
}

function showFailures(open, finished) {
  const causes = (jobs) => jobs.flatMap((job) => job.causes.map((cause) => ({ ...cause, job: job.name })));
  field("failures").hidden = !causes(open).length;
  fillList("causes", causes(open), cause);
  fillList("finished-causes", causes(finished), cause);
}

function cause({ count, title, job, message, example, advice, commands }) {
  return element("li", {},
    element("h3", { dir: "auto" }, element("b", {}, `${number(count)} × `), `${title} in ${job}`),
    message && element("p", { dir: "auto" }, message),
    element("p", { class: "example", dir: "auto" }, `Example: ${example}`),
    element("p", { class: "advice" }, advice),
    commands.map(command));
}

function showImages(images) {
  const list = field("newest");
  for (const one of images) {
    if (list.querySelector(`[data-pk="${one.pk}"]`)) continue; // sent again after a reconnect
    const words = one.prompt || one.id;
    const image = element("img", { alt: words, src: `thumbnails/${one.pk}`, loading: "lazy", decoding: "async" });
    image.onerror = () => { image.onerror = null; image.src = `images/${one.pk}`; };
    list.prepend(element("li", { class: "new", "data-pk": one.pk },
      element("a", { href: `jobs/${encodeURIComponent(one.job)}/report.html#${encodeURIComponent(one.file)}`, target: "_blank", rel: "noopener",
        "aria-label": `${words}, large in the report`, title: "Open it large in the report" }, image,
        element("span", { class: "caption", dir: "auto", "aria-hidden": "true" }, words))));
  }
  while (list.children.length > NEWEST) list.lastElementChild.remove();
  field("no-images").hidden = list.children.length > 0;
}

/** What the server answers to a button: its lines, and a command to type after them. */
async function post(form) {
  try {
    const response = await fetch("actions", { method: "POST", body: new URLSearchParams({ form_token: formToken, ...form }) });
    return response.ok ? await response.json() : { lines: [await response.text()] };
  } catch {
    return { lines: ["The server does not respond."] };
  }
}

const TITLES = { resume: "Resume", cancel: "Cancel", pause: "Pause", unpause: "Unpause", throttle: "Limit of", priority: "Priority of" };

/** Ask before a button changes anything: what it will do, what that may cost, and what it will leave alone. */
async function ask(action, about) {
  const { lines, yes, no, number: range } = await post({ action, ...about, ask: 1 });
  if (!yes) return say({ lines });
  const dialog = field("question");
  const input = range && element("input", { type: "number", "aria-label": yes, min: range[0], max: range[1], step: 1, value: range[2] });
  field("question-title").textContent = `${TITLES[action]} ${about.job ?? about.provider}?`;
  field("question-lines").replaceChildren(...lines.map((one) => element("li", { dir: "auto" }, one)));
  field("answers").replaceChildren(...(input ? [input] : []),
    element("button", { type: "button", class: "button", autofocus: true, click: () => dialog.close() }, no),
    element("button", { type: "button", class: "button", click: async () => {
      if (input && !input.reportValidity()) return;
      dialog.close();
      say(await post({ action, ...about, ...(input && { value: input.value }) }));
    } }, yes));
  dialog.showModal();
}

function say({ lines, command: line = null }) {
  field("said").replaceChildren(...lines.map((one, at) => element("p", { dir: "auto" },
    line && at === lines.length - 1 ? [`${one}: `, element("code", {}, line)] : one)));
  field("said").hidden = false;
}

const source = new EventSource("events");
source.addEventListener("state", (event) => {
  const state = JSON.parse(event.data);
  field("trouble").textContent = state.trouble || "";
  field("trouble").hidden = !state.trouble;
  showRun(state);
  showTitle(state);
  showStops(state);
  showControls(state);
  showJobs(state.jobs);
});
source.addEventListener("images", (event) => showImages(JSON.parse(event.data)));
source.addEventListener("error", () => {
  field("run").className = "run lost";
  field("run").textContent = "The connection to `pipeline serve` is lost; reconnecting.";
});
