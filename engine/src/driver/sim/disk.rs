//! The simulated disk: what programs see, and what a crash would leave.
//!
//! Every file has two contents: the current one (page cache) and the durable one, with the set of
//! sectors that differ. Directory changes are a journal: current at once, durable up to the last
//! one that an fsync of its directory covered. A crash returns to the durable state, except for
//! sectors and a journal prefix that made it to the disk by chance.
//!
//! Invariants: whole sectors are atomic; the journal becomes durable in order; an fsync that
//! fails forgets what it should have written, as Linux does.

use std::collections::BTreeMap;
use std::path::{Component, Path};

use crate::rng::Rng;

use super::streams::chance;

/// Unit of tearing.
pub(super) const SECTOR_BYTES: usize = 512;

/// A file or directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Inode {
    disk: u8,
    number: u64,
}

impl Inode {
    /// The disk it is on.
    pub(super) const fn disk(self) -> usize {
        self.disk as usize
    }
}

type Result<T> = std::result::Result<T, i32>;

#[derive(Debug, Default)]
struct File {
    now: Vec<u8>,
    durable: Vec<u8>,
    dirty: Sectors,
    /// The shortest the file has been since it was made durable.
    cut: usize,
}

#[derive(Debug, Default)]
struct Directory {
    now: BTreeMap<String, Inode>,
    durable: BTreeMap<String, Inode>,
}

#[derive(Debug)]
enum Node {
    File(File),
    Directory(Directory),
}

/// Entries set or removed together.
#[derive(Debug)]
struct Change(Vec<(Inode, String, Option<Inode>)>);

/// All files of a machine.
#[derive(Debug)]
pub(super) struct Disk {
    /// Which disk it is.
    disk: u8,
    nodes: BTreeMap<Inode, Node>,
    next: u64,
    journal: Vec<Change>,
    /// Descriptors per file: a removed one keeps its contents while it is open.
    open: BTreeMap<Inode, u32>,
    used: u64,
    capacity: u64,
}

impl Disk {
    pub(super) fn new(disk: u8, capacity: u64) -> Self {
        let root = Inode { disk, number: 0 };
        let nodes = BTreeMap::from([(root, Node::Directory(Directory::default()))]);
        Self { disk, nodes, next: 1, journal: Vec::new(), open: BTreeMap::new(), used: 0, capacity }
    }

    /// The root directory.
    const fn root(&self) -> Inode {
        Inode { disk: self.disk, number: 0 }
    }

    /// A descriptor for the file exists from now on.
    pub(super) fn open(&mut self, inode: Inode) {
        *self.open.entry(inode).or_default() += 1;
    }

    /// It is closed.
    pub(super) fn close(&mut self, inode: Inode) {
        if let Some(count) = self.open.get_mut(&inode) {
            *count -= 1;
            if *count == 0 {
                self.open.remove(&inode);
            }
        }
    }

    fn file(&self, inode: Inode) -> Result<&File> {
        match self.nodes.get(&inode) {
            Some(Node::File(file)) => Ok(file),
            Some(Node::Directory(_)) => Err(libc::EISDIR),
            None => Err(libc::EBADF),
        }
    }

    fn file_mut(&mut self, inode: Inode) -> Result<&mut File> {
        match self.nodes.get_mut(&inode) {
            Some(Node::File(file)) => Ok(file),
            Some(Node::Directory(_)) => Err(libc::EISDIR),
            None => Err(libc::EBADF),
        }
    }

    fn directory(&self, inode: Inode) -> Result<&Directory> {
        match self.nodes.get(&inode) {
            Some(Node::Directory(directory)) => Ok(directory),
            _ => Err(libc::ENOTDIR),
        }
    }

    fn directory_mut(&mut self, inode: Inode) -> Result<&mut Directory> {
        match self.nodes.get_mut(&inode) {
            Some(Node::Directory(directory)) => Ok(directory),
            _ => Err(libc::ENOTDIR),
        }
    }

    fn find(&self, names: &[String]) -> Result<Inode> {
        let mut at = self.root();
        for name in names {
            at = *self.directory(at)?.now.get(name).ok_or(libc::ENOENT)?;
        }
        Ok(at)
    }

