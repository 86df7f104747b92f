// Draws the plots. Everything it needs is in the page; it asks nobody for anything.
"use strict";
const llamafarm = (() => {
  const hasFinger = matchMedia("(pointer: coarse)").matches;
  let views = [];

  // In place of what was drawn before. plots: what BokehJS takes.
  const draw = async (plots) => {
    for (const view of views) view.remove();
    Bokeh.documents.length = 0;
    // A finger that moves over a plot scrolls the page, until a tool is picked. The tools of the
    // large plot do not wait for a pointer to come near; the small ones follow it.
    if (hasFinger) {
      for (const { attributes } of plots.documents.run.roots) {
        const visible = ["loss", "eval_loss"].includes(attributes.name);
        Object.assign(attributes.toolbar.attributes, { active_drag: null, autohide: false, visible });
      }
    }
    const drawn = await Bokeh.embed.embed_items(plots.documents, plots.items);
    views = drawn.flatMap((view) => (view[Symbol.iterator] ? [...view] : [view]));
    document.documentElement.classList.add("drawn");
  };

  // The colours of axes and labels are CSS variables, and are read when a plot is painted.
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
    for (const view of views) view.invalidate_layout();
  });

  // A finger cannot hover: a tap tells the values, until the page is scrolled.
  if (hasFinger) {
    let tapped = null;
    const send = (type, { clientX, clientY }) =>
      tapped.dispatchEvent(
        new PointerEvent(type, { clientX, clientY, isPrimary: true, bubbles: true, composed: true }),
      );
    addEventListener("click", (event) => {
      const path = event.composedPath();
      if (!path.some((place) => place.classList?.contains("plot"))) return;
      tapped = path[0];
      send("pointermove", event);
    });
    addEventListener("scroll", () => {
      if (tapped) send("pointerout", { clientX: 0, clientY: 0 });
      tapped = null;
    });
  }

  addEventListener("beforeprint", () => {
    for (const part of document.querySelectorAll("details")) part.open = true;
  });

  const plots = JSON.parse(document.getElementById("plots").textContent);
  const ready = plots ? draw(plots) : Promise.resolve();
  return { draw, ready };
})();
