"""Measures the time per task in runs of tasks that do nothing, in Leoflow and Airflow, from the runs' own dates. Draws
the results as a chart."""

import math
import statistics

from benchmarks.subjects import Airflow, Leoflow

SIZES = {"leoflow": (1, 10, 100, 1000, 10_000), "airflow": (1, 10, 100, 1000)}
DAG = """from airflow.sdk import DAG, task
@task
def one(number):
    return None
with DAG("cost_{count}", max_active_tasks=100):
    one.expand(number=list(range({count})))
"""
CONFIG = "max_map_length: 10000\n"


def figure(size):
    return f"each of {size}", "ms"


def ms_per_task(size, seconds):
    """Returns milliseconds per task: the median of three runs, or of one run for 1000 tasks and more."""
    return 1000 * statistics.median(seconds() for _ in range(3 if size < 1000 else 1)) / size


FIGURES = [figure(size) for size in SIZES["leoflow"]]


class LeoflowCost(Leoflow):
    def run(self):
        self.timed("setup")
        with open(self.home / "config.yaml", "a", encoding="utf-8") as file:
            file.write(CONFIG)
        self.timed("lite", "start", "--port", str(self.port))
        for size in SIZES["leoflow"]:
            self.save(f"cost_{size}", DAG.format(count=size))
            yield figure(size)[0], ms_per_task(size, lambda: self.seconds(f"cost_{size}"))

    def seconds(self, dag_id):
        self.command("dags", "trigger", dag_id, "--wait")
        query = f"""SELECT extract(epoch FROM end_date - queued_at) FROM dag_run
                    WHERE dag_id = '{dag_id}' ORDER BY queued_at DESC LIMIT 1"""
        return float(self.command("lite", "psql", "--", "-X", "-A", "-t", "-q", "-c", query))


class AirflowCost(Airflow):
    def run(self):
        (self.folder / "dags").mkdir()
        for size in SIZES["airflow"]:
            (self.folder / f"dags/cost_{size}.py").write_text(DAG.format(count=size))
        self.start()
        for size in SIZES["airflow"]:
            yield figure(size)[0], ms_per_task(size, lambda: self.run_dag(f"cost_{size}", limit=900))


# --- the chart

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 640, 340, 70, 130, 40, 50
COLOURS = {"leoflow": "#0b7a5c", "airflow": "#c2410c"}
NAMES = {"leoflow": "Leoflow Lite", "airflow": "airflow standalone"}


def draw(samples, machine):
    """Returns an SVG chart of the cost per task with logarithmic axes. `samples` is name -> figure -> values."""
    lines = {
        name: [(size, statistics.median(found[figure(size)[0]])) for size in SIZES[name] if figure(size)[0] in found]
        for name, found in samples.items()
    }
    sizes = [size for line in lines.values() for size, _ in line]
    costs = [cost for line in lines.values() for _, cost in line]
    low, high = math.floor(math.log10(min(costs))), math.ceil(math.log10(max(costs)))
    last = math.log10(max(sizes))

    def x(size):
        return LEFT + (WIDTH - LEFT - RIGHT) * math.log10(size) / last

    def y(cost):
        return TOP + (HEIGHT - TOP - BOTTOM) * (high - math.log10(cost)) / (high - low)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
        f'<text x="{LEFT}" y="22" font-size="14" font-weight="bold" fill="#222222">What each task of a run costs</text>',
    ]
    for power in range(low, high + 1):
        at = y(10**power)
        label = f"{10**power:g} ms" if power < 3 else f"{10**(power - 3):g} s"
        parts.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at:.1f}" y2="{at:.1f}" stroke="#dddddd"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{at + 4:.1f}" text-anchor="end" fill="#555555">{label}</text>')
    for size in sorted(set(sizes)):
        parts.append(f'<text x="{x(size):.1f}" y="{HEIGHT - BOTTOM + 20}" text-anchor="middle" fill="#555555">{size:,}</text>')
    parts.append(f'<text x="{LEFT}" y="{HEIGHT - 10}" fill="#555555">tasks that do nothing, in one run; {machine}</text>')
    for name, line in lines.items():
        points = " ".join(f"{x(size):.1f},{y(cost):.1f}" for size, cost in line)
        parts.append(f'<polyline points="{points}" fill="none" stroke="{COLOURS[name]}" stroke-width="2"/>')
        for size, cost in line:
            value = f"{cost:.0f} ms" if cost < 1000 else f"{cost / 1000:.1f} s"
            parts.append(f'<circle cx="{x(size):.1f}" cy="{y(cost):.1f}" r="3" fill="{COLOURS[name]}"/>')
            parts.append(f'<text x="{x(size):.1f}" y="{y(cost) - 8:.1f}" text-anchor="middle" fill="{COLOURS[name]}">{value}</text>')
        size, cost = line[-1]
        parts.append(f'<text x="{x(size) + 22:.1f}" y="{y(cost) + 4:.1f}" fill="{COLOURS[name]}">{NAMES[name]}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"
