// Keeps the table of processes fresh while the page is looked at.
"use strict";

const EVERY_MS = 3000;

function show(status) {
  const overall = document.getElementById("overall");
  overall.textContent = status.state;
  overall.dataset.state = status.state;
  document.getElementById("reason").textContent = status.reason ?? "";
  for (const process of status.processes) {
    const row = document.querySelector(`tr[data-name="${CSS.escape(process.name)}"]`);
    if (!row) {
      location.reload();
      return;
    }
    const state = row.querySelector(".state");
    state.dataset.state = process.state;
    state.textContent = process.detail ? `${process.state} (${process.detail})` : process.state;
    row.querySelector(".pid").textContent = process.pid ?? "";
    row.querySelector(".restarts").textContent = process.restarts;
    row.querySelector(".memory").textContent =
      process.rss_bytes == null ? "" : `${(process.rss_bytes / 1048576).toFixed(1)} MiB`;
  }
}

async function refresh() {
  if (document.hidden) {
    return;
  }
  const stale = document.getElementById("stale");
  try {
    const response = await fetch("/api/lite/status", { headers: { accept: "application/json" } });
    if (response.status === 401) {
      location.assign("/auth/login");
      return;
    }
    stale.hidden = response.ok;
    if (response.ok) {
      show(await response.json());
    }
  } catch {
    stale.hidden = false;
  }
}

setInterval(refresh, EVERY_MS);
document.addEventListener("visibilitychange", refresh);
