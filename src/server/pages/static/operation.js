// Shows the progress of the running operation, and reloads the page when it has ended.
"use strict";

const EVERY_MS = 1000;
const shown = document.getElementById("operation");

async function follow() {
  try {
    const response = await fetch(`/api/lite/operations/${shown.dataset.id}`, { headers: { accept: "application/json" } });
    if (response.status === 401 || response.status === 404) {
      // Logged out, or the operation's record has expired.
      location.replace(location.pathname);
      return;
    }
    document.getElementById("stale").hidden = response.ok;
    if (response.ok) {
      const operation = await response.json();
      shown.querySelector(".progress").textContent = operation.progress.join("\n");
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
