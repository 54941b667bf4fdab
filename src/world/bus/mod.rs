//! The DNS servers that the manager of a link has for it, asked over the system's D-Bus: systemd-resolved's, then
//! NetworkManager's.
//!
//! Neither program has to run. If a bus or a service is absent or does not answer, that costs half a second at most
//! and a debug line, and it is not asked again for a while. Its last answer stays valid meanwhile; otherwise
//! resolvers of other uplinks would be asked. A question never starts a service.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use clatd_stages::settings::DnsServer;
use futures_util::StreamExt;
use futures_util::stream::select_all;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout, timeout_at};
use tracing::debug;
use zbus::{Connection, MessageStream};

use super::OnChange;
use call::{changes_any, is_owner_change};

mod call;
mod namespace;
mod network_manager;
mod resolved;

/// The time for all questions about one link.
const PATIENCE: Duration = Duration::from_millis(450);
/// For how long a service that did not answer is not asked again.
const SILENCE: Duration = Duration::from_secs(60);
/// For how long a bus that has gone is not asked: it is being restarted.
const RESTART: Duration = Duration::from_secs(3);

const BUS: &str = "the system's D-Bus";

/// The properties that contain servers, or the objects that have those.
const SERVERS: &[&str] = &["DNS", "Nameservers", "NameserverData", "Ip4Config", "Ip6Config"];

/// The managers of links.
#[derive(Clone)]
pub(super) struct Managers {
    bus: Arc<Mutex<Bus>>,
    notify: OnChange,
}

#[derive(Default)]
struct Bus {
    connection: Option<Connection>,
    /// Who did not answer, and until when it is not asked.
    silent: BTreeMap<&'static str, Instant>,
    /// The last answer of each service for each device, which had this index.
    said: BTreeMap<(&'static str, String), (u32, Vec<IpAddr>)>,
}

impl Managers {
    /// Connects when first asked. `notify` is called when the servers of any link have changed.
    pub(super) fn new(notify: OnChange) -> Self {
        Self {
            bus: Arc::default(),
            notify,
        }
    }

    /// The servers of a link, in the managers' order, each once.
    pub(super) async fn servers(&self, device: &str, index: u32) -> Vec<DnsServer> {
        let deadline = Instant::now() + PATIENCE;
        if let Some(connection) = self.connection().await {
            let connection = &connection;
            tokio::join!(
                self.learn(resolved::NAME, (device, index), deadline, async {
                    namespace::same_as_ours(connection, resolved::SERVICE).await?;
                    resolved::servers(connection, index).await
                }),
                self.learn(network_manager::NAME, (device, index), deadline, async {
                    namespace::same_as_ours(connection, network_manager::SERVICE).await?;
                    network_manager::servers(connection, device).await
                }),
            );
        }
        let bus = self.bus.lock().await;
        let mut servers = Vec::new();
        for who in [resolved::NAME, network_manager::NAME] {
            let said = bus.said.get(&(who, device.to_owned())).filter(|said| said.0 == index);
            let said = said.into_iter().flat_map(|said| &said.1);
            let said: Vec<_> = said.filter_map(|address| server_on(device, *address)).collect();
            if !said.is_empty() {
                let shown: Vec<_> = said.iter().map(ToString::to_string).collect();
                debug!("{who} has these DNS servers for {device}: {}", shown.join(", "));
            }
            for server in said {
                if !servers.contains(&server) {
                    servers.push(server);
                }
            }
        }
        servers
    }

    /// The connection, made if there is none. Others who ask meanwhile wait no longer than the first one.
    async fn connection(&self) -> Option<Connection> {
        let mut bus = timeout(PATIENCE, self.bus.lock()).await.ok()?;
        if let Some(connection) = &bus.connection {
            return Some(connection.clone());
        }
        if bus.is_silent(BUS) {
            return None;
        }
        match timeout(PATIENCE, self.connect()).await {
            Ok(Ok(connection)) => {
                bus.connection = Some(connection);
                bus.silent.clear();
            }
            Ok(Err(error)) => debug!("cannot ask {BUS} for DNS servers: {error}"),
            Err(_) => {
                debug!("{BUS} does not answer");
                bus.silence(BUS, SILENCE);
            }
        }
        bus.connection.clone()
    }

