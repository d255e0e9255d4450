//! Searches for secrets in places where they must not be.
//!
//! Owns the search: every value that a test put into Vault, plain and as base64, URLs and JSON encode it, in every file
//! of a test or of the shared stack. Those files include Envoy's logs and audit entries, the last pages of its admin
//! interface, Redis's data, Vault's own audit log, and core files. Only Vault, the servers behind the gateway and the
//! agents in front of it may have the values; they keep them in memory, or in [`OF_HOLDERS`].

use std::collections::HashMap;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use portcullis_stack::{Envoy, Stack, known_secrets};

/// Shorter strings also occur by chance.
const SHORTEST: usize = 6;
/// Files of servers behind the gateway, and the key that an agent mounts.
const OF_HOLDERS: [&str; 3] = ["record.jsonl", "credential", "mounted-key"];

/// What every search of this run has read.
static FILES: AtomicUsize = AtomicUsize::new(0);
static BYTES: AtomicUsize = AtomicUsize::new(0);

/// A value in a file.
#[derive(Debug, PartialEq, Eq)]
pub struct Leak {
    pub file: PathBuf,
    /// The place in Vault where the value was put: no report contains the value itself.
    pub of: String,
    pub form: &'static str,
}

/// Every secret of this run in the files below `dir`.
pub fn search(dir: &Path) -> Vec<Leak> {
    let needles = Needles::new(&known_secrets::all());
    let mut leaks = Vec::new();
    let mut folders = vec![dir.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            let (path, kind) = (entry.path(), entry.file_type());
            let name = entry.file_name().to_string_lossy().into_owned();
            match kind {
                Ok(kind) if kind.is_dir() => folders.push(path),
                Ok(kind) if kind.is_file() && !OF_HOLDERS.contains(&name.as_str()) => {
                    let bytes = fs::read(&path).unwrap_or_default();
                    FILES.fetch_add(1, Ordering::Relaxed);
                    BYTES.fetch_add(bytes.len(), Ordering::Relaxed);
                    let found = needles.find(&bytes);
                    leaks.extend(found.into_iter().map(|(of, form)| Leak {
                        file: path.clone(),
                        of,
                        form,
                    }));
                }
                Ok(_) | Err(_) => {}
            }
        }
    }
    leaks
}

/// What was searched for and where, in all searches so far.
pub fn searched() -> String {
    let values = known_secrets::all();
    let values = values.iter().filter(|(value, _)| value.len() >= SHORTEST).count();
    let (files, bytes) = (FILES.load(Ordering::Relaxed), BYTES.load(Ordering::Relaxed));
    format!("{values} secrets of Vault were searched for in {files} files ({bytes} bytes)")
}

/// The report of the leaks; `None` without any.
pub fn report(leaks: &[Leak]) -> Option<String> {
    let line =
        |leak: &Leak| format!("{}: the secret of {}, {}", leak.file.display(), leak.of, leak.form);
    let lines: Vec<_> = leaks.iter().map(line).collect();
    (!lines.is_empty()).then(|| format!("secrets where none belongs:\n{}", lines.join("\n")))
}

/// The strings to search for, by their first bytes.
struct Needles {
    /// Whether any string begins with these two bytes.
    begins: Vec<bool>,
    by_start: HashMap<[u8; SHORTEST], Vec<(Vec<u8>, usize)>>,
    of: Vec<(String, &'static str)>,
}

impl Needles {
    fn new(secrets: &[(String, String)]) -> Self {
        let mut needles =
            Self { begins: vec![false; 1 << 16], by_start: HashMap::new(), of: Vec::new() };
        for (value, place) in secrets {
            let url: String = value
                .bytes()
                .map(|byte| match byte {
                    byte if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) => {
                        char::from(byte).to_string()
                    }
                    byte => format!("%{byte:02X}"),
                })
                .collect();
            let json = serde_json::Value::from(value.as_str()).to_string();
            let forms = [
                ("as it is", value.clone()),
                ("in a URL", url),
                ("in JSON", json.trim_matches('"').to_owned()),
                // The last base64 character depends on the bytes that follow.
                ("in base64", cut(STANDARD_NO_PAD.encode(value))),
                ("in base64 of URLs", cut(URL_SAFE_NO_PAD.encode(value))),
            ];
            for (form, text) in forms {
                needles.add(text.into_bytes(), place, form);
            }
        }
        needles
    }

