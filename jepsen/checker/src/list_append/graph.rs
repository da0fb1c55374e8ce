//! Dependencies between transactions, and the shortest cycle in them.
//!
//! One transaction comes before another because the other wrote right behind it (ww), read what it wrote (wr), wrote
//! what it had not read yet (rw), or began after it was over (realtime). Time is a chain of moments beside the
//! transactions: each acknowledged one leads to the moment of its end, each moment to the next, and the last moment
//! before its start to each transaction. So a few edges a transaction stand for all pairs.

use std::collections::{HashMap, HashSet, VecDeque};

use super::components::knots;
use super::{Element, Lists, Transaction};
use crate::history::Kind;
use crate::operation::Operation;
use crate::verdict::Counterexample;

/// How many transactions of a knot are tried as the beginning of its shortest cycle.
const STARTS_MAX: usize = 100;

/// Why one comes before the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reason {
    WriteWrite,
    WriteRead,
    ReadWrite,
    Time,
}

struct Edge {
    to: usize,
    reason: Reason,
}

/// Transactions by their places, then moments.
struct Graph {
    edges: Vec<Vec<Edge>>,
    transactions: usize,
}

/// The shortest cycle, if there is one.
pub(super) fn cycle(
    transactions: &[Transaction<'_, '_>],
    lists: &Lists<'_, '_, '_>,
) -> Option<Counterexample> {
    let mut graph = Graph { edges: Vec::new(), transactions: transactions.len() };
    graph.edges.resize_with(transactions.len(), Vec::new);
    graph.add_dependencies(transactions, lists);
    graph.add_time(transactions);
    let knots = knots(&graph.edges, |edge| edge.to);
    let shortest = knots.iter().filter_map(|knot| graph.shortest_cycle(knot)).min_by_key(Vec::len)?;
    let shown: Vec<&Operation<'_>> =
        shortest.iter().map(|(place, _)| transactions[*place].operation).collect();
    let culprit = (0..shown.len()).max_by_key(|place| shown[*place].end).unwrap_or(0);
    Some(Counterexample::new(explain(&shown, &shortest), &shown, culprit))
}

