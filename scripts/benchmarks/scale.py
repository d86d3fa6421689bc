"""Measures Leoflow under load: many tasks, many waiting sensors, many DAGs and a long history.

Mapped: one task mapped over many elements, from trigger to success. After work: PSS of the whole process tree fifteen
seconds after the last task, minus the PSS before the first. Sensors, DAGs: CPU time of the whole process tree as a
share of one core. Late: delay of the last run of one tick of the schedule. History: ended task instances of the same
DAG. pandas: from the start of the third try to the line after `import pandas` (skipped if Python has no pandas).
"""

import json
import subprocess
import time

from benchmarks.machine import cpu_seconds, dag_file, pss_mib, tree, wait_for
from benchmarks.subjects import Leoflow

MAPPED, ROWS, SENSORS, DAGS = 1000, 1_000_000, 1000, 1000
FIGURES = [
    (f"mapped over {MAPPED}", "s"), ("after work, more memory", "MiB PSS"), ("10 in a row of a file of 500", "s"),
    (f"{SENSORS} sensors wait", "% of a core"), (f"{DAGS} DAGs of a minute, between", "% of a core"),
    (f"{DAGS} DAGs of a minute, late", "s"), ("pandas, third time", "s"), ("10 in a row", "s"),
    (f"10 in a row, {ROWS} in history", "s"), (f"ten mapped over {MAPPED}, each as one", "times"),
]

MAPPED_DAG = """from airflow.sdk import DAG, task
@task
def make():
    return list(range({count}))
@task
def one(number):
    return None
with DAG({dag_id!r}, max_active_tasks=100):
    made = make()
    for n in range({times}):
        one.override(task_id=f'one_{{n}}').expand(number=made)
"""
FILE_OF_500 = dag_file("file_of_500", 10, True) + dag_file("the_rest", 490, False).partition("\n")[2]
SENSORS_DAG = """from datetime import timedelta
from airflow.sdk import DAG
from airflow.providers.standard.sensors.time_delta import TimeDeltaSensor
with DAG('sensors'):
    for n in range({count}):
        TimeDeltaSensor(task_id=f's{{n}}', delta=timedelta(hours=1))
"""
MINUTES_DAGS = """from datetime import datetime
from airflow.sdk import DAG
from airflow.providers.standard.operators.empty import EmptyOperator
for n in range({count}):
    with DAG(f'minute_{{n}}', schedule='* * * * *', start_date=datetime(2026, 1, 1), is_paused_upon_creation=False):
        EmptyOperator(task_id='t')
"""
PANDAS_DAG = """from airflow.sdk import DAG, task
with DAG("uses_pandas"):
    @task
    def t():
        import pandas
        import time
        return time.time()
    t()
"""


