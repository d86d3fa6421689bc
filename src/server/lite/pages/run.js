// One run with its tasks, and what is opened of them.
import { apiPath, ask, button, complain, dagPath, duration, h, link, live, put, state, table, time, view } from "/static/app.js";
import { Mapped } from "/static/mapped.js";
import { keyOf, nameOf, Opened } from "/static/task.js";

const { dag: dagId, run: runId } = view.dataset;
const FINISHED = ["success", "failed", "upstream_failed", "skipped", "removed"];
// More instances of one mapped task are shown as numbers, and one by one when they are asked for.
const FOLD = 8;

const head = h("div");
const tasks = h("div");
const mapped = h("section", { hidden: true, "aria-label": "Mapped instances" });
const opened = h("section", { class: "log", hidden: true, "aria-label": "Task instance" });
view.append(head, tasks, mapped, opened);

let shown = null;
let list = null;

function open(one, number) {
  shown = new Opened(dagId, runId, one, number, () => shown);
  put(opened, shown.element((other) => open(one, other)));
  opened.hidden = false;
  opened.scrollIntoView({ block: "nearest" });
  location.replace(`#${encodeURIComponent(keyOf(one))}`);
}

async function openList(taskId, index) {
  list = new Mapped(dagId, runId, taskId, row, tableOf, index);
  put(mapped, list.element);
  mapped.hidden = false;
  try {
    await list.show();
    mapped.scrollIntoView({ block: "nearest" });
  } catch (error) {
    complain(error.message);
  }
}

const send = (path, method, body) => ask(path, { method, body: JSON.stringify(body) });
const hasLog = (one) => one.try_number > 0 && one.operator !== "EmptyOperator";
const asLink = (text, act) => h("button", { type: "button", class: "as-link", onclick: act }, text);

function again(one) {
  const which = one.map_index >= 0 ? [one.task_id, one.map_index] : one.task_id;
  return button("Run again", async () => {
    await send(`${apiPath(dagId)}/clearTaskInstances`, "POST",
      { dry_run: false, only_failed: false, dag_run_id: runId, task_ids: [which], include_downstream: true });
    await refresh();
  }, { class: "quiet", title: one.mapped ? "All of its instances, and all that wait for them" : "This task and all that wait for it" });
}

function folded(one) {
  const counts = Object.entries(one.mapped.states).map(([name, count]) => [state(name === "none" ? null : name), ` ${count} `]);
  return h("tr", { data: { task: one.task_id } },
    h("td", {}, asLink(`${one.task_id} [${one.mapped.total}]`, () => openList(one.task_id))),
    h("td", { colspan: 5 }, counts.flat()),
    h("td", { class: "actions" }, again(one)));
}

function row(one) {
  if (one.mapped) {
    return folded(one);
  }
  const name = nameOf(one);
  const isOver = FINISHED.includes(one.state);
  return h("tr", { data: { task: keyOf(one) } },
    h("td", {}, hasLog(one) ? asLink(name, () => open(one, one.try_number)) : name),
    h("td", {}, state(one.state)), h("td", { class: "number" }, one.try_number || "–"), h("td", {}, time(one.start_date)),
    h("td", { class: "number" }, duration(one.start_date, isOver || one.state?.startsWith("up_for") ? one.end_date : null)),
    h("td", { class: "hint why" }, one.state === "success" ? "" : (one.outcome ?? one.note ?? "")),
    h("td", { class: "actions" }, isOver && one.state !== "removed" ? again(one) : null));
}

const tableOf = (rows, id) => table(["Task", "State", "Try", "Started", "Took", "", ""], rows, id);

function buttons(run) {
  const clear = (text, body, properties) => button(text, async () => {
    await send(`${apiPath(dagId, runId)}/clear`, "POST", { dry_run: false, ...body });
    await refresh();
  }, properties);
  if (["success", "failed"].includes(run.state)) {
    return [clear("Run all again", {}, { class: "quiet" }),
      run.state === "failed" ? clear("Run what failed again", { only_failed: true }) : null];
  }
  return button("Cancel", async () => { await send(apiPath(dagId, runId), "PATCH", { state: "failed" }); await refresh(); }, { class: "quiet" });
}

const refresh = live(async () => {
  const run = await ask(`/ui/dags/${encodeURIComponent(dagId)}/runs/${encodeURIComponent(runId)}?fold=${FOLD}`);
  const over = ["success", "failed"].includes(run.state);
  const interval = run.data_interval_start && run.data_interval_start !== run.data_interval_end
    ? [h("dt", {}, "Data interval"), h("dd", {}, time(run.data_interval_start), " to ", time(run.data_interval_end))]
    : [];
  put(head,
    h("p", { class: "crumbs" }, link("/", "DAGs"), " / ", link(dagPath(dagId), dagId)),
    h("h1", {}, runId, " ", state(run.state)),
    h("dl", {}, h("dt", {}, "Kind"), h("dd", {}, run.run_type.replaceAll("_", " ")), interval,
      h("dt", {}, "Started"), h("dd", {}, time(run.start_date)),
      h("dt", {}, "Took"), h("dd", {}, duration(run.start_date, run.end_date)),
      h("dt", {}, "Conf"), h("dd", {}, JSON.stringify(run.conf))),
    run.is_paused && !over ? h("p", { class: "error" }, "The DAG is paused: nothing new begins until it is unpaused.") : null,
    h("p", { class: "actions" }, buttons(run)));
  put(tasks, tableOf(run.task_instances.map((one) => row(one)), "tasks"));
  const wanted = shown?.key ?? decodeURIComponent(location.hash.slice(1));
  const [, ofTask, index] = wanted.match(/^(.*)\[(\d+)\]$/) ?? [];
  if (!list && run.task_instances.some((found) => found.mapped && found.task_id === ofTask)) {
    await openList(ofTask, Number(index));
  } else {
    await list?.show();
  }
  const one = [...run.task_instances, ...(list?.instances ?? [])].find((found) => keyOf(found) === wanted);
  // A new try of the task whose log is open is what the user wants to see.
  if (one && hasLog(one) && !one.mapped && (!shown || shown.newest < one.try_number)) {
    open(one, one.try_number);
  }
  if (shown && one) {
    shown.newest = one.try_number;
  }
}, (event) => event.dag_id === dagId && event.run_id === runId);
