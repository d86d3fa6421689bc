//! Routes with entries in the OpenAPI document.

use super::operation::{Described, Operation, Schemas};
use axum::Router;
use axum::handler::Handler;
use axum::http::Method;
use axum::routing::{MethodFilter, on};

/// Base path of all operations.
const BASE: &str = "/api/v2";

/// An operation in the document. Its types are described by `describe`.
pub struct Entry {
    pub method: Method,
    /// The path as in the document.
    pub path: String,
    /// Airflow's operation id.
    pub id: &'static str,
    /// Airflow's tags.
    pub tags: &'static [&'static str],
    /// Error statuses, apart from those that any operation may return.
    pub errors: &'static [u16],
    /// True when the operation requires a login.
    pub needs_token: bool,
    /// True when its query may name a region, which a layer translates.
    pub takes_region: bool,
    pub describe: fn(&mut Operation, &mut Schemas),
}

/// Returns a route's path as in the document, which has no syntax for the rest of a path.
pub fn documented_path(path: &str) -> String {
    path.replace("{*", "{")
}

/// Routes with their document entries.
pub struct Routes<S> {
    pub router: Router<S>,
    pub entries: Vec<Entry>,
    tags: &'static [&'static str],
    needs_token: bool,
}

/// Adds an operation, with a function for each method.
macro_rules! methods {
    ($($name:ident $method:ident)*) => {
        $(pub fn $name<H, T, A>(self, path: &str, id: &'static str, errors: &'static [u16], handler: H) -> Self
        where
            H: Handler<T, S> + Described<A>,
            T: 'static,
        {
            self.operation(Method::$method, MethodFilter::$method, path, id, errors, handler)
        })*
    };
}

impl<S: Clone + Send + Sync + 'static> Routes<S> {
    /// Starts a list of routes that require a login, with Airflow's tags.
    pub fn new(tags: &'static [&'static str]) -> Self {
        Self { router: Router::new(), entries: Vec::new(), tags, needs_token: true }
    }

    /// Starts a list of routes that need no login.
    pub fn open(tags: &'static [&'static str]) -> Self {
        Self { needs_token: false, ..Self::new(tags) }
    }

    /// Sets the tags of the operations that follow.
    pub fn tags(self, tags: &'static [&'static str]) -> Self {
        Self { tags, ..self }
    }

    pub fn merge(mut self, other: Self) -> Self {
        self.entries.extend(other.entries);
        Self { router: self.router.merge(other.router), ..self }
    }

    methods! { get GET post POST put PUT patch PATCH delete DELETE }

    fn operation<H, T, A>(
        mut self,
        method: Method,
        filter: MethodFilter,
        path: &str,
        id: &'static str,
        errors: &'static [u16],
        handler: H,
    ) -> Self
    where
        H: Handler<T, S> + Described<A>,
        T: 'static,
    {
        self.router = self.router.route(&format!("{BASE}{path}"), on(filter, handler.clone()));
        self.document(method, path, id, errors, handler)
    }

    /// Adds an operation to the document only. Called directly for an operation that another route serves, because the
    /// operation's path has a fixed word where that route has an id.
    pub fn document<H, A>(
        mut self,
        method: Method,
        path: &str,
        id: &'static str,
        errors: &'static [u16],
        _handler: H,
    ) -> Self
    where
        H: Described<A>,
    {
        let path = documented_path(&format!("{BASE}{path}"));
        let (tags, needs_token) = (self.tags, self.needs_token);
        self.entries.push(Entry {
            method,
            path,
            id,
            tags,
            errors,
            needs_token,
            takes_region: false,
            describe: H::describe,
        });
        self
    }

    /// Adds a route without a document entry.
    pub fn route<H, T>(mut self, filter: MethodFilter, path: &str, handler: H) -> Self
    where
        H: Handler<T, S>,
        T: 'static,
    {
        self.router = self.router.route(&format!("{BASE}{path}"), on(filter, handler));
        self
    }
}
