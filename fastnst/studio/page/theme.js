// Runs before the first paint: a remembered choice of light or dark replaces the system's.
(() => {
  let theme = null;
  try {
    theme = localStorage.getItem("fastnst.theme");
  } catch {
    // Storage may be off; the system's choice stands.
  }
  if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
})();
