"""The version of Airflow whose authoring code runs here, and that of its SDK."""

version = "3.3.2"
sdk_version = "1.3.2"
