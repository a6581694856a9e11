//! Lays layers over each other: which layer each file of the merged tree comes from, and which attributes its
//! directories have. What an overlay file system does at each look-up (Documentation/filesystems/overlayfs.rst,
//! "Upper and Lower"), done once.
//!
//! The rules are here, apart from any file system; [`Surface`] is what they are carried out on.

use std::collections::HashMap;

use super::marks::{Marks, join};

/// Where the layers are and where the merged tree goes. The calls for one directory come between its `begin` and its
/// `finish`, and those for a directory come before those for its subdirectories.
pub(crate) trait Surface {
    /// What can go wrong.
    type Error;

    /// The next calls are for the directory `dir` of the merged tree, which is there.
    fn begin(&mut self, dir: &[u8]) -> Result<(), Self::Error>;

    /// The entries of `dir` in a layer, which has it, and whether each is a directory.
    fn list(&mut self, layer: usize, dir: &[u8]) -> Result<Vec<(Vec<u8>, bool)>, Self::Error>;

    /// Takes over `name`, which is no directory, from a layer that was listed.
    fn take(&mut self, layer: usize, name: &[u8]) -> Result<(), Self::Error>;

    /// Makes the directory `name`.
    fn make_dir(&mut self, name: &[u8]) -> Result<(), Self::Error>;

    /// Nothing more will be put into `dir`: it gets the attributes that it has in a layer, or the usual ones.
    fn finish(&mut self, dir: &[u8], attributes: Option<usize>) -> Result<(), Self::Error>;
}

/// What is known of one name while the layers are gone through from the top.
struct Found {
    /// The layers whose directory of this name shows; for anything else the one layer it comes from.
    layers: Vec<usize>,
    is_dir: bool,
    /// Whether a directory further down would show too.
    is_open: bool,
    /// The layer whose attributes count, once it is found.
    attributes: Option<usize>,
    /// Whether it is still looked for.
    wants_attributes: bool,
}

/// A directory that is to be merged.
struct Pending {
    path: Vec<u8>,
    layers: Vec<usize>,
    attributes: Option<usize>,
}

/// Merges layers, the lowest first.
pub(crate) fn merge<S: Surface>(layers: &[Marks], surface: &mut S) -> Result<(), S::Error> {
    let mut root = Vec::new();
    for layer in (0..layers.len()).rev() {
        root.push(layer);
        if layers[layer].is_opaque(b"") {
            break;
        }
    }
    let attributes = (0..layers.len()).rev().find(|layer| !layers[*layer].is_implied(b""));
    let mut stack = vec![Pending { path: Vec::new(), layers: root, attributes }];
    while let Some(Pending { path, layers: showing, attributes }) = stack.pop() {
        surface.begin(&path)?;
        for (name, found) in look_up(layers, &path, &showing, surface)? {
            if found.is_dir {
                surface.make_dir(&name)?;
                let path = join(&path, &name);
                stack.push(Pending { path, layers: found.layers, attributes: found.attributes });
            } else if let Some(layer) = found.layers.first() {
                surface.take(*layer, &name)?;
            }
        }
        surface.finish(&path, attributes)?;
    }
    Ok(())
}

