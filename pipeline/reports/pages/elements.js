"use strict";
// What the report and the live page make their elements and numbers with.

/** An element with attributes, listeners and children; text is always text. A child that is null or false is left out. */
function element(name, attributes, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes || {})) {
    if (typeof value === "function") made.addEventListener(key, value);
    else if (value !== null && value !== undefined && value !== false) made.setAttribute(key, value === true ? "" : value);
  }
  made.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return made;
}

function number(value) {
  return value.toLocaleString();
}

function counted(many, word) {
  return `${number(many)} ${word}${many === 1 ? "" : "s"}`;
}

/** A button that copies the text of an element; where a page may not write the clipboard, it copies a selection. */
function copyButton(source, name = "Copy") {
  const button = element("button", { type: "button", class: "button", click: async () => {
    try {
      await navigator.clipboard.writeText(source.textContent);
    } catch {
      getSelection().selectAllChildren(source);
      document.execCommand("copy");
    }
    button.textContent = "Copied";
    document.dispatchEvent(new CustomEvent("copied"));
    setTimeout(() => { button.textContent = name; }, 2000);
  } }, name);
  return button;
}

/** A command with a button that copies it. Its words are elements, so that a line ends between two of them. */
function command(line) {
  const code = element("code", {}, line.split(/( )/).map((word) => (word === " " ? word : element("span", {}, word))));
  return element("div", { class: "command" }, code, copyButton(code));
}

/** What stopped a run and still holds: when, what and why; then what mends it; then the commands that continue. */
function stopItem({ at, reach, message, advice, commands }) {
  return element("li", {}, element("h3", { dir: "auto" }, `Stopped ${moment(at)}, ${reach}`), element("p", { dir: "auto" }, message),
    advice && element("p", { class: "advice" }, `first: ${advice}`), commands.map(command));
}

function moment(seconds) {
  return new Date(seconds * 1000).toLocaleString(undefined, { dateStyle: "medium", timeStyle: "short", hourCycle: "h23" });
}
