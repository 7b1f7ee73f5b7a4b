/** A photo with the boxes of its cars, or with its heat map in its place. */

import { drawn, element, icon } from "./dom.js";

const NOT_SHOWN = "M4 5h16v14H4zM4 16l5-5 4 4 3-3 4 4M4 4l16 16";

export class Picture {
  /** @param {{url: string, result: object|null}} shot */
  constructor(shot) {
    this.shot = shot;
    this.photo = element("img", { alt: "", decoding: "async", draggable: "false" });
    this.element = element("span", { class: "picture" }, this.photo);
    this.photo.addEventListener("load", () => this.#loaded());
    this.photo.addEventListener("error", () => this.#blind());
    this.photo.src = shot.url;
  }

  /** Draw the boxes that the result tells of. */
  update() {
    this.element.querySelector(".boxes")?.remove();
    const { naturalWidth: width, naturalHeight: height } = this.photo;
    if (this.shot.result && width > 0) {
      const boxes = boxesOf(this.shot.result, width, height);
      if (boxes) this.element.append(boxes);
    }
  }

  /** Show the heat map of this address; null: the photo. */
  showHeat(url) {
    this.element.querySelector(".heat")?.remove();
    if (url !== null) this.element.append(element("img", { class: "heat", alt: "", src: url, draggable: "false" }));
  }

  #loaded() {
    this.element.classList.add("seen");
    this.update();
  }

  #blind() {
    this.photo.hidden = true;
    this.element.append(element("span", { class: "blind" },
      icon(NOT_SHOWN), "No preview: this browser cannot show the file"));
  }
}

/**
 * Boxes over a photo of this many pixels, in its own coordinates; numbered where there are several.
 * @param {number} scale of the numbers
 */
export function boxesOf(result, width, height, scale = 1) {
  const cars = [result, ...result.others].filter((car) => car.box);
  if (cars.length === 0) return null;
  const size = scale * Math.max(width, height) / 26;
  const layers = cars.flatMap((car, index) => {
    const [left, top, right, bottom] = car.box;
    const place = { x: left, y: top, width: right - left, height: bottom - top };
    const kind = index === 0 ? "first" : "further";
    return [
      drawn("rect", { ...place, class: "shade" }),
      drawn("rect", { ...place, class: kind }),
      ...(cars.length > 1 ? number(index + 1, left, top, size, kind) : []),
    ];
  });
  return drawn("svg", { class: "boxes", viewBox: `0 0 ${width} ${height}`, "aria-hidden": "true" },
    ...layers);
}

function number(text, left, top, size, kind) {
  const [x, y] = [left + size, top + size];
  return [
    drawn("circle", { cx: x, cy: y, r: size * 0.75, class: `badge ${kind}` }),
    drawn("text", { x, y, "font-size": size, "text-anchor": "middle", "dominant-baseline": "central" },
      String(text)),
  ];
}