/// The names in `dir`, each with where it comes from. `showing` are the layers whose `dir` shows, the highest first.
fn look_up<S: Surface>(
    layers: &[Marks],
    dir: &[u8],
    showing: &[usize],
    surface: &mut S,
) -> Result<Vec<(Vec<u8>, Found)>, S::Error> {
    let hiding: Vec<_> = layers
        .iter()
        .enumerate()
        .filter_map(|(layer, marks)| Some((layer, marks.whiteouts_in(dir)?)))
        .collect();
    let hidden_above = |layer: usize, below: Option<usize>, name: &[u8]| {
        hiding.iter().any(|(hider, names)| {
            *hider > layer && below.is_none_or(|below| *hider <= below) && names.contains(name)
        })
    };
    let mut order: Vec<(Vec<u8>, Found)> = Vec::new();
    let mut places: HashMap<Vec<u8>, usize> = HashMap::new();
    for layer in showing {
        let layer = *layer;
        for (name, is_dir) in surface.list(layer, dir)? {
            match places.get(&name).and_then(|place| order.get_mut(*place)) {
                None if hidden_above(layer, None, &name) => {}
                None => {
                    let mut found = Found {
                        layers: vec![layer],
                        is_dir,
                        is_open: is_dir,
                        attributes: None,
                        wants_attributes: is_dir,
                    };
                    if is_dir {
                        found.look_at(&layers[layer], layer, &join(dir, &name));
                    }
                    places.insert(name.clone(), order.len());
                    order.push((name, found));
                }
                Some((_, found)) if found.is_open || found.wants_attributes => {
                    // A file or a whiteout between two directories cuts the lower one off.
                    let last = found.layers.last().copied();
                    if !is_dir || hidden_above(layer, last, &name) {
                        (found.is_open, found.wants_attributes) = (false, false);
                        continue;
                    }
                    if found.is_open {
                        found.layers.push(layer);
                    }
                    found.look_at(&layers[layer], layer, &join(dir, &name));
                }
                Some(_) => {}
            }
        }
    }
    Ok(order)
}

