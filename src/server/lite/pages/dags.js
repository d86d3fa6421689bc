// All DAGs with their last runs, and what could not be imported.
import { apiPath, ask, button, dagPath, h, link, live, put, runPath, state, table, time, view } from "/static/app.js";

function errors(list) {
  if (list.length === 0) {
    return null;
  }
  return h("section", { class: "import-errors", "aria-label": "Import errors" },
    h("h2", {}, list.length === 1 ? "One file cannot be imported" : `${list.length} files cannot be imported`),
    list.map((error) => h("details", { open: list.length === 1 },
      h("summary", {}, error.filename), h("pre", {}, error.stack_trace))));
}

// Projects whose packages are being installed; their DAGs come, or change, when they are there.
function building(list) {
  return list.map((one) => h("p", { class: "hint", role: "status" },
    `The environment of ${one.files.join(", ")} is being built (${one.requirements.join(", ")}): ${one.detail ?? ""}`));
}

function row(dag) {
  const squares = [...dag.last_runs].reverse().map((run) =>
    h("a", { class: "square", href: runPath(dag.dag_id, run.dag_run_id), data: { state: run.state },
      title: `${run.dag_run_id}: ${run.state}`, "aria-label": `${run.dag_run_id}: ${run.state}` }));
  const newest = dag.last_runs[0];
  return h("tr", { data: { dag: dag.dag_id } },
    h("td", {}, link(dagPath(dag.dag_id), dag.dag_id), dag.import_error ? h("span", { class: "flag" }, "import error") : null,
      dag.tags.map((tag) => h("span", { class: "tag" }, tag)),
      dag.description ? h("div", { class: "hint" }, dag.description) : null),
    h("td", {}, dag.schedule ?? "–", dag.next_run_after && !dag.is_paused ? h("div", { class: "hint" }, "next ", time(dag.next_run_after)) : null),
    h("td", { class: "squares" }, squares),
    h("td", {}, newest ? [state(newest.state), " ", time(newest.run_after)] : "–"),
    h("td", { class: "actions" },
      button(dag.is_paused ? "Unpause" : "Pause", async () => {
        await ask(apiPath(dag.dag_id), { method: "PATCH", body: JSON.stringify({ is_paused: !dag.is_paused }) });
        await refresh();
      }, { class: "quiet" }),
      button("Trigger", async () => {
        const run = await ask(`${apiPath(dag.dag_id)}/dagRuns`, { method: "POST", body: JSON.stringify({ logical_date: null }) });
        location.assign(runPath(dag.dag_id, run.dag_run_id));
      })));
}

const refresh = live(async () => {
  const { dags, import_errors, being_built } = await ask("/ui/dags");
  const heading = h("h1", {}, "DAGs");
  const list = dags.length === 0
    ? h("p", { class: "hint" }, "No DAGs yet: save a dag.py in the workspace, or run `leoflow init DIR`.")
    : table(["DAG", "Schedule", "Last runs", "Newest", ""], dags.map(row), "dags");
  put(view, heading, building(being_built), errors(import_errors), list);
});
