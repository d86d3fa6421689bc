// Pools: how many tasks may run at once, and how many do.
import { ask, button, h, live, put, table, view } from "/static/app.js";

const path = (name) => `/api/v2/pools/${encodeURIComponent(name)}`;

function slots(pool) {
  const input = h("input", { type: "number", min: "-1", value: pool.slots, "aria-label": `Slots of ${pool.name}`, class: "narrow" });
  return Object.assign(h("span", { class: "inline" }, input, button("Set", async () => {
    const body = JSON.stringify({ slots: Number(input.value) });
    await ask(`${path(pool.name)}?update_mask=slots`, { method: "PATCH", body });
    await refresh();
  }, { class: "quiet" })), { kept: true });
}

// Made once for each number of slots: what is being typed stays.
const made = new Map();

function row(pool) {
  const known = made.get(pool.name);
  if (known?.slots !== pool.slots) {
    made.set(pool.name, { slots: pool.slots, element: slots(pool) });
  }
  return h("tr", { data: { pool: pool.name } },
    h("td", {}, pool.name, pool.description ? h("div", { class: "hint" }, pool.description) : null),
    h("td", {}, made.get(pool.name).element),
    h("td", { class: "number" }, pool.running_slots), h("td", { class: "number" }, pool.queued_slots),
    h("td", { class: "number" }, pool.scheduled_slots),
    h("td", { class: "number" }, pool.slots === -1 ? "no limit" : pool.open_slots));
}

const refresh = live(async () => {
  const { pools, total_entries: total } = await ask("/api/v2/pools?limit=100");
  put(view,
    h("h1", {}, "Pools"),
    h("p", { class: "hint" }, "A task takes slots of its pool while it is queued or runs. -1 is no limit. New ones: `leoflow pools set NAME SLOTS`."),
    table(["Pool", "Slots", "Running", "Queued", "Waiting", "Free"], pools.map(row), "pools"),
    total > pools.length ? h("p", { class: "hint" }, `The first ${pools.length} of ${total}.`) : null);
}, () => true);
