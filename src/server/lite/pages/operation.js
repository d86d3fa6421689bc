// Follows what is under way, and shows the page anew when it is done.
"use strict";

const EVERY_MS = 1000;
const shown = document.getElementById("operation");

async function follow() {
  try {
    const response = await fetch(`/api/lite/operations/${shown.dataset.id}`, { headers: { accept: "application/json" } });
    if (response.status === 401 || response.status === 404) {
      // Logged out, or it is so old that nothing is known of it any more.
      location.replace(location.pathname);
      return;
    }
    document.getElementById("stale").hidden = response.ok;
    if (response.ok) {
      const operation = await response.json();
      shown.querySelector("pre").textContent = operation.progress.join("\n");
      if (operation.status !== "running") {
        location.replace(location.pathname);
        return;
      }
    }
  } catch {
    document.getElementById("stale").hidden = false;
  }
  setTimeout(follow, EVERY_MS);
}

if (shown?.dataset.status === "running") {
  setTimeout(follow, EVERY_MS);
}
