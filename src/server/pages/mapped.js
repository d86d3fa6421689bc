// The instances of one mapped task, a page of them at a time.
import { apiPath, ask, button, h, put } from "/static/app.js";

const PAGE = 50;

export class Mapped {
  /** `row` and `table` show instances as the list of tasks does. */
  constructor(dagId, runId, taskId, row, table) {
    this.taskId = taskId;
    this.path = `${apiPath(dagId, runId)}/taskInstances/${encodeURIComponent(taskId)}/listMapped`;
    this.row = row;
    this.table = table;
    this.offset = 0;
    this.instances = [];
    this.element = Object.assign(h("div"), { kept: true });
    this.show();
  }

  async show() {
    const { task_instances: found, total_entries: total } = await ask(`${this.path}?limit=${PAGE}&offset=${this.offset}`);
    this.instances = found;
    const step = (text, offset) => button(text, async () => {
      this.offset = offset;
      await this.show();
    }, { class: "quiet", disabled: offset < 0 || offset >= total });
    put(this.element,
      h("h2", {}, `Instances of ${this.taskId}`),
      this.table(found.map((one) => this.row(one)), "mapped"),
      h("p", { class: "actions" }, step("Back", this.offset - PAGE), step("On", this.offset + PAGE),
        h("span", { class: "hint" }, `${this.offset + 1} to ${this.offset + found.length} of ${total}`)));
  }
}
