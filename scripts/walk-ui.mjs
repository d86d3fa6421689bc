#!/usr/bin/env node
// Opens the pages of Airflow's web UI on a running Leoflow in headless Chromium, performs actions, and reports
// problems: failed requests, console errors, pages that show an error.
//
//     scripts/walk-ui.mjs http://127.0.0.1:8088 PASSWORD [FOLDER]      save screenshots of all pages in FOLDER
//     scripts/walk-ui.mjs --drawn http://127.0.0.1:8088 PASSWORD       print milliseconds to the complete home page
//
// For an Airflow without logins the password is "".
//
// The DAGs `walked` and `walked_daily` must exist and be active: `scripts/walk-ui.mjs --dag` prints their file. Needs
// Chromium, and npm to install playwright-core into ~/.cache/leoflow-bench. Connects only to the given address, except
// to install. Exits with 1 if there are problems, and with 3 if npm cannot install.

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
// Only every n-th page is loaded completely, as from a bookmark, because that takes 2 s of CPU time; the others are
// opened through the UI's router. Always loaded completely: `/docs`, which is not part of the UI, and a page whose
// requests depend on the previous page.
const FULL_LOAD_INTERVAL = 20;
const ALWAYS_FULLY_LOADED = new Set(["/docs", "/dags/walked/tasks/start"]);
// Files that Airflow's own server does not have either.
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
  "/plugin/leoflow-backups", "/plugin/leoflow-releases", "/plugin/leoflow-doctor", "/plugin/leoflow-docs", "/docs",
];

function playwright() {
  const folder = join(homedir(), ".cache/leoflow-bench/playwright");
  if (!existsSync(join(folder, "node_modules/playwright-core"))) {
    mkdirSync(folder, { recursive: true });
    try {
      execFileSync("npm", ["install", "--silent", "--prefix", folder, "playwright-core@1.64.1"], { stdio: "inherit" });
    } catch (error) {
      console.error(`npm cannot install playwright-core: ${error.message}`);
      process.exit(3);
    }
  }
  return createRequire(join(folder, "x.js"))("playwright-core");
}

class Walk {
  problems = new Set();
  pending = new Set();
  lastActivity = 0;
  requestCount = 0;
  where = "";

  constructor(base, page, folder) {
    Object.assign(this, { base, page, folder });
    page.on("request", (request) => {
      this.pending.add(request);
      this.requestCount += 1;
      this.lastActivity = Date.now();
    });
    for (const end of ["requestfinished", "requestfailed"]) {
      page.on(end, (request) => {
        this.pending.delete(request);
        this.lastActivity = Date.now();
      });
    }
    page.on("response", (response) => {
      const known = KNOWN.some((pattern) => pattern.test(response.url()));
      if (response.status() >= 400 && !known) {
        this.report(`${response.status()} ${response.request().method()} ${response.url().replace(base, "")}`);
      }
    });
    page.on("console", (message) => {
      // The response handler reports failed loads.
      if (message.type() === "error" && !message.text().startsWith("Failed to load resource")) this.report(message.text());
    });
    page.on("requestfailed", (request) => {
      // The browser aborts the requests of a page when another one is opened.
      const why = request.failure()?.errorText ?? "";
      if (why !== "net::ERR_ABORTED") this.report(`${why} ${request.method()} ${request.url().replace(base, "")}`);
    });
    page.on("pageerror", (error) => this.report(String(error)));
  }

  report(text) {
    this.problems.add(`${this.where}: ${text.slice(0, 300)}`);
  }

  async picture(name) {
    if (this.folder) await this.page.screenshot({ path: join(this.folder, `${name.replace(/[^a-z0-9]+/gi, "_")}.png`) });
  }

  /** Runs a step; reports its exception and continues the walk. */
  async step(name, act) {
    this.where = name;
    try {
      await act();
      await this.settled();
    } catch (error) {
      this.report(String(error).split("\n").slice(0, 3).join(" "));
      const shown = await this.page.evaluate(() => document.body.innerText).catch(String);
      this.report(`${this.page.url()} shows: ${shown.replace(/\s+/g, " ").slice(0, 300)}`);
    }
    await this.picture(name);
  }

