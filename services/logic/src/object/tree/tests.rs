//! The tree against a sorted vector, and what must hold in it at any time.

use super::*;
use crate::store::hash::Rng;

/// The same as a sorted vector.
#[derive(Default)]
struct Model(Vec<(f64, Vec<u8>, ItemRef)>);

impl Model {
    fn place(&self, score: f64, member: &[u8]) -> Result<usize, usize> {
        self.0.binary_search_by(|(s, m, _)| {
            compare_scores(*s, score).then_with(|| m.as_slice().cmp(member))
        })
    }
}

fn below(rng: &mut Rng, bound: usize) -> usize {
    usize::try_from(rng.next() >> 33).expect("31 bits") % bound.max(1)
}

fn add(tree: &mut Tree, model: &mut Model, score: f64, member: &[u8]) {
    if let Err(place) = model.place(score, member) {
        let at = tree.insert(score, member).expect("room");
        model.0.insert(place, (score, member.to_vec(), at));
    }
}

fn agree(tree: &Tree, model: &Model) {
    tree.check();
    let up: Vec<ItemRef> = tree.range(0..usize::MAX).collect();
    let expected: Vec<ItemRef> = model.0.iter().map(|entry| entry.2).collect();
    assert_eq!(up, expected);
    let down: Vec<ItemRef> = tree.range(0..usize::MAX).rev().collect();
    assert!(down.iter().rev().eq(expected.iter()));
}

#[test]
fn any_mix_of_changes_agrees_with_a_sorted_vector() {
    for seed in 0..6 {
        let mut rng = Rng::new(seed);
        let mut tree = Tree::new();
        let mut model = Model::default();
        // Few scores in odd seeds: then members decide.
        let scores = if seed % 2 == 0 { 100_000 } else { 3 };
        for round in 0..12_000_usize {
            let growing = round % 4_000 < 2_500;
            match below(&mut rng, 20) {
                0..12 if growing => {
                    let score = below(&mut rng, scores) as f64 / 8.0 - 3.0;
                    let member = format!("m{}", below(&mut rng, 50_000));
                    add(&mut tree, &mut model, score, member.as_bytes());
                }
                12..16 if !model.0.is_empty() => {
                    let (_, _, at) = model.0.remove(below(&mut rng, model.0.len()));
                    assert!(tree.remove(at).is_some());
                }
                16..18 if !model.0.is_empty() => {
                    let (_, member, at) = model.0.remove(below(&mut rng, model.0.len()));
                    let score = below(&mut rng, scores) as f64;
                    match model.place(score, &member) {
                        Err(place) => {
                            tree.rescore(at, score);
                            model.0.insert(place, (score, member, at));
                        }
                        Ok(_) => {
                            tree.remove(at);
                        }
                    }
                }
                18 if !growing => {
                    let from = below(&mut rng, model.0.len());
                    let most = if below(&mut rng, 10) == 0 { 2_000 } else { 100 };
                    let to = (from + below(&mut rng, most)).min(model.0.len());
                    let mut out = Vec::new();
                    tree.unlink(from..to, &mut out);
                    let expected: Vec<ItemRef> = model.0.drain(from..to).map(|e| e.2).collect();
                    assert_eq!(out, expected);
                    for at in out {
                        assert!(tree.forget(at).is_some());
                    }
                }
                _ => {
                    let score = below(&mut rng, scores) as f64 / 8.0 - 3.0;
                    let before = model.0.partition_point(|entry| entry.0 < score);
                    let through = model.0.partition_point(|entry| entry.0 <= score);
                    assert_eq!(tree.rank_at(Cut::BeforeScore(score)), before);
                    assert_eq!(tree.rank_at(Cut::AfterScore(score)), through);
                    let rank = below(&mut rng, model.0.len() + 2);
                    assert_eq!(tree.at_rank(rank), model.0.get(rank).map(|entry| entry.2));
                    if let Some(entry) = model.0.get(rank) {
                        assert_eq!(tree.rank_of(entry.2), Some(rank));
                    }
                }
            }
            if round % 97 == 0 {
                agree(&tree, &model);
            }
        }
        agree(&tree, &model);
        while tree.reclaim(100) {}
        assert_eq!(tree.mem_bytes(), 0);
    }
}

#[test]
fn runs_leave_full_nodes() {
    for descending in [false, true] {
        let mut tree = Tree::new();
        let mut model = Model::default();
        for n in 0..10_000_u32 {
            let score = if descending { -f64::from(n) } else { f64::from(n) };
            add(&mut tree, &mut model, score, b"m");
        }
        agree(&tree, &model);
        let leaves = 10_000_usize.div_ceil(LEAF_MAX);
        let inner = leaves.div_ceil(INNER_MAX);
        assert!(tree.nodes.len() <= leaves + inner + 1, "{} nodes", tree.nodes.len());
    }
}

