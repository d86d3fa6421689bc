//! Sends traces of runs and metrics to a collector of OpenTelemetry, if the variables name one. What cannot be sent is
//! left out after a few attempts, as it is in Airflow: no run waits for it.

mod metrics;
mod otlp;
mod settings;
mod traces;

use crate::lite::metrics as own_metrics;
use crate::state::Core;
use crate::state::database::DatastoreError;
use jiff::Timestamp;
use leoflow_base::protocol::web;
use leoflow_engine::model::keys::RunKey;
use leoflow_engine::store::run::traces as store;
use reqwest::header::CONTENT_TYPE;
use serde_json::Value;
use settings::{Destination, Settings, Variables};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tracing::{info, warn};

/// How long ended runs are collected before they are sent together.
const COLLECTED: Duration = Duration::from_millis(200);
const MAX_RUNS: usize = 100;
/// Maximum number of spans of a request.
const MAX_SPANS: usize = 1000;
const SEND_LIMIT: Duration = Duration::from_secs(10);
/// Pauses before a request is sent again.
const PAUSES: [Duration; 3] = [Duration::from_secs(1), Duration::from_secs(5), Duration::from_secs(30)];

/// Why data was not sent.
#[derive(Debug, thiserror::Error)]
enum ExportError {
    #[error("{}", web::chain(.0))]
    Http(reqwest::Error),
    #[error("it answered {0}")]
    Status(reqwest::StatusCode),
    #[error("it does not answer")]
    Timeout,
}

impl From<reqwest::Error> for ExportError {
    /// The address may contain a secret.
    fn from(error: reqwest::Error) -> Self {
        Self::Http(error.without_url())
    }
}

/// Sends until the server stops; ends at once if nothing is to be sent. `variable` reads a variable of the server.
pub async fn run(core: Arc<Core>, version: &'static str, variable: impl Fn(&str) -> Option<String>) {
    let settings = match Settings::read(&Variables(&variable)) {
        Ok(settings) => settings,
        Err(error) => return warn!("no traces and metrics are sent: {error}"),
    };
    if settings.traces.is_none() && settings.metrics.is_none() {
        return;
    }
    let client = match web::client().redirect(reqwest::redirect::Policy::none()).build() {
        Ok(client) => client,
        Err(error) => return warn!("no traces and metrics are sent: {error}"),
    };
    let exporter = Exporter { core, version, client, settings };
    tokio::join!(exporter.send_traces(), exporter.send_metrics());
}

struct Exporter {
    core: Arc<Core>,
    version: &'static str,
    client: reqwest::Client,
    settings: Settings,
}

impl Exporter {
    async fn send_traces(&self) {
        let Some(destination) = &self.settings.traces else { return };
        let mut ended = self.core.totals.ended_runs();
        let (mut runs, mut is_reached) = (Vec::new(), true);
        while ended.recv_many(&mut runs, MAX_RUNS).await > 0 {
            sleep(COLLECTED).await;
            while runs.len() < MAX_RUNS
                && let Ok(run) = ended.try_recv()
            {
                runs.push(run);
            }
            let mut spans = Vec::new();
            for run in runs.drain(..) {
                match self.spans(&run).await {
                    Ok(of_run) => spans.extend(of_run),
                    Err(error) => warn!("the trace of run {} of {} is not sent: {error}", run.run_id, run.dag_id),
                }
                if spans.len() >= MAX_SPANS {
                    self.send_spans(destination, std::mem::take(&mut spans), &mut is_reached).await;
                }
            }
            self.send_spans(destination, spans, &mut is_reached).await;
        }
    }

    async fn send_spans(&self, destination: &Destination, spans: Vec<Value>, is_reached: &mut bool) {
        for spans in spans.chunks(MAX_SPANS) {
            let request = otlp::traces(&self.settings.resource, self.version, spans);
            self.send(destination, &request, is_reached, &PAUSES).await;
        }
    }

    /// The spans of a run; none if it is not sampled, runs again or was deleted.
    async fn spans(&self, key: &RunKey) -> Result<Vec<Value>, DatastoreError> {
        let client = self.core.database.get().await?;
        let Some(run) = store::ended(&*client, key).await? else { return Ok(Vec::new()) };
        let trace = traces::Trace::new(&run);
        if !trace.is_sampled(self.settings.ratio) {
            return Ok(Vec::new());
        }
        Ok(traces::spans(&trace, &run, &store::tries(&*client, &run).await?))
    }

    async fn send_metrics(&self) {
        let Some(destination) = &self.settings.metrics else { return };
        let (start, mut is_reached) = (otlp::nanoseconds(Timestamp::now()), true);
        let mut ticks = interval(self.settings.metrics_interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let Ok(text) = own_metrics::text(&self.core, self.version).await else { continue };
            let metrics = metrics::read(&text, &start, &otlp::nanoseconds(Timestamp::now()));
            let request = otlp::metrics(&self.settings.resource, self.version, &metrics);
            // The next ones replace these.
            self.send(destination, &request, &mut is_reached, &[]).await;
        }
    }

    /// Sends a request, again after each of `pauses`. Logs when the collector can no longer be reached, and when it can
    /// again.
    async fn send(&self, destination: &Destination, request: &Value, is_reached: &mut bool, pauses: &[Duration]) {
        let mut pauses = pauses.iter();
        let sent = loop {
            let sent = self.post(destination, request).await;
            match pauses.next() {
                Some(pause) if sent.as_ref().is_err_and(ExportError::may_pass) => sleep(*pause).await,
                _ => break sent,
            }
        };
        match &sent {
            Err(error) if *is_reached => warn!("{destination} gets no telemetry: {error}"),
            Ok(()) if !*is_reached => info!("{destination} gets telemetry again"),
            _ => {}
        }
        *is_reached = sent.is_ok();
    }

    async fn post(&self, destination: &Destination, body: &Value) -> Result<(), ExportError> {
        let request = self.client.post(destination.url.clone()).headers(destination.headers.clone());
        let request = request.header(CONTENT_TYPE, "application/json").body(body.to_string());
        let response = timeout(SEND_LIMIT, request.send()).await.map_err(|_| ExportError::Timeout)??;
        match response.status() {
            status if status.is_success() => Ok(()),
            status => Err(ExportError::Status(status)),
        }
    }
}

impl ExportError {
    /// True if the same request may succeed later.
    fn may_pass(&self) -> bool {
        match self {
            Self::Http(_) | Self::Timeout => true,
            Self::Status(status) => status.is_server_error() || status.as_u16() == 429,
        }
    }
}
