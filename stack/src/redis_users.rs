//! Who may do what in Redis: `envoy/redis/users.acl` with passwords, and a user who may do all.
//!
//! Owns the passwords of one stack. What the users may do is the shipped file's business.

use crate::bootstrap::Bootstrap;
use crate::error::Result;
use crate::files::{random_hex, write_private};
use std::path::{Path, PathBuf};

/// The users of one stack's Redis.
#[derive(Debug, Clone)]
pub struct RedisUsers {
    /// What `aclfile` names.
    pub file: PathBuf,
    /// The gateway's password, alone in a file, for Envoy.
    pub gateway_file: PathBuf,
    /// The operator's password.
    pub operator: String,
    /// Who sets Clusters up.
    pub admin: String,
}

impl RedisUsers {
    /// With new passwords; files in `dir`.
    pub fn create(root: &Path, dir: &Path) -> Result<Self> {
        let template = root.join("envoy/redis/users.acl");
        let [gateway, operator, admin] = [random_hex(16)?, random_hex(16)?, random_hex(16)?];
        let passwords = Bootstrap::default()
            .set("REDIS_PASSWORD", &gateway)
            .set("OPERATOR_PASSWORD", &operator);
        let rules = passwords.render(&template)?;
        let users = Self {
            file: dir.join("users.acl"),
            gateway_file: dir.join("redis-password"),
            operator,
            admin,
        };
        let all = format!("{rules}user admin on >{} ~* &* +@all\n", users.admin);
        write_private(&users.file, &all)?;
        write_private(&users.gateway_file, &gateway)?;
        Ok(users)
    }
}
