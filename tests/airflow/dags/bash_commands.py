"""BashOperator and task.bash."""

import os

from airflow.providers.standard.operators.bash import BashOperator
from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG, task

with DAG(dag_id="bash_commands", schedule=None):

    def bash(task_id, command, **more):
        return BashOperator(task_id=task_id, bash_command=command, **more)

    lines = bash("last_line", "echo first; echo second; echo '  third  '")
    others = [
        bash("no_output", "true"),
        bash("blank_last_line", "printf 'text\\n\\n'"),
        bash("no_newline", "printf 'no newline'"),
        bash("stderr_too", "echo out; echo err >&2"),
        bash("unicode", "printf 'h\\303\\251llo \\342\\234\\223'"),
        bash("no_utf8", "printf 'a\\377b'"),
        bash("json_is_text", "echo '{\"a\": 1}'"),
        # The exit code of a pipe is that of its last command.
        bash("pipe", "false | echo piped"),
        bash("bash_features", 'x=(a b c); [[ "${x[*]}" == a*c ]] && echo "${x[-1]}" $((6 * 7))'),
        bash("processed", "echo '1,2,3'", output_processor=lambda output: [int(one) for one in output.split(",")]),
        # The environment is only `env` and the AIRFLOW_CTX variables.
        bash("env_alone", 'echo "${GIVEN}-${HOME-unset}-${AIRFLOW_CTX_TASK_ID-unset}"', env={"GIVEN": "a b"}),
        bash("env_appended", 'echo "${GIVEN}-${HOME:+set}-${PATH:+set}"', env={"GIVEN": "x"}, append_env=True),
        bash("env_inherited", 'echo "${HOME:+set}-${PATH:+set}-${GIVEN-unset}"'),
        bash("cwd_root", "pwd", cwd="/"),
        # The default working directory is an empty temporary folder.
        bash("cwd_default", 'test "$PWD" != "$HOME" && echo "$(ls -A | wc -l) $(touch here; ls)"'),
        bash("reads_script_text", "set -euo pipefail\nfor i in 1 2 3; do\n  echo \"line $i\"\ndone\n"),
    ]

    @task.bash
    def made(value):
        return f"echo 'made of {value}'"

    @task.bash(env={"GIVEN": "by decorator"}, append_env=True)
    def made_with_env(params=None, ti=None):
        return f'echo "$GIVEN for {ti.task_id}"'

    @task.bash
    def made_skipped():
        return "exit 99"

    @task.bash
    def made_failing():
        return "echo about to fail; exit 1"

    @task.bash
    def made_of_nothing():
        return "  "

    @task
    def look(ti=None):
        # The working directory of the previous task is deleted; this task has another one.
        return [ti.xcom_pull(task_ids="last_line"), os.path.exists("here")]

    lines >> others[0]
    lines >> [made(lines.output), look()]
    made_with_env()
    made_skipped() >> EmptyOperator(task_id="after_skipped")
    made_failing() >> EmptyOperator(task_id="after_failing")
    made_of_nothing()
    bash("fails", "exit 1") >> EmptyOperator(task_id="after_fails")
    bash("fails_inside", "set -e; false; echo unreachable")
    bash("killed", "kill -9 $$")
    bash("no_skip_code", "exit 99", skip_on_exit_code=None)
