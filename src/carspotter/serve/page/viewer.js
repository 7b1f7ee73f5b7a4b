/** A photo, large: with its boxes, or with its heat map. */

import { byId, CROSS, element, icon } from "./dom.js";
import { boxesOf } from "./picture.js";

/**
 * Show a photo over the page.
 * @param {import("./album.js").Shot} shot
 * @param {string|null} heat address of the heat map, to show that
 */
export function enlarge(shot, heat) {
  const dialog = byId("viewer");
  const stage = element("div", { class: "stage" });
  const photo = element("img", { alt: heat ? `Heat map of ${shot.name}` : shot.name, draggable: "false" });
  photo.addEventListener("load", () => {
    const { naturalWidth: width, naturalHeight: height } = photo;
    const boxes = heat || !shot.result ? null : boxesOf(shot.result, width, height, 0.5);
    if (boxes) stage.append(boxes);
  });
  photo.addEventListener("error", () => {
    stage.replaceChildren(element("p", { class: "blind" }, "This browser cannot show the file."));
  });
  photo.src = heat ?? shot.url;
  stage.append(photo);
  dialog.replaceChildren(
    element("button", { type: "button", class: "close", "aria-label": "Close", onclick: () => dialog.close() },
      icon(CROSS)),
    stage,
    element("p", { class: "caption" }, shot.name),
  );
  dialog.onclick = (event) => { if (event.target === dialog) dialog.close(); };
  dialog.onclose = () => dialog.replaceChildren();
  dialog.showModal();
}
