// What the pages share: asking the server, building elements, being told of changes.

/** Asks the server; sends to the login when the session is over. */
export async function ask(path, options = {}) {
  const response = await fetch(path, {
    headers: { accept: "application/json", ...(options.body ? { "content-type": "application/json" } : {}) },
    ...options,
  });
  if (response.status === 401) {
    location.assign("/auth/login");
    return new Promise(() => {});
  }
  const text = await response.text();
  const body = text ? JSON.parse(text) : null;
  if (!response.ok) {
    throw new Error(detail(body) ?? `the server answered ${response.status}`);
  }
  return body;
}

function detail(body) {
  const found = body?.detail;
  if (typeof found === "string") {
    return found;
  }
  return Array.isArray(found) ? found.map((one) => one.msg).join("; ") : (found?.message ?? found?.reason);
}

/** An element. Text is always text: nothing that a DAG says becomes markup. */
export function h(name, properties = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (key.startsWith("on")) {
      // Looked up when it happens: an element that stays may get another one.
      (element.handlers ??= {})[key] = value;
      element.addEventListener(key.slice(2), (event) => element.handlers?.[key]?.(event));
    } else if (key === "data") {
      Object.assign(element.dataset, value);
    } else if (value !== undefined && value !== null && value !== false) {
      element.setAttribute(key, value === true ? "" : value);
    }
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

export function state(name) {
  return h("span", { class: "state", data: { state: name ?? "none" } }, (name ?? "–").replaceAll("_", " "));
}

export function link(path, ...children) {
  return h("a", { href: path }, ...children);
}

export const dagPath = (dag) => `/dags/${encodeURIComponent(dag)}`;
export const runPath = (dag, run) => `${dagPath(dag)}/runs/${encodeURIComponent(run)}`;
export const apiPath = (dag, run) =>
  `/api/v2/dags/${encodeURIComponent(dag)}` + (run === undefined ? "" : `/dagRuns/${encodeURIComponent(run)}`);

const TIME = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });

export function time(text) {
  return text ? h("time", { datetime: text, title: text }, TIME.format(new Date(text))) : "–";
}

/** How long it took; of what still runs, how long so far, once a second. */
export function duration(start, end) {
  if (!start) {
    return "–";
  }
  return end ? span(start, new Date(end)) : h("span", { class: "ticking", data: { start } }, span(start, new Date()));
}

setInterval(() => {
  for (const element of document.querySelectorAll(".ticking")) {
    element.textContent = span(element.dataset.start, new Date());
  }
}, 1000);

function span(start, end) {
  const seconds = Math.max(0, end - new Date(start)) / 1000;
  if (seconds < 60) {
    return `${seconds.toFixed(seconds < 10 ? 2 : 0)} s`;
  }
  const minutes = Math.floor(seconds / 60);
  return minutes < 60 ? `${minutes} min ${Math.floor(seconds % 60)} s` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

export function table(headings, rows, id) {
  const head = h("thead", {}, h("tr", {}, headings.map((text) => h("th", { scope: "col" }, text))));
  return h("div", { class: "wide" }, h("table", { id }, head, h("tbody", {}, rows)));
}

/** A button that does one thing and says so when it fails. */
export function button(text, act, properties = {}) {
  return h("button", {
    type: "button",
    ...properties,
    onclick: async (event) => {
      const own = event.currentTarget;
      // What the page wants of it meanwhile counts once it is done.
      own.off = false;
      own.busy = own.disabled = true;
      try {
        await act();
        complain("");
      } catch (error) {
        complain(error.message);
      } finally {
        own.busy = false;
        own.disabled = own.off;
      }
    },
  }, text);
}

const notice = document.getElementById("notice");

export function complain(text, by = "") {
  notice.textContent = text;
  notice.dataset.by = by;
  notice.hidden = !text;
}

/** Shows the page now and whenever something has changed that concerns it. */
export function live(show, concerns = () => true) {
  let running = false;
  let again = false;
  const refresh = async () => {
    if (running) {
      again = true;
      return;
    }
    running = true;
    const began = performance.now();
    try {
      await show();
      document.getElementById("stale").hidden = true;
      if (notice.dataset.by === "refresh") {
        complain("");
      }
    } catch (error) {
      if (error instanceof TypeError) {
        document.getElementById("stale").hidden = false;
      } else {
        complain(error.message, "refresh");
      }
    }
    // Most of the time is the reader's: what takes long to show is shown less often.
    setTimeout(() => {
      running = false;
      if (again) {
        again = false;
        refresh();
      }
    }, 50 + 4 * (performance.now() - began));
  };
  let events = null;
  const connect = () => {
    events?.close();
    if (document.hidden) {
      return;
    }
    events = new EventSource("/ui/events");
    events.onopen = refresh;
    events.onmessage = (message) => {
      const event = JSON.parse(message.data);
      if (event.kind === "dags" || concerns(event)) {
        refresh();
      }
    };
    events.onerror = () => {
      if (events.readyState === EventSource.CLOSED) {
        // Refused, by a session that is over or a server that is full: asking says which.
        setTimeout(() => refresh().then(connect), 2000);
      }
    };
  };
  // A browser has few connections for one server: a page that nobody looks at needs none.
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) {
      events?.close();
    } else {
      connect();
    }
  });
  if (document.hidden) {
    refresh();
  }
  connect();
  return refresh;
}

export const view = document.getElementById("view");

/**
 * Shows these, changing only what is not there yet: what has the focus, what is typed and what is open
 * stays. Each child keeps its place, one that is missing leaves a gap; one with another `data-key` is another.
 */
export function put(place, ...children) {
  morph(place, children.flat(Infinity).map((child) => child || document.createComment("")));
}

function morph(place, wanted) {
  wanted.forEach((next, at) => {
    const now = place.childNodes[at];
    if (!now) {
      place.append(next);
    } else if (now !== next && !now.isEqualNode(next)) {
      // Elements that scripts keep, and such of another kind, go in whole.
      if (now.nodeName === next.nodeName && now.nodeType === Node.ELEMENT_NODE && !next.kept && !now.kept && now.dataset.key === next.dataset.key) {
        adopt(now, next);
      } else {
        now.replaceWith(next);
      }
    } else if (now !== next) {
      now.handlers = next.handlers;
      keepBusy(now, next);
      copyHandlers(now, next);
    }
  });
  while (place.childNodes.length > wanted.length) {
    place.lastChild.remove();
  }
}

function adopt(now, next) {
  keepBusy(now, next);
  for (const { name } of [...now.attributes]) {
    // Opened by the user, switched off by what is under way.
    if (!next.hasAttribute(name) && name !== "open" && !(name === "disabled" && now.busy)) {
      now.removeAttribute(name);
    }
  }
  for (const { name, value } of next.attributes) {
    if (now.getAttribute(name) !== value && !(name === "open")) {
      now.setAttribute(name, value);
      if (name === "value" && document.activeElement !== now) {
        // What was typed before does not count any more.
        now.value = value;
      }
    }
  }
  now.handlers = next.handlers;
  morph(now, [...next.childNodes]);
}

function keepBusy(now, next) {
  if (now.busy) {
    now.off = next.hasAttribute("disabled");
  }
}

/** Equal to look at; what they do may be about other data. */
function copyHandlers(now, next) {
  const [olds, news] = [now, next].map((one) => (one.querySelectorAll ? [...one.querySelectorAll("*")] : []));
  olds.forEach((old, at) => {
    old.handlers = news[at].handlers;
    keepBusy(old, news[at]);
  });
}
