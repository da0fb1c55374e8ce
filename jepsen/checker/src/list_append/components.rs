//! Strongly connected components (R. Tarjan, "Depth-first search and linear graph algorithms", 1972), without recursion.

/// The sets of more than one node in which each can be reached from each other.
pub(super) fn knots<E>(edges: &[Vec<E>], to: impl Fn(&E) -> usize) -> Vec<Vec<usize>> {
    let nodes = edges.len();
    let mut search = Search {
        number: vec![0; nodes],
        low: vec![0; nodes],
        on_stack: vec![false; nodes],
        ..Search::default()
    };
    for root in 0..nodes {
        if search.number[root] == 0 {
            search.visit(edges, &to, root);
        }
    }
    search.knots
}

#[derive(Default)]
struct Search {
    /// In the order of the first visit, from 1; 0: not yet.
    number: Vec<usize>,
    /// The lowest number on the stack that is known to be reachable.
    low: Vec<usize>,
    visited: usize,
    stack: Vec<usize>,
    on_stack: Vec<bool>,
    knots: Vec<Vec<usize>>,
}

impl Search {
    fn enter(&mut self, node: usize) {
        self.visited += 1;
        self.number[node] = self.visited;
        self.low[node] = self.visited;
        self.stack.push(node);
        self.on_stack[node] = true;
    }

    fn visit<E>(&mut self, edges: &[Vec<E>], to: &impl Fn(&E) -> usize, root: usize) {
        self.enter(root);
        // Nodes under way, each with the place of its next edge.
        let mut path = vec![(root, 0)];
        while let Some((node, next)) = path.last_mut() {
            let node = *node;
            if let Some(edge) = edges[node].get(*next) {
                *next += 1;
                let to = to(edge);
                if self.number[to] == 0 {
                    self.enter(to);
                    path.push((to, 0));
                } else if self.on_stack[to] {
                    self.low[node] = self.low[node].min(self.number[to]);
                }
                continue;
            }
            path.pop();
            if let Some((parent, _)) = path.last() {
                self.low[*parent] = self.low[*parent].min(self.low[node]);
            }
            if self.low[node] == self.number[node] {
                self.leave(node);
            }
        }
    }

    /// Takes the nodes down to `root` off the stack: they are one component.
    fn leave(&mut self, root: usize) {
        let from =
            self.stack.iter().rposition(|node| *node == root).expect("a component's root is on the stack");
        let component = self.stack.split_off(from);
        for node in &component {
            self.on_stack[*node] = false;
        }
        if component.len() > 1 {
            self.knots.push(component);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knots_are_found_and_single_nodes_are_none() {
        // 0 → 1 → 2 → 0, 2 → 3 → 4 → 3, 5 alone.
        let edges = [vec![1], vec![2], vec![0, 3], vec![4], vec![3], vec![]];
        let mut knots = knots(&edges, |to| *to);
        knots.iter_mut().for_each(|knot| knot.sort_unstable());
        knots.sort();
        assert_eq!(knots, [vec![0, 1, 2], vec![3, 4]]);
    }
}
