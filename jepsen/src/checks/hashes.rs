//! Whether all nodes hold the same at the end, once everything is healed and no write is under way.

use ringfence_checker::{Finding, Verdict};

use super::finding;

/// What a node held at the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holding {
    /// Its number, from 1.
    pub node: usize,
    /// The last entry that it had applied.
    pub applied: u64,
    /// The store's revision.
    pub revision: i64,
    /// The running hash of its state at that entry.
    pub state_hash: u32,
    /// The hash of all keys and their history up to that revision, made anew from the rows.
    pub key_hash: u32,
    /// The revision that the history begins above.
    pub compacted: i64,
}

/// The finding `hashes-equal`: of nodes that told what they hold, after they had time to apply the same. `silent` are nodes
/// that did not tell.
#[must_use]
pub fn check(holdings: &[Holding], silent: &[usize]) -> Finding {
    const CHECK: &str = "hashes-equal";
    let Some(first) = holdings.first() else {
        return finding(CHECK, Verdict::Unknown, "no node told what it holds");
    };
    let differs = |holding: &&Holding| Holding { node: first.node, ..(*holding).clone() } != *first;
    if let Some(other) = holdings.iter().find(differs) {
        let how =
            if first.applied == other.applied { "hold something else" } else { "have not applied the same" };
        return finding(
            CHECK,
            Verdict::Violation,
            format!("n{} and n{} {how}: {first:?}, {other:?}", first.node, other.node),
        );
    }
    if !silent.is_empty() {
        return finding(CHECK, Verdict::Unknown, format!("nodes {silent:?} did not tell what they hold"));
    }
    finding(
        CHECK,
        Verdict::Ok,
        format!(
            "all {} nodes hold the same at entry {} and revision {}: state {:08x}, keys {:08x}",
            holdings.len(),
            first.applied,
            first.revision,
            first.state_hash,
            first.key_hash
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holding(node: usize) -> Holding {
        Holding { node, applied: 70, revision: 60, state_hash: 1, key_hash: 2, compacted: 3 }
    }

    #[test]
    fn equal_nodes_are_equal_and_others_are_not() {
        let verdict = |holdings: &[Holding], silent: &[usize]| check(holdings, silent).verdict;
        assert_eq!(verdict(&[holding(1), holding(2)], &[]), Verdict::Ok);
        assert_eq!(verdict(&[holding(1), Holding { key_hash: 9, ..holding(2) }], &[]), Verdict::Violation);
        assert_eq!(verdict(&[holding(1), Holding { state_hash: 9, ..holding(2) }], &[]), Verdict::Violation);
        assert_eq!(verdict(&[holding(1), Holding { revision: 9, ..holding(2) }], &[]), Verdict::Violation);
        assert_eq!(verdict(&[holding(1), Holding { applied: 69, ..holding(2) }], &[]), Verdict::Violation);
        assert_eq!(verdict(&[holding(1)], &[2]), Verdict::Unknown);
        assert_eq!(verdict(&[], &[1]), Verdict::Unknown);
    }
}
