//! `leoflow test`: a project's pytest, tests of its DAG files, and fixtures.

use crate::support::TestHome;

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
        "dags/sales.py PASSED",
        "test_dag_bag PASSED",
        "test_run PASSED",
        "test_task PASSED",
        "no DAG 'sale'; the DAGs are: sales",
        "1 failed, 4 passed",
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
    let output = test.run(&["test", "sales", "--", "-v", "-k", "dags or task"]).expect(0).stdout;
    assert!(output.contains("dags/sales.py PASSED") && output.contains("2 passed"), "{output}");
}