    /// The directory a path lies in, and its last name.
    fn place(&self, path: &Path) -> Result<(Inode, String)> {
        let mut names = names(path)?;
        let last = names.pop().ok_or(libc::EISDIR)?;
        Ok((self.find(&names)?, last))
    }

    fn change(&mut self, change: Change) -> Result<()> {
        for (directory, name, target) in &change.0 {
            let entries = &mut self.directory_mut(*directory)?.now;
            match target {
                Some(inode) => entries.insert(name.clone(), *inode),
                None => entries.remove(name),
            };
        }
        self.journal.push(change);
        Ok(())
    }

    fn make(&mut self, directory: Inode, name: String, node: Node) -> Result<Inode> {
        let inode = Inode { disk: self.disk, number: self.next };
        self.next += 1;
        self.nodes.insert(inode, node);
        self.change(Change(vec![(directory, name, Some(inode))]))?;
        Ok(inode)
    }

    /// Finds a file or directory.
    pub(super) fn look_up(&self, path: &Path) -> Result<Inode> {
        self.find(&names(path)?)
    }

    pub(super) fn is_directory(&self, inode: Inode) -> bool {
        self.directory(inode).is_ok()
    }

    /// Makes an empty file.
    pub(super) fn create(&mut self, path: &Path) -> Result<Inode> {
        let (directory, name) = self.place(path)?;
        if self.directory(directory)?.now.contains_key(&name) {
            return Err(libc::EEXIST);
        }
        self.make(directory, name, Node::File(File::default()))
    }

    /// Makes a directory and its parents.
    pub(super) fn make_dir(&mut self, path: &Path) -> Result<()> {
        let mut at = self.root();
        for name in names(path)? {
            let known = self.directory(at)?.now.get(&name).copied();
            at = match known {
                Some(inode) => inode,
                None => self.make(at, name, Node::Directory(Directory::default()))?,
            };
        }
        if self.is_directory(at) { Ok(()) } else { Err(libc::EEXIST) }
    }

    /// Names in a directory, sorted.
    pub(super) fn list(&self, path: &Path) -> Result<Vec<String>> {
        Ok(self.directory(self.look_up(path)?)?.now.keys().cloned().collect())
    }

    /// Renames; a file at the target is replaced.
    pub(super) fn rename(&mut self, from: &Path, to: &Path) -> Result<()> {
        let inode = self.look_up(from)?;
        let (from_dir, from_name) = self.place(from)?;
        let (to_dir, to_name) = self.place(to)?;
        if let Some(&target) = self.directory(to_dir)?.now.get(&to_name) {
            if target == inode {
                return Ok(());
            }
            match (self.is_directory(inode), self.directory(target)) {
                (false, Ok(_)) => return Err(libc::EISDIR),
                (true, Err(_)) => return Err(libc::ENOTDIR),
                (true, Ok(target)) if !target.now.is_empty() => return Err(libc::ENOTEMPTY),
                _ => {}
            }
        }
        let edits = vec![(from_dir, from_name, None), (to_dir, to_name, Some(inode))];
        self.change(Change(edits))
    }

    /// Removes a file's name.
    pub(super) fn unlink(&mut self, path: &Path) -> Result<()> {
        if self.is_directory(self.look_up(path)?) {
            return Err(libc::EISDIR);
        }
        let (directory, name) = self.place(path)?;
        self.change(Change(vec![(directory, name, None)]))
    }

    /// Removes an empty directory.
    pub(super) fn remove_dir(&mut self, path: &Path) -> Result<()> {
        if !self.directory(self.look_up(path)?)?.now.is_empty() {
            return Err(libc::ENOTEMPTY);
        }
        let (directory, name) = self.place(path)?;
        self.change(Change(vec![(directory, name, None)]))
    }

    pub(super) fn len(&self, inode: Inode) -> Result<u64> {
        match self.nodes.get(&inode) {
            Some(Node::Directory(_)) => Ok(4096),
            _ => Ok(self.file(inode)?.now.len() as u64),
        }
    }