impl Found {
    /// Takes into account what a layer says of its directory `path`.
    fn look_at(&mut self, marks: &Marks, layer: usize, path: &[u8]) {
        if self.wants_attributes && !marks.is_implied(path) {
            (self.attributes, self.wants_attributes) = (Some(layer), false);
        }
        if marks.is_opaque(path) {
            self.is_open = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::convert::Infallible;

    use proptest::prelude::*;

    use super::{Surface, merge};
    use crate::images::marks::{Marks, join};

    /// A layer as a list: `path/` is a directory, `path` a file, `-path` a whiteout, `!path` an opaque mark, `?path/`
    /// an implied directory.
    #[derive(Clone, Debug, Default)]
    struct Tree {
        nodes: BTreeMap<Vec<u8>, bool>,
        marks: Marks,
    }

    fn tree(text: &str) -> Tree {
        let mut tree = Tree::default();
        tree.marks.add_implied(b"").unwrap();
        for word in text.split_whitespace() {
            let bytes = word.as_bytes();
            match bytes[0] {
                b'-' => tree.marks.add_whiteout(&bytes[1..]).unwrap(),
                b'!' => tree.marks.add_opaque(&bytes[1..]).unwrap(),
                b'?' => {
                    let path = bytes[1..].strip_suffix(b"/").unwrap();
                    tree.marks.add_implied(path).unwrap();
                    tree.nodes.insert(path.to_vec(), true);
                }
                _ => {
                    let path = bytes.strip_suffix(b"/").unwrap_or(bytes);
                    tree.nodes.insert(path.to_vec(), bytes.ends_with(b"/"));
                }
            }
        }
        tree
    }

    struct Memory {
        layers: Vec<Tree>,
        dir: Vec<u8>,
        merged: BTreeMap<String, Option<usize>>,
    }

    impl Memory {
        fn put(&mut self, path: &[u8], suffix: &str, layer: Option<usize>) {
            let path = String::from_utf8_lossy(path).into_owned() + suffix;
            assert!(self.merged.insert(path, layer).is_none(), "made once only");
        }
    }

    impl Surface for Memory {
        type Error = Infallible;

        fn begin(&mut self, dir: &[u8]) -> Result<(), Infallible> {
            self.dir = dir.to_vec();
            Ok(())
        }

        fn list(&mut self, layer: usize, dir: &[u8]) -> Result<Vec<(Vec<u8>, bool)>, Infallible> {
            let of_dir = |path: &Vec<u8>| {
                let name = if dir.is_empty() { path } else { path.strip_prefix(dir)?.strip_prefix(b"/")? };
                (!name.is_empty() && !name.contains(&b'/')).then(|| name.to_vec())
            };
            let nodes = &self.layers[layer].nodes;
            Ok(nodes.iter().filter_map(|(path, is_dir)| Some((of_dir(path)?, *is_dir))).collect())
        }

        fn take(&mut self, layer: usize, name: &[u8]) -> Result<(), Infallible> {
            let path = join(&self.dir, name);
            self.put(&path, "", Some(layer));
            Ok(())
        }

        fn make_dir(&mut self, _name: &[u8]) -> Result<(), Infallible> {
            Ok(())
        }

        fn finish(&mut self, dir: &[u8], attributes: Option<usize>) -> Result<(), Infallible> {
            assert_eq!(dir, self.dir);
            let dir = dir.to_vec();
            self.put(&dir, "/", attributes);
            Ok(())
        }
    }

    fn merged(layers: &[&str]) -> String {
        let layers: Vec<Tree> = layers.iter().map(|text| tree(text)).collect();
        let marks: Vec<Marks> = layers.iter().map(|tree| tree.marks.clone()).collect();
        let mut memory = Memory { layers, dir: Vec::new(), merged: BTreeMap::new() };
        let Ok(()) = merge(&marks, &mut memory);
        let show = |(path, layer): (&String, &Option<usize>)| match layer {
            Some(layer) => format!("{path}:{layer}"),
            None => path.clone(),
        };
        memory.merged.iter().map(show).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn the_topmost_layer_shows() {
        assert_eq!(merged(&[]), "/");
        assert_eq!(merged(&["a d/ d/x d/y", "a d/ d/x d/z"]), "/ a:1 d/:1 d/x:1 d/y:0 d/z:1");
        assert_eq!(
            merged(&["d/ d/x", "?d/ d/y"]),
            "/ d/:0 d/x:0 d/y:1",
            "implied: the lower one's attributes"
        );
        assert_eq!(merged(&["?d/ d/x", "?d/ d/y"]), "/ d/ d/x:0 d/y:1");
    }

    #[test]
    fn whiteouts_hide_what_is_below_and_nothing_of_their_own_layer() {
        assert_eq!(merged(&["a b", "-a"]), "/ b:0");
        assert_eq!(merged(&["a", "-a a"]), "/ a:1");
        assert_eq!(merged(&["a", "-a", "a"]), "/ a:2");
        assert_eq!(merged(&["d/ d/x d/y", "-d/x"]), "/ d/:0 d/y:0", "without its directory in the layer");
        assert_eq!(merged(&["d/ d/x", "-d d/ d/y"]), "/ d/:1 d/y:1", "removed and made again");
        assert_eq!(merged(&["d/ d/x", "-d", "d/ d/y"]), "/ d/:2 d/y:2");
        assert_eq!(
            merged(&["d/ d/x", "-d", "?d/ d/y"]),
            "/ d/ d/y:2",
            "attributes are not those of one removed"
        );
        assert_eq!(merged(&["d/ d/e/ d/e/x", "d/", "-d/e"]), "/ d/:1");
        assert_eq!(merged(&["-a", "a"]), "/ a:1");
        assert_eq!(merged(&["d/ d/x", "d/ d/z", "-d/x", "d/ d/w"]), "/ d/:3 d/w:3 d/z:1");
    }

    #[test]
    fn opaque_directories_hide_what_is_below() {
        assert_eq!(merged(&["d/ d/x", "d/ !d d/y"]), "/ d/:1 d/y:1");
        assert_eq!(merged(&["d/ d/x", "?d/ !d d/y"]), "/ d/:0 d/y:1", "the directory itself stays");
        assert_eq!(merged(&["d/ d/x", "d/ !d", "d/ d/z"]), "/ d/:2 d/z:2");
        assert_eq!(merged(&["a d/ d/x", "! b"]), "/ b:1");
    }

    #[test]
    fn a_change_of_kind_cuts_off_what_is_below() {
        assert_eq!(merged(&["d/ d/x", "d"]), "/ d:1");
        assert_eq!(merged(&["d", "d/ d/x"]), "/ d/:1 d/x:1");
        assert_eq!(merged(&["d/ d/x", "d", "d/ d/y"]), "/ d/:2 d/y:2");
        assert_eq!(merged(&["d/ d/x", "d", "?d/ d/y"]), "/ d/ d/y:2");
    }

    /// The same by applying one layer after the other to a tree, as an engine without overlays does.
    fn applied(layers: &[Tree]) -> BTreeMap<String, Option<usize>> {
        let mut nodes: BTreeMap<Vec<u8>, (bool, Option<usize>)> = BTreeMap::new();
        fn remove(nodes: &mut BTreeMap<Vec<u8>, (bool, Option<usize>)>, path: &[u8], itself: bool) {
            nodes.retain(|other, _| {
                let below = path.is_empty() || other.strip_prefix(path).is_some_and(|r| r.starts_with(b"/"));
                !(below || itself && other == path)
            });
        }
        for (layer, tree) in layers.iter().enumerate() {
            for record in tree.marks.to_bytes().split(|byte| *byte == 0) {
                match record.split_first() {
                    Some((b'w', path)) => remove(&mut nodes, path, true),
                    Some((b'o', path)) => remove(&mut nodes, path, false),
                    _ => {}
                }
            }
            for (path, is_dir) in &tree.nodes {
                let old = nodes.get(path).copied();
                if *is_dir != old.is_some_and(|(is_dir, _)| is_dir) {
                    remove(&mut nodes, path, true);
                }
                let kept = old.filter(|(was_dir, _)| *was_dir && *is_dir).and_then(|(_, layer)| layer);
                let own = if *is_dir && tree.marks.is_implied(path) { kept } else { Some(layer) };
                nodes.insert(path.clone(), (*is_dir, own));
            }
        }
        let mut all: BTreeMap<_, _> = nodes
            .into_iter()
            .map(|(path, (is_dir, layer))| {
                (String::from_utf8(path).unwrap() + if is_dir { "/" } else { "" }, layer)
            })
            .collect();
        all.insert("/".to_owned(), None);
        all
    }

    fn layer() -> impl Strategy<Value = Tree> {
        let path = prop::collection::vec(prop::sample::select(vec!["a", "b", "c"]), 1..4);
        prop::collection::vec((0..5u8, path), 0..8).prop_map(|items| {
            let mut tree = tree("");
            let explicit_or_implied = |tree: &mut Tree, parts: &[&str]| {
                for end in 1..parts.len() {
                    let dir = parts[..end].join("/").into_bytes();
                    if !tree.nodes.get(&dir).copied().unwrap_or(false) {
                        tree.nodes.insert(dir.clone(), true);
                        tree.marks.add_implied(&dir).unwrap();
                    }
                }
            };
            for (kind, parts) in items {
                let path = parts.join("/").into_bytes();
                let blocked = (1..parts.len())
                    .any(|end| tree.nodes.get(parts[..end].join("/").as_bytes()) == Some(&false));
                match kind {
                    0 if !blocked && tree.nodes.get(&path) != Some(&true) => {
                        explicit_or_implied(&mut tree, &parts);
                        tree.nodes.insert(path, false);
                    }
                    1 | 2 if !blocked && tree.nodes.get(&path) != Some(&false) => {
                        explicit_or_implied(&mut tree, &parts);
                        tree.nodes.insert(path.clone(), true);
                        tree.marks.remove_implied(&path);
                        if kind == 2 {
                            tree.marks.add_opaque(&path).unwrap();
                        }
                    }
                    3 => tree.marks.add_whiteout(&path).unwrap(),
                    _ => {}
                }
            }
            tree
        })
    }

    proptest! {
        #[test]
        fn merging_is_the_same_as_applying_one_after_the_other(
            layers in prop::collection::vec(layer(), 0..5)
        ) {
            let marks: Vec<Marks> = layers.iter().map(|tree| tree.marks.clone()).collect();
            let mut memory = Memory { layers: layers.clone(), dir: Vec::new(), merged: BTreeMap::new() };
            let Ok(()) = merge(&marks, &mut memory);
            prop_assert_eq!(memory.merged, applied(&layers));
        }
    }
}
