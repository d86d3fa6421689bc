"""The versions of Airflow and of its SDK that the small package implements."""

version = "3.3.2"
sdk_version = "1.3.2"
