#!/usr/bin/env node
// Walks through Airflow's web UI on a running Leoflow in headless Chromium, and says what did not go well: requests that
// fail, errors on the console, pages that are not found.
//
//     scripts/walk-ui.mjs http://127.0.0.1:8088 PASSWORD [FOLDER]      pictures of all pages go into FOLDER
//     scripts/walk-ui.mjs --drawn http://127.0.0.1:8088 PASSWORD       milliseconds to the home page with all that is on it
//
// An Airflow that lets everybody in has no password: "".
//
// The DAGs `walked` and `walked_daily` have to be there and active: `scripts/walk-ui.mjs --dag` prints them. Wants Chromium and npm, which fetches playwright-core
// into ~/.cache/leoflow-bench. Talks to that address alone, but to install. The exit code is 1 when something did not go well, and
// 3 when npm gets nothing.

import { execFileSync } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { createRequire } from "node:module";
import { homedir, tmpdir } from "node:os";
import { join } from "node:path";

const DAG = `
from datetime import datetime

from airflow.sdk import DAG, Asset, TaskGroup, task

@task
def fine():
    return {"n": 1}

@task
def each(n):
    print("number", n)
    if n == 2:
        raise ValueError("two")

with DAG("walked", params={"who": "me"}, tags=["walk"]):
    start = fine.override(task_id="start")()
    with TaskGroup("group") as group:
        fine.override(task_id="one")()
        fine.override(task_id="two")()
    start >> group >> each.expand(n=[1, 2])

with DAG("walked_daily", schedule="@daily", start_date=datetime(2026, 1, 1), catchup=False):
    fine.override(task_id="made", outlets=[Asset("walked_asset")])()
`;
const CHROMIUM = ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"];
const FLAGS = [
  "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
  "--disable-component-update", "--disable-sync",
];
// What Airflow's own server does not have either.
const KNOWN = [/\/static\/wasm\/sqlparser_rs_wasm\.js/];
const PAGES = [
  "/", "/dags", "/dags/walked", "/dags/walked/runs", "/dags/walked/tasks", "/dags/walked/calendar", "/dags/walked/backfills",
  "/dags/walked/events", "/dags/walked/code", "/dags/walked/details", "/dags/walked/required_actions",
  "/dags/walked/runs/RUN", "/dags/walked/runs/RUN/events", "/dags/walked/runs/RUN/code", "/dags/walked/runs/RUN/details",
  "/dags/walked/runs/RUN/asset_events", "/dags/walked/runs/RUN/tasks/start", "/dags/walked/runs/RUN/tasks/start/xcom",
  "/dags/walked/runs/RUN/tasks/start/rendered_templates", "/dags/walked/runs/RUN/tasks/start/events",
  "/dags/walked/runs/RUN/tasks/start/code", "/dags/walked/runs/RUN/tasks/start/details",
  "/dags/walked/runs/RUN/tasks/start/asset_events", "/dags/walked/runs/RUN/tasks/each/mapped",
  "/dags/walked/runs/RUN/tasks/each/mapped/1", "/dags/walked/runs/RUN/tasks/group/group", "/dags/walked/tasks/start",
  "/dags/walked/tasks/group/group", "/dag_runs", "/task_instances", "/assets", "/events", "/xcoms", "/variables", "/pools",
  "/providers", "/plugins", "/connections", "/configs", "/jobs", "/required_actions", "/plugin/leoflow",
  "/plugin/leoflow-backups", "/plugin/leoflow-releases", "/plugin/leoflow-doctor", "/docs",
];

function playwright() {
  const folder = join(homedir(), ".cache/leoflow-bench/playwright");
  if (!existsSync(join(folder, "node_modules/playwright-core"))) {
    mkdirSync(folder, { recursive: true });
    try {
      execFileSync("npm", ["install", "--silent", "--prefix", folder, "playwright-core@1.64.1"], { stdio: "inherit" });
    } catch (error) {
      console.error(`npm cannot get playwright-core: ${error.message}`);
      process.exit(3);
    }
  }
  return createRequire(join(folder, "x.js"))("playwright-core");
}

class Walk {
  problems = new Set();
  where = "";

  constructor(base, page, folder) {
    Object.assign(this, { base, page, folder });
    page.on("response", (response) => {
      const known = KNOWN.some((one) => one.test(response.url()));
      if (response.status() >= 400 && !known) {
        this.tell(`${response.status()} ${response.request().method()} ${response.url().replace(base, "")}`);
      }
    });
    page.on("console", (message) => {
      // What failed to load is told by its answer.
      if (message.type() === "error" && !message.text().startsWith("Failed to load resource")) this.tell(message.text());
    });
    page.on("requestfailed", (request) => {
      // What a page has left is not waited for.
      const why = request.failure()?.errorText ?? "";
      if (why !== "net::ERR_ABORTED") this.tell(`${why} ${request.method()} ${request.url().replace(base, "")}`);
    });
    page.on("pageerror", (error) => this.tell(String(error)));
  }

