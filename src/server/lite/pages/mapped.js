// The instances of one mapped task, a page of them at a time.
import { apiPath, ask, button, h, put } from "/static/app.js";

const PAGE = 50;

export class Mapped {
  /** `row` and `table` show instances as the list of tasks does. */
  constructor(dagId, runId, taskId, row, table, index = 0) {
    this.taskId = taskId;
    this.path = `${apiPath(dagId, runId)}/taskInstances/${encodeURIComponent(taskId)}/listMapped`;
    this.row = row;
    this.table = table;
    this.offset = Math.floor(index / PAGE) * PAGE;
    this.instances = [];
    this.element = Object.assign(h("div"), { kept: true });
  }

  async show() {
    const offset = this.offset;
    const { task_instances: found, total_entries: total } = await ask(`${this.path}?limit=${PAGE}&offset=${offset}`);
    if (offset !== this.offset) {
      // Another page is wanted by now.
      return;
    }
    if (found.length === 0 && total > 0) {
      this.offset = Math.floor((total - 1) / PAGE) * PAGE;
      await this.show();
      return;
    }
    this.instances = found;
    const step = (text, to) => button(text, async () => {
      this.offset = to;
      await this.show();
    }, { class: "quiet", disabled: to < 0 || to >= total });
    put(this.element,
      h("h2", {}, `Instances of ${this.taskId}`),
      this.table(found.map((one) => this.row(one)), "mapped"),
      h("p", { class: "actions" }, step("Back", offset - PAGE), step("On", offset + PAGE),
        h("span", { class: "hint" }, `${offset + 1} to ${offset + found.length} of ${total}`)));
  }
}
