// What HTML and htmx cannot: dialogs, a place to drop a picture, and a word when what is seen may be old.
// Every page works without it.
"use strict";

(() => {
  const $ = (selector, root = document) => root.querySelector(selector);

  // A link to a confirmation page opens the dialog that holds the same form, if there is one.
  document.addEventListener("click", (event) => {
    const opener = event.target.closest("[data-dialog]");
    const dialog = opener && document.getElementById(opener.dataset.dialog);
    if (dialog && !event.ctrlKey && !event.metaKey && !event.shiftKey) {
      event.preventDefault();
      dialog.showModal();
      return;
    }
    if (event.target.closest("[data-close]")) {
      event.preventDefault();
      event.target.closest("dialog").close();
    } else if (event.target.tagName === "DIALOG") {
      event.target.close(); // a click beside it
    }
  });

  // A form is sent once, however often its button is pressed; a while later, once more.
  document.addEventListener("submit", (event) => {
    const form = event.target;
    if (event.defaultPrevented || form.method !== "post" || form.hasAttribute("hx-post")) return;
    if (form.dataset.sent) {
      event.preventDefault();
      return;
    }
    form.dataset.sent = "yes";
    setTimeout(() => { delete form.dataset.sent; }, 3000);
  });

  // What stands on the page may be old: while the stream of news is broken, while it says that
  // nothing can be looked at, and where a list was asked for and none came. Say so.
  const stale = $(".stale");
  let patience;
  const old = (why, afterMs = 3000) => {
    patience ??= setTimeout(() => {
      stale.textContent = `${why}. What you see may be old; trying again.`;
    }, afterMs);
  };
  const fresh = () => {
    clearTimeout(patience);
    patience = undefined;
    stale.textContent = "";
  };
  const silent = "The server does not answer";

  const streams = new Set();
  const told = ({ data }) => (data ? old(data) : fresh());
  document.addEventListener("htmx:sseError", (event) => {
    if (event.detail.source.readyState === EventSource.CLOSED) streams.delete(event.detail.source);
    old(silent);
  });
  document.addEventListener("htmx:sseOpen", (event) => {
    streams.add(event.detail.source);
    event.detail.source.addEventListener("away", told);
    if (document.hidden) event.detail.source.close();
    fresh();
  });
  document.addEventListener("htmx:sseClose", (event) => streams.delete(event.detail.source));

  // A list stays where it is until there is another: a problem does not take its place.
  const again = new Map();
  const failed = ({ elt }, why) => {
    old(why, 0);
    clearTimeout(again.get(elt));
    again.set(elt, setTimeout(() => htmx.trigger(elt, elt.matches("a") ? "click" : "change"), 3000));
  };
  document.addEventListener("htmx:beforeSwap", (event) => {
    const { xhr, target, requestConfig } = event.detail;
    if (!target.matches("[data-stays]")) return;
    if (xhr.status < 400) {
      clearTimeout(again.get(requestConfig.elt));
      again.delete(requestConfig.elt);
      fresh();
      return;
    }
    event.detail.shouldSwap = false;
    const answer = new DOMParser().parseFromString(xhr.responseText, "text/html");
    failed(requestConfig, $("[role=alert]", answer)?.firstChild.textContent ?? silent);
  });
  document.addEventListener("htmx:sendError", (event) => {
    const { target, requestConfig } = event.detail;
    if (target.matches("[data-stays]")) failed(requestConfig, silent);
  });

  // A page that is not seen lets go of its stream: a browser has six connections to a server, for
  // all its tabs. Seen again it is as if the connection had broken, of which the extension knows.
  document.addEventListener("visibilitychange", () => {
    for (const source of streams) {
      if (document.hidden) source.close();
      else if (source.readyState === EventSource.CLOSED) source.onerror();
    }
  });

  // Try a picture: drop it, paste it or choose it; it is shown at once and sent.
  const zone = $("[data-drop]");
  if (zone) {
    const form = zone.closest("form");
    const input = $("input[type=file]", form);
    const shown = $("[data-shown]", form);
    const take = (files) => {
      if (!files || !files.length) return;
      input.files = files;
      input.dispatchEvent(new Event("change", { bubbles: true }));
    };
    // One picture is asked about after the other; an answer belongs to the one that is shown.
    const answer = $("#answer");
    let chosen = 0;
    let asked = 0;
    form.addEventListener("htmx:configRequest", () => { asked = chosen; });
    answer.addEventListener("htmx:beforeSwap", (event) => {
      if (asked !== chosen) event.detail.shouldSwap = false;
    });
    input.addEventListener("change", () => {
      chosen += 1;
      answer.replaceChildren();
      const file = input.files[0];
      if (shown.src) URL.revokeObjectURL(shown.src);
      shown.hidden = !file;
      zone.classList.toggle("filled", Boolean(file));
      if (!file) return;
      shown.alt = `The chosen picture: ${file.name}`;
      shown.src = URL.createObjectURL(file);
      form.requestSubmit();
    });
    shown.addEventListener("error", () => { shown.hidden = true; });
    for (const name of ["dragenter", "dragover"]) {
      zone.addEventListener(name, (event) => { event.preventDefault(); zone.classList.add("over"); });
    }
    for (const name of ["dragleave", "drop"]) {
      zone.addEventListener(name, (event) => { event.preventDefault(); zone.classList.remove("over"); });
    }
    zone.addEventListener("drop", (event) => take(event.dataTransfer.files));
    document.addEventListener("paste", (event) => take(event.clipboardData.files));
  }
})();
