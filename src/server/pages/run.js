// One run with its tasks and their logs.
import { apiPath, ask, button, dagPath, duration, h, link, live, put, state, table, time, view } from "/static/app.js";

const { dag: dagId, run: runId } = view.dataset;
const FINISHED = ["success", "failed", "upstream_failed", "skipped", "removed"];
// A log that is being written is asked for more this often.
const FOLLOW_MS = 700;

const head = h("div");
const tasks = h("div");
const log = h("section", { class: "log", hidden: true, "aria-label": "Log" });
view.append(head, tasks, log);

let shown = null;

class Log {
  constructor(task, number) {
    this.task = task;
    this.number = number;
    this.token = "0";
    this.text = h("pre", { tabindex: "0" });
    this.place = Object.assign(h("div", {}, this.text), { kept: true });
    this.read();
  }

  async read() {
    const path = `${apiPath(dagId, runId)}/taskInstances/${encodeURIComponent(this.task)}/logs/${this.number}?token=${this.token}`;
    try {
      const answer = await ask(path);
      const atEnd = this.text.scrollTop + this.text.clientHeight >= this.text.scrollHeight - 4;
      this.text.append(...answer.content.map((line) => this.line(line)));
      if (this.text.childElementCount === 0 && !answer.continuation_token) {
        this.text.append(h("span", { class: "hint" }, "It wrote nothing."));
      }
      if (atEnd) {
        this.text.scrollTop = this.text.scrollHeight;
      }
      if (answer.continuation_token && shown === this) {
        const moved = answer.continuation_token !== this.token;
        this.token = answer.continuation_token;
        setTimeout(() => this.read(), moved && answer.content.length > 500 ? 0 : FOLLOW_MS);
      }
    } catch {
      // A server that is being replaced; the table says more, should it be anything else.
      if (shown === this) {
        setTimeout(() => this.read(), 2000);
      }
    }
  }

  line(entry) {
    const clock = entry.timestamp ? h("span", { class: "clock" }, new Date(entry.timestamp).toLocaleTimeString()) : null;
    return h("span", { class: "line", data: { logger: entry.logger ?? "" } }, clock, ` ${entry.event}\n`);
  }
}

function open(task, number, newest) {
  shown = new Log(task, number);
  const tries = Array.from({ length: newest }, (_, at) => at + 1);
  put(log,
    h("h2", {}, `Log of ${task}`, newest > 1
      ? h("span", { class: "tries" }, tries.map((one) => button(`try ${one}`, async () => open(task, one, newest),
        { class: one === number ? "quiet current" : "quiet" })))
      : null),
    shown.place);
  log.hidden = false;
  log.scrollIntoView({ block: "nearest" });
  location.replace(`#${encodeURIComponent(task)}`);
}

const send = (path, method, body) => ask(path, { method, body: JSON.stringify(body) });

function row(one) {
  const opens = one.try_number > 0 && !(one.operator === "EmptyOperator");
  const name = opens
    ? h("button", { type: "button", class: "as-link", onclick: () => open(one.task_id, one.try_number, one.try_number) }, one.task_id)
    : one.task_id;
  return h("tr", { data: { task: one.task_id } }, h("td", {}, name), h("td", {}, state(one.state)),
    h("td", { class: "number" }, one.try_number || "–"), h("td", {}, time(one.start_date)),
    h("td", { class: "number" }, duration(one.start_date, FINISHED.includes(one.state) || one.state === "up_for_retry" ? one.end_date : null)),
    h("td", { class: "hint why" }, one.state === "success" ? "" : (one.outcome ?? "")),
    h("td", { class: "actions" }, FINISHED.includes(one.state) && one.state !== "removed"
      ? button("Run again", async () => {
        await send(`${apiPath(dagId)}/clearTaskInstances`, "POST",
          { dry_run: false, only_failed: false, dag_run_id: runId, task_ids: [one.task_id], include_downstream: true });
        await refresh();
      }, { class: "quiet", title: "This task and all that wait for it" })
      : null));
}

const refresh = live(async () => {
  const run = await ask(`/ui/dags/${encodeURIComponent(dagId)}/runs/${encodeURIComponent(runId)}`);
  const over = ["success", "failed"].includes(run.state);
  put(head,
    h("p", { class: "crumbs" }, link("/", "DAGs"), " / ", link(dagPath(dagId), dagId)),
    h("h1", {}, runId, " ", state(run.state)),
    h("dl", {}, h("dt", {}, "Started"), h("dd", {}, time(run.start_date)),
      h("dt", {}, "Took"), h("dd", {}, duration(run.start_date, run.end_date)),
      h("dt", {}, "Conf"), h("dd", {}, JSON.stringify(run.conf))),
    run.is_paused && !over ? h("p", { class: "error" }, "The DAG is paused: nothing new begins until it is unpaused.") : null,
    h("p", { class: "actions" },
      over
        ? [button("Run all again", async () => { await send(`${apiPath(dagId, runId)}/clear`, "POST", { dry_run: false }); await refresh(); }, { class: "quiet" }),
          run.state === "failed"
            ? button("Run what failed again", async () => { await send(`${apiPath(dagId, runId)}/clear`, "POST", { dry_run: false, only_failed: true }); await refresh(); })
            : null]
        : button("Cancel", async () => { await send(apiPath(dagId, runId), "PATCH", { state: "failed" }); await refresh(); }, { class: "quiet" })));
  put(tasks, table(["Task", "State", "Try", "Started", "Took", "", ""], run.task_instances.map((one) => row(one)), "tasks"));
  const wanted = decodeURIComponent(location.hash.slice(1));
  const one = run.task_instances.find((found) => found.task_id === (shown?.task ?? wanted));
  // A new try of the task whose log is open is what the user wants to see.
  if (one && one.try_number > 0 && one.operator !== "EmptyOperator" && (!shown || (shown.newest ?? shown.number) < one.try_number)) {
    open(one.task_id, one.try_number, one.try_number);
  }
  if (shown && one) {
    shown.newest = one.try_number;
  }
}, (event) => event.dag_id === dagId && event.run_id === runId);
