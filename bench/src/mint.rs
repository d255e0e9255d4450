//! A key pair for one run, and tokens signed with it. Knows nothing about their verification.

use crate::Result;
use jwt_simple::prelude::{ECDSAP256KeyPairLike, ES256KeyPair};
use portcullis_load::{Claims, Minted};
use serde::{Deserialize, Serialize};

/// The key id in the set and in the tokens.
const KEY_ID: &str = "bench";

/// Longer than any run.
const LIFETIME_HOURS: u64 = 12;

/// Claims that RFC 7519 does not define.
#[derive(Clone, Serialize, Deserialize)]
struct Own {
    org: String,
    role: String,
    tier: String,
}

pub(crate) fn mint(claims: Claims) -> Result<Minted> {
    let key = ES256KeyPair::generate().with_key_id(KEY_ID);
    let stranger = ES256KeyPair::generate().with_key_id(KEY_ID);
    let of = |subject: &str| {
        let Claims { issuer, audience, org, role, tier, .. } = claims.clone();
        let lifetime = jwt_simple::prelude::Duration::from_hours(LIFETIME_HOURS);
        jwt_simple::prelude::Claims::with_custom_claims(Own { org, role, tier }, lifetime)
            .with_issuer(issuer)
            .with_audience(audience)
            .with_subject(subject)
    };
    let jwk: serde_json::Value = serde_json::from_str(&key.public_key().to_jwk())?;
    Ok(Minted {
        jwks: serde_json::json!({"keys": [jwk]}).to_string(),
        token: key.sign(of(&claims.subject))?,
        tight: key.sign(of(&claims.tight_subject))?,
        forged: stranger.sign(of(&claims.subject))?,
    })
}
