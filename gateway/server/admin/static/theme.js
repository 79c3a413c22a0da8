// Before anything is drawn, so that a page never flashes in the wrong colours.
{
  let theme = null;
  try {
    theme = localStorage.getItem("gateway-admin-theme");
  } catch {
    // Storage may be forbidden: then the system's choice holds.
  }
  if (theme === "dark" || theme === "light") document.documentElement.dataset.theme = theme;
}
