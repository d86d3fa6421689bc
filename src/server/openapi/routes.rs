//! Routes that are told of in the API's description.

use super::operation::{Described, Operation, Schemas};
use crate::server::state::AppState;
use axum::Router;
use axum::handler::Handler;
use axum::http::Method;
use axum::routing::{MethodFilter, on};
use std::sync::Arc;

/// What every operation is below.
const BASE: &str = "/api/v2";

/// What is told of an operation beside what the types of its handler say.
pub struct Entry {
    pub method: Method,
    /// As the description has it.
    pub path: String,
    /// Airflow's name of it.
    pub id: &'static str,
    /// Airflow's groups that it belongs to.
    pub tags: &'static [&'static str],
    /// Statuses of refusals, beside those that any operation may have.
    pub errors: &'static [u16],
    /// Whether who asks has to have logged in.
    pub needs_token: bool,
    pub describe: fn(&mut Operation, &mut Schemas),
}

/// Routes, and what is told of them.
pub struct Routes {
    pub router: Router<Arc<AppState>>,
    pub entries: Vec<Entry>,
    tags: &'static [&'static str],
    needs_token: bool,
}

impl Routes {
    /// Of those who have logged in. The operations belong to these groups of Airflow's.
    pub fn of(tags: &'static [&'static str]) -> Self {
        Self { router: Router::new(), entries: Vec::new(), tags, needs_token: true }
    }

    /// Of anybody.
    pub fn open(tags: &'static [&'static str]) -> Self {
        Self { needs_token: false, ..Self::of(tags) }
    }

    /// What follows belongs to other groups.
    pub fn tags(self, tags: &'static [&'static str]) -> Self {
        Self { tags, ..self }
    }

    pub fn merge(mut self, other: Self) -> Self {
        self.entries.extend(other.entries);
        Self { router: self.router.merge(other.router), ..self }
    }

    pub fn get<H, T, A>(self, path: &str, id: &'static str, errors: &'static [u16], handler: H) -> Self
    where
        H: Handler<T, Arc<AppState>> + Described<A>,
        T: 'static,
    {
        self.operation(Method::GET, MethodFilter::GET, path, id, errors, handler)
    }

    pub fn post<H, T, A>(self, path: &str, id: &'static str, errors: &'static [u16], handler: H) -> Self
    where
        H: Handler<T, Arc<AppState>> + Described<A>,
        T: 'static,
    {
        self.operation(Method::POST, MethodFilter::POST, path, id, errors, handler)
    }

    pub fn put<H, T, A>(self, path: &str, id: &'static str, errors: &'static [u16], handler: H) -> Self
    where
        H: Handler<T, Arc<AppState>> + Described<A>,
        T: 'static,
    {
        self.operation(Method::PUT, MethodFilter::PUT, path, id, errors, handler)
    }

    pub fn patch<H, T, A>(self, path: &str, id: &'static str, errors: &'static [u16], handler: H) -> Self
    where
        H: Handler<T, Arc<AppState>> + Described<A>,
        T: 'static,
    {
        self.operation(Method::PATCH, MethodFilter::PATCH, path, id, errors, handler)
    }

    pub fn delete<H, T, A>(self, path: &str, id: &'static str, errors: &'static [u16], handler: H) -> Self
    where
        H: Handler<T, Arc<AppState>> + Described<A>,
        T: 'static,
    {
        self.operation(Method::DELETE, MethodFilter::DELETE, path, id, errors, handler)
    }

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
        H: Handler<T, Arc<AppState>> + Described<A>,
        T: 'static,
    {
        self.router = self.router.route(&format!("{BASE}{path}"), on(filter, handler.clone()));
        self.told(method, path, id, errors, handler)
    }

    /// An operation that another route's handler leads to: one whose path is a word where others have an id.
    pub fn told<H, A>(
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
        // The rest of a path is one part for who asks.
        let path = format!("{BASE}{}", path.replace("{*", "{"));
        let (tags, needs_token) = (self.tags, self.needs_token);
        self.entries.push(Entry { method, path, id, tags, errors, needs_token, describe: H::describe });
        self
    }

    /// A route that is told of elsewhere, or nowhere.
    pub fn route<H, T>(mut self, filter: MethodFilter, path: &str, handler: H) -> Self
    where
        H: Handler<T, Arc<AppState>>,
        T: 'static,
    {
        self.router = self.router.route(&format!("{BASE}{path}"), on(filter, handler));
        self
    }
}