  tell(text) {
    this.problems.add(`${this.where}: ${text.slice(0, 300)}`);
  }

  async picture(name) {
    if (this.folder) await this.page.screenshot({ path: join(this.folder, `${name.replace(/[^a-z0-9]+/gi, "_")}.png`) });
  }

  /** One step; what it throws is told, and the walk goes on. */
  async step(name, act) {
    this.where = name;
    try {
      await act();
      await this.settled();
    } catch (error) {
      this.tell(String(error).split("\n").slice(0, 3).join(" "));
      const shown = await this.page.evaluate(() => document.body.innerText).catch(String);
      this.tell(`${this.page.url()} shows: ${shown.replace(/\s+/g, " ").slice(0, 300)}`);
    }
    await this.picture(name);
  }

  /** Until it asks for nothing for half a second; some pages go on asking. */
  async settled() {
    await this.page.waitForLoadState("networkidle", { timeout: 5000 }).catch(() => {});
  }

  /** What the REST API answers. */
  api(path) {
    return this.page.evaluate(async (asked) => (await fetch(`/api/v2${asked}`)).json(), path);
  }

  /** That something was done, which may take its time. */
  async sure(what, path, met) {
    let found;
    for (let tried = 0; tried < 60; tried += 1) {
      found = await this.api(path);
      if (met(found)) return;
      await this.page.waitForTimeout(250);
    }
    this.tell(`${what} was not done: ${JSON.stringify(found)}`);
  }

  async open(path) {
    await this.step(path, async () => {
      await this.page.goto(this.base + path);
      await this.settled();
      const text = await this.page.textContent("body");
      if (/Page Not Found|went wrong/.test(text)) this.tell("the page says that it is not there");
    });
  }
}

async function logIn(page, base, password, next) {
  await page.goto(`${base}${next}`);
  if (password) {
    await page.fill("input[name=password]", password);
    await page.click("button");
  }
  await page.waitForURL((url) => !url.pathname.startsWith("/auth"));
}

/** The median of seven, after three that fill a browser's cache, as that of somebody who comes back. */
async function drawn(base, password, executablePath) {
  const profile = mkdtempSync(join(tmpdir(), "walk-ui-"));
  const browser = await playwright().chromium.launchPersistentContext(profile, { executablePath, args: FLAGS });
  const page = await browser.newPage();
  await logIn(page, base, password, "/");
  const times = [];
  for (let run = 0; run < 10; run += 1) {
    await page.waitForTimeout(500);
    await page.goto("about:blank");
    const begun = performance.now();
    await page.goto(`${base}/`, { waitUntil: "commit" });
    await page.waitForFunction(() => /MetaDatabase[\s\S]*History/i.test(document.body?.innerText ?? ""), null, { polling: "raf" });
    times.push(performance.now() - begun);
  }
  await browser.close();
  rmSync(profile, { recursive: true });
  return times.slice(3).sort((one, other) => one - other)[3];
}

