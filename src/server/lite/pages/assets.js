// Assets: who makes and who waits for them, and when they were last updated.
import { ask, button, dagPath, h, link, live, put, runPath, table, time, view } from "/static/app.js";

const EVENTS = 20;

function tasks(list) {
  return list.map(({ dag_id, task_id }) => h("div", {}, link(dagPath(dag_id), dag_id), task_id ? ` ${task_id}` : ""));
}

function row(asset) {
  const makers = new Set(asset.producing_tasks.map((one) => one.dag_id));
  const act = async (path, body) => {
    await ask(path, { method: "POST", ...(body ? { body: JSON.stringify(body) } : {}) });
    await refresh();
  };
  return h("tr", { data: { asset: asset.name } },
    h("td", {}, asset.name, asset.uri !== asset.name ? h("div", { class: "hint" }, asset.uri) : null),
    h("td", {}, tasks(asset.producing_tasks)),
    h("td", {}, tasks(asset.scheduled_dags)),
    h("td", {}, time(asset.last_asset_event?.timestamp)),
    h("td", { class: "actions" },
      makers.size === 1 ? button("Make it", () => act(`/api/v2/assets/${asset.id}/materialize`), { title: "Run the DAG that makes it" }) : null,
      button("Say it was updated", () => act("/api/v2/assets/events", { asset_id: asset.id }),
        { class: "quiet", title: "For those who wait for it, as if a task had made it" })));
}

function event(one) {
  const source = one.source_dag_id
    ? [link(runPath(one.source_dag_id, one.source_run_id), one.source_dag_id), ` ${one.source_task_id ?? ""}`]
    : "by hand";
  return h("tr", {}, h("td", {}, time(one.timestamp)), h("td", {}, one.name), h("td", {}, source),
    h("td", {}, one.created_dagruns.map((run) => h("div", {}, link(runPath(run.dag_id, run.run_id), run.dag_id)))),
    h("td", { class: "hint" }, Object.keys(one.extra ?? {}).length > 0 ? JSON.stringify(one.extra) : ""));
}

const refresh = live(async () => {
  const [{ assets, total_entries: total }, { asset_events: events }] = await Promise.all([
    ask("/api/v2/assets?limit=100&order_by=name"), ask(`/api/v2/assets/events?limit=${EVENTS}&order_by=-timestamp`)]);
  put(view,
    h("h1", {}, "Assets"),
    assets.length === 0
      ? h("p", { class: "hint" }, "No DAG makes one or waits for one.")
      : table(["Asset", "Made by", "Starts", "Updated", ""], assets.map(row), "assets"),
    total > assets.length ? h("p", { class: "hint" }, `The first ${assets.length} of ${total}.`) : null,
    h("h2", {}, "Last updates"),
    events.length === 0 ? h("p", { class: "hint" }, "None yet.") : table(["When", "Asset", "From", "Runs", ""], events.map(event), "events"));
}, () => true);
