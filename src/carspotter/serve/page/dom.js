/** Elements made in one call. Text is always set as text, never as markup. */

/**
 * Make an HTML element.
 * @param {string} tag
 * @param {object} given attributes; `onclick` and the like are listeners, `false` leaves one out
 * @param {...(Node|string|null|undefined|false)} children
 */
export function element(tag, given = {}, ...children) {
  return filled(document.createElement(tag), given, children);
}

/** Make an SVG element; as `element`. */
export function drawn(tag, given = {}, ...children) {
  return filled(document.createElementNS("http://www.w3.org/2000/svg", tag), given, children);
}

/** The element of the page with this id. */
export function byId(id) {
  return document.getElementById(id);
}

/** A small line drawing of 24 by 24 units, from the data of its path. */
export function icon(path) {
  return drawn("svg", { viewBox: "0 0 24 24", "aria-hidden": "true", class: "icon" },
    drawn("path", { d: path }));
}

export const CROSS = "M6 6l12 12M18 6L6 18";

function filled(made, given, children) {
  for (const [name, value] of Object.entries(given)) {
    if (value === false || value === null || value === undefined) continue;
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined && child !== false));
  return made;
}
