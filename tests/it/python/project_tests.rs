//! `leoflow test` and `leoflow dev`: a project's pytest, tests of its DAG files, fixtures, and imports as files are saved.

use crate::support::TestHome;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader};
use std::process::Stdio;

const DAG: &str = "
from airflow.sdk import DAG, task, Variable
with DAG('sales', schedule=None):
    @task
    def total(postgres_conn_id=None):
        return int(Variable.get('amount'))
    @task
    def double(value):
        return 2 * value
    double(total())
";

const TESTS: &str = "
def test_dag_bag(dag_bag):
    assert list(dag_bag.dags) == ['sales'] and list(dag_bag.import_errors) == []

def test_run(run_dag):
    run = run_dag('sales')
    assert run.state == 'success' and run.get_task_instance('double').xcom_pull() == 6

def test_task(run_task):
    assert run_task('sales', 'total').xcom_pull() == 3

def test_dag_bag_of_airflow():
    from airflow.dag_processing.dagbag import DagBag as New
    from airflow.models import DagBag
    bag = DagBag(dag_folder='dags', include_examples=False)
    assert (bag.size(), bag.import_errors, New is DagBag) == (1, {}, True)
    assert bag.get_dag(dag_id='sales').task_ids == ['total', 'double'] and bag.get_dag('x') is None

def test_missing(run_dag):
    run_dag('sale')
";

#[test]
fn a_projects_tests_run_with_fixtures() {
    let test = TestHome::new().with_packages();
    test.set_up();
    test.save("sales/.env", "AIRFLOW_VAR_AMOUNT=3\n");
    test.save("sales/dags/sales.py", DAG);
    test.save("sales/tests/test_sales.py", TESTS);
    let run = |arguments: &[&str], code: i32| {
        let output = test.run(&[&["test", "sales", "--", "-v"], arguments].concat()).expect(code);
        output.stdout
    };
    let output = run(&[], 1);
    for expected in [
        "dags/sales.py::import PASSED",
        "test_dag_bag PASSED",
        "test_run PASSED",
        "test_task PASSED",
        "no DAG 'sale'; the DAGs are: sales",
        "test_dag_bag_of_airflow PASSED",
        "1 failed, 5 passed",
    ] {
        assert!(output.contains(expected), "{expected}: {output}");
    }
    test.save("sales/dags/broken.py", "from airflow.sdk import DAG\nimport nothing_here\n");
    test.save(
        "sales/dags/load.py",
        "from airflow.sdk import DAG\nfrom airflow.providers.standard.operators.empty import EmptyOperator\n\
         class Load(EmptyOperator):\n    pg_conn_id = None\n    def __init__(self, **more):\n        super().__init__(**more)\n        \
         self.pg_conn_id = 'warehouse'\nwith DAG('load', schedule=None):\n    Load(task_id='t')\n",
    );
    let output = run(&["-k", "dags"], 1);
    assert!(output.contains("ModuleNotFoundError: No module named 'nothing_here'"), "{output}");
    assert!(!output.contains("workspace.py"), "only the calls of the file: {output}");
    assert!(!output.contains("warehouse"), "unknown without a server: {output}");
    test.start();
    let output = run(&["-k", "load"], 1);
    assert!(output.contains("load uses connections that do not exist: warehouse"), "{output}");
    // Named tests run alone.
    let output = run(&["tests/test_sales.py::test_task"], 0);
    assert!(output.contains("1 passed"), "{output}");
}

#[test]
fn a_projects_tests_run_with_the_sdk() {
    let test = TestHome::new().with_airflow();
    test.save("sales/.env", "AIRFLOW_VAR_AMOUNT=3\n");
    test.save("sales/dags/sales.py", DAG);
    test.save("sales/tests/test_sales.py", TESTS);
    test.save(
        "sales/tests/test_log.py",
        "import logging\ndef test_the_log_after_a_task(run_task, caplog):\n    run_task('sales', 'total')\n    \
         logging.getLogger('x').warning('hello')\n    assert 'hello' in caplog.text\n",
    );
    let output = test.run(&["test", "sales", "--", "-v", "-k", "dags or task"]).expect(0).stdout;
    assert!(output.contains("dags/sales.py::import PASSED") && output.contains("3 passed"), "{output}");
}

#[test]
fn a_saved_file_is_imported_and_its_changes_are_printed() {
    let test = TestHome::new().with_packages();
    test.set_up();
    let dag = "from airflow.sdk import DAG, task\nfrom helpers import RETRIES\nwith DAG('sales', schedule=None):\n    \
               @task(retries=RETRIES)\n    def total():\n        print('it runs')\n    total()\n";
    test.save("sales/helpers.py", "RETRIES = 0\n");
    let file = test.save("sales/dag.py", dag);
    let mut command = test.command(&["dev", "sales", "--run", "--json"]);
    let mut dev = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut lines = BufReader::new(dev.stdout.take().unwrap()).lines();
    // The output of runs is between the reports.
    let mut report = || loop {
        let line = lines.next().expect("the command still runs").unwrap();
        if line.starts_with("{\"file\"") {
            return serde_json::from_str::<Value>(&line).unwrap();
        }
    };
    assert_eq!(report()["dags"], json!({"sales": []}));
    test.save("sales/helpers.py", "RETRIES = 2\n");
    assert_eq!(report()["dags"], json!({"sales": ["task total: retries 0 -> 2"]}));
    test.save("sales/dag.py", &format!("{dag}x = ("));
    assert!(report()["error"].as_str().unwrap().contains("SyntaxError"));
    test.save("sales/dag.py", &dag.replace("'sales'", "'sold'"));
    assert_eq!(report()["dags"], json!({"sales": ["removed"], "sold": ["new"]}));
    std::fs::remove_file(&file).unwrap();
    assert_eq!(report()["error"], "the file was removed");
    // Compared with what it was before.
    test.save("sales/dag.py", dag);
    assert_eq!(report()["dags"], json!({"sales": ["new"], "sold": ["removed"]}));
    dev.kill().unwrap();
    dev.wait().unwrap();
}
