"""A first DAG: three tasks that pass values to each other.

This is ordinary Airflow code and runs on Apache Airflow too. Leoflow reads a saved change at once.
"""

from airflow.sdk import dag, task


@dag(dag_id="hello", schedule=None, params={"name": "world"}, tags=["example"])
def hello():
    @task
    def choose_words() -> list:
        return ["Hello", "Guten Tag", "Bonjour"]

    @task
    def greet(words, params=None):
        greetings = [f"{word}, {params['name']}!" for word in words]
        for greeting in greetings:
            print(greeting)
        return greetings

    @task
    def count(greetings):
        counts = {"greetings": len(greetings), "letters": sum(map(len, greetings))}
        print("Counted:", counts)
        return counts

    count(greet(choose_words()))


hello()