    /// Bytes of a file from `offset` on, at most `len`.
    pub(super) fn read(&self, inode: Inode, offset: u64, len: usize) -> Result<&[u8]> {
        let now = &self.file(inode)?.now;
        let from = usize::try_from(offset).unwrap_or(usize::MAX).min(now.len());
        Ok(&now[from..from.saturating_add(len).min(now.len())])
    }

    /// How many of `len` bytes at `offset` fit on the disk.
    pub(super) fn room(&self, inode: Inode, offset: u64, len: usize) -> Result<usize> {
        let most = self.len(inode)? + self.capacity.saturating_sub(self.used);
        Ok(usize::try_from(most.saturating_sub(offset)).unwrap_or(usize::MAX).min(len))
    }

    /// Writes to the page cache.
    pub(super) fn write(&mut self, inode: Inode, offset: u64, bytes: &[u8]) -> Result<()> {
        let from = usize::try_from(offset).map_err(|_| libc::EFBIG)?;
        let to = from.checked_add(bytes.len()).ok_or(libc::EFBIG)?;
        let file = self.file_mut(inode)?;
        let before = file.now.len();
        if to > before {
            file.now.resize(to, 0);
            file.dirty.mark(before, to);
        }
        file.now[from..to].copy_from_slice(bytes);
        file.dirty.mark(from, to);
        self.used += (to.max(before) - before) as u64;
        Ok(())
    }

    pub(super) fn truncate(&mut self, inode: Inode, len: u64) -> Result<()> {
        let len = usize::try_from(len).map_err(|_| libc::EFBIG)?;
        let file = self.file_mut(inode)?;
        let before = file.now.len();
        file.now.resize(len, 0);
        file.cut = file.cut.min(len);
        file.dirty.mark(before.min(len), before.max(len));
        self.used = self.used - before as u64 + len as u64;
        Ok(())
    }

    /// Makes a range and the file's length durable (RWF_DSYNC).
    pub(super) fn sync_range(&mut self, inode: Inode, offset: u64, len: usize) -> Result<()> {
        let file = self.file_mut(inode)?;
        let from = usize::try_from(offset).map_err(|_| libc::EFBIG)?;
        file.sync_length();
        for sector in file.dirty.take(from, from.saturating_add(len)) {
            file.sync_sector(sector);
        }
        Ok(())
    }

    /// Makes a file durable, or a directory's entries.
    pub(super) fn sync(&mut self, inode: Inode) -> Result<()> {
        if self.is_directory(inode) {
            let touches = |change: &Change| change.0.iter().any(|(dir, ..)| *dir == inode);
            let covered = self.journal.iter().rposition(touches).map_or(0, |last| last + 1);
            self.commit(covered);
            self.collect_garbage();
            return Ok(());
        }
        let len = self.file(inode)?.now.len();
        self.sync_range(inode, 0, len)?;
        self.file_mut(inode)?.dirty.clear();
        Ok(())
    }

    /// A failed fsync: what was dirty counts as clean, but never reached the disk.
    pub(super) fn fail_sync(&mut self, inode: Inode) {
        if let Ok(file) = self.file_mut(inode) {
            file.dirty.clear();
        }
    }

    fn commit(&mut self, changes: usize) {
        let covered: Vec<Change> = self.journal.drain(..changes).collect();
        for (directory, name, target) in covered.into_iter().flat_map(|change| change.0) {
            let Ok(directory) = self.directory_mut(directory) else { continue };
            match target {
                Some(inode) => directory.durable.insert(name, inode),
                None => directory.durable.remove(&name),
            };
        }
    }

    /// What the disk holds of a file, were the machine to stop now.
    pub(super) fn durable(&self, path: &Path) -> Result<&[u8]> {
        Ok(&self.file(self.look_up(path)?)?.durable)
    }

    /// A bit changes, on the disk and in what is cached of it.
    pub(super) fn flip(&mut self, path: &Path, offset: u64, bit: u32) -> Result<()> {
        let inode = self.look_up(path)?;
        let at = usize::try_from(offset).map_err(|_| libc::EFBIG)?;
        let file = self.file_mut(inode)?;
        for bytes in [&mut file.durable, &mut file.now] {
            *bytes.get_mut(at).ok_or(libc::EINVAL)? ^= 1 << (bit % 8);
        }
        Ok(())
    }

