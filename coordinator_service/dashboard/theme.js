// Light or dark, before anything is drawn: what was chosen here, else what the system says.
// No module, so that it runs at once and nothing flashes.

"use strict";

(() => {
  const root = document.documentElement;
  const system = matchMedia("(prefers-color-scheme: dark)");
  const kept = () => {
    try {
      return localStorage.getItem("theme");
    } catch {
      return null; // a browser may forbid it
    }
  };
  const keep = (theme) => {
    try {
      localStorage.setItem("theme", theme);
    } catch {
      // then it is chosen until the page is closed
    }
  };
  const show = (theme) => {
    root.dataset.theme = theme ?? (system.matches ? "dark" : "light");
  };

  show(kept());
  system.addEventListener("change", () => show(kept()));
  addEventListener("storage", (event) => event.key === "theme" && show(kept()));
  document.addEventListener("click", (event) => {
    if (!event.target.closest("#theme")) return;
    show(root.dataset.theme === "dark" ? "light" : "dark");
    keep(root.dataset.theme);
  });
})();
