use crate::cli::printer::Printer;
use crate::error::Error;
use crate::postgres;
use crate::schema::{embedded, known};
use serde_json::json;

pub fn run(printer: &Printer) -> Result<u8, Error> {
    let schema = embedded::newest(known());
    if printer.json {
        printer.json(&json!({
            "version": crate::VERSION,
            "target": env!("LEOFLOW_TARGET"),
            "schema_version": schema,
            "postgres_major": postgres::MAJOR,
        }))?;
    } else {
        printer.line(format!("leoflow {}", crate::VERSION));
        printer.detail(format!("{}, schema {schema}, PostgreSQL {}", env!("LEOFLOW_TARGET"), postgres::MAJOR));
    }
    Ok(0)
}