    /// The machine stops: back to the durable state, plus what reached the disk by chance.
    pub(super) fn crash(&mut self, rng: &mut Rng, survives: f64) {
        let lucky = self.journal.iter().take_while(|_| chance(rng, survives)).count();
        self.commit(lucky);
        self.journal.clear();
        self.open.clear();
        for node in self.nodes.values_mut() {
            match node {
                Node::File(file) => file.crash(rng, survives),
                Node::Directory(directory) => directory.now = directory.durable.clone(),
            }
        }
        self.collect_garbage();
        let files = self.nodes.values().filter_map(|node| match node {
            Node::File(file) => Some(file.now.len() as u64),
            Node::Directory(_) => None,
        });
        self.used = files.sum();
    }

    /// Frees files that have no name now, on the disk or in the journal, and are not open.
    fn collect_garbage(&mut self) {
        let mut named = std::collections::BTreeSet::from([self.root()]);
        for node in self.nodes.values() {
            if let Node::Directory(directory) = node {
                named.extend(directory.now.values());
                named.extend(directory.durable.values());
            }
        }
        named.extend(self.journal.iter().flat_map(|change| &change.0).filter_map(|edit| edit.2));
        named.extend(self.open.keys());
        let mut freed = 0;
        self.nodes.retain(|inode, node| match node {
            Node::File(file) if !named.contains(inode) => {
                freed += file.now.len() as u64;
                false
            }
            _ => true,
        });
        self.used -= freed.min(self.used);
    }
}

impl File {
    fn sync_length(&mut self) {
        self.durable.truncate(self.cut);
        self.durable.resize(self.now.len(), 0);
        self.cut = self.now.len();
    }

    fn sync_sector(&mut self, sector: usize) {
        let from = sector * SECTOR_BYTES;
        let to = (from + SECTOR_BYTES).min(self.now.len()).min(self.durable.len());
        if from < to {
            self.durable[from..to].copy_from_slice(&self.now[from..to]);
        }
    }

    fn crash(&mut self, rng: &mut Rng, survives: f64) {
        if (self.now.len() != self.durable.len() || self.cut < self.durable.len())
            && chance(rng, survives)
        {
            self.sync_length();
        }
        for sector in self.dirty.take(0, usize::MAX) {
            if chance(rng, survives) {
                self.sync_sector(sector);
            }
        }
        self.now.clone_from(&self.durable);
        self.cut = self.now.len();
    }
}

/// A set of sectors.
#[derive(Debug, Default)]
struct Sectors(Vec<u64>);

impl Sectors {
    /// Adds every sector that bytes `from..to` touch.
    fn mark(&mut self, from: usize, to: usize) {
        if from >= to {
            return;
        }
        let last = (to - 1) / SECTOR_BYTES;
        if self.0.len() <= last / 64 {
            self.0.resize(last / 64 + 1, 0);
        }
        for sector in from / SECTOR_BYTES..=last {
            self.0[sector / 64] |= 1 << (sector % 64);
        }
    }

    /// Removes and returns the sectors that bytes `from..to` touch, in order.
    fn take(&mut self, from: usize, to: usize) -> Vec<usize> {
        let mut taken = Vec::new();
        let end = to.div_ceil(SECTOR_BYTES).min(self.0.len() * 64);
        let mut sector = from / SECTOR_BYTES;
        while sector < end {
            let word = &mut self.0[sector / 64];
            if *word == 0 {
                sector = (sector / 64 + 1) * 64;
                continue;
            }
            if *word >> (sector % 64) & 1 == 1 {
                *word &= !(1 << (sector % 64));
                taken.push(sector);
            }
            sector += 1;
        }
        taken
    }

    fn clear(&mut self) {
        self.0.clear();
    }
}