async function main() {
  const shows = process.argv[2];
  if (shows === "--dag") return console.log(DAG);
  const [base, password, folder] = process.argv.slice(shows === "--drawn" ? 3 : 2);
  const executablePath = CHROMIUM.find(existsSync);
  if (!base || password === undefined || !executablePath) {
    console.error("usage: scripts/walk-ui.mjs URL PASSWORD [FOLDER]; Chromium has to be there");
    process.exit(2);
  }
  if (shows === "--drawn") return console.log((await drawn(base, password, executablePath)).toFixed(1));
  if (folder) mkdirSync(folder, { recursive: true });
  const browser = await playwright().chromium.launch({ executablePath, args: FLAGS });
  const started = `/dags/walked/dagRuns/RUN/taskInstances/start`;
  const page = await browser.newPage({ viewport: { width: 1400, height: 900 } });
  const walk = new Walk(base, page, folder);
  await walk.step("log in", () => logIn(page, base, password, "/dags?name_pattern=walked"));
  await walk.step("trigger with the form", async () => {
    await page.goto(`${base}/dags/walked`);
    await page.getByRole("button", { name: "Trigger" }).first().click();
    await page.waitForTimeout(1500);
    await walk.picture("the form");
    await page.getByRole("button", { name: "Trigger" }).last().click();
    await walk.sure("the run", "/dags/walked/dagRuns", (runs) => ["success", "failed"].includes(runs.dag_runs[0]?.state));
  });
  const runs = await walk.api("/dags/walked/dagRuns?order_by=-run_after");
  const run = encodeURIComponent(runs.dag_runs?.[0]?.dag_run_id ?? "none");
  for (const path of PAGES) await walk.open(path.replace("RUN", run));
  await walk.step("graph", async () => {
    await page.goto(`${base}/dags/walked/runs/${run}`);
    await page.getByRole("button", { name: /graph/i }).first().click();
    await page.waitForTimeout(2000);
  });
  await walk.step("gantt", async () => {
    await page.getByRole("button", { name: /gantt/i }).first().click();
    await page.waitForTimeout(1500);
  });
  await walk.step("grid", () => page.getByRole("button", { name: /grid/i }).first().click());
  await walk.step("clear with a preview", async () => {
    await page.goto(`${base}/dags/walked/runs/${run}/tasks/start`);
    await page.getByRole("button", { name: /clear/i }).first().click();
    await page.waitForTimeout(1500);
    await walk.picture("the preview");
    await page.getByRole("button", { name: /confirm/i }).last().click();
    const again = (one) => one.try_number === 2 && one.state === "success";
    await walk.sure("the clear", started.replace("RUN", run), again);
  });
  await walk.step("mark as failed", async () => {
    await page.getByRole("button", { name: /mark task instance as/i }).click();
    await page.getByRole("menuitem", { name: /failed/i }).click();
    await page.waitForTimeout(1500);
    await walk.picture("the marking");
    await page.getByRole("button", { name: /confirm/i }).last().click();
    await walk.sure("the marking", started.replace("RUN", run), (one) => one.state === "failed");
  });
  await walk.step("a variable", async () => {
    await page.goto(`${base}/variables`);
    await page.getByRole("button", { name: /add variable/i }).click();
    await page.waitForTimeout(800);
    await page.fill("input[name=key]", "walked");
    await page.fill("textarea[name=value]", "1");
    await page.getByRole("button", { name: /save/i }).click();
    await walk.sure("the variable", "/variables", (found) => found.variables.some((one) => one.key === "walked"));
  });
  await walk.step("a pool", async () => {
    await page.goto(`${base}/pools`);
    await page.getByRole("button", { name: /add pool/i }).click();
    await page.waitForTimeout(800);
    await page.fill("input[name=name]", "walked");
    await walk.picture("the pool");
    await page.getByRole("button", { name: /save/i }).click();
    await walk.sure("the pool", "/pools", (found) => found.pools.some((one) => one.name === "walked"));
  });
  await walk.step("a connection", async () => {
    await page.goto(`${base}/connections`);
    await page.getByRole("button", { name: /add connection/i }).click();
    await page.waitForTimeout(800);
    await page.fill("input[name=connection_id]", "walked");
    await page.getByRole("combobox").last().click();
    await page.keyboard.type("http");
    await page.keyboard.press("Enter");
    await walk.picture("the connection");
    await page.getByRole("button", { name: /save/i }).click();
    await walk.sure("the connection", "/connections", (found) =>
      found.connections.some((one) => one.connection_id === "walked" && one.conn_type === "http"));
  });
  await walk.step("an event of an asset", async () => {
    const asset = (await walk.api("/assets?name_pattern=walked_asset")).assets[0];
    await page.goto(`${base}/assets/${asset.id}`);
    await page.getByRole("button", { name: "Create Event" }).first().click();
    await page.waitForTimeout(800);
    await walk.picture("the event");
    await page.getByRole("button", { name: "Create Event" }).last().click();
    await walk.sure("the event", `/assets/events?asset_id=${asset.id}`, (found) =>
      found.asset_events.some((one) => one.extra.from_rest_api));
  });
  await walk.step("a backfill", async () => {
    await page.goto(`${base}/dags/walked_daily`);
    await page.getByRole("button", { name: "Trigger" }).first().click();
    await page.getByText("Backfill", { exact: true }).last().click();
    await page.waitForTimeout(800);
    for (const day of ["2026/01/02", "2026/01/03"]) {
      // The one that has its date shows that in place of these words.
      await page.getByText("Select date and time").first().click();
      await page.getByPlaceholder("YYYY/MM/DD").last().fill(day);
      await page.getByPlaceholder("HH:mm").last().fill("00:00");
      await page.keyboard.press("Enter");
      await page.getByText("Date Range").click();
      await page.waitForTimeout(500);
    }
    await page.waitForTimeout(1500);
    await walk.picture("the backfill");
    await page.getByRole("button", { name: /run backfill/i }).click();
    await walk.sure("the backfill", "/backfills?dag_id=walked_daily", (found) => found.backfills.length === 1);
  });
  await walk.step("dark and narrow", async () => {
    await page.emulateMedia({ colorScheme: "dark" });
    await page.setViewportSize({ width: 390, height: 844 });
    await page.goto(`${base}/dags`);
    await page.waitForTimeout(1500);
  });
  await walk.step("log out", async () => {
    await page.goto(`${base}/api/v2/auth/logout`);
    await page.waitForURL(/\/auth\/login/);
  });
  await browser.close();
  for (const problem of walk.problems) console.log(problem);
  console.log(`${walk.problems.size} problems in ${PAGES.length} pages and what is done on them`);
  process.exit(walk.problems.size ? 1 : 0);
}

await main();
