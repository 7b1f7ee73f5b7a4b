/** All results as a table: on the page, and as CSV. */

import { element } from "./dom.js";

const COLUMNS = ["photo", "car", "level", "label", "make", "model", "body", "year", "confidence", "error"];

/** What a spreadsheet would take for a formula, wide forms of the signs included. */
const FORMULA = /^[\s\0]*[=+\-@\uFF1D\uFF0B\uFF0D\uFF20]|^[\t\r\n]/;

/** One row for each car, and one for each photo that failed; photos on their way have none. */
export function rows(shots) {
  return shots.filter((shot) => shot.over).flatMap((shot) => {
    if (shot.state === "failed") {
      return [{ photo: shot.name, error: `${shot.trouble.title}. ${shot.trouble.advice}` }];
    }
    return [shot.result, ...shot.result.others].map(({ answer }, index) => (
      { photo: shot.name, car: index + 1, ...answer }));
  });
}

/**
 * RFC 4180: commas, CRLF, quotes doubled.
 *
 * Text that a spreadsheet would run as a formula gets an apostrophe in front. The byte order mark
 * makes Excel read the rest as UTF-8.
 */
export function csv(found) {
  const lines = [COLUMNS, ...found.map((row) => COLUMNS.map((column) => row[column]))];
  return `\uFEFF${lines.map((line) => `${line.map(cell).join(",")}\r\n`).join("")}`;
}

function cell(value) {
  if (value === null || value === undefined) return "";
  const text = typeof value === "string" && FORMULA.test(value) ? `'${value}` : String(value);
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

/** The same as an HTML table. */
export function table(found) {
  const head = element("tr", {}, ...COLUMNS.map((column) => element("th", { scope: "col" }, column)));
  const body = found.map((row) => element("tr", {}, ...COLUMNS.map((column) => {
    const value = row[column] ?? "";
    return column === "photo"
      ? element("th", { scope: "row" }, value)
      : element("td", { class: typeof value === "number" ? "number" : false }, String(value));
  })));
  return element("table", {}, element("thead", {}, head), element("tbody", {}, ...body));
}

/** Let the browser save the results. */
export function download(shots) {
  const url = URL.createObjectURL(new Blob([csv(rows(shots))], { type: "text/csv;charset=utf-8" }));
  element("a", { href: url, download: "carspotter.csv" }).click();
  // Not at once: the browser reads the address only after this turn.
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
}
