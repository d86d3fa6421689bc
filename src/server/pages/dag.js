// One DAG: its runs, its tasks, its file.
import { apiPath, ask, button, duration, h, link, live, put, runPath, state, table, time, view } from "/static/app.js";

const dagId = view.dataset.dag;
let form = null;

function triggerForm(dag) {
  const params = JSON.stringify(dag.params, null, 2);
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
    h("dl", {}, h("dt", {}, "Schedule"), h("dd", {}, dag.schedule ? `${dag.schedule} (does not start runs in this release)` : "none: triggered by hand")),
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
    h("h2", {}, "Tasks"),
    table(["Task", "Operator", "After"], dag.tasks.map((task) => h("tr", {}, h("td", {}, task.task_id), h("td", {}, task.operator_name),
      h("td", {}, task.upstream.join(", ")))), "tasks"),
    file.element);
}, (event) => event.dag_id === dagId);
