"""Every trigger rule with several combinations of success, failure and skip."""

import os
import time

from airflow.exceptions import AirflowSkipException
from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG, TriggerRule, task

RULES = [rule.value for rule in TriggerRule if rule.value != "all_done_setup_success"]


@task
def good():
    return "good"


def sign(run_id):
    return os.path.join(os.path.dirname(__file__), f"trigger_rules {run_id}")


@task
def bad(run_id):
    with open(sign(run_id), "w"):
        pass
    raise ValueError("bad")


@task
def skips(run_id):
    # Ends after the failure: under all_success, the upstream task that ends first decides the state.
    while not os.path.exists(sign(run_id)):
        time.sleep(0.1)
    os.remove(sign(run_id))
    time.sleep(4)
    raise AirflowSkipException("skipped")


with DAG("trigger_rules", schedule=None):
    ups = {"good": good(), "bad": bad(), "skips": skips()}
    mixtures = {
        "gg": ["good", "good2"],
        "gb": ["good", "bad"],
        "gs": ["good", "skips"],
        "bs": ["bad", "skips"],
        "gbs": ["good", "bad", "skips"],
        "s": ["skips"],
        "b": ["bad"],
    }
    ups["good2"] = good.override(task_id="good2")()
    for name, mixture in mixtures.items():
        for rule in RULES:
            down = EmptyOperator(task_id=f"{name}_{rule}", trigger_rule=rule)
            for up in mixture:
                ups[up] >> down
