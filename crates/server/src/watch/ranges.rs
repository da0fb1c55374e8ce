//! Ranges of keys, to be asked which of them hold a key: a search tree by where they start, each part of which knows how far
//! its ranges reach. It is kept in balance by random priorities, so that no order of arrival makes it deep.

use std::hash::{BuildHasher, RandomState};

use bytes::Bytes;
use ringfence_types::{KeyRange, RangeEnd};

/// The ranges, each with a value.
#[derive(Debug)]
pub(super) struct Ranges<T> {
    root: Link<T>,
    priorities: RandomState,
}

type Link<T> = Option<Box<Node<T>>>;

#[derive(Debug)]
struct Node<T> {
    range: KeyRange,
    value: T,
    priority: u64,
    /// The farthest end in this part of the tree; none for one without an end.
    reach: Option<Bytes>,
    left: Link<T>,
    right: Link<T>,
}

/// The order in the tree.
type Place<'a> = (&'a [u8], Option<&'a [u8]>);

impl<T> Default for Ranges<T> {
    fn default() -> Ranges<T> {
        Ranges { root: None, priorities: RandomState::new() }
    }
}

/// The end of a range of several keys; none where there is none.
fn end_of(range: &KeyRange) -> Option<&Bytes> {
    match &range.end {
        RangeEnd::Before(end) => Some(end),
        RangeEnd::Unbounded => None,
        RangeEnd::Single => unreachable!("single keys are looked up by themselves"),
    }
}

fn place(range: &KeyRange) -> Place<'_> {
    (&range.start, end_of(range).map(AsRef::as_ref))
}

impl<T> Ranges<T> {
    /// The value of a range, put there by `make` where there is none yet.
    pub(super) fn entry(&mut self, range: &KeyRange, make: impl FnOnce() -> T) -> &mut T {
        if self.get_mut(range).is_none() {
            let (left, right) = split(self.root.take(), place(range));
            let node = Box::new(Node {
                range: range.clone(),
                value: make(),
                priority: self.priorities.hash_one(range),
                reach: end_of(range).cloned(),
                left: None,
                right: None,
            });
            self.root = merge(merge(left, Some(node)), right);
        }
        self.get_mut(range).expect("it is there by now")
    }

    /// The value of a range.
    pub(super) fn get_mut(&mut self, range: &KeyRange) -> Option<&mut T> {
        let wanted = place(range);
        let mut link = self.root.as_deref_mut();
        while let Some(node) = link {
            match wanted.cmp(&place(&node.range)) {
                std::cmp::Ordering::Equal => return Some(&mut node.value),
                std::cmp::Ordering::Less => link = node.left.as_deref_mut(),
                std::cmp::Ordering::Greater => link = node.right.as_deref_mut(),
            }
        }
        None
    }

    /// Takes a range out.
    pub(super) fn remove(&mut self, range: &KeyRange) {
        self.root = without(self.root.take(), place(range));
    }

    /// Calls `visit` with the value of each range that holds `key`.
    pub(super) fn holding<'a>(&'a self, key: &[u8], visit: &mut impl FnMut(&'a T)) {
        holding(self.root.as_deref(), key, visit);
    }
}

fn holding<'a, T>(link: Option<&'a Node<T>>, key: &[u8], visit: &mut impl FnMut(&'a T)) {
    let Some(node) = link.filter(|node| node.reach.as_ref().is_none_or(|reach| reach.as_ref() > key)) else {
        return;
    };
    holding(node.left.as_deref(), key, visit);
    if node.range.start.as_ref() <= key {
        if node.range.contains(key) {
            visit(&node.value);
        }
        holding(node.right.as_deref(), key, visit);
    }
}

impl<T> Node<T> {
    fn settle(mut self: Box<Self>) -> Box<Self> {
        let mut reach = end_of(&self.range);
        for child in [&self.left, &self.right].into_iter().flatten() {
            reach = match (reach, &child.reach) {
                (Some(own), Some(other)) => Some(own.max(other)),
                _ => None,
            };
        }
        self.reach = reach.cloned();
        self
    }
}

/// The parts before a place, and from it on.
fn split<T>(link: Link<T>, at: Place<'_>) -> (Link<T>, Link<T>) {
    let Some(mut node) = link else { return (None, None) };
    if place(&node.range) < at {
        let (middle, right) = split(node.right.take(), at);
        node.right = middle;
        (Some(node.settle()), right)
    } else {
        let (left, middle) = split(node.left.take(), at);
        node.left = middle;
        (left, Some(node.settle()))
    }
}

/// Joins two parts, all of the first before all of the second.
fn merge<T>(left: Link<T>, right: Link<T>) -> Link<T> {
    match (left, right) {
        (None, link) | (link, None) => link,
        (Some(mut left), Some(right)) if left.priority >= right.priority => {
            left.right = merge(left.right.take(), Some(right));
            Some(left.settle())
        }
        (left, Some(mut right)) => {
            right.left = merge(left, right.left.take());
            Some(right.settle())
        }
    }
}

fn without<T>(link: Link<T>, at: Place<'_>) -> Link<T> {
    let mut node = link?;
    match at.cmp(&place(&node.range)) {
        std::cmp::Ordering::Equal => return merge(node.left.take(), node.right.take()),
        std::cmp::Ordering::Less => node.left = without(node.left.take(), at),
        std::cmp::Ordering::Greater => node.right = without(node.right.take(), at),
    }
    Some(node.settle())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn depth<T>(link: &Link<T>) -> usize {
        link.as_ref().map_or(0, |node| 1 + depth(&node.left).max(depth(&node.right)))
    }

    fn range(start: u32, end: Option<u32>) -> KeyRange {
        let key = |number: u32| Bytes::copy_from_slice(&number.to_be_bytes());
        KeyRange { start: key(start), end: end.map_or(RangeEnd::Unbounded, |end| RangeEnd::Before(key(end))) }
    }

    #[test]
    fn finds_what_a_look_at_each_range_finds() {
        let mut state = 7_u32;
        let mut draw = |below: u32| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) % below
        };
        let (mut ranges, mut plain): (Ranges<KeyRange>, Vec<KeyRange>) = (Ranges::default(), Vec::new());
        for _ in 0..2_000 {
            let start = draw(100);
            let end = (draw(10) > 0).then(|| start + 1 + draw(20));
            let drawn = range(start, end);
            if draw(3) == 0 {
                ranges.remove(&drawn);
                plain.retain(|known| *known != drawn);
            } else {
                ranges.entry(&drawn, || drawn.clone());
                plain.retain(|known| *known != drawn);
                plain.push(drawn);
            }
            let key = draw(130).to_be_bytes();
            let mut found = Vec::new();
            ranges.holding(&key, &mut |range| found.push(range.clone()));
            let mut expected: Vec<_> = plain.iter().filter(|range| range.contains(&key)).cloned().collect();
            expected.sort_by(|a, b| place(a).cmp(&place(b)));
            found.sort_by(|a, b| place(a).cmp(&place(b)));
            assert_eq!(found, expected);
        }
        assert!(plain.len() > 100, "the draws keep ranges");
    }

    #[test]
    fn ranges_that_come_in_order_make_no_deep_tree() {
        let mut ranges = Ranges::default();
        for start in 0..10_000 {
            ranges.entry(&range(start, Some(start + 1)), || start);
        }
        assert!(depth(&ranges.root) < 60, "{} levels", depth(&ranges.root));
        let mut found = Vec::new();
        ranges.holding(&77_u32.to_be_bytes(), &mut |start| found.push(*start));
        assert_eq!(found, [77]);
    }
}
