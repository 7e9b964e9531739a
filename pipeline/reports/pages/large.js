"use strict";
// The large view of one item: its image in PhotoSwipe, and a panel with everything recorded about it.

const large = (() => {
  const NARROW = matchMedia("(max-width: 44rem)"); // as in the style sheet
  let view = null;
  let leaving = false; // the browser is on its way back from a view that was closed here
  let next = null; // what is opened when it has arrived

  function slide(item) {
    if (!item.image) return { type: "word", item };
    return { src: largeAddress(item.image), msrc: smallAddress(item.image), width: item.image.width || 1024,
      height: item.image.height || 1024, alt: title(item), item };
  }

  /** Show an item; the browser's Back, all that a telephone has, closes it. */
  function open(item) {
    if (view) return;
    if (leaving) {
      next = item;
      return;
    }
    history.pushState({ large: true }, "");
    show(item);
  }

  addEventListener("popstate", () => {
    const item = next;
    next = null;
    if (!leaving) view?.close();
    leaving = false;
    if (item) open(item);
  });

  function show(item) {
    const order = tiles.order;
    const numbers = new Map(order.filter((one) => one.image).map((one, place) => [one, place + 1]));
    view = new PhotoSwipe({
      dataSource: order.map(slide),
      index: order.indexOf(item),
      counter: false, // it would count requests without an image, too
      bgOpacity: 1, loop: false, wheelToZoom: true, returnFocus: false, preload: [1, 2],
      initialZoomLevel: ({ panAreaSize, elementSize }) => // as large as there is room, and a small one at twice its size
        Math.min(panAreaSize.x / elementSize.x, panAreaSize.y / elementSize.y, 2),
      showHideAnimationType: "none", // PhotoSwipe ignores keys while it fades in, and people who mark images are fast
      closeTitle: "Close (Esc)", zoomTitle: "Zoom", arrowPrevTitle: "Previous (←)", arrowNextTitle: "Next (→)",
      errorMsg: "The image's file is missing.",
      paddingFn: (size) => NARROW.matches
        ? { top: 60, bottom: size.y * 0.38 + 16, left: 12, right: 12 }
        : { top: 64, bottom: 40, left: 64, right: 64 + parseFloat(getComputedStyle(document.documentElement).fontSize) * 24 },
    });
    view.on("contentLoad", (event) => {
      if (event.content.type !== "word") return;
      event.preventDefault();
      event.content.element = element("div", { class: "large-word" }, event.content.data.item.request.status);
    });
    view.on("loadComplete", ({ content, slide: holder }) => { // a browser turns an image upright, the ledger has its stored size
      const { naturalWidth, naturalHeight } = content.element || {};
      if (!naturalWidth || naturalWidth * content.height === naturalHeight * content.width || content.data.item.image.format === "svg") return;
      Object.assign(content, { width: naturalWidth, height: naturalHeight });
      Object.assign(holder, { width: naturalWidth, height: naturalHeight });
      holder.resize();
    });
    view.on("uiRegister", () => view.ui.registerElement({
      name: "which", className: "pswp__counter", order: 5, isButton: false,
      onInit: (which) => {
        const draw = () => {
          const place = numbers.get(view.currSlide.data.item);
          which.textContent = place ? `${number(place)} / ${counted(numbers.size, "image")}` : "no image";
        };
        view.on("change", draw);
      },
    }));
    view.on("uiRegister", () => view.ui.registerElement({
      name: "panel", className: "panel", appendTo: "root", order: 20, isButton: false, tagName: "aside",
      onInit: (panel) => {
        panel.setAttribute("aria-label", "About this image");
        panel.tabIndex = 0;
        const draw = () => fill(panel, view.currSlide.data.item);
        view.on("change", () => { draw(); panel.scrollTop = 0; });
        document.addEventListener("marked", draw);
        view.on("destroy", () => document.removeEventListener("marked", draw));
      },
    }));
    view.on("destroy", () => {
      const last = view.currSlide?.data.item || item;
      view = null;
      tiles.focus(last);
      if (history.state?.large) {
        leaving = true;
        history.back();
      }
    });
    view.init();
  }

  function fill(panel, item) {
    const { request, image } = item;
    const focused = panel.contains(document.activeElement) && document.activeElement.dataset.mark;
    const revised = image && image.revised_prompt;
    const prompt = element("p", { class: "prompt", dir: "auto" }, request.prompt || `${request.operation} without a prompt`);
    panel.replaceChildren(...[
      prompt,
      request.prompt && element("p", {}, copyButton(prompt, "Copy prompt")),
      revised && element("p", { class: "revised", dir: "auto" }, element("span", { class: "label" }, "Revised prompt"), revised),
      request.error && element("p", { class: "error" }, element("span", { class: "label" }, request.status),
        [request.error.http_status, request.error.code || request.error.type, request.error.message].filter(Boolean).join(" · ")),
      image && element("div", { class: "choice" }, !item.replaced && [choice(item, "accept", "Accept", "a"), choice(item, "reject", "Reject", "x")],
        element("button", { type: "button", class: "button", "data-mark": "compare", "aria-keyshortcuts": "c", "aria-pressed": String(comparison.has(item)),
          click: () => comparison.toggle(item) }, "Compare", element("kbd", { "aria-hidden": "true" }, "c"))),
      request.inputs.length && element("div", { class: "inputs" }, request.inputs.map(input)),
      facts(item),
    ].filter(Boolean));
    if (focused) panel.querySelector(`[data-mark="${focused}"]`)?.focus();
  }

  /** An image or a mask that the request uploads. */
  function input({ role, file }) {
    const name = role === "mask" ? "Mask" : "Source";
    const image = element("img", { src: address(file), alt: name, decoding: "async" });
    image.onerror = () => image.replaceWith(element("span", { class: "word missing" }, "the file is missing"));
    return element("a", { href: address(file), target: "_blank", rel: "noopener" }, image, element("span", { class: "label" }, name));
  }

  function choice(item, mark, text, key) {
    return element("button", { type: "button", class: `button ${mark}`, "data-mark": mark, "aria-keyshortcuts": key,
      "aria-pressed": String(picks.of(item) === mark), click: () => picks.mark(item, mark) }, text, element("kbd", { "aria-hidden": "true" }, key));
  }

  function facts({ request, image, replaced }) {
    const list = [
      ...Object.entries(request.variables).filter(([, value]) => value !== request.prompt).map(([name, value]) => [name, shown(value)]),
      ...Object.entries(request.params).map(([name, value]) => [name, shown(value)]),
      request.operation !== "generation" && ["operation", request.operation],
      request.status !== "succeeded" && ["status", request.status],
      request.cost_usd !== null && ["cost", money(request.cost_usd) + (data.rehearsal ? ", rehearsal price, not charged" : "")],
      ["attempts", number(request.attempts) + (request.maybe_paid ? `, ${request.maybe_paid} more may have been paid (unclear: the response was lost)` : "")],
      request.seconds !== null && ["time", duration(request.seconds)],
      request.finished_at !== null && ["finished", moment(request.finished_at)],
      image && ["image", `${image.width ?? "?"} × ${image.height ?? "?"}, ${image.format}, ${number(Math.ceil(image.bytes / 1024))} KB`],
      image && ["file", element("a", { href: largeAddress(image), target: "_blank", rel: "noopener" }, image.file)],
      image?.flags.length && ["flags", image.flags.map(flagWord).join(", ")],
      image?.duplicate_of && ["duplicate of", image.duplicate_of],
      replaced && ["replaced", "another image was made in its place"],
      ["id", request.id],
    ];
    return element("dl", {}, list.filter(Boolean).flatMap(([name, value]) => [element("dt", { dir: "auto" }, name), element("dd", { dir: "auto" }, value)]));
  }

  return { open, get item() { return view ? view.currSlide.data.item : null; } };
})();
