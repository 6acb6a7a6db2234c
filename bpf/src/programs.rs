//! The programs that were compiled into this crate: opened, loaded, and their maps by name.
//!
//! One object per group of features, so that a kernel that refuses one leaves the others. With CHAOS_LIBBPF in the environment,
//! libbpf's own messages, the verifier's among them, go to stderr: they say why a kernel refuses a program. Next: `link`.

use std::io::Read as _;

use libbpf_rs::{MapCore, MapFlags, MapHandle, Object, ObjectBuilder, OpenObject, PrintLevel};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::error::{During as _, Error, Result};

/// Objects by the name of their source.
const OBJECTS: &[(&str, &[u8])] = include!(concat!(env!("OUT_DIR"), "/objects.rs"));

/// Whether there are any: a build without clang has none.
#[must_use]
pub const fn are_built() -> bool {
    !OBJECTS.is_empty()
}

/// Opens an object, without loading it.
///
/// # Errors
/// This build has no programs, or libbpf cannot read it.
pub fn open(name: &str) -> Result<OpenObject> {
    let Some((_, bytes)) = OBJECTS.iter().find(|(known, _)| *known == name) else {
        return Err(Error::unsupported(format!(
            "open the programs of {name}: this build has none; install clang (Debian: apt install clang) and build again"
        )));
    };
    let is_verbose = std::env::var_os("CHAOS_LIBBPF").is_some();
    libbpf_rs::set_print(is_verbose.then_some((PrintLevel::Warn, |_, text| eprint!("{text}"))));
    ObjectBuilder::default().open_memory(bytes).during(|| format!("open the programs of {name}"))
}

/// Names of all programs of all objects.
///
/// # Errors
/// As [`open`].
pub fn names() -> Result<Vec<String>> {
    let mut names = Vec::new();
    for (name, _) in OBJECTS {
        let object = open(name)?;
        names.extend(object.progs().map(|program| program.name().to_string_lossy().into_owned()));
    }
    Ok(names)
}

/// Opens and loads an object.
///
/// # Errors
/// As [`open`]; the kernel refuses it.
pub fn load(name: &str) -> Result<Object> {
    load_opened(name, open(name)?)
}

/// Loads an object that was opened.
///
/// # Errors
/// The kernel refuses it.
pub fn load_opened(name: &str, object: OpenObject) -> Result<Object> {
    object.load().map_err(|error| {
        Error::unsupported(format!(
            "load the programs of {name}: {error}; needs CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN, and a kernel that `chaos doctor` says can run them"
        ))
    })
}

/// A map of a loaded object, which outlives it.
///
/// # Errors
/// There is no such map: the program and its user space differ.
pub fn map(object: &Object, name: &str) -> Result<MapHandle> {
    let found = object.maps().find(|map| map.name() == name);
    let found =
        found.ok_or_else(|| Error::failed(format!("find map {name}: the object has none")))?;
    MapHandle::try_from(&found).during(|| format!("open map {name}"))
}

/// Writes the entry of an array.
///
/// # Errors
/// The kernel refuses it.
pub fn write<T: IntoBytes + Immutable>(map: &impl MapCore, index: u32, value: &T) -> Result<()> {
    map.update(index.as_bytes(), value.as_bytes(), MapFlags::ANY)
        .during(|| format!("write map {:?}", map.name()))
}

/// Reads the entry of an array.
///
/// # Errors
/// The kernel refuses it, or it has another size.
pub fn read<T: FromBytes>(map: &impl MapCore, index: u32) -> Result<T> {
    let bytes = map
        .lookup(index.as_bytes(), MapFlags::ANY)
        .during(|| format!("read map {:?}", map.name()))?;
    bytes.and_then(|bytes| T::read_from_bytes(&bytes).ok()).ok_or_else(|| {
        Error::failed(format!(
            "read map {:?}: its entry {index} is missing or of another size",
            map.name()
        ))
    })
}

/// Reads the entry of an array that has one for each processor.
///
/// # Errors
/// As [`read`].
pub fn read_per_cpu<T: FromBytes>(map: &impl MapCore, index: u32) -> Result<Vec<T>> {
    let all = map
        .lookup_percpu(index.as_bytes(), MapFlags::ANY)
        .during(|| format!("read map {:?}", map.name()))?;
    Ok(all
        .unwrap_or_default()
        .iter()
        .filter_map(|bytes| T::read_from_prefix(bytes).ok())
        .map(|(one, _)| one)
        .collect())
}

/// The kernel's number of a map.
///
/// # Errors
/// The kernel does not say.
pub fn map_id(map: &MapHandle) -> Result<u32> {
    Ok(map.info().during(|| format!("ask for map {:?}", map.name()))?.info.id)
}

/// A program of a loaded object.
///
/// # Errors
/// There is no such program.
pub fn program<'a>(object: &'a Object, name: &str) -> Result<libbpf_rs::ProgramMut<'a>> {
    object
        .progs_mut()
        .find(|program| program.name() == name)
        .ok_or_else(|| Error::failed(format!("find program {name}: the object has none")))
}

/// Runs an iterator of a loaded object, from its begin to its end, for what it does.
///
/// # Errors
/// There is no such program, or the kernel refuses.
pub fn iterate(object: &Object, name: &str) -> Result<()> {
    let doing = || format!("run iterator {name}");
    let link = program(object, name)?.attach().during(doing)?;
    let mut iterator = libbpf_rs::Iter::new(&link).during(doing)?;
    let mut shown = Vec::new();
    iterator.read_to_end(&mut shown).map(drop).during(doing)
}
