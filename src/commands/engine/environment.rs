//! The Python of a DAG file, for commands that run its code themselves.

use crate::commands::context::Context;
use crate::python::environments;
use crate::python::{Children, Found, Interpreter, Request, Said, beside, parse};
use std::rc::Rc;

/// Parses a file with the Python that its project asks for. Returns that too. The error is for people.
pub async fn parse_in_its_own(
    context: &Context<'_>,
    plain: &Interpreter,
    children: &Rc<Children>,
    request: &Request,
) -> Result<(Interpreter, Found), String> {
    let said = beside(request).said?;
    let interpreter = of(context, plain, &said)?;
    let found = parse(children, &interpreter, request, said.settings).await?;
    Ok((interpreter, found))
}

/// Built where it is not there, which takes as long as it takes.
pub fn of(context: &Context<'_>, plain: &Interpreter, said: &Said) -> Result<Interpreter, String> {
    let Some(declared) = &said.declared else { return Ok(plain.clone()) };
    let python = environments::choose(declared, &plain.python()?)?;
    if declared.requirements.is_empty() && python.path == plain.program {
        return Ok(plain.clone());
    }
    let (_, folder) = environments::ensure(&context.home, declared, &python, None, context.printer)?;
    Ok(plain.in_environment(&folder))
}