  /** Waits until no request has been active for 300 ms; at most 5 s, because some pages keep polling. */
  async settled() {
    const deadline = Date.now() + 5000;
    this.lastActivity = Date.now();
    while (Date.now() < deadline && (this.pending.size > 0 || Date.now() - this.lastActivity < 300)) {
      await this.page.waitForTimeout(50);
    }
  }

  /** Requests `path` of the REST API and returns the JSON. */
  api(path) {
    return this.page.evaluate(async (apiPath) => (await fetch(`/api/v2${apiPath}`)).json(), path);
  }

  /** Polls the REST API until an action has taken effect. */
  async waitForEffect(action, path, isMet) {
    let answer;
    for (let attempt = 0; attempt < 60; attempt += 1) {
      answer = await this.api(path);
      if (isMet(answer)) return;
      await this.page.waitForTimeout(250);
    }
    this.report(`${action} did not take effect: ${JSON.stringify(answer)}`);
  }

  /** Opens a page of the UI as a link does: the UI's router listens for `popstate`. */
  async follow(path) {
    await this.page.evaluate((next) => {
      history.pushState({ idx: (history.state?.idx ?? 0) + 1, key: next }, "", next);
      dispatchEvent(new PopStateEvent("popstate", { state: history.state }));
    }, path);
    await this.settled();
  }