    async fn connect(&self) -> zbus::Result<Connection> {
        let connection = zbus::connection::Builder::system().build().await?;
        // Subscribed before anything is read, so that no change in between is lost.
        let mut signals = Vec::new();
        for rule in resolved::changes().into_iter().chain(network_manager::changes()) {
            signals.push(MessageStream::for_match_rule(rule?, &connection, None).await?);
        }
        tokio::spawn(self.clone().tell_changes(signals));
        Ok(connection)
    }

    /// Runs until the bus goes away. When it may be back, that counts as a change.
    async fn tell_changes(self, signals: Vec<MessageStream>) {
        let mut signals = select_all(signals);
        while let Some(Ok(signal)) = signals.next().await {
            if is_owner_change(&signal) || changes_any(&signal, SERVERS) {
                debug!("DNS servers of links have changed");
                // The signal may come from a service that did not answer before.
                self.bus.lock().await.silent.clear();
                (self.notify)();
            }
        }
        debug!("{BUS} has gone");
        {
            let mut bus = self.bus.lock().await;
            bus.connection = None;
            bus.silence(BUS, RESTART);
        }
        tokio::time::sleep(RESTART).await;
        (self.notify)();
    }

    /// Stores the answer of a service until the deadline. Silence keeps the last answer; a refusal removes it.
    async fn learn(
        &self,
        who: &'static str,
        (device, index): (&str, u32),
        deadline: Instant,
        asked: impl Future<Output = zbus::Result<Vec<IpAddr>>>,
    ) {
        if self.bus.lock().await.is_silent(who) {
            return;
        }
        let answer = timeout_at(deadline, asked).await;
        let mut bus = self.bus.lock().await;
        match answer {
            Ok(Ok(servers)) => _ = bus.said.insert((who, device.to_owned()), (index, servers)),
            Ok(Err(zbus::Error::InputOutput(error))) => debug!("cannot ask {who} for DNS servers: {error}"),
            Ok(Err(error)) => {
                debug!("{who} tells no DNS servers: {error}");
                bus.said.remove(&(who, device.to_owned()));
            }
            Err(_) => {
                debug!("{who} does not answer");
                bus.silence(who, SILENCE);
            }
        }
    }
}

impl Bus {
    fn is_silent(&self, who: &str) -> bool {
        self.silent.get(who).is_some_and(|until| *until > Instant::now())
    }

    fn silence(&mut self, who: &'static str, time: Duration) {
        self.silent.insert(who, Instant::now() + time);
    }
}

/// A server that is reached through the link. A resolver on this host is not: RFC 8880 section 7.1 wants the question
/// to avoid it.
fn server_on(device: &str, address: IpAddr) -> Option<DnsServer> {
    let address = address.to_canonical();
    if address.is_loopback() || address.is_unspecified() || address.is_multicast() {
        return None;
    }
    let is_link_local = matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local());
    Some(DnsServer {
        address,
        device: is_link_local.then(|| device.to_owned()),
    })
}

/// An address as its bytes, as both services write them.
fn address_of(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
        return Some(v4.into());
    }
    <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_on_this_host_are_none_of_the_link() {
        let shown = |address: &str| server_on("wan0", address.parse().unwrap()).map(|server| server.to_string());
        for here in [
            "127.0.0.53",
            "::1",
            "::",
            "0.0.0.0",
            "::ffff:127.0.0.1",
            "ff02::fb",
            "224.0.0.251",
        ] {
            assert_eq!(shown(here), None, "{here}");
        }
        assert_eq!(shown("fe80::1").as_deref(), Some("fe80::1%wan0"));
        assert_eq!(shown("2001:db8::1").as_deref(), Some("2001:db8::1"));
        assert_eq!(shown("::ffff:192.0.2.1").as_deref(), Some("192.0.2.1"));
    }

    #[test]
    fn addresses_have_four_or_sixteen_bytes() {
        assert_eq!(address_of(&[192, 0, 2, 1]), Some([192, 0, 2, 1].into()));
        assert_eq!(address_of(&[0; 16]), Some([0; 16].into()));
        for wrong in [0, 3, 5, 15, 17] {
            assert_eq!(address_of(&vec![0; wrong]), None, "{wrong}");
        }
    }
}