    fn add(&mut self, text: Vec<u8>, place: &str, form: &'static str) {
        let Some(start) = text.first_chunk::<SHORTEST>().copied() else { return };
        let known = self.by_start.entry(start).or_default();
        if known.iter().all(|(other, _)| *other != text) {
            self.begins[usize::from(u16::from_be_bytes([start[0], start[1]]))] = true;
            known.push((text, self.of.len()));
            self.of.push((place.to_owned(), form));
        }
    }

    fn find(&self, bytes: &[u8]) -> Vec<(String, &'static str)> {
        let mut found = Vec::new();
        for (at, pair) in bytes.windows(2).enumerate() {
            if !self.begins[usize::from(u16::from_be_bytes([pair[0], pair[1]]))] {
                continue;
            }
            let Some(start) = bytes[at..].first_chunk::<SHORTEST>() else { break };
            for (text, of) in self.by_start.get(start).into_iter().flatten() {
                if bytes[at..].starts_with(text) && !found.contains(of) {
                    found.push(*of);
                }
            }
        }
        found.into_iter().map(|of| self.of[of].clone()).collect()
    }
}

fn cut(mut text: String) -> String {
    text.pop();
    text
}

/// Writes pages of an Envoy's admin interface when it is dropped. Declare it before the Envoy, so that it drops first.
#[derive(Debug)]
pub struct AdminPages {
    admin: String,
    dir: PathBuf,
}

impl AdminPages {
    pub fn of(envoy: &Envoy, dir: PathBuf) -> Self {
        Self { admin: envoy.admin_url(), dir }
    }
}

impl Drop for AdminPages {
    fn drop(&mut self) {
        let _ = fs::create_dir_all(&self.dir);
        for page in ["config_dump?include_eds", "stats", "clusters", "certs", "server_info"] {
            // A test may have ended its Envoy.
            let Ok(reply) = portcullis_stack::http::get(&format!("{}/{page}", self.admin)) else {
                break;
            };
            let name = page.split('?').next().unwrap_or(page);
            let _ = fs::write(self.dir.join(format!("admin-{name}.txt")), reply.body);
        }
    }
}

/// Writes pages and data of a running stack into files below `dir`.
pub fn dump(stack: &Stack, dir: &Path) -> std::io::Result<()> {
    drop(AdminPages::of(&stack.envoy, dir.join("pages")));
    for (number, valkey) in std::iter::once(&stack.valkey).chain(&stack.further_valkeys).enumerate()
    {
        fs::write(dir.join(format!("redis-{number}.txt")), everything_in(valkey.connect()?)?)?;
    }
    Ok(())
}

/// Every key and value of a Redis.
fn everything_in(mut redis: TcpStream) -> std::io::Result<Vec<u8>> {
    const SCRIPT: &str = r"
        local found, cursor = {}, '0'
        local function add(value)
            if type(value) == 'table' then for _, each in ipairs(value) do add(each) end
            else found[#found + 1] = tostring(value) end
        end
        local read = {
            string = function(key) return redis.call('GET', key) end,
            hash = function(key) return redis.call('HGETALL', key) end,
            list = function(key) return redis.call('LRANGE', key, 0, -1) end,
            set = function(key) return redis.call('SMEMBERS', key) end,
            zset = function(key) return redis.call('ZRANGE', key, 0, -1) end,
            stream = function(key) return redis.call('XRANGE', key, '-', '+') end,
        }
        repeat
            local page = redis.call('SCAN', cursor, 'COUNT', 1000)
            cursor = page[1]
            for _, key in ipairs(page[2]) do
                add(key)
                local kind = redis.call('TYPE', key).ok
                if read[kind] then add(read[kind](key)) end
            end
        until cursor == '0'
        return table.concat(found, '\n')
    ";
    let length = SCRIPT.len();
    write!(redis, "*3\r\n$4\r\nEVAL\r\n${length}\r\n{SCRIPT}\r\n$1\r\n0\r\n")?;
    let (mut reply, mut chunk) = (Vec::new(), vec![0; 1 << 16]);
    loop {
        let read = redis.read(&mut chunk)?;
        reply.extend_from_slice(&chunk[..read]);
        let line = reply.windows(2).position(|pair| pair == b"\r\n");
        let head = line.map(|end| (end, String::from_utf8_lossy(&reply[..end]).into_owned()));
        let whole = match &head {
            Some((end, head)) if head.starts_with('$') => {
                let size: usize = head[1..].parse().unwrap_or_default();
                reply.len() >= end + 2 + size
            }
            Some((_, head)) => return Err(std::io::Error::other(format!("Redis said {head}"))),
            None => false,
        };
        if whole {
            return Ok(reply);
        }
        if read == 0 {
            return Err(std::io::Error::other("Redis went away"));
        }
    }
}
