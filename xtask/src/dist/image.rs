//! An OCI image layout with one manifest and one layer that contains `plugin.wasm`: the form that Istio and Envoy
//! Gateway accept.
//!
//! Owns its bytes: the same module gives the same digest everywhere. `crane push` or `skopeo copy` uploads it to a
//! registry.

use super::{fault, sha256, write as write_file};
use crate::failure::{Failure, Result};
use flate2::{Compression, GzBuilder};
use serde_json::{Value, json};
use std::fs;
use std::io::Write as _;
use std::path::Path;

/// The file that both look for in the layer.
const NAME: &str = "plugin.wasm";

/// Writes the layout; returns the digest of the manifest, which is the `sha256` of a WasmPlugin.
pub(super) fn write(dir: &Path, module: &[u8]) -> Result<String> {
    let blobs = dir.join("blobs/sha256");
    fs::create_dir_all(&blobs).map_err(|error| fault(&blobs, &error))?;
    let blob = |bytes: &[u8], kind: &str| -> Result<Value> {
        let digest = sha256(bytes);
        write_file(&blobs.join(&digest), bytes)?;
        Ok(json!({"mediaType": kind, "digest": format!("sha256:{digest}"), "size": bytes.len()}))
    };
    let tar = archive(module)?;
    let layer = blob(&gzip(&tar)?, "application/vnd.oci.image.layer.v1.tar+gzip")?;
    let config = json!({
        "architecture": "wasm",
        "os": "wasip1",
        "config": {},
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{}", sha256(&tar))]},
    });
    let config = blob(config.to_string().as_bytes(), "application/vnd.oci.image.config.v1+json")?;
    let kind = "application/vnd.oci.image.manifest.v1+json";
    let manifest =
        json!({"schemaVersion": 2, "mediaType": kind, "config": config, "layers": [layer]});
    let manifest = manifest.to_string();
    let index = json!({"schemaVersion": 2, "manifests": [blob(manifest.as_bytes(), kind)?]});
    write_file(&dir.join("index.json"), index.to_string().as_bytes())?;
    write_file(&dir.join("oci-layout"), br#"{"imageLayoutVersion":"1.0.0"}"#)?;
    Ok(sha256(manifest.as_bytes()))
}

/// A tar (ustar) of this file, without an owner and a time.
fn archive(module: &[u8]) -> Result<Vec<u8>> {
    const BLOCK: usize = 512;
    let mut header = [0_u8; BLOCK];
    let mut put = |at: usize, bytes: &[u8]| {
        if let Some(place) = header.get_mut(at..at.saturating_add(bytes.len())) {
            place.copy_from_slice(bytes);
        }
    };
    put(0, NAME.as_bytes());
    put(100, b"0000644\0");
    put(108, b"0000000\0");
    put(116, b"0000000\0");
    put(124, format!("{:011o}\0", module.len()).as_bytes());
    put(136, b"00000000000\0");
    put(148, b"        ");
    put(156, b"0");
    put(257, b"ustar\x0000");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    if let Some(place) = header.get_mut(148..156) {
        place.copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }
    let size = module.len().div_ceil(BLOCK).saturating_mul(BLOCK);
    if module.len() >= 1 << 33 {
        return Err(Failure::new("the module is too large for a tar"));
    }
    let mut tar = header.to_vec();
    tar.extend_from_slice(module);
    // The end of the file's block, and two empty blocks.
    tar.resize(size.saturating_add(3 * BLOCK), 0);
    Ok(tar)
}

/// Gzips without a name or a time.
fn gzip(bytes: &[u8]) -> Result<Vec<u8>> {
    let mut writer = GzBuilder::new().mtime(0).write(Vec::new(), Compression::best());
    writer
        .write_all(bytes)
        .and_then(|()| writer.finish())
        .map_err(|error| Failure::new(format!("could not compress the layer: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_has_one_file_with_a_right_sum() {
        let tar = archive(b"\0asm").unwrap();
        assert_eq!(tar.len(), 512 * 4);
        assert_eq!(&tar[..11], NAME.as_bytes());
        assert_eq!(&tar[124..136], b"00000000004\0");
        assert_eq!(&tar[512..516], b"\0asm");
        let mut header = tar[..512].to_vec();
        header[148..156].fill(b' ');
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        assert_eq!(&tar[148..156], format!("{sum:06o}\0 ").as_bytes());
    }

    // Proves: X26
    #[test]
    fn a_layout_is_the_same_each_time_and_every_digest_in_it_is_that_of_a_blob() {
        let dir = std::env::temp_dir().join(format!("portcullis-oci-{}", std::process::id()));
        let digest = write(&dir, b"\0asm").unwrap();
        assert_eq!(write(&dir.join("again"), b"\0asm").unwrap(), digest);
        assert_ne!(write(&dir.join("other"), b"\0asm1").unwrap(), digest);
        let json =
            |file: &Path| -> Value { serde_json::from_slice(&fs::read(file).unwrap()).unwrap() };
        let index = json(&dir.join("index.json"));
        assert_eq!(index["manifests"][0]["digest"], format!("sha256:{digest}"));
        assert_eq!(index["manifests"].as_array().unwrap().len(), 1);
        let manifest = json(&dir.join("blobs/sha256").join(&digest));
        assert_eq!(manifest["layers"].as_array().unwrap().len(), 1);
        for part in [&manifest["config"], &manifest["layers"][0]] {
            let digest = part["digest"].as_str().unwrap().trim_start_matches("sha256:");
            let bytes = fs::read(dir.join("blobs/sha256").join(digest)).unwrap();
            assert_eq!(sha256(&bytes), digest);
            assert_eq!(part["size"], bytes.len());
        }
        fs::remove_dir_all(&dir).unwrap();
    }
}
