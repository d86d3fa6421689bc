//! The Python environment of a DAG file, for commands that run its code themselves.

use crate::context::Context;
use leoflow_python::environments::{self, Declared, EnvironmentError, Lock};
use leoflow_python::{Children, FileSettings, Interpreter, NoResult, ParseOutput, Request, file_context, parse};
use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

/// Timeout of the request for the server's lock.
const SERVER_TIMEOUT: Duration = Duration::from_secs(3);

/// Why a file cannot be parsed in its project's environment; each text is a message for users.
#[derive(Debug, thiserror::Error)]
pub enum ParseError {
    #[error(transparent)]
    NoResult(#[from] NoResult),
    #[error("{0}")]
    Environment(Rc<EnvironmentError>),
}

/// The Pythons of projects whose files are parsed in turn: each environment is built, or fails, once.
#[derive(Default)]
pub struct ProjectPythons(Vec<(Declared, Result<Interpreter, Rc<EnvironmentError>>)>);

impl ProjectPythons {
    /// Parses a file with its project's Python. `base` is the Python without a project's packages.
    pub async fn parse(
        &mut self,
        context: &Context<'_>,
        base: &Interpreter,
        children: &Rc<Children>,
        request: &Request,
    ) -> Result<ParseOutput, ParseError> {
        let file_settings = file_context(request).settings?;
        let declared = file_settings.declared.clone().unwrap_or_default();
        let known = self.0.iter().find(|(other, _)| other.is_equal_to(&declared)).map(|(_, python)| python.clone());
        let python = match known {
            Some(python) => python,
            None => {
                let python = for_project(context, base, &file_settings).await.map_err(Rc::new);
                self.0.push((declared, python.clone()));
                python
            }
        };
        let python = python.map_err(ParseError::Environment)?;
        Ok(parse(children, &python, request, file_settings, &Cell::default()).await?)
    }
}

/// Parses a file with its project's Python, and returns that Python, too. `base` is the Python without a project's
/// packages.
pub async fn parse_in_project_environment(
    context: &Context<'_>,
    base: &Interpreter,
    children: &Rc<Children>,
    request: &Request,
) -> Result<(Interpreter, ParseOutput), ParseError> {
    let file_settings = file_context(request).settings?;
    let interpreter =
        for_project(context, base, &file_settings).await.map_err(|error| ParseError::Environment(Rc::new(error)))?;
    let output = parse(children, &interpreter, request, file_settings, &Cell::default()).await?;
    Ok((interpreter, output))
}

/// Returns the project's Python, or `base` if the project declares no packages. Builds its environment if needed,
/// without a time limit.
pub async fn for_project(
    context: &Context<'_>,
    base: &Interpreter,
    file_settings: &FileSettings,
) -> Result<Interpreter, EnvironmentError> {
    let Some(declared) = &file_settings.declared else { return Ok(base.clone()) };
    let python = environments::choose_or_install(&context.home, declared, &base.python()?, context.printer)?;
    if declared.is_plain(&python, &base.program) {
        return Ok(base.clone());
    }
    let known_lock = server_lock(context, &declared.inputs_with(&python)).await;
    let (_, folder) = environments::ensure(&context.home, declared, &python, known_lock, context.printer)?;
    Ok(base.in_environment(&folder))
}

/// Returns the lock that a running server has for the same inputs, so that a file runs with the same packages here.
async fn server_lock(context: &Context<'_>, inputs: &str) -> Option<Lock> {
    if !context.home.api_socket().exists() {
        return None;
    }
    let api = context.api();
    let response = tokio::time::timeout(SERVER_TIMEOUT, api.get(&format!("/local/environments/chosen/{inputs}"))).await;
    // Without a server, the caller resolves the packages.
    response.ok()?.ok()?
}