  /** Opens a page and checks it: loads the whole UI, as a bookmark does, or follows a link in it. */
  async open(path, isFullLoad) {
    await this.step(path, async () => {
      const expectedUrl = this.base + path;
      const served = await this.page.request.get(expectedUrl, { headers: { Accept: "text/html" } });
      if (served.status() !== 200) this.report(`${served.status()} when loaded`);
      const shownBefore = await this.page.textContent("body");
      const requestsBefore = this.requestCount;
      if (isFullLoad) await this.page.goto(expectedUrl);
      else await this.follow(path);
      // A plugin's page appends the path of the page in its frame to the URL.
      if (!this.page.url().startsWith(expectedUrl)) this.report(`is at ${this.page.url()}`);
      const text = await this.page.textContent("body");
      if (text === shownBefore && this.requestCount === requestsBefore) this.report("still shows the page before");
      if (/Page Not Found|went wrong/.test(text)) this.report("the page shows an error");
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

/** Returns the median of seven loads in milliseconds, after three loads that fill the browser's cache. */
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
  return times.slice(3).sort((a, b) => a - b)[3];
}

async function main() {
  const option = process.argv[2];
  if (option === "--dag") return console.log(DAG);
  const [base, password, folder] = process.argv.slice(option === "--drawn" ? 3 : 2);
  const executablePath = CHROMIUM.find(existsSync);
  if (!base || password === undefined || !executablePath) {
    console.error("usage: scripts/walk-ui.mjs URL PASSWORD [FOLDER]; needs Chromium");
    process.exit(2);
  }
  if (option === "--drawn") return console.log((await drawn(base, password, executablePath)).toFixed(1));
  if (folder) mkdirSync(folder, { recursive: true });
  const browser = await playwright().chromium.launch({ executablePath, args: FLAGS });
  const started = `/dags/walked/dagRuns/RUN/taskInstances/start`;
  const page = await browser.newPage({ viewport: { width: 1400, height: 900 }, reducedMotion: "reduce" });
  const walk = new Walk(base, page, folder);
  await walk.step("log in", () => logIn(page, base, password, "/dags?name_pattern=walked"));
  await walk.step("trigger with the form", async () => {
    await walk.follow("/dags/walked");
    await page.getByRole("button", { name: "Trigger" }).first().click();
    await page.waitForTimeout(1500);
    await walk.picture("the form");
    await page.getByRole("button", { name: "Trigger" }).last().click();
    await walk.waitForEffect("the run", "/dags/walked/dagRuns", (runs) => ["success", "failed"].includes(runs.dag_runs[0]?.state));
  });
  const runs = await walk.api("/dags/walked/dagRuns?order_by=-run_after");
  const run = encodeURIComponent(runs.dag_runs?.[0]?.dag_run_id ?? "none");
  for (const [index, path] of PAGES.entries()) await walk.open(path.replace("RUN", run), index % FULL_LOAD_INTERVAL === 0 || ALWAYS_FULLY_LOADED.has(path));
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
    await walk.follow(`/dags/walked/runs/${run}/tasks/start`);
    await page.getByRole("button", { name: /clear/i }).first().click();
    await page.waitForTimeout(1500);
    await walk.picture("the preview");
    await page.getByRole("button", { name: /confirm/i }).last().click();
    const again = (item) => item.try_number === 2 && item.state === "success";
    await walk.waitForEffect("the clear", started.replace("RUN", run), again);
  });
  await walk.step("mark as failed", async () => {
    await page.getByRole("button", { name: /mark task instance as/i }).click();
    await page.getByRole("menuitem", { name: /failed/i }).click();
    await page.waitForTimeout(1500);
    await walk.picture("the marking");
    await page.getByRole("button", { name: /confirm/i }).last().click();
    await walk.waitForEffect("the marking", started.replace("RUN", run), (item) => item.state === "failed");
  });
  await walk.step("a variable", async () => {
    await walk.follow("/variables");
    await page.getByRole("button", { name: /add variable/i }).click();
    await page.waitForTimeout(800);
    await page.fill("input[name=key]", "walked");
    await page.fill("textarea[name=value]", "1");
    await page.getByRole("button", { name: /save/i }).click();
    await walk.waitForEffect("the variable", "/variables", (answer) => answer.variables.some((item) => item.key === "walked"));
  });
  await walk.step("a pool", async () => {
    await walk.follow("/pools");
    await page.getByRole("button", { name: /add pool/i }).click();
    await page.waitForTimeout(800);
    await page.fill("input[name=name]", "walked");
    await walk.picture("the pool");
    await page.getByRole("button", { name: /save/i }).click();
    await walk.waitForEffect("the pool", "/pools", (answer) => answer.pools.some((item) => item.name === "walked"));
  });
  await walk.step("a connection", async () => {
    await walk.follow("/connections");
    await page.getByRole("button", { name: /add connection/i }).click();
    await page.waitForTimeout(800);
    await page.fill("input[name=connection_id]", "walked");
    await page.getByRole("combobox").last().click();
    await page.keyboard.type("http");
    await page.keyboard.press("Enter");
    await walk.picture("the connection");
    await page.getByRole("button", { name: /save/i }).click();
    await walk.waitForEffect("the connection", "/connections", (answer) =>
      answer.connections.some((item) => item.connection_id === "walked" && item.conn_type === "http"));
  });
  await walk.step("an event of an asset", async () => {
    const asset = (await walk.api("/assets?name_pattern=walked_asset")).assets[0];
    await walk.follow(`/assets/${asset.id}`);
    await page.getByRole("button", { name: "Create Event" }).first().click();
    await page.waitForTimeout(800);
    await walk.picture("the event");
    await page.getByRole("button", { name: "Create Event" }).last().click();
    await walk.waitForEffect("the event", `/assets/events?asset_id=${asset.id}`, (answer) =>
      answer.asset_events.some((item) => item.extra.from_rest_api));
  });
  await walk.step("a backfill", async () => {
    await walk.follow("/dags/walked_daily");
    await page.getByRole("button", { name: "Trigger" }).first().click();
    await page.getByText("Backfill", { exact: true }).last().click();
    await page.waitForTimeout(800);
    for (const day of ["2026/01/02", "2026/01/03"]) {
      // The first field that still shows this placeholder is the next empty one.
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
    await walk.waitForEffect("the backfill", "/backfills?dag_id=walked_daily", (answer) => answer.backfills.length === 1);
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
  console.log(`${walk.problems.size} problems in ${PAGES.length} pages and the actions on them`);
  process.exit(walk.problems.size ? 1 : 0);
}

await main();
