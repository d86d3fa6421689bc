"""Tests of what DAG files import."""