fn explain(shown: &[&Operation<'_>], cycle: &[(usize, Reason)]) -> String {
    let of = |reason: Reason| cycle.iter().filter(|(_, other)| *other == reason).count();
    let name = match (of(Reason::ReadWrite), of(Reason::WriteRead)) {
        (0, 0) => "G0, write cycle",
        (0, _) => "G1c, circular information flow",
        (1, _) => "G-single, read skew",
        _ => "G2, anti-dependency cycle",
    };
    let time = if of(Reason::Time) > 0 { ", in real time" } else { "" };
    let parts: Vec<String> = shown
        .iter()
        .zip(cycle)
        .map(|(operation, (_, reason))| {
            let why = match reason {
                Reason::WriteWrite => "was written over by",
                Reason::WriteRead => "was read by",
                Reason::ReadWrite => "did not see",
                Reason::Time => "was over before",
            };
            format!("({operation}) {why}")
        })
        .collect();
    let first = shown.first().map_or_else(String::new, |operation| format!(" ({operation})"));
    format!("A cycle ({name}{time}): {}{first}.", parts.join(" "))
}

impl Graph {
    fn add(&mut self, from: usize, to: usize, reason: Reason) {
        if from != to {
            self.edges[from].push(Edge { to, reason });
        }
    }

    fn add_dependencies(&mut self, transactions: &[Transaction<'_, '_>], lists: &Lists<'_, '_, '_>) {
        let writer =
            |key, element: Element| lists.writers.get(&(key, element)).map(|writer| writer.transaction);
        for (key, (list, _)) in &lists.longest {
            for pair in list.windows(2) {
                if let (Some(first), Some(second)) = (writer(key, pair[0]), writer(key, pair[1])) {
                    self.add(first, second, Reason::WriteWrite);
                }
            }
        }
        let unread = unread(transactions, lists);
        for (key, behind) in &unread {
            let last = lists.longest.get(key).and_then(|(list, _)| list.last());
            if let Some(writer) = last.and_then(|element| writer(key, *element)) {
                behind.iter().for_each(|to| self.add(writer, *to, Reason::WriteWrite));
            }
        }
        for (place, transaction) in transactions.iter().enumerate() {
            for (key, list) in transaction.reads() {
                // What it appended itself it found because of that.
                let own = |element: &&Element| writer(key, **element) != Some(place);
                if let Some(writer) = list.iter().rfind(own).and_then(|element| writer(key, *element)) {
                    self.add(writer, place, Reason::WriteRead);
                }
                let next = lists.longest[key].0[list.len()..].iter().find(own);
                match next.and_then(|element| writer(key, *element)) {
                    Some(writer) => self.add(place, writer, Reason::ReadWrite),
                    None => {
                        let behind = unread.get(key).into_iter().flatten();
                        behind.for_each(|to| self.add(place, *to, Reason::ReadWrite));
                    }
                }
            }
        }
    }

    fn add_time(&mut self, transactions: &[Transaction<'_, '_>]) {
        let end = |(place, one): (usize, &Transaction<'_, '_>)| Some((one.operation.acknowledged()?, place));
        let mut ends: Vec<(u64, usize)> = transactions.iter().enumerate().filter_map(end).collect();
        ends.sort_unstable();
        let first_moment = self.transactions;
        self.edges.resize_with(first_moment + ends.len(), Vec::new);
        for (moment, (_, place)) in ends.iter().enumerate() {
            self.add(*place, first_moment + moment, Reason::Time);
            if moment + 1 < ends.len() {
                self.add(first_moment + moment, first_moment + moment + 1, Reason::Time);
            }
        }
        for (place, transaction) in transactions.iter().enumerate() {
            // A read that asked for less may show an older state; it still comes before what begins after it.
            let fresh = transaction.operation.freshness.is_linearizable() && transaction.operation.possible();
            let over = ends.partition_point(|(end, _)| *end < transaction.operation.start);
            if fresh && over > 0 {
                self.add(first_moment + over - 1, place, Reason::Time);
            }
        }
    }

    /// The shortest cycle within a knot, counted in transactions, with why each comes before the next.
    fn shortest_cycle(&self, knot: &[usize]) -> Option<Vec<(usize, Reason)>> {
        let mut inside = vec![false; self.edges.len()];
        knot.iter().for_each(|node| inside[*node] = true);
        let mut shortest: Option<Vec<(usize, Reason)>> = None;
        for start in knot.iter().filter(|node| **node < self.transactions).take(STARTS_MAX) {
            let cycle = self.shortest_cycle_from(*start, &inside)?;
            if shortest.as_ref().is_none_or(|shortest| cycle.len() < shortest.len()) {
                shortest = Some(cycle);
            }
            if shortest.as_ref().is_some_and(|shortest| shortest.len() == 2) {
                break;
            }
        }
        shortest
    }

    /// Breadth first, where moments cost nothing.
    fn shortest_cycle_from(&self, start: usize, inside: &[bool]) -> Option<Vec<(usize, Reason)>> {
        let mut came: HashMap<usize, (usize, Reason)> = HashMap::new();
        let mut queue = VecDeque::from([start]);
        while let Some(node) = queue.pop_front() {
            for edge in self.edges[node].iter().filter(|edge| inside[edge.to]) {
                if edge.to == start {
                    return Some(self.way(start, node, edge.reason, &came));
                }
                if came.contains_key(&edge.to) {
                    continue;
                }
                came.insert(edge.to, (node, edge.reason));
                if edge.to < self.transactions { queue.push_back(edge.to) } else { queue.push_front(edge.to) }
            }
        }
        None
    }

    /// The transactions from `start` to `last`, and why each comes before the next.
    fn way(
        &self,
        start: usize,
        last: usize,
        reason: Reason,
        came: &HashMap<usize, (usize, Reason)>,
    ) -> Vec<(usize, Reason)> {
        let mut way = Vec::new();
        let (mut node, mut reason) = (last, reason);
        loop {
            if node < self.transactions {
                way.push((node, reason));
            }
            if node == start {
                break;
            }
            (node, reason) = came[&node];
        }
        way.reverse();
        way
    }
}

/// The transactions that surely appended to a key what nobody read: it comes behind all that was read.
fn unread<'h>(
    transactions: &[Transaction<'_, 'h>],
    lists: &Lists<'_, '_, 'h>,
) -> HashMap<&'h str, Vec<usize>> {
    let mut read: HashSet<(&str, Element)> = HashSet::new();
    for (key, (list, _)) in &lists.longest {
        read.extend(list.iter().map(|element| (*key, *element)));
    }
    let mut unread: HashMap<&str, Vec<usize>> = HashMap::new();
    for (place, transaction) in transactions.iter().enumerate() {
        for (key, element) in transaction.appends() {
            if transaction.operation.kind == Kind::Ok && !read.contains(&(key, element)) {
                unread.entry(key).or_default().push(place);
            }
        }
    }
    unread
}
