"""Which files may share one import between tries."""

import textwrap
import unittest

from leoflow.entry.warm.import_time import may_differ

SAME = {
    "a task uses the time": """
        from datetime import datetime
        from airflow.sdk import DAG, task
        with DAG("d"):
            @task
            def t():
                import random, time
                return datetime.now(), random.random(), time.time()
            t()
    """,
    "a task of a kind": """
        from airflow.sdk import task
        @task.sensor(poke_interval=1)
        def t():
            return datetime.now()
    """,
    "a callable and callbacks run later": """
        import time
        def work():
            time.sleep(1)
        def alarm(context):
            print(time.time())
        default_args = {"on_failure_callback": alarm}
        PythonOperator(task_id="t", python_callable=work, on_failure_callback=alarm, pre_execute=alarm)
    """,
    "a method of an operator": """
        import uuid
        class Own(BaseOperator):
            def __init__(self, name, **others):
                super().__init__(**others)
            def execute(self, context):
                return uuid.uuid4()
        Own(task_id="t", name="x")
    """,
    "a task by another form": """
        import airflow.sdk as sdk
        import time
        @sdk.task
        def t():
            return time.time()
        @setup
        def s():
            return time.time()
    """,
    "a text that cannot be parsed": "this is no Python\n",
    "a function that nothing calls": "import random\ndef unused():\n    return random.random()\n",
}
DIFFERENT = {
    "at the top": "from datetime import datetime\nSTART = datetime.now()\n",
    "by another name": "from random import choice as pick\nX = pick([1, 2])\n",
    "a module by another name": "import time as clock\nX = clock.time()\n",
    "in a function that is called": """
        import uuid
        def name():
            return f"run_{uuid.uuid4()}"
        X = name()
    """,
    "through two functions": """
        import os
        def inner():
            return os.getpid()
        def outer():
            return inner()
        X = outer()
    """,
    "in a function that a decorator of a DAG calls": """
        from airflow.sdk import dag
        import pendulum
        @dag(start_date=pendulum.today())
        def d():
            pass
        d()
    """,
    "in a DAG's function": """
        from airflow.sdk import dag
        import pendulum
        @dag
        def d():
            x = pendulum.now()
        d()
    """,
    "when an object is created": """
        import random
        class Own:
            def __init__(self):
                self.x = random.random()
        Own()
    """,
    "in a function that is passed on": """
        import random
        def weight(x):
            return random.random()
        X = sorted([1, 2], key=weight)
    """,
    "as a default argument": "import time\ndef t(x=time.time()):\n    pass\n",
    "a name that stands for another": "from os import getpid as gp\nX = gp()\n",
    "everything of a module": "from time import *\nX = time()\n",
    "a value in an argument that the task uses": """
        from datetime import datetime
        DAG("d", user_defined_macros={"at": datetime.now()})
        PythonOperator(python_callable=partial(work, datetime.now()))
    """,
    "a context manager": """
        import time
        class Timed:
            def __enter__(self):
                return time.time()
        with Timed() as x:
            pass
    """,
    "code that is not read": "exec(open('other').read())\n",
    "a name as a text": "import datetime\nX = getattr(datetime.datetime, 'now')()\n",
    "random numbers of numpy": "import numpy as np\nnp.random.seed(42)\n",
    "files that may exist": "from pathlib import Path\nX = Path('x').exists()\n",
    "a file that is too deep to read": "X = " + " + ".join(["'a'"] * 3000) + "\n",
    "the parsing context": "from airflow.sdk import get_parsing_context\nX = get_parsing_context().task_id\n",
}


class TestImportTime(unittest.TestCase):
    def test_code_that_has_the_same_result(self):
        for name, source in SAME.items():
            with self.subTest(name):
                self.assertFalse(may_differ([textwrap.dedent(source)]))

    def test_code_that_may_have_another_result(self):
        for name, source in DIFFERENT.items():
            with self.subTest(name):
                self.assertTrue(may_differ([textwrap.dedent(source)]))

    def test_calls_lead_to_other_files(self):
        module = "import time\ndef stamp():\n    return time.time()\n"
        self.assertFalse(may_differ([module, "import module\n"]))
        self.assertTrue(may_differ([module, "import module\nX = module.stamp()\n"]))
        self.assertFalse(may_differ([module, "from datetime import time\nX = time(8)\n"]), "another `time`")
