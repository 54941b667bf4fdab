//! The file that keeps a lease from one run to the next.

use std::io;
use std::path::Path;

use clatd_stages::dhcp6::{Duid, Lease};
use serde::{Deserialize, Serialize};
use tracing::{debug, warn};

use super::machine::boot_id;
use crate::trusted;

const VERSION: u32 = 1;

#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    version: u32,
    /// The times in the lease count from this start of the computer.
    boot_id: String,
    /// Whose lease it is.
    client: Duid,
    lease: Lease,
}

/// The lease in the file, if it is one of ours and its times can be told.
pub(super) fn load(path: &Path, client: &Duid) -> Option<Lease> {
    let text = match trusted::read(path) {
        Ok(text) => text?,
        Err(error) if trusted::is_distrust(&error) => {
            warn!("the stored DHCPv6 lease is not used: {error}");
            return None;
        }
        Err(error) => {
            debug!("{}: {error}", path.display());
            return None;
        }
    };
    let kept: Kept = match serde_json::from_str(&text) {
        Ok(kept) => kept,
        Err(error) => {
            debug!("{} does not contain a DHCPv6 lease: {error}", path.display());
            return None;
        }
    };
    let ours = kept.version == VERSION && kept.client == *client && Some(kept.boot_id) == boot_id();
    ours.then_some(kept.lease)
}

/// Writes the lease for nobody else to read, replacing what is there in one go.
pub(super) fn save(path: &Path, client: &Duid, lease: &Lease) -> io::Result<()> {
    let kept = Kept {
        version: VERSION,
        boot_id: boot_id().unwrap_or_default(),
        client: client.clone(),
        lease: lease.clone(),
    };
    let text = serde_json::to_vec(&kept)?;
    trusted::directory(path.parent().unwrap_or(path))?;
    trusted::replace(path, &text)
}

pub(super) use trusted::remove;

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::time::Duration;

    use clatd_stages::dhcp6::Delegated;

    use super::*;

    fn lease() -> Lease {
        Lease {
            server: Duid::from_machine(b"server"),
            iaid: 7,
            t1_s: 50,
            t2_s: 80,
            obtained: Duration::from_millis(1234),
            prefixes: vec![Delegated {
                prefix: "2001:db8:1::/56".parse().unwrap(),
                preferred_s: 100,
                valid_s: u32::MAX,
                obtained: Duration::from_millis(1234),
            }],
        }
    }

    #[test]
    fn a_lease_comes_back_as_it_went() {
        let directory = tempfile::tempdir().unwrap();
        let (path, client) = (directory.path().join("pd-wan0.json"), Duid::from_machine(b"us"));
        let victim = directory.path().join("victim");
        fs::write(&victim, "precious").unwrap();
        symlink(&victim, &path).unwrap();

        save(&path, &client, &lease()).unwrap();
        save(&path, &client, &lease()).unwrap();

        assert_eq!(load(&path, &client), Some(lease()));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
        assert_eq!(load(&path, &client), None, "others can write it");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(load(&path, &Duid::from_machine(b"another")), None);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
        assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 2);
        remove(&path).unwrap();
        remove(&path).unwrap();
        assert_eq!(load(&path, &client), None);
    }

    #[test]
    fn files_that_keep_no_lease_of_this_start_are_none() {
        let directory = tempfile::tempdir().unwrap();
        let (path, client) = (directory.path().join("pd-wan0.json"), Duid::from_machine(b"us"));
        save(&path, &client, &lease()).unwrap();
        let good = fs::read_to_string(&path).unwrap();
        let boot = boot_id().unwrap();
        for bad in [
            good.replace(&boot, "another"),
            good.replace("\"version\":1", "\"version\":2"),
            good.replace("/56", "/560"),
            good[..good.len() / 2].to_owned(),
            String::new(),
            "[]".into(),
        ] {
            fs::write(&path, &bad).unwrap();
            assert_eq!(load(&path, &client), None, "{bad}");
        }
        fs::write(&path, good).unwrap();
        assert!(load(&path, &client).is_some());
    }
}
