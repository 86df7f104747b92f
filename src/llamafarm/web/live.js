// Puts what the server tells into the page. The server only tells; nothing is sent to it.
"use strict";
(() => {
  const address = new URL(document.body.dataset.stream, location.href);
  const connection = document.getElementById("connection");
  let source = null;
  let last = document.body.dataset.version;
  let turn = llamafarm.ready;
  let waiting = 0;

  const say = (state, text) => {
    connection.className = state;
    connection.textContent = text;
  };

  // The HTML was made and escaped by the server; a script in it would not run.
  const show = (told) => {
    const keys = Object.keys(told.parts);
    // What was a run cannot be read any more, or the other way round.
    if (!keys.every((key) => document.getElementById(`part-${key}`))) return location.reload();
    document.title = told.title;
    for (const [key, html] of Object.entries(told.parts)) {
      const part = document.getElementById(`part-${key}`);
      const chosen = new Set([...part.querySelectorAll("input:checked")].map((box) => box.value));
      const open = [...part.querySelectorAll("details")].map((details) => details.open);
      part.innerHTML = html;
      for (const box of part.querySelectorAll("input")) box.checked = chosen.has(box.value);
      part.querySelectorAll("details").forEach((details, i) => {
        if (i < open.length) details.open = open[i];
      });
    }
    if (told.plots) return llamafarm.draw(told.plots);
    if (told.columns) showPoints(told);
    return undefined;
  };

  // All plots share one range of steps; one that somebody zoomed into stays as it is.
  const showPoints = ({ columns, steps: [first, last] }) => {
    const [drawn] = Bokeh.documents;
    for (const [name, data] of Object.entries(columns)) drawn.get_model_by_name(name).data = data;
    const range = drawn.roots()[0].x_range;
    const showsAll = range.start === range.reset_start && range.end === range.reset_end;
    range.setv({ reset_start: first, reset_end: last });
    if (showsAll) range.setv({ start: first, end: last });
  };

  const listen = () => {
    clearTimeout(waiting);
    address.searchParams.set("seen", last);
    source = new EventSource(address);
    source.onopen = () => say("open", "live");
    source.onmessage = ({ data, lastEventId }) => {
      last = lastEventId;
      turn = turn.then(() => show(JSON.parse(data)));
    };
    source.onerror = () => {
      say("away", "the dashboard does not answer");
      // It tries again by itself, unless it was refused.
      if (source.readyState === EventSource.CLOSED) waiting = setTimeout(listen, 10000);
    };
  };

  // A page that nobody sees needs no news, and a browser has few connections to one server.
  const follow = () => {
    if (!document.hidden) return listen();
    clearTimeout(waiting);
    source?.close();
    return undefined;
  };
  document.addEventListener("visibilitychange", follow);
  addEventListener("pagehide", () => source?.close());
  follow();
})();
