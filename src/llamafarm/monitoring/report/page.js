// Draws the plots. Everything it needs is in the page; it asks nobody for anything.
"use strict";
(() => {
  const plots = JSON.parse(document.getElementById("plots").textContent);
  const hasFinger = matchMedia("(pointer: coarse)").matches;

  // A finger that moves over a plot scrolls the page, until a tool is picked. The tools of the large
  // plot do not wait for a pointer to come near; the small ones follow it.
  if (hasFinger) {
    for (const { attributes } of plots.documents.run.roots) {
      const visible = attributes.name === "loss";
      Object.assign(attributes.toolbar.attributes, { active_drag: null, autohide: false, visible });
    }
  }

  Bokeh.embed.embed_items(plots.documents, plots.items).then((views) => {
    document.documentElement.classList.add("drawn");
    const all = views.flatMap((view) => (view[Symbol.iterator] ? [...view] : [view]));
    // The colours of axes and labels are CSS variables, and are read when a plot is painted.
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
      for (const view of all) view.invalidate_layout();
    });
  });

  // A finger cannot hover: a tap tells the values, until the page is scrolled.
  if (hasFinger) {
    let tapped = null;
    const send = (type, { clientX, clientY }) =>
      tapped.dispatchEvent(
        new PointerEvent(type, { clientX, clientY, isPrimary: true, bubbles: true, composed: true }),
      );
    for (const place of document.querySelectorAll(".plot")) {
      place.addEventListener("click", (event) => {
        tapped = event.composedPath()[0];
        send("pointermove", event);
      });
    }
    addEventListener("scroll", () => {
      if (tapped) send("pointerout", { clientX: 0, clientY: 0 });
      tapped = null;
    });
  }

  addEventListener("beforeprint", () => {
    for (const part of document.querySelectorAll("details")) part.open = true;
  });
})();