#[test]
fn every_range_of_a_small_tree_can_be_removed() {
    for from in (0..300).step_by(7) {
        for to in (from..=300).step_by(13) {
            let mut tree = Tree::new();
            let mut model = Model::default();
            for n in 0..300_u32 {
                add(&mut tree, &mut model, f64::from(n * 7 % 300), b"");
            }
            let mut out = Vec::new();
            tree.unlink(from..to, &mut out);
            assert!(out.iter().copied().eq(model.0.drain(from..to).map(|entry| entry.2)));
            for at in out {
                tree.forget(at);
            }
            agree(&tree, &model);
        }
    }
}

#[test]
fn equal_scores_are_cut_by_members() {
    let mut tree = Tree::new();
    let mut model = Model::default();
    for n in 0..500_u32 {
        add(&mut tree, &mut model, 0.0, format!("{:03}", n * 2).as_bytes());
    }
    for n in 0..1_000_usize {
        let member = format!("{n:03}");
        assert_eq!(tree.rank_at(Cut::BeforeMember(member.as_bytes())), n.div_ceil(2));
        assert_eq!(tree.rank_at(Cut::AfterMember(member.as_bytes())), n / 2 + 1);
    }
    assert_eq!((tree.rank_at(Cut::Start), tree.rank_at(Cut::End)), (0, 500));
    // The two zeros are one score.
    assert_eq!(tree.rank_at(Cut::Item(-0.0, b"002")), 1);
    assert_eq!(tree.rank_at(Cut::BeforeScore(-0.0)), 0);
    assert_eq!(tree.rank_at(Cut::AfterScore(-0.0)), 500);
}

impl Tree {
    /// A recount of [`mem_bytes`](Self::mem_bytes).
    pub(in crate::object) fn recount(&self) -> usize {
        let mut bytes = self.items.recount() + self.nodes.recount();
        for rank in 0..self.len() {
            let at = self.at_rank(rank).expect("every rank has an item");
            bytes += self.item(at).expect("linked items are live").member.len();
        }
        let mut stack: Vec<u32> = self.root.into_iter().collect();
        while let Some(node) = stack.pop() {
            let node = self.nodes.get(node).expect("linked nodes are live");
            bytes += node.held_bytes();
            if let Node::Inner(children) = node {
                stack.extend(children.iter().map(|child| child.node));
            }
        }
        bytes
    }

    /// Checks the invariants of the module's header.
    pub(in crate::object) fn check(&self) {
        let mut leaves = 0;
        let mut nodes = 0;
        if let Some(root) = self.root {
            assert!(self.nodes.get(root).is_some_and(|node| node.len() > 1 || self.height == 0));
            self.check_node(root, self.height, (true, true), &mut leaves, &mut nodes);
        }
        assert_eq!(leaves, self.len());
        assert_eq!(leaves, self.items.len(), "no item is lost");
        assert_eq!(nodes, self.nodes.len(), "no node is lost");
        let mut before: Option<&Item> = None;
        for at in self.range(0..self.len()) {
            let item = self.item(at).expect("live");
            if let Some(before) = before {
                let order = compare_scores(before.score, item.score)
                    .then_with(|| before.member.cmp(&item.member));
                assert_eq!(order, Ordering::Less);
            }
            before = Some(item);
        }
        assert_eq!(self.mem_bytes(), self.recount());
    }

    fn check_node(
        &self,
        node: u32,
        height: u32,
        edge: (bool, bool),
        items_seen: &mut usize,
        nodes: &mut usize,
    ) {
        *nodes += 1;
        let held = self.nodes.get(node).expect("live");
        assert!(held.len() > 0);
        assert!(!held.is_small() || edge.0 || edge.1, "only nodes of an edge are small");
        match held {
            Node::Leaf(items) => {
                assert_eq!(height, 0);
                assert_eq!(items.capacity(), LEAF_MAX);
                *items_seen += items.len();
            }
            Node::Inner(children) => {
                assert_eq!(children.capacity(), INNER_MAX);
                for (at, child) in children.iter().enumerate() {
                    let is = self.child(child.node).expect("not empty");
                    assert_eq!((is.count, is.first), (child.count, child.first));
                    assert!(is.first_score.to_bits() == child.first_score.to_bits());
                    let edge = (edge.0 && at == 0, edge.1 && at + 1 == children.len());
                    self.check_node(child.node, height - 1, edge, items_seen, nodes);
                }
            }
        }
    }
}
