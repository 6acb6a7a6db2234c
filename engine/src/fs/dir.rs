//! Directories: what names a file has is durable only after its directory was synced.

use std::path::{Path, PathBuf};

use crate::driver::{Fd, Op, OpenOptions};
use crate::error::Error;
use crate::shard::ShardCx;

/// An open directory; closed on drop.
#[derive(Debug)]
pub struct Dir {
    cx: ShardCx,
    fd: Fd,
    path: PathBuf,
}

impl Dir {
    /// Opens a directory, making it and its parents when missing; a new name is durable then.
    ///
    /// # Errors
    /// Something else has that name, or the file system refuses.
    pub async fn open(cx: &ShardCx, path: &Path) -> Result<Self, Error> {
        let is_missing = |path: &&Path| Self::existing(cx, path).is_err();
        let names = path.ancestors().filter(|path| !path.as_os_str().is_empty());
        let missing: Vec<&Path> = names.take_while(is_missing).collect();
        if !missing.is_empty() {
            cx.driver().make_dir(path)?;
        }
        let dir = Self::existing(cx, path)?;
        for made in missing {
            let parent = made.parent().filter(|parent| !parent.as_os_str().is_empty());
            Self::existing(cx, parent.unwrap_or(Path::new(".")))?.sync().await?;
        }
        Ok(dir)
    }

    /// Opens a directory that is there.
    ///
    /// # Errors
    /// It is not.
    pub fn existing(cx: &ShardCx, path: &Path) -> Result<Self, Error> {
        let options = OpenOptions { directory: true, ..OpenOptions::default() };
        let fd = cx.driver().open(path, &options)?;
        Ok(Self { cx: cx.clone(), fd, path: path.to_owned() })
    }

    /// Its path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Makes the names in it durable: files created, renamed and removed before.
    ///
    /// # Errors
    /// EIO: they may not be.
    pub async fn sync(&self) -> Result<(), Error> {
        let completion = self.cx.perform(Op::Fsync { fd: self.fd, data_only: false }).await;
        let synced = completion.result.map(|_| ());
        synced.map_err(|errno| Error::os("fsync", errno, self.path.display().to_string()))
    }

    /// Names in it, sorted.
    ///
    /// # Errors
    /// As opendir(3).
    pub fn list(&self) -> Result<Vec<String>, Error> {
        self.cx.driver().list_dir(&self.path)
    }

    /// Removes a file.
    ///
    /// # Errors
    /// As unlink(2).
    pub fn remove(&self, name: &str) -> Result<(), Error> {
        self.cx.driver().unlink(&self.path.join(name))
    }

    /// Renames a file in it, replacing the target.
    ///
    /// # Errors
    /// As rename(2).
    pub fn rename(&self, from: &str, to: &str) -> Result<(), Error> {
        self.cx.driver().rename(&self.path.join(from), &self.path.join(to))
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        self.cx.submit_ignored(Op::Close { fd: self.fd });
    }
}