/// A path's names from the root; relative ones start there as well.
fn names(path: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for part in path.components() {
        match part {
            Component::RootDir | Component::CurDir => {}
            Component::ParentDir => {
                names.pop();
            }
            Component::Normal(name) => {
                names.push(name.to_str().ok_or(libc::EILSEQ)?.to_owned());
            }
            Component::Prefix(_) => return Err(libc::EINVAL),
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk() -> (Disk, Rng) {
        (Disk::new(0, 1 << 20), Rng::new(1))
    }

    fn path(path: &str) -> &Path {
        Path::new(path)
    }

    fn made(disk: &mut Disk, name: &str) -> Inode {
        let inode = disk.create(path(name)).expect("a free name");
        disk.sync(disk.root()).expect("the root");
        inode
    }

    #[test]
    fn unsynced_bytes_are_lost_and_synced_ones_stay() {
        let (mut disk, mut rng) = disk();
        let file = made(&mut disk, "/f");
        disk.write(file, 0, &[1; 2000]).expect("room");
        disk.sync(file).expect("a file");
        disk.write(file, 1000, &[2; 2000]).expect("room");
        disk.crash(&mut rng, 0.0);
        assert_eq!(disk.read(file, 0, 9999), Ok(&[1; 2000][..]));
        assert_eq!(disk.len(file), Ok(2000));
    }

    #[test]
    fn a_durable_write_makes_its_own_range_durable_only() {
        let (mut disk, mut rng) = disk();
        let file = made(&mut disk, "/f");
        disk.write(file, 0, &[1; 4096]).expect("room");
        disk.write(file, 4096, &[2; 4096]).expect("room");
        disk.sync_range(file, 4096, 4096).expect("a file");
        disk.crash(&mut rng, 0.0);
        assert_eq!(disk.read(file, 0, 4096), Ok(&[0; 4096][..]));
        assert_eq!(disk.read(file, 4096, 4096), Ok(&[2; 4096][..]));
    }

    #[test]
    fn a_crash_tears_writes_at_sectors() {
        let mut torn = 0;
        for seed in 0..50 {
            let mut disk = Disk::new(0, 1 << 20);
            let file = made(&mut disk, "/f");
            disk.write(file, 0, &[1; 4096]).expect("room");
            disk.sync(file).expect("a file");
            disk.write(file, 0, &[2; 4096]).expect("room");
            disk.crash(&mut Rng::new(seed), 0.5);
            let left = disk.read(file, 0, 4096).expect("a file").to_vec();
            for sector in left.chunks(SECTOR_BYTES) {
                assert!(sector.iter().all(|&byte| byte == sector[0]), "sectors are atomic");
            }
            torn += u32::from(left.contains(&1) && left.contains(&2));
        }
        assert!(torn > 40, "{torn} of 50 torn");
    }

    #[test]
    fn names_are_durable_only_after_an_fsync_of_their_directory() {
        let (mut disk, mut rng) = disk();
        disk.make_dir(path("/d/e")).expect("a free name");
        disk.sync(disk.root()).expect("the root");
        let d = disk.look_up(path("/d")).expect("made above");
        disk.sync(d).expect("a directory");
        let one = disk.create(path("/d/one")).expect("a free name");
        disk.sync(one).expect("a file");
        disk.crash(&mut rng, 0.0);
        assert_eq!(disk.list(path("/d")), Ok(vec!["e".to_owned()]));
        disk.create(path("/d/one")).expect("a free name");
        disk.create(path("/d/two")).expect("a free name");
        disk.sync(d).expect("a directory");
        disk.rename(path("/d/one"), path("/d/two")).expect("both exist");
        assert_eq!(disk.list(path("/d")), Ok(vec!["e".to_owned(), "two".to_owned()]));
        disk.crash(&mut rng, 0.0);
        assert_eq!(disk.list(path("/d")).map(|names| names.len()), Ok(3));
        disk.rename(path("/d/one"), path("/d/two")).expect("both exist");
        disk.unlink(path("/d/two")).expect("it exists");
        disk.sync(d).expect("a directory");
        disk.crash(&mut rng, 0.0);
        assert_eq!(disk.list(path("/d")), Ok(vec!["e".to_owned()]));
    }

    #[test]
    fn a_rename_is_all_or_nothing_after_a_crash() {
        let mut seen = std::collections::BTreeSet::new();
        for seed in 0..50 {
            let mut disk = Disk::new(0, 1 << 20);
            disk.make_dir(path("/a")).expect("a free name");
            disk.make_dir(path("/b")).expect("a free name");
            disk.create(path("/a/f")).expect("a free name");
            let a = disk.look_up(path("/a")).expect("made above");
            disk.sync(a).expect("a directory");
            disk.rename(path("/a/f"), path("/b/f")).expect("it exists");
            disk.crash(&mut Rng::new(seed), 0.5);
            let there = |dir| disk.list(path(dir)).expect("durable").len();
            assert_eq!(there("/a") + there("/b"), 1);
            seen.insert(there("/a"));
        }
        assert_eq!(seen.len(), 2, "both outcomes occur");
    }

    #[test]
    fn a_truncated_and_regrown_file_shows_no_old_bytes_after_a_crash() {
        let (mut disk, mut rng) = disk();
        let file = made(&mut disk, "/f");
        disk.write(file, 0, &[1; 3000]).expect("room");
        disk.sync(file).expect("a file");
        disk.truncate(file, 100).expect("a file");
        disk.truncate(file, 3000).expect("a file");
        disk.sync(file).expect("a file");
        disk.crash(&mut rng, 0.0);
        assert_eq!(disk.read(file, 100, 2900), Ok(&[0; 2900][..]));
        assert_eq!(disk.read(file, 0, 100), Ok(&[1; 100][..]));
    }

    #[test]
    fn a_failed_fsync_forgets_what_it_should_have_written() {
        let (mut disk, mut rng) = disk();
        let file = made(&mut disk, "/f");
        disk.write(file, 0, &[1; 512]).expect("room");
        disk.fail_sync(file);
        disk.sync(file).expect("a file");
        assert_eq!(disk.read(file, 0, 512), Ok(&[1; 512][..]));
        disk.crash(&mut rng, 0.0);
        assert_eq!(disk.read(file, 0, 512), Ok(&[0; 512][..]));
    }

    #[test]
    fn a_bit_that_flips_stays_so_after_a_crash() {
        let (mut disk, mut rng) = disk();
        let file = made(&mut disk, "/f");
        disk.write(file, 0, &[0; 10]).expect("room");
        disk.sync(file).expect("a file");
        assert_eq!(disk.flip(path("/f"), 10, 0), Err(libc::EINVAL), "past its end");
        disk.flip(path("/f"), 3, 9).expect("a byte");
        assert_eq!(disk.read(file, 3, 1), Ok(&[2][..]));
        disk.crash(&mut rng, 0.0);
        assert_eq!(disk.read(file, 2, 3), Ok(&[0, 2, 0][..]));
        assert_eq!(disk.durable(path("/f")).map(<[u8]>::len), Ok(10));
    }

    #[test]
    fn room_counts_growth_only_and_removed_files_give_it_back() {
        let mut disk = Disk::new(0, 1000);
        let file = made(&mut disk, "/f");
        assert_eq!(disk.room(file, 0, 5000), Ok(1000));
        disk.write(file, 0, &[1; 600]).expect("room");
        assert_eq!(disk.room(file, 500, 5000), Ok(500));
        assert_eq!(disk.room(file, 1000, 1), Ok(0));
        disk.unlink(path("/f")).expect("it exists");
        disk.sync(disk.root()).expect("the root");
        let other = made(&mut disk, "/g");
        assert_eq!(disk.room(other, 0, 5000), Ok(1000));
    }

    #[test]
    fn errors_are_those_of_the_kernel() {
        let (mut disk, _) = disk();
        made(&mut disk, "/f");
        disk.make_dir(path("/d")).expect("a free name");
        assert_eq!(disk.look_up(path("/g")), Err(libc::ENOENT));
        assert_eq!(disk.look_up(path("/f/g")), Err(libc::ENOTDIR));
        assert_eq!(disk.create(path("/x/y")), Err(libc::ENOENT));
        assert_eq!(disk.unlink(path("/d")), Err(libc::EISDIR));
        assert_eq!(disk.rename(path("/f"), path("/d")), Err(libc::EISDIR));
        assert_eq!(disk.make_dir(path("/f")), Err(libc::EEXIST));
    }
}
