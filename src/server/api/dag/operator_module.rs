//! The Python module of a task's operator, for `class_ref`.

use leoflow_engine::model::dag::Task;

/// The modules of Airflow's standard operators, with their classes. A DAG's structure names no module for these
/// classes, because Leoflow's own `airflow` package defines them in other modules.
const STANDARD: &[(&str, &[&str])] = &[
    ("decorators.bash", &["_BashDecoratedOperator"]),
    ("decorators.branch_external_python", &["_BranchExternalPythonDecoratedOperator"]),
    ("decorators.branch_python", &["_BranchPythonDecoratedOperator"]),
    ("decorators.branch_virtualenv", &["_BranchPythonVirtualenvDecoratedOperator"]),
    ("decorators.external_python", &["_PythonExternalDecoratedOperator"]),
    ("decorators.python", &["_PythonDecoratedOperator"]),
    ("decorators.python_virtualenv", &["_PythonVirtualenvDecoratedOperator"]),
    ("decorators.sensor", &["DecoratedSensorOperator"]),
    ("decorators.short_circuit", &["_ShortCircuitDecoratedOperator"]),
    ("decorators.stub", &["_StubOperator"]),
    ("operators.bash", &["BashOperator"]),
    ("operators.branch", &["BaseBranchOperator"]),
    ("operators.datetime", &["BranchDateTimeOperator"]),
    ("operators.empty", &["EmptyOperator"]),
    ("operators.hitl", &["ApprovalOperator", "HITLBranchOperator", "HITLEntryOperator", "HITLOperator"]),
    ("operators.latest_only", &["LatestOnlyOperator"]),
    (
        "operators.python",
        &[
            "BranchExternalPythonOperator",
            "BranchPythonOperator",
            "BranchPythonVirtualenvOperator",
            "ExternalPythonOperator",
            "PythonOperator",
            "PythonVirtualenvOperator",
            "ShortCircuitOperator",
        ],
    ),
    ("operators.smooth", &["SmoothOperator"]),
    ("operators.trigger_dagrun", &["TriggerDagRunOperator"]),
    ("operators.weekday", &["BranchDayOfWeekOperator"]),
    ("sensors.bash", &["BashSensor"]),
    ("sensors.date_time", &["DateTimeSensor", "DateTimeSensorAsync"]),
    ("sensors.external_task", &["ExternalTaskMarker", "ExternalTaskSensor"]),
    ("sensors.filesystem", &["FileSensor"]),
    ("sensors.python", &["PythonSensor"]),
    ("sensors.time", &["TimeSensor", "TimeSensorAsync"]),
    ("sensors.time_delta", &["TimeDeltaSensor", "TimeDeltaSensorAsync", "WaitSensor"]),
    ("sensors.weekday", &["DayOfWeekSensor"]),
];

/// Returns the module of a task's operator; `None` if the structure names no module, as in a version that an older
/// release stored, and the class is not a standard operator.
pub fn of(task: &Task) -> Option<String> {
    let standard = || {
        let (module, _) = STANDARD.iter().find(|(_, classes)| classes.contains(&task.operator.as_str()))?;
        Some(format!("airflow.providers.standard.{module}"))
    };
    task.module.clone().or_else(standard)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn standard_operators_have_airflows_modules() {
        let module = |operator: &str, module: Option<&str>| {
            let task = json!({"task_id": "t", "operator": operator, "module": module});
            of(&serde_json::from_value(task).unwrap())
        };
        assert_eq!(module("BashOperator", None).as_deref(), Some("airflow.providers.standard.operators.bash"));
        assert_eq!(module("Own", Some("plugins.own")).as_deref(), Some("plugins.own"));
        assert_eq!(module("BashOperator", Some("plugins.own")).as_deref(), Some("plugins.own"));
        assert_eq!(module("Own", None), None);
    }
}