class Scale(Leoflow):
    def run(self):
        self.timed("lite", "start", "--port", str(self.port))
        self.root = json.loads(self.command("lite", "status", "--json"))["pid"]
        # The first start also unpacks the packages in the background.
        wait_for(lambda: any((self.home / "python").glob("packages-*")), limit=60)
        time.sleep(15)
        before = pss_mib(tree(self.root))
        self.save("mapped", MAPPED_DAG.format(dag_id="mapped", count=MAPPED, times=1))
        one = self.timed("dags", "trigger", "mapped", "--wait")
        yield FIGURES[0][0], one
        time.sleep(15)
        yield FIGURES[1][0], pss_mib(tree(self.root)) - before
        self.save("file_of_500", FILE_OF_500)
        yield FIGURES[2][0], self.timed("dags", "trigger", "file_of_500", "--wait")
        yield from self.wait_for_sensors()
        yield from self.wait_for_minutes()
        yield FIGURES[6][0], self.pandas()
        self.save("chain", dag_file("chain", 10, True))
        yield FIGURES[7][0], self.chain()
        self.fill_history()
        yield FIGURES[8][0], self.chain()
        self.save("ten", MAPPED_DAG.format(dag_id="ten", count=MAPPED, times=10))
        yield FIGURES[9][0], self.timed("dags", "trigger", "ten", "--wait") / 10 / one

    def sql(self, text):
        return self.command("lite", "psql", "--", "-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1", "-c", text).strip()

    def chain(self):
        """Returns the best of three runs: the first one starts the warm Python."""
        return min(self.timed("dags", "trigger", "chain", "--wait") for _ in range(3))

    def share(self, seconds):
        """Returns the CPU time of the whole process tree during `seconds`, in percent of one core."""
        before, begun = cpu_seconds(tree(self.root)), time.monotonic()
        time.sleep(seconds)
        used = sum(after - before.get(pid, after) for pid, after in cpu_seconds(tree(self.root)).items())
        return 100 * used / (time.monotonic() - begun)

    def wait_for_sensors(self):
        self.save("sensors", SENSORS_DAG.format(count=SENSORS))
        run = self.command("dags", "trigger", "sensors", "--json")
        run_id = json.loads(run)["dag_run_id"]
        waiting = "SELECT count(*) FROM task_instance WHERE dag_id = 'sensors' AND state = 'up_for_reschedule'"
        wait_for(lambda: self.sql(waiting) == str(SENSORS), pause=0.5)
        time.sleep(15)
        yield FIGURES[3][0], self.share(20)
        self.command("runs", "cancel", "sensors", run_id)

    def wait_for_minutes(self):
        """Measures before and at the third tick of the schedule, because the DAGs are parsed during the first one."""
        self.save("minute_0", MINUTES_DAGS.format(count=DAGS))
        begun = "SELECT count(*) FROM dag_run WHERE dag_id LIKE 'minute%' AND start_date IS NOT NULL AND run_after = '{}'"
        late = "SELECT max(extract(epoch FROM start_date - run_after)) FROM dag_run WHERE dag_id LIKE 'minute%' AND run_after = '{}'"
        tick = time.time() // 60 * 60 + 180
        time.sleep(tick - 35 - time.time())
        yield FIGURES[4][0], self.share(25)
        tick_text = time.strftime("%Y-%m-%d %H:%M:%S+00", time.gmtime(tick))
        time.sleep(tick + 5 - time.time())
        wait_for(lambda: self.sql(begun.format(tick_text)) == str(DAGS), limit=50, pause=0.5)
        yield FIGURES[5][0], float(self.sql(late.format(tick_text)))
        (self.folder / "leoflow" / "minute_0.py").unlink()
        wait_for(lambda: self.sql("SELECT count(*) FROM dag WHERE dag_id LIKE 'minute%' AND is_active") == "0", pause=0.5)

    def pandas(self):
        self.save("uses_pandas", PANDAS_DAG)
        took = "SELECT extract(epoch FROM to_timestamp(value::text::float8) - start_date) FROM xcom JOIN task_instance USING \
                (dag_id, run_id, task_id) WHERE dag_id = 'uses_pandas' AND key = 'return_value' ORDER BY start_date DESC LIMIT 1"
        for _ in range(3):
            try:
                self.command("dags", "trigger", "uses_pandas", "--wait")
            except subprocess.CalledProcessError:
                return None
        return float(self.sql(took))

    def fill_history(self):
        """Inserts ended runs of the DAG `chain`."""
        runs = ROWS // 10
        self.sql(f"""
            INSERT INTO dag_run (dag_id, run_id, run_type, state, logical_date, run_after, queued_at, start_date, end_date, dag_version_id)
            SELECT 'chain', 'old__' || n, 'manual', 'success', at, at, at, at, at, (SELECT current_version_id FROM dag WHERE dag_id = 'chain')
            FROM (SELECT n, now() - n * interval '1 minute' AS at FROM generate_series(1, {runs}) n) old""")
        self.sql("""
            INSERT INTO task_instance (dag_id, run_id, task_id, map_index, state, try_number, start_date, end_date)
            SELECT dag_id, run_id, 't' || n, -1, 'success', 1, start_date, end_date
            FROM dag_run, generate_series(0, 9) n WHERE run_id LIKE 'old\\_\\_%'""")
        self.sql("""
            INSERT INTO task_try (dag_id, run_id, task_id, map_index, try_number, state, start_date, end_date)
            SELECT dag_id, run_id, task_id, map_index, 1, 'success', start_date, end_date
            FROM task_instance WHERE run_id LIKE 'old\\_\\_%'""")
        # In reality autovacuum would have analyzed the tables while the history grew.
        self.sql("ANALYZE")
