//! Cache of the graphs of DAG versions; a version never changes.

use crate::planner::graph::Graph;
use crate::store::StoreError;
use crate::store::dag::versions;
use leoflow_postgres::GenericClient;
use std::collections::HashMap;
use std::rc::Rc;

#[derive(Default)]
pub struct Graphs(HashMap<i64, Rc<Graph>>);

/// Maximum number of cached graphs; a laptop runs few DAGs at once.
const MAX_GRAPHS: usize = 64;

impl Graphs {
    /// Returns the graph of the version with this id.
    pub async fn get(&mut self, client: &impl GenericClient, id: i64) -> Result<Rc<Graph>, StoreError> {
        if let Some(graph) = self.0.get(&id) {
            return Ok(graph.clone());
        }
        let structure = versions::structure_by_id(client, id).await?;
        if self.0.len() >= MAX_GRAPHS {
            self.0.clear();
        }
        let graph = Rc::new(Graph::new(structure));
        self.0.insert(id, graph.clone());
        Ok(graph)
    }
}
