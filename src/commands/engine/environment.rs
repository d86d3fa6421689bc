//! The Python of a DAG file, for commands that run its code themselves.

use crate::cli::api::Api;
use crate::commands::context::Context;
use crate::python::environments::{self, Lock};
use crate::python::{Children, Found, Interpreter, Request, Said, beside, parse};
use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

/// For a server that does not answer.
const PATIENCE: Duration = Duration::from_secs(3);

/// Parses a file with the Python that its project asks for. Returns that too. The error is for people.
pub async fn parse_in_its_own(
    context: &Context<'_>,
    plain: &Interpreter,
    children: &Rc<Children>,
    request: &Request,
) -> Result<(Interpreter, Found), String> {
    let said = beside(request).said?;
    let interpreter = of(context, plain, &said).await?;
    let found = parse(children, &interpreter, request, said.settings, &Cell::default()).await?;
    Ok((interpreter, found))
}

/// Built where it is not there, which takes as long as it takes.
pub async fn of(context: &Context<'_>, plain: &Interpreter, said: &Said) -> Result<Interpreter, String> {
    let Some(declared) = &said.declared else { return Ok(plain.clone()) };
    let python = environments::choose_or_get(&context.home, declared, &plain.python()?, context.printer)?;
    if declared.is_plain(&python, &plain.program) {
        return Ok(plain.clone());
    }
    let known = chosen(context, &declared.inputs_with(&python)).await;
    let (_, folder) = environments::ensure(&context.home, declared, &python, known, context.printer)?;
    Ok(plain.in_environment(&folder))
}

/// What a running server has chosen for the same, so that a file is run here as it is there.
async fn chosen(context: &Context<'_>, inputs: &str) -> Option<Lock> {
    if !context.home.api_socket().exists() {
        return None;
    }
    let api = Api::new(&context.home);
    let asked = tokio::time::timeout(PATIENCE, api.get(&format!("/local/environments/chosen/{inputs}"))).await;
    // Without a server it is worked out here.
    asked.ok()?.ok()?
}
