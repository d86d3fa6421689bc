#!/usr/bin/env node
// Walks through Airflow's web UI on a running Leoflow in headless Chromium, and says what did not go well: requests that
// fail, errors on the console, pages that are not found.
//
//     scripts/walk-ui.mjs http://127.0.0.1:8088 PASSWORD [FOLDER]      pictures of all pages go into FOLDER
//     scripts/walk-ui.mjs --drawn http://127.0.0.1:8088 PASSWORD       milliseconds to the home page with all that is on it
//
// An Airflow that lets everybody in has no password: "".
//
// The DAG `walked` has to be there: `scripts/walk-ui.mjs --dag` prints it. Wants Chromium and npm, which fetches playwright-core
// into ~/.cache/leoflow-bench. Talks to that address alone, but to install. The exit code is 1 when something did not go well, and
// 3 when npm gets nothing.

import { execFileSync } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { createRequire } from "node:module";
import { homedir, tmpdir } from "node:os";
import { join } from "node:path";

const DAG = `
from airflow.sdk import DAG, TaskGroup, task

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
  const page = await browser.newPage({ viewport: { width: 1400, height: 900 } });
  const walk = new Walk(base, page, folder);
  await walk.step("log in", () => logIn(page, base, password, "/dags?name_pattern=walked"));
  await walk.step("trigger with the form", async () => {
    await page.goto(`${base}/dags/walked`);
    await page.getByRole("button", { name: "Trigger" }).first().click();
    await page.waitForTimeout(1500);
    await walk.picture("the form");
    await page.getByRole("button", { name: "Trigger" }).last().click();
    await page.waitForTimeout(4000);
  });
  const runs = await page.evaluate(async () => (await fetch("/api/v2/dags/walked/dagRuns?order_by=-run_after")).json());
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
    await page.waitForTimeout(3000);
  });
  await walk.step("mark as failed", async () => {
    await page.getByRole("button", { name: /mark task instance as/i }).click();
    await page.getByRole("menuitem", { name: /failed/i }).click();
    await page.waitForTimeout(1500);
    await walk.picture("the marking");
    await page.getByRole("button", { name: /confirm/i }).last().click();
  });
  await walk.step("a variable", async () => {
    await page.goto(`${base}/variables`);
    await page.getByRole("button", { name: /add variable/i }).click();
    await page.waitForTimeout(800);
    await page.fill("input[name=key]", `walked_${Date.now()}`);
    await page.fill("textarea[name=value]", "1");
    await page.getByRole("button", { name: /save/i }).click();
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
