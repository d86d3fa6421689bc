"""Edges between tasks."""

import unittest

from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG, EdgeModifier, Label, TaskGroup, chain, chain_linear, cross_downstream, setup, task, task_group, teardown
from leoflow.common.exceptions import AirflowDagCycleException, AirflowException, DuplicateTaskIdFound, Unsupported
from leoflow.common.structure import LINKS


def tasks(*names):
    return [EmptyOperator(task_id=name) for name in names]


def edges(dag):
    return sorted((task.task_id, down) for task in dag.tasks for down in task.downstream_task_ids)


def links(group):
    return tuple(sorted(getattr(group, name)) for name in LINKS)


class Edges(unittest.TestCase):
    def test_loops_are_refused_with_their_line(self):
        with DAG("d"):
            body = task_group(tasks)
            with self.assertRaisesRegex(Unsupported, r"test_edges\.py:\d+: the loop of the task group 'tasks' .* is not supported"):
                body.loop(max_iterations=3)

    def test_lists_on_either_side(self):
        with DAG("d") as dag:
            a, b, c = tasks("a", "b", "c")
            [a, b] >> c
        self.assertEqual(edges(dag), [("a", "c"), ("b", "c")])

    def test_chain_links_lists_pairwise(self):
        with DAG("d") as dag:
            a, b, c, d, e, f = tasks(*"abcdef")
            chain(a, [b, c], [d, e], f)
        self.assertEqual(edges(dag), [("a", "b"), ("a", "c"), ("b", "d"), ("c", "e"), ("d", "f"), ("e", "f")])

    def test_chain_refuses_lists_of_different_lengths(self):
        with DAG("d"):
            a, b, c = tasks(*"abc")
            with self.assertRaisesRegex(AirflowException, "different length"):
                chain([a], [b, c])

    def test_chain_linear_and_cross_downstream_link_all_to_all(self):
        with DAG("d") as dag:
            a, b, c, d = tasks(*"abcd")
            chain_linear([a, b], [c, d])
        with DAG("e") as other:
            a, b, c, d = tasks(*"abcd")
            cross_downstream([a, b], [c, d])
        self.assertEqual(edges(dag), [("a", "c"), ("a", "d"), ("b", "c"), ("b", "d")])
        self.assertEqual(edges(other), edges(dag))

    def test_label_names_an_edge(self):
        with DAG("d") as dag:
            a, b = tasks("a", "b")
            a >> Label("when it is late") >> b
        self.assertEqual(dag.edge_labels, {("a", "b"): "when it is late"})
        self.assertIsInstance(Label("x"), EdgeModifier)

    def test_a_group_is_linked_by_its_root_and_leaf_tasks(self):
        with DAG("d") as dag:
            first, last = tasks("first", "last")
            with TaskGroup("g") as group:
                a, b, c = tasks("a", "b", "c")
                a >> b
            first >> group >> last
        self.assertEqual(edges(dag), [("first", "g.a"), ("first", "g.c"), ("g.a", "g.b"), ("g.b", "last"), ("g.c", "last")])

    def test_a_group_records_its_edges(self):
        with DAG("d") as dag:
            first, last = tasks("first", "last")
            with TaskGroup("g") as g:
                tasks("a", "b")
            with TaskGroup("h") as h:
                tasks("c")
            first >> Label("begin") >> g >> Label("go on") >> h
            last << h
        self.assertEqual(links(g), ([], ["h"], ["first"], []))
        # The second group also records an edge from each leaf task of the first.
        self.assertEqual(links(h), (["g"], [], ["g.a", "g.b"], ["last"]))
        self.assertEqual(dag.edge_labels, {
            ("first", "g.upstream_join_id"): "begin",
            ("first", "g.a"): "begin",
            ("first", "g.b"): "begin",
            ("g.downstream_join_id", "h.upstream_join_id"): "go on",
        })

    def test_a_label_out_of_a_group_links_the_whole_group(self):
        with DAG("d") as dag:
            (last,) = tasks("last")
            with TaskGroup("g") as g:
                a, b, c = tasks("a", "b", "c")
                a >> Label("within") >> b
            a >> Label("out") >> last
        self.assertEqual(edges(dag), [("g.a", "g.b"), ("g.b", "last"), ("g.c", "last")])
        self.assertEqual(links(g), ([], [], [], ["last"]))
        self.assertEqual(dag.edge_labels, {("g.a", "g.b"): "within", ("g.downstream_join_id", "last"): "out"})

    def test_refuses_a_duplicate_task_id(self):
        with DAG("d"):
            tasks("a")
            with self.assertRaises(DuplicateTaskIdFound):
                tasks("a")

    def test_refuses_a_cycle(self):
        with DAG("d") as dag:
            a, b = tasks("a", "b")
            a >> b >> a
        with self.assertRaises(AirflowDagCycleException):
            dag.ordered()

    def test_tasks_inside_a_setup_run_before_its_teardown(self):
        with DAG("d") as dag:

            @setup
            def up():
                pass

            @teardown
            def down():
                pass

            @task
            def work():
                pass

            with up() >> down():
                work()
        self.assertEqual(edges(dag), [("up", "down"), ("up", "work"), ("work", "down")])
