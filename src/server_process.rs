//! The server process, `leoflow server`. It is not in the crate `cli`, so that a change of the server does not
//! recompile all commands.

use leoflow_base::protocol::child::Inheritance;
use leoflow_base::protocol::log;
use leoflow_cli::commands::server::{Server, ServerProcess};
use leoflow_cli::context::Context;
use leoflow_cli::error::Error;
use leoflow_server::{Options, ServerError};

pub struct Process;

impl ServerProcess for Process {
    /// Runs the server until the supervisor stops it. The supervisor gets the error that ends it as JSON.
    async fn run(&self, context: &Context<'_>, args: &Server) -> Result<u8, Error> {
        log::start("server", context.log_level());
        let inheritance = Inheritance::take().map_err(Error::failed)?;
        let notifier = inheritance.notifier();
        let options =
            Options { port: args.port, database: args.database.clone(), private_socket: args.private_socket.clone() };
        let ended = leoflow_server::run(&context.home, options, inheritance, context.version).await;
        ended.map(|()| 0).map_err(|failure| {
            let error = for_user(failure);
            notifier.failure(&error.to_json());
            error
        })
    }
}

fn for_user(error: ServerError) -> Error {
    match error {
        ServerError::Config(error) => error.into(),
        ServerError::Credentials(error) => error.into(),
        ServerError::Schema(error) => error.into(),
        ServerError::MissingSecret { .. } | ServerError::NoSettings(_) => Error::failed(&error).hint("leoflow setup"),
        ServerError::WrongKey(_) => {
            Error::refused(&error).hint("put back the config.yaml that belongs to this datastore; nothing was changed")
        }
        ServerError::Store(_) => Error::failed(&error).hint("leoflow lite logs server"),
        ServerError::NotSupervised => Error::usage(&error).hint("leoflow lite"),
        ServerError::Io(_) => Error::failed(&error),
    }
}
