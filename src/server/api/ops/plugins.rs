//! `/api/v2/plugins`, with Airflow's names and shapes.

use crate::api::prelude::*;
use crate::http::query::Paging;
use std::collections::BTreeMap;

query! { pub PluginsQuery(Paging) }

/// Where the UI shows a plugin's page.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
#[expect(dead_code, reason = "only for the JSON schema; Leoflow's pages use `Nav` alone")]
enum Destination {
    Nav,
    Dag,
    DagRun,
    Task,
    TaskInstance,
    Base,
    Asset,
}

/// Where the UI shows a plugin's React app: as a page, or on the dashboard.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
#[expect(dead_code, reason = "only for the JSON schema; Leoflow has no React apps")]
enum ReactDestination {
    Nav,
    Dag,
    DagRun,
    Task,
    TaskInstance,
    Base,
    Dashboard,
    Asset,
    DagOverview,
    TaskOverview,
}

/// For which DAGs, tasks or the like a plugin's page is shown, by kind.
#[derive(Serialize, JsonSchema)]
struct PluginAppliesToResponse(BTreeMap<String, Vec<String>>);

#[derive(Serialize, JsonSchema)]
struct ExternalViewResponse {
    name: &'static str,
    icon: Option<&'static str>,
    icon_dark_mode: Option<&'static str>,
    url_route: Option<&'static str>,
    category: Option<&'static str>,
    nav_top_level: Option<bool>,
    href: &'static str,
    destination: Destination,
    applies_to: Option<PluginAppliesToResponse>,
    #[serde(flatten)]
    others: Map<String, Value>,
}

#[derive(Serialize, JsonSchema)]
struct ReactAppResponse {
    name: String,
    icon: Option<String>,
    icon_dark_mode: Option<String>,
    url_route: Option<String>,
    category: Option<String>,
    nav_top_level: Option<bool>,
    bundle_url: String,
    destination: ReactDestination,
    applies_to: Option<PluginAppliesToResponse>,
    #[serde(flatten)]
    others: Map<String, Value>,
}

#[derive(Serialize, JsonSchema)]
struct FastAPIAppResponse {
    app: String,
    url_prefix: String,
    name: String,
    #[serde(flatten)]
    others: Map<String, Value>,
}

#[derive(Serialize, JsonSchema)]
struct FastAPIRootMiddlewareResponse {
    middleware: String,
    name: String,
    #[serde(flatten)]
    others: Map<String, Value>,
}

#[derive(Serialize, JsonSchema)]
struct AppBuilderViewResponse {
    name: Option<String>,
    category: Option<String>,
    view: Option<String>,
    label: Option<String>,
    #[serde(flatten)]
    others: Map<String, Value>,
}

#[derive(Serialize, JsonSchema)]
struct AppBuilderMenuItemResponse {
    name: String,
    href: String,
    category: Option<String>,
    #[serde(flatten)]
    others: Map<String, Value>,
}

#[derive(Default, Serialize, JsonSchema)]
pub struct PluginResponse {
    name: &'static str,
    macros: Vec<String>,
    flask_blueprints: Vec<String>,
    fastapi_apps: Vec<FastAPIAppResponse>,
    fastapi_root_middlewares: Vec<FastAPIRootMiddlewareResponse>,
    external_views: Vec<ExternalViewResponse>,
    react_apps: Vec<ReactAppResponse>,
    appbuilder_views: Vec<AppBuilderViewResponse>,
    appbuilder_menu_items: Vec<AppBuilderMenuItemResponse>,
    global_operator_extra_links: Vec<String>,
    operator_extra_links: Vec<String>,
    source: &'static str,
    team_name: Option<String>,
    listeners: Vec<String>,
    timetables: Vec<String>,
}

collection! { PluginCollectionResponse { plugins: PluginResponse } }

/// Leoflow's pages: name, menu of the UI (`docs` is its Docs menu), UI route, address.
const PAGES: [(&str, &str, &str, &str); 5] = [
    ("Status", "Leoflow", "leoflow", "/lite/"),
    ("Backups", "Leoflow", "leoflow-backups", "/lite/backups"),
    ("Releases", "Leoflow", "leoflow-releases", "/lite/releases"),
    ("Doctor", "Leoflow", "leoflow-doctor", "/lite/doctor"),
    ("Leoflow Lite", "docs", "leoflow-docs", "/lite/docs/"),
];

const ICON: &str = "/lite/static/icon.svg";

/// The one plugin, which adds Leoflow's pages to the menu of Airflow's UI. Plugins of projects are loaded only by the
/// projects' Python processes.
fn leoflow() -> PluginResponse {
    let page = |(name, menu, route, href)| ExternalViewResponse {
        name,
        icon: Some(ICON),
        icon_dark_mode: Some(ICON),
        url_route: Some(route),
        category: Some(menu),
        nav_top_level: Some(false),
        applies_to: None,
        href,
        destination: Destination::Nav,
        others: Map::new(),
    };
    PluginResponse {
        name: "leoflow",
        external_views: PAGES.map(page).into(),
        source: "Leoflow",
        ..PluginResponse::default()
    }
}

pub async fn list(params: QueryParams<PluginsQuery>) -> JsonResult<PluginCollectionResponse> {
    Ok(Json(params.page()?.of(vec![leoflow()]).into()))
}

#[derive(Serialize, JsonSchema)]
pub struct PluginImportErrorResponse {
    source: String,
    error: String,
}

collection! { PluginImportErrorCollectionResponse { import_errors: PluginImportErrorResponse } }

pub async fn import_errors() -> Json<PluginImportErrorCollectionResponse> {
    Json(std::iter::empty().collect())
}
