// What is opened of one task instance: a try's log, its rendered fields, its XComs.
import { apiPath, ask, button, h } from "/static/app.js";

// A log that is being written is asked for more this often.
const FOLLOW_MS = 700;
// Values of so many XComs are shown.
const XCOMS = 50;

export const keyOf = (one) => (one.map_index >= 0 ? `${one.task_id}[${one.map_index}]` : one.task_id);

/** With the name that `map_index_template` gave it. */
export function nameOf(one) {
  const given = one.rendered_map_index;
  return given && given !== String(one.map_index) ? `${keyOf(one)} ${given}` : keyOf(one);
}

export class Opened {
  /** `current` tells what is shown now: a log that nobody looks at is not followed. */
  constructor(dagId, runId, one, number, current) {
    this.one = one;
    this.key = keyOf(one);
    this.number = number;
    // A newer one than this is shown by itself.
    this.newest = one.try_number;
    this.current = current;
    this.path = `${apiPath(dagId, runId)}/taskInstances/${encodeURIComponent(one.task_id)}`;
    this.token = "0";
    this.text = h("pre", { tabindex: "0" });
    this.read();
  }

  /** `open` shows another try. */
  element(open) {
    const tries = Array.from({ length: this.one.try_number }, (_, at) => at + 1);
    const about = h("div", {},
      h("h2", {}, `Log of ${nameOf(this.one)}`, tries.length > 1
        ? h("span", { class: "tries" }, tries.map((one) => button(`try ${one}`, async () => open(one),
          { class: one === this.number ? "quiet current" : "quiet" })))
        : null),
      this.text,
      details("Rendered fields", () => this.rendered()),
      details("XComs", () => this.xcoms()));
    return Object.assign(about, { kept: true });
  }

  async read() {
    try {
      const answer = await ask(`${this.path}/logs/${this.number}?token=${this.token}&map_index=${this.one.map_index}`);
      const atEnd = this.text.scrollTop + this.text.clientHeight >= this.text.scrollHeight - 4;
      this.text.append(...answer.content.map(line));
      if (this.text.childElementCount === 0 && !answer.continuation_token) {
        this.text.append(h("span", { class: "hint" }, "It wrote nothing."));
      }
      if (atEnd) {
        this.text.scrollTop = this.text.scrollHeight;
      }
      if (answer.continuation_token && this.current() === this) {
        const moved = answer.continuation_token !== this.token;
        this.token = answer.continuation_token;
        setTimeout(() => this.read(), moved && answer.content.length > 500 ? 0 : FOLLOW_MS);
      }
    } catch {
      // A server that is being replaced; the table says more, should it be anything else.
      if (this.current() === this) {
        setTimeout(() => this.read(), 2000);
      }
    }
  }

  async rendered() {
    const fields = (await ask(`${this.path}/${this.one.map_index}`)).rendered_fields;
    return pairs(Object.entries(fields), "None of its fields is a template, or it has not begun.");
  }

  async xcoms() {
    const list = await ask(`${this.path}/xcomEntries?map_index=${this.one.map_index}&limit=${XCOMS}`);
    const values = await Promise.all(list.xcom_entries.map(async ({ key }) =>
      [key, (await ask(`${this.path}/xcomEntries/${encodeURIComponent(key)}?map_index=${this.one.map_index}`)).value]));
    return pairs(values, "It has pushed none.");
  }
}

function line(entry) {
  const clock = entry.timestamp ? h("span", { class: "clock" }, new Date(entry.timestamp).toLocaleTimeString()) : null;
  return h("span", { class: "line", data: { logger: entry.logger ?? "" } }, clock, ` ${entry.event}\n`);
}

function pairs(found, none) {
  if (found.length === 0) {
    return h("p", { class: "hint" }, none);
  }
  const text = (value) => (typeof value === "string" ? value : JSON.stringify(value, null, 2));
  return h("dl", {}, found.map(([name, value]) => [h("dt", {}, name), h("dd", {}, h("pre", {}, text(value)))]).flat());
}

/** Filled each time that it is opened. */
function details(title, fill) {
  const place = h("div");
  return h("details", {
    ontoggle: async (event) => {
      if (event.currentTarget.open) {
        try {
          place.replaceChildren(await fill());
        } catch (error) {
          place.replaceChildren(h("p", { class: "error" }, `It cannot be shown: ${error.message}`));
        }
      }
    },
  }, h("summary", {}, title), place);
}
