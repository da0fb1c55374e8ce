//! `ringfence status`: who leads, and how every node is.

mod node;

use clap::Args;
use futures_util::future::join_all;
use ringfence_client::{Client, endpoint_authority};
use serde::Serialize;

use crate::cli::Shared;
use crate::commands::member::name_of;
use crate::exit::{Exit, Failure};
use crate::output::{Output, print_json, print_line, print_table};
use crate::units::ByteSize;
pub(crate) use node::{Member, NodeStatus, compare, leader_name};

/// Show who leads, and how every node is. Asks each member itself, found through any endpoint.
#[derive(Debug, Args)]
pub(crate) struct Status {}

/// What is shown.
#[derive(Debug, Serialize)]
struct ClusterStatus {
    /// The leader's name; none where no reachable node knows one.
    leader: Option<String>,
    /// The highest term that a node knows.
    term: Option<u64>,
    nodes: Vec<NodeStatus>,
}

impl Status {
    pub(crate) async fn run(self, shared: &Shared) -> Result<(), Failure> {
        let client = shared.client()?;
        let members = members(&client).await?;
        let mut nodes =
            join_all(members.iter().map(|member| NodeStatus::ask(&client, member, shared.timeout()))).await;
        node::compare(&mut nodes);
        let status = ClusterStatus {
            leader: node::leader_name(&nodes),
            term: nodes.iter().filter_map(|node| node.term).max(),
            nodes,
        };
        match shared.output {
            Output::Json => print_json(&status)?,
            Output::Plain => print_line(status.leader.as_deref().unwrap_or("-"))?,
            Output::Table => show(&status)?,
        }
        if status.nodes.iter().all(|node| node.error.is_some()) {
            return Err(Failure::new(Exit::Unavailable, "no node answers")
                .next("check --endpoints, and that the nodes run"));
        }
        Ok(())
    }
}

/// The members as any endpoint knows them; the endpoints themselves where none does.
pub(crate) async fn members(client: &Client) -> Result<Vec<Member>, Failure> {
    let endpoints = client.endpoints();
    let from_endpoint =
        |endpoint: &String| Member { name: endpoint.clone(), id: None, client: endpoint.clone() };
    let Ok(answer) = client.member_list(false).await else {
        return Ok(endpoints.iter().map(from_endpoint).collect());
    };
    let mut members: Vec<Member> = Vec::new();
    for member in &answer.members {
        let known = member.client_ur_ls.iter().filter_map(|url| endpoint_authority(url).ok());
        // Of several addresses the one that the user gave is known to be reachable from here.
        let addresses: Vec<String> = known.collect();
        let client = addresses.iter().find(|address| endpoints.contains(address)).or(addresses.first());
        members.push(Member {
            name: name_of(member),
            id: Some(member.id),
            client: client.cloned().unwrap_or_default(),
        });
    }
    // A node whose client address nobody has been told yet can still be asked if the user named it.
    let unknown =
        endpoints.iter().filter(|endpoint| members.iter().all(|member| member.client != **endpoint));
    let unknown: Vec<Member> = unknown.map(from_endpoint).collect();
    if members.iter().any(|member| member.client.is_empty()) || members.is_empty() {
        members.extend(unknown);
    }
    Ok(members)
}

fn show(status: &ClusterStatus) -> Result<(), Failure> {
    let number = |value: Option<u64>| value.map_or_else(|| "-".to_owned(), |value| value.to_string());
    let seconds = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.2} s"));
    let row = |node: &NodeStatus| {
        [
            node.name.clone(),
            node.client.clone(),
            node.role.to_owned(),
            number(node.term),
            number(node.committed),
            number(node.applied),
            number(node.lag_entries),
            seconds(node.lag_seconds),
            node.size.map_or_else(|| "-".to_owned(), |size| ByteSize(size).to_string()),
            match (node.read_only, node.since) {
                _ if node.quarantine.is_some() => "quarantine".to_owned(),
                (Some(true), Some(since)) => format!("since {since:.0} s"),
                (Some(true), None) => "yes".to_owned(),
                (Some(false), _) => "no".to_owned(),
                (None, _) => "-".to_owned(),
            },
            seconds(node.leader_lease),
        ]
    };
    let rows: Vec<_> = status.nodes.iter().map(row).collect();
    print_table(
        [
            "NAME",
            "CLIENTS",
            "ROLE",
            "TERM",
            "COMMITTED",
            "APPLIED",
            "LAG",
            "LAG TIME",
            "SIZE",
            "READ-ONLY",
            "LEASE",
        ],
        &rows,
    )?;
    match &status.leader {
        Some(leader) => print_line(&format!("{leader} leads"))?,
        None => {
            print_line("nobody leads: writes are refused until a majority of the nodes reach each other")?
        }
    }
    for node in &status.nodes {
        for problem in node.problems.iter().chain(&node.error) {
            print_line(&format!("{}: {problem}", node.name))?;
        }
    }
    Ok(())
}
