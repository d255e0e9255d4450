//! Compares the build that an Envoy runs, as the filter reports it, with the build of a module on disk.
//!
//! Owns where each is found. A file does not show which module runs: Envoy reads it once.

use std::path::Path;

use super::Finding;

/// The mark before the build in a module.
const MARK: &[u8] = b"portcullis-build=";
/// The name of the filter's gauge; its value is the time of loading.
const GAUGE: &str = "portcullis_build_loaded_timestamp_seconds";
const CHECK: &str = "envoy.build";

/// The build of the module in a file.
pub(super) fn of_file(path: &Path) -> Option<String> {
    of_module(&std::fs::read(path).ok()?)
}

fn of_module(module: &[u8]) -> Option<String> {
    const LONGEST: usize = 64;
    let start = module.windows(MARK.len()).position(|window| window == MARK)?;
    let rest = module.get(start.checked_add(MARK.len())?..)?;
    let build: Vec<u8> = rest.iter().copied().take(LONGEST).take_while(|b| *b != b';').collect();
    let plain = !build.is_empty() && build.iter().all(u8::is_ascii_graphic);
    plain.then(|| String::from_utf8(build).ok()).flatten()
}

/// The build that was loaded last.
pub(super) fn running(stats: &[(&str, u64)]) -> Option<String> {
    let loaded = stats.iter().filter_map(|(name, loaded_at)| {
        let build = name.split_once(GAUGE)?.1.split_once(".build.=.")?.1.split(';').next()?;
        Some((*loaded_at, build))
    });
    loaded.max().map(|(_, build)| build.to_owned())
}

/// Compares the running build with the expected one: of the named module, and of the file that Envoy was given.
pub(super) fn finding(
    running: Option<&str>,
    named: Option<&str>,
    on_disk: Option<&str>,
) -> Finding {
    let Some(running) = running else {
        let next =
            "call once, and look again; modules before this version do not say which they are";
        return Finding::unknown(CHECK, "the filter does not say which build it is", next);
    };
    match (named, on_disk) {
        (Some(named), _) if named != running => Finding::bad(
            CHECK,
            format!("{running} runs; --module is {named}"),
            "deploy that module, and restart Envoy or update its listener",
        ),
        (_, Some(on_disk)) if on_disk != running => Finding::bad(
            CHECK,
            format!("{running} runs; the module's file is {on_disk} by now"),
            "restart Envoy, or give the file another name and update the listener: Envoy reads it once",
        ),
        (_, _) => Finding::good(CHECK, format!("{running} runs")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::State;
    use super::*;

    // Finding 9.12: doctor hashed the module on disk, and not the one that ran.
    #[test]
    fn what_runs_is_told_from_what_is_on_disk() {
        let module = b"\0asm...portcullis-build=0.1.0+ab12cd34ef56;configuration";
        assert_eq!(of_module(module).as_deref(), Some("0.1.0+ab12cd34ef56"));
        assert_eq!(of_module(b"\0asm..."), None);
        let name = |build| format!("wasmcustom.{GAUGE}.build.=.{build};");
        let (old, new) = (name("0.1.0+old"), name("0.1.0+new"));
        let running = running(&[(&new, 200), (&old, 100), ("other", 999)]);
        assert_eq!(running.as_deref(), Some("0.1.0+new"));
        let state = |named, on_disk| finding(running.as_deref(), named, on_disk).state;
        assert_eq!(state(None, Some("0.1.0+new")), State::Good);
        assert_eq!(state(Some("0.1.0+old"), Some("0.1.0+new")), State::Bad);
        assert_eq!(state(None, Some("0.1.0+newer")), State::Bad);
        assert_eq!(finding(None, None, None).state, State::Unknown);
    }
}
