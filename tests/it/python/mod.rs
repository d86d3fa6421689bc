//! Python: environments, warm processes, the package.

mod airflow_2;
mod airflow_sdk;
mod environments;
mod image_folder;
mod linked_venv;
mod managed_python;
mod named_classes;
mod newest_airflow;
mod project_tests;
mod python_package;
mod warm_python;
