// Pools: how many tasks may run at once, and how many do.
import { ask, button, h, live, put, table, view } from "/static/app.js";

const path = (name) => `/api/v2/pools/${encodeURIComponent(name)}`;

function slots(pool) {
  const field = () => view.querySelector(`tr[data-pool="${CSS.escape(pool.name)}"] input`);
  return h("span", { class: "inline" },
    h("input", { type: "number", min: "-1", required: true, value: pool.slots, "aria-label": `Slots of ${pool.name}`, class: "narrow" }),
    button("Set", async () => {
      const input = field();
      if (!input.checkValidity()) {
        throw new Error("Slots are a whole number; -1 is no limit.");
      }
      await ask(`${path(pool.name)}?update_mask=slots`, { method: "PATCH", body: JSON.stringify({ slots: Number(input.value) }) });
      await refresh();
    }, { class: "quiet" }));
}

function row(pool) {
  return h("tr", { data: { pool: pool.name, key: pool.name } },
    h("td", {}, pool.name, pool.description ? h("div", { class: "hint" }, pool.description) : null),
    h("td", {}, slots(pool)),
    h("td", { class: "number" }, pool.running_slots), h("td", { class: "number" }, pool.queued_slots),
    h("td", { class: "number" }, pool.scheduled_slots),
    h("td", { class: "number" }, pool.slots === -1 ? "no limit" : pool.open_slots));
}

const refresh = live(async () => {
  const { pools, total_entries: total } = await ask("/api/v2/pools?limit=100");
  put(view,
    h("h1", {}, "Pools"),
    h("p", { class: "hint" }, "A task takes slots of its pool while it is queued or runs. -1 is no limit. New ones: ",
      h("code", {}, "leoflow pools set NAME SLOTS"), "."),
    table(["Pool", "Slots", "Running", "Queued", "Waiting", "Free"], pools.map(row), "pools"),
    total > pools.length ? h("p", { class: "hint" }, `The first ${pools.length} of ${total}.`) : null);
}, () => true);
