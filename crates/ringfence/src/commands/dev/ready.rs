//! When a development cluster is ready: every node knows the same leader.

use std::time::Duration;

use ringfence_client::{Client, Options};

use super::LOOK_INTERVAL;

/// Longest wait for one node's status.
const ASK_TIMEOUT: Duration = Duration::from_millis(500);

/// Waits until every node names the same leader; returns the leader's endpoint.
pub(super) async fn wait_for_leader(endpoints: Vec<String>) -> String {
    let options = Options { timeout: ASK_TIMEOUT, ..Options::default() };
    let client = Client::connect(&endpoints, options).expect("the endpoints were made from port numbers");
    loop {
        if let Some(leader) = agreed_leader(&client, &endpoints).await {
            return leader;
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}

async fn agreed_leader(client: &Client, endpoints: &[String]) -> Option<String> {
    let mut leader_id = None;
    let mut leader = None;
    for endpoint in endpoints {
        let status = client.status(endpoint).await.ok()?;
        let member = status.header?.member_id;
        if status.leader == 0 || leader_id.is_some_and(|id| id != status.leader) {
            return None;
        }
        leader_id = Some(status.leader);
        if member == status.leader {
            leader = Some(endpoint.clone());
        }
    }
    leader
}
