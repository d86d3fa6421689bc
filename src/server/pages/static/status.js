// Updates the table of processes while the page is visible.
"use strict";

const EVERY_MS = 3000;

function show(status) {
  // A new state may bring or remove warnings, which only the server knows.
  if (document.getElementById("overall").dataset.state !== status.state) {
    location.reload();
    return;
  }
  document.getElementById("reason").textContent = status.reason ?? "";
  for (const process of status.processes) {
    const row = document.querySelector(`tr[data-name="${CSS.escape(process.name)}"]`);
    if (!row) {
      location.reload();
      return;
    }
    const state = row.querySelector(".badge");
    state.dataset.state = process.state;
    state.textContent = process.detail && process.detail !== process.state ? `${process.state} (${process.detail})` : process.state;
    const pid = row.querySelector(".pid");
    if (pid.textContent !== String(process.pid ?? "")) {
      // The memory was measured for the previous process.
      row.querySelector(".memory").textContent = "";
    }
    pid.textContent = process.pid ?? "";
    row.querySelector(".restarts").textContent = process.restarts;
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
