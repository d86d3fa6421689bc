// One DAG: its runs, its backfills, its tasks, its file.
import { apiPath, ask, button, duration, h, link, live, put, runPath, state, table, time, view } from "/static/app.js";

const dagId = view.dataset.dag;
let form = null;
let backfill = null;

function triggerForm(dag) {
  // A run gets values; what the API tells of a param is its value with a schema.
  const values = Object.fromEntries(Object.entries(dag.params).map(([name, param]) => [name, param.value]));
  const params = JSON.stringify(values, null, 2);
  const conf = h("textarea", { id: "conf", rows: Math.min(10, params.split("\n").length + 1), spellcheck: "false" }, params);
  return h("details", { class: "trigger" }, h("summary", {}, "Trigger with other values"),
    h("label", { for: "conf" }, "Params of the run, as JSON"), conf,
    button("Trigger with these", async () => {
      let values;
      try {
        values = JSON.parse(conf.value);
      } catch (error) {
        throw new Error(`That is not JSON: ${error.message}`);
      }
      await trigger(values);
    }));
}

function backfillForm() {
  const moment = (text) => h("input", { type: "datetime-local", required: true, "aria-label": text });
  const [from, to] = [moment("First date, UTC"), moment("Last date, UTC")];
  const again = h("select", { "aria-label": "Runs that are there" }, [["none", "leave runs that are there"], ["failed", "run failed ones again"],
    ["completed", "run finished ones again"]].map(([value, text]) => h("option", { value }, text)));
  const body = () => JSON.stringify({ dag_id: dagId, from_date: `${from.value}:00Z`, to_date: `${to.value}:00Z`,
    reprocess_behavior: again.value });
  const filled = (act) => async () => {
    if (!from.value || !to.value) {
      throw new Error("A backfill needs its first and its last date.");
    }
    await act();
  };
  const told = h("span", { class: "hint" });
  return h("details", {}, h("summary", {}, "Backfill"),
    h("p", { class: "hint" }, "Runs whose logical date lies between the two, both included, in UTC. Midnight of a day is its beginning."),
    h("p", { class: "inline" }, from, " to ", to, again),
    h("p", { class: "inline" },
      button("How many?", filled(async () => {
        const { total_entries: count } = await ask("/api/v2/backfills/dry_run", { method: "POST", body: body() });
        told.textContent = `${count} ${count === 1 ? "run" : "runs"}`;
      }), { class: "quiet" }),
      button("Make them", filled(async () => {
        const { id } = await ask("/api/v2/backfills", { method: "POST", body: body() });
        told.textContent = (await ask(`/ui/backfills/${id}/outcome`)).summary;
        await refresh();
      })), told));
}

function backfills(dag) {
  if (dag.backfills.length === 0) {
    return h("p", { class: "hint" }, "None yet.");
  }
  const change = (one, how) => button(how[0].toUpperCase() + how.slice(1), async () => {
    await ask(`/api/v2/backfills/${one.id}/${how}`, { method: "PUT" });
    await refresh();
  }, { class: "quiet" });
  return table(["From", "To", "Runs", ""], dag.backfills.map((one) => h("tr", {}, h("td", {}, time(one.from_date)), h("td", {}, time(one.to_date)),
    h("td", {}, Object.entries(one.states).map(([name, count]) => [state(name), ` ${count} `]).flat(), one.is_paused && !one.completed_at ? h("span", { class: "flag" }, "paused") : null),
    h("td", { class: "actions" }, one.completed_at ? null : [change(one, one.is_paused ? "unpause" : "pause"), change(one, "cancel")]))), "backfills");
}

async function trigger(conf) {
  const run = await ask(`${apiPath(dagId)}/dagRuns`, { method: "POST", body: JSON.stringify({ logical_date: null, conf }) });
  location.assign(runPath(dagId, run.dag_run_id));
}

function fileOf(dag) {
  const source = h("pre", {}, "…");
  return h("details", {
    ontoggle: async (event) => {
      if (event.currentTarget.open) {
        try {
          source.textContent = (await ask(`/api/v2/dagSources/${encodeURIComponent(dagId)}`)).content;
        } catch (error) {
          source.textContent = `It cannot be shown: ${error.message}`;
        }
      }
    },
  }, h("summary", {}, `Its file, version ${dag.version_number}`), h("p", { class: "hint" }, dag.fileloc), source);
}

let file = null;

const refresh = live(async () => {
  const dag = await ask(`/ui/dags/${encodeURIComponent(dagId)}`);
  // Made once: what the user types or has opened stays.
  form ??= Object.assign(triggerForm(dag), { kept: true });
  backfill ??= Object.assign(backfillForm(), { kept: true });
  if (file?.version !== dag.version_number) {
    file = { version: dag.version_number, element: Object.assign(fileOf(dag), { kept: true }) };
  }
  put(view,
    h("h1", {}, dagId, dag.is_paused ? h("span", { class: "flag" }, "paused") : null,
      dag.is_stale ? h("span", { class: "flag" }, "its file is gone") : null,
      dag.tags.map((tag) => h("span", { class: "tag" }, tag))),
    dag.description ? h("p", {}, dag.description) : null,
    dag.import_error
      ? h("section", { class: "import-errors" }, h("h2", {}, "Its file cannot be imported; the version before stays"), h("pre", {}, dag.import_error))
      : null,
    h("dl", {}, h("dt", {}, "Schedule"), h("dd", {}, dag.schedule ?? "none: triggered by hand"),
      dag.next_run_after ? [h("dt", {}, "Next run"), h("dd", {}, time(dag.next_run_after), dag.is_paused ? " (once it is unpaused)" : "")] : null),
    dag.doc_md ? h("div", { class: "doc" }, dag.doc_md) : null,
    h("p", { class: "actions" },
      button("Trigger", () => trigger({})),
      button(dag.is_paused ? "Unpause" : "Pause", async () => {
        await ask(apiPath(dagId), { method: "PATCH", body: JSON.stringify({ is_paused: !dag.is_paused }) });
        await refresh();
      }, { class: "quiet" })),
    form,
    h("h2", {}, "Runs"),
    dag.runs.length === 0 ? h("p", { class: "hint" }, "None yet.") : table(["Run", "State", "Started", "Took"],
      dag.runs.map((run) => h("tr", {}, h("td", {}, link(runPath(dagId, run.dag_run_id), run.dag_run_id)), h("td", {}, state(run.state)),
        h("td", {}, time(run.start_date)), h("td", { class: "number" }, duration(run.start_date, run.end_date)))), "runs"),
    dag.is_backfillable ? [h("h2", {}, "Backfills"), backfills(dag), backfill] : null,
    h("h2", {}, "Tasks"),
    table(["Task", "Operator", "After"], dag.tasks.map((task) => h("tr", {}, h("td", {}, task.task_id, task.mapped ? h("span", { class: "tag" }, "mapped") : null), h("td", {}, task.operator_name),
      h("td", {}, task.upstream.join(", ")))), "tasks"),
    file.element);
}, (event) => event.dag_id === dagId);
